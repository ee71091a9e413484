"""The kind of run that requests an upload link per row and writes them to a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcb_ops.i18n import Text, _
from tcb_ops.kinds import Kind
from tcb_ops.runs.next_commands import after_list

if TYPE_CHECKING:
    from tcb_ops.reports.summary import NextAction
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings


class LinksKind(Kind):
    """Links: nothing is sent to the store, and links.csv has the only copy of the links."""

    name = "links"
    calls_at = "tcb_ops.runs.calls:Calls"
    main = True
    label = _("links")
    report_title = _("Upload links report")
    done = _("issued with a link")
    writes_links = True

    def next_step(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return a retry, or a corrected list."""
        return after_list(settings, run, actions)


LINKS = LinksKind()

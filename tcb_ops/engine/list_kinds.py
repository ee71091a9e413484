"""The core's kinds of runs, whose rows are those of a path list: links and upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.i18n import Text, _, pgettext
from tcb_ops.kinds import Kind, row_count
from tcb_ops.model import Outcome, Row, RunSettings, Want

if TYPE_CHECKING:
    from tcb_ops.engine.calls import CallContext, Calls
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.reports.summary import NextAction
    from tcb_ops.settings import Settings


class ListKind(Kind):
    """A kind whose rows are those of a path list, which may have to be corrected."""

    def next_command(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return a retry of the rows that may succeed unchanged; where there are none, the run of a corrected copy of the list."""
        from tcb_ops.engine.next_commands import fixed_list, retry

        to_correct = sum(action.group.rows for action in actions if action.in_list)
        if helped := [action for action in actions if action.retried and not action.in_list]:
            rows = row_count(sum(action.retried for action in helped))
            return _("When the causes are fixed, run {rows} again:", rows=rows), retry(settings, run, actions)
        if not to_correct:
            return None
        purpose = _("Correct {rows} in a copy of failed.csv, failed-fixed.csv, then run:")
        return purpose.format(rows=row_count(to_correct)), fixed_list(settings, run)


class LinksKind(ListKind):
    """Links: nothing is sent to the store, and links.csv has the only copy of the links."""

    name = "links"
    label = _("links")
    report_title = _("Upload links report")
    done = _("issued with a link")
    main = writes_links = True
    keeps_headers = False
    wants = Want.FILE

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of links."""
        from tcb_ops.engine.calls import Calls

        return Calls(context)


class UploadKind(ListKind):
    """Uploads. With --backup, each path is looked at before its file is sent."""

    name = "upload"
    label = _("upload")
    report_title = _("Upload report")
    done = _("uploaded")
    question = _("Upload to {live_environments} of {api_base}?")
    changed = pgettext("by a run", "overwritten")
    replacing = frozenset({Outcome.UPLOADED})
    wants = Want.FILE
    main = changes_store = sends_files = asks_store = clustered = True

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of an upload; those with a backup look at each path before they send."""
        from tcb_ops.engine.calls import open_upload_calls

        return open_upload_calls(context)

    def settings_of(self, run: str, settings: RunSettings, parent: str) -> RunSettings:
        """Return the settings; a new run has a backup folder of its own, and a retry shares that of its original."""
        if not settings.backup or parent:
            return settings
        return replace(settings, backup=str(Path(settings.backup) / run))

    def stored_headers(self, row: Row) -> tuple[str | None, str | None]:
        """Return the object's headers; a type that the list does not give is that of the extension."""
        from tcb_ops.lists.row_files import content_type_of

        return row.content_type or content_type_of(row.path, row.file), row.cache_control


LINKS, UPLOAD = LinksKind(), UploadKind()

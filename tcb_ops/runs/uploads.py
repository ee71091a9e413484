"""The kind of run that uploads a file per row, each with its own link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tcb_ops.i18n import Text, _
from tcb_ops.kinds import Kind, parts
from tcb_ops.lists.row_files import content_type_of
from tcb_ops.model import Outcome, Row
from tcb_ops.runs.next_commands import after_list, upload_options
from tcb_ops.settings import without_dots

if TYPE_CHECKING:
    from tcb_ops.reports.summary import NextAction
    from tcb_ops.runs.calls import CallContext, Calls
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.settings import Settings

IfExists: TypeAlias = Literal["overwrite", "skip", "fail"]
OVERWRITE = "overwrite"
"""What an upload does about a file that is there already, unless it is told otherwise."""


class UploadKind(Kind):
    """Uploads. With --backup or --if-exists, each path is looked at before its file is sent."""

    name = "upload"
    calls_at = "tcb_ops.runs.calls:UploadCalls"
    main = True
    label = _("upload")
    report_title = _("Upload report")
    done = _("uploaded")
    question = _("Upload to {live_environments} of {api_base}?")
    changed = (
        _("The files of this upload were overwritten by run {run} on {at}."),
        _("{files:,} of {total:,} files of this upload were overwritten by run {run} on {at}."),
    )
    mark = _("overwritten by {run}"), _("partly overwritten by {run}")
    replacing = frozenset({Outcome.UPLOADED})
    changes_store = True
    sends_files = True
    clustered = True

    def options_of(self, run: str, options: Mapping[str, Any], parent: str) -> dict[str, Any]:
        """Return the options; a new run has a backup folder of its own, and a retry shares that of its original."""
        kept = dict(options)
        if kept.get("backup") and not parent:
            kept["backup"] = str(Path(kept["backup"]) / run)
        return kept

    def stored_headers(self, row: Row) -> tuple[str | None, str | None]:
        """Return the object's headers; a type that the list does not give is that of the extension."""
        return row.content_type or content_type_of(row.path, row.file), row.cache_control

    def calls(self, context: CallContext) -> Calls:
        """Return the calls for uploads."""
        for make in parts("upload_calls"):
            if (calls := make(context)) is not None:
                own: Calls = calls
                return own
        return super().calls(context)

    def resume_options(self, run: RunRecord, *, canary: bool) -> list[str]:
        """Return the root and what protects environments and files."""
        if run.parent:
            return []
        words = ["--root", without_dots(run.root)]
        words += ["--skip-unchanged"] if run.settings.get("skip_unchanged") else []
        if canary and run.settings.get("canary"):
            words += ["--canary", str(run.settings["canary"])]
        return words

    def list_options(self, run: RunRecord) -> list[str]:
        """Return the options that protect what it overwrites."""
        return upload_options(run)

    def next_step(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return a retry, or a corrected list."""
        return after_list(settings, run, actions)


UPLOAD = UploadKind()

"""Files of folders, and files that are stored already: list, sync; confirm, delete, undo and its backup."""

from enum import unique
from typing import TYPE_CHECKING

from tcb_ops.details import DetailCodes
from tcb_ops.hooks import BackupHooks, Feature, StoredHooks, lazily
from tcb_ops.i18n import N_, _, pgettext
from tcb_ops.model import Outcome, Reason


class StoredOutcome:
    """How a row about a stored file ended."""

    PRESENT = Outcome.define("present", _("present"), 25, succeeded=True)
    ABSENT = Outcome.define("absent", _("absent"), 26)
    DIFFERENT = Outcome.define("different", _("different"), 27)
    """The stored bytes are not those that were uploaded."""
    FOREIGN = Outcome.define("foreign", _("foreign"), 28)
    """The file was written in parts, so by another tool."""
    STALE = Outcome.define("stale", _("stale"), 29)
    """A cache in front of the store still serves an older object."""
    UNDONE = Outcome.define("undone", pgettext("outcome", "undone"), 29, succeeded=True, taken_back=True)
    """The upload was undone, and the store has what the undo left there."""
    DELETED = Outcome.define("deleted", _("deleted"), 30, succeeded=True)
    ALREADY_GONE = Outcome.define("already_gone", _("already gone"), 31, succeeded=True)
    RESTORED = Outcome.define("restored", _("restored"), 32, succeeded=True, stored=True)
    LEFT = Outcome.define("left", pgettext("outcome", "left as it was"), 32, succeeded=True)
    """Nothing of the upload was at the path, and nothing was touched."""
    CONFLICT = Outcome.define("conflict", _("conflict"), 33)
    """Somebody else has changed the file since. Nothing was changed."""
    NOT_UNDOABLE = Outcome.define("not_undoable", _("cannot be undone"), 34)


class StoredReason:
    """Why a row about a stored file did not succeed."""

    ABSENT = Reason.register("absent")
    DIFFERENT = Reason.register("different")
    FOREIGN = Reason.register("foreign")
    STALE = Reason.register("stale")
    CONFLICT = Reason.register("conflict")
    NOT_UNDOABLE = Reason.register("not_undoable")
    BACKUP_FAILED = Reason.register("backup_failed")
    BACKUP_DAMAGED = Reason.register("backup_damaged")
    NO_CHECKSUM = Reason.register("no_checksum")


@unique
class StoredCode(DetailCodes):
    """The codes of stored files."""

    BACKUP_ACCESS = _("{file} cannot be written or read ({why}).")
    BACKUP_DAMAGED = _("{file} in the backup is missing or damaged.")
    DOWNLOAD_STATUS = _("The store returned HTTP {status} for the download link.")
    FILE_LEFT_OUT = _("The platform's response does not mention this file; trying again may help.")
    NO_BACKUP = _("Run {run} had uploaded the earlier version, and there is no backup of it.")
    NOT_KNOWN_WHOSE = _(
        "The upload got no answer for this file, and there is no backup: whether the file that is there is the upload's or "
        "somebody else's is not known."
    )
    SAVED_AS_SENT = _(
        "The saved file has the same bytes as the file that the upload sent, so it may not be what was there before."
    )
    WRITTEN_SINCE = _("Run {run} has uploaded to this path, or deleted its file, since.")
    NOT_UPLOADED_HERE = _("No run of this ledger uploaded the file that is there.")
    PLATFORM_FILES = _("The platform's response does not list every file in {field}; trying again may help.")


if TYPE_CHECKING:
    from tcb_ops.features.stored import backup as _backup
    from tcb_ops.features.stored import calls as _calls
    from tcb_ops.features.stored import panel as _panel
    from tcb_ops.features.stored import queries as _queries
    from tcb_ops.features.stored import specs as _specs
    from tcb_ops.features.stored import urls as _urls
else:
    _backup, _calls, _panel, _queries, _specs, _urls = lazily(
        __name__, "backup", "calls", "panel", "queries", "specs", "urls"
    )

FEATURE = Feature(
    kinds={
        "confirm": "tcb_ops.features.stored.kinds:CONFIRM",
        "delete": "tcb_ops.features.stored.kinds:DELETE",
        "undo": "tcb_ops.features.stored.kinds:UNDO",
    },
    commands={
        "run": {
            "tcb_ops.features.stored.command:list_": N_("Make a path list of a file or a folder."),
        },
        "stored": {
            "tcb_ops.features.stored.command:sync": N_("Upload what is new or changed in a folder."),
            "tcb_ops.features.stored.command:files_": N_(
                "Show what runs stored in an environment, and what became of it."
            ),
            "tcb_ops.features.stored.command:confirm": N_("Confirm that uploaded files are there."),
            "tcb_ops.features.stored.command:undo": N_(
                "Undo an upload: restore what it overwrote, delete what it added."
            ),
            "tcb_ops.features.stored.command:delete": N_(
                "Delete uploaded files from the merchants' environments."
            ),
        },
    },
    public=[
        "tcb_ops.features.stored.api:confirm",
        "tcb_ops.features.stored.api:delete",
        "tcb_ops.features.stored.api:start_confirm",
        "tcb_ops.features.stored.api:start_delete",
        "tcb_ops.features.stored.api:start_undo",
        "tcb_ops.features.stored.api:undo",
        "tcb_ops.features.stored.listing:files",
        "tcb_ops.features.stored.urls:DownloadLink",
        "tcb_ops.features.stored.urls:url",
    ],
    reasons="features/stored/reasons.csv",
    hooks=[
        BackupHooks(
            calls=_calls.CheckedUploadCalls,
            check_folder=_backup.check_folder,
            check_resumed=_specs.check_resumed_backup,
        ),
        StoredHooks(
            after_upload=_queries.after_upload,
            changed_by=_queries.changes_of_own,
            changed_lines=_queries.changed_lines,
            check_beside=_specs.check_beside,
            panel=_panel.StoredFiles,
            row_links=_urls.row_links,
            row_urls=_urls.row_urls,
            urls=_urls.urls,
        ),
    ],
)

"""What undo, delete and confirm decide about a file. Pure; `ledger.files` says whose file it is.

An undo decides twice. `undo_want` is asked when it is planned, and again right before it acts: the ledger and the backup say what
is wanted. Then the store says what is there, and `undo_step` whether the file is restored, deleted or left.

==================  ==========================================================================================
`sent`              MD5s that the upload noted in its backup before it sent them
`now`, `before`     what is at a path at this moment, and what was there before the upload: MD5s
`certain`           an upload of which it is known what it left at the path
`left` (outcome)    an undo found nothing of its upload at the path, and touched nothing
==================  ==========================================================================================

Sources: batchDownloadFile, batchDeleteFile, and COS's HEAD Object.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from tcb_ops.details import detail
from tcb_ops.features.stored import StoredCode, StoredOutcome
from tcb_ops.features.stored.backup import SavedFile
from tcb_ops.i18n import Text
from tcb_ops.ledger.files import UNCERTAIN, OwnFile, StoredFile
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Outcome, Want

_IN_PARTS = re.compile(r"[0-9a-f]{32}-[0-9]+")


@dataclass(frozen=True, slots=True)
class Subject:
    """The upload whose files a run is about."""

    number: int
    """That of the upload, which grows from run to run."""
    runs: frozenset[str]
    """The ids of the upload and its retries."""
    taken_back_by: frozenset[str]
    """The ids of the undos, or of the deletes, of that upload."""
    has_backup: bool

    @classmethod
    def of(cls, uploads: Sequence[RunRecord], took_back: Iterable[RunRecord]) -> Self:
        """Return what an upload and its retries are, with what took them back."""
        ids, others = frozenset(run.id for run in uploads), frozenset(run.id for run in took_back)
        return cls(uploads[0].number, ids, others, bool(uploads[0].settings.backup))

    def changed_since(self, file: StoredFile | None, own: OwnFile | None, sent: Collection[str] = ()) -> str:
        """Return another run that has changed a path since the upload; empty for none."""
        if file is None:
            return ""
        certain = own is not None and bool(own.sent)
        return file.changed_since(self.runs | self.taken_back_by, self.number, certain=certain, sent=sent)

    def may_have_changed(self, file: StoredFile | None) -> str:
        """Return another run that may have changed a path since, or be about to; empty for none."""
        return file.may_have_changed(self.runs | self.taken_back_by) if file is not None else ""


# --- undo ----------------------------------------------------------------------------------------------------


def undo_want(
    subject: Subject,
    file: StoredFile | None,
    own: OwnFile | None,
    saved: SavedFile | Text | None,
    *,
    conflict: bool = False,
) -> tuple[Want, Text | None]:
    """Decide what an undo wants at a path, and why the file stays although it was asked for.

    The first line that applies decides.

    ================================================================  ============  ==============
    what the ledger and the backup say                                wanted        why it stays
    ================================================================  ============  ==============
    another run has changed the path since                            as it is      written_since
    there is no backup, and the upload replaced a file of the ledger  as it is      no_backup
    the backup's record is missing or damaged                         as it is      what is wrong
    the backup has the bytes that the upload sent                     as it is      saved_as_sent
    an undo of the upload has changed the path                        as it is      –
    the upload stored nothing there, as far as is known, or an undo   not known     –
    found other bytes
    the backup has a file                                             that file     –
    nothing was there, as far as is known                             nothing       –
    ================================================================  ============  ==============

    `file`, `own`: what the ledger knows of the path, and of what the upload stored there. `saved`: the record of the backup, or
    what is wrong with it; None without a backup. `conflict`: whether an earlier undo found other bytes.
    """
    record = saved if isinstance(saved, SavedFile) else None
    if since := subject.changed_since(file, own, record.sent if record is not None else ()):
        return Want.AS_IT_IS, detail(StoredCode.WRITTEN_SINCE, run=since)
    if not subject.has_backup and own is not None and own.replaced:
        return Want.AS_IT_IS, detail(StoredCode.NO_BACKUP, run=own.replaced)
    if isinstance(saved, Text):
        return Want.AS_IT_IS, saved
    if record is not None and record.may_be_ours(own.sent if own is not None else ()):
        return Want.AS_IT_IS, detail(StoredCode.SAVED_AS_SENT)
    if file is not None and file.changed in subject.taken_back_by:
        return Want.AS_IT_IS, None
    if own is None or not own.sent or conflict:
        return Want.NOT_KNOWN, None
    return (Want.FILE if record is not None and record.md5 else Want.NOTHING), None


class UndoStep(StrEnum):
    """What an undo does about one file."""

    CONFLICT = "conflict"
    NOTHING = "nothing"
    """Nothing of the upload is there, or it is as it was before the upload."""
    DELETE = "delete"
    RESTORE = "restore"
    NOT_KNOWN = "not_known"
    """It may be the upload's, or somebody else's: it stays."""


def undo_step(now: str | None, ours: str, before: str | None, *, certain: bool = True) -> UndoStep:
    """Decide how an upload of a file is undone.

    The first line that applies decides.

    ==============================  ======================  ============
    now                             before the upload       step
    ==============================  ======================  ============
    missing                         missing                 nothing
    what was there                  a file                  nothing
    a file, not certain             any                     not known
    neither ours nor what was       any                     conflict
    ours                            missing                 delete
    ours                            a file                  restore
    ==============================  ======================  ============

    Each is an MD5; None if the file is missing. `ours` is what the upload put there, empty if that is unknown. `certain`: it
    was stored, or a backup says what was there.
    """
    if now == before:
        return UndoStep.NOTHING
    if not certain:
        return UndoStep.NOT_KNOWN
    if now != ours or not ours:
        return UndoStep.CONFLICT
    return UndoStep.DELETE if before is None else UndoStep.RESTORE


def may_be_stored(outcome: Outcome, saved: bool | None, *, doubtful: bool) -> bool:
    """Decide whether a row of an upload is part of its undo.

    =============  ======  ========  ======
    outcome        saved   doubtful  part
    =============  ======  ========  ======
    uploaded       any     any       yes
    any            yes     any       yes
    failed         –       yes       yes
    refused        –       yes       yes
    not attempted  –       yes       yes
    any other                        no
    =============  ======  ========  ======

    `saved`: whether the backup has a record for the row, which is written before the file is sent; None without a backup.
    `doubtful`: the file may be stored all the same.
    """
    if saved is None and outcome in UNCERTAIN:
        return doubtful
    return outcome is Outcome.UPLOADED or bool(saved)


# --- delete, confirm -----------------------------------------------------------------------------------------


def delete_want(subject: Subject, file: StoredFile | None) -> Want:
    """Decide whether a delete of an upload's files wants one to be gone. It does not look at what is there.

    =======================================================  =======
    what the ledger says of the path                         wanted
    =======================================================  =======
    a run has changed it since, a delete of this upload too  as it is
    a run may have changed it, other than those              as it is
    anything else                                            nothing
    =======================================================  =======

    A delete of the upload that failed, or was interrupted, has left the file there.
    """
    changed = file is not None and file.changed_since(subject.runs, subject.number)
    return Want.AS_IT_IS if changed or subject.may_have_changed(file) else Want.NOTHING


def confirm_outcome(etag: str, md5: str, older: Collection[str]) -> Outcome:
    """Decide what a stored file's ETag says of a row.

    ===============================  ===========
    ETag, without quotes             outcome
    ===============================  ===========
    the MD5 that was uploaded        present
    `…-N`                            foreign
    an MD5 that was there before     stale
    anything else                    different
    ===============================  ===========

    `older`: the MD5s that the ledger or a backup knows for the key from before.
    """
    if etag == md5:
        return StoredOutcome.PRESENT
    if _IN_PARTS.fullmatch(etag):
        return StoredOutcome.FOREIGN
    return StoredOutcome.STALE if etag in older else StoredOutcome.DIFFERENT

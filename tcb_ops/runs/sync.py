"""What synchronizing a folder sends, and which of its files are gone from it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.formatting import guard, sanitize
from tcb_ops.i18n import Text, _, as_lines, ngettext
from tcb_ops.lists.generate import PathTemplate, ScannedFiles, write_list
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import Batch, read_paths
from tcb_ops.model import Kind, Merchant, Row
from tcb_ops.resources import system_reason
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.stored_specs import known_files

_LISTED = 20
"""Files gone from the folder that a message lists."""


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """The rows of a synchronization."""

    batch: Batch
    """A row per file and environment."""
    gone: Batch | None
    """Files that this folder's earlier synchronizations uploaded and that it no longer has; None if there are none."""

    @property
    def gone_text(self) -> Text | None:
        """The first files that are gone from the folder, in words."""
        if self.gone is None:
            return None
        count = self.gone.count
        first = [row for row, _n in zip(self.gone.rows(), range(_LISTED), strict=False)]
        head = ngettext(
            "{n:,} uploaded file is gone from the folder:",
            "{n:,} uploaded files are gone from the folder:",
            count,
        )
        more = [_("and {n:,} more", n=count - len(first))] if count > len(first) else []
        return as_lines([head, *(f"{sanitize(row.env)}  {sanitize(row.path)}" for row in first), *more])


def plan_sync(
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
    merchants: Merchants,
    folder: Path,
    *,
    ledger: Ledger | None,
    target: str,
) -> SyncPlan:
    """Write the list of a folder's files, and the one of those that are gone, into `folder`; read and check both.

    A synchronization is recognized by its list's name, which is made of the folder's. Raises InputError, UsageError.
    """
    if template.dated:
        raise UsageError(_("--path with {{date}}: every day all files would be new. Leave {{date}} out."))
    root = scanned.folder.resolve()
    name = f"sync-{root.name or 'root'}-{sha256(str(root).encode()).hexdigest()[:6]}"
    dest, gone = folder / f"{name}.csv", folder / f"{name}.gone.csv"
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        write_list(scanned, targets, template, part, root)
        part.replace(dest)
        batch = read_paths(dest, merchants, root)
        found = () if ledger is None else _gone(ledger, target, dest.name, scanned, targets, template)
        rows = 0
        with part.open("x", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            out.writerow(["env", "appid", "path", "tcb_guarded"])
            for row in found:
                out.writerow(map(guard, (row.env, row.appid, row.path)))
                rows += 1
        part.replace(gone)
    except OSError as error:
        raise UsageError(
            _("{folder} cannot be written ({why})", folder=folder, why=system_reason(error))
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return SyncPlan(batch, read_paths(gone, merchants) if rows else None)


def _gone(
    ledger: Ledger,
    target: str,
    list_name: str,
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
) -> Iterator[Row]:
    """Give the files that runs of the list uploaded last, whose local file no longer exists."""
    ours = {
        run.id: run for run in ledger.runs(target) if run.kind is Kind.UPLOAD and run.list_name == list_name
    }
    paths = set(template.paths(scanned.files, targets[0]))
    for merchant in targets:
        if template.by_target:
            paths = set(template.paths(scanned.files, merchant))
        stored = ledger.paths_stored(list(ours.values()), merchant.env, merchant.appid)
        missing = (
            Row(0, merchant.env, path, merchant.appid, merchant.name, file, ())
            for path, file in stored
            if path not in paths and not os.path.lexists(scanned.folder / file)
        )
        for row, written in known_files(ledger, missing, target):
            if written and written[-1].md5 and written[-1].run in ours:
                yield row

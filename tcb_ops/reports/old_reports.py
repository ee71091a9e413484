"""Old report folders: which of them may be removed, since the ledger can write them again."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.reports.export import (
    LEFT_BY_DESKTOPS,
    MANIFEST,
    SIGNATURE,
    Manifest,
    fingerprint,
    read_manifest,
)


def removable(folder: Path, ledger: LedgerReader, before: float) -> list[Path]:
    """Return the reports in a folder that may be removed, by name; `before` is in Unix seconds.

    ====================================================================  =========
    in the folder                                                         removable
    ====================================================================  =========
    a file, a link, a folder without a report                             no
    a report that another ledger exported, or that of a run removed since  no
    one with a file that somebody has changed or added                    no
    one exported at `before` or later                                     no
    any other, also where files are missing                               yes
    ====================================================================  =========
    """
    exported = ledger.exports()
    return [
        report
        for report in sorted(folder.iterdir() if folder.is_dir() else ())
        if not report.is_symlink()
        and (manifest := read_manifest(report)) is not None
        and datetime.fromisoformat(manifest.exported_at).timestamp() < before
        and fingerprint(report / MANIFEST)["sha256"] in exported
        and _is_unchanged(report, manifest)
    ]


def _is_unchanged(report: Path, manifest: Manifest) -> bool:
    kept = {MANIFEST, SIGNATURE, *LEFT_BY_DESKTOPS}
    return all(
        file.name in kept or (file.is_file() and fingerprint(file) == manifest.files.get(file.name))
        for file in report.iterdir()
    )


def remove(report: Path) -> None:
    """Remove a report, its manifest last: what a kill leaves can still be told to be this report."""
    for file in sorted(report.iterdir(), key=lambda file: file.name == MANIFEST):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()
    report.rmdir()

"""Making environments the same as a folder: which files are sent, and which are gone."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.features.stored.queries import paths_stored, uploads_of_list
from tcb_ops.features.stored.scan import PathTemplate, ScannedFiles, scan, select_targets, write_list
from tcb_ops.features.stored.specs import LISTED
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Text, _, as_lines, ngettext
from tcb_ops.kinds import environment_count
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant, Row
from tcb_ops.settings import Settings
from tcb_ops.start import existing_ledger
from tcb_ops.table_files import write_table


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """The rows of a synchronization."""

    scanned: ScannedFiles
    batch: Batch
    """A row per file and environment."""
    gone: Batch | None
    """Files that this folder's earlier synchronizations uploaded and that it no longer has; None if there are none."""

    @property
    def gone_text(self) -> Text | None:
        """The first files that are gone from the folder, in words."""
        if self.gone is None:
            return None
        count, envs = self.gone.count, self.gone.envs
        first = list(islice(self.gone.rows(), LISTED))
        width = max(len(row.env) for row in first)
        head = ngettext(
            "{n:,} uploaded file is no longer in the folder, but in {environments}:",
            "{n:,} uploaded files are no longer in the folder, but in {environments}:",
            count,
            environments=environment_count(envs),
        )
        rest, file = count - len(first), self.gone.source
        more = [_("and {n:,} more: {file}", n=rest, file=file)] if rest else []
        return as_lines([head, *(f"  {row.env:{width}}  {sanitize(row.path)}" for row in first), *more])

    def gone_from(self, environments: Collection[tuple[str, str]]) -> Batch | None:
        """Return the files of `gone` that are still gone, in other than these environments, given as (env, appid)."""
        if self.gone is None:
            return None
        remaining = (
            row
            for row in self.gone.rows()
            if (row.env, row.appid) not in environments
            and not os.path.lexists(self.scanned.folder / row.file)
        )
        return _written(self.gone.source, remaining, self.gone.merchants)


def plan_sync(
    folder: str,
    to: Sequence[str],
    *,
    merchants: Merchants,
    path: str,
    include: Sequence[str],
    exclude: Sequence[str],
    own: frozenset[str],
    settings: Settings,
) -> SyncPlan:
    """Plan what makes environments the same as a folder: the batch to upload, and the files that are gone from the folder.

    Lists of both are written below the folder of the reports, read and checked; a synchronization is recognized by its list's
    name, which is made of the folder's. Upload `batch` with `skip_unchanged`, delete `gone`. `to`, `path`, `include` and
    `exclude` are those of `tcb-ops list`; `own`: real paths of files to leave out. Raises InputError, UsageError.
    """
    if Path(folder).exists() and not Path(folder).is_dir():
        fix = _("`tcb-ops list` makes a list of a single file; upload that list.")
        raise UsageError(_("{folder} is not a folder.", folder=folder), fix)
    ledger = existing_ledger(settings)
    runs = [] if ledger is None else ledger.runs(damaged=[])
    own |= {os.path.realpath(run.settings.backup) for run in runs if run.settings.backup}
    scanned = scan(Path(folder), include=include, exclude=exclude, own=own)
    targets, template = select_targets(merchants, to), PathTemplate(path, "")
    if template.dated:
        raise UsageError(_("{--path} with {{date}}: every day all files would be new. Leave {{date}} out."))
    root = scanned.folder.resolve()
    name = f"sync-{root.name or 'root'}-{sha256(str(root).encode()).hexdigest()[:6]}"
    source = Path(settings.reports) / f"{name}.csv"
    write_list(scanned, targets, template, source, root, versions=True)
    batch = read_paths(source, merchants, root)
    gone: Iterable[Row] = ()
    if ledger is not None:
        gone = _gone(ledger, settings.run_target, source.name, scanned, targets, template)
    return SyncPlan(scanned, batch, _written(source.with_suffix(".gone.csv"), gone, merchants))


def _written(dest: Path, rows: Iterable[Row], merchants: Merchants, root: Path | None = None) -> Batch | None:
    lines = ((row.env, row.appid, row.path, row.file) for row in rows)
    first = next(lines, None)
    if first is None:
        return None
    heads = ("env", "appid", "path", "file", "tcb_guarded")
    write_table(dest, heads, chain([first], lines), replace=True, mask=str)
    return read_paths(dest, merchants, root)


def _gone(
    ledger: Ledger,
    target: str,
    list_name: str,
    scanned: ScannedFiles,
    targets: Sequence[Merchant],
    template: PathTemplate,
) -> Iterator[Row]:
    """Give the files that runs of the list uploaded last, whose local file no longer exists."""
    uploads = uploads_of_list(ledger, target, list_name)
    paths = set(template.paths(scanned.files, targets[0]))
    for merchant in targets:
        if template.by_target:
            paths = set(template.paths(scanned.files, merchant))
        stored = paths_stored(ledger, uploads, merchant.env, merchant.appid)
        for number, (path, file) in enumerate(stored):
            if path not in paths and not os.path.lexists(scanned.folder / file):
                yield Row(number, merchant.env, path, merchant.appid, merchant.name, file, ())

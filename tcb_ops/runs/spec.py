"""What a run is about: its rows and its environments, from a list, from another run, or from the merchants alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import Batch
from tcb_ops.model import GOOD, Kind, Outcome, Row
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.links_file import check_columns
from tcb_ops.runs.next_commands import command, of_run, quoted, resume, retry
from tcb_ops.runs.records import EnvRecord, RowRecord, RunRecord
from tcb_ops.settings import Settings

PROBE = "tcb-ops/probe.txt"
"""The cloud path that an audit asks a link for. Nothing is stored there."""
AGAIN = frozenset(Outcome) - GOOD - {Outcome.INVALID, Outcome.PENDING}
"""The outcomes that a retry runs again."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Rows to be done, and what tells a run over them apart from other runs."""

    kind: Kind
    list_name: str
    list_sha256: str
    list_bytes: int
    headers: tuple[str, ...]
    root: Path | None
    """Where the local files lie; None where none are sent."""
    rows: Callable[[], Iterator[Row]]
    places: list[EnvRecord]
    selection: str = ""
    """The part of the list that is meant (`--where`, `--limit`, `--column`, `--errcode`)."""
    parent: str = ""

    @property
    def root_name(self) -> str:
        """The root as the ledger keeps it."""
        return str(self.root.resolve()) if self.root is not None else ""


def list_spec(batch: Batch, kind: Kind, selection: str = "") -> RunSpec:
    """The rows of a checked list."""
    if kind is Kind.LINKS:
        check_columns(batch.headers)
    return RunSpec(
        kind,
        batch.source.name,
        batch.sha256,
        batch.bytes,
        batch.headers,
        batch.root if kind is Kind.UPLOAD else None,
        batch.rows,
        _places(batch.rows(), batch.merchants),
        selection,
    )


def check_retry(parent: RunRecord, settings: Settings) -> None:
    """Raise UsageError for a run that cannot be retried: it is unfinished, or its rows went to another target."""
    if parent.target != settings.run_target:
        again = quoted(retry(settings, parent))
        raise UsageError(
            Text(
                f"run {parent.id} went to {parent.target}, and now the target is {settings.run_target}. To retry it there:\n"
                f"{again}",
                f"任务 {parent.id} 的目标是 {parent.target}，而现在的目标是 {settings.run_target}。要在原目标重试：\n{again}",
            )
        )
    if parent.finished_at is None:
        rest = quoted(resume(settings, parent))
        raise UsageError(
            Text(
                f"run {parent.id} is unfinished, and a retry is for a finished run. To resume it:\n{rest}",
                f"任务 {parent.id} 尚未完成，retry 只用于已完成的任务。要继续它：\n{rest}",
            )
        )


def retry_spec(
    ledger: Ledger,
    parent: RunRecord,
    merchants: Merchants,
    settings: Settings,
    codes: Collection[str] = (),
    selection: str = "",
) -> RunSpec:
    """The refused, failed and not attempted rows of a finished run, of these merchants, and of these codes if any.

    Rows that an earlier retry has mended are done.
    Local files are looked at anew: they may have been mended. Raises UsageError where nothing is left to do, or the run
    went to another target.
    """
    check_retry(parent, settings)
    root = Path(parent.root) if parent.root else None
    wanted = {(merchant.env, merchant.appid) for merchant in merchants}
    mended = ledger.mended(parent)

    def again(record: RowRecord) -> bool:
        row, end = record.row, record.end
        of_code = not codes or str(end.errcode) in codes or end.store_code in codes
        return of_code and (row.env, row.appid) in wanted and row.line not in mended

    def rows() -> Iterator[Row]:
        for record in ledger.rows(parent, outcomes=AGAIN):
            if again(record):
                yield record.row if root is None else _as_it_is(record.row, root)

    places = _places(rows(), merchants)
    if not places:
        raise UsageError(_nothing_left(ledger, parent, settings, narrowed=bool(selection or codes)))
    return RunSpec(
        Kind(parent.kind),
        parent.list_name,
        parent.list_sha256,
        parent.list_bytes,
        parent.headers,
        root,
        rows,
        places,
        selection,
        parent.id,
    )


def _nothing_left(ledger: Ledger, parent: RunRecord, settings: Settings, *, narrowed: bool) -> Text:
    """Why a run has no row to run again: its retries have done them all, the rest is its parent's, or none was asked for."""
    counts = ledger.counts(parent)
    bad = sum(rows for outcome, rows in counts.items() if outcome in AGAIN)
    if bad and len(ledger.mended(parent)) >= bad:
        since = ", ".join(retry.id for retry in ledger.retries(parent))
        return Text(
            f"nothing is left to retry: every row of run {parent.id} is good since {since}.",
            f"没有需要重试的行：任务 {parent.id} 的每一行都已在 {since} 中成功。",
        )
    such, such_zh = (" such", "符合条件且") if narrowed else ("", "")
    shows = quoted(of_run(settings, parent, "errcodes"))
    whole, whole_zh = "", ""
    if parent.parent:
        rest = quoted(command(settings, "retry", parent.parent, target=parent.target))
        whole = f"\nIt is a retry itself; for the other rows of its original:\n{rest}"
        whole_zh = f"\n它本身是一次重试；原任务的其余行：\n{rest}"
    return Text(
        f"run {parent.id} has no{such} row to run again. To see what there is:\n{shows}{whole}",
        f"任务 {parent.id} 中没有{such_zh}需要重试的行。查看其中的行：\n{shows}{whole_zh}",
    )


def audit_spec(merchants: Merchants, selection: str = "") -> RunSpec:
    """One row per merchant's environment, all with the same path."""
    lines = list(merchants)

    def rows() -> Iterator[Row]:
        for number, merchant in enumerate(lines, start=1):
            cells = (merchant.appid, merchant.name, merchant.env)
            yield Row(number, merchant.env, PROBE, merchant.appid, merchant.name, PROBE, cells)

    return RunSpec(
        Kind.AUDIT,
        Path(merchants.source).name,
        merchants.sha256,
        0,
        ("appid", "name", "env"),
        None,
        rows,
        _places(rows(), merchants),
        selection,
    )


def resume_spec(run: RunRecord) -> RunSpec:
    """What is left of a run, as the ledger has it: for going on without its list."""
    return RunSpec(
        Kind(run.kind),
        run.list_name,
        run.list_sha256,
        run.list_bytes,
        run.headers,
        Path(run.root) if run.root else None,
        lambda: iter(()),  # they stand in the ledger
        [],
        run.selection,
        run.parent,
    )


def _as_it_is(row: Row, root: Path) -> Row:
    """The row with its local file's size and time as they are now; one that is gone is found out when it is sent."""
    try:
        now = (root / row.file).stat()
    except (OSError, ValueError):
        return row
    return replace(row, size=now.st_size, mtime_ns=now.st_mtime_ns)


def _places(rows: Iterable[Row], merchants: Merchants) -> list[EnvRecord]:
    """Number the environments of some rows, in the order in which they come up."""
    known = {(m.env, m.appid): m for m in merchants}
    places: dict[tuple[str, str], EnvRecord] = {}
    for row in rows:
        key = (row.env, row.appid)
        if key not in places:
            merchant = known.get(key)
            place = EnvRecord(len(places), row.env, row.appid, row.merchant, "merchant", left=False)
            if merchant is not None:
                place = replace(place, owner=str(merchant.owner), left=merchant.left)
            places[key] = place
    return list(places.values())

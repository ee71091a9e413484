"""What a run would change: new, replaced, deleted and unchanged files by merchant; and its calls, bytes and least time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from tcb_ops.cli.options import target_line
from tcb_ops.engine.changes import PlannedChange
from tcb_ops.engine.plan import RunSpec, planned_changes
from tcb_ops.formatting import format_duration, format_size, sanitize
from tcb_ops.i18n import NOTHING, Lang, Text, _, as_sentences, ngettext, pgettext
from tcb_ops.kinds import Kind, merchant_count, row_count
from tcb_ops.lists.batch import Batch, facts_line
from tcb_ops.model import Outcome, Step
from tcb_ops.preflight import SendScope, facts
from tcb_ops.reports.formats.terminal import AlignedTable
from tcb_ops.start import existing_ledger, rest_of_unfinished

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand

MERCHANTS_SHOWN = 20
"""Merchants that get a line; the others share one."""
_HEADS: Mapping[Step, Text] = {
    Step.NEW: pgettext("change", "+ new"),
    Step.REPLACED: pgettext("change", "~ replaced"),
    Step.DELETED: pgettext("change", "− deleted"),
    Step.UNCHANGED: pgettext("change", "= unchanged"),
    Step.NOT_KNOWN: pgettext("change", "? not known"),
}


@dataclass(frozen=True, slots=True)
class MerchantChanges:
    """One merchant's part of what runs would change, or that of several merchants."""

    appid: str
    merchant: str
    envs: int
    rows: int
    changes: Mapping[Step, int]
    """Rows by what would be done, without zeros."""
    calls: int
    """To the platform and to the store, at least."""
    bytes: int
    """To be sent."""
    seconds_at_rate: float
    """The least time at --rate, which holds for each merchant by itself; 0 without one."""

    @property
    def order(self) -> tuple[int, int, str]:
        """The place in the table: most changes first."""
        return -sum(self.changes.values()) + self.changes.get(Step.UNCHANGED, 0), -self.rows, self.merchant


def count_changes(
    planned: Iterable[tuple[Kind, Iterator[PlannedChange]]], rate: float | None
) -> list[MerchantChanges]:
    """Count by merchant what runs of these kinds would change."""
    counted = defaultdict[str, Counter[Step]](Counter)
    names, envs = dict[str, str](), defaultdict[str, set[str]](set)
    calls, rated, sizes = Counter[str](), Counter[str](), Counter[str]()
    for kind, changes in planned:
        of_kind = defaultdict[tuple[str, str], Counter[Step]](Counter)
        for change in changes:
            row, step = change.row, change.step
            names[row.appid] = row.merchant
            of_kind[row.appid, row.env][step] += 1
            if step in {Step.NEW, Step.REPLACED}:
                sizes[row.appid] += row.size or 0
        for (appid, env), steps in of_kind.items():
            envs[appid].add(env)
            counted[appid] += steps
            calling = {step: count for step, count in steps.items() if kind.least_calls(step)}
            calls[appid] += ceil(
                sum(count * kind.least_calls(step) for step, count in calling.items()) / kind.rows_per_call
            )
            rated[appid] += ceil(sum(calling.values()) / kind.rows_per_call)
    merchants = [
        MerchantChanges(
            appid,
            names[appid],
            len(envs[appid]),
            steps.total(),
            _in_order(steps),
            calls[appid],
            sizes[appid],
            rated[appid] / rate if rate else 0.0,
        )
        for appid, steps in counted.items()
    ]
    return sorted(merchants, key=lambda merchant: merchant.order)


def in_all(merchants: Sequence[MerchantChanges], name: str = "") -> MerchantChanges:
    """Add up what runs would change for several merchants."""
    steps = Counter[Step]()
    for merchant in merchants:
        steps.update(merchant.changes)
    return MerchantChanges(
        "",
        name,
        sum(merchant.envs for merchant in merchants),
        steps.total(),
        _in_order(steps),
        sum(merchant.calls for merchant in merchants),
        sum(merchant.bytes for merchant in merchants),
        max((merchant.seconds_at_rate for merchant in merchants), default=0.0),
    )


def _in_order(steps: Mapping[Step, int]) -> dict[Step, int]:
    return {step: steps[step] for step in Step if steps.get(step)}


def dry_run(
    command: RunCommand,
    works: Sequence[RunSpec],
    batch: Batch | None = None,
    *,
    skip_unchanged: bool = False,
) -> int:
    """Print what these runs would change, as they would be planned now; return the exit code.

    `batch`: the list that the first is about. The others, such as the deletion of a sync, are new each time.
    """
    console, settings, first = command.console, command.settings, works[0]
    console.release()
    ledger = existing_ledger(settings)
    for warning in (work.warning for work in works if work.warning is not None):
        console.warn(warning)
    works = [_to_do(command, first), *works[1:]]
    merchants = count_changes(
        (
            (work.kind, planned_changes(work, ledger, settings.run_target, skip_unchanged=skip_unchanged))
            for work in works
        ),
        command.limits.rate,
    )
    total, asked = in_all(merchants), first.kind.asks(works[0].environments, settings)
    if asked:
        total = replace(total, calls=sum(asked.values()))
    if command.common.json:
        content: dict[str, object] = {"kind": str(first.kind), "target": settings.run_target}
        content |= {"merchants": len(merchants)} | asdict(total)
        del content["appid"], content["merchant"]
        content |= facts(batch) | {"bytes": total.bytes} if batch is not None else {}
        named = [asdict(merchant) for merchant in merchants]
        console.json(content | ({"asks": asked} if asked else {}) | {"by_merchant": named})
    else:
        scope = SendScope(total.rows, len(merchants), total.envs)
        console.print(facts_line(batch) if batch is not None else scope.text)
        console.print(_questions(asked, console.lang) if asked else _table(merchants, console.lang))
        for text in _figures(command, works, total):
            console.print(text)
        if len(merchants) > MERCHANTS_SHOWN and not asked:
            console.info(_("{--json} lists every merchant."))
    if batch is not None:
        command.show_correction(batch, first.kind)
    console.suggest_one()
    console.info(target_line(settings))
    return 0


def _to_do(command: RunCommand, work: RunSpec) -> RunSpec:
    if command.which.new_run:
        return work
    rest, unfinished = rest_of_unfinished(work, command.settings)
    if unfinished is not None:
        text = _(
            "Run {id} of this list is unfinished, and would be resumed: {rows} pending.",
            id=unfinished.id,
            rows=row_count(unfinished.counts.get(Outcome.PENDING, 0)),
        )
        command.console.info(text)
    return rest


def _table(merchants: Sequence[MerchantChanges], lang: Lang) -> AlignedTable:
    """Return the table, the totals first. On a narrow screen the merchants' names are shortened, not the figures."""
    shown, others = merchants[:MERCHANTS_SHOWN], merchants[MERCHANTS_SHOWN:]
    rest = ngettext("{n:,} other merchant", "{n:,} other merchants", len(others))
    lines = [
        *([in_all(merchants, merchant_count(len(merchants)).of(lang))] if len(merchants) != 1 else []),
        *(replace(merchant, merchant=sanitize(merchant.merchant)) for merchant in shown),
        *([in_all(others, rest.of(lang))] if others else []),
    ]
    steps = [
        step for step in Step if step is not Step.NOT_KNOWN or any(step in line.changes for line in lines)
    ]
    heads = [_("merchant").of(lang), *(_HEADS[step].of(lang) for step in steps)]
    cells = ([line.merchant, *(f"{line.changes.get(step, 0):,}" for step in steps)] for line in lines)
    return AlignedTable([heads, *cells], numbers=frozenset(range(1, len(heads))), elastic=frozenset({0}))


def _questions(asked: Mapping[str, int], lang: Lang) -> AlignedTable:
    heads = [_("interface").of(lang), pgettext("made", "calls").of(lang)]
    return AlignedTable([heads, *([name, f"{calls:,}"] for name, calls in asked.items())], frozenset({1}))


def _figures(command: RunCommand, works: Sequence[RunSpec], total: MerchantChanges) -> Iterator[Text]:
    """Give the lines below the table."""
    if not total.calls:
        yield _("The run would change nothing.")
        return
    if Step.NEW in total.changes:
        yield _("New: this ledger knows of no file at the path. Others may have stored one.")
    calls = _(
        "At least {calls} to {api_base}{store}.",
        calls=ngettext("{n:,} call", "{n:,} calls", total.calls),
        api_base=command.settings.api_base,
        store=_(" and its store") if any(work.kind.asks_store for work in works) else NOTHING,
    )
    size = _("To be sent: {size}.", size=format_size(total.bytes))
    yield as_sentences((calls, size)) if total.bytes else calls
    if total.seconds_at_rate >= 1:
        yield _(
            "At {rate:g} link calls/s per appid this takes at least {least}.",
            rate=command.limits.rate,
            least=format_duration(total.seconds_at_rate),
        )
    yield _("Nothing was sent.")

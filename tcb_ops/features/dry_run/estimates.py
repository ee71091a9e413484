"""What a run of a list would send: calls, bytes, and the least time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tcb_ops.cli.options import target_line
from tcb_ops.cli.steps import RunCommand
from tcb_ops.formatting import format_duration, format_size, sanitize
from tcb_ops.i18n import NOTHING, Lang, _, ngettext, pgettext
from tcb_ops.lists.batch import Batch
from tcb_ops.preflight import facts, facts_line
from tcb_ops.reports.formats.terminal import AlignedTable
from tcb_ops.runs.list_kinds import LINKS, UPLOAD


def dry_run(command: RunCommand, batch: Batch, *, uploads: bool) -> int:
    """Print what a run would send, per merchant: calls, bytes, and the least time; return the exit code."""
    console, settings, limits = command.console, command.settings, command.limits
    console.release()
    merchants, of_appid = estimates(batch, uploads=uploads), Counter[str]()
    for merchant in merchants:  # --rate applies to each appid
        of_appid[merchant.appid] += merchant.rows
    seconds = max(of_appid.values(), default=0) / limits.rate if limits.rate else 0.0
    calls = sum(merchant.calls for merchant in merchants)
    if command.common.json:
        by_merchant = [asdict(merchant) for merchant in merchants]
        console.json(facts(batch) | {"calls": calls, "seconds_at_rate": seconds, "by_merchant": by_merchant})
    else:
        console.print(facts_line(batch))
        if seconds >= 1:
            text = _("At {rate:g} link calls/s per appid this takes at least {least}.")
            console.print(text.format(rate=limits.rate, least=format_duration(seconds)))
        text = _("The run would make {calls} to {api_base}{store}.")
        store = _(" and its store") if uploads else NOTHING
        counted = ngettext("{n:,} call", "{n:,} calls", calls)
        console.print(text.format(calls=counted, api_base=settings.api_base, store=store))
        console.print(_("Nothing was sent."))
        console.print(_table(merchants, console.lang, uploads=uploads))
    command.show_correction(batch, UPLOAD if uploads else LINKS)
    console.suggest_one()
    console.info(target_line(settings))
    return 0


def _table(merchants: Sequence[MerchantEstimate], lang: Lang, *, uploads: bool) -> AlignedTable:
    """Return the dry run's table. On a narrow screen the merchants' names are shortened, not the figures."""
    heads = (_("merchant"), _("envs"), _("rows"), pgettext("made", "calls"), _("bytes"))
    lines = [[head.of(lang) for head in heads]]
    for merchant in merchants:
        counts = (f"{count:,}" for count in (merchant.envs, merchant.rows, merchant.calls))
        size = format_size(merchant.bytes) if uploads else "–"
        lines.append([sanitize(merchant.merchant), *counts, size])
    return AlignedTable(lines, numbers=frozenset(range(1, len(heads))), elastic=frozenset({0}))


@dataclass(frozen=True, slots=True)
class MerchantEstimate:
    """One merchant's part of what a run of a list would send."""

    appid: str
    merchant: str
    envs: int
    rows: int
    calls: int
    """To the platform and to the store; none for an environment that has left."""
    bytes: int


def estimates(batch: Batch, *, uploads: bool) -> list[MerchantEstimate]:
    """Count by merchant what a run of a list would send, most rows first."""
    departed = Counter[str]()
    for merchant, count in batch.by_departed_merchant():
        departed[merchant.appid] += count
    return [
        MerchantEstimate(appid, name, envs, rows, (rows - departed[appid]) * (1 + uploads), size)
        for appid, name, envs, rows, size in batch.by_merchant()
    ]

"""report.html: one file that a person reads, prints or sends on. No script, no external address.

All text is escaped by the template engine, whatever it is and wherever it came from. Everything is asked from the
ledger summed up; however large the run, the page stays small and says where the rest is.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from tcb_ops.model import GOOD, Kind, Outcome, Reason, is_simulated
from tcb_ops.reports.diff import RunDiff
from tcb_ops.reports.errcode_matrix import CODES, MERCHANTS, heat, warmth
from tcb_ops.reports.explanations import OUTCOMES, reason_text, verdict
from tcb_ops.reports.formats.sparkline import bars
from tcb_ops.reports.history import ErrcodeHistory
from tcb_ops.reports.labels import Words, short
from tcb_ops.reports.merchant_details import by_merchant, fitting, namesakes, with_first_rows
from tcb_ops.reports.next_actions import REASON_NAMES, NextAction, Per, next_actions, short_name
from tcb_ops.reports.timeline import PHASE_NAMES, Drawing, advice, draw, duration, where_it_went
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import working
from tcb_ops.runs.next_commands import command, fixed_list, quoted, resume, retry
from tcb_ops.runs.records import RunRecord, Tally
from tcb_ops.secrets import redact
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from jinja2 import BytecodeCache
    from jinja2.bccache import Bucket

CAUSES = 12
"""Causes under "what to do next"; the rest is in errcodes.csv."""
NAMED = 4
"""Merchants named beside a cause."""
MOST_BYTES = 390_000
"""Of a page: what its other sections leave is for the merchants. Masking may add some."""
DETAILED = 80
"""Merchants with details of their own at most, the worst first."""
DETAILS_SHARE = 0.7
"""Of the room for the merchants, what details may take; the rest is for lines."""
LISTED = 420
"""Further merchants with a line, at most."""
PAST = 12
"""Merchants in the table of the last days."""
ENVS = 8
"""Environments of a merchant."""
CHANGED = 15
"""Lines of a kind of change."""
OPEN = 3
"""With so few merchants that have something wrong, their details stand open."""


def counts_of(groups: Iterable[Tally]) -> dict[Outcome, int]:
    """Rows by outcome, without zeros, in the order of the outcomes."""
    counts: dict[Outcome, int] = defaultdict(int)
    for group in groups:
        counts[group.outcome] += group.rows
    return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}


def page(
    ledger: Ledger,
    run: RunRecord,
    settings: Settings,
    versions: Mapping[str, str],
    *,
    now: float,
    pdf: bool = True,
    changes: RunDiff | None = None,
    history: ErrcodeHistory | None = None,
) -> str:
    """Write the report of a run as HTML, in the settings' language and time zone.

    `pdf`: whether a report.pdf will stand beside it. `changes` against an earlier run and `history` are sections of
    their own, where they are given.
    """
    groups = ledger.tallies(run)
    counts, spent = counts_of(groups), ledger.phase_seconds(run)
    words = Words(settings)
    merchants = by_merchant(groups)
    bad = sum(detail.bad > 0 for detail in merchants)
    listed = next_actions(groups)
    table = heat(groups)
    drawing = draw(ledger.timeline(run))
    unverified = sum(g.rows for g in groups if g.reason is Reason.UNVERIFIED and g.outcome in GOOD)
    holder = "" if run.finished_at is not None else working(ledger, run.id)
    environment = _environment(words)
    environment.globals["namesakes"] = namesakes(groups)
    told = {
        "html_lang": "zh-CN" if settings.lang == "zh" else "en",
        "heading": words[str(Kind(run.kind))],
        "run": run,
        "simulated": is_simulated(run.target),
        "verdict": verdict(run.kind, counts, finished=run.finished_at is not None).of(settings.lang),
        "state": _state(run, counts),
        "as_of": words.moment(now),
        "sums": [
            (OUTCOMES[outcome].of(settings.lang), rows, _css(outcome)) for outcome, rows in counts.items()
        ],
        "total": sum(counts.values()),
        "holder": holder,
        "resume": quoted(resume(settings, run, canary=counts.keys() <= GOOD | {Outcome.PENDING})),
        "joined": words.plural("joined", len(run.retries)),
        "unverified": words.plural("unverified", unverified) if unverified else "",
        "remedies": [(remedy, _whose(remedy, words)) for remedy in listed[:CAUSES]],
        "remedies_left": listed[CAUSES:],
        "in_list": ", ".join(remedy.code for remedy in listed[:CAUSES] if remedy.in_list)
        if run.kind is not Kind.AUDIT
        else "",
        "retry": quoted(retry(settings, run))
        if run.finished_at is not None
        and {Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED} & counts.keys()
        else "",
        "fixed_list": quoted(fixed_list(settings, run)),
        "named": NAMED,
        "heat": table,
        "heat_bounded": table is not None and (table.rest is not None or table.other_codes > 0),
        "heat_of": (min(table.merchants, MERCHANTS), min(len(table.codes), CODES)) if table else (0, 0),
        "changes": _changes(changes, words, settings),
        "history": _past(history),
        "drawing": drawing,
        "chart": _chart(drawing, words),
        "where": [
            (PHASE_NAMES[phase], duration(part), share)
            for phase, part, share in where_it_went(spent, run.seconds)
        ],
        "advice": advice(spent, run.seconds, run.settings),
        "merchants": len(merchants),
        "particulars": _particulars(run, words, now, pdf=pdf),
        "settings": sorted((name, _shown(value)) for name, value in run.settings.items() if value != ""),
        "versions": versions,
    }
    whole = environment.get_template("report.html.j2").render
    of = environment.get_template("merchant.html.j2").module
    room = MOST_BYTES - len(whole(told, blocks=[], lines=[]).encode())
    detailed = with_first_rows(merchants[:DETAILED], ledger, run)
    blocks = fitting((of.block(one, bad <= OPEN, ENVS) for one in detailed), int(room * DETAILS_SHARE))
    room -= sum(len(block.encode()) for block in blocks)
    others = merchants[len(blocks) :][:LISTED]
    html: str = whole(told, blocks=blocks, lines=fitting(map(of.line, others), room))
    return html


@cache
def _compiled_templates() -> BytecodeCache:
    """Keep what the templates compile to: compiling takes longer than all else about a small report."""
    from jinja2 import BytecodeCache

    class Memory(BytecodeCache):
        def __init__(self) -> None:
            self.kept: dict[tuple[str, str], CodeType | None] = {}

        def load_bytecode(self, bucket: Bucket) -> None:
            bucket.code = self.kept.get((bucket.key, bucket.checksum))

        def dump_bytecode(self, bucket: Bucket) -> None:
            self.kept[bucket.key, bucket.checksum] = bucket.code

    return Memory()


def _environment(words: Words) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tcb_ops.reports"),
        bytecode_cache=_compiled_templates(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "redact": redact,
        "told": words.told,
        "short": short,
        "breaks": _breaks,
    }
    environment.globals |= {
        "w": words,
        "moment": words.moment,
        "warmth": warmth,
        "outcomes": OUTCOMES,
        "reason_text": reason_text,
        "reason_names": REASON_NAMES,
        "short_name": short_name,
        "css": _css,
    }
    return environment


def _breaks(code: str) -> Any:
    """A code that may be parted between its words, as InvalidArgument between d and A."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split("(?<=[a-z])(?=[A-Z])", code))


def _whose(remedy: NextAction, words: Words) -> str:
    """Say `3 merchants · once per merchant`."""
    often = {Per.ONCE: "once", Per.MERCHANT: "per_merchant", Per.ENV: "per_env", Per.NOBODY: "per_nobody"}
    many = [words.plural("merchants", len(remedy.merchants))]
    if remedy.envs != len(remedy.merchants) or remedy.per is Per.ENV:
        many.append(words.plural("envs", remedy.envs))
    if remedy.actions != 1 or (remedy.per is Per.ONCE and len(remedy.merchants) > 1):
        many.append(words[often[remedy.per]])
    return " · ".join(many)


def _chart(drawing: Drawing | None, words: Words) -> dict[str, str]:
    """Say what the drawing shows, for its axis and for those who do not see it."""
    if drawing is None:
        return {}
    good, skipped, bad = drawing.sums
    peak, mean = _rate(drawing.peak), _rate(drawing.mean)
    days = words.clock(drawing.began, "%Y-%m-%d") != words.clock(drawing.ended, "%Y-%m-%d")
    form = "%m-%d %H:%M" if days else "%H:%M:%S"
    said = words["chart"].format(
        began=words.moment(drawing.began),
        ended=words.moment(drawing.ended),
        good=f"{good:,}",
        bad=f"{bad:,}",
        skipped=f"{skipped:,}",
        mean=mean,
        peak=peak,
    )
    quiet = ""
    if drawing.quiet is not None:
        begin, end = (words.clock(at, form) for at in drawing.quiet)
        quiet = words["quiet"].format(begin=begin, end=end)
    return {
        "began": words.clock(drawing.began, form),
        "ended": words.clock(drawing.ended, form),
        "peak": words["peak"].format(peak=peak),
        "said": said,
        "quiet": quiet,
    }


def _changes(changes: RunDiff | None, words: Words, settings: Settings) -> dict[str, Any] | None:
    """What the page shows of a diff: its lines by kind of change, bounded."""
    if changes is None:
        return None
    from tcb_ops.reports.diff import Change, changed, diff_verdict

    listed = {
        wanted: changes.of(wanted) for wanted in (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.MENDED)
    }
    listed[Change.ONLY_IN_NEWER] = [line for line in changes.of(Change.ONLY_IN_NEWER) if line.after]
    kinds = [
        (changed(change), sum(line.rows for line in lines), lines[:CHANGED])
        for change, lines in listed.items()
        if lines
    ]
    shown = sum(len(lines) for _, _, lines in kinds)
    every = sum(map(len, listed.values()))
    newer = changes.newer
    return {
        "verdict": diff_verdict(changes),
        "kinds": kinds,
        "left": words["changes_more"].format(count=f"{every - shown:,}") if every > shown else "",
        "diff": quoted(command(settings, "diff", changes.older.id, newer.id, target=newer.target)),
    }


def _past(history: ErrcodeHistory | None) -> dict[str, Any] | None:
    """What the page shows of a history: its drawing, and the merchants with errcodes on most days."""
    if history is None or not history.lines:
        return None
    found = history.merchants()
    return {
        "drawn": bars(history, 600, 100),
        "days": history.days,
        "merchants": found[:PAST],
        "left": max(0, len(found) - PAST),
    }


def _state(run: RunRecord, counts: Mapping[Outcome, int]) -> str:
    if run.finished_at is None:
        return "unfinished"
    return "good" if counts.keys() <= GOOD else "bad"


def _css(outcome: Outcome) -> str:
    """The class of an outcome's colour."""
    if outcome in GOOD:
        return "good"
    own = {Outcome.PENDING: "pending", Outcome.NOT_ATTEMPTED: "skip", Outcome.FAILED: "failed"}
    return own.get(outcome, "bad")


def _particulars(run: RunRecord, words: Words, now: float, *, pdf: bool) -> list[tuple[str, str]]:
    finished = words["unfinished"] if run.finished_at is None else words.moment(run.finished_at)
    size = words["bytes"].format(count=f"{run.list_bytes:,}")
    lines = [
        (words["run"], run.id),
        (words["parent"], run.parent),
        (words["retries"], ", ".join(run.retries)),
        (words["target"], run.target),
        (words["note"], run.note),
        (words["operator"], run.operator),
        (words["host"], run.host),
        (words["created"], words.moment(run.created_at)),
        (words["finished"], finished),
        (words["exported"], words.moment(now)),
        (words["seconds"], words["seconds_are"].format(seconds=f"{run.seconds:,.1f}")),
        (
            words["calls"],
            words["calls_are"].format(link=f"{run.link_calls:,}", upload=f"{run.upload_calls:,}"),
        ),
        (words["list"], f"{run.list_name} ({size})"),
        ("SHA-256", run.list_sha256),
        (words["root"], run.root),
        (words["pdf"], "" if pdf else words["no_pdf"]),
    ]
    return [(name, value) for name, value in lines if value]


def _rate(rows_a_second: float) -> str:
    return f"{rows_a_second:,.0f}" if rows_a_second >= 10 else f"{rows_a_second:.1f}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

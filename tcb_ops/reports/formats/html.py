"""report.html: one file that a person reads, prints or sends on. No script, no external address.

All text is escaped by the template engine, whatever it is and wherever it came from. Everything is asked from the
ledger summed up; however large the run, the page stays small and says where the rest is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from tcb_ops.model import GOOD, Kind, Outcome, Reason, is_simulated
from tcb_ops.reports.diff import Change, RunDiff, change_title, diff_verdict
from tcb_ops.reports.explanations import OUTCOMES, code_label, reason_text, verdict
from tcb_ops.reports.labels import Labels, shorten
from tcb_ops.reports.next_actions import NextAction, Per, next_actions
from tcb_ops.reports.summary import RunSummary, shade
from tcb_ops.reports.timeline import Drawing, bottleneck, draw
from tcb_ops.runs.next_commands import command, fixed_list, quoted, resume, retry
from tcb_ops.runs.reader import RunReader
from tcb_ops.runs.records import RunRecord
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
ENVS = 8
"""Environments of a merchant."""
CHANGED = 15
"""Lines of a kind of change."""
OPEN = 3
"""With so few merchants that have something wrong, their details are open."""


def page(
    reader: RunReader,
    summary: RunSummary,
    settings: Settings,
    versions: Mapping[str, str],
    *,
    now: float,
    pdf: bool = True,
    changes: RunDiff | None = None,
) -> str:
    """Return the report of a run as HTML, in the settings' language and time zone.

    `pdf`: whether a report.pdf will stand beside it. `changes` since an earlier run are a section of their own.
    """
    run, counts = summary.run, summary.counts
    labels = Labels(settings)
    merchants = summary.merchants
    bad = sum(one.bad > 0 for one in merchants)
    actions = next_actions(summary.codes)
    matrix = summary.matrix
    drawing = draw(reader.timeline(run))
    environment = _environment(labels)
    environment.globals["namesakes"] = summary.namesakes
    values = {
        "html_lang": "zh-CN" if settings.lang == "zh" else "en",
        "heading": labels[str(Kind(run.kind))],
        "run": run,
        "simulated": is_simulated(run.target),
        "verdict": verdict(run.kind, counts, finished=run.finished_at is not None),
        "state": _state(run, counts),
        "as_of": labels.moment(now),
        "sums": [(OUTCOMES[outcome], rows, _css(outcome)) for outcome, rows in counts.items()],
        "total": summary.total,
        "holder": "" if run.finished_at is not None else reader.worked_on_by(run),
        "resume": quoted(resume(settings, run, canary=counts.keys() <= GOOD | {Outcome.PENDING})),
        "joined": labels.plural("joined", len(run.retries)),
        "unverified": labels.plural("unverified", summary.unverified) if summary.unverified else "",
        "actions": [(action, _whose(action, labels)) for action in actions[:CAUSES]],
        "actions_left": len(actions[CAUSES:]),
        "rows_left": sum(action.group.rows for action in actions[CAUSES:]),
        "in_list": ", ".join(action.group.code for action in actions[:CAUSES] if action.in_list)
        if run.kind is not Kind.AUDIT
        else "",
        "retry": quoted(retry(settings, run))
        if run.finished_at is not None
        and {Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED} & counts.keys()
        else "",
        "fixed_list": quoted(fixed_list(settings, run)),
        "named": NAMED,
        "matrix": matrix,
        "changes": _changes(changes, labels, settings),
        "drawing": drawing,
        "chart": _chart(drawing, labels),
        "bottleneck": bottleneck(reader.phase_seconds(run), run.seconds),
        "merchants": len(merchants),
        "particulars": _particulars(run, labels, now, pdf=pdf),
        "settings": sorted((name, _shown(value)) for name, value in run.settings.items() if value != ""),
        "versions": versions,
    }
    whole = environment.get_template("report.html.j2").render
    of = environment.get_template("merchant.html.j2").module
    room = MOST_BYTES - len(whole(values, blocks=[], lines=[]).encode())
    detailed = summary.with_first_rows(merchants[:DETAILED], reader)
    blocks = _fitting((of.block(one, bad <= OPEN, ENVS) for one in detailed), int(room * DETAILS_SHARE))
    room -= sum(len(block.encode()) for block in blocks)
    others = merchants[len(blocks) :][:LISTED]
    html: str = whole(values, blocks=blocks, lines=_fitting(map(of.line, others), room))
    return html


def _fitting(parts: Iterable[str], room: int) -> list[str]:
    """Take parts of a page as long as they fit into so many bytes; what comes after the first that does not is not made."""
    taken = []
    for part in parts:
        room -= len(part.encode())
        if room < 0:
            break
        taken.append(part)
    return taken


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


def _environment(labels: Labels) -> Any:
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
        "text": labels.text,
        "short": shorten,
        "breaks": _breaks,
    }
    environment.globals |= {
        "w": labels,
        "shade": shade,
        "outcomes": OUTCOMES,
        "reason_text": reason_text,
        "reasons": {*Reason, Outcome.PENDING},
        "code_label": code_label,
        "css": _css,
    }
    return environment


def _breaks(code: str) -> Any:
    """A code that may be parted between its words, as InvalidArgument between d and A."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split("(?<=[a-z])(?=[A-Z])", code))


def _whose(action: NextAction, labels: Labels) -> str:
    """Say `3 merchants · once per merchant`."""
    often = {Per.ONCE: "once", Per.MERCHANT: "per_merchant", Per.ENV: "per_env", Per.NOBODY: "per_nobody"}
    merchants, envs = len(action.group.merchants), len(action.group.envs)
    many = [labels.plural("merchants", merchants)]
    if envs != merchants or action.per is Per.ENV:
        many.append(labels.plural("envs", envs))
    if action.actions != 1 or (action.per is Per.ONCE and merchants > 1):
        many.append(labels[often[action.per]])
    return " · ".join(many)


def _chart(drawing: Drawing | None, labels: Labels) -> dict[str, str]:
    """Say what the drawing shows, for its axis and for those who do not see it."""
    if drawing is None:
        return {}
    good, skipped, bad = drawing.sums
    peak, mean = _rate(drawing.peak), _rate(drawing.mean)
    days = labels.clock(drawing.began, "%Y-%m-%d") != labels.clock(drawing.ended, "%Y-%m-%d")
    form = "%m-%d %H:%M" if days else "%H:%M:%S"
    description = labels["chart"].format(
        began=labels.moment(drawing.began),
        ended=labels.moment(drawing.ended),
        good=f"{good:,}",
        bad=f"{bad:,}",
        skipped=f"{skipped:,}",
        mean=mean,
        peak=peak,
    )
    quiet = ""
    if drawing.quiet is not None:
        begin, end = (labels.clock(at, form) for at in drawing.quiet)
        quiet = labels["quiet"].format(begin=begin, end=end)
    return {
        "began": labels.clock(drawing.began, form),
        "ended": labels.clock(drawing.ended, form),
        "peak": labels["peak"].format(peak=peak),
        "description": description,
        "quiet": quiet,
    }


def _changes(changes: RunDiff | None, labels: Labels, settings: Settings) -> dict[str, Any] | None:
    """What the page shows of a diff: its lines by kind of change, bounded."""
    if changes is None:
        return None
    listed = {
        wanted: changes.of(wanted) for wanted in (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.FIXED)
    }
    listed[Change.ONLY_IN_NEWER] = [line for line in changes.of(Change.ONLY_IN_NEWER) if line.after]
    kinds = [
        (change_title(change), sum(line.rows for line in lines), lines[:CHANGED])
        for change, lines in listed.items()
        if lines
    ]
    shown = sum(len(lines) for _, _, lines in kinds)
    every = sum(map(len, listed.values()))
    newer = changes.newer
    return {
        "verdict": diff_verdict(changes),
        "kinds": kinds,
        "left": labels["changes_more"].format(count=f"{every - shown:,}") if every > shown else "",
        "diff": quoted(command(settings, "diff", changes.older.id, newer.id, target=newer.target)),
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


def _particulars(run: RunRecord, labels: Labels, now: float, *, pdf: bool) -> list[tuple[str, str]]:
    finished = labels["unfinished"] if run.finished_at is None else labels.moment(run.finished_at)
    size = labels["bytes"].format(count=f"{run.list_bytes:,}")
    lines = [
        (labels["run"], run.id),
        (labels["parent"], run.parent),
        (labels["retries"], ", ".join(run.retries)),
        (labels["target"], run.target),
        (labels["note"], run.note),
        (labels["operator"], run.operator),
        (labels["host"], run.host),
        (labels["created"], labels.moment(run.created_at)),
        (labels["finished"], finished),
        (labels["exported"], labels.moment(now)),
        (labels["seconds"], labels["seconds_are"].format(seconds=f"{run.seconds:,.1f}")),
        (
            labels["calls"],
            labels["calls_are"].format(link=f"{run.link_calls:,}", upload=f"{run.upload_calls:,}"),
        ),
        (labels["list"], f"{run.list_name} ({size})"),
        ("SHA-256", run.list_sha256),
        (labels["root"], run.root),
        (labels["pdf"], "" if pdf else labels["no_pdf"]),
    ]
    return [(name, value) for name, value in lines if value]


def _rate(rows_a_second: float) -> str:
    return f"{rows_a_second:,.0f}" if rows_a_second >= 10 else f"{rows_a_second:.1f}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""report.html: one file that a person reads, prints or sends on. No script, no external address.

All text is escaped by the template engine, whatever it is and wherever it came from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tcb_ops.model import GOOD, Kind, Outcome, Text, is_loopback
from tcb_ops.reports.redact import redact
from tcb_ops.reports.table import by_code, causes
from tcb_ops.reports.wording import OUTCOMES, reason_text, verdict, why

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tcb_ops.reports.files import Passed
    from tcb_ops.runs.records import RunRecord, Tally
    from tcb_ops.settings import Settings

__all__ = ["counts_of", "is_simulated", "page"]

PLACES = 1000
"""Lines of the table of merchants and environments; the rest is in results.csv."""
NAMED = 4
"""Merchants named beside a code."""

WORDS: dict[str, Text] = {
    "upload": Text("Upload report", "上传报告"),
    "links": Text("Upload links report", "上传链接报告"),
    "audit": Text("Audit report", "巡检报告"),
    "simulated": Text("SIMULATED 演练", "SIMULATED 演练"),
    "simulated_why": Text(
        "This run went to a simulator on the same machine. Nothing reached WeChat or a merchant.",
        "本次任务的目标是本机上的模拟器，没有任何内容到达微信或商户。",
    ),
    "as_of": Text("As of", "统计时间"),
    "stopped": Text("The last sitting ended early:", "上一次运行提前结束："),
    "go_on": Text(
        "Run the same command again to go on; then export the report again.",
        "再次运行同一命令即可继续；完成后请重新导出报告。",
    ),
    "run": Text("Run", "任务"),
    "rows": Text("Rows", "行数"),
    "outcome": Text("Outcome", "结果"),
    "good": Text("good", "成功"),
    "bad": Text("not good", "未成功"),
    "pending": Text("still to do", "待完成"),
    "share": Text("Share", "占比"),
    "all": Text("All rows", "合计"),
    "sums": Text("How the rows ended", "各行的结果"),
    "codes": Text("What went wrong, and what to do", "出了什么问题，怎么处理"),
    "no_codes": Text("Nothing went wrong.", "没有出现问题。"),
    "code": Text("Code", "错误码"),
    "meaning": Text("What it means", "含义"),
    "action": Text("What to do", "怎么处理"),
    "merchants": Text("Merchants", "商户"),
    "more": Text("and {count} more", "另有 {count} 家"),
    "places": Text("Merchants and environments", "商户与环境"),
    "merchant": Text("Merchant", "商户"),
    "env": Text("Environment", "环境"),
    "places_more": Text(
        "{count} more lines are left out here, those with the fewest rows that are not good. results.csv has every row.",
        "此处省略了 {count} 条未成功行数最少的记录；全部行见 results.csv。",
    ),
    "first": Text("Rows that did not succeed", "未成功的行"),
    "first_of": Text(
        "The first {shown} of {count}; failed.csv has them all.",
        "以下是前 {shown} 行，共 {count} 行；全部见 failed.csv。",
    ),
    "line": Text("Line", "行号"),
    "path": Text("Path", "上传路径"),
    "reason": Text("Why", "原因"),
    "particulars": Text("Particulars", "任务信息"),
    "target": Text("Target", "目标"),
    "list": Text("List", "清单"),
    "root": Text("Local root", "本地根目录"),
    "operator": Text("Operator", "操作人"),
    "host": Text("Machine", "机器"),
    "note": Text("Note", "备注"),
    "parent": Text("Retries run", "重跑自任务"),
    "created": Text("Planned", "计划时间"),
    "finished": Text("Finished", "完成时间"),
    "unfinished": Text("not finished", "未完成"),
    "exported": Text("Report written", "报告生成时间"),
    "calls": Text("Calls", "调用次数"),
    "calls_are": Text("{link} for links, {upload} to the store", "取链接 {link} 次，上传 {upload} 次"),
    "seconds": Text("Working time", "运行时长"),
    "seconds_are": Text("{seconds} s over all sittings", "累计 {seconds} 秒"),
    "settings": Text("Settings", "设置"),
    "versions": Text("Versions", "版本"),
    "bytes": Text("{count} bytes", "{count} 字节"),
}


@dataclass(slots=True)
class Place:
    """A line of the table of merchants and environments."""

    merchant: str
    appid: str
    env: str
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All its rows."""
        return sum(self.outcomes.values())

    @property
    def bad(self) -> int:
        """Those that are not good."""
        return sum(rows for outcome, rows in self.outcomes.items() if outcome not in GOOD)


def is_simulated(run: RunRecord) -> bool:
    """Whether the run's target is a simulator on this machine: the run's own target, not today's setting."""
    return is_loopback(urlsplit(run.target).hostname or "")


def counts_of(groups: Iterable[Tally]) -> dict[Outcome, int]:
    """Sum groups up by outcome, without zeros, in the order of the outcomes."""
    counts: dict[Outcome, int] = defaultdict(int)
    for group in groups:
        counts[group.outcome] += group.rows
    return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}


def page(
    run: RunRecord, passed: Passed, settings: Settings, versions: Mapping[str, str], *, now: float
) -> str:
    """Write the report of a run as HTML, in the settings' language and time zone."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    lang, counts = settings.lang, counts_of(passed.groups)
    words = {name: text.of(lang) for name, text in WORDS.items()}
    places = _places(passed.groups)
    bad = sum(rows for outcome, rows in counts.items() if _css(outcome) == "bad")
    environment = Environment(
        loader=PackageLoader("tcb_ops.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": "{:,}".format, "redact": redact}
    return environment.get_template("report.html.j2").render(
        w=words,
        html_lang="zh-CN" if lang == "zh" else "en",
        heading=words[str(Kind(run.kind))],
        run=run,
        simulated=is_simulated(run),
        verdict=verdict(run.kind, counts, finished=run.finished_at is not None).of(lang),
        state=_state(run, bad),
        as_of=_moment(now, settings),
        sums=[(OUTCOMES[outcome].of(lang), rows, _css(outcome)) for outcome, rows in counts.items()],
        total=sum(counts.values()),
        codes=by_code(causes(group for group in passed.groups if group.outcome is not Outcome.PENDING)),
        named=NAMED,
        lang=lang,
        columns=[(outcome, OUTCOMES[outcome].of(lang)) for outcome in counts],
        places=places[:PLACES],
        places_left=len(places) - PLACES,
        first=[
            (record, OUTCOMES[record.end.outcome].of(lang), reason_text(record.end).of(lang))
            for record in passed.first
        ],
        bad=bad,
        particulars=_particulars(run, settings, words, now),
        settings=sorted((name, _shown(value)) for name, value in run.settings.items()),
        versions=versions,
    )


def _places(groups: Iterable[Tally]) -> list[Place]:
    """Sum groups up by merchant and environment: those with most rows that are not good first, then by name."""
    found: dict[tuple[str, str, str], Place] = {}
    for group in groups:
        place = found.setdefault(
            (group.appid, group.merchant, group.env), Place(group.merchant, group.appid, group.env)
        )
        place.outcomes[group.outcome] = place.outcomes.get(group.outcome, 0) + group.rows
        cause = why(group.outcome, group.reason, group.errcode, group.store_code)
        if cause is not None and group.outcome is not Outcome.PENDING:
            place.codes[cause.code] = place.codes.get(cause.code, 0) + group.rows
    return sorted(found.values(), key=lambda place: (-place.bad, place.merchant, place.env, place.appid))


def _state(run: RunRecord, bad: int) -> str:
    if run.finished_at is None:
        return "unfinished"
    return "bad" if bad else "good"


def _css(outcome: Outcome) -> str:
    return "good" if outcome in GOOD else "pending" if outcome is Outcome.PENDING else "bad"


def _particulars(
    run: RunRecord, settings: Settings, words: dict[str, str], now: float
) -> list[tuple[str, str]]:
    finished = words["unfinished"] if run.finished_at is None else _moment(run.finished_at, settings)
    size = words["bytes"].format(count=f"{run.list_bytes:,}")
    calls = words["calls_are"].format(link=f"{run.link_calls:,}", upload=f"{run.upload_calls:,}")
    lines = [
        (words["run"], run.id),
        (words["parent"], run.parent),
        (words["target"], run.target),
        (words["note"], run.note),
        (words["operator"], run.operator),
        (words["host"], run.host),
        (words["created"], _moment(run.created_at, settings)),
        (words["finished"], finished),
        (words["exported"], _moment(now, settings)),
        (words["seconds"], words["seconds_are"].format(seconds=f"{run.seconds:,.1f}")),
        (words["calls"], calls),
        (words["list"], f"{run.list_name} ({size})"),
        ("SHA-256", run.list_sha256),
        (words["root"], run.root),
    ]
    return [(name, value) for name, value in lines if value]


def _moment(at: float, settings: Settings) -> str:
    moment = datetime.fromtimestamp(at, settings.zone).isoformat(sep=" ", timespec="seconds")
    return f"{moment} {settings.timezone}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

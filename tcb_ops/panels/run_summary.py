"""How a run looks in a panel: its head, how far it is, how it ended. Pure, from records to sentences and HTML."""

from __future__ import annotations

from enum import StrEnum

from tcb_ops.errors import InterruptedRunError, TcbOpsError
from tcb_ops.formatting import format_duration
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import Kind
from tcb_ops.panels.html import esc, heading, progress
from tcb_ops.preflight import ran_out
from tcb_ops.reports.explanations import counts_line, verdict
from tcb_ops.run import Run
from tcb_ops.runs.progress import Progress
from tcb_ops.runs.stop_errors import StopCode

KINDS = {
    Kind.LINKS: Text("links", "取链接"),
    Kind.UPLOAD: Text("upload", "上传"),
    Kind.AUDIT: Text("audit", "巡检"),
}


class RunState(StrEnum):
    """Who works on a run."""

    HERE = "here"
    """This process."""
    ELSEWHERE = "elsewhere"
    UNFINISHED = "unfinished"
    """Nobody: it was cancelled, stopped, or cut off."""
    FINISHED = "finished"


STATES = {
    RunState.HERE: Text("running", "运行中"),
    RunState.ELSEWHERE: Text("worked on by another process", "由其他进程执行"),
    RunState.UNFINISHED: Text("unfinished", "未完成"),
    RunState.FINISHED: Text("finished", "已完成"),
}


def run_state(*, here: bool, held: bool, finished: bool) -> RunState:
    """Tell who works on a run.

    =========  ==========  ============  ==========
    here       held        finished      state
    =========  ==========  ============  ==========
    yes        any         any           here
    no         any         yes           finished
    no         yes         no            elsewhere
    no         no          no            unfinished
    =========  ==========  ============  ==========
    """
    if here:
        return RunState.HERE
    if finished:
        return RunState.FINISHED
    return RunState.ELSEWHERE if held else RunState.UNFINISHED


def render_header(run: Run, state: RunState, lang: Lang, *, simulated: bool) -> str:
    """Draw which run this is, and who works on it."""
    record, said = run.record, STATES[state]
    kind = KINDS[Kind(record.kind)]
    title = Text(f"Run {record.id} · {said.en}", f"任务 {record.id} · {said.zh}").of(lang)
    about = Text(
        f"{kind.en} · {record.list_name} · {plural(record.rows, 'row')} · {record.target} · {record.operator}@{record.host}",
        f"{kind.zh} · {record.list_name} · {record.rows:,} 行 · {record.target} · {record.operator}@{record.host}",
    ).of(lang)
    mark = '<span class="op-mark">SIMULATED 演练</span> ' if simulated else ""
    return f'{heading(title)}<p>{mark}<span class="op-quiet">{esc(about)}</span></p>'


def render_progress(look: Progress, lang: Lang, *, going: bool) -> str:
    """Draw how far a run is; its rate and the time left while it goes on."""
    share = look.done / look.total if look.total else 1.0
    parts = [
        Text(f"{look.done:,} of {look.total:,} rows", f"{look.done:,} / {look.total:,} 行").of(lang),
        f"{int(100 * share)}%",
    ]
    if going:
        parts.append(Text(f"{look.rate:,.0f} rows/s", f"{look.rate:,.0f} 行/秒").of(lang))
        if look.seconds_left is not None:
            left = format_duration(look.seconds_left)
            parts.append(Text(f"{left} left", f"剩余 {left}").of(lang))
    lines = [" · ".join(parts), counts_line(look.counts, lang)]
    if look.note is not None and going:
        lines.append(look.note.of(lang))
    label = Text("Rows that have ended", "已结束的行").of(lang)
    return progress(look.done, look.total, label) + "".join(f"<p>{esc(line)}</p>" for line in lines if line)


def ending(run: Run, error: TcbOpsError | None, links_run_out: int = 0) -> tuple[Text, str]:
    """Say how a run stands that nobody works on, and in which tone.

    `error` is what ended it in our sight, `links_run_out` how many of its links were too old by then.
    """
    record, counts = run.record, run.outcomes
    said = verdict(Kind(record.kind), counts, finished=record.finished_at is not None)
    if record.finished_at is None:
        why = _cut_off(run, error)
        asked = isinstance(error, InterruptedRunError)
        return Text(
            f"{why.en} {said.en} Go on does the rest; what is done is not sent again.",
            f"{why.zh}{said.zh}点“继续”完成其余的行，已完成的不会再次发送。",
        ), "" if asked or error is None else "bad"
    if error is not None:
        said = Text(f"{error.text.en}\n{said.en}", f"{error.text.zh}\n{said.zh}")
    if record.kind == Kind.LINKS and record.report:
        said = Text(
            f"{said.en}\nThe links are in {record.report}, readable by you alone; they live about 15 minutes.",
            f"{said.zh}\n链接在 {record.report}，仅您本人可读；约 15 分钟后过期。",
        )
    late = ran_out(links_run_out, record.report)
    if late is not None:
        said = Text(f"{said.en}\n{late.en}", f"{said.zh}\n{late.zh}")
    return said, "good" if run.good and error is None and late is None else "bad"


def _cut_off(run: Run, error: TcbOpsError | None) -> Text:
    if isinstance(error, InterruptedRunError):
        return Text("Cancelled.", "已取消。")
    if error is not None:
        return Text(f"{error.text.en}\n", f"{error.text.zh}\n")
    stopped = run.record.stopped
    if stopped is not None and stopped.code is StopCode.INTERRUPTED:
        return Text("It was cancelled or interrupted.", "该任务曾被取消或中断。")
    if stopped is not None:
        return Text(f"It was stopped: {stopped.text.en}\n", f"任务曾停止：{stopped.text.zh}\n")
    return Text("It was cut off.", "该任务曾中断。")

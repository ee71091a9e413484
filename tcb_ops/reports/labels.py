"""The page's headings and labels in both languages, its times, and its cuts of long texts."""

from __future__ import annotations

from datetime import datetime

from tcb_ops.i18n import Text
from tcb_ops.settings import Settings

LABELS: dict[str, Text] = {
    "upload": Text("Upload report", "上传报告"),
    "links": Text("Upload links report", "上传链接报告"),
    "audit": Text("Audit report", "巡检报告"),
    "simulated": Text("SIMULATED 演练", "SIMULATED 演练"),
    "simulated_why": Text(
        "This run went to a simulator on the same machine. Nothing reached WeChat or a merchant.",
        "本次任务的目标是本机上的模拟器，没有任何内容到达微信或商户。",
    ),
    "as_of": Text("As of", "统计时间"),
    "stopped": Text("The last session ended early:", "上一次运行提前结束："),
    "go_on": Text(
        "Export the report again when the run has ended. To resume it:",
        "任务结束后请重新导出报告。要继续这个任务：",
    ),
    "worked_on": Text(
        "{holder} is working on it at this moment: export the report again when that has ended.",
        "{holder} 正在执行该任务：请在其结束后重新生成报告。",
    ),
    "wait": Text("Wait for the run to end.", "请等待任务结束。"),
    "joined": Text("with its retries", "含重试"),
    "joined_1": Text(
        "Merged with its retry: the last state of each row.", "已并入 1 次重试：每一行均为最后的结果。"
    ),
    "joined_n": Text(
        "Merged with its {count} retries: the last state of each row.",
        "已并入 {count} 次重试：每一行均为最后的结果。",
    ),
    "rows": Text("Rows", "行数"),
    "good": Text("succeeded", "成功"),
    "bad": Text("did not succeed", "未成功"),
    "pending": Text("still to do", "待完成"),
    "all": Text("All", "合计"),
    "outcomes": Text("How the rows ended", "各行的结果"),
    # what to do next
    "next": Text("What to do next", "下一步做什么"),
    "next_order": Text(
        "What fixes most rows per action comes first.",
        "按每次处理能修复的行数排列，多的在前。",
    ),
    "cause": Text("Cause", "原因"),
    "action": Text("What to do", "怎么办"),
    "whose": Text("Whose it is", "涉及谁"),
    "nothing_wrong": Text("Nothing went wrong. There is nothing to do.", "没有出现问题，无需处理。"),
    "each": Text("{count} each", "每次 {count} 行"),
    "each_or_so": Text("{count} each on average", "平均每次 {count} 行"),
    "once": Text("once for all", "处理一次即可"),
    "per_merchant": Text("once per merchant", "每家商户处理一次"),
    "per_env": Text("once per environment", "每个环境处理一次"),
    "per_nobody": Text("nothing to do", "无需处理"),
    "merchants_1": Text("1 merchant", "1 家商户"),
    "merchants_n": Text("{count} merchants", "{count} 家商户"),
    "envs_1": Text("1 environment", "1 个环境"),
    "envs_n": Text("{count} environments", "{count} 个环境"),
    "more": Text("and {count} more", "另有 {count} 家"),
    "no_name": Text("(no merchant)", "（无商户）"),
    "more_causes": Text(
        "{count} more causes with {rows} rows are in errcodes.csv.",
        "另有 {count} 种原因，共 {rows} 行，见 errcodes.csv。",
    ),
    "then": Text(
        "Then run these rows again:",
        "处理后重新运行这些行：",
    ),
    "in_list": Text(
        "Where the list itself is wrong ({codes}) a retry sends the same again. Correct a copy of failed.csv instead, save it as failed-fixed.csv, and run it:",
        "清单本身有误的行（{codes}），重试只会再次发送同样的内容。请改好 failed.csv 的副本，存为 failed-fixed.csv，再运行：",
    ),
    "unverified_1": Text(
        "1 row is stored but not confirmed: the store's ETag is not an MD5 of the file (unverified in results.csv).",
        "有 1 行已存储但未能核实：存储返回的 ETag 不是内容的 MD5（见 results.csv）。",
    ),
    "unverified_n": Text(
        "{count} rows are stored but not confirmed: the store's ETag is not an MD5 of the file (unverified in results.csv).",
        "有 {count} 行已存储但未能核实：存储返回的 ETag 不是内容的 MD5（见 results.csv）。",
    ),
    # errcode matrix
    "matrix": Text("Merchants and errcodes", "商户与错误码"),
    "matrix_about": Text(
        "Rows that did not succeed, by merchant and code. The darker, the more.",
        "未成功的行，按商户和错误码统计；颜色越深，行数越多。",
    ),
    "merchant": Text("Merchant", "商户"),
    "others": Text("Other codes", "其他错误码"),
    "rest": Text("{count} other merchants", "其他 {count} 家商户"),
    "matrix_left": Text(
        "Shown are the {merchants} merchants and {codes} codes with most rows; errcodes.csv has all.",
        "此处为行数最多的 {merchants} 家商户和 {codes} 个错误码；全部见 errcodes.csv。",
    ),
    # changes
    "changes": Text("Since the run before", "与上一次任务相比"),
    "before": Text("Before", "之前"),
    "after": Text("Now", "现在"),
    "is_good": Text("succeeded", "成功"),
    "changes_more": Text(
        "{count} more lines:",
        "另有 {count} 条：",
    ),
    # over time
    "course": Text("The run over time", "任务过程"),
    "over_time": Text("Rows that ended, over time", "各时段结束的行数"),
    "no_course": Text(
        "Not shown: a run and its retries are too far apart for one picture.",
        "未显示：任务与其重试相隔较久，无法画在一张图中。",
    ),
    "nothing_ended": Text("No row has ended yet.", "尚无任何行结束。"),
    "refused_or_failed": Text("refused or failed", "被拒绝或失败"),
    "not_attempted": Text("not attempted", "未尝试"),
    "peak": Text("at most {peak}/s", "最高 {peak} 行/秒"),
    "chart": Text(
        "Rows over time, from {began} to {ended}: {good} succeeded, {bad} refused or failed, {skipped} not attempted; "
        "{mean} a second on average, {peak} at most.",
        "从 {began} 到 {ended} 各时段结束的行数：成功 {good}，被拒绝或失败 {bad}，未尝试 {skipped}；平均每秒 {mean} 行，最高 {peak} 行。",
    ),
    "quiet": Text("Nothing ended from {begin} to {end}.", "{begin} 至 {end} 之间没有任何行结束。"),
    # per merchant
    "detail": Text("Merchant by merchant", "逐个商户"),
    "bad_of": Text("Not successful / rows", "未成功 / 行数"),
    "bad_of_rows": Text("{bad} of {rows} rows did not succeed", "{rows} 行中 {bad} 行未成功"),
    "env": Text("Environment", "环境"),
    "codes": Text("Codes", "错误码"),
    "first": Text("First rows that did not succeed", "最先出现的未成功行"),
    "line": Text("Line", "行号"),
    "outcome": Text("Outcome", "结果"),
    "path": Text("Path", "上传路径"),
    "reason": Text("Why", "原因"),
    "envs_left": Text("{count} more environments: errcodes.csv.", "另有 {count} 个环境：见 errcodes.csv。"),
    "folded": Text(
        "On paper merchants are folded: report.html unfolds each, and lists the others.",
        "纸上只列出各商户的一行摘要：展开的内容和其余商户见 report.html。",
    ),
    "detail_left": Text("The other {count} merchants", "其他 {count} 家商户"),
    "detail_gone": Text(
        "{count} more merchants are left out here; results.csv has every row.",
        "此处省略了 {count} 家商户；全部行见 results.csv。",
    ),
    "all_rows": Text(
        "failed.csv has every row that did not succeed, results.csv every row.",
        "failed.csv 含全部未成功的行，results.csv 含全部行。",
    ),
    # particulars
    "particulars": Text("About this run", "任务信息"),
    "run": Text("Run", "任务"),
    "parent": Text("Retries run", "重跑自任务"),
    "retries": Text("With its retries", "已并入重试"),
    "target": Text("Target", "目标"),
    "note": Text("Note", "备注"),
    "operator": Text("Operator", "操作人"),
    "host": Text("Machine", "机器"),
    "created": Text("Started", "开始时间"),
    "finished": Text("Finished", "完成时间"),
    "unfinished": Text("not finished", "未完成"),
    "exported": Text("Exported", "报告生成时间"),
    "seconds": Text("Working time", "运行时长"),
    "calls": Text("Calls", "调用次数"),
    "calls_are": Text("{link} for links, {upload} to the store", "取链接 {link} 次，上传 {upload} 次"),
    "seconds_are": Text("{seconds} s over all sessions", "累计 {seconds} 秒"),
    "list": Text("List", "清单"),
    "bytes": Text("{count} bytes", "{count} 字节"),
    "root": Text("Local root", "本地根目录"),
    "settings": Text("Settings", "设置"),
    "versions": Text("Versions", "版本"),
    "pdf": Text("report.pdf", "report.pdf"),
    "no_pdf": Text(
        "left out: no Chromium was found on the machine (TCB_OPS_CHROMIUM names one)",
        "未生成：本机没有找到 Chromium（可用 TCB_OPS_CHROMIUM 指定）",
    ),
}


class Labels:
    """The labels and times in the report's language and time zone."""

    def __init__(self, settings: Settings) -> None:
        self._lang, self._zone, self._timezone = settings.lang, settings.zone, settings.timezone

    def __getitem__(self, name: str) -> str:
        return LABELS[name].of(self._lang)

    def text(self, text: Text) -> str:
        """Return a text in the report's language."""
        return text.of(self._lang)

    def plural(self, name: str, count: int) -> str:
        """Return `1 merchant`, `3 merchants`."""
        return self[f"{name}_1" if count == 1 else f"{name}_n"].format(count=f"{count:,}")

    def moment(self, at: float) -> str:
        """Format Unix seconds as a date and time, with the zone."""
        return f"{datetime.fromtimestamp(at, self._zone).isoformat(sep=' ', timespec='seconds')} {self._timezone}"

    def clock(self, at: float, form: str) -> str:
        """Format Unix seconds as `strftime` does."""
        return datetime.fromtimestamp(at, self._zone).strftime(form)


def shorten(text: str, length: int) -> str:
    """Cut a text to so many columns: its beginning, and its end, which tells paths apart."""
    from rich.cells import cell_len

    if len(text) * 2 <= length or cell_len(text) <= length:
        return text
    wide = 2 if cell_len(text[:length]) > length else 1
    tail = length // 4 // wide
    return f"{text[: length // wide - tail - 1]}…{text[-tail:]}"

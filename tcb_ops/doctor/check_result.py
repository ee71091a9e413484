"""What a check found, and how a check is kept from hanging or from ending the others."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import Lang, Text


class Grade(StrEnum):
    """How a thing stands."""

    OK = "ok"
    WARNING = "warning"
    """Works; somebody should look at it."""
    BAD = "bad"
    """A run would end on it."""
    SKIPPED = "skipped"
    """Not looked at, or not there and not needed."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the doctor's table."""

    name: str
    """The check: a short word that stays the same, for `--json`."""
    grade: Grade
    seen: Text
    mend: Text | None = None
    """What to do; None where there is nothing to do."""

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """The finding for JSON."""
        mend = self.mend.of(lang) if self.mend is not None else None
        return {"check": self.name, "grade": str(self.grade), "seen": self.seen.of(lang), "mend": mend}


def of_error(name: str, text: Text, otherwise: Text | None = None) -> CheckResult:
    """A bad finding of an error's sentences: the first says what was seen, the others what to do.

    `otherwise` is what to do where there is but one.
    """
    en, zh = _CUT_EN.split(text.en, maxsplit=1), text.zh.split("。", 1)
    if len(en) == 2 and len(zh) == 2 and zh[1]:
        return CheckResult(name, Grade.BAD, Text(en[0], zh[0]), Text(en[1], zh[1]))
    return CheckResult(name, Grade.BAD, text, otherwise or _MENDS.get(name))


def skipped(name: str, en: str, zh: str) -> CheckResult:
    """Say that something was not looked at."""
    return CheckResult(name, Grade.SKIPPED, Text(en, zh))


def limited(
    names: Sequence[str], check: Callable[[], Sequence[CheckResult]], seconds: float
) -> list[CheckResult]:
    """Run a check in a thread of its own, for so long and no longer; gives findings under `names`, whatever happens.

    The thread is left behind where it does not end: a name server, a disk or a program that hangs. An error is
    found, not raised.
    """
    found: list[CheckResult] = []

    def run() -> None:
        try:
            found.extend(check())
        except Exception as error:  # noqa: BLE001  a broken check must not hide what the others find
            found.append(_of_any(names[0], error))

    thread = threading.Thread(target=run, name=f"doctor-{names[0]}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        slow = Text(f"no end within {seconds:.0f} s", f"{seconds:.0f} 秒内没有结束")
        found = [CheckResult(names[0], Grade.BAD, slow, _HANGS)]
    said = {finding.name for finding in found}
    return [
        *found,
        *(
            skipped(n, "not looked at while the line above is not ok", "上一项未通过，故未检查")
            for n in names
            if n not in said
        ),
    ]


def _of_any(name: str, error: Exception) -> CheckResult:
    if isinstance(error, TcbOpsError):
        return of_error(name, error.text)
    if isinstance(error, OSError):
        what, why = error.filename or "", error.strerror or type(error).__name__
        return CheckResult(
            name,
            Grade.BAD,
            Text(f"{what}: {why}".lstrip(": "), f"{what}：{why}".lstrip("：")),
            Text("Mend that, then run doctor again.", "请处理后再次运行 doctor。"),
        )
    kind = type(error).__name__
    return CheckResult(
        name,
        Grade.BAD,
        Text(f"the check itself failed ({kind})", f"检查本身出错（{kind}）"),
        Text("Please report it: this is a defect in tcb-ops.", "请报告此问题：这是 tcb-ops 的缺陷。"),
    )


_HANGS = Text(
    "Something hangs there (a name server, a disk, a program). See to it, then run doctor again.",
    "其中某一环节没有响应（域名服务器、磁盘或程序）。请处理后再次运行 doctor。",
)
_CUT_EN = re.compile(r"\. +(?=[A-Z`])")
_MENDS = {
    "settings": Text(
        "Mend it; the README's section on settings lists what there is.",
        "请修正；可用的设置见 README 的“设置”一节。",
    ),
    "merchants": Text("Mend the merchants file.", "请修正商户表。"),
    "ledger": Text(
        "Mend that, or name another ledger with --ledger.", "请处理，或用 --ledger 指定另一个台账。"
    ),
    "target": Text(
        "Check api_base, the network, the firewall and any proxy on the way; then run doctor again.",
        "请检查 api_base、网络、防火墙和途经的代理，然后再次运行 doctor。",
    ),
    "tokens": Text(
        "Mend the token source ([tokens] in the settings).", "请修正令牌来源（设置中的 [tokens]）。"
    ),
    "address": Text(
        "Check the network and any proxy on the way, then run doctor again.",
        "请检查网络和途经的代理，然后再次运行 doctor。",
    ),
}
"""What to do where an error says only what happened."""

"""Reading a fault plan from its TOML file; every mistake names the file and the entry."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import SettingsError
from tcb_ops.model import Text
from tcb_ops.simulator.faults import Etag, Fault, Faults, Reset, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["load_faults"]

ANSWERS = ("errcode", "code", "status", "reset", "body", "lifetime", "etag")
LINK_ONLY = frozenset({"errcode", "body", "lifetime"})
STORE_ONLY = frozenset({"code", "etag"})


def load_faults(path: Path) -> Faults:
    """Read a fault plan. Raises SettingsError with the file, the entry's number and what to write instead."""
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or "cannot be read"
        raise SettingsError(
            Text(f"{path}: the fault plan cannot be read ({why}).", f"{path}：无法读取故障计划（{why}）。")
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            Text(f"{path}: this is not TOML: {error}.", f"{path}：不是有效的 TOML：{error}。")
        ) from None
    entries = plan.pop("fault", [])
    if plan or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(
            Text(
                f"{path}: a fault plan holds [[fault]] entries and nothing else.",
                f"{path}：故障计划中只能有 [[fault]] 条目。",
            )
        )
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            faults.append(_fault(entry))
        except _WrongError as wrong:
            text = wrong.text
            raise SettingsError(
                Text(f"{path}: fault {number}: {text.en}", f"{path}：第 {number} 条故障：{text.zh}")
            ) from None
    return Faults(tuple(faults))


class _WrongError(Exception):
    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.text = Text(en, zh)


def _fault(entry: dict[str, Any]) -> Fault:
    for key in entry:
        if key not in _READERS:
            raise _WrongError(
                f"there is no “{key}”; known are {', '.join(_READERS)}.",
                f"没有“{key}”这一项；可用：{'、'.join(_READERS)}。",
            )
    values: dict[str, Any] = {}
    for key, value in entry.items():
        values[_FIELDS.get(key, key)] = _READERS[key](key, value)
    if "env" not in entry and "appid" not in entry:
        raise _WrongError("say whom it hits: env, appid or both.", "请写明对象：env、appid 或两者。")
    step = values.get("step", Step.LINK)
    foreign = [key for key in entry if key in (STORE_ONLY if step is Step.LINK else LINK_ONLY)]
    if foreign:
        other = Step.STORE if step is Step.LINK else Step.LINK
        raise _WrongError(
            f'{foreign[0]} belongs to step = "{other}".', f'{foreign[0]} 只用于 step = "{other}"。'
        )
    answers = [key for key in ANSWERS if key in entry]
    if len(answers) > 1 and answers != ["code", "status"]:
        raise _WrongError(
            f"{' and '.join(answers)} do not go together: one entry has one of them.",
            f"{'、'.join(answers)} 不能同时使用：每条只能选一个。",
        )
    if not answers and "delay" not in entry:
        raise _WrongError(
            f"say what goes wrong: one of {', '.join(ANSWERS)}, or delay.",
            f"请写明故障：{'、'.join(ANSWERS)} 之一，或 delay。",
        )
    if "errmsg" in entry and not {"errcode", "code"} & set(entry):
        raise _WrongError("errmsg goes with errcode or code.", "errmsg 须与 errcode 或 code 一起使用。")
    return Fault(**values)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongError(f"{key} must be a text that is not empty.", f"{key} 必须是非空文本。")
    return value


def _number(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _WrongError(
            f"{key} must be a whole number from {low} to {high}.", f"{key} 必须是 {low} 到 {high} 的整数。"
        )
    return value


def _errcode(key: str, value: object) -> int:
    code = _number(key, value, -9_999_999, 9_999_999)
    if code == 0:
        raise _WrongError("errcode 0 is no fault.", "errcode 0 不是故障。")
    return code


def _delay(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise _WrongError(f"{key} must be seconds from 0 to 3600.", f"{key} 必须是 0 到 3600 之间的秒数。")
    return float(value)


def _one_of(key: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise _WrongError(f"{key} must be one of {', '.join(known)}.", f"{key} 只能是 {'、'.join(known)}。")
    return str(value)


def _reset(key: str, value: object) -> Reset:
    if value is True:
        return Reset.BEFORE
    if value == Reset.MIDDLE:
        return Reset.MIDDLE
    raise _WrongError(f'{key} must be true or "middle".', f'{key} 只能是 true 或 "middle"。')


def _calls(key: str, value: object) -> tuple[tuple[int, int], ...]:
    """Read 2, [1, 3] or "1-3"."""
    if isinstance(value, list) and value:
        return tuple(_range(key, each) for each in value)
    return (_range(key, value),)


def _range(key: str, value: object) -> tuple[int, int]:
    first, dash, last = value.partition("-") if isinstance(value, str) else (str(value), "", "")
    ends = (first, last if dash else first)
    if isinstance(value, str | int) and all(end.strip().isdecimal() and len(end) < 9 for end in ends):
        low, high = int(ends[0]), int(ends[1])
        if 1 <= low <= high:
            return low, high
    raise _WrongError(
        f'{key} counts from 1: write 2, [1, 3] or "1-3".', f'{key} 从 1 开始计数：请写 2、[1, 3] 或 "1-3"。'
    )


_FIELDS = {"call": "calls", "body": "garbage"}
_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "env": _text,
    "appid": _text,
    "path": _text,
    "step": lambda key, value: Step(_one_of(key, value, ("link", "store"))),
    "call": _calls,
    "errcode": _errcode,
    "errmsg": _text,
    "code": _text,
    "status": lambda key, value: _number(key, value, 300, 599),
    "reset": _reset,
    "body": lambda key, value: bool(_one_of(key, value, ("garbage",))),
    "lifetime": lambda key, value: _number(key, value, 0, 86_400),
    "etag": lambda key, value: Etag(_one_of(key, value, ("wrong", "opaque"))),
    "delay": _delay,
}

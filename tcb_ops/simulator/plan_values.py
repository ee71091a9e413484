"""Reading one value of a fault plan: each says what would be right."""

from __future__ import annotations

from tcb_ops.i18n import Text
from tcb_ops.simulator.faults import Reset


class WrongError(Exception):
    """A mistake in an entry; whoever reads the file adds its name and the entry's number."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.text = Text(en, zh)


def text(key: str, value: object) -> str:
    """Read a text."""
    if not isinstance(value, str) or not value:
        raise WrongError(f"{key} must be a text that is not empty.", f"{key} 必须是非空文本。")
    return value


def plain(key: str, value: object) -> str:
    """Read an id, which is no pattern."""
    found = text(key, value)
    if set(found) & set("*?[]"):
        raise WrongError(
            f"{key} names one: * ? and [] do not work here.", f"{key} 只能写一个，不支持通配符。"
        )
    return found


def yes_or_no(key: str, value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise WrongError(f"{key} must be true or false.", f"{key} 只能是 true 或 false。")
    return value


def numbers(key: str, value: object) -> tuple[int, ...]:
    """Read a list of ids of permission sets."""
    if not isinstance(value, list):
        raise WrongError(f"{key} must be a list such as [49].", f"{key} 应为列表，例如 [49]。")
    return tuple(number(key, each, 1, 9999) for each in value)


def number(key: str, value: object, low: int, high: int) -> int:
    """Read a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WrongError(
            f"{key} must be a whole number from {low} to {high}.", f"{key} 必须是 {low} 到 {high} 的整数。"
        )
    return value


def errcode(key: str, value: object) -> int:
    """Read an errcode that is a fault."""
    code = number(key, value, -9_999_999, 9_999_999)
    if code == 0:
        raise WrongError("errcode 0 is no fault.", "errcode 0 不是故障。")
    return code


def delay(key: str, value: object) -> float:
    """Read seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise WrongError(f"{key} must be seconds from 0 to 3600.", f"{key} 必须是 0 到 3600 之间的秒数。")
    return float(value)


def one_of(key: str, value: object, known: tuple[str, ...]) -> str:
    """Read one of a few words."""
    if value not in known:
        raise WrongError(f"{key} must be one of {', '.join(known)}.", f"{key} 只能是 {'、'.join(known)}。")
    return str(value)


def reset(key: str, value: object) -> Reset:
    """Read where a connection breaks."""
    if value is True:
        return Reset.BEFORE
    if value == Reset.MIDDLE:
        return Reset.MIDDLE
    raise WrongError(f'{key} must be true or "middle".', f'{key} 只能是 true 或 "middle"。')


def calls(key: str, value: object) -> tuple[tuple[int, int], ...]:
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
    raise WrongError(
        f'{key} counts from 1: write 2, [1, 3] or "1-3".', f'{key} 从 1 开始计数：请写 2、[1, 3] 或 "1-3"。'
    )

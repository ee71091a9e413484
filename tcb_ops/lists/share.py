"""Shares of a list: processes that know nothing of one another divide its merchants among themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias, Union

from tcb_ops.errors import check_value
from tcb_ops.i18n import _

ShareLike: TypeAlias = Union["Share", tuple[int, int], str]
"""A share as callers give it: a Share, (2, 5) or "2/5"."""
_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Share:
    """One of `of` shares, numbered from 1: the merchants whose appid's hash falls to it."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, appid: str) -> bool:
        """Return whether an appid belongs to the share; the same on every machine, whatever else the list has."""
        return _stable_hash(appid) % self.of == self.number - 1

    def added_to(self, selection: str) -> str:
        """Return a run's selection with the share, which makes it another run."""
        return "; ".join(filter(None, [selection, f"share {self}"]))

    def removed_from(self, selection: str) -> str:
        """Return the selection that `added_to` was given."""
        return selection.removesuffix(f"share {self}").removesuffix("; ")


@lru_cache(maxsize=65_536)
def _stable_hash(appid: str) -> int:
    return int.from_bytes(sha256(appid.encode("utf-8", "backslashreplace")).digest()[:8])


def read_share(value: ShareLike, parameter: str = "share") -> Share:
    """Return the share that a caller gives. Raises ArgumentError.

    ===========================  ===========
    value                        share
    ===========================  ===========
    "2/5", (2, 5), Share(2, 5)   2 of 5
    "0/5", "6/5", (0, 0)         error
    "2", "2 / 5", 2, True, None  error
    ===========================  ===========
    """
    given: object = (value.number, value.of) if isinstance(value, Share) else value
    if isinstance(given, str) and (found := _WRITTEN.fullmatch(given)):
        given = int(found[1]), int(found[2])
    if isinstance(given, tuple) and len(given) == 2 and all(type(one) is int for one in given):
        number, of = given
        if 1 <= number <= of:
            return Share(number, of)
    check_value(parameter, value, usable=False, valid=_("K/N, such as 2/5, with K from 1 to N"))
    raise AssertionError

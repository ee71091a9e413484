"""A path list made of files and merchants: an ordinary list, to be looked through before it goes."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.cells import shown, trim
from tcb_ops.lists.files import Files, Unfit
from tcb_ops.lists.problems import input_error, of_file
from tcb_ops.lists.rules import path_problem
from tcb_ops.model import Problem, Text
from tcb_ops.spreadsheet import guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tcb_ops.lists.gathering import Gathered
    from tcb_ops.model import Merchant

__all__ = ["FIELDS", "Made", "Template", "make_list", "root_of"]

FIELDS = ("name", "stem", "ext", "dir", "rel", "date", "merchant", "appid", "env")


@dataclass(frozen=True, slots=True)
class Made:
    """A list that was made."""

    rows: int
    files: int
    envs: int
    merchants: int
    """Mini programs (appids)."""
    bytes: int
    """Of all rows: what will be sent."""


class Template:
    """A cloud path with fields: `banner/{date}/{name}`.

    name: banner.png; stem: banner; ext: png; dir: its folder below the source; rel: dir and name; date: today,
    2026-03-15; merchant, appid, env: whose row it is. `{dir}/` is nothing where a file lies at the top.
    Raises UsageError for any other field.
    """

    def __init__(self, text: str, today: str) -> None:
        self._today = today
        try:
            self._parts = [(literal, field) for literal, field, spec, how in _parsed(text)]
        except ValueError:
            raise self._wrong(text, "{ }") from None
        for _, field in self._parts:
            if field is not None and field not in FIELDS:
                raise self._wrong(text, field)
        fields = {field for _, field in self._parts}
        self.by_file = bool(fields & {"name", "stem", "ext", "dir", "rel"})
        self.by_target = bool(fields & {"merchant", "appid", "env"})

    def path(self, file: str, target: Merchant) -> str:
        """The cloud path of a file (relative to the source) for a merchant's environment."""
        at = PurePosixPath(file)
        folder = "" if str(at.parent) == "." else str(at.parent)
        values = {
            "name": at.name,
            "stem": at.stem,
            "ext": at.suffix.removeprefix("."),
            "dir": folder,
            "rel": file,
            "date": self._today,
            "merchant": target.name,
            "appid": target.appid,
            "env": target.env,
        }
        said = ""
        for literal, field in self._parts:
            # A file at the top has no folder: its slash would be one too many.
            said += literal[1:] if self._gone and literal.startswith("/") else literal
            value = values[field] if field is not None else ""
            said += value
        return said

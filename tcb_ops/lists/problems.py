"""Problems in words: one line for a screen, one error for the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcb_ops.errors import InputError
from tcb_ops.model import Lang, Problem, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["format_problem", "input_error", "of_file"]


def of_file(message: Text, mend: Text, *, line: int = 0, column: str = "", value: str = "") -> Problem:
    """A problem of the file itself, which `--on-bad skip` cannot pass over."""
    return Problem(line, column, message, mend, value, skippable=False)


def format_problem(source: str, problem: Problem, lang: Lang) -> str:
    """One line: `FILE:LINE: column 'X': what is wrong — how to mend it`; without LINE for the whole file."""
    where = f"{source}:{problem.line}: " if problem.line else f"{source}: "
    message, mend = problem.message.of(lang), problem.mend.of(lang)
    if lang is Lang.ZH:
        column = f"“{problem.column}”列：" if problem.column else ""
        return f"{where}{column}{message} —— {mend}"
    column = f"column '{problem.column}': " if problem.column else ""
    return f"{where}{column}{message} — {mend}"


def input_error(source: str, problems: Sequence[Problem], decided: Text | None = None) -> InputError:
    """The error that refuses a file: how many problems, and the first one in full."""
    many, first = len(problems), problems[0]
    en, zh = format_problem(source, first, Lang.EN), format_problem(source, first, Lang.ZH)
    if many > 1:
        en = f"{source} has {many:,} problems, so nothing was sent. The first: {en}"
        zh = f"{source} 有 {many:,} 处问题，什么都没有发送。第一处：{zh}"
    return InputError(Text(en, zh), source, problems, decided)

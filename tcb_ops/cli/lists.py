"""Reading the list that a command names, and showing what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, read_list
from tcb_ops.errors import InputError
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.paths import Batch
from tcb_ops.lists.problems import PROBLEMS_SHOWN, new_fixme
from tcb_ops.model import Problem
from tcb_ops.settings import Settings


def show_problems(screen: Console, source: str, problems: Sequence[Problem]) -> None:
    """Say the first problems, a line each, and how many more there are."""
    from tcb_ops.lists.problems import format_problem

    for problem in problems[:PROBLEMS_SHOWN]:
        screen.warn(Text(*(format_problem(source, problem, lang) for lang in (Lang.EN, Lang.ZH))))
    if len(problems) > PROBLEMS_SHOWN:
        rest = len(problems) - PROBLEMS_SHOWN
        screen.warn(Text(f"… and {rest:,} more problems", f"……另有 {rest:,} 个问题"))


def read_shown(
    screen: Console,
    source: str,
    given: CommonOptions,
    settings: Settings,
    values: dict[str, Any],
    *,
    root: str | None,
) -> Batch:
    """Read the list, and say what was decided; or show its problems, write the fix-me CSV, and exit 2."""
    from tcb_ops.lists.problems import write_fixme

    def show(error_or_batch: InputError | Batch) -> None:
        problems = error_or_batch.problems
        show_problems(screen, source, problems)
        dest = Path(values["fix_me"]) if values["fix_me"] else new_fixme(Path(source))
        if write_fixme(problems, dest, settings.lang):
            screen.warn(
                Text(
                    f"All of them, and only them, to mend and feed back in: {dest} (the good rows go with --on-bad skip)",
                    f"有问题的行（仅这些行）见 {dest}，修正后可作为清单再次使用（其余行可用 --on-bad skip 先行处理）",
                )
            )

    try:
        batch = read_list(source, given, settings, values, root=root)
    except InputError as error:
        if error.source != source:
            raise
        if error.decided is not None:
            screen.say(Text(f"Read as {error.decided.en}", f"读作 {error.decided.zh}"))
        show(error)
        count = len(error.problems)
        screen.warn(
            Text(
                f"The list is refused: {count:,} {'problem' if count == 1 else 'problems'}. Nothing was sent.",
                f"清单未被接受：共 {count:,} 处问题。未发送任何内容。",
            )
        )
        raise click.exceptions.Exit(error.exit_code) from None
    screen.say(batch.decided)
    for warning in batch.warnings:
        screen.warn(warning)
    if batch.problems:
        show(batch)
    if batch.left_out:
        screen.say(
            Text(
                f"{plural(batch.left_out, 'row')} left out by --where",
                f"--where 排除了 {batch.left_out:,} 行",
            )
        )
    return batch.limited(values["limit"]) if values.get("limit") else batch

"""The options of commands that scan a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tcb_ops.cli.options import Function, given, options_of


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ScanOptions:
    """Options that make a list of a folder: which files, for whom, and where to."""

    to: tuple[str, ...] = given(
        "An env, a merchant's name or appid; all: every merchant's default environment; all-envs: every "
        "environment. --where narrows the last two. Repeatable.",
        (),
        required=True,
        metavar="WHOM",
    )
    template: str = given("The cloud path.", "{rel}", name="path", show_default=True, metavar="TEMPLATE")
    include: tuple[str, ...] = given("Only such files, e.g. '*.png'. Repeatable.", (), metavar="GLOB")
    exclude: tuple[str, ...] = given("Exclude such files, e.g. '旧/*'. Repeatable.", (), metavar="GLOB")


def scan_options(path_help: str) -> Callable[[Function], Function]:
    """Return the options of a command that scans a folder; `path_help`: the help of --path."""
    return options_of(ScanOptions, template=path_help)

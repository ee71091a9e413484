"""The options that several commands share, and what they make: the settings, the pace, the merchants, the list."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tcb_ops.cli.console import Console
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import Batch
from tcb_ops.model import target_label
from tcb_ops.runs.limits import RunLimits
from tcb_ops.settings import Settings, holds_password, load_settings

Command = TypeVar("Command", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The shared options of a command line."""

    config: str | None
    api_base: str | None
    target: str | None
    merchants: str | None
    tokens: str | None
    ledger: str | None
    where: tuple[str, ...]
    json: bool
    lang: str | None
    note: str
    quiet: bool
    verbose: bool

    def settings(self) -> Settings:
        """The settings file, the environment, then these options."""
        options: dict[str, Any] = {
            "api_base": self.api_base,
            "target": self.target,
            "merchants": self.merchants,
            "ledger": self.ledger,
            "lang": self.lang,
        }
        settings = load_settings(self.config, options)
        if self.tokens is None:
            return settings
        tokens = settings.tokens.model_copy(update={"source": "file", "file": Path(self.tokens)})
        return settings.model_copy(update={"tokens": tokens})

    def screen(self, settings: Settings) -> Console:
        """Where to talk."""
        screen = Console(settings.lang, quiet=self.quiet, verbose=self.verbose)
        if self.ledger and holds_password(self.ledger):
            screen.warn(
                Text(
                    "The password in --ledger can be seen in this machine's process list, and the commands suggested here "
                    "leave it out: set TCB_OPS_LEDGER to the URL instead, or `ledger` in tcb-ops.toml.",
                    "--ledger 中的密码会出现在本机的进程列表里，此处建议的命令也不会带上它：请改用环境变量 TCB_OPS_LEDGER，"
                    "或在 tcb-ops.toml 中设置 ledger。",
                )
            )
        return screen

    @contextmanager
    def reach(self, screen: Console, settings: Settings) -> Iterator[Settings]:
        """Open the target for a command that sends; the first line that it prints names the target.

        What else is said is held back until the command releases the screen, or ends.
        """
        from tcb_ops.simulator import opened_target

        merchants = self.read_merchants(settings).whole if settings.target else ()
        with (
            opened_target(settings, merchants) as opened,
            screen.held(None if self.quiet and opened.on_loopback else target_line(opened)),
        ):
            self.say_ledger(screen, settings)
            yield opened

    @staticmethod
    def say_ledger(screen: Console, settings: Settings) -> None:
        """Say which ledger is used and why, where two could be meant."""
        if settings.origin.ledger_choice is not None:
            screen.say(settings.origin.ledger_choice)

    def warn_of_open_tokens(self, screen: Console, settings: Settings) -> None:
        """Say so where others on this machine may read the token file."""
        file = settings.tokens.file
        if os.name == "posix" and settings.tokens.source == "file" and not settings.on_loopback:
            with suppress(OSError):  # a file that cannot be read is said where it is needed
                if file.stat().st_mode & 0o077:
                    screen.warn(
                        Text(
                            f"{file} may be read by others on this machine: chmod 600 {file}",
                            f"{file} 可被本机其他用户读取：请执行 chmod 600 {file}",
                        )
                    )

    def read_merchants(self, settings: Settings) -> Merchants:
        """The merchants file, narrowed by `--where`."""
        from tcb_ops.lists.merchants import read_merchants

        if not settings.merchants.exists():
            file = settings.merchants
            raise UsageError(
                Text(
                    f"{file}: there is no such file. `tcb-ops init` writes one to fill in, `tcb-ops merchants sync` fills "
                    "it from the platform; --merchants names another.",
                    f"{file}：没有这个文件。`tcb-ops init` 可写出一份供填写，`tcb-ops merchants sync` 可从平台取得；"
                    "--merchants 可指定另一份。",
                )
            )
        return read_merchants(settings.merchants, self.where)


def target_line(settings: Settings) -> Text:
    """Name the target: what a command that sends says first and last."""
    label = target_label(settings.run_target, settings.api_base)
    if settings.target:
        return Text(f"{label} (embedded simulator)", f"{label}（内置模拟平台）")
    return Text(label, label)


def shared_options(command: Command) -> Command:
    """Add the shared options; the command gets them as `given`."""
    options = (
        click.option(
            "--config", metavar="FILE", help="Settings file. [default: tcb-ops.toml here, if there]"
        ),
        click.option(
            "--target",
            metavar="simulator|URL",
            help="Where calls go; simulator: the embedded one. [default: https://api.weixin.qq.com]",
        ),
        click.option("--api-base", metavar="URL", help="The same as --target URL."),
        click.option("--merchants", metavar="FILE", help="Merchants file. [default: merchants.csv]"),
        click.option("--tokens", metavar="FILE", help="Token file: appid,access_token[,expires_at]."),
        click.option("--ledger", metavar="FILE|URL", help="The ledger. [default: tcb-ops.db]"),
        click.option(
            "--where", multiple=True, metavar="COLUMN=VALUE", help="Only matching merchants. Repeatable."
        ),
        click.option("--json", is_flag=True, help="Print one JSON object on stdout."),
        click.option("--lang", type=click.Choice(["zh", "en"]), help="Language of messages and reports."),
        click.option("--note", default="", metavar="TEXT", help="Kept with the run."),
        click.option("--quiet", is_flag=True, help="No progress, no talk; errors still show."),
        click.option("--verbose", is_flag=True, help="Say more; show the trace of a defect."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def common_options(values: dict[str, Any]) -> CommonOptions:
    """Take the shared options out of a command's keyword arguments."""
    return CommonOptions(**{name: values.pop(name) for name in CommonOptions.__dataclass_fields__})


def list_options(command: Command) -> Command:
    """Add the options about reading a path list."""
    options = (
        click.option(
            "--column",
            multiple=True,
            metavar="NAME=HEADER",
            help="Which header means env, merchant, path, file or appid. Repeatable.",
        ),
        click.option(
            "--sheet", default="", metavar="NAME", help="The workbook's sheet. [default: the one that fits]"
        ),
        click.option(
            "--header-row",
            type=click.IntRange(min=1),
            metavar="N",
            help="The row of the column names. [default: found, titles above it are passed over]",
        ),
        click.option(
            "--rows",
            type=click.Choice(["all", "visible"]),
            help="Whether a sheet's hidden and filtered rows count. [default: they refuse the list]",
        ),
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="THERE=HERE",
            help=r"Where a folder of another machine is here, e.g. 'D:\素材=/data/素材'. Repeatable.",
        ),
        click.option(
            "--on-bad",
            type=click.Choice(["refuse", "skip"]),
            default="refuse",
            show_default=True,
            help="Refuse a list with problems whole, or go on without those rows.",
        ),
        click.option(
            "--fix-me",
            metavar="FILE",
            help="Where the rows with problems go, as CSV. [default: beside the list]",
        ),
        click.option("--root", metavar="DIR", help="Where the local files lie. [default: the list's folder]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


class _Finite(click.FloatRange):
    """A number in a range; `nan` and `inf`, which pass for numbers, are none here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def pace_options(command: Command) -> Command:
    """Add the options about how hard to press."""
    usual = RunLimits()
    options = (
        click.option(
            "--concurrency",
            type=click.IntRange(1, 1000),
            default=usual.concurrency,
            show_default=True,
            help="Requests in flight, all.",
        ),
        click.option(
            "--per-env",
            type=click.IntRange(1, 1000),
            default=usual.per_env,
            show_default=True,
            help="Rows in flight per environment.",
        ),
        click.option(
            "--rate",
            type=_Finite(min=1e-6),
            help="Link calls a second per appid. [default: no limit]",
        ),
        click.option(
            "--attempts",
            type=click.IntRange(1, 100),
            default=usual.attempts,
            show_default=True,
            help="Calls per step of a row (link, store).",
        ),
        click.option(
            "--backoff",
            type=_Finite(min=0),
            default=usual.backoff,
            show_default=True,
            help="Seconds, the first wait; later ones double.",
        ),
        click.option(
            "--slow-wait",
            type=_Finite(min=0),
            default=usual.slow_wait,
            show_default=True,
            help="Seconds to pause when told to slow down.",
        ),
        click.option(
            "--patience",
            type=_Finite(min=0),
            default=usual.patience,
            show_default=True,
            help="Seconds to bear slowness, or no connection at all.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def take_pace(values: dict[str, Any]) -> RunLimits:
    """Take the pace out of a command's keyword arguments."""
    return RunLimits(**{name: values.pop(name) for name in RunLimits.__dataclass_fields__})


def run_options(command: Command) -> Command:
    """Add the options about which run this is."""
    options = (
        click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing."),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N good rows."),
        click.option("--new-run", is_flag=True, help="Begin anew even if a run of this list is unfinished."),
        click.option("--resume", default="", metavar="RUN", help="Go on with this unfinished run."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def columns_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read `--column NAME=HEADER`."""
    columns: dict[str, str] = {}
    for pair in pairs:
        name, equals, header = pair.partition("=")
        if not equals or not name or not header:
            raise UsageError(
                Text(
                    f"--column {pair}: write NAME=HEADER, e.g. path=云端路径",
                    f"--column {pair}：应写作 NAME=表头，例如 path=云端路径",
                )
            )
        columns[name.strip()] = header.strip()
    return columns


def selection_of(given: CommonOptions, values: dict[str, Any]) -> str:
    """What tells runs over different parts of the same list apart."""
    parts = [
        *(f"where {w}" for w in sorted(given.where)),
        *(f"column {c}" for c in sorted(values["column"])),
        *(f"map {m}" for m in sorted(values["maps"])),
    ]
    return "; ".join(
        parts
        + [
            f"{name.replace('_', '-')} {values[name]}"
            for name in ("sheet", "header_row", "rows", "limit")
            if values[name]
        ]
    )


def read_list(
    source: str, given: CommonOptions, settings: Settings, values: dict[str, Any], *, root: str | None
) -> Batch:
    """Read the list that the command names; with problems it raises InputError."""
    from tcb_ops.lists.paths import read_paths

    return read_paths(
        source,
        given.read_merchants(settings),
        root,
        columns=columns_of(values["column"]),
        on_bad=values["on_bad"],
        sheet=values["sheet"],
        header_row=values["header_row"] or 0,
        rows=values["rows"],
        file_map=values["maps"],
    )

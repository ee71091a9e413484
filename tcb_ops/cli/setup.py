"""The commands that prepare a run: init, list."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from tcb_ops.cli.console import Console
from tcb_ops.cli.lists import show_problems
from tcb_ops.cli.options import CommonOptions, common_options, shared_options
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Text, plural
from tcb_ops.lists.generate import ScannedFiles
from tcb_ops.runs.next_commands import command, quoted
from tcb_ops.settings import SETTINGS_FILE, Settings, load_settings, settings_file


@click.command()
@click.option("--dir", "folder", default=".", metavar="DIR", help="Where to. [default: the working folder]")
@click.option("--lang", type=click.Choice(["zh", "en"]), help="Language of the template and of messages.")
def init(folder: str, lang: str | None) -> int:
    """Write settings, a merchants file, a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; what is there already is left as it is. The template's
    drop-down has the names of merchants.csv: delete it and run init again when there are new ones.
    """
    from tcb_ops.lists.generate import list_template
    from tcb_ops.lists.merchants_editor import EMPTY_FILE

    target = Path(folder)
    config = target / SETTINGS_FILE
    settings = load_settings(config if config.exists() else None, {"lang": lang})
    screen = Console(settings.lang)
    names = _names(target / "merchants.csv")
    for name, content in (
        (SETTINGS_FILE, (files("tcb_ops") / "starter.toml").read_bytes()),
        ("merchants.csv", EMPTY_FILE),
        ("list-template.xlsx", list_template(names, settings.lang)),
    ):
        _write_new(screen, target / name, content)
    screen.say(
        Text(
            "Next: a line per merchant and environment in merchants.csv, tokens in tokens.csv (README: Tokens), a list in "
            "a copy of list-template.xlsx; then tcb-ops check LIST.",
            "接下来：在 merchants.csv 中为每个商户的每个环境填一行，在 tokens.csv 中填写令牌（见 README 的 Tokens 一节），"
            "在 list-template.xlsx 的副本中填写清单；然后运行 tcb-ops check 清单。",
        )
    )
    return 0


def _names(merchants: Path) -> list[str]:
    """The names for the drop-down; none where there is no merchants file yet, or an unfinished one."""
    from tcb_ops.lists.merchants import read_merchants

    try:
        found = read_merchants(merchants)
    except InputError:
        return []
    return list(dict.fromkeys(m.name for m in found if not m.left))


def _write_new(screen: Console, file: Path, content: bytes) -> None:
    if file.exists():
        screen.say(Text(f"{file} is there already: left as it is", f"{file} 已存在：未改动"))
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:
            out.write(content)
    except OSError as error:
        raise UsageError(
            Text(f"{file} cannot be written ({error.strerror})", f"{file} 无法写入（{error.strerror}）")
        ) from None
    screen.data(str(file))


@click.command("list")
@click.argument("source")
@click.option(
    "--to",
    multiple=True,
    required=True,
    metavar="WHOM",
    help="An env, a merchant's name or appid; all: every merchant's default environment; all-envs: every "
    "environment. --where narrows the last two. Repeatable.",
)
@click.option(
    "--path",
    "template",
    default="{rel}",
    show_default=True,
    metavar="TEMPLATE",
    help="The cloud path, e.g. 'banner/{date}/{name}'. Fields: {name} {stem} {ext} {dir} {rel} {date} {merchant} "
    "{appid} {env}.",
)
@click.option(
    "--out", default="list.csv", show_default=True, metavar="FILE", help="The list; never overwritten."
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only such files, e.g. '*.png'. Repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No such files, e.g. '旧/*'. Repeatable.")
@click.option(
    "--root",
    metavar="DIR",
    help="Where the list's file column starts from. [default: the list's folder, else SOURCE]",
)
@shared_options
def make_list(
    source: str,
    to: tuple[str, ...],
    template: str,
    out: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    root: str | None,
    **values: Any,
) -> int:
    """Make a path list of a file or a folder.

    A row per file and environment. Nothing is sent: look through the list, then give it to check and upload.

    Hidden and temporary files (.DS_Store, Thumbs.db, ~$…) and tcb-ops's own are left out, and counted.
    """
    from tcb_ops.lists.generate import PathTemplate, default_root, scan, select_targets, write_list

    given = common_options(values)
    settings = given.settings()
    screen = given.screen(settings)
    dest = Path(out)
    today = datetime.now(settings.zone).date().isoformat()
    fields = PathTemplate(template, today)
    targets = select_targets(given.read_merchants(settings), to)
    scanned = scan(Path(source), include=include, exclude=exclude, own=_own(given, settings))
    base = default_root(scanned.folder, dest, Path(root) if root is not None else None)
    try:
        made = write_list(scanned, targets, fields, dest, base)
    except InputError as error:
        show_problems(screen, error.source, error.problems)
        screen.warn(Text("No list was written.", "没有写出清单。"))
        raise click.exceptions.Exit(error.exit_code) from None
    _say_left_out(screen, scanned)
    if given.json:
        left_out = {"junk": scanned.junk, "own": scanned.own, "excluded": scanned.excluded}
        screen.json({"list": str(dest), "root": str(base)} | asdict(made) | {"left_out": left_out})
        return 0
    screen.data(
        Text(
            f"{dest}: {plural(made.rows, 'row')}, {plural(made.files, 'file')} for {plural(made.envs, 'environment')} of "
            f"{plural(made.merchants, 'merchant')}, {format_size(made.bytes)}",
            f"{dest}：{made.rows:,} 行，{made.files:,} 个文件，{made.merchants:,} 个商户的 {made.envs:,} 个环境，共 {format_size(made.bytes)}",
        ).of(settings.lang)
    )
    upload = quoted(command(settings, "upload", str(dest.absolute()), "--root", str(base.absolute())))
    screen.say(Text(f"Look through it, then:\n{upload}", f"请先查看，然后运行：\n{upload}"))
    return 0


def _own(given: CommonOptions, settings: Settings) -> frozenset[str]:
    """The real paths of what must never be uploaded, however a folder is aimed."""
    links = ("links.csv", "links.csv.part", "links.retry.csv", "links.retry.csv.part")
    tokens = settings.tokens
    named: list[str | Path] = [
        settings_file(given.config),
        settings.merchants,
        tokens.file,
        tokens.store,
        *links,
    ]
    named += [
        value.removeprefix("file:") for value in (tokens.secret, tokens.ticket) if value.startswith("file:")
    ]
    if "://" not in settings.ledger:
        real = os.path.realpath(settings.ledger)
        named += [real + tail for tail in ("", "-wal", "-shm", "-journal", "-locks")]
    return frozenset(os.path.realpath(name) for name in named)


def _say_left_out(screen: Console, scanned: ScannedFiles) -> None:
    for count, what in (
        (scanned.junk, Text("hidden or temporary", "隐藏或临时文件")),
        (scanned.own, Text("tcb-ops's own", "tcb-ops 自己的文件")),
        (scanned.excluded, Text("by --include and --exclude", "被 --include、--exclude 排除")),
    ):
        if count:
            screen.say(Text(f"Left out, {what.en}: {count:,}", f"未列入（{what.zh}）：{count:,}"))

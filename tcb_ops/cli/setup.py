"""The commands that set up: init, which makes files to begin with; completion, by click, of commands, options, files and runs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, lang_option, own_option
from tcb_ops.errors import UsageError, needed
from tcb_ops.hooks import SimulatorHooks
from tcb_ops.i18n import Lang, _, pgettext
from tcb_ops.settings import SETTINGS_FILE, read_settings, without_dots
from tcb_ops.system_errors import system_reason


@click.command(cls=Command, usual="practice lang")
@click.argument("folder", metavar="[DIR]", default=".")
@own_option(
    "--practice",
    needs=SimulatorHooks,
    is_flag=True,
    help="A rehearsal instead: sample merchants, a list, its files; the target is the simulator.",
)
@lang_option
def init(folder: str, *, practice: bool, common: CommonOptions) -> int:
    """Write settings, a merchants file and a list template.

    tcb-ops.toml, merchants.csv and list-template.xlsx; existing files are not overwritten.
    """
    from importlib.resources import files

    from tcb_ops.lists.merchants import EMPTY_FILE

    target = Path(folder)
    config = target / SETTINGS_FILE
    if practice:
        return _practise(target, common)
    settings, console = replace(common, config=str(config) if config.exists() else None).start()
    _write_new(console, config, (files("tcb_ops") / "starter.toml").read_bytes())
    _write_new(console, target / "merchants.csv", EMPTY_FILE)
    _write_new(console, target / "list-template.xlsx", list_template(settings.lang))
    console.info(
        _(
            "Next: fill in merchants.csv (a line per merchant and environment) and a list in a copy of "
            "list-template.xlsx; then run tcb-ops check LIST. For live runs, tcb-ops.toml says where tokens come from."
        )
    )
    return 0


def _practise(folder: Path, common: CommonOptions) -> int:
    from tcb_ops.engine.next_commands import command

    try:
        written = needed(SimulatorHooks).write_practice(folder)
    except OSError as error:
        text = _("{file} cannot be written ({why})", file=error.filename or folder, why=system_reason(error))
        raise UsageError(text) from None
    settings, console = replace(common, config=str(folder / SETTINGS_FILE)).start()
    for file in written:
        console.print(str(file))
    console.info(
        _('A rehearsal: as long as tcb-ops.toml has target = "simulator", nothing leaves this machine.')
    )
    words = (without_dots(folder / "paths.csv"), "--root", without_dots(folder / "files"))
    console.suggest(_("Upload its list to the simulator:"), command(settings, "upload", *words))
    return 0


def _write_new(console: Console, file: Path, content: bytes) -> None:
    if file.exists():
        console.info(_("{file} already exists: not overwritten", file=file))
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as out:
            out.write(content)
    except OSError as error:
        reason = system_reason(error)
        raise UsageError(_("{file} cannot be written ({why})", file=file, why=reason)) from None
    console.print(str(file))


def list_template(lang: Lang) -> bytes:
    """Return a workbook for a path list whose columns are text: 007 and 1E5 stay as typed."""
    import xlsxwriter

    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        text = book.add_format({"num_format": "@"})
        bold = book.add_format({"num_format": "@", "bold": True, "bottom": 1})
        sheet = book.add_worksheet(_("list").of(lang))
        sheet.set_column("A:A", 24, text)
        sheet.set_column("B:C", 44, text)
        heads = [_("merchant"), pgettext("column", "path"), pgettext("column", "file")]
        sheet.write_row(0, 0, [head.of(lang) for head in heads], bold)
        sheet.freeze_panes(1, 0)
    return out.getvalue()


# --- completion -----------------------------------------------------------------------------------------------------

VARIABLE = "_TCB_OPS_COMPLETE"
"""The environment variable by which a shell's script passes shell and instruction, such as `bash_complete`."""
_FILES = ("FILE", "FILE.csv", "FILE|URL", "ORIGINAL.xlsx", "PATH", "DIR", "paths", "source", "folder")
_RUNS = ("RUN", "run", "older", "newer", "what")


@click.command(cls=Command, usual="lang")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@lang_option
def completion(shell: str, lang: str | None) -> int:  # noqa: ARG001  main reads it
    """Print the script that completes commands in a shell.

    Commands, options, files and runs. Set it up once as --help-all says, then open a new shell.

    bash: echo 'eval "$(tcb-ops completion bash)"' >> ~/.bashrc

    zsh: echo 'eval "$(tcb-ops completion zsh)"' >> ~/.zshrc

    fish: tcb-ops completion fish > ~/.config/fish/completions/tcb-ops.fish
    """
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  click has all three
    click.echo(made(click.get_current_context().find_root().command, {}, "tcb-ops", VARIABLE).source())
    return 0


def answer(cli: click.Group) -> int:
    """Answer a shell's script on stdout. Nothing is printed on stderr: it would appear in the line being typed."""
    with redirect_stderr(io.StringIO()), suppress(Exception, KeyboardInterrupt):
        # The groups call `obj` for each command that the line needs.
        shell_complete(_prepared(cli), {"obj": _prepared}, "tcb-ops", VARIABLE, os.environ[VARIABLE])
    return 0


def _prepared(command: click.Command) -> click.Command:
    """Give a command's options and arguments of text the types that complete them, by metavar or name."""
    for param in command.get_params(click.Context(command, resilient_parsing=True)):
        key = param.name if isinstance(param, click.Argument) else param.metavar
        if param.type is click.STRING and key in _FILES:
            param.type = click.Path()
        elif param.type is click.STRING and key in _RUNS:
            param.type = _RunId()
    return command


class _RunId(click.types.StringParamType):
    """A run, completed by its id; files where no run fits."""

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        names = ("target", "api_base", "merchants", "ledger", "lang")
        items = [CompletionItem("latest")] if "latest".startswith(incomplete) else []
        with suppress(Exception):  # settings or a ledger that cannot be read
            settings = read_settings(ctx.params.get("config"), {name: ctx.params.get(name) for name in names})
            for run, kind, created_at, list_name in _newest_runs(settings.ledger, incomplete):
                date = f"{datetime.fromtimestamp(created_at, settings.zone):%Y-%m-%d %H:%M}"
                items.append(CompletionItem(run, help=f"{kind} {date} {list_name}"))
        return items or [CompletionItem(incomplete, type="file")]


_NEWEST = "SELECT id, kind, created_at, list_name FROM runs WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT 50"


def _newest_runs(where: str, begins: str) -> Sequence[Any]:
    """Return (id, kind, time, list) of runs of an SQLite ledger, which is not created. Raises the database's errors."""
    import sqlite3

    file = Path(where.removeprefix("sqlite:///")).absolute()
    if not file.is_file():  # opening a pipe would wait for a writer
        return []
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.2)) as opened:
        return opened.execute(_NEWEST, (len(begins), begins)).fetchall()

"""Shell completion by click: commands, options, files, and the ledger's runs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from tcb_ops.cli import Command
from tcb_ops.cli.options import lang_option
from tcb_ops.settings import load_settings

VARIABLE = "_TCB_OPS_COMPLETE"
"""The environment variable by which a shell's script passes shell and instruction, such as `bash_complete`."""
RUNS_SHOWN = 50
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
            settings = load_settings(ctx.params.get("config"), {name: ctx.params.get(name) for name in names})
            for run, kind, created_at, list_name in _newest_runs(settings.ledger, incomplete):
                date = f"{datetime.fromtimestamp(created_at, settings.zone):%Y-%m-%d %H:%M}"
                items.append(CompletionItem(run, help=f"{kind} {date} {list_name}"))
        return items or [CompletionItem(incomplete, type="file")]


_NEWEST = (
    "SELECT id, kind, created_at, list_name FROM runs WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT ?"
)


def _newest_runs(where: str, begins: str) -> Sequence[Any]:
    """Return (id, kind, time, list) of runs of an SQLite ledger, which is not created. Raises the database's errors."""
    import sqlite3

    file = Path(where.removeprefix("sqlite:///")).absolute()
    if not file.is_file():  # opening a pipe would wait for a writer
        return []
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.2)) as opened:
        return opened.execute(_NEWEST, (len(begins), begins, RUNS_SHOWN)).fetchall()

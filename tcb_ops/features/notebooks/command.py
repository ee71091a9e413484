"""The commands for notebooks: notebook, lab."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, common_options, first_line, lang_option
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, Text, _, as_list
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import CONFIG, Settings

if TYPE_CHECKING:
    from tcb_ops.features.notebooks.execute import Executed
    from tcb_ops.features.notebooks.parameters import Source, Value


@click.command(cls=Command, usual="p out target lang where")
@click.argument("name")
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the notebook; text stays text. Repeatable.",
)
@click.option(
    "--out", required=True, metavar="DIR", help="Where the executed notebook, its page and the report go."
)
@common_options
def notebook(name: str, parameters: tuple[str, ...], out: str, *, common: CommonOptions) -> int:
    """Run a notebook from top to bottom, unattended.

    NAME is one of the four, a part of its name (03), or a path. DIR gets the executed notebook, its page without code,
    and the run's report in a folder named after the run. Exit codes are the run's. A live target needs -p yes=true.
    """
    from tcb_ops.features.notebooks.parameters import find_notebook

    settings, console = common.start()
    file = find_notebook(name, Lang(settings.lang))
    _check_folder(Path.cwd())
    _need("nbclient", "nbconvert", "ipykernel")
    from tcb_ops.features.notebooks.execute import execute
    from tcb_ops.features.notebooks.parameters import check_output, open_notebook, take_parameters

    source = open_notebook(file)
    options = {"lang": common.lang, "note": common.note, "where": "; ".join(common.where)}
    words = [f"{option}={value}" for option, value in options.items() if value]
    taken = take_parameters(source.parameters, [*parameters, *words], source.name)
    if "lang" in source.parameters:
        taken.setdefault("lang", settings.lang.value)
    target = _check_target(common, source, taken, settings)
    check_output(source, Path(out))
    if target is not None:
        console.warn(target)
    ended = execute(
        source,
        taken,
        Path(out),
        environment=_environment(common) | {"TCB_OPS_REPORTS": str(Path(out).absolute())},
        lang=Lang(settings.lang),
        zone=settings.zone,
        progress=lambda number, total, cell: console.info(
            _("{name} {number}/{of} · {cell}", name=source.name, number=number, of=total, cell=cell)
        ),
    )
    _show(console, ended, as_json=common.json)
    if target is not None:
        console.info(target)
    return ended.exit_code


def _show(console: Console, ended: Executed, *, as_json: bool) -> None:
    if ended.text is not None and ended.exit_code > 1:
        console.warn(_("tcb-ops: {text}", text=ended.text))
    elif ended.text is not None:
        (console.info if as_json else console.print)(ended.text)
    if as_json:
        files = {"notebook": str(ended.notebook), "page": str(ended.page)}
        console.json(files | {"run": ended.run, "report": ended.report, "exit_code": ended.exit_code})
        return
    for path in filter(None, (ended.notebook, ended.page, ended.report)):
        console.print(str(path))


def _environment(common: CommonOptions) -> dict[str, str]:
    target = common.target or common.api_base
    tokens = (("TCB_OPS_TOKENS__SOURCE", "file"), ("TCB_OPS_TOKENS__FILE", common.tokens))
    variables = (
        (CONFIG, common.config),
        ("TCB_OPS_TARGET", target),
        ("TCB_OPS_API_BASE", target),  # set both: an existing value of one must not contradict the other
        ("TCB_OPS_MERCHANTS", common.merchants),
        ("TCB_OPS_LEDGER", common.ledger),
        *(tokens if common.tokens else ()),
    )
    return {name: value for name, value in variables if value}


def _check_target(
    common: CommonOptions, source: Source, taken: Mapping[str, Value], settings: Settings
) -> Text | None:
    """Return the line that names the target; None for a notebook without the parameter `target`.

    Raises UsageError for options of a live run if the notebook uses the sample.
    """
    if "target" not in source.parameters:
        return None
    if taken.get("target", source.parameters["target"]) != SIMULATOR or settings.is_rehearsal:
        from tcb_ops.start import identified

        return first_line(identified(settings))
    for name in ("target", "api_base", "merchants", "tokens", "ledger"):
        if getattr(common, name) and (name, common.target) != ("target", SIMULATOR):
            text = _(
                "{option} is for a live run, but {name} uses the embedded simulator: add -p "
                "target=live. Nothing was run."
            )
            raise UsageError(text.format(option=f"--{name.replace('_', '-')}", name=source.name))
    return _("SIMULATED: the sample's 12 merchants, not yours. For your own: -p target=live")


@click.command(cls=Command, usual="no-open no-browser lang")
@click.argument("folder", metavar="[DIR]", default=".")
@click.argument("arguments", metavar="[-- JUPYTERLAB OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--no-open", is_flag=True, help="Only copy; start nothing.")
@click.option("--no-browser", is_flag=True, help="Start JupyterLab, open no browser; its address is shown.")
@lang_option
def lab(
    folder: str, arguments: tuple[str, ...], *, no_open: bool, no_browser: bool, common: CommonOptions
) -> int:
    """Copy the notebooks into DIR and open JupyterLab there.

    The sample data is copied, too. Existing files are not overwritten; those that differ from this
    version's are listed. DIR is the working folder unless given.
    """
    import subprocess

    from tcb_ops.engine.next_commands import install
    from tcb_ops.features.notebooks.parameters import fill

    settings, console = common.start()
    if folder.startswith("-"):  # it stands behind the dashes: no DIR is given
        folder, arguments = ".", (folder, *arguments)
    workspace = Path(folder)
    if not no_open:
        _need(*_LAB)
        _check_folder(workspace)
    new, different = fill(workspace, Lang(settings.lang))
    for name in new:
        if name.endswith(".ipynb"):
            console.print(str(workspace / name))
    for name in different:
        text = _(
            "{workspace}: not overwritten; it differs from this version's. Rename it and run lab again to get "
            "this version's."
        )
        console.info(text.format(workspace=workspace / name))
    if no_open:
        if missing := _missing(*_LAB):
            text = _("To open them here, install {names}:\n{command}")
            console.warn(text.format(names=as_list(missing), command=install("lab")))
        return 0
    # -P: a jupyterlab.py in the working folder, which may be another user's, is not the one that is meant.
    words = ["-P", "-m", "jupyterlab", f"--ServerApp.root_dir={workspace.resolve()}"]
    words += ["--no-browser"] if no_browser else []
    # Without JupyterLab's question about its news; a user's own configuration is not touched.
    path = [str(Path(__file__).with_name("jupyter")), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, path))}
    # Each panel works in a thread, and glibc would keep what up to 16 of them have freed: 9 MiB each.
    env.setdefault("MALLOC_ARENA_MAX", "2")
    if common.lang is not None:
        env["TCB_OPS_LANG"] = common.lang  # of the panels
    with subprocess.Popen([sys.executable, *words, *arguments], env=env) as server:  # noqa: S603  our own interpreter
        try:
            return server.wait()
        except KeyboardInterrupt:  # the server would ask for confirmation; one Ctrl-C is enough
            server.terminate()
            raise


def _check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that others can write to: a kernel imports modules from the folder it starts in."""
    if os.name != "posix" or not folder.is_dir():
        return
    status = folder.stat()
    if status.st_mode & 0o002 or status.st_uid not in {os.getuid(), 0}:
        text = _(
            "{folder} belongs to another user, or everybody can write to it: a notebook would run modules that others have put "
            "there. Use a folder of your own."
        )
        raise UsageError(text.format(folder=folder.absolute()))


_LAB = ("jupyterlab", "ipywidgets", "anywidget")


def _need(*libraries: str) -> None:
    """Raise UsageError with the command that installs the libraries if one is missing."""
    from tcb_ops.engine.next_commands import install

    if missing := _missing(*libraries):
        text = _("Notebooks need {names}. Install them, then run the same command again:\n{command}")
        raise UsageError(text.format(names=as_list(missing), command=install("lab")))


def _missing(*libraries: str) -> list[str]:
    from importlib.util import find_spec

    return [library for library in libraries if find_spec(library) is None]

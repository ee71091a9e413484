"""The commands for notebooks, which may be run against a live target, and for practice: notebook, lab, simulate, demo."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli.options import (
    CommonOptions,
    WholeNumber,
    common_options,
    lang_option,
    port_option,
    target_line,
)
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, Text, _, ngettext, verbatim
from tcb_ops.model import SIMULATOR, Owner

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console
    from tcb_ops.notebooks import Source, Value
    from tcb_ops.notebooks.execute import Executed
    from tcb_ops.settings import Settings
    from tcb_ops.simulator import Simulator


@click.command()
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

    NAME is one of the five, a part of its name (03), or a path. DIR gets the executed notebook, its page without code,
    and the run's report in a folder named after the run. Exit codes are the run's.
    """
    from tcb_ops.notebooks import find_notebook

    file = find_notebook(name)
    _need("papermill", "nbconvert", "ipykernel")
    from tcb_ops.notebooks import check_output, open_notebook, take_parameters
    from tcb_ops.notebooks.execute import execute

    settings, console = common.start()
    source = open_notebook(file)
    known = {parameter.name for parameter in source.parameters}
    taken = take_parameters(source.parameters, [*parameters, *_from_options(common)], source.name)
    if "lang" in known:
        taken.setdefault("lang", settings.lang.value)
    target = _check_target(common, source, taken, settings)
    check_output(source, Path(out))
    if target is not None:
        console.warn(target)
    ended = execute(
        source,
        taken,
        Path(out),
        environment=_environment(common),
        lang=Lang(settings.lang),
        zone=settings.zone,
        progress=lambda number, of, cell: console.info(
            _("{name} {number}/{of} · {cell}", name=source.name, number=number, of=of, cell=cell)
        ),
    )
    _show(console, ended, as_json=common.json)
    if target is not None:
        console.info(target)
    return ended.exit_code


def _show(console: Console, ended: Executed, *, as_json: bool) -> None:
    """Print how the notebook ended and which files it wrote."""
    if ended.text is not None and ended.exit_code > 1:
        console.warn(_("tcb-ops: {text}", text=ended.text))
    elif ended.text is not None and as_json:
        console.info(ended.text)
    if as_json:
        console.json(
            {
                "notebook": str(ended.notebook),
                "page": str(ended.page),
                "run": ended.run,
                "report": ended.report,
                "exit_code": ended.exit_code,
            }
        )
    else:
        if ended.screen:
            console.print(ended.screen)
        if ended.text is not None and ended.exit_code <= 1:
            console.print(ended.text)
        for left in filter(None, (ended.notebook, ended.page, ended.report)):
            console.print(str(left))


def _from_options(common: CommonOptions) -> list[str]:
    """Return the options that are parameters of a notebook, as NAME=VALUE."""
    words = [f"{name}={value}" for name, value in (("lang", common.lang), ("note", common.note)) if value]
    return [*words, f"where={'; '.join(common.where)}"] if common.where else words


def _environment(common: CommonOptions) -> dict[str, str]:
    """Return the environment variables that pass the target and the files' options to the notebook."""
    from tcb_ops.settings import CONFIG

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

    Raises UsageError for options of a live run if the notebook uses the embedded simulator.
    """
    usual = {parameter.name: parameter.default for parameter in source.parameters}
    if "target" not in usual:
        return None
    if taken.get("target", usual["target"]) != SIMULATOR:
        return target_line(settings)
    options = {
        "--target": None if common.target == SIMULATOR else common.target,
        "--api-base": common.api_base,
        "--merchants": common.merchants,
        "--tokens": common.tokens,
        "--ledger": common.ledger,
    }
    for option, value in options.items():
        if value:
            raise UsageError(
                _(
                    "{option} is for a live run, but {name} uses the embedded simulator: add -p "
                    "target=live. Nothing was run.",
                    option=option,
                    name=source.name,
                )
            )
    return _("SIMULATED: the sample's 12 merchants, not yours. For your own: -p target=live")


class _Passing(click.Command):
    """A command that passes the words after `--` to another program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words before `--`; those after it become `arguments`."""
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        if more := ctx.params["arguments"]:
            raise UsageError(_("{more}: put options for JupyterLab after -- .", more=" ".join(more)))
        ctx.params["arguments"] = tuple(args[at + 1 :])
        return rest


@click.command(cls=_Passing)
@click.argument("folder", metavar="[DIR]", default=".")
@click.argument("arguments", metavar="[-- JUPYTERLAB OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option("--no-open", is_flag=True, help="Only copy; start nothing.")
@click.option("--no-browser", is_flag=True, help="Start JupyterLab, open no browser; its address is shown.")
@lang_option
def lab(folder: str, arguments: tuple[str, ...], lang: str | None, *, no_open: bool, no_browser: bool) -> int:
    """Copy the notebooks into DIR and open JupyterLab there.

    The sample data is copied, too. Existing files are not overwritten; those that differ from this
    version's are listed. DIR is the working folder unless given.
    """
    import subprocess

    from tcb_ops.cli.console import Console
    from tcb_ops.notebooks import fill
    from tcb_ops.settings import load_settings

    console = Console(load_settings(options={"lang": lang}).lang)
    if not no_open:
        _need("jupyterlab", "ipywidgets", "anywidget")
    workspace = Path(folder)
    copied = fill(workspace)
    fresh = [name for name in copied.new if name.endswith(".ipynb")]
    for name in fresh:
        console.print(str(workspace / name))
    for name in copied.kept:
        console.info(
            _(
                "{workspace}: not overwritten; it differs from this version's. Rename it and run lab again to get "
                "this version's.",
                workspace=workspace / name,
            )
        )
    if no_open:
        return 0
    words = ["-m", "jupyterlab", f"--ServerApp.root_dir={workspace.resolve()}"]
    if no_browser:
        words.append("--no-browser")
    # Without JupyterLab's question about its news; a user's own configuration is not touched.
    path = [str(files("tcb_ops.notebooks") / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, path))}
    # Each panel works in a thread, and glibc would keep what up to 16 of them have freed: 9 MiB each.
    env.setdefault("MALLOC_ARENA_MAX", "2")
    if lang is not None:
        env["TCB_OPS_LANG"] = lang  # of the panels
    with subprocess.Popen([sys.executable, *words, *arguments], env=env) as server:  # noqa: S603  our own interpreter
        try:
            return server.wait()
        except KeyboardInterrupt:  # the server would ask for confirmation; one Ctrl-C is enough
            server.terminate()
            raise


def _need(*libraries: str) -> None:
    """Raise UsageError with the command that installs the libraries if one is missing."""
    from importlib.util import find_spec

    from tcb_ops.runs.next_commands import install

    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        names, command = ", ".join(missing), install("lab")
        raise UsageError(
            _(
                "Notebooks need {names}. Install them, then run the same command again:\n{command}",
                names=names,
                command=command,
            )
        )


@click.command()
@click.option("--merchants", required=True, metavar="FILE", help="The merchants that it serves.")
@click.option(
    "--tokens",
    metavar="FILE",
    help="Token file; read again when it changes. Not needed where the fault plan's [component] gives tokens.",
)
@port_option(8089)
@click.option("--faults", metavar="FILE", help="The fault plan: what goes wrong, and where (TOML).")
@click.option("--store", metavar="DIR", help="Keep the uploaded files here.")
@click.option(
    "--night",
    type=WholeNumber(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Play the fault plan's entries of this night.",
)
@lang_option
def simulate(
    merchants: str,
    tokens: str | None,
    port: int,
    faults: str | None,
    store: str | None,
    night: int,
    lang: str | None,
) -> int:
    """Serve a simulation of the platform and of COS.

    For practice, on this machine only. Press Ctrl-C to stop it.
    """
    from tcb_ops.cli.console import Console
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.settings import load_settings
    from tcb_ops.simulator import Faults, Simulator, load_faults, serve

    settings = load_settings(options={"lang": lang})
    console = Console(settings.lang)
    plan = load_faults(Path(faults)) if faults else Faults()
    if tokens is None and not (plan.component and plan.component.secret):
        raise UsageError(
            _(
                "Give the valid tokens: --tokens FILE, or a fault plan whose [component] has secret and "
                "ticket."
            )
        )
    served = list(read_merchants(merchants))
    component = plan.component.appid if plan.component else settings.tokens.component_appid
    if any(merchant.owner is Owner.PLATFORM for merchant in served):
        console.info(_about_the_component(component, in_plan=plan.component is not None))
    simulator = Simulator(
        served,
        {} if tokens is None else Path(tokens),
        faults=plan,
        component_appid=component,
        store=Path(store) if store else None,
        port=port,
        night=night,
    )

    def ready(listening: Simulator) -> None:
        console.print(listening.base)
        console.info(
            _("The simulator is ready: use --api-base {base}. Press Ctrl-C to stop it.", base=listening.base)
        )

    serve(simulator, ready)
    return 0


def _about_the_component(appid: str, *, in_plan: bool) -> Text:
    """Return the message about the token that serves merchants with owner = platform."""
    if not appid:
        return _(
            "Lines with owner = platform need the component token: set component_appid under [tokens] in "
            "tcb-ops.toml, or appid under [component] in the fault plan. Without it their rows are refused "
            "with 61014."
        )
    where = _("the fault plan") if in_plan else verbatim("tcb-ops.toml")
    return _(
        "Lines with owner = platform are served with the token of {appid} ({where}).",
        appid=appid,
        where=where,
    )


@click.command()
@lang_option
def demo(lang: str | None) -> int:
    """Run everything against the simulator.

    A dozen sample merchants, with injected faults. Needs no credentials; writes demo-report/ here, with its ledger.
    Exit 0 when every row ends as the fault plan implies.
    """
    import tempfile

    import tcb_ops as tcb
    from tcb_ops.cli.console import Console, show_run
    from tcb_ops.reports.explanations import counts_line
    from tcb_ops.reports.export import DEMO_LEDGER, check_destination
    from tcb_ops.runs.next_commands import quoted, retry
    from tcb_ops.sample import FILES, PATHS, sample_simulator, unexpected_lines
    from tcb_ops.settings import LEDGER_FILE, SETTINGS_FILE

    started, dest = time.monotonic(), Path("demo-report").resolve()
    home = dest / DEMO_LEDGER
    check_destination(dest, replace=True)
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-demo-") as folder,
        sample_simulator(Path(folder), lang=lang) as found,
    ):
        settings, simulator, faults = found
        console = Console(settings.lang)
        merchants = tcb.read_merchants(settings.merchants)
        names = len({merchant.appid for merchant in merchants})
        console.info(target_line(settings))
        console.info(
            _(
                "1/4 The simulator is ready on {base}: {merchants}, {environments}.",
                base=simulator.base,
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", names),
                environments=ngettext("{n:,} environment", "{n:,} environments", len(merchants)),
            )
        )
        # What takes a real run a minute must not hold up somebody who looks at it for the first time.
        limits = tcb.RunLimits(backoff=0.05, slow_wait=0.3, patience=10.0)
        with tcb.read_paths(PATHS, merchants, FILES) as batch:
            console.info(_("2/4 The list is checked: {decided}", decided=batch.decided))
            linked = tcb.links(batch, settings=settings, limits=limits, out=Path(folder) / "links.csv")
            console.info(_("3/4 Links: {outcomes}", outcomes=counts_line(linked.outcomes)))
            run = tcb.upload(batch, settings=settings, limits=limits, note="demo")
            console.info(_("4/4 Uploads: {outcomes}", outcomes=counts_line(run.outcomes)))
            kept = replace(settings, ledger=str(home / LEDGER_FILE)).kept_in(home / SETTINGS_FILE)
            show_run(console, run, as_json=False)
            run.with_settings(kept).export(dest, replace=True)
            strange = [line for one in (linked, run) for line in unexpected_lines(one, batch, faults)]
        linked.close()
        run.close()
        _keep_ledger(Path(folder), home, kept)
    took, again = time.monotonic() - started, quoted(retry(kept, run.record))
    console.print(
        _(
            "The report is in {dest}: open report.html. ({took:.1f} s; SIMULATED, nothing left this "
            "machine.)\nNext, run again what did not succeed; this time the simulator injects no faults:\n"
            "{again}",
            dest=dest,
            took=took,
            again=again,
        )
    )
    if strange:
        console.warn(
            _(
                "{rows} ended differently than the fault plan implies: lines {strange}",
                rows=ngettext("{n:,} row", "{n:,} rows", len(strange)),
                strange=strange[:10],
            )
        )
    return 1 if strange else 0


def _keep_ledger(folder: Path, home: Path, settings: Settings) -> None:
    """Copy the demo's ledger into the report folder, with a settings file that refers to it."""
    import shutil

    from tcb_ops.settings import LEDGER_FILE, SETTINGS_FILE

    home.mkdir()
    for part in folder.glob(f"{LEDGER_FILE}*"):
        if part.is_file():
            shutil.copyfile(part, home / part.name)
    text = f"target = {json.dumps(SIMULATOR)}\nledger = {json.dumps(LEDGER_FILE)}\n"
    text += f"merchants = {json.dumps(str(settings.merchants), ensure_ascii=False)}\n"
    (home / SETTINGS_FILE).write_text(text, encoding="utf-8")

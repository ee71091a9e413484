"""The commands for practice against the simulator: simulate, demo."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import click

from tcb_ops.cli import Command
from tcb_ops.cli.console import Console, show_run
from tcb_ops.cli.options import CommonOptions, lang_option, settings_options, target_line
from tcb_ops.i18n import _
from tcb_ops.kinds import environment_count, merchant_count
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import LEDGER_FILE, SETTINGS_FILE, Origin, Settings


@click.command(cls=Command, usual="merchants tokens port faults store config")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8089,
    show_default=True,
    help="0 for any free one.",
)
@click.option("--faults", metavar="FILE", help="The fault plan: what goes wrong, and where (TOML).")
@click.option("--store", metavar="DIR", help="Keep the uploaded files here.")
@settings_options("merchants", "tokens")
def simulate(port: int, faults: str | None, store: str | None, *, common: CommonOptions) -> int:
    """Serve a simulation of the platform and of COS.

    For practice, on this machine only. Merchants, tokens, faults and store are those of the settings unless given. Press
    Ctrl-C to stop it.
    """
    import secrets

    from tcb_ops.features.simulator.faults import Component, Faults, load_faults
    from tcb_ops.features.simulator.server import Simulator, serve

    settings, console = common.start()
    rehearsal = settings.section("simulator")
    plan_file = Path(faults) if faults else rehearsal.faults
    plan = load_faults(plan_file) if plan_file is not None else Faults()
    tokens, appid = settings.tokens.file, settings.tokens.component_appid
    no_file = common.tokens is None and not tokens.exists()
    issues_tokens = plan.component is not None and bool(plan.component.secret)
    if plan.component is None and appid:
        component = Component(appid, secret=secrets.token_hex(16), ticket=secrets.token_hex(16))
        plan = replace(plan, component=component)
    simulator = Simulator(
        list(common.read_merchants(settings)),
        {} if issues_tokens and no_file else tokens,
        faults=plan,
        store=Path(store) if store else rehearsal.store,
        port=port,
    )

    def ready() -> None:
        console.print(simulator.base)
        text = _("The simulator is ready: use {--target} {base}. Press Ctrl-C to stop it.")
        console.info(text.format(base=simulator.base))

    serve(simulator, ready)
    return 0


@click.command(cls=Command, usual="lang")
@lang_option
def demo(lang: str | None) -> int:
    """Run everything against the simulator.

    A dozen sample merchants, with injected faults. Needs no credentials; writes demo-report/ here, with its ledger.
    """
    import tempfile

    import tcb_ops as tcb
    from tcb_ops.engine.next_commands import of_run, quoted
    from tcb_ops.features.simulator.sample import FILES, PATHS, sample_simulator
    from tcb_ops.reports.explanations import counts_line
    from tcb_ops.reports.export import DEMO_LEDGER, check_destination

    started, dest = time.monotonic(), Path("demo-report").resolve()
    home = dest / DEMO_LEDGER
    check_destination(dest, replace=True)
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-demo-") as folder,
        sample_simulator(Path(folder), lang=lang) as settings,
    ):
        console = Console(settings.lang)
        merchants = tcb.read_merchants(settings.merchants)
        names = merchant_count(len({merchant.appid for merchant in merchants}))
        console.info(target_line(settings))
        text = _("1/4 The simulator is ready on {base}: {merchants}, {environments}.")
        environments = environment_count(len(merchants))
        console.info(text.format(base=settings.api_base, merchants=names, environments=environments))
        # What takes a real run a minute must not hold up somebody who looks at it for the first time.
        limits = tcb.RunLimits(backoff=0.05, slow_wait=0.3, patience=10.0)
        with tcb.read_paths(PATHS, merchants, FILES) as batch:
            console.info(_("2/4 The list is checked: {decided}", decided=batch.decided))
            linked = tcb.links(batch, settings=settings, limits=limits, out=Path(folder) / "links.csv")
            console.info(_("3/4 Links: {outcomes}", outcomes=counts_line(linked.outcomes)))
            run = tcb.upload(batch, settings=settings, limits=limits, note="demo")
            console.info(_("4/4 Uploads: {outcomes}", outcomes=counts_line(run.outcomes)))
            ledger = str(home / LEDGER_FILE)
            values = {"target": settings.target, "merchants": settings.merchants, "ledger": ledger}
            origin = Origin(home / SETTINGS_FILE, values, settings.origin.overridden & {"lang"})
            settings_text = replace(settings, ledger=ledger, origin=origin)
            show_run(console, run, as_json=False)
            run.with_settings(settings_text).export(dest, replace=True)
        linked.close()
        run.close()
        _keep_ledger(Path(folder), home, settings_text)
    took, again = time.monotonic() - started, quoted(of_run(settings_text, run.record, "retry"))
    text = _(
        "The report is in {dest}: open report.html. ({took:.1f} s; SIMULATED, nothing left this "
        "machine.)\nNext, run again what did not succeed; this time the simulator injects no faults:\n"
        "{again}"
    )
    console.print(text.format(dest=dest, took=took, again=again))
    return 0


def _keep_ledger(folder: Path, home: Path, settings: Settings) -> None:
    import shutil

    home.mkdir()
    for part in folder.glob(f"{LEDGER_FILE}*"):
        if part.is_file():
            shutil.copyfile(part, home / part.name)
    text = f"target = {json.dumps(SIMULATOR)}\nledger = {json.dumps(LEDGER_FILE)}\n"
    text += f"merchants = {json.dumps(str(settings.merchants), ensure_ascii=False)}\n"
    (home / SETTINGS_FILE).write_text(text, encoding="utf-8")

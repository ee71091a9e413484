"""What can be done about a cause: the box of a panel that does it, the cell of code, and the files of a report."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from failed_runs import CAKE, NO_CLOUD, failed_run
from panel_lab import press, text_of
from token_server import BOOKS, COMPONENT, TEA, TEA_TEST
from workspace import QUICK

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.features.health.actions import PYTHON, SHELL, cell_of
from tcb_ops.features.simulator.faults import Fault, SimulatedAccount, SimulatedEnvironment
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Owner
from tcb_ops.panels.context import PanelContext, use_context
from tcb_ops.panels.notebook_panels import PanelOptions, RunPanel
from tcb_ops.start import identified

pytestmark = pytest.mark.integration
SHOPS = [TEA, TEA_TEST, BOOKS, CAKE]


def open_panel(server, run):
    settings = identified(server.settings)
    context = use_context(PanelContext(settings, read_merchants(server.file), simulated=False, sample=False))
    panel = RunPanel(context, PanelOptions(run=run.id))
    panel.settle()
    return panel, panel.monitor.remedies


def choose(panel, menu, code):
    """Press Fix at a cause."""
    panel.monitor.grid._clicks["fix"](code)
    panel.settle()


def test_a_cause_has_its_remedy_as_a_button(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    panel, menu = open_panel(server, failed_run(server, [TEA, BOOKS]))
    assert 'data-fix="85088">Fix</button>' in panel.monitor.grid.causes
    assert 'data-cell="85088">As code</button>' in panel.monitor.grid.causes
    assert not menu.opened
    choose(panel, menu, "85088")
    assert menu.opened
    assert "Asks the mini program's administrator" in text_of(menu.plan)
    assert "which costs money" in text_of(menu.plan)
    assert (menu.costs.layout.display, menu.env.layout.display) == ("", "none")
    assert server.sim.stats["create_cloud_user"] == 0


def test_the_box_opens_with_the_first_cause(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    panel, menu = open_panel(server, failed_run(server, [TEA, BOOKS]))
    press(panel, menu.button)
    assert menu.choice.value == "85088"
    assert "85088: 1 row, 城南书店" in text_of(menu.plan)


def test_a_cause_of_an_audit_has_its_remedy_too(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    server.list_merchants(TEA, BOOKS)
    panel, menu = open_panel(server, tcb.audit(server.file, settings=server.settings, limits=QUICK))
    menu.action._asks = True
    assert 'data-fix="85088">Fix</button>' in panel.monitor.grid.causes
    choose(panel, menu, "85088")
    assert "85088: 1 environment, 城南书店" in text_of(menu.plan)
    assert text_of(menu.action.facts).endswith("At 1 merchant.")


def test_what_costs_money_is_done_once_somebody_ticks_it(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    run = failed_run(server, [TEA, BOOKS])
    panel, menu = open_panel(server, run)
    choose(panel, menu, "85088")
    press(panel, menu.action.button)
    assert "城南书店: waiting for the merchant. Asked on" in text_of(panel.worker.line)
    assert "Asked on" in text_of(panel.monitor.grid.causes)
    assert "Call tcb/createclouduser" not in text_of(panel.monitor.grid.causes)
    tcb.call("wxbooks", "simulator/confirm", settings=server.settings)

    choose(panel, menu, "85088")
    assert "Make it again to see whether they have confirmed" in text_of(menu.plan)
    press(panel, menu.action.button)
    assert "城南书店: left to you. Creates a pay-as-you-go environment" in text_of(panel.worker.line)
    assert server.sim.stats["create_env"] == 0
    choose(panel, menu, "85088")
    assert not menu.costs.value
    menu.costs.value = True
    press(panel, menu.action.button)
    panel.monitor.watched.wait(240)
    assert server.sim.stats["create_env"] == 1
    assert panel.run.record.parent == run.id
    assert run.final().succeeded


def test_rows_are_uploaded_into_the_environment_that_is_chosen(open_token_server):
    server = open_token_server(SHOPS, environments=[SimulatedEnvironment("tea-2", foreign=True)])
    run = failed_run(server, [TEA_TEST])
    panel, menu = open_panel(server, run)
    (code,) = (group.code for group in run.overview().codes)
    choose(panel, menu, code)
    assert [value for _label, value in menu.env.options] == ["", "tea-1"]
    assert menu.env.value == "tea-1"
    press(panel, menu.action.button)
    panel.monitor.watched.wait(240)
    assert panel.run.record.corrects == run.id
    assert run.final().succeeded


def test_a_merchant_counts_as_asked_once_the_text_was_sent(open_token_server):
    server = open_token_server(SHOPS, accounts=[SimulatedAccount("wxbooks", permissions=(18,))])
    panel, menu = open_panel(server, failed_run(server, [BOOKS]))
    choose(panel, menu, "61007")
    press(panel, menu.action.button)
    assert "left to you" in text_of(panel.worker.line)
    choose(panel, menu, "61007")
    menu.sent.value = True
    press(panel, menu.action.button)
    assert "waiting for the merchant. Asked on" in text_of(panel.worker.line)
    assert "preauthcode" not in text_of(panel.worker.line)


def test_a_live_target_is_confirmed_before_anything_is_called(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    panel, menu = open_panel(server, failed_run(server, [BOOKS]))
    menu.action._asks = True
    choose(panel, menu, "85088")
    assert menu.action.button.disabled
    press(panel, menu.action.button)
    assert server.sim.stats["create_cloud_user"] == 0
    menu.action.count.value = "1"
    press(panel, menu.action.button)
    assert server.sim.stats["create_cloud_user:-601049"] == 1


def test_as_code_is_a_cell_that_runs(open_token_server):
    server = open_token_server(SHOPS, accounts=[NO_CLOUD])
    panel, _menu = open_panel(server, failed_run(server, [TEA, BOOKS]))
    sent = []
    panel.monitor.grid.send = sent.append
    panel.monitor.grid._clicks["cell"]("85088")
    (cell,) = (message["cell"] for message in sent)
    assert 'tcb.call("wxbooks", "tcb/createclouduser")' in cell
    costly = '# tcb.call("wxbooks", "tcb/createenvandresource", {"type": "CreatePostpayPackage", "alias": "books"})'
    assert costly in cell
    with pytest.raises(tcb.RefusedError, match="-601049"):
        exec(cell, {})  # noqa: S102  the cell that a person would run


def test_a_report_has_the_calls_as_code_and_runs_none(open_token_server, tmp_path):
    quota = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server = open_token_server(SHOPS, accounts=[NO_CLOUD, quota])
    run = failed_run(server, [TEA, BOOKS])
    folder = run.export(tmp_path / "report")
    python, shell = ((folder / name).read_text(encoding="utf-8") for name in (PYTHON, SHELL))
    for text in (python, shell):
        assert "城南书店 (wxbooks): 85088, 1 row. Open CloudBase" in text
        assert "梧桐花店" in text or "wxtea" in text
        assert text.index("createclouduser") < text.index("createenvandresource")
    assert "\n# print(tcb.call(" in python
    assert '\ntcb-ops call wxtea cgi-bin/clear_quota \'{"appid": "wxtea"}\' --config' in shell
    assert "--ledger" not in shell.partition("tcb-ops retry")[0]
    assert tcb.verify(folder).good
    assert server.sim.stats["create_cloud_user"] == server.sim.stats["clear_quota"] == 0

    (block,) = (each for each in python.split("# %%") if "wxtea" in each and "clear_quota" in each)
    head = python.split("# %%")[1]
    code = f"{head}\n{block.partition(chr(10))[2].partition('# %%')[0]}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    assert server.sim.stats["clear_quota"] == 1


def test_the_retry_in_a_report_takes_only_rows_that_something_was_done_about(open_token_server, tmp_path):
    server = open_token_server(SHOPS, [Fault(env=TEA.env, errcode=40097)], accounts=[NO_CLOUD])
    run = failed_run(server, [TEA, BOOKS])
    folder = run.export(tmp_path / "report")
    python, shell = ((folder / name).read_text(encoding="utf-8") for name in (PYTHON, SHELL))
    assert f"\n# tcb-ops retry {run.id} --errcode 85088 --" in shell
    assert f'\n# tcb.retry("{run.id}", codes=["85088"], **on)\n' in python


def test_the_platforms_quota_is_reset_by_one_call_however_many_merchants_wait(open_token_server, tmp_path):
    own = [Merchant(f"wxown{n}", f"素材 {n}", f"own-{n}", owner=Owner.PLATFORM) for n in range(3)]
    full = SimulatedAccount(COMPONENT.appid, daily_limit=5, used=5)
    server = open_token_server([TEA, *own], accounts=[full])
    run = failed_run(server, own, listed=own)
    folder = run.export(tmp_path / "report")
    python, shell = ((folder / name).read_text(encoding="utf-8") for name in (PYTHON, SHELL))
    (group,) = run.overview().codes
    for text in (python, shell, cell_of(group, run)):
        assert text.count("clear_quota") == 1, text
    assert "素材 0, 素材 1, 素材 2 (wxcomponent): 45009 (component), 3 rows." in python
    assert f'\n# tcb.retry("{run.id}", **on)\n' in python


def test_the_link_of_an_authorization_is_left_to_a_command_that_shows_it(open_token_server, tmp_path):
    server = open_token_server(SHOPS, accounts=[SimulatedAccount("wxbooks", permissions=(18,))])
    settings = server.with_options(redirect_uri="https://platform.example.com/done")
    run = failed_run(server, [TEA, BOOKS]).with_settings(settings)
    folder = run.export(tmp_path / "report")
    python, shell = ((folder / name).read_text(encoding="utf-8") for name in (PYTHON, SHELL))
    (group,) = run.overview().codes
    for text in (python, shell, cell_of(group, run)):
        assert "api_create_preauthcode" not in text
        assert f"tcb-ops fix {run.id} " in text
    (command,) = (line for line in shell.splitlines() if line.startswith("tcb-ops fix"))
    assert command.endswith(" --where appid=wxbooks")
    assert run_command(shlex.split(command)[1:]) == 2, "it asks on a terminal"
    compile(python, "actions.py", "exec")


def test_the_report_of_a_fixed_run_has_no_such_files_any_more(open_token_server, tmp_path):
    full = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server = open_token_server(SHOPS, accounts=[full])
    run = failed_run(server, [TEA])
    folder = run.export(tmp_path / "report")
    assert (folder / PYTHON).exists()
    panel, menu = open_panel(server, run)
    choose(panel, menu, "45009")
    press(panel, menu.action.button)
    panel.monitor.watched.wait(240)
    run.final().export(folder)
    assert not (folder / PYTHON).exists()
    assert not (folder / SHELL).exists()
    assert tcb.verify(folder).good

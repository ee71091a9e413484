"""`next`: the decisions, and the steps that follow from a ledger; each command that it names does what the step is about."""

from __future__ import annotations

import json
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from token_server import BOOKS as BOOK_SHOP
from token_server import TEA as TEA_SHOP
from token_server import TEA_TEST as TEA_SHOP_TEST
from workspace import BOOKS, TEA, TEA_TEST, cancel, many, write_csv

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.features.health import fix
from tcb_ops.features.health.fix import Decisions
from tcb_ops.features.health.next_steps import StepCode, step_of_rows, step_of_run
from tcb_ops.features.health.notifications import note_undelivered
from tcb_ops.features.simulator.faults import Fault, SimulatedAccount
from tcb_ops.i18n import Lang
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.settings import load_settings

NO_CLOUD = Fault(env=BOOKS.env, errcode=85088)
WRONG_PATH = Fault(path="banner/0.png", env=TEA.env, errcode=40097)
NO_CLOUDBASE = SimulatedAccount("wxbooks", cloud=False)
LIMITS = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "10")


@pytest.mark.parametrize(
    ("over", "held", "choice", "missing", "step"),
    [
        (True, False, "resume", False, None),
        (True, False, "resume", True, None),
        (True, False, "ask", False, None),
        (False, True, "resume", False, None),
        (False, True, "resume", True, None),
        (False, True, "ask", False, None),
        (False, False, "resume", False, StepCode.RESUME),
        (False, False, "resume", True, StepCode.NOT_INSTALLED),
        (False, False, "ask", False, StepCode.OLDER),
        (False, False, "ask", True, StepCode.OLDER),
        (False, False, "new", False, None),
        (False, False, "new", True, None),
    ],
)
def test_the_truth_table_of_unfinished_runs(over, held, choice, missing, step):
    assert step_of_run(choice, over=over, held=held, missing=missing) is step


@pytest.mark.parametrize(
    ("of_merchant", "healthy", "asked", "step"),
    [
        (False, True, True, StepCode.FIX),
        (False, False, False, StepCode.FIX),
        (True, True, True, StepCode.GONE),
        (True, True, False, StepCode.GONE),
        (True, False, True, StepCode.WAITING),
        (True, False, False, StepCode.FIX),
    ],
)
def test_the_truth_table_of_rows(of_merchant, healthy, asked, step):
    assert step_of_rows(of_merchant=of_merchant, healthy=healthy, asked=asked) is step


def steps_of(cli, *words):
    """Type `next --json`, which calls nothing; return the steps."""
    calls = cli.workspace.sim.stats
    result = cli("next", "--json", *words)
    assert result.code == 0
    assert cli.workspace.sim.stats == calls
    return result.json["next"]


def facts_of(step):
    return tuple(step[name] for name in ("step", "run", "rows", "merchants"))


def typed(command, *more):
    """Run a step's command, which stands for itself in any folder; return its exit code."""
    program, *words = shlex.split(command)
    assert program == "tcb-ops"
    return run_command([*words, *more])


def interrupted(workspace, wait_for, **options):
    handle = workspace.start_upload(**options)
    wait_for(lambda: workspace.sim.stats["stored"] >= 1)
    return handle


SLOW = Fault(path="banner/1*.png", delay=60)
"""Such a run does not end before it is cancelled."""


def test_a_run_that_nobody_works_on_is_resumed(open_cli, wait_for, monkeypatch, tmp_path_factory):
    cli = open_cli(many(TEA, BOOKS, rows=20), [SLOW])
    handle = interrupted(cli.workspace, wait_for)
    assert cli("next", "--json").json["next"] == [], "somebody works on it"
    cancel(handle)
    (step,) = steps_of(cli)
    pending = tcb.open_run(handle.id, settings=cli.workspace.settings).counts["pending"]
    assert facts_of(step) == ("resume", handle.id, pending, 2)
    assert "list.csv" in step["text"]
    (one,) = steps_of(cli, "--where", f"name={BOOKS.name}")
    assert facts_of(one)[3] == 1
    cli.workspace.sim.play([])
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert typed(step["command"]) == 0
    assert steps_of(cli, "--config", str(cli.folder / "tcb-ops.toml")) == []


def test_a_retry_that_was_interrupted_is_resumed_before_anything_else_is_done_about_its_rows(
    open_cli, wait_for
):
    cli = open_cli(many(TEA, BOOKS, rows=20), [NO_CLOUD])
    assert cli.upload().code == 1
    parent = cli.latest()
    cli.workspace.sim.play([SLOW])
    stored = cli.workspace.sim.stats["stored"]
    retry = tcb.start_retry(parent.id, settings=load_settings())
    wait_for(lambda: cli.workspace.sim.stats["stored"] > stored)
    cancel(retry)
    (step,) = steps_of(cli)
    assert (step["step"], step["run"]) == ("resume", retry.id)
    cli.workspace.sim.play([])
    assert typed(step["command"]) == 0
    assert steps_of(cli) == []


def test_an_old_run_is_counted_and_one_that_was_run_again_is_not(open_cli, wait_for):
    cli = open_cli(many(TEA, rows=20), [SLOW])
    cancel(interrupted(cli.workspace, wait_for))
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - 90000")
    (step,) = steps_of(cli)
    assert (step["step"], step["run"]) == ("older", None)
    assert "1 run" in step["text"]
    assert typed(step["command"]) == 0
    cli.workspace.sim.play([])
    assert cli.upload("--new-run").code == 0
    assert steps_of(cli) == []


def test_rows_whose_cause_has_gone_are_retried(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2), [NO_CLOUD, WRONG_PATH])
    assert cli("audit", *LIMITS).code == 1
    cli.workspace.sim.play([])
    assert cli("audit", *LIMITS).code == 0
    cli.workspace.sim.play([NO_CLOUD, WRONG_PATH])
    assert cli.upload().code == 1
    run = cli.latest().id
    (step,) = steps_of(cli)
    assert facts_of(step) == ("fix", run, 3, 2), "an audit before the rows tells nothing of them"
    cli.workspace.sim.play([])
    assert cli("audit", *LIMITS, "--new-run").code == 0
    gone, rest = steps_of(cli)
    assert facts_of(gone) == ("gone", run, 2, 1)
    assert facts_of(rest) == ("fix", run, 1, 1)
    assert "40097" in rest["text"]
    assert "85088" not in rest["text"]
    (narrowed,) = steps_of(cli, "--where", f"name={BOOKS.name}")
    assert (facts_of(narrowed), narrowed["command"]) == (facts_of(gone), gone["command"])
    assert typed(gone["command"], *LIMITS) == 0
    assert steps_of(cli) == [rest], "a retry of its row would have succeeded"


def test_what_an_audit_finds_newly_broken_is_told_once(open_cli):
    cli = open_cli(many(TEA, rows=2))
    assert cli("audit", *LIMITS).code == 0
    cli.workspace.sim.play([NO_CLOUD, Fault(env=TEA_TEST.env, errcode=-501005)])
    assert cli("audit", *LIMITS, "--new-run").code == 1
    audit = cli.latest().id
    (step,) = steps_of(cli)
    assert facts_of(step) == ("newly_broken", audit, 2, 2)
    assert f"tcb-ops fix {audit} " in step["command"]
    assert typed(step["command"]) == 2, "it asks on a terminal"
    cli.workspace.sim.play([])
    assert cli("retry", audit, *LIMITS).code == 0
    assert steps_of(cli) == []


def test_an_unfinished_run_of_a_kind_that_is_not_installed_is_named_with_its_kind(open_cli, wait_for):
    cli = open_cli(many(TEA, rows=20), [SLOW])
    cancel(handle := interrupted(cli.workspace, wait_for))
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET kind = 'polish'")
    (step,) = steps_of(cli)
    assert facts_of(step) == ("not_installed", handle.id, 20, 1)
    assert f"Run {handle.id} is unfinished, and runs of its kind (polish) are not installed" in step["text"]
    assert typed(step["command"]) == 0
    shown = cli("show", "--kind", "any")
    assert (shown.code, f"Run {handle.id} is of the kind polish, which is not" in shown.err) == (2, True)


def test_a_cause_that_nothing_can_be_done_about_here_is_asked_about(open_cli):
    cli = open_cli([])
    assert cli("audit", *LIMITS).code == 0
    cli.workspace.sim.play([Fault(env=BOOKS.env, errcode=61016)])
    assert cli("audit", *LIMITS, "--new-run").code == 1
    (step,) = steps_of(cli)
    assert f"tcb-ops why {cli.latest().id} " in step["command"]
    assert typed(step["command"]) in {0, 1}


def test_a_message_that_was_not_delivered_is_sent_again(open_cli):
    cli = open_cli([])
    sends = '[[notify]]\nkind = "command"\ncommand = ["true"]\n'
    settings = cli.folder / "tcb-ops.toml"
    settings.write_text(settings.read_text("utf-8") + sends, "utf-8")
    assert cli("audit", *LIMITS).code == 0
    audit = cli.latest()
    with closing(Ledger(str(cli.folder / "ledger.db"))) as ledger:
        note_undelivered(ledger, audit.record, ["command true", "wecom one that is gone"])
    (step,) = steps_of(cli)
    assert facts_of(step) == ("undelivered", audit.id, 0, 0)
    assert "command true" in step["text"]
    assert "wecom" not in step["text"]
    assert typed(step["command"]) == 0
    assert steps_of(cli) == []


def links_of(server, type_command, *lines):
    """Request links for a row of each of these; return the run."""
    server.list_merchants(TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP)
    rows = ((line.env, line.appid, "a.png") for line in lines)
    paths = write_csv(server.folder / "list.csv", ("env", "appid", "path"), rows)
    assert type_command("links", str(paths), *LIMITS)[0] == 1
    return tcb.open_run(settings=server.settings)


def test_merchants_that_were_asked_wait_and_then_are_ready(open_token_server, type_command):
    server = open_token_server(
        [TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP],
        accounts=[SimulatedAccount("wxbooks", permissions=(18,))],
    )

    def steps():
        code, out, _err = type_command("next", "--json")
        assert code == 0
        return json.loads(out)["next"]

    run = links_of(server, type_command, TEA_SHOP, BOOK_SHOP)
    assert [each["step"] for each in steps() if each["run"] == run.id] == ["fix"]
    whole, (treatment,) = fix.treatments(run, server.settings)
    fix.carry_out([treatment], whole, server.settings, Decisions(sent=lambda *_about: True))
    (waiting,) = [each for each in steps() if each["run"] == run.id]
    assert facts_of(waiting) == ("waiting", run.id, 1, 1)
    assert f"tcb-ops fix {run.id} " in waiting["command"]
    assert typed(waiting["command"], "--yes") == 1
    assert type_command("audit", *LIMITS)[0] == 1
    assert steps() == [waiting], "what the audit finds of a merchant that was asked is no news"

    tcb.call("wxbooks", "simulator/confirm", settings=server.settings)
    assert [each["step"] for each in steps() if each["run"] == run.id] == ["waiting"]
    assert type_command("audit", *LIMITS, "--new-run")[0] == 0
    (ready,) = steps()
    assert facts_of(ready) == ("ready", run.id, 1, 1)
    assert BOOK_SHOP.name in ready["text"]
    assert typed(ready["command"], *LIMITS) == 0
    assert steps() == []


def test_who_was_asked_from_an_audit_waits_until_the_environment_is_healthy(open_token_server, type_command):
    server = open_token_server([TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP], accounts=[NO_CLOUDBASE])
    server.list_merchants(TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP)

    def steps():
        return json.loads(type_command("next", "--json")[1])["next"]

    def fixed():
        whole, listed = fix.treatments(tcb.open_run(kind="audit", settings=server.settings), server.settings)
        fix.carry_out(listed, whole, server.settings, Decisions(agrees=lambda *_about: True))

    assert type_command("audit", *LIMITS)[0] == 1
    assert [each["step"] for each in steps()] == ["newly_broken"]
    fixed()
    (waiting,) = steps()
    audit = tcb.open_run(kind="audit", settings=server.settings).id
    assert (facts_of(waiting), f"tcb-ops fix {audit} " in waiting["command"]) == (
        ("waiting", audit, 1, 1),
        True,
    )
    tcb.call("wxbooks", "simulator/confirm", settings=server.settings)
    assert type_command("audit", *LIMITS, "--new-run")[0] == 1
    assert [each["step"] for each in steps()] == ["waiting"], (
        "an audit does not see that a message was confirmed"
    )
    fixed()
    assert type_command("audit", *LIMITS, "--new-run")[0] == 0
    assert steps() == []


def test_an_audit_tells_nothing_of_a_merchant_that_was_asked_after_it(open_token_server, type_command):
    server = open_token_server([TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP])
    server.list_merchants(TEA_SHOP, TEA_SHOP_TEST, BOOK_SHOP)
    assert type_command("audit", *LIMITS)[0] == 0
    with closing(sqlite3.connect(server.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - 60")
    server.sim.play([], [SimulatedAccount("wxbooks", permissions=(18,))])
    run = links_of(server, type_command, BOOK_SHOP)
    whole, (treatment,) = fix.treatments(run, server.settings)
    fix.carry_out([treatment], whole, server.settings, Decisions(sent=lambda *_about: True))
    code, out, _err = type_command("next", "--json")
    assert (code, [each["step"] for each in json.loads(out)["next"]]) == (0, ["waiting"])


@pytest.mark.parametrize("lang", list(Lang))
def test_with_nothing_to_do_it_says_so(open_cli, lang):
    cli = open_cli(many(TEA, rows=2), lang=lang)
    for upload in (False, True):
        if upload:
            assert cli.upload().code == 0
        result = cli("next")
        assert (result.code, result.err) == (0, "")
        assert cli.workspace.sim.base in result.out
        assert not Path("ledger.db").exists() or upload
    assert cli("next", "--json").json == {"target": cli.workspace.sim.base, "next": []}


def test_each_target_has_its_own_steps(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2), [NO_CLOUD])
    assert cli.upload().code == 1
    assert len(steps_of(cli)) == 1
    assert steps_of(cli, "--target", "simulator") == []
    assert cli("upload", "list.csv", "--root", "files", "--target", "simulator").code == 0
    assert len(steps_of(cli)) == 1


def test_the_files_of_an_undone_upload_are_left_alone(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2), [NO_CLOUD])
    assert cli.upload().code == 1
    assert cli("undo", "--yes").code == 0
    assert steps_of(cli) == []


def test_in_python_each_step_has_a_call_or_a_command_in_both_languages(open_cli, find_english):
    cli = open_cli(many(TEA, BOOKS, rows=2), [NO_CLOUD, WRONG_PATH])
    assert cli("audit", *LIMITS).code == 1
    assert cli.upload().code == 1
    cli.workspace.sim.play([WRONG_PATH])
    assert cli("audit", *LIMITS, "--new-run").code == 0
    steps = tcb.next_steps(settings=load_settings())
    assert [each.step for each in steps] == [StepCode.GONE, StepCode.FIX]
    for each in steps:
        assert each.text.of(Lang.EN)
        assert not find_english(each.text.of(Lang.ZH))
    call = f"tcb.retry('{steps[0].run}', codes=['85088'])"
    assert call in repr(steps)
    assert call.replace("'", "&#39;") in steps._repr_html_()
    assert [*steps.frame()["step"]] == ["gone", "fix"]
    shown = cli("next").out
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("tcb-ops ")] == ["retry", "why"]
    assert not find_english(cli("next", "--lang", "zh").out)

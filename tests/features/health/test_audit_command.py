"""`audit`, `notify` and `runs --stale` as an operator types them."""

import json
import os
import re
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from workspace import BOOKS, TEA, TEA_TEST
from workspace import QUICK as LIMITS

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep

BROKEN = [Fault(env=BOOKS.env, errcode=85088)]
QUICK = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "10")


@pytest.mark.integration
def test_fail_on_and_known_decide_the_exit_code(open_cli):
    cli = open_cli([], BROKEN)
    first = cli("audit", *QUICK, "--fail-on", "new")
    assert first.code == 1
    assert "no earlier audit" in first.out
    assert cli("audit", *QUICK, "--fail-on", "new").code == 0
    assert cli("audit", *QUICK).code == 1
    assert cli("audit", *QUICK, "--fail-on", "none").code == 0
    (cli.folder / "known.csv").write_text(
        f"env,cause,until\n{BOOKS.env},85088,2999-12-31\n", encoding="utf-8"
    )
    silenced = cli("audit", *QUICK, "--json")
    assert (silenced.code, silenced.json["counts"]) == (0, {"healthy": 2, "unhealthy": 1})
    assert [one["env"] for one in silenced.json["audit"]["silenced"]] == [BOOKS.env]


@pytest.mark.needs("evidence")
def test_damage_to_the_audit_before_is_said_and_does_not_concern_this_one(open_cli):
    cli = open_cli([], BROKEN)
    cli("audit", *QUICK)
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("DELETE FROM rows")
    result = cli("audit", *QUICK, "--fail-on", "new", "--out", "today")
    assert result.code == 1
    assert "Not compared with an earlier audit" in result.out
    assert "Not compared with an earlier audit" in (cli.folder / "today" / "report.html").read_text("utf-8")


def test_a_bad_known_file_and_bad_values_send_nothing(open_cli):
    cli = open_cli([])
    lines = ("env,cause,until", "x,nope,soon", f"{BOOKS.env},85088,2026-02-30", ",85088,2026-01-01", "")
    (cli.folder / "known.csv").write_text("\n".join(lines), encoding="utf-8")
    result = cli("audit")
    assert result.code == 2
    found = [line.partition(": ")[0].rpartition("/")[2] for line in result.err.splitlines()]
    assert found == ["known.csv:2", "known.csv:2", "known.csv:3", "known.csv:4", "tcb-ops"]
    assert "4 problems" in result.err
    for words in (("--fail-on", "some"), ("--known", "missing.csv")):
        assert cli("audit", *words).code == 2
    assert cli("runs", "--stale", "yesterday").code == 2
    assert cli("notify", "--test").code == 2
    assert not cli.workspace.sim.stats["env_info"]


def test_a_long_note_is_printed_whole_in_a_pipe(open_cli):
    cli = open_cli([], BROKEN)
    note = "asked the owner on Monday who wants to pay the bill of November on Thursday; ask again on Friday"
    (cli.folder / "known.csv").write_text(
        f"env,cause,until,note\n{BOOKS.env},85088,2999-12-31,{note}\n", encoding="utf-8"
    )
    (line,) = [line for line in cli("audit", *QUICK).out.splitlines() if BOOKS.env in line]
    assert line.startswith(f"  {BOOKS.name} ")
    assert line.endswith(note)


def test_a_robot_that_refuses_is_reported_and_fails_no_audit(open_cli, monkeypatch):
    cli = open_cli([], BROKEN)
    monkeypatch.setattr("tcb_ops.features.health.notifications.RETRY_WAITS", ())
    for name in ("accept", "refuse"):
        address = f"{cli.workspace.sim.base}/robot/wecom/{name}?key=5b2f6f0e-1d3c-4c56-9d0e-0f4d8f6a7c11"
        (cli.folder / f"{name}.url").write_text(address, encoding="utf-8")
    with (cli.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        for name in ("accept", "refuse"):
            settings.write(f'\n[[notify]]\nkind = "wecom"\nurl_file = "{name}.url"\n')
    result = cli("audit", *QUICK, "--fail-on", "none", "--json", "--quiet")
    assert result.code == 0
    assert [one["sent"] for one in result.json["notifications"]] == [True, False]
    receivers = [delivery["receiver"] for delivery in result.json["notifications"]]
    assert receivers == ["wecom accept.url", "wecom refuse.url"]
    assert "wecom refuse.url: errcode 93000" in result.err
    assert "5b2f6f0e-1d3c" not in result.err + result.out
    assert cli("notify", "--test").code == 1
    (first, _test) = cli.workspace.sim.robots.messages
    assert result.json["report"] in first.text


def test_runs_stale_watches_the_audits_of_the_target(open_cli):
    cli = open_cli([])
    assert cli("runs", "--stale", "26h").code == 1
    assert cli("audit", *QUICK).code == 0
    found = cli("runs", "--stale", "26h", "--json").json
    assert (found["stale"], found["run"], found["undelivered"]) == (False, cli.latest().id, [])
    finished = datetime.fromisoformat(found["finished_at"])
    assert abs(datetime.now(UTC) - finished) < timedelta(hours=1)
    assert cli("runs", "--stale", "26h", "--target", "simulator").code == 1
    assert "The latest audit (of all merchants), " in cli("runs", "--stale", "26h").err
    where = ("--where", f"name={TEA.name}")
    result = cli("runs", "--stale", "26h", *where)
    assert result.code == 1
    assert f"(with --where name={TEA.name}) has finished yet." in result.err
    assert cli("audit", *QUICK, *where).code == 0
    assert cli("runs", "--stale", "26h", *where).code == 0
    late = cli("runs", "--stale", "0s", *where)
    assert late.code == 1
    assert f"The latest audit (with --where name={TEA.name}), " in late.err


def test_runs_stale_is_not_content_with_the_audit_before_one_that_was_stopped(open_cli):
    cli = open_cli([])
    assert cli("audit", *QUICK).code == 0
    cli.workspace.sim.play([Fault(env="*", step=FaultStep.ENV_INFO, errcode=61004)])
    stopped = cli("audit", *QUICK)
    assert (stopped.code, stopped.out.count("61004")) == (3, 1)
    result = cli("runs", "--stale", "26h")
    assert result.code == 1
    assert "was stopped at" in result.err


def set_robot(cli, behaviour):
    """Notify one robot, which behaves like this."""
    (cli.folder / "robot.url").write_text(
        f"{cli.workspace.sim.base}/robot/wecom/{behaviour}?key=k", encoding="utf-8"
    )
    settings = cli.folder / "tcb-ops.toml"
    entry = '\n[[notify]]\nkind = "wecom"\nurl_file = "robot.url"\n'
    settings.write_text(settings.read_text(encoding="utf-8").replace(entry, "") + entry, encoding="utf-8")


@pytest.mark.integration
def test_a_retry_is_no_audit_to_runs_stale_and_notify(open_cli):
    cli = open_cli([], BROKEN)
    set_robot(cli, "accept")
    assert cli("notify").code == 2
    first = cli("audit", *QUICK, "--json").json["run"]
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - 864000, finished_at = finished_at - 864000")
    assert cli("retry", first, *QUICK).code == 1
    assert cli("runs", "--stale", "26h").code == 1
    assert cli("notify").code == 0
    assert f"Audit {first}" in cli.workspace.sim.robots.messages[-1].text


def test_an_unfinished_audit_has_no_message(open_cli):
    cli = open_cli([], [Fault(env=BOOKS.env, delay=60)])
    settings = cli.workspace.with_options(notify=[{"kind": "command", "command": ["true"]}])
    handle = tcb.start_audit("merchants.csv", settings=settings, limits=LIMITS)
    try:
        with pytest.raises(tcb.UsageError, match="is not finished"):
            tcb.notify(handle.id, settings=settings)
        with pytest.raises(tcb.UsageError, match="has finished yet"):
            tcb.notify(settings=settings)
    finally:
        handle.cancel()
        with pytest.raises(tcb.TcbOpsError):
            handle.wait()


@pytest.mark.kill
def test_an_audit_that_was_killed_is_resumed(open_cli, wait_for):
    cli = open_cli([], [Fault(env=BOOKS.env, delay=60, calls=((1, 1),))])

    def others_are_done():
        runs = tcb.runs(settings=cli.workspace.settings)
        return bool(runs) and runs[0].counts.get("healthy") == 2

    with cli.process("audit", *QUICK) as process:
        wait_for(others_are_done)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (cut_off,) = tcb.runs(settings=cli.workspace.settings)
    result = cli("audit", *QUICK, "--json")
    assert (result.code, result.json["run"], result.json["counts"]) == (0, cut_off.id, {"healthy": 3})
    asked = [call.env for call in cli.workspace.sim.calls]
    assert [asked.count(env) for env in (TEA.env, TEA_TEST.env, BOOKS.env)] == [1, 1, 2]
    assert json.loads(result.out)["audit"]["previous"] is None


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_interrupt_while_a_message_is_sent_loses_that_message_only(open_cli, wait_for, form):
    cli = open_cli([], BROKEN)
    set_robot(cli, "hang")
    with cli.process("audit", *QUICK, *form) as process:
        wait_for(lambda: cli.workspace.sim.robots.requests)
        process.send_signal(signal.SIGTERM)
        out, _err = process.communicate(timeout=240)
    (run,) = tcb.runs(settings=cli.workspace.settings)
    assert process.returncode == 143
    assert run.id in out if form else "2 healthy, 1 unhealthy" in out
    assert (cli.folder / "reports" / run.id / "report.html").exists()
    set_robot(cli, "accept")
    assert cli("audit", *QUICK, "--fail-on", "new").code == 0
    assert "newly broken 1" in cli.workspace.sim.robots.messages[-1].text


# --- metrics -----------------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r'tcb_ops_audit_(\w+)\{target="([^"]+)"(?:,state="(\w+)")?\} ([\d.]+)')


def samples(file):
    """Return the values of a file of metrics, by name or state; each line is in the text format."""
    text = file.read_text(encoding="utf-8")
    assert text.endswith("\n")
    matches = [SAMPLE.fullmatch(line) for line in text.splitlines() if not re.match("# (HELP|TYPE) ", line)]
    return {match[3] or match[1]: float(match[4]) for match in matches}


@pytest.fixture
def measured(open_cli, monkeypatch):
    monkeypatch.setenv("TCB_OPS_AUDIT__METRICS", "tcb-ops.prom")
    return open_cli([], BROKEN)


@pytest.mark.integration
def test_an_audit_leaves_what_a_monitor_asks_for(measured, monkeypatch):
    monkeypatch.setattr("tcb_ops.features.health.notifications.RETRY_WAITS", ())
    set_robot(measured, "refuse")
    assert measured("audit", *QUICK).code == 1
    found = samples(measured.folder / "tcb-ops.prom")
    assert time.time() - found.pop("finished_timestamp_seconds") < 600
    states = {"new": 1, "recovered": 0, "still": 0, "unknown": 0, "silenced": 0, "healthy": 2}
    assert found == {**states, "stopped": 0, "undelivered_messages": 1}
    assert measured("runs", "--stale", "1h", "--json").json["undelivered"] == ["wecom robot.url"]
    set_robot(measured, "accept")
    measured.workspace.sim.play([])
    assert measured("audit", *QUICK, "--json").code == 0
    found = samples(measured.folder / "tcb-ops.prom")
    assert (found["new"], found["recovered"], found["undelivered_messages"]) == (0, 1, 0)


@pytest.mark.integration
def test_an_audit_of_some_merchants_and_a_retry_leave_the_file_as_it_is(measured):
    assert measured("audit", *QUICK).code == 1
    before = (measured.folder / "tcb-ops.prom").read_bytes()
    assert measured("retry", "--kind", "audit", *QUICK).code == 1
    assert measured("audit", "--where", f"name={TEA.name}", *QUICK).code == 0
    assert (measured.folder / "tcb-ops.prom").read_bytes() == before


@pytest.mark.integration
def test_an_audit_that_is_stopped_says_so(measured):
    measured.workspace.sim.play([Fault(env="*", step=FaultStep.ENV_INFO, errcode=61004)])
    assert measured("audit", *QUICK).code == 3
    assert samples(measured.folder / "tcb-ops.prom")["stopped"] == 1


@pytest.mark.posix("the rights of other users")
@pytest.mark.integration
def test_others_may_read_the_file(measured):
    before = os.umask(0o022)
    try:
        measured("audit", *QUICK)
    finally:
        os.umask(before)
    assert (measured.folder / "tcb-ops.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.integration
def test_metrics_that_cannot_be_written_fail_no_audit(measured, monkeypatch):
    monkeypatch.setenv("TCB_OPS_AUDIT__METRICS", str(measured.folder / "missing" / "tcb-ops.prom"))
    result = measured("audit", *QUICK, "--fail-on", "none", "--quiet")
    assert result.code == 0
    assert "The metrics could not be written to " in result.err

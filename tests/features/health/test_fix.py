"""`fix`: the decisions about answers, a remedy for each cause, and runs that it brings to their end."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from failed_runs import CAKE, NO_CLOUD, failed_run
from token_server import BOOKS, COMPONENT, TEA, TEA_TEST
from workspace import QUICK

import tcb_ops as tcb
from tcb_ops.catalogue import all_causes
from tcb_ops.features.health import fix
from tcb_ops.features.health.fix import Decisions
from tcb_ops.features.health.next_steps import StepCode
from tcb_ops.features.health.remedies import (
    CLEAR_QUOTA,
    CREATE_ENV,
    LOOK,
    OPEN_CLOUD,
    REMEDIES,
    Choice,
    RemedyState,
    decide,
    remedy_of,
)
from tcb_ops.features.simulator.faults import (
    EnvStatus,
    Fault,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.i18n import Lang
from tcb_ops.ledger.records import LETTER, MESSAGE, Asked
from tcb_ops.model import Merchant, Owner
from tcb_ops.start import ledger_with_runs

OWN = Merchant(COMPONENT.appid, "平台", "own-1", owner=Owner.PLATFORM)

DECISIONS = [
    # step, errcode, status → state
    (OPEN_CLOUD, -601049, "", RemedyState.WAITING),
    (OPEN_CLOUD, -601048, "", RemedyState.WAITING),
    (OPEN_CLOUD, -601026, "", RemedyState.WAITING),
    (OPEN_CLOUD, 0, "", RemedyState.DONE),
    (OPEN_CLOUD, 61007, "", RemedyState.IMPOSSIBLE),
    (CREATE_ENV, -601049, "", RemedyState.IMPOSSIBLE),
    (CREATE_ENV, 0, "", RemedyState.DONE),
    (CREATE_ENV, -1, "", RemedyState.LATER),
    (CLEAR_QUOTA, 45011, "", RemedyState.LATER),
    (CLEAR_QUOTA, 48006, "", RemedyState.IMPOSSIBLE),
    (CLEAR_QUOTA, 0, "", RemedyState.DONE),
    (LOOK, 40001, "", RemedyState.IMPOSSIBLE),
    (LOOK, 0, "NORMAL", RemedyState.DONE),
    (LOOK, 0, "HALTED", RemedyState.WAITING),
    (LOOK, 0, "UNAVAILABLE", RemedyState.LATER),
    (LOOK, 0, "", RemedyState.IMPOSSIBLE),
]


@pytest.mark.parametrize(("step", "errcode", "status", "state"), DECISIONS)
def test_the_truth_table(step, errcode, status, state):
    assert decide(step, errcode, status) is state


def test_each_cause_that_the_operator_acts_on_has_a_remedy_or_says_why_there_is_none():
    for cause in all_causes().values():
        remedy = remedy_of(cause.name)
        if cause.who == "you":
            assert remedy.text.en, cause.name
            assert remedy.text.of(Lang.ZH) != remedy.text.en
    used = {cause.remedy for cause in all_causes().values()}
    assert set(REMEDIES) == used


def test_a_step_that_costs_says_so_and_is_not_taken_without_a_person():
    costly = [step for remedy in REMEDIES.values() for step in remedy.steps if step.costs]
    assert costly
    for step in costly:
        assert "costs money" in step.does.en
        assert not Decisions().agrees(None, step)
    assert Decisions().agrees(None, OPEN_CLOUD)


def typed_causes(type_command, *words):
    code, out, err = type_command("fix", *words, "--json")
    answer = json.loads(out)
    return code, {(each["appid"], each["code"]): each for each in answer["causes"]}, answer, err


def test_without_a_terminal_it_shows_what_can_be_done_and_does_nothing(open_token_server, type_command):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    failed_run(server, [TEA, BOOKS])
    code, out, err = type_command("fix")
    assert code == 2
    assert "85088 · 1 row · 城南书店" in out
    assert "  tcb/createclouduser: Asks the mini program's administrator" in out
    assert "which costs\nmoney" in out
    assert "Nothing was done." in err
    assert server.sim.stats["create_cloud_user"] == 0


def test_two_nights_of_yes_do_what_is_free_and_a_person_agrees_once_to_what_costs(
    open_token_server, type_command
):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run = failed_run(server, [TEA, BOOKS])
    code, causes, _answer, _err = typed_causes(type_command, "--yes")
    assert (code, causes["wxbooks", "85088"]["state"]) == (1, "waiting")
    assert "Asked on" in type_command("why")[1]
    assert "Call tcb/createclouduser" not in type_command("why")[1]
    assert typed_causes(type_command, "--yes")[1]["wxbooks", "85088"]["state"] == "waiting"
    assert server.sim.stats["create_cloud_user:-601049"] == 1

    tcb.call("wxbooks", "simulator/confirm", settings=server.settings)
    code, causes, _answer, _err = typed_causes(type_command, "--yes")
    assert (code, causes["wxbooks", "85088"]["state"]) == (1, "skipped")
    assert server.sim.stats["create_env"] == 0

    whole, (treatment,) = fix.treatments(run, server.settings)
    fix.carry_out([treatment], whole, server.settings, Decisions(agrees=lambda *_about: True))
    assert treatment.state is RemedyState.DONE
    assert server.sim.stats["create_env"] == 1, server.sim.stats
    code, _causes, answer, _err = typed_causes(type_command, "--yes")
    assert (code, answer["counts"]) == (0, {"linked": 2})


def test_an_environment_is_created_once(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run = failed_run(server, [BOOKS])
    everything = Decisions(agrees=lambda *_about: True)
    for _time in range(3):
        whole, listed = fix.treatments(run, server.settings)
        fix.carry_out(listed, whole, server.settings, everything)
        tcb.call("wxbooks", "simulator/confirm", settings=server.settings)
    assert server.sim.stats["create_env"] == 1


def test_the_quota_is_cleared_ten_times_a_month_at_most(open_token_server, type_command):
    full = SimulatedAccount("wxtea", daily_limit=5, used=5)
    spent = SimulatedAccount("wxbooks", daily_limit=5, used=5, cleared=10)
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[full, spent])
    failed_run(server, [TEA, BOOKS])
    code, causes, answer, _err = typed_causes(type_command, "--yes")
    assert code == 1
    assert causes["wxtea", "45009"]["state"] == "done"
    assert causes["wxbooks", "45009"]["state"] == "impossible"
    assert "48006" in causes["wxbooks", "45009"]["said"]
    assert answer["counts"] == {"linked": 1, "refused": 1}


def test_no_other_row_with_the_codes_that_run_again_is_sent(open_token_server, type_command):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE])
    server.sim.play([Fault(path="a.png", errcode=-501003), Fault(path="b.png", errcode=48004)])
    run, settings = failed_run(server, [TEA, BOOKS], names=("a.png", "b.png")), server.settings
    for appid, cause in (("wxtea", "package_used"), ("wxbooks", "account_restricted")):
        at = "2026-12-01T10:00:00+08:00"
        asked = Asked(settings.run_target, appid, cause, "", run.id, "li", LETTER, at)
        ledger_with_runs(settings).note_asked(asked)
    server.sim.play([])
    _code, causes, answer, _err = typed_causes(type_command, "--yes")
    assert {place: each["state"] for place, each in causes.items()} == {
        ("wxtea", "-501003"): "done",
        ("wxtea", "48004"): "skipped",
        ("wxbooks", "-501003"): "skipped",
        ("wxbooks", "48004"): "done",
    }
    retried = [row.row for each in answer["runs"] for row in tcb.open_run(each, settings=settings).rows()]
    assert [(row.appid, row.path) for row in retried] == [("wxtea", "a.png"), ("wxbooks", "b.png")]
    assert answer["counts"] == {"linked": 2, "refused": 2}


def test_rows_of_a_wrong_environment_are_corrected_and_not_retried(open_token_server, type_command):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], environments=[SimulatedEnvironment("tea-2", foreign=True)]
    )
    run = failed_run(server, [TEA_TEST])
    whole, (treatment,) = fix.treatments(run, server.settings)
    fix.carry_out([treatment], whole, server.settings, Decisions())
    assert treatment.state is RemedyState.SKIPPED
    offered = []
    choice = Decisions(env=lambda _each, envs: offered.extend(envs) or envs[0])
    fix.carry_out([treatment], whole, server.settings, choice)
    assert (treatment.state, offered, treatment.env) == (RemedyState.DONE, ["tea-1"], "tea-1")
    file = fix.write_corrected(whole, [treatment], server.settings)
    batch = tcb.read_paths(file, server.file)
    limits = replace(QUICK, attempts=1)
    corrected = tcb.links(batch, out=server.folder / "more.csv", settings=server.settings, limits=limits)
    assert corrected.record.corrects == run.id
    assert run.final().succeeded


class Typing(io.StringIO):
    """What a person types at a terminal."""

    def isatty(self):
        return True


def test_a_person_chooses_among_several_environments(
    open_token_server, type_command, monkeypatch, find_english
):
    third = Merchant("wxtea", "茶语小铺", "tea-3")
    server = open_token_server(
        [TEA, TEA_TEST, third, CAKE], environments=[SimulatedEnvironment("tea-2", foreign=True)]
    )
    run = failed_run(server, [TEA_TEST], listed=(TEA, TEA_TEST, third))
    monkeypatch.setattr(sys, "stdin", Typing("tea-2\ntea-3\n"))
    code, _out, err = type_command("fix", "--lang", "zh")
    first, second = (line for line in err.splitlines() if "tea-1、tea-3" in line)
    assert (code, " 错误：请输入 tea-1、tea-3 之一" in first) == (0, True)
    assert not find_english(first + second)
    assert run.final().succeeded
    (corrected,) = run.final().record.retries
    assert [row.row.env for row in tcb.open_run(corrected, settings=server.settings).rows()] == ["tea-3"]


def test_the_rows_of_retries_and_corrections_are_counted_in_the_end(open_token_server, type_command):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], environments=[SimulatedEnvironment("tea-2", foreign=True)]
    )
    server.sim.play([Fault(env="books-1", errcode=45009)])
    run = failed_run(server, [TEA, TEA_TEST, BOOKS])
    whole, listed = fix.treatments(run, server.settings)
    (treatment,) = [each for each in listed if each.remedy.choice is Choice.ENV]
    treatment.env = "tea-1"
    file = fix.write_corrected(whole, [treatment], server.settings)
    server.sim.play([])
    code, _out, err = type_command("retry", run.id, "--errcode", "45009")
    assert f"Retry of {run.id}: with its retries, 2 of 3 rows have succeeded." in err
    code, _out, err = type_command("links", str(file), "--out", "more.csv")
    assert code == 0
    assert f"Correction of {run.id}: with its retries and corrections, 3 of 3 rows have succeeded." in err
    assert run.with_retries() == (run.id, 2, 3)
    assert run.with_retries(corrected=True) == (run.id, 3, 3)


def test_a_merchant_that_was_sent_the_text_is_ready_once_it_has_authorized(open_token_server, type_command):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], accounts=[SimulatedAccount("wxbooks", permissions=(18,))]
    )
    run = failed_run(server, [TEA, BOOKS])
    settings = server.with_options(redirect_uri="https://platform.example.com/done")
    letters = []

    def sent(treatment, text):
        letters.append((text.en, treatment.link))
        return True

    whole, (treatment,) = fix.treatments(run, settings)
    fix.carry_out([treatment], whole, settings, Decisions(sent=sent, takes_link=True))
    ((text, link),) = letters
    assert text.startswith("城南书店: please authorize us again")
    assert "biz_appid=wxbooks" in link.reveal()
    assert "preauthcode" not in repr(treatment)
    assert treatment.state is RemedyState.WAITING

    code, out, _err = type_command("audit", "--json")
    (finding,) = json.loads(out)["audit"]["new"]
    assert (code, finding["action"].startswith("Asked on")) == (1, True)
    assert json.loads(out)["audit"]["ready"] == []

    tcb.call("wxbooks", "simulator/confirm", settings=settings)
    code, out, _err = type_command("audit", "--new-run")
    assert code == 0
    assert "Asked and ready · 1" in out
    assert f"tcb-ops retry {run.id}" in out
    assert json.loads(type_command("audit", "--json", "--new-run")[1])["audit"]["ready"][0]["run"] == run.id
    assert typed_causes(type_command, "--yes")[0] == 0
    assert json.loads(type_command("audit", "--json", "--new-run")[1])["audit"]["ready"] == []


def with_cloud(server, run):
    """Bring the bookshop as far as an open CloudBase without an environment."""
    whole, listed = fix.treatments(run, server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions())
    tcb.call("wxbooks", "simulator/confirm", settings=server.settings)
    whole, listed = fix.treatments(run, server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions())
    return fix.treatments(run, server.settings)


def test_an_audit_says_that_an_open_cloudbase_has_no_environment(open_token_server, type_command):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    with_cloud(server, failed_run(server, [BOOKS]))
    run = tcb.audit(server.settings.merchants, settings=server.settings)
    (cause,) = run.overview().causes
    assert (cause.env, cause.code) == (BOOKS.env, "no_env")
    assert "Create an environment" in cause.action.en
    assert typed_causes(type_command, run.id, "--yes")[1]["wxbooks", "no_env"]["state"] == "skipped"
    whole, listed = fix.treatments(run, server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions(agrees=lambda *_about: True))
    assert tcb.audit(server.settings.merchants, settings=server.settings).succeeded


def test_of_two_operators_one_creates_the_environment(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run, other_run = failed_run(server, [BOOKS]), failed_run(server, [BOOKS, TEA])
    whole, listed = with_cloud(server, run)
    other_whole, others = fix.treatments(other_run, server.settings)
    states = []

    def agrees_while_another_tries(*_about):
        fix.carry_out(others, other_whole, server.settings, Decisions(agrees=lambda *_about: True))
        states.append((others[0].state, "is being worked on by" in others[0].said.en))
        return True

    fix.carry_out(listed, whole, server.settings, Decisions(agrees=agrees_while_another_tries))
    assert states == [(RemedyState.LATER, True)]
    fix.carry_out(others, other_whole, server.settings, Decisions(agrees=lambda *_about: True))
    assert others[0].state is RemedyState.DONE
    assert server.sim.stats["create_env"] == 1


def test_an_environment_that_the_merchant_creates_while_it_is_asked_about_is_used(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    whole, listed = with_cloud(server, failed_run(server, [BOOKS]))
    body = {"type": "CreatePostpayPackage", "alias": "books"}

    def agrees_late(*_about):
        return bool(tcb.call("wxbooks", CREATE_ENV.interface, body, settings=server.settings))

    fix.carry_out(listed, whole, server.settings, Decisions(agrees=agrees_late))
    assert listed[0].state in {RemedyState.DONE, RemedyState.SKIPPED}
    assert server.sim.stats["create_env"] == 1


def test_a_quota_that_somebody_has_reset_is_not_reset_again(open_token_server):
    full = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[full])
    run = failed_run(server, [TEA])
    plans = [fix.treatments(run, server.settings) for _operator in range(2)]
    for whole, listed in plans:
        fix.carry_out(listed, whole, server.settings, Decisions())
        assert [each.state for each in listed] == [RemedyState.DONE]
    assert server.sim.stats["clear_quota"] == 1


def test_the_platforms_own_quota_that_somebody_has_reset_is_not_reset_again(open_token_server, type_command):
    full = SimulatedAccount(COMPONENT.appid, daily_limit=5, used=5)
    server = open_token_server([TEA, OWN], accounts=[full])
    run = failed_run(server, [OWN], listed=[OWN])
    assert [each.verdict.code for each in run.why()] == ["45009"]
    plans = [fix.treatments(run, server.settings) for _operator in range(2)]
    for whole, listed in plans:
        assert [each.diagnosis.verdict.cause for each in listed] == ["component_quota"]
        fix.carry_out(listed, whole, server.settings, Decisions())
        assert [each.state for each in listed] == [RemedyState.DONE]
    assert server.sim.stats["clear_quota"] == 1
    code, causes, answer, _err = typed_causes(type_command, "--yes")
    assert (code, answer["counts"]) == (0, {"linked": 1})
    assert [each["cause"] for each in causes.values()] == ["passed"]
    assert server.sim.stats["clear_quota"] == 1


def test_what_was_asked_is_done_when_its_rows_have_succeeded_whatever_ran_them(
    open_token_server, type_command
):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], accounts=[SimulatedAccount("wxbooks", permissions=(18,))]
    )
    run, settings = failed_run(server, [TEA, BOOKS]), server.settings
    whole, listed = fix.treatments(run, settings)
    fix.carry_out(listed, whole, settings, Decisions(sent=lambda *_about: True))
    ledger = ledger_with_runs(settings)
    assert list(ledger.asked(settings.run_target)) == [("wxbooks", "set_missing")]
    assert type_command("audit")[0] == 1
    assert list(ledger.asked(settings.run_target)) == [("wxbooks", "set_missing")]
    tcb.call("wxbooks", "simulator/confirm", settings=settings)
    assert type_command("audit", "--new-run")[0] == 0
    assert list(ledger.asked(settings.run_target)) == [("wxbooks", "set_missing")], "its rows still wait"
    assert type_command("retry", run.id)[0] == 0
    assert ledger.asked(settings.run_target) == {}


def test_what_was_asked_about_one_environment_is_not_done_by_success_in_another(open_token_server):
    halted = SimulatedEnvironment("tea-1", status=EnvStatus.HALTED)
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], environments=[halted])
    run, settings = failed_run(server, [TEA]), server.settings
    whole, listed = fix.treatments(run, settings)
    fix.carry_out(listed, whole, settings, Decisions(sent=lambda *_about: True))
    server.sim.play([Fault(env=TEA_TEST.env, errcode=45009, calls=((1, 1),))])
    other, listed = fix.treatments(failed_run(server, [TEA_TEST]), settings)
    fix.carry_out(listed, other, settings, Decisions())
    assert [each.state for each in listed] == [RemedyState.DONE]
    assert tcb.retry(other.id, settings=settings).succeeded
    assert list(ledger_with_runs(settings).asked(settings.run_target)) == [("wxtea", "halted")]


def test_what_was_asked_is_done_when_another_cause_has_taken_its_place_and_is_removed(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run, settings = failed_run(server, [BOOKS]), server.settings
    whole, listed = fix.treatments(run, settings)
    fix.carry_out(listed, whole, settings, Decisions())
    tcb.call("wxbooks", "simulator/confirm", settings=settings)
    tcb.call("wxbooks", OPEN_CLOUD.interface, settings=settings)
    assert list(ledger_with_runs(settings).asked(settings.run_target)) == [("wxbooks", "no_cloud")]
    whole, listed = fix.treatments(run, settings)
    fix.carry_out(listed, whole, settings, Decisions(agrees=lambda *_about: True))
    assert [each.state for each in listed] == [RemedyState.DONE]
    assert ledger_with_runs(settings).asked(settings.run_target) == {}


def test_no_environment_is_chosen_for_an_audit_which_has_no_rows(open_token_server, type_command):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], environments=[SimulatedEnvironment("tea-2", foreign=True)]
    )
    server.list_merchants(TEA, TEA_TEST, BOOKS)
    assert type_command("audit")[0] == 1
    whole, listed = fix.treatments(tcb.open_run(kind="audit", settings=server.settings), server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions(env=lambda _treatment, envs: envs[0]))
    (treatment,) = listed
    assert (treatment.state, treatment.env) == (RemedyState.SKIPPED, "tea-2")
    assert "merchants file" in treatment.said.en


def test_an_account_of_two_environments_is_reset_once(open_token_server):
    full = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[full])
    server.sim.play([Fault(env="tea-*", errcode=45009)])
    whole, listed = fix.treatments(failed_run(server, [TEA, TEA_TEST]), server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions())
    assert [each.state for each in listed] == [RemedyState.DONE, RemedyState.DONE]
    assert server.sim.stats["clear_quota"] == 1


def test_what_only_the_rows_can_tell_is_tried_once_the_merchant_was_asked(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE])
    server.sim.play([Fault(env=TEA.env, errcode=-501003)])
    run = failed_run(server, [TEA])
    states = []
    for _night in range(2):
        whole, listed = fix.treatments(run, server.settings)
        fix.carry_out(listed, whole, server.settings, Decisions(sent=lambda *_about: True))
        states += [each.state for each in listed]
    assert states == [RemedyState.WAITING, RemedyState.DONE]


def test_what_is_done_about_one_cause_confirms_nothing_about_another(open_token_server):
    full = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[full])
    run, settings = failed_run(server, [TEA]), server.settings
    asked = Asked(
        settings.target, "wxtea", "halted", "茶铺", run.id, "li", LETTER, "2026-12-01T10:00:00+08:00"
    )
    ledger_with_runs(settings).note_asked(asked)
    whole, listed = fix.treatments(run, settings)
    fix.carry_out(listed, whole, settings, Decisions())
    assert [each.state for each in listed] == [RemedyState.DONE]
    assert server.sim.stats["clear_quota"] == 1
    assert list(ledger_with_runs(settings).asked(settings.target)) == [("wxtea", "halted")]


def by_a_call(server, run):
    with pytest.raises(tcb.RefusedError, match="601049"):
        tcb.call("wxbooks", OPEN_CLOUD.interface, settings=server.settings)


def by_a_fix_without_an_answer(server, run):
    server.sim.play([Fault(step=FaultStep.CREATE_CLOUD_USER, reset=Reset.MIDDLE, calls=((1, 1),))])
    whole, listed = fix.treatments(run, server.settings)
    fix.carry_out(listed, whole, server.settings, Decisions())
    assert [each.state for each in listed] == [RemedyState.LATER]
    assert ledger_with_runs(server.settings).asked(server.settings.run_target) == {}


@pytest.mark.parametrize("ask", [by_a_call, by_a_fix_without_an_answer])
def test_that_a_merchant_was_asked_elsewhere_is_noted_once_it_is_told(open_token_server, type_command, ask):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run = failed_run(server, [BOOKS])
    ask(server, run)
    for _time in range(2):
        whole, listed = fix.treatments(run, server.settings)
        fix.carry_out(listed, whole, server.settings, Decisions())
        assert (listed[0].state, listed[0].errcode) == (RemedyState.WAITING, -601026)
    asked = fix.treatments(run, server.settings)[1][0].diagnosis.verdict.asked
    assert (asked.operator, asked.how) == ("", MESSAGE)
    assert "by someone else or an earlier call" in listed[0].end.en
    assert [each.step for each in tcb.next_steps(settings=server.settings)] == [StepCode.WAITING]
    out = type_command("audit")[1]
    assert f"asked by {asked.at[:10]}" in out
    assert "by someone else or an earlier call" in type_command("why")[1].replace("\n", " ")


def test_each_environment_of_a_merchant_is_asked_about(open_token_server):
    foreign = [SimulatedEnvironment("tea-1", foreign=True), SimulatedEnvironment("tea-2", foreign=True)]
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], environments=foreign)
    run = failed_run(server, [TEA, TEA_TEST])
    _whole, listed = fix.treatments(run, server.settings)
    assert {(each.merchant.env, each.diagnosis.rows) for each in listed} == {("tea-1", 1), ("tea-2", 1)}


def test_a_second_correction_of_a_run_leaves_the_list_of_the_first(open_token_server):
    server = open_token_server(
        [TEA, TEA_TEST, BOOKS, CAKE], environments=[SimulatedEnvironment("tea-2", foreign=True)]
    )
    whole, listed = fix.treatments(failed_run(server, [TEA_TEST]), server.settings)
    files = []
    for env in ("tea-1", "cake-1"):
        listed[0].env = env
        files.append(fix.write_corrected(whole, listed, server.settings))
    assert [file.name for file in files] == [f"{whole.id}-fixed.csv", f"{whole.id}-fixed-2.csv"]
    assert [
        env in file.read_text(encoding="utf-8-sig")
        for env, file in zip(("tea-1", "cake-1"), files, strict=True)
    ]


def test_an_unfinished_run_is_refused_before_anything_is_done(open_token_server, type_command):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    run = failed_run(server, [BOOKS])
    with closing(sqlite3.connect(server.settings.ledger)) as ledger, ledger:
        ledger.execute("UPDATE runs SET finished_at = NULL")
    code, _out, err = type_command("fix", "--yes")
    assert (code, f"Run {run.id} is unfinished" in err) == (2, True)
    assert server.sim.stats["create_cloud_user"] == 0


def test_without_an_answer_about_its_environments_none_is_created(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    whole, listed = with_cloud(server, failed_run(server, [BOOKS]))

    def agrees_during_an_outage(*_about):
        server.sim.play([Fault(step=FaultStep.ENV_INFO, errcode=-1)])
        return True

    fix.carry_out(listed, whole, server.settings, Decisions(agrees=agrees_during_an_outage))
    assert listed[0].state is RemedyState.LATER
    assert listed[0].said.en.startswith("tcb/getenvinfo: errcode -1 ")
    assert server.sim.stats["create_env"] == 0


def test_the_links_of_an_earlier_fix_stay(open_token_server, type_command, monkeypatch):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    quota = SimulatedAccount("wxtea", daily_limit=5, used=5)
    server.sim.play([], [quota])
    failed_run(server, [TEA])
    monkeypatch.chdir(server.folder)
    (server.folder / "links.retry.csv").write_text("precious", encoding="utf-8")
    code, _out, err = type_command("fix", "--yes")
    assert (code, "The links are in" in err, "links.retry-2.csv" in err) == (0, True, True)
    assert (server.folder / "links.retry.csv").read_text(encoding="utf-8") == "precious"


def test_a_lost_answer_to_a_change_says_that_it_may_have_been_carried_out(open_token_server):
    server = open_token_server([TEA, TEA_TEST, BOOKS, CAKE], accounts=[NO_CLOUD])
    whole, listed = with_cloud(server, failed_run(server, [BOOKS]))
    server.sim.play([Fault(step=FaultStep.CREATE_ENV, reset=Reset.MIDDLE)])
    fix.carry_out(listed, whole, server.settings, Decisions(agrees=lambda *_about: True))
    assert listed[0].state is RemedyState.LATER
    assert listed[0].said.en.startswith("tcb/createenvandresource: ")
    assert "It may have been carried out" in listed[0].said.en
    assert server.sim.stats["create_env"] == 1

"""What an audit found, beside the one before and night after night; known.csv, which silences a failure until a date."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST

import tcb_ops as tcb
from tcb_ops.catalogue import all_errcodes, all_reasons, errcode
from tcb_ops.errors import InputError
from tcb_ops.features.health import HEALTHY, UNHEALTHY
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.health.audit_result import KnownFailure, read_known
from tcb_ops.features.simulator.faults import EnvStatus, Fault, FaultStep, Reset
from tcb_ops.model import Merchant, Outcome, Owner

DAY = "2026-11-27"


def test_a_file_from_excel_is_read(tmp_path):
    file = tmp_path / "known.csv"
    text = "环境ID,原因,截止日期,备注\r\nnoodle-prod-18b8ff,85088,2026/12/1,已联系商户\r\n\r\ntea-1a2b3c,HALTED,2026年11月30日,\r\n"
    file.write_bytes(text.encode("gb18030"))
    assert read_known(file) == (
        KnownFailure("", "noodle-prod-18b8ff", "85088", "2026-12-01", "已联系商户"),
        KnownFailure("", "tea-1a2b3c", "halted", "2026-11-30", ""),
    )


def test_a_file_without_its_columns_is_refused(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text("env,note\ntea,x\n", encoding="utf-8")
    with pytest.raises(InputError, match="cause"):
        read_known(file)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("85088", "85088"),
        ("99999999", "99999999"),
        ("Halted", "halted"),
        ("AccessDenied", None),
        ("nope", None),
        ("Nope", None),
        ("no such thing", None),
    ],
)
def test_which_causes_a_line_can_have(tmp_path, text, cause):
    file = tmp_path / "known.csv"
    file.write_text(f"appid,cause,until\nwxtea,{text},2026-12-01\n", encoding="utf-8")
    if cause is None:
        with pytest.raises(InputError, match="is not a cause"):
            read_known(file)
        return
    assert [line.cause for line in read_known(file)] == [cause]


@pytest.mark.parametrize(
    ("known", "silenced"),
    [
        (KnownFailure("", "env-a", "85088", DAY), True),
        (KnownFailure("wxtea", "", "85088", DAY), True),
        (KnownFailure("wxtea", "env-a", "85088", "2027-01-01"), True),
        (KnownFailure("", "env-a", "85088", "2026-11-26"), False),
        (KnownFailure("", "env-a", "45009", DAY), False),
        (KnownFailure("", "env-b", "85088", DAY), False),
        (KnownFailure("wxbooks", "env-a", "85088", DAY), False),
    ],
)
def test_which_line_silences_a_failure(known, silenced):
    assert known.silences("wxtea", "env-a", "85088", DAY) is silenced


def audited(workspace, faults=(), **options):
    workspace.sim.play(faults)
    options = {"settings": workspace.settings, "limits": QUICK} | options
    return tcb.audit(options.pop("merchants", workspace.merchants), **options).audit()


def envs(findings):
    return [(one.cause.env, one.cause.code) for one in findings]


@pytest.mark.needs("evidence")
def test_what_newly_broke_recovered_and_is_still_broken(open_workspace):
    workspace = open_workspace([])
    audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, errcode=85088)])
    found = audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA_TEST.env, errcode=48001)])
    assert envs(found.new) == [(TEA_TEST.env, "48001")]
    assert envs(found.still) == [(BOOKS.env, "85088")]
    assert [(line.env, line.before) for line in found.recovered] == [(TEA.env, "85088")]
    quiet = audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA_TEST.env, errcode=48001)])
    assert (quiet.new, quiet.recovered, quiet.news()) == ((), (), [])
    assert [quiet.exit_code(on) for on in ("any", "new", "none")] == [1, 0, 0]


@pytest.mark.needs("evidence")
def test_another_cause_is_new(open_workspace):
    workspace = open_workspace([])
    audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    (one,) = audited(workspace, [Fault(env=BOOKS.env, errcode=48001)]).new
    assert (one.cause.code, one.before) == ("48001", "85088")


@pytest.mark.integration
@pytest.mark.parametrize("unknown_nights", [1, 3])
def test_what_was_unknown_is_compared_with_its_last_known_state(open_workspace, unknown_nights):
    workspace, outage = open_workspace([]), [Fault(reset=Reset.BEFORE)]
    failing = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, errcode=85088)]
    audited(workspace, [*failing, Fault(env=TEA_TEST.env, errcode=-1)])
    for _night in range(unknown_nights):
        night = audited(workspace, outage)
        assert (night.new, night.recovered, len(night.unknown)) == ((), (), 3)
    back = audited(workspace, [failing[0], Fault(env=TEA_TEST.env, errcode=48001)])
    assert envs(back.still) == [(BOOKS.env, "85088")]
    assert envs(back.new) == [(TEA_TEST.env, "48001")]  # never known before
    assert [(line.env, line.before) for line in back.recovered] == [(TEA.env, "85088")]
    assert back.previous is not None
    audited(workspace, outage)
    assert envs(audited(workspace, [Fault(env=TEA.env, errcode=85088)]).new) == [(TEA.env, "85088")]


def test_a_known_failure_is_silenced_until_its_date_and_new_again_after_it(open_workspace):
    workspace, broken = open_workspace([]), [Fault(env=BOOKS.env, errcode=85088)]
    known = workspace.folder / "known.csv"
    known.write_text(f"env,cause,until,note\n{BOOKS.env},85088,2999-12-31,asked\n", encoding="utf-8")
    found = audited(workspace, broken, known=known)
    assert envs(found.silenced) == [(BOOKS.env, "85088")]
    assert [found.exit_code(on) for on in ("any", "new")] == [0, 0]
    assert (found.new, found.still, found.unknown) == ((), (), ())
    known.write_text(f"env,cause,until,note\n{BOOKS.env},85088,2001-12-31,asked\n", encoding="utf-8")
    after = audited(workspace, broken, known=known)
    assert envs(after.new) == [(BOOKS.env, "85088")]


@pytest.mark.needs("evidence")
def test_a_clock_set_back_leaves_the_order_of_the_audits(open_workspace, monkeypatch):
    workspace = open_workspace([])
    first = audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    monkeypatch.setattr("tcb_ops.start.time.time", lambda: first.run.created_at - 86_400)
    found = audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    assert found.previous is not None
    assert found.previous.id == first.run.id
    assert not found.new


@pytest.mark.parametrize(
    ("counts", "finished", "result"),
    [
        ({HEALTHY: 1, UNHEALTHY: 2, Outcome.UNKNOWN: 1}, True, "4 environments: 1 healthy, 2 unhealthy, 1 unknown."),
        ({HEALTHY: 8, UNHEALTHY: 2, Outcome.PENDING: 2}, False, "Unfinished, 12 environments: 8 healthy, 2 unhealthy, 2 pending."),
    ],
)  # fmt: skip
def test_the_verdict_is_a_sentence(counts, finished, result):
    assert AUDIT.verdict(counts, finished=finished).en == result


CODES = (85088, 48001, 61003)


@dataclass
class Scenario:
    """Which environment fails on which nights, with which cause; nights on which the platform refuses everybody."""

    faults: list[list[Fault]] = field(default_factory=list)
    """By night."""
    halted: list[set[str]] = field(default_factory=list)
    """By night: the environments that are HALTED."""
    causes: list[dict[str, str]] = field(default_factory=list)
    """By night: cause by environment."""
    stopped: set[int] = field(default_factory=set)


def scenario(fleet, nights, seed):
    """Make a scenario as its author would write it, and what it implies."""
    chance = random.Random(seed)
    found = Scenario(
        *(
            [[] for _ in range(nights + 1)],
            [set() for _ in range(nights + 1)],
            [{} for _ in range(nights + 1)],
        )
    )
    for merchant in fleet:
        if chance.random() > 0.25:
            continue
        first = chance.randint(1, nights)
        last = min(nights, first + chance.randint(0, 4))
        halted = chance.random() < 0.3
        code = chance.choice(CODES)
        for night in range(first, last + 1):
            if halted:
                found.halted[night].add(merchant.env)
            else:
                found.faults[night].append(Fault(env=merchant.env, errcode=code))
            found.causes[night][merchant.env] = "halted" if halted else str(code)
    found.stopped = {nights // 2}
    found.faults[nights // 2] = [Fault(step=FaultStep.ENV_INFO, errcode=61004)]
    return found


def play(open_workspace, tmp_path, merchants, nights, seed):
    fleet = [Merchant(f"wx{n:04}", f"商户{n}", f"shop-{n:04}-a1b2c3") for n in range(merchants)]
    story = scenario(fleet, nights, seed)
    workspace = open_workspace([], merchants=fleet)
    command = workspace.with_options(notify=[{"kind": "wecom", "url_file": tmp_path / "url"}])
    (tmp_path / "url").write_text(f"{workspace.sim.base}/robot/wecom/accept?key=practice", encoding="utf-8")
    before = None
    for night in range(1, nights + 1):
        workspace.sim.play(story.faults[night])
        for merchant in fleet:
            halted = merchant.env in story.halted[night]
            workspace.sim.set_status(merchant.env, EnvStatus.HALTED if halted else EnvStatus.NORMAL)
        run = tcb.audit(workspace.merchants, settings=command, limits=QUICK)
        result, told = run.audit(), len(workspace.sim.robots.messages)
        tcb.notify(run, settings=command, on_demand=False)
        messages = [message.text for message in workspace.sim.robots.messages[told:]]
        if night in story.stopped:
            assert result.exit_code("new") == 3
            assert run.counts == {"unknown": merchants}
            assert ["61004" in message for message in messages] == [True]
            continue
        now = story.causes[night]
        then = before or {}
        new = {env for env in now if now[env] != then.get(env)}
        recovered = set(then) - set(now)
        assert {one.cause.env: one.cause.code for one in (*result.new, *result.still)} == now
        assert {one.cause.env for one in result.new} == new
        assert {line.env for line in result.recovered} == recovered
        assert not result.unknown
        assert [result.exit_code(on) for on in ("any", "new", "none")] == [bool(now), bool(new), 0]
        assert len(messages) == bool(new or recovered)
        for message in messages:
            assert len(message.encode()) <= 4096
            assert f"newly broken {len(new)} · recovered {len(recovered)} " in message
            shown = {env for env in new | recovered if env in message}
            assert shown == new | recovered or " more line" in message
        before = now


@pytest.mark.integration
def test_a_week_of_a_small_fleet(open_workspace, tmp_path):
    play(open_workspace, tmp_path, merchants=12, nights=5, seed=1)


@pytest.mark.soak
def test_14_nights_of_300_merchants(open_workspace, tmp_path):
    play(open_workspace, tmp_path, merchants=300, nights=14, seed=16)


def test_what_to_do_about_a_finding_speaks_of_no_rows():
    """An audit checks environments, and shows the texts that uploads have: they must be true for both."""
    codes = [entry.code for entry in all_errcodes() if entry.cause != "row_wrong"]
    found = {(code, owner): errcode(int(code), owner).action for code in codes for owner in Owner}
    reasons = ("no_token", "merchant_left", "dead_token", "no_answer", "halted", "unavailable")
    texts = {**found, **{reason: all_reasons()[reason].action for reason in reasons}}
    of_a_row = re.compile(r"\brows? (again|are)\b|该行|这些行|的行")
    # 剩余的行: what is left of a run until tomorrow.
    named = {
        name
        for name, text in texts.items()
        if of_a_row.search(f"{text.en} {text.zh.replace('剩余的行', '')}")
    }
    assert named == set()

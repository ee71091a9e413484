"""Runs whose tokens come from a server or from the platform itself, and the platform's own environments."""

from base64 import b64encode
from dataclasses import replace
from typing import Any
from zipfile import ZipFile

import pytest
from scripted import good_token as good
from scripted import token_server
from tables import table
from workspace import BOOKS, QUICK, TEA, TEA_TEST, Workspace, many

import tcb_ops as tcb
from tcb_ops.engine import engine
from tcb_ops.errors import OutageError, TokenSourceError
from tcb_ops.features.simulator.faults import Component, Fault, FaultStep
from tcb_ops.model import Merchant, Outcome, Owner
from tcb_ops.reports.summary import Per, by_code, next_actions
from tcb_ops.secrets import redact

pytestmark = pytest.mark.integration

PLATFORM = "wxplatform"
OWN = Merchant(PLATFORM, "平台自有", "own-env-1", owner=Owner.PLATFORM)
SHARED = Merchant(TEA.appid, TEA.name, "own-env-2", owner=Owner.PLATFORM)
COMPONENT = Component(PLATFORM, "PrAcTiCe-secret", "PrAcTiCe-ticket", rotate=True)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch):
    monkeypatch.setenv("PRACTICE_SECRET", COMPONENT.secret)
    monkeypatch.setenv("PRACTICE_TICKET", COMPONENT.ticket)


def by_itself(workspace: Workspace, **changed: Any) -> Any:
    """Settings of a platform whose tokens tcb-ops refreshes."""
    tokens = {
        "source": "component",
        "sole_owner": True,
        "component_appid": PLATFORM,
        "secret": "env:PRACTICE_SECRET",
        "ticket": "env:PRACTICE_TICKET",
        "store": workspace.folder / "tcb-ops.tokens",
    }
    return workspace.with_options(tokens=tokens | changed)


# --- component ------------------------------------------------------------------------------------------------------------


def test_a_run_fetches_its_tokens_by_itself_and_the_next_one_uses_them(open_workspace, assert_complete):
    workspace = open_workspace(component=COMPONENT, tokens={})
    assert assert_complete(workspace.upload(settings=by_itself(workspace)), 30) == {"uploaded": 30}
    before = workspace.sim.stats
    assert before["authorizer_token"] == 2
    audit = tcb.audit(workspace.merchants, settings=by_itself(workspace), limits=QUICK)
    assert assert_complete(audit, 3) == {"healthy": 3}
    assert workspace.sim.stats["authorizer_token"] == 2
    assert workspace.sim.stats["component_token"] == 1


def test_a_token_that_dies_in_mid_run_is_refreshed_once(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, rows=40), component=COMPONENT, tokens={})
    settings = by_itself(workspace)
    tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    workspace.sim.expire(TEA.appid)
    before = workspace.sim.stats[f"authorizer_token:{TEA.appid}"]
    assert assert_complete(workspace.upload(settings=settings), 40) == {"uploaded": 40}
    assert workspace.sim.stats[f"authorizer_token:{TEA.appid}"] == before + 1


def test_a_run_that_met_no_token_can_say_why_in_the_sources_words(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, BOOKS, rows=5), component=COMPONENT, tokens={})
    workspace.sim.drop_refresh_token(BOOKS.appid)
    workspace.sim.revoke(BOOKS.appid)
    run = workspace.upload(settings=by_itself(workspace))
    result = {tally.merchant: tally.detail for tally in run._ledger.tallies(run.record)}
    assert result[TEA.name] is None
    why = str(result[BOOKS.name])
    assert why == redact(why)  # shown as it is: no word of it looks like a secret
    assert why.startswith("wxbooks needs a new authorization. api_get_authorizer_list has no")


def test_a_merchant_without_authorization_ends_by_its_errcode_and_the_others_go_on(
    open_workspace, assert_complete
):
    workspace = open_workspace(many(TEA, BOOKS, rows=5), component=COMPONENT, tokens={})
    workspace.sim.revoke(BOOKS.appid)
    run = workspace.upload(settings=by_itself(workspace))
    assert assert_complete(run, 10) == {"uploaded": 5, "not_attempted": 5}
    (cause,) = run.overview().causes
    assert (cause.merchant, cause.code, cause.rows) == ("城南书店", "61003", 5)
    assert "authorization link" in cause.action.en


def test_a_refresh_that_is_told_to_slow_down_pauses_its_merchant_alone(open_workspace, assert_complete):
    slow = Fault(appid=TEA.appid, step=FaultStep.AUTHORIZER_TOKEN, errcode=45011, calls=((1, 2),))
    workspace = open_workspace(many(TEA, BOOKS, rows=5), [slow], component=COMPONENT, tokens={})
    assert assert_complete(workspace.upload(settings=by_itself(workspace)), 10) == {"uploaded": 10}
    assert workspace.sim.stats[f"authorizer_token:{TEA.appid}"] == 3


@pytest.mark.parametrize(
    ("code", "words"), [(61004, "whitelist"), (61005, "next push"), (40125, "AppSecret")]
)
def test_what_stops_everybody_stops_the_run_with_its_rows_pending(
    open_workspace, assert_complete, code, words
):
    workspace = open_workspace(
        faults=[Fault(step=FaultStep.COMPONENT_TOKEN, errcode=code)], component=COMPONENT, tokens={}
    )
    with pytest.raises(TokenSourceError, match=words) as caught:
        workspace.upload(settings=by_itself(workspace))
    assert caught.value.exit_code == 3
    assert "To resume run " in caught.value.text.en
    assert assert_complete(tcb.open_run(settings=by_itself(workspace)), 30) == {"pending": 30}
    assert workspace.sim.stats["link_calls"] == 0


def test_a_platform_that_is_away_while_tokens_are_fetched_leaves_every_row_pending(open_workspace):
    workspace = open_workspace(component=COMPONENT, tokens={})
    settings = replace(by_itself(workspace), api_base="http://127.0.0.1:9")
    pace = tcb.RunLimits(backoff=0.01, patience=0.3)
    with pytest.raises(
        OutageError, match=r"Nothing listens on http://127.0.0.1:9: start `tcb-ops simulate --port 9`"
    ):
        workspace.upload(settings=settings, limits=pace)
    assert tcb.open_run(settings=settings).outcomes == {Outcome.PENDING: 30}


# --- service --------------------------------------------------------------------------------------------------------------


TO_WXTEA = '[ "$1" = wxtea ] || exit 3; echo "{\\"access_token\\": \\"token-of-$1\\"}"'


@table(
    "answers, command, outcome, why",
    {
        "unknown to the server": ({TEA.appid: good(TEA.appid)}, (), "not_attempted", "(HTTP 404)"),
        "dead, and given again": (
            {TEA.appid: good(TEA.appid), BOOKS.appid: good("nobody")},
            (),
            "refused",
            "gave the same one again",
        ),
        "the program fails": ({}, ("sh", "-c", TO_WXTEA, "-", "{appid}"), "not_attempted", "exit code 3"),
    },
)
def test_a_merchant_without_a_good_token_is_that_merchants_trouble(
    open_workspace, assert_complete, answers, command, outcome, why
):
    workspace = open_workspace(many(TEA, BOOKS, rows=5))
    with token_server(answers) as (url, heads):
        source = {"source": "command", "command": command} if command else {"source": "service", "url": url}
        run = workspace.upload(settings=workspace.with_options(tokens=source))
    assert assert_complete(run, 10) == {"uploaded": 5, outcome: 5}
    (reason,) = run.results().query("tcb_appid == 'wxbooks'")["tcb_reason"].unique()
    assert why in reason
    assert len(heads) == len({**answers, BOOKS.appid: ""}) * (not command) + (outcome == "refused")
    assert any(b"x-tcb-refused: " in head.lower() for head in heads) == (outcome == "refused")


def test_a_dead_component_token_is_one_cause_in_words_about_it(open_workspace, assert_complete):
    workspace = open_workspace(
        many(TEA, OWN, SHARED, rows=2), merchants=[TEA, TEA_TEST, OWN, SHARED], component_appid=PLATFORM
    )
    with token_server({TEA.appid: good(TEA.appid), PLATFORM: good("nobody")}) as (url, _):
        tokens = {"source": "service", "url": url, "component_appid": PLATFORM}
        run = workspace.upload(settings=workspace.with_options(tokens=tokens))
    assert assert_complete(run, 6) == {"uploaded": 2, "refused": 4}
    (action,) = next_actions(by_code(run.overview().causes))
    assert (action.per, action.group.rows) == (Per.ONCE, 4)
    assert "component" in action.group.action.en


@pytest.mark.parametrize("status", ["401 No", "403 No"])
def test_a_token_server_that_does_not_let_us_in_stops_the_run(open_workspace, assert_complete, status):
    workspace = open_workspace()
    with token_server({TEA.appid: (status, b""), BOOKS.appid: (status, b"")}) as (url, _):
        settings = workspace.with_options(tokens={"source": "service", "url": url})
        with pytest.raises(TokenSourceError, match=r"tokens\.auth_env") as caught:
            workspace.upload(settings=settings)
        audit = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    assert audit.record.stopped is not None
    assert audit.record.stopped.en.endswith("tokens.auth_header."), "an audit leaves nothing pending"
    assert "tokens.auth_header. The run stops; unfinished rows stay pending." in caught.value.text.en
    _, upload = tcb.runs(settings=settings)
    assert assert_complete(upload, 30) == {"pending": 30}
    assert upload.record.stopped == caught.value.reason


@table(
    "source, words",
    {
        "a server hangs": (None, "did not respond"),
        "a server is broken": (("503 Busy", b""), "HTTP 503"),
        "a program is missing": (["./none"], "cannot be started"),
        "a program is not executable": (["/dev/null"], "cannot be started"),
        "a program is missing to the shell": (["sh", "-c", "exec ./none"], "exit code 127"),
        "a program is ended by a signal": (["sh", "-c", "kill -9 $$"], "signal 9"),
        "a program hangs": (["sh", "-c", "sleep 60"], "did not respond"),
    },
)
def test_a_token_source_that_serves_nobody_stops_the_run_after_patience(
    open_workspace, assert_complete, monkeypatch, source, words
):
    if words == "did not respond":
        monkeypatch.setattr(engine, "ASK_AT_LEAST", 0.3)
    workspace = open_workspace()
    with token_server({TEA.appid: source, BOOKS.appid: source}) as (url, _):
        program = {"source": "command", "command": source}
        tokens = program if isinstance(source, list) else {"source": "service", "url": url}
        settings = workspace.with_options(tokens=tokens)
        with pytest.raises(TokenSourceError, match=words) as caught:
            workspace.upload(settings=settings, limits=tcb.RunLimits(backoff=0.01, patience=0.3))
    assert caught.value.exit_code == 3
    assert assert_complete(tcb.open_run(settings=settings), 30) == {"pending": 30}
    assert workspace.sim.stats["link_calls"] == 0


# --- the platform's own environments --------------------------------------------------------------------------------------


def test_own_environments_go_by_the_component_token_beside_merchants_in_one_run(
    open_workspace, assert_complete
):
    workspace = open_workspace(
        many(TEA, OWN, SHARED, rows=5), merchants=[TEA, TEA_TEST, OWN, SHARED], component=COMPONENT, tokens={}
    )
    assert assert_complete(workspace.upload(settings=by_itself(workspace)), 15) == {"uploaded": 15}
    assert workspace.sim.stats["component_links"] == 10
    assert workspace.sim.stats["authorizer_token"] == 1, "the merchant's own account is apart"


@pytest.mark.parametrize("source", ["file", "command", "service"])
def test_the_component_token_comes_from_every_source(open_workspace, assert_complete, source):
    workspace = open_workspace(many(TEA, OWN, rows=3), merchants=[TEA, OWN], component_appid=PLATFORM)
    tokens: dict[str, Any] = {"source": source, "component_appid": PLATFORM}
    with token_server({TEA.appid: good(TEA.appid), PLATFORM: good(PLATFORM)}) as (url, _):
        tokens |= {
            "file": {"file": workspace.folder / "tokens.csv"},
            "command": {
                "command": ["sh", "-c", 'echo "{\\"access_token\\": \\"token-of-$1\\"}"', "-", "{appid}"]
            },
            "service": {"url": url},
        }[source]
        run = workspace.upload(settings=workspace.with_options(tokens=tokens))
    assert assert_complete(run, 6) == {"uploaded": 6}
    assert workspace.sim.stats["component_links"] == 3


def test_without_a_component_appid_own_environments_say_which_setting_is_missing(
    open_workspace, assert_complete
):
    workspace = open_workspace(many(TEA, OWN, rows=3), merchants=[TEA, OWN], component_appid=PLATFORM)
    run = workspace.upload()
    assert assert_complete(run, 6) == {"uploaded": 3, "not_attempted": 3}
    (reason,) = run.results().query("tcb_env == 'own-env-1'")["tcb_reason"].unique()
    assert "set tokens.component_appid" in reason


def test_one_link_of_an_own_environment(open_workspace):
    workspace = open_workspace(many(OWN, rows=1), merchants=[OWN], component_appid=PLATFORM)
    lines = f"appid,name,env,owner\n{OWN.appid},{OWN.name},{OWN.env},platform\n"
    (workspace.folder / "merchants.csv").write_text(lines, encoding="utf-8")
    tokens = {"file": workspace.folder / "tokens.csv"}
    with pytest.raises(tcb.TokenError, match=r"tokens\.component_appid"):
        tcb.upload_link(OWN.env, "a.png", settings=workspace.settings)
    settings = workspace.with_options(tokens=tokens | {"component_appid": PLATFORM})
    assert tcb.upload_link(OWN.env, "a.png", settings=settings).file_id.endswith("/a.png")


# --- what the platform and the store quote --------------------------------------------------------------------------------


def test_a_quoted_part_of_a_token_reaches_neither_ledger_nor_report(open_workspace, assert_complete):
    token = f"token-of-{TEA.appid}"
    part = token[:12]
    written = (
        part,
        part.upper(),
        "".join(f"%{ord(one):02X}" for one in part),
        b64encode(token.encode()).decode(),
    )
    faults = [
        Fault(env=TEA.env, path="banner/1.png", errcode=85088, errmsg="; ".join(written)),
        Fault(env=TEA.env, path="banner/2.png", errcode=85088, errmsg=f"rid: {part}"),
    ]
    workspace = open_workspace(many(TEA, rows=3), faults)
    run = workspace.upload()
    assert assert_complete(run, 3) == {"uploaded": 1, "refused": 2}
    assert run.results()["tcb_errmsg"].str.contains("•••").sum() == 2
    run.export(workspace.folder / "report")
    files = (*workspace.folder.glob("ledger.db*"), *(workspace.folder / "report").iterdir())
    places = [file for file in files if file.is_file()]
    assert {".db", ".csv", ".html", ".xlsx"} <= {place.suffix for place in places}
    for place in places:
        content = place.read_bytes()
        if place.suffix == ".xlsx":
            with ZipFile(place) as parts:
                content = b"".join(map(parts.read, parts.namelist()))
        assert [one for one in written if one.encode() in content] == [], place.name

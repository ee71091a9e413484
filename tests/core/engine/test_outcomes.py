"""How rows end, over real sockets: each way that the contract names, and what each costs in calls."""

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from socket import socket
from typing import Any

import pytest
from tables import table
from workspace import BOOKS, QUICK, TEA, TEA_TEST, Workspace, many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep, Reset
from tcb_ops.model import Merchant, Outcome, Reason, RowEnd, Secret
from tcb_ops.run import Run
from tcb_ops.wechat.tokens import Token

ONE = [(TEA.env, "banner/1.png")]
ONCE, TWICE, THRICE = ((1, 1),), ((1, 2),), ((1, 3),)
STORE = FaultStep.STORE
NARROW = RunLimits(concurrency=4, per_env=2, backoff=0.01, slow_wait=0.05, patience=10)


def links(workspace: Workspace, limits: RunLimits = QUICK, **options: Any) -> Run:
    out = workspace.folder / "links.csv"
    return tcb.links(workspace.read(), settings=workspace.settings, limits=limits, out=out, **options)


def ends(run: Run, env: str = "") -> list[RowEnd]:
    return [record.end for record in run.rows() if env in {"", record.row.env}]


def outcomes(run: Run, env: str) -> dict[str, int]:
    return dict(Counter(str(end.outcome) for end in ends(run, env)))


class Rotating:
    """A token source that has a new token after each refusal."""

    def __init__(self, workspace: Workspace) -> None:
        self._shop, self._value = workspace, f"token-of-{TEA.appid}"

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        if refused is not None:
            self._value = self._shop.sim.rotate(appid)
        return Token(tcb.Secret(self._value))

    async def aclose(self) -> None:
        """Nothing is held open."""


def test_objects_are_stored_with_their_type_and_results_say_which(open_workspace):
    workspace = open_workspace(
        [(TEA.env, "a.svg"), (TEA.env, "b.unknown"), (BOOKS.env, "c.WEBP"), (BOOKS.env, "d")]
    )
    lines = workspace.list.read_text(encoding="utf-8").splitlines()
    own = ["内容类型,cache_control", ",max-age=60", ",", ",no-store", "text/plain; charset=gb18030,"]
    text = "\n".join(f"{line},{more}" for line, more in zip(lines, own, strict=True))
    workspace.list.write_text(text, encoding="utf-8")
    run = workspace.upload()
    assert {
        path: (one.content_type, one.cache_control) for (_, path), one in workspace.sim.objects.items()
    } == {
        "a.svg": ("image/svg+xml", "max-age=60"),
        "b.unknown": ("application/octet-stream", ""),
        "c.WEBP": ("image/webp", "no-store"),
        "d": ("text/plain; charset=gb18030", ""),
    }
    results = run.results()
    types = [stored.content_type for stored in workspace.sim.objects.values()]
    assert sorted(results["tcb_content_type"]) == sorted(types)
    assert list(results["内容类型"]) == ["", "", "", "text/plain; charset=gb18030"]


@pytest.mark.parametrize("other", [BOOKS.env, "strange-0a1b2c"], ids=["another merchant's", "nobody's"])
def test_a_link_into_another_environment_is_refused_and_nothing_is_sent_to_it(
    open_workspace, assert_complete, other
):
    workspace = open_workspace(many(TEA, BOOKS, rows=2), [Fault(env=TEA.env, other_env=other)])
    run = workspace.upload()
    assert assert_complete(run, 4) == {"failed": 2, "uploaded": 2}
    refused = [end for end in ends(run) if end.outcome == "failed"]
    assert {end.reason for end in refused} == {Reason.BAD_LINK}
    assert all(
        end.detail and (str(end.detail.code), end.detail.params["env"]) == ("link_env", TEA.env)
        for end in refused
    )
    stored = [call for call in workspace.sim.calls if call.step is STORE]
    assert len(stored) == 2
    assert {call.env for call in stored} == {BOOKS.env}
    assert "strange" not in "".join(repr(end.detail) for end in refused)
    assert "q-sign" not in "".join(repr(end.detail) for end in refused)


def test_good_rows_are_linked_and_no_file_is_looked_at(open_workspace, assert_complete):
    workspace = open_workspace()
    for file in (workspace.folder / "files").iterdir():
        file.unlink()
    batch = tcb.read_paths(workspace.list, workspace.merchants)
    run = tcb.links(batch, settings=workspace.settings, out=workspace.folder / "links.csv")
    assert assert_complete(run, 30) == {"linked": 30}
    assert run.summary()["calls"] == {"link": 30, "upload": 0}


@table(
    "fault, outcome, reason, link_calls, store_calls",
    {
        "busy-twice": (Fault(errcode=-1, calls=TWICE), "uploaded", None, 3, 1),
        "busy-always": (Fault(errcode=-1), "refused", Reason.REFUSED, 4, 0),
        "fix-at-once": (Fault(errcode=40097), "refused", Reason.REFUSED, 1, 0),
        "unknown-code": (Fault(errcode=123456), "refused", Reason.REFUSED, 1, 0),
        "stop-of-one-row": (Fault(errcode=85088), "refused", Reason.REFUSED, 1, 0),
        "gateway-page": (Fault(status=502, calls=THRICE), "uploaded", None, 4, 1),
        "gateway-page-always": (Fault(status=502), "failed", Reason.NO_ANSWER, 4, 0),
        "wrong-address": (Fault(status=404), "failed", Reason.NO_ANSWER, 1, 0),
        "garbage": (Fault(body="garbage"), "failed", Reason.NO_ANSWER, 4, 0),
        "reset": (Fault(reset=Reset.BEFORE, calls=ONCE), "uploaded", None, 2, 1),
        "reset-within": (Fault(reset=Reset.MIDDLE), "failed", Reason.NO_ANSWER, 4, 0),
        "store-503": (Fault(step=STORE, status=503, calls=ONCE), "uploaded", None, 1, 2),
        "store-503-always": (Fault(step=STORE, status=503), "failed", Reason.STORE_REFUSED, 1, 4),
        "store-reset-always": (Fault(step=STORE, reset=Reset.BEFORE), "failed", Reason.NO_ANSWER, 1, 4),
        "stored-twice": (Fault(step=STORE, reset=Reset.MIDDLE, calls=ONCE), "uploaded", None, 1, 2),
        "cos-500": (Fault(step=STORE, code="InternalError", calls=TWICE), "uploaded", None, 1, 3),
        "cos-fix": (Fault(step=STORE, code="MalformedPOSTRequest"), "failed", Reason.STORE_REFUSED, 1, 1),
        "cos-once": (Fault(step=STORE, code="BadDigest"), "failed", Reason.STORE_REFUSED, 1, 2),
        "new-link": (Fault(step=STORE, code="ExpiredToken", calls=ONCE), "uploaded", None, 2, 2),
        "new-link-always": (Fault(step=STORE, code="ExpiredToken"), "failed", Reason.STORE_REFUSED, 4, 4),
        "new-link-once": (Fault(step=STORE, code="AccessDenied", calls=ONCE), "uploaded", None, 2, 2),
        "new-link-once-more": (Fault(step=STORE, code="AccessDenied"), "failed", Reason.STORE_REFUSED, 2, 2),
        "etag-once": (Fault(step=STORE, etag=Etag.WRONG, calls=ONCE), "uploaded", None, 1, 2),
        "etag-always": (Fault(step=STORE, etag=Etag.WRONG), "failed", Reason.ETAG_MISMATCH, 1, 4),
        "etag-is-no-md5": (Fault(step=STORE, etag=Etag.OPAQUE), "uploaded", Reason.UNVERIFIED, 1, 1),
        "no-etag": (Fault(step=STORE, etag=Etag.MISSING, calls=TWICE), "uploaded", None, 1, 3),
        "never-an-etag": (Fault(step=STORE, etag=Etag.MISSING), "failed", Reason.NO_CONFIRMATION, 1, 4),
        "redirect-once": (Fault(step=STORE, status=302, calls=ONCE), "uploaded", None, 1, 2),
        "redirect-always": (Fault(step=STORE, status=307), "failed", Reason.NO_CONFIRMATION, 1, 4),
        "link-run-out": (Fault(lifetime=0, calls=ONCE), "uploaded", None, 2, 2),
    },
)
def test_one_row_ends_so_after_so_many_calls(
    open_workspace, assert_complete, fault, outcome, reason, link_calls, store_calls
):
    workspace = open_workspace(ONE, [fault])
    run = workspace.upload()
    assert assert_complete(run, 1) == {outcome: 1}
    [end] = ends(run)
    assert end.reason is reason
    stats = workspace.sim.stats
    assert (stats["link_calls"], stats.get("store_calls", 0)) == (link_calls, store_calls)
    assert end.attempts == link_calls + store_calls
    assert run.summary()["calls"] == {"link": link_calls, "upload": store_calls}
    if fault.errcode and outcome == "refused":
        assert end.errcode == fault.errcode
        assert end.rid
        assert run.summary()["errcodes"][0]["errcode"] == fault.errcode


def test_etag_warn_takes_another_etag_as_unverified(open_workspace, assert_complete):
    workspace = open_workspace(ONE, [Fault(step=STORE, etag=Etag.WRONG)])
    run = workspace.upload(settings=workspace.with_options(etag="warn"))
    assert assert_complete(run, 1) == {"uploaded": 1}
    assert ends(run)[0].reason is Reason.UNVERIFIED
    assert workspace.sim.stats["store_calls"] == 1


def test_a_file_changed_after_the_plan_is_not_sent(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, rows=3))
    batch = workspace.read()
    (workspace.folder / "files" / "1.bin").write_text("other bytes, other size")
    (workspace.folder / "files" / "2.bin").unlink()
    run = tcb.upload(batch, settings=workspace.settings, limits=QUICK)
    assert assert_complete(run, 3) == {"uploaded": 1, "failed": 2}
    assert [end.reason for end in ends(run)] == [None, Reason.FILE_CHANGED, Reason.FILE_UNREADABLE]
    assert len(workspace.sim.objects) == 1


def test_a_run_of_invalid_rows_only_sends_nothing(open_workspace, assert_complete):
    workspace = open_workspace([(TEA.env, "/a.png"), ("no-such-env", "b.png")])
    run = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings)
    assert assert_complete(run, 2) == {"invalid": 2}
    assert run.record.finished_at is not None
    assert workspace.sim.stats.get("link_calls", 0) == 0


# --- breakers -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Workspace.upload, links])
def test_85088_stops_the_merchant_and_nobody_else(open_workspace, assert_complete, kind):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=200), [Fault(appid=TEA.appid, errcode=85088)])
    run = kind(workspace, limits=NARROW)
    counts = assert_complete(run, 600)
    good = "uploaded" if kind is Workspace.upload else "linked"
    assert counts[good] == 200 == outcomes(run, BOOKS.env)[good]
    assert workspace.sim.stats["link:85088"] == counts["refused"] <= 3 + NARROW.concurrency
    stopped = [end for end in ends(run) if end.outcome is Outcome.NOT_ATTEMPTED]
    assert len(stopped) == counts["not_attempted"] == 400 - counts["refused"]
    assert {(end.reason, end.errcode, end.attempts) for end in stopped} == {(Reason.BREAKER, 85088, 0)}
    errcodes = [(row["env"], row["errcode"], row["rows"]) for row in run.summary()["errcodes"]]
    assert errcodes == [(TEA.env, 85088, 200), (TEA_TEST.env, 85088, 200)]


@table(
    "fault, outcome",
    {
        "platform": (Fault(env=TEA.env, errcode=-601012), "refused"),
        "store": (Fault(env=TEA.env, step=STORE, code="NoSuchBucket"), "failed"),
        "new-link-in-vain": (Fault(env=TEA.env, step=STORE, code="AccessDenied"), "failed"),
        "etag": (Fault(env=TEA.env, step=STORE, etag=Etag.WRONG), "failed"),
    },
)
def test_an_environments_breaker_leaves_the_merchants_other_one_alone(
    open_workspace, assert_complete, fault, outcome
):
    workspace = open_workspace(many(TEA, TEA_TEST, rows=60), [fault])
    run = workspace.upload(limits=NARROW)
    assert_complete(run, 120)
    assert outcomes(run, TEA_TEST.env) == {"uploaded": 60}
    ill = outcomes(run, TEA.env)
    assert ill.keys() == {outcome, "not_attempted"}
    assert ill[outcome] <= 3 + NARROW.per_env
    codes = {
        (end.errcode, end.store_code) for end in ends(run, TEA.env) if end.outcome is Outcome.NOT_ATTEMPTED
    }
    expected = (fault.errcode, "") if fault.errcode else (None, fault.code or "ETagMismatch")
    assert codes <= {expected, (0, expected[1])}


def test_reasons_are_kept_as_codes_and_read_in_either_language(open_workspace):
    paths = {"a.png": TEA, "b.png": TEA, "c//d.png": TEA, "e.png": BOOKS}
    rows = [(merchant.env, path) for path, merchant in paths.items()] + [(BOOKS.env, "e.png")]
    faults = [Fault(path="a.png", status=404), Fault(path="b.png", step=STORE, code="InvalidArgument")]
    workspace = open_workspace(rows, faults, tokens={TEA.appid: f"token-of-{TEA.appid}"})
    run = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, limits=QUICK)
    found = [end.detail for end in ends(run)]
    codes = ["platform_status", "store_message", "path_slashes", "token_missing", "duplicate"]
    assert [str(detail.code) for detail in found] == codes
    with closing(sqlite3.connect(workspace.folder / "ledger.db")) as ledger:
        kept = [json.loads(value) for (value,) in ledger.execute("SELECT detail FROM rows ORDER BY line")]
    params = {"appid": BOOKS.appid, "file": str(workspace.folder / "tokens.csv")}
    assert kept[3] == {"code": "token_missing", "params": params}
    settings = workspace.with_options(lang="zh")
    reasons = list(tcb.open_run(run.id, settings=settings).results()["tcb_reason"])
    assert "路径里有连续的 //" in reasons[2]
    assert f"没有 {BOOKS.appid} 的令牌" in reasons[3]


# --- slowing down ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_45011_pauses_the_whole_merchant_and_nobody_else_and_counts_no_attempt(
    open_workspace, assert_complete
):
    slow = Fault(env=TEA.env, path="banner/0.png", calls=((1, 6),), errcode=45011)
    workspace = open_workspace(many(TEA, rows=1) + many(TEA_TEST, rows=60) + many(BOOKS, rows=20), [slow])
    run = workspace.upload(limits=RunLimits(per_env=1, backoff=0.01, slow_wait=0.2))
    assert assert_complete(run, 81) == {"uploaded": 81}
    calls = workspace.sim.calls
    told = [n for n, call in enumerate(calls) if (call.env, call.path) == (TEA.env, "banner/0.png")]
    last_told = told[5]
    last = {
        env: max(n for n, call in enumerate(calls) if call.env == env) for env in (TEA_TEST.env, BOOKS.env)
    }
    assert last[BOOKS.env] < last_told < last[TEA_TEST.env]


@pytest.mark.slow
@table(
    "fault",
    {
        "platform": Fault(env=TEA.env, path="banner/0.png", calls=((1, 6),), errcode=-501004),
        "store": Fault(env=TEA.env, path="banner/0.png", calls=((1, 6),), step=STORE, code="SlowDown"),
    },
)
def test_a_slow_environment_pauses_alone_and_counts_no_attempt(open_workspace, assert_complete, fault):
    workspace = open_workspace([*many(TEA, rows=20), *many(TEA_TEST, rows=5)], [fault])
    began = time.monotonic()
    run = workspace.upload(limits=RunLimits(per_env=1, backoff=0.01, slow_wait=0.1))
    assert assert_complete(run, 25) == {"uploaded": 25}
    assert time.monotonic() - began >= 6 * 0.1
    calls = workspace.sim.calls
    first_of_slow = min(
        n for n, call in enumerate(calls) if call.env == TEA.env and call.path == "banner/1.png"
    )
    assert all(n < first_of_slow for n, call in enumerate(calls) if call.env == TEA_TEST.env)


@pytest.mark.slow
def test_patience_with_a_slow_merchant_ends_its_rows(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=30), [Fault(appid=TEA.appid, errcode=45011)])
    run = workspace.upload(limits=RunLimits(slow_wait=0.05, patience=0.2))
    counts = assert_complete(run, 90)
    assert counts["uploaded"] == 30 == outcomes(run, BOOKS.env)["uploaded"]
    ill = [end for end in ends(run) if end.outcome is not Outcome.UPLOADED]
    assert {(end.outcome, end.reason, end.errcode) for end in ill} <= {
        (Outcome.REFUSED, Reason.REFUSED, 45011),
        (Outcome.NOT_ATTEMPTED, Reason.BREAKER, 45011),
    }


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_call_refreshes_its_token_once_and_a_second_refusal_is_the_rows_end(open_workspace):
    workspace = open_workspace([(TEA.env, "a.png")], [Fault(path="a.png", errcode=40001, calls=((1, 9),))])
    run = workspace.upload(tokens=Rotating(workspace))
    (end,) = ends(run)
    assert (end.outcome, end.reason, end.errcode) == (Outcome.REFUSED, Reason.REFUSED, 40001)
    assert (end.attempts, workspace.sim.stats["link_calls"]) == (2, 2)


def test_a_rotated_token_is_read_once_and_all_rows_are_good(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, BOOKS, rows=100))
    working = workspace.start_upload(tokens=None, progress=lambda _: rotate())
    rotated: list[str] = []

    def rotate() -> None:
        if not rotated:
            rotated.append(workspace.rotate(TEA.appid, {BOOKS.appid: f"token-of-{BOOKS.appid}"}))

    assert assert_complete(working.wait(), 200) == {"uploaded": 200}
    assert rotated
    assert 0 < workspace.sim.stats["link:40001"] <= QUICK.per_env


def test_rows_about_to_begin_while_the_token_is_refused_do_not_trip(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, rows=300), [Fault(path="*[02468].png", errcode=40001, calls=ONCE)])
    run = links(workspace, RunLimits(per_env=64), tokens=Rotating(workspace))
    assert assert_complete(run, 300).keys() <= {"linked", "refused"}


def test_a_dead_token_ends_each_row_after_one_call(open_workspace, assert_complete):
    stale = {TEA.appid: "stale", BOOKS.appid: f"token-of-{BOOKS.appid}"}
    workspace = open_workspace(many(TEA, BOOKS, rows=30), tokens=stale)
    run = workspace.upload()
    assert assert_complete(run, 60) == {"uploaded": 30, "refused": 30}
    dead = ends(run, TEA.env)
    assert {(end.outcome, end.reason, end.errcode, end.attempts) for end in dead} == {
        (Outcome.REFUSED, Reason.DEAD_TOKEN, 40001, 1)
    }
    assert workspace.sim.stats["link:40001"] == 30


def test_a_source_that_has_no_other_token_is_asked_about_it_once(open_workspace):
    workspace = open_workspace(many(TEA, rows=30))
    asked: list[Secret | None] = []

    class Stale:
        """A source with one token, which the platform does not know."""

        async def token(self, _appid: str, refused: Secret | None = None) -> Token:
            asked.append(refused)
            return Token(tcb.Secret("stale"))

        async def aclose(self) -> None:
            """Nothing is held open."""

    assert workspace.upload(limits=RunLimits(per_env=2), tokens=Stale()).counts == {"refused": 30}
    assert asked == [None, tcb.Secret("stale")]


def test_a_merchant_without_a_token_is_not_attempted_and_the_others_go_on(open_workspace, assert_complete):
    workspace = open_workspace(tokens={BOOKS.appid: f"token-of-{BOOKS.appid}"})
    run = workspace.upload()
    assert assert_complete(run, 30) == {"uploaded": 10, "not_attempted": 20}
    assert {end.reason for end in ends(run, TEA.env)} == {Reason.NO_TOKEN}
    assert TEA.appid in str(ends(run, TEA.env)[0].detail)
    assert workspace.sim.stats["link_calls"] == 10


def test_a_merchant_that_left_is_not_attempted(open_workspace, assert_complete):
    gone = Merchant("wxgone", "拾光咖啡", "gone-1a2b", left=True)
    workspace = open_workspace(merchants=(TEA, gone))
    run = workspace.upload()
    assert assert_complete(run, 20) == {"uploaded": 10, "not_attempted": 10}
    assert {end.reason for end in ends(run, gone.env)} == {Reason.MERCHANT_LEFT}
    assert workspace.sim.stats["link_calls"] == 10


# --- links ----------------------------------------------------------------------------------------------------------


def test_a_link_that_ran_out_while_its_row_waited_is_asked_for_again(open_workspace, assert_complete):
    workspace = open_workspace(ONE, [Fault(step=STORE, code="SlowDown", calls=ONCE)], link_lifetime=1)
    assert assert_complete(workspace.upload(limits=RunLimits(slow_wait=0.05)), 1) == {"uploaded": 1}
    assert (workspace.sim.stats["link_calls"], workspace.sim.stats["store_calls"]) == (2, 2)


def test_objects_stand_under_exactly_the_paths_of_the_list(open_workspace, assert_complete):
    paths = ["目录/海报 1.png", "a b/c+d.png", "100%/半价.png", "%41.png", "a&b=c;d,e.png"]
    paths += ["it's (1) [2].png", "q?x#y.png"]
    workspace = open_workspace([(TEA.env, path) for path in paths])
    assert assert_complete(workspace.upload(), len(paths)) == {"uploaded": len(paths)}
    assert {key for _, key in workspace.sim.objects} == set(paths)
    assert workspace.sim.stats.get("escaped_bodies", 0) == 0


def test_a_store_that_is_away_while_the_platform_answers_fails_its_rows(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, rows=5))
    with socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening: refused
        workspace.sim._platform.base = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        run = workspace.upload()
    assert assert_complete(run, 5) == {"failed": 5}
    assert {end.reason for end in ends(run)} == {Reason.NO_ANSWER}
    assert 5 <= workspace.sim.stats["link_calls"] <= 4 * 5

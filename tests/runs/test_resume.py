"""Runs that end early, by whatever means, and go on: nothing lost, nothing done twice that the ledger calls done."""

from __future__ import annotations

import asyncio
import csv
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST, OpenShop, Shop, Until, Whole, many

import tcb_ops as tcb
from tcb_ops.errors import InterruptedRunError, OutageError, PlatformStopError
from tcb_ops.model import Merchant, Outcome
from tcb_ops.runs.limits import RunLimits
from tcb_ops.simulator import Fault, Faults, FaultStep, Simulator, expected_outcomes

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.run import Run
    from tcb_ops.runs.progress import Progress

FEW = RunLimits(concurrency=8, per_env=4, backoff=0.01, slow_wait=0.05, patience=0.3)
HELD = [Fault(delay=0.01)]
"""Calls that take long enough for a test to act in mid-run."""

START = """
import sys
import tcb_ops as tcb
kind, folder, base, concurrency = sys.argv[1:]
settings = tcb.load_settings(options={
    "api_base": base, "ledger": folder + "/ledger.db", "lang": "en",
    "tokens": {"source": "file", "file": folder + "/tokens.csv"},
})
merchants = tcb.read_merchants(folder + "/merchants.csv")
batch = tcb.read_paths(folder + "/list.csv", merchants, folder + "/files")
options = {"settings": settings, "limits": tcb.RunLimits(concurrency=int(concurrency), per_env=4)}
if kind == "links":
    tcb.links(batch, out=folder + "/links.csv", **options)
else:
    tcb.upload(batch, **options)
"""


def start(shop: Shop, kind: str, limits: RunLimits = FEW, **options: Any) -> tcb.RunHandle:
    options |= {"settings": shop.settings, "limits": limits}
    if kind == "links":
        return tcb.start_links(shop.read(), out=shop.folder / "links.csv", **options)
    return tcb.start_upload(shop.read(), **options)


def latest(shop: Shop) -> Run:
    return tcb.open_run(settings=shop.settings)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def assert_all_done(shop: Shop, run: Run, kind: str, whole: Whole, rows: int) -> None:
    """Every row once in the ledger, links.csv whole and in order, every object in the store."""
    assert whole(run, rows) == {"linked" if kind == "links" else "uploaded": rows}
    assert run.record.finished_at is not None
    listed = read_csv(shop.list)
    if kind == "links":
        written = read_csv(shop.folder / "links.csv")
        assert [(row["env"], row["path"]) for row in written] == [(row["env"], row["path"]) for row in listed]
        assert all(row["errcode"] == "0" and row["authorization"] for row in written)
        assert not (shop.folder / "links.csv.part").exists()
    else:
        keys = Counter((bucket.split("-", 1)[1].rsplit("-", 1)[0], key) for bucket, key in shop.sim.objects)
        assert keys == Counter((row["env"], row["path"]) for row in listed)


# --- told to end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_cancelled_run_leaves_its_rows_pending_and_goes_on(
    open_shop: OpenShop, whole: Whole, until: Until, kind: str
) -> None:
    shop = open_shop(many(TEA, TEA_TEST, BOOKS, rows=50), HELD)
    working = start(shop, kind)
    until(lambda: shop.sim.stats.get("link_calls", 0) >= 30)
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError) as caught:
        working.wait()
    assert caught.value.exit_code == 130
    assert working.id in str(caught.value)
    counts = whole(latest(shop), 150)
    assert 0 < counts["pending"] < 150
    assert latest(shop).summary()["counts"]["pending"] == counts["pending"]
    going = start(shop, kind)
    assert (going.resumed, going.id) == (True, working.id)
    assert_all_done(shop, going.wait(), kind, whole, 150)
    again = shop.sim.stats["stored"] if kind == "upload" else shop.sim.stats["link_calls"]
    assert again <= 150 + 2 * FEW.concurrency


def test_a_run_cancelled_before_its_first_call_goes_on(open_shop: OpenShop, whole: Whole) -> None:
    shop = open_shop(many(TEA, rows=20), HELD)
    working = start(shop, "upload")
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        working.wait()
    assert_all_done(shop, start(shop, "upload").wait(), "upload", whole, 20)


@pytest.mark.kill
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_killed_run_goes_on_and_does_every_row_once(
    open_shop: OpenShop, whole: Whole, until: Until, kind: str
) -> None:
    shop = open_shop(many(TEA, TEA_TEST, BOOKS, rows=100), HELD)
    argv = [sys.executable, "-c", START, kind, str(shop.folder), shop.sim.base, str(FEW.concurrency)]
    counter = "link:0" if kind == "links" else "stored"
    with subprocess.Popen(argv) as process:
        until(lambda: shop.sim.stats.get(counter, 0) >= 100)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = latest(shop)
    done = 300 - whole(before, 300)["pending"]
    assert 0 < done < 300
    going = start(shop, kind)
    assert (going.resumed, going.id) == (True, before.id)
    assert_all_done(shop, going.wait(), kind, whole, 300)
    assert shop.sim.stats[counter] <= 300 + 2 * FEW.concurrency


@pytest.mark.kill
def test_ctrl_c_in_a_process_ends_the_run_tidily(open_shop: OpenShop, until: Until) -> None:
    shop = open_shop(many(TEA, rows=200), HELD)
    argv = [sys.executable, "-c", START, "upload", str(shop.folder), shop.sim.base, "4"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: shop.sim.stats.get("stored", 0) >= 20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert "InterruptedRunError" in said
    counts = latest(shop).counts
    assert counts["uploaded"] + counts["pending"] == 200
    assert counts["uploaded"] == shop.sim.stats["stored"], "calls in flight had a moment to end"


def test_a_finished_run_is_never_gone_on_with(open_shop: OpenShop) -> None:
    shop = open_shop(many(TEA, rows=2))
    first, second = start(shop, "upload"), None
    first.wait()
    second = start(shop, "upload")
    second.wait()
    assert (second.resumed, second.id == first.id) == (False, False)


# --- stopped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_61004_stops_the_run_with_its_rows_pending_and_mended_it_goes_on(
    open_shop: OpenShop, whole: Whole, kind: str
) -> None:
    errmsg = "access clientip is not registered requestIP: 203.0.113.9"
    shop = open_shop(
        many(TEA, BOOKS, rows=50),
        [Fault(appid=TEA.appid, path="banner/20.png", errcode=61004, errmsg=errmsg, calls=((1, 1),))],
    )
    with pytest.raises(PlatformStopError, match=r"203\.0\.113\.9") as caught:
        start(shop, kind).wait()
    assert caught.value.exit_code == 3
    run = latest(shop)
    assert run.record.stopped is not None
    assert f"errcode 61004（{errmsg}）" in run.record.stopped.zh
    assert run.record.finished_at is None
    counts = whole(run, 100)
    assert counts.keys() == {"pending", "linked" if kind == "links" else "uploaded"}
    assert_all_done(shop, start(shop, kind).wait(), kind, whole, 100)
    assert latest(shop).record.stopped is None


def test_a_target_that_is_away_stops_the_run_and_no_attempt_is_counted(
    open_shop: OpenShop, whole: Whole
) -> None:
    shop = open_shop(many(TEA, BOOKS, rows=10))
    port = shop.sim.port
    shop.sim.__exit__(None, None, None)
    notes: list[Progress] = []
    with pytest.raises(OutageError) as caught:
        start(shop, "upload", progress=notes.append).wait()
    assert caught.value.exit_code == 3
    assert whole(latest(shop), 20) == {"pending": 20}
    assert {record.end.attempts for record in latest(shop).rows()} == {0}
    tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in shop.merchants}
    with Simulator(list(shop.merchants), tokens, port=port) as sim:
        run = start(shop, "upload").wait()
        assert whole(run, 20) == {"uploaded": 20}
        assert sim.stats["link_calls"] == 20
    assert {record.end.attempts for record in run.rows()} == {2}


def test_a_target_that_comes_back_in_time_is_found_again(
    open_shop: OpenShop, whole: Whole, until: Until
) -> None:
    shop = open_shop(many(TEA, BOOKS, rows=100), HELD)
    looks: list[Progress] = []
    pace = RunLimits(concurrency=8, backoff=0.02, patience=30)
    working = start(shop, "upload", pace, progress=looks.append)
    until(lambda: shop.sim.stats.get("stored", 0) >= 40)
    shop.sim.__exit__(None, None, None)
    until(lambda: any(look.note and "cannot be reached" in look.note.en for look in looks))
    shop.sim.__enter__()
    assert whole(working.wait(), 200) == {"uploaded": 200}
    assert looks[-1].note is None


def test_links_that_ran_out_before_going_on_are_asked_for_again(
    open_shop: OpenShop, whole: Whole, until: Until
) -> None:
    shop = open_shop(many(TEA, rows=60), [Fault(lifetime=0, path="banner/?.png", calls=((1, 1),)), *HELD])
    working = start(shop, "links")
    until(lambda: shop.sim.stats.get("link:0", 0) >= 30)
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        working.wait()
    going = start(shop, "links")
    run = going.wait()
    assert_all_done(shop, run, "links", whole, 60)
    assert going.links_run_out == 0
    assert shop.sim.stats["link:0"] >= 70


def test_a_lost_part_file_costs_its_links_and_nothing_else(
    open_shop: OpenShop, whole: Whole, until: Until
) -> None:
    shop = open_shop(many(TEA, rows=60), HELD)
    working = start(shop, "links")
    until(lambda: shop.sim.stats.get("link:0", 0) >= 30)
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        working.wait()
    (shop.folder / "links.csv.part").unlink()
    assert_all_done(shop, start(shop, "links").wait(), "links", whole, 60)


# --- from wherever it is called ---------------------------------------------------------------------------------------


def test_calls_block_inside_a_running_event_loop(open_shop: OpenShop, whole: Whole) -> None:
    shop = open_shop()

    async def notebook() -> Run:
        return start(shop, "links", QUICK).wait()

    assert whole(asyncio.run(notebook()), 30) == {"linked": 30}


def test_watching_ends_with_the_run_and_its_counts_only_grow(open_shop: OpenShop) -> None:
    shop = open_shop(many(TEA, TEA_TEST, BOOKS, rows=60), HELD)
    working = start(shop, "upload")
    looks = list(working.watch())
    run = working.wait()
    done = [look.done for look in looks]
    assert done == sorted(done)
    assert done[-1] == 180 == looks[-1].total
    assert dict(looks[-1].counts) == {Outcome.UPLOADED: 180}
    assert {look.run for look in looks} == {run.id}
    assert list(working.watch()) in ([], looks[-1:])


def test_what_was_committed_shortly_after_a_report_is_reported_though_nothing_follows(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcb_ops.runs.engine.SHOW_EVERY", 0.5)
    shop = open_shop(many(TEA, BOOKS, rows=20), [Fault(env=BOOKS.env, path="banner/1.png", delay=60)])
    working = start(shop, "links")
    for look in working.watch():
        if look.done >= 39:  # the other row takes a minute
            break
    assert look.done == 39
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        working.wait()


def test_what_is_shown_is_already_in_the_ledger(open_shop: OpenShop) -> None:
    shop = open_shop(many(TEA, TEA_TEST, BOOKS, rows=60), HELD)
    compared: list[tuple[int, int]] = []

    def show(look: Progress) -> None:
        compared.append((look.done, latest(shop).counts.get("uploaded", 0)))

    start(shop, "upload", progress=show).wait()
    assert compared
    assert all(shown <= kept for shown, kept in compared)


def test_nothing_secret_is_kept_but_in_links_csv(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    shop = open_shop(
        many(TEA, BOOKS, rows=20),
        [Fault(path="banner/3.png", errcode=40001), Fault(path="banner/5.png", errcode=-1)],
    )
    for kind in ("upload", "links"):
        start(shop, kind, QUICK).wait()
    links = read_csv(shop.folder / "links.csv")
    secrets = {
        value for row in links for name in ("token", "authorization", "cos_file_id") if (value := row[name])
    }
    secrets |= {f"token-of-{TEA.appid}", f"token-of-{BOOKS.appid}", "q-signature=", "access_token="}
    assert len(secrets) > 40
    kept = b"".join(file.read_bytes() for file in shop.folder.glob("ledger.db*") if file.is_file())
    said = caplog.text + "".join(repr(record) for record in latest(shop).rows())
    assert b"banner/3.png" in kept
    assert [secret for secret in secrets if secret.encode() in kept or secret in said] == []


def test_a_run_stops_when_its_links_file_cannot_be_written(
    open_shop: OpenShop, whole: Whole, tmp_path: Path
) -> None:
    shop = open_shop(many(TEA, rows=30), HELD)
    working = start(shop, "links")
    (tmp_path / "links.csv").mkdir()  # the finished file cannot be put in place
    with pytest.raises(tcb.StoppedError, match=r"links\.csv"):
        working.wait()
    assert latest(shop).record.finished_at is None
    (tmp_path / "links.csv").rmdir()
    assert_all_done(shop, start(shop, "links").wait(), "links", whole, 30)
    assert shop.sim.stats["link:0"] == 30


def test_faults_of_a_plan_end_as_the_plan_implies(open_shop: OpenShop, whole: Whole) -> None:
    plan = [
        Fault(env=TEA.env, path="banner/1.png", errcode=40097),
        Fault(env=TEA.env, path="banner/2.png", errcode=-1, calls=((1, 3),)),
        Fault(env=BOOKS.env, errcode=85088),
    ]
    shop = open_shop(faults=plan)
    run = start(shop, "upload", QUICK).wait()
    whole(run, 30)
    for record in run.rows():
        row = record.row
        siblings = [m.env for m in shop.merchants if m.appid == row.appid and m.env != row.env]
        implied = expected_outcomes(
            Faults(tuple(plan)),
            row.env,
            row.appid,
            row.path,
            kind=tcb.Kind.UPLOAD,
            attempts=4,
            siblings=siblings,
        )
        assert record.end.outcome in implied, row


def test_the_part_file_of_an_abandoned_run_is_refused_and_given_up_with_new_run(
    open_shop: OpenShop, whole: Whole
):
    shop = open_shop()
    part, out = shop.folder / "links.csv.part", shop.folder / "links.csv"
    part.write_text("# 20260101-000000-beef\n", encoding="utf-8")
    with pytest.raises(tcb.UsageError, match="discard it with --new-run"):
        tcb.links(shop.read(), out=out, settings=shop.settings, limits=QUICK)
    assert tcb.all_runs(settings=shop.settings) == []  # refused, so never begun
    run = tcb.links(shop.read(), out=out, settings=shop.settings, limits=QUICK, new_run=True)
    assert whole(run, 30) == {"linked": 30}
    part.write_text(f"# {run.id}\n", encoding="utf-8")  # what a kill right after the end leaves
    tcb.links(shop.read(), out=out, settings=shop.settings, limits=QUICK)
    assert not part.exists()


def test_a_part_file_that_is_none_is_never_overwritten(open_shop: OpenShop):
    shop = open_shop()
    part = shop.folder / "links.csv.part"
    part.write_text("an operator's own notes\n", encoding="utf-8")
    with pytest.raises(tcb.UsageError):
        tcb.links(shop.read(), out=shop.folder / "links.csv", settings=shop.settings, new_run=True)
    assert part.read_text(encoding="utf-8") == "an operator's own notes\n"


@pytest.mark.parametrize(
    "name", ["list.csv", "tokens.csv", "merchants.csv", "ledger.db", "files", "nowhere/links.csv"]
)
def test_links_are_written_over_nothing_but_an_earlier_links_file(open_shop: OpenShop, name):
    shop = open_shop()
    tcb.all_runs(settings=shop.settings)  # so that there is a ledger
    before = {file: file.read_bytes() for file in shop.folder.glob("*.csv")}
    with pytest.raises(tcb.UsageError, match="--out"):
        tcb.links(shop.read(), out=shop.folder / name, settings=shop.settings)
    assert {file: file.read_bytes() for file in before} == before
    assert tcb.all_runs(settings=shop.settings) == []
    assert not shop.sim.calls


def test_a_ledger_that_is_taken_away_in_mid_run_stops_it(open_shop: OpenShop, until: Until):
    shop = open_shop(many(TEA, rows=40), HELD)
    working = start(shop, "upload")
    until(lambda: shop.sim.stats["stored"] > 2)
    (shop.folder / "ledger.db").rename(shop.folder / "elsewhere.db")
    with pytest.raises(tcb.StoppedError, match="removed or replaced"):
        working.wait()


def test_a_run_that_lacks_but_its_report_is_not_sent_again(open_shop: OpenShop, whole: Whole, tmp_path: Path):
    shop = open_shop()
    first = tcb.start_upload(
        shop.read(), settings=shop.settings, limits=QUICK, report=tmp_path / "report"
    ).wait()
    sent = len(shop.sim.calls)
    again = tcb.start_upload(shop.read(), settings=shop.settings, limits=QUICK, report=tmp_path / "report")
    assert (again.id, again.resumed, list(again.watch())) == (first.id, True, [])
    again.wait().export(tmp_path / "report")
    assert len(shop.sim.calls) == sent
    again = tcb.start_upload(
        shop.read(), settings=shop.settings, limits=QUICK, report=tmp_path / "report"
    ).wait()
    assert again.id != first.id
    assert whole(again, 30) == {"uploaded": 30}


TWO_AT_ONCE = """
import sys, tcb_ops as tcb
folder, base = sys.argv[1:]
settings = tcb.load_settings(options={"api_base": base, "ledger": folder + "/ledger.db", "lang": "en",
    "tokens": {"source": "file", "file": folder + "/tokens.csv"}})
batch = tcb.read_paths(folder + "/list.csv", tcb.read_merchants(folder + "/merchants.csv"), folder + "/files")
print("ready", flush=True)
sys.stdin.readline()
try:
    tcb.upload(batch, settings=settings)
except tcb.UsageError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.slow
def test_of_two_commands_on_one_list_at_once_one_works_and_one_is_told(open_shop: OpenShop, tmp_path: Path):
    shop = open_shop(many(TEA, rows=40), [Fault(delay=0.05)])
    argv = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path), shop.sim.base]
    both = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert any("is being worked on by" in text for text in said)
    assert shop.sim.stats["stored"] == 40


def test_a_stopped_appid_is_not_asked_again_after_a_resume_though_its_turn_had_not_come(
    open_shop: OpenShop, whole: Whole, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcb_ops.runs.scheduler.COMING", 4)
    stopped = [Merchant("wxbad", "停用", f"bad-{n}-1a2b3c") for n in range(30)]
    others = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(30)]
    refusing = Fault(appid="wxbad", step=FaultStep.LINK, errcode=61003)
    shop = open_shop(
        many(*stopped[:3], *others, *stopped[3:], rows=1),
        [refusing, Fault(env="env-*", delay=30)],
        merchants=[*stopped, *others],
    )
    limits = RunLimits(concurrency=1, backoff=0.01)
    handle = tcb.start_upload(shop.read(), settings=shop.settings, limits=limits)
    until(lambda: handle.so_far().counts.get("not_attempted") == 27)
    handle.cancel()
    with pytest.raises(InterruptedRunError):
        handle.wait()
    shop.sim.play([refusing])
    run = tcb.upload(shop.read(), settings=shop.settings, limits=limits)
    assert run.id == handle.id
    assert whole(run, 60) == {"uploaded": 30, "refused": 3, "not_attempted": 27}

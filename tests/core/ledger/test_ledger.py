"""What the ledger keeps, whatever happens to the process, the disk or the file."""

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import ledgers
import pytest
from ledgers import PLACES, TARGET, a_row, new_run, planned
from tables import table

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.list_kinds import LINKS, UPLOAD
from tcb_ops.engine.stop_errors import interrupted, refused_platform, stop_reason, stop_text, stopped
from tcb_ops.errors import (
    LedgerDamagedError,
    LedgerError,
    OutageError,
    RunNotFoundError,
    StoppedError,
    TokenSourceError,
    UsageError,
)
from tcb_ops.i18n import Bilingual
from tcb_ops.ledger.connection import of_another_user
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import Closing, NewRun, RunRecord, Usage
from tcb_ops.model import Outcome, Reason, RowEnd

OUTAGE_ERROR = stopped(
    OutageError, DetailCode.OUTAGE, seconds=300.0, last=detail(DetailCode.NO_CONNECTION, host="127.0.0.1:1")
)
OUTAGE = stop_reason(OUTAGE_ERROR)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_merchants_rows_are_found_without_reading_those_of_the_others(ledger):
    places = [
        replace(PLACES[0], number=n, env=f"env-{n}", appid=f"wx{n}", merchant=f"m{n}") for n in range(200)
    ]
    run = ledger.plan(new_run(), (a_row(n + 2, places[n % 200]) for n in range(20_000)), places)

    def cpu(**filters: Any) -> float:
        taken = []
        for _ in range(3):
            began = time.process_time()
            list(ledger.rows(run, **filters))
            taken.append(time.process_time() - began)
        return min(taken)

    assert cpu(merchant="m7") < cpu() / 25
    ledger.finish(run, 1.0)
    run = ledger.run(run.id)
    assert cpu(merchant="m7") < cpu() / 25


def test_a_planned_run_comes_back_as_it_was_given(ledger):
    invalid = a_row(4, invalid=Bilingual("starts with /", "以 / 开头"))
    row = a_row(2, size=5, mtime_ns=1_700_000_000_123_456_789, content_type="image/webp")
    run = ledger.plan(new_run(), [row, a_row(3, PLACES[1]), invalid], PLACES)
    for name in NewRun.__dataclass_fields__:
        assert getattr(run, name) == getattr(new_run(), name), name
    assert (run.rows, run.finished_at, run.stopped, run.link_calls) == (3, None, None, 0)
    first, _, last = ledger.rows(run)
    assert first.row == row
    assert first.end == RowEnd(2, Outcome.PENDING)
    why = as_detail(Bilingual("starts with /", "以 / 开头"))
    assert last.end == RowEnd(4, Outcome.INVALID, Reason.INVALID, why)
    assert ledger.counts(run) == {Outcome.PENDING: 2, Outcome.INVALID: 1}


def test_the_view_has_the_lists_own_columns_and_the_first_of_two_with_one_name(ledger):
    ledger.plan(new_run(headers=("sku", "", "备注", "", "sku")), [a_row(2)], PLACES)
    [columns] = ledger.fetch("SELECT list_columns ->> 'sku', list_columns ->> '备注' FROM v_rows", ())
    assert tuple(columns) == a_row(2).cells[::2]


def test_a_rows_end_comes_back_as_it_was_recorded_and_meters_add_up(ledger):
    run = planned(ledger)
    both = detail(DetailCode.BOTH, first=detail(DetailCode.LINK_TOO_LONG), second="细节")
    refused = (Outcome.REFUSED, Reason.REFUSED, both, 85088, "no qbase", "rid-1")
    end = RowEnd(2, *refused, 200, "", 3, 7, "m", "f", 1.5, 2.5)
    ledger.record(run, [end], Usage(1.5, 3, 1))
    ledger.record(run, [], Usage(0.5, 1, 1))
    [record] = ledger.rows(run, line=2)
    assert record.end == end
    after = ledger.run(run.id)
    assert (after.seconds, after.link_calls, after.upload_calls) == (2.0, 4, 2)


def test_counts_tallies_places_and_pending_agree(ledger):
    run = planned(ledger)
    ends = [
        RowEnd(2, Outcome.UPLOADED, errcode=0),
        RowEnd(3, Outcome.REFUSED, Reason.REFUSED, errcode=85088),
        RowEnd(5, Outcome.REFUSED, Reason.REFUSED, errcode=85088),
        RowEnd(4, Outcome.FAILED, Reason.STORE_REFUSED, store_code="NoSuchBucket"),
    ]
    ledger.record(run, ends, Usage())
    counts = ledger.counts(run)
    assert counts == {Outcome.UPLOADED: 1, Outcome.REFUSED: 2, Outcome.FAILED: 1, Outcome.PENDING: 6}
    tallies = ledger.tallies(run)
    assert sum(tally.rows for tally in tallies) == run.rows == 10
    refused = next(tally for tally in tallies if tally.outcome is Outcome.REFUSED)
    where = (refused.appid, refused.merchant, refused.env)
    assert (*where, refused.errcode, refused.rows) == ("wxbooks", "城南书店", "books", 85088, 2)
    tea, books = ledger.environments(run)
    assert (tea.rows, tea.pending, books.rows, books.pending, books.left) == (5, 3, 5, 3, True)
    found = ledger.pending(run, [(tea, 0), (books, 3), (tea, 8)], 2)
    assert [[row.line for row in rows] for rows in found] == [[6, 8], [7, 9], [10]]


def test_rows_are_found_by_line_merchant_path_and_outcome(ledger):
    run = planned(ledger)
    ledger.record(run, [RowEnd(3, Outcome.FAILED)], Usage())

    def lines(**wanted: Any) -> list[int]:
        return [record.row.line for record in ledger.rows(run, **wanted)]

    assert lines() == list(range(2, 12))
    assert lines(line=7) == [7]
    assert lines(merchant="城南书店") == lines(merchant="wxbooks") == [3, 5, 7, 9, 11]
    assert lines(path="1") == [10, 11]
    assert lines(path="%") == []
    assert lines(outcomes=frozenset({Outcome.FAILED})) == [3]


def test_a_closed_place_ends_its_pending_rows_but_those_in_flight(ledger):
    run = planned(ledger)
    ledger.record(run, [RowEnd(2, Outcome.UPLOADED)], Usage())
    stopped = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)
    closed = ledger.close_environments(run, [Closing(PLACES[0], stopped, (4,))])
    assert closed == {Outcome.NOT_ATTEMPTED: 3}
    outcomes = {record.row.line: record.end.outcome for record in ledger.rows(run, merchant="wxtea")}
    ended = dict.fromkeys((6, 8, 10), Outcome.NOT_ATTEMPTED)
    assert outcomes == {2: Outcome.UPLOADED, 4: Outcome.PENDING} | ended
    [record] = ledger.rows(run, line=6)
    assert (record.end.line, record.end.errcode, record.end.reason) == (6, 85088, Reason.BREAKER)
    assert ledger.counts(run)[Outcome.PENDING] == 6


def test_a_reopened_row_is_as_if_never_done(ledger):
    run = planned(ledger)
    ledger.record(run, [RowEnd(2, Outcome.LINKED, errcode=0, attempts=1, file_id="f", ended_at=1.0)], Usage())
    ledger.reopen(run, iter([2]))
    [record] = ledger.rows(run, line=2)
    assert record.end == RowEnd(2, Outcome.PENDING)


def test_a_row_that_has_ended_is_never_ended_again(ledger):
    run = planned(ledger)
    ledger.record(run, [RowEnd(2, Outcome.UPLOADED, md5="first")], Usage())
    with pytest.raises(LedgerError, match=rf"1 row of run {run.id} was no longer pending") as caught:
        ledger.record(
            run, [RowEnd(2, Outcome.FAILED, md5="second"), RowEnd(3, Outcome.UPLOADED)], Usage(1.0, 2, 2)
        )
    assert "1 行" in caught.value.text.zh
    outcomes = {record.row.line: (record.end.outcome, record.end.md5) for record in ledger.rows(run)}
    assert (outcomes[2], outcomes[3]) == ((Outcome.UPLOADED, "first"), (Outcome.UPLOADED, ""))
    assert ledger.run(run.id).upload_calls == 2, "what was done is kept"
    assert ledger.counts(run) == {Outcome.UPLOADED: 2, Outcome.PENDING: 8}


def test_a_run_that_has_finished_is_not_called_stopped(ledger):
    run = planned(ledger)
    ledger.finish(run, 5.0)
    ledger.stop(run, OUTAGE)
    assert ledger.run(run.id).stopped is None


# --- what a session may have sent without recording it ------------------------------------------------------------------

PLACE = (PLACES[0].env, "4.png")


def known(ledger: Ledger) -> Any:
    return ledger.files(TARGET, [PLACE])[PLACE]


def planned_then_overwritten(ledger: Ledger) -> RunRecord:
    """A run that is at work, and a later one that has stored a file at one of its paths."""
    run = planned(ledger)
    ledger.record(run, [RowEnd(2, Outcome.UPLOADED, md5="m", ended_at=1.0)], Usage())
    later = planned(ledger, run_id="20260101-090000-0002")
    ledger.record(later, [RowEnd(4, Outcome.UPLOADED, md5="later", ended_at=2.0)], Usage())
    assert (known(ledger).md5, known(ledger).is_known) == ("later", True)
    return run


def test_a_run_that_is_resumed_may_change_what_a_later_one_has_stored(ledger):
    run = planned_then_overwritten(ledger)
    ledger.stop(run, OUTAGE)
    assert known(ledger).pending == (), "it had ended before"
    ledger.resume(run, 3.0)
    assert (known(ledger).pending, known(ledger).is_known) == ((run.id,), False)


def test_a_run_that_still_records_rows_may_change_what_a_later_one_has_stored(ledger):
    run = planned_then_overwritten(ledger)
    ledger.record(run, [RowEnd(6, Outcome.UPLOADED, md5="m", ended_at=3.0)], Usage())
    assert (known(ledger).pending, known(ledger).is_known) == ((run.id,), False)
    ledger.record(run, [RowEnd(4, Outcome.NOT_ATTEMPTED, Reason.BREAKER, ended_at=4.0)], Usage())
    assert (known(ledger).pending, known(ledger).is_known) == ((), True)


@pytest.mark.parametrize(
    ("ending", "cut_off"),
    {
        "killed": ((), 5.0),
        "with nothing under way": ((OUTAGE,), None),
        "with calls under way": ((OUTAGE, 4.0), 4.0),
    }.values(),
    ids=["killed", "with nothing under way", "with calls under way"],
)
def test_a_row_that_fails_after_a_cut_may_have_been_sent_before(ledger, ending, cut_off):
    run = planned_then_overwritten(ledger)
    if ending:
        ledger.stop(run, *ending)
    run = ledger.resume(run, 5.0)
    assert run.cut_off == cut_off
    ledger.record(run, [RowEnd(4, Outcome.FAILED, Reason.FILE_CHANGED, ended_at=6.0)], Usage())
    assert known(ledger).doubt == ("" if cut_off is None else run.id)
    ledger.stop(run, OUTAGE)
    assert ledger.resume(run, 9.0).cut_off == cut_off, "the first cut counts"


def test_rows_that_end_with_their_environment_after_a_cut_may_have_been_sent_before(ledger):
    run = ledger.resume(planned_then_overwritten(ledger), 5.0)
    stopped = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088, ended_at=6.0)
    ledger.close_environments(run, [Closing(PLACES[0], stopped, (6,))])
    files = ledger.files(TARGET, [(PLACES[0].env, f"{line}.png") for line in range(2, 12)])
    doubts = {path: file.doubt for (_env, path), file in files.items() if file.doubt}
    assert doubts == dict.fromkeys(("10.png", "4.png", "8.png"), run.id)


def recorded(ledger: Ledger, *ends: tuple[int, float, Outcome]) -> RunRecord:
    run = planned(ledger)
    ledger.record(run, [RowEnd(line, outcome, ended_at=at) for line, at, outcome in ends], Usage())
    return ledger.run(run.id)


def test_each_row_that_ended_is_in_one_moment_of_the_timeline(ledger):
    good, bad = Outcome.UPLOADED, Outcome.REFUSED
    run = recorded(ledger, (2, 1001.0, good), (3, 1001.5, good), (4, 1009.9, bad), (5, 1010.0, good))
    moments = ledger.timeline(run, buckets=10)
    assert [moment.at for moment in moments] == pytest.approx([1000.0 + at for at in range(10)])
    assert all(a.until == pytest.approx(b.at) for a, b in pairwise(moments))
    outcomes = [dict(moment.outcomes) for moment in moments]
    assert outcomes == [{}, {good: 2}, *[{}] * 7, {bad: 1, good: 1}]


@pytest.mark.parametrize("times", [(), (1000.0,), (900.0, 950.0)], ids=["none", "at the begin", "set back"])
def test_a_timeline_loses_no_row_whatever_the_clock_said(ledger, times):
    run = recorded(ledger, *((line, at, Outcome.UPLOADED) for line, at in enumerate(times, 2)))
    moments = ledger.timeline(run, buckets=4)
    assert sum(sum(moment.outcomes.values()) for moment in moments) == len(times)
    assert bool(moments) == bool(times)
    assert all(moment.until > moment.at for moment in moments)


# --- which run is meant -----------------------------------------------------------------------------------------------


def test_a_run_is_found_by_id_prefix_and_latest_of_its_target(ledger):
    with pytest.raises(RunNotFoundError, match="has no run yet"):
        ledger.run("latest", TARGET)
    planned(ledger, run_id="20260101-a", created_at=1.0)
    planned(ledger, run_id="20260101-ab", created_at=2.0)
    planned(ledger, run_id="20260102-c", created_at=3.0, target="http://127.0.0.1:1")
    assert ledger.run("20260101-a").id == "20260101-a", "an exact id is not ambiguous"
    assert ledger.run("20260102").id == "20260102-c"
    assert ledger.run("latest").id == "20260102-c"
    assert ledger.run("latest", TARGET).id == "20260101-ab"
    assert [run.id for run in ledger.runs()] == ["20260102-c", "20260101-ab", "20260101-a"]
    assert [run.id for run in ledger.runs(TARGET, limit=1)] == ["20260101-ab"]
    with pytest.raises(RunNotFoundError, match=r"20260101-ab, 20260101-a"):
        ledger.run("202601")
    for wanted in ("2027", "%", "_"):
        with pytest.raises(RunNotFoundError, match="No run "):
            ledger.run(wanted)


@pytest.mark.parametrize(
    "other", [{"kind": LINKS}, {"target": "http://127.0.0.1:1"}, {"list_sha256": "cd"}, {"root": "/other"}]
)
def test_an_unfinished_run_is_of_the_same_kind_target_list_and_root(ledger, other):
    run = planned(ledger)
    assert ledger.unfinished(UPLOAD, TARGET, "ab" * 32, "/files") == [run]
    same = {"kind": UPLOAD, "target": TARGET, "list_sha256": "ab" * 32, "root": "/files"} | other
    assert ledger.unfinished(**same) == []


@pytest.mark.parametrize(
    "error",
    [
        interrupted(),
        OUTAGE_ERROR,
        refused_platform(61004, "hint: [10.0.0.7]"),
        stopped(
            TokenSourceError,
            DetailCode.TOKEN_SOURCE,
            seconds=2.5,
            last=as_detail(Bilingual("the token file is gone.", "令牌文件不见了。")),
        ),
        StoppedError(Bilingual("the disk is full", "磁盘已满")),
    ],
    ids=lambda error: str(error.reason.code) if error.reason is not None else "text",
)
def test_why_a_run_stopped_is_kept_as_a_code_and_shown_in_both_languages(ledger, error):
    run = planned(ledger)
    ledger.stop(run, stop_reason(error))
    found = ledger.run(run.id).stopped
    assert found is not None
    assert found == stop_reason(error)
    assert (stop_text(found).en, stop_text(found).zh) == (error.text.en, error.text.zh)
    kept = json.loads(ledger.fetch("SELECT stopped FROM runs")[0][0])
    assert kept["code"] == str(stop_reason(error).code)
    assert error.reason is None or error.text.en not in str(kept), "no sentence is kept where there is a code"


@pytest.mark.parametrize(
    "kept",
    [
        "{",
        "null",
        "[" * 200_000,
        '{"code": "outage", "params": {"seconds": "x"}}',
        '{"code": "silent", "params": []}',
        '{"code": ["silent"], "params": {}}',
    ],
    ids=lambda kept: kept[:40],
)
def test_a_reason_that_was_never_written_is_damage(sqlite_ledger, kept):
    run = planned(sqlite_ledger)
    with sqlite_ledger.writing() as connection:
        connection.execute("UPDATE rows SET detail = ?", (kept,))
    with pytest.raises(LedgerDamagedError):
        list(sqlite_ledger.rows(run))
    with sqlite_ledger.writing() as connection:
        connection.execute("UPDATE runs SET stopped = ?", (kept,))
    with pytest.raises(LedgerDamagedError):
        sqlite_ledger.run(run.id)


def test_a_reason_of_a_newer_tcb_ops_is_shown_as_its_code_and_parameters(ledger):
    run = planned(ledger)
    inner = '{"code": "newer", "params": {"n": 2}}'
    for kept, shown in (
        (inner, 'newer {"n":2}'),
        ('{"code": "newest", "params": {}}', "newest"),
        (f'{{"code": "both", "params": {{"first": {inner}, "second": "b"}}}}', 'newer {"n":2}; b'),
    ):
        with ledger.writing() as connection:
            connection.execute("UPDATE runs SET stopped = ?", (kept,))
        stopped = ledger.run(run.id).stopped
        assert stopped is not None
        assert stopped.en == shown


def test_the_newest_unfinished_run_is_meant_and_a_finished_one_never(ledger):
    older, newer = planned(ledger, run_id="a", created_at=1.0), planned(ledger, run_id="b", created_at=2.0)

    def found() -> str | None:
        return next((run.id for run in ledger.unfinished(UPLOAD, TARGET, "ab" * 32, "/files")), None)

    ledger.stop(newer, OUTAGE)
    assert (found(), ledger.run("b").stopped) == ("b", OUTAGE)
    ledger.finish(newer, 5.0)
    assert (found(), ledger.run("b").stopped, ledger.run("b").finished_at) == ("a", None, 5.0)
    ledger.finish(older, 6.0)
    assert found() is None


# --- files that are no ledger -----------------------------------------------------------------------------------------


def other_database(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE books (title); INSERT INTO books VALUES ('x');")


def ledger_of_version(file: Path, version: int) -> None:
    Ledger(str(file)).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"UPDATE tcb_ops SET version = {version}; PRAGMA wal_checkpoint(TRUNCATE);")


@table(
    "make, why",
    {
        "text": (lambda file: file.write_text("env,path\na,b\n" * 50), "not an SQLite file"),
        "other-database": (other_database, "another program's database"),
        "older": (lambda file: ledger_of_version(file, 7), "is a ledger of schema version 7, and"),
        "newer": (lambda file: ledger_of_version(file, 99), "is a ledger of schema version 99, and"),
    },
)
def test_a_file_that_is_no_ledger_is_refused_untouched(tmp_path, make, why):
    file = tmp_path / "some.db"
    make(file)
    before, beside = file.read_bytes(), set(tmp_path.iterdir())
    for _ in range(2):
        with pytest.raises(UsageError, match=why) as caught:
            Ledger(str(file))
        assert (caught.value.exit_code, str(file) in str(caught.value)) == (2, True)
    assert file.read_bytes() == before
    assert set(tmp_path.iterdir()) == beside


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS number FROM n"


@pytest.mark.parametrize("created", [f"VIEW runs AS {ENDLESS}", "VIRTUAL TABLE runs USING fts5 (id)"])
def test_what_stands_in_a_table_s_place_is_not_read(tmp_path, created):
    file = tmp_path / "ledger.db"
    Ledger(str(file)).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"DROP VIEW v_rows; DROP TABLE runs; CREATE {created}")
    with pytest.raises(LedgerDamagedError, match="it lacks the table runs"):
        Ledger(str(file))


def test_latest_is_the_run_created_last_whatever_the_clock_said(ledger):
    first = planned(ledger, run_id="20261130-080000-aaaa", created_at=1.8e9)
    last = planned(ledger, run_id="20261129-080000-bbbb", created_at=1.7e9)  # the clock was set back
    assert ledger.run("latest").id == last.id
    assert [run.id for run in ledger.runs()] == [last.id, first.id]
    assert ledger.newest(last.kind, last.target) == last
    [*unfinished] = ledger.unfinished(last.kind, last.target, last.list_sha256, last.root)
    assert [run.id for run in unfinished] == [last.id, first.id]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("", "needs the name of the file"),
        (":memory:", "needs the name of the file"),
        (".", "it is a folder"),
        ("none/x.db", "folder .*none does not exist"),
    ],
)
def test_a_place_where_no_ledger_can_be_is_refused(tmp_path, monkeypatch, where, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=why):
        Ledger(where)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.posix("file modes")
def test_a_ledger_is_made_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        with closing(Ledger(str(tmp_path / "ledger.db"))) as ledger:
            planned(ledger)
            files = list(tmp_path.glob("ledger.db*"))
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


def test_a_ledger_keeps_its_commits_through_a_power_cut(sqlite_ledger):
    asked = [sqlite_ledger.fetch(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]
    assert asked == [[("wal",)], [(2,)]]


OPEN = """
import sys
from tcb_ops.ledger.ledger import Ledger
print("ready", flush=True)
sys.stdin.read(1)
Ledger(sys.argv[1]).close()
"""


@pytest.mark.slow
def test_processes_that_make_the_ledger_at_once_make_one(place):
    argv = [sys.executable, "-c", OPEN, place]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(argv, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=240)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]


# --- killed, and a full disk ------------------------------------------------------------------------------------------

PLANNING = """
import sys
import ledgers as t
def rows():
    for line in range(2, 40_002):
        if line == 20_000:
            print("half", flush=True)
            sys.stdin.read()
        yield t.a_row(line)
t.Ledger(sys.argv[1]).plan(t.new_run(), rows(), t.PLACES)
"""


@pytest.mark.kill
def test_a_process_killed_while_planning_leaves_no_half_run(tmp_path):
    file = tmp_path / "ledger.db"
    Ledger(str(file)).close()
    argv = [sys.executable, "-c", PLANNING, str(file)]
    environment = os.environ | {"PYTHONPATH": str(Path(ledgers.__file__).parent)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with closing(Ledger(str(file))) as ledger:
        assert ledger.runs() == []
        assert planned(ledger).rows == 10


def test_a_ledger_in_use_by_another_writer_is_waited_for(sqlite_ledger, wait_for):
    from threading import Thread

    ledger = sqlite_ledger
    assert ledger.file is not None
    run = planned(ledger)
    with closing(sqlite3.connect(ledger.file)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = Thread(target=ledger.record, args=(run, [RowEnd(2, Outcome.UPLOADED)], Usage()))
        writing.start()
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 0.1)
        assert ledger.counts(run) == {Outcome.PENDING: 10}, "reading does not wait"
        Ledger(str(ledger.file)).close()
        assert writing.is_alive()
        other.rollback()
        writing.join(240)
    assert ledger.counts(run) == {Outcome.UPLOADED: 1, Outcome.PENDING: 9}


@pytest.mark.posix("removing files that are open")
def test_a_ledger_that_was_removed_is_not_created_again_by_whoever_reads_it(sqlite_ledger):
    sqlite_ledger.runs()
    with ExitStack() as stack:
        for _ in range(2):  # one more than is idle
            stack.enter_context(sqlite_ledger.snapshot())
        for file in sqlite_ledger.file.parent.glob("ledger.db*"):
            if file.is_file():
                file.unlink()
        with pytest.raises(StoppedError):
            stack.enter_context(sqlite_ledger.snapshot())
    assert not sqlite_ledger.file.exists()


def test_a_run_of_links_has_no_headers(ledger):
    run = planned(ledger, [a_row(2, content_type="image/png", cache_control="no-store")], kind=LINKS)
    (found,) = ledger.rows(run)
    assert (found.row.content_type, found.row.cache_control) == ("", "")


@pytest.mark.posix("users")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives a file away")
def test_another_users_ledger_is_to_be_asked_for(tmp_path):
    file = tmp_path / "tcb-ops.db"
    file.touch()
    assert of_another_user(file) is None
    os.chown(file, 1, -1)
    assert "It belongs to daemon: ask for permission" in of_another_user(file).en

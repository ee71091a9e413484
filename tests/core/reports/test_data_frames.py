"""DataFrames: the documented dtypes and columns, whatever the rows."""

from collections import Counter

import pandas as pd
import pytest

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import ArgumentError, LedgerDamagedError, StoppedError, UsageError
from tcb_ops.features.workbooks.parquet import arrow_texts, write_parquet
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.data_frames import (
    causes_frame,
    errcodes_frame,
    merchants_frame,
    results_frame,
    timeline_frame,
)
from tcb_ops.reports.formats.csv import RESULT_COLUMNS
from tcb_ops.reports.summary import RunSummary
from tcb_ops.run import Run
from tcb_ops.settings import Settings


def test_results_have_the_documented_columns_and_dtypes_with_rows_and_without(a_run, every_end, in_english):
    ints = {"tcb_line", "tcb_errcode", "tcb_http_status", "tcb_attempts", "tcb_bytes"}
    for ends, run_id in ((every_end, "one"), ([], "none")):
        reported = a_run(ends, finished=False, id=run_id)
        frame = results_frame(reported.ledger, reported.run, in_english)
        assert list(frame.columns) == ["货号", "path", *RESULT_COLUMNS]
        assert len(frame) == len(ends)
        assert frame.attrs == {"timezone": "Asia/Shanghai"}
        for name, dtype in frame.dtypes.items():
            if name in ints:
                assert dtype == pd.Int64Dtype(), name
            elif name in {"tcb_started_at", "tcb_ended_at"}:
                assert str(dtype) == "datetime64[us]", name
            else:
                assert isinstance(dtype, pd.StringDtype), name


def test_results_hold_every_row_as_it_is(a_run, every_end, in_english):
    ends = (
        *every_end,
        RowEnd(0, Outcome.UPLOADED, errcode=0, started_at=1764034000.25, ended_at=1764034001.0),
    )
    reported = a_run(ends, finished=False, cells=("=1+1", "{path}"))
    frame = results_frame(reported.ledger, reported.run, in_english)
    assert Counter(frame["tcb_outcome"]) == reported.ledger.counts(reported.run)
    assert set(frame["货号"]) == {"=1+1"}, "no apostrophe: a frame runs nothing"
    assert list(frame["tcb_line"]) == list(range(2, 2 + len(ends)))
    assert frame["tcb_errcode"].isna().sum() == sum(end.errcode is None for end in ends)
    assert not frame["tcb_errmsg"].isna().any()
    assert frame["tcb_started_at"].iloc[-1] == pd.Timestamp("2025-11-25T09:26:40.250")


def test_results_have_only_the_columns_that_are_asked_for(a_run, every_end, in_english):
    reported = a_run(every_end, finished=False)
    complete = results_frame(reported.ledger, reported.run, in_english)
    for columns in (["tcb_outcome", "path"], ["tcb_ended_at"]):
        frame = results_frame(reported.ledger, reported.run, in_english, columns=columns)
        pd.testing.assert_frame_equal(frame, complete[columns], check_column_type=False)
    for wrong in (["tcb_outcom"], [], "path"):
        with pytest.raises(ArgumentError, match="columns") as refused:
            results_frame(reported.ledger, reported.run, in_english, columns=wrong)
        assert "tcb_outcome" in refused.value.valid.en


def test_without_pyarrow_the_results_are_the_same(a_run, every_end, in_english):
    reported = a_run(every_end, finished=False)
    complete = results_frame(reported.ledger, reported.run, in_english)
    with pd.option_context("mode.string_storage", "python"):
        plain = results_frame(reported.ledger, reported.run, in_english)
    assert plain["path"].dtype.storage == "python"
    pd.testing.assert_frame_equal(plain, complete, check_dtype=False)


def test_a_column_that_the_list_has_twice_is_given_twice(a_run, every_end, in_english):
    reported = a_run(every_end, finished=False, headers=("path", "path"), cells=("first", "{path}"))
    frame = results_frame(reported.ledger, reported.run, in_english, columns=["path"])
    assert list(frame.columns) == ["path", "path"]
    assert set(frame.iloc[:, 0]) == {"first"}


def test_a_row_that_is_lost_is_noticed(a_run, every_end, in_english):
    reported = a_run(every_end, finished=False)
    with reported.ledger.writing() as connection:
        connection.execute("DELETE FROM rows WHERE line = 3")
    for outcomes in (None, frozenset({Outcome.UPLOADED})):
        with pytest.raises(LedgerDamagedError):
            results_frame(reported.ledger, reported.run, in_english, outcomes)


@pytest.mark.parametrize("cells", ['["a"],["b"]', '["a","b","c","d"]', "[", "no list"])
def test_damaged_cells_are_noticed_where_they_are_read(a_run, every_end, in_english, cells):
    reported = a_run(every_end, finished=False)
    with reported.ledger.writing() as connection:
        connection.execute("UPDATE rows SET cells = ? WHERE line = 3", (cells,))
    with pytest.raises(LedgerDamagedError):
        results_frame(reported.ledger, reported.run, in_english)
    frame = results_frame(reported.ledger, reported.run, in_english, columns=["tcb_outcome"])
    assert len(frame) == len(every_end)


def test_errcodes_are_merchants_by_code(a_run):
    refused = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
    breaker = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)
    other = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=-501001)
    denied = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_code="AccessDenied")
    unsent = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN)
    good = RowEnd(0, Outcome.UPLOADED, errcode=0)
    reported = a_run([refused, other, good, breaker, denied, unsent])
    summary = RunSummary(reported.ledger, reported.run)
    frame = errcodes_frame(summary.causes, UPLOAD, Settings())
    assert frame.index.names == ["merchant", "appid", "env"]
    assert frame.columns.tolist() == [85088, -501001, "AccessDenied", "no_token"]
    assert frame.columns.name == "errcode"
    assert frame.reset_index().iloc[:, 2:].to_numpy().tolist() == [
        ["prod-1a2b", 2, 0, 0, 0],
        ["test-3c4d", 0, 1, 1, 0],
        ["shop-5e6f", 0, 0, 0, 1],
    ]
    assert frame.to_numpy().sum() == summary.not_succeeded
    assert set(frame.dtypes) == {pd.Int64Dtype()}


def test_without_errcodes_the_frame_is_empty_and_its_index_named_the_same(a_run):
    reported = a_run([RowEnd(0, Outcome.UPLOADED, errcode=0)])
    frame = errcodes_frame(RunSummary(reported.ledger, reported.run).causes, UPLOAD, Settings())
    assert frame.empty
    assert frame.index.names == ["merchant", "appid", "env"]
    assert frame.columns.name == "errcode"


CAUSES = {
    "code": "string", "merchant": "string", "appid": "string", "env": "string", "rows": "Int64",
    "meaning": "string", "action": "string",
}  # fmt: skip
TIMELINE = {
    "at": "datetime64[us]", "seconds": "Float64", "linked": "Int64", "uploaded": "Int64",
    "unchanged": "Int64", "healthy": "Int64", "refused": "Int64", "failed": "Int64", "not_attempted": "Int64",
    "unhealthy": "Int64", "unknown": "Int64", "ended": "Int64",
    "rate": "Float64",
}  # fmt: skip


def dtypes(frame):
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_causes_are_a_line_per_code_merchant_and_environment(a_run, every_end, in_english):
    for ends, run_id in ((every_end, "one"), ([], "none")):
        reported = a_run(ends, finished=False, id=run_id)
        summary = RunSummary(reported.ledger, reported.run)
        frame = causes_frame(summary.causes, reported.run.kind, (), in_english)
        assert dtypes(frame) == CAUSES
        assert [(row.code, row.merchant, row.env, row.rows) for row in frame.itertuples()] == [
            (cause.code, cause.merchant, cause.env, cause.rows) for cause in summary.causes
        ]
    assert frame.empty


@pytest.mark.needs("health")
def test_the_timeline_holds_every_row_that_ended(a_run, in_english):
    at = 1764034000.25
    ends = [RowEnd(0, Outcome.UPLOADED, started_at=at, ended_at=at + n) for n in range(1, 60)]
    ends += [RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, ended_at=at + 59)] * 3
    ends += [RowEnd(0, Outcome.PENDING)]
    reported = a_run(ends, finished=False)
    frame = timeline_frame(reported.ledger, reported.run, in_english)
    assert dtypes(frame) == TIMELINE
    assert int(frame["ended"].sum()) == 62
    assert int(frame["uploaded"].sum()) == 59
    assert frame["at"].is_monotonic_increasing
    assert frame["at"].iloc[0] == pd.Timestamp("2025-11-25T09:26:40.250")
    assert (frame["rate"] * frame["seconds"]).sum() == pytest.approx(62)
    empty = a_run([RowEnd(0, Outcome.PENDING)], finished=False, id="none")
    frame = timeline_frame(empty.ledger, empty.run, in_english)
    assert frame.empty
    assert dtypes(frame) == TIMELINE


pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_it_has_every_row_with_its_types(a_run, tmp_path):
    reported = a_run()
    file = write_parquet(reported.ledger, reported.run, tmp_path / "run.parquet", Settings())
    table = pq.read_table(file)
    assert table.num_rows == reported.run.rows
    assert table.column_names[-len(RESULT_COLUMNS) :] == list(RESULT_COLUMNS)
    assert table.schema.field("tcb_errcode").type == "int64"
    assert table.schema.field("tcb_ended_at").type.tz == Settings().timezone
    outcomes = [str(record.end.outcome) for record in reported.ledger.rows(reported.run)]
    assert table["tcb_outcome"].to_pylist() == outcomes
    assert [path.name for path in tmp_path.glob("run.parquet*")] == ["run.parquet"]
    write_parquet(reported.ledger, reported.run, file, Settings())  # it replaces its own
    file.write_text("somebody's list", encoding="utf-8")
    with pytest.raises(UsageError):
        write_parquet(reported.ledger, reported.run, file, Settings())
    assert file.read_text(encoding="utf-8") == "somebody's list"


def test_a_run_and_a_list_are_arrow_streams(a_run, every_end, in_english):
    reported = a_run(every_end, finished=False, headers=("path", "path"), cells=("=1", "{path}"))
    run = Run(reported.ledger, reported.run, in_english)
    table = pa.table(run)
    assert table.column_names == ["path", "path_2", *RESULT_COLUMNS]
    assert table["tcb_outcome"].to_pylist() == run.results()["tcb_outcome"].tolist()
    assert table["tcb_errcode"].to_pylist() == [record.end.errcode for record in run.rows()]
    assert pa.table(a_run([], id="none").run and run.of_merchants([])).num_rows == 0
    cells = {"env": ["a", "b"], "path": ["x", None], "rows": [1, None], "rate": [0.5, float("nan")]}
    headers, rows = arrow_texts(pa.table(cells))
    assert (headers, rows) == (["env", "path", "rows", "rate"], [("a", "x", "1", "0.5"), ("b", "", "", "")])


@pytest.mark.parametrize("library", ["polars", "duckdb"])
def test_a_run_is_a_frame_of(library, a_run, every_end, in_english):
    module = pytest.importorskip(library)
    reported = a_run(every_end, finished=False)
    run = Run(reported.ledger, reported.run, in_english)
    outcomes = [str(record.end.outcome) for record in run.rows()]
    if library == "polars":
        assert module.DataFrame(run)["tcb_outcome"].to_list() == outcomes
    else:
        assert module.sql("SELECT tcb_outcome FROM run ORDER BY tcb_line").fetchall() == [
            (o,) for o in outcomes
        ]


def test_a_run_without_rows_has_empty_frames_and_an_empty_file_of_the_same_columns(
    a_run, in_english, tmp_path
):
    schemas = []
    for ends, run_id in (([RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)], "one"), ([], "none")):
        reported = a_run(ends, id=run_id)
        summary = RunSummary(reported.ledger, reported.run)
        file = write_parquet(reported.ledger, reported.run, tmp_path / f"{run_id}.parquet", in_english)
        frames = causes_frame(summary.causes, reported.run.kind, (), in_english), merchants_frame(summary)
        assert [pq.read_table(file).num_rows, len(frames[0])] == [len(ends)] * 2
        schemas.append((pq.read_schema(file), *map(dtypes, frames)))
    assert schemas[0] == schemas[1]


def test_a_file_that_cannot_be_written_is_reported(a_run, tmp_path):
    reported = a_run()
    with pytest.raises(StoppedError, match="cannot be written"):
        write_parquet(reported.ledger, reported.run, tmp_path / "missing" / "run.parquet", Settings())


def test_an_operators_own_columns_of_the_merchants_file_are_text_whatever_they_are_called(tmp_path):
    file = tmp_path / "merchants.csv"
    file.write_text("appid,name,env,rows,new\nwx0123456789abcdef,A,env-1,many,east\n", encoding="utf-8")
    frame = read_merchants(file).frame()
    assert [*frame.columns[-2:]] == ["rows", "new"]
    assert [*frame.iloc[0, -2:]] == ["many", "east"]

"""Runs over some days: each on the day on which it began, kinds apart, the rows of a retry once."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

import tcb_ops as tcb
from tcb_ops.engine.list_kinds import LINKS, UPLOAD
from tcb_ops.features.evidence.drawings import strip
from tcb_ops.features.evidence.history import CodeLine, RetryLine, read_history
from tcb_ops.frames import NoRun
from tcb_ops.i18n import Lang
from tcb_ops.kinds import kind_named
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.reports.explanations import code_label
from tcb_ops.settings import Settings

NOW = datetime(2025, 11, 25, 12, 0, tzinfo=UTC).timestamp()
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
GOOD = RowEnd(0, Outcome.UPLOADED, errcode=0)


def at(when):
    return datetime.fromisoformat(f"{when}+00:00").timestamp()


def in_zone(zone="UTC"):
    return Settings(lang=Lang.EN, timezone=zone, merchants=Path("missing.csv"))


def read(reported, days=7, zone="UTC", **options):
    settings = replace(in_zone(zone), ledger=str(reported.ledger.file))
    return read_history(reported.ledger, settings, days=days, now=NOW, **options)


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("Asia/Shanghai", {"2025-11-24": 1, "2025-11-25": 2}),
        ("UTC", {"2025-11-24": 2, "2025-11-25": 1}),
        ("Asia/Kathmandu", {"2025-11-24": 2, "2025-11-25": 1}),
    ],
)
def test_a_run_counts_on_the_day_on_which_it_began_there(a_run, zone, days):
    for number, when in enumerate(("2025-11-24T15:59:59", "2025-11-24T16:00:00", "2025-11-25T01:00:00")):
        reported = a_run([REFUSED], id=f"run-{number}", created_at=at(when))
    history = read(reported, days=3, zone=zone)
    counted = {}
    for line in history.lines:
        counted[line.day.isoformat()] = counted.get(line.day.isoformat(), 0) + line.rows
    assert counted == days
    assert len(history.days) == 3


def test_every_run_of_the_target_and_the_days_counts_and_no_other(a_run):
    a_run([REFUSED], id="one")
    a_run([REFUSED, GOOD, RowEnd(0, Outcome.PENDING)], id="two", finished=False)
    a_run([REFUSED], id="elsewhere", target="http://127.0.0.1:1")
    a_run([REFUSED], id="links", kind=LINKS)
    a_run([REFUSED], id="later", created_at=at("2025-11-26T00:00:00"))
    reported = a_run([REFUSED], id="long-ago", created_at=at("2025-10-01T00:00:00"))
    uploads = read(reported, kind="upload")
    assert [(run.record.id, run.succeeded, run.not_succeeded, run.pending) for run in uploads.runs] == [
        ("two", 1, 1, 1),
        ("one", 0, 1, 0),
    ]
    assert "2 runs in 7 days" in repr(uploads)
    label = code_label("85088")
    assert uploads.codes().lines == (CodeLine(UPLOAD, "85088", 2, 1, 1, label),)
    assert read(reported).codes().lines == (
        CodeLine(LINKS, "85088", 1, 1, 1, label),
        CodeLine(UPLOAD, "85088", 2, 1, 1, label),
    )
    assert [line.rows for line in uploads.by("货号").lines] == [3]
    assert "1 row is pending" in uploads._repr_html_() + uploads.codes()._repr_html_()


def test_a_store_code_without_a_label_has_its_meaning(a_run):
    reported = a_run([RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_code="InternalError")])
    (line,) = read(reported).codes().lines
    assert (line.meaning.en, line.meaning.zh) == ("The store failed internally.", "存储服务内部错误")


def test_the_rows_of_a_retry_count_once_and_what_it_brought_is_told(a_run):
    a_run([REFUSED, REFUSED, GOOD], id="first")
    reported = a_run([GOOD, REFUSED], id="again", parent="first")
    a_run([GOOD, RowEnd(0, Outcome.PENDING)], id="orphan", parent="pruned", finished=False)
    history = read(reported)
    assert history.codes().lines[0].rows == 2
    assert [(line.retries, line.runs, line.rows) for line in history.kinds()] == [(False, 1, 3), (True, 2, 4)]
    assert history.retries().lines == (RetryLine(UPLOAD, "85088", 2, 1), RetryLine(UPLOAD, "", 1, 1))
    assert "2 of 3 rows that 2 retries tried again succeeded." in repr(history.retries())
    assert history.run().id == "first"
    assert history.run("again").id == "again"
    for run in ("first", "orphan"):
        with reported.ledger._database.connection() as connection:
            connection.execute(f"UPDATE runs SET created_at = 0 WHERE id = '{run}'")
    only = read(reported)
    for answer in (only.codes(), only.merchants(), only.by("货号"), only.run()):
        assert "Only retries in these days." in repr(answer)


def test_merchants_with_most_days_come_first_each_with_its_share_of_each_day(a_run):
    places = [
        EnvRecord(n, f"e{n}", f"wx{n}", name, Owner.MERCHANT, left=False)
        for n, name in enumerate(("few", "often"))
    ]
    other = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=61007)
    a_run([GOOD, other, GOOD, GOOD], id="a", places=places, created_at=at("2025-11-23T01:00:00"))
    a_run([GOOD] * 4, id="b", places=places, created_at=at("2025-11-24T01:00:00"))
    reported = a_run(
        [REFUSED] * 4 + [REFUSED, GOOD] * 3, id="c", places=places, created_at=at("2025-11-25T01:00:00")
    )
    often, few = read(reported, days=4).merchants().lines
    assert (often.merchant, often.days, often.last_day, often.rows, often.not_succeeded, often.codes) == (
        "often", 2, date(2025, 11, 25), 9, 3, "85088, 61007",
    )  # fmt: skip
    assert often.shares == (None, 0.5, 0.0, 0.4)
    assert (few.merchant, few.days, few.not_succeeded) == ("few", 1, 5)
    shown = read(reported, days=4).merchants(top=1)
    assert "Here is the one on most days; it has 3 of 8 such rows." in repr(shown)
    assert shown._repr_html_().count("<tr>") == 1
    assert len(shown.frame()) == 2


def test_a_renamed_merchant_is_one(a_run):
    names = ("before", "after")
    for day, name in enumerate(names, 23):
        places = [EnvRecord(0, "e", "wx", name, Owner.MERCHANT, left=False)]
        reported = a_run([REFUSED, GOOD], id=name, places=places, created_at=at(f"2025-11-{day}T01:00:00"))
    (line,) = read(reported).merchants().lines
    assert (line.merchant, line.rows, line.not_succeeded, line.days) == ("after", 4, 2, 2)
    assert "1 of 1 merchant had rows" in repr(read(reported).merchants())


def test_rows_count_under_the_code_of_the_store_or_of_the_breaker_and_successes_under_none(a_run):
    skipped = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)
    denied = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, errcode=0, store_code="AccessDenied")
    left = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN)
    good = RowEnd(0, Outcome.UPLOADED, Reason.UNVERIFIED, errcode=0, store_code="ETagMismatch")
    lines = read(a_run([skipped, denied, denied, left, good])).codes().lines
    assert [(line.code, line.rows) for line in lines] == [("AccessDenied", 2), ("85088", 1), ("no_token", 1)]


def test_a_column_is_that_of_the_merchants_file_else_of_the_lists(a_run, tmp_path):
    reported = a_run([REFUSED, GOOD, GOOD], cells=("李", "{path}"))
    file = tmp_path / "merchants.csv"
    file.write_text("appid,name,env,region\nwxaaaa,晨光文具,prod-1a2b,east\n", encoding="utf-8")
    settings = Settings(lang=Lang.EN, timezone="UTC", merchants=file)
    history = read_history(reported.ledger, settings, now=NOW)
    by = history.by("Region").frame()
    assert [*by.columns] == ["Region", "kind", "merchants", "rows", "not_succeeded"]
    assert by.to_numpy().tolist() == [["east", "upload", 1, 1, 1], ["", "upload", 2, 2, 0]]
    assert history.by("货号").frame().to_numpy().tolist() == [["李", "upload", 2, 3, 1]]
    unknown = history.by("colleague")
    assert repr(unknown) == (
        "There is no column colleague. Columns of the merchants file: appid, name, env, region. "
        "Columns of the lists: 货号, path."
    )
    assert unknown.frame().empty
    assert "Columns of the lists: 货号, path." in repr(read(reported).by("region")), "no merchants file"


def test_the_frames_have_their_dtypes_with_rows_and_without(a_run):
    reported = a_run([REFUSED, GOOD], created_at=at("2025-11-24T01:00:00"))
    for days, lines in ((7, 1), (1, 0)):
        frame = read(reported, days=days).frame()
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
            "day": "datetime64[s]", "kind": "string", "merchant": "string", "appid": "string", "env": "string",
            "code": "string", "rows": "Int64",
        }  # fmt: skip
        assert len(frame) == lines
        numbers = read(reported, days=days).merchants().frame().dtypes
        assert [str(numbers[name]) for name in ("rows", "not_succeeded", "days", "last_day")] == [
            "Int64", "Int64", "Int64", "datetime64[s]",
        ]  # fmt: skip
    assert read(reported).frame()["day"].iloc[0] == pd.Timestamp("2025-11-24")


@pytest.mark.parametrize("codes", [1, 3, 9])
def test_the_drawing_has_a_bar_per_code_and_day_and_a_text_alternative(a_run, codes):
    ends = [RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=-501000 - n) for n in range(codes)]
    html = read(a_run(ends), days=30).codes()._repr_html_()
    assert re.search('role="img" aria-label="Codes by day: -501000 1[";]', html)
    heights = [float(high) for high in re.findall(r"height:([\d.]+)px;background:#", html)]
    assert len(heights) == min(codes, 7)
    assert sum(heights) == pytest.approx(130, abs=1)
    assert "<svg" not in html
    assert ("and 3 more codes" in html) is (codes == 9)
    assert "11-25 · -501000 1" in html


def test_the_shade_of_a_day_tells_the_share_of_rows_that_did_not_succeed():
    shares = (None, 0.0, 0.01, 1 / 3, 0.5, 2 / 3, 0.7, 1.0)
    assert strip(shares) == [(1, 1, ""), (0, 2, "66"), (0, 2, "b3"), (0, 2, "ff")]


def test_a_notebook_shows_it_with_every_text_escaped(a_run):
    planted = "<img src=x onerror=alert(1)>"
    places = [EnvRecord(0, "e", "wx", planted, Owner.MERCHANT, left=False)]
    history = read(a_run([REFUSED], places=places, cells=(planted, "{path}")))
    for shown in (history, history.codes(), history.merchants(), history.by("货号"), history.by(planted)):
        assert "<img" not in shown._repr_html_()
    assert "&lt;img" in history.merchants()._repr_html_()


def test_without_a_run_everything_says_why(a_run, tmp_path):
    reported = a_run([GOOD], created_at=at("2025-10-30T08:00:00"))
    earlier, elsewhere = read(reported), read_history(
        reported.ledger, Settings(lang=Lang.EN, target="simulator", timezone="UTC"), now=NOW
    )  # fmt: skip
    nowhere = read_history(None, Settings(lang=Lang.EN, timezone="UTC"), now=NOW)
    other_kind = read(reported, days=60, kind="audit")
    for history, text in (
        (earlier, 'The newest is of 2025-10-30: until = "2025-10-30" shows it.'),
        (elsewhere, "It has 1 run to https://api.weixin.qq.com: set the target to see more."),
        (nowhere, "There is no ledger tcb-ops.db yet: the first run makes it."),
        (other_kind, "No run of this kind to https://api.weixin.qq.com yet."),
    ):
        answers = (history, history.codes(), history.merchants(), history.by("x"), history.retries())
        assert [text in repr(answer) for answer in answers] == [True] * 5
        assert all(len(answer.frame()) == 0 for answer in answers)
        run = history.run()
        assert isinstance(run, NoRun)
        assert text in repr(run.report("anywhere").counts)
        assert not hasattr(run, "_ipython_display_")


def test_what_cannot_be_read_is_left_out_and_that_is_told(a_run):
    for name, change in (("damaged", "settings = 'x'"), ("unknown", "kind = 'gizmo'")):
        a_run([REFUSED], id=name)
        reported = a_run([GOOD], id=f"after-{name}")
        with reported.ledger._database.connection() as connection:
            connection.execute(f"UPDATE runs SET {change} WHERE id = '{name}'")
    history = read(reported)
    assert [run.record.id for run in history.runs] == ["after-unknown", "after-damaged"]
    assert "2 runs are left out: their records are damaged, or their kinds" in history._repr_html_()


@pytest.mark.needs("health")
def test_the_ledger_of_30_days_has_the_newest_schema_and_is_looked_back_on_from_any_day():
    from tcb_ops.features.simulator.sample import analysis_settings

    settings = analysis_settings()
    history = tcb.history(days=7, until="2026-10-30", settings=settings)
    assert [str(history.days[at]) for at in (0, -1)] == ["2026-10-24", "2026-10-30"]
    assert tcb.history(days=7, until="latest", settings=settings).days == history.days
    failed = {
        kind: {line.merchant for line in history.lines if line.kind == kind} for kind in ("upload", "audit")
    }
    assert "花间小筑" in failed["upload"]
    assert failed["audit"] >= {"星河影院", "沐光摄影"}
    assert not failed["audit"] & {"老城面馆", "花间小筑"}  # one was fixed on the 22nd, the other works
    assert kind_named("audit") in {line.kind for line in history.kinds()}

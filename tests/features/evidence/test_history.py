"""Errcodes by day: each row on the day on which it ended, in the settings' zone."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from tcb_ops.features.evidence.history import MerchantHistory, count_codes
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.runs.list_kinds import LINKS, UPLOAD
from tcb_ops.runs.records import EnvRecord
from tcb_ops.settings import Settings

NOW = datetime(2025, 11, 25, 12, 0, tzinfo=UTC).timestamp()
TARGET = "https://api.weixin.qq.com"


def refused(when, errcode=85088):
    at = datetime.fromisoformat(when).timestamp()
    return RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=errcode, started_at=at - 1, ended_at=at)


def in_zone(zone):
    return Settings(lang=Lang.EN, timezone=zone)


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("Asia/Shanghai", {"2025-11-24": 1, "2025-11-25": 2}),
        ("UTC", {"2025-11-24": 2, "2025-11-25": 1}),
        ("Asia/Kathmandu", {"2025-11-24": 2, "2025-11-25": 1}),
    ],
)
def test_a_row_counts_on_the_day_on_which_it_ended_there(a_run, zone, days):
    ends = [refused(f"2025-11-24T{at}+00:00") for at in ("15:59:59", "16:00:00", "18:14:59")]
    ends[2] = refused("2025-11-25T01:00:00+00:00")
    reported = a_run(ends)
    found = count_codes(reported.ledger, TARGET, UPLOAD, in_zone(zone), days=3, now=NOW)
    counted = {}
    for line in found.lines:
        counted[line.day.isoformat()] = counted.get(line.day.isoformat(), 0) + line.rows
    assert counted == days
    assert len(found.days) == 3


def test_every_run_of_the_target_and_kind_counts_and_no_other(a_run):
    at = "2025-11-25T01:00:00+00:00"
    a_run([refused(at)], id="one")
    a_run([refused(at), RowEnd(0, Outcome.UPLOADED, errcode=0)], id="two", finished=False)
    a_run([refused(at)], id="elsewhere", target="http://127.0.0.1:1")
    a_run([refused(at)], id="links", kind=LINKS)
    reported = a_run([refused("2025-10-01T00:00:00+00:00")], id="long-ago")
    found = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), days=7, now=NOW)
    assert [(x.day, x.merchant, x.appid, x.code, x.rows) for x in found.lines] == [
        (date(2025, 11, 25), "晨光文具", "wxaaaa", "85088", 2)
    ]
    assert found.codes() == [("85088", (0, 0, 0, 0, 0, 0, 2))]
    assert "upload, 7 days: 2 rows with an errcode, 0 rows with a code of the store, 1 merchant" in repr(
        found
    )
    assert found.merchants() == [MerchantHistory("晨光文具", "wxaaaa", 1, date(2025, 11, 25), 2, ("85088",))]


def test_merchants_with_most_days_come_first_each_with_its_last_day_and_its_codes(a_run):
    names = {0: "few", 1: "often"}
    places = [
        EnvRecord(at, f"e{at}", f"wx{at}", name, Owner.MERCHANT, left=False) for at, name in names.items()
    ]
    ends = [refused("2025-11-25T01:00:00+00:00", -1)] * 8  # of both, in turns
    ends[1:4:2] = [refused("2025-11-23T01:00:00+00:00", 61007)] * 2
    ends[5] = refused("2025-11-24T01:00:00+00:00", 61007)
    found = count_codes(
        a_run(ends, places=places).ledger, TARGET, UPLOAD, in_zone("UTC"), days=7, now=NOW
    ).merchants()
    assert found == [
        MerchantHistory("often", "wx1", 3, date(2025, 11, 25), 4, ("61007", "-1")),
        MerchantHistory("few", "wx0", 1, date(2025, 11, 25), 4, ("-1",)),
    ]


def test_rows_count_under_the_code_of_the_store_or_of_the_breaker_and_successes_under_none(a_run):
    skipped = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)
    denied = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, errcode=0, store_code="AccessDenied")
    good = RowEnd(0, Outcome.UPLOADED, Reason.UNVERIFIED, errcode=0, store_code="ETagMismatch")
    reported = a_run([skipped, denied, denied, good])
    found = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("Asia/Shanghai"), days=2, now=NOW)
    assert [(code, sum(rows)) for code, rows in found.codes()] == [("AccessDenied", 2), ("85088", 1)]


def test_the_frame_has_its_dtypes_with_rows_and_without(a_run):
    reported = a_run([refused("2025-11-25T01:00:00+00:00"), refused("2025-11-24T01:00:00+00:00", -501001)])
    for days, lines in ((7, 2), (1, 1)):
        frame = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), days=days, now=NOW).frame()
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
            "day": "datetime64[s]", "merchant": "string", "appid": "string", "code": "string", "rows": "Int64",
        }  # fmt: skip
        assert len(frame) == lines
    empty = count_codes(reported.ledger, "https://nowhere.example", UPLOAD, in_zone("UTC"), now=NOW).frame()
    assert str(empty["day"].dtype) == "datetime64[s]"
    assert empty.empty
    assert frame["day"].iloc[0] == pd.Timestamp("2025-11-25")


def test_what_is_left_out_is_counted_without_any_code(a_run):
    places = [EnvRecord(n, f"shop-{n}", f"wx{n}", f"店{n}", Owner.MERCHANT, left=False) for n in range(15)]
    reported = a_run([refused("2025-11-25T01:00:00+00:00")] * 15, places=places)
    html = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), days=7, now=NOW)._repr_html_()
    assert "… and 3 more merchants<" in html
    assert "frame" not in html


@pytest.mark.parametrize("codes", [0, 3, 9])
def test_the_drawing_is_xml_with_a_text_alternative(a_run, codes):
    reported = a_run([refused("2025-11-25T01:00:00+00:00", -501000 - n) for n in range(codes)])
    found = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), days=30, now=NOW)
    svg = ET.fromstring(re.search("<svg.*</svg>", found._repr_html_(), re.DOTALL)[0])
    assert (svg.tag, svg.attrib["role"]) == ("svg", "img")
    assert "2025-11-25" in svg.find("title").text
    bars = [rect for rect in svg.iter("rect") if rect.find("title") is not None]
    assert len(bars) == min(codes, 7)
    assert all(float(bar.attrib["y"]) >= 0 for bar in bars)


def test_a_notebook_shows_it_with_every_text_escaped(a_run):
    planted = "<img src=x onerror=alert(1)>"
    places = [EnvRecord(0, "e", "wx", planted, Owner.MERCHANT, left=False)]
    reported = a_run([refused("2025-11-25T01:00:00+00:00")], places=places)
    html = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), now=NOW)._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html


def test_fewer_than_one_day_is_today(a_run):
    reported = a_run([refused("2025-11-24T01:00:00+00:00"), refused("2025-11-25T01:00:00+00:00")])
    found = count_codes(reported.ledger, TARGET, UPLOAD, in_zone("UTC"), days=0, now=NOW)
    assert found.days == (date(2025, 11, 25),)
    assert [line.rows for line in found.lines] == [1]


def test_the_ledger_of_30_days_has_the_newest_schema():
    from tcb_ops.features.simulator.sample import ANALYSIS
    from tcb_ops.runs.schema import VERSION

    with closing(sqlite3.connect(f"file:{ANALYSIS}?mode=ro&immutable=1", uri=True)) as ledger:
        # After a migration, open a copy once and put it there: notebook 05 would begin with the message of the upgrade.
        assert ledger.execute("SELECT version FROM tcb_ops").fetchone() == (VERSION,)


def test_it_looks_back_from_any_day():
    import tcb_ops as tcb
    from tcb_ops.features.simulator.sample import analysis_settings

    settings = analysis_settings()
    found = tcb.history(days=7, until="2026-10-30", settings=settings)
    assert [str(found.days[at]) for at in (0, -1)] == ["2026-10-24", "2026-10-30"]
    assert "花间小筑" in {line.merchant for line in found.lines}  # its uploads fail
    audits = {
        line.merchant for line in tcb.history(7, kind="audit", until="2026-10-30", settings=settings).lines
    }
    assert audits >= {"星河影院", "沐光摄影"}
    assert not audits & {"老城面馆", "花间小筑"}  # one was fixed on the 22nd, the other works

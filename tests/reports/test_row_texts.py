"""The lines made of a ledger's records are those that are written cell by cell, whatever is in them; so is the digest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from tcb_ops.details import DetailCode, detail
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.row_texts import RowTexts, TextsOfRows, row_texts
from tcb_ops.runs.records import EnvRecord

if TYPE_CHECKING:
    from collections.abc import Callable

ZONE = ZoneInfo("Asia/Shanghai")
STRANGE = {
    "plain": "横幅",
    "empty": "",
    "comma": "a,b",
    "quote": 'the "b"',
    "between quotes": 'a","b',
    "backslash": r"D:\new",
    "formula": "=1+1",
    "number": "-1.5",
    "wide formula": "＝1",
    "apostrophe": "'=1",
    "line end": "a\nb",
    "tab": "\ta",
    "control": "a\x01b",
    "delete": "a\x7f",
    "wide space": "a\u3000b",
    "line separator": "a\u2028b",
    "secret": "access_token=AbCdEf123456",
    "quoted secret": '"access_token":"AbCdEf123456"',
    "surrogate pair": "🍵",
}
OK = RowEnd(
    0,
    Outcome.UPLOADED,
    errcode=0,
    errmsg="ok",
    http_status=204,
    attempts=2,
    bytes=5,
    md5="ab" * 16,
    file_id="cloud://a.b/c.png",
    started_at=1_764_036_000.25,
    ended_at=1_764_036_001.9996,
)


def together(texts: RowTexts) -> tuple[str, str, str, int]:
    batches = list(texts)
    rows, bad = ("".join(each) for each in zip(*batches, strict=True))
    return texts.head + rows, texts.head + bad, texts.hexdigest(), texts.hidden


def check(reported: Any) -> tuple[str, str, str, int]:
    """Return the texts, after comparing the two ways to make them."""
    run = reported.run
    for lang in Lang:
        rows = TextsOfRows(reported.ledger.rows(run), run.headers, lang, ZONE)
        found = together(row_texts(reported.ledger, run, lang, ZONE))
        assert found == together(rows)
    return found


def test_every_end_is_written_alike(a_run: Callable[..., Any]) -> None:
    check(a_run())


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_a_cell_of_the_list_is_written_alike(a_run: Callable[..., Any], text: str) -> None:
    found = check(a_run([OK, OK], cells=("007", text)))
    assert found[3] == (2 if "secret" in text or "access_token" in text else 0)


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_what_a_server_said_is_written_alike(a_run: Callable[..., Any], text: str) -> None:
    refused = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=-501001, errmsg=text, rid=text, attempts=1)
    store = detail(DetailCode.STORE_MESSAGE, message=text)
    failed = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store, store_code=text, http_status=403)
    check(a_run([OK, refused, failed, replace(OK, file_id=text, md5=text)]))


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_a_merchants_name_is_written_alike(a_run: Callable[..., Any], text: str) -> None:
    check(a_run([OK], places=[EnvRecord(0, "env-1", "wx1", text, "merchant", left=False)]))

"""Runs written straight into a ledger: reports need no network."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import EnvRecord, NewRun, RunRecord, Usage
from tcb_ops.model import Outcome, Owner, Reason, Row, RowEnd, RunSettings
from tcb_ops.reports.export import export
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tcb_ops.ledger.reader import LedgerReader

PLACES = (
    EnvRecord(0, "prod-1a2b", "wxaaaa", "晨光文具", Owner.MERCHANT, left=False),
    EnvRecord(1, "test-3c4d", "wxaaaa", "晨光文具", Owner.MERCHANT, left=False),
    EnvRecord(2, "shop-5e6f", "wxbbbb", "Blue Whale", Owner.MERCHANT, left=False),
)

NOW = 1_764_036_000.0
"""When they are exported."""

NO_PRIVILEGE = RowEnd(
    0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, errmsg="no qbase privilege", http_status=200
)
EVERY_END = (
    RowEnd(0, Outcome.UPLOADED, errcode=0, errmsg="ok", http_status=204, attempts=2, bytes=5, md5="ab" * 16),
    RowEnd(0, Outcome.UPLOADED, Reason.UNVERIFIED, errcode=0, http_status=200, attempts=2),
    RowEnd(0, Outcome.LINKED, errcode=0, errmsg="ok", attempts=1),
    RowEnd(0, Outcome.UNCHANGED, detail=detail(DetailCode.UNCHANGED_SINCE, run="20250101-abcd")),
    replace(NO_PRIVILEGE, rid="1-2-3"),
    replace(NO_PRIVILEGE, rid="1-2-4"),
    RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=987654, errmsg="what is this", http_status=200),
    RowEnd(
        0, Outcome.REFUSED, Reason.DEAD_TOKEN, errcode=40001, errmsg="invalid credential", http_status=200
    ),
    RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088),
    RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, store_code="NoSuchBucket"),
    RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=45011),
    RowEnd(0, Outcome.REFUSED, Reason.COMPONENT, errcode=61007, errmsg="api unauthorized", http_status=200),
    RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN),
    RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.MERCHANT_LEFT),
    RowEnd(
        0,
        Outcome.FAILED,
        Reason.STORE_REFUSED,
        detail(DetailCode.STORE_MESSAGE, message="Access Denied."),
        store_code="AccessDenied",
        http_status=403,
    ),
    RowEnd(
        0,
        Outcome.FAILED,
        Reason.STORE_REFUSED,
        detail(DetailCode.STORE_MESSAGE, message="<html>"),
        http_status=502,
    ),
    RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER, detail(DetailCode.NO_CONNECTION, host="127.0.0.1:1")),
    RowEnd(0, Outcome.FAILED, Reason.BAD_LINK, detail(DetailCode.LINK_HOST, host="example.com")),
    RowEnd(0, Outcome.FAILED, Reason.FILE_CHANGED),
    RowEnd(0, Outcome.FAILED, Reason.FILE_UNREADABLE),
    RowEnd(0, Outcome.FAILED, Reason.SOURCE_REDIRECT),
    RowEnd(
        0,
        Outcome.FAILED,
        Reason.NO_CONFIRMATION,
        detail(DetailCode.NO_ETAG, status=200),
        http_status=200,
    ),
    RowEnd(0, Outcome.FAILED, Reason.ETAG_MISMATCH, errcode=0, store_code="ETagMismatch", http_status=204),
    RowEnd(0, Outcome.INVALID, Reason.INVALID, as_detail(Bilingual("path starts with /", "以 / 开头"))),
    RowEnd(0, Outcome.PENDING),
)
"""Every way in which a row ends, and one that has not."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A run in its ledger."""

    ledger: Ledger
    run: RunRecord
    reader: LedgerReader | None = None
    """What is exported, where that is not the ledger itself."""

    def export(self, dest: Path, *, lang: Lang = Lang.EN, **options: Any) -> Path:
        return export(self.ledger, self.run, dest, settings(lang), now=NOW, reader=self.reader, **options)


def settings(lang: Lang) -> Settings:
    return Settings(lang=lang, timezone="Asia/Shanghai")


@pytest.fixture
def every_end() -> tuple[RowEnd, ...]:
    return EVERY_END


@pytest.fixture
def in_english() -> Settings:
    return settings(Lang.EN)


@pytest.fixture
def a_run(tmp_path: Path) -> Iterator[Callable[..., Reported]]:
    """Plan a run with these ends, line 2 first, spread over the places; other keywords are the run's own."""
    with ExitStack() as stack:
        ledgers: list[Ledger] = []

        def make(
            ends: Sequence[RowEnd] = EVERY_END,
            *,
            finished: bool = True,
            places: Sequence[EnvRecord] = PLACES,
            path: str = "活动/{line}.png",
            cells: Sequence[str] = ("007", "{path}"),
            **about: Any,
        ) -> Reported:
            if not ledgers:
                ledgers.append(Ledger(str(tmp_path / "reports.db")))
                stack.callback(ledgers[0].close)
            ledger = ledgers[0]
            new = replace(NEW, **about)
            planned = []
            for at, end in enumerate(ends):
                place, name = places[at % len(places)], path.format(line=at + 2)
                filled = tuple(cell.replace("{path}", name) for cell in cells)
                invalid = (end.detail or Bilingual("", "")) if end.outcome is Outcome.INVALID else None
                planned.append(
                    Row(at + 2, place.env, name, place.appid, place.merchant, name, filled, 5, 1, invalid)
                )
            run = ledger.plan(new, planned, places)
            left_out = {Outcome.PENDING, Outcome.INVALID}  # an invalid row has ended when it is planned
            done = [replace(end, line=at + 2) for at, end in enumerate(ends) if end.outcome not in left_out]
            ledger.record(run, done, Usage(12.3456, 7, 5))
            if finished:
                ledger.finish(run, 1_764_035_000.5)
            return Reported(ledger, ledger.run(run.id))

        yield make


NEW = NewRun(
    id="20251125-093000-k7q2",
    kind=UPLOAD,
    target="https://api.weixin.qq.com",
    list_name="清单.csv",
    list_sha256="ab" * 32,
    list_bytes=123,
    headers=("货号", "path"),
    root="/srv/files",
    settings=RunSettings(concurrency=64),
    note="每周上传",
    operator="li.na",
    host="ops-1",
    out="",
    created_at=1_764_034_000.25,
)

"""A workbook with everything that a spreadsheet program puts into one, and a run of it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import xlsxwriter

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import EnvRecord, NewRun, Usage
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant, Outcome, Owner, Reason, RowEnd, RunSettings, Selection

if TYPE_CHECKING:
    from tcb_ops.ledger.records import RunRecord

MERCHANTS = Merchants(
    (Merchant("wxtea", "茶语小铺", "tea-1a2b3c"), Merchant("wxbooks", "城南书店", "books-77aa01"))
)
ENVS = [merchant.env for merchant in MERCHANTS]
GOOD = RowEnd(
    0, Outcome.UPLOADED, errcode=0, http_status=204, attempts=2, bytes=5, file_id="cloud://tea/a.png"
)
REFUSED = RowEnd(
    0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, errmsg="no qbase privilege", http_status=200
)
HEADERS = ("env", "path", "负责人", "数量")


def dot():
    """Return a PNG of one pixel."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


def full_workbook(file, *, rows=6, table=False):
    """Write a workbook with titles, styles, filter or table, chart, picture, rules, frozen panes, and a second sheet."""
    (file.parent / "dot.png").write_bytes(dot())
    with xlsxwriter.Workbook(str(file)) as book:
        head = book.add_format({"bold": True, "bg_color": "#FFCC00", "border": 1})
        text = book.add_format({"num_format": "@", "border": 1})
        money = book.add_format({"num_format": "#,##0.00", "border": 1, "font_color": "red"})
        sheet = book.add_worksheet("十一月清单")
        other = book.add_worksheet("说明")
        other.write(0, 0, "only for us")
        other.write_formula(1, 0, "=SUM(十一月清单!D4:D9)", None, 21)
        sheet.merge_range("A1:D1", "十一月上传清单", head)
        for column, header in enumerate(HEADERS):
            sheet.write(2, column, header, head)
        for n in range(rows):
            sheet.write_string(3 + n, 0, ENVS[n % 2], text)
            sheet.write_string(3 + n, 1, f"活动/{n}.png", text)
            sheet.write_string(3 + n, 2, ("王芳", "李娜")[n // 3 % 2], text)
            sheet.write_number(3 + n, 3, n + 0.5, money)
        last = 2 + rows
        sheet.set_column("A:B", 30)
        sheet.set_column("C:XFD", 11)
        sheet.set_row(4, 33)
        sheet.freeze_panes(3, 0)
        sheet.conditional_format(3, 3, last, 3, {"type": "3_color_scale"})
        sheet.data_validation(3, 2, last, 2, {"validate": "list", "source": ["王芳", "李娜"]})
        sheet.write_comment("B4", "请核对")
        chart = book.add_chart({"type": "column"})
        chart.add_series({"values": ["十一月清单", 3, 3, last, 3]})
        sheet.insert_chart("A20", chart)
        sheet.insert_image("A40", str(file.parent / "dot.png"))
        sheet.protect("", {"sort": True})
        if table:
            sheet.add_table(2, 0, last, 3, {"columns": [{"header": header} for header in HEADERS]})
        else:
            sheet.autofilter(2, 0, last, 3)
    return file


@dataclass(frozen=True)
class Sent:
    """A run and its ledger."""

    ledger: Ledger
    run: RunRecord


def send(file, ends=(), ledger=None, **options):
    """Record a run without a network. Its rows end as given in `ends`, repeated; all are uploaded if it is empty."""
    with read_paths(file, MERCHANTS, **options) as batch:
        places = [
            EnvRecord(n, merchant.env, merchant.appid, merchant.name, Owner.MERCHANT, left=False)
            for n, merchant in enumerate(MERCHANTS)
        ]
        new = NewRun(
            "20261125-093000-k7q2",
            UPLOAD,
            "https://api.weixin.qq.com",
            file.name,
            batch.sha256,
            batch.bytes,
            batch.headers,
            "",
            RunSettings(selection=Selection.of(("sheet", options.get("sheet"))).options),
            "",
            "li.na",
            "ops-1",
            "",
            1_764_034_000.0,
        )
        assert batch.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        ledger = ledger or Ledger(str(file.parent / "ledger.db"))
        run = ledger.plan(new, batch.rows(), places)
        given = list(ends) or [GOOD]
        done = [replace(given[n % len(given)], line=row.line) for n, row in enumerate(batch.rows())]
        ledger.record(run, [end for end in done if end.outcome is not Outcome.PENDING], Usage())
        ledger.finish(run, 1_764_035_000.0)
    return Sent(ledger, ledger.run(run.id))

"""Workbooks made to cost memory: small files that are refused, or read, without ever holding much."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

MOST = 200 * 1024
"""KB of a whole process: importing the library takes some 50 MB."""
READ = """
import sys
from pathlib import Path
from tcb_ops.errors import InputError
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant
try:
    read_paths(sys.argv[1], Merchants([Merchant("wxtea", "Tea", "tea-1a2b3c")]))
    result = "read"
except InputError as error:
    result = error.problems[0].message.en
# Not ru_maxrss: it counts the process that started this one, too.
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(peak, result)
"""
KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
LIST = (
    b"<c t='inlineStr'><is><t>env</t></is></c><c t='inlineStr'><is><t>path</t></is></c>",
    b"<c t='inlineStr'><is><t>tea-1a2b3c</t></is></c><c t='inlineStr'><is><t>a.png</t></is></c>",
)
SHEET = b"<worksheet><sheetData><row>" + b"</row><row>".join(LIST) + b"</row></sheetData>%s</worksheet>"
FEW = 16 << 20
"""Bytes that any part may unpack to, however well it is packed."""


def relations(*parts: tuple[str, str, str]) -> bytes:
    result = "".join(
        f'<Relationship Id="{i}" Type="{KINDS}/{kind}" Target="{part}"/>' for i, kind, part in parts
    )
    return f"<Relationships>{result}</Relationships>".encode()


PARTS: dict[str, bytes] = {
    "_rels/.rels": relations(("m", "officeDocument", "w.xml")),
    "w.xml": f'<workbook xmlns:r="{KINDS}"><sheets><sheet name="a" r:id="a"/></sheets></workbook>'.encode(),
    "_rels/w.xml.rels": relations(
        ("a", "worksheet", "s.xml"), ("b", "sharedStrings", "t.xml"), ("c", "styles", "y.xml")
    ),
    "s.xml": SHEET % b"",
    "t.xml": b"<sst/>",
    "y.xml": b"<styleSheet/>",
}


def filled(begin: bytes, piece: bytes, end: bytes = b"", size: int = FEW) -> Iterator[bytes]:
    """Some bytes, then a piece again and again, then some bytes."""
    yield begin
    times = 1 + (1 << 16) // len(piece)
    for _ in range((size - len(begin) - len(end)) // (len(piece) * times)):
        yield piece * times
    yield end


def numbered(begin: bytes, piece: bytes, end: bytes, size: int = FEW) -> Iterator[bytes]:
    """The same with pieces that hold a number, each another one."""
    yield begin
    written = number = 0
    while written < size - (1 << 17):
        pieces = b"".join(piece.replace(b"#", b"%x" % n) for n in range(number, number + 1000))
        number += 1000
        written += len(pieces)
        yield pieces
    yield end


def workbook(file: Path, method: int = zipfile.ZIP_DEFLATED, **bad: Iterable[bytes]) -> Path:
    """A workbook with one of its parts exchanged."""
    with zipfile.ZipFile(file, "w", method) as out:
        for name, content in PARTS.items():
            with out.open(name, "w") as part:
                for piece in bad.get(name.partition(".")[0], (content,)):
                    part.write(piece)
    return file


def result_of(file: Path) -> str:
    """Read the file in a process of its own, assert what memory it took, and give what was result."""
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True, timeout=120
    )
    peak, _, result = ended.stdout.strip().partition(" ")
    assert int(peak) < MOST, f"{int(peak) / 1024:.0f} MB"
    return result


SI = b"<si><t>a</t></si>"
TOO_MUCH = {
    "nested tags": {"s": filled(b"", b"<a>", size=1 << 26)},
    "nested tags in a cell": {"s": filled(b"<worksheet><sheetData><row><c>", b"<is>")},
    "nested strings": {"t": filled(b"<sst>", b"<si>")},
    "nested runs of a rich text": {"t": filled(b"<sst><si>", b"<r>")},
    "nested styles": {"y": filled(b"<styleSheet>", b"<xf>")},
    "nested sheets": {"w": filled(b"", b"<a>")},
    "names of elements": {"s": numbered(b"<worksheet>", b"<a#/>", b"</worksheet>")},
    "names of attributes": {"t": numbered(b"<sst>", b'<si a#=""/>', b"</sst>")},
    "attributes of one element": {"t": numbered(b"<sst><si ", b'a#="" ', b"/></sst>")},
    "a long attribute": {"y": filled(b'<styleSheet><xf a="', b"x", b'"/></styleSheet>')},
    "a long comment": {"t": filled(b"<sst><!--", b"x", b"--></sst>")},
    "relations": {"s": (SHEET % b"",)} | {"_rels/w": numbered(b"<R>", b'<Relationship Id="#"/>', b"</R>")},
    "a well-packed sheet": {"s": filled(b"<worksheet>", b"<a/>", b"</worksheet>", 1 << 26)},
    "well-packed strings": {"t": filled(b"<sst>", SI, b"</sst>", 1 << 26)},
    "a large part of styles": {"y": numbered(b"<styleSheet>", b'<xf a="#"/>', b"</styleSheet>", 33 << 20)},
}
DAMAGED = {
    "text of a cell": {"s": filled(b"<worksheet><sheetData><row><c><v>", "茶".encode(), b"</v></c></row></sheetData></worksheet>")},
    "runs of a rich text": {"t": filled(b"<sst><si>", b"<r><t>a</t></r>", b"</si></sst>")},
    "one string": {"t": filled(b"<sst><si><t>", "𠀀".encode(), b"</t></si></sst>")},
    "styles": {"y": filled(b"<styleSheet><cellXfs>", b"<xf/>", b"</cellXfs></styleSheet>")},
    "formats": {"y": numbered(b"<styleSheet>", b'<numFmt numFmtId="1#"/>', b"</styleSheet>")},
    "sheets": {"w": filled(f'<workbook xmlns:r="{KINDS}">'.encode(), b'<sheet r:id="a"/>', b"</workbook>")},
    "merged cells": {"s": filled(SHEET.partition(b"%s")[0], b'<mergeCell ref="A1"/>', b"</worksheet>")},
    "hidden columns": {
        "s": filled(SHEET.partition(b"%s")[0], b'<col hidden="1" min="1" max="1"/>', b"</worksheet>")
    },
    "formulas that fill an area": {
        "s": filled(b"<worksheet><sheetData><row><c>", b'<f t="array" ref="A1:B9"/>', b"</c></row></sheetData></worksheet>")
    },
    "columns that are none": {
        "s": numbered(b"<worksheet><sheetData>", b'<row><c r="@#A1"/></row>', b"</sheetData></worksheet>")
    },
    "an entity within an entity": {
        "t": (b'<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><sst><si><t>&b;</t></si></sst>',)
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_workbook_with_far_too_much_of_something_is_refused_before_it_costs_memory(
    tmp_path: Path, name: str
) -> None:
    assert result_of(workbook(tmp_path / "b.xlsx", **TOO_MUCH[name])).startswith(
        "the workbook unpacks to far more data than a list can have"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_a_part_that_no_spreadsheet_writes_is_refused_before_it_costs_memory(
    tmp_path: Path, name: str
) -> None:
    assert result_of(workbook(tmp_path / "b.xlsx", **DAMAGED[name])).startswith("the workbook is damaged")


@pytest.mark.slow
def test_short_rows_that_stand_far_right_are_read_in_little_memory(tmp_path: Path) -> None:
    head = b"<worksheet><sheetData><row>" + LIST[0] + b"</row>"
    far = filled(head, b'<row><c r="XFD1"><v>1</v></c></row>', b"</sheetData></worksheet>", 1 << 16)
    assert result_of(workbook(tmp_path / "b.xlsx", s=far)) == "there is a header but no row below it"


@pytest.mark.slow
def test_many_sheets_with_wide_heads_are_read_in_little_memory(tmp_path: Path) -> None:
    row = b'<row><c r="A1" t="str"><v>env</v></c><c r="B1" t="str"><v>path</v></c><c r="XFD1"><v>1</v></c></row>'
    sheets = b"".join(b'<sheet name="%d" r:id="a"/>' % n for n in range(100))
    result = result_of(
        workbook(
            tmp_path / "b.xlsx",
            s=(b"<worksheet><sheetData>", row * 25, b"</sheetData></worksheet>"),
            w=(b'<workbook xmlns:r="%s">' % KINDS.encode(), sheets, b"</workbook>"),
        )
    )
    assert result.startswith("several sheets look like a list")


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_packed_as_no_workbook_is_gets_refused(tmp_path: Path, method: int) -> None:
    file = workbook(tmp_path / "b.xlsx", method, s=filled(b"<worksheet>", b" ", b"</worksheet>", 1 << 24))
    assert result_of(file).startswith("the workbook is damaged")


@pytest.mark.slow
def test_a_part_that_says_it_is_packed_larger_than_the_file_gains_nothing(tmp_path: Path) -> None:
    file = workbook(tmp_path / "b.xlsx", t=filled(b"<sst>", SI, b"</sst>", 1 << 26))
    data = bytearray(file.read_bytes())
    at = data.rindex(b"t.xml") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 20 : at + 24] = struct.pack("<I", 1 << 31)
    file.write_bytes(data)
    assert result_of(file).startswith("the workbook unpacks to far more")


@pytest.mark.slow
def test_a_zip_with_a_million_parts_is_refused_before_its_directory_is_read(tmp_path: Path) -> None:
    entry = (
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    )
    times = 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65_535, 65_535, len(entry) * times, 0, 0)
    with (tmp_path / "b.xlsx").open("wb") as out:
        out.write(b"PK\x03\x04")
        for _ in range(1000):
            out.write(entry * (times // 1000))
        out.write(end)
    result = result_of(tmp_path / "b.xlsx")
    assert result.startswith("the workbook unpacks to far more")

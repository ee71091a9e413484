"""Workbooks made to cost memory: small files that are refused, or read, without ever holding much."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

MOST = 250 * 1024
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
LONG = b"<sst><si><t>" + b"x" * (1 << 20) + b"</t></si></sst>"
CELLS = b"".join(b'<row><c t="s"><v>0</v></c></row>' for _ in range(10_000))
BOMBS = {
    "nested tags": {"s": filled(b"", b"<a>", size=1 << 26)},
    "nested strings in a cell": {"s": filled(b"<worksheet><sheetData><row><c>", b"<is>")},
    "nested runs of a rich text": {"t": filled(b"<sst><si>", b"<r>")},
    "nested styles": {"y": filled(b"<styleSheet>", b"<xf>", size=FEW - 1)},
    "well-packed strings": {"t": filled(b"<sst>", SI, b"</sst>", 1 << 26)},
}
REFUSED = {
    "a large part of styles": (
        "the workbook unpacks to far more", {"y": numbered(b"<styleSheet>", b'<xf a="#"/>', b"</styleSheet>", 33 << 20)}
    ),
    "a long string in many cells": (
        "the sheet is too large", {"s": (b"<worksheet><sheetData>", CELLS, b"</sheetData></worksheet>"), "t": (LONG,)}
    ),
    "an entity within an entity": (
        "the workbook is damaged",
        {"t": (b'<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><sst><si><t>&b;</t></si></sst>',)},
    ),
} | {name: ("the workbook unpacks to far more", parts) for name, parts in BOMBS.items()}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_workbook_made_to_cost_memory_is_refused_before_it_does(tmp_path: Path, name: str) -> None:
    message, parts = REFUSED[name]
    assert result_of(workbook(tmp_path / "b.xlsx", **parts)).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_packed_as_no_workbook_is_gets_refused(tmp_path: Path, method: int) -> None:
    file = workbook(tmp_path / "b.xlsx", method, s=filled(b"<worksheet>", b" ", b"</worksheet>", 1 << 23))
    assert result_of(file).startswith("the workbook is damaged")

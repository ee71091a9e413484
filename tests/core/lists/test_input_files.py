from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import InputError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.lists.input_files import format_problem, open_text
from tcb_ops.model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHINESE = "环境ID,上传路径\r\ntea-1a2b3c,海报/春季.png\r\n"


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        pytest.param(CHINESE.encode(), "UTF-8", CHINESE, id="utf-8"),
        pytest.param(CHINESE.encode("utf-8-sig"), "UTF-8 (BOM)", CHINESE, id="utf-8 with bom"),
        pytest.param(CHINESE.encode("gb18030"), "GB18030", CHINESE, id="gb18030"),
        pytest.param(CHINESE.encode("gbk"), "GB18030", CHINESE, id="gbk"),
        pytest.param(
            "環境\U00020000".encode("gb18030"), "GB18030", "環境\U00020000", id="gb18030 four bytes"
        ),
        pytest.param(
            b"\x84\x31\x95\x33" + "环境".encode("gb18030"), "GB18030 (BOM)", "环境", id="gb18030 with bom"
        ),
        pytest.param(CHINESE.encode("utf-16"), "UTF-16", CHINESE, id="utf-16 little endian"),
        pytest.param(b"\xfe\xff" + CHINESE.encode("utf-16-be"), "UTF-16", CHINESE, id="utf-16 big endian"),
        pytest.param(b"env,path\n", "UTF-8", "env,path\n", id="ascii"),
        pytest.param(b"\xef\xbb\xbfa", "UTF-8 (BOM)", "a", id="shorter than any magic number"),
    ],
)
def test_the_encoding_is_bom_then_utf8_then_gb18030(
    write: Callable[..., Path], data: bytes, encoding: str, text: str
) -> None:
    with open_text(write(data)) as decoded:
        assert decoded.text.read() == text
    assert (decoded.encoding, decoded.warnings) == (encoding, ())
    assert (decoded.bytes, decoded.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_character_cut_by_the_reading_chunk_is_whole(write: Callable[..., Path]) -> None:
    for shift in range(4):
        text = "x" * ((1 << 20) - shift) + "环境\n"
        for encoding in ("utf-8", "gb18030"):
            with open_text(write(text, encoding=encoding)) as decoded:
                assert decoded.text.read() == text


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        pytest.param(b"", 0, "empty", id="empty"),
        pytest.param(b"\xef\xbb\xbf", 0, "empty", id="only a bom"),
        pytest.param(b"PK\x03\x04\x14\x00", 0, "workbook", id="xlsx"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", 0, "workbook", id="xls"),
        pytest.param(b"env,path\na,b\nc,\x00d\n", 3, "NUL", id="nul bytes"),
        pytest.param("env\npath".encode("utf-16-le"), 1, "NUL", id="utf-16 without bom"),
        pytest.param(b"env,path\r\na,\xff\xff\r\n", 2, "UTF-8, GB18030", id="neither encoding"),
        pytest.param(b"\xef\xbb\xbfenv\n" + "环境".encode("gbk"), 2, "UTF-8 (BOM)", id="the bom lies"),
        pytest.param(b"env\n\xe7", 2, "UTF-8, GB18030", id="cut in the middle of a character"),
        pytest.param(b"\xff\xfee\x00n", 1, "UTF-16", id="utf-16 cut in half"),
        pytest.param("\ufeffenv\na\0b".encode("utf-16-le"), 2, "UTF-16", id="a NUL character in utf-16"),
        pytest.param(b"x" * (17 << 20), 0, "16 MiB", id="one endless line"),
    ],
)
def test_what_is_no_text_is_refused_naming_the_line(
    write: Callable[..., Path], data: bytes, line: int, says: str
) -> None:
    with pytest.raises(InputError) as raised, open_text(write(data)):
        pass
    (problem,) = raised.value.problems
    assert (problem.line, problem.skippable) == (line, False)
    assert says in problem.message.en


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    errors: list[InputError] = []

    def read() -> None:
        try:
            with open_text(tmp_path / "pipe"):
                pass
        except InputError as error:
            errors.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert [p.message.en for e in errors for p in e.problems] == [
        "this is not a regular file but a pipe or a device"
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(write: Callable[..., Path]) -> None:
    path = write("env,path\n")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"), open_text(path):
        pass


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        pytest.param("env,path\ntea,路.png\n", "gbk", "read as UTF-8", id="gbk, a latin-1 sign"),
        pytest.param("env,path\ntea,一.png\n", "gbk", "'һ'", id="gbk, cyrillic"),
        pytest.param("env,path\ntea,café.png\n", "utf-8", "'é'", id="latin-1"),
        pytest.param("env,path\ntea,кот.png\n", "gb18030", "read as GB18030", id="cyrillic in gb18030"),
    ],
)
def test_a_text_with_suspicious_letters_and_no_chinese_warns(
    write: Callable[..., Path], text: str, encoding: str, says: str
) -> None:
    with open_text(write(text, encoding=encoding)) as decoded:
        pass
    (warning,) = decoded.warnings
    assert says in warning.en


@pytest.mark.parametrize(
    "text", ["env,海报\ntea,café.png\n", "env,path\ntea,a\u00a0b.png\n"], ids=["with chinese", "a space"]
)
def test_suspicious_letters_beside_chinese_do_not_warn(write: Callable[..., Path], text: str) -> None:
    with open_text(write(text)) as decoded:
        pass
    assert decoded.warnings == ()


def test_utf8_with_a_damaged_line_read_as_gb18030_warns_naming_the_line(write: Callable[..., Path]) -> None:
    good = "说明,上传路径的名字要写全\n".encode() * 3
    with open_text(write(good + "海报".encode("gbk") + b"\n")) as decoded:
        pass
    assert decoded.encoding == "GB18030"
    assert "up to line 4" in decoded.warnings[0].en


def test_a_file_written_to_while_it_is_read_is_refused(write: Callable[..., Path]) -> None:
    path = write("env,path\n")
    reading = open_text(path)
    reading.__enter__().text.read()
    with path.open("a") as file:
        file.write("tea,a\n")
    with pytest.raises(InputError, match="changed while"):
        reading.__exit__(None, None, None)


PROBLEM = Problem(7, "路径", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))
WHOLE = Problem(0, "", Bilingual("is wrong", "不对"), Bilingual("fix it", "请改正"))


@pytest.mark.parametrize(
    ("problem", "lang", "line"),
    [
        (PROBLEM, Lang.EN, "p.csv:7: column '路径': is wrong — fix it"),
        (PROBLEM, Lang.ZH, "p.csv:7: “路径”列：不对 —— 请改正"),
        (WHOLE, Lang.EN, "p.csv: is wrong — fix it"),
        (WHOLE, Lang.ZH, "p.csv: 不对 —— 请改正"),
    ],
)
def test_a_problem_is_one_line_that_names_file_line_and_column(
    problem: Problem, lang: Lang, line: str
) -> None:
    assert format_problem("p.csv", problem).of(lang) == line

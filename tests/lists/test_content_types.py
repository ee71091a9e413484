"""The type of an object by its name, the same on every machine."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import InputError
from tcb_ops.lists import sources
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.sources import content_type_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tcb_ops.lists.merchants import Merchants


@pytest.mark.parametrize(
    ("path", "file", "kind"),
    [
        ("a/b.PNG", "", "image/png"),
        ("a/b.svg", "", "image/svg+xml"),
        ("a/b.webp", "", "image/webp"),
        ("a/b.avif", "", "image/avif"),
        ("a/b.woff2", "", "font/woff2"),
        ("a/b.wasm", "", "application/wasm"),
        ("a/b.mjs", "", "text/javascript"),
        ("a/b.js", "", "text/javascript"),
        ("a/b.m4a", "", "audio/mp4"),
        ("a/b.tar.gz", "", "application/gzip"),
        ("a/b.html", "c.png", "text/html"),
        ("a/b", "c.webp", "image/webp"),
        ("a.png/b", "c", "application/octet-stream"),
        ("a/b.unknown", "c.png", "application/octet-stream"),
        ("a/.png", "c", "application/octet-stream"),
        ("a/b.", "", "application/octet-stream"),
    ],
)
def test_the_type_is_that_of_the_path_s_extension_else_of_the_file_s(path: str, file: str, kind: str) -> None:
    assert content_type_of(path, file) == kind


def test_what_the_machine_says_of_an_extension_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "mime.types").write_text("x/machine odd9 png\n")
    try:
        mimetypes.init([str(tmp_path / "mime.types")])
        sources._types.cache_clear()
        assert mimetypes.guess_type("a.odd9")[0] == "x/machine"
        assert content_type_of("a.odd9") == "application/octet-stream"
        assert content_type_of("a.png") == "image/png"
    finally:
        mimetypes.init()
        sources._types.cache_clear()


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("content_type,cache_control", {}),
        ("Content-Type,Cache-Control", {}),
        ("内容类型,缓存控制", {}),
        ("类型,缓存", {"content_type": "类型", "cache_control": "缓存"}),
    ],
)
def test_the_columns_are_found_and_carried_through(
    write: Callable[..., Path], merchants: Merchants, header: str, columns: dict[str, str]
) -> None:
    text = f"env,path,{header}\ntea-1a2b3c,a.png, image/x-own ,max-age=60\ntea-1a2b3c,b.png,,\n"
    batch = read_paths(write(text), merchants, columns=columns)
    first, second = batch.rows()
    assert (first.content_type, first.cache_control) == ("image/x-own", "max-age=60")
    assert (second.content_type, second.cache_control) == ("", "")
    assert batch.headers == ("env", "path", *header.split(","))
    assert first.cells == ("tea-1a2b3c", "a.png", " image/x-own ", "max-age=60")


@pytest.mark.parametrize("bad", ["image/png\r\nX-Evil: 1", "a/b\tc", "a/b\x1bc", "a/b\x7fc"])
@pytest.mark.parametrize("column", ["content_type", "缓存控制"])
def test_a_control_character_is_a_problem_of_its_row(
    write: Callable[..., Path], merchants: Merchants, column: str, bad: str
) -> None:
    text = f'env,path,{column}\ntea-1a2b3c,a.png,\ntea-1a2b3c,b.png,"{bad}"\n'
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (3, column)
    assert "control character" in problem.message.en
    (good, skipped) = read_paths(write(text), merchants, on_bad="skip").rows()
    assert good.invalid is None
    assert skipped.invalid is not None


@pytest.mark.parametrize(
    "bad", ["foo", "text", "海报", "image/", "/png", "image png", "a/b/c", "image/png charset"]
)
def test_a_type_that_is_none_is_a_problem_of_its_row(
    write: Callable[..., Path], merchants: Merchants, bad: str
) -> None:
    text = f"env,path,内容类型\ntea-1a2b3c,a.png,{bad}\ntea-1a2b3c,b.png,text/html; charset=utf-8\n"
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    (problem,) = raised.value.problems
    assert (problem.line, problem.column, problem.value) == (2, "内容类型", bad)
    assert "not a media type (type/subtype)" in problem.message.en
    assert "image/png" in problem.fix.en

"""URLs in the column `file`: what of them is kept, and where a list hides their queries."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from tcb_ops.details import DetailCode
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.sources import UnusableFile, concealed, content_type_of, split_source, whole_source
from tcb_ops.lists.staging import write_fixme
from tcb_ops.model import Merchant, Secret, SourceFile, is_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KNOWN = Merchants((Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),))
SIGNED = "https://a.com/b.png?sign=0123456789abcdef"


@pytest.mark.parametrize(
    ("file", "is_url"),
    [
        ("https://a.com/b.png", True),
        ("s3://bucket/key", True),
        ("HTTP://a.com", True),
        ("C://a.png", False),
        ("D:/素材/a.png", False),
        ("a/b.png", False),
        ("//nas/a.png", False),
        ("what?.png", False),
        ("https:/a.com/b.png", True),
        ("https：//a.com/b.png", True),
        ("<https://a.com/b.png>", True),
        ('=HYPERLINK("https://a.com/b?sign=x")', True),
        ("https:\\\\a.com\\b.png", True),
        ("//a.com/b.png?sign=x", True),
        ("a.com/b.png?sign=x", True),
        ("a.com/b.png?•••", True),
    ],
)
def test_what_is_a_url(file: str, is_url: bool) -> None:
    assert is_source(file) is is_url


@pytest.mark.parametrize(
    ("url", "shown", "query"),
    [
        ("https://a.com/b.png", "https://a.com/b.png", None),
        (SIGNED, "https://a.com/b.png?•••", "sign=0123456789abcdef"),
        ("https://a.com/b.png?", "https://a.com/b.png?•••", ""),
        ("https://a.com?x=1", "https://a.com?•••", "x=1"),
        ("https://a.com/b?x=1?y=https://c/d@e", "https://a.com/b?•••", "x=1?y=https://c/d@e"),
    ],
)
def test_a_url_is_taken_apart_and_put_together(url: str, shown: str, query: str | None) -> None:
    assert split_source(url) == (shown, query)
    assert whole_source(shown, None if query is None else Secret(query)).reveal() == url


def test_a_password_in_a_url_is_never_kept() -> None:
    assert split_source("https://me:pass@a.com/b@c.png?x=1") == ("https://•••@a.com/b@c.png?•••", "x=1")
    assert split_source("https://me:pa/ss@a.com/c.png") == ("https://•••@a.com/c.png", None)
    assert split_source("https://me:pa?ss@a.com/c.png") == ("https://•••?•••", "ss@a.com/c.png")
    assert split_source("https://a.com:443/b@c.png#x=1") == ("https://a.com:443/b@c.png#•••", "x=1")
    assert split_source("https://[::1]:80/b@c.png") == ("https://[::1]:80/b@c.png", None)


def test_the_row_keeps_no_query_wherever_the_list_repeats_it() -> None:
    query = SIGNED.partition("?")[2]
    cells = concealed(
        ["tea", "a.png", f" {SIGNED} ", f"see {SIGNED}", f"?{query}", "sign", "https://b.cn/?id=5"]
    )
    assert cells[:6] == [
        "tea",
        "a.png",
        " https://a.com/b.png?••• ",
        "see https://a.com/b.png?•••",
        "?•••",
        "sign",
    ]
    assert not any(query in cell for cell in cells)


def listed(folder: Path, *lines: Sequence[str]) -> Path:
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("env", "path", "file", "link"), *lines])
    return folder / "list.csv"


def looked_at(urls: Sequence[Secret]) -> dict[Secret, SourceFile | UnusableFile]:
    return {url: SourceFile(5, f'"{url.reveal()[-1]}"') for url in urls}


def test_a_list_keeps_facts_of_urls_and_other_columns_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(b"local")
    other = "https://shop.cn/?id=5"
    lines = [
        ("tea-1a2b3c", "a.png", SIGNED, other),
        ("tea-1a2b3c", "b.png", "https://a.com/图/b.png", other),
        ("tea-1a2b3c", "c.png", "c.png", other),
    ]
    with read_paths(listed(tmp_path, *lines), KNOWN, tmp_path, sources=looked_at) as batch:
        rows = list(batch.rows())
        assert [(row.file, row.size, row.etag) for row in rows] == [
            ("https://a.com/b.png?•••", 5, '"f"'),
            ("https://a.com/图/b.png", 5, '"g"'),
            ("c.png", 5, ""),
        ]
        assert rows[0].cells == ("tea-1a2b3c", "a.png", "https://a.com/b.png?•••", other)
        assert list(batch.staging.queries()) == [(2, Secret("sign=0123456789abcdef"))]
        assert batch.total_bytes == 15


def test_a_row_that_is_shifted_shows_no_query(tmp_path: Path) -> None:
    lines = [("tea-1a2b3c", "a.png", "x", "y", SIGNED), ("tea-1a2b3c", "b.png", "x", SIGNED, "y")]
    with read_paths(listed(tmp_path, *lines), KNOWN, on_bad="skip") as batch:
        write_fixme(batch.problems, tmp_path / "fix-me.csv")
        shown = "".join(p.message.en + p.value for p in batch.problems)
        assert "0123456789abcdef" not in shown + (tmp_path / "fix-me.csv").read_text("utf-8")
        assert [p.message.code for p in batch.problems] == [DetailCode.CELLS_BEYOND] * 2  # type: ignore[attr-defined]


def test_without_settings_a_url_is_refused_where_files_are_checked(tmp_path: Path) -> None:
    with read_paths(listed(tmp_path, ("tea-1a2b3c", "a.png", SIGNED, "")), KNOWN) as batch:
        assert not batch.problems
    with read_paths(
        listed(tmp_path, ("tea-1a2b3c", "a.png", SIGNED, "")), KNOWN, tmp_path, on_bad="skip"
    ) as batch:
        (problem,) = batch.problems
        assert problem.column == "file"
        assert "a.com" in problem.message.en
        assert "source_hosts" in problem.fix.en


def test_the_extension_is_that_of_the_urls_path() -> None:
    assert content_type_of("a/b", "https://a.com/c.webp?•••") == "image/webp"
    assert content_type_of("a/b.png", "https://a.com/c.webp") == "image/png"
    assert content_type_of("a/b", "what?.webp") == "image/webp"

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.lists.generate import is_included, scan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for file in (
        "a.png",
        "b.JPG",
        "春/a.png",
        "春/深/c.png",
        ".DS_Store",
        "Thumbs.db",
        "春/thumbs.db",
        "desktop.ini",
        "~$list.xlsx",
        ".git/config",
        ".hidden",
    ):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(b"x")
    return source


def test_a_folder_gives_all_files_below_it_but_what_nobody_means(folder: Path) -> None:
    (folder / "linked").symlink_to(folder / "春", target_is_directory=True)
    found = scan(folder)
    assert (found.folder, found.files) == (folder, ("a.png", "b.JPG", "春/a.png", "春/深/c.png"))
    assert (found.junk, found.own, found.excluded) == (8, 0, 0)


def test_a_file_gives_itself(folder: Path) -> None:
    found = scan(folder / "春" / "a.png")
    assert (found.folder, found.files) == (folder / "春", ("a.png",))


def test_tokens_and_the_ledger_are_never_taken(folder: Path) -> None:
    locks = folder / "ledger-locks"
    locks.mkdir()
    (locks / "x.lock").touch()
    (folder / "innocent.txt").symlink_to(folder / "a.png")
    own = frozenset(map(os.path.realpath, (folder / "a.png", locks)))
    found = scan(folder, own=own)
    assert (found.files, found.own) == (("b.JPG", "春/a.png", "春/深/c.png"), 3)
    with pytest.raises(UsageError, match="tcb-ops's own: 1"):
        scan(folder / "a.png", own=own)


@pytest.mark.parametrize(
    ("file", "include", "exclude", "meant"),
    [
        ("a/b.png", [], [], True),
        ("a/b.PNG", ["*.png"], [], True),
        ("a/b.png", ["*.PNG"], [], True),
        ("a/b.png", ["*.jpg"], [], False),
        ("a/b.png", ["*.jpg", "b.*"], [], True),
        ("a/b.png", ["*.png"], ["b.*"], False),
        ("a/b.png", ["a/*"], [], True),
        ("a/b.png", ["b/*"], [], False),
        ("a/b.png", [], ["a/*"], False),
        ("旧/b.png", [], ["旧/*"], False),
    ],
)
def test_patterns_leave_files_in_or_out(
    file: str, include: list[str], exclude: list[str], meant: bool
) -> None:
    assert is_included(file, include, exclude) is meant


def test_what_is_not_there_or_leaves_nothing_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        scan(folder / "nowhere")
    with pytest.raises(UsageError, match=r"no file remains \(hidden or temporary: 7; .*--exclude: 4"):
        scan(folder, include=["*.gif"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(folder: Path) -> None:
    (folder / "春").chmod(0)
    try:
        with pytest.raises(UsageError, match="cannot be read"):
            scan(folder)
    finally:
        (folder / "春").chmod(0o700)

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tcb_ops.lists.sources import MAX_FILE_BYTES, LocalFile, LocalFiles, UnusableFile


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "目录").mkdir(parents=True)
    (root / "目录/图 1.png").write_bytes(b"1234")
    (root / "a.png").write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "root-of-another").mkdir()
    (tmp_path / "root-of-another/x.png").write_bytes(b"x")
    return root


def test_a_regular_file_gives_its_size_and_time(root: Path) -> None:
    found = LocalFiles(root).inspect("目录/图 1.png")
    assert found == LocalFile(4, (root / "目录/图 1.png").stat().st_mtime_ns)
    assert LocalFiles(root).inspect("a.png") == LocalFile(0, (root / "a.png").stat().st_mtime_ns)
    assert LocalFiles(root).inspect("目录/../a.png") == LocalFiles(root).inspect("a.png")


@pytest.mark.parametrize(
    ("file", "says"),
    [
        pytest.param("none.png", "there is no file none.png", id="missing"),
        pytest.param("a.png/b.png", "there is no file", id="below a file"),
        pytest.param("目录", "is a folder", id="folder"),
        pytest.param("目录/", "is a folder", id="folder with a slash"),
        pytest.param("../outside.png", "outside the root", id="outside by dots"),
        pytest.param("../root-of-another/x.png", "outside the root", id="a folder whose name begins alike"),
        pytest.param("..", "outside the root", id="the folder above"),
        pytest.param("x" * 300, "cannot be inspected", id="a name too long"),
    ],
)
def test_an_unusable_file_is_reported_with_the_reason(root: Path, file: str, says: str) -> None:
    unusable = LocalFiles(root).inspect(file)
    assert isinstance(unusable, UnusableFile)
    assert says in unusable.message.en


def test_an_absolute_file_is_refused_even_inside_the_root(root: Path) -> None:
    unusable = LocalFiles(root).inspect(str(root / "a.png"))
    assert isinstance(unusable, UnusableFile)
    assert "not relative" in unusable.message.en


def test_links_are_resolved_before_a_file_counts_as_inside(root: Path) -> None:
    (root / "out.png").symlink_to(root.parent / "outside.png")
    (root / "in.png").symlink_to(root / "a.png")
    (root / "away").symlink_to(root.parent, target_is_directory=True)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "dangling.png").symlink_to(root / "gone.png")
    messages = {}
    for file in ("out.png", "away/outside.png", "loop.png", "dangling.png"):
        unusable = LocalFiles(root).inspect(file)
        assert isinstance(unusable, UnusableFile)
        messages[file] = unusable.message.en
    assert "outside the root" in messages["out.png"]
    assert "outside the root" in messages["away/outside.png"]
    assert "cannot be inspected" in messages["loop.png"]
    assert "there is no file" in messages["dangling.png"]
    assert isinstance(LocalFiles(root).inspect("in.png"), LocalFile)


def test_a_root_that_is_itself_a_link_is_fine(root: Path) -> None:
    (root.parent / "link").symlink_to(root, target_is_directory=True)
    assert isinstance(LocalFiles(root.parent / "link").inspect("a.png"), LocalFile)


def test_special_files_are_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        here = Path.cwd()
        os.chdir(root)  # a socket's name has 108 bytes at most
        try:
            unix.bind("socket")
        finally:
            os.chdir(here)
        for name in ("pipe", "socket"):
            unusable = LocalFiles(root).inspect(name)
            assert isinstance(unusable, UnusableFile)
            assert "not a regular file" in unusable.message.en


def test_five_gigabytes_pass_and_a_byte_more_does_not(root: Path) -> None:
    for name, size in (("full", MAX_FILE_BYTES), ("over", MAX_FILE_BYTES + 1)):
        with (root / name).open("wb") as file:
            file.truncate(size)
    found, unusable = LocalFiles(root).inspect("full"), LocalFiles(root).inspect("over")
    assert isinstance(found, LocalFile)
    assert isinstance(unusable, UnusableFile)
    assert "5,368,709,121 bytes" in unusable.message.en


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(root: Path) -> None:
    (root / "a.png").chmod(0)
    unusable = LocalFiles(root).inspect("a.png")
    assert isinstance(unusable, UnusableFile)
    assert "no permission" in unusable.message.en


def test_a_file_is_looked_at_once_however_many_rows_send_it(root: Path) -> None:
    files = LocalFiles(root)
    first = files.inspect("a.png")
    (root / "a.png").unlink()
    assert files.inspect("a.png") == first


def test_a_root_that_is_not_there_is_a_problem_of_the_whole(root: Path) -> None:
    assert LocalFiles(root).problem() is None
    for wrong in (root / "nowhere", root / "a.png"):
        problem = LocalFiles(wrong).problem()
        assert problem is not None
        assert (problem.line, problem.skippable) == (0, False)


def test_the_real_file_is_suggested_where_case_or_unicode_form_differs(root: Path) -> None:
    (root / "Banner").mkdir()
    (root / "Banner" / "Café.PNG").write_bytes(b"x")
    (root / "two.png").write_bytes(b"x")
    (root / "Two.png").write_bytes(b"x")
    fixes = {}
    for file in ("banner/café.png", "Banner/Cafe\u0301.PNG", "TWO.PNG", "Banner/none.png", "a.png/x"):
        unusable = LocalFiles(root).inspect(file)
        assert isinstance(unusable, UnusableFile)
        fixes[file] = unusable.fix.en
    assert "did you mean Banner/Café.PNG?" in fixes["banner/café.png"]
    assert "looks the same but is in another Unicode form" in fixes["Banner/Cafe\u0301.PNG"]
    assert all("check the name" in fixes[file] for file in ("TWO.PNG", "Banner/none.png", "a.png/x"))


def test_a_file_named_on_windows_gets_the_map_option_suggested(root: Path) -> None:
    for file in ("D:/素材/春.png", "//nas/public/春.png"):
        unusable = LocalFiles(root).inspect(file)
        assert isinstance(unusable, UnusableFile)
        assert "not relative" in unusable.message.en
        assert f"--map '{file.rpartition('/')[0]}=FOLDER'" in unusable.fix.en

"""Picking files of the server, and uploading small lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.panels.controls import Worker
from tcb_ops.panels.list_reader import LARGEST_UPLOAD, LIST_ENDINGS, SHOWN, Picker, entries


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.csv", "a.XLSX", "c.tsv", "notes.txt", ".hidden.csv"):
        (tmp_path / name).touch()
    (tmp_path / "素材").mkdir()
    (tmp_path / "素材" / "深.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_picker(**options: Any) -> tuple[Picker, Worker, list[str]]:
    picked: list[str] = []
    worker = Worker(Lang.EN)
    picker = Picker(
        worker, "op-x", Bilingual("List", "清单"), picked=lambda: picked.append(picker.path), **options
    )
    return picker, worker, picked


def test_folders_come_first_then_lists_and_nothing_else(folder: Path):
    assert [label for label, _ in entries(folder, LIST_ENDINGS)[0]] == ["素材/", "a.XLSX", "b.csv", "c.tsv"]
    assert [label for label, _ in entries(folder, ())[0]] == ["素材/"]


def test_a_folder_with_very_many_entries_is_cut_and_counted(tmp_path: Path):
    for number in range(SHOWN + 3):
        (tmp_path / f"{number}.csv").touch()
    listed, more = entries(tmp_path, LIST_ENDINGS)
    assert (len(listed), more) == (SHOWN, 3)


def test_a_folder_that_cannot_be_opened_is_reported(folder: Path):
    with pytest.raises(UsageError, match="cannot be opened"):
        entries(folder / "nowhere", LIST_ENDINGS)


def test_a_list_is_found_by_browsing(folder: Path):
    picker, _, picked = a_picker()
    picker.browse.click()
    assert picker.entries.label == "a.XLSX"  # not a folder, where there are files
    picker.entries.label = "素材/"
    picker.enter.click()
    assert picker.entries.label == "深.csv"
    picker.up.click()
    picker.entries.label = "素材/"
    picker.enter.click()
    picker.enter.click()
    assert picked == ["素材/深.csv"]
    assert picker._browser.layout.display == "none"


def test_the_folder_that_is_shown_is_used_not_the_one_that_is_marked(folder: Path):
    picker, _, picked = a_picker(endings=())
    picker.browse.click()
    picker.use.click()
    picker.browse.click()
    picker.enter.click()
    picker.use.click()
    assert picked == [".", "素材"]


def test_browsing_for_files_and_for_folders_differ(folder: Path):
    assert [a_picker(endings=endings)[0].browse.description for endings in (LIST_ENDINGS, ())] == [
        "Browse files…",
        "Browse folders…",
    ]


def test_a_path_may_be_typed(folder: Path):
    picker, _, picked = a_picker()
    picker.text.value = " b.csv "
    assert picked == ["b.csv"]


def test_browsing_a_folder_that_is_gone_says_so(folder: Path):
    picker, worker, _ = a_picker(path="gone/list.csv")
    picker.browse.click()
    assert "gone cannot be opened" in worker.line.value


def uploaded(name: str, content: bytes) -> Any:
    return (
        {
            "name": name,
            "type": "text/csv",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": None,
        },
    )


def test_an_uploaded_list_is_kept_under_a_name_of_its_own(folder: Path):
    picker, _, picked = a_picker()
    for content in (b"env,path\n", b"other\n", b"env,path\n"):
        picker._take(uploaded("../../清单.csv", content))
    assert picked == ["uploads/清单.csv", "uploads/清单-2.csv", "uploads/清单.csv"]
    assert Path("uploads/清单-2.csv").read_bytes() == b"other\n"
    assert picker.upload.value == ()


@pytest.mark.parametrize(
    ("content", "shown"),
    [(b"", "the file is empty, or too large for the browser"), (b"x" * (LARGEST_UPLOAD + 1), "up to 5 MB")],
    ids=["empty", "too large"],
)
def test_an_upload_that_is_empty_or_too_large_is_refused(folder: Path, content: bytes, shown: str):
    picker, _, picked = a_picker()
    with pytest.raises(UsageError, match=shown):
        picker._take(uploaded("清单.csv", content))
    assert picked == []


def test_browsing_begins_where_the_chosen_file_is_and_hides_what_is_no_list(folder: Path):
    picker, _, _ = a_picker(
        path="素材/深.csv", hidden=frozenset({(folder / "素材" / "tokens.csv").resolve()})
    )
    (folder / "素材" / "tokens.csv").touch()
    picker.browse.click()
    assert [label for label, _ in picker.entries.options] == ["深.csv"]
    picker.browse.click()
    picker.text.value = "b.csv"
    picker.browse.click()
    assert picker.entries.label == "b.csv"
    picker._browser.children[-1].children[-1].click()  # Close
    assert picker._browser.layout.display == "none"
    assert picker.path == "b.csv"

"""Picking a list, or the folder of the files, from what stands beside the notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.panels.controls import Worker
from tcb_ops.panels.list_reader import LIST_ENDINGS, SHOWN, Picker, pickable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.csv", "a.XLSX", "c.tsv", "notes.txt", ".hidden.csv", "tokens.csv"):
        (tmp_path / name).touch()
    for name in ("素材", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "深.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_picker(**options: Any) -> tuple[Picker, list[str]]:
    picked: list[str] = []
    picker = Picker(
        Worker(Lang.EN),
        "op-x",
        Bilingual("List", "清单"),
        picked=lambda: picked.append(picker.path),
        **options,
    )
    return picker, picked


def test_lists_and_folders_beside_the_notebook_are_offered_and_nothing_else(folder: Path):
    hidden = frozenset({(folder / "tokens.csv").resolve()})
    picker, _ = a_picker(hidden=hidden)
    assert list(picker.text.options) == ["a.XLSX", "b.csv", "c.tsv", "素材/深.csv"]
    assert pickable(folder, ()) == ["素材"]
    assert pickable(folder / "nowhere", LIST_ENDINGS) == []
    (folder / "new.csv").touch()
    picker.refresh()
    assert "new.csv" in picker.text.options


def test_a_folder_with_very_many_lists_is_cut(tmp_path: Path):
    for number in range(SHOWN + 3):
        (tmp_path / f"{number}.csv").touch()
    assert len(pickable(tmp_path, LIST_ENDINGS)) == SHOWN


def test_what_is_typed_or_chosen_is_picked(folder: Path):
    picker, picked = a_picker()
    for path in (" b.csv ", "/elsewhere/d.csv"):
        picker.text.value = path
    assert picked == ["b.csv", "/elsewhere/d.csv"]

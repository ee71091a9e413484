"""How commands end: with the next command to type where something is left to do, else with what to open."""

import shlex
from pathlib import Path

import pytest
from rich.cells import cell_len
from workspace import BOOKS, TEA, many, write_csv

from tcb_ops.model import Merchant
from tcb_ops.simulator import Fault


def commands(text):
    return [shlex.split(line) for line in text.splitlines() if line.startswith("tcb-ops ")]


@pytest.mark.parametrize("words", [("upload", "list.csv", "--root", "files"), ("audit",)])
def test_a_run_without_errors_names_the_report_to_open(open_desk, words):
    said = open_desk(many(TEA, rows=2))(*words)
    assert (said.code, commands(said.err)) == (0, [])
    (page,) = (line for line in said.err.splitlines() if line.startswith("The report: "))
    assert Path(page.removeprefix("The report: ")).is_file()


@pytest.mark.parametrize(
    "words", [("upload", "list.csv", "--root", "files"), ("links", "list.csv"), ("audit",)]
)
def test_rows_that_can_be_retried_end_with_the_retry(open_desk, words):
    desk = open_desk(many(TEA, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    said = desk(*words)
    assert said.code == 1
    (command,) = commands(said.err)
    assert command[:3] == ["tcb-ops", "retry", desk.latest().id]
    again = desk(*command[1:])
    assert (again.code, commands(again.err)) == (0, [])


def test_rows_whose_own_values_are_wrong_end_with_a_corrected_list(open_desk):
    desk = open_desk(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    (command,) = commands(desk.upload().err)
    assert command[:3] == ["tcb-ops", "upload", "failed-fixed.csv"]
    assert command[3:5] == ["--root", str(desk.folder / "files")]


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_skipped_rows_end_with_the_command_for_the_fix_me_file(open_desk, kind):
    desk = open_desk(many(TEA, rows=2))
    rows = [(TEA.env, "/a.png", "0.bin"), (TEA.env, "b.png", "1.bin")]
    write_csv(desk.folder / "half.csv", ("env", "云端", "file"), rows)
    root = () if kind == "links" else ("--root", "files")
    said = desk(kind, "half.csv", "--on-bad", "skip", "--column", "path=云端", *root)
    assert said.code == 1
    assert "half.fix-me.csv has the 1 skipped row. Correct it there, then run:" in said.err
    assert "--on-bad skip" not in said.err
    (command,) = commands(said.err)
    fix_me = desk.folder / "half.fix-me.csv"
    assert command[:3] == ["tcb-ops", kind, str(fix_me)]
    fix_me.write_text(fix_me.read_text(encoding="utf-8-sig").replace(",/a.png", ",a.png"), encoding="utf-8")
    assert desk(*command[1:]).code == 0


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_a_refused_list_ends_with_the_command_for_the_corrected_list(open_desk, kind):
    desk = open_desk(many(TEA, rows=2))
    write_csv(desk.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "/a.png", "0.bin")])
    root = () if kind == "links" else ("--root", "files")
    said = desk(kind, "bad.csv", "--column", "path=云端", "--where", f"appid={TEA.appid}", *root)
    assert (said.code, desk.calls) == (2, 0)
    (command,) = commands(said.err)
    assert said.err.endswith(f"{shlex.join(command)}\n")
    assert command[:3] == ["tcb-ops", kind, str(desk.folder / "bad.csv")]
    write_csv(desk.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "a.png", "0.bin")])
    assert desk(*command[1:]).code == 0


@pytest.mark.parametrize(
    ("kind", "where"), [("check", "files"), ("upload", "files"), ("upload", "素材/春/图")]
)
def test_a_forgotten_root_is_said_once_and_the_folder_of_the_files_is_found(open_desk, kind, where):
    desk = open_desk(many(TEA, BOOKS, rows=60))
    files = desk.folder / where
    if not files.exists():
        files.parent.mkdir(parents=True)
        (desk.folder / "files").rename(files)
    root = ("--root", ".") if kind == "check" else ()
    said = desk(kind, "list.csv", *root)
    assert said.code == 2
    assert said.err.count("there is no file") == 1
    named = "--root" if root else "the list's folder, because --root was not given"
    assert f"The same for all 120 rows: none of their files is below {desk.folder} ({named})." in said.err
    (command,) = commands(said.err)
    assert command[:5] == ["tcb-ops", kind, str(desk.folder / "list.csv"), "--root", str(files)]
    assert desk(*command[1:]).code == 0
    assert not list(desk.folder.glob("*fix-me*"))


def test_files_that_are_nowhere_are_not_guessed_at(open_desk):
    desk = open_desk(many(TEA, rows=9))
    for file in (desk.folder / "files").iterdir():
        file.unlink()
    said = desk.upload()
    assert f"none of their files is below {desk.folder / 'files'} (--root)." in said.err
    (command,) = commands(said.err)
    assert command[2] == str(desk.folder / "list.csv")


def test_a_few_missing_files_are_named_one_by_one(open_desk):
    desk = open_desk(many(TEA, rows=9))
    for name in ("0.bin", "4.bin"):
        (desk.folder / "files" / name).unlink()
    assert desk.upload().err.count("there is no file") == 2


@pytest.mark.parametrize("columns", [80, 100])
def test_runs_fit_the_terminal_whatever_they_are(open_desk, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    desk = open_desk(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    name = "十一月第二批门店横幅和弹窗素材清单-final-v2.csv"
    (desk.folder / "list.csv").rename(desk.folder / name)
    run = desk("upload", name, "--root", "files", "--json", "--note", "双十一 第二批 " * 9).json["run"]
    desk("retry", run)
    desk("upload", name, "--root", "files", "--api-base", "https://api.example.invalid", "--patience", "0")
    for lang in ("en", "zh"):
        shown = desk("runs", "--lang", lang).out
        assert max(map(cell_len, shown.splitlines())) <= columns, shown
        assert shown.count(f"{run[4:6]}-{run[6:8]} ") == 3
        assert shown.count("SIMULATED") == 2
        assert ("list, note" if lang == "en" else "清单、备注") in shown.splitlines()[1]
        # Below a run's figures there is room for its list's whole name.
        assert shown.count("十一月") == 3
        assert shown.count("-v2.csv") == 3
        assert not any(line.strip() == "→" for line in shown.splitlines())


@pytest.mark.parametrize(("columns", "beside"), [(80, False), (91, False), (92, True)])
def test_lists_of_runs_are_beside_the_figures_only_where_they_fit_whole(
    open_desk, monkeypatch, columns, beside
):
    monkeypatch.setenv("COLUMNS", str(columns))
    desk = open_desk(many(TEA, rows=2))
    name = "november-banners.csv"
    (desk.folder / "list.csv").rename(desk.folder / name)
    run = desk("upload", name, "--root", "files", "--json").json["run"]
    lines = desk("runs").out.splitlines()
    assert any(run in line and name in line for line in lines) is beside
    assert any(line.strip() == name for line in lines) is not beside


def test_rows_and_a_dry_run_fit_the_terminal_a_line_each(open_desk, monkeypatch):
    long = Merchant("wxlong", "晨光茶饮旗舰店（华东区第一分公司）与合作伙伴", "prod-tea-1a2b3c")
    rows = [(long.env, f"banner/2026/双十一/a-name-that-is-very-long-{n}.png") for n in range(3)]
    desk = open_desk(rows, merchants=(long,))
    desk.upload()
    everything = desk("show", "--path", "banner").out
    assert all(path in everything for _, path in rows), "a pipe gets texts whole"
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("show", "--path", "banner"), ("upload", "list.csv", "--root", "files", "--dry-run")):
        lines = desk(*words).out.splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert sum("晨光茶饮" in line for line in lines) == (3 if words[0] == "show" else 1)


@pytest.mark.parametrize("name", ["nowhere.csv", "files", "picture.csv"])
def test_a_file_that_is_no_list_suggests_no_corrected_one(open_desk, name):
    desk = open_desk(many(TEA, rows=1))
    (desk.folder / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    said = desk("upload", name, "--root", "files")
    assert (said.code, desk.calls) == (2, 0)
    assert "failed-fixed.csv" not in said.err

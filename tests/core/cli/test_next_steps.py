"""How commands end: with the next command to type where something is left to do, else with what to open."""

import shlex
from pathlib import Path

import pytest
from rich.cells import cell_len
from workspace import BOOKS, TEA, many, write_csv

from tcb_ops.features.simulator import Fault
from tcb_ops.model import Merchant


def commands(text):
    return [shlex.split(line) for line in text.splitlines() if line.startswith("tcb-ops ")]


@pytest.mark.parametrize("words", [("upload", "list.csv", "--root", "files"), ("audit",)])
def test_a_run_without_errors_names_the_report_to_open(open_cli, words):
    result = open_cli(many(TEA, rows=2))(*words)
    assert (result.code, commands(result.err)) == (0, [])
    (page,) = (line for line in result.err.splitlines() if line.startswith("The report: "))
    assert Path(page.removeprefix("The report: ")).is_file()


@pytest.mark.parametrize(
    "words", [("upload", "list.csv", "--root", "files"), ("links", "list.csv"), ("audit",)]
)
def test_rows_that_can_be_retried_end_with_the_retry(open_cli, words):
    cli = open_cli(many(TEA, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    result = cli(*words)
    assert result.code == 1
    (command,) = commands(result.err)
    assert command[:3] == ["tcb-ops", "retry", cli.latest().id]
    again = cli(*command[1:])
    assert (again.code, commands(again.err)) == (0, [])


def test_rows_whose_own_values_are_wrong_end_with_a_corrected_list(open_cli):
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    (command,) = commands(cli.upload().err)
    assert command[:3] == ["tcb-ops", "upload", "failed-fixed.csv"]
    assert command[3:5] == ["--root", str(cli.folder / "files")]


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_skipped_rows_end_with_the_command_for_the_fix_me_file(open_cli, kind):
    cli = open_cli(many(TEA, rows=2))
    rows = [(TEA.env, "/a.png", "0.bin"), (TEA.env, "b.png", "1.bin")]
    write_csv(cli.folder / "half.csv", ("env", "云端", "file"), rows)
    root = () if kind == "links" else ("--root", "files")
    result = cli(kind, "half.csv", "--on-bad", "skip", "--column", "path=云端", *root)
    assert result.code == 1
    assert "half.fix-me.csv has the 1 skipped row. Correct it there, then run:" in result.err
    assert "--on-bad skip" not in result.err
    (command,) = commands(result.err)
    fix_me = cli.folder / "half.fix-me.csv"
    assert command[:3] == ["tcb-ops", kind, str(fix_me)]
    fix_me.write_text(fix_me.read_text(encoding="utf-8-sig").replace(",/a.png", ",a.png"), encoding="utf-8")
    assert cli(*command[1:]).code == 0


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_a_refused_list_ends_with_the_command_for_the_corrected_list(open_cli, kind):
    cli = open_cli(many(TEA, rows=2))
    write_csv(cli.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "/a.png", "0.bin")])
    root = () if kind == "links" else ("--root", "files")
    result = cli(kind, "bad.csv", "--column", "path=云端", "--where", f"appid={TEA.appid}", *root)
    assert (result.code, cli.calls) == (2, 0)
    (command,) = commands(result.err)
    assert result.err.endswith(f"{shlex.join(command)}\n")
    assert command[:3] == ["tcb-ops", kind, str(cli.folder / "bad.csv")]
    write_csv(cli.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "a.png", "0.bin")])
    assert cli(*command[1:]).code == 0


@pytest.mark.parametrize("kind", ["check", "upload"])
def test_a_forgotten_root_is_said_once(open_cli, kind):
    cli = open_cli(many(TEA, BOOKS, rows=60))
    root = ("--root", ".") if kind == "check" else ()
    result = cli(kind, "list.csv", *root)
    assert result.code == 2
    assert result.err.count("there is no file") == 1
    assert f"The same for all 120 rows: none of their files is below {cli.folder}." in result.err
    assert not list(cli.folder.glob("*fix-me*"))


def test_a_few_missing_files_are_named_one_by_one(open_cli):
    cli = open_cli(many(TEA, rows=9))
    for name in ("0.bin", "4.bin"):
        (cli.folder / "files" / name).unlink()
    assert cli.upload().err.count("there is no file") == 2


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 100])
def test_runs_fit_the_terminal_whatever_they_are(open_cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    name = "十一月第二批门店横幅和弹窗素材清单-final-v2.csv"
    (cli.folder / "list.csv").rename(cli.folder / name)
    run = cli("upload", name, "--root", "files", "--json", "--note", "双十一 第二批 " * 9).json["run"]
    cli("retry", run)
    cli("upload", name, "--root", "files", "--api-base", "https://api.example.invalid", "--patience", "0")
    for lang in ("en", "zh"):
        shown = cli("runs", "--lang", lang).out
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
    open_cli, monkeypatch, columns, beside
):
    monkeypatch.setenv("COLUMNS", str(columns))
    cli = open_cli(many(TEA, rows=2))
    name = "november-banners.csv"
    (cli.folder / "list.csv").rename(cli.folder / name)
    run = cli("upload", name, "--root", "files", "--json").json["run"]
    lines = cli("runs").out.splitlines()
    assert any(run in line and name in line for line in lines) is beside
    assert any(line.strip() == name for line in lines) is not beside


def test_rows_and_a_dry_run_fit_the_terminal_a_line_each(open_cli, monkeypatch):
    long = Merchant("wxlong", "晨光茶饮旗舰店（华东区第一分公司）与合作伙伴", "prod-tea-1a2b3c")
    rows = [(long.env, f"banner/2026/双十一/a-name-that-is-very-long-{n}.png") for n in range(3)]
    cli = open_cli(rows, merchants=(long,))
    cli.upload()
    everything = cli("show", "--path", "banner").out
    assert all(path in everything for _, path in rows), "a pipe gets texts whole"
    monkeypatch.setenv("COLUMNS", "80")
    for words in (("show", "--path", "banner"), ("upload", "list.csv", "--root", "files", "--dry-run")):
        lines = cli(*words).out.splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert sum("晨光茶饮" in line for line in lines) == (3 if words[0] == "show" else 1)


@pytest.mark.parametrize("name", ["nowhere.csv", "files", "picture.csv"])
def test_a_file_that_is_no_list_suggests_no_corrected_one(open_cli, name):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    result = cli("upload", name, "--root", "files")
    assert (result.code, cli.calls) == (2, 0)
    assert "failed-fixed.csv" not in result.err

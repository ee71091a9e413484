"""diff and verify as commands: what they print, and how they end."""

import json
import re

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault

pytestmark = pytest.mark.slow


@pytest.fixture
def two_runs(open_cli):
    """A workspace with two runs: BOOKS was refused in the first, a row of TEA is in the second."""
    faults = [
        Fault(env=BOOKS.env, errcode=-501007, calls=((1, 1),)),
        Fault(env=TEA.env, path="banner/2.png", errcode=40097, calls=((2, 2),)),
    ]
    cli = open_cli(many(TEA, BOOKS, rows=5), faults)
    older = cli.upload("--json", "--out", "older").json["run"]
    newer = cli.upload("--json", "--out", "newer", "--new-run").json["run"]
    return cli, older, newer


def test_diff_tells_what_broke_and_what_was_fixed(two_runs):
    cli, older, newer = two_runs
    result = cli("diff", older, newer)
    assert result.code == 1
    for words in ("Newly broken · 1", "40097", TEA.name, "Fixed · 5", "-501007", BOOKS.name):
        assert words in result.out
    found = cli("diff", older[:-1], "latest", "--json").json
    assert (found["older"]["run"], found["newer"]["run"]) == (older, newer)
    assert found["counts"] == {
        "newly_broken": 1, "still_broken": 0, "fixed": 5, "only_in_newer": 0, "only_in_older": 0,
        "unfinished": 0, "unknown": 0, "still_good": 4,
    }  # fmt: skip
    assert set(found) == {"older", "newer", "kind", "target", "counts", "changes"}
    assert found["changes"][0] == {
        "change": "newly_broken", "appid": TEA.appid, "merchant": TEA.name, "env": TEA.env, "before": "",
        "after": "40097", "rows": 1,
    }  # fmt: skip
    assert cli("diff", newer, newer).code == 0
    assert f"{newer} is the later run" in cli("diff", newer, older).err
    assert result.err == ""


def test_diff_is_what_the_library_gives(two_runs):
    cli, older, newer = two_runs
    settings = cli.workspace.settings
    found = tcb.diff(older, settings=settings)
    assert found.to_json() == cli("diff", older, newer, "--json").json
    run = tcb.open_run(newer, settings=settings)
    assert run.changes() == found
    assert tcb.open_run(older, settings=settings).changes() is None
    assert {str(name): str(kind) for name, kind in found.frame().dtypes.items()} == {
        **dict.fromkeys(("change", "merchant", "appid", "env", "before", "after"), "string"), "rows": "Int64",
    }  # fmt: skip
    assert {line.code for line in tcb.history(2, settings=settings).lines} == {"-501007", "40097"}


@pytest.mark.parametrize(("words", "result"), [(("none", "latest"), "No run 'none'"), (("latest",), "NEWER")])
def test_diff_of_a_run_that_is_not_there_is_a_usage_error(two_runs, words, result):
    cli, _, _ = two_runs
    found = cli("diff", *words)
    assert (found.code, found.out) == (2, "")
    assert result in found.err


def test_runs_of_different_targets_are_not_compared(two_runs):
    cli, older, _ = two_runs
    away = ("--api-base", "http://127.0.0.1:9", "--patience", "0.1")
    other = cli.upload("--json", *away).json["run"]
    result = cli("diff", older, other)
    assert (result.code, result.out) == (2, "")
    assert "same kind and target" in result.err
    same = cli("diff", other, other)
    assert same.code == 0
    assert "unfinished" in same.err


def test_a_report_is_verified_then_tampered_with_then_not(two_runs):
    cli, _, newer = two_runs
    good = cli("verify", "newer")
    assert good.code == 0
    assert f"Nothing differs in the report of run {newer}." in good.out
    assert "list.csv is the list that was read" in good.out
    found = cli("verify", "newer", "--json").json
    assert found["good"] is True
    assert {check["state"] for check in found["checks"]} == {"same"}
    results = cli.folder / "newer" / "results.csv"
    results.write_bytes(results.read_bytes().replace(b"refused", b"uploaded", 1))
    bad = cli("verify", "newer")
    assert bad.code == 1
    assert re.search(r"DIFFERS +results\.csv +was changed after the export", bad.out)


def test_from_another_folder_it_says_where_it_looked_and_what_to_type(
    open_cli, monkeypatch, tmp_path_factory
):
    cli = open_cli(many(TEA, rows=2))
    run = cli.upload("--json").json["run"]
    report, elsewhere = cli.folder / "reports" / run, tmp_path_factory.mktemp("elsewhere")
    (cli.folder / "list.csv").rename(cli.folder / "files" / "old.csv")
    monkeypatch.chdir(elsewhere)
    found = cli("verify", str(report), "--json")
    assert found.code == 0
    checks = found.json["checks"]
    texts = {check["what"]: check["text"] for check in checks if check["state"] == "not_checked"}
    assert str(elsewhere / "tcb-ops.db") in texts["rows"]
    assert not (elsewhere / "tcb-ops.db").exists()
    assert "--ledger" in texts["rows"]
    assert all(str(place) in texts["input"] for place in (elsewhere, cli.folder / "files"))
    config = str(cli.folder / "tcb-ops.toml")
    assert "Not checked: input." in cli("verify", str(report), "--config", config).out


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("files", "contains no tcb-ops report"),
        ("list.csv", "contains no tcb-ops report"),
        ("nowhere", "There is no folder nowhere. Give the folder that `tcb-ops report` wrote."),
    ],
)
def test_a_folder_without_a_report_is_a_usage_error(two_runs, folder, why):
    cli, _, _ = two_runs
    result = cli("verify", folder)
    assert (result.code, result.out) == (2, "")
    assert why in result.err


def test_a_run_stands_for_its_report(two_runs):
    cli, _, newer = two_runs
    for name in ("latest", newer, newer[-4:]):
        assert cli("verify", name).out == cli("verify", str(cli.folder / "newer")).out
    (cli.folder / "newer").rename(cli.folder / "moved")
    assert cli("verify", "latest").code == 2


def test_only_the_environments_of_the_list_are_compared(open_cli):
    cli = open_cli(many(TEA, TEA_TEST, rows=3))
    older = cli.upload("--json").json["run"]
    newer = cli.upload("--json", "--limit", "2").json["run"]
    found = cli("diff", older, newer, "--json")
    assert found.code == 0
    assert found.json["counts"]["only_in_older"] == 4


def test_a_report_of_a_run_that_goes_on_says_as_of_when(open_cli):
    cli = open_cli(many(TEA, rows=3))
    away = ("--api-base", "http://127.0.0.1:9")
    assert cli.upload("--patience", "0.1", *away).code == 3
    result = cli("report", "--out", "so-far", *away)
    assert result.code == 0
    assert re.search(r"is unfinished: this shows it as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", result.err)
    told = json.loads((cli.folder / "so-far" / "manifest.json").read_text(encoding="utf-8"))
    assert (told["finished_at"], told["counts"]) == (None, {"pending": 3})
    assert cli("verify", "so-far").code == 0

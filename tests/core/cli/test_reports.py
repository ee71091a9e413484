"""Where reports go, and the question before many live environments."""

import os

import pytest
from free_ports import free_port
from workspace import BOOKS, TEA, TEA_TEST, many

from tcb_ops.features.simulator.faults import Fault
from tcb_ops.model import Merchant

pytestmark = pytest.mark.integration

SIX = tuple(Merchant(f"wx{n}", f"商户{n}", f"env-{n}") for n in range(6))
REPORT = {
    "results.csv",
    "failed.csv",
    "errcodes.csv",
    "report.html",
    "report.xlsx",
    "manifest.json",
    "SIMULATED-演练.txt",
}
LIVE = ("--api-base", "https://api.example.invalid", "--patience", "0.1")


def test_a_pdf_is_made_on_request(open_cli, monkeypatch):
    cli = open_cli(many(TEA, rows=2))
    browser = cli.folder / "chromium"
    browser.write_text(
        '#!/bin/sh\nfor word; do target=${word#--print-to-pdf=}; [ "$target" = "$word" ] || printf %%PDF- > "$target"; done\n',
        encoding="utf-8",
    )
    browser.chmod(0o755)
    monkeypatch.setenv("TCB_OPS_CHROMIUM", str(browser))
    for command in (("upload", "list.csv", "--root", "files", "--out", "up"), ("report", "--out", "again")):
        assert cli(*command).code == 0
        assert not (cli.folder / command[-1] / "report.pdf").exists()
        assert (
            cli(*command, *(["--new-run"] if command[0] == "upload" else []), "--pdf", "--out", "pdf").code
            == 0
        )
        assert (cli.folder / "pdf" / "report.pdf").exists()
        assert cli("verify", "pdf").code == 0
        (cli.folder / "pdf").rename(cli.folder / command[0])
    monkeypatch.setenv("TCB_OPS_REPORT__PDF", "true")
    report = cli.upload("--json", "--new-run").json["report"]
    assert (cli.folder / report / "report.pdf").exists(), "a setting asks for it in every report"


@pytest.mark.parametrize("there", ["a folder with files", "a file", "another run's report"])
def test_a_foreign_out_is_refused_before_anything_is_sent(open_cli, there):
    cli = open_cli(many(TEA, rows=2))
    if there == "a folder with files":
        (cli.folder / "out").mkdir()
        (cli.folder / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    elif there == "a file":
        (cli.folder / "out").write_text("mine", encoding="utf-8")
    else:
        assert cli.upload("--out", "out").code == 0
    before = cli.calls
    result = cli.upload("--out", "out", "--json")
    assert (result.code, result.json["error"]["code"]) == (2, "usage")
    assert "out cannot be the report folder" in result.err
    assert cli.calls == before


def test_where_reports_cannot_be_put_nothing_is_sent(open_cli):
    cli = open_cli(many(TEA, rows=2))
    (cli.folder / "reports").write_text("a file in the way", encoding="utf-8")
    result = cli.upload("--json")
    assert (result.code, result.json["error"]["code"]) == (2, "usage")
    assert "--out" in result.err
    assert cli.calls == 0


def test_a_report_written_again_replaces_its_own_and_nobody_elses(open_cli):
    cli = open_cli(many(TEA, rows=2))
    first = cli.upload("--json", "--out", "out").json["run"]
    again = cli("report", first, "--out", "out", "--json")
    assert (again.code, again.json["run"]) == (0, first)
    assert {file.name for file in (cli.folder / "out").iterdir()} == REPORT
    assert [file.name for file in cli.folder.glob("out*")] == ["out"]
    second = cli.upload("--json").json["run"]
    refused = cli("report", second, "--out", "out")
    assert refused.code == 2
    assert first in refused.err
    assert cli("report").out.strip() == os.path.join("reports", second)  # noqa: PTH118  as it is printed


def test_a_run_that_goes_on_puts_its_report_where_this_command_says(open_cli):
    cli = open_cli(many(TEA, rows=2), port=free_port())
    away = ("--api-base", cli.workspace.sim.base, "--out", "out", "--json")
    cli.workspace.sim.__exit__(None, None, None)
    assert cli("upload", "list.csv", "--root", "files", "--patience", "0.1", *away).code == 3
    assert not (cli.folder / "out").exists()
    cli.workspace.sim.__enter__()
    assert cli("upload", "list.csv", "--root", "files", *away).code == 0
    assert (cli.folder / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("--yes",), False),
        (("--where", "appid=wx1"), False),
        (("--limit", "2"), False),
        ((), True),
    ],
    ids=["told", "one merchant", "one environment", "neither"],
)
def test_the_brake_is_for_more_than_five_environments(open_cli, words, asked):
    """api.example.invalid never resolves: a run that is confirmed ends with exit 3."""
    cli = open_cli(many(*SIX, rows=2), merchants=SIX)
    assert cli.upload(*LIVE, *words).code == (2 if asked else 3)


def test_confirm_over_is_a_setting_and_loopback_is_never_asked_about(open_cli, monkeypatch):
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=1))
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "2")
    assert cli.upload(*LIVE).code == 2
    assert cli.upload().code == 0


def test_a_dry_run_shows_and_does_not_ask(open_cli):
    cli = open_cli(many(*SIX, rows=2), merchants=SIX)
    result = cli.upload(*LIVE, "--dry-run")
    assert result.code == 0
    assert (
        "24 calls to https://api.example.invalid and its store. To be sent: 216 B.\nNothing was sent."
        in result.out
    )


def test_runs_show_a_run_and_its_rows(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=5), [Fault(env=BOOKS.env, path="banner/2.png", errcode=40097)])
    run = cli.upload("--json", "--note", "十一月").json["run"]
    line = cli("runs").out.splitlines()[1].split()
    assert line == f"{run} upload SIMULATED 10 9 1 – list.csv · 十一月".split()
    head = cli("show", run[:-2]).out
    assert f"Run {run} · upload to {cli.workspace.sim.base} · list.csv, 10 rows" in head
    assert "finished" in head
    line = cli("show", "--line", "9", "--json").json["rows"]
    assert [(row["path"], row["tcb_line"], row["tcb_outcome"]) for row in line] == [
        ("banner/2.png", 9, "refused")
    ]
    assert "40097" in cli("show", "--line", "9").out
    by_merchant = cli("show", "--merchant", BOOKS.name, "--json").json["rows"]
    assert {row["tcb_env"] for row in by_merchant} == {BOOKS.env}
    assert len(by_merchant) == 5
    shown = cli("show", "--merchant", BOOKS.name).out
    assert shown.splitlines()[3].split() == [
        "9",
        BOOKS.name,
        BOOKS.env,
        "banner/2.png",
        "refused",
        "40097",
    ]
    assert shown.count("→ ") == 1, "what to do stands once"
    assert len(cli("show", "--path", "banner/2", "--json").json["rows"]) == 2
    none = cli("show", "--line", "99")
    assert (none.code, none.out) == (2, "")


def test_a_token_in_a_path_is_shown_as_masked(open_cli):
    cli = open_cli(many(TEA, rows=1))
    rows = "".join(f"{TEA.env},a/{number}-access_token=practice-token\n" for number in (1, 2))
    (cli.folder / "list.csv").write_text(f"env,path\n{rows}", encoding="utf-8")
    assert cli("links", "list.csv").code == 0
    for words in (("--line", "2"), ("--line", "2", "--json"), ("--merchant", TEA.name)):
        shown = cli("show", *words).out
        assert "1-access_token=•••" in shown
        assert "practice" not in shown


def test_latest_is_the_latest_of_this_target(open_cli):
    cli = open_cli(many(TEA, rows=2))
    run = cli.upload("--json").json["run"]
    elsewhere = ("--api-base", "http://127.0.0.1:9")
    other = cli.upload("--json", "--patience", "0.1", *elsewhere).json["run"]
    assert [one["run"] for one in cli("runs", "--json").json["runs"]] == [other, run]
    for target, expected in ((cli.workspace.sim.base, run), (elsewhere[1], other)):
        listed = cli("runs", "--target", target, "--json").json["runs"]
        assert [one["run"] for one in listed] == [expected]
    nowhere = cli("runs", "--target", "https://elsewhere.example.com")
    assert (nowhere.code, nowhere.out, "No run in" in nowhere.err) == (0, "", True)
    for words in (("show", "--json"), ("show", "latest", "--json"), ("errcodes", "--json")):
        assert cli(*words).json["run"] == run
        assert cli(*words, *elsewhere).json["run"] == other


def test_errcodes_are_shown_by_merchant_with_what_to_do(open_cli):
    cli = open_cli(faults=[Fault(appid=BOOKS.appid, errcode=85088)])
    cli.upload()
    result = cli("errcodes")
    assert result.code == 0
    for word in ("85088", BOOKS.name, BOOKS.env, "createclouduser"):
        assert word in result.out
    assert cli.upload("--where", "appid=wxtea").code == 0
    assert "nothing is wrong" in cli("errcodes").out


@pytest.mark.parametrize("code", ["ETagMismatch", "61007 (component)"])
def test_whatever_the_table_names_is_explained(open_cli, code):
    result = open_cli()("explain", code)
    assert (result.code, result.out.count("What to do:")) == (0, 1)
    assert ("component_appid" in result.out) is ("component" in code)


@pytest.mark.parametrize("code", ["85088", "SlowDown", "0"])
def test_a_code_is_explained_in_both_languages(open_cli, code):
    cli = open_cli(many(TEA, rows=1))
    result = cli("explain", code)
    assert result.code == 0
    assert result.out.startswith(code)
    assert "What to do: " in result.out
    found = cli("explain", code, "--json").json
    assert set(found) == {"code", "known", "meaning", "action", "who", "decision", "scope"}
    assert found["known"] is True
    zh = cli("explain", code, "--lang", "zh").out
    assert "怎么办：" in zh
    assert cli.in_english(zh.partition("来源")[0]) == []

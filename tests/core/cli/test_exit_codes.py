"""How a run ends on the command line: exit code, data on stdout, messages on stderr."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep

pytestmark = pytest.mark.integration

REFUSED = [Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)]


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_rows_that_are_not_good_are_exit_1_and_tabulated(open_cli, kind):
    cli = open_cli(faults=REFUSED)
    result = getattr(cli, kind)("--json")
    assert result.code == 1
    counts = cli.assert_complete(result.json, 30)
    assert counts == {"linked" if kind == "links" else "uploaded": 29, "refused": 1}
    line = {"appid": BOOKS.appid, "merchant": BOOKS.name, "env": BOOKS.env, "errcode": 40097, "rows": 1}
    assert result.json["errcodes"] == [line]
    assert result.json["calls"] == {"link": 30, "upload": 0 if kind == "links" else 29}
    shown = cli("show", "--json")
    assert (shown.code, shown.json) == (0, result.json)
    assert cli("errcodes", "--json").json["errcodes"] == [line]


def test_talk_is_on_stderr_and_data_on_stdout(open_cli):
    cli = open_cli(faults=REFUSED)
    result = cli.upload()
    assert "40097" in result.out
    assert "29 of 30 rows succeeded, 1 did not: 1 refused." in result.out
    assert "list.csv: UTF-8, comma" in result.err
    assert "list.csv: UTF-8" not in result.out
    assert str(cli.latest().record.report).endswith(cli.latest().id)
    quiet = cli.upload("--quiet", "--new-run")
    assert quiet.err == ""
    assert quiet.out


def test_successes_that_the_store_did_not_confirm_are_counted_wherever_the_result_is_shown(open_cli):
    cli = open_cli(faults=[Fault(env=BOOKS.env, step=FaultStep.STORE, etag=Etag.OPAQUE)])
    doubt = "All 30 rows succeeded: uploaded. 10 rows are stored but not confirmed"
    result = cli.upload()
    assert (result.code, doubt in result.out) == (0, True)
    assert doubt in cli("show").out
    assert cli("show", "--json").json["unverified"] == 10
    page = Path(cli.latest().record.report, "report.html").read_text(encoding="utf-8")
    assert "10 rows are stored but not confirmed" in page


def test_control_characters_of_skipped_rows_are_escaped_in_every_export(open_cli):
    cli = open_cli(many(TEA, rows=1))
    with (cli.folder / "list.csv").open("a", encoding="utf-8") as more:
        more.write(f"{TEA.env},a\x01b.png,0.bin,\x1b[31m\r\n")
    result = cli.upload("--on-bad", "skip", "--json")
    report = Path(result.json["report"])
    for name in ("results.csv", "failed.csv"):
        text = (report / name).read_text(encoding="utf-8-sig")
        assert "a␁b.png,0.bin,␛[31m" in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.replace("\r\n", "\n"))
    sheets = openpyxl.load_workbook(report / "report.xlsx").worksheets
    assert sheets
    assert cli("verify", str(report)).code == 0
    again = cli("links", str(report / "failed.csv"))
    assert (again.code, cli.calls) == (2, 2)
    assert "control character (U+0001)" in again.err


CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NASTY = "\x9b2J\u202egnp.exe\u2066"


def test_what_a_server_and_a_list_say_is_escaped_in_every_output(open_cli):
    refusal = {"code": "AccessDenied\x9b", "errmsg": f"no {NASTY}", "status": 403}
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", step=FaultStep.STORE, **refusal)])
    merchants = (cli.folder / "merchants.csv").read_text(encoding="utf-8")
    (cli.folder / "merchants.csv").write_text(merchants.replace(TEA.name, f"茶{NASTY}"), encoding="utf-8")
    rows = (cli.folder / "list.csv").read_text(encoding="utf-8").splitlines()
    marked = [f"{row},{'remark' if number == 0 else NASTY}" for number, row in enumerate(rows)]
    (cli.folder / "list.csv").write_text("\n".join(marked), encoding="utf-8")
    result = cli.upload()
    report = Path(cli.latest().record.report)
    shown = [cli("show", *words) for words in ([], ["--json"], ["--path", "banner"])]
    outputs = {str(number): each.out + each.err for number, each in enumerate([result, *shown])}
    names = ("results.csv", "failed.csv", "errcodes.csv", "report.html")
    outputs |= {name: (report / name).read_text(encoding="utf-8-sig") for name in names}
    assert {name: CONTROLS.findall(text.replace("\r\n", "\n")) for name, text in outputs.items()} == {
        name: [] for name in outputs
    }
    assert r"2J\u202egnp.exe\u2066" in outputs["results.csv"]
    assert [code["code"] for code in shown[1].json["store_codes"]] == ["AccessDenied"]
    # The failed rows are read back as they were in the list.
    again = cli("upload", str(report / "failed.csv"), "--root", str(cli.folder / "files"), "--new-run")
    assert again.code == 1
    assert [record.row.cells[-1] for record in cli.latest().rows()] == [NASTY]


OF_BOOKS = ("--where", f"appid={BOOKS.appid}")
OF_TEA = ("--where", f"appid={TEA.appid}")


def test_where_narrows_what_is_shown_of_a_run_to_matching_merchants(open_cli):
    faults = [Fault(path="banner/1.png", errcode=40097)]
    cli = open_cli(many(TEA, BOOKS, rows=3), faults)
    first = cli.upload("--json").json
    second = cli.upload("--json", "--new-run").json
    assert first["counts"] == {"uploaded": 4, "refused": 2}
    shown = cli("show", *OF_BOOKS, "--json").json
    assert cli.assert_complete(shown, 3) == {"uploaded": 2, "refused": 1}
    assert {line["appid"] for line in shown["errcodes"]} == {BOOKS.appid}
    assert "2 of 3 rows succeeded" in cli("show", *OF_BOOKS).out
    rows = cli("show", *OF_BOOKS, "--path", "banner", "--json").json["rows"]
    assert {row["tcb_appid"] for row in rows} == {BOOKS.appid}
    assert {line["appid"] for line in cli("errcodes", *OF_BOOKS, "--json").json["errcodes"]} == {BOOKS.appid}
    table = cli("errcodes", *OF_BOOKS).out
    assert (BOOKS.name in table, TEA.name in table, "40097 · 1 row" in table) == (True, False, True)
    found = cli("diff", first["run"], second["run"], *OF_BOOKS, "--json").json
    assert (found["counts"]["still_broken"], found["counts"]["still_good"]) == (1, 2)
    assert {line["appid"] for line in found["changes"]} == {BOOKS.appid}


@pytest.mark.parametrize("final", [(), ("--final",)], ids=["once", "with its retries"])
def test_where_writes_a_report_of_matching_merchants_that_verify_recognises(open_cli, final):
    cli = open_cli(many(TEA, BOOKS, rows=3), [Fault(path="banner/1.png", errcode=40097)])
    run = cli.upload("--json").json["run"]
    if final:
        assert cli("retry", run, *OF_BOOKS).code == 1
    assert cli("report", run).code == 0
    written = cli("report", run, *final, *OF_BOOKS, "--json").json
    assert cli.assert_complete(written, 3) == {"uploaded": 2, "refused": 1}
    folder = cli.folder / "reports" / f"{run}{'-final' if final else ''}-selected"
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["tcb_appid"] for row in rows] == [BOOKS.appid] * 3
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert (BOOKS.name in page, TEA.name in page) == (True, False)
    assert "Only the rows of 1 environment, selected with --where." in page
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows"], manifest["environments"]) == (3, [[BOOKS.appid, BOOKS.env]])
    assert cli("verify", str(folder)).code == 0
    assert cli("show", run, "--json").json["report"] == str(cli.folder / "reports" / run), (
        "the ledger names the whole report"
    )

    rows[0]["tcb_outcome"] = "failed"
    with (folder / "results.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    changed = cli("verify", str(folder))
    assert changed.code == 1
    assert "results.csv" in changed.out


def test_where_lists_the_runs_with_rows_of_matching_merchants_and_counts_those(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=3))
    both = cli.upload("--json").json["run"]
    cli.upload(*OF_TEA)
    listed = cli("runs", *OF_BOOKS, "--json").json["runs"]
    assert [(run["run"], run["rows"]) for run in listed] == [(both, 3)]
    result = cli("errcodes", *OF_BOOKS)
    assert result.code == 2
    assert f"has no rows of the merchants selected by --where. Its merchants are: {TEA.name}." in result.err


@pytest.mark.parametrize("words", [("errcodes",), ("show",), ("runs",), ("diff", "latest", "latest")])
def test_where_of_an_unknown_column_is_refused_with_the_known_ones(open_cli, words):
    cli = open_cli(many(TEA, rows=1))
    assert cli.upload().code == 0
    result = cli(*words, "--where", "stage=live")
    assert (result.code, result.out) == (2, "")
    assert "has no column 'stage'; it has appid, name, env" in result.err


@pytest.mark.parametrize("words", [("report", "--into", "list.xlsx"), ("upload", "--resume", "latest")])
def test_where_is_refused_by_commands_that_cannot_leave_merchants_out(open_cli, words):
    cli = open_cli(many(TEA, rows=1))
    assert cli.upload().code == 0
    before = cli.calls
    result = cli(*words, *OF_TEA)
    assert (result.code, result.out, cli.calls) == (2, "", before)
    assert "--where" in result.err


def test_a_note_is_kept_and_found(open_cli):
    cli = open_cli(many(TEA, rows=1))
    assert cli.upload("--note", "双十一 第二批").code == 0
    assert cli.links("--note", "other").code == 0
    found = cli("runs", "--note", "双十一", "--json").json["runs"]
    assert [(run["kind"], run["note"]) for run in found] == [("upload", "双十一 第二批")]


def test_a_table_in_a_pipe_has_no_blanks_at_the_ends_of_its_lines(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2), [Fault(path="banner/1.png", errcode=85088)])
    older, newer = (cli.upload("--json", "--new-run").json["run"] for _ in range(2))
    for words in (
        ("errcodes",),
        ("show",),
        ("runs",),
        ("diff", older, newer),
        ("verify", f"reports/{newer}"),
    ):
        lines = cli(*words).out.splitlines()
        assert lines
        assert [line for line in lines if line != line.rstrip()] == []


def test_a_retry_says_which_run_it_is_of_and_is_shown_as_one(open_cli):
    cli = open_cli(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    first = cli.upload("--json").json["run"]
    result = cli("retry")
    assert f"Retrying upload {first} (list.csv)" in result.err
    assert "retry · list.csv" in cli("runs").out
    assert f", a retry of {first} · upload to" in cli("show", cli.latest().id).out
    assert [one["parent"] for one in cli("runs", "--json").json["runs"]] == [first, ""]
    nothing = cli("retry", first, "--errcode", "12345", "--lang", "zh").err
    assert "选定的错误码、商户和路径下没有剩余的行。它的错误码有：40097" in nothing
    nobody = cli("show", first, "--merchant", TEA.name[:-1]).err
    assert f"Its merchants are: {TEA.name}." in nobody
    assert cli("errcodes", first, "--out", "texts.csv").code == 0
    assert (cli.folder / "texts.csv").read_text(encoding="utf-8-sig").splitlines()[0].endswith(",message")


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_dry_run_counts_and_sends_nothing(open_cli, kind):
    cli = open_cli()
    result = getattr(cli, kind)("--dry-run", "--rate", "2")
    assert result.code == 0
    assert f"{30 if kind == 'links' else 60} calls" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[2] == ["2", "merchants", "30", "0", "0", "0"], "totals first"
    assert lines[3] == [TEA.name, "20", "0", "0", "0"]
    assert lines[-1] == ["Nothing", "was", "sent."]
    found = getattr(cli, kind)("--dry-run", "--json", "--rate", "2").json
    assert (found["rows"], found["valid"], found["merchants"], found["envs"]) == (30, 30, 2, 3)
    assert found["seconds_at_rate"] == 10.0
    assert found["changes"] == {"new": 30}
    assert [line["changes"] for line in found["by_merchant"]] == [{"new": 20}, {"new": 10}]
    assert cli.calls == 0
    assert cli("runs", "--json").json == {"runs": []}


def test_check_sends_nothing_and_looks_at_local_files_where_told(open_cli):
    cli = open_cli()
    result = cli("check", "list.csv")
    assert result.code == 0
    assert "30 of 30 rows valid: 2 merchants, 3 environments" in result.out
    assert "--root" in result.err
    (cli.folder / "files" / "3.bin").unlink()
    assert cli("check", "list.csv", "--json").json["valid"] == 30
    looked = cli("check", "list.csv", "--root", "files")
    assert looked.code == 2
    assert "list.csv:5: column 'file'" in looked.err
    skipped = cli("check", "list.csv", "--root", "files", "--on-bad", "skip", "--json")
    assert (skipped.code, skipped.json["invalid"]) == (1, 1)
    assert cli.calls == 0


def test_links_that_will_run_out_before_the_last_is_issued_are_announced(open_cli):
    cli = open_cli(many(TEA, rows=20))
    assert "15 minutes" not in cli.links("--limit", "1").err
    result = cli.links("--rate", "0.02", "--limit", "19", "--new-run", "--dry-run")
    assert "15m50s" in result.out


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_change_how_a_run_ends(open_cli):
    cli = open_cli(faults=REFUSED)
    with cli.process("upload", "list.csv", "--root", "files", "--json", "--backoff", "0.01") as process:
        process.stdout.close()
        process.stdout = None
        err = process.communicate(timeout=240)[1]
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "Broken" not in err


@pytest.mark.slow
def test_json_stays_json_where_stdout_is_not_utf_8(open_cli):
    cli = open_cli(faults=REFUSED)
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    result = cli.in_process("upload", "list.csv", "--root", "files", "--out", "été", "--json", env=env)
    assert result.json["report"].endswith("été")
    assert result.json["errcodes"][0]["merchant"] == BOOKS.name


@pytest.mark.slow
def test_chinese_paths_are_taken_as_they_are_typed(open_cli):
    cli = open_cli()
    (cli.folder / "list.csv").rename(cli.folder / "十一月 清单.csv")
    (cli.folder / "files").rename(cli.folder / "素材 目录")
    words = ("upload", "十一月 清单.csv", "--root", "素材 目录", "--out", "报告/十一月", "--json")
    result = cli.in_process(*words)
    assert result.code == 0
    assert (cli.folder / "报告" / "十一月" / "results.csv").exists()
    assert cli.latest().record.list_name == "十一月 清单.csv"


@pytest.mark.parametrize(
    ("words", "loaded"),
    [(["explain", "85088"], {"tcb_ops.features.health.why_command"}), (["--help"], set())],
)
def test_a_command_loads_no_other_commands(words: list[str], loaded: set[str]) -> None:
    code = f"import sys; from tcb_ops.cli.main import run; run({words}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = r"tcb_ops\.cli\.(inspect|prune|runs|setup)|tcb_ops\.features\.\w+\.(\w+_)?command"
    assert {name for name in done.stdout.split() if re.fullmatch(commands, name)} == loaded


@pytest.mark.slow
def test_a_defect_is_told_without_a_trace_and_verbose_shows_it(open_cli):
    """A defect made on purpose: the command's own output breaks."""
    cli = open_cli(many(TEA, rows=1))
    script = (
        "import sys, tcb_ops.cli.main as cli\n"
        "class Broken:\n    encoding = 'utf-8'\n"
        "    def __getattr__(self, name): return getattr(sys.__stdout__, name)\n"
        "    def write(self, text): raise ValueError('made on purpose')\n"
        "sys.stdout = Broken()\ncli.main(sys.argv[1:])\n"
    )
    (cli.folder / "broken.py").write_text(script, encoding="utf-8")
    from_script = [sys.executable, "broken.py", "explain", "85088"]
    with cli.spawn(from_script) as process:
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (3, "")
    assert "Internal error in tcb-ops (ValueError)" in err
    assert "made on purpose" not in err
    with cli.spawn([*from_script, "--verbose"]) as process:
        assert "made on purpose" in process.communicate(timeout=240)[1]


def test_a_name_with_an_escape_sequence_does_not_reach_the_terminal(open_cli):
    result = open_cli()("check", "red\x1b[31m.csv")
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "red␛[31m.csv" in result.err

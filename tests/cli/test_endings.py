"""How a run ends on the command line: exit code, data on stdout, talk on stderr."""

import csv
import json
import re
import sys
from pathlib import Path

import openpyxl
import pytest
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

from tcb_ops.cli.main import run
from tcb_ops.simulator import Fault

REFUSED = [Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)]
AWAY = ("--api-base", "http://127.0.0.1:9", "--patience", "0.2")
LIVE = ("--target", "https://api.example.invalid", "--patience", "0.2")


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_every_row_good_is_exit_0_with_one_json_object(open_desk, kind):
    desk = open_desk()
    said = getattr(desk, kind)("--json")
    assert said.code == 0
    counts = desk.whole(said.json, 30)
    assert counts == {"linked" if kind == "links" else "uploaded": 30}
    assert said.json["kind"] == kind
    assert said.json["target"] == desk.shop.sim.base
    assert said.json["calls"] == {"link": 30, "upload": 0 if kind == "links" else 30}
    assert said.json["errcodes"] == []
    assert desk("show", said.json["run"], "--json").json == said.json
    assert desk("show", "--json").json == said.json


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_rows_that_are_not_good_are_exit_1_and_tabulated(open_desk, kind):
    desk = open_desk(faults=REFUSED)
    said = getattr(desk, kind)("--json")
    assert said.code == 1
    counts = desk.whole(said.json, 30)
    assert counts == {"linked" if kind == "links" else "uploaded": 29, "refused": 1}
    line = {"appid": BOOKS.appid, "merchant": BOOKS.name, "env": BOOKS.env, "errcode": 40097, "rows": 1}
    assert said.json["errcodes"] == [line]
    shown = desk("show", "--json")
    assert (shown.code, shown.json) == (0, said.json)
    assert desk("errcodes", "--json").json["errcodes"] == [line]


def test_not_attempted_rows_stand_under_the_errcode_that_stopped_them(open_desk):
    desk = open_desk(faults=[Fault(appid=BOOKS.appid, errcode=85088)])
    said = desk.upload("--json")
    assert said.code == 1
    counts = desk.whole(said.json, 30)
    assert counts["refused"] + counts.get("not_attempted", 0) == 10
    assert [(line["errcode"], line["rows"]) for line in said.json["errcodes"]] == [(85088, 10)]


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_target_that_is_away_is_exit_3_with_its_json_and_rows_pending(open_desk, kind):
    desk = open_desk()
    said = getattr(desk, kind)("--json", *AWAY)
    assert said.code == 3
    assert desk.whole(said.json, 30) == {"pending": 30}
    assert "127.0.0.1:9" in said.err
    assert "no host could be reached" in said.err
    assert f"To resume run {said.json['run']} (SIMULATED " in said.err
    shown = desk("show", said.json["run"], "--json")
    assert (shown.code, shown.json) == (0, said.json)


def test_a_platform_wide_refusal_is_exit_3_and_mended_the_same_command_ends_0(open_desk):
    desk = open_desk(faults=[Fault(path="banner/5.png", errcode=61004, calls=((1, 1),))])
    said = desk.upload("--json", "--concurrency", "2")
    assert said.code == 3
    assert desk.whole(said.json, 30)["pending"] > 0
    assert "61004" in said.err
    end = 3
    for _ in range(3):  # each environment has one such row
        again = desk.upload("--json")
        assert again.json["run"] == said.json["run"]
        end = again.code
        if end == 0:
            break
    assert end == 0
    assert desk.whole(again.json, 30) == {"uploaded": 30}


def test_a_usage_error_is_exit_2_and_says_nothing_on_stdout(open_desk):
    desk = open_desk()
    for words in (("upload",), ("upload", "nope.csv", "--json"), ("show", "nope", "--json"), ("nonsense",)):
        said = desk(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err
    assert desk.calls == 0


def test_talk_is_on_stderr_and_data_on_stdout(open_desk):
    desk = open_desk(faults=REFUSED)
    said = desk.upload()
    assert "40097" in said.out
    assert "29 of 30 rows succeeded, 1 did not: 1 refused." in said.out
    assert "list.csv: UTF-8, comma" in said.err
    assert "list.csv: UTF-8" not in said.out
    assert str(desk.latest().record.report).endswith(desk.latest().id)
    quiet = desk.upload("--quiet", "--new-run")
    assert quiet.err == ""
    assert quiet.out


def test_a_run_or_a_merchant_nearly_so_named_is_suggested(open_desk):
    desk = open_desk(many(TEA, BOOKS, rows=1))
    desk.upload()
    assert "no run 'lastest' in ledger.db. Did you mean latest?\n" in desk("show", "lastest").err
    for nearly in (TEA.name[:2], TEA.name[:-1] + "埔"):
        said = desk("show", "--merchant", nearly)
        assert said.code == 2
        assert said.err.endswith(f"has no such row. Did you mean {TEA.name}?\n")
    assert f"Its merchants are: {TEA.name}, {BOOKS.name}." in desk("show", "--merchant", "xyz").err
    assert "Did you mean" not in desk("show", "--merchant", TEA.name, "--path", "nowhere").err


def test_rows_left_out_as_invalid_end_so_and_are_exit_1(open_desk):
    desk = open_desk()
    with (desk.folder / "list.csv").open("a", encoding="utf-8") as more:
        more.write(f"{TEA.env},/wrong.png,0.bin,x\r\n")
    said = desk.upload("--on-bad", "skip", "--json")
    assert said.code == 1
    assert desk.whole(said.json, 31) == {"uploaded": 30, "invalid": 1}
    assert "list.csv:32: column 'path'" in said.err
    assert (desk.folder / "list.fix-me.csv").exists()


def test_control_characters_of_skipped_rows_are_pictures_in_every_export(open_desk):
    desk = open_desk(many(TEA, rows=1))
    with (desk.folder / "list.csv").open("a", encoding="utf-8") as more:
        more.write(f"{TEA.env},a\x01b.png,0.bin,\x1b[31m\r\n")
    said = desk.upload("--on-bad", "skip", "--json")
    report = Path(said.json["report"])
    for name in ("results.csv", "failed.csv"):
        text = (report / name).read_text(encoding="utf-8-sig")
        assert "a␁b.png,0.bin,␛[31m" in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.replace("\r\n", "\n"))
    sheets = openpyxl.load_workbook(report / "report.xlsx").worksheets
    assert sheets
    assert desk("verify", str(report)).code == 0
    again = desk("links", str(report / "failed.csv"))
    assert (again.code, desk.calls) == (2, 2)
    assert "control character (U+0001)" in again.err


def test_rows_without_a_token_end_as_not_attempted_and_the_others_go_on(open_desk):
    desk = open_desk(tokens={TEA.appid: f"token-of-{TEA.appid}"})
    said = desk.links("--json")
    assert said.code == 1
    assert desk.whole(said.json, 30) == {"linked": 20, "not_attempted": 10}
    table = desk("errcodes")
    assert "no_token" in table.out
    assert table.err == f"Run {said.json['run']} · links · list.csv · 10 of 30 rows did not succeed\n"


def test_limit_takes_the_first_rows(open_desk):
    desk = open_desk()
    said = desk.upload("--limit", "7", "--json")
    assert said.code == 0
    assert desk.whole(said.json, 7) == {"uploaded": 7}
    assert {key for _, key in desk.shop.sim.objects} == {f"banner/{n}.png" for n in range(7)}


def test_where_narrows_to_merchants(open_desk):
    desk = open_desk()
    said = desk.upload("--where", "appid=wxbooks", "--json")
    assert said.code == 0
    assert desk.whole(said.json, 10) == {"uploaded": 10}
    assert {bucket.split("-", 1)[1].rsplit("-", 1)[0] for bucket, _ in desk.shop.sim.objects} == {BOOKS.env}


OF_BOOKS = ("--where", f"appid={BOOKS.appid}")
OF_TEA = ("--where", f"appid={TEA.appid}")


def test_where_narrows_what_is_shown_of_a_run_to_matching_merchants(open_desk):
    faults = [Fault(path="banner/1.png", errcode=40097)]
    desk = open_desk(many(TEA, BOOKS, rows=3), faults)
    first = desk.upload("--json").json
    second = desk.upload("--json", "--new-run").json
    assert first["counts"] == {"uploaded": 4, "refused": 2}
    shown = desk("show", *OF_BOOKS, "--json").json
    assert desk.whole(shown, 3) == {"uploaded": 2, "refused": 1}
    assert {line["appid"] for line in shown["errcodes"]} == {BOOKS.appid}
    assert "2 of 3 rows succeeded" in desk("show", *OF_BOOKS).out
    rows = desk("show", *OF_BOOKS, "--path", "banner", "--json").json["rows"]
    assert {row["tcb_appid"] for row in rows} == {BOOKS.appid}
    assert {line["appid"] for line in desk("errcodes", *OF_BOOKS, "--json").json["errcodes"]} == {BOOKS.appid}
    table = desk("errcodes", *OF_BOOKS).out
    assert (BOOKS.name in table, TEA.name in table, "40097 · 1 row" in table) == (True, False, True)
    found = desk("diff", first["run"], second["run"], *OF_BOOKS, "--json").json
    assert (found["counts"]["still_broken"], found["counts"]["still_good"]) == (1, 2)
    assert {line["appid"] for line in found["changes"]} == {BOOKS.appid}


@pytest.mark.parametrize("final", [(), ("--final",)], ids=["once", "with its retries"])
def test_where_writes_a_report_of_matching_merchants_that_verify_recognises(open_desk, final):
    desk = open_desk(many(TEA, BOOKS, rows=3), [Fault(path="banner/1.png", errcode=40097)])
    run = desk.upload("--json").json["run"]
    if final:
        assert desk("retry", run, *OF_BOOKS).code == 1
    assert desk("report", run).code == 0
    written = desk("report", run, *final, *OF_BOOKS, "--json").json
    assert desk.whole(written, 3) == {"uploaded": 2, "refused": 1}
    folder = desk.folder / "reports" / f"{run}{'-final' if final else ''}-selected"
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["tcb_appid"] for row in rows] == [BOOKS.appid] * 3
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert (BOOKS.name in page, TEA.name in page) == (True, False)
    assert "Only the rows of 1 environment, selected with --where." in page
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows"], manifest["environments"]) == (3, [[BOOKS.appid, BOOKS.env]])
    assert desk("verify", str(folder)).code == 0
    assert desk("show", run, "--json").json["report"] == str(desk.folder / "reports" / run), (
        "the ledger names the whole report"
    )

    rows[0]["tcb_outcome"] = "failed"
    with (folder / "results.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    changed = desk("verify", str(folder))
    assert changed.code == 1
    assert "tcb_outcome" in changed.out


def test_where_lists_the_runs_with_rows_of_matching_merchants_and_counts_those(open_desk):
    desk = open_desk(many(TEA, BOOKS, rows=3))
    both = desk.upload("--json").json["run"]
    desk.upload(*OF_TEA)
    listed = desk("runs", *OF_BOOKS, "--json").json["runs"]
    assert [(run["run"], run["rows"]) for run in listed] == [(both, 3)]
    said = desk("errcodes", *OF_BOOKS)
    assert said.code == 2
    assert f"has no rows of the merchants selected by --where. Its merchants are: {TEA.name}." in said.err


@pytest.mark.parametrize("words", [("errcodes",), ("show",), ("runs",), ("diff", "latest", "latest")])
def test_where_of_an_unknown_column_is_refused_with_the_known_ones(open_desk, words):
    desk = open_desk(many(TEA, rows=1))
    assert desk.upload().code == 0
    said = desk(*words, "--where", "stage=live")
    assert (said.code, said.out) == (2, "")
    assert "has no column 'stage'; it has appid, name, env" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--into", "list.xlsx"),
        ("verify", "reports"),
        ("explain", "85088"),
        ("upload", "--resume", "latest"),
    ],
)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_where_is_refused_by_commands_that_cannot_leave_merchants_out(open_desk, find_english, words, lang):
    desk = open_desk(many(TEA, rows=1))
    assert desk.upload().code == 0
    before = desk.calls
    said = desk(*words, *OF_TEA, "--lang", lang)
    assert (said.code, said.out, desk.calls) == (2, "", before)
    assert "--where" in said.err
    assert lang == "en" or not find_english(said.err)


def test_runs_of_a_target_are_listed_where_it_is_named(open_desk):
    desk = open_desk(many(TEA, rows=1))
    here = desk.upload("--json").json["run"]
    there = desk.upload("--json", *AWAY).json["run"]
    assert [run["run"] for run in desk("runs", "--json").json["runs"]] == [there, here]
    for target, expected in ((desk.shop.sim.base, here), (AWAY[1], there)):
        listed = desk("runs", "--target", target, "--json").json["runs"]
        assert [one["run"] for one in listed] == [expected]
    nowhere = desk("runs", "--target", "https://elsewhere.example.com")
    assert (nowhere.code, nowhere.out) == (0, "")
    assert "No run in" in nowhere.err


def test_column_maps_headers_that_are_not_known(open_desk):
    desk = open_desk()
    write_csv(desk.folder / "list.csv", ("去向", "云端", "本机"), [(TEA.env, "a/b.png", "0.bin")])
    refused = desk.upload("--json")
    assert refused.code == 2
    said = desk.upload("--column", "env=去向", "--column", "path=云端", "--column", "file=本机", "--json")
    assert (said.code, said.json["counts"]) == (0, {"uploaded": 1})


def test_a_note_is_kept_and_found(open_desk):
    desk = open_desk(many(TEA, rows=1))
    assert desk.upload("--note", "双十一 第二批").code == 0
    assert desk.links("--note", "other").code == 0
    found = desk("runs", "--note", "双十一", "--json").json["runs"]
    assert [(run["kind"], run["note"]) for run in found] == [("upload", "双十一 第二批")]


def test_runs_are_a_line_each_without_a_column_that_none_needs(open_desk):
    desk = open_desk(many(TEA, rows=2))
    first = desk.upload("--json", "--note", "十一月").json["run"]
    head, line = desk("runs").out.splitlines()
    assert head.split() == ["date", "run", "kind", "target", "rows", "ok", "not", "ok", "list,", "note"]
    date = [f"{first[4:6]}-{first[6:8]}", f"{first[9:11]}:{first[11:13]}"]
    assert line.split() == [*date, first, "upload", "SIMULATED", "2", "2", "–", "list.csv", "·", "十一月"]
    stopped = desk.upload("--json", *LIVE).json["run"]
    head, line, _ = desk("runs").out.splitlines()
    assert "pending" in head
    assert line.split()[2:] == f"{stopped} upload LIVE 2 0 – 2 list.csv · → api.example.invalid".split()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_table_in_a_pipe_has_no_blanks_at_the_ends_of_its_lines(open_desk, lang):
    desk = open_desk(many(TEA, BOOKS, rows=2), [Fault(path="banner/1.png", errcode=85088)])
    older, newer = (desk.upload("--json", "--new-run").json["run"] for _ in range(2))
    for words in (
        ("errcodes",),
        ("show",),
        ("runs",),
        ("diff", older, newer),
        ("verify", f"reports/{newer}"),
    ):
        lines = desk(*words, "--lang", lang).out.splitlines()
        assert lines
        assert [line for line in lines if line != line.rstrip()] == []


def test_a_retry_reports_rows_whose_merchants_are_missing(open_desk, find_english):
    desk = open_desk(many(TEA, BOOKS, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    first = desk.upload("--json").json["run"]
    merchants = desk.folder / "merchants.csv"
    complete = merchants.read_text("utf-8")
    merchants.write_text(complete.replace(f"{BOOKS.appid},{BOOKS.name},{BOOKS.env}", ""), "utf-8")
    said = desk("retry", "--json")
    assert said.json["counts"] == {"uploaded": 2}
    assert f"run {first} has 2 rows to retry, but " in said.err
    assert f"{BOOKS.name} ({BOOKS.appid}, {BOOKS.env})" in said.err
    assert f"\ntcb-ops retry {first} --config " in said.err
    merchants.write_text(complete, "utf-8")
    rest = desk("retry", first, "--json")
    assert rest.json["counts"] == {"uploaded": 2}
    assert "no line for their merchants" not in rest.err


def test_a_retry_says_which_run_it_is_of_and_is_shown_as_one(open_desk):
    desk = open_desk(many(TEA, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    first = desk.upload("--json").json["run"]
    said = desk("retry")
    assert f"Retrying upload {first} (list.csv)." in said.err
    assert "retry · list.csv" in desk("runs").out
    assert f", a retry of {first} · upload to" in desk("show").out
    assert [one["parent"] for one in desk("runs", "--json").json["runs"]] == [first, ""]
    assert (
        "没有 errcode 为 12345 且需要重试的行。它有：40097（1 行）。"
        in desk("retry", first, "--errcode", "12345", "--lang", "zh").err
    )


@pytest.mark.parametrize("code", ["ETagMismatch", "61007 (component)"])
def test_whatever_the_table_names_is_explained(open_desk, code):
    said = open_desk()("explain", code)
    assert (said.code, said.out.count("What to do:")) == (0, 1)
    assert ("component_appid" in said.out) is ("component" in code)


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_dry_run_counts_and_sends_nothing(open_desk, kind):
    desk = open_desk()
    said = getattr(desk, kind)("--dry-run", "--rate", "2")
    assert said.code == 0
    assert f"{30 if kind == 'links' else 60} calls" in said.out
    assert "Nothing was sent." in said.out
    found = getattr(desk, kind)("--dry-run", "--json", "--rate", "2").json
    assert (found["rows"], found["valid"], found["merchants"], found["envs"]) == (30, 30, 2, 3)
    assert found["seconds_at_rate"] == 10.0
    assert sum(line["rows"] for line in found["by_merchant"]) == 30
    assert desk.calls == 0
    assert desk("runs", "--json").json == {"runs": []}


def test_check_sends_nothing_and_looks_at_local_files_where_told(open_desk):
    desk = open_desk()
    said = desk("check", "list.csv")
    assert said.code == 0
    assert "30 of 30 rows valid: 2 merchants, 3 environments" in said.out
    assert "--root" in said.err
    (desk.folder / "files" / "3.bin").unlink()
    assert desk("check", "list.csv", "--json").json["valid"] == 30
    looked = desk("check", "list.csv", "--root", "files")
    assert looked.code == 2
    assert "list.csv:5: column 'file'" in looked.err
    skipped = desk("check", "list.csv", "--root", "files", "--on-bad", "skip", "--json")
    assert (skipped.code, skipped.json["invalid"]) == (1, 1)
    assert desk.calls == 0


def test_links_that_will_run_out_before_the_last_is_issued_are_announced(open_desk):
    desk = open_desk(many(TEA, rows=20))
    assert "15 minutes" not in desk.links("--limit", "1").err
    said = desk.links("--rate", "0.02", "--limit", "19", "--new-run", "--dry-run")
    assert "15m50s" in said.out


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_change_how_a_run_ends(open_desk):
    desk = open_desk(faults=REFUSED)
    with desk.process("upload", "list.csv", "--root", "files", "--json", "--backoff", "0.01") as process:
        process.stdout.close()
        process.stdout = None
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "Broken" not in err


@pytest.mark.slow
def test_json_stays_json_where_stdout_is_not_utf_8(open_desk):
    desk = open_desk(faults=REFUSED)
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    said = desk.in_process("upload", "list.csv", "--root", "files", "--out", "été", "--json", env=env)
    assert said.json["report"].endswith("été")
    assert said.json["errcodes"][0]["merchant"] == BOOKS.name


@pytest.mark.slow
def test_chinese_paths_are_taken_as_they_are_typed(open_desk):
    desk = open_desk()
    (desk.folder / "list.csv").rename(desk.folder / "十一月 清单.csv")
    (desk.folder / "files").rename(desk.folder / "素材 目录")
    words = ("upload", "十一月 清单.csv", "--root", "素材 目录", "--out", "报告/十一月", "--json")
    said = desk.in_process(*words)
    assert said.code == 0
    assert (desk.folder / "报告" / "十一月" / "results.csv").exists()
    assert desk.latest().record.list_name == "十一月 清单.csv"


def test_help_names_every_command_and_the_exit_codes(capsys):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    commands = (
        "check",
        "links",
        "upload",
        "runs",
        "show",
        "errcodes",
        "report",
        "explain",
        "simulate",
        "demo",
    )
    assert [name for name in commands if f"  {name} " not in said] == []
    assert "130 interrupted" in said
    for name in commands:
        assert run([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: tcb-ops {name}")


@pytest.mark.slow
def test_a_defect_is_told_without_a_trace_and_verbose_shows_it(open_desk):
    """A defect made on purpose: the command's own output breaks."""
    desk = open_desk(many(TEA, rows=1))
    script = (
        "import sys, tcb_ops.cli.main as cli\n"
        "class Broken:\n    encoding = 'utf-8'\n"
        "    def __getattr__(self, name): return getattr(sys.__stdout__, name)\n"
        "    def write(self, text): raise ValueError('made on purpose')\n"
        "sys.stdout = Broken()\ncli.main(sys.argv[1:])\n"
    )
    (desk.folder / "broken.py").write_text(script, encoding="utf-8")
    from_script = [sys.executable, "broken.py", "runs", "--json"]
    with desk.spawn(from_script) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "")
    assert "Internal error in tcb-ops (ValueError)" in err
    assert "made on purpose" not in err
    with desk.spawn([*from_script, "--verbose"]) as process:
        assert "made on purpose" in process.communicate(timeout=60)[1]


def test_the_two_environments_of_a_merchant_are_told_apart(open_desk):
    desk = open_desk(
        many(TEA, TEA_TEST, rows=3), [Fault(env=TEA_TEST.env, path="banner/1.png", errcode=40097)]
    )
    assert desk.upload("--json").json["errcodes"][0]["env"] == TEA_TEST.env


def test_a_name_with_an_escape_sequence_does_not_reach_the_terminal(open_desk):
    said = open_desk()("check", "red\x1b[31m.csv")
    assert said.code == 2
    assert "\x1b" not in said.err
    assert "red�[31m.csv" in said.err

"""How commands end: with commands that work as they stand, from another folder, else with what to open."""

import csv
import html
import os
import re
import shlex
import signal
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from command_line import Result, ended
from openpyxl import Workbook
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.engine.next_commands import command, quoted
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.settings import load_settings
from tcb_ops.table_files import write_table

pytestmark = pytest.mark.integration


def suggested(text):
    """The commands that stand alone on a line."""
    return [line for line in text.splitlines() if line.startswith("tcb-ops ")]


def on_page(report):
    """The commands of a report page, each in an element of its own."""
    return [
        html.unescape(one)
        for one in re.findall(r"<kbd[^>]*>(.*?)</kbd>", (report / "report.html").read_text("utf-8"))
    ]


def stopped(process, number):
    process.send_signal(number)
    return ended(process)


@pytest.fixture
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def execute(elsewhere, capsys):
    """Execute a suggested command from another folder."""

    def done(line, *more):
        words = shlex.split(line)
        assert words[0] == "tcb-ops"
        capsys.readouterr()
        with chdir(elsewhere):
            code = run_command([*words[1:], *more])
        return Result(code, *capsys.readouterr())

    return done


@pytest.mark.kill
def test_an_interrupted_upload_is_resumed(open_cli, wait_for, execute, elsewhere):
    cli = open_cli(many(TEA, BOOKS, rows=40), [Fault(delay=0.05)])
    words = ("upload", "list.csv", "--root", "files", "--concurrency", "4", "--rate", "900", "--json")
    with cli.process(*words) as process:
        wait_for(lambda: cli.workspace.sim.stats["stored"] >= 5)
        result = stopped(process, signal.SIGINT)
    assert result.code == 130
    (line,) = suggested(result.err)
    assert f"--root {cli.folder / 'files'}" in line
    assert "--concurrency 4 --rate 900" in line
    (cli.folder / "list.csv").unlink()
    again = execute(line, "--json")
    assert (again.code, again.json["run"]) == (0, result.json["run"])
    assert cli.assert_complete(again.json, 80) == {"uploaded": 80}
    assert again.json["report"] == str(cli.folder / "reports" / result.json["run"])
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("options", [False, True])
def test_failed_rows_are_retried_as_the_page_says(open_cli, execute, options):
    cli = open_cli(many(TEA, BOOKS, rows=3), [Fault(env=TEA.env, errcode=85088, calls=((1, 1),))])
    words = ()
    if options:  # no settings file: every path is an option, and one of them has a space in it
        (cli.folder / "tcb-ops.toml").unlink()
        (cli.folder / "my tokens.csv").write_bytes((cli.folder / "tokens.csv").read_bytes())
        target = ("--target", cli.workspace.sim.base)
        words = ("--ledger", "mine.db", "--tokens", "my tokens.csv", *target, "--lang", "en")
    result = cli.upload("--json", *words)
    assert result.code == 1
    retry, *_ = on_page(Path(result.json["report"]))
    assert retry.startswith(f"tcb-ops retry {result.json['run']} ")
    again = execute(retry, "--json")
    assert (again.code, again.json["counts"]) == (0, {"uploaded": 3})
    for name in ("show", "errcodes"):
        given = {"ledger": "mine.db", "api_base": cli.workspace.sim.base} if options else {}
        line = quoted(command(load_settings(options=given), name, result.json["run"]))
        assert execute(line).code in {0, 1}


def test_a_corrected_list_goes_to_the_same_root_and_target(open_cli, execute, elsewhere):
    cli = open_cli(many(TEA, BOOKS, rows=2), [Fault(path="banner/1.png", errcode=40097)])
    result = cli.upload("--json")
    report = Path(result.json["report"])
    (line,) = [one for one in on_page(report) if "failed-fixed.csv" in one]
    text = (report / "failed.csv").read_text("utf-8-sig").replace("banner/1.png", "banner/one.png")
    (elsewhere / "failed-fixed.csv").write_text(text, "utf-8")
    again = execute(line, "--json")
    assert (again.code, again.json["counts"]) == (0, {"uploaded": 2})


def test_options_are_repeated_as_they_were_given_whatever_they_contain(open_cli, execute, elsewhere):
    odd = replace(TEA, name="茶; new shop")
    cli = open_cli(many(odd, rows=2), [Fault(path="banner/1.png", errcode=40097)], merchants=[odd, BOOKS])
    text = (cli.folder / "list.csv").read_text("utf-8").replace("path", "=云端; limit 1", 1)
    (cli.folder / "list.csv").write_text(text, "utf-8")
    given = ("--column", "path==云端; limit 1", "--where", "name=茶; new shop")
    result = cli.upload("--json", *given)
    report = Path(result.json["report"])
    (line,) = [one for one in on_page(report) if "failed-fixed.csv" in one]
    assert shlex.split(line)[5:7] == [*given[:2]]
    text = (report / "failed.csv").read_text("utf-8-sig").replace("banner/1.png", "banner/one.png")
    (elsewhere / "failed-fixed.csv").write_text(text, "utf-8")
    assert execute(line, "--json").json["counts"] == {"uploaded": 1}
    cli.workspace.sim.play([Fault(env="*", step=FaultStep.ENV_INFO, errcode=61004)])
    (line,) = suggested(cli("audit", *given[2:]).err)
    assert shlex.split(line)[2:4] == [*given[2:]]


def test_a_colleagues_workbook_is_read_with_one_suggested_command(open_cli, execute):
    rows = many(BOOKS, rows=2)
    cli = open_cli(rows)
    book = Workbook()
    book.active.title = "填写说明"
    for line in (("请按门店填写", "路径以 / 分隔"), ("不要改表头", "可以加列")):
        book.active.append(line)
    sheet = book.create_sheet("十一月")
    for line in (
        ("客户", "投放位置", "备注", "appid"),
        *((BOOKS.name, path, "横幅", BOOKS.appid) for _env, path in rows),
    ):
        sheet.append(line)
    book.save(cli.folder / "list.xlsx")
    refused = cli("check", "list.xlsx")
    assert "several sheets" not in refused.err
    (line,) = suggested(refused.err)
    assert shlex.split(line)[3:7] == ["--column", "merchant=客户", "--column", "path=投放位置"]
    result = execute(line)
    assert result.code == 0, result.err


def test_columns_are_suggested_by_their_values_whatever_their_headers_mean(open_cli, execute):
    cli = open_cli([(BOOKS.env, "banner/0.png")])
    header, *rows = (
        ("序号", "小程序", "图片名", "云端位置"),
        ("1", BOOKS.name, "横幅.png", "十一月/0.png"),
    )
    (cli.folder / "files" / "横幅.png").write_bytes(b"x")
    write_csv(cli.folder / "list.csv", header, rows)
    (line,) = suggested(cli("check", "list.csv", "--root", "files").err)
    assert {"merchant=小程序", "path=云端位置", "file=图片名"} <= set(shlex.split(line))
    result = execute(line)
    assert result.code == 0, result.err


def test_a_canary_stop_says_how_to_see_why_and_how_to_go_on(open_cli, execute):
    cli = open_cli(
        many(TEA, TEA_TEST, BOOKS, rows=2), [Fault(env=TEA.env, path="banner/1.png", errcode=40097)]
    )
    result = cli.upload("--canary", "1", "--json")
    assert result.code == 3
    why, rest = suggested(result.err)
    assert "40097" in execute(why).out
    done = execute(rest, "--json")
    assert (done.code, done.json["run"]) == (1, result.json["run"])
    assert done.json["counts"] == {"uploaded": 5, "refused": 1}


def test_a_retry_of_another_target_or_of_an_unfinished_run_says_what_works(open_cli, execute):
    cli = open_cli(many(TEA, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    run = cli.upload("--json").json["run"]
    (line,) = suggested(cli("retry", run, "--target", "simulator").err)
    assert execute(line).code == 0
    away = cli.upload("--json", "--new-run", "--target", "http://127.0.0.1:9", "--patience", "0.1")
    (line,) = suggested(cli("retry", away.json["run"], "--target", "http://127.0.0.1:9").err)
    assert f"--resume {away.json['run']}" in line
    assert execute(line).code == 3


@pytest.mark.parametrize("words", [("upload",), ("upload", "list.csv", "--root", "files"), ("audit",)])
def test_a_run_of_another_kind_is_refused_with_the_command_that_resumes_it(open_cli, execute, words):
    cli = open_cli(many(TEA, rows=2))
    target = ("--target", "http://127.0.0.1:9")
    run = cli.links("--json", *target, "--patience", "0.1").json["run"]
    refused = cli(*words, "--resume", run, *target)
    assert refused.code == 2
    (line,) = suggested(refused.err)
    assert line.startswith(f"tcb-ops links --resume {run} ")
    assert execute(line, "--json").json["run"] == run


def test_a_stopped_audit_suggests_another_with_its_options(open_cli, execute):
    cli = open_cli([], [Fault(env="*", step=FaultStep.ENV_INFO, errcode=61004, calls=((1, 1),))])
    (cli.folder / "mine.csv").write_text("env,cause,until\n", encoding="utf-8")
    words = ("--where", f"env={BOOKS.env}", "--known", "mine.csv")
    result = cli("audit", *words)
    assert result.code == 3
    (line,) = suggested(result.err)
    mine = str(cli.folder / "mine.csv")
    expected = ["audit", "--where", f"env={BOOKS.env}", "--known", mine]
    assert shlex.split(line)[1 : len(expected) + 1] == expected
    again = execute(line, "--json")
    assert (again.code, again.json["kind"], again.json["counts"]) == (0, "audit", {"healthy": 1})


@pytest.mark.kill
def test_a_simulated_run_is_found_and_resumed_by_what_it_suggests(open_cli, execute, wait_for):
    cli = open_cli(many(TEA, rows=100))
    (cli.folder / "tcb-ops.toml").unlink()
    words = ("--target", "simulator", "--concurrency", "1", "--rate", "60")
    with cli.process("upload", "list.csv", "--root", "files", *words) as process:
        wait_for(lambda: '"uploaded"' in cli("show", "--target", "simulator", "--json").out)
        result = stopped(process, signal.SIGINT)
    assert result.code == 130
    (line,) = suggested(result.err)
    assert "--target simulator" in line
    again = execute(line.replace("--rate 60", "--rate 100000"), "--json")
    assert (again.code, again.json["counts"], again.json["target"]) == (0, {"uploaded": 100}, "simulator")


def test_the_demos_suggestions_work(tmp_path, monkeypatch, capsys, execute):
    monkeypatch.chdir(tmp_path)
    assert run_command(["demo", "--lang", "en"]) == 0
    result = capsys.readouterr()
    (line,) = suggested(result.out)
    again = execute(line, "--json")
    assert again.code in {0, 1}
    assert again.json["counts"].get("uploaded", 0) > 0
    assert {"retry", "upload"} <= {one.split()[1] for one in on_page(tmp_path / "demo-report")}
    settings = tmp_path / "demo-report" / "ledger" / "tcb-ops.toml"
    verified = execute(
        quoted(["tcb-ops", "verify", str(tmp_path / "demo-report"), "--config", str(settings)])
    )
    assert verified.code == 0, verified.out


def test_a_variable_is_repeated_as_an_option(open_cli, monkeypatch):
    cli = open_cli(many(TEA, rows=1))
    monkeypatch.setenv("TCB_OPS_LEDGER", "other.db")
    line = quoted(command(load_settings(), "runs"))
    assert f"--ledger {cli.folder / 'other.db'}" in line
    assert f"--config {os.path.realpath('tcb-ops.toml')}" in line


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_language_is_repeated_where_it_was_an_option(open_cli, monkeypatch, execute, lang):
    cli = open_cli(many(TEA, rows=1))
    assert cli.upload().code == 0
    (line,) = suggested(cli("show", "nope", "--lang", lang).err)
    assert line.endswith(f" --lang {lang}")
    assert ("类型" in execute(line).out) is (lang == "zh")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "--lang" not in cli("show", "nope").err


def test_paths_of_suggested_commands_have_no_dots_unless_links_need_them(tmp_path, monkeypatch):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a" / "deep", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "b")
    settings = load_settings(options={"ledger": "../b/./x.db", "merchants": "link/../m.csv"})
    words = command(settings, "show")
    assert words[words.index("--ledger") + 1] == str(tmp_path / "b" / "x.db")
    assert words[words.index("--merchants") + 1] == str(tmp_path / "b" / "link" / ".." / "m.csv")


def test_the_command_for_a_corrected_list_has_no_dots(open_cli):
    cli = open_cli([(TEA.env, "/a.png")])
    (cli.folder / "deep").mkdir()
    (line,) = suggested(cli("upload", "deep/../list.csv", "--root", "./files").err)
    words = shlex.split(line)
    assert words[2] == str(cli.folder / "list.csv")
    assert words[words.index("--root") + 1] == str(cli.folder / "files")


@pytest.mark.parametrize("words", [("upload", "list.csv", "--root", "files"), ("audit",)])
def test_a_run_without_errors_names_the_report_to_open(open_cli, words):
    result = open_cli(many(TEA, rows=2))(*words)
    assert (result.code, suggested(result.err)) == (0, [])
    assert Path(result.err.splitlines()[-1].rpartition(": ")[2]).is_file()


@pytest.mark.parametrize(
    "words", [("upload", "list.csv", "--root", "files"), ("links", "list.csv"), ("audit",)]
)
def test_rows_that_can_be_retried_end_with_the_retry(open_cli, words):
    cli = open_cli(many(TEA, rows=2), [Fault(errcode=85088, calls=((1, 1),))])
    result = cli(*words)
    assert result.code == 1
    (line,) = suggested(result.err)
    command = shlex.split(line)
    assert command[:3] == ["tcb-ops", "retry", cli.latest().id]
    again = cli(*command[1:])
    assert (again.code, suggested(again.err)) == (0, [])


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_skipped_rows_end_with_the_command_for_the_fix_me_file(open_cli, kind):
    cli = open_cli(many(TEA, rows=2))
    rows = [(TEA.env, "/a.png", "0.bin"), (TEA.env, "b.png", "1.bin")]
    write_csv(cli.folder / "half.csv", ("env", "云端", "file"), rows)
    root = () if kind == "links" else ("--root", "files")
    result = cli(kind, "half.csv", "--on-bad", "skip", "--column", "path=云端", *root)
    assert result.code == 1
    assert "half.fix-me.csv has the 1 skipped row. Correct what is wrong there, then run:" in result.err
    assert "--on-bad skip" not in result.err
    (line,) = suggested(result.err)
    command = shlex.split(line)
    fix_me = cli.folder / "half.fix-me.csv"
    assert command[:3] == ["tcb-ops", kind, str(fix_me)]
    fix_me.write_text(fix_me.read_text(encoding="utf-8-sig").replace(",/a.png", ",a.png"), encoding="utf-8")
    corrected = cli(*command[1:])
    assert (corrected.code, "Corrects 1 row of run" in corrected.err) == (0, kind != "check")


def test_report_final_has_the_rows_of_corrected_fix_me_files(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=1), [Fault(path="a.png", errcode=85088, calls=((1, 1),))])
    rows = [("nobody", "/a.png", "0.bin"), (TEA.env, "b.png", "0.bin"), ("nobody", "/c.png", "0.bin")]
    write_table(cli.folder / "half.xlsx", ("env", "path", "file"), rows)
    skipping = ("--on-bad", "skip", "--root", "files")
    assert cli("upload", "half.xlsx", *skipping).code == 1
    first = cli.latest().id
    fix_me, second = cli.folder / "half.fix-me.csv", cli.folder / "half.fix-me.fix-me.csv"
    text = fix_me.read_text(encoding="utf-8-sig").replace("nobody", BOOKS.env)
    fix_me.write_text(text.replace("/a.png", "a.png"), encoding="utf-8")
    assert f"Corrects 2 rows of run {first}, and counts" in cli("upload", fix_me.name, *skipping).err
    correcting = cli.latest().id
    text = second.read_text(encoding="utf-8-sig").replace("/c.png", "c.png")
    second.write_text(text, encoding="utf-8")
    assert f"Corrects 1 row of run {first}, and counts" in cli("upload", second.name, "--root", "files").err
    final = cli("report", "latest", "--final", "--json").json
    assert (final["run"], final["counts"]) == (first, {"uploaded": 2, "refused": 1})
    assert cli("retry", first).code == 0
    assert cli("report", first, "--final", "--into", "half.xlsx", "--json").json["counts"] == {"uploaded": 3}
    assert cli("report", first, "--final").code == 0
    with (cli.folder / f"reports/{first}-final/results.csv").open(encoding="utf-8-sig", newline="") as lines:
        ends = [(row["tcb_line"], row["tcb_env"], row["path"]) for row in csv.DictReader(lines)]
    assert ends == [("2", BOOKS.env, "a.png"), ("3", TEA.env, "b.png"), ("4", BOOKS.env, "c.png")]
    undone = cli("undo", first, "--yes", "--json")
    assert (undone.json["counts"], correcting in undone.err) == ({"deleted": 1}, True)


def test_a_corrected_failed_csv_counts_in_the_final_report_and_its_old_rows_are_not_retried(open_cli):
    cli = open_cli(
        many(TEA, rows=1),
        [
            Fault(path="wrong.png", errcode=40097),
            Fault(path="right.png", errcode=85088, calls=((1, 1),)),
            Fault(path="later.png", errcode=85088, calls=((1, 2),)),
        ],
    )
    rows = [(TEA.env, path, "0.bin") for path in ("good.png", "wrong.png", "later.png", "/bad.png")]
    write_csv(cli.folder / "half.csv", ("env", "path", "file"), rows)
    assert cli("upload", "half.csv", "--root", "files", "--on-bad", "skip").code == 1
    first = cli.latest().id
    failed = cli.folder / f"reports/{first}/failed.csv"
    text = failed.read_text(encoding="utf-8-sig").replace(",wrong.png", ",right.png").replace("/bad", "bad")
    head, *lines = text.splitlines()
    text = "\n".join([f"asked,{head}", *(f"Li,{line}" for line in lines)])  # an operator's own column
    (cli.folder / "failed-fixed.csv").write_text(text, encoding="utf-8")
    for words in (("check",), ("upload", "--dry-run"), ("upload",)):
        correcting = cli(*words, "failed-fixed.csv", "--root", "files")
        assert f"Corrects 3 rows of run {first}, and counts in its report --final." in correcting.err
    correction = cli.latest().id
    assert list(cli.latest().results(["asked"])["asked"]) == ["Li"] * 3
    results = tcb.open_run(first, settings=cli.latest().settings).final().results()
    assert (list(results)[:3], results["path"][1]) == (["env", "path", "file"], "right.png")
    assert "correction · failed-fixed.csv" in cli("runs").out
    final = cli("report", first, "--final", "--json").json
    assert (final["run"], final["counts"]) == (first, {"uploaded": 2, "refused": 2})
    (line,) = suggested(correcting.err)
    assert shlex.split(line)[:3] == ["tcb-ops", "retry", correction]
    retried = cli("retry", first)  # the first run's own rows are corrected: these of the correction are left
    assert (retried.code, cli.latest().record.parent, suggested(retried.err)) == (0, correction, [])
    final = cli("report", first, "--final", "--json").json
    assert final["counts"] == {"uploaded": 4}
    assert "nothing to retry" in cli("retry", first).err


def test_rows_corrected_in_pandas_count_in_the_final_report(open_cli):
    cli = open_cli(many(TEA, rows=3), [Fault(path="banner/1.png", errcode=40097)])
    assert cli.upload().code == 1
    run = cli.latest()
    failed = run.failed()
    failed["path"] = "banner/right.png"
    corrected = tcb.upload(failed, root="files", settings=run.settings)
    assert (corrected.counts, corrected.record.corrects) == ({"uploaded": 1}, run.id)
    assert list(run.final().results(["path", "tcb_line"])["path"])[1] == "banner/right.png"
    failed.to_excel("failed-fixed.xlsx", index=False)  # its times are cells of whole seconds
    assert f"Corrects 1 row of run {run.id}" in cli("upload", "failed-fixed.xlsx", "--root", "files").err
    failed["tcb_ended_at"] += pd.Timedelta(5, "s")
    assert not tcb.upload(failed, root="files", settings=run.settings).record.corrects


@pytest.mark.parametrize(
    ("first", "old", "new"),
    [
        ("check", "", ""),
        ("upload", "tcb_list", "tcb_was"),
        ("upload", "tcb_line", "tcb_was"),
        ("upload", ",3,path", ",2,path"),
        ("upload", ",3,path", ",4,path"),
        ("upload", "file,", "datei,"),
    ],
    ids=["no run", "no tcb_list", "no tcb_line", "a line twice", "a line that was sent", "another column"],
)
def test_a_fix_me_file_that_corrects_no_run_is_a_list_like_any_other(open_cli, first, old, new):
    cli = open_cli(many(TEA, rows=1))
    rows = [(TEA.env, "/a.png", "0.bin"), (TEA.env, "/b.png", "0.bin"), (TEA.env, "c.png", "0.bin")]
    write_csv(cli.folder / "half.csv", ("env", "path", "file"), rows)
    assert cli(first, "half.csv", "--on-bad", "skip", "--root", "files").code == 1
    fix_me = cli.folder / "half.fix-me.csv"
    text = fix_me.read_text(encoding="utf-8-sig").replace(",/", ",").replace(old, new)
    fix_me.write_text(text, encoding="utf-8")
    column = ("--column", "file=datei") if new == "datei," else ()
    for words in (("check",), ("upload", "--dry-run"), ("upload",)):
        result = cli(*words, fix_me.name, "--root", "files", *column)
        assert (result.code, "Corrects" in result.err) == (0, False)
        assert "half.fix-me.csv corrects no earlier run: " in result.err


@pytest.mark.parametrize("kind", ["check", "links", "upload"])
def test_a_refused_list_ends_with_the_command_for_the_corrected_list(open_cli, kind):
    cli = open_cli(many(TEA, rows=2))
    write_csv(cli.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "/a.png", "0.bin")])
    root = () if kind == "links" else ("--root", "files")
    result = cli(kind, "bad.csv", "--column", "path=云端", "--where", f"appid={TEA.appid}", *root)
    assert (result.code, cli.calls) == (2, 0)
    (line,) = suggested(result.err)
    command = shlex.split(line)
    assert result.err.endswith(f"{line}\n")
    assert command[:3] == ["tcb-ops", kind, str(cli.folder / "bad.csv")]
    write_csv(cli.folder / "bad.csv", ("env", "云端", "file"), [(TEA.env, "a.png", "0.bin")])
    assert cli(*command[1:]).code == 0


def test_a_forgotten_root_is_said_once(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=60))
    result = cli("upload", "list.csv", "--where", f"appid={TEA.appid}")
    assert result.code == 2
    assert result.err.count("there is no file") == 1
    assert f"list.csv: none of its 60 rows has a file below {cli.folder}." in result.err
    assert "--root" in result.err
    assert not list(cli.folder.glob("*fix-me*"))


def test_a_run_with_skipped_and_refused_rows_suggests_the_fix_me_file_then_the_retry(open_cli):
    cli = open_cli(many(TEA, rows=2), [Fault(path="b.png", errcode=85088)])
    rows = [(TEA.env, "/a.png", "0.bin"), (TEA.env, "b.png", "1.bin")]
    write_csv(cli.folder / "half.csv", ("env", "path", "file"), rows)
    result = cli("upload", "half.csv", "--on-bad", "skip", "--root", "files")
    commands = [shlex.split(line)[1:3] for line in suggested(result.err)]
    assert commands == [["upload", str(cli.folder / "half.fix-me.csv")], ["retry", cli.latest().id]]
    assert "half.fix-me.csv has the 1 skipped row." in result.err

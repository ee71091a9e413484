"""Bad input: each a clear message naming file, line and fix, exit 2, nothing sent, no trace."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from command_line import ended
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

pytestmark = pytest.mark.integration

LISTS = {
    "not text": (b"env,path\n\xff\xfe\xfd,a\n", ["list.csv:2", "not text", "UTF-8"]),
    "unknown env": (b"env,path\nnope-1,a.png\n", ["list.csv:2", "'env'", "nope-1"]),
    "dots": (f"env,path\n{TEA.env},a/../b.png\n".encode(), ["list.csv:2", "'path'", ".."]),
}
"""A list's bytes, and what stderr must say of it; lists/corpus has all others."""


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("command", ["check", "links", "upload"])
def test_a_bad_list_is_refused_whole_with_line_and_fix(open_cli, name, command):
    cli = open_cli(many(TEA, rows=1))
    data, told = LISTS[name]
    (cli.folder / "list.csv").write_bytes(data)
    (cli.folder / "a.png").write_bytes(b"x")
    result = cli(command, "list.csv", "--json")
    assert (result.code, result.json["error"]["code"]) == (2, "input")
    assert {problem["line"] for problem in result.json["problems"]} <= {0, 1, 2, 3}
    assert [word for word in told if word not in result.err] == [], result.err
    assert "Nothing was sent." in result.err
    assert result.err.count("\n") <= 6, result.err
    assert cli.calls == 0
    assert not (cli.folder / "ledger.db").exists()


def test_what_is_given_in_place_of_a_list_is_named_with_what_to_do(open_cli):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "周五").mkdir()
    (cli.folder / "周五" / "a.csv").write_bytes(b"x")
    (cli.folder / "gone.csv").symlink_to("nowhere")
    told = {
        "没有.csv": f"没有.csv: there is no such file — check the name; the folder is {cli.folder}",
        "周五/A1.CSV": "周五/A1.CSV: there is no such file — did you mean 周五/a.csv?",
        "": "'': the file name is empty",
        "gone.csv": "gone.csv: there is no such file — check the name",
        "https://op:s3cr3t@h.example/a.csv?sign=s3cr3t": (
            "https://h.example/a.csv: this is a URL, not a file — download it first, then give the file"
        ),
    }
    for command in ("check", "links", "upload"):
        for name, message in told.items():
            result = cli(command, name)
            assert result.code == 2
            assert message in result.err
            assert "s3cr3t" not in result.err
    assert cli.calls == 0


def test_a_column_that_is_not_there_is_suggested_as_it_is_spelled(open_cli):
    cli = open_cli(many(TEA, rows=1))
    write_csv(cli.folder / "list.csv", ("env", "云端目标"), [(TEA.env, "a.png")])
    result = cli("check", "list.csv", "--column", "path=云端路标")
    assert result.code == 2
    assert "there is no such column; the header has 'env', '云端目标'" in result.err
    result = cli("check", "list.csv", "--column", "paht=云端目标")
    assert result.code == 2
    assert "the name must be one of env, merchant, path" in result.err


def test_the_first_fifty_problems_are_shown_and_all_are_in_the_fix_me_csv(open_cli):
    cli = open_cli(many(TEA, rows=1))
    wrong = [(TEA.env, f"/{n}.png", "x") for n in range(120)]
    write_csv(cli.folder / "list.csv", ("env", "path", "备注"), wrong)
    result = cli("upload", "list.csv", "--root", "files")
    assert result.code == 2
    shown = [line for line in result.err.splitlines() if line.startswith("list.csv:")]
    assert len(shown) == 50
    assert "Read as list.csv: UTF-8, comma; columns env, path; 120 rows" in result.err
    assert "\nand 70 more problems\n" in result.err
    fix_me = (cli.folder / "list.fix-me.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(fix_me) == 121
    assert fix_me[0].startswith("env,path,备注,tcb_line,tcb_column,tcb_problem,tcb_fix,tcb_list")
    fixed = "\r\n".join(line.replace(",/", ",") for line in fix_me)
    (cli.folder / "list.fix-me.csv").write_text(fixed, encoding="utf-8")
    assert cli("links", "list.fix-me.csv").code == 0


def test_a_fix_me_file_replaces_one_that_nobody_has_changed_and_no_other_file(open_cli):
    cli = open_cli(many(TEA, rows=1))
    assert cli("links", "list.csv").code == 0
    fix_me = cli.folder / "list.fix-me.csv"
    for path in ("/=1,\n甲", "/a"):
        write_csv(cli.folder / "list.csv", ("env", "path"), [(TEA.env, path)])
        assert cli("check", "list.csv").code == 2
        assert path in fix_me.read_text(encoding="utf-8-sig")
    assert [*cli.folder.glob("*fix-me*")] == [fix_me]
    assert cli("check", "list.csv", "--fix-me", "list.fix-me.csv").code == 2
    fix_me.write_text(fix_me.read_text(encoding="utf-8-sig").replace("/a", "a", 1), encoding="utf-8")
    assert cli("check", "list.csv").code == 2
    assert "/a" in (cli.folder / "list.fix-me-2.csv").read_text(encoding="utf-8-sig")
    (cli.folder / "there.csv").symlink_to("list.fix-me.csv")
    (cli.folder / "nowhere.csv").symlink_to("not-there.csv")
    files = ("list.csv", "tokens.csv", "merchants.csv", "tcb-ops.toml", "links.csv", "list.fix-me.csv")
    before = [(cli.folder / name).read_bytes() for name in files]
    for name in (*files, "ledger.db", "there.csv", "nowhere.csv", "files"):
        result = cli("check", "list.csv", "--fix-me", name)
        assert result.code == 2
        says = "already exists" if name.endswith(".csv") else "must end in .csv or .xlsx"
        assert says in result.err
    assert [(cli.folder / name).read_bytes() for name in files] == before
    # SQLite writes its file when it likes: that it is the ledger still is what counts
    assert (cli.folder / "ledger.db").read_bytes().startswith(b"SQLite format 3")
    assert not (cli.folder / "not-there.csv").exists()


def test_local_files_that_are_missing_or_special_or_outside_are_named_before_anything_is_sent(open_cli):
    cli = open_cli(many(TEA, rows=4))
    files = cli.folder / "files"
    (files / "0.bin").unlink()
    (files / "1.bin").unlink()
    (files / "1.bin").mkdir()
    (files / "2.bin").unlink()
    (files / "2.bin").symlink_to(cli.folder / "tokens.csv")
    result = cli.upload("--json")
    assert (result.code, [problem["line"] for problem in result.json["problems"]]) == (2, [2, 3, 4])
    assert [line for line in (2, 3, 4) if f"list.csv:{line}: column 'file'" not in result.err] == []
    assert "list.csv:5" not in result.err
    assert cli.calls == 0
    assert cli.links("--json").code == 0, "links never looks at local files"


SETTINGS = {
    "no token file": (("--tokens", "nope.csv"), ["nope.csv"]),
    "token file that is a folder": (("--tokens", "files"), ["files"]),
    "ledger of another program": (("--ledger", "other.db"), ["other.db", "another program's database"]),
    "ledger in no folder": (("--ledger", "nowhere/l.db"), ["nowhere", "--ledger"]),
    "ledger that is a folder": (("--ledger", "files"), ["files", "it is a folder"]),
    "ledger by a bad URL": (("--ledger", "nope://x:hush@y/z"), ["--ledger"]),
    "settings that are no TOML": (("--config", "list.csv"), ["list.csv", "TOML"]),
    "target that is no URL": (("--api-base", "wechat"), ["tcb-ops: api_base", "https://api.weixin.qq.com"]),
    "empty target": (("--target", ""), ["--target: it is empty"]),
    "empty ledger": (("--ledger", ""), ["'' cannot be the ledger"]),
    "column without a header": (("--column", "path"), ["--column path", "NAME=HEADER"]),
    "column of an unknown name": (("--column", "colour=path"), ["--column colour"]),
    "a number that is none": (("--concurrency", "many"), ["--concurrency", "--help"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_named_and_nothing_is_sent(open_cli, name):
    cli = open_cli(many(TEA, rows=2))
    with closing(sqlite3.connect(cli.folder / "other.db")) as other, other:
        other.execute("CREATE TABLE plants (name)")
    before = (cli.folder / "other.db").read_bytes()
    options, told = SETTINGS[name]
    result = cli("links", "list.csv", "--json", *options)
    assert (result.code, set(result.json)) == (2, {"error", "problems"})
    assert [word for word in told if word not in result.err] == [], result.err
    assert f"token-of-{TEA.appid}" not in result.err
    assert "hush" not in result.err
    assert cli.calls == 0
    assert (cli.folder / "other.db").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("options", [("--ledger", "pipe"), ("--config", "pipe"), ("--ledger", "/dev/zero")])
def test_what_is_no_regular_file_is_refused_without_being_opened(open_cli, options):
    cli = open_cli(many(TEA, rows=2))
    os.mkfifo(cli.folder / "pipe")
    result = cli("links", "list.csv", *options)
    assert (result.code, cli.calls) == (2, 0)
    assert options[1] in result.err
    assert "it is not a regular file but a pipe or a device" in result.err


@pytest.mark.parametrize("value", ["[" * 100_000 + "]" * 100_000, "9" * 5_000])
def test_settings_that_no_parser_takes_are_refused(open_cli, monkeypatch, value):
    cli = open_cli(many(TEA, rows=2))
    monkeypatch.setenv("TCB_OPS_STORE_HOSTS", value)
    assert cli("check", "list.csv").code in {0, 2}
    with (cli.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write(f"x = {value}\n")
    result = cli("check", "list.csv")
    assert (result.code, "tcb-ops.toml cannot be used: it has thousands" in result.err) == (2, True)


def with_limit(cli, resource, limit, *words):
    """Run a command in a process with so much of a resource: the ledger's writes fail as on a full disk."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.{resource}, ({limit},) * 2); from tcb_ops.cli.main import main; main()"
    )
    with cli.spawn(
        [sys.executable, "-B", "-c", code, *words]
    ) as process:  # a module that is compiled would be cut off
        result = ended(process)
    assert "defect" not in result.err, result.err
    return result


def test_a_full_disk_in_mid_run_is_exit_3_and_with_room_the_same_command_goes_on(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=300))
    words = ("upload", "list.csv", "--root", "files", "--json", "--concurrency", "8")
    planned = cli(
        "upload", "list.csv", "--root", "files", "--api-base", "http://127.0.0.1:9", "--patience", "0.1"
    )
    assert planned.code == 3
    size = (cli.folder / "ledger.db").stat().st_size
    stopped = with_limit(cli, "RLIMIT_FSIZE", size + 100_000, *words)
    assert stopped.code == 3, stopped.err
    assert "ledger.db" in stopped.err
    result = cli(*words)
    assert result.code == 0
    assert cli.assert_complete(result.json, 600) == {"uploaded": 600}
    assert "run" not in stopped.json or cli.assert_complete(stopped.json, 600)["pending"] > 0


@pytest.mark.parametrize(
    "words", [("errcodes", "--out", "x.xlsx"), ("show", "--out", "x.xlsx"), ("show", "--out", "x.csv")]
)
def test_a_full_disk_leaves_no_table_and_is_said(open_cli, words):
    cli = open_cli(many(TEA, rows=40))
    assert cli.links().code == 0
    run = cli.latest()  # keeps the ledger open, whose files beside it need not grow then
    result = with_limit(cli, "RLIMIT_FSIZE", 5_000, *words)
    assert (run.counts, result.code) == ({"linked": 40}, 2), result.err
    assert f"{words[-1]} cannot be written (the file is larger than allowed here)" in result.err
    assert not (cli.folder / words[-1]).exists()


def test_a_full_disk_before_the_run_exists_sends_nothing(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2000))
    result = with_limit(cli, "RLIMIT_FSIZE", 150_000, "links", "list.csv", "--json")
    assert result.code in {2, 3}
    assert set(result.json) == {"error", "problems"}
    assert cli.calls == 0
    assert cli("runs", "--json").json == {"runs": []}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")
@pytest.mark.parametrize(("words", "code"), [(("show", "nope"), 2), (("check", "list.csv"), 0)], ids=str)
def test_a_full_or_closed_stderr_does_not_hide_the_exit_code(open_cli, words, code):
    cli = open_cli(many(TEA, rows=1))
    with Path("/dev/full").open("wb") as full:
        assert cli.in_process(*words, stderr=full).code == code
    reader, writer = os.pipe()
    os.close(reader)
    assert cli.in_process(*words, stderr=writer).code == code
    os.close(writer)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_standard_streams_are_no_obstacle(open_cli, closed):
    cli = open_cli(many(TEA, BOOKS, rows=2))
    with cli.spawn(
        [sys.executable, "-m", "tcb_ops", "upload", "list.csv", "--root", "files", "--json"],
        preexec_fn=lambda: [os.close(number) for number in closed],
    ) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert (out == "") is (1 in closed)
    assert (err == "") is (2 in closed)
    assert "Traceback" not in err
    assert cli.latest().counts == {"uploaded": 4}


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a process's files")
def test_too_few_file_descriptors_are_exit_3_with_the_rows_pending(open_cli):
    """Wherever the limit is met: libraries, ledger, list, event loop, connections, files to upload."""
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=60))
    for file in (cli.folder / "files").rglob("*.png"):
        file.write_bytes(b"x" * 70_000)
    words = ("upload", "list.csv", "--root", "files", "--json", "--concurrency", "64", "--per-env", "64")
    in_mid_run = 0
    for limit in (10, 16, 32, 64):
        stopped = with_limit(cli, "RLIMIT_NOFILE", limit, *words)
        assert stopped.code == 3, (limit, stopped.err)
        assert "Too many open files" in stopped.err
        if "run" in stopped.json:
            in_mid_run += 1
            assert set(cli.assert_complete(stopped.json, 180)) <= {"pending", "uploaded"}, limit
    assert in_mid_run
    result = cli(*words)
    assert result.code == 0, result.err
    assert cli.assert_complete(result.json, 180) == {"uploaded": 180}

"""Bad input: each a clear message naming file, line and fix, exit 2, nothing sent, no trace."""

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

GOOD = f"env,path\r\n{TEA.env},a.png\r\n"


def lists():
    """A list's bytes, and what stderr must say of it."""
    row = f"{TEA.env},a.png"
    return {
        "empty": (b"", ["list.csv", "empty", "export"]),
        "blank lines": (b"\n\n", ["list.csv", "blank lines"]),
        "header alone": (b"env,path\n", ["list.csv:1", "no row", "add a row"]),
        "not text": (b"env,path\n\xff\xfe\xfd,a\n", ["list.csv:2", "not text", "UTF-8"]),
        "NUL": (f"env,path\n{row}\n{TEA.env},b\0.png\n".encode(), ["list.csv:3", "NUL"]),
        "workbook": (b"PK\x03\x04" + bytes(40), ["list.csv", "workbook", "again"]),
        "no path column": (b"env,name\ntea,x\n", ["list.csv:1", "path", "--column"]),
        "no env column": (b"path\na.png\n", ["list.csv:1", "env", "--column"]),
        "same column twice": (f"env,path,path\n{row},b\n".encode(), ["list.csv:1", "path"]),
        "duplicate": (
            f"env,path\n{row}\n{row}\n".encode(),
            ["list.csv:3", "same environment and path as in line 2", "remove"],
        ),
        "unknown env": (b"env,path\nnope-1,a.png\n", ["list.csv:2", "'env'", "nope-1"]),
        "unknown merchant": ("商户,path\n无名,a.png\n".encode(), ["list.csv:2", "商户", "merchants"]),
        "empty path": (f"env,path,x\n{TEA.env},,1\n".encode(), ["list.csv:2", "'path'", "empty"]),
        "empty env": (b"env,path\n,a.png\n", ["list.csv:2", "'env'", "empty"]),
        "leading slash": (f"env,path\n{TEA.env},/a.png\n".encode(), ["list.csv:2", "'path'", "/"]),
        "double slash": (f"env,path\n{TEA.env},a//b.png\n".encode(), ["list.csv:2", "'path'", "//"]),
        "dot": (f"env,path\n{TEA.env},a/./b.png\n".encode(), ["list.csv:2", "'path'", "."]),
        "dots": (f"env,path\n{TEA.env},a/../b.png\n".encode(), ["list.csv:2", "'path'", ".."]),
        "control": (f"env,path\n{TEA.env},a\x1bb.png\n".encode(), ["list.csv:2", "'path'", "control"]),
        "too long": (f"env,path\n{TEA.env},{'字' * 284}\n".encode(), ["list.csv:2", "'path'", "850"]),
    }


@pytest.mark.parametrize("name", lists())
@pytest.mark.parametrize("command", ["check", "links", "upload"])
def test_a_bad_list_is_refused_whole_with_line_and_fix(open_cli, name, command):
    cli = open_cli(many(TEA, rows=1))
    data, told = lists()[name]
    (cli.folder / "list.csv").write_bytes(data)
    (cli.folder / "a.png").write_bytes(b"x")
    result = cli(command, "list.csv", "--json")
    assert (result.code, result.out) == (2, "")
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
        "没有.csv": "没有.csv: there is no such file — check the name and the folder",
        "lst.csv": "lst.csv: there is no such file — did you mean list.csv?",
        "周五/A1.CSV": "周五/A1.CSV: there is no such file — did you mean 周五/a.csv?",
        "周三/a.csv": "周三/a.csv: there is no such file — check the name and the folder",
        "files": "files: this is a folder, not a file — give the path of a CSV, TSV or XLSX file",
        ".": ".: this is a folder, not a file",
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


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is not text"),
        (b"<html><table><tr><td>env", "no column for path"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "save it as .xlsx"),
    ],
)
def test_a_file_of_another_kind_is_refused(open_cli, find_english, head, kind):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "list.csv").write_bytes(head)
    result = cli("upload", "list.csv", "--root", "files")
    assert result.code == 2
    assert kind in result.err
    assert find_english(cli("upload", "list.csv", "--lang", "zh").err) == []


def test_a_column_that_is_not_there_is_suggested_as_it_is_spelled(open_cli):
    cli = open_cli(many(TEA, rows=1))
    write_csv(cli.folder / "list.csv", ("env", "云端目标"), [(TEA.env, "a.png")])
    result = cli("check", "list.csv", "--column", "path=云端路标")
    assert result.code == 2
    assert "there is no such column; the header has 'env', '云端目标'" in result.err
    for wrong in ("云端目标=path", "paht=云端目标"):
        result = cli("check", "list.csv", "--column", wrong)
        assert result.code == 2
        assert "Did you mean --column path=云端目标?" in result.err


def test_a_mistake_in_the_settings_is_told_in_their_language(open_cli, find_english, monkeypatch):
    cli = open_cli(many(TEA, rows=1), lang="zh")
    monkeypatch.setenv("TCB_OPS_LEGDER", "x")
    result = cli("runs")
    assert (result.code, find_english(result.err)) == (2, [])
    assert find_english(cli("runs", "--lang", "en").err)


def test_a_fix_me_file_is_written_again_until_somebody_has_changed_it(open_cli):
    cli = open_cli(many(TEA, rows=1))
    fix_me = cli.folder / "list.fix-me.csv"

    def check(*paths):
        write_csv(cli.folder / "list.csv", ("env", "path"), [(TEA.env, path) for path in paths])
        assert cli("check", "list.csv").code == 2
        return sorted(file.name for file in cli.folder.glob("*.fix-me*"))

    assert check("/a", "/b", "=c") == check("/a", "/b", "=c") == check("/=d") == [fix_me.name]
    assert "/=d" in fix_me.read_text(encoding="utf-8-sig")
    fix_me.write_text(fix_me.read_text(encoding="utf-8-sig").replace("/=d", "d"), encoding="utf-8")
    assert check("/e") == check("/f") == ["list.fix-me-2.csv", fix_me.name]
    assert ",d," in fix_me.read_text(encoding="utf-8")
    assert cli("links", fix_me.name).code == 0


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
    assert fix_me[0].startswith("env,path,备注,tcb_line,tcb_column,tcb_problem,tcb_fix")
    fixed = "\r\n".join(line.replace(",/", ",") for line in fix_me)
    (cli.folder / "list.fix-me.csv").write_text(fixed, encoding="utf-8")
    assert cli("links", "list.fix-me.csv").code == 0


def test_fix_me_replaces_nothing_but_a_fix_me_file_that_nobody_has_changed(open_cli):
    cli = open_cli(many(TEA, rows=1))
    assert cli("links", "list.csv").code == 0
    write_csv(cli.folder / "list.csv", ("env", "path"), [(TEA.env, "/a")])
    assert cli("check", "list.csv", "--fix-me", "corrected.csv").code == 2
    ours = (cli.folder / "corrected.csv").read_bytes()
    (cli.folder / "changed.csv").write_bytes(ours.replace(b"/a", b"a"))
    (cli.folder / "there.csv").symlink_to("corrected.csv")
    (cli.folder / "nowhere.csv").symlink_to("not-there.csv")
    kept = (
        "list.csv",
        "tokens.csv",
        "merchants.csv",
        "tcb-ops.toml",
        "links.csv",
        "changed.csv",
    )
    before = [(cli.folder / name).read_bytes() for name in kept]
    for name in (*kept, "ledger.db", "there.csv", "nowhere.csv", "files", ""):
        result = cli("check", "list.csv", "--fix-me", name)
        assert result.code == 2
        assert "--fix-me" in result.err
        assert "Choose another file" in result.err
        assert "list.csv:2" not in result.err  # refused before the list is read
    assert [(cli.folder / name).read_bytes() for name in kept] == before
    # SQLite writes its file when it likes: that it is the ledger still is what counts
    assert (cli.folder / "ledger.db").read_bytes().startswith(b"SQLite format 3")
    assert (cli.folder / "corrected.csv").read_bytes() == ours
    assert not (cli.folder / "not-there.csv").exists()
    assert "corrected.csv has the rows" in cli("check", "list.csv", "--fix-me", "corrected.csv").err


def test_local_files_that_are_missing_or_special_or_outside_are_named_before_anything_is_sent(open_cli):
    cli = open_cli(many(TEA, rows=4))
    files = cli.folder / "files"
    (files / "0.bin").unlink()
    (files / "1.bin").unlink()
    (files / "1.bin").mkdir()
    (files / "2.bin").unlink()
    (files / "2.bin").symlink_to(cli.folder / "tokens.csv")
    result = cli.upload("--json")
    assert (result.code, result.out) == (2, "")
    assert [line for line in (2, 3, 4) if f"list.csv:{line}: column 'file'" not in result.err] == []
    assert "list.csv:5" not in result.err
    assert cli.calls == 0
    assert cli.links("--json").code == 0, "links never looks at local files"


SETTINGS = {
    "no merchants file": (("--merchants", "nope.csv"), ["nope.csv", "no such file"]),
    "no token file": (("--tokens", "nope.csv"), ["nope.csv"]),
    "token file without its columns": (("--tokens", "list.csv"), ["list.csv", "access_token"]),
    "token file that is a folder": (("--tokens", "files"), ["files"]),
    "ledger that is none": (("--ledger", "list.csv"), ["list.csv cannot be the ledger", "--ledger"]),
    "ledger of another program": (("--ledger", "other.db"), ["other.db", "another program's database"]),
    "ledger in no folder": (("--ledger", "nowhere/l.db"), ["nowhere", "--ledger"]),
    "ledger that is a folder": (("--ledger", "files"), ["files", "it is a folder"]),
    "ledger by a bad URL": (("--ledger", "nope://x:hush@y/z"), ["--ledger"]),
    "no settings file": (("--config", "nope.toml"), ["nope.toml", "--config"]),
    "settings that are no TOML": (("--config", "list.csv"), ["list.csv", "TOML"]),
    "settings with an unknown name": (("--config", "bad.toml"), ["bad.toml", "colour"]),
    "target over plain http": (
        ("--api-base", "http://api.example.com"),
        ["tcb-ops: api_base", "must be https"],
    ),
    "target that is no URL": (("--api-base", "wechat"), ["tcb-ops: api_base", "https://api.weixin.qq.com"]),
    "where without a value": (("--where", "stage"), ["--where", "="]),
    "where of an unknown column": (("--where", "stage=live"), ["--where", "stage"]),
    "where that leaves nobody": (("--where", "name=nobody"), ["--where"]),
    "column without a header": (("--column", "path"), ["--column path", "NAME=HEADER"]),
    "column of an unknown name": (("--column", "colour=path"), ["--column colour"]),
    "column of an unknown header": (("--column", "path=nope"), ["nope"]),
    "unknown option": (("--colour",), ["--colour", "--help"]),
    "a number that is none": (("--concurrency", "many"), ["--concurrency", "--help"]),
    "a number out of range": (("--attempts", "0"), ["--attempts", "--help"]),
    "a root that is not there": (("--root", "nowhere"), ["nowhere"]),
    "a run that is not there": (("--resume", "nope"), ["nope"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_named_and_nothing_is_sent(open_cli, name):
    cli = open_cli(many(TEA, rows=2))
    (cli.folder / "bad.toml").write_text('colour = "red"\n', encoding="utf-8")
    with closing(sqlite3.connect(cli.folder / "other.db")) as other, other:
        other.execute("CREATE TABLE plants (name)")
    before = (cli.folder / "other.db").read_bytes()
    options, told = SETTINGS[name]
    command = "upload" if "--root" in options else "links"
    result = cli(command, "list.csv", "--json", *options)
    assert (result.code, result.out) == (2, "")
    assert [word for word in told if word not in result.err] == [], result.err
    assert f"token-of-{TEA.appid}" not in result.err
    assert "hush" not in result.err
    assert cli.calls == 0
    assert (cli.folder / "other.db").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("", ["tokens.csv"]),
        (
            f"appid,access_token,expires_at\r\n{TEA.appid},s3cr3t-t0ken,soon\r\n",
            ["tokens.csv: line 2", "expires_at"],
        ),
        (f"appid,access_token\r\n{TEA.appid},\r\n", ["tokens.csv: line 2"]),
        (
            f"appid,access_token\r\n{TEA.appid},s3cr3t-t0ken\r\n{TEA.appid},s3cr3t-t0ken2\r\n",
            ["tokens.csv: line 3"],
        ),
    ],
    ids=["empty", "bad time", "no token", "appid twice"],
)
def test_a_bad_token_file_is_named_by_line_and_shows_no_token(open_cli, file, told):
    cli = open_cli(many(TEA, rows=2))
    (cli.folder / "tokens.csv").write_text(file, encoding="utf-8")
    result = cli.links("--json")
    assert "s3cr3t" not in result.out + result.err
    assert cli.calls == 0
    assert result.code == 2, result.err
    assert [word for word in told if word not in result.err] == [], result.err


def test_a_bad_variable_is_named_and_its_value_is_not(open_cli, monkeypatch):
    cli = open_cli(many(TEA, rows=2))
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "hush")
    result = cli.links()
    assert result.code == 2
    assert "TCB_OPS_CONFIRM_OVER" in result.err
    assert "hush" not in result.err
    assert cli.calls == 0


@pytest.mark.slow
def test_a_full_disk_in_mid_run_is_exit_3_and_with_room_the_same_command_goes_on(open_cli):
    """The limit on a file's size stands in for a full disk: the ledger's writes fail the same way."""
    cli = open_cli(many(TEA, BOOKS, rows=300))
    words = ("upload", "list.csv", "--root", "files", "--json", "--concurrency", "8")
    planned = cli(
        "upload", "list.csv", "--root", "files", "--api-base", "http://127.0.0.1:9", "--patience", "0.1"
    )
    assert planned.code == 3
    size = (cli.folder / "ledger.db").stat().st_size
    limited = (
        f"import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 100_000},) * 2);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from tcb_ops.cli.main import main; main()"
    )
    with cli.spawn([sys.executable, "-c", limited, *words]) as process:
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "defect" not in err, err
    assert process.returncode == 3, err
    assert "ledger.db" in err
    result = cli(*words)
    assert result.code == 0
    assert cli.assert_complete(result.json, 600) == {"uploaded": 600}
    assert out == "" or cli.assert_complete(json.loads(out), 600)["pending"] > 0


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


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_standard_streams_are_no_obstacle(open_cli, closed):
    cli = open_cli(many(TEA, BOOKS, rows=2))
    with cli.spawn(
        [sys.executable, "-m", "tcb_ops", "upload", "list.csv", "--root", "files", "--json"],
        preexec_fn=lambda: [os.close(number) for number in closed],
    ) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (out == "") is (1 in closed)
    assert (err == "") is (2 in closed)
    assert "Traceback" not in err
    assert cli.latest().counts == {"uploaded": 4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "--target", ""), "--target: it is empty"),
        (("runs", "--ledger", ""), "'' cannot be the ledger"),
        (("show", "latest", "--line", "9" * 20), "at most 18 digits"),
        (
            ("show", "latest", "--path", "a\udcff"),
            "path cannot be str. It must be text in UTF-8 without NUL.",
        ),
    ],
    ids=["target", "ledger", "line", "path"],
)
def test_an_option_without_a_possible_value_is_named(open_cli, words, message):
    cli = open_cli(many(TEA, rows=1))
    cli.upload()
    result = cli(*words)
    assert result.code == 2
    assert message in result.err


@pytest.mark.slow
def test_a_full_disk_before_the_run_exists_sends_nothing(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2000))
    limited = (
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000,) * 2);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from tcb_ops.cli.main import main; main()"
    )
    with cli.spawn([sys.executable, "-c", limited, "links", "list.csv", "--json"]) as process:
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "defect" not in err, err
    assert process.returncode in {2, 3}
    assert out == ""
    assert cli.calls == 0
    assert cli("runs", "--json").json == {"runs": []}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a process's files")
def test_too_few_file_descriptors_are_exit_3_with_the_rows_pending(open_cli):
    """Wherever the limit is met: libraries, ledger, list, event loop, connections, files to upload."""
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=60))
    for file in (cli.folder / "files").rglob("*.png"):
        file.write_bytes(b"x" * 70_000)
    words = ("upload", "list.csv", "--root", "files", "--json", "--concurrency", "64", "--per-env", "64")
    in_mid_run = 0
    for limit in (10, 16, 32, 64):
        limited = (
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}));"
            "from tcb_ops.cli.main import main; main()"
        )
        with cli.spawn([sys.executable, "-c", limited, *words]) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 3, (limit, err)
        assert "Traceback" not in err
        assert f"the limit of this process is {limit}" in err
        assert "Raise ulimit -n" in err
        if out:
            in_mid_run += 1
            assert set(cli.assert_complete(json.loads(out), 180)) <= {"pending", "uploaded"}, limit
    assert in_mid_run
    result = cli(*words)
    assert result.code == 0, result.err
    assert cli.assert_complete(result.json, 180) == {"uploaded": 180}


def test_a_list_made_on_windows_is_read_and_its_backslashes_in_file_are_slashes(open_cli):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "files" / "图片").mkdir()
    (cli.folder / "files" / "图片" / "a.png").write_bytes(b"x")
    text = f"环境ID\t上传路径\t本地文件\r\n{TEA.env}\t图/a.png\t图片\\a.png\r\n"
    (cli.folder / "list.csv").write_bytes(text.encode("gb18030"))
    result = cli.upload("--json")
    assert (result.code, result.json["counts"]) == (0, {"uploaded": 1})
    assert "GB18030" in result.err


def test_seeing_what_is_not_there_is_exit_2(open_cli):
    cli = open_cli(many(TEA, rows=1))
    for words in (("show",), ("errcodes", "nope"), ("report", "2026"), ("explain", "nonsense")):
        result = cli(*words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("tcb-ops: ")

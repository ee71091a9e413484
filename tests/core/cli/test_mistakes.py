"""Mistakes that a new user makes, and what the command answers.

The answers are in mistakes.toml. UPDATE_MISTAKES=1 writes them there: read the difference before you commit it.
"""

import json
import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import xlsxwriter
from workspace import BOOKS, TEA, write_csv

from tcb_ops.features.simulator.faults import Fault

pytestmark = pytest.mark.slow

ANSWERS = Path(__file__).with_name("mistakes.toml")
UPDATE = bool(os.environ.get("UPDATE_MISTAKES"))
ROWS = [(TEA.env, "banner/0.png"), (TEA.env, "banner/1.png"), (BOOKS.env, "banner/0.png")]
UPLOAD = "upload list.csv --root files"
NOBODY = "http://127.0.0.1:9"
CHANGING = {
    r"\d{8}-\d{6}-[0-9a-f]{4}": "{run}",
    r"127\.0\.0\.1:\d+": "127.0.0.1:{port}",
    r"\d{4}-\d\d-\d\d \d\d:\d\d": "{time}",
    r"\d{4}-\d\d-\d\d\s*T[\d:.+\s]+(?=”)": "{time}",
    r"[\d,]+ (?=bytes|字节)": "{bytes} ",
    r"(?<=Port )\d+|(?<=端口 )\d+": "{port}",
}
"""What differs from run to run, beside the folder."""


def says(text, name="list.csv"):
    """A file with other content than it has."""
    data = text if isinstance(text, bytes) else text.encode()
    return lambda cli: (cli.folder / name).write_bytes(data)


def setting(line):
    """A line more at the head of the settings file."""

    def prepare(cli):
        file = cli.folder / "tcb-ops.toml"
        file.write_text(f"{line}\n{file.read_text(encoding='utf-8')}", encoding="utf-8")

    return prepare


def instead(name, old, new):
    def prepare(cli):
        file = cli.folder / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return prepare


def more_settings(cli, text):
    with (cli.folder / "tcb-ops.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n{text}")


def without(*names):
    return lambda cli: [(cli.folder / name).unlink() for name in names]


def folder_of_lists(cli):
    (cli.folder / "周五").mkdir(exist_ok=True)
    for name in ("门店.csv", "总部.xlsx", "tokens.csv"):
        (cli.folder / "周五" / name).write_bytes(b"x")


def uploaded(cli):
    cli.upload()


def refused(cli):
    rows = [(TEA.env, "a.png", "0.bin"), (BOOKS.env, "closed.png", "0.bin")]
    write_csv(cli.folder / "list.csv", ("env", "path", "file"), rows)
    cli.upload()


def cut_off(cli):
    """Leave an unfinished run of the list; another folder has the same files."""
    cli.upload("--patience", "0", "--target", NOBODY)
    shutil.copytree(cli.folder / "files", cli.folder / "friday")


def mixed_reports(cli):
    cli.upload("--out", "monday")
    cli.upload("--out", "friday", "--new-run")
    shutil.copy(cli.folder / "monday" / "results.csv", cli.folder / "friday" / "results.csv")


def in_another_ledger(cli):
    cli.upload("--out", "monday")
    (cli.folder / "ledger.db").rename(cli.folder / "monday.db")
    cli.upload()


def busy(cli):
    """Name the port of the simulator that runs."""
    return {"port": cli.workspace.sim.base.rpartition(":")[2]}


def workbook(sheet="清单", **cells):
    def prepare(cli):
        with xlsxwriter.Workbook(str(cli.folder / "清单.xlsx")) as book:
            page = book.add_worksheet(sheet)
            page.write_row(0, 0, ("环境ID", "上传路径", "本地文件"))
            for n, (env, path) in enumerate(ROWS):
                page.write_row(n + 1, 0, (env, path, f"{n}.bin"))
            for cell, value in cells.items():
                page.write(cell, value)
            book.add_worksheet("说明").write(0, 0, "说明")

    return prepare


MISTAKES = {
    # the command line
    "typo in a command": ("uplaod list.csv", None),
    "typo in an option": ("upload list.csv --rot files", None),
    "command without its list": ("upload", None),
    "option without its value": ("runs --note", None),
    "number out of range": ("links list.csv --attempts 0", None),
    "unknown language": ("runs --lang fr", None),
    # settings
    "typo in a setting": ("runs", setting('legder = "team.db"')),
    "text without quotes": ("runs", setting("reports = reports")),
    "Windows path in double quotes": ("runs", setting(r'reports = "D:\new\reports"')),
    "unknown time zone": ("runs", setting('timezone = "Beijing"')),
    "wrong type": ("runs", setting('confirm_over = "five"')),
    "robot's address in the settings": (
        "runs",
        lambda cli: more_settings(
            cli, '[[notify]]\nkind = "wecom"\nurl = "https://robot.example.com/s3cr3t"\n'
        ),
    ),
    "address of reports without a run": (
        "runs",
        lambda cli: more_settings(cli, '[report]\nurl = "reports"\n'),
    ),
    "no settings file": ("runs --config tcb_ops.toml", None),
    "no settings at all": (UPLOAD, without("tcb-ops.toml", "merchants.csv", "tokens.csv")),
    "target without https": (f"{UPLOAD} --target http://api.weixin.qq.com", None),
    # the list
    "typo in the list's name": ("check lst.csv", None),
    "folder for a list": ("check 周五", folder_of_lists),
    "URL for a list": ("check 'https://drive.example.com/list.csv?sign=secret'", None),
    "old Excel file": ("check list.csv", says(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))),
    "empty list": ("check list.csv", says("")),
    "no path column": ("check list.csv", says(f"env,pth\n{TEA.env},a.png\n")),
    "no environment column": ("check list.csv", says("path,file\na.png,a.png\n")),
    "column option of a column that is not there": (
        "check list.csv --column path=云端路劲",
        says(f"env,云端路径\n{TEA.env},a.png\n"),
    ),
    "typo in an environment": (
        "check list.csv",
        says("env,path\ntea-1a2b3d,a.png\ntea-1a2b3d,b.png\n"),
    ),
    "unknown merchant": ("check list.csv", says("商户,path\n茶语小店,a.png\n")),
    "the same row twice": ("check list.csv", says(f"env,path\n{TEA.env},a.png\n{TEA.env},a.png\n")),
    "path that ends in a slash": ("check list.csv", says(f"env,path\n{TEA.env},banner/\n")),
    "text file to mark": ("check list.csv --mark", says(f"env,path\n{TEA.env},/a.png\n")),
    "list from Windows": (
        UPLOAD,
        says(f"环境ID,上传路径,本地文件\r\n{TEA.env},a.png,D:\\素材\\0.bin\r\n".encode("gb18030")),
    ),
    "typo in a sheet": ("check 清单.xlsx --sheet 青单", workbook()),
    "number in a cell": ("check 清单.xlsx --root files", workbook(B3=20261127)),
    # files
    "no root": ("upload list.csv", None),
    "wrong root": ("upload list.csv --root fils", None),
    "missing file": (UPLOAD, without("files/1.bin")),
    "file in other case": (UPLOAD, instead("list.csv", "1.bin", "1.BIN")),
    # merchants
    "merchants file that is not there": ("links list.csv --merchants merchant.csv", None),
    "merchants file without its columns": (
        "links list.csv",
        says("id,name,env\nwxtea,茶语小铺,tea-1a2b3c\n", "merchants.csv"),
    ),
    "result in an unknown format": ("merchants check --out ready.ods", None),
    "links in a workbook": ("links list.csv --out links.xlsx", None),
    "where of nobody": ("links list.csv --where name=茶语小店", None),
    "where of an unknown column": ("links list.csv --where nmae=茶语小铺", None),
    "where without a value": ("links list.csv --where 茶语小铺", None),
    # tokens
    "expired tokens": (UPLOAD, lambda cli: [cli.workspace.sim.expire(m.appid) for m in (TEA, BOOKS)]),
    "no token file": (UPLOAD, without("tokens.csv")),
    "token file without its columns": (UPLOAD, says("wxtea,s3cr3t\n", "tokens.csv")),
    "merchant without a token": (
        UPLOAD,
        lambda cli: cli.workspace.keep_tokens({TEA.appid: "token-of-wxtea"}),
    ),
    "tokens that have expired by their file": (
        UPLOAD,
        says("appid,access_token,expires_at\nwxtea,t,2020-01-01\nwxbooks,t,1577836800\n", "tokens.csv"),
    ),
    # runs
    "nothing listens at the target": (f"{UPLOAD} --patience 0.1 --target {NOBODY}", None),
    "run that is not there": ("show 2025", uploaded),
    "no run yet": ("show", None),
    "row that is not there": ("show --line 99", uploaded),
    "finished run resumed": (f"{UPLOAD} --resume latest", uploaded),
    "nothing to retry": ("retry", uploaded),
    "retry of a code that is not there": ("retry --errcode 85089", refused),
    "unfinished run resumed with another root": (
        f"upload list.csv --root friday --resume latest --target {NOBODY}",
        cut_off,
    ),
    "ledger that is not there": ("runs --ledger lodger.db", uploaded),
    "ledger that is a list": ("runs --ledger list.csv", None),
    # codes and reports
    "unknown errcode": ("explain 850888", None),
    "report of another ledger": ("verify monday", in_another_ledger),
    "folder without a report": ("verify files", uploaded),
    "report of another run": ("verify friday", mixed_reports),
    "workbook of another run": ("report --into 清单.xlsx", lambda cli: [uploaded(cli), workbook()(cli)]),
    "report over other files": (f"{UPLOAD} --out files", None),
    # the simulator, notebooks
    "busy port": ("simulate --merchants merchants.csv --tokens tokens.csv --port {port}", busy),
    "fault plan with a typo": (
        "simulate --merchants merchants.csv --tokens tokens.csv --faults faults.toml",
        says(f'[[fault]]\nenv = "{TEA.env}"\nerrcod = 85088\n', "faults.toml"),
    ),
    "typo in a notebook": ("notebook 03_errcode_audti --out friday", None),
    "list of a folder that is not there": ("list fils --to tea-1a2b3c", None),
    "no component for sync": ("merchants sync", None),
}


WORD_FOR_WORD = (
    "typo in a command", "typo in an option", "command without its list", "typo in a setting", "text without quotes",
    "no settings at all", "typo in the list's name", "empty list", "no path column", "typo in an environment",
    "unknown merchant", "number in a cell", "no root", "missing file", "where of nobody", "no token file",
    "nothing listens at the target", "run that is not there", "report of another run", "unknown errcode",
)  # fmt: skip
"""Mistakes whose answers are kept in both languages; of the others what they name: options, places, suggestions."""
NAMED = re.compile(
    r"--[a-z-]+|[^\s:]+:\d+(?=: )|`[^`]+`|(?<=[Dd]id you mean )[^?]+|(?<=errcode )-?\d+"
    r"|[\w~$.-]+\.(?:csv|xlsx?|toml|ipynb)\b|https|tokens\.[a-z_]+|(?<=[Rr]un )\S+|\d{5,}|\w+_file\b"
)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", WORD_FOR_WORD)
def test_a_frequent_mistake_is_answered_word_for_word(open_cli, monkeypatch, name, lang):
    cli, result = made(open_cli, monkeypatch, name, lang)
    assert lang == "en" or cli.in_english(result.out + result.err) == []
    answer = {"exit": result.code, lang: steady(result.out + result.err, cli.folder)}
    assert answer == {key: answers(name, answer)[key] for key in answer}


@pytest.mark.parametrize("name", sorted(set(MISTAKES) - set(WORD_FOR_WORD)))
def test_the_answer_to_a_mistake_has_a_code_and_names_what_to_look_at(open_cli, monkeypatch, name):
    has_json = not MISTAKES[name][0].startswith(("simulate", "notebook"))
    cli, result = made(open_cli, monkeypatch, name, "en", "--json " if has_json else "")
    told = result.json if has_json else {}
    answer = {
        "exit": result.code,
        "code": told.get("error", {}).get("code", ""),
        "problems": [f"{each['line']} {each['column']}".strip() for each in told.get("problems", ())],
        "causes": sorted({str(each["errcode"]) for each in told.get("errcodes", ())}),
        "names": sorted(set(NAMED.findall(steady(result.err or result.out, cli.folder)))),
    }
    assert answer == answers(name, answer)
    assert result.code != 2 or answer["code"] or not has_json


def made(open_cli, monkeypatch, name, lang, option=""):
    """Make a mistake; nothing may be sent for one that is found before a run begins."""
    command, prepare = MISTAKES[name]
    command = option + command
    cli = open_cli(ROWS, [Fault(path="closed.png", errcode=85088)])
    monkeypatch.setenv("TCB_OPS_LANG", lang)
    prepared = prepare(cli) if prepare is not None else None
    calls = cli.calls
    result = cli(*shlex.split(command.format_map(prepared) if isinstance(prepared, dict) else command))
    assert result.code in {1, 2, 3} or name == "unknown errcode"
    assert result.code != 2 or cli.calls == calls, "nothing was sent"
    assert result.out + result.err
    return cli, result


def test_the_table_of_answers_has_the_mistakes_and_no_others():
    assert set(tomllib.loads(ANSWERS.read_text(encoding="utf-8"))) == set(MISTAKES)


def answers(name, answer):
    """Return the answer that is kept; with UPDATE_MISTAKES, keep this one."""
    kept = tomllib.loads(ANSWERS.read_text(encoding="utf-8"))
    if UPDATE:
        kept[name] = kept.get(name, {}) | answer
        lines = []
        for each in (each for each in MISTAKES if each in kept):
            lines += [f"[{json.dumps(each)}]", *(f"{key} = {toml(it)}" for key, it in kept[each].items()), ""]
        ANSWERS.write_text("\n".join(lines), encoding="utf-8")
    return kept.get(name, {})


def toml(value):
    return f"'''\n{value}'''" if "\n" in str(value) else json.dumps(value, ensure_ascii=False)


def steady(text, folder):
    """Return what is printed, without what differs from run to run."""
    text = text.replace(str(folder), "{folder}")
    for pattern, placeholder in CHANGING.items():
        text = re.sub(pattern, placeholder, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())

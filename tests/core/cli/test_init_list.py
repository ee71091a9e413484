"""init and list: what they write, what they leave alone, and that the next command takes it."""

import csv
import re
import tomllib
from datetime import datetime
from importlib.resources import files

import pytest
import xlsxwriter
from tables import table
from workspace import BOOKS, TEA, TEA_TEST

from tcb_ops.cli.options import CommonOptions, ListOptions
from tcb_ops.model import Selection
from tcb_ops.settings import Settings, load_settings, section_models, setting_values


@pytest.fixture
def cli(open_cli):
    return open_cli()


@pytest.fixture
def folder(cli):
    for file in ("a.png", "春/b.png", ".DS_Store", "~$a.xlsx"):
        (cli.folder / "素材" / file).parent.mkdir(parents=True, exist_ok=True)
        (cli.folder / "素材" / file).write_text(file, encoding="utf-8")
    (cli.folder / "list.csv").unlink()
    return cli.folder / "素材"


def rows_of(file):
    with file.open(encoding="utf-8-sig", newline="") as listed:
        return list(csv.DictReader(listed))


@pytest.mark.needs("health")
def test_init_writes_what_is_not_there_and_leaves_the_rest(cli, tmp_path):
    new = tmp_path / "new"
    result = cli("init", str(new), "--lang", "en")
    assert (result.code, result.out.split()) == (
        0,
        [str(new / n) for n in ("tcb-ops.toml", "merchants.csv", "list-template.xlsx")],
    )
    (new / "list-template.xlsx").unlink()
    kept = (new / "tcb-ops.toml").read_bytes()
    again = cli("init", str(new), "--lang", "en")
    assert again.out.split() == [str(new / "list-template.xlsx")]
    assert again.err.count("already exists: not overwritten") == 2
    assert (new / "tcb-ops.toml").read_bytes() == kept
    assert load_settings(new / "tcb-ops.toml").merchants == new / "merchants.csv"


def test_init_says_where_it_cannot_write(cli, tmp_path):
    (tmp_path / "file").touch()
    result = cli("init", str(tmp_path / "file"), "--lang", "en")
    assert result.code == 2
    assert "cannot be written" in result.err


@pytest.mark.needs("health")
def test_every_setting_is_in_the_starter_with_its_default():
    text = files("tcb_ops").joinpath("starter.toml").read_text(encoding="utf-8")
    every = tomllib.loads(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    sections = {name: every.pop(name) for name, model in section_models().items() if not model.REPEATED}
    in_sections = {f"{section}.{name}" for section, values in sections.items() for name in values}
    assert set(every) | in_sections == set(setting_values())
    usual = Settings(lang="zh")
    for name, value in every.items():
        assert getattr(usual, name) == type(getattr(usual, name))(value), name


@pytest.mark.needs("stored")
def test_a_folder_becomes_a_list_that_upload_takes_as_it_is(cli, folder):
    before = datetime.now(cli.workspace.settings.zone).date()
    result = cli("list", "素材", "--to", "all-envs", "--path", "banner/{date}/{rel}", "--lang", "en")
    after = datetime.now(cli.workspace.settings.zone).date()
    assert result.code == 0, result.err
    assert result.out.strip() == "list.csv: 6 rows, 2 files for 3 environments of 2 merchants, 42 B"
    assert "hidden or temporary: 2" in result.err
    assert f"tcb-ops upload {cli.folder / 'list.csv'} --root {cli.folder}" in result.err
    assert cli.calls == 0
    rows = rows_of(cli.folder / "list.csv")
    path = rows[0]["path"]
    assert path in {f"banner/{day}/a.png" for day in (before, after)}
    assert rows[0] == {"env": TEA.env, "merchant": TEA.name, "path": path, "file": "素材/a.png"}
    assert cli("check", "list.csv", "--root", ".").code == 0
    assert cli.assert_complete(cli("upload", "list.csv", "--json").json, 6) == {"uploaded": 6}


@pytest.mark.needs("stored")
def test_to_and_where_aim(cli, folder):
    def aimed(*words):
        (cli.folder / "list.csv").unlink(missing_ok=True)
        result = cli("list", "素材", *words, "--json")
        assert result.code == 0, result.err
        return [row["env"] for row in rows_of(cli.folder / "list.csv")][:: result.json["files"]]

    assert aimed("--to", TEA_TEST.env, "--to", BOOKS.name) == [TEA_TEST.env, BOOKS.env]
    assert aimed("--to", "all", "--where", f"env={TEA.env}", "--where", f"env={BOOKS.env}") == [
        TEA.env,
        BOOKS.env,
    ]


@pytest.mark.needs("stored")
@table(
    "words, says",
    {
        "nobody": (["--to", "无名"], "no name or appid '无名'"),
        "one path for two": (["--to", BOOKS.env, "--path", "x.png"], "x.png: the same environment and path"),
        "a bad path": (["--to", BOOKS.env, "--path", "/{rel}"], "the path begins with /"),
        "a file that is there": (["--to", BOOKS.env, "--out", "merchants.csv"], "already exists"),
        "nobody at all": ([], "--to"),
    },
)
def test_a_list_that_cannot_be_aimed_is_not_written(cli, folder, words, says):
    result = cli("list", "素材", *words, "--lang", "en")
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert not (cli.folder / "list.csv").exists()


@pytest.mark.needs("stored")
def test_tokens_ledger_and_links_are_never_listed(cli, folder):
    assert cli("list", "素材", "--to", BOOKS.env, "--out", "first.csv").code == 0
    (cli.folder / "links.csv").write_text("secret", encoding="utf-8")
    assert cli("upload", "first.csv").code == 0
    assert cli("list", ".", "--to", BOOKS.env, "--out", "all.csv").code == 0
    listed = {row["file"] for row in rows_of(cli.folder / "all.csv")}
    assert {"素材/a.png", "素材/春/b.png"} <= listed
    assert not {f for f in listed if f.startswith(("tokens", "ledger", "links", "merchants", "tcb-ops.toml"))}


def sheet(file, rows, hidden=()):
    with xlsxwriter.Workbook(file) as book:
        sheet = book.add_worksheet("清单")
        for line, cells in enumerate(rows):
            sheet.write_row(line, 0, cells)
        for line in hidden:
            sheet.set_row(line, None, None, {"hidden": True})
    return file


@pytest.mark.needs("sources")
@pytest.mark.needs("workbooks")
def test_a_workbook_is_uploaded_and_its_rows_keep_their_numbers(cli, folder):
    rows = [
        ["标题"],
        ["env", "path", "file"],
        [TEA.env, "a.png", "D:\\素材\\a.png"],
        [BOOKS.env, "b.png", "d:/素材/春/b.png"],
    ]
    wrong = [[TEA.env, "/c.png", "D:\\素材\\a.png"], [TEA.env, "d.png", "D:\\素材\\nowhere.png"]]
    sheet(cli.folder / "list.xlsx", [*rows, *wrong], hidden=[3])
    refused = cli(
        "upload", "list.xlsx", "--map", "D:\\素材=素材", "--lang", "en", "--on-bad", "skip", "--json"
    )
    assert (refused.code, cli.calls) == (2, 0)
    assert "list.xlsx: hidden rows: 1, the first is row 4" in refused.err
    assert [problem["line"] for problem in refused.json["problems"]] == [0, 5, 6]
    sheet(cli.folder / "list.xlsx", rows, hidden=[3])
    result = cli("upload", "list.xlsx", "--map", "D:\\素材=素材", "--rows", "all", "--json")
    assert cli.assert_complete(result.json, 2) == {"uploaded": 2}
    assert [record.row.line for record in cli.latest().rows()] == [3, 4]
    assert [record.row.file for record in cli.latest().rows()] == ["素材/a.png", "素材/春/b.png"]


@pytest.mark.parametrize(
    "other",
    [
        {"sheet": "x"},
        {"header_row": 2},
        {"rows": "all"},
        {"maps": ("D:=x",)},
        {"column": ("path=x",)},
    ],
)
def test_another_choice_of_the_list_s_rows_is_another_run(other):
    assert ListOptions().selection(CommonOptions()) == Selection()
    assert ListOptions(**other).selection(CommonOptions()) != Selection()

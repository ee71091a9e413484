"""init and list: what they write, what they leave alone, and that the next command takes it."""

import csv
import re
import tomllib
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
import xlsxwriter
from workspace import BOOKS, TEA, TEA_TEST, write_csv

from tcb_ops.cli.options import CommonOptions, ListOptions
from tcb_ops.settings import SECTIONS, Settings, load_settings, setting_names

STARTER = Path(__file__).parents[2] / "tcb_ops" / "starter.toml"


@pytest.fixture
def desk(open_desk):
    return open_desk()


@pytest.fixture
def folder(desk):
    for file in ("a.png", "春/b.png", ".DS_Store", "~$a.xlsx"):
        (desk.folder / "素材" / file).parent.mkdir(parents=True, exist_ok=True)
        (desk.folder / "素材" / file).write_text(file, encoding="utf-8")
    (desk.folder / "list.csv").unlink()
    return desk.folder / "素材"


def rows_of(file):
    with file.open(encoding="utf-8-sig", newline="") as listed:
        return list(csv.DictReader(listed))


def test_init_writes_what_is_not_there_and_leaves_the_rest(desk, tmp_path):
    new = tmp_path / "new"
    said = desk("init", "--dir", str(new), "--lang", "en")
    assert (said.code, said.out.split()) == (
        0,
        [str(new / n) for n in ("tcb-ops.toml", "merchants.csv", "list-template.xlsx")],
    )
    (new / "merchants.csv").write_text(
        f"appid,name,env\n{TEA.appid},{TEA.name},{TEA.env}\n", encoding="utf-8"
    )
    kept = (new / "tcb-ops.toml").read_bytes()
    again = desk("init", "--dir", str(new), "--lang", "en")
    assert again.out.split() == [str(new / "list-template.xlsx")]
    assert again.err.count("already exists: not overwritten") == 2
    assert (new / "tcb-ops.toml").read_bytes() == kept
    assert load_settings(new / "tcb-ops.toml").merchants == new / "merchants.csv"


def heads_in(template):
    book = openpyxl.load_workbook(template)
    return [(sheet.title, [cell.value for cell in sheet[1]]) for sheet in book.worksheets]


def names_in(template):
    return [cell.value for cell in openpyxl.load_workbook(template).worksheets[1]["A"]][1:]


def test_init_again_fills_the_drop_down_but_not_of_a_template_that_somebody_changed(desk, tmp_path):
    new = tmp_path / "new"
    template = new / "list-template.xlsx"
    merchants = ["appid,name,env\n", f"{TEA.appid},{TEA.name},{TEA.env}\n"]

    def init(*more, lang="en"):
        with (new / "merchants.csv").open("w", encoding="utf-8") as file:
            file.writelines([*merchants, *more])
        return desk("init", "--dir", str(new), "--lang", lang)

    new.mkdir()
    init()
    assert names_in(template) == [TEA.name]
    heads = heads_in(template)
    more = f"{BOOKS.appid},{BOOKS.name},{BOOKS.env}\n"
    said = init(more, lang="zh")
    assert str(template) in said.out
    assert "下拉列表现有 2 个名称。" in said.err
    assert (names_in(template), heads_in(template)) == ([TEA.name, BOOKS.name], heads)
    again = init(more, lang="zh")
    assert again.out == ""
    book = openpyxl.load_workbook(template)
    book.worksheets[0].append([TEA.name, "a.png"])
    book.save(template)
    changed = template.read_bytes()
    said = init(more, "wxtoys,玩具,toys-1\n")
    assert (said.out, template.read_bytes()) == ("", changed)
    assert "Add these at the end of its second sheet: 玩具." in said.err


@pytest.mark.parametrize(
    ("merchants", "says"),
    [
        (
            "appid,name,env\nwx1,a,e-1\nwx2,,e-2\n",
            "merchants.csv:3: column 'name': the name is empty — fill it in",
        ),
        ('appid,name,env\nwx1,"a,e-1\n', "merchants.csv:2: a quote opens in this line and never closes — "),
        ("appid;env\n", "merchants.csv:1: no column for name"),
        ("", "merchants.csv: the file is empty — "),
    ],
)
def test_init_names_what_is_wrong_with_the_merchants_file(desk, tmp_path, merchants, says):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "merchants.csv").write_text(merchants, encoding="utf-8")
    said = desk("init", "--dir", str(tmp_path / "new"), "--lang", "en")
    assert (said.code, len(said.out.split())) == (2, 2)
    assert says in said.err
    assert "correct the file, then run tcb-ops init again" in said.err
    assert (tmp_path / "new" / "merchants.csv").read_text(encoding="utf-8") == merchants


def test_init_says_where_it_cannot_write(desk, tmp_path):
    (tmp_path / "file").touch()
    said = desk("init", "--dir", str(tmp_path / "file"), "--lang", "en")
    assert said.code == 2
    assert "cannot be written" in said.err


def test_every_setting_is_in_the_starter_with_its_default():
    text = STARTER.read_text(encoding="utf-8")
    every = tomllib.loads(re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    assert set(every) == set(setting_names(Settings)) - {"notify"}
    for section, model in SECTIONS.items():
        assert set(every.pop(section)) == set(setting_names(model))
    usual = Settings(lang="zh")
    for name, value in every.items():
        assert getattr(usual, name) == type(getattr(usual, name))(value), name


def test_a_folder_becomes_a_list_that_upload_takes_as_it_is(desk, folder):
    before = datetime.now(desk.shop.settings.zone).date()
    said = desk("list", "素材", "--to", "all-envs", "--path", "banner/{date}/{rel}", "--lang", "en")
    after = datetime.now(desk.shop.settings.zone).date()
    assert said.code == 0, said.err
    assert said.out.strip() == "list.csv: 6 rows, 2 files for 3 environments of 2 merchants, 42 B"
    assert "hidden or temporary: 2" in said.err
    assert f"tcb-ops upload {desk.folder / 'list.csv'} --root {desk.folder}" in said.err
    assert desk.calls == 0
    rows = rows_of(desk.folder / "list.csv")
    path = rows[0]["path"]
    assert path in {f"banner/{day}/a.png" for day in (before, after)}
    assert rows[0] == {"env": TEA.env, "merchant": TEA.name, "path": path, "file": "素材/a.png"}
    assert desk("check", "list.csv", "--root", ".").code == 0
    assert desk.whole(desk("upload", "list.csv", "--json").json, 6) == {"uploaded": 6}


def test_to_and_where_aim(desk, folder):
    def aimed(*words):
        (desk.folder / "list.csv").unlink(missing_ok=True)
        said = desk("list", "素材", *words, "--json")
        assert said.code == 0, said.err
        return [row["env"] for row in rows_of(desk.folder / "list.csv")][:: said.json["files"]]

    assert aimed("--to", TEA_TEST.env, "--to", BOOKS.name) == [TEA_TEST.env, BOOKS.env]
    assert aimed("--to", "all", "--where", f"env={TEA.env}", "--where", f"env={BOOKS.env}") == [
        TEA.env,
        BOOKS.env,
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["--to", "无名"], "no environment, merchant or appid has this name", id="nobody"),
        pytest.param(["--to", "all"], "none of them the default", id="no default"),
        pytest.param(
            ["--to", BOOKS.env, "--path", "{nom}"],
            "there is no field {nom}; the fields are {name}",
            id="an unknown field",
        ),
        pytest.param(["--to", BOOKS.env, "--include", "*.gif"], "no file remains", id="no file"),
        pytest.param(
            ["--to", BOOKS.env, "--path", "x.png"], "would both become x.png", id="one path for two"
        ),
        pytest.param(["--to", BOOKS.env, "--path", "/{rel}"], "the path begins with /", id="a bad path"),
        pytest.param(
            ["--to", BOOKS.env, "--out", "merchants.csv"], "already exists", id="a file that is there"
        ),
        pytest.param([], "--to", id="nobody at all"),
    ],
)
def test_a_list_that_cannot_be_aimed_is_not_written(desk, folder, words, says):
    said = desk("list", "素材", *words, "--lang", "en")
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert not (desk.folder / "list.csv").exists()


def test_tokens_ledger_and_links_are_never_listed(desk, folder):
    assert desk("list", "素材", "--to", BOOKS.env, "--out", "first.csv").code == 0
    (desk.folder / "links.csv").write_text("secret", encoding="utf-8")
    assert desk("upload", "first.csv").code == 0
    assert desk("list", ".", "--to", BOOKS.env, "--out", "all.csv").code == 0
    listed = {row["file"] for row in rows_of(desk.folder / "all.csv")}
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


def test_a_workbook_is_uploaded_and_its_rows_keep_their_numbers(desk, folder):
    rows = [
        ["标题"],
        ["env", "path", "file"],
        [TEA.env, "a.png", "D:\\素材\\a.png"],
        [BOOKS.env, "b.png", "d:/素材/春/b.png"],
    ]
    sheet(desk.folder / "list.xlsx", rows, hidden=[3])
    refused = desk("upload", "list.xlsx", "--map", "D:\\素材=素材", "--lang", "en")
    assert (refused.code, desk.calls) == (2, 0)
    assert "list.xlsx: hidden rows: 1, the first is row 4" in refused.err
    said = desk("upload", "list.xlsx", "--map", "D:\\素材=素材", "--rows", "all", "--json")
    assert desk.whole(said.json, 2) == {"uploaded": 2}
    assert [record.row.line for record in desk.latest().rows()] == [3, 4]
    assert [record.row.file for record in desk.latest().rows()] == ["素材/a.png", "素材/春/b.png"]


@pytest.mark.parametrize(
    "other",
    [
        {"sheet": "x"},
        {"header_row": 2},
        {"rows": "all"},
        {"maps": ("D:=x",)},
        {"limit": 3},
        {"column": ("path=x",)},
    ],
)
def test_another_choice_of_the_list_s_rows_is_another_run(other):
    limit = other.pop("limit", None)
    assert ListOptions().selection(CommonOptions(), None) == ""
    assert ListOptions(**other).selection(CommonOptions(), limit) != ""


def test_the_name_of_a_file_that_differs_by_case_is_suggested(desk, folder):
    write_csv(desk.folder / "list.csv", ("env", "path", "file"), [(TEA.env, "a.png", "素材/A.PNG")])
    said = desk("check", "list.csv", "--root", ".", "--lang", "en")
    assert said.code == 2
    assert "list.csv:2: column 'file'" in said.err
    assert "did you mean 素材/a.png?" in said.err


def test_several_files_given_to_list_belong_into_a_folder(open_desk):
    said = open_desk()("list", "a.png", "b.png", "--to", "all")
    assert said.code == 2
    assert (
        "list takes one file or one folder. Put the files into a folder, then: tcb-ops list FOLDER --to …\n"
        in said.err
    )

"""`check LIST.xlsx --mark`: a copy of her own workbook that shows its problems."""

import openpyxl
import pytest
from openpyxl.comments import Comment
from workspace import TEA, many

ROWS = [
    ("商户", "上传路径", "图片文件名", "负责人"),
    ("nobody", "a//1.png", "1.png", "王芳"),
    ("nobody", "b.png", "", ""),
]


@pytest.fixture
def cli(open_cli):
    return open_cli(many(TEA, rows=1))


@pytest.fixture
def workbook(cli):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "十一月"
    for row in ROWS:
        sheet.append(row)
    sheet["D2"].comment = Comment("hers", "she")
    sheet["A2"].comment = Comment("hers", "she")
    book.save(cli.folder / "清单.xlsx")
    return cli.folder / "清单.xlsx"


def marked(file):
    cells = [cell for row in openpyxl.load_workbook(file).active for cell in row]
    return {cell.coordinate: cell.comment.text for cell in cells if cell.fill.fill_type == "solid"}


def test_bad_cells_are_coloured_and_have_the_fix_as_a_comment(cli, workbook):
    before = workbook.read_bytes()
    result = cli("check", workbook.name, "--mark")
    assert result.code == 2
    copy = cli.folder / "清单 marked.xlsx"
    assert copy.name in result.err
    comments = marked(copy)
    assert set(comments) == {"A2", "A3", "B2"}
    assert comments["A2"].startswith("hers\n")
    assert comments["B2"].endswith("write a single /")
    assert openpyxl.load_workbook(copy).active["D2"].comment.text == "hers"
    assert workbook.read_bytes() == before
    assert cli("check", workbook.name, "--mark", "--on-bad", "skip", "--lang", "zh").code == 1
    assert set(marked(cli.folder / "清单 标注.xlsx")) == set(comments)
    assert cli("check", workbook.name, "--mark").code == 2
    assert (cli.folder / "清单 marked 2.xlsx").exists(), "an earlier copy is kept"


def test_a_cell_below_a_merged_one_is_marked_at_the_top(cli, workbook):
    book = openpyxl.load_workbook(workbook)
    book.active.merge_cells("A2:A3")
    book.save(workbook)
    assert cli("check", workbook.name, "--mark").code == 2
    comments = marked(cli.folder / "清单 marked.xlsx")
    assert set(comments) == {"A2", "B2"}
    assert comments["A2"].splitlines()[-1].startswith("A3: the cell is merged with A2,")


@pytest.mark.parametrize("why", ["protected", "open", "text"])
def test_what_cannot_be_marked_is_said_and_nothing_is_written(cli, workbook, why):
    name = workbook.name
    if why == "protected":
        book = openpyxl.load_workbook(workbook)
        book.active.protection.sheet = True
        book.save(workbook)
    elif why == "open":
        (cli.folder / f"~${name}").touch()
    else:
        name = "bad.csv"
        (cli.folder / name).write_text("env,path\nnowhere,a.png\n", encoding="utf-8")
    result = cli("check", name, "--mark")
    assert result.code == 2
    assert {"protected": "'十一月'", "open": f"~${name}", "text": ".xlsx"}[why] in result.err
    assert not [*cli.folder.glob("*marked*")]


def test_a_workbook_without_problems_is_not_copied(cli):
    book = openpyxl.Workbook()
    book.active.append(("env", "path"))
    book.active.append((TEA.env, "a.png"))
    book.save(cli.folder / "good.xlsx")
    assert cli("check", "good.xlsx", "--mark").code == 0
    assert not [*cli.folder.glob("*marked*")]

"""After a run: retries joined, failed.csv fixed and fed back, and the colleagues' workbook, as a user types it."""

import csv
import io

import openpyxl
import pytest
import xlsxwriter
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator.faults import Fault

pytestmark = pytest.mark.slow

ROWS = many(TEA, BOOKS, rows=4)
ILL = Fault(env=BOOKS.env, path="banner/2.png", errcode=40097)


@pytest.fixture
def workbook(tmp_path):
    """The list as a workbook, its rows two owners'."""
    with xlsxwriter.Workbook(str(tmp_path / "清单.xlsx")) as book:
        sheet = book.add_worksheet("清单")
        sheet.write_row(0, 0, ("环境ID", "上传路径", "本地文件", "负责人"))
        for n, (env, path) in enumerate(ROWS):
            sheet.write_row(n + 1, 0, (env, path, f"{n}.bin", "王芳" if n < 6 else "李娜"))
    return tmp_path / "清单.xlsx"


def column(file, letter):
    return [cell.value for cell in openpyxl.load_workbook(file).worksheets[0][letter]]


def rows_of(file):
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


# --- with its retries -----------------------------------------------------------------------------------------------


def test_final_joins_a_run_with_its_retries(open_cli):
    cli = open_cli(ROWS, [Fault(env=BOOKS.env, path="banner/2.png", calls=((1, 1),), errcode=40097)])
    first = cli.upload("--json")
    assert (first.code, first.json["counts"]) == (1, {"uploaded": 7, "refused": 1})
    again = cli("retry", "latest", "--json")
    assert again.json["counts"] == {"uploaded": 1}
    result = cli("report", "latest", "--final", "--json")
    assert result.code == 0
    assert result.json["run"] == first.json["run"]
    assert result.json["counts"] == {"uploaded": 8}
    assert sum(result.json["counts"].values()) == result.json["rows"] == 8
    assert again.json["run"] in result.err
    folder = cli.folder / "reports" / f"{first.json['run']}-final"
    assert [row["tcb_outcome"] for row in rows_of(folder / "results.csv")] == ["uploaded"] * 8
    assert rows_of(folder / "failed.csv") == []
    assert cli("verify", str(folder)).code == 0
    assert cli("verify", first.json["run"]).code == 0, "the retry has changed nothing in it"
    assert cli("report", first.json["run"], "--json").json["counts"] == {"uploaded": 7, "refused": 1}


# --- failed.csv -----------------------------------------------------------------------------------------------------


SAVED = {
    "as it is": ("utf-8-sig", ",", csv.QUOTE_MINIMAL, "\r\n"),
    "gb18030": ("gb18030", ",", csv.QUOTE_MINIMAL, "\r\n"),
    "without BOM": ("utf-8", ",", csv.QUOTE_MINIMAL, "\n"),
    "semicolons": ("utf-8-sig", ";", csv.QUOTE_MINIMAL, "\r\n"),
    "tabs": ("gb18030", "\t", csv.QUOTE_MINIMAL, "\r\n"),
    "all quoted": ("utf-8-sig", ",", csv.QUOTE_ALL, "\r\n"),
}


@pytest.mark.parametrize(("encoding", "delimiter", "quoting", "end"), SAVED.values(), ids=SAVED)
def test_failed_csv_is_fixed_and_fed_back_and_only_its_rows_run(open_cli, encoding, delimiter, quoting, end):
    """As a spreadsheet program may have saved it again: other encoding, other delimiter, other quotes."""
    cli = open_cli(ROWS, [ILL, Fault(env=TEA.env, path="banner/1.png", errcode=40097)])
    assert cli.upload("--out", "out").code == 1
    text = (cli.folder / "out" / "failed.csv").read_bytes().decode("utf-8-sig")
    fixed = text.replace("banner/2.png", "banner/两.png").replace("banner/1.png", "banner/一.png")
    with (cli.folder / "fixed.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows(csv.reader(io.StringIO(fixed, newline="")))
    before = cli.calls
    result = cli("upload", "fixed.csv", "--root", "files", "--json")
    assert (result.code, result.json["counts"]) == (0, {"uploaded": 2})
    assert cli.calls - before == 4
    run = cli.latest()
    assert [(record.row.path, record.row.cells) for record in run.rows()] == [
        ("banner/一.png", (TEA.env, "banner/一.png", "1.bin", "第 1 行")),
        ("banner/两.png", (BOOKS.env, "banner/两.png", "6.bin", "第 6 行")),
    ]
    assert run.record.headers == ("env", "path", "file", "备注")


# --- back to colleagues ---------------------------------------------------------------------------------------------


def test_into_writes_how_rows_ended_beside_them(open_cli, workbook):
    cli = open_cli(ROWS, [ILL], lang="zh")
    assert cli("upload", workbook.name, "--root", "files").code == 1
    before = workbook.read_bytes()
    result = cli("report", "--into", workbook.name)
    assert (result.code, result.out.strip()) == (0, "清单 结果.xlsx")
    assert workbook.read_bytes() == before
    assert column(cli.folder / "清单 结果.xlsx", "E") == [
        "结果 SIMULATED 演练",
        *["已上传"] * 6,
        "被拒绝",
        "已上传",
    ]
    assert str(column(cli.folder / "清单 结果.xlsx", "F")[7]).startswith("40097")
    assert str(column(cli.folder / "清单 结果.xlsx", "H")[1]).startswith("cloud://")
    assert not (cli.folder / "reports" / "latest").exists()
    twice = cli("report", "--into", workbook.name)
    assert (twice.code, twice.out) == (2, "")
    assert cli.in_english(twice.err) == []
    named = cli("report", "--into", workbook.name, "--out", "给王芳.xlsx", "--lang", "en", "--json")
    assert named.json["into"] == "给王芳.xlsx"
    assert column(cli.folder / "给王芳.xlsx", "E")[0] == "result SIMULATED 演练"


def test_into_with_final_shows_what_retries_have_fixed(open_cli, workbook):
    cli = open_cli(ROWS, [Fault(env=BOOKS.env, path="banner/2.png", calls=((1, 1),), errcode=40097)])
    assert cli("upload", workbook.name, "--root", "files").code == 1
    assert cli("retry").code == 0
    retry = cli.latest().id
    assert cli("report", "--into", workbook.name, "--out", "a.xlsx").code == 0
    assert column(cli.folder / "a.xlsx", "E")[1:] == ["uploaded"] * 8
    assert cli("report", retry, "--into", workbook.name, "--out", "b.xlsx").code == 0
    assert column(cli.folder / "b.xlsx", "E")[1:] == [None] * 6 + ["uploaded", None], "the retry's own rows"


def test_the_copy_and_the_screen_say_what_was_undone_since(open_cli, workbook):
    cli = open_cli(ROWS, [ILL])
    assert cli("upload", workbook.name, "--root", "files").code == 1
    first = cli.latest().id
    text = (cli.folder / f"reports/{first}/failed.csv").read_text(encoding="utf-8-sig")
    (cli.folder / "fixed.csv").write_text(text.replace("banner/2.png", "right.png"), encoding="utf-8")
    assert cli("upload", "fixed.csv", "--root", "files").code == 0
    correction = cli.latest().id
    undos = [cli("undo", run, "--yes", "--json").json["run"] for run in (correction, first)]
    result = cli("report", first, "--final", "--into", workbook.name, "--out", "a.xlsx")
    assert f"7 of 8 files of this upload were undone by run {undos[1]}" in result.err
    assert f"1 of 8 files of this upload were undone by run {undos[0]}" in result.err
    assert f"with its retries and corrections {correction}: 8 uploaded" in result.err
    lines = [f"uploaded, then undone by run {undos[1]}"] * 8
    lines[6] = lines[6].replace(undos[1], undos[0])
    assert column(cli.folder / "a.xlsx", "E")[1:] == lines
    assert cli("report", first, "--into", workbook.name, "--split-by", "负责人", "--out", "b").code == 0
    assert column(cli.folder / "b/清单 王芳.xlsx", "E")[1:] == lines[:6]
    assert f"files of this upload were undone by run {undos[1]}" in cli("report", first).err
    text = text.replace("banner/2.png", "banner/1.png")  # which the undo has deleted
    (cli.folder / "fixed.csv").write_text(text, encoding="utf-8")
    assert cli("upload", "fixed.csv", "--root", "files").code == 0
    assert cli("report", first, "--final", "--into", workbook.name, "--out", "c.xlsx").code == 0
    assert column(cli.folder / "c.xlsx", "E")[7] == "uploaded"


def test_split_by_gives_each_their_rows(open_cli, workbook):
    cli = open_cli(ROWS, [ILL])
    assert cli("upload", workbook.name, "--root", "files").code == 1
    result = cli("report", "--into", workbook.name, "--split-by", "负责人", "--out", "给同事")
    assert (result.code, result.out.strip()) == (0, "给同事")
    found = {file.name: column(file, "D")[1:] for file in (cli.folder / "给同事").iterdir()}
    assert found == {"清单 王芳.xlsx": ["王芳"] * 6, "清单 李娜.xlsx": ["李娜"] * 2}
    assert column(cli.folder / "给同事" / "清单 李娜.xlsx", "E") == [
        "result SIMULATED 演练",
        "refused",
        "uploaded",
    ]


REFUSED = {
    "split alone": (("--split-by", "负责人"), "give both"),
    "unknown column": (("--into", "清单.xlsx", "--split-by", "谁", "--out", "files"), "'负责人'"),
    "csv": (("--into", "list.csv"), "needs the workbook"),
    "missing": (("--into", "nowhere.xlsx"), "no such file"),
    "another": (("--into", "other.xlsx"), "content differs"),
    "the original": (("--into", "清单.xlsx", "--out", "清单.xlsx"), "is not overwritten"),
    "suffix": (("--into", "清单.xlsx", "--out", "a.csv"), "end in .xlsx"),
    "unknown run": (("nosuchrun", "--into", "清单.xlsx"), "nosuchrun"),
}


@pytest.mark.parametrize(("words", "result"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_said_and_nothing_is_written(open_cli, workbook, words, result):
    cli = open_cli(ROWS)
    assert cli("upload", workbook.name, "--root", "files").code == 0
    with xlsxwriter.Workbook(str(cli.folder / "other.xlsx")) as other:
        other.add_worksheet().write_row(0, 0, ("env", "path"))
    before = {file: file.read_bytes() for file in cli.folder.iterdir() if file.suffix in {".xlsx", ".csv"}}
    refused = cli("report", *words)
    assert (refused.code, refused.out) == (2, "")
    assert result in refused.err
    after = {file: file.read_bytes() for file in cli.folder.iterdir() if file.suffix in {".xlsx", ".csv"}}
    assert after == before

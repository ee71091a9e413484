"""Back to colleagues: their own workbook with how each row ended beside it."""

import gc
import shutil
import zipfile
from dataclasses import replace
from datetime import datetime
from xml.etree import ElementTree as ET

import openpyxl
import pytest
import xlsxwriter
from colleagues import ENVS, GOOD, HEADERS, REFUSED, full_workbook, send
from file_limit import files_of_at_most
from workspace import store_says

from tcb_ops.errors import InputError, StoppedError, UsageError
from tcb_ops.features.workbooks import annotate as into
from tcb_ops.features.workbooks.annotate import split_workbook, write_into
from tcb_ops.features.workbooks.book import Book
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd

OURS = ("结果", "原因", "怎么办", "file_id", "给商户的话术")


@pytest.fixture
def sent(tmp_path):
    """Run over a workbook in a ledger that closes with the test."""
    opened = []

    def make(file, *ends, **options):
        opened.append(send(file, ends, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.ledger.close()


def into_copy(run, file, dest=None, lang=Lang.ZH):
    with run.ledger.snapshot() as seen:
        return write_into(seen, run.run, file, dest, lang)


def apart(run, file, column="负责人", dest=None):
    with run.ledger.snapshot() as seen:
        return split_workbook(seen, run.run, file, dest, Lang.ZH, column)


def parts(file):
    with zipfile.ZipFile(file) as package:
        assert package.testzip() is None
        return {name: package.read(name) for name in package.namelist()}


def rows_of(file, sheet=None, top=1):
    book = openpyxl.load_workbook(file)
    return list((book[sheet] if sheet else book.worksheets[0]).iter_rows(min_row=top, values_only=True))


def plain(file, rows, headers=("env", "path", "备注")):
    with xlsxwriter.Workbook(str(file), {"strings_to_formulas": False}) as book:
        sheet = book.add_worksheet("清单")
        for line, cells in enumerate([headers, *rows]):
            for column, cell in enumerate(cells):
                sheet.write(line, column, cell)
    return file


# --- beside each row ------------------------------------------------------------------------------------------------


@pytest.mark.needs("health")
def test_each_row_has_its_end_beside_it(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    copy = into_copy(sent(file, GOOD, REFUSED), file)
    assert copy == tmp_path / "清单 结果.xlsx"
    head, *rows = rows_of(copy, "十一月清单", 3)
    assert head == (*HEADERS, *OURS)
    assert [row[:4] for row in rows[:6]] == [row[:4] for row in rows_of(file, "十一月清单", 4)[:6]]
    assert {row[4] for row in rows[0:6:2]} == {"已上传"}
    assert {row[7] for row in rows[0:6:2]} == {"cloud://tea/a.png"}
    assert all(row[5].startswith("85088") and row[6] for row in rows[1:6:2])
    assert [row[8] is not None and "尚未开通云开发" in row[8] for row in rows[:4]] == [
        False,
        True,
        False,
        True,
    ]


def test_what_openpyxl_copies_is_there_and_the_filter_takes_the_new_columns_along(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    copy = into_copy(sent(file, REFUSED), file)
    book = openpyxl.load_workbook(copy)
    sheet = book["十一月清单"]
    assert sheet.dimensions == "A1:I9"
    assert sheet.auto_filter.ref == "A3:I9"
    assert sheet.freeze_panes == "A4"
    assert [str(merge) for merge in sheet.merged_cells.ranges] == ["A1:D1"]
    assert sheet.protection.sheet
    assert sheet.data_validations.count == 1
    assert len(sheet.conditional_formatting) == 1
    assert sheet["B4"].comment.text.strip().endswith("请核对")
    assert sheet.row_dimensions[5].height == 33
    assert book["说明"]["A2"].value == "=SUM(十一月清单!D4:D9)"
    with zipfile.ZipFile(copy) as package:
        assert "$A$3:$I$9" in package.read("xl/workbook.xml").decode()


def test_what_is_not_copied_is_named_before_anything_is_written(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    run, warned = sent(file), []

    def warn(text):
        assert not (tmp_path / "清单 结果.xlsx").exists()
        warned.append(text)

    with run.ledger.snapshot() as seen:
        copy = write_into(seen, run.run, file, None, Lang.ZH, warn)
    (text,) = warned
    assert "without pictures, charts and shapes" in text.en
    assert [name for name in parts(copy) if "chart" in name or "media" in name] == []


def test_new_cells_look_as_the_path_does_and_have_room(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    sheet = openpyxl.load_workbook(into_copy(sent(file, GOOD), file))["十一月清单"]
    assert [sheet[f"E{line}"].style_id for line in (3, 4)] == [sheet[f"B{line}"].style_id for line in (3, 4)]
    assert [sheet.column_dimensions[name].width for name in "ACEFGH"] == pytest.approx(
        [30.71, 11.71, 24, 50, 50, 44], abs=0.01
    )


def test_a_table_takes_the_new_columns_in(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx", table=True)
    book = openpyxl.load_workbook(into_copy(sent(file, GOOD), file))
    (table,) = book["十一月清单"].tables.values()
    assert (table.ref, table.autoFilter.ref) == ("A3:I9", "A3:I9")
    assert [column.name for column in table.tableColumns] == [*HEADERS, *OURS]
    assert len({column.id for column in table.tableColumns}) == 9


def test_a_column_of_the_same_name_is_theirs(tmp_path, sent):
    file = plain(tmp_path / "a.xlsx", [(ENVS[0], "a.png", "x", "y")], ("env", "path", "结果", "FILE_ID"))
    assert rows_of(into_copy(sent(file), file))[0][2:] == (
        "结果", "FILE_ID", "结果 2", "原因", "怎么办", "file_id 2", "给商户的话术",
    )  # fmt: skip


def test_rows_that_were_not_in_the_run_stay_as_they_are(tmp_path, sent):
    file = plain(tmp_path / "a.xlsx", [(ENVS[n % 2], f"{n}.png", "") for n in range(4)])
    run = sent(file)
    with run.ledger.writing() as connection:
        connection.execute("DELETE FROM rows WHERE line IN (3, 5)")
        connection.execute("UPDATE runs SET rows = 2")
    run = replace(run, run=run.ledger.run(run.run.id))
    assert [row[3] for row in rows_of(into_copy(run, file))] == ["结果", "已上传", None, "已上传", None]


def test_every_outcome_says_what_to_do(tmp_path, sent, every_end):
    file = plain(tmp_path / "a.xlsx", [(ENVS[n % 2], f"{n}.png", "") for n in range(len(every_end))])
    _, *rows = rows_of(into_copy(sent(file, *every_end), file, lang=Lang.EN))
    for row, end in zip(rows, every_end, strict=True):
        assert row[3] == str(end.outcome).replace("_", " ")
        assert bool(row[4]) is (end.outcome not in {Outcome.UPLOADED, Outcome.LINKED} or bool(end.reason))


PLANTED = [
    "=cmd|'x'!A0",
    "@SUM(1)",
    "+cmd",
    "\t=1",
    "<script>&\"'</script>",
    "]]>",
    "_x0041_",
    "a\x01b\r\nc",
    "007",
    "<r><t>a</t></r>",
    "#N/A",
]


@pytest.mark.parametrize("write", ["into", "apart"])
@pytest.mark.parametrize("text", PLANTED)
def test_what_a_server_said_is_written_as_inert_text(tmp_path, sent, text, write):
    end = RowEnd(
        0,
        Outcome.FAILED,
        Reason.STORE_REFUSED,
        store_says(text),
        store_code=text,
        http_status=403,
        file_id=text,
    )
    file = plain(tmp_path / "a.xlsx", [(ENVS[0], "a.png", "=1+1")])
    run = sent(file, end)
    copy = into_copy(run, file) if write == "into" else apart(run, file, "备注") / "a =1+1.xlsx"
    for body in parts(copy).values():
        ET.fromstring(body)
    sheet = openpyxl.load_workbook(copy).worksheets[0]
    assert {cell.data_type for cell in sheet[2][:7]} == {"s"}
    with copy.open("rb") as raw:
        book = Book(raw)
        assert list(book.rows(book.sheets[0]))[1].cells[6] == text


def test_cells_formatted_beyond_the_list_give_way_to_the_new_ones(tmp_path, sent):
    """Empty cells with a border reach far to the right in many workbooks."""
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        sheet, border = book.add_worksheet(), book.add_format({"border": 1})
        for line, cells in enumerate([("env", "path"), (ENVS[0], "a.png"), (ENVS[1], "b.png")]):
            sheet.write_row(line, 0, cells)
            for column in range(2, 10):
                sheet.write_blank(line, column, None, border)
        sheet.set_column("H:XFD", 5, None, {"hidden": True})
    copy = into_copy(sent(tmp_path / "a.xlsx", REFUSED), tmp_path / "a.xlsx")
    assert [row[2] for row in rows_of(copy)] == ["结果", "被拒绝", "被拒绝"]


def test_a_workbook_that_openpyxl_cannot_read_is_refused_in_words(tmp_path, sent):
    """A list can be read from it, but nothing says where its parts are."""
    file = plain(tmp_path / "a.xlsx", [(ENVS[0], "a.png", "")])
    everything = parts(file) | {"[Content_Types].xml": b"<Types/>"}
    with zipfile.ZipFile(file, "w") as package:
        for name, part in everything.items():
            package.writestr(name, part)
    run, before = sent(file), sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"cannot be copied.*results\.csv"):
        into_copy(run, file)
    assert sorted(tmp_path.iterdir()) == before


def test_the_sheet_that_the_run_read_is_the_one_that_is_written(tmp_path, sent):
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        for name in ("一", "二", "三"):
            sheet = book.add_worksheet(name)
            for line, cells in enumerate([("env", "path"), (ENVS[0], "a.png")]):
                sheet.write_row(line, 0, cells)
    copy = into_copy(sent(tmp_path / "a.xlsx", sheet="二"), tmp_path / "a.xlsx")
    assert [len(rows_of(copy, name)[0]) for name in ("一", "二", "三")] == [2, 7, 2]


def test_a_macro_workbook_stays_one(tmp_path, sent):
    file = plain(tmp_path / "a.xlsx", [(ENVS[0], "a.png", "")]).rename(tmp_path / "a.xlsm")
    run = sent(file)
    assert into_copy(run, file).name == "a 结果.xlsm"
    with pytest.raises(UsageError, match=r"end in \.xlsm"):
        into_copy(run, file, tmp_path / "b.xlsx")


# --- a workbook for each --------------------------------------------------------------------------------------------


def test_each_gets_the_own_rows_and_sees_nothing_of_the_others(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    folder = apart(sent(file, GOOD, REFUSED), file)
    assert folder == tmp_path / "清单 结果"
    assert sorted(one.name for one in folder.iterdir()) == ["清单 李娜.xlsx", "清单 王芳.xlsx"]
    for who, other, paths in (("王芳", "李娜", (0, 1, 2)), ("李娜", "王芳", (3, 4, 5))):
        copy = folder / f"清单 {who}.xlsx"
        head, *rows = rows_of(copy)
        assert head == (*HEADERS, *OURS)
        assert [row[1] for row in rows] == [f"活动/{n}.png" for n in paths]
        assert {row[2] for row in rows} == {who}
        assert [row[3] for row in rows] == [n + 0.5 for n in paths]
        assert [row[4] for row in rows] == [("已上传", "被拒绝")[n % 2] for n in paths]
        for name, body in parts(copy).items():
            ET.fromstring(body)
            assert other not in body.decode(), name
            assert "only for us" not in body.decode(), name


def test_the_copies_keep_types_below_a_bold_header_that_stays(tmp_path, sent):
    day = datetime(2026, 11, 30, 8, 15)  # noqa: DTZ001  cells have no time zone
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx"), {"default_date_format": "d.m.yy"}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ("env", "path", "负责人", "日期", "真", "数"))
        sheet.write_row(1, 0, (ENVS[0], "a.png", "王芳", day, True, 0.5))
    copied = openpyxl.load_workbook(apart(sent(tmp_path / "a.xlsx"), tmp_path / "a.xlsx") / "a 王芳.xlsx")
    sheet = copied.worksheets[0]
    assert [cell.value for cell in sheet[2]][3:6] == [day, True, 0.5]
    assert sheet["A1"].font.b
    assert sheet.freeze_panes == "A2"


def test_a_formula_stands_as_its_value(tmp_path, sent):
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ("env", "path", "谁", "价格", "名称"))
        sheet.write_row(1, 0, (ENVS[0], "a.png", "甲"))
        sheet.write_formula(1, 3, "=Secret!A1*2", None, 42)
        sheet.write_formula(1, 4, '="x"&Secret!A2', None, "x<y")
        book.add_worksheet("Secret").write(0, 0, "others")
    copy = apart(sent(tmp_path / "a.xlsx"), tmp_path / "a.xlsx", "谁") / "a 甲.xlsx"
    assert rows_of(copy)[1][:5] == (ENVS[0], "a.png", "甲", 42, "x<y")
    assert b"Secret" not in b"".join(parts(copy).values())


def test_a_merged_cell_speaks_for_all_its_rows(tmp_path, sent):
    with xlsxwriter.Workbook(str(tmp_path / "a.xlsx")) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ("env", "path", "负责人"))
        for n in range(7):
            sheet.write_row(n + 1, 0, (ENVS[n % 2], f"{n}.png"))
        sheet.merge_range("C2:C4", "王芳")
        sheet.merge_range("C5:C6", "李娜")
    folder = apart(sent(tmp_path / "a.xlsx"), tmp_path / "a.xlsx")
    found = {one.stem: [row[1] for row in rows_of(one)[1:]] for one in folder.iterdir()}
    assert found == {
        "a 王芳": ["0.png", "1.png", "2.png"],
        "a 李娜": ["3.png", "4.png"],
        "a （空）": ["5.png", "6.png"],
    }


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["华东/一组", "a:b*c?"], ["L 华东_一组.xlsx", "L a_b_c_.xlsx"]),
        (["Li", "li", "LI"], ["L Li.xlsx", "L li (2).xlsx", "L LI (3).xlsx"]),
        (["", " . "], ["L （空）.xlsx", "L （空） (2).xlsx"]),
        (["../../etc", "con"], ["L _.._etc.xlsx", "L con.xlsx"]),
        (["字" * 300], [f"L {'字' * 40}.xlsx"]),
        (["a\tb\n\u202exslx"], ["L a_b__xslx.xlsx"]),
    ],
    ids=["forbidden signs", "letter case", "empty", "folders and devices", "long", "control characters"],
)
def test_file_names_are_safe_everywhere(values, names):
    assert into._file_names("L", values, Lang.ZH) == names


def test_too_many_values_are_no_people(tmp_path, sent, monkeypatch):
    monkeypatch.setattr(into, "MOST_COPIES", 3)
    file = plain(tmp_path / "a.xlsx", [(ENVS[0], f"{n}.png", "") for n in range(4)])
    with pytest.raises(UsageError, match="more than 3 values"):
        apart(sent(file), file, "path")
    assert sorted(one.name for one in tmp_path.iterdir() if "a" in one.name and one.suffix == "") == []


# --- what is no input of the run ------------------------------------------------------------------------------------


def test_a_workbook_that_changed_since_is_refused(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    run = sent(file)
    openpyxl.load_workbook(file).save(file)
    with pytest.raises(UsageError, match=r"is not the list of run 20261125-093000-k7q2 .*content differs"):
        into_copy(run, file)
    with pytest.raises(UsageError, match="content differs"):
        apart(run, file)


def test_a_sheet_that_is_full_to_the_right_is_sent_to_results_csv(tmp_path, sent):
    file = plain(tmp_path / "a.xlsx", [])
    book = openpyxl.load_workbook(file)
    book.active.append((ENVS[0], "a.png"))
    book.active.cell(2, 16_383, "far out")
    book.save(file)
    with pytest.raises(UsageError, match=r"no room for 5 more columns.*results\.csv"):
        into_copy(sent(file), file)


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "protected with a password"),
        (b"PK\x03\x04 cut", "is incomplete"),
    ],
    ids=["xls or password", "cut"],
)
def test_a_workbook_that_cannot_be_read_is_said_as_such(tmp_path, sent, body, result):
    run = sent(full_workbook(tmp_path / "清单.xlsx"))
    (tmp_path / "other.xlsx").write_bytes(body)
    with pytest.raises(InputError, match=result):
        into_copy(run, tmp_path / "other.xlsx")


# --- the disk -------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path, sent):
    file = full_workbook(tmp_path / "清单.xlsx")
    run, before = sent(file), file.read_bytes()
    for dest in (file, tmp_path / "dot.xlsx"):
        if dest != file:
            dest.write_bytes(b"mine")
        with pytest.raises(UsageError, match="already exists, and is not overwritten"):
            into_copy(run, file, dest)
    assert (file.read_bytes(), (tmp_path / "dot.xlsx").read_bytes()) == (before, b"mine")
    (tmp_path / "清单 结果").mkdir()
    with pytest.raises(UsageError, match="already exists, and is not overwritten"):
        apart(run, file)
    with pytest.raises(UsageError, match="there is no folder"):
        into_copy(run, file, tmp_path / "nowhere" / "a.xlsx")


def test_a_file_that_somebody_makes_meanwhile_is_not_overwritten(tmp_path, sent, monkeypatch):
    file, dest = full_workbook(tmp_path / "清单.xlsx"), tmp_path / "copy.xlsx"
    run, save = sent(file), into._save

    def save_late(workbook, part):
        save(workbook, part)
        dest.write_bytes(b"mine")

    monkeypatch.setattr(into, "_save", save_late)
    with pytest.raises(UsageError, match="already exists, and is not overwritten"):
        into_copy(run, file, dest)
    assert (dest.read_bytes(), sorted(path.name for path in tmp_path.glob("*.part"))) == (b"mine", [])


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # openpyxl's, of its temporary file
@pytest.mark.parametrize("write", [into_copy, apart], ids=["into", "split"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, sent, write):
    (tmp_path / "out").mkdir()
    file = full_workbook(tmp_path / "out" / "清单.xlsx", rows=2_000)
    shutil.move(file, tmp_path / "清单.xlsx")
    run = sent(tmp_path / "清单.xlsx")
    shutil.rmtree(tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    with (
        files_of_at_most(20_000),
        pytest.raises(
            StoppedError, match="could not be written: the file is larger than allowed here"
        ) as stopped,
    ):
        write(run, tmp_path / "清单.xlsx")
    gc.collect()  # what was left open is reported here, not in another test
    assert "释放磁盘空间" in stopped.value.text.zh
    assert sorted(tmp_path.iterdir()) == before

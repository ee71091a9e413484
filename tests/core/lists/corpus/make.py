"""Writes the lists of this folder; expected.toml says how each ends. Run once: a list that has changed is another list.

Besides the development tools it needs xlwt and msoffcrypto-tool, for the workbooks of before and with a password.
"""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import xlsxwriter
from openpyxl.styles import Protection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HERE = Path(__file__).parent
HEAD = ["商户", "上传路径", "本地文件"]
DAY = datetime(2026, 1, 2)  # noqa: DTZ001  a cell has no time zone
ROWS = [["茶语小铺", "banner/春.png", "素材/春.png"], ["城南书店", "banner/书.png", "素材/书.png"]]


def text(name: str, content: str, encoding: str = "utf-8") -> None:
    (HERE / name).write_bytes(content.encode(encoding))


def raw(name: str, content: bytes) -> None:
    (HERE / name).write_bytes(content)


def write(name: str, fill: Callable[[xlsxwriter.Workbook], None], **options: Any) -> None:
    with xlsxwriter.Workbook(HERE / name, {"strings_to_numbers": False, **options}) as book:
        book.set_properties({"created": datetime(2026, 1, 1, tzinfo=UTC)})
        fill(book)


def rows(sheet: Any, content: Iterable[Iterable[Any]], at: int = 0) -> None:
    for line, cells in enumerate(content, at):
        for column, cell in enumerate(cells):
            if cell is not None:
                sheet.write(line, column, cell)


def zipped(name: str, parts: Mapping[str, str | bytes]) -> None:
    with zipfile.ZipFile(HERE / name, "w", zipfile.ZIP_DEFLATED) as out:
        for part, content in parts.items():
            out.writestr(zipfile.ZipInfo(part, (2026, 1, 1, 0, 0, 0)), content)


RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def by_hand(
    name: str,
    sheet: str,
    strings: str = "",
    *,
    prefix: str = "",
    main: str = MAIN,
    kinds: str = KINDS,
    doctype: str = "",
    target: str = "worksheets/sheet1.xml",
) -> None:
    """A workbook as other programs than Excel write it."""
    p = f"{prefix}:" if prefix else ""
    xmlns = f'xmlns:{prefix}="{main}"' if prefix else f'xmlns="{main}"'
    relation = f'<Relationship Id="{{}}" Type="{kinds}/{{}}" Target="{{}}"/>'
    own = relation.format("a", "worksheet", target) + relation.format(
        "b", "sharedStrings", "sharedStrings.xml"
    )
    zipped(
        name,
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f'<Relationships xmlns="{RELATIONS}">{relation.format("m", "officeDocument", "xl/workbook.xml")}</Relationships>',
            "xl/workbook.xml": f'<{p}workbook {xmlns} xmlns:r="{kinds}"><{p}sheets><{p}sheet name="清单" sheetId="1" r:id="a"/></{p}sheets></{p}workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{RELATIONS}">{own}</Relationships>',
            "xl/sharedStrings.xml": f"<{p}sst {xmlns}>{strings}</{p}sst>",
            "xl/worksheets/sheet1.xml": f"{doctype}<{p}worksheet {xmlns}><{p}sheetData>{sheet}</{p}sheetData></{p}worksheet>",
        },
    )


def delimited() -> None:
    plain = "环境ID,上传路径,编号\n" + "tea-1a2b3c,banner/春.png,007\nbooks-77aa01,banner/书.png,008\n"
    text("utf-8.csv", plain)
    text("utf-8-bom-crlf.csv", plain.replace("\n", "\r\n"), "utf-8-sig")
    text("utf-16-tabs.txt", plain.replace(",", "\t").replace("\n", "\r\n"), "utf-16")
    text("gb18030.csv", plain.replace("\n", "\r\n"), "gb18030")
    raw("gb18030-bom.csv", b"\x84\x31\x95\x33" + plain.encode("gb18030"))
    text("gbk-one-short-line.csv", "env,path\ntea-1a2b3c,一.png\n", "gbk")
    text("cr.csv", plain.replace("\n", "\r"), "gb18030")
    text("no-line-end-at-the-end.csv", plain.rstrip("\n"))
    text("semicolons.csv", plain.replace(",", ";"))
    text("tabs.tsv", plain.replace(",", "\t"))
    text("bars.csv", plain.replace(",", "|"))
    text("full-width-commas.csv", plain.replace(",", "，"))
    text("quoted-breaks.csv", 'env,path,说明\ntea-1a2b3c,a.png,"一\n二\r\n三"\ntea-1a2b3c,/b.png,x\n')
    text("trailing-blanks.csv", "env,path,,\ntea-1a2b3c,a.png,,\n,,,\n\n \u3000,,,\ntea-1a2b3c,/b.png,,\n")
    text("nbsp.csv", "env,path\n\u00a0tea-1a2b3c\u3000,a.png\u00a0\ntea-1a2b3c,b.png\n")
    text("full-width.csv", "商户,path\n１９８４,a.png\nｓｏｕｐ ＆ ｃｏ,b.png\n")
    text("full-width-env.csv", "env,path\nｔｅａ－1a2b3c,a.png\n")
    text(
        "numbers-are-text.csv",
        "env,path,file\nbooks-77aa01,1E5,007\nbooks-77aa01,2026/1/2,0.10\nbooks-77aa01,００７,-1\n",
    )
    text("colliding-headers.csv", "env,路径,path\ntea-1a2b3c,a,b\n")
    text("same-header-twice.csv", "env,path,备注,备注\ntea-1a2b3c,a,b,c\n")
    text("no-path-column.csv", "env,目标\ntea-1a2b3c,a\n")
    text("unknown-env.csv", "env,path\ntea-1a2b3d,a.png\nzzz,b.png\n")
    text("unknown-merchant.csv", "商户,path\n茶语小店,a.png\nwxbook,b.png\n")
    text("several-environments.csv", "商户,path\n麦田烘焙,a.png\n")
    text("shared-environment.csv", "env,path\nshared-5e6f,a.png\n")
    text("other-appid.csv", "env,appid,path\ntea-1a2b3c,wxbooks,a.png\n")
    text("duplicates.csv", "env,path\ntea-1a2b3c,a.png\nbooks-77aa01,a.png\n tea-1a2b3c,a.png\n")
    text(
        "bad-paths.csv",
        "env,path\n"
        + "".join(
            f"tea-1a2b3c,{p}\n"
            for p in ("/a", "\\a", "a//b", "a/../b", "./a", "a\x1bb", "中" * 284, "", '"a\nb"')
        ),
    )
    text(
        "odd-but-allowed.csv",
        'env,path\ntea-1a2b3c,"a,b;c.png"\ntea-1a2b3c,a b+c&d.png\ntea-1a2b3c,😀.png\ntea-1a2b3c,a\u200bb%.png\n',
    )
    text("empty-values.csv", "env,path\n,a.png\ntea-1a2b3c\n")
    text("header-only.csv", "env,path\n")
    text("blank-lines-only.csv", "\n \n,,\n")
    raw("empty.csv", b"")
    raw("nul-bytes.csv", b"env,path\ntea-1a2b3c,a\x00.png\n")
    raw("neither-encoding.csv", b"env,path\ntea-1a2b3c,\xff\xff.png\n")
    raw(
        "two-encodings.csv",
        ("env,path,说明\n" + "tea-1a2b3c,1.png,一行很长的中文说明文字\n").encode()
        + "tea-1a2b3c,海报.png,x\n".encode("gbk"),
    )
    text("open-quote.csv", 'env,path\ntea-1a2b3c,a.png\ntea-1a2b3c,"b.png\ntea-1a2b3c,c.png\n')
    text("quote-closed-early.csv", 'env,path\ntea-1a2b3c,"a" b.png\n')
    text("open-quote-in-the-header.csv", 'env,"path\ntea-1a2b3c,a.png\n')
    text("too-many-cells.csv", "env,path\ntea-1a2b3c,a,b.png\n")
    text(
        "titles.csv",
        "2026 春季素材,,\n负责人：小王,,\n环境ID,上传路径,备注\ntea-1a2b3c,a.png,x\nnope,b.png,x\n",
    )
    text("two-headers.csv", "env,path\n环境ID,上传路径\ntea-1a2b3c,a.png\n")
    text(
        "exported.csv", "env,path,备注,tcb_line,tcb_outcome\ntea-1a2b3c,a.png,'=1+1,7,refused\n", "utf-8-sig"
    )
    text(
        "windows-files.csv",
        "env,path,file\ntea-1a2b3c,a.png,D:\\素材\\春.png\ntea-1a2b3c,b.png,d:/素材/../../x.png\ntea-1a2b3c,c.png,E:\\别处\\c.png\n",
    )


def workbooks() -> None:
    def plain(book: xlsxwriter.Workbook) -> None:
        rows(book.add_worksheet("清单"), [HEAD, *ROWS])

    write("plain.xlsx", plain)
    write("inline-strings.xlsx", plain, constant_memory=True)
    write("called-a-csv.csv", plain)

    def titles(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("三月")
        sheet.merge_range("A1:C1", "2026 年三月素材")
        sheet.write("A2", "负责人：小王")
        rows(sheet, [HEAD, *ROWS, ["没有这家", "x.png", ""]], 3)

    write("titles-merged.xlsx", titles)

    def hidden(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [HEAD, *ROWS, ["茶语小铺", "/hidden.png", ""], ["茶语小铺", "last.png", ""]])
        sheet.set_row(3, None, None, {"hidden": True})
        sheet.set_row(9, None, None, {"hidden": True})

    write("hidden-rows.xlsx", hidden)

    def filtered(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [HEAD, *ROWS, ["茶语小铺", "c.png", ""]])
        sheet.autofilter("A1:C4")
        sheet.filter_column_list("A", ["茶语小铺"])
        sheet.set_row(2, None, None, {"hidden": True})

    write("filtered.xlsx", filtered)

    def filter_unused(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [HEAD, *ROWS])
        sheet.autofilter("A1:C3")

    write("filter-that-hides-nothing.xlsx", filter_unused)

    def odd(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("清单")
        day = book.add_format({"num_format": "yyyy/m/d"})
        rows(sheet, [["环境ID", "上传路径", "本地文件"]])
        for line, cell in enumerate((20260101, 100000.0, 12.5), 1):
            rows(sheet, [["tea-1a2b3c", cell, "a.png"]], line)
        rows(sheet, [["tea-1a2b3c", "d.png", 7], [77, "e.png", "a.png"], ["tea-1a2b3c", None, "a.png"]], 4)
        sheet.write_datetime("B7", date(2026, 1, 2), day)
        rows(
            sheet,
            [["tea-1a2b3c", True, "a.png"], ["tea-1a2b3c", None, "a.png"], ["tea-1a2b3c", None, "a.png"]],
            7,
        )
        sheet.write_formula("B9", '="a/"&"b.png"', None, "a/b.png")
        sheet.write_formula("B10", "=NA()", None, "#N/A")
        rows(sheet, [["tea-1a2b3c", "ok.png", "a.png"]], 10)

    write("odd-cells.xlsx", odd)

    def others(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("清单")
        rows(
            sheet, [["商户", "path", "整数", "小数", "日期", "时刻", "真假", "编号", "补零", "公式", "大数"]]
        )
        rows(sheet, [[1984, "a.png", 12, 0.1, None, None, True, "007", None, None, 123456789012]], 1)
        sheet.write_datetime("E2", date(2026, 1, 2), book.add_format({"num_format": 'yyyy"年"m"月"d"日"'}))
        sheet.write_datetime(
            "F2", DAY.replace(hour=8, minute=30), book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        )
        sheet.write_number("I2", 7, book.add_format({"num_format": "000"}))
        sheet.write_formula("J2", "=C2*2", None, 24)

    write("other-columns.xlsx", others)

    def since_1904(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [["env", "path", "日期"], ["tea-1a2b3c", "a.png"]])
        sheet.write_datetime("C2", date(2026, 1, 2), book.add_format({"num_format": 14}))

    write("days-since-1904.xlsx", since_1904, date_1904=True)

    def merged(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [HEAD, *ROWS])
        sheet.merge_range("A4:A5", "茶语小铺")
        rows(sheet, [[None, "c.png", ""], [None, "d.png", ""]], 3)
        sheet.merge_range("A7:C7", "以上由小王整理")

    write("merged-cells.xlsx", merged)

    def two(book: xlsxwriter.Workbook) -> None:
        for name in ("三月", "四月"):
            rows(book.add_worksheet(name), [HEAD, *ROWS])

    write("two-lists.xlsx", two)

    def one_of_three(book: xlsxwriter.Workbook) -> None:
        rows(book.add_worksheet("说明"), [["请先看这里"], ["路径不要以 / 开头"]])
        rows(book.add_worksheet("清单"), [HEAD, *ROWS])
        old = book.add_worksheet("旧清单")
        rows(old, [HEAD, *ROWS])
        old.hide()
        book.add_worksheet("空白")

    write("one-of-three-sheets.xlsx", one_of_three)

    def none_fits(book: xlsxwriter.Workbook) -> None:
        rows(book.add_worksheet("甲"), [["店", "目标"], ["茶语小铺", "a.png"]])
        rows(book.add_worksheet("乙"), [["说明"]])

    write("no-sheet-fits.xlsx", none_fits)

    def only_one_holds(book: xlsxwriter.Workbook) -> None:
        book.add_worksheet("空白")
        rows(book.add_worksheet("甲"), [["店", "目标"], ["茶语小铺", "a.png"]])

    write("one-sheet-holds-anything.xlsx", only_one_holds)
    write("blank.xlsx", lambda book: book.add_worksheet())

    def beyond(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [HEAD, [*ROWS[0], None, "改过"], ROWS[1]])
        sheet.set_column("C:C", None, None, {"hidden": True})

    write("notes-on-the-right.xlsx", beyond)

    def spill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        rows(sheet, [["env", "path"], ["tea-1a2b3c", None], ["tea-1a2b3c", None]])
        sheet.write_array_formula("B2:B3", '{=D2:D3&""}', None, "a.png")
        sheet.write("B3", "b.png")

    write("array-formula.xlsx", spill)

    book = openpyxl.Workbook()
    book.active.append(["env", "path"])
    book.active.append(["tea-1a2b3c", '="a"&".png"'])
    book.active["A2"].protection = Protection(locked=False)
    book.save(HERE / "formula-never-computed.xlsx")


def from_other_programs() -> None:
    strings = (
        "<si><t>env</t></si><si><r><t>pa</t></r><r><t>th</t></r></si><si><t>tea-1a2b3c</t></si>"
        '<si><t>東京.png</t><rPh sb="0" eb="2"><t>とうきょう</t></rPh></si><si><t xml:space="preserve"> a_x000D_</t></si>'
    )
    cells = '<c t="s"><v>{}</v></c><c t="s"><v>{}</v></c>'
    sheet = f"<row>{cells.format(0, 1)}</row><row>{cells.format(2, 3)}</row><row>{cells.format(2, 4)}</row>"
    by_hand("no-cell-names.xlsx", sheet, strings)
    strict = "http://purl.oclc.org/ooxml"
    by_hand(
        "strict.xlsx",
        sheet,
        strings,
        main=f"{strict}/spreadsheetml/main",
        kinds=f"{strict}/officeDocument/relationships",
        target="/xl/worksheets/sheet1.xml",
    )
    named = sheet
    for tag in ("row", "c", "v"):
        named = named.replace(f"<{tag}", f"<x:{tag}").replace(f"</{tag}", f"</x:{tag}")
    for tag in ("si", "t", "r", "rPh"):
        strings = (
            strings.replace(f"<{tag}>", f"<x:{tag}>")
            .replace(f"<{tag} ", f"<x:{tag} ")
            .replace(f"</{tag}>", f"</x:{tag}>")
        )
    by_hand("prefixed.xlsx", named, strings, prefix="x")
    result = '<c t="inlineStr"><is><t>{}</t></is></c>'
    dragged = '<row><c/><c/><c t="str"><f>IF(A3="","",1)</f><v></v></c></row>'
    listed = "".join(
        f"<row>{result.format(a)}{result.format(b)}</row>"
        for a, b in (("env", "path"), ("tea-1a2b3c", "a.png"))
    )
    by_hand("formulas-dragged-too-far.xlsx", listed + dragged * 3)
    flat = f'<row ht="0" customHeight="1">{result.format("tea-1a2b3c")}{result.format("b.png")}</row>'
    by_hand("row-without-height.xlsx", listed + flat)
    by_hand("rows-out-of-order.xlsx", '<row r="2"><c r="A2"><v>1</v></c></row><row r="1"/>')
    by_hand("cell-beyond-the-last-column.xlsx", '<row r="1"><c r="XFE1"><v>1</v></c></row>')
    by_hand("string-that-is-not-there.xlsx", '<row><c t="s"><v>99</v></c></row>')
    by_hand("no-xml.xlsx", "<row><c>")
    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    by_hand("entities.xlsx", '<row><c t="inlineStr"><is><t>&b;</t></is></c></row>', doctype=entities)
    by_hand("sheet-that-is-not-there.xlsx", sheet, strings, target="worksheets/sheet9.xml")
    zipped("photos.zip", {"a.png": b"\x89PNG", "b.png": b"\x89PNG"})
    zipped(
        "document.docx",
        {
            "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="m" Type="{KINDS}/officeDocument" Target="word/document.xml"/></Relationships>',
            "word/document.xml": "<document/>",
        },
    )
    zipped(
        "open-document.ods",
        {"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<a/>"},
    )
    zipped(
        "binary.xlsb",
        {
            "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="m" Type="{KINDS}/officeDocument" Target="xl/workbook.bin"/></Relationships>',
            "xl/workbook.bin": b"\0",
        },
    )
    raw("cut-in-half.xlsx", (HERE / "plain.xlsx").read_bytes()[:2500])
    raw("pk-only.xlsx", b"PK\x03\x04 and then nothing of the kind")


def containers_of_before() -> None:
    import msoffcrypto.format.ooxml
    import xlwt

    old = xlwt.Workbook()
    old.add_sheet("清单").write(0, 0, "env")
    old.save(HERE / "old.xls")
    locked = io.BytesIO()
    with (HERE / "plain.xlsx").open("rb") as plain:
        msoffcrypto.format.ooxml.OOXMLFile(plain).encrypt("secret", locked)
    raw("password.xlsx", locked.getvalue())


if __name__ == "__main__":
    delimited()
    workbooks()
    from_other_programs()
    containers_of_before()

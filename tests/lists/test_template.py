from __future__ import annotations

import io
from typing import TYPE_CHECKING

import openpyxl
import pytest

from tcb_ops.errors import InputError
from tcb_ops.i18n import Lang
from tcb_ops.lists.generate import list_template
from tcb_ops.lists.merchants import EMPTY_FILE, Merchants, read_merchants
from tcb_ops.lists.paths import read_paths

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["茶语小铺", "城南书店"]


@pytest.mark.parametrize("lang", list(Lang))
def test_the_template_has_text_columns_and_a_drop_down_of_merchants(lang: Lang) -> None:
    book = openpyxl.load_workbook(io.BytesIO(list_template(NAMES, lang)))
    sheet, known = book.worksheets
    assert [sheet.column_dimensions[c].number_format for c in "AB"] == ["@", "@"]
    assert [cell.value for cell in known["A"]][1:] == NAMES
    (rule,) = sheet.data_validations.dataValidation
    assert (rule.type, rule.formula1, str(rule.sqref)) == (
        "list",
        f"{known.title}!$A$2:$A$1003",
        "A2:A1048576",
    )


@pytest.mark.parametrize("lang", list(Lang))
def test_filled_in_the_template_is_a_list(lang: Lang, tmp_path: Path, merchants: Merchants) -> None:
    file = tmp_path / "list.xlsx"
    file.write_bytes(list_template(NAMES, lang))
    with pytest.raises(InputError, match="no row below it"):
        read_paths(file, merchants)
    book = openpyxl.load_workbook(file)
    book.worksheets[0].append(["茶语小铺", "a/007.png", "a.png"])
    book.save(file)
    (row,) = read_paths(file, merchants).rows()
    assert (row.line, row.env, row.path, row.file) == (2, "tea-1a2b3c", "a/007.png", "a.png")


def test_the_merchants_file_waits_for_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "merchants.csv"
    file.write_bytes(EMPTY_FILE)
    with pytest.raises(InputError, match="no merchant below it"):
        read_merchants(file)
    file.write_bytes(EMPTY_FILE + "wxtea,茶语小铺,tea-1a2b3c,yes,,\r\n".encode())
    assert read_merchants(file)[0].default

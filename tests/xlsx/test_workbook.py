from __future__ import annotations

import pytest

from tcb_ops.xlsx.workbook import CellKind, Formats, date_text, number_text, unescape


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("12", "12"),
        ("12.0", "12"),
        ("007", "7"),
        ("-3", "-3"),
        ("1E5", "100000"),
        ("0.10000000000000001", "0.1"),
        ("0.30000000000000004", "0.3"),
        ("123456789012345678", "123456789012345680"),
        ("1.5E-7", "1.5E-07"),
        ("1e300", "1E+300"),
    ],
)
def test_a_number_is_what_its_cell_shows(raw: str, text: str) -> None:
    assert number_text(raw) == text


@pytest.mark.parametrize(
    ("serial", "since_1904", "text"),
    [
        pytest.param(46024, False, "2026-01-02", id="a day"),
        pytest.param(44562, True, "2026-01-02", id="the same day, counted from 1904"),
        pytest.param(46024.354166666664, False, "2026-01-02 08:30:00", id="a moment"),
        pytest.param(0.354166666664, False, "08:30:00", id="a time"),
        pytest.param(1, False, "1900-01-01", id="the first day"),
        pytest.param(59, False, "1900-02-28", id="before the day that never was"),
        pytest.param(61, False, "1900-03-01", id="after it"),
    ],
)
def test_a_day_number_is_a_date(serial: float, since_1904: bool, text: str) -> None:
    assert date_text(serial, since_1904=since_1904) == text


@pytest.mark.parametrize("serial", [1e9, -1e9, float("inf"), float("nan")])
def test_a_day_beyond_the_calendar_is_none(serial: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whose words vary, and nobody reads them
        date_text(serial, since_1904=False)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        pytest.param("General", "46024", CellKind.NUMBER, id="none"),
        pytest.param("@", "46024", CellKind.NUMBER, id="text, put on after the number"),
        pytest.param("0.00E+00", "46024", CellKind.NUMBER, id="scientific"),
        pytest.param(
            '[$¥-804]#,##0.00_);[Red]\\-"days"0', "46024", CellKind.NUMBER, id="letters that are no pattern"
        ),
        pytest.param("00000000", "00046024", CellKind.NUMBER, id="zeros in front"),
        pytest.param("yyyy/m/d", "2026-01-02", CellKind.DATE, id="a date"),
        pytest.param('yyyy"年"m"月"', "2026-01-02", CellKind.DATE, id="a chinese date"),
        pytest.param("[$-804]d", "2026-01-02", CellKind.DATE, id="a date with a locale"),
        pytest.param("[h]:mm", "2026-01-02", CellKind.DATE, id="a time span"),
    ],
)
def test_the_format_tells_dates_from_numbers(code: str, text: str, kind: CellKind) -> None:
    formats = Formats()
    formats._codes, formats._styles = {170: code}, [0, 170]
    assert formats.show("46024", "1", since_1904=False) == (text, kind)


@pytest.mark.parametrize("style", [14, 22, 31, 46, 57])
def test_built_in_date_formats_are_known(style: int) -> None:
    formats = Formats()
    formats._styles = [style]
    assert formats.show("46024", "0", since_1904=False) == ("2026-01-02", CellKind.DATE)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a_x000D_b", "a\rb"),
        ("_x005F_x000D_", "_x000D_"),
        ("_xD83D__xDE00_", "😀"),
        ("_xD83D_", "\ufffd"),
        ("_x0000_", "_x0000_"),
        ("banner_x1.png", "banner_x1.png"),
    ],
)
def test_escaped_characters_are_read(text: str, plain: str) -> None:
    assert unescape(text) == plain

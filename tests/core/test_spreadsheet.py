"""What a spreadsheet would run is made inert, and comes back as it was."""

from __future__ import annotations

import random

import pytest

from tcb_ops.formatting import guard, unguard


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        pytest.param("=1+1", "'=1+1", id="formula"),
        pytest.param("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0", id="plus"),
        pytest.param("-2+3", "'-2+3", id="minus"),
        pytest.param("@SUM(A1)", "'@SUM(A1)", id="at"),
        pytest.param("\t=1", "'\t=1", id="tab"),
        pytest.param("\r=1", "'\r=1", id="carriage-return"),
        pytest.param("\n=1", "'\n=1", id="line-break"),
        pytest.param("＝1", "'＝1", id="full-width-equals"),
        pytest.param("＋1", "'＋1", id="full-width-plus"),
        pytest.param("－1", "'－1", id="full-width-minus"),
        pytest.param("＠a", "'＠a", id="full-width-at"),
        pytest.param("'=1", "''=1", id="an-apostrophe-of-its-own"),
        pytest.param("-5", "-5", id="negative-number"),
        pytest.param("+3.5e-7", "+3.5e-7", id="number-with-exponent"),
        pytest.param("-.5", "-.5", id="number-without-a-whole-part"),
        pytest.param("-5\n", "'-5\n", id="not-quite-a-number"),
        pytest.param("007", "007", id="digits"),
        pytest.param("'tis", "'tis", id="harmless-apostrophe"),
        pytest.param("a=b", "a=b", id="equals-within"),
        pytest.param("", "", id="empty"),
        pytest.param("a\x01b\x1b[31m\x7f\tc", "a␁b␛[31m␡\tc", id="control characters"),
    ],
)
def test_a_cell_is_written_inert_and_read_back(cell: str, written: str) -> None:
    assert guard(cell) == written
    assert unguard(written) == cell


def test_guard_and_unguard_are_inverse_for_any_text() -> None:
    chance = random.Random(7)
    for _ in range(5_000):
        cell = "".join(chance.choices("'=+-@＝\t\r\n\0\x1b1.e a", k=chance.randrange(6)))
        written = guard(cell)
        assert unguard(written) == cell
        assert written[:1] not in set("=@＝\t\r\n"), written


def test_what_a_person_typed_stays_as_it_is() -> None:
    assert unguard("'quoted'") == "'quoted'"

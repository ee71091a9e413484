"""Retries of some of a run's open rows: which there are, and what narrows each."""

from __future__ import annotations

import pytest

from tcb_ops.features.health.open_rows import OpenRows, retries_of

TEA, TEA_2, BOOKS = (
    {code: OpenRows(code, appid, env) for code in ("45009", "85088", "40097")}
    for appid, env in (("wxtea", "tea-1"), ("wxtea", "tea-2"), ("wxbooks", "books-1"))
)

CASES = {
    # chosen, all open rows → the codes, where
    "none": ([], [TEA["45009"]], []),
    "all": ([TEA["45009"]], [TEA["45009"]], [((), ())]),
    "a code": ([TEA["45009"]], [TEA["45009"], TEA["40097"]], [(("45009",), ())]),
    "a merchant": (
        [TEA["45009"], TEA_2["45009"]],
        [TEA["45009"], TEA_2["45009"], BOOKS["45009"]],
        [(("45009",), ("appid=wxtea",))],
    ),
    "an environment": ([TEA["45009"]], [TEA["45009"], TEA_2["45009"]], [(("45009",), ("env=tea-1",))]),
    "two codes that make no product with other rows": (
        [TEA["45009"], BOOKS["85088"]],
        [TEA["45009"], BOOKS["85088"], BOOKS["40097"]],
        [(("45009", "85088"), ())],
    ),
    "two codes whose product has other rows": (
        [TEA["45009"], BOOKS["85088"]],
        [TEA["45009"], TEA["85088"], BOOKS["45009"], BOOKS["85088"]],
        [(("45009",), ("appid=wxtea",)), (("85088",), ("appid=wxbooks",))],
    ),
}


@pytest.mark.parametrize(("chosen", "rows", "expected"), CASES.values(), ids=CASES)
def test_what_narrows_a_retry(chosen, rows, expected):
    retried = retries_of(chosen, rows)
    assert [(each.codes, each.where) for each in retried] == expected
    assert {row for each in retried for row in each.rows} == set(chosen)


@pytest.mark.parametrize(("chosen", "rows", "expected"), CASES.values(), ids=CASES)
def test_no_other_row_is_run(chosen, rows, expected):
    def is_run(row, retry):
        columns = {item.partition("=")[0] for item in retry.where}
        fits = {column: f"{column}={getattr(row, column)}" in retry.where for column in columns}
        return (not retry.codes or row.code in retry.codes) and all(fits.values())

    retried = retries_of(chosen, rows)
    assert {row for row in rows if any(is_run(row, each) for each in retried)} == set(chosen)

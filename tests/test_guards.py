"""The guards that tests/guards.py takes out are still in the code."""

import re

import pytest
from guards import GUARDS, ROOT


@pytest.mark.parametrize(
    "guard",
    [
        pytest.param(guard, marks=[*map(pytest.mark.needs, re.findall(r"^features/(\w+)/", guard.file))])
        for guard in GUARDS
    ],
    ids=[guard.name for guard in GUARDS],
)
def test_a_guard_is_where_the_table_says(guard):
    text = (ROOT / "tcb_ops" / guard.file).read_text(encoding="utf-8")
    assert text.count(guard.code) == 1

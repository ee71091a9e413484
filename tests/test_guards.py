"""The guards that tests/guards.py takes out are still in the code."""

import pytest
from guards import GUARDS, ROOT


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_is_where_the_table_says(guard):
    text = (ROOT / "tcb_ops" / guard.file).read_text(encoding="utf-8")
    assert text.count(guard.code) == 1

"""Counts and their nouns agree: `1 row`, `0 rows`. Every message that counts goes through `plural`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tcb_ops
from tcb_ops.i18n import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(tcb_ops.__file__).parent
NOUNS = (
    "attempt|byte|call|cell|character|check|code|column|day|environment|error|file|line|link|merchant|package|"
    "problem|row|run|time|token|value|warning"
)
COUNTED = re.compile(rf" (?:(?:more|live|other|good|valid|pending) )*(?:{NOUNS})s\b(?!/)")


def counted() -> Iterator[tuple[str, str]]:
    """Numbers in messages with a plural noun after them, whatever the number is; constants are never 1."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for number, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(number, ast.FormattedValue) and isinstance(after, ast.Constant):
                    name = ast.unparse(number.value)
                    if (
                        COUNTED.match(str(after.value))
                        and not name.isupper()
                        and not name.endswith("COLUMNS)")
                    ):
                        yield f"{file.relative_to(PACKAGE)}:{node.lineno}", name


def test_no_message_writes_a_plural_noun_after_a_number_of_its_own() -> None:
    assert list(counted()) == []


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1204, "1,204 rows")]
)
def test_a_noun_agrees_with_its_number(count: int, text: str) -> None:
    assert plural(count, "row") == text

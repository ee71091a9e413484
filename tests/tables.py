"""A test's cases as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping


def table(parameters: str, cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test once for each case, which is a tuple of the parameters, under the case's name."""
    return pytest.mark.parametrize(parameters, cases.values(), ids=cases)

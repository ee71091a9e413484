from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from token_server import OpenTokenServer, token_server_opener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def open_token_server(tmp_path: Path) -> Iterator[OpenTokenServer]:
    """The function `open_token_server(merchants, faults, accounts=…)`; what it opens closes with the test."""
    with ExitStack() as stack:
        yield token_server_opener(stack, tmp_path)

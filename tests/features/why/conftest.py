from contextlib import ExitStack

import pytest
from token_server import token_server_opener


@pytest.fixture
def open_token_server(tmp_path, monkeypatch):
    """The function `open_token_server(merchants, faults, accounts=…)`; what it opens closes with the test."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield token_server_opener(stack, tmp_path)

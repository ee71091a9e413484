"""Merchants as an operator has them, and a way to put a file on disk."""

import pytest

from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Merchant

ENVS = {"wxtea": "tea-1a2b3c", "wxbooks": "books-77aa01"}


@pytest.fixture
def merchants():
    return Merchants(tuple(Merchant(appid, appid, env) for appid, env in ENVS.items()), "merchants.csv")


@pytest.fixture
def write(tmp_path):
    def put(text, name="paths.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put

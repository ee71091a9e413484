"""Merchants as an operator has them, and a way to put a file on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Merchant

Write = Callable[..., Path]

TEA = Merchant("wxtea", "茶语小铺", "tea-1a2b3c", default=True, columns=(("region", "华东"),))
TEA_TEST = Merchant("wxtea", "茶语小铺", "tea-test-9f", columns=(("region", "华东"),))
BOOKS = Merchant("wxbooks", "城南书店", "books-77aa01", columns=(("region", "华北"),))
NOODLE = Merchant("wxnoodle", "老街面馆", "shared-5e6f", columns=(("region", "华北"),))
SOUP = Merchant("wxsoup", "Soup & Co", "shared-5e6f", columns=(("region", "华东"),))
BAKERY = Merchant("wxbakery", "麦田烘焙", "bakery-a", columns=(("region", "华东"),))
BAKERY_B = Merchant("wxbakery", "麦田烘焙", "bakery-b", columns=(("region", "华东"),))
ALL = (TEA, TEA_TEST, BOOKS, NOODLE, SOUP, BAKERY, BAKERY_B)


@pytest.fixture
def merchants() -> Merchants:
    return Merchants(ALL, "merchants.csv")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str | bytes, name: str = "paths.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return put

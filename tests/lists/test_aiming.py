from __future__ import annotations

from dataclasses import replace

import pytest
from conftest_lists import ALL, BAKERY, BAKERY_B, BOOKS, NOODLE, SOUP, TEA, TEA_TEST

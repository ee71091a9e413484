"""Which rows an audit has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tcb_ops.features.audit.kind import AUDIT, PROBE
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Row
from tcb_ops.runs.plan import RunSpec, environments_of_rows


def audit_spec(merchants: Merchants, selection: str, options: Mapping[str, Any]) -> RunSpec:
    """Return the spec of an audit: one row per environment of merchants that have not left, all with the same path."""
    lines = [merchant for merchant in merchants if not merchant.left]

    def rows() -> Iterator[Row]:
        for number, merchant in enumerate(lines, start=1):
            cells = (merchant.appid, merchant.name, merchant.env)
            yield Row(number, merchant.env, PROBE, merchant.appid, merchant.name, PROBE, cells)

    name, headers = Path(merchants.source).name, ("appid", "name", "env")
    places = environments_of_rows(rows(), merchants)
    return RunSpec(AUDIT, name, merchants.sha256, 0, headers, None, rows, places, selection, options=options)

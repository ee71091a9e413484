"""Which rows an audit has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tcb_ops.lists.merchants import Merchants, Share
from tcb_ops.model import Row
from tcb_ops.runs.audit_kind import AUDIT, PROBE
from tcb_ops.runs.plan import RunSpec, environments_of_rows, of_share


def audit_spec(
    merchants: Merchants, selection: str, share: Share | None, options: Mapping[str, Any]
) -> RunSpec:
    """Return the spec of an audit: one row per environment of merchants that have not left, all with the same path.

    With a share only its rows, numbered as in the audit of all.
    """
    lines = [merchant for merchant in merchants if not merchant.left]

    def rows() -> Iterator[Row]:
        for number, merchant in enumerate(lines, start=1):
            if share is not None and not share.has(merchant.appid):
                continue
            cells = (merchant.appid, merchant.name, merchant.env)
            yield Row(number, merchant.env, PROBE, merchant.appid, merchant.name, PROBE, cells)

    name, headers = Path(merchants.source).name, ("appid", "name", "env")
    places = environments_of_rows(rows(), merchants)
    spec = RunSpec(AUDIT, name, merchants.sha256, 0, headers, None, rows, places, selection, options=options)
    return spec if share is None else of_share(spec, share, len(lines))

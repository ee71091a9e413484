"""What the ledger keeps about an environment besides its outcome: figures of its quotas, and its other causes.

Apart from the checks that find it, so that reports need no network libraries.
"""

from __future__ import annotations

from collections.abc import Mapping

from tcb_ops.details import Detail, DetailCode, detail
from tcb_ops.model import QuotaUsage

LINKS, STORAGE, WRITES = "links", "storage", "writes"
"""Quotas, by their names in the ledger; checks of the last two may be left out."""
_UNKNOWN = "–"


def other_causes(kept: Detail | None) -> tuple[str, ...]:
    """Return the codes of the other causes that `cause_detail` kept."""
    also = kept.params.get("also") if kept is not None else None
    return tuple(str(also).split(", ")) if also else ()


def measured(used: Mapping[str, QuotaUsage], missing: tuple[str, ...]) -> Detail | None:
    """Return what the ledger keeps about a healthy environment; None if there is nothing to keep.

    The figures are parameters of the Detail, such as `storage_used` and `storage_limit`; those not known are `–`.
    """
    if not used and not missing:
        return None
    figures: dict[str, object] = {}
    for name in (LINKS, STORAGE, WRITES):
        one = used.get(name)
        figures[f"{name}_used"] = one.used if one is not None else _UNKNOWN
        figures[f"{name}_limit"] = one.limit if one is not None and one.limit else _UNKNOWN
    if missing:
        return detail(DetailCode.NOT_CHECKED, checks=", ".join(missing), **figures)
    return detail(DetailCode.QUOTAS, **figures)


def usage_of(kept: Detail | None) -> dict[str, QuotaUsage]:
    """Return the usage that `measured` kept, by name."""
    figures = kept.params if kept is not None else {}
    return {
        name: QuotaUsage(
            figures[f"{name}_used"], limit if isinstance(limit := figures[f"{name}_limit"], int) else 0
        )
        for name in (LINKS, STORAGE, WRITES)
        if isinstance(figures.get(f"{name}_used"), int)
    }

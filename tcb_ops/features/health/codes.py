"""What is known of a code, and what tcb-ops does about it by itself."""

from __future__ import annotations

from functools import cache
from typing import SupportsIndex

from tcb_ops.arguments import checked
from tcb_ops.catalogue import CodeEntry, all_store_codes, catalogue_lines, errcode, store_code
from tcb_ops.errors import UsageError
from tcb_ops.formatting import shown
from tcb_ops.i18n import TableText, Text, _, as_list


@checked
def explain(code: SupportsIndex | str) -> CodeEntry:
    """Return the entry of a code as an operator types it: 85088, "-501001", "SlowDown" (in any case).

    A whole number always has an entry (`known=False` if the catalogue lacks it). Anything else that is not a code of the
    store raises UsageError, with similar codes.
    """
    from difflib import get_close_matches

    text = str(code).strip()
    try:
        return errcode(int(text))
    except ValueError:
        pass
    names = {str(entry.code).lower(): str(entry.code) for entry in all_store_codes()}
    if text.lower() in names:
        return store_code(names[text.lower()])
    near = [names[match] for match in get_close_matches(text.lower(), names)] or ["85088", "SlowDown"]
    refused = _("“{code}” is neither an errcode nor a code of the store. Give one such as {near}.")
    raise UsageError(refused.format(code=shown(text, 40), near=as_list(near)))


@cache
def by_itself() -> dict[tuple[str, str], Text]:
    """Return what tcb-ops does by itself, as a short phrase, by decision and scope; any other pair in the tables is a mistake."""
    lines = catalogue_lines("features/health/decisions.csv")
    return {(line["decision"], line["scope"]): TableText(line["text_en"], line["text_zh"]) for line in lines}

"""The errcode catalogue: what each code means, what the operator does, what tcb-ops does by itself.

Four tables beside this file contain it: errcodes.csv (the platform's errcodes), storecodes.csv (COS's error codes),
reasons.csv (why a row ended without one; a feature may have such a table, too), and causes.csv, to which each line of the
others points: who must act, which answers prove it, and the texts of all codes that have none of their own. An errcode
may have another cause where it is about the component token. Code, reports and documentation read the same lines.
An unknown code is shown as received and not retried, except a 5xx of the store.

If a code may concern one merchant or all, the table has the narrower scope: too narrow costs three calls per merchant,
too wide keeps ready merchants from being served. So 40164, 45035 and 89503 (the whitelist of the account whose token is
requested), 61016 (confirmed per authorizer) and 61028 (test merchants are still served) stop the merchant, not the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from tcb_ops.frames import Lines, Tabular
from tcb_ops.hooks import features
from tcb_ops.i18n import NOTHING, Bilingual, Lang, TableText, Text, _, verbatim
from tcb_ops.model import Owner, Reason

COMPONENT_MARK = " (component)"
"""Distinguishes an errcode of the component token from the merchants' own."""
ETAG_MISMATCH = "ETagMismatch"
"""Recorded in place of a store's code if the stored object's checksum does not match the file."""
ERRCODE = re.compile("-?[0-9]{1,9}")


class Decision(StrEnum):
    """What a run does after a response with a code."""

    GOOD = "good"
    REFRESH = "refresh"
    """Get a new token once; then end the row."""
    RETRY = "retry"
    """Try again after a wait; counts as an attempt."""
    RETRY_ONCE = "retry_once"
    SLOW = "slow"
    """The scope pauses, then continues at half its limit; no attempt is counted."""
    STOP = "stop"
    """End the row; three in succession within the scope open its breaker. Scope platform: end the run immediately."""
    FIX = "fix"
    """End the row: it must be fixed first."""
    NEW_LINK = "new_link"
    """Get a new link; counts as an attempt."""
    NEW_LINK_ONCE = "new_link_once"
    """Get a new link once; then end the row, which counts for the environment's breaker."""


class Scope(StrEnum):
    """How much a code affects."""

    ROW = "row"
    ENV = "env"
    APPID = "appid"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseEntry:
    """What codes come from."""

    name: str
    who: str
    """Who must act (`verdicts.Actor`)."""
    proof: tuple[str, ...]
    """Names of the answers that prove it; `never`: no interface tells."""
    code: str
    """The code that stands for it where no row has one."""
    remedy: str
    """What can be done about it (`remedies.REMEDIES`)."""
    meaning: Text
    """Empty, like the other texts, where each code has its own."""
    action: Text
    message: Text
    """What to tell the merchant, where the merchant must act."""


@cache
def all_causes() -> dict[str, CauseEntry]:
    """Return the causes by name."""
    return {
        line["cause"]: CauseEntry(
            name=line["cause"],
            who=line["who"],
            proof=tuple(line["proof"].split()),
            code=line["code"],
            remedy=line["remedy"],
            **{name: _text(line, name) for name in ("meaning", "action", "message")},
        )
        for line in catalogue_lines("causes.csv")
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonTexts:
    """The texts of a reason without a code of its own, or of a pending row."""

    label: Text
    """A few words for narrow columns; empty where the code is enough."""
    meaning: Text
    action: Text
    """What the operator does about it."""
    cause: str = "unknown"
    """Its name in causes.csv; empty for success."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CodeEntry(ReasonTexts, Tabular):
    """What the catalogue knows of an errcode of the platform, or an error code of the store (COS)."""

    code: int | str
    """A store's: the `<Code>` of its XML response; empty if it had none, such as a gateway's error page."""
    decision: Decision
    scope: Scope
    known: bool = True
    name: str = ""
    """An errcode's stable identifier."""
    read_errmsg: bool = False
    """Whether the action refers to the platform's own errmsg, which is then shown beside it."""
    core: bool = False
    """Whether the table on getUploadTcbFileLink's own page has it."""
    component_cause: str = ""
    """The cause of an errcode that is about the component token, where it differs."""
    source: str = ""
    """The document that lists an errcode."""
    http_status: int = 0
    """The usual status of a store's code; of an unknown one the status received, 0 for none."""

    def __repr__(self) -> str:
        return str(
            _("{code}: {meaning} → {action}", code=self.code, meaning=self.meaning, action=self.action)
        )

    def _table(self, _lang: Lang) -> Lines:
        names = ("code", "known", "meaning", "action", "decision", "scope")
        return Lines(verbatim(str(self.code)), names, [attrgetter(*names)(self)], 1)


# AccessDenied shows only in its message that the link has expired: "Request has expired" (cos-php-sdk-v5 PR 153),
# "You post object request has been expired" (COS, POST Object exceptions, 436/56215).
_RAN_OUT = re.compile(r"request has (been )?expired", re.IGNORECASE)


@cache
def all_errcodes() -> tuple[CodeEntry, ...]:
    """Return all errcodes: first the table of the interface's own page, in its order, then by family."""
    return tuple(
        _entry(
            line,
            code=int(line["errcode"]),
            read_errmsg=line["errmsg"] == "read",
            core=line["core"] == "yes",
            component_cause=line["component_cause"],
            source=line["source"],
        )
        for line in catalogue_lines("errcodes.csv")
    )


@cache
def all_store_codes() -> tuple[CodeEntry, ...]:
    """Return all store codes: first those that a new link fixes, then temporary ones, then those that people fix."""
    return tuple(
        _entry(line, code=line["code"], http_status=int(line["http_status"]))
        for line in catalogue_lines("storecodes.csv")
    )


@cache
def all_reasons() -> dict[str, ReasonTexts]:
    """Return the texts of each reason (`model.Reason`) and of `pending`."""
    tables = ["reasons.csv", *filter(None, (feature.reasons for feature in features().values()))]
    return {
        line["reason"]: ReasonTexts(label=Bilingual(line["label_en"], line["label_zh"]), **_texts(line))
        for table in tables
        for line in catalogue_lines(table)
    }


def errcode(code: int, owner: Owner = Owner.MERCHANT) -> CodeEntry:
    """Return the catalogue's entry; for an unknown code, one with `known=False` that is not retried.

    In an environment of the platform's own no merchant is asked and no permission set granted: there the texts are about
    the component token.
    """
    if (entry := _by_errcode(owner).get(code)) is not None:
        return entry
    return CodeEntry(
        code=code,
        label=_("unknown"),
        meaning=_("{code} is not in the catalogue.", code=code),
        action=_("Read errmsg, and look up its rid with openapi/rid/get (kept for 7 days)."),
        decision=Decision.FIX,
        scope=Scope.ROW,
        read_errmsg=True,
        known=False,
    )


def store_code(code: str, message: str = "", http_status: int = 0) -> CodeEntry:
    """Return the catalogue's entry for an error response of the store.

    ==================================  ==========================  ========================
    code                                message, HTTP status        entry
    ==================================  ==========================  ========================
    AccessDenied                        that the request expired    RequestExpired: new_link
    AccessDenied                        anything else               itself: new_link_once
    in the catalogue                    any                         itself
    not in the catalogue, or none       5xx                         unknown: retry
    not in the catalogue, or none       anything else               unknown: fix
    ==================================  ==========================  ========================
    """
    if code == "AccessDenied" and _RAN_OUT.search(message):
        code = "RequestExpired"
    if (entry := next((each for each in all_store_codes() if each.code == code), None)) is not None:
        return entry
    named = code or f"HTTP {http_status}"
    return CodeEntry(
        code=code,
        http_status=http_status,
        label=NOTHING,
        meaning=_("The store returned {named}, which is not in the catalogue.", named=named),
        action=_("Read the store's message in the results, and check any proxy or gateway on the way."),
        decision=Decision.RETRY if 500 <= http_status <= 599 else Decision.FIX,
        scope=Scope.ROW,
        known=False,
    )


def entry_of(code: str, owner: Owner = Owner.MERCHANT) -> CodeEntry:
    """Return the entry of an errcode or a store's code as the report's errcodes.csv lists it."""
    number = code.removesuffix(COMPONENT_MARK)
    return errcode(int(number), owner) if ERRCODE.fullmatch(number) else store_code(code)


def texts_of(code: str, owner: Owner = Owner.MERCHANT) -> ReasonTexts:
    """Return the texts of any code as the report's errcodes.csv lists it, a reason included."""
    reason = Reason.ETAG_MISMATCH if code == ETAG_MISMATCH else code
    return all_reasons().get(reason) or entry_of(code, owner)


@cache
def _by_errcode(owner: Owner) -> dict[int | str, CodeEntry]:
    """Return the entries by errcode; about the component token, some have another cause, and its texts."""
    entries = {entry.code: entry for entry in all_errcodes()}
    if owner is Owner.PLATFORM:
        for code, entry in entries.items():
            if entry.component_cause:
                cause = all_causes()[entry.component_cause]
                entries[code] = replace(entry, cause=cause.name, meaning=cause.meaning, action=cause.action)
    return entries


def _texts(line: dict[str, str]) -> dict[str, Any]:
    """Return a line's cause and its texts: its own, or those of the cause."""
    cause = all_causes().get(line["cause"])
    texts = {name: _text(line, name) for name in ("meaning", "action")}
    shared = {name: getattr(cause, name) for name, text in texts.items() if not text.en}
    return texts | shared | {"cause": line["cause"]}


def _text(line: dict[str, str], name: str) -> Text:
    return TableText(line[f"{name}_en"], line[f"{name}_zh"])


def _entry(line: dict[str, str], **more: Any) -> CodeEntry:
    name = line.get("name", "")
    label = Bilingual(name.replace("_", " "), line["name_zh"])
    decision, scope = Decision(line["decision"]), Scope(line["scope"])
    return CodeEntry(name=name, label=label, decision=decision, scope=scope, **_texts(line), **more)


def catalogue_lines(name: str) -> list[dict[str, str]]:
    """Return the lines of a table of this package, by the names of its columns."""
    import csv

    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), strict=True))

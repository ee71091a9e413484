"""Reasons why a run stops early: a Detail in the ledger, an error for the caller."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import urlsplit

from tcb_ops.catalogue import CodeEntry, errcode
from tcb_ops.details import Detail, DetailCode, DetailCodes, as_detail, detail
from tcb_ops.errors import (
    InterruptedRunError,
    OutageError,
    PlatformStopError,
    TcbOpsError,
    TokenSourceError,
)
from tcb_ops.i18n import NOTHING, Text, _, as_sentences
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Owner, is_loopback

Error = TypeVar("Error", bound=TcbOpsError)

NO_COMPONENT = detail(DetailCode.NO_COMPONENT)
"""Why a row of the platform's own environments has no token."""


def stop_text(reason: Detail) -> Text:
    """Return the text of a stop reason; for an errcode, with its meaning and action."""
    entry = _entry_of(reason)
    return reason if entry is None else as_sentences((reason, entry.meaning, entry.action))


def _entry_of(reason: Detail) -> CodeEntry | None:
    code = reason.params.get("known_as", reason.params.get("errcode"))
    owner = Owner.PLATFORM if reason.params.get("owner") == Owner.PLATFORM else Owner.MERCHANT
    return errcode(code, owner) if isinstance(code, int) else None


def stop_reason(error: TcbOpsError) -> Detail:
    """Return the reason that the ledger records for an error that stopped a run."""
    return error.reason or as_detail(error.text)


def stopped(kind: type[Error], code: DetailCodes, **params: Any) -> Error:
    """Return the error for a run that stops early, with the reason that the ledger records."""
    reason = detail(code, **params)
    entry = _entry_of(reason)
    error = kind(reason) if entry is None else kind(as_sentences((reason, entry.meaning)), entry.action)
    error.reason, error.code = reason, str(reason.code)
    return error


def interrupted() -> InterruptedRunError:
    """Return the error for a session that was cancelled or got a signal."""
    return stopped(InterruptedRunError, DetailCode.INTERRUPTED)


def interrupted_late(run: str) -> InterruptedRunError:
    """Return the error for a session that was cancelled or got a signal when every row of its run had ended."""
    text = _("Interrupted; every row of run {id} had ended by then, and nothing else was started.", id=run)
    error = InterruptedRunError(text)
    error.code = str(DetailCode.INTERRUPTED)
    return error


def refused_platform(code: int, errmsg: str) -> PlatformStopError:
    """Return the error for a refusal of the whole platform; the errmsg of 61004 names the missing IP address."""
    return stopped(PlatformStopError, DetailCode.PLATFORM, errcode=code, errmsg=errmsg or "-")


def no_tokens(error: TokenSourceError, *, pending: bool) -> TokenSourceError:
    """Return the error for a run whose token source has no token for any merchant, such as refused credentials.

    `pending`: whether rows stay pending.
    """
    if error.reason is not None or not pending:  # an errcode has its own meaning and action
        return error
    return stopped(TokenSourceError, DetailCode.NO_TOKENS, last=as_detail(error.text))


def not_listening(address: str) -> OutageError:
    """Return the error for an address of this machine (`http://127.0.0.1:8089`) at which nothing listens."""
    return stopped(OutageError, DetailCode.NOT_LISTENING, address=address, port=urlsplit(address).port or 80)


def refused_here(met: Text) -> bool:
    """Return whether a connection failed because nothing listens at an address of this machine."""
    if not isinstance(met, Detail) or met.code is not DetailCode.NO_CONNECTION:
        return False
    return is_loopback(urlsplit(f"//{met.params['host']}").hostname or "")


def unreachable(run: RunRecord, seconds: float) -> Text:
    """Describe an ongoing outage; for a simulator, ask whether it is running."""
    asks = _("{tcb-ops simulate: (is `tcb-ops simulate` running?)}") if run.simulated else NOTHING
    text = _("{target} cannot be reached{asks}; trying again for {seconds:g} s")
    return text.format(target=run.target, asks=asks, seconds=seconds)

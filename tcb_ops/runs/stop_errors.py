"""Why a run stops before all its rows have ended: a code and its parameters in the ledger, an error for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from tcb_ops.errcodes import errcode
from tcb_ops.errors import (
    CanaryError,
    InterruptedRunError,
    LedgerError,
    OutageError,
    PlatformStopError,
    TcbOpsError,
    TokenSourceError,
)
from tcb_ops.i18n import NOTHING, Bilingual, Text, _, as_sentences, ngettext
from tcb_ops.model import is_simulated

Error = TypeVar("Error", bound=TcbOpsError)

NO_COMPONENT = _(
    "This environment is the platform's own (owner = platform) and is served with the component token: set "
    "tokens.component_appid in the settings."
)
"""Why a row of the platform's own environments has no token."""


class StopCode(StrEnum):
    """Why a run stopped."""

    INTERRUPTED = "interrupted"
    LOCK_LOST = "lock_lost"
    OUTAGE = "outage"
    """No host could be reached: `seconds`, and `last`, what the last attempt met."""
    PLATFORM = "platform"
    """The whole platform is refused: `errcode`, `errmsg`."""
    TOKEN_SOURCE = "token_source"  # noqa: S105  a code, not a secret
    """The token source did not answer: `seconds`, and its message as `en` and `zh`."""
    CANARY = "canary"
    """Rows of the first environments did not succeed: `rows`."""
    OTHER = "other"
    """Anything else, and what ledgers of version 1 keep: a message as `en` and `zh`."""


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run stopped, as the ledger keeps it."""

    code: StopCode
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> Text:
        """The reason in words. Raises KeyError, TypeError or ValueError where a parameter is missing or damaged."""
        return TcbOpsError(*self.problem_and_fix()).text

    def problem_and_fix(self) -> tuple[Text, Text | None]:
        """Return what happened, and what to do where it is a sentence of its own."""
        params = self.params
        match self.code:
            case StopCode.INTERRUPTED:
                return _("interrupted; the rows not done are pending."), None
            case StopCode.LOCK_LOST:
                return _(
                    "the ledger's database does not answer, so another process may take the run over: this "
                    "one stops, and the rows not done are pending."
                ), _("Check the database and the network.")
            case StopCode.OUTAGE:
                seconds, last = f"{params['seconds']:g}", params["last"]
                return _(
                    "{last}; no host could be reached for {seconds} s, so the run stops and the rows not "
                    "done are pending.",
                    last=last,
                    seconds=seconds,
                ), _("Check the network.")
            case StopCode.PLATFORM:
                code, errmsg = int(params["errcode"]), params["errmsg"]
                known = errcode(code)
                stops = (
                    _("errcode {code} ({errmsg}) stops every merchant.", code=code, errmsg=errmsg)
                    if errmsg
                    else _("errcode {code} stops every merchant.", code=code)
                )
                return as_sentences((stops, known.meaning)), known.action
            case StopCode.TOKEN_SOURCE:
                seconds = f"{params['seconds']:g}"
                silent = _(
                    "No merchant got an answer from the token source for {seconds} s, so the run stops and "
                    "the rows not done are pending.",
                    seconds=seconds,
                )
                return as_sentences((Bilingual(str(params["en"]), str(params["zh"])), silent)), None
            case StopCode.CANARY:
                rows = int(params["rows"])
                return _(
                    "{rows} of the first environments did not succeed, so the run stops here.",
                    rows=ngettext("{n:,} row", "{n:,} rows", rows),
                ), None
            case StopCode.OTHER:
                return Bilingual(str(params["en"]), str(params["zh"])), None


def stop_reason(error: TcbOpsError) -> StopReason:
    """Return the reason that the ledger keeps of an error that stopped a run."""
    if error.code:
        return StopReason(StopCode(error.code), error.params)
    return StopReason(StopCode.OTHER, {"en": error.text.en, "zh": error.text.zh})


def interrupted() -> InterruptedRunError:
    """Make the error of a session that was cancelled or got a signal."""
    return _error(InterruptedRunError, StopCode.INTERRUPTED)


def lock_lost() -> LedgerError:
    """Make the error of a session that no longer knows whether it alone works on its run."""
    return _error(LedgerError, StopCode.LOCK_LOST)


def outage(seconds: float, last: str) -> OutageError:
    """Make the error of a run that reached no host for `patience` seconds; `last` is what the last attempt met."""
    return _error(OutageError, StopCode.OUTAGE, seconds=seconds, last=last)


def refused_platform(code: int, errmsg: str) -> PlatformStopError:
    """Make the error of a refusal of the whole platform; the errmsg of 61004 names the address that is missing."""
    return _error(PlatformStopError, StopCode.PLATFORM, errcode=code, errmsg=errmsg)


def token_outage(text: Text, seconds: float) -> TokenSourceError:
    """Make the error of a run whose token source gave nobody a usable answer for `patience` seconds."""
    return _error(TokenSourceError, StopCode.TOKEN_SOURCE, seconds=seconds, en=text.en, zh=text.zh)


def canary_stop(rows: int) -> CanaryError:
    """Make the error of a run whose first environments did not all succeed."""
    return _error(CanaryError, StopCode.CANARY, rows=rows)


def unreachable(target: str, seconds: float) -> Text:
    """Describe an outage while it lasts; a simulator on this machine has probably not been started."""
    asks = NOTHING
    if is_simulated(target):
        asks = _(" (is `tcb-ops simulate` running?)")
    return _(
        "{target} cannot be reached{asks}; trying again for {seconds:g} s",
        target=target,
        asks=asks,
        seconds=seconds,
    )


def _error(kind: type[Error], code: StopCode, **params: Any) -> Error:
    error = kind(*StopReason(code, params).problem_and_fix())
    error.code, error.params = code, params
    return error

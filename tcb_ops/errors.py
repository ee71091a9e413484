"""What can go wrong, and how a command ends when it does.

::

    TcbOpsError                     the root; nothing else leaves the public calls
    ├── UsageError          exit 2  an argument or a setting; nothing was sent
    │   ├── ArgumentError           a value that a public function cannot use; `.parameter` names it
    │   ├── SettingsError           tcb-ops.toml, a TCB_OPS_… variable
    │   ├── InputError              a list or a merchants file; `.problems` lists every one
    │   └── RunNotFoundError        no such run, or several
    ├── StoppedError        exit 3  a run stopped by a problem that affects every row
    │   ├── LedgerError             the ledger cannot be read or written
    │   │   └── LedgerDamagedError  the ledger has lost or changed what was written to it
    │   ├── CanaryError             a row of the first environments did not succeed; the others were not started
    │   ├── OutageError             no connection succeeds anywhere
    │   ├── PlatformStopError       the platform refuses everybody (61004, 61005, 61006)
    │   ├── ResourceLimitError      this machine has no file descriptors or no memory left
    │   └── TokenSourceError        the token source has no token for anybody
    ├── InterruptedRunError 130/143 Ctrl-C, SIGTERM or SIGHUP; the run can be resumed
    ├── TokenError                  no token for a merchant (a row's end, never a run's)
    ├── TransportError              no usable answer from a server (a row's end, never a run's)
    └── RefusedError                one link asked for by `upload_link` was refused

Library exceptions (aiohttp, httpx, SQLAlchemy, sqlite3) end at the module that owns the library.
No message holds a token, a signature or a URL's query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from os import PathLike
from types import MappingProxyType

from tcb_ops.details import Detail
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem


class BrokenTableError(Exception):
    """A table cannot be read any further; `problem` says where and why. It never leaves the reading of lists."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message.en)
        self.problem = problem


class TcbOpsError(Exception):
    """The root. `problem` says what happened, `fix` what to do where it is a sentence of its own; `text` is both.

    `options` are those of the command line that the text names: a panel says what it has for them.
    """

    exit_code = 3
    reason: Detail | None = None
    """Of an error that stops a run: why, as the ledger keeps it."""

    def __init__(self, problem: Text, fix: Text | None = None, *, options: Sequence[str] = ()) -> None:
        self.problem, self.fix, self.options = problem, fix, options
        self.text = problem if fix is None else _("{problem} {fix}", problem=problem, fix=fix)
        super().__init__(self.text.en)

    def _render_traceback_(self) -> list[str]:
        """Show the message in IPython, in place of a stack trace."""
        return [self.text.en, self.text.zh]


class UsageError(TcbOpsError):
    """An argument cannot be used; nothing was sent."""

    exit_code = 2


class ArgumentError(UsageError):
    """A public function was called with a value that it cannot use.

    `parameter` names the argument, `valid` says what it takes. The value itself may be a secret: only numbers are shown.
    """

    def __init__(self, parameter: str, value: object, valid: Text) -> None:
        given = repr(value) if isinstance(value, int | float | None) or value == "" else type(value).__name__
        super().__init__(
            _("{parameter} cannot be {given}.", parameter=parameter, given=given),
            _("It must be {valid}.", valid=valid),
        )
        self.parameter, self.valid = parameter, valid


def check_value(parameter: str, value: object, usable: bool, valid: Text) -> None:
    """Raise ArgumentError, with what the parameter takes, for a value that is not usable."""
    if not usable:
        raise ArgumentError(parameter, value, valid)


def check_path(parameter: str, value: object) -> None:
    """Raise ArgumentError for what is no path."""
    check_value(parameter, value, isinstance(value, str | PathLike) and str(value) != "", _("a path"))
    check_value(parameter, value, "\0" not in str(value), _("a path without NUL"))


def check_text(parameter: str, value: object) -> None:
    """Raise ArgumentError for what is no text."""
    check_value(parameter, value, isinstance(value, str), _("text"))


def check_texts(parameter: str, value: object) -> None:
    """Raise ArgumentError for what is no list of texts."""
    usable = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    check_value(parameter, value, usable, _("a list of texts"))


def check_flag(parameter: str, value: object) -> None:
    """Raise ArgumentError for what is no truth value."""
    check_value(parameter, value, isinstance(value, bool), _("True or False"))


def check_count(parameter: str, value: object, least: int = 0) -> None:
    """Raise ArgumentError for what is no whole number, or less than `least`."""
    usable = isinstance(value, int) and not isinstance(value, bool) and value >= least
    check_value(parameter, value, usable, _("a whole number from {least}", least=least))


def check_function(parameter: str, value: object) -> None:
    """Raise ArgumentError for what is neither a function nor None."""
    check_value(parameter, value, value is None or callable(value), _("a function"))


class SettingsError(UsageError):
    """A setting is missing or wrong; the message names the file or variable."""


class InputError(UsageError):
    """A list or a merchants file has problems; nothing was sent.

    `problems` holds every problem in the order of the file; `source` is the file as the user named it; `decided` is how
    it was read (encoding, columns), as far as that was known. `missing_files`: some of the list's files, where not one of
    all is below the root and nothing else is wrong. `columns`: the `--column` options that fit, where one given does not.
    """

    def __init__(
        self,
        text: Text,
        source: str = "",
        problems: Sequence[Problem] = (),
        decided: Text | None = None,
        missing_files: Sequence[str] = (),
        columns: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(text, options=[p.option for p in problems if p.option] if len(problems) == 1 else ())
        self.source = source
        self.problems = problems
        self.decided = decided
        self.missing_files = missing_files
        self.columns = columns


class RunNotFoundError(UsageError):
    """No run has this id or prefix, or several do."""


class StoppedError(TcbOpsError):
    """A run stopped by a problem that affects every row; its unfinished rows are pending."""


class LedgerError(StoppedError):
    """The ledger cannot be opened, read or written."""


class LedgerDamagedError(LedgerError):
    """The ledger has lost or changed what was written to it, so the rest is not used."""


class CanaryError(StoppedError):
    """With `canary`: a row of the first environments did not succeed; the others were not started."""


class OutageError(StoppedError):
    """No connection succeeded anywhere for as long as `patience` allows."""


class PlatformStopError(StoppedError):
    """The platform refuses the whole third-party platform, not one merchant."""


class ResourceLimitError(StoppedError):
    """The machine or the process has run out of file descriptors or memory, which every row needs."""


class TokenSourceError(StoppedError):
    """The token source has no token for anybody: it cannot be reached, or is refused itself.

    `transient` as TokenError's.
    """

    def __init__(self, problem: Text, fix: Text | None = None, *, transient: bool = False) -> None:
        super().__init__(problem, fix)
        self.transient = transient


class InterruptedRunError(TcbOpsError):
    """Ctrl-C (130), SIGTERM or SIGHUP (143) ended a run tidily; `exit_code` is set on the instance."""

    exit_code = 130


class TokenError(TcbOpsError):
    """The token source has no token for a merchant: its rows end as not_attempted.

    `errcode` is the platform's where it is what refused the merchant (61003, 61023 …), else 0. `transient`: the source gave
    no usable response at all. It may pass, and only the others' answers tell whether it concerns this merchant alone.
    """

    def __init__(
        self, problem: Text, errcode: int = 0, *, fix: Text | None = None, transient: bool = False
    ) -> None:
        super().__init__(problem, fix)
        self.errcode = errcode
        self.transient = transient

    @classmethod
    def of(cls, appid: str, text: Text, errcode: int = 0, *, transient: bool = False) -> TokenError:
        """Make the error of an appid from the text about any, which has a placeholder {appid}."""
        return cls(text.format(appid=appid), errcode, transient=transient)


class TransportFault(StrEnum):
    """How a request failed to bring a usable answer."""

    UNREACHABLE = "unreachable"
    """No connection: refused, no route, unknown host, connect timeout, TLS not agreed."""
    TIMEOUT = "timeout"
    """Connected, but the server neither read nor answered in time."""
    RESET = "reset"
    """Connected, but the connection broke before the whole answer was there."""
    GARBAGE = "garbage"
    """The answer is not HTTP, or its head is over the limits."""
    TOO_LARGE = "too_large"
    """The body of the answer is over the limit."""


class TransportError(TcbOpsError):
    """No usable answer. Holds no URL, no header and no chained cause: those carry tokens."""

    def __init__(self, fault: TransportFault, problem: Text, fix: Text | None = None) -> None:
        super().__init__(problem, fix)
        self.fault = fault


class RefusedError(TcbOpsError):
    """`upload_link` was answered with an errcode (`errcode` holds it)."""

    exit_code = 1

    def __init__(self, problem: Text, errcode: int, *, fix: Text | None = None) -> None:
        super().__init__(problem, fix)
        self.errcode = errcode

"""The errors of tcb-ops, and the exit codes of commands.

::

    TcbOpsError                     the root; public functions raise no others
    ├── UsageError          exit 2  an argument or a setting; nothing was sent
    │   ├── ArgumentError           an invalid value for a public function; `.parameter` names it
    │   ├── SettingsError           tcb-ops.toml, a TCB_OPS_… variable
    │   ├── MissingFeatureError     a feature is asked for that is not installed
    │   ├── InputError              a list or a merchants file; `.problems` lists every one
    │   └── RunNotFoundError        no such run, or several
    ├── StoppedError        exit 3  a run stopped by a problem that affects every row
    │   ├── LedgerError             the ledger cannot be read or written
    │   │   └── LedgerDamagedError  data in the ledger is missing or has changed
    │   ├── CanaryError             a row of the first environments did not succeed; the others were not started
    │   ├── OutageError             no host can be reached
    │   ├── PlatformStopError       the platform refuses all calls (61004, 61005, 61006)
    │   ├── ResourceLimitError      this machine has no file descriptors or no memory left
    │   └── TokenSourceError        the token source has no token for any merchant
    ├── InterruptedRunError 130/143 Ctrl-C, SIGTERM or SIGHUP; the run can be resumed
    ├── TokenError                  no token for a merchant (ends rows, never a run)
    ├── TransportError              no usable response from a server (ends rows, never a run)
    └── RefusedError                a call of `call` or `upload_link` was refused

Library exceptions (aiohttp, sqlite3, psycopg) never leave the module that owns the library.
No message contains a token, a signature or a URL's query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from tcb_ops.details import Detail, DetailCode
from tcb_ops.frames import Lines, Tabular
from tcb_ops.hooks import FOLDER, FOR_RESULTS, HooksT, hooks
from tcb_ops.i18n import NOTHING, Lang, Text, _, in_python, shown_lang, verbatim, without_commands
from tcb_ops.model import Problem
from tcb_ops.shell import as_call


class BrokenTableError(Exception):
    """A table cannot be read any further; `problem` has the place and the reason. Never leaves `lists`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message.en)
        self.problem = problem


_PROBLEM = ("line", "column", "value", "problem", "fix")
"""The facts about a problem, as programs get them."""


def problem_line(problem: Problem, text_of: Callable[[Text], str]) -> tuple[int, str, str, str, str]:
    """Return the facts about a problem: its line, column, value, what is wrong, and what to do."""
    return problem.line, problem.column, problem.value, text_of(problem.message), text_of(problem.fix)


def error_code(kind: type[Exception]) -> str:
    """Return the code of a class of errors: `run_not_found` for RunNotFoundError."""
    return re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).lower()


class TcbOpsError(Exception):
    """The root of all errors. `problem`: what happened; `fix`: what to do, if it is a separate sentence; `text`: both.

    `code`: a stable identifier, of the class, or more precise that of the reason.
    """

    exit_code = 3
    reason: Detail | None = None
    """For an error that stops a run: the reason kept in the ledger."""
    summary: Mapping[str, Any] = {}
    """For an error that stopped a run: the run's summary so far."""
    problems: Sequence[Problem] = ()
    """What is wrong with each line of a file, or each setting."""
    shown_as_raised = 0
    """In a notebook: the id of the trace with which it is shown as a card."""
    code: str

    def __init__(self, problem: Text, fix: Text | None = None) -> None:
        self.problem, self.fix = problem, fix
        self.text = problem if fix is None else _("{problem} {fix}", problem=problem, fix=fix)
        public = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        self.code = error_code(public)
        if isinstance(problem, Detail) and problem.code is not DetailCode.TEXT:
            self.code = str(problem.code)
        super().__init__(self.text.en)

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return what `--json` prints: the summary of a run that was stopped, the error, and its problems."""
        commands = self.text.commands()
        fix = self.fix or (self.problems[0].fix if self.problems else NOTHING)
        error = {
            "code": self.code,
            "message": without_commands(self.problem, lang),
            "fix": without_commands(fix, lang),
            "command": commands[0] if commands else "",
        }
        values = (problem_line(problem, lambda text: text.of(lang)) for problem in self.problems)
        problems = [dict(zip(_PROBLEM, each, strict=True)) for each in values]
        return {**self.summary, "error": error, "problems": problems}

    def __str__(self) -> str:
        return self.python_text(shown_lang())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def python_text(self, lang: Lang) -> str:
        """Return the text for a program: with parameters instead of options, and calls instead of commands where there are any."""
        text = in_python(self.text, lang)
        for command in self.text.commands():
            text = text.replace(command, as_call(command))
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error pass from one process to another, whatever the arguments of its class."""
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of the trace: a line below the card, on a terminal the message."""
        return [FOR_RESULTS.show_error(self) or f"{type(self).__name__}: {self}"]


class UsageError(TcbOpsError):
    """An argument or a setting is invalid; nothing was sent."""

    exit_code = 2


class ArgumentError(UsageError):
    """A public function was called with an invalid value.

    `parameter`: the argument's name; `valid`: what it accepts. The value itself may be a secret: only numbers are shown,
    and values passed with `shown=True`.
    """

    def __init__(self, parameter: str, value: object, valid: Text, *, shown: bool = False) -> None:
        shown = shown or isinstance(value, int | float | None) or (isinstance(value, str) and not value)
        given: object = repr(value) if shown else type(value).__name__
        if isinstance(value, str) and not shown:
            given = _("this text")
        super().__init__(
            _("{parameter} cannot be {given}.", parameter=parameter, given=given),
            _("It must be {valid}.", valid=valid),
        )
        self.parameter, self.valid = parameter, valid


def check_value(parameter: str, value: object, usable: bool, valid: Text) -> None:
    """Raise ArgumentError for a value that is not usable; `valid` describes usable ones."""
    if not usable:
        raise ArgumentError(parameter, value, valid)


def has_surrogates(text: str) -> bool:
    """Return whether a text has lone surrogates, so that it cannot be written as UTF-8."""
    return re.search("[\ud800-\udfff]", text) is not None


def check_count(parameter: str, value: object, least: int = 0) -> None:
    """Raise ArgumentError if the value is not an integer, less than `least`, or more than every database can hold."""
    usable = isinstance(value, int) and not isinstance(value, bool) and least <= value < 10**18
    check_value(parameter, value, usable, _("a whole number from {least}, of at most 18 digits", least=least))


class SettingsError(UsageError):
    """A setting is missing or invalid; the message names the file or variable."""


class MissingFeatureError(UsageError):
    """Something was asked for that a feature provides which is not installed.

    `fix`: None where installing it is all that helps.
    """

    def __init__(self, problem: Text, fix: Text | None = None) -> None:
        again = _("Install all of tcb-ops: a folder is missing in {folder}.", folder=FOLDER)
        super().__init__(problem, again if fix is None else fix)


def needed(subject: type[HooksT], fix: Text | None = None) -> HooksT:
    """Return the hooks of a subject. Raises MissingFeatureError where no feature has them."""
    if (given := hooks(subject)) is None:
        raise MissingFeatureError(subject.missing, fix)
    return given


class InputError(UsageError, Tabular):
    """A list or a merchants file has problems; nothing was sent.

    `problems`: every problem, in the order of the file; `frame()` has a line for each. `source`: the file as given. `decided`: how it was read (encoding,
    columns), as far as known. `all_missing`: none of the list's files is below the root, and nothing else is wrong.
    """

    def __init__(
        self,
        text: Text,
        source: str = "",
        problems: Sequence[Problem] = (),
        decided: Text | None = None,
        *,
        all_missing: bool = False,
    ) -> None:
        super().__init__(text)
        self.source = source
        self.problems = problems
        self.decided = decided
        self.all_missing = all_missing
        self.shown = False
        """Whether a screen has shown the problems."""
        self.advice: Text | None = None
        """What the list's values tell: which other columns have merchants, paths, or files that exist."""
        self.columns: Mapping[str, str] = {}
        """Columns that would make it a list, as `--column` takes them, by canonical name."""

    def _repr_html_(self) -> str:
        return FOR_RESULTS.problems_card(self, FOR_RESULTS.lang())

    def _table(self, lang: Lang) -> Lines:
        lines = (problem_line(problem, lambda text: in_python(text, lang)) for problem in self.problems)
        return Lines(verbatim(self.source), _PROBLEM, lines, len(self.problems))


class RunNotFoundError(UsageError):
    """No run has this id or prefix, or several have."""


class StoppedError(TcbOpsError):
    """A problem that affects every row stopped a run; its unfinished rows are pending."""


class LedgerError(StoppedError):
    """The ledger cannot be opened, read or written."""


class LedgerDamagedError(LedgerError):
    """Data in the ledger is missing or has changed, so the rest is not used."""


class CanaryError(StoppedError):
    """With `canary`: a row of the first environments did not succeed; the others were not started."""


class OutageError(StoppedError):
    """No host could be reached for as long as `patience` allows."""


class PlatformStopError(StoppedError):
    """The platform refuses the third-party platform as a whole, not one merchant."""


class ResourceLimitError(StoppedError):
    """The machine or the process has no file descriptors or memory left, which every row needs."""


class TokenSourceError(StoppedError):
    """The token source has no token for any merchant: it cannot be reached, or its own credentials are refused.

    `transient`: as in TokenError.
    """

    def __init__(self, problem: Text, *, transient: bool = False) -> None:
        super().__init__(problem)
        self.transient = transient


class InterruptedRunError(TcbOpsError):
    """Ctrl-C (130), SIGTERM or SIGHUP (143) ended a run, which can be resumed; `exit_code` is set on the instance."""

    exit_code = 130


class TokenError(TcbOpsError):
    """The token source has no token for a merchant: its rows end as not_attempted.

    `errcode`: the platform's, if it refused the merchant (61003, 61023 …), else 0. `transient`: the source returned no usable
    response. That may be temporary; only other merchants' results show whether it concerns this one alone.
    """

    def __init__(self, problem: Text, errcode: int = 0, *, transient: bool = False) -> None:
        super().__init__(problem)
        self.errcode = errcode
        self.transient = transient

    @classmethod
    def of(cls, appid: str, text: Text, errcode: int = 0, *, transient: bool = False) -> TokenError:
        """Return an appid's error, from a text with the placeholder {appid}."""
        return cls(text.format(appid=appid), errcode, transient=transient)


class TransportFault(StrEnum):
    """How a request failed."""

    UNREACHABLE = "unreachable"
    """No connection: refused, no route, unknown host, connect timeout, TLS failure."""
    TIMEOUT = "timeout"
    """Connected, but the server did not read or respond in time."""
    RESET = "reset"
    """Connected, but the connection broke before the response was complete."""
    GARBAGE = "garbage"
    """The response is not HTTP, or its head exceeds the limits."""
    TOO_LARGE = "too_large"
    """The body of the response exceeds the limit."""


class TransportError(TcbOpsError):
    """No usable response. Contains no URL, header or chained cause: those contain tokens."""

    def __init__(self, fault: TransportFault, problem: Text) -> None:
        super().__init__(problem)
        self.fault = fault


class RefusedError(TcbOpsError):
    """The platform refused a single call; `errcode` has its errcode."""

    exit_code = 1

    def __init__(self, problem: Text, errcode: int, *, fix: Text | None = None) -> None:
        super().__init__(problem, fix)
        self.errcode = errcode

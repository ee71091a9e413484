"""What a run found, as data that every format of a report draws: for kinds that say more than how each row ended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, ClassVar, Protocol

from tcb_ops.i18n import CommandText, Lang, Text, _, as_list
from tcb_ops.reports.summary import Cause


@dataclass(frozen=True, slots=True)
class FindingLine:
    """An environment as it is listed, or some of its rows."""

    name: str
    """The merchant's name, else its appid."""
    env: str
    code: str | None
    """As in errcodes.csv; empty for success, None where there is nothing to show."""
    remark: Text | None = None
    note: str = ""
    appid: str = ""
    rows: int = 0
    before: tuple[str | None, ...] = ()
    """The same code in an earlier run, if it is compared with one."""

    def codes(self) -> tuple[str | None, ...]:
        """Return the codes, the earlier one first."""
        return (*self.before, self.code)


@dataclass(frozen=True, slots=True)
class FindingSection:
    """Environments of which the same was found."""

    title: Text
    lines: Sequence[FindingLine]
    causes: Sequence[Cause] = ()
    """Their causes, if the operator has to act on them: a terminal shows the meaning of these codes only."""
    action: Text | None = None
    """What to do about all of them."""
    command: CommandText | None = None
    """That does it."""

    @property
    def count(self) -> int:
        """The number of rows, else of environments."""
        return sum(line.rows for line in self.lines) or len(self.lines)


class Findings(Protocol):
    """What a finished run found. A kind's own class has `title`, `nothing` and `sections`, and what else it needs."""

    title: ClassVar[Text]
    nothing: ClassVar[Text]
    """In place of the sections where there are none."""

    @property
    def stopped(self) -> Text | None:
        """The problem that stopped the run; nothing else is shown then."""
        return None

    def summary(self) -> Text:
        """Return all sections in one line."""
        return as_list(
            _("{title} {n:,}", title=section.title, n=len(section.lines)) for section in self.sections()
        )

    def since(self, zone: tzinfo) -> Text | None:  # noqa: ARG002  a class that compares needs it
        """Return what has changed since the run that it was compared with; None without one."""
        return None

    def news(self) -> Sequence[FindingSection]:
        """Return what was found for the first time."""
        return ()

    def sections(self) -> Sequence[FindingSection]:
        """Return what was found, the most urgent first; none empty."""
        return ()

    def notes(self) -> Iterable[Text]:
        """Return what else is to be known."""
        return ()

    def exit_code(self, fail_on: str = "any") -> int | None:  # noqa: ARG002  audits need it
        """Return the exit code of the command, if not that of any run; `fail_on`: which failures count."""
        return None

    @abstractmethod
    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object for `--json`, under the name of the kind. Its keys are the same in every language."""

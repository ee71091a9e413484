"""What is where, as far as the ledger knows: the files that runs stored in environments, whose they are, and what was found since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from tcb_ops.arguments import checked
from tcb_ops.errors import UsageError
from tcb_ops.features.stored import StoredOutcome
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, as_list, ngettext
from tcb_ops.kinds import counted, environment_count
from tcb_ops.ledger.files import StoredFile
from tcb_ops.ledger.locks import planning
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.model import Outcome, target_name
from tcb_ops.settings import Settings
from tcb_ops.start import ledger_with_runs, settings_for

COLUMNS = (
    "merchant", "appid", "env", "path", "state", "run", "line", "changed_by", "changed_at", "bytes", "md5", "content_type",
    "cache_control", "found", "found_by", "doubt",
)  # fmt: skip
"""Of a file, as of a line of `files`."""


@dataclass(frozen=True, slots=True)
class FileLine:
    """A path of an environment."""

    merchant: str
    """That of the newest run there; an environment may move to another merchant."""
    appid: str
    env: str
    path: str
    file: StoredFile

    @property
    def state(self) -> Outcome:
        """What is there: an upload's file, one that an undo put back, or none; unknown if only a doubt is known."""
        return _state(known=bool(self.file.changed), there=bool(self.file.md5), uploaded=self.file.uploaded)

    def values(self, settings: Settings) -> tuple[Any, ...]:
        """Return the values of COLUMNS."""
        file, at = self.file, datetime.fromtimestamp(self.file.changed_at, settings.zone)
        doubt = file.doubt or next(iter(file.pending), "")
        return (
            self.merchant, self.appid, self.env, self.path, str(self.state), file.run, file.line or None, file.changed,
            at.isoformat(timespec="seconds") if file.changed else "", file.bytes if file.md5 else None, file.md5,
            file.content_type, file.cache_control, str(file.found or ""), file.looked, doubt,
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class KnownFiles(Tabular):
    """What runs of the ledger stored in environments of a target. Iterated over, it gives a FileLine per path."""

    ledger: LedgerReader = field(repr=False)
    settings: Settings = field(repr=False)
    environments: Mapping[int, tuple[str, str, str]] = field(repr=False)
    """By the ledger's number: environment, merchant, appid."""
    path: str = ""
    """A part of the paths that are meant; empty for all."""

    def __iter__(self) -> Iterator[FileLine]:
        stores = {number: env for number, (env, _merchant, _appid) in self.environments.items()}
        owner = {env: (merchant, appid) for env, merchant, appid in self.environments.values()}
        for env, path, file in self.ledger.list_files(stores, self.settings.run_target, self.path):
            yield FileLine(*owner[env], env, path, file)

    @cached_property
    def counts(self) -> Mapping[Outcome, int]:
        """Paths by what is there, without zeros."""
        counts = Counter[Outcome]()
        for known, there, uploaded, count in self.ledger.count_files(self.environments, self.path):
            counts[_state(known=known, there=there, uploaded=uploaded)] += count
        return Outcome.in_order(counts)

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def text(self) -> Text:
        """The totals in words."""
        paths = ngettext(
            "{n:,} path in {environments}",
            "{n:,} paths in {environments}",
            len(self),
            environments=environment_count(len(self.environments)),
        )
        return (
            _("{paths}: {listed}", paths=paths, listed=as_list(counted(self.counts)))
            if self.counts
            else paths
        )

    def _table(self, _lang: Lang) -> Lines:
        return Lines(self.text, COLUMNS, (line.values(self.settings) for line in self), len(self))


def _state(*, known: bool, there: bool, uploaded: bool) -> Outcome:
    if not known:
        return Outcome.UNKNOWN
    if not there:
        return StoredOutcome.DELETED
    return Outcome.UPLOADED if uploaded else StoredOutcome.RESTORED


@checked
def files(what: str = "", *, path: str = "", settings: Settings | None = None) -> KnownFiles:
    """Return what runs of this ledger stored in an environment, and what became of it.

    `what`: an environment, or a merchant's name or appid, which means all its environments; empty for all of the target. `path`: a
    part of the paths that are meant. The ledger knows nothing of what others write there: `confirm` looks.
    """
    settings = settings_for({"settings": settings})
    ledger = ledger_with_runs(settings)
    environments = ledger.stores(settings.run_target)
    chosen = {number: names for number, names in environments.items() if not what or what in names}
    if not chosen:
        known = as_list(sorted({merchant for _env, merchant, _appid in environments.values()}), 5)
        text = _(
            "The ledger {ledger} knows no environment or merchant {what} at {target}. Merchants that it knows: {known}."
        )
        raise UsageError(
            text.format(
                ledger=ledger.name, what=what or "*", target=target_name(settings.run_target), known=known
            )
        )
    return KnownFiles(ledger, settings, chosen, path)


def repair_files(settings: Settings) -> None:
    """Make the table of stored files again from the runs."""
    ledger = ledger_with_runs(settings)
    with planning(ledger):
        ledger.rebuild_files()

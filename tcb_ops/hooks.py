"""What features bring, and what the core asks them: the one place that looks for features.

A feature is a folder below `tcb_ops/features`. Its `__init__` has a `FEATURE`, with which the core reaches it. The hooks are
here, one class per subject: a feature fills one with its functions, the core asks for it by its class (`hooks`, `errors.needed`),
and mypy checks both. What results ask for that stands above them is here too (`FOR_RESULTS`): nothing else is imported by a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol, TypeVar, runtime_checkable

from tcb_ops import i18n
from tcb_ops.i18n import N_, NOTHING, Text, _, show_in

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from tcb_ops.checks import DoctorCheck
    from tcb_ops.cli.console import Console
    from tcb_ops.cli.options import CommonOptions
    from tcb_ops.engine.calls import CallContext, Calls, MakeRunner
    from tcb_ops.engine.plan import RunSpec
    from tcb_ops.errors import InputError, TcbOpsError
    from tcb_ops.frames import ArrowStream, Lines
    from tcb_ops.i18n import Lang
    from tcb_ops.kinds import Kind
    from tcb_ops.ledger.database import Database
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.ledger.records import EnvRecord, LaterChange, RunRecord
    from tcb_ops.lists.batch import Batch
    from tcb_ops.lists.row_files import SourceCheck
    from tcb_ops.lists.table import Rate, Table
    from tcb_ops.model import Merchant, Outcome, Problem, Row, Rows, RunSettings, Secret
    from tcb_ops.panels.context import PanelContext
    from tcb_ops.panels.controls import Worker
    from tcb_ops.panels.notebook_panels import PanelOptions
    from tcb_ops.panels.run_monitor import RunMonitor
    from tcb_ops.preflight import SendScope
    from tcb_ops.reports.export import Report
    from tcb_ops.reports.summary import Cause, RunSummary
    from tcb_ops.run import Run, RunHandle
    from tcb_ops.settings import Settings
    from tcb_ops.wechat.local_files import Body
    from tcb_ops.wechat.tokens import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The functions of one subject that the core calls where they are installed."""

    missing: ClassVar[Text]
    """What a user is told who asks for them where they are not."""


class WechatVerdict(Protocol):
    """Who must act about a code: presumed, or as WeChat answered."""

    @property
    def code(self) -> str:
        """The code that it is about."""

    @property
    def at(self) -> float:
        """When WeChat was asked, in Unix seconds."""

    @property
    def who_acts(self) -> Text:
        """Who must act."""

    @property
    def meaning(self) -> Text:
        """What happened."""

    @property
    def action(self) -> Text:
        """What to do."""

    @property
    def message(self) -> Text | None:
        """What to tell the merchant; None where it need not act."""


@runtime_checkable
class TokenSource(Protocol):
    """A source of access tokens by appid."""

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Return the appid's token; look it up again if `refused` is the one that failed.

        The component token is the token of the component's own appid. Raises TokenError if this appid has no token,
        TokenSourceError if no appid has one, TransportError if the platform itself is the source and cannot be
        reached.
        """

    async def aclose(self) -> None:
        """Close threads, files and connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowHooks(Hooks):
    """A run's rows as an Arrow stream and as a Parquet file; lists that are Arrow streams."""

    missing = _("Parquet files are not installed.")
    stream: Callable[[LedgerReader, RunRecord, Settings, object], object]
    texts: Callable[[ArrowStream], tuple[list[str], list[tuple[str, ...]]]]
    """Returns the headers and the rows."""
    write: Callable[[LedgerReader, RunRecord, Path, Settings], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHooks(Hooks):
    """What audits find."""

    missing = _("Audits are not installed.")
    announce: Callable[[Run, Console], list[dict[str, Any]]]
    """Sends the messages about a finished run with findings; returns what became of them, for `--json`."""
    result: Callable[[Run], Any]
    panel: Callable[[PanelContext, PanelOptions], Any]
    start: Callable[..., RunHandle]
    watch: Callable[[Console, Settings, CommonOptions, str], int]
    """Watches the age of the last audits, and returns the exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupHooks(Hooks):
    """What an upload replaces is saved first."""

    missing = _("Backups are not installed.")
    calls: Callable[[CallContext], Calls]
    check_folder: Callable[[Path], None]
    check_resumed: Callable[[RunRecord, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterHooks(Hooks):
    """Workers of Dask that share a run."""

    missing = _("Clusters are not installed.")
    check: Callable[[str], None]
    runner: Callable[[str, Settings, RunSpec], AbstractContextManager[MakeRunner]]
    stop_workers: Callable[[Ledger, RunRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonHooks(Hooks):
    """What differs between two runs."""

    missing = _("Comparisons of runs are not installed.")
    compare: Callable[[LedgerReader, RunRecord, RunRecord, Settings, frozenset[tuple[str, str]] | None], Any]
    """`only`: the environments that count; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisHooks(Hooks):
    """Why rows did not succeed, and who must act."""

    missing = _("Diagnoses are not installed.")
    why: Callable[[Run, bool], Any]
    why_code: Callable[[Run, str, Settings], Sequence[Any]]
    kept: Callable[[LedgerReader, RunRecord], Sequence[WechatVerdict]]
    """Returns what WeChat has answered, from what a run keeps."""
    presumed: Callable[[str, str, str, str], WechatVerdict]
    """Takes code, appid, merchant and environment."""
    warn_of_few_calls: Callable[[SendScope, Settings, Console], None]
    remedy: Callable[[str], Text | None]
    """Returns what can be done about a code before its rows run again; None where nothing has to be done, or can be."""
    remedies: Callable[[Worker, PanelContext, RunMonitor], Any]
    """Makes the box of a panel that does it."""
    write_actions: Callable[[Sequence[Cause], RunRecord, Path, Settings], None]
    """Writes what can be done about a run's causes into a report's folder, as code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapHooks(Hooks):
    """Folders of other machines, which lists name, on this one."""

    missing = _("Maps of folders are not installed.")
    path_map: Callable[[Sequence[str], str | Path | None], Callable[[str], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PdfHooks(Hooks):
    """report.pdf, printed by a Chromium."""

    missing = _("PDF reports are not installed.")
    find_chromium: Callable[[], str | None]
    add: Callable[[Path, Path], Text | None]
    """Prints a page, and links to it; returns why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresHooks(Hooks):
    """A ledger in PostgreSQL."""

    missing = _("PostgreSQL is not installed.")
    open: Callable[[str, str], Database]
    """Takes the URL, and the name that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureHooks(Hooks):
    """Signatures of reports."""

    missing = _("Signatures of reports are not installed.")
    sign: Callable[[Path, bytes], bytes | Text]
    """Takes a key's file; returns why there is none."""
    signed_with: Callable[[bytes], str]
    """Returns the fingerprint of the key of a signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorHooks(Hooks):
    """The embedded simulator, and what there is to practise with."""

    missing = _("The simulator is not installed.")
    analysis: Callable[[str, str], Settings]
    embedded: Callable[[Settings, Callable[[], Iterable[Merchant]]], AbstractContextManager[Settings]]
    is_practice: Callable[[Settings], bool]
    """Whether the ledger is that of `practice`, which ends with this process."""
    is_sample: Callable[[Settings], bool]
    """Whether it is that, or the sample's of 30 days."""
    practice: Callable[[str], Settings]
    write_practice: Callable[[Path], list[Path]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHooks(Hooks):
    """Files that are sent from https URLs."""

    missing = _("URLs as files are not installed.")
    body: Callable[[CallContext, Row], AbstractAsyncContextManager[Body]]
    check: Callable[[Callable[[], Settings]], SourceCheck]
    urls: Callable[[Iterator[tuple[int, Secret]]], Callable[[Row], Secret] | None]


@dataclass(frozen=True, slots=True)
class RowLinks:
    """A column of links at which the rows' files can be looked at. They are secrets: only the file that is asked for has them."""

    header: Text
    texts: Mapping[int, str]
    """By line: the link, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHooks(Hooks):
    """What happened to stored files since an upload."""

    missing = _("Commands for stored files are not installed.")
    after_upload: Callable[
        [LedgerReader, RunRecord],
        tuple[list[LaterChange], tuple[str, dict[Outcome, int]] | None, Text | None],
    ]
    changed_by: Callable[[LedgerReader, RunRecord], list[LaterChange]]
    changed_lines: Callable[[LedgerReader, RunRecord], dict[int, tuple[Kind, str]]]
    check_beside: Callable[[Ledger, Kind, RunSettings, Settings], Callable[[LedgerReader, int], None] | None]
    panel: Callable[[Worker, PanelContext, RunMonitor], Any]
    row_links: Callable[[Run, Sequence[EnvRecord]], RowLinks]
    row_urls: Callable[
        [Run, Sequence[EnvRecord], Sequence[tuple[str, str, str]], Settings],
        tuple[datetime, list[Secret | Text | None]],
    ]
    urls: Callable[[Run, Sequence[EnvRecord]], pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHooks(Hooks):
    """Sources of tokens beside the file, by their names in the settings."""

    missing = _("Token sources other than the file are not installed.")
    sources: Mapping[str, Callable[[Settings], TokenSource]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbookHooks(Hooks):
    """Workbooks: lists in them, tables, reports, and results in the list's own one."""

    missing = _("Workbooks are not installed.")
    mark: Callable[[Path, Iterable[Problem], Lang, Callable[[Text], None], Mapping[str, str], str, int], Path]
    read: Callable[[BinaryIO, Rate, str, int, Rows | None], Table]
    split: Callable[[LedgerReader, RunRecord, Path, Path | None, Lang, str, RowLinks | None], Path]
    write_into: Callable[
        [LedgerReader, RunRecord, Path, Path | None, Lang, Callable[[Text], None] | None, RowLinks | None],
        Path,
    ]
    write_report: Callable[[LedgerReader, RunSummary, Path, Settings, float], None]
    write_table: Callable[[Path, Path, Sequence[str], Iterable[Sequence[Any]], Callable[[str], str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What a feature adds. Kinds, commands, settings and public names are references (`module:name`), imported when used."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    """Kinds of runs, by their names in the ledger."""
    commands: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Commands of the command line, by section of the help (run, stored, health, inspect, setup, notebooks): short helps by names."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Sections of the settings (`tcb_ops.settings.Section`), by name."""
    public: Sequence[str] = ()
    """What `tcb_ops` has of it: functions and classes, under the names that they have in their modules."""
    hooks: Sequence[Hooks] = ()
    reasons: str = ""
    """The table of the texts of its reasons, such as reasons.csv."""
    checks: Sequence[Callable[[Settings], DoctorCheck | None]] = ()
    """Each returns a check of `doctor` for settings; None where there is none to make."""


CORE = Feature(
    kinds={"links": "tcb_ops.engine.list_kinds:LINKS", "upload": "tcb_ops.engine.list_kinds:UPLOAD"},
    commands={
        "run": {
            "tcb_ops.cli.runs:check": N_("Check a path list; report all problems in one pass."),
            "tcb_ops.cli.runs:links": N_("Request an upload link per row; write links.csv."),
            "tcb_ops.cli.runs:upload": N_("Upload the list's files; write a report folder."),
            "tcb_ops.cli.runs:retry": N_("Run again the rows of a finished run that did not succeed."),
        },
        "inspect": {
            "tcb_ops.cli.inspect:runs": N_("List the runs, the newest first."),
            "tcb_ops.cli.inspect:show": N_("Show a run, or rows of it."),
            "tcb_ops.cli.inspect:errcodes": N_("Tabulate a run's errcodes, with what to do."),
            "tcb_ops.cli.inspect:report": N_("Write a run's report folder."),
            "tcb_ops.cli.inspect:open_": N_("Open a run's report in the browser."),
            "tcb_ops.cli.prune:prune": N_("Remove old runs from the ledger, and give the space back."),
        },
        "setup": {
            "tcb_ops.cli.setup:init": N_("Write settings, a merchants file and a list template."),
            "tcb_ops.cli.setup:completion": N_("Print the script that completes commands in a shell."),
        },
    },
)
"""The core's own kinds and commands."""
FOLDER = Path(__file__).with_name("features")
"""The folder of the features."""
HooksT = TypeVar("HooksT", bound=Hooks)


@cache
def features() -> Mapping[str, Feature]:
    """Return the installed features by name."""
    from tcb_ops import features as package

    names = sorted(module.name for module in iter_modules(package.__path__))
    return {name: import_module(f"{package.__name__}.{name}").FEATURE for name in names}


@cache
def public_names() -> Mapping[str, str]:
    """Return the references of the public names of the features, by name."""
    return {
        reference.partition(":")[2]: reference
        for feature in features().values()
        for reference in feature.public
    }


@cache
def command_names() -> frozenset[str]:
    """Return the names of the commands that there are."""
    tables = [table for each in (CORE, *features().values()) for table in each.commands.values()]
    return frozenset(reference.partition(":")[2].rstrip("_") for table in tables for reference in table)


i18n.COMMANDS = command_names


@cache
def _every_hook() -> Mapping[type[Hooks], Hooks]:
    return {type(each): each for feature in features().values() for each in feature.hooks}


def hooks(subject: type[HooksT]) -> HooksT | None:
    """Return the hooks of a subject; None where no feature has them."""
    given = _every_hook().get(subject)
    return given if isinstance(given, subject) else None


def load(reference: str) -> Any:
    """Import what a reference (`module:name`) names."""
    module, _colon, name = reference.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True, slots=True)
class LazyFunction:
    """A function of a feature, whose module is imported when it is called."""

    module: str
    name: str

    def found(self) -> Callable[..., Any]:
        """Import it."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.name)
        return function

    def __call__(self, *given: Any, **options: Any) -> Any:
        """Import it and call it."""
        return self.found()(*given, **options)


@dataclass(frozen=True, slots=True)
class LazyModule:
    """Stands for a module of a feature among its hooks."""

    module: str

    def __getattr__(self, name: str) -> LazyFunction:
        return LazyFunction(self.module, name)


def lazily(package: str, *names: str) -> Iterator[LazyModule]:
    """Return modules of a feature for its hooks; type checkers read the imports beside the call."""
    return (LazyModule(f"{package}.{name}") for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultHooks(Hooks):
    """What results ask for that stands above them: how they are shown, and a retry."""

    missing = NOTHING
    lang: Callable[[], Lang]
    """Returns the language of the settings; where they cannot be read, that of the system."""
    frame: Callable[[Lines, Lang], pd.DataFrame]
    table_card: Callable[[Lines, Lang], str]
    batch_card: Callable[[Batch, Lang], str]
    report_card: Callable[[Report, Lang], str]
    problems_card: Callable[[InputError, Lang], str]
    show_error: Callable[[TcbOpsError], str | None]
    retry: Callable[..., Run]


if TYPE_CHECKING:
    from tcb_ops import settings as _settings
    from tcb_ops.reports import cards as _cards
    from tcb_ops.reports import data_frames as _data_frames
else:
    (_settings,) = lazily("tcb_ops", "settings")
    _cards, _data_frames = lazily("tcb_ops.reports", "cards", "data_frames")

FOR_RESULTS = ResultHooks(
    lang=_settings.default_lang,
    frame=_data_frames.table_frame,
    table_card=_cards.table_html,
    batch_card=_cards.batch_html,
    report_card=_cards.report_html,
    problems_card=_cards.problems_html,
    show_error=_cards.show_error,
    retry=LazyFunction("tcb_ops.api", "retry"),
)
show_in(FOR_RESULTS.lang)

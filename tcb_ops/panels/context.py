"""What the cells of a notebook share: the target, its settings, the merchants, and the list that stands for none.

Nothing here needs widgets, so that a notebook without a reader works without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops import api
from tcb_ops.bundled import sample_folder
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.next_commands import quoted
from tcb_ops.errors import InputError, UsageError, needed
from tcb_ops.hooks import SimulatorHooks
from tcb_ops.i18n import Lang, Text, _, pgettext, verbatim
from tcb_ops.kinds import merchant_count
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.row_files import source_check
from tcb_ops.settings import SETTINGS_FILE, Settings, default_settings, read_settings, set_default_settings
from tcb_ops.settings_files import with_found_file
from tcb_ops.start import ResumeOptions, identified

if TYPE_CHECKING:
    import pandas as pd

LINKS_FILE = "links.csv"


@dataclass(frozen=True, slots=True)
class PanelContext:
    """Settings and merchants; whether the target given is "simulator", and whether that is the sample, not a rehearsal."""

    settings: Settings
    merchants: Merchants
    simulated: bool
    sample: bool

    @property
    def live(self) -> bool:
        """Whether the target is no simulator, so that a run has to be confirmed."""
        return not self.settings.simulated

    @property
    def lang(self) -> Lang:
        """The language of panels and cards."""
        return Lang(self.settings.lang)

    def run_options(self) -> ResumeOptions:
        """Return a run's settings and limits.

        With the sample, waits are shorter, and one row follows another: its fault plan always has the same result.
        """
        limits = RunLimits(concurrency=1, backoff=0.05, slow_wait=0.3, patience=10)
        return {"settings": self.settings, "limits": limits if self.sample else RunLimits()}

    def describe_target(self) -> Text:
        """Return the target of the calls, in one line."""
        merchants = merchant_count(len({merchant.appid for merchant in self.merchants}))
        if self.sample:
            text = _("simulator on this machine, sample data: {merchants}. Nothing reaches WeChat.")
            return text.format(merchants=merchants)
        where = with_found_file(verbatim(self.settings.api_base), self.settings.origin.found, SETTINGS_FILE)
        return _("{where}: {merchants}", where=where, merchants=merchants)

    def ready(self, facts: Text) -> Text:
        """Say that a run can be started, and what it would send, unless its confirmation says so."""
        return _("Ready.") if self.live else _("Ready. {facts}.", facts=facts)

    def list_to_read(self, source: str, root: str | None) -> tuple[str, str | None]:
        """Return a list and the folder of its files: those given, else those of the sample or the rehearsal.

        `root`: None if no files are read; "" is the sample's or the rehearsal's folder, or the list's own.
        """
        folder = sample_folder() if self.sample else Path()
        if not source and self.simulated and (folder / "paths.csv").is_file():
            files = folder / "files"
            return str(folder / "paths.csv"), str(files) if root == "" and files.is_dir() else root
        return source, root

    def read_list(self, source: str, root: str | None) -> Batch:
        """Read a path list with the selected merchants. Raises InputError, or UsageError without a list."""
        source, root = self.list_to_read(source, root)
        if not source:
            raise UsageError(_('There is no list: set the parameter paths = "…".'))
        folder = str(Path(source).parent) if root == "" else root
        return read_paths(source, self.merchants, folder, sources=source_check(lambda: self.settings))

    def batch_of(
        self, given: Batch | RefusedList | pd.DataFrame | str | Path, root: str | Path | None = None
    ) -> Batch:
        """Return a checked list: the one given, or what is given as a list, read. Raises InputError."""
        match given:
            case Batch():
                return given
            case RefusedList():
                raise given.error
            case str() | Path():
                return self.read_list(str(given), None if root is None else str(root))
        return api.read_paths(given, self.merchants, root, settings=self.settings)

    def links_path(self, out: str) -> Path:
        """Return the file of the links of a run that nobody looks at: with the sample, it is left beside its ledger."""
        if self.sample and not out:
            return Path(self.settings.ledger).parent / LINKS_FILE
        return Path(out or LINKS_FILE)

    def __repr__(self) -> str:
        mark = _("LIVE") if self.live else pgettext("target", "SIMULATED")
        return f"{mark.of(self.lang)} · {self.describe_target().of(self.lang)}"

    def _repr_html_(self) -> str | None:
        from tcb_ops.reports.cards import target_html

        return target_html(self.describe_target(), self.live, self.lang)


def open_context(target: str = "", where: str | Sequence[str] = "", lang: str = "") -> PanelContext:
    """Read the settings and the merchants. Raises TcbOpsError.

    Args:
        target: simulator (the working folder's rehearsal, or the sample) or live; "" is live.
        where: only merchants that match, as in `read_merchants`.
        lang: of messages, en or zh; "" is that of the settings.

    """
    target = target or "live"
    if target not in {"simulator", "live"}:
        text = _(
            'target = "{target}": write "simulator" to practise or "live" for the target of tcb-ops.toml.'
        )
        raise UsageError(text.format(target=target))
    if lang not in {"", *map(str, Lang)}:
        raise UsageError(_('lang = "{lang}": write "en" or "zh".', lang=lang))
    simulated, own = target == "simulator", read_settings(options={"lang": lang or None})
    sample = simulated and not own.is_rehearsal
    settings = needed(SimulatorHooks).practice(own.lang) if sample else identified(own)
    if not simulated and settings.origin.file is None and not settings.merchants.exists():
        raise UsageError(
            _(
                'target = "live": there is no {file}, which says where the merchants, the tokens and the ledger are. '
                "Put yours into the notebook's folder, then run the cell again.",
                file=Path.cwd() / SETTINGS_FILE,
            ),
            _("To create one to fill in:\n{command}", command=quoted(("tcb-ops", "init", str(Path.cwd())))),
        )
    if sample:  # its report stands where those of a folder's own runs do
        settings = replace(settings, reports=own.reports)
    return PanelContext(settings, read_merchants(settings.merchants, where), simulated, sample)


_contexts: list[PanelContext] = []
"""The newest context."""


def use_context(context: PanelContext) -> PanelContext:
    """Have panels, lists, and calls that name no settings use a context; return it."""
    _contexts[:] = [context]
    set_default_settings(context.settings)
    return context


def context_in_use() -> PanelContext:
    """Return the context that was used last; where there is none, or other settings were chosen since, one of the settings."""
    settings = default_settings()
    if _contexts and _contexts[0].settings is settings:
        return _contexts[0]
    settings = identified(settings)
    merchants = read_merchants(settings.merchants)
    return use_context(PanelContext(settings, merchants, settings.simulated, sample=False))


@dataclass(frozen=True, slots=True)
class RefusedList:
    """A list that cannot be run as it is, in place of a Batch. A panel offers what can be done about it."""

    source: str
    root: str | None
    error: InputError

    def __repr__(self) -> str:
        return str(self.error)

    def _repr_html_(self) -> str | None:
        return self.error._repr_html_()

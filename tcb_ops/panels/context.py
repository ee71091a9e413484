"""The context of a panel: the target of its calls, its merchants, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Lang, Text, _, ngettext
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.next_commands import quoted
from tcb_ops.sample import practice
from tcb_ops.settings import SETTINGS_FILE, Settings, is_practising, load_settings, practise_with, system_lang

TARGETS = ("simulator", "live")
GENTLE_RATE = 5.0
"""Link calls a second per merchant at the gentle pace."""


@dataclass(frozen=True, slots=True)
class PanelContext:
    """Settings, merchants, and whether the target is the embedded simulator."""

    settings: Settings
    merchants: Merchants
    simulated: bool
    selection: str
    """The selected part of the merchants, as runs record it."""

    @property
    def live(self) -> bool:
        """Whether the target is not on this machine, so that a run has to be confirmed."""
        return not self.settings.on_loopback

    def limits(self, *, gentle: bool = False) -> RunLimits:
        """Return a run's limits; waits are shorter on the simulator."""
        rate = GENTLE_RATE if gentle else None
        if self.simulated:
            return RunLimits(rate=rate, backoff=0.05, slow_wait=0.3, patience=10)
        return RunLimits(rate=rate)

    def output_path(self, given: str, default: str) -> Path:
        """Return the path of a headless run's file: `given` or `default`, on the simulator beside its ledger."""
        if given or not self.simulated:
            return Path(given or default)
        return Path(self.settings.ledger).parent / default

    def describe_target(self) -> Text:
        """Return the target of this panel's calls, in one line."""
        merchants = len({merchant.appid for merchant in self.merchants})
        if self.simulated:
            return _(
                "simulator on this machine, sample data: {merchants}. Nothing reaches WeChat.",
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", merchants),
            )
        where = self.settings.api_base
        return _(
            "{where}: {merchants}",
            where=where,
            merchants=ngettext("{n:,} merchant", "{n:,} merchants", merchants),
        )


def settings_lang() -> Lang:
    """Return the language of the settings; where they cannot be read, that of the system."""
    try:
        return load_settings().lang
    except TcbOpsError:
        return system_lang()


def open_context(target: str, where: str, lang: Lang) -> PanelContext:
    """Read the settings and the merchants. Raises TcbOpsError.

    Calls of the library that name no settings use this panel's from now on.

    Args:
        target: simulator, live, or "" for that of the panel that was opened last.
        where: `column=value` items of the merchants file, semicolons between them.
        lang: the language of messages.

    """
    target = target or ("simulator" if is_practising() else "live")
    if target not in TARGETS:
        raise UsageError(
            _(
                'target = "{target}": write "simulator" to practise or "live" for the target of '
                "tcb-ops.toml.",
                target=target,
            )
        )
    simulated = target == "simulator"
    settings = practice(lang) if simulated else load_settings(options={"lang": lang})
    practise_with(settings if simulated else None)
    if not simulated and settings.origin.file is None and not settings.merchants.exists():
        folder = Path.cwd()
        raise UsageError(
            _(
                'target = "live": there is no {file}, which says where the merchants, the tokens and the ledger are. '
                "Put yours into the notebook's folder, or create one in a terminal, fill it in, and run the panel's cell "
                "again:\n{command}",
                file=folder / SETTINGS_FILE,
                command=quoted(("tcb-ops", "init", "--dir", str(folder))),
            )
        )
    items = [item.strip() for item in where.split(";") if item.strip()]
    selection = "; ".join(f"where {item}" for item in sorted(items))
    return PanelContext(settings, read_merchants(settings.merchants, items), simulated, selection)

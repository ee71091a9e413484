"""What every panel works with: where its calls go, for which merchants, where its files land."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.merchants import Merchants
from tcb_ops.runs.limits import RunLimits
from tcb_ops.settings import Settings

TARGETS = ("simulator", "live")
GENTLE_RATE = 5.0
"""Link calls a second per merchant that the gentle pace allows."""


@dataclass(frozen=True, slots=True)
class PanelContext:
    """Settings, merchants, and whether all of it is only practice."""

    settings: Settings
    merchants: Merchants
    simulated: bool
    selection: str
    """The part of the merchants that is meant, as runs keep it."""

    @property
    def live(self) -> bool:
        """Whether somebody has to say that this is meant: the target is not on this machine."""
        return not self.settings.on_loopback

    def pace(self, *, gentle: bool = False) -> RunLimits:
        """How hard a run may press. Practice does not wait as long as a real platform makes one wait."""
        rate = GENTLE_RATE if gentle else None
        return (
            RunLimits(rate=rate, backoff=0.05, slow_wait=0.3, patience=10)
            if self.simulated
            else RunLimits(rate=rate)
        )

    def place(self, given: str, usual: str) -> Path:
        """Where a headless run's file goes: where it was told to; in practice out of the way."""
        if given or not self.simulated:
            return Path(given or usual)
        return Path(self.settings.ledger).parent / usual

    def where_to(self) -> Text:
        """One line: what this panel's calls reach."""
        merchants = len({merchant.appid for merchant in self.merchants})
        if self.simulated:
            return Text(
                f"practice on this machine, sample data: {plural(merchants, 'merchant')}. Nothing reaches WeChat.",
                f"本机演练，样例数据：{merchants:,} 个商户。不会有任何内容到达微信。",
            )
        where = self.settings.api_base
        return Text(f"{where}: {plural(merchants, 'merchant')}", f"{where}：{merchants:,} 个商户")


def open_context(target: str, where: str, lang: Lang) -> PanelContext:
    """Read the settings and the merchants. Raises TcbOpsError, each with what to do.

    `target` "" is that of the panel that was opened last. Calls of the library that name no settings follow this panel
    from now on. `where`: `column=value` items with semicolons between them, as `--where` takes them.
    """
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.notebooks.practice import practice
    from tcb_ops.settings import is_practising, load_settings, practise_with

    target = target or ("simulator" if is_practising() else "live")
    if target not in TARGETS:
        raise UsageError(
            Text(
                f'target = "{target}": write "simulator" to practise or "live" for the target of tcb-ops.toml.',
                f'target = "{target}"：演练请写 "simulator"，使用 tcb-ops.toml 的目标请写 "live"。',
            )
        )
    simulated = target == "simulator"
    settings = practice(lang) if simulated else load_settings(options={"lang": lang})
    practise_with(settings if simulated else None)
    items = [item.strip() for item in where.split(";") if item.strip()]
    selection = "; ".join(f"where {item}" for item in sorted(items))
    return PanelContext(settings, read_merchants(settings.merchants, items), simulated, selection)


def size_of(file: Path) -> str:
    """A file's size for people; empty where it cannot be told."""
    try:
        return format_size(file.stat().st_size)
    except OSError:
        return ""

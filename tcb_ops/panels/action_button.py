"""The confirmation: before a target that is not on this machine, the number of merchants is typed in."""

from __future__ import annotations

from collections.abc import Callable
from unicodedata import normalize

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.html import said
from tcb_ops.panels.worker import Worker
from tcb_ops.run import Run


def is_confirmed(typed: str, merchants: int, *, live: bool) -> bool:
    """Decide whether a run may begin.

    ==================  ==============================  ==========
    target              typed                           may begin
    ==================  ==============================  ==========
    on this machine     anything                        yes
    live                the number, full width or not   yes
    live                anything else                   no
    ==================  ==============================  ==========
    """
    return not live or normalize("NFKC", typed).strip().replace(",", "") == str(merchants)


class LiveConfirmation(widgets.VBox):
    """Shows what is about to be sent where, and asks for the number of merchants. Hidden on this machine."""

    def __init__(self, lang: Lang, name: str, changed: Callable[[], None]) -> None:
        self._lang, self._merchants = lang, 0
        self.live = False
        self.facts = widgets.HTML()
        self.facts.add_class(name)
        self.count = widgets.Text(
            description=Text("Merchants", "商户数").of(lang),
            continuous_update=True,
            layout={"width": "16rem"},
            style={"description_width": "7rem"},
        )
        self.count.add_class(f"{name}-count")
        self.count.observe(lambda _: changed(), "value")
        super().__init__([self.facts, self.count])
        self.layout.display = "none"

    @property
    def off(self) -> bool:
        """Whether the run may begin."""
        return is_confirmed(str(self.count.value), self._merchants, live=self.live)

    def check(self) -> None:
        """Raise UsageError where the run may not begin: a click may have been on its way when the confirmation was asked anew."""
        if not self.off:
            raise UsageError(
                Text(
                    f"Type the number of merchants ({self._merchants}) first. Nothing was sent.",
                    f"请先输入商户数（{self._merchants}）。未发送任何内容。",
                )
            )

    def ask(self, facts: Text | None, merchants: int, target: str, *, live: bool) -> None:
        """Ask anew, for other facts; None when there is nothing to begin."""
        self.live, self._merchants = live, merchants
        self.count.value = ""
        self.layout.display = "" if live and facts is not None else "none"
        if facts is not None:
            asked = Text(
                f"LIVE: {target}\n{facts.en}\nType the number of merchants ({merchants}) to enable the button.",
                f"线上目标：{target}\n{facts.zh}\n请输入商户数（{merchants}）以启用按钮。",
            )
            self.facts.value = said(asked.of(self._lang), "bad")


def rest_of(run: Run, outcomes: frozenset[Outcome]) -> tuple[int, int, int]:
    """(rows, merchants, environments) of a run's rows with these outcomes."""
    found = [tally for tally in run.tallies() if tally.outcome in outcomes]
    return (
        sum(tally.rows for tally in found),
        len({tally.appid for tally in found}),
        len({(tally.appid, tally.env) for tally in found}),
    )


class ActionButton(widgets.VBox):
    """A button that is there while a run has rows for it, behind a confirmation of its own. `name` is the button's class."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        label: Text,
        name: str,
        do: Callable[[], None],
        *,
        armed: Callable[[], None],
    ) -> None:
        """`armed` is called when what is typed into the confirmation has changed."""
        self._context = context
        self.confirmation = LiveConfirmation(worker.lang, f"{name}-confirm", armed)
        self.button = widgets.Button(
            description=label.of(worker.lang), layout={"width": "auto", "align_self": "flex-start"}
        )
        self.button.add_class(name)
        self.button.on_click(lambda _: worker.start(do))
        super().__init__([self.confirmation, self.button])
        self.layout.display = "none"

    def offer(self, run: Run | None, outcomes: frozenset[Outcome], *, even_without: bool = False) -> None:
        """Offer it for a run's rows with these outcomes, `even_without` any; None takes it back."""
        rows, merchants, envs = rest_of(run, outcomes) if run is not None else (0, 0, 0)
        offered = run is not None and (rows > 0 or even_without)
        context = self._context
        uploads = run is not None and offered and context.live and run.record.kind == Kind.UPLOAD
        size = f", {format_size(run.planned_bytes(outcomes))}" if run is not None and uploads else ""
        what = Text("file", "个文件") if uploads else Text("row", "行")
        facts = Text(
            f"{plural(rows, what.en)}, {plural(merchants, 'merchant')}, {plural(envs, 'environment')}{size}",
            f"{rows:,} {what.zh}，{merchants:,} 个商户，{envs:,} 个环境{size.replace(', ', '，')}",
        )
        self.confirmation.ask(
            facts if offered else None, merchants, context.settings.api_base, live=context.live
        )
        self.layout.display = "" if offered else "none"

    def arm(self, *, busy: bool) -> None:
        """Enable the button where it may be pressed."""
        self.button.disabled = busy or not self.confirmation.off

    def check(self) -> None:
        """Raise UsageError where the confirmation holds."""
        self.confirmation.check()

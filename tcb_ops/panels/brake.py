"""The brake: before a target that is not on this machine, the number of merchants is typed in."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import normalize

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.model import Text
from tcb_ops.panels.markup import said

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcb_ops.model import Lang

__all__ = ["Brake", "released"]


def released(typed: str, merchants: int, *, braked: bool) -> bool:
    """Decide whether a run may begin.

    ==================  ==============================  ==========
    target              typed                           may begin
    ==================  ==============================  ==========
    on this machine     anything                        yes
    live                the number, full width or not   yes
    live                anything else                   no
    ==================  ==============================  ==========
    """
    return not braked or normalize("NFKC", typed).strip().replace(",", "") == str(merchants)


class Brake(widgets.VBox):
    """Shows what is about to be sent where, and asks for the number of merchants. Hidden on this machine."""

    def __init__(self, lang: Lang, name: str, changed: Callable[[], None]) -> None:
        self._lang, self._merchants = lang, 0
        self.braked = False
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
        return released(str(self.count.value), self._merchants, braked=self.braked)

    def check(self) -> None:
        """Raise UsageError where the run may not begin: a click may have been on its way when the brake was asked anew."""
        if not self.off:
            raise UsageError(
                Text(
                    f"Type the number of merchants ({self._merchants}) first. Nothing was sent.",
                    f"请先输入商户数（{self._merchants}）。未发送任何内容。",
                )
            )

    def ask(self, facts: Text | None, merchants: int, target: str, *, braked: bool) -> None:
        """Ask anew, for other facts; None when there is nothing to begin."""
        self.braked, self._merchants = braked, merchants
        self.count.value = ""
        self.layout.display = "" if braked and facts is not None else "none"
        if facts is not None:
            asked = Text(
                f"LIVE: {target}\n{facts.en}\nType the number of merchants ({merchants}) to enable the button.",
                f"线上目标：{target}\n{facts.zh}\n请输入商户数（{merchants}）以启用按钮。",
            )
            self.facts.value = said(asked.of(self._lang), "bad")

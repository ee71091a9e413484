"""Merchants and their tokens in a panel: who can work today, who cannot, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.i18n import Lang, Text
from tcb_ops.merchants.status import MerchantState, verdict
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.html import said, table
from tcb_ops.panels.worker import Worker

SHOWN = 300
"""Lines of the table."""


def render_states(states: Sequence[MerchantState], lang: Lang) -> str:
    """Draw the merchants, those that cannot work first."""
    heads = (
        Text("Merchant", "商户"),
        Text("Environment", "环境"),
        Text("Can work", "可工作"),
        Text("Token", "令牌"),
        Text("Permission", "权限"),
        Text("云开发", "云开发"),
        Text("Status", "环境状态"),
        Text("Calls left", "剩余调用"),
        Text("What to do", "怎么办"),
    )
    ordered = sorted(states, key=lambda state: (state.works, state.merchant.left))
    rows = [
        (
            state.merchant.name,
            state.merchant.env,
            _word(state.works).of(lang) if not state.merchant.left else Text("has left", "已离开").of(lang),
            _word(state.token).of(lang),
            _word(state.permission).of(lang),
            _word(state.cloud).of(lang),
            state.env_status or "–",
            f"{state.quota.left:,}" if state.quota and state.quota.left is not None else "–",
            "\n".join(f"{trouble.code}: {trouble.action.of(lang)}" for trouble in state.issues),
        )
        for state in ordered[:SHOWN]
    ]
    label = Text("Merchants and what they can do today", "各商户今日状态").of(lang)
    more = len(states) - SHOWN
    rest = (
        said(
            Text(f"… and {more:,} more lines that can work or were not asked", f"……另有 {more:,} 行").of(lang)
        )
        if more > 0
        else ""
    )
    return table([head.of(lang) for head in heads], rows, "sssssssnt", label=label) + rest


def _word(known: bool | None) -> Text:
    if known is None:
        return Text("–", "–")
    return Text("yes", "是") if known else Text("no", "否")


class MerchantCheck(widgets.VBox):
    """The button that looks at the merchants, and what was seen. It asks the platform, and sends no file."""

    def __init__(self, worker: Worker, context: PanelContext) -> None:
        self._worker, self._context = worker, context
        self.button = widgets.Button(
            description=Text("Check merchants and tokens", "检查商户与令牌").of(worker.lang),
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self.button.add_class("op-merchants")
        self.button.on_click(lambda _: worker.start(self._look))
        self.states = widgets.HTML(
            layout={"max_height": "24rem", "overflow": "auto", "display": "none"}, tabbable=True
        )
        self.states.add_class("op-states").add_class("op-scroll")
        super().__init__([self.button, self.states])

    def _look(self) -> None:
        worker = self._worker
        worker.say(Text("Asking about the merchants …", "正在查询各商户 ……"))

        def progress(done: int, everybody: int) -> None:
            worker.say(
                Text(f"Asked about {done:,} of {everybody:,} …", f"已查询 {done:,} / {everybody:,} ……")
            )

        states = api.check_merchants(
            self._context.merchants, settings=self._context.settings, progress=progress
        )
        self.states.value = render_states(states, worker.lang)
        self.states.layout.display = ""
        good = all(state.works or state.merchant.left for state in states)
        worker.say(verdict(states), "good" if good else "bad")

"""The panels that work on a list: of notebook 01, links, and of notebook 02, uploads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops.doors import python as doors
from tcb_ops.doors.brake import facts_line, short_life
from tcb_ops.errors import UsageError
from tcb_ops.model import Kind, Text
from tcb_ops.panels.launching import LaunchPanel
from tcb_ops.panels.markup import said
from tcb_ops.panels.naming import LINKS_GO_TO
from tcb_ops.panels.reading import Listed

if TYPE_CHECKING:
    from tcb_ops.doors.going import Working
    from tcb_ops.lists.paths import Batch

__all__ = ["Links", "Uploads"]


class _Listing(LaunchPanel):
    """A panel whose run works on a list."""

    def __init__(
        self, target: str, paths: str, root: str | None, where: str, lang: str, *, note: str, report: str = ""
    ) -> None:
        self._paths, self._root = paths, root
        super().__init__(target, where, lang, note=note, report=report)

    def _pick(self) -> list[Any]:
        self.listed = Listed(self.voice, self.desk, self._paths, root=self._root, changed=self._changed)
        return [self.listed]

    def _prepare(self) -> None:
        self.listed.read()

    def _facts(self) -> tuple[Text, int] | None:
        batch = self.listed.batch
        return (facts_line(batch), batch.merchants_count) if batch is not None else None

    def _batch(self) -> Batch:
        if self.listed.batch is None:
            raise UsageError(
                Text(
                    'There is no list: pick one, or set the parameter paths = "…".',
                    '没有清单：请选择清单，或设置参数 paths = "…"。',
                )
            )
        return self.listed.batch


class Links(_Listing):
    """Pick a list, see what was read and every problem, issue links."""

    kind, label = Kind.LINKS, Text("Issue links", "取链接")
    title = Text("Upload links", "上传链接")
    out_here = LINKS_GO_TO

    def __init__(self, target: str, paths: str, where: str, out: str, note: str, lang: str) -> None:
        self._out = out
        super().__init__(target, paths, None, where, lang, note=note)

    def _pick(self) -> list[Any]:
        self.out = widgets.Text(
            self._out or "links.csv",
            description=Text("Links go to", "链接写入").of(self.lang),
            layout={"width": "44rem"},
            style={"description_width": "7rem"},
        )
        self.out.add_class("op-out")
        self.life = widgets.HTML()
        self.life.add_class("op-life")
        return [*super()._pick(), self.out]

    def _parts(self) -> list[Any]:
        parts = super()._parts()
        self.pace.observe(lambda _: self.voice.guarded(self._tell_life), "value")
        return parts

    def _beside_pace(self) -> list[Any]:
        return [self.life]

    def _changed(self) -> None:
        super()._changed()
        self._tell_life()

    def _tell_life(self) -> None:
        """Where links will have run out before the last is there, say so beside the pace."""
        batch = self.listed.batch
        short = short_life(batch, self.desk.pace(gentle=self.pace.value)) if batch is not None else None
        self.life.value = said(short.of(self.lang), "bad") if short is not None else ""

    def _begin(self, **options: Any) -> Working:
        return doors.start_links(self._batch(), out=Path(self.out.value), **options)

    def _headless(self, **options: Any) -> Working:
        return doors.start_links(self._batch(), out=self.desk.place(self._out, "links.csv"), **options)


class Uploads(_Listing):
    """Pick a list and a root, see the plan, upload, watch."""

    kind, label = Kind.UPLOAD, Text("Upload", "上传")
    title = Text("Uploads", "上传文件")

    def _begin(self, **options: Any) -> Working:
        return doors.start_upload(self._batch(), **options)

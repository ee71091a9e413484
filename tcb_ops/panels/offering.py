"""What can still be done with a run as it stands: a button, and the brake before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

from tcb_ops.doors.screen import amount
from tcb_ops.model import Kind, Text, plural
from tcb_ops.panels.brake import Brake

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcb_ops.model import Outcome
    from tcb_ops.panels.desk import Desk
    from tcb_ops.panels.voice import Voice
    from tcb_ops.run import Run

__all__ = ["Offer", "rest_of"]


def rest_of(run: Run, outcomes: frozenset[Outcome]) -> tuple[int, int, int]:
    """(rows, merchants, environments) of a run's rows with these outcomes."""
    found = [tally for tally in run.tallies() if tally.outcome in outcomes]
    return (
        sum(tally.rows for tally in found),
        len({tally.appid for tally in found}),
        len({(tally.appid, tally.env) for tally in found}),
    )


class Offer(widgets.VBox):
    """A button that is there while a run has rows for it, behind a brake of its own. `name` is the button's class."""

    def __init__(
        self,
        voice: Voice,
        desk: Desk,
        label: Text,
        name: str,
        do: Callable[[], None],
        *,
        armed: Callable[[], None],
    ) -> None:
        """`armed` is called when what is typed into the brake has changed."""
        self._desk = desk
        self.brake = Brake(voice.lang, f"{name}-brake", armed)
        self.button = widgets.Button(
            description=label.of(voice.lang), layout={"width": "auto", "align_self": "flex-start"}
        )
        self.button.add_class(name)
        self.button.on_click(lambda _: voice.start(do))
        super().__init__([self.brake, self.button])
        self.layout.display = "none"

    def offer(self, run: Run | None, outcomes: frozenset[Outcome], *, even_without: bool = False) -> None:
        """Offer it for a run's rows with these outcomes, `even_without` any; None takes it back."""
        rows, merchants, envs = rest_of(run, outcomes) if run is not None else (0, 0, 0)
        offered = run is not None and (rows > 0 or even_without)
        desk = self._desk
        uploads = run is not None and offered and desk.braked and run.record.kind == Kind.UPLOAD
        size = f", {amount(run.planned_bytes(outcomes))}" if run is not None and uploads else ""
        what = Text("file", "个文件") if uploads else Text("row", "行")
        facts = Text(
            f"{plural(rows, what.en)}, {plural(merchants, 'merchant')}, {plural(envs, 'environment')}{size}",
            f"{rows:,} {what.zh}，{merchants:,} 个商户，{envs:,} 个环境{size.replace(', ', '，')}",
        )
        self.brake.ask(facts if offered else None, merchants, desk.settings.api_base, braked=desk.braked)
        self.layout.display = "" if offered else "none"

    def arm(self, *, busy: bool) -> None:
        """Enable the button where it may be pressed."""
        self.button.disabled = busy or not self.brake.off

    def check(self) -> None:
        """Raise UsageError where the brake holds."""
        self.brake.check()

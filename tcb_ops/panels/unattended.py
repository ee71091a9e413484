"""A run in a notebook that nobody looks at: what papermill, nbconvert, nbval and `tcb-ops notebook` leave in the document."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tcb_ops import shell
from tcb_ops.engine.progress import Progress
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.frames import METADATA
from tcb_ops.hooks import SimulatorHooks, hooks
from tcb_ops.i18n import Text, _, in_panel
from tcb_ops.panels.context import PanelContext
from tcb_ops.reports.summary import by_code, next_command
from tcb_ops.run import Run, RunHandle


def run_unattended(context: PanelContext, start: Callable[..., RunHandle], *, note: str, yes: bool) -> Run:
    """Start a run, wait for its end, and leave its result in the cell's output.

    A live target needs `yes`. Raises TcbOpsError; the run so far is shown before. Ctrl-C ends the run tidily.
    """
    if context.live and not yes:
        text = _("Nothing was sent: the target is live, and this notebook runs unattended.")
        raise UsageError(text, _("If it may send without asking, set the parameter yes = True."))
    handle = start(context, note=note, **context.run_options())
    try:
        handle.follow(_watch)
        run = handle.wait()
    except TcbOpsError as error:
        _show(handle.so_far(), error.exit_code, None)
        raise
    text = _("Unattended: run {id} has ended. {verdict}", id=run.id, verdict=run.verdict)
    _show(run, 0 if run.succeeded else 1, text)
    return run


def _next(run: Run) -> dict[str, str] | None:
    """Return what to do after a run, and the command for it; None where nothing is left."""
    simulator = hooks(SimulatorHooks)
    if simulator is not None and simulator.is_practice(run.settings):  # no command can read its ledger
        text = _('These are the merchants of the sample. For your own, set the parameter target = "live".')
        return {"en": text.en, "zh": text.zh, "command": ""}
    following = next_command(run.settings, run.record, by_code(run.overview().causes))
    if following is None:
        return None
    purpose, words = following
    return {"en": purpose.en, "zh": purpose.zh, "command": shell.join(words)}


def _watch(progress: Iterable[Progress]) -> None:
    for _now in progress:
        pass


def _show(run: Run, exit_code: int, text: Text | None) -> None:
    """Show a sentence, or the run's card; the output's metadata says the result to programs."""
    from IPython.display import display

    lang, verdict = run.settings.lang, run.verdict
    said = repr(run) if text is None else in_panel(text, lang)
    data = {"text/plain": said}
    if text is None and (card := run._repr_html_()) is not None:
        data["text/html"] = card
    result = {
        "run": run.id,
        "exit_code": exit_code,
        "simulated": run.record.simulated,
        "text": {"en": verdict.en, "zh": verdict.zh},
        "next": None if text is None else _next(run),
    }
    display(data, metadata={METADATA: result}, raw=True)  # type: ignore[no-untyped-call]  # IPython's

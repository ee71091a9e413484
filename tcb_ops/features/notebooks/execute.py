"""Unattended execution of a notebook by nbclient, and its HTML page.

Ctrl-C, SIGTERM and SIGHUP are passed on to its kernel. The notebook is executed in memory and written at the end, so that
a killed run leaves no broken one. The result is that of the run that a cell made, by the metadata of its output, or else the
error that ended it. The page has no code, no scripts and no external addresses.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from types import FrameType
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode, from_dict, writes
from traitlets.config import Config

from tcb_ops.disk import replacing
from tcb_ops.features.notebooks.parameters import INJECTED, Source, Value, with_values
from tcb_ops.formatting import sanitize
from tcb_ops.frames import METADATA
from tcb_ops.i18n import Bilingual, Lang, Text, _, as_sentences
from tcb_ops.reports.export import DOCUMENT
from tcb_ops.signals import exit_code, handled


@dataclass(frozen=True, slots=True)
class Executed:
    """The result of a notebook's execution, and the files written."""

    exit_code: int
    text: Text | None
    run: str | None
    report: str | None
    notebook: Path
    page: Path


def execute(
    source: Source,
    values: Mapping[str, Value],
    out: Path,
    *,
    environment: Mapping[str, str],
    lang: Lang,
    zone: ZoneInfo,
    progress: Callable[[int, int, str], None],
) -> Executed:
    """Run a notebook; write it and its page into `out`.

    `progress` is called before each code cell with its number, their number and its name.
    """
    content = with_values(source, values)
    content.metadata.tcb_ops = {"started": datetime.now(zone).isoformat(), "parameters": dict(values)}
    runner = CellRunner(content)
    broken: Exception | None = None
    try:
        runner.run({**os.environ, **environment, DOCUMENT: str(out.absolute())}, progress)
    except CellExecutionError:
        pass  # the traceback is in the cell
    # A kernel that cannot be started, or died: jupyter raises errors of many types.
    except Exception as error:  # noqa: BLE001
        broken = error
    result = result_of(content)
    code, text = _end(source, content, result, runner.exit_code, broken, out)
    run = result.get("run")
    report = out / run if run is not None and (out / run / "report.html").exists() else None
    following = result.get("next") or {}
    facts = PageFacts(
        lang,
        run=run,
        verdict=text,
        bad=code != 0,
        simulated=bool(result.get("simulated")),
        report=quote((report / "report.html").relative_to(out).as_posix()) if report is not None else "",
        next=Bilingual(following["en"], following["zh"]) if following else None,
        command=following.get("command", ""),
    )
    notebook, page = _write(source, content, out, facts)
    return Executed(code, text, run, None if report is None else str(report), notebook, page)


# --- the result --------------------------------------------------------------------------------------------------


def result_of(content: NotebookNode) -> dict[str, Any]:
    """Return what the last run of a notebook came to: run, exit_code, simulated, text; {} without a run."""
    results = [result for cell in content.cells for result in _results(cell) if "run" in result]
    return results[-1] if results else {}


def _results(cell: NotebookNode) -> list[dict[str, Any]]:
    """Return what the outputs of a cell say to programs."""
    outputs = cell.get("outputs", ())
    return [dict(each.metadata[METADATA]) for each in outputs if METADATA in each.get("metadata", ())]


def _end(
    source: Source,
    content: NotebookNode,
    result: Mapping[str, Any],
    signalled: int,
    broken: Exception | None,
    out: Path,
) -> tuple[int, Text | None]:
    failed = _failed_cell(content)
    own = own_error(failed[0]) if failed is not None else None
    other = broken is not None or bool(failed and not own)
    code = decide_exit_code(result.get("exit_code"), signalled, own and own[0], other=other)
    name = source.name
    if own is not None:
        return code, own[1]
    if reported := result.get("text"):
        return code, Bilingual(reported["en"], reported["zh"])
    if signalled and code == signalled:
        return code, _("{name}: interrupted. The same command resumes it.", name=name)
    if broken is not None:
        text = _(
            "{name}: its Python kernel could not be started, or died ({why}). What was committed is safe, "
            "and the same command resumes it."
        )
        return code, text.format(name=name, why=" ".join(str(broken).split()) or type(broken).__name__)
    if failed is not None:
        cell, output = failed
        what = f"{output.ename}: {output.evalue}".removesuffix(": ").partition("\n")[0].rstrip(".")
        text = _("{name}: the cell “{cell}” failed with {what}. The stack trace is in {file}.")
        return code, text.format(name=name, cell=cell_name(cell), what=what, file=out / f"{name}.ipynb")
    return code, None


def decide_exit_code(result: int | None, signalled: int, own: int | None, *, other: bool) -> int:
    """Decide the exit code.

    `result`: the run's. `signalled`: a signal's (130, 143), else 0. `own`: of a tcb-ops error in a cell.
    `other`: whether any other error ended it.

    ============  =========  ====  =====  =============================================
    result        signalled  own   other  exit code
    ============  =========  ====  =====  =============================================
    none          0          none  no     0: there was no run
    any           0          none  no     result
    0, 1          143        none  no     result: the run ended before the signal
    any           143        any   any    143, except for the line above
    any           0          none  yes    3
    none, 0, 1    0          2     no     2: a cell after the run's failed
    3             0          2     no     3
    ============  =========  ====  =====  =============================================
    """
    over = result in {0, 1}
    if signalled and (not over or own is not None or other):
        return signalled
    if other:
        return 3
    if own is not None and (over or result is None):
        return own
    return result or 0


def _failed_cell(content: NotebookNode) -> tuple[NotebookNode, NotebookNode] | None:
    """Return the cell that an error ended, and the error."""
    for cell in filter(is_own, content.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return cell, output
    return None


# --- the files ---------------------------------------------------------------------------------------------------


def _write(source: Source, content: NotebookNode, out: Path, facts: PageFacts) -> tuple[Path, Path]:
    dest = out / f"{source.name}.ipynb"
    content.metadata.pop("widgets", None)
    panel = "application/vnd.jupyter.widget-view+json"
    for cell in content.cells:  # panels do not work without a kernel
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if panel not in output.get("data", ())]
    page = dest.with_suffix(".html")
    shown = render_page(content, source.name, facts)
    notebook: str = writes(content)  # type: ignore[no-untyped-call]
    for file, text in ((dest, notebook), (page, shown)):
        with replacing(file) as part:
            part.write_bytes(text.encode())
    return dest, page


KILL_AFTER = 30.0
"""Seconds that the kernel has after an interrupt: it may hang."""


class _Client(NotebookClient):
    """Passes what cells write to stderr on to ours at once."""

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        if msg["msg_type"] == "stream" and msg["content"]["name"] == "stderr":
            sys.stderr.write(msg["content"]["text"])
        return super().process_message(msg, cell, cell_index)


class CellRunner:
    """Runs the cells of a notebook, and passes Ctrl-C, SIGTERM and SIGHUP on to the kernel."""

    def __init__(self, content: NotebookNode) -> None:
        # Sockets that only this user can open, if available: cells and outputs are private.
        transport = "tcp" if os.name == "nt" else "ipc"
        self._client = _Client(
            content,
            kernel_name="python3",  # this Python has tcb_ops; the notebook's may not
            timeout=None,
            store_widget_state=False,
            config=Config({"KernelManager": {"transport": transport}}),
            extra_arguments=["--Application.log_level=50"],  # the kernel's log is not meant for operators
        )
        self._cell_runs = False
        self.exit_code = 0
        """130 or 143 after a signal."""

    def run(self, environment: Mapping[str, str], progress: Callable[[int, int, str], None]) -> None:
        """Run every cell up to the first error or signal. Raises CellExecutionError, and the kernel's own errors."""
        cells = self._client.nb.cells
        own = [index for index, cell in enumerate(cells) if is_own(cell)]
        with handled(self._signalled), self._client.setup_kernel(env=environment):
            for index, cell in enumerate(cells):
                if self.exit_code:  # a signal came while no cell was running
                    return
                if index in own:
                    number = own.index(index) + 1
                    progress(number, len(own), _about(cells[:index]) or cell_name(cell))
                self._cell_runs = True
                if not self.exit_code:
                    self._client.execute_cell(cell, index)
                self._cell_runs = False

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        again, self.exit_code = bool(self.exit_code), exit_code(number)
        if again:
            self._kill()
        elif self._cell_runs and (kernel := self._kernel) is not None:
            _interrupt(kernel)
            timer = threading.Timer(KILL_AFTER, self._kill)
            timer.daemon = True
            timer.start()

    def _kill(self) -> None:
        if (kernel := self._kernel) is not None:
            kernel.kill()

    @property
    def _kernel(self) -> Any:
        """The kernel's process while it lives."""
        process = getattr(getattr(self._client.km, "provisioner", None), "process", None)
        return process if process is not None and process.poll() is None else None


def _interrupt(kernel: Any) -> None:
    if sys.platform == "win32":  # no process there has SIGINT: the kernel waits for an event
        from jupyter_client.win_interrupt import send_interrupt

        send_interrupt(kernel.win32_interrupt_event)
    else:
        kernel.send_signal(signal.SIGINT)


def is_own(cell: NotebookNode) -> bool:
    """Return whether a cell is one of the notebook's own code cells."""
    return cell.cell_type == "code" and INJECTED not in cell.metadata.get("tags", ())


def cell_name(cell: NotebookNode) -> str:
    """Return a cell's name: its first line, without the sign of a comment."""
    return shorten(cell.source.strip().partition("\n")[0].lstrip("# "), 60, placeholder=" …")


def _about(before: Sequence[NotebookNode]) -> str:
    """Return what the text before a cell says of it: its heading or first sentence; "" without one."""
    if not before or before[-1].cell_type != "markdown":
        return ""
    line = before[-1].source.strip().partition("\n")[0].lstrip("# ")
    sentence = re.split(r"(?<=[.。])\s|(?<=。)", line, maxsplit=1)[0]
    return shorten(sentence.rstrip(".。"), 60, placeholder=" …")


_SIMULATED = _("This run went to a simulator on the same machine. Nothing reached WeChat or a merchant.")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What a page shows besides the notebook's cells."""

    lang: Lang
    run: str | None = None
    verdict: Text | None = None
    bad: bool = False
    simulated: bool = False
    report: str = ""
    """The relative URL of the run's report."""
    next: Text | None = None
    """What to do next."""
    command: str = ""
    """The command that does it."""


def render_page(content: NotebookNode, name: str, facts: PageFacts) -> str:
    """Return the page. Cells without output are left out; an error is shown as a message, without its stack trace.

    On top: the run, how it ended, when, with which parameters, and whether it went to a simulator; the next command, and a link
    to its report; then the cells tagged `verdict` with the text before them, and the others. A verdict cell says how it ended by itself. Text tagged `notebook-only` is left out.
    """
    from jinja2 import Environment, PackageLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic",  # the cells alone: the stock pages load scripts from three external hosts
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    cells, _other = exporter.from_notebook_node(_visible(content, facts.lang))
    environment = Environment(loader=PackageLoader("tcb_ops.features.notebooks", "."), autoescape=True)
    lang, verdict, about = facts.lang, facts.verdict, content.metadata.tcb_ops
    started = datetime.fromisoformat(about["started"]).isoformat(" ", "minutes")
    given = [sanitize(f"{key} = {value}") for key, value in about["parameters"].items() if key != "lang"]
    return environment.get_template("page.html.j2").render(
        title=_title(content) or name,
        report=facts.report,
        report_name=_("The whole report").of(lang),
        cells=_accessible(cells),
        html_lang="zh-CN" if lang is Lang.ZH else "en",
        simulated=_SIMULATED.of(lang) if facts.simulated else "",
        verdict=verdict.of(lang) if verdict is not None and not _has_verdict(content) else "",
        bad=facts.bad,
        facts=[*filter(None, [facts.run]), started, *given],
        next=as_sentences((facts.next, "")).of(lang) if facts.next is not None else "",
        command=facts.command,
    )


def _accessible(cells: str) -> str:
    """Return the cells with DataFrames that the keyboard can scroll, and whose corners are no heads."""
    scrolled = cells.replace("<div>\n<style scoped", '<div class="scroll" tabindex="0">\n<style scoped')
    return scrolled.replace("<th></th>", "<td></td>")


def _has_verdict(content: NotebookNode) -> bool:
    """Return whether a cell tagged `verdict` was executed, and no cell failed."""
    tagged = [cell for cell in content.cells if "verdict" in cell.metadata.get("tags", ())]
    return _failed_cell(content) is None and any(cell.get("outputs") for cell in tagged)


def own_error(cell: NotebookNode) -> tuple[int, Text] | None:
    """Return the exit code and the message of the tcb-ops error that ended a cell; None for any other error."""
    for result in _results(cell):
        if "run" not in result:
            return result["exit_code"], Bilingual(result["text"]["en"], result["text"]["zh"])
    return None


def _visible(content: NotebookNode, lang: Lang) -> NotebookNode:
    """Return what the page shows of a notebook: each cell with an output, and the text before it; the verdict first."""
    visible: NotebookNode = from_dict({**content, "cells": []})  # type: ignore[no-untyped-call]
    verdict: list[NotebookNode] = []
    text: list[NotebookNode] = []
    for cell in content.cells:
        tags = cell.metadata.get("tags", ())
        if cell.cell_type == "markdown":
            text += [] if "notebook-only" in tags else [cell]
            continue
        outputs = [
            _in_words(output, lang)
            for output in cell.get("outputs", ())
            if output.get("name") != "stderr"
            and not _says_only_how_a_run_ended(output)
            and not (output.output_type == "error" and own_error(cell) is not None)  # its card says it
        ]
        if outputs:
            shown = [*text, from_dict({**cell, "outputs": outputs})]  # type: ignore[no-untyped-call]
            (verdict if "verdict" in tags else visible.cells).extend(shown)
            text = []
    # What follows a cell that failed is about cells that were not executed.
    end = text if _failed_cell(content) is None else []
    visible.cells = [*verdict, *visible.cells, *end]
    return visible


def _says_only_how_a_run_ended(output: NotebookNode) -> bool:
    """Return whether an output is the sentence that a run leaves where nobody looks: the page begins with it."""
    return METADATA in output.get("metadata", ()) and "text/html" not in output.data


def _in_words(output: NotebookNode, lang: Lang) -> NotebookNode | dict[str, Any]:
    if output.output_type != "error":
        return output
    words = f"{output.ename}: {output.evalue}"
    failed = _("{name}: {message}", name=_("This cell failed"), message=words)
    return {**output, "traceback": [failed.of(lang)]}


def _title(content: NotebookNode) -> str:
    first = next((cell.source for cell in content.cells if cell.cell_type == "markdown"), "")
    heading: str = first.partition("\n")[0]
    return heading.lstrip("# ").strip() if heading.startswith("#") else ""

"""Unattended execution of a notebook by papermill, and its HTML page.

Ctrl-C, SIGTERM and SIGHUP are passed on to its kernel. The notebook is executed in memory and written at the end, so that
a killed run leaves no broken one. The result is the headless cell's (`TCB_OPS_HEADLESS_RESULT`), or else the error that
ended it. The page has no code, no scripts and no external addresses.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from nbclient import NotebookClient

from tcb_ops import errors
from tcb_ops.features.notebooks.parameters import Source, Value
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Bilingual, Lang, Text, _
from tcb_ops.resources import replacing
from tcb_ops.signals import exit_code, handled

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True, slots=True)
class Executed:
    """The result of a notebook's execution, and the files written."""

    exit_code: int
    text: Text | None
    run: str | None
    report: str | None
    screen: str
    """The run as shown on a terminal: what went wrong, what changed."""
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
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    monitor = ExecutionMonitor(progress)
    papermill_engines.register("tcb-ops", _engine())
    with tempfile.TemporaryDirectory(prefix="tcb-ops-notebook-") as folder:
        file = Path(folder) / "result.json"
        variables = {
            "TCB_OPS_RUN_NOW": "0" if values.get("RUN_NOW") is False else "1",
            "TCB_OPS_HEADLESS_RESULT": str(file),
            "TCB_OPS_HEADLESS_OUT": str(out.absolute()),
        }
        broken: Exception | None = None
        try:
            execute_notebook(
                source.content,
                None,
                dict(values),
                engine_name="tcb-ops",
                kernel_name="python3",  # this Python has tcb_ops; the notebook's may not
                language="python",
                progress_bar=False,
                request_save_on_cell_execute=False,
                stderr_file=sys.stderr,
                monitor=monitor,
                environment={**os.environ, **environment, **variables},
            )
        except PapermillExecutionError:
            pass  # the traceback is in the cell
        # A kernel that cannot be started, or died: jupyter raises errors of many types.
        except Exception as error:  # noqa: BLE001
            broken = error
        result = _read_json(file)
    content = monitor.content if monitor.content is not None else source.content
    code, text = _end(source, content, result, monitor.exit_code, broken, out)
    report, link = result.get("report"), ""
    # The folder's name is kept as the caller gave it, relative or absolute.
    if report and Path(report).is_relative_to(out.absolute()):
        report = str(out / Path(report).relative_to(out.absolute()))
    if report and (whole := Path(report) / "report.html").exists():
        link = quote(Path(os.path.relpath(whole, out)).as_posix())
    facts = PageFacts(
        lang,
        zone,
        run=result.get("run"),
        verdict=text,
        bad=code != 0,
        simulated=bool(report and _read_json(Path(report) / "manifest.json").get("simulated")),
        title=str(result.get("title") or ""),
        result=str(result.get("page") or ""),
        report=link,
    )
    notebook, page = _write(source, content, out, facts)
    return Executed(code, text, facts.run, report, str(result.get("screen") or ""), notebook, page)


def _engine() -> type:
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine
    from traitlets.config import Config

    # Sockets that only this user can open, if available: cells and outputs are private.
    config = Config({"KernelManager": {"transport": "tcp" if os.name == "nt" else "ipc"}})

    class MonitoredEngine(NBClientEngine):  # type: ignore[misc]  # papermill is untyped
        """Papermill's engine, with a monitor of its client."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            monitor: ExecutionMonitor = options["monitor"]
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                timeout=None,
                startup_timeout=options["start_timeout"],
                stderr_file=options["stderr_file"],
                store_widget_state=False,
                config=config,
                extra_arguments=["--Application.log_level=50"],  # papermill's log is not meant for operators
                on_cell_start=monitor.cell_begins,
                on_cell_execute=monitor.cell_runs,
                on_cell_executed=monitor.cell_is_done,
            )
            with monitor.over(client):
                return client.execute(env=options["environment"])

    return MonitoredEngine


# --- the result --------------------------------------------------------------------------------------------------


def _read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; empty if the file holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _end(
    source: Source,
    content: NotebookNode,
    result: Mapping[str, Any],
    signalled: int,
    broken: Exception | None,
    out: Path,
) -> tuple[int, Text | None]:
    """Return the exit code and a message about how the notebook ended."""
    failed = _failed_cell(content)
    own = own_error(failed[1]) if failed is not None else None
    code = decide_exit_code(
        result.get("exit_code"),
        signalled,
        own and own[0],
        other=broken is not None or bool(failed and not own),
    )
    reported = result.get("text")
    if isinstance(reported, dict):
        return code, Bilingual(reported["en"], reported["zh"])
    name = source.name
    if own is not None:
        return code, own[1]
    if signalled and code == signalled:
        return code, _("{name}: interrupted. The same command resumes it.", name=name)
    if broken is not None:
        why = " ".join(str(broken).split()) or type(broken).__name__
        return code, _(
            "{name}: its Python kernel could not be started, or died ({why}). What was committed is safe, "
            "and the same command resumes it.",
            name=name,
            why=why,
        )
    if failed is not None:
        cell, output = failed
        what = f"{output.ename}: {output.evalue}".removesuffix(": ").partition("\n")[0].rstrip(".")
        there = out / f"{name}.ipynb"
        return code, _(
            "{name}: the cell “{cell}” failed with {what}. The stack trace is in {there}.",
            name=name,
            cell=cell,
            what=what,
            there=there,
        )
    return code, None


def decide_exit_code(result: int | None, signalled: int, own: int | None, *, other: bool) -> int:
    """Decide the exit code.

    `result`: the headless cell's. `signalled`: a signal's (130, 143), else 0. `own`: of a tcb-ops error in a cell.
    `other`: whether any other error ended it.

    ============  =========  ====  =====  =============================================
    result        signalled  own   other  exit code
    ============  =========  ====  =====  =============================================
    none          0          none  no     0: there was no run
    any           0          none  no     result
    0, 1          143        none  no     result: the run ended before the signal
    any           143        any   any    143, except for the line above
    any           0          none  yes    3
    none, 0, 1    0          2     no     2: a cell after the headless one failed
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


def _failed_cell(content: NotebookNode) -> tuple[str, NotebookNode] | None:
    """Return the name of the cell that ended the notebook, and its error output."""
    for number, cell in enumerate(filter(is_shown, content.cells), 1):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return cell_name(cell, number), output
    return None


# --- the files ---------------------------------------------------------------------------------------------------


def _write(source: Source, content: NotebookNode, out: Path, facts: PageFacts) -> tuple[Path, Path]:
    """Write the executed notebook and its page, each atomically."""
    import nbformat

    dest = out / f"{source.name}.ipynb"
    content.metadata.pop("widgets", None)
    content.metadata.papermill.update(input_path=str(source.file), output_path=str(dest))
    panel = "application/vnd.jupyter.widget-view+json"
    for cell in content.cells:  # panels do not work without a kernel
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if panel not in output.get("data", ())]
    page = dest.with_suffix(".html")
    shown = render_page(content, source.name, facts)
    notebook: str = nbformat.writes(content)  # type: ignore[no-untyped-call]
    for file, text in ((dest, notebook), (page, shown)):
        with replacing(file) as part:
            part.write_bytes(text.encode())
    return dest, page


KILL_AFTER = 30.0
"""Seconds that the kernel has after an interrupt: it may hang."""


class Interrupted(Exception):  # noqa: N818  not an error
    """A signal arrived while no cell was running."""


class ExecutionMonitor:
    """The monitor of an execution: reports the cells, and passes Ctrl-C, SIGTERM and SIGHUP on to the kernel."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self._progress = progress
        self._client: NotebookClient | None = None
        self._running = False
        self.content: NotebookNode | None = None
        self.exit_code = 0
        """130 or 143 after a signal."""

    @contextmanager
    def over(self, client: NotebookClient) -> Iterator[None]:
        """Handle signals while this client works."""
        self._client, self.content = client, client.nb
        if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
            yield
            return
        with handled(self._signalled):
            yield

    def cell_begins(self, cell: NotebookNode, cell_index: int) -> None:
        """Report the next cell; end here if a signal arrived while no cell was running."""
        if self.exit_code:
            raise Interrupted
        cells = [] if self.content is None else self.content.cells
        code = [index for index, other in enumerate(cells) if is_shown(other)]
        if cell_index in code:
            number = code.index(cell_index) + 1
            self._progress(number, len(code), cell_name(cell, number))

    def cell_runs(self, **_cell: Any) -> None:
        """Pass interrupts to the kernel from here on; end here if one arrived since `cell_begins`."""
        self._running = True
        if self.exit_code:
            raise Interrupted

    def cell_is_done(self, **_cell: Any) -> None:
        """Record that the kernel is idle."""
        self._running = False

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        again, self.exit_code = bool(self.exit_code), exit_code(number)
        if again:
            self._kernel("kill")
        elif self._running:
            self._kernel("interrupt")
            timer = threading.Timer(KILL_AFTER, self._kernel, ("kill",))
            timer.daemon = True
            timer.start()

    def _kernel(self, act: str) -> None:
        process = getattr(getattr(getattr(self._client, "km", None), "provisioner", None), "process", None)
        if process is None or process.poll() is not None:
            return
        if act == "kill":
            process.kill()
        elif self._running:
            process.send_signal(signal.SIGINT)


def is_shown(cell: NotebookNode) -> bool:
    """Return whether a cell is one of the notebook's own code cells."""
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())


def cell_name(cell: NotebookNode, number: int) -> str:
    """Return a cell's name: its first line if that is a comment, else its number among the code cells."""
    first = cell.source.lstrip().partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else f"[{number}]"


_SIMULATED = _("This run went to a simulator on the same machine. Nothing reached WeChat or a merchant.")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What a page shows besides the notebook's cells."""

    lang: Lang
    zone: ZoneInfo
    run: str | None = None
    verdict: Text | None = None
    bad: bool = False
    simulated: bool = False
    title: str = ""
    result: str = ""
    """HTML generated by tcb-ops."""
    report: str = ""
    """The relative URL of the run's report."""


def render_page(content: NotebookNode, name: str, facts: PageFacts) -> str:
    """Return the page. Cells without output are left out; an error is shown as a message, without its stack trace.

    On top: the run, how it ended, when, with which parameters, and whether it went to a simulator; then its result and a
    link to its report. Cells tagged `notebook-only` are shown only if they failed.
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
    lang, verdict, about = facts.lang, facts.verdict, content.metadata.papermill
    shown = [facts.run or ""]
    if started := about.get("start_time"):
        shown.append(datetime.fromisoformat(started).astimezone(facts.zone).isoformat(" ", "minutes"))
    given = about.get("parameters", {})
    shown += [sanitize(f"{key} = {value}") for key, value in given.items() if key != "lang"]
    return environment.get_template("page.html.j2").render(
        title=facts.title or _title(content) or name,
        result=facts.result,
        report=facts.report,
        report_name=_("The whole report").of(lang),
        cells=cells,
        html_lang="zh-CN" if lang is Lang.ZH else "en",
        simulated=_SIMULATED.of(lang) if facts.simulated else "",
        verdict=verdict.of(lang) if verdict is not None else "",
        bad=facts.bad,
        facts=list(filter(None, shown)),
    )


def own_error(output: NotebookNode) -> tuple[int, Text] | None:
    """Return the exit code and the message of a tcb-ops error in a cell's output; None for any other error."""
    kind = vars(errors).get(output.ename)
    # The traceback of such an error is its message in English and in Chinese.
    if isinstance(kind, type) and issubclass(kind, errors.TcbOpsError) and len(output.traceback) == 2:
        return kind.exit_code, Bilingual(*output.traceback)
    return None


def _visible(content: NotebookNode, lang: Lang) -> NotebookNode:
    from nbformat import from_dict

    seen: NotebookNode = from_dict({**content, "cells": []})  # type: ignore[no-untyped-call]
    for cell in content.cells:
        tags = cell.metadata.get("tags", ())
        if "papermill-error-cell-tag" in tags:  # papermill's message in English before a failed cell
            continue
        outputs = [
            _in_words(output, lang) for output in cell.get("outputs", ()) if output.get("name") != "stderr"
        ]
        if "notebook-only" in tags:
            outputs = [output for output in outputs if output["output_type"] == "error"]
            if cell.cell_type == "markdown":
                continue
        if cell.cell_type == "markdown":
            seen.cells.append(cell)
        elif outputs:
            seen.cells.append(from_dict({**cell, "outputs": outputs}))  # type: ignore[no-untyped-call]
    return seen


def _in_words(output: NotebookNode, lang: Lang) -> NotebookNode | dict[str, Any]:
    if output.output_type != "error":
        return output
    own = own_error(output)
    words = own[1].of(lang) if own is not None else f"{output.ename}: {output.evalue}"
    failed = _("This cell failed").of(lang)
    return {**output, "traceback": [f"{failed}: {words}"]}


def _title(content: NotebookNode) -> str:
    first = next((cell.source for cell in content.cells if cell.cell_type == "markdown"), "")
    heading: str = first.partition("\n")[0]
    return heading.lstrip("# ").strip() if heading.startswith("#") else ""

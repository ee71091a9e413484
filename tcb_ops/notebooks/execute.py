"""A notebook run from top to bottom by papermill, with nobody before it.

The notebook is executed aside and put in place whole, so that a killed run leaves no broken one. How its run ended is
what its headless cell says (`TCB_OPS_HEADLESS_RESULT`), or else the error that ended it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from tcb_ops.i18n import Lang, Text
from tcb_ops.notebooks.execution_monitor import Watch
from tcb_ops.notebooks.outcome import Ending, how_it_ended, what_was_said
from tcb_ops.notebooks.page import Look, page_of
from tcb_ops.notebooks.parameters import Value
from tcb_ops.notebooks.source import Source

if TYPE_CHECKING:
    from nbformat import NotebookNode

_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a notebook's run ended, and what it left."""

    exit_code: int
    text: Text | None
    run: str | None
    report: str | None
    screen: str
    """What a terminal shows of the run: what went wrong, what changed."""
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
    tell: Callable[[int, int, str], None],
) -> Ended:
    """Run a notebook; leave it and its page in `out`. `tell` hears of each code cell: which, of how many, its name."""
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import execute_notebook

    watch = Watch(tell)
    papermill_engines.register("tcb-ops", _engine())
    with tempfile.TemporaryDirectory(prefix="tcb-ops-notebook-") as folder:
        result = Path(folder) / "result.json"
        told = {
            "TCB_OPS_RUN_NOW": "0" if values.get("RUN_NOW") is False else "1",
            "TCB_OPS_HEADLESS_RESULT": str(result),
            "TCB_OPS_HEADLESS_OUT": str(out.absolute()),
        }
        broke: Exception | None = None
        with _environment({**environment, **told}):
            try:
                execute_notebook(
                    source.content,
                    None,
                    dict(values),
                    engine_name="tcb-ops",
                    kernel_name="python3",  # this Python, whatever the notebook was saved with: tcb_ops is here
                    language="python",
                    progress_bar=False,
                    request_save_on_cell_execute=False,
                    stderr_file=sys.stderr,
                    watch=watch,
                )
            except PapermillExecutionError:
                pass  # it stands in the cell
            # A kernel that cannot be started, or died: jupyter has many names for it.
            except Exception as error:  # noqa: BLE001
                broke = error
        said = what_was_said(result)
    content = watch.content if watch.content is not None else source.content
    return _left(
        source,
        content,
        out,
        Look(lang, zone),
        said,
        how_it_ended(source, content, said, watch.exit_code, broke, out),
    )


def _engine() -> type:
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        """Papermill's own, with an eye on its client."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            watch: Watch = options["watch"]
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                timeout=None,
                startup_timeout=options["start_timeout"],
                stderr_file=options["stderr_file"],
                store_widget_state=False,
                config=_config(),
                extra_arguments=["--Application.log_level=50"],  # its own log is not for operators
                on_cell_start=watch.cell_begins,
                on_cell_execute=watch.cell_runs,
                on_cell_executed=watch.cell_is_done,
            )
            with watch.over(client):
                return client.execute()

    return Engine


def _config() -> Any:
    from traitlets.config import Config

    # Sockets that only this user can open, where there are such: cells and their outputs are nobody else's.
    return Config({"KernelManager": {"transport": "tcp" if os.name == "nt" else "ipc"}})


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """The kernel inherits the environment: papermill has no other way to hand it on."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _left(
    source: Source, content: NotebookNode, out: Path, look: Look, said: Mapping[str, Any], ending: Ending
) -> Ended:
    """Put the executed notebook and its page in place, whole."""
    import nbformat

    content.metadata.pop("widgets", None)
    content.metadata.papermill.update(
        input_path=str(source.file), output_path=str(out / f"{source.name}.ipynb")
    )
    for cell in content.cells:  # a panel is dead without its kernel
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _VIEW not in output.get("data", ())]
    page = page_of(
        content,
        source.name,
        look,
        run=ending.run,
        verdict=ending.text,
        bad=ending.exit_code != 0,
        simulated=_is_simulated(ending.report),
        title=str(said.get("title") or ""),
        result=str(said.get("page") or ""),
        report=_link_to(ending.report, out),
    )
    notebook = nbformat.writes(content)  # type: ignore[no-untyped-call]
    return Ended(
        ending.exit_code,
        ending.text,
        ending.run,
        ending.report,
        str(said.get("screen") or ""),
        _place(out / f"{source.name}.ipynb", notebook),
        _place(out / f"{source.name}.html", page),
    )


def _is_simulated(report: str | None) -> bool:
    """Whether the run's own report says that it went to a simulator."""
    try:
        return bool(report and json.loads((Path(report) / "manifest.json").read_text("utf-8"))["simulated"])
    except (OSError, ValueError, KeyError):
        return False


def _link_to(report: str | None, out: Path) -> str:
    """The run's report as the page links to it; "" where there is none."""
    file = Path(report) / "report.html" if report else None
    return quote(Path(os.path.relpath(file, out)).as_posix()) if file is not None and file.exists() else ""


def _place(dest: Path, text: str) -> Path:
    """Write a file so that it is there whole, or as it was."""
    part = dest.with_name(f".{dest.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(dest)
    return dest

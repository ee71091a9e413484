"""A notebook run from top to bottom by papermill, with nobody before it.

The notebook is executed aside and put in place whole, so that a killed run leaves no broken one. How its run ended is
what its headless cell says (`TCB_OPS_HEADLESS_RESULT`), or else the error that ended it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops import errors
from tcb_ops.errors import UsageError
from tcb_ops.headless.page import Look, page_of
from tcb_ops.headless.parameters import Parameter, Value, parameters_of
from tcb_ops.model import Lang, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from zoneinfo import ZoneInfo

    from nbclient import NotebookClient
    from nbformat import NotebookNode

__all__ = ["Ended", "Source", "check_place", "execute", "exit_code", "open_notebook"]

REMIND_AFTER, KILL_AFTER = 10.0, 30.0
"""Seconds after an interrupt: the kernel may have missed the first (it was between two cells), or hang."""
_VIEW = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True, slots=True)
class Source:
    """A notebook to be run."""

    name: str
    """Its file name without the ending."""
    file: Path
    content: NotebookNode
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a notebook's run ended, and what it left."""

    exit_code: int
    text: Text | None
    run: str | None
    report: str | None
    notebook: Path
    page: Path


def open_notebook(file: Path) -> Source:
    """Read a notebook and its `parameters` cell. Raises UsageError."""
    from papermill.iorw import load_notebook_node

    try:
        content = load_notebook_node(os.fspath(file))
        tagged = [cell.source for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
        known = parameters_of(tagged[0]) if tagged else ()
    except Exception as error:  # noqa: BLE001  papermill, nbformat, json and jsonschema each have their own
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            Text(f"{file}: cannot be read as a notebook: {why}", f"{file}：不能作为笔记本读取：{why}")
        ) from None
    return Source(file.stem, file, content, known)


def check_place(source: Source, out: Path) -> None:
    """Refuse, before anything runs, to put the executed notebook over one that is none. Raises UsageError."""
    dest = out / f"{source.name}.ipynb"
    try:
        executed = (
            bool(open_notebook(dest).content.metadata.papermill.get("end_time")) if dest.exists() else True
        )
    except UsageError:
        executed = False
    if executed and not (dest.exists() and dest.samefile(source.file)):
        return
    raise UsageError(
        Text(
            f"{dest} is there and was not left by this command. Choose another --out; nothing was run.",
            f"{dest} 已存在，且不是本命令留下的。请换一个 --out；未运行任何内容。",
        )
    )


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

    out.mkdir(parents=True, exist_ok=True)
    watch = _Watch(tell)
    papermill_engines.register("tcb-ops", _engine())
    with tempfile.TemporaryDirectory(prefix="tcb-ops-notebook-") as folder:
        result = Path(folder) / "result.json"
        told = {
            "TCB_OPS_RUN_NOW": "1",
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
        said = _said(result)
    content = watch.content if watch.content is not None else source.content
    return _left(
        source, content, out, Look(lang, zone), _how(source, content, said, watch.exit_code, broke, out)
    )


def _engine() -> type:
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        """Papermill's own, with an eye on its client."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            watch: _Watch = options["watch"]
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


class _Interrupted(Exception):  # noqa: N818  not an error
    """Asked to end while no cell was running."""


class _Watch:
    """Hears of the cells, and passes Ctrl-C and SIGTERM on to the kernel, so that its run ends tidily."""

    def __init__(self, tell: Callable[[int, int, str], None]) -> None:
        self._tell = tell
        self._client: NotebookClient | None = None
        self._running = False
        self.content: NotebookNode | None = None
        self.exit_code = 0
        """130 or 143, once asked to end."""

    @contextmanager
    def over(self, client: NotebookClient) -> Iterator[None]:
        self._client, self.content = client, client.nb
        if threading.current_thread() is not threading.main_thread():  # signals are for the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def cell_begins(self, cell: NotebookNode, cell_index: int) -> None:
        if self.exit_code:
            raise _Interrupted
        code = [index for index, other in enumerate(self._cells()) if _is_shown(other)]
        if cell_index in code:
            self._tell(code.index(cell_index) + 1, len(code), cell_name(cell, cell_index))

    def _cells(self) -> list[NotebookNode]:
        return list(self.content.cells) if self.content is not None else []

    def cell_runs(self, **_cell: Any) -> None:
        self._running = True

    def cell_is_done(self, **_cell: Any) -> None:
        self._running = False

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        again, self.exit_code = bool(self.exit_code), 143 if number == signal.SIGTERM else 130
        if again:
            self._kernel("kill")
        elif self._running:
            self._kernel("interrupt")
            for seconds, act in ((REMIND_AFTER, "interrupt"), (KILL_AFTER, "kill")):
                timer = threading.Timer(seconds, self._kernel, (act,))
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


def _is_shown(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())


def cell_name(cell: NotebookNode, index: int) -> str:
    """What a cell calls itself: its first line, where that is a comment."""
    first = cell.source.lstrip().partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else f"[{index + 1}]"


def _said(result: Path) -> dict[str, Any]:
    """What the headless cell left, if it came so far."""
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class _Ending:
    exit_code: int
    text: Text | None
    run: str | None
    report: str | None


def _how(
    source: Source,
    content: NotebookNode,
    said: Mapping[str, Any],
    asked: int,
    broke: Exception | None,
    out: Path,
) -> _Ending:
    """Tell how it ended, and in what words."""
    failed = _failed(content)
    own = _error_in(failed[1]) if failed is not None else None
    code = exit_code(
        said.get("exit_code"), asked, own and own[0], other=broke is not None or bool(failed and not own)
    )
    told = said.get("text")
    text = Text(told["en"], told["zh"]) if isinstance(told, dict) else own and own[1]
    if text is None and asked and code == asked:
        text = _interrupted(source)
    elif text is None and broke is not None:
        text = _kernel_died(source, broke)
    elif failed is not None and own is None:
        text = _cell_failed(source, *failed, out)
    report = said.get("report")
    if report and Path(report).is_relative_to(out.absolute()):  # as the caller named the folder
        report = str(out / Path(report).relative_to(out.absolute()))
    return _Ending(code, text, said.get("run"), report)


def exit_code(said: int | None, asked: int, own: int | None, *, other: bool) -> int:
    """Decide the exit code.

    `said`: by the headless cell. `asked`: by a signal (130, 143), else 0. `own`: of an error of ours in a cell. `other`:
    whether any other error ended it.

    ============  =====  ====  =====  ===========================================
    said          asked  own   other  exit code
    ============  =====  ====  =====  ===========================================
    none          0      none  no     0: it had no run
    any           0      none  no     said
    0, 1          143    none  no     said: the run was over when the signal came
    any           143    any   any    143, but for the line above
    any           0      none  yes    3
    none, 0, 1    0      2     no     2: a cell after the headless one failed
    3             0      2     no     3
    ============  =====  ====  =====  ===========================================
    """
    over = said in {0, 1}
    if asked and (not over or own is not None or other):
        return asked
    if other:
        return 3
    if own is not None and (over or said is None):
        return own
    return said or 0


def _failed(content: NotebookNode) -> tuple[str, NotebookNode] | None:
    """The error output that ended the notebook, and its cell's name."""
    for index, cell in enumerate(content.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return cell_name(cell, index), output
    return None


def _error_in(output: NotebookNode) -> tuple[int, Text] | None:
    """Our own error as a notebook shows it: its exit code and its sentence; None for any other error."""
    kind = getattr(errors, output.ename, None) if output.ename in errors.__all__ else None
    if kind is None:
        return None
    en, zh = (*output.traceback, output.evalue, output.evalue)[:2]
    return kind.exit_code, Text(en, zh)


def _interrupted(source: Source) -> Text:
    return Text(
        f"{source.name}: interrupted. The same command goes on.",
        f"{source.name}：已中断。再次运行同一命令即可继续。",
    )


def _kernel_died(source: Source, broke: Exception | None) -> Text:
    why = (str(broke).splitlines() or [""])[0] or type(broke).__name__
    return Text(
        f"{source.name}: its Python kernel could not be started, or died ({why}). What was committed is safe, and the "
        "same command goes on.",
        f"{source.name}：Python 内核无法启动或已退出（{why}）。已提交的内容是安全的，再次运行同一命令即可继续。",
    )


def _cell_failed(source: Source, cell: str, output: NotebookNode, out: Path) -> Text:
    what = f"{output.ename}: {output.evalue}".removesuffix(": ").partition("\n")[0]
    there = out / f"{source.name}.ipynb"
    return Text(
        f"{source.name}: the cell “{cell}” failed with {what}. The trace is in {there}.",
        f"{source.name}：单元格“{cell}”出错：{what}。详细信息见 {there}。",
    )


def _left(source: Source, content: NotebookNode, out: Path, look: Look, ending: _Ending) -> Ended:
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
    )
    notebook = nbformat.writes(content)  # type: ignore[no-untyped-call]
    return Ended(
        ending.exit_code,
        ending.text,
        ending.run,
        ending.report,
        _place(out / f"{source.name}.ipynb", notebook),
        _place(out / f"{source.name}.html", page),
    )


def _is_simulated(report: str | None) -> bool:
    """Whether the run's own report says that it went to a simulator."""
    try:
        return bool(report and json.loads((Path(report) / "manifest.json").read_text("utf-8"))["simulated"])
    except (OSError, ValueError, KeyError):
        return False


def _place(dest: Path, text: str) -> Path:
    """Write a file so that it is there whole, or as it was."""
    part = dest.with_name(f".{dest.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(dest)
    return dest

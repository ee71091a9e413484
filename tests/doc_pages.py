"""Running the commands and code of a documentation page; each page is one session in a folder of its own.

==============================================  ====================================================================
in the page                                     effect
==============================================  ====================================================================
```console, lines that begin with `$ `          each command is run, its output compared with the lines below it
`…` alone on a line of an output                matches any lines
`$ echo $?`                                     the exit code of the previous command
`$ export NAME=VALUE`                           sets the variable for the rest of the page
`$ … &`, `$ kill %1`                            starts a server in the background, and stops all of them
```python                                       run, in one namespace per page
```text right below ```python                   its output, and the value of its last expression
```{code-block} with `:caption: FILE`           written to that file in the session's folder
<!-- file: FILE --> before a block              the same
```toml without a caption                       parsed
<!-- not run: REASON --> before a block         neither run nor compared
any other block                                 ignored; an error if a line looks like a command
`a command` in a sentence                       parsed, but not run: `commands_in` finds it
==============================================  ====================================================================

A script of the repository (`$ python benchmarks/…`) is run from the repository's folder, whatever the session's.

Ids, times, durations, ports and paths of this machine are normalised before outputs are compared. With UPDATE_DOCS=1,
outputs that differ are written into the pages instead.
"""

from __future__ import annotations

import ast
import getpass
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from free_ports import free_port

from tcb_ops.cli.main import run as run_command
from tcb_ops.settings import set_default_settings

ROOT = Path(__file__).parent.parent
HOME = "/home/li/tcb"
"""The folder that the pages show instead of the session's."""
ME = "li@ops-01"
PORTS = ("8765", "8766")
"""The ports of the servers in the pages, which are replaced by free ones."""
ANY = "…"
FENCE = re.compile(r"( *)(`{3,})\s*(.*)")
SHELL = set("|&;<>*$`~(")
"""Characters that need a shell."""
NOT_RUN = "<!-- not run:"
COMMAND = re.compile(
    r"([A-Z_]+=\S* )*(\S*/)?(tcb-ops|python3?|make|uv|pipx?|bash|dask|openssl|pip-audit|curl|docker|apt-get) \S"
)
"""How a command line begins, typed with an argument."""
FILE = re.compile(r"<!-- file: (\S+) -->")
PROGRESS = re.compile(r"\d+/\d+ · .*")
"""Progress lines, which a run of more than a few seconds prints."""
RUN_ID = r"\b\d{8}-\d{6}-[0-9a-z]{4}\b"
VARYING = (
    (RUN_ID, "RUN"),
    (r"\b\d\d-\d\d \d\d:\d\d\b|\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:?\d\d)?)?", "DATE"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "TIME"),
    (r"\b[\d,]+(\.\d+)? ?(s|ms|min|秒|毫秒|分钟?)(?![A-Za-z])", "TIME"),
    (r"\b[\d,]+(\.\d+)?(/s|/秒| per second)", "RATE"),
    (r"\b[\d,]+ (bytes|字节)", "SIZE"),
    # Numbers from 10: the requests in flight when a breaker opened.
    (r"\b\d\d+ (refused|not attempted|被拒绝|未尝试)|(被拒绝|未尝试) \d\d+", "N"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}\b", "RID"),
    (r"\b[0-9a-f]{12,}\b", "HEX"),
    (r"[─━═-]{3,}", "---"),
    (r"\s+", " "),
)
"""Patterns that differ from run to run, and their replacements. Line breaks too: they depend on the length of paths."""


@dataclass
class Block:
    """A fenced block that is run or compared."""

    kind: str
    lines: list[str]
    start: int
    """Index in the page of the first line of content."""
    caption: str = ""
    indent: str = ""

    @property
    def end(self) -> int:
        return self.start + len(self.lines)


@dataclass
class Command:
    """A command of a `console` block, and its output in the page."""

    line: str
    shown: list[str]
    start: int
    """Index in the page of the first line of output."""


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page in order. Raises AssertionError for one that looks like a command but is not run."""
    lines, found, number = text.splitlines(), [], 0
    before = ""
    while number < len(lines):
        line = lines[number]
        if opened := FENCE.fullmatch(line):
            indent, ticks, info = opened.groups()
            end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == ticks)
            content = [each.removeprefix(indent) for each in lines[number + 1 : end]]
            if not before.startswith(NOT_RUN):
                found.append(_block(info, content, number + 1, indent))
                if file := FILE.fullmatch(before):
                    found[-1].caption = file[1]
            number = end
        if line.strip():
            before = line.strip()
        number += 1
    return found


def _block(info: str, lines: list[str], start: int, indent: str) -> Block:
    options: dict[str, str] = {}
    kind = info.removeprefix("{code-block}").strip()
    while info.startswith("{") and lines and (option := re.fullmatch(r":(\w+): (.*)", lines[0])):
        options[option[1]] = option[2]
        lines, start = lines[1:], start + 1
    if info.startswith("{") and lines and not lines[0].strip():
        lines, start = lines[1:], start + 1
    assert kind != "sh", f"line {start}: a block that is not run needs `{NOT_RUN} reason -->` before it"
    if kind not in {"console", "python"}:
        typed = [line for line in lines if line.startswith("$ ") or COMMAND.match(line)]
        assert not typed, f"line {start}: a command outside a console block is never run: {typed[0]}"
    return Block(kind, lines, start, options.get("caption", ""), indent)


def commands(block: Block) -> list[Command]:
    """Return the commands of a block. A line that ends in a backslash continues on the next one."""
    found: list[Command] = []
    number = 0
    while number < len(block.lines):
        line = block.lines[number]
        number += 1
        if not line.startswith("$ "):
            found[-1].shown.append(line)
            continue
        words = line[2:]
        while words.endswith("\\"):
            words = words[:-1] + block.lines[number].strip()
            number += 1
        found.append(Command(words, [], block.start + number))
    return found


def commands_in(text: str) -> list[str]:
    """Return the commands that the sentences and tables of a page name, in backticks."""
    sentences = re.sub(r"^ *(`{3,}).*?^ *\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [each for each in re.findall(r"`([^`\n]+)`", sentences) if COMMAND.match(each)]


def normalised(text: str) -> str:
    """Replace the parts of an output that differ from run to run."""
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text)
    return text.strip()


def agrees(shown: list[str], actual: list[str]) -> bool:
    """Return whether an output matches the page, where `…` matches any lines."""
    parts = [normalised(part) for part in re.split(rf"^ *{ANY} *$", "\n".join(shown), flags=re.MULTILINE)]
    pattern = ".*".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, normalised("\n".join(actual)), re.DOTALL) is not None


def shortened(shown: list[str], actual: list[str]) -> list[str]:
    """Shorten an output by `…` where the page has one, with as many lines before and after it as in the page."""
    if shown.count(ANY) != 1:
        return actual
    before = shown.index(ANY)
    after = len(shown) - before - 1
    if before + after >= len(actual):
        return actual
    return [*actual[:before], ANY, *actual[len(actual) - after :]]


def _end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.communicate(timeout=240)


@dataclass
class Session:
    """A reader's session: a folder, a language, and a Python namespace."""

    folder: Path
    lang: str
    code: int = 0
    names: dict[str, Any] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in PORTS})
    runs: dict[str, str] = field(default_factory=dict)
    """Run ids in the page → run ids of the session."""
    servers: ExitStack = field(default_factory=ExitStack)

    def type(self, line: str) -> list[str]:
        """Run a command line and return its output."""
        if line == "echo $?":
            return [str(self.code)]
        if line == "kill %1":
            return self.end()
        line = self.here(line)
        if line.startswith("export "):
            name, _, value = shlex.split(line)[1].partition("=")
            os.environ[name] = value
            return []
        if line.endswith(" &"):
            return self._lines(self._start(line.removesuffix(" &")))
        words = shlex.split(line, comments=True)
        if words[0] == "tcb-ops" and not SHELL & set(self._bare(line)):
            output = StringIO()
            with redirect_stdout(output), redirect_stderr(output):
                self.code = run_command(words[1:])
            return self._lines(output.getvalue())
        script = ROOT / words[1] if words[0] == "python" else None
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=ROOT if script is not None and script.is_file() else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        self.code = done.returncode
        return self._lines(done.stdout)

    def _start(self, line: str) -> str:
        """Start a server and return its first line of output, printed when it is ready."""
        server = subprocess.Popen(
            shlex.split(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.servers.callback(_end, server)
        assert server.stdout is not None
        return server.stdout.readline()

    def end(self) -> list[str]:
        """Stop everything started in the background."""
        self.servers.close()
        return []

    def here(self, text: str) -> str:
        """Replace the page's ports and run ids by those of the session."""
        for shown, own in (self.ports | self.runs).items():
            text = text.replace(shown, own)
        return text

    def learn_runs(self, shown: list[str], actual: list[str]) -> None:
        """Map the run ids in the page to those of the output, since later commands may use them."""
        known = set(self.runs)
        pairs = zip(*(re.findall(RUN_ID, "\n".join(lines)) for lines in (shown, actual)), strict=False)
        self.runs |= {page: own for page, own in pairs if page not in known and own not in self.runs.values()}

    def shown_runs(self, actual: list[str]) -> list[str]:
        """Replace the run ids of the session by those in the page."""
        text = "\n".join(actual)
        for page, own in self.runs.items():
            text = text.replace(own, page)
        return text.split("\n")

    @staticmethod
    def _bare(line: str) -> str:
        """Return a command line without quoted parts and comment."""
        return re.sub(r"'[^']*'|\"[^\"]*\"|\s# .*", "", line)

    def python(self, source: str) -> list[str]:
        """Run Python code; return its output, and the value of its last expression."""
        tree = ast.parse(source)
        last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        output = StringIO()
        wide = pd.option_context("display.width", 100, "display.unicode.east_asian_width", True)  # noqa: FBT003  the signature of pandas
        with redirect_stdout(output), redirect_stderr(output), wide:
            exec(compile(tree, "page", "exec"), self.names)  # noqa: S102  code of the page
            value = eval(compile(last, "page", "eval"), self.names) if last is not None else None  # noqa: S307  code of the page
        return self._lines(output.getvalue() + ("" if value is None else repr(value)))

    def _lines(self, output: str) -> list[str]:
        assert "Traceback" not in output, output
        for there, shown in (
            (str(self.folder.resolve()), HOME),
            (str(self.folder), HOME),
            (str(ROOT), HOME),
            *((f"127.0.0.1:{free}", f"127.0.0.1:{port}") for port, free in self.ports.items()),
            *((own, page) for page, own in self.runs.items()),
            (f"{getpass.getuser()}@{socket.gethostname()}", ME),
        ):
            output = output.replace(there, shown)
        lines = output.replace("\ufeff", "").strip("\n").splitlines()
        return [line.rstrip() for line in lines if not PROGRESS.fullmatch(line.rstrip())]


@contextmanager
def open_session(folder: Path, lang: str) -> Iterator[Session]:
    """Open a session in a folder and a language, with a terminal of 100 columns."""
    given = {
        "LANG": "zh_CN.UTF-8" if lang == "zh" else "C.UTF-8",
        "LC_COLLATE": "C",  # ls sorts alike whether or not the locale above is installed
        "COLUMNS": "100",
        "LOGNAME": ME.partition("@")[0],
        "TCB_OPS_CHROMIUM": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    before = dict(os.environ)
    os.environ.update(given)
    try:
        with chdir(folder):
            session = Session(folder, lang)
            try:
                yield session
            finally:
                session.end()
    finally:
        set_default_settings(None)
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Difference:
    """An output that differs from the page."""

    start: int
    end: int
    shown: list[str]
    actual: list[str]
    what: str


def play(page: Path, folder: Path, lang: str) -> list[Difference]:
    """Run a page; return the outputs that differ from it."""
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    different: list[Difference] = []

    def compare(what: str, shown: list[str], actual: list[str], start: int, indent: str) -> None:
        session.learn_runs(shown, actual)
        if not agrees(shown, actual):
            new = [f"{indent}{line}".rstrip() for line in shortened(shown, session.shown_runs(actual))]
            different.append(Difference(start, start + len(shown), shown, new, what))

    with open_session(folder, lang) as session:
        for number, block in enumerate(found):
            below = found[number + 1] if number + 1 < len(found) else None
            match block.kind:
                case "console":
                    for command in commands(block):
                        actual = session.type(command.line)
                        compare(command.line, command.shown, actual, command.start, block.indent)
                case "python":
                    actual = session.python(session.here("\n".join(block.lines)))
                    touching = below is not None and below.kind == "text" and below.start <= block.end + 4
                    if below is not None and touching:
                        compare(block.lines[-1], below.lines, actual, below.start, below.indent)
                case "toml" if not block.caption:
                    tomllib.loads("\n".join(block.lines))
            if block.caption:
                (folder / block.caption).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.caption).write_text(
                    session.here("\n".join(block.lines)) + "\n", encoding="utf-8"
                )
    return different


def rewrite(page: Path, different: list[Difference]) -> None:
    """Write the actual outputs into a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for each in reversed(different):
        lines[each.start : each.end] = each.actual
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")

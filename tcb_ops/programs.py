"""An operator's programs that print a secret, and secrets named in a setting.

Programs run without a shell and with a deadline, and are killed with their children. Their stderr is not read, since
it may contain a secret.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from tcb_ops import shell
from tcb_ops.details import DetailCode, detail
from tcb_ops.disk import open_regular
from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.system_errors import raise_if_exhausted, system_reason
from tcb_ops.wechat.tokens import LONGEST_TOKEN

LARGEST_OUTPUT = 64 * 1024
"""Bytes, as for a token server's response."""
COMMAND_SECONDS = 30
_CANNOT_BE_RUN = {126, 127}
"""A shell's exit codes for a program that is not executable, and for one that is missing."""

Running = set[subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class NoOutput:
    """The result of a program that failed."""

    reason: Text
    """A verb phrase."""
    transient: bool = True
    """The program did not complete, so another attempt may succeed."""


def in_folder(command: Sequence[str], folder: Path | None) -> list[str]:
    """Return a command whose program, if it is a relative path, is in `folder`; None: the working folder."""
    program, *arguments = command
    has_folder = os.path.dirname(program)  # noqa: PTH120  Path drops the folder of ./program
    return [str(folder / program) if folder and has_folder else program, *arguments]


def run_program(
    words: Sequence[str], environment: Mapping[str, str], running: Running, folder: Path | None = None
) -> bytes | NoOutput:
    """Run a program in a folder and return its output, or why there is none. Lists it in `running` meanwhile. Blocks."""
    end = time.monotonic() + COMMAND_SECONDS
    try:
        program = subprocess.Popen(  # noqa: S603  the operator's own program, an argument list, no shell
            in_folder(words, folder),
            cwd=folder,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        return NoOutput(detail(DetailCode.NOT_STARTED, why=system_reason(error)))
    running.add(program)
    try:
        return _output(program, end)
    finally:
        running.discard(program)


def _output(program: subprocess.Popen[bytes], end: float) -> bytes | NoOutput:
    printed: SimpleQueue[bytes] = SimpleQueue()
    assert program.stdout is not None  # noqa: S101  it was asked for
    # A thread, since not every system can wait for a pipe with a timeout, and a child may keep it open.
    Thread(target=_read, args=(program.stdout, printed), daemon=True).start()
    try:
        text = printed.get(timeout=COMMAND_SECONDS)
        too_much = len(text) > LARGEST_OUTPUT
        code = None if too_much else program.wait(max(0.0, end - time.monotonic()))
    except (Empty, subprocess.TimeoutExpired):
        too_much, code = False, None
    if code is None:  # not waited for yet, so its PID cannot have been reused
        kill(program)
        program.wait()
        if too_much:
            return NoOutput(detail(DetailCode.PRINTED_TOO_MUCH), transient=False)
        return NoOutput(detail(DetailCode.NO_OUTPUT, command_seconds=COMMAND_SECONDS))
    if code < 0:
        return NoOutput(detail(DetailCode.ENDED_BY_SIGNAL, value=-code))
    if code:
        reason = detail(DetailCode.EXIT_CODE, code=code)
        return NoOutput(reason, transient=code in _CANNOT_BE_RUN)
    return text


def _read(pipe: IO[bytes], printed: SimpleQueue[bytes]) -> None:
    text = b""
    with pipe:
        while len(text) <= LARGEST_OUTPUT and (chunk := pipe.read(LARGEST_OUTPUT)):
            text += chunk
    printed.put(text)


def kill(program: subprocess.Popen[bytes]) -> None:
    """Kill a program and, on POSIX, its children, which may keep its pipes open after it has ended."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret of the platform, read whenever it is needed: `env:NAME`, `file:PATH` or `command:PROGRAM …`."""

    setting: str
    """Its name, such as `tokens.secret`, for messages."""
    kind: str
    where: str
    folder: Path | None = None
    """Where a program runs; None: the working folder."""
    _running: Running = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def named(cls, setting: str, value: str, folder: Path | None = None) -> Credential:
        """Parse a setting. Raises SettingsError if it is empty or its variable or file does not exist."""
        kind, _colon, where = (part.strip() for part in value.partition(":"))
        if not where:
            text = _(
                "{setting} is missing: say where the secret is, as env:NAME, file:PATH or command:PROGRAM."
            )
            raise SettingsError(text.format(setting=setting))
        credential = cls(setting, kind, where, folder)
        if kind != "command":  # a program may be slow, so it runs only when its secret is needed
            credential._read()
        return credential

    async def read(self) -> Secret:
        """Read the secret. Raises SettingsError, which names its location but never its value."""
        return await asyncio.to_thread(self._read)

    def close(self) -> None:
        """Kill programs that still run."""
        for program in tuple(self._running):
            kill(program)

    def _read(self) -> Secret:
        try:
            text = self._text().strip()
        except OSError as error:
            raise_if_exhausted(error)
            raise self._bad(_("cannot be read ({why})", why=system_reason(error))) from None
        if not text:
            raise self._bad(_("is empty or not set"))
        if len(text) > LONGEST_TOKEN or not (text.isascii() and text.isprintable()):
            raise self._bad(_("contains characters that no secret or ticket has"))
        return Secret(text)

    def _text(self) -> str:
        if self.kind == "env":
            return os.environ.get(self.where, "")
        if self.kind == "file":
            with open_regular(Path(self.where)) as opened:
                return opened.read(LONGEST_TOKEN * 2).decode("utf-8-sig", "replace")
        try:
            printed = run_program(shell.split(self.where), os.environ, self._running, self.folder)
        except ValueError:
            printed = NoOutput(_("cannot be started (its quotes do not match)"))
        if isinstance(printed, NoOutput):
            raise self._bad(printed.reason)
        return printed.decode("utf-8", "replace")

    def _bad(self, reason: Text) -> SettingsError:
        # Of a program only the name: an argument may be a secret.
        where = f"{self.kind}:{self.where.split()[0] if self.kind == 'command' else self.where}"
        text = _("{setting}: {where} {why}. Correct that first.")
        return SettingsError(text.format(setting=self.setting, where=where, why=reason))

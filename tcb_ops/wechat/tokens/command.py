"""Running a program of the operator's own for what it prints."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.resources import raise_if_exhausted
from tcb_ops.wechat.tokens.token import Token, read_token, token_fingerprint

LARGEST_OUTPUT = 64 * 1024
"""Bytes: as much as a token server's answer may have."""

_CANNOT_BE_RUN = {126, 127}
"""A shell's exit codes for a program that is not executable, and one that is missing."""


@dataclass(frozen=True, slots=True)
class NoOutput:
    """What a program did instead of printing and ending with 0."""

    did: Text
    """A verb phrase."""
    transient: bool = True
    """It did not run to its end, so that it has said nothing of what it was asked for."""


def output_of(
    words: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    running: set[subprocess.Popen[bytes]],
) -> bytes | NoOutput:
    """What a program printed, or what it did instead. It stands in `running` for as long as it runs.

    One that takes too long or prints without end is ended with all it has started. What it says on stderr may hold a
    secret, and is not read.
    """
    end = time.monotonic() + seconds
    try:
        program = subprocess.Popen(  # noqa: S603  the operator's own program, an argument list, no shell
            words,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        why = getattr(error, "strerror", None) or "no such thing can be run"
        return NoOutput(Text(f"cannot be started ({why})", f"无法启动（{why}）"))
    running.add(program)
    try:
        return _said(program, end, seconds)
    finally:
        running.discard(program)


def _said(program: subprocess.Popen[bytes], end: float, seconds: float) -> bytes | NoOutput:
    printed: SimpleQueue[bytes] = SimpleQueue()
    assert program.stdout is not None  # noqa: S101  it was asked for
    # A thread, since a pipe cannot be waited for with a time everywhere, and a child may hold it open for ever.
    Thread(target=_read, args=(program.stdout, printed), daemon=True).start()
    try:
        text = printed.get(timeout=seconds)
        too_much = len(text) > LARGEST_OUTPUT
        code = None if too_much else program.wait(max(0.0, end - time.monotonic()))
    except (Empty, subprocess.TimeoutExpired):
        too_much, code = False, None
    if code is None:  # not waited for yet, so its number is still its own
        kill(program)
        program.wait()
        if too_much:
            return NoOutput(Text("printed more than 64 KB", "输出超过 64 KB"), transient=False)
        return NoOutput(Text(f"gave no answer in {seconds:g} s", f"在 {seconds:g} 秒内没有结果"))
    if code < 0:
        return NoOutput(Text(f"was ended by signal {-code}", f"被信号 {-code} 终止"))
    if code:
        did = Text(f"ended with exit code {code}", f"以退出码 {code} 结束")
        return NoOutput(did, transient=code in _CANNOT_BE_RUN)
    return text


def _read(pipe: IO[bytes], printed: SimpleQueue[bytes]) -> None:
    text = b""
    with pipe:
        while len(text) <= LARGEST_OUTPUT and (chunk := pipe.read(LARGEST_OUTPUT)):
            text += chunk
    printed.put(text)


def kill(program: subprocess.Popen[bytes]) -> None:
    """End a program and, on POSIX, its children, which may hold its pipes open when it has ended itself."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()


COMMAND_SECONDS = 30
PROGRAMS_AT_ONCE = 8
MAKES_ROOM_AFTER = 2.0
"""Seconds after which a program that still runs makes room for another merchant's: some may hang for all their time."""


class CommandTokens:
    """`source = "command"`: a program that prints JSON, like the credential processes of cloud command lines.

    `{appid}` in an argument is replaced; where no argument has it, the appid is the last argument. The program also
    sees TCB_OPS_APPID and, after a refusal, TCB_OPS_REFUSED (the first 12 hex digits of the refused token's SHA-256).
    It prints `{"access_token": "…", "expires_in": 7200}` (or `expires_at`, Unix seconds) and exits 0.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        if not command:
            raise SettingsError(
                Text(
                    'tokens.command is empty: name the program, e.g. command = ["get-token", "{appid}"].',
                    'tokens.command 为空：请写上程序，例如 command = ["get-token", "{appid}"]。',
                )
            )
        self._command = command if any("{appid}" in word for word in command) else (*command, "{appid}")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._room = asyncio.Semaphore(PROGRAMS_AT_ONCE)
        # So many run together where every one hangs.
        most = int(PROGRAMS_AT_ONCE * COMMAND_SECONDS / MAKES_ROOM_AFTER)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="tcb-ops-token")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Run the program for one appid."""
        loop = asyncio.get_running_loop()
        async with self._room:
            run = loop.run_in_executor(self._threads, self._run, appid, refused)
            try:
                await asyncio.wait([run], timeout=MAKES_ROOM_AFTER)
            except asyncio.CancelledError:
                run.cancel()
                raise
        return await run

    async def aclose(self) -> None:
        """End what still runs: in a session of its own, no Ctrl-C reaches it, and the process would wait for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for program in tuple(self._running):
            kill(program)

    def _run(self, appid: str, refused: Secret | None) -> Token:
        program = self._command[0]
        environment = {**os.environ, "TCB_OPS_APPID": appid}
        if refused is not None:
            environment["TCB_OPS_REFUSED"] = token_fingerprint(refused)
        words = [word.replace("{appid}", appid) for word in self._command]
        printed = output_of(words, environment, COMMAND_SECONDS, self._running)
        if isinstance(printed, NoOutput):
            raise _no_token(program, appid, printed)
        # What it printed is never shown: it may be the token.
        read = read_token(printed, time.time())
        if isinstance(read, Token):
            return read
        did = Text(f"printed {read.en}", f"输出了{read.zh}")
        raise _no_token(program, appid, NoOutput(did, transient=False))


def _no_token(program: str, appid: str, none: NoOutput) -> TokenError:
    return TokenError.of(
        appid,
        lambda appid: Text(
            f"the token program {program} {none.did.en} for {appid}: run it by hand to see why.",
            f"token 程序 {program} 对 {appid} {none.did.zh}：请手动运行它查看原因。",
        ),
        transient=none.transient,
    )

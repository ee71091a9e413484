"""`source = "command"`: a program of the operator's own that knows the tokens."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.model import Text
from tcb_ops.platform.tokens.program import NoOutput, kill, output_of
from tcb_ops.platform.tokens.token import Token, mark_of, read_token

if TYPE_CHECKING:
    import subprocess

    from tcb_ops.model import Secret

__all__ = ["CommandTokens"]

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
            environment["TCB_OPS_REFUSED"] = mark_of(refused)
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
    return TokenError(
        Text(
            f"the token program {program} {none.did.en} for {appid}: run it by hand to see why.",
            f"token 程序 {program} 对 {appid} {none.did.zh}：请手动运行它查看原因。",
        ),
        transient=none.transient,
    )

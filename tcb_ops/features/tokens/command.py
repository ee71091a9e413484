"""`source = "command"`: an operator's program that prints tokens."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tcb_ops.details import detail
from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.features.programs.credentials import (
    COMMAND_SECONDS,
    NoOutput,
    Running,
    in_folder,
    kill,
    run_program,
)
from tcb_ops.features.tokens import TokenCode
from tcb_ops.features.tokens.answers import read_token, token_fingerprint
from tcb_ops.i18n import _
from tcb_ops.model import Secret
from tcb_ops.settings import Settings
from tcb_ops.wechat.tokens import Token

PROGRAMS_AT_ONCE = 8
MAKES_ROOM_AFTER = 2.0
"""Seconds after which a running program no longer counts towards PROGRAMS_AT_ONCE: some may hang."""


def command_tokens(settings: Settings) -> CommandTokens:
    """Return the token source of the settings. Raises SettingsError without a command."""
    return CommandTokens(settings.tokens.command, settings.folder_of("tokens.command"))


class CommandTokens:
    """The token source for `source = "command"`: a program that prints a token as JSON.

    `{appid}` in an argument is replaced; without it, the appid is added as the last argument. The program's
    environment has TCB_OPS_APPID and, after a refusal, TCB_OPS_REFUSED (the first 12 hex digits of the refused
    token's SHA-256). It prints `{"access_token": "…", "expires_in": 7200}` (or `expires_at`, Unix seconds) and exits
    with 0. It runs in `folder`; None: the working folder.
    """

    def __init__(self, command: tuple[str, ...], folder: Path | None = None) -> None:
        if not command:
            text = _('tokens.command is empty: give the program, e.g. command = ["get-token", "{{appid}}"].')
            raise SettingsError(text)
        self._folder = folder
        self._command = command if any("{appid}" in word for word in command) else (*command, "{appid}")
        self._running: Running = set()
        self._room = asyncio.Semaphore(PROGRAMS_AT_ONCE)
        # The maximum running at once if all of them hang.
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
        """Kill running programs: Ctrl-C does not reach their sessions, and this process would wait for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for program in tuple(self._running):
            kill(program)

    def _run(self, appid: str, refused: Secret | None) -> Token:
        environment = {**os.environ, "TCB_OPS_APPID": appid}
        if refused is not None:
            environment["TCB_OPS_REFUSED"] = token_fingerprint(refused)
        words = [word.replace("{appid}", appid) for word in self._command]
        printed = run_program(words, environment, self._running, self._folder)
        if not isinstance(printed, NoOutput):
            # The output is never shown: it may be the token.
            read = read_token(printed, time.time())
            if isinstance(read, Token):
                return read
            printed = NoOutput(detail(TokenCode.PRINTED, read=read), transient=False)
        program, reason = in_folder(self._command, self._folder)[0], printed.reason
        text = detail(TokenCode.TOKEN_PROGRAM, program=program, reason=reason)
        raise TokenError.of(appid, text, transient=printed.transient)

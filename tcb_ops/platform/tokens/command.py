"""`source = "command"`: a program of the operator's own that knows the tokens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.model import Text
from tcb_ops.platform.tokens.program import kill, output_of
from tcb_ops.platform.tokens.token import Token, mark_of, read_token

if TYPE_CHECKING:
    from tcb_ops.model import Secret

__all__ = ["CommandTokens"]

COMMAND_SECONDS = 30
PROGRAMS_AT_ONCE = 8


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
        self._threads = ThreadPoolExecutor(PROGRAMS_AT_ONCE, thread_name_prefix="tcb-ops-token")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Run the program for one appid."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, appid, refused)

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
        try:
            words = [word.replace("{appid}", appid) for word in self._command]
            code, printed = output_of(words, environment, COMMAND_SECONDS, self._running)
        except subprocess.TimeoutExpired:
            raise _no_token(
                program, appid, f"gave no answer in {COMMAND_SECONDS} s", f"在 {COMMAND_SECONDS} 秒内没有结果"
            ) from None
        except OSError as error:
            why = error.strerror or "cannot be started"
            raise _no_token(program, appid, f"cannot be started ({why})", f"无法启动（{why}）") from None
        if code:
            raise _no_token(program, appid, f"ended with exit code {code}", f"以退出码 {code} 结束")
        # What it printed is never shown: it may be the token.
        read = read_token(printed, time.time())
        if isinstance(read, Token):
            return read
        raise _no_token(program, appid, f"printed {read.en}", f"输出了{read.zh}")


def _no_token(program: str, appid: str, en: str, zh: str) -> TokenError:
    return TokenError(
        Text(
            f"the token program {program} {en} for {appid}: run it by hand to see why.",
            f"token 程序 {program} 对 {appid} {zh}：请手动运行它查看原因。",
        )
    )

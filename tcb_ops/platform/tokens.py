"""Where an appid's access token comes from.

A source answers one question, `token(appid, refused)`. `refused` is the token that the platform has just refused
(40001, 40014, 42001): a source looks again, and gives what it has; whether that differs is the caller's to see.
Sources keep no token on disk and log nothing.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import math
import os
import signal
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.model import Secret, Text

if TYPE_CHECKING:
    import _csv
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tcb_ops.settings import TokenSettings

__all__ = ["CommandTokens", "FileTokens", "Token", "TokenSource", "open_source"]

COMMAND_SECONDS = 30
PROGRAMS_AT_ONCE = 8
LONGEST_TOKEN = 4096
"""Characters; the platform's have some 200."""
LARGEST_FILE = 16 * 1024 * 1024
"""Bytes of a token file."""
SETTLED = 2.0
"""Seconds after which a file that was written to counts as whole."""
RE_READS, RE_READ_WAIT = 4, 0.5
"""How often, and after how many seconds, a file that may be half-written is read again."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and, where the source says so, its end."""

    value: Secret
    expires_at: float | None = None
    """Unix seconds."""


class TokenSource(Protocol):
    """What the engine asks for tokens."""

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Give the appid's token, looked up anew when `refused` names the one that failed. Raises TokenError."""

    async def aclose(self) -> None:
        """Let go of threads and files."""


def open_source(settings: TokenSettings) -> TokenSource:
    """Make the source that the settings name. Raises SettingsError when it cannot work at all."""
    if settings.source == "command":
        return CommandTokens(settings.command)
    return FileTokens(settings.file)


class FileTokens:
    """`source = "file"`: a CSV `appid,access_token[,expires_at]`, read again when it has changed.

    Whoever refreshes it may write it in place. So what is read again in mid-run may be half a file: its unfinished
    last line is not trusted while it is young, and what is missing or broken is waited for before it is a trouble.
    """

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._file, self._clock, self._sleep = file, clock, sleep
        self._looked: tuple[int, int, int] | None = None
        self._seen: tuple[int, int, int] | None = None
        """Of the file that `_tokens` is all of."""
        self._tokens: dict[str, Token] = {}
        self._read(trusted=True)
        self._read_at = float("-inf")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:  # noqa: ARG002  the file is looked at each time
        """Look the appid up; a stat of the file costs less than a wrong token."""
        for again in range(RE_READS + 1):
            if again:
                await self._sleep(RE_READ_WAIT)
            try:
                self._read(trusted=False, last=again == RE_READS)
            except SettingsError as error:
                trouble = error.text
                continue
            found = self._tokens.get(appid)
            if found is not None:
                return found
            trouble = Text(
                f"{self._file} has no token for {appid}: add a line for it.",
                f"{self._file} 中没有 {appid} 的 token：请为它加一行。",
            )
            if self._clock() - self._read_at >= SETTLED:
                break
        raise TokenError(trouble)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _read(self, *, trusted: bool, last: bool = False) -> None:
        """Read the file if it has changed, without its last line where that may be cut off.

        `trusted` takes it as it stands; `last` does where it has not changed since it was looked at before.
        """
        try:
            now = self._file.stat()
            if not stat.S_ISREG(now.st_mode):
                raise self._bad("cannot be read (not a regular file)", "无法读取（不是普通文件）")
            seen = (now.st_mtime_ns, now.st_size, now.st_ino)
            if seen == self._seen:
                return
            trusted = trusted or (last and seen == self._looked)
            self._seen, self._looked, self._read_at = None, seen, self._clock()
            with self._file.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise self._bad("is larger than 16 MB", "超过 16 MB")
            young = not trusted and self._read_at - now.st_mtime < SETTLED
            cut_off = young and not content.endswith((b"\n", b"\r"))
            if cut_off:
                content = content[: content.rfind(b"\n") + 1]
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._bad("is not UTF-8", "不是 UTF-8 编码") from None
        except OSError as error:
            why = error.strerror or "cannot be read"
            raise self._bad(f"cannot be read ({why})", f"无法读取（{why}）") from None
        reader = csv.reader(text.splitlines())
        try:
            self._tokens = self._parse(reader)
        except csv.Error:
            line = reader.line_num
            raise self._bad(f"line {line}: is no CSV", f"第 {line} 行：不是 CSV") from None
        if not cut_off:
            self._seen = seen

    def _parse(self, reader: _csv.Reader) -> dict[str, Token]:
        header = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in ("appid", "access_token") if name not in header]
        if missing:
            names = ", ".join(missing)
            raise self._bad(f"line 1: no column {names}", f"第 1 行：缺少列 {names}")
        at = {name: place for place, name in enumerate(header)}
        tokens: dict[str, Token] = {}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            value = {name: cells[place].strip() if place < len(cells) else "" for name, place in at.items()}
            line = reader.line_num
            if not value["appid"] or not value["access_token"]:
                raise self._bad(
                    f"line {line}: appid or access_token is empty",
                    f"第 {line} 行：appid 或 access_token 为空",
                )
            if len(value["access_token"]) > LONGEST_TOKEN:
                raise self._bad(
                    f"line {line}: the access_token is longer than {LONGEST_TOKEN} characters",
                    f"第 {line} 行：access_token 超过 {LONGEST_TOKEN} 个字符",
                )
            if not value["access_token"].isascii() or not value["access_token"].isprintable():
                raise self._bad(
                    f"line {line}: the access_token holds characters that no token has",
                    f"第 {line} 行：access_token 含有不可能出现的字符",
                )
            if value["appid"] in tokens:
                raise self._bad(
                    f"line {line}: {value['appid']} stands there twice",
                    f"第 {line} 行：{value['appid']} 重复出现",
                )
            try:
                end = _moment(value.get("expires_at", ""))
            except (ValueError, OverflowError, OSError):
                raise self._bad(
                    f"line {line}: expires_at is neither Unix seconds nor ISO 8601",
                    f"第 {line} 行：expires_at 既不是 Unix 秒也不是 ISO 8601",
                ) from None
            tokens[value["appid"]] = Token(Secret(value["access_token"]), end)
        return tokens

    def _bad(self, en: str, zh: str) -> SettingsError:
        return SettingsError(
            Text(
                f"token file {self._file}: {en}. It is a CSV with the columns appid,access_token[,expires_at].",
                f"token 文件 {self._file}：{zh}。它应是包含 appid,access_token[,expires_at] 列的 CSV。",
            )
        )


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
            _kill(program)

    def _run(self, appid: str, refused: Secret | None) -> Token:
        program = self._command[0]
        environment = {**os.environ, "TCB_OPS_APPID": appid}
        if refused is not None:
            environment["TCB_OPS_REFUSED"] = hashlib.sha256(refused.reveal().encode()).hexdigest()[:12]
        try:
            code, printed = self._output(
                [word.replace("{appid}", appid) for word in self._command], environment
            )
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
        answer = _json(printed)
        value = answer.get("access_token")
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise _no_token(
                program, appid, "printed no JSON with an access_token", "没有输出含 access_token 的 JSON"
            )
        if len(value) > LONGEST_TOKEN:
            raise _no_token(
                program,
                appid,
                f"printed an access_token longer than {LONGEST_TOKEN} characters",
                f"输出的 access_token 超过 {LONGEST_TOKEN} 个字符",
            )
        try:
            end = _end(answer, time.time())
        except (ValueError, OverflowError):
            raise _no_token(
                program, appid, "printed an expiry that is no time", "输出的到期时间无效"
            ) from None
        return Token(Secret(value), end)

    def _output(self, words: list[str], environment: dict[str, str]) -> tuple[int, bytes]:
        """A program's exit code and what it printed. One that takes too long is ended with all it has started."""
        with subprocess.Popen(  # noqa: S603  the operator's own program, an argument list, no shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=os.name == "posix",
        ) as program:
            self._running.add(program)
            try:
                printed, _ = program.communicate(timeout=COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(program)
                raise
            finally:
                self._running.discard(program)
        return program.returncode, printed


def _kill(program: subprocess.Popen[bytes]) -> None:
    """End a program and, on POSIX, its children, which may hold its pipes open when it has ended itself."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()


def _json(printed: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(printed)
    except (ValueError, RecursionError):  # its text quotes what was printed, so it goes no further
        return {}
    return answer if isinstance(answer, dict) else {}


def _end(answer: dict[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _finite(start + value)
    return None


def _moment(text: str) -> float | None:
    if not text:
        return None
    try:
        moment = float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
    return _finite(moment)


def _finite(moment: float) -> float:
    if not math.isfinite(moment):
        raise ValueError
    return moment


def _no_token(program: str, appid: str, en: str, zh: str) -> TokenError:
    return TokenError(
        Text(
            f"the token program {program} {en} for {appid}: run it by hand to see why.",
            f"token 程序 {program} 对 {appid} {zh}：请手动运行它查看原因。",
        )
    )

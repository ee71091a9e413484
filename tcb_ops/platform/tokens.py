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
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.model import Secret, Text

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.settings import TokenSettings

__all__ = ["CommandTokens", "FileTokens", "Token", "TokenSource", "open_source"]

COMMAND_SECONDS = 30
PROGRAMS_AT_ONCE = 8


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
    """`source = "file"`: a CSV `appid,access_token[,expires_at]`, read again when it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._read()

    async def token(self, appid: str, refused: Secret | None = None) -> Token:  # noqa: ARG002  the file is looked at each time
        """Look the appid up; a stat of the file costs less than a wrong token."""
        try:
            self._read()
        except SettingsError as error:
            raise TokenError(error.text) from None
        found = self._tokens.get(appid)
        if found is None:
            raise TokenError(
                Text(
                    f"{self._file} has no token for {appid}: add a line for it.",
                    f"{self._file} 中没有 {appid} 的 token：请为它加一行。",
                )
            )
        return found

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _read(self) -> None:
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            text = self._file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._bad("is not UTF-8", "不是 UTF-8 编码") from None
        except OSError as error:
            why = error.strerror or "cannot be read"
            raise self._bad(f"cannot be read ({why})", f"无法读取（{why}）") from None
        self._tokens = self._parse(text)
        self._seen = seen

    def _parse(self, text: str) -> dict[str, Token]:
        reader = csv.reader(text.splitlines())
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
            except ValueError:
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
        self._threads = ThreadPoolExecutor(PROGRAMS_AT_ONCE, thread_name_prefix="tcb-ops-token")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Run the program for one appid."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, appid, refused)

    async def aclose(self) -> None:
        """Let running programs end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, appid: str, refused: Secret | None) -> Token:
        program = self._command[0]
        environment = {**os.environ, "TCB_OPS_APPID": appid}
        if refused is not None:
            environment["TCB_OPS_REFUSED"] = hashlib.sha256(refused.reveal().encode()).hexdigest()[:12]
        try:
            done = subprocess.run(  # noqa: S603  the operator's own program, an argument list, no shell
                [word.replace("{appid}", appid) for word in self._command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMMAND_SECONDS,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _no_token(
                program, appid, f"gave no answer in {COMMAND_SECONDS} s", f"在 {COMMAND_SECONDS} 秒内没有结果"
            ) from None
        except OSError as error:
            why = error.strerror or "cannot be started"
            raise _no_token(program, appid, f"cannot be started ({why})", f"无法启动（{why}）") from None
        if done.returncode:
            raise _no_token(
                program, appid, f"ended with exit code {done.returncode}", f"以退出码 {done.returncode} 结束"
            )
        # What it printed is never shown: it may be the token.
        answer = _json(done.stdout)
        value = answer.get("access_token")
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise _no_token(
                program, appid, "printed no JSON with an access_token", "没有输出含 access_token 的 JSON"
            )
        return Token(Secret(value), _end(answer, time.time()))


def _json(printed: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(printed)
    except ValueError:  # its text quotes what was printed, so it goes no further
        return {}
    return answer if isinstance(answer, dict) else {}


def _end(answer: dict[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return start + value
    return None


def _moment(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _no_token(program: str, appid: str, en: str, zh: str) -> TokenError:
    return TokenError(
        Text(
            f"the token program {program} {en} for {appid}: run it by hand to see why.",
            f"token 程序 {program} 对 {appid} {zh}：请手动运行它查看原因。",
        )
    )

"""`source = "file"`: a CSV of tokens that another program keeps up to date."""

from __future__ import annotations

import _csv
import asyncio
import csv
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import SettingsError, TokenError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.resources import raise_if_exhausted, system_reason
from tcb_ops.wechat.tokens import LONGEST_TOKEN, Token, finite, is_token

LARGEST_FILE = 16 * 1024 * 1024
"""Bytes of a token file."""
SETTLED = 2.0
"""Seconds since its last modification after which a file counts as complete."""
RE_READS, RE_READ_WAIT = 4, 0.5
"""How many times, and after how many seconds, a possibly incomplete file is read again."""


class FileTokens:
    """The token source for `source = "file"`: a CSV `appid,access_token[,expires_at]`, read again after each change.

    Another program may write it in place, so it may be incomplete when read during a run: a missing or invalid token is
    reported only after reading again. Of a token that was cut off the platform's refusal has it read again.
    """

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._file, self._clock, self._sleep = file, clock, sleep
        self._seen: tuple[int, int, int] | None = None
        """Stat of the file that `_tokens` was read from completely."""
        self._tokens: dict[str, Token] = {}
        self._problems: dict[str, Text] = {}
        """The problem of a merchant's line, by appid."""
        self._line = 0
        """The number of the last line that was read."""
        try:
            self._read()
        except SettingsError as error:
            if file.exists():
                raise
            simulator = _("To rehearse without tokens: add --target simulator.")
            raise SettingsError(error.text, simulator) from None
        self._read_at = float("-inf")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:  # noqa: ARG002  the file is checked at each call
        """Return the appid's token; read the file again if it has changed."""
        problem: Text | None = None
        for again in range(RE_READS + 1):
            if again:
                await self._sleep(RE_READ_WAIT)
            try:
                self._read()
            except SettingsError as error:
                problem, transient = error.text, True
                continue
            token = self._tokens.get(appid)
            if token is not None:
                return token
            transient = False
            problem = self._problems.get(appid)
            if self._clock() - self._read_at >= SETTLED:
                break
        if problem is not None:
            raise TokenError(problem, transient=transient)
        raise TokenError.of(appid, detail(DetailCode.TOKEN_MISSING, file=self._file))

    def tokens(self) -> Mapping[str, Token]:
        """Return the tokens by appid, the same mapping until the file changes. Raises SettingsError if it is unusable."""
        self._read()
        return self._tokens

    def expired(self) -> list[str]:
        """Return the appids whose tokens have expired by the file."""
        now = self._clock()
        return [
            appid
            for appid, token in self._tokens.items()
            if token.expires_at is not None and token.expires_at <= now
        ]

    async def aclose(self) -> None:
        """Do nothing: no file is kept open."""

    def _read(self) -> None:
        try:
            now = self._file.stat()
            if not stat.S_ISREG(now.st_mode):
                raise self._bad(detail(DetailCode.NOT_A_FILE))
            stamp = (now.st_mtime_ns, now.st_size, now.st_ino)
            if stamp == self._seen:
                return
            self._seen, self._read_at = None, self._clock()
            with self._file.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise self._bad(detail(DetailCode.OVER_16_MB))
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._bad(detail(DetailCode.NOT_UTF_8)) from None
        except OSError as error:
            raise_if_exhausted(error)
            raise self._bad(detail(DetailCode.CANNOT_BE_READ, why=system_reason(error))) from None
        reader = csv.reader(text.splitlines(keepends=True), strict=True)
        self._line = 0
        try:
            self._tokens, self._problems = self._parse(reader)
        except csv.Error:
            line = self._line + 1  # the reader has reached the end of the file
            raise self._bad(detail(DetailCode.LINE_NO_CSV, line=line)) from None
        self._seen = stamp

    def _parse(self, reader: _csv.Reader) -> tuple[dict[str, Token], dict[str, Text]]:
        header = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in ("appid", "access_token") if name not in header]
        if missing:
            raise self._bad(detail(DetailCode.NO_COLUMN, names=", ".join(missing)))
        tokens: dict[str, Token] = {}
        problems: dict[str, Text] = {}
        self._line = reader.line_num
        for cells in reader:
            self._line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            value = dict(zip(header, map(str.strip, cells), strict=False))
            appid, line = value.get("appid", ""), reader.line_num
            if not appid:
                raise self._bad(detail(DetailCode.LINE_NO_APPID, line=line))
            read = _token_of(value.get("access_token", ""), value.get("expires_at", ""))
            if appid in tokens or appid in problems:
                read = detail(DetailCode.APPID_TWICE)
            if isinstance(read, Token):
                tokens[appid] = read
                continue
            tokens.pop(appid, None)
            # Without the appid: in a line that lacks a cell it may be the token.
            problems[appid] = self._bad(detail(DetailCode.LINE, line=line, read=read)).text
        if problems and not tokens:
            raise SettingsError(next(iter(problems.values())))
        return tokens, problems

    def _bad(self, reason: Text) -> SettingsError:
        return SettingsError(detail(DetailCode.TOKEN_FILE, file=self._file, why=reason))


def _token_of(token: str, expires_at: str) -> Token | Text:
    if not is_token(token):
        return detail(DetailCode.NO_TOKEN, longest_token=LONGEST_TOKEN)
    try:
        try:
            moment = finite(float(expires_at)) if expires_at else None
        except ValueError:  # also for NaN, which is no ISO 8601 either
            moment = datetime.fromisoformat(expires_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return detail(DetailCode.EXPIRES_AT)
    return Token(Secret(token), moment)

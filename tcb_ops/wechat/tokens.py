"""Sources of access tokens: a file, which is here, a program, a token server, or the platform itself.

A source has one method, `token(appid, refused)`. `refused` is the token that the platform has just refused (40001,
40014, 42001): the source looks the token up again, and the caller checks whether the result differs. Only `component`
stores tokens on disk; no source logs anything.
"""

from __future__ import annotations

import csv
import json
import math
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import SettingsError, TokenError, needed
from tcb_ops.hooks import TokenHooks, TokenSource
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.settings import Settings
from tcb_ops.system_errors import raise_if_exhausted, system_reason

_decode = msgspec.json.Decoder().decode
LONGEST_TOKEN = 4096
"""Characters; the platform's tokens (api_authorizer_token, api_component_token) have about 200, and at most 512."""
LARGEST_FILE = 16 * 1024 * 1024
"""Bytes of a token file."""
SETTLED = 2.0
"""Seconds since its last modification after which a file counts as complete."""
RE_READS, RE_READ_WAIT = 4, 0.5
"""How many times, and after how many seconds, a possibly incomplete file is read again."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and, if known, when it expires."""

    value: Secret
    expires_at: float | None = None
    """Unix seconds."""
    renew_at: float | None = None
    """Unix seconds from which the source has a newer one; None if the source does not renew tokens in advance."""


def open_source(settings: Settings) -> TokenSource:
    """Create the token source named in the settings. Raises SettingsError if its settings are incomplete or invalid."""
    tokens = settings.tokens
    if tokens.source == "file":
        return FileTokens(tokens.file)
    return needed(TokenHooks).sources[tokens.source](settings)


def is_token(value: object) -> TypeGuard[str]:
    """Return whether a value is a valid token: printable ASCII of limited length."""
    return (
        isinstance(value, str) and 0 < len(value) <= LONGEST_TOKEN and value.isascii() and value.isprintable()
    )


def read_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty one if the text is anything else."""
    # The errors quote the text, so they are not passed on. Deep nesting raises RecursionError.
    try:
        payload = _decode(text)
    except (ValueError, RecursionError):
        # Slower, and takes a byte order mark and half of an emoji, too.
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            return {}
    return payload if isinstance(payload, dict) else {}


def finite(moment: float) -> float:
    """Return the argument. Raises ValueError for NaN and infinity."""
    if not math.isfinite(moment):
        raise ValueError
    return moment


# --- a file ---------------------------------------------------------------------------------------------------------


class FileTokens:
    """The token source for `source = "file"`: a CSV `appid,access_token[,expires_at]`, read again after each change.

    Another program may write it in place, so it may be incomplete when read during a run: a missing or invalid token is
    reported only after reading again. Of a token that was cut off the platform's refusal has it read again.
    """

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        self._file, self._clock, self._sleep = file, clock, sleep
        self._seen: tuple[int, int, int] | None = None
        """Stat of the file that `_tokens` was read from completely."""
        self._tokens: dict[str, Token] = {}
        self._problems: dict[str, Text] = {}
        """The problem of a merchant's line, by appid."""
        try:
            self._read()
        except SettingsError as error:
            if file.exists():
                raise
            simulator = _("To rehearse without tokens: add {--target:simulator}.")
            raise SettingsError(error.text, simulator) from None
        self._read_at = float("-inf")

    async def token(self, appid: str, refused: Secret | None = None) -> Token:  # noqa: ARG002  the file is checked at each call
        """Return the appid's token; read the file again if it has changed."""
        problem: Text | None = None
        for again in range(RE_READS + 1):
            if again:
                import asyncio

                await (self._sleep or asyncio.sleep)(RE_READ_WAIT)
            try:
                self._read()
            except SettingsError as error:
                problem, transient = error.text, True
                continue
            if (token := self._tokens.get(appid)) is not None:
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
                raise self._bad(_("cannot be read (not a regular file)"))
            stamp = (now.st_mtime_ns, now.st_size, now.st_ino)
            if stamp == self._seen:
                return
            self._seen, self._read_at = None, self._clock()
            with self._file.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise self._bad(_("is larger than 16 MB"))
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._bad(_("is not UTF-8: save it as UTF-8")) from None
        except OSError as error:
            raise_if_exhausted(error)
            raise self._bad(detail(DetailCode.CANNOT_BE_READ, why=system_reason(error))) from None
        self._tokens, self._problems = self._parse(text)
        self._seen = stamp

    def _lines(self, text: str) -> Iterator[tuple[int, list[str]]]:
        reader, line = csv.reader(text.splitlines(keepends=True), strict=True), 0
        try:
            for cells in reader:
                line = reader.line_num
                yield line, [cell.strip() for cell in cells]
        except csv.Error:  # the reader has reached the end of the file
            reason = _("line {line}: not valid CSV (an unclosed quotation mark?)", line=line + 1)
            raise self._bad(reason) from None

    def _parse(self, text: str) -> tuple[dict[str, Token], dict[str, Text]]:
        lines = self._lines(text)
        header = [name.lower() for name in next(lines, (0, list[str]()))[1]]
        if missing := [name for name in ("appid", "access_token") if name not in header]:
            raise self._bad(_("line 1: no column {names}", names=", ".join(missing)))
        tokens: dict[str, Token] = {}
        problems: dict[str, Text] = {}
        for line, cells in lines:
            if not any(cells):
                continue
            value = dict(zip(header, cells, strict=False))
            if not (appid := value.get("appid", "")):
                raise self._bad(_("line {line}: the appid is empty", line=line))
            read = _token_of(value.get("access_token", ""), value.get("expires_at", ""))
            if appid in tokens or appid in problems:
                read = _("the appid appears twice")
            if isinstance(read, Token):
                tokens[appid] = read
                continue
            tokens.pop(appid, None)
            # Without the appid: in a line that lacks a cell it may be the token.
            problems[appid] = self._bad(_("line {line}: {read}", line=line, read=read)).text
        if problems and not tokens:
            raise SettingsError(next(iter(problems.values())))
        return tokens, problems

    def _bad(self, reason: Text) -> SettingsError:
        return SettingsError(detail(DetailCode.TOKEN_FILE, file=self._file, why=reason))


def _token_of(token: str, expires_at: str) -> Token | Text:
    if not is_token(token):
        return _(
            "the access_token is empty, longer than {longest_token} characters, or has characters that no token has",
            longest_token=LONGEST_TOKEN,
        )
    try:
        try:
            moment = finite(float(expires_at)) if expires_at else None
        except ValueError:  # also for NaN, which is no ISO 8601 either
            moment = datetime.fromisoformat(expires_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return _("expires_at is neither Unix seconds nor ISO 8601")
    return Token(Secret(token), moment)

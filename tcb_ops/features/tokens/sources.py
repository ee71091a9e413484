"""Token sources beside the file: an operator's program that prints tokens, and the company's token server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tcb_ops.details import detail
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError, TransportFault
from tcb_ops.features.tokens import TokenCode
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.programs import (
    COMMAND_SECONDS,
    NoOutput,
    Running,
    in_folder,
    kill,
    run_program,
)
from tcb_ops.settings import Settings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.tokens import LONGEST_TOKEN, Token, finite, is_token, read_object
from tcb_ops.wechat.transport import HttpRequest, Timeouts

PROGRAMS_AT_ONCE = 8
MAKES_ROOM_AFTER = 2.0
"""Seconds after which a running program no longer counts towards PROGRAMS_AT_ONCE: some may hang."""
AT_ONCE = 64
"""Maximum requests at once; the timeout of the others starts later."""
TIMEOUTS = Timeouts(connect=4, answer=6)
LARGEST_ANSWER = 64 * 1024


def token_fingerprint(refused: Secret) -> str:
    """Return the first 12 hex digits of a token's SHA-256, which identify a refused token to a source."""
    return hashlib.sha256(refused.reveal().encode()).hexdigest()[:12]


def read_token(answer: bytes, now: float) -> Token | Text:
    """Read a token from `{"access_token": "…", "expires_in": 7200}` (or `expires_at`, Unix seconds).

    If it is invalid, return a noun phrase that describes it and quotes nothing, since the text may contain the token.
    """
    payload = read_object(answer)
    value = payload.get("access_token")
    if not is_token(value):
        return detail(TokenCode.NO_ACCESS_TOKEN, longest_token=LONGEST_TOKEN)
    try:
        return Token(Secret(value), _end(payload, now))
    except (ValueError, OverflowError):
        return detail(TokenCode.NO_EXPIRY)


def _end(answer: Mapping[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return finite(start + value)
    return None


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


def service_tokens(settings: Settings) -> ServiceTokens:
    """Return the token source of the settings. Raises SettingsError that names a missing one."""
    tokens = settings.tokens
    if not tokens.url:
        text = _(
            "tokens.url is missing: set it to the address of the token server, e.g. "
            '"https://tokens.example.com/{{appid}}".'
        )
        raise SettingsError(text)
    headers = {}
    if tokens.auth_env:
        value = os.environ.get(tokens.auth_env, "").strip()
        if not value or not value.isascii() or not value.isprintable():
            text = _(
                "The environment variable {auth_env} (tokens.auth_env) is not set, or is not a valid "
                "header value: it must contain the value that the token server expects in {auth_header}."
            )
            raise SettingsError(text.format(auth_env=tokens.auth_env, auth_header=tokens.auth_header))
        headers[tokens.auth_header] = Secret(value)
    return ServiceTokens(tokens.url, headers)


class ServiceTokens:
    """The token source for `source = "service"`: requests an appid's token by `GET URL`.

    Args:
        url: with `{appid}` as the placeholder; https, except on loopback.
        headers: sent with each request, including the server's secret.
        timeouts: of one request.

    """

    def __init__(self, url: str, headers: Mapping[str, Secret], *, timeouts: Timeouts = TIMEOUTS) -> None:
        self._url, self._headers, self._timeouts = url, dict(headers), timeouts
        self._host = urlsplit(url).netloc
        self._transport: SingleTransport | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Request the token; the caller decides whether to try again."""
        headers = {"Accept": "application/json"} | {n: v.reveal() for n, v in self._headers.items()}
        if refused is not None:
            headers["X-Tcb-Refused"] = token_fingerprint(refused)
        request = HttpRequest("GET", self._url.replace("{appid}", quote(appid, safe="")), headers)
        try:
            async with self._room:
                if self._transport is None:
                    self._transport = SingleTransport(connections=AT_ONCE, timeouts=self._timeouts)
                response = await self._transport.send(request)
        except TransportError as error:
            if error.fault is TransportFault.UNREACHABLE:
                away = detail(TokenCode.SERVICE_AWAY, host=self._host, why=error.text)
                raise TokenSourceError(away, transient=True) from None
            silent = detail(TokenCode.SERVICE_SILENT, host=self._host, why=error.text)
            raise TokenError.of(appid, silent, transient=True) from None
        return read_service_response(response, appid, self._host, time.time())

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None


def read_service_response(response: HttpResponse, appid: str, host: str, now: float) -> Token:
    """Return the token in a response of the token server.

    =======================================  =======================================
    answer                                   result
    =======================================  =======================================
    2xx, JSON with an access_token           the token
    2xx, anything else, or more than 64 KB   TokenError
    401, 403                                 TokenSourceError
    404                                      TokenError
    3xx, which is not followed               TokenError
    5xx, 408, 429                            TokenError, transient
    any other status                         TokenError
    =======================================  =======================================
    """
    status = response.status
    if status in {401, 403}:
        raise TokenSourceError(detail(TokenCode.SERVICE_CREDENTIALS, host=host, status=status))
    if 200 <= status < 300:
        too_much = len(response.body) > LARGEST_ANSWER
        read = detail(TokenCode.TOO_MUCH) if too_much else read_token(response.body, now)
        if isinstance(read, Token):
            return read
        reason = detail(TokenCode.ANSWERED_WITH, read=read)
    elif status == 404:
        reason = detail(TokenCode.ANSWERED_404)
    elif 300 <= status < 400:
        reason = detail(TokenCode.ANSWERED_REDIRECT, status=status)
    else:
        reason = detail(TokenCode.ANSWERED_STATUS, status=status)
    may_pass = status >= 500 or status in {408, 429}
    raise TokenError.of(appid, detail(TokenCode.SERVICE_NO_TOKEN, host=host, why=reason), transient=may_pass)

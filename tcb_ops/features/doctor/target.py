"""Checks over the network: the target, its clock, the token source, and `doctor --live`."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tcb_ops.errcodes import errcode, store_code
from tcb_ops.errors import OutageError, SettingsError, TcbOpsError, TokenError, TransportError, TransportFault
from tcb_ops.features.doctor.report import CheckResult, Grade, from_error, skipped
from tcb_ops.features.merchants.check import Issue
from tcb_ops.features.merchants.queries import ask
from tcb_ops.i18n import NOTHING, Text, _, ngettext
from tcb_ops.model import Link, Merchant, Owner, Secret, is_loopback
from tcb_ops.resources import system_reason
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_source
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.cos import StoredObject, StoreRefusal, Unconfirmed, etag_verdict, post_object
from tcb_ops.wechat.local_files import open_file
from tcb_ops.wechat.responses import (
    NOT_THERE,
    ApiError,
    HttpResponse,
    InvalidResponse,
    Quota,
    UnsafeLink,
    own_file_id,
    read_response,
)
from tcb_ops.wechat.tokens import Token, TokenSource
from tcb_ops.wechat.transport import Timeouts, Transport

QUICK = Timeouts(connect=4, answer=4)
"""Short, because a user is waiting."""
TOKEN_SECONDS = 8.0
"""Seconds for the token source, and again for the call with its token."""
TRIED = 3
"""Merchants to try until one has a token."""
SKEWED, WRONG = 60, 300
"""Clock difference in seconds for a warning and a failure: links expire after about 15 minutes (getUploadTcbFileLink)."""
_CERTIFICATES = _("Check the files that SSL_CERT_FILE and SSL_CERT_DIR name.")


def check_target(settings: Settings) -> list[CheckResult]:
    """Call the target without a token, which uses no quota, and compare its clock with this machine's. Blocks."""
    target = urlsplit(settings.api_base)
    host = target.hostname or ""
    proxied = (
        target.scheme in urllib.request.getproxies_environment()
        and not is_loopback(host)
        and not urllib.request.proxy_bypass(host)
    )
    unknown = None if proxied else _unknown_host(host, target.port or 443)
    if unknown is not None:
        return [unknown]
    try:
        began_at, seconds, response = submit_coroutine(_reach(settings)).result()
    except TransportError as error:
        return [from_error("target", error)]
    except OSError as error:  # ssl does not name the file that it could not read
        cause = system_reason(error)
        seen = _("TLS cannot be set up: {cause}", cause=cause)
        return [CheckResult("target", Grade.BAD, seen, _CERTIFICATES)]
    found = read_response(response, ())
    if isinstance(found, InvalidResponse):
        why = _("{api_base}: {why}", api_base=settings.api_base, why=found.why)
        return [from_error("target", TransportError(TransportFault.GARBAGE, why))]
    seen = _(
        "{api_base} responded as expected in {seconds:.0f} ms",
        api_base=settings.api_base,
        seconds=seconds * 1000,
    )
    if proxied:
        seen = _("{seen}, through the proxy of the environment", seen=seen)
    offset = clock_offset(response.headers.get("date", ""), began_at, seconds)
    return [CheckResult("target", Grade.OK, seen), check_clock(offset)]


def _unknown_host(host: str, port: int) -> CheckResult | None:
    """Return a bad result if the host name cannot be resolved.

    Resolved in the check's own thread, which is abandoned if the name server does not respond.
    """
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        seen = _("the host name {host} is not known", host=host)
        fix = _("Check api_base for a typing mistake, then this machine's DNS and network.")
        return CheckResult("target", Grade.BAD, seen, fix)
    return None


async def _reach(settings: Settings) -> tuple[float, float, HttpResponse]:
    """Return the start of the call (Unix seconds), its duration in seconds, and the response."""
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        began_at, began = time.time(), time.perf_counter()
        response = await client.probe()
        return began_at, time.perf_counter() - began, response


def clock_offset(date: str, began_at: float, seconds: float) -> float | None:
    """Return the seconds that the target's clock is ahead of this machine's; None without a usable Date.

    A Date is cut to whole seconds, and was written about the middle of the exchange.
    """
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp() + 0.5 - (began_at + seconds / 2)
    return None


def check_clock(offset: float | None) -> CheckResult:
    """Grade the difference between the target's clock and this machine's; `offset` is in seconds."""
    if offset is None:
        return skipped("clock", _("the target's response has no Date"))
    apart = abs(offset)
    if apart < 1.5:
        return CheckResult("clock", Grade.OK, _("matches the target's, within about a second"))
    seen = (
        _("this machine is {seconds:,.0f} s behind the target", seconds=apart)
        if offset > 0
        else _("this machine is {seconds:,.0f} s ahead of the target", seconds=apart)
    )
    if apart <= SKEWED:
        return CheckResult("clock", Grade.OK, seen)
    fix = _(
        "Synchronize the clock with a time server (chrony, systemd-timesyncd): tokens and links expire, links "
        "after about 15 minutes."
    )
    return CheckResult("clock", Grade.WARNING if apart <= WRONG else Grade.BAD, seen, fix)


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """An account whose token is tried."""

    appid: str
    name: str
    owner: Owner

    @property
    def label(self) -> str:
        """Name and appid, for display."""
        return f"{self.name} ({self.appid})" if self.name else self.appid


def first_token_owners(merchants: Sequence[Merchant], component_appid: str) -> list[TokenOwner]:
    """Return whose tokens to try: the first merchants that have not left, or the platform if all lines are its own."""
    there = [m for m in merchants if not m.left]
    own = {m.appid: m.name for m in reversed(there) if m.owner is Owner.MERCHANT}
    appids = list(dict.fromkeys(m.appid for m in there if m.owner is Owner.MERCHANT))
    if appids:
        return [TokenOwner(appid, own[appid], Owner.MERCHANT) for appid in appids[:TRIED]]
    return [TokenOwner(component_appid, "component", Owner.PLATFORM)] if there else []


def check_tokens(
    settings: Settings, owners: Sequence[TokenOwner], *, reached: bool, seconds: float = TOKEN_SECONDS
) -> list[CheckResult]:
    """Check that the token source has a token, and that the target accepts it from this machine. Blocks.

    Uses the first owner that has a token. The call is openapi/quota/get, a read, which returns 61004 if this machine's
    address is not allowed. `seconds` limits the source, and then the call.
    """
    unreached = skipped("address", _("the target could not be reached"))
    if settings.tokens.source == "component" and not reached:
        why = _("the target, which provides them, could not be reached")
        return [skipped("tokens", why), unreached]
    results = submit_coroutine(
        _try(settings, open_source(settings), owners, seconds, reached=reached)
    ).result()
    return results if reached else [*results, unreached]


async def _try(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner], seconds: float, *, reached: bool
) -> list[CheckResult]:
    try:
        if not owners:
            return [skipped("tokens", _("no merchant to request a token for"))]
        if not owners[0].appid:
            return [from_error("tokens", TokenError(NO_COMPONENT))]
        try:
            async with asyncio.timeout(seconds):
                owner, found = await _first_token(settings, source, owners)
        except TimeoutError:
            kind = settings.tokens.source
            slow = _(
                "the source ({kind}) returned no token within {seconds:.0f} s", kind=kind, seconds=seconds
            )
            fix = _("Check whether it works by itself, and why it is slow.")
            return [CheckResult("tokens", Grade.BAD, slow, fix)]
        except TcbOpsError as error:
            return [from_error("tokens", error)]
        if owner is None or not reached:
            return [found]
        try:
            async with asyncio.timeout(seconds):
                return [found, await _call(settings, source, owner)]
        except (TcbOpsError, TimeoutError) as error:
            if isinstance(error, TcbOpsError):  # 61004 and other errors that affect every merchant
                return [found, from_error("address", error)]
            slow = _("no response for {label} within {seconds:.0f} s", label=owner.label, seconds=seconds)
            return [found, from_error("address", OutageError(slow))]
    finally:
        await source.aclose()


async def _first_token(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner]
) -> tuple[TokenOwner | None, CheckResult]:
    """Return the first owner with a token. Owners before it without one are a warning: a run would skip their rows."""
    lacking: list[TokenError] = []
    for owner in owners:
        try:
            token = await source.token(owner.appid)
        except TokenError as error:
            lacking.append(error)
            continue
        if lacking:
            return owner, replace(from_error("tokens", lacking[0]), grade=Grade.WARNING)
        return owner, _describe_token(settings.tokens.source, token, owner.label, time.time())
    return None, from_error("tokens", lacking[0])


def _describe_token(source: str, token: Token, owner: str, now: float) -> CheckResult:
    left = None if token.expires_at is None else token.expires_at - now
    if left is not None and left <= 0:
        seen = _("{source}: the token for {owner} has expired", source=source, owner=owner)
        return CheckResult("tokens", Grade.WARNING, seen, _("Check the program that refreshes it."))
    seen = _("{source}: has a token for {owner}", source=source, owner=owner)
    if left is not None:
        seen = _("{seen}, valid for another {minutes} min", seen=seen, minutes=f"{left / 60:,.0f}")
    return CheckResult("tokens", Grade.OK, seen)


async def _call(settings: Settings, source: TokenSource, owner: TokenOwner) -> CheckResult:
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        caller = Caller(source, CallLimits(attempts=1))
        found = await ask(caller, owner.appid, partial(client.quota, owner=owner.owner), owner.owner)
    if not isinstance(found, Issue):
        seen = _("calls from this machine are accepted (queried the quota of {label})", label=owner.label)
        return CheckResult("address", Grade.OK, seen)
    if found.errcode is None:
        return CheckResult("address", Grade.BAD, found.meaning, found.action)
    seen = _(
        "calls from this machine are accepted, but {label} is refused: errcode {code} {meaning}",
        label=owner.label,
        code=found.code,
        meaning=found.meaning,
    )
    fix = _("{action} `tcb-ops merchants check` checks every merchant.", action=found.action)
    return CheckResult("address", Grade.WARNING, seen, fix)


_TIMEOUTS = Timeouts(connect=10, answer=20)
_LIMITS = CallLimits(attempts=3, backoff=0.5, slow_wait=5, patience=10)
DELETE_WAITS = (0.0, 1.0, 2.0)
"""Seconds before each attempt to delete the object."""

Found = TypeVar("Found")


@dataclass(slots=True)
class LiveResult:
    """The result of the live check. Its steps, in order: link, upload, confirm, content_type, delete, quota."""

    env: str
    path: str
    steps: list[CheckResult] = field(default_factory=list)
    left_behind: str = ""
    """The file_id of an object that could not be deleted."""

    @property
    def ok(self) -> bool:
        """Whether every step succeeded and nothing is left behind."""
        return all(step.grade is Grade.OK for step in self.steps) and not self.left_behind


def start_live_check(settings: Settings, merchant: Merchant) -> Future[LiveResult]:
    """Start the check in a merchant's environment. Do not cancel it: wait, so that the object is deleted.

    Raises SettingsError immediately; the result raises TcbOpsError for an error before anything is stored.
    """
    appid = merchant.appid if merchant.owner is Owner.MERCHANT else settings.tokens.component_appid
    if not appid:
        raise SettingsError(NO_COMPONENT)
    return submit_coroutine(_check(settings, appid, merchant))


async def _check(settings: Settings, appid: str, merchant: Merchant) -> LiveResult:
    source = open_source(settings)
    try:
        async with Transport(connections=4, timeouts=_TIMEOUTS) as transport:
            check = _LiveCheck(settings, Caller(source, _LIMITS), transport, appid, merchant)
            await check.run()
            return check.result
    finally:
        await source.aclose()


class _Failed(TcbOpsError):  # noqa: N818  ends a step, and is not raised further
    """A step failed; with what was seen and what to do."""


class _LiveCheck:
    """The steps of the live check; each returns what was seen, or raises a TcbOpsError."""

    def __init__(
        self, settings: Settings, caller: Caller, transport: Transport, appid: str, merchant: Merchant
    ) -> None:
        name = secrets.token_hex(16)
        self.result = LiveResult(merchant.env, f"tcb-ops-doctor/{name}.svg")
        text = f'<svg xmlns="http://www.w3.org/2000/svg"><title>tcb-ops doctor {name}</title></svg>\n'
        self._content = text.encode()
        self._env, self._path = self.result.env, self.result.path
        self._appid, self._owner = appid, merchant.owner
        self._caller, self._transport = caller, transport
        self._client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
        self._stored: bool | None = False
        """None if it is unknown whether the store has the object."""
        self._served_as = ""

    async def run(self) -> None:
        try:
            link = await self._link()
        except _Failed as failed:
            self._add("link", Grade.BAD, failed.problem, failed.fix)
            return
        try:
            await self._step("upload", self._upload(link))
            if self._stored and await self._step("confirm", self._confirm(link)):
                with suppress(TcbOpsError):  # for information only
                    self._add("content_type", Grade.OK, await self._compare_types(link))
        finally:
            if self._stored is not False:
                await self._step("delete", self._delete(link))
        with suppress(TcbOpsError):
            await self._add_quota()

    async def _step(self, name: str, step: Awaitable[Text]) -> bool:
        """Run a step and add its result; return whether it succeeded."""
        try:
            self._add(name, Grade.OK, await step)
        except TcbOpsError as failed:
            self._add(name, Grade.BAD, failed.problem, failed.fix)
            return False
        return True

    def _add(self, name: str, grade: Grade, seen: Text, fix: Text | None = None) -> None:
        self.result.steps.append(CheckResult(name, grade, seen, fix))

    async def _ask(self, request: Callable[[Secret], Awaitable[Found | ApiError | InvalidResponse]]) -> Found:
        found = await ask(self._caller, self._appid, request, self._owner)
        if isinstance(found, Issue):
            code = f"errcode {found.code}: " if found.errcode is not None else ""
            raise _Failed(_("{code}{meaning}", code=code, meaning=found.meaning), found.action)
        return found

    async def _link(self) -> Link:
        """Request a link. Errors that concern every merchant are raised: nothing was stored."""

        async def request(token: Secret) -> Link | UnsafeLink | ApiError | InvalidResponse:
            return await self._client.upload_link(self._env, self._path, token, self._owner)

        link: Link | UnsafeLink = await self._ask(request)
        if isinstance(link, UnsafeLink):
            raise _Failed(link.why)
        lifetime = link.expires_at - link.starts_at
        self._add("link", Grade.OK, _("valid for {lifetime} s", lifetime=lifetime))
        return link

    async def _post(self, link: Link, content_type: str) -> StoredObject | StoreRefusal | Unconfirmed:
        """Upload the file as a run does: open it, compare it with its plan, post it."""
        with tempfile.TemporaryDirectory(prefix="tcb-ops-doctor-") as folder:
            file = Path(folder) / "file.svg"
            file.write_bytes(self._content)
            planned = file.stat()
            body = open_file(file, planned.st_size, planned.st_mtime_ns)
            return await post_object(self._transport, link, self._path, body, content_type)

    async def _upload(self, link: Link) -> Text:
        self._stored = None
        answer = await self._post(link, "image/svg+xml")
        status = answer.http_status
        if isinstance(answer, Unconfirmed):
            why = answer.why
            raise _Failed(_("No confirmation from the store. {why}", why=why))
        if isinstance(answer, StoreRefusal):
            # A refusal by COS itself is certain; after a gateway's response the store may have the object.
            self._stored = False if answer.code and status < 500 else None
            known = store_code(answer.code, answer.message, status)
            why = _(
                "The store refused it: HTTP {status} {code}. {meaning}",
                status=status,
                code=answer.code,
                meaning=known.meaning,
            )
            raise _Failed(why, known.action)
        self._stored = True
        etag = {
            "same": _("its ETag is the file's MD5"),
            "different": _("but its ETag is a different MD5"),
            "unverified": _("its ETag is not an MD5, so the content cannot be verified"),
        }
        verdict = etag_verdict(answer.etag, answer.md5)
        seen = _("HTTP {status}, {etag}", status=status, etag=etag[verdict])
        if verdict == "different":
            raise _Failed(seen)
        return seen

    async def _confirm(self, link: Link) -> Text:
        """Fetch the object back and compare it with the file."""
        sent = len(self._content)
        try:
            response = await self._fetch(link)
        except TcbOpsError as failed:
            why = failed.problem
            raise _Failed(_("Could not be fetched back. {why}", why=why), failed.fix) from None
        if response.status != 200 or response.body != self._content:
            size = len(response.body)
            raise _Failed(
                _(
                    "HTTP {status}, {bytes} instead of the {sent} that were sent.",
                    status=response.status,
                    bytes=ngettext("{n:,} byte", "{n:,} bytes", size),
                    sent=sent,
                )
            )
        self._served_as = response.headers.get("content-type", "")
        return _("the same {bytes}", bytes=ngettext("{n:,} byte", "{n:,} bytes", sent))

    async def _compare_types(self, link: Link) -> Text:
        """Upload the file again without a Content-Type; return the types served with and without it."""
        if not isinstance(await self._post(link, ""), StoredObject):
            raise _Failed(_("could not be stored again"))
        served, without = self._served_as, (await self._fetch(link)).headers.get("content-type", "")
        return _(
            "sent as image/svg+xml, served as {served}; not sent, served as {without} (an overwritten object may "
            "come from a cache)",
            served=served,
            without=without,
        )

    async def _fetch(self, link: Link) -> HttpResponse:
        ids = [own_file_id(link, self._path, self._env)]
        found = await self._ask(lambda token: self._client.locate(self._env, ids, token, self._owner))
        (file,) = found.values()
        if file.status:
            raise _Failed(_file_status("batchdownloadfile", file.status))
        response = await self._client.fetch(file.url)
        if isinstance(response, UnsafeLink):
            raise _Failed(response.why)
        return response

    async def _delete(self, link: Link) -> Text:
        """Delete the object, in several attempts."""
        file_id = own_file_id(link, self._path, self._env)
        why = NOTHING
        for wait in DELETE_WAITS:
            await asyncio.sleep(wait)
            try:
                await self._delete_once(file_id)
            except TcbOpsError as error:
                why = error.problem if isinstance(error, _Failed) else error.text
            else:
                return _("nothing is left there")
        self.result.left_behind = file_id
        raise _Failed(
            _("Could not be deleted. {why}", why=why),
            _("Delete it in the console of environment {env}: {path}", env=self._env, path=self._path),
        )

    async def _delete_once(self, file_id: str) -> None:
        ids = [file_id]
        found = await self._ask(lambda token: self._client.delete(self._env, ids, token, self._owner))
        (file,) = found.values()
        if file.status and (file.status != NOT_THERE or self._stored):
            raise _Failed(_file_status("batchdeletefile", file.status))

    async def _add_quota(self) -> None:
        """Add how many link calls are left today, if the platform has a limit."""
        quota: Quota = await self._ask(lambda token: self._client.quota(token, self._owner))
        if quota.left is not None:
            seen = _(
                "{left:,} of {daily_limit:,} link calls left today",
                left=quota.left,
                daily_limit=quota.daily_limit,
            )
            self._add("quota", Grade.OK, seen)


def _file_status(interface: str, status: int) -> Text:
    known = errcode(status)
    return _(
        "{interface}: errcode 0, but the file's own status is {status} ({meaning})",
        interface=interface,
        status=status,
        meaning=known.meaning,
    )

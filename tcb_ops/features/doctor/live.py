"""`doctor --live`: what a run does with one file, and deleting it again."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tcb_ops.checks import Grade
from tcb_ops.errcodes import errcode, store_code
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.features.doctor.report import CheckResult
from tcb_ops.features.merchants.check import Issue
from tcb_ops.features.merchants.queries import ask
from tcb_ops.i18n import NOTHING, Text, _, ngettext
from tcb_ops.model import Link, Merchant, Owner, Secret
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
    UnsafeLink,
    own_file_id,
)
from tcb_ops.wechat.transport import Timeouts, Transport

_TIMEOUTS = Timeouts(connect=10, answer=20)
_LIMITS = CallLimits(attempts=3, backoff=0.5, slow_wait=5, patience=10)
DELETE_WAITS = (0.0, 1.0, 2.0)
"""Seconds before each attempt to delete the object."""

_STEPS = {
    "link": _("link"),
    "upload": _("upload"),
    "confirm": _("fetch back"),
    "delete": _("delete"),
}
Found = TypeVar("Found")


@dataclass(slots=True)
class LiveResult:
    """The result of the live check. Its steps, in order: link, upload, confirm, delete."""

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

    async def run(self) -> None:
        try:
            link = await self._link()
        except _Failed as failed:
            self._add("link", Grade.BAD, failed.problem, failed.fix)
            return
        try:
            await self._step("upload", self._upload(link))
            if self._stored:
                await self._step("confirm", self._confirm(link))
        finally:
            if self._stored is not False:
                await self._step("delete", self._delete(link))

    async def _step(self, name: str, step: Awaitable[Text]) -> None:
        """Run a step and add its result."""
        try:
            self._add(name, Grade.OK, await step)
        except TcbOpsError as failed:
            self._add(name, Grade.BAD, failed.problem, failed.fix)

    def _add(self, name: str, grade: Grade, seen: Text, fix: Text | None = None) -> None:
        self.result.steps.append(CheckResult(name, _STEPS[name], grade, seen, fix))

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

    async def _post(self, link: Link) -> StoredObject | StoreRefusal | Unconfirmed:
        """Upload the file as a run does: open it, compare it with its plan, post it."""
        with tempfile.TemporaryDirectory(prefix="tcb-ops-doctor-") as folder:
            file = Path(folder) / "file.svg"
            file.write_bytes(self._content)
            planned = file.stat()
            body = open_file(file, planned.st_size, planned.st_mtime_ns)
            return await post_object(self._transport, link, self._path, body, "image/svg+xml")

    async def _upload(self, link: Link) -> Text:
        self._stored = None
        answer = await self._post(link)
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
        return _("the same {bytes}", bytes=ngettext("{n:,} byte", "{n:,} bytes", sent))

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


def _file_status(interface: str, status: int) -> Text:
    known = errcode(status)
    return _(
        "{interface}: errcode 0, but the file's own status is {status} ({meaning})",
        interface=interface,
        status=status,
        meaning=known.meaning,
    )

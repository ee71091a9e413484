"""`doctor --live`: upload one tiny file for real, fetch it back, compare and delete it, with the code that a run uses.

Whatever fails in between, the object is deleted in the end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tcb_ops.doctor.check_result import CheckResult, Grade
from tcb_ops.errcodes import errcode, store_code
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.i18n import Text
from tcb_ops.merchants.check import ask
from tcb_ops.merchants.status import Issue
from tcb_ops.model import Link, Merchant, Owner, Secret
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import COMPONENT_UPLOADS, UPLOADS, PlatformClient
from tcb_ops.wechat.cos import StoredObject, StoreRefusal, Unconfirmed, etag_verdict, post_object
from tcb_ops.wechat.local_files import open_file
from tcb_ops.wechat.responses import NOT_THERE, ApiError, InvalidResponse, Quota, UnsafeLink
from tcb_ops.wechat.tokens import open_source
from tcb_ops.wechat.transport import HttpResponse, Timeouts, Transport

_TIMEOUTS = Timeouts(connect=10, answer=20)
_LIMITS = CallLimits(attempts=3, backoff=0.5, slow_wait=5, patience=10)
_SVG = "image/svg+xml"

Found = TypeVar("Found")


@dataclass(slots=True)
class LiveResult:
    """The steps that were made, in their order: link, upload, confirm, content_type, delete, quota."""

    env: str
    path: str
    steps: list[CheckResult] = field(default_factory=list)
    left_behind: str = ""
    """The file_id of an object that could not be deleted."""

    @property
    def ok(self) -> bool:
        """Whether every step succeeded, and nothing is left behind."""
        return all(step.grade is Grade.OK for step in self.steps) and not self.left_behind


def start_live_check(settings: Settings, merchant: Merchant) -> Future[LiveResult]:
    """Start the check in a merchant's environment. Do not cancel it: wait, so that the object is deleted.

    Raises SettingsError at once; the result raises TcbOpsError for what stops it before anything is stored.
    """
    appid = merchant.appid if merchant.owner is Owner.MERCHANT else settings.tokens.component_appid
    if not appid:
        raise SettingsError(NO_COMPONENT)
    return hand_over(_check(settings, appid, merchant))


async def _check(settings: Settings, appid: str, merchant: Merchant) -> LiveResult:
    source = open_source(settings)
    try:
        async with Transport(connections=4, timeouts=_TIMEOUTS) as transport:
            check = _LiveCheck(settings, Caller(source, _LIMITS), transport, appid, merchant)
            await check.run()
            return check.result
    finally:
        await source.aclose()


class _Failed(Exception):  # noqa: N818  ends a step, nothing else
    """Why a step failed, and what to do."""

    def __init__(self, seen: Text, fix: Text | None = None) -> None:
        super().__init__(seen.en)
        self.seen, self.fix = seen, fix


class _LiveCheck:
    """The steps, one after the other; each notes how it went."""

    def __init__(
        self, settings: Settings, caller: Caller, transport: Transport, appid: str, merchant: Merchant
    ) -> None:
        name = secrets.token_hex(16)
        self.result = LiveResult(merchant.env, f"tcb-ops-doctor/{name}.svg")
        self._content = (
            f'<svg xmlns="http://www.w3.org/2000/svg"><title>tcb-ops doctor {name}</title></svg>\n'.encode()
        )
        self._appid, self._owner = appid, merchant.owner
        self._caller, self._transport = caller, transport
        self._client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)

    async def run(self) -> None:
        link = await self._link()
        if link is None:
            return
        stored = refused = False
        try:
            outcome = await self._upload(link)
            stored, refused = isinstance(outcome, StoredObject), isinstance(outcome, StoreRefusal)
            served = await self._confirm(link) if stored else None
            if served is not None:
                with suppress(_Failed, TcbOpsError):  # only a question
                    await self._compare_types(link, served)
        finally:
            trouble = await self._delete(link, stored=stored)
            if trouble is None:
                self._passed("delete", Text("nothing is left there", "没有遗留"))
            elif not refused:  # where the store took nothing, there is nothing to delete
                self._left(link, trouble)
        with suppress(_Failed, TcbOpsError):
            await self._quota()

    def _passed(self, name: str, seen: Text) -> None:
        self.result.steps.append(CheckResult(name, Grade.OK, seen))

    def _failed(self, name: str, seen: Text, fix: Text | None = None) -> None:
        self.result.steps.append(CheckResult(name, Grade.BAD, seen, fix))

    async def _ask(self, request: Callable[[Secret], Awaitable[Found | ApiError | InvalidResponse]]) -> Found:
        found = await ask(self._caller, self._appid, request, self._owner)
        if isinstance(found, Issue):
            code = f"errcode {found.code}: " if found.errcode is not None else ""
            raise _Failed(Text(f"{code}{found.meaning.en}", f"{code}{found.meaning.zh}"), found.action)
        return found

    async def _link(self) -> Link | None:
        """Ask for a link. A refusal for everybody, no token at all, no host: nothing was stored, and it is raised."""
        env, path = self.result.env, self.result.path

        async def request(token: Secret) -> Link | UnsafeLink | ApiError | InvalidResponse:
            return await self._client.upload_link(env, path, token, self._owner)

        try:
            found: Link | UnsafeLink = await self._ask(request)
        except _Failed as failed:
            why = failed.seen
            self._failed("link", Text(f"No link. {why.en}", f"没有取到链接。{why.zh}"), failed.fix)
            return None
        if isinstance(found, UnsafeLink):
            self._failed("link", found.why)
            return None
        lifetime = found.expires_at - found.starts_at
        self._passed("link", Text(f"valid for {lifetime} s", f"有效 {lifetime} 秒"))
        return found

    async def _post(self, link: Link, content_type: str) -> StoredObject | StoreRefusal | Unconfirmed:
        """Upload the file as a run does: opened, compared with its plan, posted."""
        with tempfile.TemporaryDirectory(prefix="tcb-ops-doctor-") as folder:
            file = Path(folder) / "file.svg"
            file.write_bytes(self._content)
            planned = file.stat()
            body = open_file(file, planned.st_size, planned.st_mtime_ns)
            return await post_object(self._transport, link, self.result.path, body, content_type)

    async def _upload(self, link: Link) -> StoredObject | StoreRefusal | None:
        """Upload the file; return what the store is known to have done."""
        try:
            found = await self._post(link, _SVG)
        except TcbOpsError as error:
            self._failed("upload", error.problem, error.fix)
            return None
        if isinstance(found, Unconfirmed):
            why = found.why
            text = Text(f"No confirmation from the store. {why.en}", f"未得到存储的确认。{why.zh}")
            self._failed("upload", text)
            return None
        status = found.http_status
        if isinstance(found, StoreRefusal):
            known = store_code(found.code, found.message, status)
            text = Text(
                f"The store refused it: HTTP {status} {found.code}. {known.meaning.en}",
                f"存储拒绝：HTTP {status} {found.code}。{known.meaning.zh}",
            )
            self._failed("upload", text, known.action)
            return found
        match etag_verdict(found.etag, found.md5):
            case "same":
                etag = Text("its ETag is the file's MD5", "ETag 与文件的 MD5 一致")
            case "unverified":
                etag = Text(
                    "its ETag is no MD5, so it cannot confirm the content", "ETag 不是 MD5，无法据此核对内容"
                )
            case "different":
                other = Text("but its ETag is another MD5", "但 ETag 是另一个 MD5")
                self._failed("upload", Text(f"HTTP {status}, {other.en}", f"HTTP {status}，{other.zh}"))
                return found
        self._passed("upload", Text(f"HTTP {status}, {etag.en}", f"HTTP {status}，{etag.zh}"))
        return found

    async def _confirm(self, link: Link) -> str | None:
        """Fetch the object back and compare; return its Content-Type, None where its content is not what was sent."""
        sent = len(self._content)
        try:
            response = await self._fetch(link)
        except _Failed as failed:
            why = failed.seen
            self._failed("confirm", Text(f"Not fetched back. {why.en}", f"未能取回。{why.zh}"), failed.fix)
            return None
        if response.status != 200 or response.body != self._content:
            text = Text(
                f"HTTP {response.status}, {len(response.body)} bytes, not the {sent} that were sent.",
                f"HTTP {response.status}，{len(response.body)} 字节，与发出的 {sent} 字节不同。",
            )
            self._failed("confirm", text)
            return None
        self._passed("confirm", Text(f"the same {sent} bytes", f"{sent} 字节，内容一致"))
        return str(response.headers.get("content-type", ""))

    async def _compare_types(self, link: Link, served: str) -> None:
        """Upload the file again without a Content-Type, and say what it is served as with and without."""
        if not isinstance(await self._post(link, ""), StoredObject):
            return
        without = (await self._fetch(link)).headers.get("content-type", "")
        self._passed(
            "content_type",
            Text(
                f"sent as {_SVG}, served as {served}; not sent, served as {without} (an overwritten object may "
                "come from a cache)",
                f"发送 {_SVG} 时返回 {served}；不发送时返回 {without}（被覆盖的对象可能来自缓存）",
            ),
        )

    async def _fetch(self, link: Link) -> HttpResponse:
        env, file_id = self.result.env, own_file_id(link, self.result.path, self.result.env)
        try:
            (found,) = await self._ask(lambda token: self._client.locate(env, [file_id], token, self._owner))
            if found.status:
                raise _Failed(_file_status("batchdownloadfile", found.status))
            response = await self._client.fetch(found.url)
        except TcbOpsError as error:
            raise _Failed(error.problem, error.fix) from None
        if isinstance(response, UnsafeLink):
            raise _Failed(response.why)
        return response

    async def _delete(self, link: Link, *, stored: bool) -> Text | None:
        """Delete the object, in up to three tries; return why it may still be there, None where it is gone."""
        trouble = None
        for wait in (0, 1, 2):
            await asyncio.sleep(wait)
            trouble = await self._delete_once(link, stored=stored)
            if trouble is None:
                break
        return trouble

    async def _delete_once(self, link: Link, *, stored: bool) -> Text | None:
        env, file_id = self.result.env, own_file_id(link, self.result.path, self.result.env)
        try:
            (found,) = await self._ask(lambda token: self._client.delete(env, [file_id], token, self._owner))
        except TcbOpsError as error:
            return error.text
        except _Failed as failed:
            return failed.seen
        gone = found.status == 0 or (found.status == NOT_THERE and not stored)
        return None if gone else _file_status("batchdeletefile", found.status)

    def _left(self, link: Link, why: Text) -> None:
        env, path = self.result.env, self.result.path
        self.result.left_behind = own_file_id(link, path, env)
        self._failed(
            "delete",
            Text(f"Not deleted. {why.en}", f"未能删除。{why.zh}"),
            Text(
                f"Delete it in the console of environment {env}: {path}",
                f"请在环境 {env} 的控制台中删除它：{path}",
            ),
        )

    async def _quota(self) -> None:
        """Say how many link calls are left today, where the platform names a limit."""
        interface = UPLOADS if self._owner is Owner.MERCHANT else COMPONENT_UPLOADS
        quota: Quota = await self._ask(lambda token: self._client.quota(token, interface))
        if quota.left is not None:
            self._passed(
                "quota",
                Text(
                    f"{quota.left:,} of {quota.daily_limit:,} link calls left today",
                    f"今日取链接调用 {quota.daily_limit:,} 次，还剩 {quota.left:,} 次",
                ),
            )


def own_file_id(link: Link, path: str, env: str) -> str:
    """Return the object's file_id: the link's where it ends in our path, so that nothing else is ever deleted."""
    if link.file_id.endswith(f"/{path}"):
        return link.file_id
    known = re.match(r"cloud://[^/]+", link.file_id)
    bucket = link.url.reveal().split("/", 4)[3]
    return f"{known[0]}/{path}" if known else f"cloud://{env}.{bucket}/{path}"


def _file_status(interface: str, status: int) -> Text:
    known = errcode(status)
    return Text(
        f"{interface}: errcode 0, but the file's own status is {status} ({known.meaning.en})",
        f"{interface}：errcode 为 0，但文件自身的状态为 {status}（{known.meaning.zh}）",
    )

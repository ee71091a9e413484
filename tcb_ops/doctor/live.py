"""One tiny file put up for real, fetched back and deleted, through the code that a run uses.

It settles what no document says (domain.md, "Could not confirm"), for this target. Whatever fails in between, the
object is deleted in the end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tcb_ops.doctor.live_result import REFRESHES, Step, Trial
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
from tcb_ops.wechat.responses import NOT_THERE, ApiError, FileStatus, InvalidResponse, UnsafeLink
from tcb_ops.wechat.tokens import TokenSource, open_source
from tcb_ops.wechat.transport import Exchange, HttpResponse, RecordingTransport, Timeouts

_PATIENT = Timeouts(connect=10, answer=20)
_LIMITS = CallLimits(attempts=3, backoff=0.5, slow_wait=5, patience=10)
_SHORTEST_SECRET = 6
"""Characters: taking out less would tear ordinary words."""
_SVG = "image/svg+xml"
_SIGNATURE = re.compile(r"(q-signature=[0-9a-f]*)([0-9a-f])$")


def begin_trial(settings: Settings, merchant: Merchant) -> Future[Trial]:
    """Begin a trial in a merchant's environment. Do not cancel it: wait, so that the object is deleted.

    Its result is the trial, also where a step failed. Raises SettingsError at once; the result raises TcbOpsError for what
    stops it before anything is stored.
    """
    appid = merchant.appid if merchant.owner is Owner.MERCHANT else settings.tokens.component_appid
    if not appid:
        raise SettingsError(NO_COMPONENT)
    source = open_source(settings)
    now = time.time()
    name = secrets.token_hex(16)
    content = f'<svg xmlns="http://www.w3.org/2000/svg"><title>tcb-ops doctor {name}</title></svg>\n'
    trial = Trial(merchant.env, merchant.owner, f"tcb-ops-doctor/{name}.svg", content.encode(), now)
    return hand_over(_run(settings, source, appid, trial))


async def _run(settings: Settings, source: TokenSource, appid: str, trial: Trial) -> Trial:
    try:
        async with RecordingTransport(connections=4, timeouts=_PATIENT) as transport:
            trial.exchanges = transport.exchanges
            await _Doing(settings, source, appid, trial, transport).everything()
    finally:
        await source.aclose()
    return trial


@dataclass(frozen=True, slots=True)
class _NotFetched:
    """Why the object was not fetched."""

    why: Text
    mend: Text | None = None


class _Doing:
    """The steps, one after the other; each notes how it went."""

    def __init__(
        self,
        settings: Settings,
        source: TokenSource,
        appid: str,
        trial: Trial,
        transport: RecordingTransport,
    ) -> None:
        self._settings, self._appid, self._trial = settings, appid, trial
        self._transport = transport
        self._caller = Caller(source, _LIMITS)
        self._wechat = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)

    async def everything(self) -> None:
        trial = self._trial
        try:
            link = await self._link()
            if link is None:
                return
            try:
                await self._upload(link)
                if trial.stored is not None:
                    await self._probe_signature(link)
                    served = await self._confirm(link)
                    if served is not None:
                        await self._compare_types(link, served)
            finally:
                await self._delete(link)
            await self._limits()
        finally:
            trial.secrets |= _in_queries(trial.exchanges)

    def _ended(self, name: str, trouble: Text, mend: Text | None = None) -> None:
        self._trial.steps.append(Step(name, good=False, seen=trouble, mend=mend))

    def _went(self, name: str, seen: Text, *, good: bool = True) -> None:
        self._trial.steps.append(Step(name, good=good, seen=seen))

    async def _link(self) -> Link | None:
        trial = self._trial

        async def request(token: Secret) -> Link | UnsafeLink | ApiError | InvalidResponse:
            return await self._wechat.upload_link(trial.env, trial.path, token, trial.owner)

        # A refusal for everybody, no token at all, nobody there: nothing was stored, and it is raised as it is.
        said: Link | UnsafeLink | Issue = await ask(self._caller, self._appid, request, trial.owner)
        if isinstance(said, Issue):
            code = f"errcode {said.code}: " if said.errcode is not None else ""
            self._ended(
                "link",
                Text(f"No link. {code}{said.meaning.en}", f"没有取到链接。{code}{said.meaning.zh}"),
                said.action,
            )
            return None
        if isinstance(said, UnsafeLink):
            self._ended("link", said.why)
            return None
        trial.link = said
        trial.secrets |= {
            said.token.reveal(),
            said.cos_file_id.reveal(),
            # The rest of the authorization, times and lists, is shown; the url is a host and our path (check_link).
            *re.findall(r"q-(?:ak|signature)=([^&]{8,})", said.authorization.reveal()),
        }
        span = said.expires_at - said.starts_at
        self._went("link", Text(f"Link: lives {span} s", f"链接：有效 {span} 秒"))
        return said

    async def _post(self, link: Link, content_type: str = _SVG) -> StoredObject | StoreRefusal | Unconfirmed:
        """Put the file up as a run does: opened, held against its plan, posted."""
        with tempfile.TemporaryDirectory(prefix="tcb-ops-doctor-") as folder:
            file = Path(folder) / "file.txt"
            file.write_bytes(self._trial.content)
            plan = file.stat()
            body = open_file(file, plan.st_size, plan.st_mtime_ns)
            return await post_object(self._transport, link, self._trial.path, body, content_type)

    async def _upload(self, link: Link) -> None:
        trial = self._trial
        try:
            said = await self._post(link)
        except TcbOpsError as error:
            self._ended("upload", error.text)
            return
        if isinstance(said, StoreRefusal):
            from tcb_ops.errcodes import store_code

            trial.refused = said
            known = store_code(said.code, said.message, said.http_status)
            self._ended(
                "upload",
                Text(
                    f"The store refused it: HTTP {said.http_status} {said.code}. {known.meaning.en}",
                    f"存储拒绝：HTTP {said.http_status} {said.code}。{known.meaning.zh}",
                ),
                known.action,
            )
            return
        if isinstance(said, Unconfirmed):
            en, zh = said.why.en, said.why.zh
            self._ended("upload", Text(f"No confirmation from the store. {en}", f"未得到存储的确认。{zh}"))
            return
        trial.stored = said
        same = etag_verdict(said.etag, said.md5)
        words = {
            "same": Text("its ETag is the file's MD5", "ETag 与文件的 MD5 一致"),
            "different": Text("but its ETag is another MD5", "但 ETag 是另一个 MD5"),
            "unverified": Text(
                "its ETag is no MD5, so bytes cannot be checked by it", "ETag 不是 MD5，无法据此核对内容"
            ),
        }[same]
        self._went(
            "upload",
            Text(
                f"Upload: HTTP {said.http_status}, {words.en}",
                f"上传：HTTP {said.http_status}，{words.zh}",
            ),
            good=same != "different",
        )

    async def _probe_signature(self, link: Link) -> None:
        """Post once more with the signature's last digit changed: the refusal quotes what the store itself signs."""
        bent = _SIGNATURE.sub(
            lambda found: f"{found[1]}{'0' if found[2] != '0' else '1'}", link.authorization.reveal()
        )
        if bent == link.authorization.reveal():
            return
        try:
            said = await self._post(replace(link, authorization=Secret(bent)))
        except TcbOpsError:
            return  # it was a question only
        self._trial.secrets.add(bent)
        if isinstance(said, StoreRefusal):
            self._trial.refused = said
            return
        if isinstance(said, Unconfirmed):
            return
        self._ended(
            "signature",
            Text(
                "The store also took a signature with a wrong digit: it does not check signatures.",
                "存储接受了被改动的签名：它不校验签名。",
            ),
        )

    async def _confirm(self, link: Link) -> str | None:
        """Fetch the object back; gives the Content-Type that it came with, None where it did not come as it was sent."""
        got = await self._fetch(link)
        sent = self._trial.content
        if isinstance(got, _NotFetched):
            self._ended("confirm", got.why, got.mend)
            return None
        if got.status != 200 or got.body != sent:
            self._ended(
                "confirm",
                Text(
                    f"Fetched back: HTTP {got.status}, {len(got.body)} bytes, not the {len(sent)} that were sent.",
                    f"取回：HTTP {got.status}，{len(got.body)} 字节，与发出的 {len(sent)} 字节不同。",
                ),
            )
            return None
        self._went(
            "confirm",
            Text(f"Fetched back: the same {len(sent)} bytes", f"取回：{len(sent)} 字节，内容一致"),
        )
        return str(got.headers.get("content-type", ""))

    async def _compare_types(self, link: Link, served: str) -> None:
        """Put the file up once more without a Content-Type, and say what it is served as with and without."""
        try:
            said = await self._post(link, "")
        except TcbOpsError:
            return  # it was a question only
        got = await self._fetch(link) if isinstance(said, StoredObject) else None
        if got is None or isinstance(got, _NotFetched):
            return
        without = got.headers.get("content-type", "")
        self._went(
            "content_type",
            Text(
                f"Content-Type: sent as {_SVG}, served as {served}; not sent, served as {without} (an overwritten object may "
                "come from a cache)",
                f"Content-Type：发送 {_SVG} 时返回 {served}；不发送时返回 {without}（被覆盖的对象可能来自缓存）",
            ),
        )

    async def _fetch(self, link: Link) -> HttpResponse | _NotFetched:
        trial, file_id = self._trial, _file_id(link, self._trial.path, self._trial.env)
        try:
            said = await ask(
                self._caller,
                self._appid,
                lambda token: self._wechat.locate(trial.env, [file_id], token, trial.owner),
                trial.owner,
            )
            if isinstance(said, Issue):
                return _NotFetched(_not_fetched(_said(said)), said.action)
            one = said[0]
            if one.status:
                return _NotFetched(_status("batchdownloadfile", one))
            got = await self._wechat.fetch(one.url)
        except TcbOpsError as error:
            return _NotFetched(_not_fetched(error.text))
        return _NotFetched(_not_fetched(got.why)) if isinstance(got, UnsafeLink) else got

    async def _delete(self, link: Link) -> None:
        trial, file_id = self._trial, _file_id(link, self._trial.path, self._trial.env)
        mend = Text(
            f"Delete it in the console of environment {trial.env}: {trial.path}",
            f"请在环境 {trial.env} 的控制台中删除它：{trial.path}",
        )
        trouble: Text | None = None
        for again in range(3):
            if again:
                await asyncio.sleep(0.5 * 2**again)
            trouble = await self._delete_once(file_id)
            if trouble is None:
                break
        if trouble is None:
            self._went("delete", Text("Deleted: nothing is left there", "已删除：没有遗留"))
            return
        if trial.stored is None and trial.refused is not None:
            return  # the store took nothing, so there is nothing to delete
        trial.left = file_id
        self._ended("delete", trouble, mend)

    async def _delete_once(self, file_id: str) -> Text | None:
        """Why the object may still be there; None where it is gone."""
        trial = self._trial
        try:
            said = await ask(
                self._caller,
                self._appid,
                lambda token: self._wechat.delete(trial.env, [file_id], token, trial.owner),
                trial.owner,
            )
        except TcbOpsError as error:
            return Text(f"Not deleted. {error.text.en}", f"未能删除。{error.text.zh}")
        if isinstance(said, Issue):
            return Text(f"Not deleted. {_said(said).en}", f"未能删除。{_said(said).zh}")
        if said[0].status not in {0, NOT_THERE} or (said[0].status == NOT_THERE and trial.stored is not None):
            return _status("batchdeletefile", said[0])
        return None

    async def _limits(self) -> None:
        """Ask what may be called how often; what is refused stays unknown."""
        uploads = UPLOADS if self._trial.owner is Owner.MERCHANT else COMPONENT_UPLOADS
        await self._quota(self._appid, uploads)
        component = self._settings.tokens.component_appid
        if component:
            await self._quota(component, REFRESHES)

    async def _quota(self, appid: str, interface: str) -> None:
        async def request(token: Secret) -> dict[str, Any] | ApiError | InvalidResponse:
            return await self._wechat.call("cgi-bin/openapi/quota/get", {"cgi_path": interface}, token)

        with suppress(TcbOpsError):
            said = await ask(self._caller, appid, request)
            self._trial.quotas[interface] = said if isinstance(said, dict) else None


def _in_queries(exchanges: Iterable[Exchange]) -> set[str]:
    """What stood in the URLs' queries: access tokens, the signatures of downloads. Times are no secrets."""
    fields = (part for one in exchanges for part in one.url.partition("?")[2].split("&"))
    values = (field.partition("=")[2] for field in fields)
    return {value for value in values if len(value) >= _SHORTEST_SECRET and not value.isdecimal()}


def _file_id(link: Link, path: str, env: str) -> str:
    """The object's file_id: the link's own where it ends in our path, so that nothing but our object is ever deleted."""
    if link.file_id.endswith(f"/{path}"):
        return link.file_id
    known = re.match(r"cloud://[^/]+", link.file_id)
    bucket = link.url.reveal().split("/", 4)[3]
    return f"{known[0]}/{path}" if known else f"cloud://{env}.{bucket}/{path}"


def _not_fetched(why: Text) -> Text:
    return Text(f"Not fetched back. {why.en}", f"未能取回。{why.zh}")


def _said(trouble: Issue) -> Text:
    code = f"errcode {trouble.code}: " if trouble.errcode is not None else ""
    return Text(f"{code}{trouble.meaning.en}", f"{code}{trouble.meaning.zh}")


def _status(interface: str, one: FileStatus) -> Text:
    from tcb_ops.errcodes import errcode

    known = errcode(one.status)
    return Text(
        f"{interface}: errcode 0, but the file's own status is {one.status} ({known.meaning.en})",
        f"{interface}：errcode 为 0，但文件自身的状态为 {one.status}（{known.meaning.zh}）",
    )

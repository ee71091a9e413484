r"""The platform's interface for upload links: getUploadTcbFileLink, `POST tcb/uploadfile`.

The access token stands in the query, the body is raw compact UTF-8 JSON (a `\uXXXX` path yields objects without a
download link), errors are HTTP 200 with an errcode and a rid. Source: the interface page; domain.md §1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import httpx

from tcb_ops.i18n import Text
from tcb_ops.model import Link, Owner, Secret, is_loopback
from tcb_ops.wechat.responses import UNPRINTABLE, InvalidResponse, Refusal, read_answer, to_json
from tcb_ops.wechat.transport import Answer, Transport
from tcb_ops.wechat.transport_errors import BROKEN, transport_failure

STORE_HOSTS = (".myqcloud.com", ".tencentcos.cn")
"""COS's own domains: `cos.<region>.myqcloud.com`, and the newer `cos.<region>.tencentcos.cn`."""

_INTERFACES = {Owner.MERCHANT: "tcb/uploadfile", Owner.PLATFORM: "componenttcb/uploadfile"}
_TOKENS_KEPT = 2048
"""Addresses with their token that are kept ready: one per merchant at work."""
_LONGEST_FIELD = 16 * 1024
"""Characters of a link's field; the longest, an encoded URL, has some 3,000."""
_LATEST = 253_402_214_400
"""9999-12-31 UTC: no time zone puts it beyond the calendar."""
_LONGEST_LIFE = 7 * 24 * 3600
"""Seconds; a real link lives 15 minutes."""

_ADDRESS = re.compile(r"(https?)://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/.*)", re.DOTALL)
_LIFE = re.compile(r"(?:^|&)q-sign-time=([0-9]{1,12});([0-9]{1,12})(?:&|$)")

_BUCKET = re.compile(r"/[0-9a-f]{4}-([^/]+)-[0-9]+/")
_FILE_ID = re.compile(r"cloud://([^./]+)\.([^/]+)/")


@dataclass(frozen=True, slots=True)
class UnsafeLink:
    """A link that must not be used."""

    why: Text


class PlatformClient:
    """Asks the platform for upload links.

    Args:
        transport: sends the requests.
        base: the target, e.g. `https://api.weixin.qq.com`; a path behind the host is kept.
        store_hosts: hosts besides COS's own that a link may lead to; a leading dot allows subdomains.

    """

    def __init__(self, transport: Transport, base: str, *, store_hosts: tuple[str, ...] = ()) -> None:
        self._transport = transport
        self._base = base.rstrip("/")
        self._store_hosts = store_hosts
        self._headers = httpx.Headers({"Content-Type": "application/json"})
        # Building a request anew costs more than sending it: 49 µs against 2 (performance.md).
        self._url = lru_cache(maxsize=_TOKENS_KEPT)(self._build_url)

    def _build_url(self, token: Secret, owner: Owner) -> httpx.URL:
        try:
            return httpx.URL(
                f"{self._base}/{_INTERFACES[owner]}?access_token={quote(token.reveal(), safe='')}"
            )
        except (httpx.InvalidURL, ValueError) as error:
            trouble = transport_failure(error) or BROKEN
        raise trouble.error(self._base.partition("://")[2].partition("/")[0].rpartition("@")[2])

    async def upload_link(
        self, env: str, path: str, token: Secret, owner: Owner = Owner.MERCHANT
    ) -> Link | Refusal | InvalidResponse | UnsafeLink:
        """Ask for the link that uploads to `path` in `env`.

        Args:
            env: the environment's id.
            path: the cloud path, the object's key.
            token: the merchant's access token; the component's where the platform owns the environment.
            owner: whose environment it is, and so which interface serves it.

        Raises:
            TransportError: no answer at all.

        """
        body = to_json({"env": env, "path": path})
        request = httpx.Request(
            "POST", self._url(token, owner), headers=self._headers, stream=httpx.ByteStream(body)
        )
        request.read()
        answer = await self._transport.send(request)
        return _read(answer, env, path, token, self._base, self._store_hosts)


def _read(
    answer: Answer, env: str, path: str, token: Secret, base: str, store_hosts: tuple[str, ...]
) -> Link | Refusal | InvalidResponse | UnsafeLink:
    """What an answer to a link call says: where it is no refusal, its fields, checked."""
    said = read_answer(answer, (token,))
    return (
        said
        if isinstance(said, Refusal | InvalidResponse)
        else _link(said, answer.status, env, path, base, store_hosts)
    )


def _link(
    said: dict[str, Any], status: int, env: str, path: str, base: str, store_hosts: tuple[str, ...]
) -> Link | InvalidResponse | UnsafeLink:
    fields = {name: _field(said.get(name)) for name in ("url", "token", "authorization", "cos_file_id")}
    missing = ", ".join(name for name, value in fields.items() if not value)
    if missing:
        why = Text(
            en=f"The platform's answer lacks {missing}; trying again may help.",
            zh=f"平台的应答缺少 {missing}，可重试。",
        )
        return InvalidResponse(status, why, retryable=True)
    file_id = _field(said.get("file_id"))
    long = ", ".join(
        name for name, value in {**fields, "file_id": file_id}.items() if len(value) > _LONGEST_FIELD
    )
    if long:
        return UnsafeLink(
            Text(
                en=f"The link's {long} is longer than 16 KB, so nothing was sent: look at what stands in between.",
                zh=f"链接的 {long} 超过 16 KB，未发送任何内容：请检查中间网关。",
            )
        )
    wrong = check_link(fields["url"], file_id, env, path, base, store_hosts)
    if wrong is not None:
        return UnsafeLink(wrong)
    life = _LIFE.search(fields["authorization"])
    if life is None:
        return UnsafeLink(
            Text(
                en="The link's authorization has no q-sign-time, so it is not COS's signature.",
                zh="链接的 authorization 中没有 q-sign-time，不是 COS 的签名。",
            )
        )
    start, end = int(life[1]), int(life[2])
    if not start <= end <= min(start + _LONGEST_LIFE, _LATEST):
        return UnsafeLink(
            Text(
                en="The link's q-sign-time is no span of at most 7 days, so it is not COS's signature.",
                zh="链接的 q-sign-time 不是 7 天以内的时间段，不是 COS 的签名。",
            )
        )
    return Link(
        url=Secret(fields["url"]),
        token=Secret(fields["token"]),
        authorization=Secret(fields["authorization"]),
        file_id=file_id,
        cos_file_id=Secret(fields["cos_file_id"]),
        expires_at=end,
        starts_at=start,
    )


def _field(value: object) -> str:
    """A field's text; empty where it is none, or holds what no link holds."""
    if isinstance(value, str) and (value.isprintable() or not UNPRINTABLE.search(value)):
        return value
    return ""


def check_link(
    link_url: str, file_id: str, env: str, path: str, base: str, store_hosts: tuple[str, ...]
) -> Text | None:
    """Why a link must not be used; None where it may be.

    ==============================================  =====================================
    the link                                        verdict
    ==============================================  =====================================
    not http or https, user info, an odd host       refused
    loopback host under a loopback base             host, scheme and port are not looked at
    http                                            refused
    a port other than 443                           refused
    a host that is neither COS's nor allowed        refused
    `/<bucket>/<path>`, as it stands                good
    `/<bucket>/<path>`, percent-decoded once        good
    any other path, a query, a fragment             refused
    the bucket or file_id of another environment    refused
    ==============================================  =====================================

    The bucket is the one in file_id (`cloud://<env>.<bucket>/<path>`); where file_id is not of that form, any one
    segment will do. An environment's bucket is `<4 hex>-<env>-<Tencent appid>`; of any other form it names none.
    The text never holds the link. Source: domain.md §1.1.
    """
    stranger = check_host(link_url, base, store_hosts)
    if stranger is not None:
        return stranger
    host, target = _parts(link_url)
    if not _is_for(target, file_id, path):
        return Text(
            en=f"The link at {host} is for another path than the one asked for, so nothing was sent to it.",
            zh=f"{host} 的链接对应的路径与请求的不一致，未向其发送任何内容。",
        )
    if not _envs_named(target, file_id) <= {env}:
        return Text(
            en=f"The link at {host} is for another environment than {env}, so nothing was sent to it.",
            zh=f"{host} 的链接属于另一个环境，而不是 {env}，未向其发送任何内容。",
        )
    return None


def _envs_named(target: str, file_id: str) -> set[str]:
    """The environments that a link names: in the bucket of its request target, and in its file_id."""
    bucket = _BUCKET.match(target)
    owner = _FILE_ID.match(file_id)
    return {found[1] for found in (bucket, owner) if found is not None}


def check_host(link_url: str, base: str, hosts: tuple[str, ...]) -> Text | None:
    """Why nothing may be asked of a link's host; None where it is https and the store's, or a rehearsal's.

    `hosts` are allowed besides COS's own. The first five lines of the table of `check_link`.
    """
    address = _ADDRESS.fullmatch(link_url)
    if address is None:
        return Text(
            en="The link is not a plain https address, so nothing was sent to it.",
            zh="链接不是普通的 https 地址，未向其发送任何内容。",
        )
    scheme, host, port = address[1], address[2].strip("[]").lower(), address[3]
    if is_loopback(host) and _is_rehearsal(base):
        return None
    if scheme != "https" or port not in {None, "443"}:
        return Text(
            en=f"The link to {host} is not https on its usual port, so nothing was sent to it.",
            zh=f"指向 {host} 的链接不是标准端口的 https，未向其发送任何内容。",
        )
    if not any(
        host.endswith(one.lower()) if one.startswith(".") else host == one.lower()
        for one in STORE_HOSTS + hosts
    ):
        return Text(
            en=f"The link leads to {host}, which is not a host of the store's; if it should be, add it to store_hosts.",
            zh=f"链接指向 {host}，不是存储服务的域名；若确属存储服务，请将其加入 store_hosts。",
        )
    return None


def _parts(link_url: str) -> tuple[str, str]:
    """Host and request target of a link that `check_host` let pass."""
    address = _ADDRESS.fullmatch(link_url)
    return (address[2].strip("[]").lower(), address[4]) if address is not None else ("", "")


@lru_cache(maxsize=16)
def _is_rehearsal(base: str) -> bool:
    """Whether the target is on this machine, where links are plain http on any port."""
    address = _ADDRESS.fullmatch(f"{base}/")
    return address is not None and is_loopback(address[2].strip("[]").lower())


def _is_for(target: str, file_id: str, path: str) -> bool:
    """Whether a request target is `/<bucket>/<path>`, as it stands or percent-decoded once."""
    known = _FILE_ID.match(file_id)
    bucket = known[2] if known else ""
    if not bucket:
        segment = re.match(r"/([0-9A-Za-z._-]+)/", target)
        if segment is None:
            return False
        bucket = segment[1]
    wanted = f"/{bucket}/{path}"
    if target == wanted:
        return True
    return not re.search(r"[?#]", target) and unquote_to_bytes(target) == wanted.encode()

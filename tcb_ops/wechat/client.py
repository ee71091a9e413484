r"""The platform's interfaces: upload links, authorizers, environments, quotas, stored files.

The access token stands in the query, the body is raw compact UTF-8 JSON (a `\uXXXX` path yields objects without a
download link). What an answer is worth is decided in `responses`. Source: domain.md §1.1, §2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import httpx

from tcb_ops.model import Link, Owner, Secret
from tcb_ops.wechat.responses import (
    ApiError,
    AuthorizerInfo,
    AuthorizerPage,
    CloudEnvironment,
    FileStatus,
    HttpResponse,
    InvalidResponse,
    Quota,
    UnsafeLink,
    check_host,
    read_authorizer,
    read_authorizers,
    read_environments,
    read_files,
    read_link,
    read_quota,
    read_response,
)
from tcb_ops.wechat.transport import BROKEN, Transport, transport_failure

AUTHORIZERS_PER_PAGE = 500
"""The most that api_get_authorizer_list gives in one answer."""
DOWNLOAD_HOSTS = (".tcb.qcloud.la",)
"""Where files are fetched from, besides COS's own domains: `<bucket>.tcb.qcloud.la`."""

_INTERFACES = {Owner.MERCHANT: "tcb", Owner.PLATFORM: "componenttcb"}
_URLS_KEPT = 2048
"""Addresses with their token that are kept ready: one per merchant at work."""
_HEADERS = httpx.Headers({"Content-Type": "application/json"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class PlatformClient:
    """Calls the platform's interfaces. Each call raises TransportError where no answer came at all.

    A token is the merchant's, or the component's where the platform owns the environment.

    Args:
        transport: sends the requests.
        base: the target, e.g. `https://api.weixin.qq.com`; a path behind the host is kept.
        component_appid: the platform's own appid, for the calls about authorizers.
        store_hosts: hosts besides COS's own that a link may lead to; a leading dot allows subdomains.

    """

    def __init__(
        self, transport: Transport, base: str, *, component_appid: str = "", store_hosts: tuple[str, ...] = ()
    ) -> None:
        self._transport = transport
        self._base = base.rstrip("/")
        self._component_appid = component_appid
        self._store_hosts = store_hosts
        # Parsing a URL for each request costs more than sending it: 49 µs against 2 (performance.md).
        self._url = lru_cache(maxsize=_URLS_KEPT)(self._build_url)

    def _build_url(self, interface: str, token: Secret | None) -> httpx.URL:
        url = f"{self._base}/{interface}"
        if token is not None:
            name = "component_access_token" if interface.startswith("cgi-bin/component/") else "access_token"
            url += f"?{name}={quote(token.reveal(), safe='')}"
        try:
            return httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            failure = transport_failure(error) or BROKEN
        raise failure.error(self._base.partition("://")[2].partition("/")[0].rpartition("@")[2])

    async def _post(self, interface: str, body: Mapping[str, Any], token: Secret | None) -> HttpResponse:
        request = httpx.Request(
            "POST",
            self._url(interface, token),
            headers=_HEADERS,
            stream=httpx.ByteStream(_encode(body).encode()),
        )
        request.read()
        return await self._transport.send(request)

    async def call(
        self,
        interface: str,
        body: Mapping[str, Any],
        token: Secret | None = None,
        secrets: Iterable[Secret] = (),
    ) -> dict[str, Any] | ApiError | InvalidResponse:
        """Call an interface, such as `tcb/getenvinfo`; return the answer's object where it holds no errcode but 0.

        The token goes as `component_access_token` for `cgi-bin/component`, else as `access_token`. `secrets` are those
        of the body: like the token, they are taken out of what an errmsg quotes.
        """
        response = await self._post(interface, body, token)
        return read_response(response, (*secrets, *((token,) if token is not None else ())))

    async def probe(self) -> HttpResponse:
        """Call an interface without a token, which costs nothing; return the answer as it came."""
        return await self._post("tcb/getenvinfo", {}, None)

    async def upload_link(
        self, env: str, path: str, token: Secret, owner: Owner = Owner.MERCHANT
    ) -> Link | ApiError | InvalidResponse | UnsafeLink:
        """Ask for the link that uploads to `path` in `env` (getUploadTcbFileLink)."""
        response = await self._post(f"{_INTERFACES[owner]}/uploadfile", {"env": env, "path": path}, token)
        payload = read_response(response, (token,))
        if not isinstance(payload, dict):
            return payload
        return read_link(payload, response.status, env, path, self._base, self._store_hosts)

    async def authorizers(self, token: Secret, offset: int) -> AuthorizerPage | ApiError | InvalidResponse:
        """Ask who authorized the platform, 500 from `offset`; with the component token."""
        body = {"component_appid": self._component_appid, "offset": offset, "count": AUTHORIZERS_PER_PAGE}
        payload = await self.call("cgi-bin/component/api_get_authorizer_list", body, token)
        return read_authorizers(payload) if isinstance(payload, dict) else payload

    async def authorizer(self, token: Secret, appid: str) -> AuthorizerInfo | ApiError | InvalidResponse:
        """Ask for a mini program's name and permission sets; with the component token."""
        body = {"component_appid": self._component_appid, "authorizer_appid": appid}
        payload = await self.call("cgi-bin/component/api_get_authorizer_info", body, token)
        return read_authorizer(payload) if isinstance(payload, dict) else payload

    async def environments(
        self, token: Secret, owner: Owner = Owner.MERCHANT
    ) -> tuple[CloudEnvironment, ...] | ApiError | InvalidResponse:
        """Ask for the environments of the token's mini program; of the platform with the component token."""
        interface = "tcb/getenvinfo" if owner is Owner.MERCHANT else "componenttcb/describeenvs"
        payload = await self.call(interface, {}, token)
        return read_environments(payload) if isinstance(payload, dict) else payload

    async def quota(self, token: Secret, owner: Owner = Owner.MERCHANT) -> Quota | ApiError | InvalidResponse:
        """Ask for the link calls that are left today."""
        counted = {"cgi_path": f"/{_INTERFACES[owner]}/uploadfile"}
        payload = await self.call("cgi-bin/openapi/quota/get", counted, token)
        return read_quota(payload) if isinstance(payload, dict) else payload

    async def locate(
        self, env: str, file_ids: Sequence[str], token: Secret, owner: Owner = Owner.MERCHANT
    ) -> tuple[FileStatus, ...] | ApiError | InvalidResponse:
        """Ask where at most 50 files of an environment can be fetched; the answers come in their order."""
        files = [{"fileid": file_id, "max_age": 600} for file_id in file_ids]
        body = {"env": env, "file_list": files}
        payload = await self.call(f"{_INTERFACES[owner]}/batchdownloadfile", body, token)
        return read_files(payload, "file_list", file_ids, token) if isinstance(payload, dict) else payload

    async def delete(
        self, env: str, file_ids: Sequence[str], token: Secret, owner: Owner = Owner.MERCHANT
    ) -> tuple[FileStatus, ...] | ApiError | InvalidResponse:
        """Delete at most 50 files of an environment; the answers come in their order."""
        body = {"env": env, "fileid_list": list(file_ids)}
        payload = await self.call(f"{_INTERFACES[owner]}/batchdeletefile", body, token)
        return read_files(payload, "delete_list", file_ids, token) if isinstance(payload, dict) else payload

    async def fetch(self, url: Secret) -> HttpResponse | UnsafeLink:
        """Fetch a file of at most 1 MiB from its URL; any HTTP status is an answer.

        The URL must be https and lead to the store, save a loopback one under a loopback target.
        """
        address = url.reveal()
        unsafe = check_host(address, self._base, (*DOWNLOAD_HOSTS, *self._store_hosts))
        if unsafe is not None:
            return UnsafeLink(unsafe)
        origin = "/".join(address.split("/", 3)[:3])
        try:
            request = httpx.Request("GET", f"{origin}/")
        except (httpx.InvalidURL, ValueError) as error:
            failure = transport_failure(error) or BROKEN
        else:
            return await self._transport.send(request, exact_url=address)
        raise failure.error(origin.partition("://")[2])

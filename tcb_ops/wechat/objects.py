"""Stored objects by their file_id: fetched back, deleted. batchdownloadfile, batchdeletefile, the GET of a URL.

An errcode of 0 can hide a file's own status, so each file has its own answer. Source: domain.md §2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.i18n import Text
from tcb_ops.model import Owner, Secret
from tcb_ops.secrets import LONGEST_TEXT, redact
from tcb_ops.wechat.client import UnsafeLink, check_host
from tcb_ops.wechat.responses import UNPRINTABLE, Interfaces, InvalidResponse, Refusal
from tcb_ops.wechat.transport import Answer, Transport

DOWNLOAD_HOSTS = (".tcb.qcloud.la",)
"""Where files are fetched from, besides COS's own domains: `<bucket>.tcb.qcloud.la`."""
MOST = 50
"""Files that one call may name."""
NOT_THERE = -503003
"""A file's status: there is no such file."""

_WINGS = {Owner.MERCHANT: "tcb", Owner.PLATFORM: "componenttcb"}
_LONGEST_ERRMSG = 1000


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What an answer says of one file."""

    file_id: str
    status: int
    """0: done; else an errcode of the file's own."""
    errmsg: str
    url: Secret
    """Where it can be fetched; empty where it cannot, and after a delete."""


class Objects:
    """Fetches and deletes stored objects.

    Args:
        interfaces: asks the platform.
        transport: fetches what the platform's URLs lead to.
        base: the target, e.g. `https://api.weixin.qq.com`.
        store_hosts: hosts besides COS's own that a URL may lead to; a leading dot allows subdomains.

    """

    def __init__(
        self, interfaces: Interfaces, transport: Transport, base: str, *, store_hosts: tuple[str, ...] = ()
    ) -> None:
        self._interfaces, self._transport = interfaces, transport
        self._base, self._hosts = base, (*DOWNLOAD_HOSTS, *store_hosts)

    async def locate(
        self,
        env: str,
        file_ids: Sequence[str],
        token: Secret,
        owner: Owner = Owner.MERCHANT,
        max_age: int = 600,
    ) -> tuple[FileAnswer, ...] | Refusal | InvalidResponse:
        """Ask where at most 50 files of an environment can be fetched, for `max_age` seconds; in their order.

        `token` is the merchant's, or the component's where the platform owns the environment. Raises TransportError.
        """
        files = [{"fileid": file_id, "max_age": max_age} for file_id in file_ids]
        said = await self._interfaces.ask(
            f"{_WINGS[owner]}/batchdownloadfile", {"env": env, "file_list": files}, token
        )
        return _answers(said, "file_list", file_ids, token)

    async def delete(
        self, env: str, file_ids: Sequence[str], token: Secret, owner: Owner = Owner.MERCHANT
    ) -> tuple[FileAnswer, ...] | Refusal | InvalidResponse:
        """Delete at most 50 files of an environment; in their order. Takes and raises what `locate` does."""
        body = {"env": env, "fileid_list": list(file_ids)}
        said = await self._interfaces.ask(f"{_WINGS[owner]}/batchdeletefile", body, token)
        return _answers(said, "delete_list", file_ids, token)

    async def fetch(self, url: Secret) -> Answer | UnsafeLink:
        """Fetch a file of at most 1 MiB from its URL; any status is an answer. Raises TransportError.

        The URL must be https and lead to the store, save a loopback one under a loopback target.
        """
        address = url.reveal()
        stranger = check_host(address, self._base, self._hosts)
        if stranger is not None:
            return UnsafeLink(stranger)
        origin = "/".join(address.split("/", 3)[:3])
        try:
            request = httpx.Request("GET", f"{origin}/")
        except (httpx.InvalidURL, ValueError):
            request = None
        if request is None:  # raised here: the library's error quotes the URL
            raise TransportError(
                TransportFault.GARBAGE,
                Text(
                    en="The platform's download URL is none that can be asked.",
                    zh="平台给出的下载地址无法访问。",
                ),
            )
        return await self._transport.send(request, exact_url=address)


def _answers(
    said: dict[str, Any] | Refusal | InvalidResponse, field: str, file_ids: Sequence[str], token: Secret
) -> tuple[FileAnswer, ...] | Refusal | InvalidResponse:
    """Each file's answer, in the order that was asked; whatever the platform leaves out is no answer at all."""
    if not isinstance(said, dict):
        return said
    listed = said.get(field)
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = {str(one.get("fileid")): one for one in entries}
    if not all(file_id in found and _status(found[file_id]) is not None for file_id in file_ids):
        why = Text(
            en=f"The platform's answer does not name each file in {field}; trying again may help.",
            zh=f"平台的应答在 {field} 中没有列全各文件，可重试。",
        )
        return InvalidResponse(200, why, retryable=True)
    return tuple(
        FileAnswer(
            file_id,
            _status(one) or 0,
            redact(_text(one.get("errmsg"))[:LONGEST_TEXT], (token,))[:_LONGEST_ERRMSG],
            Secret(_text(one.get("download_url"))),
        )
        for file_id in file_ids
        for one in (found[file_id],)
    )


def _status(one: dict[str, Any]) -> int | None:
    value = one.get("status")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return UNPRINTABLE.sub(" ", value) if isinstance(value, str) else ""

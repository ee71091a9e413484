"""The client for stored files: where they are, their bytes, their removal; and what the answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from tcb_ops.details import detail
from tcb_ops.features.stored import StoredCode
from tcb_ops.model import Owner, Secret
from tcb_ops.secrets import LONGEST_TEXT, redact
from tcb_ops.wechat.client import INTERFACES, PlatformClient
from tcb_ops.wechat.responses import (
    LONGEST_ERRMSG,
    ApiError,
    HttpResponse,
    InvalidResponse,
    UnsafeLink,
    check_host,
    count_in,
    objects_in,
    text_in,
)
from tcb_ops.wechat.transport import HttpRequest, Transport

NOT_THERE = -503003
"""A file's status when it does not exist."""
DOWNLOAD_HOSTS = (".tcb.qcloud.la",)
"""Download hosts besides COS's own domains: `<bucket>.tcb.qcloud.la`."""

DOWNLOAD_SECONDS = 600
"""Seconds that a download URL is valid."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The result for one stored file. An errcode of 0 for the whole response can hide an error of one file."""

    file_id: str
    status: int
    """0 for success, else the file's errcode."""
    errmsg: str
    url: Secret
    """The download URL; empty if there is none, and after a delete."""


class FileClient(PlatformClient):
    """A client that also locates, fetches and deletes stored files."""

    def __init__(self, transport: Transport, base: str, *, store_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(transport, base, store_hosts=store_hosts)
        self._files = transport

    async def locate(
        self,
        env: str,
        file_ids: Sequence[str],
        token: Secret,
        owner: Owner = Owner.MERCHANT,
    ) -> dict[str, FileStatus] | ApiError | InvalidResponse:
        """Return the download URLs of up to 50 files of an environment, by file_id, as far as the response has them."""
        return await locate(self, env, file_ids, token, owner, DOWNLOAD_SECONDS)

    async def delete(
        self, env: str, file_ids: Sequence[str], token: Secret, owner: Owner = Owner.MERCHANT
    ) -> dict[str, FileStatus] | ApiError | InvalidResponse:
        """Delete up to 50 files of an environment; return their results by file_id, as far as the response has them."""
        body = {"env": env, "fileid_list": list(file_ids)}
        read = partial(read_files, field="delete_list", file_ids=file_ids, token=token)
        return await self.ask(f"{INTERFACES[owner]}/batchdeletefile", body, token, read)

    async def fetch(
        self,
        url: Secret,
        *,
        headers: Mapping[str, str] = {},
        sink: Callable[[bytes], object] | None = None,
    ) -> HttpResponse | UnsafeLink:
        """Download a file; a response of any status is returned.

        The URL must be https and lead to COS, or be a loopback URL of a loopback target. `sink` takes the bytes of a 2xx
        response as they arrive, until it returns False; without it the file has up to 1 MiB.
        """
        address = url.reveal()
        unsafe = check_host(address, self._base, (*DOWNLOAD_HOSTS, *self._store_hosts))
        if unsafe is not None:
            return UnsafeLink(unsafe)
        async with self._files.open(HttpRequest("GET", address, headers)) as answer:
            if sink is None or answer.status >= 300:
                return HttpResponse(answer.status, answer.headers, await answer.read())
            async with aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    if sink(chunk) is False:
                        break
            return HttpResponse(answer.status, answer.headers, b"")


async def locate(
    client: PlatformClient, env: str, file_ids: Sequence[str], token: Secret, owner: Owner, seconds: int
) -> dict[str, FileStatus] | ApiError | InvalidResponse:
    """Return download URLs as `FileClient.locate` does, valid for `seconds`."""
    files = [{"fileid": file_id, "max_age": seconds} for file_id in file_ids]
    read = partial(read_files, field="file_list", file_ids=file_ids, token=token)
    return await client.ask(
        f"{INTERFACES[owner]}/batchdownloadfile", {"env": env, "file_list": files}, token, read
    )


def read_files(
    payload: dict[str, Any], field: str, file_ids: Sequence[str], token: Secret
) -> dict[str, FileStatus] | InvalidResponse:
    """Return the results of the requested files, by file_id.

    Files that the response omits or contradicts itself about, or whose URL leads to another file, are missing from the
    result; other files are ignored. A response without any of the requested files is invalid.
    """
    requested, files, ambiguous = set(file_ids), dict[str, FileStatus](), set[str]()
    for entry in objects_in(payload.get(field)) or ():
        file_id, status = entry.get("fileid"), count_in(entry.get("status"))
        if not isinstance(file_id, str) or file_id not in requested or status is None:
            continue
        file = FileStatus(
            file_id,
            status,
            redact(text_in(entry.get("errmsg"))[:LONGEST_TEXT], (token,))[:LONGEST_ERRMSG],
            Secret(text_in(entry.get("download_url"))),
        )
        url = file.url.reveal()
        if files.setdefault(file_id, file) != file or (url and not _leads_to(url, file_id)):
            ambiguous.add(file_id)
    clear = {file_id: file for file_id, file in files.items() if file_id not in ambiguous}
    if not clear:
        problem = detail(StoredCode.PLATFORM_FILES, field=field)
        return InvalidResponse(200, problem, retryable=True)
    return clear


def _leads_to(url: str, file_id: str) -> bool:
    """Return whether a download URL is that of a file (`cloud://env.bucket/key`): its path is the key, or bucket and key."""
    path = unquote_to_bytes(url.partition("://")[2].partition("/")[2].partition("?")[0])
    env_and_bucket, _slash, key = file_id.partition("://")[2].partition("/")
    bucket = env_and_bucket.partition(".")[2]
    return path in {form.encode() for name in (key, unquote(key)) for form in (name, f"{bucket}/{name}")}


def prefix_of(file_id: str, env: str) -> str:
    """Return `cloud://<env>.<bucket>` of a file_id; of one that has another form, or is of another environment, nothing.

    Raises nothing: with an empty prefix the platform refuses the file_id.
    """
    prefix = re.match(r"cloud://([^./]+)\.[^/]+", file_id)
    return prefix[0] if prefix is not None and prefix[1] == env else ""

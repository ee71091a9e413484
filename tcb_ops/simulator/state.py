"""A simulator's state while it runs (counters, objects, recorded calls), and how it plays a fault."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import struct
import sys
import tempfile
from asyncio import Transport
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from aiohttp import web

from tcb_ops.simulator.faults import Fault, Faults, FaultStep, Reset


class SimulatedObject(NamedTuple):
    """An object that the store holds."""

    size: int
    """Bytes."""
    md5: str
    """Hex."""
    times: int
    """How often it was received."""
    content_type: str = ""
    """From the form; empty without one."""
    cache_control: str = ""
    own_etag: str | None = None
    """The ETag where it is not the MD5, as of an object that was written in parts; empty for none."""

    @property
    def etag(self) -> str:
        """The ETag, without quotes."""
        return self.md5 if self.own_etag is None else self.own_etag


class Call(NamedTuple):
    """A recorded call. `env` and `path` are empty if the request had none that could be read."""

    step: FaultStep
    env: str
    path: str
    answer: int | str
    """link: the errcode. store: the HTTP status. A fault instead of a response: "reset", "garbage", "status 503"."""


UNRECORDED = -1
"""The place of a call that is not recorded."""


class SimulatorState:
    """A simulator's state. Memory grows with the number of objects, but not with calls, which are only counted by default."""

    def __init__(self, faults: Faults, clock: Callable[[], float], *, record: bool) -> None:
        self.clock = clock
        self.stats: Counter[str] = Counter()
        self.objects: dict[tuple[str, str], SimulatedObject] = {}
        self.cached: dict[tuple[str, str], SimulatedObject] = {}
        """What a cache in front of the store still answers with."""
        self.calls: list[Call] = []
        self.most_files = 50
        """Files that one call may name."""
        self.alter: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
        """What becomes of the entries of an answer about files."""
        self._faults = faults
        self._record = record
        self._plans: dict[tuple[str, str], Faults] = {}
        """The part of the plan for one merchant's environment, mostly empty."""
        self._counts: Counter[tuple[FaultStep, str, str]] = Counter()
        """Calls by (step, env, path), only if an entry has call numbers."""
        self._ids = 0

    def fault(self, step: FaultStep, env: str, appid: str, path: str) -> Fault | None:
        """Count a call and return the fault to play."""
        if not self._faults.entries:
            return None
        plan = self._plans.get((env, appid))
        if plan is None:
            plan = self._plans[env, appid] = self._faults.within(env, appid)
        if not plan.entries:
            return None
        call = 1
        if plan.counted(step, path):
            self._counts[step, env, path] += 1
            call = self._counts[step, env, path]
        return plan.find(step, path, call)

    def play(self, faults: Faults) -> None:
        """Play another plan from now on; calls are counted from 1 again."""
        self._faults, self._plans = faults, {}
        self._counts.clear()

    def called(self, step: FaultStep, appid: str) -> None:
        """Count a call of an interface that is not a step of a row; `appid` is empty if it is unknown."""
        self.stats[str(step)] += 1
        if appid:
            self.stats[f"{step}:{appid}"] += 1

    def arrived(self, step: FaultStep, env: str, path: str) -> int:
        """Count a call, and record it in order of arrival; return its place, for `answered`."""
        self.stats[f"{step}_calls"] += 1
        if not self._record:
            return UNRECORDED
        self.calls.append(Call(step, env, path, ""))
        return len(self.calls) - 1

    def answered(self, place: int, step: FaultStep, answer: int | str) -> None:
        """Count a response, and record it at the call's place."""
        self.stats[f"{step}:{answer}"] += 1
        if place >= 0:
            self.calls[place] = self.calls[place]._replace(answer=answer)

    def stored(
        self,
        bucket: str,
        key: str,
        size: int,
        md5: str,
        content_type: str,
        cache_control: str,
        own_etag: str | None = None,
    ) -> None:
        """Record a completely received object."""
        before = self.objects.get((bucket, key))
        self.objects[bucket, key] = SimulatedObject(
            size, md5, before.times + 1 if before else 1, content_type, cache_control, own_etag
        )
        self.stats["stored"] += 1

    def new_id(self) -> str:
        """Return the next rid: three words of eight hex digits."""
        self._ids += 1
        return f"{int(self.clock()) & 0xFFFFFFFF:08x}-{self._ids * 2654435761 & 0xFFFFFFFF:08x}-{self._ids & 0xFFFFFFFF:08x}"


_AWKWARD = re.compile(r'[\x00-\x1f\x7f%<>:"\\|?*]')
SMALL = 64 * 1024
"""Maximum size of an object kept in memory, in bytes; only without a folder."""
LATEST = 64
"""Objects kept in memory, without a folder: enough to try an upload and fetch it again."""
LONGEST_NAME = 200
"""Maximum length of a file name, in bytes; file systems allow 255."""


def object_file(directory: Path, bucket: str, key: str) -> Path:
    """Return an object's file, below `directory/bucket` for any key: what a file name must not contain is %-encoded.

    ==================  =====================
    key                 below the bucket
    ==================  =====================
    banner/海报 1.png   banner/海报 1.png
    ../../etc/passwd    %2E%2E/%2E%2E/etc/passwd
    /etc//passwd        %/etc/%/passwd
    a:b?                a%3Ab%3F
    a. (a dot last)     a%2E
    ==================  =====================
    """
    return directory.joinpath(bucket, *(_name(segment) for segment in key.split("/")))


def _name(segment: str) -> str:
    if not segment:
        return "%"
    name = _AWKWARD.sub(lambda found: f"%{ord(found[0]):02X}", segment)
    if not name.strip("."):
        return "%2E" * len(name)
    if name[-1] in ". ":  # Windows drops them
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    if len(name.encode()) > LONGEST_NAME:
        return f"{name[:40]}%{hashlib.sha256(segment.encode()).hexdigest()}"
    return name


class Upload:
    """An object being received: in a temporary file until `keep` renames it, or without a folder in memory if small."""

    def __init__(self, directory: Path | None) -> None:
        self.data: bytearray | None = bytearray()
        """None once it is too large for memory."""
        self._file = None
        if directory:
            self._file = tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False)  # noqa: SIM115  closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append the next bytes."""
        if self._file is not None:
            self._file.write(data)
        elif self.data is not None:
            self.data = None if len(self.data) + len(data) > SMALL else self.data + data

    def keep(self, target: Path) -> None:
        """Move the object's file to its place, replacing an older one."""
        if self._file is not None:
            self._file.close()
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(self._file.name).replace(target)


class BlobStore:
    """The objects' bytes. Without a folder only the latest small ones are kept, so that memory does not grow."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._small: dict[tuple[str, str], bytes] = {}

    def upload(self) -> Upload:
        """Return a context manager for a new object; unless it is `put`, it is dropped."""
        return Upload(self._directory)

    def put(self, upload: Upload, bucket: str, key: str) -> None:
        """Store a completely received object. Raises OSError if the folder cannot hold it beside the others."""
        if self._directory:
            upload.keep(object_file(self._directory, bucket, key))
            return
        self._small.pop((bucket, key), None)
        if upload.data is not None:
            self._small[bucket, key] = bytes(upload.data)
        if len(self._small) > LATEST:
            del self._small[next(iter(self._small))]

    def get(self, bucket: str, key: str) -> bytes | Path | None:
        """Return an object's bytes or file; None if it is not kept."""
        if self._directory is None:
            return self._small.get((bucket, key))
        file = object_file(self._directory, bucket, key)
        return file if file.is_file() else None

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object."""
        if self._directory is None:
            self._small.pop((bucket, key), None)
        else:
            object_file(self._directory, bucket, key).unlink(missing_ok=True)


# --- faults ---


async def instead(request: web.BaseRequest, fault: Fault) -> tuple[str, web.Response] | None:
    """Play a fault: its delay, then its response with a name for the counters; None if it replaces no response."""
    if fault.delay:
        await asyncio.sleep(fault.delay)
    if fault.reset is Reset.BEFORE:
        return "reset", reset(request)
    if fault.status is not None and not fault.code:
        page = f"<html><head><title>{fault.status}</title></head><body><center><h1>{fault.status}</h1></center></body></html>\r\n"
        return f"status {fault.status}", web.Response(
            status=fault.status, body=page.encode(), content_type="text/html"
        )
    if fault.garbage:
        return "garbage", web.Response(body=b"<<< no JSON", content_type="application/json")
    return None


def reset(request: web.BaseRequest) -> web.Response:
    """Break the connection with a TCP reset. The returned response can no longer be sent."""
    transport = request.transport
    if transport is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def cut_short(request: web.BaseRequest, fault: Fault | None, response: web.Response) -> web.Response:
    """Return the response; for a fault that resets in the middle, send only its first part and close."""
    if fault is None or fault.reset is not Reset.MIDDLE:
        return response
    transport: Transport | None = request.transport
    if transport is not None:
        body = bytes(response.body) if isinstance(response.body, bytes) else b""
        head = f"HTTP/1.1 {response.status} {response.reason}\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
        # A response without a body is cut in its head.
        transport.write((head if body else head + "Server: tencent-c").encode() + body[: len(body) // 2])
        transport.close()
    return web.Response()

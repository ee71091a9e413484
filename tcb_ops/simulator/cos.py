"""The simulated store: COS's POST Object, with the checks and answers that a link meets there, and signed GETs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from aiohttp import web

from tcb_ops.errcodes import store_code
from tcb_ops.model import Merchant
from tcb_ops.simulator.faults import Etag, Fault, FaultStep
from tcb_ops.simulator.form import Form, boundary_of
from tcb_ops.simulator.responses import CosRefusal, cut_short, instead, post_response_xml, refusal_xml, reset
from tcb_ops.simulator.signing import MAX_OBJECT, bucket_of, check_download, check_form
from tcb_ops.simulator.state import BlobStore, SimulatorState, Upload

FORM_HEAD = 64 * 1024
"""Bytes that a form may have besides its file."""
_CONFLICT = CosRefusal(409, "PathConflict", "The object cannot stand beside those that are there.")


class CosStore:
    """Answers form posts to the buckets of the given merchants, and gives what a download URL names."""

    def __init__(
        self,
        state: SimulatorState,
        merchants: Sequence[Merchant],
        clock: Callable[[], float],
        directory: Path | None,
    ) -> None:
        self._state = state
        self._clock = clock
        self._blobs = BlobStore(directory)
        self._envs = {bucket_of(merchant.env): merchant.env for merchant in merchants}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for a bucket: what cannot be a form post is refused before its body is read."""
        target, _, query = request.raw_path.partition("?")
        bucket, _, rest = target[1:].partition("/")
        env = self._envs.get(bucket, "")
        try:
            path = unquote_to_bytes(rest.encode("utf-8", "surrogateescape")).decode()
        except UnicodeDecodeError:
            path = ""
        if request.method == "GET" and query:
            return self._download(request, bucket, path, query)
        place = self._state.arrived(FaultStep.STORE, env, path)
        checked = _head_refusal(request, env, path)
        if not isinstance(checked, CosRefusal):
            try:
                return await self._post(request, place, env, bucket, path, Form(checked))
            except (ConnectionError, web.RequestPayloadError):
                # The client has gone, or what it sends is no HTTP: there is nobody to answer.
                self._state.answered(place, FaultStep.STORE, "gone")
                return reset(request)
        response = self._refuse(request, place, checked)
        response.force_close()
        return response

    async def _post(
        self, request: web.BaseRequest, place: int, env: str, bucket: str, path: str, form: Form
    ) -> web.StreamResponse:
        now = self._clock()
        with self._blobs.upload() as upload:
            md5 = await _receive(request, form, upload)
            checked = check_form(form, bucket, path, now)
            appid = "" if isinstance(checked, CosRefusal) else checked
            fault = self._state.fault(FaultStep.STORE, env, appid, path)
            if fault is not None:
                played = await instead(request, fault)
                if played is not None:
                    self._state.answered(place, FaultStep.STORE, played[0])
                    return played[1]
                checked = _planned(fault) or checked
            if not isinstance(checked, CosRefusal):
                try:
                    self._blobs.put(upload, bucket, path)
                except OSError:
                    # COS has no folders: a/b beside a is two objects there, and cannot be two files here.
                    checked = _CONFLICT
        if isinstance(checked, CosRefusal):
            return self._refuse(request, place, checked)
        headers = (form.fields.get("content-type", ""), form.fields.get("cache-control", ""))
        self._state.stored(bucket, path, form.size, md5, *headers)
        return cut_short(request, fault, self._accept(request, place, form, bucket, path, _etag(md5, fault)))

    def _accept(
        self, request: web.BaseRequest, place: int, form: Form, bucket: str, path: str, etag: str
    ) -> web.Response:
        asked = form.fields.get("success_action_status", "")
        status = int(asked) if asked in {"200", "201"} else 204
        location = f"http://{request.headers.get('Host', '')}/{bucket}/{quote(path, safe='/-_.~')}"
        body = post_response_xml(location, bucket, path, etag) if status == 201 else b""
        self._state.answered(place, FaultStep.STORE, status)
        headers = self._headers() | {"Location": location, "Content-Length": str(len(body))}
        if etag:
            headers["ETag"] = f'"{etag}"'
        if body:
            headers["Content-Type"] = "application/xml"
        return web.Response(status=status, body=body, headers=headers)

    def holds(self, bucket: str, path: str) -> bool:
        """Whether an object is there."""
        return (bucket, path) in self._state.objects

    def remove(self, bucket: str, path: str) -> None:
        """Delete an object."""
        self._state.objects.pop((bucket, path), None)
        self._blobs.remove(bucket, path)

    def _download(self, request: web.BaseRequest, bucket: str, path: str, query: str) -> web.StreamResponse:
        refused = check_download(bucket, path, query, self._clock())
        found = None if refused or not self.holds(bucket, path) else self._blobs.get(bucket, path)
        if found is None:
            missing = CosRefusal(404, "NoSuchKey", "The specified key does not exist.")
            return self._xml(request, refused or missing)
        self._state.stats["fetched"] += 1
        stored = self._state.objects[bucket, path]
        headers = self._headers() | {
            "ETag": f'"{stored.md5}"',
            "Content-Type": stored.content_type or "application/octet-stream",
        }
        if stored.cache_control:
            headers["Cache-Control"] = stored.cache_control
        if isinstance(found, Path):
            return web.FileResponse(found, headers=headers)
        return web.Response(body=found, headers=headers)

    def _refuse(self, request: web.BaseRequest, place: int, refusal: CosRefusal) -> web.Response:
        self._state.answered(place, FaultStep.STORE, refusal.status)
        self._state.stats[f"store:{refusal.code}"] += 1
        return self._xml(request, refusal)

    def _xml(self, request: web.BaseRequest, refusal: CosRefusal) -> web.Response:
        headers = self._headers() | {"Content-Type": "application/xml"}
        resource = request.headers.get("Host", "") + request.raw_path.partition("?")[0]
        body = refusal_xml(
            refusal, resource.encode("ascii", "backslashreplace").decode(), headers["x-cos-request-id"]
        )
        return web.Response(status=refusal.status, body=body, headers=headers)

    def _headers(self) -> dict[str, str]:
        return {
            "Server": "tencent-cos",
            "x-cos-request-id": self._state.new_id(self._clock()).replace("-", ""),
        }


def _head_refusal(request: web.BaseRequest, env: str, path: str) -> CosRefusal | bytes:
    """Return the refusal that a request's head earns, or the form's boundary."""
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    if request.method != "POST":
        return CosRefusal(
            405, "MethodNotAllowed", "The specified method is not allowed against this resource."
        )
    if not env:
        return CosRefusal(404, "NoSuchBucket", "The specified bucket does not exist.")
    if not path:
        return CosRefusal(400, "InvalidURI", "The path is empty or not UTF-8.")
    if request.content_length is None:
        return CosRefusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    if request.content_length > MAX_OBJECT + FORM_HEAD:
        return CosRefusal(
            400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size."
        )
    if boundary is None:
        return CosRefusal(400, "MalformedPOSTRequest", "The body is not multipart/form-data.")
    return boundary


async def _receive(request: web.BaseRequest, form: Form, upload: Upload) -> str:
    """Read a body to its end, refused or not (an answer in mid-send can be lost in a reset); give the file's MD5."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    md5 = hashlib.md5(usedforsecurity=False)
    async for chunk in request.content.iter_any():
        data = form.feed(chunk)
        md5.update(data)
        upload.write(data)
    return md5.hexdigest()


def _planned(fault: Fault) -> CosRefusal | None:
    """Return the COS error that a fault names; its status is the catalogue's unless the plan says otherwise."""
    if not fault.code:
        return None
    known = store_code(fault.code, fault.errmsg)
    default = "Access Denied." if fault.code == "AccessDenied" else known.meaning.en
    return CosRefusal(fault.status or known.http_status or 400, fault.code, fault.errmsg or default)


def _etag(md5: str, fault: Fault | None) -> str:
    match fault.etag if fault else None:
        case Etag.WRONG:
            return hashlib.md5(md5.encode(), usedforsecurity=False).hexdigest()
        case Etag.OPAQUE:
            return f"{md5}-1"
        case Etag.MISSING:
            return ""
        case None:
            return md5

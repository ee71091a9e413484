"""A server of files on loopback whose answers are scripted by path; it keeps what it was asked."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class File:
    """What a path serves. Each field that is set departs from what a server should do."""

    content: bytes
    etag: str | None = None
    """None: the MD5 in quotes; empty: no ETag."""
    status: dict[str, int] = field(default_factory=dict)
    """By method; `RANGE` is a GET with a Range."""
    location: str = ""
    declared: int | None = None
    """The Content-Length of a GET."""
    told: int | None = None
    """The Content-Length of a HEAD."""
    keep_open: bool = False
    """Whether the rest of a longer declared body is waited for in vain."""
    drip: bool = False
    """Likewise, but a byte comes now and then."""
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    careless: bool = False
    """Whether If-Match is ignored."""
    halfway: Callable[[], None] = lambda: None
    """Called in the middle of the body of a GET."""


class Sources:
    """The server, in threads of its own; `files` by path may be changed at any time."""

    def __init__(self, certificate: Path | None = None, *, port: int = 0) -> None:
        self.files: dict[str, File] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        """By (method, path with query)."""
        self.sent: Counter[str] = Counter()
        """Answers that were sent to their end, by path."""
        self.matched: dict[str, str | None] = {}
        """The If-Match of the last request by path."""
        self.on_get: Callable[[str], None] = lambda _path: None
        """Called at the beginning of each GET."""
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                served.answer(self, "HEAD")

            def do_GET(self) -> None:
                served.answer(self, "GET")

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.port = self._server.server_address[1]
        self.base = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, path: str, content: bytes, **how: Any) -> str:
        """Serve a file; return its URL."""
        self.files[path] = File(content, **how)
        return f"{self.base}{path}"

    def answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        """Answer a request as its path's file says."""
        self.asked[method, request.path] += 1
        path = request.path.partition("?")[0].encode("latin-1").decode()
        ranged = request.headers.get("Range")
        if method == "GET" and not ranged:
            self.on_get(path)
        file = self.files.get(path, File(b"", status={"HEAD": 404, "GET": 404, "RANGE": 404}))
        etag = f'"{hashlib.md5(file.content).hexdigest()}"' if file.etag is None else file.etag
        status = file.status.get("RANGE" if ranged else method, 206 if ranged else 200)
        match = self.matched[path] = request.headers.get("If-Match")
        if match is not None and match != etag and not file.careless and status == 200:
            status = 412
        body = file.content if status == 200 else file.content[:1] if status == 206 else b""
        length: int | None = len(body)
        if status == 200:
            length = file.told if method == "HEAD" else file.declared
            length = len(body) if length is None else length
        request.send_response(status)
        if status == 206:
            request.send_header("Content-Range", f"bytes 0-0/{len(file.content)}")
        if file.location:
            request.send_header("Location", file.location)
        if etag:
            request.send_header("ETag", etag)
        for name, value in file.headers.items():
            request.send_header(name, value)
        if file.chunked and status == 200:
            request.send_header("Transfer-Encoding", "chunked")
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(part), part)
                for part in (body[at : at + 1000] for at in range(0, len(body), 1000))
            )
            body += b"0\r\n\r\n"
        else:
            request.send_header("Content-Length", str(length))
        if method == "HEAD":
            body = b""
        elif length != len(body) and not file.chunked and not file.keep_open and not file.drip:
            request.close_connection = True
        _send_halves(request, body, file.halfway if status == 200 and method == "GET" else lambda: None)
        self.sent[path] += 1
        if file.drip and method == "GET":
            _drip(request)


def _send_halves(request: Any, body: bytes, halfway: Callable[[], None]) -> None:
    half = len(body) // 2
    request.wfile.write(b"".join([*request._headers_buffer, b"\r\n", body[:half]]))
    request._headers_buffer = []
    halfway()
    request.wfile.write(body[half:])


def _drip(request: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then until nobody reads any more."""
    with suppress(OSError):
        while True:
            time.sleep(0.02)
            request.wfile.write(b"x")

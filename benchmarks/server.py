"""A minimal platform and store, fast enough that the clients are the bottleneck.

It answers each link call with a valid link of the documented size (getUploadTcbFileLink) and each form post with 204 and
the object's name up to its first dot as ETag: the benchmarks name objects by MD5, and the server need not hash. It
checks nothing. `GET /first-calls` returns a JSON object of environment → number of its first link call, and resets the
count. `server.py DELAY PEM` serves HTTPS with a certificate and its key. For audits of the fleets of run.py, it answers getenvinfo and quota/get, too: one environment in twenty is HALTED.
`GET /calls` returns the number of calls by token, and resets it. Prints its address; ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from typing import cast

import uvloop

LARGE = 64 * 1024
"""Bytes of a request from which on its body is counted and thrown away as it comes."""
DELAY = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0
"""Seconds before an answer: `server.py 30` is a network of 30 ms."""
TOKEN = "t" * 420
COS_FILE_ID = "c" * 160 + "+/=="
QUOTA = b'{"errcode":0,"errmsg":"ok","quota":{"daily_limit":100000,"used":1000,"remain":99000}}'
SIGNED = "q-sign-algorithm=sha1&q-ak={ak}&q-sign-time={time}&q-key-time={time}&q-header-list=&q-url-param-list=&q-signature={hex}"


class Book:
    """The number of link calls, and the number of each environment's first one."""

    def __init__(self) -> None:
        self.base = b""
        self.calls = 0
        self.first: dict[str, int] = {}
        self.by_token: Counter[str] = Counter()

    def count(self, target: bytes) -> str:
        """Count a call; return its token."""
        token = target.rpartition(b"access_token=")[2].decode()
        self.by_token[token] += 1
        return token

    def environments(self, token: str) -> bytes:
        number = token[:5]
        status = "HALTED" if int(number) % 20 == 0 else "NORMAL"
        one = {"env": f"fleet-{number}", "status": status, "package_id": "baas_personal"}
        return json.dumps({"errcode": 0, "errmsg": "ok", "info_list": [one]}).encode()

    def calls_by_token(self) -> bytes:
        answer = json.dumps(self.by_token).encode()
        self.by_token.clear()
        return answer

    def link(self, body: bytes) -> bytes:
        asked = json.loads(body)
        env, path = asked["env"], asked["path"]
        self.calls += 1
        self.first.setdefault(env, self.calls)
        now = int(time.time())
        bucket = f"{env[:2].encode().hex()}-{env}-1258717764"
        answer = {
            "errcode": 0,
            "errmsg": "ok",
            "url": f"{self.base.decode()}/{bucket}/{path}",
            "token": TOKEN,
            "authorization": SIGNED.format(ak="A" * 68, time=f"{now};{now + 900}", hex="0" * 40),
            "file_id": f"cloud://{env}.{bucket}/{path}",
            "cos_file_id": COS_FILE_ID,
        }
        return json.dumps(answer, separators=(",", ":")).encode()

    def first_calls(self) -> bytes:
        answer = json.dumps(self.first).encode()
        self.calls, self.first = 0, {}
        return answer


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = bytearray()
        self._head = 0
        self._whole = 0
        self._left = 0
        self._target = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, but are not subclasses.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._discard(data)
            return
        self._buffer += data
        if not self._whole:
            self._head = self._buffer.find(b"\r\n\r\n") + 4
            if self._head < 4:
                return
            head = bytes(self._buffer[: self._head]).lower()
            _, there, rest = head.partition(b"\r\ncontent-length:")
            self._whole = self._head + (int(rest.partition(b"\r\n")[0]) if there else 0)
            if self._whole > LARGE:
                self._target = bytes(self._buffer[: self._buffer.index(b"\r\n")]).split(b" ")[1]
                self._left = self._whole
                data, self._whole = bytes(self._buffer), 0
                self._buffer.clear()
                self._discard(data)
                return
        if len(self._buffer) < self._whole:
            return
        target = bytes(self._buffer[: self._buffer.index(b"\r\n")]).split(b" ")[1]
        body = bytes(self._buffer[self._head : self._whole])
        del self._buffer[: self._whole]
        self._whole = 0
        self._send(self._answer(target, body))

    def _send(self, answer: bytes) -> None:
        assert self._transport is not None
        if DELAY:
            asyncio.get_running_loop().call_later(DELAY, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _discard(self, data: bytes) -> None:
        """Count a large body instead of keeping it."""
        self._left -= len(data)
        if self._left <= 0:
            self._left = 0
            self._send(self._answer(self._target, b""))

    def _answer(self, target: bytes, body: bytes) -> bytes:
        if target.startswith(b"/tcb/uploadfile?"):
            self._book.count(target)
            payload = self._book.link(body)
        elif target.startswith(b"/tcb/getenvinfo?"):
            payload = self._book.environments(self._book.count(target))
        elif target.startswith(b"/cgi-bin/openapi/quota/get?"):
            self._book.count(target)
            payload = QUOTA
        elif target == b"/calls":
            payload = self._book.calls_by_token()
        elif target == b"/first-calls":
            payload = self._book.first_calls()
        else:
            # Hashing it here would make the server the limit.
            etag = target.rpartition(b"/")[2].partition(b".")[0]
            return b'HTTP/1.1 204 No Content\r\nETag: "%b"\r\nContent-Length: 0\r\n\r\n' % etag
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(payload),
            payload,
        )


async def serve() -> None:
    book = Book()
    loop = asyncio.get_running_loop()
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[2])
    server = await loop.create_server(lambda: Connection(book), "127.0.0.1", 0, backlog=1024, ssl=tls)
    book.base = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}".encode()
    print(book.base.decode(), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())

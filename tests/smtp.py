"""A mail server on loopback that accepts, refuses, hangs up or stays silent."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


USUAL = {"QUIT": "221 bye", "EHLO": "250-practice\r\n250 AUTH PLAIN", "AUTH": "235 ok"}


class MailServer(socketserver.ThreadingTCPServer):
    """Answers each command with `replies.get(verb)`, else accepts it; an empty reply closes the connection.

    `refused` are recipients that get a 550. With `silent`, nothing is said until the test ends.
    """

    daemon_threads = True

    def __init__(
        self, replies: dict[str, str] | None = None, refused: tuple[str, ...] = (), *, silent: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.replies, self.refused, self.silent = replies or {}, refused, silent
        self.mails: list[bytes] = []
        self.connections = 0
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.server.connections += 1
        if self.server.silent:
            self.server.over.wait(60)
            return
        self.say("220 practice")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            reply = self.server.replies.get(verb.upper(), USUAL.get(verb.upper(), "250 ok"))
            if not reply:
                return
            if any(one in rest for one in self.server.refused):
                reply = "550 no such user"
            if verb.upper() == "DATA" and reply == "250 ok":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines))
            self.say(reply)
            if verb.upper() == "QUIT":
                return

    def say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())

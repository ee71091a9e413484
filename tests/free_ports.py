"""Ports that stay free until a test uses them, and while its server is away."""

from __future__ import annotations

import random
import socket

_chosen = random.SystemRandom()


def free_port() -> int:
    """Return a free port below the range that the system assigns: no other test's server or connection gets it."""
    while True:
        port = _chosen.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port

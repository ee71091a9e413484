"""Runs whose rows fail by a cause that a remedy ends."""

from __future__ import annotations

from dataclasses import replace

from token_server import BOOKS, TEA, TEA_TEST
from workspace import QUICK, write_csv

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import SimulatedAccount
from tcb_ops.model import Merchant

CAKE = Merchant("wxcake", "蛋糕屋", "cake-1")
NO_CLOUD = SimulatedAccount("wxbooks", cloud=False, ready_after=0)


def failed_run(server, lines, kind="links", names=("a.png",), listed=(TEA, TEA_TEST, BOOKS)):
    server.list_merchants(*listed, CAKE)
    rows = ((line.env, line.appid, name) for line in lines for name in names)
    paths = write_csv(server.folder / "list.csv", ("env", "appid", "path"), rows)
    batch = tcb.read_paths(paths, server.file, root=None if kind == "links" else server.folder)
    limits = replace(QUICK, attempts=1)
    if kind == "links":
        return tcb.links(batch, out=server.folder / "links.csv", settings=server.settings, limits=limits)
    return tcb.upload(batch, settings=server.settings, limits=limits)

"""Finished runs of every kind, kept in tests/histories as a ledger and its reports.

`python tests/histories.py` makes them again, after a change of the ledger's schema or of what a report says. Ids and times are fixed,
so that nothing else differs. Read the difference (`git diff tests/histories`) before you commit it: what old runs say must not change
by accident.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from analysis_ledger import FIRST, move
from rigged_simulator import Simulator
from workspace import BOOKS, QUICK, TEA, TEA_TEST, write_csv

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, Faults
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.model import Merchant
from tcb_ops.reports.export import export

HISTORIES = Path(__file__).with_name("histories")
KEPT = ("results.csv", "failed.csv", "errcodes.csv", "manifest.json")
"""What of a report is kept."""
WHOLE = 2
"""The number of the report that is kept as it is."""
CAKE = Merchant("wxcake", "蛋糕屋", "cake-0c0c0c")
MERCHANTS = (TEA, TEA_TEST, BOOKS, CAKE)
FAULTS = (
    Fault(env=BOOKS.env, path="banner/1.png", errcode=-601012),
    Fault(env=TEA.env, path="banner/2.png", errcode=85088, errmsg="=1+1"),
    Fault(appid=CAKE.appid, errcode=61003),
)


def make() -> None:
    """Make the ledger and the reports, in a folder that is the same on every machine."""
    folder = Path(tempfile.gettempdir()) / "tcb-ops-histories"
    for each in (folder, HISTORIES):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir()
    (folder / "files").mkdir()
    tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in MERCHANTS}
    write_csv(folder / "tokens.csv", ("appid", "access_token"), tokens.items())
    write_csv(
        folder / "merchants.csv", ("appid", "name", "env"), ((m.appid, m.name, m.env) for m in MERCHANTS)
    )
    rows = [
        (m.env, f"banner/{n}.png", f"{n}.png", note)
        for m in MERCHANTS
        for n, note in enumerate(("", "=2", "茶"))
    ]
    write_csv(folder / "list.csv", ("env", "path", "file", "note"), rows)
    for number in range(3):
        (folder / "files" / f"{number}.png").write_bytes(bytes([number]) * 100)
    shutil.copy(folder / "merchants.csv", HISTORIES)
    with Simulator(MERCHANTS, tokens, faults=Faults(FAULTS), port=18_080) as sim:
        settings = tcb.load_settings(
            options={
                "target": sim.base,
                "ledger": str(folder / "ledger.db"),
                "merchants": folder / "merchants.csv",
                "lang": "en",
                "timezone": "Asia/Shanghai",
                "tokens": {"source": "file", "file": folder / "tokens.csv"},
            }
        )
        merchants = tcb.read_merchants(folder / "merchants.csv")
        batch = tcb.read_paths(folder / "list.csv", merchants, folder / "files")
        options = {"settings": settings, "limits": QUICK}
        first = tcb.links(batch, out=folder / "links.csv", **options)
        sim.play(FAULTS[1:])
        runs = [first, tcb.links(batch, out=folder / "links2.csv", new_run=True, **options)]
        runs.append(tcb.upload(batch, **options))
        upload = runs[-1]
        runs += [tcb.retry(upload, merchants, **options), tcb.confirm(upload, **options)]
        runs += [tcb.undo(upload, **options), tcb.audit(merchants, **options)]
        runs += [tcb.upload(batch, new_run=True, **options)]
        runs.append(tcb.delete(runs[-1], **options))
    moved = folder / "moved.db"
    begun = [(run.id, FIRST + timedelta(hours=number)) for number, run in enumerate(runs)]
    move(folder / "ledger.db", moved, begun)
    settings = replace(settings, ledger=str(moved))
    with closing(Ledger(str(moved))) as ledger:
        for number, run in enumerate(sorted(ledger.runs(), key=lambda run: run.created_at)):
            report = folder / "reports" / str(number)
            export(ledger, run, report, settings, now=FIRST.timestamp() + 86_400)
            kept = HISTORIES / f"{number}-{run.kind}"
            if number == WHOLE:
                shutil.copytree(report, kept)
                continue
            kept.mkdir()
            for name in KEPT:
                shutil.copy(report / name, kept)
    with closing(sqlite3.connect(moved)) as database:
        database.execute("VACUUM INTO ?", (str(HISTORIES / "ledger.db"),))


if __name__ == "__main__":
    make()

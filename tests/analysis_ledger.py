"""Make data/analysis.db, the ledger of 30 days that notebook 04 opens.

    python tests/analysis_ledger.py

A month of nightly audits and weekly uploads runs against the simulator, each day with the faults of that day. Then the
runs are moved to their days, because a simulator answers within milliseconds: ids, times and durations are computed
from a fixed seed, so that the notebook's numbers are stable. Outcomes and errcodes are the simulator's.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, Faults, FaultStep
from tcb_ops.features.simulator.sample import MERCHANTS, SAMPLE
from tcb_ops.features.simulator.server import Simulator
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import Settings, load_settings

ZONE = ZoneInfo("Asia/Shanghai")
FIRST = datetime(2026, 10, 1, 2, 0, tzinfo=ZONE)
DAYS = 30
UPLOADS = {3, 10, 17, 24}
"""Days, counted from 0, on which the weekly files are uploaded."""
LIMITS = tcb.RunLimits(backoff=0.01, slow_wait=0.05, patience=10)
SLOW = {"swim-prod-724c60": 6.0, "inn-prod-1e43bb": 3.5, "coffee-stage-7131a3": 2.5}
"""Environments that take so many times as long."""
PATHS = ("weekly/menu.json", "weekly/banner.svg", "weekly/theme.css")


@dataclass(frozen=True)
class Trouble:
    """A fault from one day to another."""

    fault: Fault
    first: int
    last: int = DAYS - 1


TROUBLES = (
    Trouble(Fault(env="noodle-*", errcode=85088), 0, 20),
    Trouble(Fault(env="cinema-*", errcode=61007), 23),
    Trouble(Fault(env="garage-prod-*", errcode=-501018), 5, 9),
    Trouble(Fault(env="garage-prod-*", errcode=-501018), 26),
    Trouble(Fault(env="photo-test-*", errcode=-501005), 0),
    Trouble(Fault(env="inn-test-*", errcode=-501007), 12, 18),
    Trouble(Fault(env="market-*", path="weekly/theme.css", errcode=40097), 0),
    Trouble(
        Fault(env="flower-*", path="weekly/*", step=FaultStep.STORE, code="InternalError", calls=((1, 4),)), 0
    ),
    Trouble(
        Fault(env="coffee-*", path="weekly/banner.svg", step=FaultStep.STORE, status=502, calls=((1, 4),)), 10
    ),
)


def settings_of(folder: Path, base: str) -> Settings:
    """Return the settings of a day's simulator."""
    options = {
        "api_base": base,
        "merchants": MERCHANTS,
        "ledger": str(folder / "analysis.db"),
        "timezone": "Asia/Shanghai",
        "tokens": {"source": "file", "file": folder / "tokens.csv"},
    }
    return replace(load_settings(options=options), target=SIMULATOR)


def work(folder: Path, merchants: Merchants) -> Iterator[tuple[str, datetime]]:
    """Do the month's runs; give each run's id and when it is to have begun."""
    tokens = {one.appid: f"made-up-{one.appid}" for one in merchants}
    lines = ("appid,access_token", *(f"{appid},{token}" for appid, token in tokens.items()))
    (folder / "tokens.csv").write_text("\n".join(lines), encoding="utf-8")
    for day in range(DAYS):
        at = FIRST + timedelta(days=day)
        faults = Faults(tuple(one.fault for one in TROUBLES if one.first <= day <= one.last))
        with Simulator(list(merchants), tokens, faults=faults) as simulator:
            settings = settings_of(folder, simulator.base)
            yield tcb.audit(merchants, settings=settings, limits=LIMITS, new_run=True).id, at
            if day in UPLOADS:
                batch = tcb.read_paths(weekly_list(folder, merchants, day), merchants, folder / "files")
                run = tcb.upload(batch, settings=settings, limits=LIMITS)
                yield run.id, at + timedelta(hours=8)
                retried = tcb.retry(run, merchants, settings=settings, limits=LIMITS)
                yield retried.id, at + timedelta(hours=9)


def weekly_list(folder: Path, merchants: Merchants, day: int) -> Path:
    """Write the list of a week, and its files."""
    for path in PATHS:
        file = folder / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"week {day // 7}: {path}", encoding="utf-8")
    listed = folder / f"weekly-{FIRST + timedelta(days=day):%m%d}.csv"
    lines = (f"{one.env},{path}" for one in merchants for path in PATHS)
    listed.write_text("\n".join(("env,path", *lines)), encoding="utf-8")
    return listed


def move(file: Path, dest: Path, begun: Sequence[tuple[str, datetime]]) -> None:
    """Move the runs to their days, and write the ledger to one file, which is the same each time."""
    seeded = random.Random(2026)
    with closing(sqlite3.connect(file)) as ledger:
        for run, at in begun:
            new = f"{at:%Y%m%d-%H%M%S}-{hashlib.sha256(str(at).encode()).hexdigest()[:4]}"
            (number,) = ledger.execute("SELECT number FROM runs WHERE id = ?", (run,)).fetchone()
            places = dict(ledger.execute("SELECT no, env FROM envs WHERE run = ?", (number,)))
            started = at.timestamp()
            ended = started
            for line, place, attempts, done in ledger.execute(
                "SELECT line, place, attempts, ended_at IS NOT NULL FROM rows WHERE run = ? ORDER BY line",
                (number,),
            ).fetchall():
                seconds = seeded.uniform(0.2, 0.7) * SLOW.get(places[place], 1.0) * max(attempts, 1)
                begun_at = started + line * 0.25
                if done:
                    ledger.execute(
                        "UPDATE rows SET started_at = CASE WHEN started_at IS NULL THEN NULL ELSE ? END, ended_at = ? "
                        "WHERE run = ? AND line = ?",
                        (round(begun_at, 3), round(begun_at + seconds, 3), number, line),
                    )
                    ended = max(ended, begun_at + seconds)
            ledger.execute(
                "UPDATE runs SET id = ?, created_at = ?, finished_at = ?, seconds = ?, operator = 'li', host = 'ops-01', "
                "root = CASE WHEN root = '' THEN '' ELSE '/srv/weekly' END, out = '', report = '' WHERE number = ?",
                (new, started, round(ended, 3), round(ended - started, 3), number),
            )
            ledger.execute("UPDATE runs SET parent = ? WHERE parent = ?", (new, run))
            ledger.execute("UPDATE runs SET settings = replace(settings, ?, ?)", (run, new))
        ledger.execute(
            "UPDATE files SET changed_at = (SELECT MAX(ended_at) FROM rows WHERE rows.run = files.run AND rows.line = files.line)"
        )
        ledger.execute("UPDATE rows SET rid = printf('6a000000-%08x-%08x', run, line) WHERE rid != ''")
        ledger.execute(
            "UPDATE rows SET mtime_ns = ? WHERE mtime_ns IS NOT NULL", (int(FIRST.timestamp()) * 10**9,)
        )
        ledger.execute("CREATE TEMP TABLE sorted AS SELECT * FROM files ORDER BY store, path")
        ledger.execute("DELETE FROM files")
        ledger.execute("INSERT INTO files SELECT * FROM sorted")
        ledger.execute("DELETE FROM exports")
        ledger.commit()
        ledger.execute("VACUUM INTO ?", (str(dest),))
    with closing(sqlite3.connect(dest)) as made:
        made.execute("PRAGMA journal_mode = DELETE")


def main() -> None:
    """Make the ledger in a temporary folder, and put it among the sample data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = list(work(folder, tcb.read_merchants(MERCHANTS)))
        move(folder / "analysis.db", folder / "moved.db", begun)
        (SAMPLE / "analysis.db").write_bytes((folder / "moved.db").read_bytes())


if __name__ == "__main__":
    main()

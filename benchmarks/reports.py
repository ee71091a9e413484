"""Measure exports, `verify` and `diff` of large runs: seconds and peak memory, each in a process of its own.

    python benchmarks/reports.py [--rows 1000000] [--rounds 5]

Two synthetic runs with so many rows and 300 merchants are written to the ledger without a network. Prints a table,
and exits with 1 if a limit is exceeded. `run.py` writes it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.model import Row, RowEnd

HERE = Path(__file__).resolve().parent
TITLE = "## Reports of large runs"
MERCHANTS = 300
BEGUN = 1_764_036_000.0
STEPS = {
    "plain": "sqlite3 and csv.writer: the rows of results.csv and failed.csv, times as they are stored",
    "export": "export: results, failed, errcodes, workbook, page, manifest",
    "json": "`--json`",
    "frame": "pandas.read_sql_query: the columns of `results()` that are stored",
    "results": "`run.results()`",
    "verify": "`verify`: every file compared with manifest.json, the rows with the ledger, by a digest",
    "diff": "`diff` of two such runs",
    "errcodes": "the errcode table",
    "merchant": "`tcb-ops show --merchant`, the whole command",
    "command": "`tcb-ops errcodes`, the whole command",
}
RATIOS = {("export", "plain"): 2.2, ("results", "frame"): 1.2, ("verify", "export"): 0.7}
"""CPU of the one step ÷ CPU of the other, at most."""
JUDGED_FROM = 100_000
"""Rows from which these are judged: what a report costs at least weighs little then."""
COMMANDS = {"merchant": ("show", "--merchant", "商户007"), "command": ("errcodes",)}
HELD_TO = {"export": 40.0, "json": 40.0, "verify": 60.0, "diff": 20.0, "merchant": 0.3}
"""Maximum seconds, for a million rows."""
PEAK = 300.0
"""Maximum MiB."""


def rows(count: int) -> Iterator[Row]:
    from tcb_ops.model import Row

    for number in range(count):
        merchant = number % MERCHANTS
        path = f"campaign/2026-11/{number // MERCHANTS:05}/横幅-{number}.png"
        cells = (f"商户{merchant:03}", path, path, f"{number:07}")
        yield Row(
            number + 2,
            f"env-{merchant:03}-1a2b3c",
            path,
            f"wx{merchant:016x}",
            f"商户{merchant:03}",
            path,
            cells,
            40_960,
            1_764_000_000_000_000_000,
        )


def ends(count: int, *, ill: int) -> Iterator[RowEnd]:
    """Yield the ends of rows, of which one in twenty fails; `ill` shifts the merchants affected."""
    from tcb_ops.model import Outcome, Reason, RowEnd

    refused = ((85088, "no qbase privilege"), (-501001, "resource system error"), (40097, "invalid args"))
    for number in range(count):
        at = BEGUN + number / 700
        if (number + ill) % MERCHANTS < MERCHANTS // 20:
            errcode, errmsg = refused[number % len(refused)]
            rid = f"6745a1b2-{number:08x}-0c1d2e3f"
            yield RowEnd(
                number + 2, Outcome.REFUSED, Reason.REFUSED, None, errcode, f"{errmsg} rid: {rid}", rid, 200, "", 1,
                None, "", "", at, at + 0.25,
            )  # fmt: skip
        else:
            merchant = number % MERCHANTS
            yield RowEnd(
                number + 2, Outcome.UPLOADED, None, None, 0, "ok", "", 204, "", 2, 40_960, f"{number:032x}",
                f"cloud://env-{merchant:03}-1a2b3c.6d7a-env-{merchant:03}-1a2b3c-1300000000/campaign/2026-11/{number // MERCHANTS:05}/横幅-{number}.png",
                at, at + 0.25,
            )  # fmt: skip


def batches(stream: Iterable[RowEnd]) -> Iterator[list[RowEnd]]:
    stream = iter(stream)
    while batch := list(islice(stream, 5_000)):
        yield batch


def plan(ledger: Ledger, run_id: str, count: int, *, begun: float) -> RunRecord:
    from tcb_ops.engine.list_kinds import UPLOAD
    from tcb_ops.ledger.records import EnvRecord, NewRun
    from tcb_ops.model import Owner, RunSettings

    places = [
        EnvRecord(n, f"env-{n:03}-1a2b3c", f"wx{n:016x}", f"商户{n:03}", Owner.MERCHANT, left=False)
        for n in range(MERCHANTS)
    ]
    headers = ("merchant", "path", "file", "货号")
    new = NewRun(
        run_id, UPLOAD, "https://api.weixin.qq.com", "big.csv", "ab" * 32, 90 * count, headers, "/srv/files",
        RunSettings(concurrency=64), "", "ops", "ops-1", "", begun,
    )  # fmt: skip
    return ledger.plan(new, rows(count), places)


def end(ledger: Ledger, run: RunRecord, count: int, *, ill: int, begun: float) -> None:
    from tcb_ops.ledger.records import Usage

    for batch in batches(ends(count, ill=ill)):
        ledger.record(run, batch, Usage(len(batch) / 700, len(batch), len(batch)))
    ledger.finish(run, begun + count / 700)


def build(ledger: Ledger, run_id: str, count: int, *, ill: int, begun: float) -> None:
    end(ledger, plan(ledger, run_id, count, begun=begun), count, ill=ill, begun=begun)


QUERY = """
    SELECT cells, line, merchant, appid, env, outcome, errcode, errmsg, rid, http_status, store_code, attempts, bytes,
    md5, file_id, content_type, started_at, ended_at FROM rows JOIN runs ON runs.number = rows.run
    JOIN envs ON envs.run = rows.run AND envs.no = rows.place WHERE runs.id = 'run-b' ORDER BY line"""


def plain(folder: Path) -> None:
    """Write the rows as a lean script would: no check, no digest, no mask, no explanation, no time zone."""
    import csv
    import sqlite3

    with (
        (folder / "plain-results.csv").open("w", encoding="utf-8-sig", newline="") as results,
        (folder / "plain-failed.csv").open("w", encoding="utf-8-sig", newline="") as failed,
    ):
        write, write_failed = csv.writer(results).writerow, csv.writer(failed).writerow
        for cells, *values in sqlite3.connect(folder / "ledger.db").execute(QUERY):
            line = [*json.loads(cells), *values]
            write(line)
            if values[4] != "uploaded":
                write_failed(line)


def frame(folder: Path) -> None:
    """Read the rows into a frame as a lean script would."""
    import sqlite3

    import pandas as pd

    rows = pd.read_sql_query(QUERY, sqlite3.connect(folder / "ledger.db"))
    cells = pd.DataFrame([json.loads(cells) for cells in rows.pop("cells")])
    for name in ("started_at", "ended_at"):
        times = pd.to_datetime(rows[name], unit="s", utc=True)
        rows[name] = times.dt.tz_convert("Asia/Shanghai").dt.tz_localize(None)
    pd.concat([cells, rows], axis=1)


def step(name: str, folder: Path) -> None:
    """Measure one step with the existing runs; print its seconds, CPU-seconds and peak memory."""
    import resource

    import tcb_ops as tcb
    import tcb_ops.ledger.ledger  # imports are not counted
    import tcb_ops.reports.export

    if name in {"frame", "results", "errcodes"}:
        import pandas  # noqa: F401, ICN001

    settings = tcb.load_settings(options={"ledger": str(folder / "ledger.db"), "lang": "zh"})
    begun, used_before = time.perf_counter(), time.process_time()
    if name in {"plain", "frame"}:
        {"plain": plain, "frame": frame}[name](folder)
    if name in COMMANDS:
        words = (*COMMANDS[name], "run-b", "--ledger", str(folder / "ledger.db"))
        subprocess.run(
            [sys.executable, "-m", "tcb_ops", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(json.dumps([took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
        return
    run = tcb.open_run("run-b", settings=settings)
    if name == "export":
        run.export(folder / "report")
    elif name == "json":
        json.dumps(run.summary())
    elif name == "errcodes":
        run.causes()
    elif name == "results":
        run.results()
    elif name == "verify":
        assert tcb.verify(folder / "report", settings=settings).good
    elif name == "diff":
        json.dumps(tcb.diff("run-a", run, settings=settings).to_json())
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used_before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, cpu, peak]))


def measured(name: str, folder: Path) -> tuple[float, float, float]:
    # The browser that prints the PDF is not part of this process, and not subject to the limits.
    env = os.environ | {"TCB_OPS_CHROMIUM": ""}
    done = subprocess.run(
        [sys.executable, __file__, "--step", name, "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    seconds, cpu, peak = json.loads(done.stdout)
    return seconds, cpu, peak


Measured = dict[str, list[tuple[float, float, float]]]
"""By step: seconds, CPU-seconds and peak MiB of each round."""


SMALL_STEPS = ("plain", "export", "frame", "results")
"""What is measured of smaller runs."""
WAITED_FOR = 0.76
"""CPU-seconds of the export of 10,000 rows, at most: two fifths of what it took before sheets were bounded."""


def measure_all(
    folder: Path, rows: int, rounds: int, steps: Sequence[str] = tuple(STEPS)
) -> tuple[Measured, int]:
    """Measure steps with two runs in `folder`, which are made if they are not there; return also the report's bytes."""
    if not (folder / "ledger.db").exists():
        from tcb_ops.ledger.ledger import Ledger

        ledger = Ledger(str(folder / "ledger.db"))
        build(ledger, "run-a", rows, ill=0, begun=BEGUN - 86_400)
        build(ledger, "run-b", rows, ill=5, begun=BEGUN)
        ledger.close()
    found: Measured = {name: [] for name in steps}
    for _ in range(rounds):
        for name in steps:
            found[name].append(measured(name, folder))
    return found, sum(file.stat().st_size for file in (folder / "report").iterdir())


def seconds(found: Measured, name: str) -> float:
    return median(one[0] for one in found[name])


def cpu_ratio(found: Measured, name: str, other: str) -> float:
    return median(one[1] / two[1] for one, two in zip(found[name], found[other], strict=True))


def peak(found: Measured) -> float:
    return max(one[2] for name in HELD_TO for one in found[name])


def section(found: Measured, rows: int, bytes_out: int, title: str = TITLE) -> str:
    lines = [f"{rows:,} rows, {MERCHANTS} merchants; a folder of {bytes_out / 1e6:,.0f} MB.", ""]
    lines += ["| | seconds | CPU-seconds | peak MiB | promise |", "|---|---:|---:|---:|---|"]
    for name in found:
        took, cpu, peak = (median(values) for values in zip(*found[name], strict=True))
        promise = f"< {HELD_TO[name]:g} s, < {PEAK:.0f} MiB" if name in HELD_TO else ""
        lines.append(f"| {STEPS[name]} | {took:.2f} | {cpu:.2f} | {peak:.0f} | {promise} |")
    lines.append("")
    lines += [
        f"CPU of {name} ÷ {other}: {cpu_ratio(found, name, other):.2f} (held to {most})."
        for (name, other), most in RATIOS.items()
        if name in found and rows >= JUDGED_FROM
    ]
    return f"{title}\n\n" + "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--keep", type=Path, help="Where the ledger is made, or is from before.")
    given = options.parse_args()
    if given.step:
        step(given.step, given.folder)
        return 0
    import run

    with tempfile.TemporaryDirectory(prefix="tcb-ops-reports-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found, bytes_out = measure_all(folder, given.rows, given.rounds)
    table = section(found, given.rows, bytes_out)
    print(table)
    figures = run.report_figures(found, given.rows)
    print("", run.target_table(figures, quick=given.rows < JUDGED_FROM), sep="\n")
    return int(any(one.judged(quick=given.rows < JUDGED_FROM) == "missed" for one in figures))


if __name__ == "__main__":
    sys.exit(main())

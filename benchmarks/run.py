"""Compare tcb_ops with the scripts that operators would use instead, in one interleaved run.

    python benchmarks/run.py [--rounds 5] [--quick] [--all]

In each round every client processes the same rows, one after the other, each in a process of its own. The results are
medians of the rounds, and of the ratios within a round, since the speed of a shared machine varies between rounds.
Prints the tables, writes them into RESULTS.md beside this file (with five rounds or more, and not with --quick), and exits
with 1 if a target is missed. With --all it then starts the other benchmarks that have sections of that file.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import growth
import preparations
import reports
import startup
from results import ROUNDS, Figure, about, target_table, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
ENVS = 200
AT_ONCE = 64
LOADED = 1.5
"""Processes that wait for a core, per core, from which on a machine is called loaded."""
LATENCY = 30.0
"""Milliseconds that the slow server takes to answer."""


@dataclass(frozen=True)
class Sizes:
    links: int
    late: int
    """Links at LATENCY."""
    small: int
    large: int
    few: int
    many: int
    most: int
    fleet: int
    """Environments of the smaller fleet; the other has twice as many."""
    big_file: int
    sent: int
    """Uploads of which the bytes written are counted."""


FULL = Sizes(8_000, 8_000, 2_000, 800, 10_000, 100_000, 1_000_000, 10_000, 2 * 1024**3, 20_000)
QUICK = Sizes(3_000, 2_000, 1_000, 400, 8_000, 20_000, 40_000, 500, 256 * 1024**2, 2_000)
NOTHING = Sizes(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
PREPARED = {False: (20_000, 400, 10), True: (2_000, 40, 2)}
"""By whether sizes are small: rows, environments and earlier runs of what is measured before the first call."""
PASTS = {False: (5_000, 100), True: (500, 10)}
"""In the same way: rows and environments of lists with FEW_RUNS and with MANY_RUNS earlier runs."""
OTHERS = ("audits", "cluster", "stored", "panels")
"""Benchmarks that write sections of their own."""
REPORTED = {False: (10_000, 300_000, 1_000_000), True: (10_000, 40_000)}
"""Rows of the runs that are reported."""


@dataclass(frozen=True)
class Contest:
    """Clients for the same work; the first is the reference for ratios."""

    title: str
    unit: str
    list_name: str
    contenders: tuple[tuple[str, str], ...]
    """(name in clients.py, name in the table)."""
    server: Literal["near", "far", "tls"] = "near"
    reference: str = "requests"
    """What the table calls the first of them."""


@dataclass(frozen=True)
class Result:
    rate: float
    """Rows per second."""
    cpu: float
    """CPU-seconds per 10,000 rows."""
    written: float
    """KiB written to disks per row; 0 where the system does not tell."""
    peak: float
    """Peak memory, MiB."""
    load: float
    """Of the machine, when it had ended."""


THREADS = (64, 16, 8)
"""Of requests: the fastest is the one to compare with."""
REQUESTS_LINKS = tuple((f"requests-links-{count}", f"requests + {count} threads") for count in THREADS)
REQUESTS_UPLOADS = tuple((f"requests-upload-{count}", f"requests + {count} threads") for count in THREADS)
CONTESTS = (
    Contest(
        "Links",
        "links/s",
        "links.csv",
        (
            *REQUESTS_LINKS,
            ("tcb-links", "tcb_ops.links: list, ledger, links.csv"),
            ("tcb-calls", "PlatformClient.upload_link alone, 64 at once"),
            ("aiohttp-links", "bare aiohttp on uvloop, 64 at once"),
            ("aiohttp-links-gc", "the same, the garbage collector's thresholds those of tcb_ops"),
        ),
    ),
    Contest(
        "Uploads of 4 KB (link, MD5, form post, ETag)",
        "files/s",
        "small.csv",
        (*REQUESTS_UPLOADS, ("tcb-upload", "tcb_ops.upload: list, ledger")),
    ),
    Contest(
        "Uploads of 256 KB (link, MD5, form post, ETag)",
        "files/s",
        "large.csv",
        (*REQUESTS_UPLOADS, ("tcb-upload", "tcb_ops.upload: list, ledger")),
    ),
)


LATE = Contest(
    f"Links with {LATENCY:.0f} ms of latency",
    "links/s",
    "late.csv",
    (
        REQUESTS_LINKS[0],
        ("tcb-links", "tcb_ops.links: list, ledger, links.csv"),
        ("aiohttp-links", "bare aiohttp on uvloop, 64 at once"),
    ),
    "far",
)
SECURE = (
    Contest(
        "Links over HTTPS",
        "links/s",
        "links.csv",
        (
            REQUESTS_LINKS[0],
            ("tcb-links", "tcb_ops.links: list, ledger, links.csv"),
            ("aiohttp-links", "bare aiohttp on uvloop, 64 at once"),
        ),
        "tls",
    ),
    Contest(
        "Uploads of 256 KB over HTTPS",
        "files/s",
        "large.csv",
        (REQUESTS_UPLOADS[0], ("tcb-upload", "tcb_ops.upload: list, ledger")),
        "tls",
    ),
)
POSTGRES = Contest(
    "Links, their ledger in PostgreSQL",
    "links/s",
    "links.csv",
    (
        ("tcb-links", "tcb_ops.links, its ledger in SQLite"),
        ("tcb-links-postgres", "tcb_ops.links, its ledger in PostgreSQL"),
    ),
    reference="SQLite",
)
CONTESTS = (*CONTESTS, LATE)


# --- the work -----------------------------------------------------------------------------------------------------


def prepare(folder: Path, sizes: Sizes) -> None:
    """Write merchants, tokens, files and lists (sorted by env), always with the same bytes."""
    chance = random.Random(0)
    write_csv(
        folder / "merchants.csv", "appid,name,env", ((appid(n), f"商户{n}", env(n)) for n in range(ENVS))
    )
    tokens = ((appid(n), f"{n:03d}{'a' * 130}") for n in range(ENVS))
    write_csv(folder / "tokens.csv", "appid,access_token", tokens)
    files = folder / "files"
    files.mkdir()
    for size, kib, count in (("small", 4, sizes.small), ("large", 256, sizes.large)):
        for n in range(count):  # one file per row, since tcb_ops hashes a repeated file only once
            (files / f"{size}{n}.bin").write_bytes(chance.randbytes(kib * 1024))
    with (files / "big.bin").open("wb") as file:
        file.truncate(sizes.big_file)
    write_list(folder / "links.csv", sizes.links, "small")
    write_list(folder / "late.csv", sizes.late, "small")
    write_list(folder / "small.csv", sizes.small, "small")
    write_list(folder / "large.csv", sizes.large, "large")
    write_list(folder / "sent.csv", sizes.sent, "small", of=sizes.small)
    write_list(folder / "few.csv", sizes.few, "small")
    write_list(folder / "many.csv", sizes.many, "small")
    write_list(folder / "most.csv", sizes.most, "small")
    os.sync()  # or the first commits would wait for these files


def prepare_fleet(folder: Path, environments: int) -> Path:
    """Write a list of two rows for each of so many environments, with their merchants and tokens."""
    fleet = folder / f"fleet{environments}"
    fleet.mkdir()
    names = range(environments)
    write_csv(
        fleet / "merchants.csv", "appid,name,env", ((appid(n), f"商户{n}", f"fleet-{n:05}") for n in names)
    )
    write_csv(fleet / "tokens.csv", "appid,access_token", ((appid(n), f"{n:05}{'a' * 130}") for n in names))
    rows = ((f"fleet-{n:05}", f"assets/{k}.png", "none.bin") for n in names for k in range(2))
    write_csv(fleet / "list.csv", "env,path,file", rows)
    return fleet / "list.csv"


def appid(n: int) -> str:
    return f"wx{n:016x}"


def env(n: int) -> str:
    return f"bench-{n:03d}"


def write_list(file: Path, count: int, size: str, *, of: int = 0) -> None:
    """Write a list of files, each with its MD5 for a name: the server confirms that as the ETag.

    `of`: the number of files, over and over; else each row has its own.
    """

    def md5(name: str) -> str:
        local = file.with_name("files") / name
        content = local.read_bytes() if local.exists() else b""
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    names = ((n, f"{size}{n % of if of else n}.bin") for n in range(count))
    rows = ((env(n * ENVS // count), f"assets/{n:06d}/{md5(name)}.png", name) for n, name in names)
    write_csv(file, "env,path,file", rows)


def write_csv(file: Path, header: str, rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header.split(","))
        writer.writerows(rows)


@contextmanager
def lean_server(delay: float = 0, certificate: Path | None = None) -> Iterator[str]:
    """Serve at a URL; answers take so many milliseconds more. `certificate`: with its key, for HTTPS."""
    command = [sys.executable, str(HERE / "server.py"), str(delay)]
    command += [str(certificate)] if certificate is not None else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def certificate(folder: Path) -> Path | None:
    """Write a certificate for loopback that the clients trust, with its key; None without openssl."""
    if (openssl := shutil.which("openssl")) is None:
        print("openssl is missing: HTTPS is left out", file=sys.stderr)
        return None
    file = folder / "certificate.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    command = [openssl, *words.split(), "-keyout", str(file), "-out", str(folder / "trusted.pem")]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
        print("openssl made no certificate: HTTPS is left out", file=sys.stderr)
        return None
    trusted = folder / "trusted.pem"
    with file.open("ab") as both:
        both.write(trusted.read_bytes())
    os.environ |= {"SSL_CERT_FILE": str(trusted), "REQUESTS_CA_BUNDLE": str(trusted)}
    return file


# --- speed --------------------------------------------------------------------------------------------------------


def measure(name: str, base: str, paths: Path) -> Result:
    """Let a client do a list, in a process of its own."""
    command = [sys.executable, str(HERE / "clients.py"), name, base, str(paths.parent), str(paths)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}")
    found = json.loads(done.stdout)
    with paths.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    if found["rows"] != rows:
        sys.exit(f"{name} processed {found['rows']} of {rows} rows: the measurement is not valid")
    written = found["written"] / rows / 1024
    load = os.getloadavg()[0]
    return Result(rows / found["seconds"], found["cpu"] * 10_000 / rows, written, found["peak"], load)


Results = dict[tuple[str, str], list[Result]]


def speed(rounds: int, contests: Sequence[Contest], servers: Mapping[str, str], folder: Path) -> Results:
    results: Results = {}
    for number in range(rounds):
        for contest in contests:
            for name, _ in contest.contenders:
                result = measure(name, servers[contest.server], folder / contest.list_name)
                results.setdefault((contest.title, name), []).append(result)
        print(f"round {number + 1} of {rounds} done; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return results


def big_file(rounds: int, base: str, folder: Path) -> tuple[float, float] | None:
    """Return a large upload's rate ÷ that of md5sum on the same file, and its peak memory; None without md5sum."""
    if (md5sum := shutil.which("md5sum")) is None:
        print("md5sum is missing: the large file is left out", file=sys.stderr)
        return None
    file, ratios, peak = folder / "files" / "big.bin", [], 0.0
    # Both then read from the page cache: before, it has nothing of a file that was only made long.
    subprocess.run([md5sum, file], check=True, capture_output=True)
    for _ in range(rounds):
        began = time.perf_counter()
        digest = subprocess.run([md5sum, file], check=True, capture_output=True, text=True).stdout[:32]
        seconds = time.perf_counter() - began
        paths = folder / "one-big.csv"
        write_csv(paths, "env,path,file", [(env(0), f"big/{digest}.bin", "big.bin")])
        result = measure("tcb-upload", base, paths)
        ratios.append(result.rate * seconds)
        peak = max(peak, result.peak)
    return median(ratios), peak


def limit(base: str, folder: Path) -> str | None:
    """Return what wrk measures: the limit of the server and the machine; None without wrk."""
    if (wrk := shutil.which("wrk")) is None:
        print("wrk is missing: the limit of the machine is left out", file=sys.stderr)
        return None
    script = folder / "post.lua"
    body = json.dumps({"env": env(0), "path": "assets/000000.png"})
    script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\n")
    url = f"{base}/tcb/uploadfile?access_token={'a' * 133}"
    command = [wrk, "-t1", f"-c{AT_ONCE}", "-d3s", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = next(line.split()[1] for line in printed.splitlines() if line.startswith("Requests/sec"))
    return f"wrk with {AT_ONCE} connections, which does nothing with the answers: {float(rate):,.0f} links/s."


def ratio(of: list[Result], to: list[Result], what: Literal["rate", "cpu"]) -> float:
    """Return the median of the ratios within each round."""
    ratios: list[float] = [getattr(a, what) / getattr(b, what) for a, b in zip(of, to, strict=True)]
    return median(ratios)


def speed_table(contest: Contest, results: Results, *, quick: bool) -> str:
    yardstick = results[contest.title, contest.contenders[0][0]]
    lines = [
        f"## {contest.title}",
        "",
        f"| | {contest.unit} | × {contest.reference} | CPU-s per 10,000 | ÷ {contest.reference} |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, shown in contest.contenders:
        mine = results[contest.title, name]
        rate, cpu = median(one.rate for one in mine), median(one.cpu for one in mine)
        faster, cheaper = ratio(mine, yardstick, "rate"), ratio(mine, yardstick, "cpu")
        lines.append(f"| {shown} | {rate:,.0f} | {faster:.2f} | {cpu:.2f} | {cheaper:.2f} |")
    loads = [one.load for name, _shown in contest.contenders for one in results[contest.title, name]]
    return "\n".join([*lines, "", about(len(yardstick), loads, quick=quick)])


def best_of_requests(contest: Contest, results: Results) -> str:
    """Return the fastest contender with requests."""
    names = [name for name, _shown in contest.contenders if name.startswith("requests-")]
    return max(names, key=lambda name: median(one.rate for one in results[contest.title, name]))


# --- growth and fairness --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grown:
    cpu: float
    """CPU per row of the larger list ÷ that of the smaller."""
    most: float
    """Peak memory of the largest list, MiB."""
    fleets: tuple[float, float]
    """Peak memory of the two fleets, MiB."""
    written: tuple[float, float]
    """KiB written per row: of many links, and of uploads."""
    seen: int
    """Environments among the first tenth of the calls for a list sorted by environment."""


def grow(rounds: int, sizes: Sizes, base: str, folder: Path) -> Grown:
    ratios, links, seen = [], [], ENVS
    for _ in range(rounds):
        with urllib.request.urlopen(f"{base}/first-calls"):
            pass
        few = measure("tcb-links", base, folder / "few.csv")
        with urllib.request.urlopen(f"{base}/first-calls") as answer:
            seen = min(seen, sum(number <= sizes.few // 10 for number in json.load(answer).values()))
        many = measure("tcb-links", base, folder / "many.csv")
        links.append(many.written)
        ratios.append(many.cpu / few.cpu)
    sent = measure("tcb-upload", base, folder / "sent.csv").written
    most = measure("tcb-links", base, folder / "most.csv").peak
    smaller, larger = (
        measure("tcb-links", base, prepare_fleet(folder, count)).peak
        for count in (sizes.fleet, 2 * sizes.fleet)
    )
    return Grown(median(ratios), most, (smaller, larger), (median(links), sent), seen)


# --- the report ---------------------------------------------------------------------------------------------------


def figures(
    sizes: Sizes,
    results: Results,
    grown: Grown,
    big: tuple[float, float] | None,
    started: startup.Figures,
) -> tuple[Figure, ...]:
    links, small, large = CONTESTS[:3]

    def compared(contest: Contest, mine: str, other: str, what: Literal["rate", "cpu"]) -> float:
        return ratio(results[contest.title, mine], results[contest.title, other], what)

    def to_requests(contest: Contest, mine: str) -> float:
        return compared(contest, mine, best_of_requests(contest, results), "rate")

    in_postgres = None
    if (POSTGRES.title, "tcb-links-postgres") in results:
        in_postgres = compared(POSTGRES, "tcb-links-postgres", "tcb-links", "rate")
    rate, peak = big or (None, None)
    big_size = f"a file of {sizes.big_file / 1024**3:g} GiB"
    return (
        Figure("links/s ÷ requests' best", to_requests(links, "tcb-links"), "≥", 4.0),
        Figure(
            "CPU per link ÷ bare aiohttp (same garbage collection)",
            compared(links, "tcb-links", "aiohttp-links-gc", "cpu"),
            "≤",
            2.2,
        ),
        Figure(
            "CPU of the call path ÷ bare aiohttp",
            compared(links, "tcb-calls", "aiohttp-links", "cpu"),
            "≤",
            1.35,
        ),
        Figure(
            f"links/s at {LATENCY:.0f} ms ÷ bare aiohttp",
            compared(LATE, "tcb-links", "aiohttp-links", "rate"),
            "≥",
            0.9,
        ),
        Figure("4 KB files/s ÷ requests' best", to_requests(small, "tcb-upload"), "≥", 3.6),
        Figure("256 KB files/s ÷ requests' best", to_requests(large, "tcb-upload"), "≥", 2.3),
        Figure("PostgreSQL ÷ SQLite, links/s", in_postgres, "≥", 0.85),
        Figure(f"{big_size}: rate ÷ md5sum", rate, "≥", 0.88),
        Figure(f"{big_size}: peak memory, MiB", peak, "≤", 120),
        Figure(f"CPU per row at {sizes.many:,} ÷ at {sizes.few:,} rows", grown.cpu, "≤", 1.05),
        Figure(f"peak memory at {sizes.most:,} rows, MiB", grown.most, "≤", 110, full_size=True),
        Figure(
            f"peak memory at {sizes.fleet:,} environments, MiB", grown.fleets[0], "≤", 130, full_size=True
        ),
        Figure(
            f"peak memory at {2 * sizes.fleet:,} environments, MiB",
            grown.fleets[1],
            "≤",
            160,
            full_size=True,
        ),
        Figure(f"KiB written per row, {sizes.many:,} links", grown.written[0] or None, "≤", 4.5),
        Figure(f"KiB written per row, {sizes.sent:,} uploads", grown.written[1] or None, "≤", 4.0),
        Figure(f"environments of {ENVS} in the first tenth of the calls", grown.seen, "≥", ENVS / 2),
        *(
            Figure(f"CPU of {name} ÷ bare start", value, "≤", target)
            for name, (_seconds, _used, value, target) in started.items()
            if target is not None
        ),
    )


def small_report_figures(reported: Mapping[int, reports.Measured]) -> Iterator[Figure]:
    """Yield the figures of the runs that are not the largest."""
    first, second, *_largest = reported
    small, medium = reported[first], reported[second]
    seconds = median(used for _took, used, _peak in small["export"])
    yield Figure(f"export of {first:,} rows, CPU-seconds", seconds, "≤", reports.WAITED_FOR)
    for (name, other), most in list(reports.RATIOS.items())[:2]:
        title = f"CPU of {name} ÷ {other}, {second:,} rows"
        yield Figure(title, reports.cpu_ratio(medium, name, other), "≤", most, full_size=True)
    peak = max(peak for _took, _used, peak in medium["results"])
    yield Figure(f"results() of {second:,} rows: peak memory, MiB", peak, "≤", reports.PEAK, full_size=True)


def preparation_figures(prepared: Mapping[str, tuple[float, float]]) -> Iterator[Figure]:
    """Yield what is spent before the first call: rows in the order of files ÷ in that of environments."""
    for name, (first, second) in prepared.items():
        title = f"CPU before the first call, {name}: order of files ÷ of environments"
        yield Figure(title, first / second, "≤", preparations.MOST)


def past_figures(past: Mapping[str, tuple[float, float]]) -> Iterator[Figure]:
    """Yield what is spent before the first call: many earlier runs of the same paths ÷ few."""
    many, few = preparations.MANY_RUNS, preparations.FEW_RUNS
    for name in preparations.OF_PAST:
        title = f"CPU before the first call, {name}: {many} ÷ {few} earlier runs of the same paths"
        yield Figure(title, past[name][0] / past[name][1], "≤", preparations.MOST_OF_PAST)


def report_figures(measured: reports.Measured, rows: int) -> tuple[Figure, ...]:
    def compared(name: str, other: str) -> float:
        return reports.cpu_ratio(measured, name, other)

    return (
        Figure(f"errcode table of {rows:,} rows, seconds", reports.seconds(measured, "errcodes"), "≤", 0.2),
        Figure(f"tcb-ops errcodes of {rows:,} rows, seconds", reports.seconds(measured, "command"), "≤", 0.6),
        Figure(
            "CPU of the export ÷ sqlite3 + csv.writer", compared("export", "plain"), "≤", 2.2, full_size=True
        ),
        Figure("CPU of verify ÷ export", compared("verify", "export"), "≤", 0.7, full_size=True),
        *(
            Figure(f"{name}, seconds", reports.seconds(measured, name), "≤", most, full_size=True)
            for name, most in reports.HELD_TO.items()
        ),
        Figure("reports: peak memory, MiB", reports.peak(measured), "≤", reports.PEAK, full_size=True),
    )


def machine() -> str:
    names = ("tcb-ops", "aiohttp", "httpx", "uvloop", "requests")
    return f"{platform.system()} {platform.machine()} · " + ", ".join(
        f"{name} {version(name)}" for name in names
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure tcb_ops against requests + threads and bare aiohttp."
    )
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS}, or 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes: some five minutes, and rougher")
    parser.add_argument(
        "--all", action="store_true", help=f"then also {', '.join(OTHERS)}: all of RESULTS.md, in hours"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the targets and their figures to FILE, too"
    )
    parser.add_argument(
        "--postgres", metavar="URL", help="also with a ledger in this empty database, postgresql://…"
    )
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL
    rounds = given.rounds or (2 if given.quick else ROUNDS)
    rows = sizes.most
    began = time.monotonic()
    loads = []
    with tempfile.TemporaryDirectory(prefix="tcb-ops-bench-") as name, ExitStack() as running:
        folder = Path(name)
        prepare(folder, sizes)
        servers = {
            "near": running.enter_context(lean_server()),
            "far": running.enter_context(lean_server(LATENCY)),
        }
        contests = CONTESTS
        if (pem := certificate(folder)) is not None:
            servers["tls"] = running.enter_context(lean_server(0, pem))
            contests += SECURE
        if given.postgres:
            os.environ["BENCH_POSTGRES"] = given.postgres
            contests += (POSTGRES,)
        results = speed(rounds, contests, servers, folder)
        loads.append(os.getloadavg()[0])
        print("large files, then growth and fleets", file=sys.stderr)
        most = limit(servers["near"], folder)
        big = big_file(rounds, servers["near"], folder)
        over_tls = big_file(rounds, servers["tls"], folder) if pem is not None else None
        grown = grow(rounds, sizes, servers["near"], folder)
        loads.append(os.getloadavg()[0])
    print("lists of up to 3,000,000 rows, then reports; load", f"{loads[-1]:.1f}", file=sys.stderr)

    def dated(text: str, times: int = rounds) -> str:
        return f"{text}\n\n{about(times, quick=given.quick)}"

    with tempfile.TemporaryDirectory(prefix="tcb-ops-bench-") as name:
        sizes_of_lists = growth.SIZES if not given.quick else growth.SIZES[:2]
        growth_table = dated(growth.table(Path(name), sizes_of_lists), 1)
        reported, report_tables = {}, []
        for count in REPORTED[given.quick]:
            folder, steps = Path(name, str(count)), tuple(reports.STEPS)
            folder.mkdir()
            title = reports.TITLE
            if count != rows:
                steps, title = reports.SMALL_STEPS, f"## Reports of {count:,} rows"
            reported[count], out = reports.measure_all(folder, count, rounds, steps)
            shutil.rmtree(folder)
            report_tables.append(dated(reports.section(reported[count], count, out, title)))
    print("preparations, then whole commands", file=sys.stderr)
    prepared = preparations.by_order(*PREPARED[given.quick], rounds=rounds)
    preparation_table = dated(preparations.order_table(prepared, *PREPARED[given.quick]))
    past = preparations.by_past(*PASTS[given.quick], rounds=rounds)
    past_table = dated(preparations.past_table(past, *PASTS[given.quick]))
    started = startup.figures(ROUNDS if given.quick else startup.ROUNDS)
    startup_table = dated(startup.table(started), ROUNDS if given.quick else startup.ROUNDS)
    loads.append(os.getloadavg()[0])
    found = (
        *figures(sizes, results, grown, big, started),
        *preparation_figures(prepared),
        *past_figures(past),
        *small_report_figures(reported),
        *report_figures(reported[rows], rows),
    )
    tables = [speed_table(contest, results, quick=given.quick) for contest in contests]
    if most is not None:
        tables[0] += f"\n\n{most}"
    notes = [machine()]
    if max(loads) > LOADED * (os.cpu_count() or 1):
        notes.append(f"The machine was loaded ({max(loads):.1f}): compare the ratios of CPU, not the rates.")
    left_out = [
        what for what, there in (("wrk", most), ("HTTPS", pem), ("the large file", big)) if there is None
    ]
    if left_out:
        notes.append(f"Left out, since a program for it is missing: {', '.join(left_out)}.")
    if over_tls is not None:
        notes.append(
            f"The large file over HTTPS: {over_tls[0]:.2f} of the rate of md5sum, {over_tls[1]:.0f} MiB."
        )
    targets = dated("\n\n".join(["## Targets", target_table(found, quick=given.quick), *notes]))
    sections = [targets, *tables, growth_table, preparation_table, past_table, startup_table, *report_tables]
    print("\n\n".join(sections))
    judged = [one.judged(quick=given.quick) for one in found]
    missed = judged.count("missed")
    print(f"{time.monotonic() - began:.0f} s; {missed} of {len(found)} targets missed", file=sys.stderr)
    if given.json is not None:
        details = {
            "date": datetime.now(UTC).isoformat(),
            "rounds": rounds,
            "quick": given.quick,
            "load": max(loads),
        }
        lines = [asdict(one) | {"judged": verdict} for one, verdict in zip(found, judged, strict=True)]
        text = json.dumps(details | {"targets": lines}, indent=1, ensure_ascii=False)
        given.json.write_text(text, encoding="utf-8")
    if given.quick or rounds < ROUNDS:
        print(f"RESULTS.md stays: it takes {ROUNDS} rounds at full size", file=sys.stderr)
    else:
        measured = {contest.title for contest in contests}
        maybe = (*SECURE, POSTGRES)
        write(*sections, dropped=[f"## {one.title}" for one in maybe if one.title not in measured])
    others = [] if not given.all else [measured_by(name) for name in OTHERS]
    return int(missed > 0 or any(others))


def measured_by(name: str) -> int:
    """Start another benchmark; return its exit code."""
    print(f"{name}.py", file=sys.stderr)
    return subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

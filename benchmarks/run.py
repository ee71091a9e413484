"""Compare tcb_ops with the scripts that operators would use instead, in one interleaved run.

    python benchmarks/run.py [--rounds 5] [--quick]

In each round every client processes the same rows, one after the other, each in a process of its own. The results are
medians of the rounds, and of the ratios within a round, since the speed of a shared machine varies between rounds.
Prints the tables, writes RESULTS.md beside this file, and exits with 1 if a promise of "Held to" is broken.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ENVS = 200
GROWTH = 1.15
"""The factor by which peak memory may grow."""


@dataclass(frozen=True)
class Sizes:
    links: int
    small: int
    large: int
    few: int
    many: int
    big_file: int


FULL = Sizes(links=8_000, small=2_000, large=800, few=40_000, many=400_000, big_file=2 * 1024**3)
QUICK = Sizes(links=3_000, small=1_000, large=400, few=4_000, many=20_000, big_file=200 * 1024**2)


@dataclass(frozen=True)
class Contest:
    """Clients for the same work; the first is the reference for ratios."""

    title: str
    unit: str
    list_name: str
    contenders: tuple[tuple[str, str], ...]
    """(name in clients.py, name in the table)."""


@dataclass(frozen=True)
class Result:
    rate: float
    """Rows per second."""
    cpu: float
    """CPU-seconds per 10,000 rows."""


CONTESTS = (
    Contest(
        "Links",
        "links/s",
        "links.csv",
        (
            ("requests-links", "requests + 64 threads"),
            ("tcb-links", "tcb_ops.links: list, ledger, links.csv"),
            ("tcb-calls", "PlatformClient.upload_link alone, 64 at once"),
            ("aiohttp-links", "bare aiohttp on uvloop, 64 at once"),
        ),
    ),
    Contest(
        "Uploads of 4 KB (link, MD5, form post, ETag)",
        "files/s",
        "small.csv",
        (("requests-upload", "requests + 64 threads"), ("tcb-upload", "tcb_ops.upload: list, ledger")),
    ),
    Contest(
        "Uploads of 256 KB (link, MD5, form post, ETag)",
        "files/s",
        "large.csv",
        (("requests-upload", "requests + 64 threads"), ("tcb-upload", "tcb_ops.upload: list, ledger")),
    ),
)


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
    write_list(folder / "small.csv", sizes.small, "small")
    write_list(folder / "large.csv", sizes.large, "large")
    write_list(folder / "few.csv", sizes.few, "small")
    write_list(folder / "many.csv", sizes.many, "small")
    write_csv(folder / "one-big.csv", "env,path,file", [(env(0), "big.bin", "big.bin")])
    write_csv(folder / "one-small.csv", "env,path,file", [(env(0), "small.bin", "small0.bin")])


def appid(n: int) -> str:
    return f"wx{n:016x}"


def env(n: int) -> str:
    return f"bench-{n:03d}"


def write_list(file: Path, count: int, size: str) -> None:
    """Write a list of files, each with its MD5 for a name: the server confirms that as the ETag."""

    def md5(name: str) -> str:
        local = file.with_name("files") / name
        content = local.read_bytes() if local.exists() else b""
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    names = ((n, f"{size}{n}.bin") for n in range(count))
    rows = ((env(n * ENVS // count), f"assets/{n:06d}/{md5(name)}.png", name) for n, name in names)
    write_csv(file, "env,path,file", rows)


def write_csv(file: Path, header: str, rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header.split(","))
        writer.writerows(rows)


@contextmanager
def lean_server() -> Iterator[str]:
    command = [sys.executable, str(HERE / "server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


@contextmanager
def simulator(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tcb_ops", "simulate", "--port", "0"]
    command += ["--merchants", str(folder / "merchants.csv"), "--tokens", str(folder / "tokens.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.send_signal(signal.SIGTERM)


# --- speed --------------------------------------------------------------------------------------------------------


def compete(contest: Contest, name: str, base: str, folder: Path) -> Result:
    paths = folder / contest.list_name
    command = [sys.executable, str(HERE / "clients.py"), name, base, str(folder), str(paths)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}")
    measured = json.loads(done.stdout)
    with paths.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    if measured["rows"] != rows:
        sys.exit(f"{name} did {measured['rows']} of {rows} rows: what it measured is worth nothing")
    return Result(rows / measured["seconds"], measured["cpu"] * 10_000 / rows)


def speed(rounds: int, base: str, folder: Path) -> dict[tuple[str, str], list[Result]]:
    results: dict[tuple[str, str], list[Result]] = {}
    for number in range(rounds):
        for contest in CONTESTS:
            for name, _ in contest.contenders:
                results.setdefault((contest.title, name), []).append(compete(contest, name, base, folder))
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return results


def ratio(of: list[Result], to: list[Result], what: Literal["rate", "cpu"]) -> float:
    """Return the median of the ratios within each round."""
    ratios: list[float] = [getattr(a, what) / getattr(b, what) for a, b in zip(of, to, strict=True)]
    return median(ratios)


def speed_table(contest: Contest, results: dict[tuple[str, str], list[Result]]) -> str:
    yardstick = results[contest.title, contest.contenders[0][0]]
    lines = [
        f"## {contest.title}",
        "",
        f"| | {contest.unit} | × requests | CPU-s per 10,000 | ÷ requests |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, shown in contest.contenders:
        mine = results[contest.title, name]
        rate, cpu = median(one.rate for one in mine), median(one.cpu for one in mine)
        faster, cheaper = ratio(mine, yardstick, "rate"), ratio(mine, yardstick, "cpu")
        lines.append(f"| {shown} | {rate:,.0f} | {faster:.2f} | {cpu:.2f} | {cheaper:.2f} |")
    return "\n".join(lines)


# --- memory and fairness ------------------------------------------------------------------------------------------


def peak_mib(command: str, paths: Path, base: str, folder: Path) -> float:
    """Return the peak resident memory of a `tcb-ops` command, in MiB."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        options = [
            *("--api-base", base),
            *("--merchants", str(folder / "merchants.csv")),
            *("--tokens", str(folder / "tokens.csv")),
            *("--ledger", str(Path(own, "ledger.db"))),
            *("--out", str(Path(own, "out"))),
        ]
        if command == "upload":
            options += ["--root", str(folder / "files")]
        began = subprocess.Popen(
            [sys.executable, "-m", "tcb_ops", command, str(paths), "--quiet", *options],
            cwd=own,
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(began.pid, 0)
        began.returncode = os.waitstatus_to_exitcode(status)
    if began.returncode:
        sys.exit(f"tcb-ops {command} ended with {began.returncode}")
    return used.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)  # KiB on Linux, bytes on macOS


def envs_seen(base: str, calls: int) -> int:
    """Return how many environments the first `calls` link calls were for since the last query."""
    with urllib.request.urlopen(f"{base}/first-calls") as answer:
        first = json.load(answer)
    return sum(number <= calls for number in first.values())


@dataclass(frozen=True)
class Memory:
    few: float
    many: float
    small_file: float
    big_file: float
    seen: int


def memory(sizes: Sizes, base: str, folder: Path) -> Memory:
    envs_seen(base, 0)
    few = peak_mib("links", folder / "few.csv", base, folder)
    seen = envs_seen(base, sizes.few // 10)
    many = peak_mib("links", folder / "many.csv", base, folder)
    with simulator(folder) as store:
        small = peak_mib("upload", folder / "one-small.csv", store, folder)
        big = peak_mib("upload", folder / "one-big.csv", store, folder)
    return Memory(few, many, small, big, seen)


def memory_table(sizes: Sizes, found: Memory) -> str:
    return f"""\
## Memory and fairness

| | peak MiB | ratio |
|---|---:|---:|
| `tcb-ops links`, {sizes.few:,} rows over {ENVS} environments | {found.few:.0f} | |
| `tcb-ops links`, {sizes.many:,} rows over {ENVS} environments | {found.many:.0f} | {found.many / found.few:.2f} |
| `tcb-ops upload`, one file of 4 KB | {found.small_file:.0f} | |
| `tcb-ops upload`, one file of {sizes.big_file / 1024**3:.1f} GB | {found.big_file:.0f} | {found.big_file / found.small_file:.2f} |

A list of {sizes.few:,} rows sorted by env: its first {sizes.few // 10:,} calls were for {found.seen} of {ENVS} environments."""


# --- the report ---------------------------------------------------------------------------------------------------


def promises(results: dict[tuple[str, str], list[Result]], found: Memory) -> dict[str, bool]:
    kept = {
        "half of the environments are seen in the first tenth of the calls": found.seen >= ENVS / 2,
        "ten times the rows take at most 15 % more memory": found.many <= found.few * GROWTH,
        "a big file takes at most 15 % more memory than a small one": found.big_file
        <= found.small_file * GROWTH,
    }
    for contest in CONTESTS:
        theirs, mine = (results[contest.title, name] for name, _ in contest.contenders[:2])
        kept[f"{contest.title}: less CPU than requests + threads"] = ratio(mine, theirs, "cpu") < 1
    return kept


def machine(rounds: int, *, quick: bool) -> str:
    names = ("tcb-ops", "aiohttp", "httpx", "uvloop", "sqlalchemy", "requests")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    size = "quick sizes" if quick else "full sizes"
    return (
        f"{datetime.now(UTC):%Y-%m-%d} · {platform.system()} {platform.machine()}, {os.cpu_count()} cores · "
        f"Python {platform.python_version()} · {versions} · {rounds} rounds, {size}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure tcb_ops against requests + threads and bare aiohttp."
    )
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes: under a minute, and rougher")
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL
    rounds = given.rounds or (2 if given.quick else 5)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tcb-ops-bench-") as name:
        folder = Path(name)
        prepare(folder, sizes)
        with lean_server() as base:
            results = speed(rounds, base, folder)
            found = memory(sizes, base, folder)
    kept = promises(results, found)
    report = "\n\n".join(
        [
            "# Results",
            "What is measured, and how: README.md. Figures are medians of the rounds, ratios medians within a round.",
            machine(rounds, quick=given.quick),
            *(speed_table(contest, results) for contest in CONTESTS),
            memory_table(sizes, found),
            "## Held to\n\n"
            + "\n".join(f"* {'kept' if held else 'MISSED'}: {what}" for what, held in kept.items()),
        ]
    )
    print(report)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    (HERE / "RESULTS.md").write_text(report + "\n", encoding="utf-8", newline="\n")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

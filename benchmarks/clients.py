"""The clients to compare. Each runs in a process of its own, so that CPU and memory are measured separately:

    python benchmarks/clients.py NAME BASE FOLDER LIST

It processes LIST (a CSV `env,path,file` in FOLDER, beside merchants.csv, tokens.csv and files/) against BASE and
prints {"rows", "seconds", "cpu", "written", "peak"}: seconds from reading the list to writing the last result, and CPU-seconds of user
and system time in that period. Imports are not counted: each client does the first row before, unless it is the only one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

COLLECT = (10_000, 20, 50)
"""The thresholds of the garbage collector in runs of tcb-ops (engine/loop.py)."""
AT_ONCE = 64
"""Calls in flight, for every client but those with fewer threads."""

RunSpec = tuple[str, Path, Path]
"""Base URL, folder, list."""


def rows_of(work: RunSpec) -> list[dict[str, str]]:
    with work[2].open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tokens_of(work: RunSpec) -> dict[str, str]:
    """Return the access token of each environment."""
    folder = work[1]
    with (folder / "tokens.csv").open(newline="") as file:
        tokens = {line["appid"]: line["access_token"] for line in csv.DictReader(file)}
    with (folder / "merchants.csv").open(encoding="utf-8", newline="") as file:
        return {line["env"]: tokens[line["appid"]] for line in csv.DictReader(file)}


def write_links(folder: str, links: list[dict[str, Any]]) -> None:
    with Path(folder, "links.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(links[0]))
        writer.writeheader()
        writer.writerows(links)


# --- tcb_ops ------------------------------------------------------------------------------------------------------


def tcb_whole(kind: str, ledger: str = "") -> Callable[[RunSpec], int]:
    """Return `tcb_ops.links` or `tcb_ops.upload` as used by an operator: list, ledger, links.csv; `ledger`: a URL."""

    import tcb_ops as tcb
    import tcb_ops.api
    import tcb_ops.engine.session
    import tcb_ops.features.simulator
    from tcb_ops.settings import TokenSettings

    def work(given: RunSpec) -> int:
        base, folder, paths = given
        with tempfile.TemporaryDirectory(dir=folder) as own:
            settings = tcb.Settings(
                api_base=base,
                merchants=folder / "merchants.csv",
                ledger=ledger or str(Path(own, "ledger.db")),
                tokens=TokenSettings(file=folder / "tokens.csv"),
            )
            merchants = tcb.read_merchants(settings.merchants)
            root = folder / "files" if kind == "upload" else None
            with tcb.read_paths(paths, merchants, root) as batch:
                if kind == "upload":
                    run = tcb.upload(batch, settings=settings)
                else:
                    run = tcb.links(batch, settings=settings, out=Path(own, "links.csv"))
            return run.counts["uploaded" if kind == "upload" else "linked"]

    return work


def tcb_calls() -> Callable[[RunSpec], int]:
    """Return only the calls of `PlatformClient.upload_link`: the cost of a link without list, ledger and links.csv."""
    from tcb_ops.model import Link, Secret
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.transport import Transport

    async def work(given: RunSpec) -> int:
        rows = iter(rows_of(given))
        tokens = {env: Secret(token) for env, token in tokens_of(given).items()}
        got = 0
        async with Transport(connections=AT_ONCE) as transport:
            client = PlatformClient(transport, given[0])

            async def worker() -> None:
                nonlocal got
                for row in rows:
                    answer = await client.upload_link(row["env"], row["path"], tokens[row["env"]])
                    got += isinstance(answer, Link)

            await all_at_once(worker)
        return got

    return on_uvloop(work)


# --- the clients to compare with ----------------------------------------------------------------------------------


def bare_aiohttp(*collect: int) -> Callable[[RunSpec], int]:
    """Return the minimum of a client: post, read, json.loads, append. `collect`: thresholds of the garbage collector."""
    import gc

    import aiohttp

    if collect:
        gc.set_threshold(*collect)

    async def work(given: RunSpec) -> int:
        rows, tokens = iter(rows_of(given)), tokens_of(given)
        links: list[dict[str, Any]] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

            async def worker() -> None:
                for row in rows:
                    url = f"{given[0]}/tcb/uploadfile?access_token={tokens[row['env']]}"
                    body = json.dumps({"env": row["env"], "path": row["path"]}, ensure_ascii=False).encode()
                    async with session.post(url, data=body) as answer:
                        links.append(json.loads(await answer.read()))

            await all_at_once(worker)
        return sum(link["errcode"] == 0 for link in links)

    return on_uvloop(work)


def requests_links(at_once: int) -> Callable[[RunSpec], int]:
    """Return a typical operator's script: requests, threads, a session per thread, a CSV at the end."""
    import requests

    mine = threading.local()

    def work(given: RunSpec) -> int:
        tokens = tokens_of(given)

        def ask(row: dict[str, str]) -> dict[str, Any]:
            if not hasattr(mine, "session"):
                mine.session = requests.Session()
            return requests_link(mine.session, given[0], tokens[row["env"]], row)

        with tempfile.TemporaryDirectory(dir=given[1]) as own, ThreadPoolExecutor(at_once) as threads:
            links = list(threads.map(ask, rows_of(given)))
            write_links(own, links)
        return sum(link["errcode"] == 0 for link in links)

    return work


def requests_upload(at_once: int) -> Callable[[RunSpec], int]:
    """Return the same script for uploads: link, MD5, form post, comparison of the ETag."""
    import requests

    mine = threading.local()

    def work(given: RunSpec) -> int:
        tokens = tokens_of(given)

        def send(row: dict[str, str]) -> bool:
            if not hasattr(mine, "session"):
                mine.session = requests.Session()
            link = requests_link(mine.session, given[0], tokens[row["env"]], row)
            content = (given[1] / "files" / row["file"]).read_bytes()
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            fields = {
                "key": row["path"],
                "Signature": link["authorization"],
                "x-cos-security-token": link["token"],
                "x-cos-meta-fileid": link["cos_file_id"],
            }
            answer = mine.session.post(
                link["url"], data=fields, files={"file": ("file", content)}, timeout=60
            )
            return answer.status_code in {200, 201, 204} and answer.headers["ETag"].strip('"') == md5

        with ThreadPoolExecutor(at_once) as threads:
            return sum(threads.map(send, rows_of(given)))

    return work


def requests_link(session: Any, base: str, token: str, row: dict[str, str]) -> dict[str, Any]:
    body = json.dumps({"env": row["env"], "path": row["path"]}, ensure_ascii=False).encode()
    answer = session.post(f"{base}/tcb/uploadfile", params={"access_token": token}, data=body, timeout=60)
    link: dict[str, Any] = answer.json()
    return link


# ------------------------------------------------------------------------------------------------------------------


async def all_at_once(worker: Callable[[], Coroutine[None, None, None]]) -> None:
    import asyncio

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


def on_uvloop(work: Callable[[RunSpec], Coroutine[None, None, int]]) -> Callable[[RunSpec], int]:
    import uvloop

    return lambda given: uvloop.run(work(given))


CONTENDERS: dict[str, Callable[[], Callable[[RunSpec], int]]] = {
    "tcb-links": lambda: tcb_whole("links"),
    "tcb-links-postgres": lambda: tcb_whole("links", os.environ["BENCH_POSTGRES"]),
    "tcb-calls": tcb_calls,
    "tcb-upload": lambda: tcb_whole("upload"),
    "aiohttp-links": bare_aiohttp,
    "aiohttp-links-gc": lambda: bare_aiohttp(*COLLECT),
}
for at_once in (8, 16, 64):
    CONTENDERS[f"requests-links-{at_once}"] = partial(requests_links, at_once)
    CONTENDERS[f"requests-upload-{at_once}"] = partial(requests_upload, at_once)


def main(name: str, base: str, folder: str, paths: str) -> None:
    work = CONTENDERS[name]()
    do_first_row(work, base, Path(folder), Path(paths))
    before = written()
    used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    rows = work((base, Path(folder), Path(paths)))
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    peak = now.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)  # KiB on Linux, bytes on macOS
    figures = {"rows": rows, "seconds": seconds, "cpu": cpu, "written": written() - before, "peak": peak}
    print(json.dumps(figures))


def do_first_row(work: Callable[[RunSpec], int], base: str, folder: Path, paths: Path) -> None:
    """Let a client load what it loads at its first use."""
    with paths.open(encoding="utf-8") as file, tempfile.TemporaryDirectory(dir=folder) as own:
        head, row, is_longer = file.readline(), file.readline(), bool(file.readline())
        if is_longer:
            first = Path(own, "first.csv")
            first.write_text(head + row, encoding="utf-8")
            work((base, folder, first))


def written() -> int:
    """Return the bytes that this process has caused to be written to disks; 0 where the system does not tell."""
    try:
        figures = Path("/proc/self/io").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(figures.partition("write_bytes: ")[2].split()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])

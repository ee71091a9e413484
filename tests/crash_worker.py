"""What the tests of crash states record: `crash_worker.py links|upload|backup|export|tokens FOLDER [STOP]`.

Of FOLDER, `inputs` is what a run reads, its settings among it, and `work` what it writes. With STOP the process kills itself
once so many rows are shown as done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import tcb_ops as tcb
from tcb_ops.wechat.tokens import open_source

FEW = tcb.RunLimits(concurrency=8, per_env=4, backoff=0.01, patience=10)


def settings_of(folder: Path) -> tcb.Settings:
    return tcb.load_settings(folder / "inputs" / "tcb-ops.toml")


def batch_of(folder: Path) -> tcb.Batch:
    inputs = folder / "inputs"
    return tcb.read_paths(inputs / "list.csv", tcb.read_merchants(inputs / "merchants.csv"), inputs / "files")


def say(text: str) -> None:
    """Show something: one write to the screen."""
    os.write(1, f"{text}\n".encode())


async def rotate(settings: tcb.Settings) -> None:
    """Have every merchant's token refreshed, four times, as so many processes in turn do."""
    tokens: dict[str, tcb.Secret] = {}
    for _ in range(4):
        source = open_source(settings)
        try:
            for appid in sorted({merchant.appid for merchant in tcb.read_merchants(settings.merchants)}):
                tokens[appid] = (await source.token(appid, tokens.get(appid))).value
                say(f"token {appid}")
        finally:
            await source.aclose()


def main(kind: str, folder: Path, stop: int = 0) -> None:
    def show(progress: tcb.Progress) -> None:
        say(f"shown {json.dumps({str(outcome): rows for outcome, rows in progress.counts.items()})}")
        if stop and progress.done >= stop:
            os.kill(os.getpid(), signal.SIGKILL)

    work, settings = folder / "work", settings_of(folder)
    say("begin")
    if kind == "tokens":
        asyncio.run(rotate(settings))
        return
    options = {"settings": settings, "limits": FEW, "progress": show}
    if kind == "links":
        tcb.links(batch_of(folder), out=work / "links.csv", **options)
    else:
        backup = work / "saved" / "backup" if kind == "backup" else None
        run = tcb.upload(batch_of(folder), backup=backup, **options)
    say("finished")
    if kind == "export":
        for _ in range(3):
            say("exporting")
            run.export(work / "reports" / "today")
            say("exported")


if __name__ == "__main__":
    name, where, *numbers = sys.argv[1:]
    main(name, Path(where), *map(int, numbers))

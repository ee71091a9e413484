"""The main job on Windows, as a user types it: check, upload, kills in the middle, resume, report; `windows_job.py [KILLS]`.

A list from Excel, Chinese messages, and output into a file, which has the code page of the machine (936 in China). Each kill comes at a
random moment; then no row may be lost, and none that was recorded is sent again. Nothing here needs Wine: it runs on a laptop too.
"""

from __future__ import annotations

import locale
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xlsxwriter

import tcb_ops as tcb
from tcb_ops.features.simulator import cos

sys.path.insert(0, str(Path(__file__).parent))  # Windows' embeddable Python does not
from rigged_simulator import Simulator

ROWS = 2_000
MERCHANTS = [
    tcb.Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),
    tcb.Merchant("wxbooks", "北岸书屋", "books-77aa01"),
]
TOKENS = {merchant.appid: f"token-of-{merchant.appid}" for merchant in MERCHANTS}
PYTHON = (sys.executable, "-m", "tcb_ops")


def main(folder: Path, kills: int) -> None:
    cos.LATEST = ROWS  # whose contents it keeps
    with Simulator(MERCHANTS, TOKENS, record=True) as sim:
        write_inputs(folder, sim.base)
        settings = tcb.load_settings(folder / "tcb-ops.toml")
        seed = time.time_ns()
        moments = sorted(random.Random(seed).sample(range(20, ROWS - 100), kills))
        say(f"code page {locale.getencoding()}, {kills} kills, seed {seed}")
        assert "2,000" in run(folder, "check", "list.xlsx", "--root", "files")
        upload = ("upload", "list.xlsx", "--root", "files", "--yes", "--out", "报告", "--concurrency", "16")
        recorded, began, sent_again = set(), 0, 0
        for moment in moments:
            with (folder / "killed.log").open("wb") as log:
                process = subprocess.Popen([*PYTHON, *upload], cwd=folder, stdout=log, stderr=log)
                wait_for(lambda: sim.stats["store_calls"] >= moment or process.poll() is not None)  # noqa: B023
                process.kill()
                process.wait(60)
            sent_again += len(recorded & {(call.env, call.path) for call in sim.calls[began:]})
            recorded, began = recorded_rows(settings), len(sim.calls)
            say(f"killed after {sim.stats['store_calls']} uploads, {len(recorded)} recorded")
        run(folder, *upload)
        sent_again += len(recorded & {(call.env, call.path) for call in sim.calls[began:]})
        result = tcb.open_run("latest", settings=settings)
        assert result.counts == {"uploaded": ROWS}, result.counts
        lost = [row for row in rows() if sim.content(*row) != content(row)]
        assert not lost, lost[:5]
        assert not sent_again, sent_again
        assert len(tcb.runs(settings=settings)) == 1
        run(folder, "report", "latest", "--out", "报告")
        run(folder, "verify", "报告")
        say(f"{ROWS} rows uploaded, 0 lost, 0 recorded rows sent again")


def rows() -> list[tuple[str, str]]:
    return [(MERCHANTS[number % 2].env, f"图片/{number:04}.png") for number in range(ROWS)]


def content(row: tuple[str, str]) -> bytes:
    return "/".join(row).encode()


def write_inputs(folder: Path, base: str) -> None:
    """Write a list as Excel does, with Chinese headers, its files, and the settings."""
    with xlsxwriter.Workbook(folder / "list.xlsx") as book:
        sheet = book.add_worksheet("清单")
        sheet.write_row(0, 0, ["环境ID", "上传路径", "本地文件", "备注"])
        for number, row in enumerate(rows()):
            file = folder / "files" / f"图{number // 500}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(row))
            sheet.write_row(number + 1, 0, [*row, str(file.relative_to(folder / "files")), f"第 {number} 行"])
    lines = [f"{merchant.appid},{merchant.name},{merchant.env}" for merchant in MERCHANTS]
    (folder / "merchants.csv").write_text("\n".join(["appid,name,env", *lines]), encoding="gbk")
    tokens = [",".join(pair) for pair in TOKENS.items()]
    (folder / "tokens.csv").write_text("\n".join(["appid,access_token", *tokens]), encoding="utf-8")
    settings = f'target = "{base}"\nlang = "zh"\n[tokens]\nsource = "file"\nfile = "tokens.csv"\n'
    (folder / "tcb-ops.toml").write_text(settings, encoding="utf-8")


def run(folder: Path, *words: str) -> str:
    """Run a command to its end; return what it said, read in the machine's code page."""
    with (folder / "ended.log").open("w+b") as log:
        ended = subprocess.run(
            [*PYTHON, *words], cwd=folder, stdout=log, stderr=log, timeout=300, check=False
        )
        log.seek(0)
        said = log.read().decode(locale.getencoding())
    assert ended.returncode == 0, said
    assert "Traceback" not in said, said
    assert "?" not in said, said
    return said


def recorded_rows(settings: tcb.Settings) -> set[tuple[str, str]]:
    runs = tcb.runs(settings=settings)
    ends = [(record.row.env, record.row.path, record.end.outcome) for run in runs for record in run.rows()]
    return {(env, path) for env, path, outcome in ends if outcome != "pending"}


def wait_for(condition) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    where = Path(tempfile.mkdtemp()).resolve()
    try:
        main(where, int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    finally:
        shutil.rmtree(
            where, ignore_errors=True
        )  # this process still has the ledger open, which Windows does not remove

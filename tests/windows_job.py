"""The main job on Windows, as a user types it: check, upload, kills in the middle, resume, report; `windows_job.py [KILLS]`.

A list from Excel, Chinese messages, and output into a file, which has the code page of the machine (936 in China). Each kill comes at a
random moment; then no row may be lost, and none that was recorded is sent again. Before that, the commands of README and the
tutorials, in English and Chinese. Nothing here needs Wine: it runs on a laptop too.
"""

from __future__ import annotations

import locale
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xlsxwriter

import tcb_ops as tcb
from tcb_ops.features.simulator import cos

sys.path.insert(0, str(Path(__file__).parent))  # Windows' embeddable Python does not
from doc_pages import HOME, ROOT, RUN_ID, blocks, commands
from rigged_simulator import Simulator

ROWS = 2_000
PAGES = [*ROOT.glob("README*.md"), *ROOT.glob("docs/*/tutorials/*.md")]
MERCHANTS = [
    tcb.Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),
    tcb.Merchant("wxbooks", "北岸书屋", "books-77aa01"),
]
TOKENS = {merchant.appid: f"token-of-{merchant.appid}" for merchant in MERCHANTS}
PYTHON = (sys.executable, "-m", "tcb_ops")
TEA = "\U0001f375"


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
        code_page = locale.getencoding()
        escaped = TEA.encode(code_page, "backslashreplace").decode(code_page)
        assert escaped in run(folder, "show", "latest", "--path", TEA)
        say(f"{ROWS} rows uploaded, 0 lost, 0 recorded rows sent again")


def run_page(page: Path, folder: Path) -> int:
    """Run the commands of a documentation page, as one session in a folder; return their number."""
    folder.mkdir()
    count = 0
    lang = "zh" if "zh" in str(page.relative_to(ROOT)) else "en"
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.caption and block.kind not in {"console", "python"}:
            (folder / block.caption).write_text("\n".join(block.lines), encoding="utf-8")
        for command in commands(block) if block.kind == "console" else ():
            line = re.sub(RUN_ID, "latest", command.line).replace(HOME, folder.as_posix())
            if line.startswith("tcb-ops "):
                run(folder, *shlex.split(line)[1:], codes=(0, 1), lang=lang)
                count += 1
            elif line.startswith("echo > "):
                (folder / line.removeprefix("echo > ")).write_text("\n", encoding="utf-8")
    return count


def rows() -> list[tuple[str, str]]:
    names = [f"{number:04}" for number in range(1, ROWS)]
    return [(MERCHANTS[number % 2].env, f"图片/{name}.png") for number, name in enumerate([TEA, *names])]


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


def run(folder: Path, *words: str, codes: tuple[int, ...] = (0,), lang: str = "zh") -> str:
    """Run a command to its end; return what it said, read in the machine's code page. Nothing may be lost there as "?"."""
    with (folder / "ended.log").open("w+b") as log:
        ended = subprocess.run(
            [*PYTHON, *words],
            cwd=folder,
            env=os.environ | {"TCB_OPS_LANG": lang},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=120,
            check=False,
        )
        log.seek(0)
        said = log.read().decode(locale.getencoding())
    assert ended.returncode in codes, f"{words}: {said}"
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
        with ThreadPoolExecutor(os.cpu_count()) as pages:
            folders = [where / str(number) for number in range(len(PAGES))]
            say(f"{sum(pages.map(run_page, PAGES, folders))} commands of {len(PAGES)} pages")
        main(where, int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    finally:
        shutil.rmtree(
            where, ignore_errors=True
        )  # this process still has the ledger open, which Windows does not remove

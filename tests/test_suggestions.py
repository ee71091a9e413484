"""Every command that README, tutorials, the demo and their reports suggest works as it stands, in a fresh shell from another folder."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, commands

PROGRAM = Path(sys.executable).parent / "tcb-ops"
"""It is not on PATH, so suggestions name it by this path."""
PAGES = ("README.md", "docs/en/tutorials/demo.md", "docs/en/tutorials/first-upload.md")


def shell(line, folder, *, may_be_refused=False):
    """Run a line in a fresh shell; return what it printed. Unless it may, it must not be refused (2) or stopped (3)."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert may_be_refused or done.returncode in {0, 1}, f"{line}\n{output}"
    assert "Traceback" not in output, output
    return output


def suggested(output):
    return [line for line in output.splitlines() if line.startswith(f"{PROGRAM} ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_suggested_command_works_in_a_fresh_shell_from_another_folder(name, tmp_path):
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    reports, tried = set(), set()
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        for command in commands(block) if block.kind == "console" else ():
            line = re.sub(r"^tcb-ops ", f"{PROGRAM} ", command.line)
            output = shell(line, folder, may_be_refused=True)  # a suggestion may have done it already
            suggestions = suggested(output)
            for page in set(folder.rglob("report.html")) - reports:
                # The page's placeholder for a corrected list is its failed.csv.
                shutil.copy(page.with_name("failed.csv"), elsewhere / "failed-fixed.csv")
                on_page = re.findall(r"<kbd[^>]*>(.*?)</kbd>", page.read_text(encoding="utf-8"))
                suggestions += map(html.unescape, on_page)
            for suggestion in dict.fromkeys(suggestions):
                program, *what = suggestion.split(" ")[:3]
                assert program == str(PROGRAM)
                # The page says again what the terminal said, in other words: a second retry has nothing to do.
                shell(suggestion, elsewhere, may_be_refused=tuple(what) in tried)
                tried.add(tuple(what))
            reports = set(folder.rglob("report.html"))
    assert tried


@pytest.mark.slow
def test_a_suggestion_repeats_the_pace_and_names_the_program_as_a_shell_finds_it(tmp_path):
    shell(f"{PROGRAM} init --practice .", tmp_path)
    upload = "upload paths.csv --root files --rate 7 --per-env 3"
    (line,) = suggested(shell(f"{PROGRAM} {upload}", tmp_path))
    assert " --per-env 3 --rate 7 " in line
    on_path = shell(f"PATH={PROGRAM.parent}:$PATH; tcb-ops {upload} --new-run", tmp_path)
    assert re.search(r"^tcb-ops retry \S+ --errcode 85088 --per-env 3 --rate 7 ", on_path, re.MULTILINE)


@pytest.mark.slow
def test_open_shows_the_report_in_the_browser_or_says_how_to_get_one(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/opened\n', "utf-8")
    browser.chmod(0o700)
    shell(f"{PROGRAM} init --practice .", tmp_path)
    shell(f"{PROGRAM} upload paths.csv --root files --quiet", tmp_path)
    (page,) = tmp_path.glob("reports/*/report.html")
    for run in ("", "latest", page.parent.name, page.parent.name[-4:], f"reports/{page.parent.name}"):
        assert str(page) in shell(f"{PROGRAM} open {run} --print", tmp_path).splitlines()
    shell(f"BROWSER={browser} {PROGRAM} open", tmp_path)
    assert (tmp_path / "opened").read_text(encoding="utf-8").strip() == page.as_uri()
    shutil.rmtree(page.parent)
    refused = shell(f"{PROGRAM} open; echo $?", tmp_path)
    assert "has no report to open" in refused
    assert refused.startswith("2\n")
    (line,) = suggested(refused)
    shell(line, tmp_path)
    assert str(page) in shell(f"{PROGRAM} open --print", tmp_path).splitlines()

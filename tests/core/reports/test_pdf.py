"""report.pdf: where a Chromium is found; without one, or with one that fails, nothing is in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.features.evidence.verify import verify
from tcb_ops.reports.formats.html import CHROMIUM, find_chromium, write_pdf

if TYPE_CHECKING:
    from collections.abc import Callable

STAND_IN = """#!/bin/sh
for word in "$@"; do case $word in --print-to-pdf=*) target=${word#--print-to-pdf=};; esac; done
printf "%s" "$@" > "$(dirname "$0")/said"
env > "$(dirname "$0")/environment"
"""


def program(tmp_path: Path, *lines: str) -> str:
    """A stand-in for the browser: a script of our own."""
    file = tmp_path / "chromium"
    file.write_text(STAND_IN + "\n".join(lines) + "\n", encoding="utf-8")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "报告 page.html"
    file.write_text("<p>page</p>", encoding="utf-8")
    return file


# TCB_OPS_CHROMIUM, what is in PATH -> what is found
FOUND = {
    "the first in PATH": (None, ["google-chrome", "chromium"], "chromium"),
    "another name": (None, ["google-chrome"], "google-chrome"),
    "none": (None, [], None),
    "the variable comes first": ("{folder}/mine", ["chromium", "mine"], "mine"),
    "the variable names what is not there": ("{folder}/gone", ["chromium"], None),
    "an empty variable means none": ("", ["chromium"], None),
}


@pytest.mark.parametrize(("named", "there", "found"), FOUND.values(), ids=FOUND)
def test_which_chromium_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, there: list[str], found: str | None
) -> None:
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(CHROMIUM, raising=False)
    if named is not None:
        monkeypatch.setenv(CHROMIUM, named.format(folder=tmp_path))
    assert find_chromium() == (str(tmp_path / found) if found else None)


def test_the_browser_gets_no_network_no_secret_and_no_home(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCB_OPS_TOKENS__FILE", "a-secret-place")
    made = tmp_path / "report.pdf"
    assert write_pdf(page, made, program(tmp_path, 'printf "%%PDF-1.4" > "$target"')) is None
    assert made.read_bytes() == b"%PDF-1.4"
    result = (tmp_path / "said").read_text(encoding="utf-8")
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in result
    assert page.as_uri() in result
    assert ("--no-sandbox" in result) is (os.geteuid() == 0)
    environment = (tmp_path / "environment").read_text(encoding="utf-8")
    assert "a-secret-place" not in environment
    assert f"HOME={Path.home()}\n" not in environment


FAILING = {
    "ends without one": ["exit 7"],
    "leaves something else": ['echo "<html>" > "$target"'],
    "is half done": ['printf "%%PD" > "$target"', "kill -9 $$"],
}


@pytest.mark.parametrize("lines", FAILING.values(), ids=FAILING)
def test_a_browser_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, page: Path, lines: list[str]
) -> None:
    made = tmp_path / "report.pdf"
    why = write_pdf(page, made, program(tmp_path, *lines))
    assert why is not None
    assert "report.pdf was not written: chromium ended with code" in why.en
    assert "没有生成 report.pdf" in why.zh
    assert not made.exists()


def test_one_that_hangs_is_ended(tmp_path: Path, page: Path) -> None:
    why = write_pdf(page, tmp_path / "report.pdf", program(tmp_path, "exec sleep 30"), timeout=0.2)
    assert why is not None
    assert "longer than 0.2 seconds" in why.en


def test_one_that_cannot_run_is_said(tmp_path: Path, page: Path) -> None:
    (tmp_path / "chromium").write_text("no program", encoding="utf-8")
    assert write_pdf(page, tmp_path / "report.pdf", str(tmp_path / "chromium")) is not None


def test_an_export_says_in_its_page_that_there_was_no_chromium(
    a_run: Callable[..., Any], tmp_path: Path
) -> None:
    dest = a_run().export(tmp_path / "out")
    assert not (dest / "report.pdf").exists()
    assert "no Chromium was found" in (dest / "report.html").read_text(encoding="utf-8")


def test_an_export_whose_browser_fails_warns_and_is_whole(
    a_run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(CHROMIUM, program(tmp_path, "exit 7"))
    dest = a_run().export(tmp_path / "out")
    assert "report.pdf was not written" in caplog.text
    files = json.loads((dest / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert "report.pdf" not in files
    assert not (dest / "report.pdf").exists()
    assert 'href="report.pdf"' not in (dest / "report.html").read_text(encoding="utf-8")


def test_the_pdf_comes_after_a_report_that_is_complete_without_it(
    a_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHROMIUM, program(tmp_path, 'printf "%%PDF-1.4" > "$target"'))
    reported, dest, seen = a_run(), tmp_path / "out", []

    def when_written() -> None:
        seen.append(((dest / "report.pdf").exists(), verify(dest, reported.ledger).good))

    reported.export(dest, when_written=when_written)
    assert seen == [(False, True)]
    assert (dest / "report.pdf").exists()
    assert verify(dest, reported.ledger).good
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out.")] == []


def test_without_a_pdf_no_browser_is_started_or_missed(
    a_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHROMIUM, program(tmp_path, f'touch "{tmp_path}/started"'))
    dest = a_run().export(tmp_path / "out", pdf=False)
    assert not (tmp_path / "started").exists()
    assert "report.pdf" not in (dest / "report.html").read_text(encoding="utf-8")


def test_a_file_that_was_put_beside_the_report_meanwhile_stays(
    a_run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(CHROMIUM, program(tmp_path, 'printf "%%PDF-1.4" > "$target"'))
    dest = tmp_path / "out"
    a_run().export(dest, when_written=lambda: (dest / "notes.txt").write_text("mine", encoding="utf-8"))
    assert (dest / "notes.txt").exists()
    assert not (dest / "report.pdf").exists()
    assert "notes.txt" in caplog.text


def test_a_pdf_is_part_of_the_report_and_of_its_manifest(
    a_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHROMIUM, program(tmp_path, 'printf "%%PDF-1.4" > "$target"'))
    dest = a_run().export(tmp_path / "out")
    files = json.loads((dest / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert files["report.pdf"]["bytes"] == (dest / "report.pdf").stat().st_size == 8
    page = (dest / "report.html").read_text(encoding="utf-8")
    assert "no Chromium" not in page
    assert page.count('<a href="report.pdf">') == 1

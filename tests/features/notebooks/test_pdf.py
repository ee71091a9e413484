"""report.pdf: where a Chromium is found; without one, or with one that fails, nothing is in the way."""

import json
import os
from pathlib import Path

import pytest

from tcb_ops.checks import Grade
from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.verify import check_report
from tcb_ops.features.notebooks.checks import browser_check
from tcb_ops.features.notebooks.printing import CHROMIUM, find_chromium, write_pdf
from tcb_ops.settings import load_settings

STAND_IN = """#!/bin/sh
for word in "$@"; do case $word in --print-to-pdf=*) target=${word#--print-to-pdf=};; esac; done
printf "%s" "$@" > "$(dirname "$0")/said"
env > "$(dirname "$0")/environment"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Take a script of our own for the browser, which ends with these lines."""

    def make(*lines):
        file = tmp_path / "chromium"
        file.write_text(STAND_IN + "\n".join(lines) + "\n", encoding="utf-8")
        file.chmod(0o755)
        monkeypatch.setenv(CHROMIUM, str(file))

    return make


PRINTS = 'printf "%%PDF-1.4" > "$target"'


@pytest.fixture
def page(tmp_path):
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


@pytest.mark.posix("shell programs")
@pytest.mark.parametrize(("named", "there", "found"), FOUND.values(), ids=FOUND)
def test_which_chromium_is_taken(tmp_path, monkeypatch, named, there, found):
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(CHROMIUM, raising=False)
    if named is not None:
        monkeypatch.setenv(CHROMIUM, named.format(folder=tmp_path))
    assert find_chromium() == (str(tmp_path / found) if found else None)


@pytest.mark.posix("shell programs")
def test_doctor_says_which_browser_prints_and_warns_where_none_does_and_the_settings_want_one(
    program, monkeypatch
):
    program(PRINTS)
    check = browser_check(load_settings())
    assert (check.probe().grade, check.probe().seen.en) == (Grade.OK, "chromium prints it")
    monkeypatch.setenv(CHROMIUM, "")
    assert check.probe().grade is Grade.SKIPPED
    assert browser_check(load_settings(options={"report": {"pdf": True}})).probe().grade is Grade.WARNING


@pytest.mark.posix("shell programs")
def test_the_browser_gets_no_network_no_secret_and_no_home(tmp_path, page, monkeypatch, program):
    monkeypatch.setenv("TCB_OPS_TOKENS__FILE", "a-secret-place")
    program(PRINTS)
    pdf = tmp_path / "report.pdf"
    assert write_pdf(page, pdf) is None
    assert pdf.read_bytes() == b"%PDF-1.4"
    result = (tmp_path / "said").read_text(encoding="utf-8")
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in result
    assert page.as_uri() in result
    assert ("--no-sandbox" in result) is (os.geteuid() == 0)
    environment = (tmp_path / "environment").read_text(encoding="utf-8")
    assert "a-secret-place" not in environment
    assert f"HOME={Path.home()}\n" not in environment


FAILING = {
    "ends without one": (["exit 7"], "chromium ended with code 7"),
    "leaves something else": (['echo "<html>" > "$target"'], "chromium ended with code 0"),
    "is half done": (['printf "%%PD" > "$target"', "kill -9 $$"], "chromium ended with code -9"),
    "hangs": (["exec sleep 30"], "it took longer than 0.2 seconds"),
}


@pytest.mark.posix("shell programs")
@pytest.mark.parametrize(("lines", "reason"), FAILING.values(), ids=FAILING)
def test_a_browser_that_fails_leaves_nothing_and_says_why(tmp_path, page, program, lines, reason):
    program(*lines)
    warning = write_pdf(page, tmp_path / "report.pdf", timeout=0.2 if "sleep" in lines[0] else 60)
    assert f"report.pdf was not written: {reason}" in warning.en
    assert not (tmp_path / "report.pdf").exists()


@pytest.mark.parametrize("named", ["", "{folder}/no-program"], ids=["none", "no program"])
def test_an_export_without_a_browser_warns_and_is_whole(a_run, tmp_path, monkeypatch, caplog, named):
    (tmp_path / "no-program").write_text("no program", encoding="utf-8")
    (tmp_path / "no-program").chmod(0o755)
    monkeypatch.setenv(CHROMIUM, named.format(folder=tmp_path))
    reported = a_run()
    dest = reported.export(tmp_path / "out", pdf=True)
    assert "report.pdf was not written" in caplog.text
    assert not (dest / "report.pdf").exists()
    assert "report.pdf" not in (dest / "report.html").read_text(encoding="utf-8")
    assert check_report(dest, reported.ledger).good


def test_without_a_request_no_browser_is_started_or_missed(a_run, tmp_path, program, caplog):
    program(f'touch "{tmp_path}/started"')
    dest = a_run().export(tmp_path / "out")
    assert not (tmp_path / "started").exists()
    assert "report.pdf" not in (dest / "report.html").read_text(encoding="utf-8") + caplog.text


@pytest.mark.posix("shell programs")
def test_a_file_that_was_put_into_the_folder_meanwhile_stays(a_run, tmp_path, program):
    reported, dest = a_run(), tmp_path / "out"
    reported.export(dest)
    program(f'touch "{dest}/notes.txt"', PRINTS)
    with pytest.raises(UsageError, match=r"notes\.txt"):
        reported.export(dest, pdf=True)
    assert (dest / "notes.txt").exists()


@pytest.mark.posix("shell programs")
def test_a_pdf_is_part_of_the_report_and_of_its_manifest(a_run, tmp_path, program):
    program(PRINTS)
    reported = a_run()
    dest = reported.export(tmp_path / "out", pdf=True)
    files = json.loads((dest / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert files["report.pdf"]["bytes"] == (dest / "report.pdf").stat().st_size == 8
    assert (dest / "report.html").read_text(encoding="utf-8").count('<a href="report.pdf">') == 1
    assert check_report(dest, reported.ledger).good


@pytest.mark.posix("shell programs")
@pytest.mark.parametrize(("says", "warned"), [("", True), ("echo NotoSansCJK", False), ("exit 1", False)])
def test_a_pdf_that_no_font_has_chinese_for_is_warned_of(
    a_run, tmp_path, program, monkeypatch, caplog, says, warned
):
    program(PRINTS)
    (tmp_path / "fc-list").write_text(
        f'#!/bin/sh\ntest "$1" = ":lang=zh" || exit 1\n{says}\n', encoding="utf-8"
    )
    (tmp_path / "fc-list").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    dest = a_run().export(tmp_path / "out", pdf=True)
    assert (dest / "report.pdf").exists()
    assert ("fonts-noto-cjk" in caplog.text) is warned

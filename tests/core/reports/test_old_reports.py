"""`prune --reports` removes old reports that the ledger can write again, and nothing else."""

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from workspace import TEA, many

pytestmark = pytest.mark.integration


def make_old(report):
    """Make a report as if it had been exported long ago."""
    manifest = report / "manifest.json"
    before = manifest.read_bytes()
    content = json.loads(before) | {"exported_at": datetime(2020, 1, 1, tzinfo=UTC).isoformat()}
    manifest.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    digests = (hashlib.sha256(each).hexdigest() for each in (manifest.read_bytes(), before))
    with closing(sqlite3.connect("ledger.db")) as ledger, ledger:
        sql = "UPDATE exports SET manifest_sha256 = ? WHERE manifest_sha256 = ?"
        assert ledger.execute(sql, tuple(digests)).rowcount == 1


def replace_by_link(report):
    elsewhere = Path("elsewhere").absolute()
    report.rename(elsewhere)
    report.symlink_to(elsewhere)


def remove_its_run(report):
    with closing(sqlite3.connect("ledger.db")) as ledger, ledger:
        ledger.execute("DELETE FROM exports")


def append(file):
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n")


@pytest.fixture
def reported(open_cli):
    cli = open_cli(many(TEA, rows=2))
    report = Path("reports", cli.upload("--json").json["run"])
    return cli, report


@pytest.mark.parametrize(
    ("happens", "removed"),
    [
        pytest.param(lambda _: None, True, id="nothing"),
        pytest.param(lambda report: (report / "results.csv").unlink(), True, id="a-file-is-removed"),
        pytest.param(lambda report: (report / ".DS_Store").touch(), True, id="a-desktop-leaves-a-file"),
        pytest.param(
            lambda report: (report / ".ipynb_checkpoints").mkdir(), True, id="jupyter-leaves-a-folder"
        ),
        pytest.param(lambda report: append(report / "failed.csv"), False, id="a-file-is-changed"),
        pytest.param(lambda report: append(report / "manifest.json"), False, id="the-manifest-is-changed"),
        pytest.param(lambda report: (report / "notes.txt").touch(), False, id="a-file-is-added"),
        pytest.param(lambda report: (report / "photos").mkdir(), False, id="a-folder-is-added"),
        pytest.param(
            lambda report: (report / "manifest.json").unlink(), False, id="it-is-no-report-any-more"
        ),
        pytest.param(remove_its_run, False, id="its-run-is-removed"),
        pytest.param(replace_by_link, False, id="it-is-moved-and-linked", marks=pytest.mark.posix("links")),
    ],
)
def test_an_old_report_is_removed_if_the_ledger_can_write_it_again(reported, happens, removed):
    cli, report = reported
    make_old(report)
    happens(report)
    rehearsal = cli("prune", "--older-than", "90d", "--reports", "--dry-run")
    assert rehearsal.out.splitlines() == [str(report)] * removed
    assert report.exists()
    result = cli("prune", "--older-than", "90d", "--reports", "--json")
    assert (result.code, result.json["removed"]) == (0, [str(report)] * removed)
    assert report.exists() is not removed
    assert cli("report", report.name, "--out", "again").code == 0, "the run is still in the ledger"


def test_a_young_report_stays_and_so_does_what_is_no_report(reported):
    cli, report = reported
    (report.parent / "notes").mkdir()
    append(report.parent / "index.html")
    shutil.copytree(report, "sent")
    result = cli("prune", "--older-than", "1d", "--reports")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"0 reports removed from {report.parent}")
    assert sorted(each.name for each in report.parent.iterdir()) == sorted(
        ["index.html", "notes", report.name]
    )


def test_without_a_folder_of_reports_there_is_nothing_to_remove(open_cli):
    cli = open_cli(many(TEA, rows=1))
    assert cli.links().code == 0
    assert cli("prune", "--older-than", "1d", "--reports").err.startswith("0 reports removed from ")

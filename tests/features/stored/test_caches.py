"""Files that were overwritten, and how long users may still see the old ones."""

import pytest
from workspace import QUICK, TEA, write_csv

import tcb_ops as tcb

pytestmark = pytest.mark.slow


@pytest.fixture
def upload(open_workspace):
    """Upload files with their Cache-Control, in a workspace of one environment; `upload.list` is the list of the next one."""
    workspace = open_workspace([(TEA.env, "a.png"), (TEA.env, "b.png")])

    def uploaded(*files, **options):
        rows = [(TEA.env, path, file, cache) for path, file, cache in files]
        uploaded.list = write_csv(
            workspace.folder / "own.csv", ("env", "path", "file", "cache_control"), rows
        )
        batch = tcb.read_paths(uploaded.list, workspace.merchants, workspace.folder / "files")
        return tcb.upload(batch, settings=workspace.settings, limits=QUICK, **options)

    uploaded.workspace = workspace
    return uploaded


def test_a_run_that_overwrote_files_says_how_long_the_old_ones_may_be_seen(upload):
    first = upload(("a.png", "0.bin", "max-age=604800"), ("b.png", "0.bin", "max-age=600"))
    assert first.verdict.of("en") == "All 2 rows succeeded: uploaded."
    again = upload(("a.png", "1.bin", "no-cache"), ("b.png", "1.bin", ""), new_run=True)
    said = again.verdict.of("en")
    assert "2 files replaced others that browsers and the CDN may keep for up to 7 days" in said
    assert again.report().joinpath("report.html").read_text("utf-8").count("for up to 7 days") == 1
    third = upload(("a.png", "0.bin", ""), ("b.png", "0.bin", ""), new_run=True)
    assert "may keep" not in third.verdict.of("en"), "what was replaced was not to be kept"
    assert "may keep" not in tcb.open_run(again.id, settings=upload.workspace.settings).verdict.of("en")


def test_the_same_bytes_again_are_not_worth_a_word(upload):
    upload(("a.png", "0.bin", "max-age=604800"))
    assert "may keep" not in upload(("a.png", "0.bin", "max-age=604800"), new_run=True).verdict.of("en")


def test_check_warns_of_a_long_cache_control_where_a_file_is_already(open_cli):
    rows = (("a.png", "0.bin", "max-age=86401"), ("b.png", "0.bin", "max-age=86400"))
    cli = open_cli([(TEA.env, "a.png")])
    source = write_csv(
        cli.folder / "own.csv",
        ("env", "path", "file", "cache_control"),
        [
            (TEA.env, path, file, cache)
            for path, file, cache in (*rows, ("new.png", "0.bin", "max-age=999999"))
        ],
    )
    assert "cache_control lets" not in cli("check", str(source), "--root", "files").err
    assert cli("upload", str(source), "--root", "files").code == 0
    warned = cli("check", str(source), "--root", "files")
    assert (warned.code, warned.err.count("cache_control lets")) == (0, 1)
    assert "2 rows replace files" in warned.err
    assert "for up to 12 days" in warned.err

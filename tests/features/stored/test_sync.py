"""sync as an operator types it."""

import hashlib
import os
import shlex
import signal
from typing import TYPE_CHECKING

import pytest
from stored_runs import upload_other

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored.api import start_delete_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import CommandLine

    OpenCli = Callable[..., CommandLine]

pytestmark = pytest.mark.integration

PACE = ("--backoff", "0.01")


@pytest.fixture
def photos(tmp_path):
    """A folder with two files, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "menu").mkdir(parents=True)
    (folder / "banner.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "menu" / "tea.json").write_text("{}", encoding="utf-8")
    return folder


def stored(cli):
    """The MD5s of all stored objects by environment and path."""
    return {
        (bucket.split("-", 1)[1].rsplit("-", 1)[0], key): one.md5
        for (bucket, key), one in cli.workspace.sim.objects.items()
    }


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def paths(cli):
    return {path for _env, path in stored(cli)}


def sync(cli, *words, to=("all-envs",)):
    """Synchronize the folder; give the JSON object of a command that succeeded."""
    asked = [word for one in to for word in ("--to", one)]
    result = cli("sync", "photos", *asked, *PACE, "--json", *words)
    assert result.code == 0, result.err
    return result.json


def kill(cli, words, wait_for, when):
    """Kill a command as soon as `when` holds; the simulator works without faults from then on."""
    with cli.process(*words) as process:
        wait_for(when)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=240)
    cli.workspace.sim.play([])


def test_only_what_is_new_or_changed_is_sent(open_cli, photos):
    cli = open_cli()
    assert sync(cli)["counts"] == {"uploaded": 6}
    assert sync(cli)["counts"] == {"unchanged": 6}
    (photos / "banner.svg").write_text("<svg>2</svg>", encoding="utf-8")
    (photos / "new.txt").write_text("new", encoding="utf-8")
    assert sync(cli)["counts"] == {"uploaded": 6, "unchanged": 3}
    assert {found for (_env, path), found in stored(cli).items() if path == "banner.svg"} == {
        md5(b"<svg>2</svg>")
    }
    assert cli.workspace.sim.stats["stored"] == 12


def test_what_is_gone_is_listed_and_stays_until_it_is_to_be_deleted(open_cli, photos):
    cli = open_cli()
    sync(cli, "--path", "2026/{rel}")
    (photos / "menu" / "tea.json").unlink()
    result = cli("sync", "photos", "--to", "all-envs", "--path", "2026/{rel}", *PACE)
    assert result.code == 0
    assert "3 uploaded files are no longer in the folder, but in 3 environments:" in result.err
    assert "  tea-1a2b3c    2026/menu/tea.json" in result.err
    assert paths(cli) == {"2026/banner.svg", "2026/menu/tea.json"}
    found = sync(cli, "--delete", "--path", "2026/{rel}")
    assert found["kind"] == "upload"
    assert (found["gone"]["rows"], found["gone"]["counts"]) == (3, {"deleted": 3})
    assert paths(cli) == {"2026/banner.svg"}
    assert sync(cli, "--delete", "--path", "2026/{rel}")["gone"] == {"rows": 0, "run": None, "counts": {}}


@pytest.mark.kill
@pytest.mark.parametrize("step", [FaultStep.STORE, FaultStep.DELETE])
def test_an_interrupted_sync_suggests_itself(open_cli, photos, wait_for, step):
    cli = open_cli()
    asked = ("--to", "all-envs", "--where", "name=茶语小铺", "--path", "2026/{rel}", "--concurrency", "1")
    words = ("sync", "photos", *asked, "--exclude", "*.tmp", "--delete")
    assert cli(*words).code == 0
    (photos / "banner.svg").unlink()
    (photos / "new.txt").write_text("new", encoding="utf-8")
    cli.workspace.sim.play([Fault(step=step, delay=60)])
    counter = f"{step}_calls" if step is FaultStep.STORE else str(step)
    before = cli.workspace.sim.stats[counter]
    with cli.process(*words) as process:
        wait_for(lambda: cli.workspace.sim.stats[counter] > before)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    cli.workspace.sim.play([])
    (again,) = (line for line in err.splitlines() if line.startswith("tcb-ops "))
    assert cli(*shlex.split(again)[1:]).code == 0
    assert paths(cli) == {"2026/new.txt", "2026/menu/tea.json"}


def test_only_what_sync_uploaded_last_from_the_folder_is_deleted(open_cli, photos):
    cli = open_cli()
    sync(cli)
    cli.upload()
    assert upload_other(cli.workspace, "tea-1a2b3c", "menu/tea.json").succeeded
    (photos / "menu" / "tea.json").unlink()
    found = sync(cli, "--delete")
    assert found["gone"]["counts"] == {"deleted": 2}
    left = stored(cli)
    assert left["tea-1a2b3c", "menu/tea.json"] == md5((cli.folder / "files" / "0.bin").read_bytes())
    assert len(left) == 30 + 3 + 1


def test_what_another_upload_has_put_there_since_it_looked_is_not_deleted(open_cli, photos):
    cli = open_cli()
    sync(cli)
    synced = cli.latest().record.list_name
    assert upload_other(cli.workspace, "tea-1a2b3c", "menu/tea.json").succeeded
    gone = cli.folder / "gone.csv"
    gone.write_text("env,path\ntea-1a2b3c,menu/tea.json\ntea-1a2b3c,banner.svg\n", encoding="utf-8")
    batch = tcb.read_paths(gone, cli.workspace.merchants)
    run = start_delete_of(batch, cli.workspace.settings, {}, of_list=synced).wait()
    assert [(str(one.end.outcome), str(one.end.reason or "")) for one in run.rows()] == [
        ("failed", "conflict"),
        ("deleted", ""),
    ]
    assert stored(cli)["tea-1a2b3c", "menu/tea.json"] == md5((cli.folder / "files" / "0.bin").read_bytes())


def test_what_a_confirmation_has_found_changed_is_not_deleted(open_cli, photos):
    cli = open_cli()
    sync(cli)
    env = "tea-1a2b3c"
    cli.workspace.sim.put(env, "menu/tea.json", b"theirs")
    assert cli("confirm", "--content").code == 1
    (photos / "menu" / "tea.json").unlink()
    assert sync(cli, "--delete")["gone"]["counts"] == {"deleted": 2}
    assert stored(cli)[env, "menu/tea.json"] == md5(b"theirs")


def test_excluded_files_and_environments_are_not_gone(open_cli, photos):
    cli = open_cli()
    sync(cli)
    found = sync(cli, "--delete", "--exclude", "*.json")
    assert found["gone"] == {"rows": 0, "run": None, "counts": {}}
    (photos / "menu" / "tea.json").unlink()
    found = sync(cli, "--delete", to=("books-77aa01",))
    assert found["gone"]["counts"] == {"deleted": 1}
    assert ("tea-1a2b3c", "menu/tea.json") in stored(cli)


def test_what_a_confirmation_misses_is_sent_again(open_cli, photos):
    cli = open_cli()
    sync(cli)
    cli.workspace.sim.remove("tea-1a2b3c", "banner.svg")
    assert sync(cli)["counts"] == {"unchanged": 6}
    assert cli("confirm", "--content").code == 1
    assert sync(cli, "--dry-run")["changes"] == {"replaced": 1, "unchanged": 5}
    assert sync(cli)["counts"] == {"uploaded": 1, "unchanged": 5}
    assert len(stored(cli)) == 6


@pytest.mark.kill
def test_a_folder_that_changed_after_an_interruption_is_sent_as_it_is_now(open_cli, wait_for, photos):
    cli = open_cli(faults=[Fault(delay=0.05)])
    for n in range(20):
        (photos / f"{n}.txt").write_text(str(n), encoding="utf-8")
    words = ("sync", "photos", "--to", "all-envs", "--concurrency", "4", "--json", *PACE)
    kill(cli, words, wait_for, lambda: cli.workspace.sim.stats["stored"] >= 20)
    for file in photos.glob("*.txt"):
        file.write_text(f"changed {file.name}", encoding="utf-8")
    assert cli(*words).code == 0
    held = stored(cli)
    for (_env, path), found in held.items():
        assert found == md5((photos / path).read_bytes())
    assert len(held) == 66


@pytest.mark.kill
def test_a_killed_deletion_is_not_resumed_over_files_that_are_back(open_cli, wait_for, photos):
    cli = open_cli()
    for n in range(300):
        (photos / f"{n}.txt").write_text(str(n), encoding="utf-8")
    sync(cli)
    texts = {file.name: file.read_bytes() for file in photos.glob("*.txt")}
    for name in texts:
        (photos / name).unlink()
    cli.workspace.sim.play([Fault(step="delete", delay=0.3)])
    words = ("sync", "photos", "--to", "all-envs", "--delete", "--yes", "--concurrency", "1", *PACE)
    kill(cli, words, wait_for, lambda: len(cli.workspace.sim.objects) < 906)
    for name, data in texts.items():
        (photos / name).write_bytes(data)
    refused = cli(
        "sync", "photos", "--to", "all-envs", *PACE
    )  # beside the unfinished deletion of these paths
    assert refused.code == 2
    assert (
        cli(
            *next(line for line in refused.err.splitlines() if line.startswith("tcb-ops delete")).split()[1:]
        ).code
        == 0
    )
    sync(cli)
    assert len(stored(cli)) == 906
    for name in texts:
        (photos / name).unlink()
    assert cli(*words).code == 0
    assert len(stored(cli)) == 6


def test_a_rehearsal_shows_what_would_be_sent_and_deleted(open_cli, photos):
    cli = open_cli()
    sync(cli)
    assert "The run would change nothing." in cli("sync", "photos", "--to", "all-envs", "--dry-run").out
    (photos / "banner.svg").unlink()
    (photos / "new.svg").write_text("<svg/>", encoding="utf-8")
    result = cli("sync", "photos", "--to", "all-envs", "--delete", "--dry-run")
    assert result.code == 0
    assert "3 uploaded files are no longer in the folder, but in 3 environments:" in result.err
    assert result.out.splitlines()[2].split() == ["2", "merchants", "3", "0", "3", "3"]
    found = cli("sync", "photos", "--to", "all-envs", "--delete", "--dry-run", "--json").json
    assert (found["changes"], found["gone"]["rows"]) == ({"new": 3, "deleted": 3, "unchanged": 3}, 3)
    kept = cli("sync", "photos", "--to", "all-envs", "--dry-run", "--json").json
    assert (kept["changes"], kept["gone"]["rows"]) == ({"new": 3, "unchanged": 3}, 3)
    assert len(stored(cli)) == 6


def test_a_renamed_file_is_not_deleted_before_it_is_there_again(open_cli, photos):
    cli = open_cli()
    sync(cli)
    (photos / "banner.svg").rename(photos / "flag.svg")
    cli.workspace.sim.play([Fault(env="tea-1a2b3c", errcode=40097)])
    result = cli("sync", "photos", "--to", "all-envs", "--delete", "--quiet", *PACE)
    assert result.code == 1
    assert "Where an upload did not succeed, nothing was deleted." in result.err
    assert "All 2 rows succeeded: deleted." in result.out
    assert "5 of 6 rows succeeded (3 unchanged, not sent again), 1 did not: 1 refused." in result.out
    assert ("tea-1a2b3c", "banner.svg") in stored(cli)
    assert paths(cli) == {"banner.svg", "flag.svg", "menu/tea.json"}
    cli.workspace.sim.play([])
    sync(cli, "--delete")
    assert paths(cli) == {"flag.svg", "menu/tea.json"}


def test_reports_tokens_and_links_are_never_sent(open_cli):
    cli = open_cli()
    cli("upload", "list.csv", "--root", "files", *PACE)
    (cli.folder / "old-tokens.csv").write_text('"appid","access_token"\nwxtea,secret\n', encoding="utf-8")
    (cli.folder / "list.fix-me.csv").write_text("env,path\n", encoding="utf-8")
    result = cli("sync", ".", "--to", "tea-1a2b3c", "--path", "all/{rel}", *PACE)
    assert result.code == 0
    assert "Skipped, tcb-ops's own: " in result.err
    sent = {path for path in paths(cli) if path.startswith("all/")}
    assert sent == {"all/list.csv", *(f"all/files/{n}.bin" for n in range(30))}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--path", "{date}/{rel}"), "every day all files would be new"),
        (("--to", "nobody"), "--to nobody: the merchants file has no name or appid 'nobody'"),
        (("--include", "*.psd"), "no file remains"),
    ],
)
def test_a_sync_that_cannot_be_meant_sends_nothing(open_cli, photos, words, message):
    cli = open_cli()
    sync(cli)
    (photos / "banner.svg").unlink()
    result = cli("sync", "photos", "--to", "all-envs", "--delete", *words)
    assert result.code == 2
    assert message in result.err
    assert len(stored(cli)) == 6


def test_another_folder_at_the_same_place_deletes_nothing_without_yes(open_cli, photos):
    cli = open_cli()
    sync(cli)
    photos.rename(photos.with_name("old"))
    photos.mkdir()
    (photos / "stray.txt").write_text("stray", encoding="utf-8")
    result = cli("sync", "photos", "--to", "all-envs", "--delete", *PACE)
    assert result.code == 2
    assert "More files are gone from photos than are left." in result.err
    assert len(stored(cli)) == 6
    found = sync(cli, "--delete", "--yes")
    assert found["gone"]["counts"] == {"deleted": 6}


def test_a_backup_is_never_sent(open_cli, photos):
    cli = open_cli()
    cli.workspace.sim.put("tea-1a2b3c", "banner/0.png", b"private")
    cli.upload("--backup", "photos/backup")
    assert sync(cli)["counts"] == {"uploaded": 6}


@pytest.mark.slow
def test_a_name_that_is_no_text_is_a_problem_of_the_folder(open_cli, photos):
    cli = open_cli()
    (photos / os.fsdecode(b"bad\xff.txt")).write_text("x", encoding="utf-8")
    result = cli.in_process("sync", "photos", "--to", "all-envs")
    assert result.code == 2
    assert "bad" in result.err
    assert "cannot be written in a list" in result.err
    assert stored(cli) == {}


def test_a_file_or_a_missing_folder_is_refused(open_cli, photos):
    cli = open_cli()
    result = cli("sync", str(photos / "banner.svg"), "--to", "all")
    assert result.code == 2
    assert "is not a folder" in result.err
    (cli.folder / "empty").mkdir()
    empty = cli("sync", "empty", "--to", "all")
    assert empty.code == 2
    assert "empty: no file remains" in empty.err
    missing = cli("sync", "fotos", "--to", "all")
    assert missing.code == 2
    assert "there is no such file or folder" in missing.err


def test_a_deletion_that_failed_is_tried_again(open_cli, photos):
    cli = open_cli()
    sync(cli)
    (photos / "menu" / "tea.json").unlink()
    cli.workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    words = ("sync", "photos", "--to", "all-envs", *PACE, "--delete")
    assert cli(*words).code == 1
    cli.workspace.sim.play([])
    assert cli(*words).code == 0
    assert paths(cli) == {"banner.svg"}

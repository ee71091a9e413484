"""sync as an operator types it."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tcb_ops.model import Merchant
from tcb_ops.simulator import Fault, FaultStep, Reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from conftest import PanelContext

    OpenDesk = Callable[..., PanelContext]

PACE = ("--backoff", "0.01")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two files, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "menu").mkdir(parents=True)
    (folder / "banner.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "menu" / "tea.json").write_text("{}", encoding="utf-8")
    return folder


def stored(desk: PanelContext) -> dict[tuple[str, str], str]:
    """The MD5s of all stored objects by environment and path."""
    return {
        (bucket.split("-", 1)[1].rsplit("-", 1)[0], key): one.md5
        for (bucket, key), one in desk.shop.sim.objects.items()
    }


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def paths(desk: PanelContext) -> set[str]:
    return {path for _env, path in stored(desk)}


def sync(desk: PanelContext, *words: str, to: Iterable[str] = ("all-envs",)) -> dict[str, object]:
    """Synchronize the folder; give the JSON object of a command that succeeded."""
    asked = [word for one in to for word in ("--to", one)]
    said = desk("sync", "photos", *asked, *PACE, "--json", "--no-pdf", *words)
    assert said.code == 0, said.err
    return said.json


def kill(
    desk: PanelContext, words: Iterable[str], until: Callable[..., None], when: Callable[[], bool]
) -> None:
    """Kill a command as soon as `when` holds; the simulator works without faults from then on."""
    with desk.process(*words) as process:
        until(when)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    desk.shop.sim.play([])


def test_only_what_is_new_or_changed_is_sent(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    assert sync(desk)["counts"] == {"uploaded": 6}
    assert sync(desk)["counts"] == {"unchanged": 6}
    (photos / "banner.svg").write_text("<svg>2</svg>", encoding="utf-8")
    (photos / "new.txt").write_text("new", encoding="utf-8")
    assert sync(desk)["counts"] == {"uploaded": 6, "unchanged": 3}
    assert {found for (_env, path), found in stored(desk).items() if path == "banner.svg"} == {
        md5(b"<svg>2</svg>")
    }
    assert desk.shop.sim.stats["stored"] == 12


def test_what_is_gone_is_listed_and_stays_until_it_is_to_be_deleted(
    open_desk: OpenDesk, photos: Path
) -> None:
    desk = open_desk()
    sync(desk, "--path", "2026/{rel}")
    (photos / "menu" / "tea.json").unlink()
    said = desk("sync", "photos", "--to", "all-envs", "--path", "2026/{rel}", *PACE)
    assert said.code == 0
    assert "3 uploaded files are no longer in the folder, but in 3 environments:" in said.err
    assert "  tea-1a2b3c    2026/menu/tea.json" in said.err
    assert paths(desk) == {"2026/banner.svg", "2026/menu/tea.json"}
    found = sync(desk, "--delete", "--path", "2026/{rel}")
    assert found["kind"] == "upload"
    assert isinstance(found["gone"], dict)
    assert (found["gone"]["rows"], found["gone"]["counts"]) == (3, {"deleted": 3})
    assert paths(desk) == {"2026/banner.svg"}
    assert sync(desk, "--delete", "--path", "2026/{rel}")["gone"] == {"rows": 0, "run": None, "counts": {}}


def test_only_what_sync_uploaded_last_from_the_folder_is_deleted(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    desk.upload()
    other = desk.folder / "other.csv"
    other.write_text("env,path,file\ntea-1a2b3c,menu/tea.json,0.bin\n", encoding="utf-8")
    assert desk("upload", "other.csv", "--root", "files", *PACE).code == 0
    (photos / "menu" / "tea.json").unlink()
    found = sync(desk, "--delete")
    assert isinstance(found["gone"], dict)
    assert found["gone"]["counts"] == {"deleted": 2}
    left = stored(desk)
    assert left["tea-1a2b3c", "menu/tea.json"] == md5((desk.folder / "files" / "0.bin").read_bytes())
    assert len(left) == 30 + 3 + 1


def test_excluded_files_and_environments_are_not_gone(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    found = sync(desk, "--delete", "--exclude", "*.json")
    assert found["gone"] == {"rows": 0, "run": None, "counts": {}}
    (photos / "menu" / "tea.json").unlink()
    found = sync(desk, "--delete", to=("books-77aa01",))
    assert isinstance(found["gone"], dict)
    assert found["gone"]["counts"] == {"deleted": 1}
    assert ("tea-1a2b3c", "menu/tea.json") in stored(desk)


def test_what_the_store_has_lost_is_sent_again_with_confirm(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    assert sync(desk, "--confirm")["counts"] == {"uploaded": 6}
    desk.shop.sim.remove("tea-1a2b3c", "banner.svg")
    assert sync(desk)["counts"] == {"unchanged": 6}
    assert sync(desk, "--confirm")["counts"] == {"uploaded": 1, "unchanged": 5}
    assert len(stored(desk)) == 6
    assert sync(desk, "--confirm")["counts"] == {"unchanged": 6}


@pytest.mark.kill
def test_an_interrupted_sync_is_resumed_by_the_same_command(
    open_desk: OpenDesk, until: Callable[..., None], photos: Path
) -> None:
    desk = open_desk(faults=[Fault(delay=0.05)])
    for n in range(40):
        (photos / f"{n}.txt").write_text(str(n), encoding="utf-8")
    words = ("sync", "photos", "--to", "all-envs", "--concurrency", "4", "--json", "--no-pdf", *PACE)
    kill(desk, words, until, lambda: desk.shop.sim.stats["stored"] >= 20)
    found = desk(*words).json
    assert found["counts"] == {"uploaded": 126}
    assert desk.shop.sim.stats["stored"] <= 126 + 8
    assert len(desk("runs", "--json").json["runs"]) == 1


@pytest.mark.kill
def test_a_folder_that_changed_after_an_interruption_is_sent_as_it_is_now(
    open_desk: OpenDesk, until: Callable[..., None], photos: Path
) -> None:
    desk = open_desk(faults=[Fault(delay=0.05)])
    for n in range(20):
        (photos / f"{n}.txt").write_text(str(n), encoding="utf-8")
    words = ("sync", "photos", "--to", "all-envs", "--concurrency", "4", "--json", "--no-pdf", *PACE)
    kill(desk, words, until, lambda: desk.shop.sim.stats["stored"] >= 20)
    for file in photos.glob("*.txt"):
        file.write_text(f"changed {file.name}", encoding="utf-8")
    assert desk(*words).code == 0
    held = stored(desk)
    for (_env, path), found in held.items():
        assert found == md5((photos / path).read_bytes())
    assert len(held) == 66


def test_what_another_list_uploaded_is_not_deleted(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    (desk.folder / "other.csv").write_text(
        "env,path,file\ntea-1a2b3c,banner.svg,banner.svg\n", encoding="utf-8"
    )
    assert desk("upload", "other.csv", "--root", "photos", "--no-pdf", *PACE).code == 0
    assert sync(desk)["counts"] == {"uploaded": 5, "unchanged": 1}
    (photos / "banner.svg").unlink()
    found = sync(desk, "--delete")
    assert isinstance(found["gone"], dict)
    assert found["gone"]["counts"] == {"deleted": 2}
    assert ("tea-1a2b3c", "banner.svg") in stored(desk)


@pytest.mark.kill
def test_a_killed_deletion_is_not_resumed_over_files_that_are_back(
    open_desk: OpenDesk, until: Callable[..., None], photos: Path
) -> None:
    desk = open_desk()
    for n in range(300):
        (photos / f"{n}.txt").write_text(str(n), encoding="utf-8")
    sync(desk)
    texts = {file.name: file.read_bytes() for file in photos.glob("*.txt")}
    for name in texts:
        (photos / name).unlink()
    desk.shop.sim.play([Fault(step="delete", delay=0.3)])
    words = (
        "sync",
        "photos",
        "--to",
        "all-envs",
        "--delete",
        "--yes",
        "--concurrency",
        "1",
        "--no-pdf",
        *PACE,
    )
    kill(desk, words, until, lambda: len(desk.shop.sim.objects) < 906)
    for name, data in texts.items():
        (photos / name).write_bytes(data)
    sync(desk)
    assert len(stored(desk)) == 906
    for name in texts:
        (photos / name).unlink()
    assert desk(*words).code == 0
    assert len(stored(desk)) == 6


def test_a_rehearsal_shows_what_would_be_sent_and_deleted(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    assert (
        "Nothing would be sent: 6 rows, all unchanged."
        in desk("sync", "photos", "--to", "all-envs", "--dry-run").out
    )
    (photos / "banner.svg").unlink()
    (photos / "new.svg").write_text("<svg/>", encoding="utf-8")
    said = desk("sync", "photos", "--to", "all-envs", "--delete", "--dry-run")
    assert said.code == 0
    assert "3 uploaded files are no longer in the folder, but in 3 environments:" in said.err
    assert "--delete would delete them." in said.err
    assert "The run would make 6 calls" in said.out
    assert desk("sync", "photos", "--to", "all-envs", "--dry-run", "--json").json["gone"]["rows"] == 3
    assert len(stored(desk)) == 6


def test_a_renamed_file_is_not_deleted_before_it_is_there_again(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    (photos / "banner.svg").rename(photos / "flag.svg")
    desk.shop.sim.play([Fault(env="tea-1a2b3c", errcode=40097)])
    said = desk("sync", "photos", "--to", "all-envs", "--delete", "--quiet", "--no-pdf", *PACE)
    assert said.code == 1
    assert "Where an upload did not succeed, nothing was deleted." in said.err
    assert "All 2 rows succeeded: deleted or already gone." in said.out
    assert "5 of 6 rows succeeded (3 unchanged, not sent again), 1 did not: 1 refused." in said.out
    assert ("tea-1a2b3c", "banner.svg") in stored(desk)
    assert paths(desk) == {"banner.svg", "flag.svg", "menu/tea.json"}
    desk.shop.sim.play([])
    sync(desk, "--delete")
    assert paths(desk) == {"flag.svg", "menu/tea.json"}


def test_reports_tokens_and_links_are_never_sent(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk("upload", "list.csv", "--root", "files", "--no-pdf", *PACE)
    (desk.folder / "old-tokens.csv").write_text('"appid","access_token"\nwxtea,secret\n', encoding="utf-8")
    (desk.folder / "list.fix-me.csv").write_text("env,path\n", encoding="utf-8")
    said = desk("sync", ".", "--to", "tea-1a2b3c", "--path", "all/{rel}", "--no-pdf", *PACE)
    assert said.code == 0
    assert "Skipped, tcb-ops's own: " in said.err
    sent = {path for path in paths(desk) if path.startswith("all/")}
    assert sent == {"all/list.csv", *(f"all/files/{n}.bin" for n in range(30))}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--path", "{date}/{rel}"), "every day all files would be new"),
        (("--to", "nobody"), "--to nobody: no environment, merchant or appid has this name"),
        (("--include", "*.psd"), "no file remains"),
    ],
)
def test_a_sync_that_cannot_be_meant_sends_nothing(
    open_desk: OpenDesk, photos: Path, words: tuple[str, ...], message: str
) -> None:
    desk = open_desk()
    sync(desk)
    (photos / "banner.svg").unlink()
    said = desk("sync", "photos", "--to", "all-envs", "--delete", *words)
    assert said.code == 2
    assert message in said.err
    assert len(stored(desk)) == 6


def test_another_folder_at_the_same_place_deletes_nothing_without_yes(
    open_desk: OpenDesk, photos: Path
) -> None:
    desk = open_desk()
    sync(desk)
    photos.rename(photos.with_name("old"))
    photos.mkdir()
    (photos / "stray.txt").write_text("stray", encoding="utf-8")
    said = desk("sync", "photos", "--to", "all-envs", "--delete", *PACE)
    assert said.code == 2
    assert "More files are gone from photos than are left." in said.err
    assert len(stored(desk)) == 6
    found = sync(desk, "--delete", "--yes")
    assert isinstance(found["gone"], dict)
    assert found["gone"]["counts"] == {"deleted": 6}


def test_a_backup_is_never_sent(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    desk.shop.sim.put("tea-1a2b3c", "banner/0.png", b"private")
    desk.upload("--backup", "photos/backup")
    assert sync(desk)["counts"] == {"uploaded": 6}


def test_a_name_that_is_no_text_is_a_problem_of_the_folder(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    (photos / os.fsdecode(b"bad\xff.txt")).write_text("x", encoding="utf-8")
    said = desk.in_process("sync", "photos", "--to", "all-envs")
    assert said.code == 2
    assert "bad" in said.err
    assert "cannot be written in a list" in said.err
    assert stored(desk) == {}


def test_a_file_or_a_missing_folder_is_refused(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    said = desk("sync", str(photos / "banner.svg"), "--to", "all")
    assert said.code == 2
    assert "is not a folder" in said.err
    (desk.folder / "empty").mkdir()
    empty = desk("sync", "empty", "--to", "all")
    assert (empty.code, empty.err.splitlines()[-1]) == (
        2,
        "tcb-ops: empty contains no files. Check that its disk is mounted.",
    )
    missing = desk("sync", "fotos", "--to", "all")
    assert missing.code == 2
    assert "there is no such file or folder" in missing.err


def test_a_live_target_needs_yes_without_a_terminal(
    open_desk: OpenDesk, photos: Path
) -> None:  # more than confirm_over
    desk = open_desk(merchants=[Merchant(f"wx{n}", f"店 {n}", f"env-{n}-1a2b3c") for n in range(6)])
    sync(desk)
    calls = sum(desk.shop.sim.stats.values())
    said = desk("sync", "photos", "--to", "all-envs", "--target", "https://api.weixin.qq.com")
    assert said.code == 2
    assert sum(desk.shop.sim.stats.values()) == calls


def test_a_dry_run_with_confirm_asks_the_store_and_sends_nothing(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    desk.shop.sim.remove(desk.shop.merchants[0].env, "banner.svg")
    before = desk.shop.sim.stats["stored"]
    assert sync(desk, "--dry-run")["rows"] == 0
    found = sync(desk, "--dry-run", "--confirm")
    assert found["rows"] == 1
    assert desk.shop.sim.stats["stored"] == before
    assert sync(desk, "--confirm")["counts"]["uploaded"] == 1


def test_a_deletion_that_failed_is_tried_again(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    (photos / "menu" / "tea.json").unlink()
    desk.shop.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.BEFORE)])
    words = ("sync", "photos", "--to", "all-envs", *PACE, "--delete", "--no-pdf")
    assert desk(*words).code == 1
    desk.shop.sim.play([])
    assert desk(*words).code == 0
    assert paths(desk) == {"banner.svg"}


def test_a_comparison_without_an_answer_is_no_success(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    sync(desk)
    desk.shop.sim.play([Fault(step=FaultStep.DOWNLOAD, errcode=48001)])
    said = desk("sync", "photos", "--to", "all-envs", *PACE, "--confirm", "--no-pdf")
    assert said.code == 1
    assert "6 files could not be compared with the store." in said.err


def test_a_backup_in_the_folder_above_hides_no_files(open_desk: OpenDesk, photos: Path) -> None:
    desk = open_desk()
    desk.upload("--backup", ".")
    assert sync(desk)["counts"] == {"uploaded": 6}

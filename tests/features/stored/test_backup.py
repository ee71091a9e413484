"""A backup's files: each is written once, by whichever process comes first, and only its owner may read it."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest
from stored_runs import undo
from workspace import QUICK, TEA, cancel, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored.backup import Backup, BackupError, Download, SavedFile
from tcb_ops.model import Reason

pytestmark = pytest.mark.integration

PATH = "banner/0.png"
SENT, LATER, OTHER = "0" * 32, "1" * 32, "2" * 32


def saved(md5, version=1):
    return SavedFile(TEA.env, PATH, md5, "text/plain", "max-age=1", sent=(SENT,), version=version)


def download(backup, data):
    whole = Download(backup.part(2))
    whole.write(data)
    whole.close()
    return whole


@pytest.mark.parametrize("links", [True, False], ids=["links", "a file system without links"])
def test_what_was_saved_first_stays(tmp_path, monkeypatch, links):
    def refused(*_):
        raise OSError(errno.EPERM, "")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    backup = Backup(tmp_path / "backup" / "run")
    assert backup.read(2) is None
    original, late = download(backup, b"original"), download(backup, b"the upload's own")
    assert backup.save(2, saved(original.md5), original.file)
    assert not backup.save(2, saved(late.md5), late.file)
    late.discard()
    backup.note_sent(2, LATER)
    first = backup.read(2)
    assert first is not None
    assert (first.md5, first.sent) == (original.md5, (SENT, LATER))
    assert backup.data(2, original.md5).read_bytes() == b"original"
    changed = download(backup, b"a colleague's")
    assert backup.save(2, saved(changed.md5, first.version + 1), changed.file)
    newest = backup.read(2)
    assert newest is not None
    assert (newest.md5, newest.version, newest.sent) == (changed.md5, 3, (SENT, LATER))
    assert {file.suffix for file in backup.folder.iterdir()} == {".json", ".data"}


def test_a_row_is_on_the_disk_when_it_is_saved(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(fd):
        synced.append(
            Path(f"/proc/self/fd/{fd}").readlink().suffix or str(Path(f"/proc/self/fd/{fd}").readlink())
        )
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    backup = Backup(tmp_path / "backup" / "run")
    whole = download(backup, b"original")
    assert backup.save(2, saved(whole.md5), whole.file)
    backup.note_sent(2, LATER)
    made, folder = [str(tmp_path), str(tmp_path / "backup")], str(backup.folder)
    assert synced == [*made, ".part", folder, ".part", folder, ".part", folder]


def test_only_the_owner_may_read_a_backup(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2), store=tmp_path / "store")
    workspace.sim.put(TEA.env, PATH, b"before")
    mask = os.umask(0)
    try:
        run = workspace.upload(backup=tmp_path / "backup")
    finally:
        os.umask(mask)
    Backup(tmp_path / "backup" / run.id).note_sent(2, LATER)
    modes = {
        (stat.S_ISDIR(file.stat().st_mode), oct(file.stat().st_mode & 0o777))
        for file in [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]
    }
    assert modes == {(True, "0o700"), (False, "0o600")}


def test_an_undo_looks_again_at_what_was_sent(open_workspace, wait_for, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, PATH, b"before")
    run = workspace.upload(backup=tmp_path / "backup")
    looked = workspace.sim.stats["download"]
    workspace.sim.play([Fault(step=FaultStep.DOWNLOAD, delay=60)])
    running = tcb.start_undo(run.id, settings=workspace.settings, limits=QUICK)
    wait_for(lambda: workspace.sim.stats["download"] > looked)
    cancel(running)
    workspace.sim.play([])
    # A process that was frozen during the upload may note it only now.
    Backup(tmp_path / "backup" / run.id).note_sent(2, hashlib.md5(b"before").hexdigest())
    assert undo(workspace, run.id).counts == {"not_undoable": 1}


@pytest.mark.parametrize("kind", ["fifo", "folder", "huge"])
@pytest.mark.parametrize("name", ["0000002.json", "0000002.2.json"])
def test_what_is_no_small_file_is_not_read(tmp_path, kind, name):
    backup = Backup(tmp_path)
    backup.save(2, saved(""))
    file = tmp_path / name
    file.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case _:
            file.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(BackupError, match=name):
        backup.read(2)


def test_a_pipe_among_the_saved_bytes_ends_its_row(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, PATH, b"before")
    run = workspace.upload(backup=tmp_path / "backup")
    (data,) = (tmp_path / "backup" / run.id).glob("*.data")
    data.unlink()
    os.mkfifo(data)
    assert undo(workspace).counts == {"failed": 1}


def test_a_download_that_is_not_what_the_store_has_is_not_saved(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=1), store=tmp_path / "store")
    workspace.sim.put(TEA.env, PATH, b"cut short", etag=OTHER)
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"failed": 1}
    assert [record.end.reason for record in run.rows()] == [Reason.NO_ANSWER]
    assert workspace.sim.content(TEA.env, PATH) == b"cut short"
    assert not list((tmp_path / "backup" / run.id).iterdir())


def test_what_the_upload_stored_is_not_saved_by_its_retry(open_workspace, tmp_path):
    lost = Fault(step=FaultStep.STORE, reset=Reset.MIDDLE)
    workspace = open_workspace(many(TEA, rows=1), [lost], store=tmp_path / "store")
    workspace.sim.put(TEA.env, PATH, b"before")
    run = workspace.upload(backup=tmp_path / "backup")
    assert run.counts == {"failed": 1}
    ours = workspace.sim.content(TEA.env, PATH)
    assert ours not in {None, b"before"}
    # The store answers with another ETag than that of a simple upload.
    workspace.sim.put(TEA.env, PATH, ours or b"", etag=f"{OTHER}-2")
    workspace.sim.play([])
    tcb.retry(run, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert undo(workspace, run.id).counts == {"restored": 1}
    assert workspace.sim.content(TEA.env, PATH) == b"before"


def test_a_record_of_another_row_restores_nothing(open_workspace, tmp_path):
    workspace = open_workspace(many(TEA, rows=2))
    for number in range(2):
        workspace.sim.put(TEA.env, f"banner/{number}.png", f"before {number}".encode())
    run = workspace.upload(backup=tmp_path / "backup")
    first, second = (tmp_path / "backup" / run.id / f"000000{line}.json" for line in (2, 3))
    records, sent = (first.read_bytes(), second.read_bytes()), dict(workspace.sim.objects)
    first.write_bytes(records[1])
    second.write_bytes(records[0])
    assert tcb.undo(run, settings=workspace.settings).counts == {"not_undoable": 2}
    assert workspace.sim.objects == sent

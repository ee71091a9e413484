"""A local file on its way to the store."""

import hashlib
import os
import sys
from pathlib import Path

import pytest
from scripted import no_more_files

from tcb_ops.errors import ResourceLimitError
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError, hash_file, memory_for, open_file


def open_files():
    folder = Path("/proc/self/fd")
    if sys.platform == "win32" or not folder.exists():  # under Wine it has Wine's own files
        return 0
    return len(list(folder.iterdir()))


def planned(tmp_path, content):
    file = tmp_path / "素材.bin"
    file.write_bytes(content)
    stat = file.stat()
    return file, stat.st_size, stat.st_mtime_ns


def test_a_file_is_hashed_as_it_is_read(tmp_path):
    content = bytes(range(256)) * 8192
    plan = planned(tmp_path, content)
    with open_file(*plan) as body:
        assert b"".join(body.read()) == content
        assert body.md5 == hash_file(*plan) == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 256 << 10])
def test_a_small_file_is_read_and_hashed_as_it_is_opened(tmp_path, size):
    before, content = open_files(), os.urandom(size)
    body = open_file(*planned(tmp_path, content), memory=memory_for(size))
    assert (body.content, body.md5) == (content, hashlib.md5(content).hexdigest())
    assert open_files() == before
    assert memory_for(1 << 20) is None


def test_a_small_file_that_shrinks_before_it_is_read_is_a_changed_one(tmp_path):
    path, size, mtime_ns = planned(tmp_path, b"12345")
    body = open_file(path, size, mtime_ns)
    os.truncate(path, 3)
    with body, pytest.raises(FileChangedError):
        body.read_into(bytearray(size))
    assert body.content is None


def test_a_digest_that_is_known_is_not_computed_again(tmp_path):
    content = b"x" * 3_000_000
    with open_file(*planned(tmp_path, content), "d" * 32) as body:
        assert b"".join(body.read()) == content
        assert body.md5 == "d" * 32  # what was given, whatever the bytes are: nothing was hashed


@pytest.mark.posix("links")
@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_file_that_became_a_link_out_of_the_root_is_a_changed_one(tmp_path, swapped):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    plan = planned(root / "a", b"mine")
    name = plan[0].name
    (outside / name).write_bytes(b"keys")
    os.utime(outside / name, ns=(plan[2], plan[2]))
    (tmp_path / "link").symlink_to(root)
    for good in (root, tmp_path / "link"):
        with open_file(*plan, root=good):
            pass
    plan[0].unlink()
    if swapped == "file":
        plan[0].symlink_to(outside / name)
    else:
        (root / "a").rmdir()
        (root / "a").symlink_to(outside)
    with pytest.raises(FileChangedError):
        open_file(*plan, root=root)
    with open_file(*plan, root=tmp_path):
        pass


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_unreadable(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    now = file.stat()
    for look in (open_file, hash_file):
        with no_more_files(), pytest.raises(ResourceLimitError, match="raise the limit"):
            look(file, now.st_size, now.st_mtime_ns)


def test_a_file_that_is_not_the_planned_one_is_not_opened(tmp_path):
    path, size, mtime_ns = planned(tmp_path, b"12345")
    for other in ((4, mtime_ns), (5, mtime_ns + 1)):
        with pytest.raises(FileChangedError) as caught:
            open_file(path, *other)
        assert str(path) in caught.value.text.en
    assert open_file(path, size, mtime_ns)


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in the file system")
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "a\0b"])
def test_what_is_no_readable_file_is_unreadable_and_never_waited_for(tmp_path, kind):
    path = Path(os.devnull) if kind == "device" else tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    before = open_files()
    with pytest.raises(FileUnreadableError):
        open_file(path, 0, 0)
    assert open_files() == before


def test_a_file_that_was_opened_for_a_task_that_has_gone_is_closed(tmp_path):
    before = open_files()
    open_file(*planned(tmp_path, bytes(3 << 20)))
    assert open_files() == before

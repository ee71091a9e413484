"""A local file on its way to the store."""

import hashlib
import os
from pathlib import Path

import pytest
from scripted import no_more_files

from tcb_ops.errors import ResourceLimitError
from tcb_ops.wechat.local_files import FileChangedError, hash_file, open_file


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


def test_a_digest_that_is_known_is_not_computed_again(tmp_path):
    content = b"x" * 3_000_000
    with open_file(*planned(tmp_path, content), "d" * 32) as body:
        assert b"".join(body.read()) == content
        assert body.md5 == "d" * 32  # what was given, whatever the bytes are: nothing was hashed


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
        open_file(*plan, root=good).close()
    plan[0].unlink()
    if swapped == "file":
        plan[0].symlink_to(outside / name)
    else:
        (root / "a").rmdir()
        (root / "a").symlink_to(outside)
    with pytest.raises(FileChangedError):
        open_file(*plan, root=root)
    open_file(*plan, root=tmp_path).close()


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    now = file.stat()
    for look in (open_file, hash_file):
        with no_more_files(), pytest.raises(ResourceLimitError, match="Raise ulimit -n"):
            look(file, now.st_size, now.st_mtime_ns)

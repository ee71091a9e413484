"""What the system has no more of is never a server's, a file's or a merchant's trouble."""

import errno
import re
import socket
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from file_limit import files_of_at_most

import tcb_ops
from tcb_ops.disk import replacing
from tcb_ops.errors import UsageError
from tcb_ops.ledger.database import Database
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.system_errors import exhausted, system_reason


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.ENFILE, "Too many open files in system"), "Too many open files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "memory"),
        (MemoryError(), "memory"),
        (caused(aiohttp.ClientError(), OSError(errno.EMFILE, "")), "ulimit -n 4096"),
    ],
)
def test_a_resource_that_has_run_out_is_told(error, words):
    found = exhausted(error)
    assert words in found.text.en
    assert "然后再试一次" in found.text.zh
    assert found.exit_code == 3


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ECONNREFUSED, "refused"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EACCES, "Permission denied"),
        OSError("Multiple exceptions"),
        socket.gaierror(socket.EAI_NONAME, "unknown host"),
        ValueError(),
    ],
)
def test_any_other_trouble_is_none(error):
    assert exhausted(error) is None
    assert exhausted(error, unclear=True) is None


def test_what_the_system_says_is_told_in_both_languages_and_never_in_its_own_words():
    for code in (errno.EACCES, errno.ENOSPC, errno.EISDIR, errno.EXDEV):
        reason = system_reason(OSError(code, "hunter2"))
        assert "hunter2" not in reason.en
        assert not re.search("[A-Za-z]", reason.zh), reason.zh
    assert system_reason(ValueError("embedded null byte")).en == "not a usable file name"


def test_what_sqlite_says_of_the_disk_is_told_in_both_languages(tmp_path):
    with files_of_at_most(5_000), pytest.raises(UsageError) as refused:
        Ledger(str(tmp_path / "ledger.db"))
    told = refused.value.text
    assert "(the disk reports an error). Free space or fix the access" in told.en
    assert "--ledger" not in told.en
    assert "disk" not in told.zh
    database = Database("", "")
    with closing(sqlite3.connect(tmp_path / "full.db")) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            connection.execute("CREATE TABLE runs (id)")
    assert database.reason(full.value).zh == "磁盘已满"


def test_no_message_quotes_the_system_which_speaks_english_only():
    package = Path(tcb_ops.__file__).parent
    assert [file.name for file in package.rglob("*.py") if "strerror" in file.read_text("utf-8")] == []


@pytest.mark.posix("file modes")
@pytest.mark.parametrize("private", [False, True])
def test_a_file_is_replaced_whole_over_what_a_kill_left(tmp_path, private):
    dest, left = tmp_path / "a.csv", tmp_path / ".a.csv.part"
    dest.write_text("old")
    left.write_text("a longer text of a killed process")
    left.chmod(0o644)
    with replacing(dest, private=private) as part:
        part.write_text("new")
        assert dest.read_text() == "old"
    assert dest.read_text() == "new"
    assert stat.S_IMODE(dest.stat().st_mode) == (0o600 if private else 0o644)
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.posix("links")
def test_a_link_in_the_place_of_the_new_file_is_refused(tmp_path):
    dest, other = tmp_path / "a.csv", tmp_path / "other.csv"
    other.write_text("other")
    (tmp_path / ".a.csv.part").symlink_to(other)
    with pytest.raises(FileExistsError), replacing(dest, private=True):
        pass
    assert other.read_text() == "other"
    assert not dest.exists()


@pytest.mark.posix("file modes")
def test_what_another_user_left_in_the_place_of_the_new_file_is_replaced(tmp_path):
    left = tmp_path / ".a.csv.part"
    left.touch(mode=0o400)
    with left.open() as held, replacing(tmp_path / "a.csv", private=True) as part:
        part.write_text("new")
        assert held.read() == "", "it may be open elsewhere"
    assert (tmp_path / "a.csv").read_text() == "new"


def test_a_file_with_the_longest_name_is_replaced(tmp_path):
    dest = tmp_path / f"{'a' * 251}.csv"
    with replacing(dest) as part:
        part.write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(dest.name, "new")]


def test_after_an_error_a_file_is_unchanged_and_nothing_is_left(tmp_path):
    dest = tmp_path / "a.csv"
    dest.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(dest) as part:
        part.write_text("\ud800")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.csv", "old")]

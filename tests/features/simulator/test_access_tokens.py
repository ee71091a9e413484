import os

import pytest

from tcb_ops.errors import SettingsError
from tcb_ops.features.simulator.state import Tokens


def write(file, text, mtime):
    file.write_text(text, encoding="utf-8")
    os.utime(file, (mtime, mtime))


def test_a_token_is_its_appids_until_it_is_rotated_or_expires():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    second = tokens.rotate("wx1")
    third = tokens.rotate("wx1")
    assert [tokens.owner(token, 0) for token in ("one", second, third, "two")] == [40001, 40001, "wx1", "wx2"]
    tokens.expire("wx1")
    assert [tokens.owner(third, 0), tokens.owner("two", 0)] == [42001, "wx2"]
    assert tokens.owner(tokens.rotate("wx1"), 0) == "wx1"


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    file = tmp_path / "tokens.csv"
    write(file, "\ufeffappid,access_token\nwx1,one\n", 1000)
    tokens = Tokens(file)
    assert tokens.owner("one", 0) == "wx1"
    write(file, "appid,access_token\nwx1,two\n", 2000)
    assert [tokens.owner("one", 0), tokens.owner("two", 0)] == [40001, "wx1"]


@pytest.mark.parametrize("half", ["appid,access_tok\nwx1", "appid,access_token\nwx1\n"], ids=["head", "cell"])
def test_a_file_half_written_leaves_the_tokens_as_they_were(tmp_path, half):
    file = tmp_path / "tokens.csv"
    write(file, "appid,access_token\nwx1,one\n", 1000)
    tokens = Tokens(file)
    write(file, half, 2000)
    assert tokens.owner("one", 0) == "wx1"
    file.unlink()
    assert tokens.owner("one", 0) == "wx1"


def test_of_issued_tokens_the_newest_works_and_for_the_overlap_the_one_before():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    first = tokens.issue("wx1", now=0, lifetime=7200, overlap=300)
    second = tokens.issue("wx1", now=100, lifetime=7200, overlap=300)
    given = ("one", first, second, "two")
    assert [tokens.owner(token, 399) for token in given] == [40001, "wx1", "wx1", "wx2"]
    assert [tokens.owner(token, 400) for token in given] == [40001, 40001, "wx1", "wx2"]
    assert [tokens.owner(token, 7300) for token in given] == [40001, 40001, 42001, "wx2"]


def test_an_issued_token_outlives_a_change_of_the_file(tmp_path):
    file = tmp_path / "tokens.csv"
    write(file, "appid,access_token\nwx1,one\n", 1000)
    tokens = Tokens(file)
    issued = tokens.issue("wx1", now=0, lifetime=7200, overlap=300)
    write(file, "appid,access_token\nwx1,two\n", 2000)
    assert [tokens.owner(token, 0) for token in ("one", "two", issued)] == [40001, "wx1", "wx1"]
    assert tokens.owner(issued, 7200) == 42001


@pytest.mark.parametrize(
    "text",
    [
        b"appid,token\nwx1,one\n",
        b"appid,access_token\nwx1,one\nwx2\n",
        b"\xff\xfe",
        b'appid,access_token\n"wx1,one\n',
    ],
    ids=["other column", "no token", "encoding", "an open quote"],
)
def test_a_bad_file_is_refused_at_the_start_without_its_tokens(tmp_path, text):
    file = tmp_path / "tokens.csv"
    file.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        Tokens(file)
    assert "tokens.csv cannot be read" in str(caught.value)
    assert "one" not in str(caught.value)

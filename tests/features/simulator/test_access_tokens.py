import os

import pytest

from tcb_ops.errors import SettingsError
from tcb_ops.features.simulator.state import Tokens


def write(file, text, mtime):
    file.write_text(text, encoding="utf-8")
    os.utime(file, (mtime, mtime))


def test_a_token_belongs_to_its_appid_and_any_other_is_40001():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    assert [tokens.owner(token, 0) for token in ("one", "two", "three")] == ["wx1", "wx2", 40001]


def test_a_rotated_token_is_40001_and_the_new_one_good():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    second = tokens.rotate("wx1")
    third = tokens.rotate("wx1")
    assert [tokens.owner(token, 0) for token in ("one", second, third, "two")] == [40001, 40001, "wx1", "wx2"]


def test_an_expired_token_is_42001_until_it_is_rotated():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    tokens.expire("wx1")
    assert [tokens.owner("one", 0), tokens.owner("two", 0)] == [42001, "wx2"]
    assert tokens.owner(tokens.rotate("wx1"), 0) == "wx1"


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    file = tmp_path / "tokens.csv"
    write(file, "\ufeffappid,access_token\nwx1,one\n", 1000)
    tokens = Tokens(file)
    assert tokens.owner("one", 0) == "wx1"
    write(file, "appid,access_token\nwx1,two\n", 2000)
    assert [tokens.owner("one", 0), tokens.owner("two", 0)] == [40001, "wx1"]


@pytest.mark.parametrize(
    "half", ["", "appid,access_tok", "appid,access_token\nwx1,\n"], ids=["empty", "head", "cell"]
)
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


def test_what_was_issued_is_not_kept_for_ever():
    tokens = Tokens({})
    for now in range(100):
        tokens.issue("wx1", now=now, lifetime=7200, overlap=300)
    assert len(tokens._tokens) == 2


@pytest.mark.parametrize("end", ["1500", "1970-01-01T00:25:00+00:00"], ids=["seconds", "ISO"])
def test_a_token_with_an_end_is_42001_from_then_on(tmp_path, end):
    file = tmp_path / "tokens.csv"
    write(file, f"appid,access_token,expires_at\nwx1,one,{end}\nwx2,two,\n", 1000)
    tokens = Tokens(file)
    assert [tokens.owner("one", 1499), tokens.owner("one", 1500), tokens.owner("two", 9e9)] == [
        "wx1",
        42001,
        "wx2",
    ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (b"", "contains no token"),
        (b"appid,access_token\n", "contains no token"),
        (b"appid,token\nwx1,one\n", "line 2"),
        (b"appid,access_token\nwx1,one\nwx2,\n", "line 3"),
        (b"appid,access_token,expires_at\nwx1,one,soon\n", "expires_at"),
        (b"\xff\xfe", "UTF-8"),
    ],
    ids=["empty", "header only", "other column", "no token", "bad end", "encoding"],
)
def test_a_bad_file_is_refused_at_the_start_without_its_tokens(tmp_path, text, result):
    file = tmp_path / "tokens.csv"
    file.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        Tokens(file)
    assert result in str(caught.value)
    assert "tokens.csv" in caught.value.text.zh
    assert "one" not in str(caught.value).replace("none", "")


def test_a_missing_file_is_refused_at_the_start(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        Tokens(tmp_path / "tokens.csv")


@pytest.mark.parametrize("cell", ['"wx2', '"wx2' + "x" * 140_000, '"wx"2'])
def test_an_open_quote_is_told_with_its_line(tmp_path, cell):
    file = tmp_path / "tokens.csv"
    write(file, f"appid,access_token\nwx1,one\n{cell},two\n", 1000)
    with pytest.raises(SettingsError, match="line 3"):
        Tokens(file)

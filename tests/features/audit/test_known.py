"""known.csv: what silences a failure, until when, and what is wrong with a line."""

from datetime import date

import pytest

from tcb_ops.errors import InputError
from tcb_ops.features.audit.known import KnownFailure, read_known, silencing

DAY = date(2026, 11, 27)


def test_a_file_from_excel_is_read(tmp_path):
    file = tmp_path / "known.csv"
    text = "环境ID,原因,截止日期,备注\r\nnoodle-prod-18b8ff,85088,2026/12/1,已联系商户\r\n\r\ntea-1a2b3c,HALTED,2026年11月30日,\r\n"
    file.write_bytes(text.encode("gb18030"))
    assert read_known(file) == (
        KnownFailure("", "noodle-prod-18b8ff", "85088", date(2026, 12, 1), "已联系商户"),
        KnownFailure("", "tea-1a2b3c", "halted", date(2026, 11, 30), ""),
    )


def test_a_file_without_its_columns_is_refused(tmp_path):
    file = tmp_path / "known.csv"
    file.write_text("env,note\ntea,x\n", encoding="utf-8")
    with pytest.raises(InputError, match="cause"):
        read_known(file)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("85088", "85088"),
        ("99999999", "99999999"),
        ("Halted", "halted"),
        ("accessdenied", "AccessDenied"),
        ("NoSuchThing", "NoSuchThing"),
        ("nope", None),
        ("Nope", None),
        ("no such thing", None),
    ],
)
def test_which_causes_a_line_can_have(tmp_path, text, cause):
    file = tmp_path / "known.csv"
    file.write_text(f"appid,cause,until\nwxtea,{text},2026-12-01\n", encoding="utf-8")
    if cause is None:
        with pytest.raises(InputError, match="is not a cause"):
            read_known(file)
        return
    assert [line.cause for line in read_known(file)] == [cause]


@pytest.mark.parametrize(
    ("known", "silenced"),
    [
        (KnownFailure("", "env-a", "85088", DAY), True),
        (KnownFailure("wxtea", "", "85088", DAY), True),
        (KnownFailure("wxtea", "env-a", "85088", date(2027, 1, 1)), True),
        (KnownFailure("", "env-a", "85088", date(2026, 11, 26)), False),
        (KnownFailure("", "env-a", "45009", DAY), False),
        (KnownFailure("", "env-b", "85088", DAY), False),
        (KnownFailure("wxbooks", "env-a", "85088", DAY), False),
    ],
)
def test_which_line_silences_a_failure(known, silenced):
    found = silencing([known], "wxtea", "env-a", "85088", DAY)
    assert (found is known) is silenced

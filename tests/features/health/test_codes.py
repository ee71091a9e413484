"""What an operator types is explained, and what tcb-ops does by itself is described."""

import re

import pytest

from tcb_ops.catalogue import Decision, Scope, all_errcodes, all_store_codes
from tcb_ops.errors import UsageError
from tcb_ops.features.health.codes import by_itself, explain

CJK = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (85088, 85088),
        ("85088", 85088),
        (" -501001\n", -501001),
        ("\u300085088", 85088),
        ("SlowDown", "SlowDown"),
        (" slowdown ", "SlowDown"),
        ("ACCESSDENIED", "AccessDenied"),
    ],
)
def test_explain_takes_what_operators_type(asked, code):
    entry = explain(asked)
    assert entry.code == code
    assert entry.known


@pytest.mark.parametrize(
    ("asked", "near"),
    [("SlowDwon", "SlowDown"), ("accesdenied", "AccessDenied"), ("NoSuchBuckets", "NoSuchBucket")],
)
def test_explain_suggests_the_store_code_that_was_meant(asked, near):
    with pytest.raises(UsageError) as refusal:
        explain(asked)
    assert near in refusal.value.text.en
    assert asked in refusal.value.text.en


@pytest.mark.parametrize("asked", ["", "qqqq", "85088x", "1.5", "8" * 5000 + "x"])
def test_explain_refuses_what_is_no_code_and_says_what_one_looks_like(asked):
    with pytest.raises(UsageError) as refusal:
        explain(asked)
    assert refusal.value.__context__ is None
    assert "85088" in refusal.value.text.en
    assert len(refusal.value.text.en) < 200


def test_every_pair_of_the_tables_is_described_and_no_other():
    used = {(entry.decision, entry.scope) for entry in all_errcodes()}
    used |= {(entry.decision, entry.scope) for entry in all_store_codes()}
    assert used == set(by_itself())
    phrases = [by_itself()[pair] for pair in used]
    assert len({phrase.en for phrase in phrases}) == len(used)
    assert all(CJK.search(phrase.zh) for phrase in phrases)
    with pytest.raises(KeyError):
        by_itself()[Decision.SLOW, Scope.PLATFORM]

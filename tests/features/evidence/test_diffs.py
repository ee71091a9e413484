"""Two runs side by side: each row counted once, under what became of it, whatever the lines' order."""

from dataclasses import replace

import pytest
from rich.console import Console

from tcb_ops.engine.list_kinds import LINKS
from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.diffs import Change, change, compare
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.ledger.records import EnvRecord, Usage
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.reports.formats.terminal import render_sections

GOOD = RowEnd(0, Outcome.UPLOADED, errcode=0)
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
OTHER = RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER)
PENDING = RowEnd(0, Outcome.PENDING)


@pytest.mark.parametrize(
    ("before", "after", "became"),
    [
        ("pending", "uploaded", "unfinished"),
        ("pending", None, "unfinished"),
        ("uploaded", "pending", "unfinished"),
        (None, "pending", "unfinished"),
        (None, "uploaded", "only_in_newer"),
        (None, "refused", "only_in_newer"),
        ("uploaded", None, "only_in_older"),
        ("refused", None, "only_in_older"),
        ("uploaded", "linked", "still_good"),
        ("unchanged", "uploaded", "still_good"),
        ("uploaded", "refused", "newly_broken"),
        ("uploaded", "invalid", "newly_broken"),
        ("not_attempted", "uploaded", "fixed"),
        ("failed", "not_attempted", "still_broken"),
        ("healthy", "unhealthy", "newly_broken"),
        ("unhealthy", "unknown", "unknown"),
        ("healthy", "unknown", "unknown"),
        ("unknown", "healthy", "still_good"),
        ("unknown", "unhealthy", "newly_broken"),
    ],
)
def test_what_became_of_a_row(before, after, became):
    assert change(before, after) is Change(became)


def test_each_row_is_counted_once_under_what_became_of_it(a_run, in_english):
    old = a_run([GOOD, GOOD, REFUSED, REFUSED, REFUSED, GOOD], id="old")
    new = a_run([GOOD, REFUSED, GOOD, OTHER, REFUSED, PENDING, REFUSED, GOOD], id="new", finished=False)
    found = compare(new.ledger, old.run, new.run, in_english)
    assert {str(what): rows for what, rows in found.counts.items()} == {
        "newly_broken": 1, "still_broken": 2, "fixed": 1, "only_in_newer": 2, "only_in_older": 0,
        "unfinished": 1, "unknown": 0, "still_good": 1,
    }  # fmt: skip
    assert sum(found.counts.values()) == 8
    lines = [(str(x.change), x.merchant, x.env, x.before, x.after, x.rows) for x in found.lines]
    assert lines == [
        ("newly_broken", "晨光文具", "test-3c4d", "", "85088", 1),
        ("still_broken", "晨光文具", "test-3c4d", "85088", "85088", 1),
        ("still_broken", "晨光文具", "prod-1a2b", "85088", "no_answer", 1),
        ("fixed", "Blue Whale", "shop-5e6f", "85088", "", 1),
        ("only_in_newer", "晨光文具", "test-3c4d", "", "", 1),
        ("only_in_newer", "晨光文具", "prod-1a2b", "", "85088", 1),
        ("unfinished", "Blue Whale", "shop-5e6f", "", "pending", 1),
    ]
    assert found.broken
    back = compare(new.ledger, new.run, old.run, in_english)
    assert back.counts[Change.ONLY_IN_OLDER] == 2
    assert back.counts[Change.NEWLY_BROKEN] == found.counts[Change.FIXED]


@pytest.mark.parametrize(
    ("older", "newer", "broken"),
    [
        ([GOOD, REFUSED], [GOOD, REFUSED], False),
        ([GOOD, REFUSED], [GOOD, OTHER], False),
        ([REFUSED], [GOOD, GOOD], False),
        ([GOOD], [REFUSED], True),
        ([GOOD], [GOOD, REFUSED], True),
        ([], [], False),
    ],
    ids=["as it was", "another code", "fixed and a new good one", "broken", "new and not good", "empty"],
)
def test_broken_is_what_was_good_or_not_there(a_run, in_english, older, newer, broken):
    old, new = a_run(older, id="old"), a_run(newer, id="new")
    assert compare(new.ledger, old.run, new.run, in_english).broken is broken


def test_rows_are_matched_by_environment_and_path_not_by_line(a_run, in_english):
    old = a_run([GOOD, REFUSED], id="old")
    ledger = old.ledger
    places = ledger.envs(old.run)
    planned = [record.row for record in ledger.rows(old.run)]
    turned = [replace(row, line=line) for line, row in enumerate(reversed(planned), start=10)]
    renumbered = [replace(place, number=number) for number, place in enumerate(reversed(places))]
    new = ledger.plan(replace(_new_of(old.run), id="new"), turned, renumbered)
    ledger.record(new, [replace(REFUSED, line=10), replace(GOOD, line=11)], Usage())
    found = compare(ledger, old.run, new, in_english)
    assert found.counts[Change.STILL_GOOD] == found.counts[Change.STILL_BROKEN] == 1


def test_a_row_that_is_there_twice_counts_once_and_not_as_its_bad_copy(a_run, in_english):
    old = a_run([GOOD], id="old")
    ledger = old.ledger
    (first,) = [record.row for record in ledger.rows(old.run)]
    copy = replace(first, line=1, invalid=Bilingual("the same twice", "重复"))
    new = ledger.plan(replace(_new_of(old.run), id="new"), [copy, first], ledger.envs(old.run))
    ledger.record(new, [replace(GOOD, line=first.line)], Usage())
    found = compare(ledger, old.run, new, in_english)
    assert {what: rows for what, rows in found.counts.items() if rows} == {Change.STILL_GOOD: 1}


@pytest.mark.parametrize(
    ("about", "result"),
    [
        ({"target": "https://other.example"}, "same kind and target"),
        ({"kind": AUDIT}, "same kind and target"),
    ],
)
def test_what_cannot_be_compared_is_refused(a_run, in_english, about, result):
    old, new = a_run([GOOD], id="old"), a_run([GOOD], id="new", **about)
    with pytest.raises(UsageError, match=result):
        compare(new.ledger, old.run, new.run, in_english)


def test_the_run_before_is_the_last_finished_one_of_the_same_kind_target_and_list(a_run):
    first = a_run([GOOD], id="first", created_at=100.0)
    a_run([GOOD], id="unfinished", created_at=200.0, finished=False)
    a_run([GOOD], id="elsewhere", created_at=210.0, target="http://127.0.0.1:1")
    a_run([GOOD], id="other-list", created_at=220.0, list_name="b.csv")
    a_run([GOOD], id="other-kind", created_at=230.0, kind=LINKS)
    a_run([GOOD], id="a-retry", created_at=240.0, parent="first")
    last = a_run([GOOD], id="last", created_at=300.0)
    assert last.ledger.previous(last.run).id == "first"
    assert last.ledger.previous(first.run) is None
    retry = a_run([GOOD], id="retry", created_at=400.0, parent="last")
    assert retry.ledger.previous(retry.run) is None


def drawn(found):
    console = Console(width=100)
    with console.capture() as result:
        for part in render_sections(found.sections(), Lang.EN, "--json"):
            console.print(part)
    return result.get()


def test_at_300_merchants_the_screen_stays_short(a_run, in_english):
    places = [EnvRecord(n, f"env-{n}", f"wx{n}", f"商户{n}", Owner.MERCHANT, left=False) for n in range(300)]
    old = a_run([GOOD] * 300, id="old", places=places)
    new = a_run([REFUSED] * 300, id="new", places=places)
    found = compare(new.ledger, old.run, new.run, in_english)
    assert len(drawn(found).splitlines()) < 25
    assert "… and 280 more   --json" in drawn(found)
    assert len(found.to_json()["changes"]) == 300
    html = found._repr_html_()
    assert "… and 288 more lines<" in html
    assert "frame" not in html


def test_a_notebook_shows_it_with_every_text_escaped(a_run, in_english):
    planted = "<script>alert(1)</script>"
    places = [EnvRecord(0, f"env{planted}", "wx", planted, Owner.MERCHANT, left=False)]
    old = a_run([GOOD], id="old", places=places)
    bad = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_code=planted)
    new = a_run([bad], id="new", places=places)
    html = compare(new.ledger, old.run, new.run, in_english)._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3


def _new_of(run):
    from tcb_ops.ledger.records import NewRun

    return NewRun(**{name: getattr(run, name) for name in NewRun.__dataclass_fields__})

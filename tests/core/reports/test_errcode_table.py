"""The errcode table: every row that is not good once, readable with three merchants and with three hundred."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.ledger.records import Tally
from tcb_ops.ledger.run_view import merged_run
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import why
from tcb_ops.reports.formats.terminal import render_errcodes
from tcb_ops.reports.summary import Cause, RunSummary, by_code, causes_of, shorten_details

CLOUD = (
    Bilingual("The mini program has no CloudBase.", "该小程序没有开通云开发。"),
    Bilingual("Open it.", "请开通。"),
)
SLOW = Bilingual("Too many requests.", "请求过快。"), Bilingual("Lower --per-env.", "请调低 --per-env。")


def cause(merchant, env, code, rows, texts=CLOUD):
    return Cause(f"wx{merchant}", merchant, env, code, *texts, outcomes={Outcome.REFUSED: rows}, rows=rows)


def drawn(listed, lang=Lang.EN, width=80):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_errcodes(by_code(listed), lang))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_every_row_that_is_not_good_is_in_exactly_one_entry(a_run, every_end):
    reported = a_run(every_end * 3, finished=False)
    listed = RunSummary(reported.ledger, reported.run).causes
    counts = reported.ledger.counts(reported.run)
    bad: Counter[Outcome] = Counter()
    for entry in listed:
        bad.update(entry.outcomes)
        assert sum(entry.outcomes.values()) == entry.rows
    assert bad == {outcome: rows for outcome, rows in counts.items() if not outcome.succeeded}
    keys = [(entry.appid, entry.env, entry.code) for entry in listed]
    assert len(keys) == len(set(keys))


def test_why_there_was_no_token_and_that_one_was_dead_is_told(a_run):
    result = "The token server answered HTTP 302: set tokens.url to the final address. access_token=PLANTED9"
    ends = [
        RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN, as_detail(same(result))),
        RowEnd(0, Outcome.REFUSED, Reason.DEAD_TOKEN, errcode=40001),
        RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=40001),
    ]
    reported = a_run(ends)
    final = merged_run(reported.ledger, reported.run)
    for ledger in (reported.ledger, final):
        summary = RunSummary(ledger, reported.run)
        shown = "".join(drawn(summary.causes, Lang.EN, 400))
        assert "HTTP 302" in shown
        assert "PLANTED" not in shown
        dead = why(Outcome.REFUSED, Reason.DEAD_TOKEN, 40001, "")
        meaning, action = dead.meaning, dead.action
        assert "the same one again" in meaning.en
        assert meaning.en in shown
        assert action.en in shown
        assert shown.count("40001 · ") == 2
        groups = {group.meaning: group for group in summary.codes}
        assert groups[meaning].code == "40001"
        assert [group.detail.en for group in groups.values() if group.detail is not None] == [
            result.replace("PLANTED9", "•••")
        ]


def test_refused_and_not_attempted_rows_of_one_code_share_an_entry_most_rows_first():
    def group(env, outcome, reason, rows, errcode):
        return Tally("wx1", "茶", env, outcome, reason, errcode, "", rows)

    listed = causes_of(
        [
            group("a", Outcome.REFUSED, Reason.REFUSED, 3, 85088),
            group("b", Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN, 50, None),
            group("a", Outcome.NOT_ATTEMPTED, Reason.BREAKER, 100, 85088),
            group("a", Outcome.UPLOADED, Reason.UNVERIFIED, 999, 0),
        ]
    )
    assert [(entry.env, entry.code, entry.rows) for entry in listed] == [
        ("a", "85088", 103),
        ("b", "no_token", 50),
    ]
    assert listed[0].outcomes == {Outcome.REFUSED: 3, Outcome.NOT_ATTEMPTED: 100}


def missing(appid):
    return detail(DetailCode.TOKEN_MISSING, file="/t", appid=appid)


def same(text):
    return Bilingual(text, text)


@pytest.mark.parametrize(
    ("result", "short"),
    [
        ([], None),
        ([("wx1", None), ("wx2", missing("wx2"))], "/t has no token for wx2: it needs a line per appid."),
        (
            [("wx1", missing("wx1")), ("wx1", missing("wx1"))],
            "/t has no token for wx1: it needs a line per appid.",
        ),
        (
            [("wx1", missing("wx1")), ("wx2", missing("wx2"))],
            "/t has no token for wx1, wx2: it needs a line per appid.",
        ),
        (
            [("wx1", missing("wx1")), ("wx2", same("gone")), ("wx3", missing("wx3"))],
            "/t has no token for wx1, wx3: it needs a line per appid. / gone",
        ),
        (
            [(f"wx{n}", missing(f"wx{n}")) for n in range(7)],
            "/t has no token for wx0, wx1, wx2, wx3, wx4 and 2 more: it needs a line per appid.",
        ),
        ([(f"wx{n}", same(f"HTTP {n}")) for n in range(5)], "HTTP 0 / HTTP 1 / HTTP 2 / …"),
        ([("", same("no appid is set")), ("wx1", same("no appid is set"))], "no appid is set"),
    ],
)
def test_what_merchants_lack_is_said_once_of_them_all(result, short):
    causes = [replace(cause("", "", "no_token", 1), appid=appid, detail=text) for appid, text in result]
    found = shorten_details(causes)
    assert (None if found is None else found.en) == short


def test_a_fleet_without_tokens_is_summed_up_at_once():
    causes = [replace(cause("", "", "no_token", 1), detail=missing(f"wx{n}")) for n in range(5_000)]
    began = time.process_time()
    assert "and 4,995 more" in shorten_details(causes).en
    assert time.process_time() - began < 2


def test_a_small_table_in_english():
    listed = [
        cause("晨光文具", "prod-1a2b", "85088", 1203),
        cause("Blue Whale", "shop-5e6f", "85088", 40),
        cause("Blue Whale", "shop-7777", "85088", 2),
        cause("[red]茶[/red]", "tea-1", "SlowDown", 1, SLOW),
    ]
    assert drawn(listed) == [
        "85088 · 1,245 rows · The mini program has no CloudBase.",
        "→ Open it.",
        "  晨光文具     prod-1a2b      1,203",
        "  Blue Whale   shop-5e6f +1      42",
        "",
        "SlowDown · 1 row · Too many requests.",
        "→ Lower --per-env.",
        "  [red]茶[/red]   tea-1   1",
        "",
    ]


def test_three_hundred_merchants_take_a_screen_and_the_rest_is_counted():
    listed = [cause(f"商户{at:03d}", f"env-{at}", "85088", 300 - at) for at in range(300)]
    lines = drawn(listed)
    assert len(lines) <= 45
    more = next(line for line in lines if "errcodes.csv" in line)
    shown = sum("env-" in line for line in lines)
    assert str(300 - shown) in more
    assert f"{sum(300 - at for at in range(shown, 300)):,}" in more


def test_where_the_rest_can_be_seen_stands_whole():
    listed = [cause(f"商户{at:03d}", f"env-{at}", "85088", 1) for at in range(300)]
    out = io.StringIO()
    rest = "tcb-ops report 20261126-002707-e790"
    Console(file=out, width=80, color_system=None).print(render_errcodes(by_code(listed), Lang.ZH, rest))
    assert rest in out.getvalue()


def test_many_codes_are_cut_off_and_counted_too():
    listed = [cause("A", "a", f"{1000 + at}", 100 - at) for at in range(30)]
    lines = drawn(listed)
    assert len(lines) < 90
    assert lines[-1].startswith("… and 10 more codes · ")


def test_nothing_is_wider_than_the_terminal_and_long_texts_are_all_there():
    texts = Bilingual("word " * 40, "字" * 100), Bilingual("do " * 60, "做" * 120)
    for lang in Lang:
        lines = drawn([cause("很长的商户名称" * 5, "environment-" * 4, "1", 1, texts)], lang, width=80)
        assert max(cell_len(line) for line in lines) <= 80
        assert "".join(lines).count("做" if lang is Lang.ZH else "do") == (120 if lang is Lang.ZH else 60)


def test_control_characters_from_outside_do_not_reach_the_terminal():
    group = Tally("wx", "茶\x1b[2J", "a\x07b", Outcome.FAILED, Reason.STORE_REFUSED, None, "Bad\x1bCode", 1)
    lines = drawn(causes_of([group]))
    assert "Bad␛Code" in lines[0]
    assert not any(letter in line for line in lines for letter in "\x1b\x07")

"""report.html: everything escaped, nothing loaded, the sums right, rehearsals marked."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from filelock import FileLock
from workspace import store_says

from tcb_ops.engine.stop_errors import stop_reason
from tcb_ops.errors import StoppedError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.kinds import all_kinds
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.ledger.run_view import merged_run
from tcb_ops.model import Outcome, Owner, Reason, RowEnd, RunSettings

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """The elements, the tables' cells and the text of a page; fails on an element left open."""

    VOID = frozenset({"meta", "br", "wbr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self._open):
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data


def page_of(reported, tmp_path, lang=Lang.EN):
    html = (reported.export(tmp_path / "out", lang=lang) / "report.html").read_text(encoding="utf-8")
    return Page(html), html


def number(text):
    return int(text.replace(",", ""))


@pytest.mark.integration
def test_rows_in_are_the_sum_over_outcomes_in_every_table(a_run, every_end, tmp_path):
    reported = a_run(every_end * 70, finished=False)
    page, html = page_of(reported, tmp_path)
    counts = reported.ledger.counts(reported.run)
    wrong = sum(
        rows for outcome, rows in counts.items() if not outcome.succeeded and outcome is not Outcome.PENDING
    )
    assert sum(counts.values()) == reported.run.rows
    for outcome, rows in counts.items():
        assert f"{outcome.label.en} {rows:,}" in page.text
    causes, folded, heat = page.tables[:3]
    assert f"{len(folded) - 1} more causes with" in page.text
    rows = [number(found) for found in re.findall(r'count" data-label="[^"]+"><b>([\d,]+)</b>', html)]
    assert sum(rows) == wrong + counts[Outcome.PENDING]
    assert len(causes) - 1 == 12
    assert number(heat[-1][1]) == sum(number(row[1]) for row in heat[1:-1]) == wrong
    for row in heat[1:]:
        assert sum(number(cell) for cell in row[2:] if cell) == number(row[1])
    label = r'"(?P<bad>[\d,]+) of (?P<rows>[\d,]+) rows did not succeed"'
    merchants = list(re.finditer(label, html))
    assert sum(number(one["bad"]) for one in merchants) == wrong
    assert sum(number(one["rows"]) for one in merchants) == reported.run.rows


def test_text_from_outside_is_escaped_wherever_it_comes_from(a_run, tmp_path):
    places = (EnvRecord(0, f"env{EVIL}", f"wx{EVIL}", f"merchant{EVIL}", Owner.MERCHANT, left=False),)
    ends = [
        RowEnd(
            0,
            Outcome.FAILED,
            Reason.STORE_REFUSED,
            store_says(EVIL),
            0,
            EVIL,
            f"rid{EVIL}",
            400,
            f"Code{EVIL}",
        ),
        RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER, store_says(EVIL)),
    ]
    reported = a_run(
        ends,
        finished=False,
        places=places,
        path=f"path{EVIL}{{line}}",
        note=f"note{EVIL}",
        operator=EVIL,
        host=EVIL,
        list_name=EVIL,
        root=EVIL,
        parent=EVIL,
        settings=RunSettings(cluster=EVIL, backup=EVIL),
    )
    reported.ledger.stop(reported.run, stop_reason(StoppedError(Bilingual(EVIL, EVIL))))
    page, html = page_of(reported, tmp_path)
    assert html.lower().count("<script") == 1  # ours
    for planted in ("merchant", "env", "wx", "path", "note", "Code", "rid"):
        assert f"{planted}{EVIL}" in page.text.replace("rid ", ""), planted


def test_the_page_loads_nothing_and_runs_one_script_that_its_policy_names(a_run, tmp_path):
    page, html = page_of(a_run(), tmp_path)
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        in html
    )
    assert [tag for tag, _ in page.tags].count("script") == 1
    loading = {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [tag for tag, _ in page.tags if tag in loading]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        href = attributes.get("href") or "#"
        assert href.startswith("#") or (tmp_path / "out" / href).is_file() or "/" not in href
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.parametrize(
    ("target", "marked"),
    [
        ("simulator", True),
        ("http://127.0.0.1:8310", False),
        ("https://api.weixin.qq.com", False),
        ("https://127.0.0.1.example.com", False),
    ],
)
def test_a_run_against_a_simulator_is_marked_by_its_own_target(a_run, tmp_path, target, marked):
    page, html = page_of(a_run(target=target), tmp_path)
    assert ("SIMULATED 演练" in page.text) is marked
    assert ("SIMULATED" in re.findall("<title>(.*)</title>", html)[0]) is marked


def test_an_unfinished_run_says_so_as_of_when_and_how_to_go_on(a_run, tmp_path):
    reported = a_run([RowEnd(0, Outcome.UPLOADED), RowEnd(0, Outcome.PENDING)], finished=False)
    reported.ledger.stop(reported.run, stop_reason(StoppedError(Bilingual("the disk is full", "磁盘已满"))))
    page, _ = page_of(reported, tmp_path)
    assert "Unfinished: 1 of 2 rows have ended (1 succeeded), 1 pending." in page.text
    assert "As of 2025-11-25 10:00:00+08:00" in page.text
    assert "the disk is full" in page.text
    assert "To resume it:" in page.text


def test_merchants_of_one_name_are_told_apart_by_their_appids(a_run, tmp_path):
    names = ("茶语小铺", "茶语小铺", "晨光文具")
    places = [
        EnvRecord(at, f"e{at}", f"wx{at}", name, Owner.MERCHANT, left=False) for at, name in enumerate(names)
    ]
    refused = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=61007, ended_at=1_764_034_009.0)
    page, _ = page_of(a_run([refused] * 3, places=places), tmp_path)
    causes, heat = page.tables[0], page.tables[1]
    assert "茶语小铺 wx0 (1 row) · 茶语小铺 wx1 (1 row)" in " ".join(causes[1][3].split())
    assert {line[0] for line in heat[1:-1]} == {"茶语小铺 wx0", "茶语小铺 wx1", "晨光文具"}


def test_a_good_run_says_that_nothing_went_wrong(a_run, tmp_path):
    page, _ = page_of(a_run([RowEnd(0, Outcome.UPLOADED)] * 3), tmp_path)
    assert "All 3 rows succeeded: uploaded." in page.text
    assert "Nothing went wrong." in page.text
    assert len(page.tables) == 2
    page, _ = page_of(a_run([], id="empty"), tmp_path / "empty")
    assert "The run has no rows." in page.text


def test_who_when_what_and_with_which_settings(a_run, tmp_path):
    page, _ = page_of(a_run(), tmp_path, Lang.ZH)
    for told in (
        "20251125-093000-k7q2",
        "li.na",
        "ops-1",
        "每周上传",
        "清单.csv（123 字节）",
        "ab" * 32,
        "https://api.weixin.qq.com",
        "2025-11-25 09:26:40+08:00 Asia/Shanghai",
        "concurrency = 64",
        "tcb-ops 0.",
        "Python 3.",
    ):
        assert told in page.text


@pytest.mark.parametrize("kind", all_kinds())
def test_every_kind_of_run_has_a_page(a_run, tmp_path, kind):
    page, html = page_of(a_run(kind=kind), tmp_path, Lang.ZH)
    assert '<html lang="zh-CN">' in html
    assert page.text.strip()


def test_beyond_five_hundred_merchants_the_page_points_to_results_csv(a_run, tmp_path):
    places = [
        EnvRecord(at, f"env-{at}", f"wx{at}", f"商户{at}", Owner.MERCHANT, left=False) for at in range(1_100)
    ]
    good, bad = RowEnd(0, Outcome.UPLOADED), RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
    page, html = page_of(a_run([*[good] * 1_099, bad], places=places), tmp_path)
    details = re.findall(r'<summary><span class="name">([^<]+)</span>', html)
    assert len(details) == 80
    assert details[0] == "商户1099", "those with rows that are not good come first"
    assert len(page.tables[-1]) - 1 == 420
    assert "600 more merchants are omitted here; results.csv has every row." in page.text


def test_a_final_report_shows_only_rows_that_are_not_good_now(a_run, tmp_path):
    bad = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, ended_at=1_764_034_009.0)
    original = a_run([bad, bad], places=(EnvRecord(0, "e", "wx", "茶语小铺", Owner.MERCHANT, left=False),))
    a_run(
        [RowEnd(0, Outcome.UPLOADED)],
        places=(EnvRecord(0, "e", "wx", "茶语小铺", Owner.MERCHANT, left=False),),
        id="20251126-093000-aaaa",
        parent=original.run.id,
    )
    final = merged_run(original.ledger, original.run)
    page, html = page_of(replace(original, run=final.record, reader=final), tmp_path)
    assert [row[0] for row in page.tables[-1][1:]] == ["3"], "line 2 was fixed by the retry"
    assert "a run and its retries are too far apart" in page.text
    before_the_causes = page.text.partition("What to do next")[0]
    assert "Merged with its retry: the last state of each row." in before_the_causes
    assert re.findall("<title>(.*)</title>", html)[0].endswith("with its retries")


def test_while_somebody_works_on_the_run_it_says_to_wait(a_run, tmp_path):
    reported = a_run([RowEnd(0, Outcome.UPLOADED), RowEnd(0, Outcome.PENDING)], finished=False)
    folder = tmp_path / "reports.db-locks"
    folder.mkdir()
    lock = FileLock(folder / f"{reported.run.id}.lock", is_singleton=False)
    (folder / f"{reported.run.id}.holder").write_text("wang.wu@ops-2, process 7\n", encoding="utf-8")
    with lock.acquire():
        held, _ = page_of(reported, tmp_path / "held")
    killed, _ = page_of(reported, tmp_path / "killed")
    assert "is being worked on by wang.wu@ops-2, process 7. Wait for it" in held.text
    assert "Wait for the run to end." in held.text
    assert "To resume it:" not in held.text
    assert "wang.wu" not in killed.text
    assert "To resume it:" in killed.text


def test_where_errmsg_has_to_be_read_it_stands_there_without_secrets(a_run, tmp_path):
    unknown = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=987654)
    ends = [replace(unknown, errmsg="what is access_token=80_AbCdEfGhIjKl doing " + "here " * 60)]
    ends += [RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=61007, errmsg="said in the catalogue")]
    page, html = page_of(a_run(ends), tmp_path)
    assert "errmsg: what is access_token=••• doing here" in page.text
    assert "here " * 40 not in html
    assert "said in the catalogue" not in page.text

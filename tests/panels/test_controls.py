"""The controls of a panel: work that is never silent, confirmation of a live target, picking a list, options by their names."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from panel_lab import press
from tables import table
from workspace import TEA, many

from tcb_ops.engine.plan import check_kept, check_retry
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import Bilingual, CommandText, Lang, TableText, as_lines, in_panel
from tcb_ops.panels.controls import Worker
from tcb_ops.panels.list_reader import LIST_ENDINGS, SHOWN, pickable
from tcb_ops.preflight import is_confirmed

pytestmark = pytest.mark.integration


def broken():
    raise ValueError("token-planted-in-a-defect")


@pytest.mark.parametrize(("lang", "shown"), [(Lang.EN, "Not like this."), (Lang.ZH, "不能这样。")])
def test_our_own_errors_are_shown_in_the_panel_s_language(read, lang, shown):
    worker = Worker(lang)

    def refused():
        raise UsageError(Bilingual("Not like this.", "不能这样。"))

    assert not worker.guarded(refused)
    assert read(worker.line) == shown


def test_a_defect_is_reported_in_words_and_its_trace_is_in_the_log_only(read, caplog):
    worker = Worker(Lang.EN)
    with caplog.at_level(logging.ERROR, "tcb_ops.panels"):
        worker.start(broken)
        worker.settle()
    assert read(worker.line).startswith("Internal error in tcb-ops (ValueError); see the log for details.")
    assert "planted" not in worker.line.value
    assert "Traceback" in caplog.text


def test_one_thing_is_done_at_a_time_and_buttons_are_enabled_again_after_it(read):
    worker, go, calls = Worker(Lang.EN), threading.Event(), []
    worker.on_change = lambda: calls.append(worker.busy)
    worker.start(lambda: go.wait(240) and None)
    worker.start(broken)
    go.set()
    worker.settle()
    assert read(worker.line) == ""
    assert calls == [True, False]
    assert not worker.busy


def test_it_is_at_rest_only_when_its_end_was_reported():
    worker, go, calls = Worker(Lang.EN), threading.Event(), []
    ended = threading.Event()

    def on_change():
        if not worker.busy:
            ended.set()
            go.wait(240)
            calls.append("end")

    worker.on_change = on_change
    worker.start(lambda: None)
    ended.wait(240)
    go.set()
    worker.settle()
    assert calls == ["end"]


def test_what_waits_is_done_next_and_of_several_the_last():
    worker, go, done = Worker(Lang.EN), threading.Event(), []
    worker.start(lambda: go.wait(240) and None)
    worker.start(lambda: done.append("first"), waits=True)
    worker.start(lambda: done.append("last"), waits=True)
    assert done == []
    go.set()
    worker.settle()
    assert done == ["last"]
    assert not worker.busy


def test_the_panels_load_nothing_of_the_command_line():
    code = (
        "import sys, tcb_ops.panels\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('click', 'rich')\n"
        "             or name.startswith('tcb_ops.cli')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@table(
    "typed, merchants, asked, may",
    {
        "not asked": ("", 12, False, True),
        "the number": ("12", 12, True, True),
        "spaces": (" 12 ", 12, True, True),
        "thousands": ("1,200", 1200, True, True),
        "full width": ("１，２００", 1200, True, True),
        "nothing": ("", 12, True, False),
        "another": ("13", 12, True, False),
        "a word": ("twelve", 12, True, False),
        "not as shown": ("012", 12, True, False),
    },
)
def test_a_run_may_begin(typed, merchants, asked, may):
    assert is_confirmed(typed, merchants, asked=asked) is may


def test_on_this_machine_nothing_is_asked(open_lab):
    panel = open_lab().uploads()
    assert panel.starter.facts.layout.display == "none"
    assert not panel.start.disabled


@pytest.mark.parametrize("kind", ["uploads", "links", "audits"])
def test_a_live_target_needs_the_number_of_merchants(open_lab, read, kind):
    lab = open_lab()
    lab.live()
    panel = getattr(lab, kind)()
    assert panel.starter.facts.layout.display == ""
    facts = read(panel.starter.facts)
    assert facts.startswith("LIVE: https://api.weixin.qq.com ")
    assert "2 merchants, 3 environments" in facts
    assert facts.endswith(" 720 B") is (kind == "uploads")
    assert "merchants" not in read(panel.ready_line)  # it is said once, beside the button
    assert panel.starter.count.description == "Type 2"
    assert panel.setup.children[-1] is panel.starter
    assert panel.start.disabled
    panel.starter.count.value = "3"
    assert panel.start.disabled
    panel.start.click()  # one that was on its way when the confirmation was asked for again
    panel.settle()
    assert "Type the number of merchants (2) first" in read(panel.worker.line)
    assert panel.run is None
    panel.starter.count.value = "2"
    assert not panel.start.disabled
    assert lab.sent == 0


def test_another_list_asks_again(open_lab):
    lab = open_lab()
    lab.live()
    panel = lab.uploads()
    panel.starter.count.value = "2"
    assert not panel.start.disabled
    press(panel, panel.list_reader.check)
    assert panel.starter.count.value == ""
    assert panel.start.disabled


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("With a new ledger ({--ledger}).", "With a new ledger (“ledger” in tcb-ops.toml)."),
        (
            "Another row has the names: {--header-row:N}",
            "Another row has the names: delete the rows above it",
        ),
        ("Say which with {--column:path=HEADER}", "Say which with the header “path” in the list"),
        ("The files below {--root}.", "The files below “Local files”."),
    ],
    ids=["setting", "header", "column", "field"],
)
def test_a_message_names_what_the_panel_and_its_settings_have(text, shown):
    assert in_panel(TableText(text, ""), Lang.EN) == shown


def test_a_refusal_says_what_to_do_in_the_panel_and_names_no_command(open_lab, read):
    lab = open_lab([(TEA.env, "a.png")], [Fault(delay=2)])
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    panel.monitor.stop.click()
    panel.settle()
    settings, run = lab.workspace.settings, panel.run
    elsewhere = lab.workspace.with_options(api_base="https://api.weixin.qq.com")
    signed = replace(run.record, settings=replace(run.record.settings, signed="list.csv"))
    for refused, shown in (
        (lambda: check_retry(run.record, settings), "a retry is for a finished run: resume it first."),
        (lambda: check_retry(run.record, elsewhere), "and now the target is https://api.weixin.qq.com."),
        (lambda: check_kept(signed, settings), "so it is resumed with its list: give list.csv again."),
        (
            lambda: check_retry(replace(signed, finished_at=1.0), settings),
            "so its list is needed: give list.csv again.",
        ),
    ):
        with pytest.raises(UsageError) as error:
            refused()
        panel.worker.report(error.value)
        assert read(panel.worker.line).endswith(shown)
        assert len(error.value.text.commands()) == 1


@table(
    "cut_off, button",
    {
        "resume": (True, "resume"),
        "retry": (False, "retry"),
    },
)
def test_resuming_and_retrying_are_confirmed_too(open_lab, read, cut_off, button):
    refused, slow = Fault(path="banner/3.png", errcode=40097), Fault(delay=1.0)
    lab = open_lab(many(TEA, rows=20), [refused, slow] if cut_off else [refused])
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    if cut_off:
        panel.monitor.stop.click()
    panel.settle()
    monitor = panel.monitor
    # The same run, as if it were live.
    panel.context.settings.__dict__.update(api_base="https://api.weixin.qq.com", listener=None)
    offer = monitor.resume if button == "resume" else monitor.retry.action
    offer._asks = True
    monitor._offer()
    act = offer.button
    assert offer.facts.layout.display == ""
    files, size = panel.run.counts.get("pending", 1), len("tea-1a2b3c/banner/3.png")
    assert f"{files} row{'s' * (files > 1)}: 1 merchant, 1 environment, " in read(offer.facts)
    if not cut_off:
        assert f"1 environment, {size} B" in read(offer.facts)
    assert act.disabled
    press(panel, act)
    assert "Type the number of merchants (1) first" in read(panel.worker.line)
    offer.count.value = "1"
    assert not act.disabled


def test_lists_and_folders_beside_the_notebook_are_offered_and_nothing_else(tmp_path):
    for name in ("b.csv", "a.XLSX", "c.tsv", "notes.txt", ".hidden.csv", "tokens.csv"):
        (tmp_path / name).touch()
    for name in ("素材", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "深.csv").touch()
    hidden = frozenset({(tmp_path / "tokens.csv").resolve()})
    assert pickable(tmp_path, LIST_ENDINGS, hidden) == ["a.XLSX", "b.csv", "c.tsv", "素材/深.csv"]
    assert pickable(tmp_path, ()) == ["素材"]
    assert pickable(tmp_path / "nowhere", LIST_ENDINGS) == []


def test_the_lists_that_are_offered_are_those_of_the_last_check(open_lab):
    lab = open_lab()
    panel = lab.uploads()
    assert list(panel.list_reader.paths.options) == ["list.csv"]
    (lab.workspace.folder / "new.csv").touch()
    press(panel, panel.list_reader.check)
    assert "new.csv" in panel.list_reader.paths.options


def test_a_folder_with_very_many_lists_is_cut(tmp_path):
    for number in range(SHOWN + 3):
        (tmp_path / f"{number}.csv").touch()
    assert len(pickable(tmp_path, LIST_ENDINGS)) == SHOWN


def test_a_suggested_command_is_shown_as_it_stands_in_an_element_of_its_own():
    worker = Worker(Lang.EN)
    command = CommandText("tcb-ops upload --resume r --root '/a <b>' --ledger /l")
    text = as_lines(["Check --root. To resume it:", command, "tcb-ops is not a command here"])
    worker.report(UsageError(text))
    shown = worker.line.value
    assert "<code>tcb-ops upload --resume r --root &#x27;/a &lt;b&gt;&#x27; --ledger /l</code>" in shown
    assert "\ntcb-ops is not a command here<" in shown


def test_a_missing_column_is_fixed_in_the_list_where_the_panel_has_no_field_for_it(open_lab, read):
    lab = open_lab()
    Path("list.csv").write_text(
        Path("list.csv").read_text(encoding="utf-8").replace("path", "target"), encoding="utf-8"
    )
    panel = lab.links()
    said = read(panel.list_reader.line)
    assert "say which column it is with the header “path” in the list" in said
    assert "columns=" not in said

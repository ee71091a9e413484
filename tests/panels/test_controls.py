"""The controls of a panel: work that is never silent, confirmation of a live target, picking a list, options by their names."""

from __future__ import annotations

import html
import logging
import subprocess
import sys
import threading

import pytest
from panel_lab import press
from workspace import TEA, write_csv

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Bilingual, CommandText, Lang, as_lines
from tcb_ops.panels.controls import LINKS_GO_TO, REPORT, Worker, html_area, is_confirmed
from tcb_ops.panels.list_reader import LIST_ENDINGS, SHOWN, Picker, pickable
from tcb_ops.runs.next_commands import install


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
    worker.start(lambda: go.wait(10) and None)
    worker.start(broken)
    assert read(worker.line).startswith("Still busy")
    go.set()
    worker.settle()
    assert read(worker.line) == ""  # it goes with the step
    assert calls == [True, False]
    assert not worker.busy


def test_a_click_that_is_declined_covers_a_message_only_until_the_step_ends(read):
    worker, go = Worker(Lang.EN), threading.Event()
    mine, other, result = html_area("mine"), html_area("other"), Bilingual("Done.", "完成。")
    for line in (worker.line, other):
        worker.say(Bilingual("The verdict.", "结论。"), line=line)

    def step():
        go.wait(10)
        worker.say(result, line=mine)

    worker.start(step, line=mine)
    for line in (mine, other, other, None):
        worker.start(broken, line=line)
        assert read(line or worker.line).startswith("Still busy")
    go.set()
    worker.settle()
    assert [read(line) for line in (mine, other, worker.line)] == ["Done.", "The verdict.", "The verdict."]


def test_it_is_at_rest_only_when_its_end_was_reported():
    worker, go, calls = Worker(Lang.EN), threading.Event(), []
    ended = threading.Event()

    def on_change():
        if not worker.busy:
            ended.set()
            go.wait(10)
            calls.append("end")

    worker.on_change = on_change
    worker.start(lambda: None)
    ended.wait(10)
    go.set()
    worker.settle()
    assert calls == ["end"]


def test_what_waits_is_done_next_and_of_several_the_last():
    worker, go, done = Worker(Lang.EN), threading.Event(), []
    worker.start(lambda: go.wait(10) and None)
    worker.start(lambda: done.append("first"), waits=True)
    worker.start(lambda: done.append("last"), waits=True)
    assert done == []
    go.set()
    worker.settle()
    assert done == ["last"]
    assert not worker.busy


def test_without_ipywidgets_it_is_reported_what_to_install():
    code = (
        "import sys; sys.modules['ipywidgets'] = None\nimport tcb_ops\n"
        "try:\n    import tcb_ops.panels\nexcept tcb_ops.UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"restart the kernel:\n{install('lab')}\n")


def test_the_panels_load_nothing_of_the_command_line():
    code = (
        "import sys, tcb_ops.panels\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('click', 'rich')\n"
        "             or name.startswith('tcb_ops.cli')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("typed", "merchants", "asked", "may"),
    [
        ("", 12, False, True),
        ("12", 12, True, True),
        (" 12 ", 12, True, True),
        ("1,200", 1200, True, True),
        ("１，２００", 1200, True, True),
        ("", 12, True, False),
        ("13", 12, True, False),
        ("twelve", 12, True, False),
        ("012", 12, True, False),
    ],
    ids=[
        "not asked",
        "the number",
        "spaces",
        "thousands",
        "full width",
        "nothing",
        "another",
        "a word",
        "not as shown",
    ],
)
def test_a_run_may_begin(typed, merchants, asked, may):
    assert is_confirmed(typed, merchants, asked=asked) is may


def test_on_this_machine_nothing_is_asked(open_lab):
    panel = open_lab().uploads()
    assert panel.confirmation.layout.display == "none"
    assert not panel.start.disabled


@pytest.mark.parametrize("kind", ["uploads", "links", "audits"])
def test_a_live_target_needs_the_number_of_merchants(open_lab, read, kind):
    lab = open_lab()
    lab.live()
    panel = getattr(lab, kind)()
    assert panel.confirmation.layout.display == ""
    facts = read(panel.confirmation.facts)
    assert "LIVE: https://api.weixin.qq.com" in facts
    assert "2 merchants, 3 environments" in facts
    assert (" B." in facts or " KB" in facts or " B Type" in facts) is (kind == "uploads")
    assert panel.start.disabled
    panel.confirmation.count.value = "3"
    assert panel.start.disabled
    panel.start.click()  # one that was on its way when the confirmation was asked for again
    panel.settle()
    assert "Type the number of merchants (2) first" in read(panel.worker.line)
    assert panel.run is None
    panel.confirmation.count.value = "2"
    assert not panel.start.disabled
    panel.run_now(wanted=False)  # a live target could not be reached unless that is asked for
    assert panel.run is None
    assert lab.sent == 0


def test_another_list_asks_again(open_lab):
    lab = open_lab()
    lab.live()
    panel = lab.uploads()
    panel.confirmation.count.value = "2"
    assert not panel.start.disabled
    press(panel, panel.list_reader.check)
    assert panel.confirmation.count.value == ""
    assert panel.start.disabled


@pytest.mark.slow
@pytest.mark.parametrize(("cut_off", "button"), [(True, "resume"), (False, "retry")], ids=["resume", "retry"])
def test_resuming_and_retrying_are_confirmed_too(open_lab, read, cut_off, button):
    from workspace import TEA, many

    from tcb_ops.features.simulator import Fault

    lab = open_lab(many(TEA, rows=20), [Fault(path="banner/3.png", errcode=40097), Fault(delay=0.1)])
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    if cut_off:
        panel.monitor.stop.click()
    panel.settle()
    monitor = panel.monitor
    panel.context.settings.__dict__["api_base"] = (
        "https://api.weixin.qq.com"  # the same run, as if it were live
    )
    monitor._offer()
    offer = getattr(monitor, button)
    confirmation, act = offer.confirmation, offer.button
    assert confirmation.layout.display == ""
    files, size = panel.run.counts.get("pending", 1), len("tea-1a2b3c/banner/3.png")
    assert f"{files} file{'s' * (files > 1)}, 1 merchant, 1 environment, " in read(confirmation.facts)
    if not cut_off:
        assert f"1 environment, {size} B" in read(confirmation.facts)
    assert act.disabled
    act.click()
    panel.settle()
    assert "Type the number of merchants (1) first" in read(panel.worker.line)
    confirmation.count.value = "1"
    assert not act.disabled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.csv", "a.XLSX", "c.tsv", "notes.txt", ".hidden.csv", "tokens.csv"):
        (tmp_path / name).touch()
    for name in ("素材", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "深.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_picker(**options):
    picked: list[str] = []
    picker = Picker(
        Worker(Lang.EN),
        "op-x",
        Bilingual("List", "清单"),
        picked=lambda: picked.append(picker.path),
        **options,
    )
    return picker, picked


def test_lists_and_folders_beside_the_notebook_are_offered_and_nothing_else(folder):
    hidden = frozenset({(folder / "tokens.csv").resolve()})
    picker, _ = a_picker(hidden=hidden)
    assert list(picker.text.options) == ["a.XLSX", "b.csv", "c.tsv", "素材/深.csv"]
    assert pickable(folder, ()) == ["素材"]
    assert pickable(folder / "nowhere", LIST_ENDINGS) == []
    (folder / "new.csv").touch()
    picker.refresh()
    assert "new.csv" in picker.text.options


def test_a_folder_with_very_many_lists_is_cut(tmp_path):
    for number in range(SHOWN + 3):
        (tmp_path / f"{number}.csv").touch()
    assert len(pickable(tmp_path, LIST_ENDINGS)) == SHOWN


def test_what_is_typed_or_chosen_is_picked(folder):
    picker, picked = a_picker()
    for path in (" b.csv ", "/elsewhere/d.csv"):
        picker.text.value = path
    assert picked == ["b.csv", "/elsewhere/d.csv"]


def test_a_suggested_command_is_shown_as_it_stands_in_an_element_of_its_own():
    worker = Worker(Lang.EN)
    command = CommandText("tcb-ops upload --resume r --root '/a <b>' --ledger /l --sheet a")
    text = as_lines(["Check --root. To resume it:", command, "tcb-ops is not a command here"])
    worker.report(tcb.UsageError(text))
    shown = html.unescape(worker.line.value)
    assert "<code>tcb-ops upload --resume r --root '/a <b>' --ledger /l --sheet a</code>" in shown
    assert "\ntcb-ops is not a command here\n" in shown
    assert "In this panel, --root is “Local files”." in shown
    assert "A panel has no" not in shown


@pytest.mark.parametrize(
    ("problem", "out", "shown"),
    [
        (
            "Use --root or --ledger.",
            None,
            "In this panel, --ledger is the setting ledger, --root is “Local files”.",
        ),
        ("Use --out.", LINKS_GO_TO, "In this panel, --out is “Links go to”."),
        ("Use --out.", REPORT, "In this panel, --out is the parameter report."),
        ("Use --out.", None, "A panel has no --out: use the command line for that."),
        ("--sheet, --map, --sheet", None, "A panel has no --map, --sheet: use the command line for that."),
        ("Run `tcb-ops init --practice`.", REPORT, ""),
    ],
    ids=["two", "out of links", "out of a report", "no out", "only there", "a command"],
)
def test_what_a_panel_has_for_options(read, problem, out, shown):
    worker = Worker(Lang.EN, out)
    worker.report(tcb.UsageError(Bilingual(problem, "未接受。")))
    assert read(worker.line) == f"{problem} {shown}".strip()


def test_the_problems_of_a_list_name_the_panel_s_controls(open_lab, read):
    lab = open_lab()
    write_csv(
        lab.workspace.list,
        ("env", "path", "file"),
        [(TEA.env, f"{n}.png", f"gone-{n}.png") for n in range(2)],
    )
    panel = lab.uploads()
    shown = read(panel.list_reader.problems)
    assert "check the name (case matters) and --root" in shown
    assert shown.endswith("In this panel, --root is “Local files”.")
    assert "In this panel" not in read(panel.list_reader.line)  # which only counts them

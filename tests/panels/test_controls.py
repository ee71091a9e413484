"""A callback is never silent, and a stack trace is never its answer."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.panels.controls import Worker, html_area
from tcb_ops.runs.next_commands import install

if TYPE_CHECKING:
    import pytest


def broken() -> None:
    raise ValueError("token-planted-in-a-defect")


def test_our_own_errors_are_shown_in_the_panel_s_language(read: Any, lang: str):
    worker = Worker(Lang(lang))

    def refused() -> None:
        raise UsageError(Bilingual("Not like this.", "不能这样。"))

    assert not worker.guarded(refused)
    assert read(worker.line) == {"en": "Not like this.", "zh": "不能这样。"}[lang]


def test_a_defect_is_reported_in_words_and_its_trace_is_in_the_log_only(
    read: Any, caplog: pytest.LogCaptureFixture
):
    worker = Worker(Lang.EN)
    with caplog.at_level(logging.ERROR, "tcb_ops.panels"):
        worker.start(broken)
        worker.settle()
    assert read(worker.line).startswith("Internal error in tcb-ops (ValueError); see the log for details.")
    assert "planted" not in worker.line.value
    assert "Traceback" in caplog.text


def test_one_thing_is_done_at_a_time_and_buttons_are_enabled_again_after_it(read: Any):
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


def test_a_click_that_is_declined_covers_a_message_only_until_the_step_ends(read: Any):
    worker, go = Worker(Lang.EN), threading.Event()
    mine, other, result = html_area("mine"), html_area("other"), Bilingual("Done.", "完成。")
    for line in (worker.line, other):
        worker.say(Bilingual("The verdict.", "结论。"), line=line)

    def step() -> None:
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

    def on_change() -> None:
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

"""Before a live target, what would be sent is shown and the number of merchants is typed in."""

from __future__ import annotations

from typing import Any

import pytest

from tcb_ops.panels.controls import is_confirmed


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
def test_a_run_may_begin(typed: str, merchants: int, asked: bool, may: bool):
    assert is_confirmed(typed, merchants, asked=asked) is may


def test_on_this_machine_nothing_is_asked(open_lab: Any):
    panel = open_lab().uploads()
    assert panel.confirmation.layout.display == "none"
    assert not panel.start.disabled


@pytest.mark.parametrize("kind", ["uploads", "links", "audits"])
def test_a_live_target_needs_the_number_of_merchants(open_lab: Any, read: Any, kind: str):
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


def test_another_list_asks_again(open_lab: Any):
    lab = open_lab()
    lab.live()
    panel = lab.uploads()
    panel.confirmation.count.value = "2"
    assert not panel.start.disabled
    panel.list_reader.check.click()
    panel.settle()
    assert panel.confirmation.count.value == ""
    assert panel.start.disabled


@pytest.mark.slow
@pytest.mark.parametrize(("cut_off", "button"), [(True, "resume"), (False, "retry")], ids=["resume", "retry"])
def test_resuming_and_retrying_are_confirmed_too(open_lab: Any, read: Any, cut_off: bool, button: str):
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

"""Errors of the library name options of the command line; a panel says what it has for them."""

from __future__ import annotations

import html
from typing import Any

import pytest
from workspace import TEA, write_csv

import tcb_ops as tcb
from tcb_ops.i18n import Bilingual, CommandText, Lang, Text, as_lines
from tcb_ops.panels.controls import LINKS_GO_TO, REPORT, Worker


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
def test_what_a_panel_has_for_options(read: Any, problem: str, out: Text | None, shown: str):
    worker = Worker(Lang.EN, out)
    worker.report(tcb.UsageError(Bilingual(problem, "未接受。")))
    assert read(worker.line) == f"{problem} {shown}".strip()


def test_the_problems_of_a_list_name_the_panel_s_controls(open_lab: Any, read: Any):
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

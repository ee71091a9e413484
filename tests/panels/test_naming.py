"""Sentences of the library name options; a panel says what those are called there, or that it has none."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest
from workspace import TEA, write_csv

from tcb_ops.i18n import Lang, Text
from tcb_ops.panels.naming import LINKS_GO_TO, REPORT, beyond, here
from tcb_ops.panels.worker import Worker


def test_a_suggested_command_is_shown_as_it_stands_in_an_element_of_its_own():
    worker = Worker(Lang.EN, None)
    said = "Check --root. To resume it:\ntcb-ops upload --resume r --root '/a <b>' --ledger /l --sheet a"
    worker.say(Text(said, said))
    shown = html.unescape(worker.line.value)
    assert "<code>tcb-ops upload --resume r --root '/a <b>' --ledger /l --sheet a</code>" in shown
    assert "Check “Local files”." in shown
    assert "A panel has no" not in shown


@pytest.mark.parametrize(
    ("said", "out", "shown"),
    [
        ("give it up with --new-run.", None, "give it up with “begin anew”."),
        ("Check --root.", None, "Check “Local files”."),
        ("Name another with --out.", LINKS_GO_TO, "Name another with “Links go to”."),
        ("Name another with --out.", REPORT, "Name another with the parameter report."),
        (
            "Name another with --out.",
            None,
            "Name another with --out. A panel has no --out: use the command line for that.",
        ),
        (
            "--sheet 'a', then --column path=b.",
            None,
            "--sheet 'a', then --column path=b. A panel has no --column, --sheet: use the command line for that.",
        ),
        ("a--b, 10-4 --", None, "a--b, 10-4 --"),
    ],
    ids=["begin anew", "root", "out of links", "out of a report", "no out", "only there", "no option"],
)
def test_an_option_is_called_what_it_is_called_here(read: Any, said: str, out: Text | None, shown: str):
    worker = Worker(Lang.EN, out)
    worker.say(Text(said, said))
    assert read(worker.line) == shown


def test_in_chinese_too():
    assert (
        here(Text("", "用 --new-run 放弃它，或检查 --root。"), None).zh
        == "用 “重新开始” 放弃它，或检查 “本地文件夹”。"
    )
    assert beyond([Text("--map", ""), Text("--map, --sheet", "")]) == Text(
        "A panel has no --map, --sheet: use the command line for that.",
        "面板没有 --map、--sheet：需要时请使用命令行。",
    )


def test_the_problems_of_a_list_name_the_panel_s_controls(open_lab: Any, read: Any):
    lab = open_lab()
    write_csv(
        lab.shop.list, ("env", "path", "file"), [(TEA.env, f"{n}.png", f"gone-{n}.png") for n in range(2)]
    )
    shown = read(lab.uploads().list_reader.problems)
    assert "check the name (case counts) and “Local files”" in shown
    assert "--root" not in shown


def test_what_only_the_command_line_can_say_is_sent_there(open_lab: Any, read: Any):
    lab = open_lab()
    Path("other.csv").write_text("env,云端\n", encoding="utf-8")
    panel = lab.uploads("other.csv")
    for part in (panel.worker.line, panel.list_reader.problems):
        assert "A panel has no --column: use the command line for that." in read(part)

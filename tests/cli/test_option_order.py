"""Shared options stand before or after the command's name."""

from __future__ import annotations

import pytest

from tcb_ops.cli.options import command_first

OPTIONS = {"--json": False, "--config": True}


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["show", "--json"], ["show", "--json"]),
        (["--json", "show", "x"], ["show", "--json", "x"]),
        (["--config", "a.toml", "--json", "show"], ["show", "--config", "a.toml", "--json"]),
        (["--config=a.toml", "show"], ["show", "--config=a.toml"]),
        (["--config", "show"], ["--config", "show"]),
        (["--config", "a.toml", "--help"], ["--help"]),
        (["--nope", "show"], ["--nope", "show"]),
        (["--json"], ["--json"]),
        ([], []),
    ],
)
def test_shared_options_go_behind_the_command(typed, read):
    assert command_first(typed, OPTIONS) == read


def test_a_command_takes_them_on_either_side(open_desk):
    desk = open_desk(rows=[("tea-1a2b3c", "a.png")])
    assert desk.upload().code == 0
    before = desk("--json", "--config", "tcb-ops.toml", "show")
    assert before.code == 0, before.err
    assert before.json == desk("show", "--json", "--config", "tcb-ops.toml").json
    assert desk("--merchants", "nowhere.csv", "merchants", "check").code == 2
    assert desk("--help").out == desk("--lang", "en", "--help").out

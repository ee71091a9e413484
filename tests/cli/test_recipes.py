"""The schedules in the how-to work in an empty environment, without a terminal, from another folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from workspace import BOOKS

from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "en" / "howto" / "nightly.md"
COMMAND = re.compile(r"/srv/tcb/\.venv/bin/tcb-ops audit [^\n\"]*")


def recipes() -> dict[str, str]:
    """The command of each schedule, by the words above its block."""
    found = {}
    for block in re.finditer(
        r"\n(\w[^\n]*):\n\n<!-- not run[^\n]*\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    ):
        if command := COMMAND.search(block[2]):
            found[block[1].split(",")[0].split(" (")[0]] = command[0]
    return found


def test_every_schedule_has_a_command():
    assert set(recipes()) == {"cron", "systemd", "CI", "Airflow"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cron", "systemd", "CI", "Airflow"])
def test_a_schedule_works_in_an_empty_environment(name: str, open_desk: Callable, tmp_path_factory):
    desk = open_desk([], [Fault(env=BOOKS.env, errcode=85088)])
    url = desk.folder / "wecom.url"
    url.write_text(f"{desk.shop.sim.base}/robot/wecom/accept?key=practice-key", encoding="utf-8")
    with (desk.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[[notify]]\nkind = "wecom"\nurl_file = "wecom.url"\n')
    line = recipes()[name].replace("--confirm-after 10m", "--confirm-after 1s")
    program = f"{sys.executable} -m tcb_ops"
    line = line.replace("/srv/tcb/.venv/bin/tcb-ops", program).replace("/srv/tcb", str(desk.folder))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for code in (1, 0):  # new the first time only
        ended = subprocess.run(
            ["env", "-i", "LANG=C", "PATH=/usr/bin:/bin", "sh", "-c", f"umask 077; {line} --backoff 0.01"],
            cwd=elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
    assert len(list((desk.folder / "reports").glob("*/manifest.json"))) == 2
    assert len(shutil.os.listdir(elsewhere)) == (1 if name == "CI" else 0)
    (message,) = desk.shop.sim.robots.messages
    assert BOOKS.env in message.text

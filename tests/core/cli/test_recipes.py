"""The schedules in the how-to work in an empty environment, without a terminal, from another folder."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from workspace import BOOKS

from tcb_ops.features.simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[3] / "docs" / "en" / "howto" / "nightly.md"
PROGRAM = "/srv/tcb/.venv/bin/tcb-ops"


def recipe(name: str) -> str:
    """Return the block under the words that begin with a schedule's name."""
    found = re.search(
        rf"\n{name}[^\n]*:\n\n<!-- not run[^\n]*\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found is not None, name
    return found[1]


def cron() -> str:
    """Return the command; cron would end it at a percent sign."""
    *times, command = recipe("cron").strip().split(None, 5)
    assert [bool(re.fullmatch(r"[\d*]+", one)) for one in times] == [True] * 5
    assert "%" not in command
    return command


def systemd() -> str:
    """Return the command of the service; neither a shell nor a variable is in it."""
    sections = configparser.ConfigParser(interpolation=None)
    sections.optionxform = str  # type: ignore[assignment,method-assign]
    sections.read_string(recipe("systemd"))
    assert (sections["Service"]["Type"], sections["Install"]["WantedBy"]) == ("oneshot", "timers.target")
    command = sections["Service"]["ExecStart"]
    assert not set(command) & set("%$|&>")
    return command


def workflow() -> str:
    """Return the command of the workflow's only step that runs one."""
    (command,) = re.findall(r"^ +- run: (.+)$", recipe("CI"), re.MULTILINE)
    assert ": " not in command
    assert " #" not in command
    return str(command)


def airflow() -> str:
    """Return the operator's bash_command."""
    (statement,) = ast.parse(recipe("Airflow")).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    return str({one.arg: ast.literal_eval(one.value) for one in statement.value.keywords}["bash_command"])


def windows() -> str:
    """Return the task's command as it would be on this machine. A task takes up to 261 characters."""
    task = re.fullmatch(
        r'schtasks /Create (?:/\w+ \S+ )+/TR "([^"]+)"', recipe("Windows Task Scheduler").strip()
    )
    assert task is not None
    assert len(task[1]) <= 261
    return task[1].replace(r"C:\tcb\.venv\Scripts\tcb-ops.exe", PROGRAM).replace("C:\\tcb\\", "/srv/tcb/")


RECIPES = {"cron": cron, "systemd": systemd, "CI": workflow, "Airflow": airflow, "Windows": windows}


@pytest.mark.parametrize("name", RECIPES)
def test_a_schedule_names_program_and_settings_by_absolute_path(name: str):
    command = RECIPES[name]()
    assert command.startswith(f"{PROGRAM} audit --config /srv/tcb/tcb-ops.toml ")
    assert "\\" not in command


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_schedule_works_in_an_empty_environment(name: str, open_cli: Callable, tmp_path_factory):
    cli = open_cli([], [Fault(env=BOOKS.env, errcode=85088)])
    url = cli.folder / "wecom.url"
    url.write_text(f"{cli.workspace.sim.base}/robot/wecom/accept?key=practice-key", encoding="utf-8")
    with (cli.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[[notify]]\nkind = "wecom"\nurl_file = "wecom.url"\n')
    line = RECIPES[name]().replace("--confirm-after 10m", "--confirm-after 1s")
    program = f"{sys.executable} -m tcb_ops"
    line = line.replace(PROGRAM, program).replace("/srv/tcb", str(cli.folder))
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
    assert len(list((cli.folder / "reports").glob("*/manifest.json"))) == 2
    assert len(shutil.os.listdir(elsewhere)) == (1 if name == "CI" else 0)
    (message,) = cli.workspace.sim.robots.messages
    assert BOOKS.env in message.text

"""What programs and schedulers read in the documentation: keys of --json and of a webhook's message, and the schedules."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep, SimulatedAccount
from tcb_ops.model import Merchant

DOCS = Path(__file__).parents[3] / "docs"
QUICK = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "10", "--json")
NEW, STILL, RECOVERED, UNKNOWN, SILENCED = (
    Merchant(f"wx{name}", name, f"{name}-1a2b3c")
    for name in ("new", "still", "recovered", "unknown", "silenced")
)
ALWAYS = [
    Fault(env=TEA.env, path="banner/0.png", step=FaultStep.STORE, code="PaymentRequired", status=402),
    Fault(env=STILL.env, errcode=85088),
    Fault(env=SILENCED.env, errcode=85088),
]
FIRST_NIGHT = [*ALWAYS, Fault(env=RECOVERED.env, errcode=85088)]
SECOND_NIGHT = [*ALWAYS, Fault(env=NEW.env, errcode=61003), Fault(env=UNKNOWN.env, errcode=-1)]
LIMITED = SimulatedAccount(TEA.appid, daily_limit=30)
COUNTED = {"counts", "not_checked"}
"""Their keys are data: outcomes, checks."""


@pytest.fixture
def cli(open_cli):
    """A workspace in which an audit on the second night finds something of every kind."""
    opened = open_cli(
        [*many(TEA, rows=40), *many(STILL, rows=1)],
        FIRST_NIGHT,
        merchants=[TEA, NEW, STILL, RECOVERED, UNKNOWN, SILENCED],
    )
    (opened.folder / "known.csv").write_text(
        f"env,cause,until,note\n{SILENCED.env},85088,2999-12-31,x\n{TEA.env},85088,2020-01-01,x\n",
        encoding="utf-8",
    )
    (opened.folder / "hook.url").write_text(
        f"{opened.workspace.sim.base}/robot/webhook/accept", encoding="utf-8"
    )
    with (opened.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[[notify]]\nkind = "webhook"\nurl_file = "hook.url"\n' * 2)
    return opened


def keys(value):
    """All keys of an object and of those inside it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in COUNTED:
                yield from keys(inner)
    elif isinstance(value, list):
        for one in value:
            yield from keys(one)


def paths(value, above=""):
    """Where each key of an object is; the items of a list have one path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{above}/{key}"
            yield from paths(inner, f"{above}/{key}")
    elif isinstance(value, list):
        for one in value:
            yield from paths(one, above)


@pytest.mark.integration
def test_every_key_of_json_is_documented(cli):
    overwritten = cli("upload", "list.csv", "--root", "files", *QUICK).json["run"]
    found = [cli("upload", "list.csv", "--root", "files", *QUICK).json]
    found.append(cli("confirm", "--json").json)
    for faults, accounts in ((FIRST_NIGHT, []), (SECOND_NIGHT, [LIMITED])):
        cli.workspace.sim.play(faults, accounts)
        found.append(cli("audit", *QUICK).json)
    found += [cli("show", run, "--json").json for run in (overwritten, found[0]["run"])]
    found.append(cli("errcodes", "--json").json)
    unconfirmed = Fault(env=TEA.env, step=FaultStep.STORE, etag=Etag.OPAQUE)
    cli.workspace.sim.play([unconfirmed, Fault(env=STILL.env, errcode=85088)])
    cli("upload", "list.csv", "--root", "files", "--new-run", *QUICK)
    cli("retry", *QUICK)
    found.append(cli("show", "--json").json)
    found.append(cli("upload", "list.csv", "--root", "nowhere", "--json").json)
    printed = {key for one in found for key in keys(one)}
    assert {"store_codes", "fewest_link_calls", "confirmed", "until", "receiver"} <= printed
    for lang in ("en", "zh"):
        text = (DOCS / lang / "reference" / "files.md").read_text(encoding="utf-8")
        (section,) = re.findall(r"^## --json\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
        section = re.sub(r"```.+?```", "", section, flags=re.DOTALL)
        assert printed <= set(re.findall(r"`([^`]+)`", section))
        first = "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
        assert set(re.findall(r"`([^`]+)`", first)) <= printed


@pytest.mark.integration
def test_a_webhook_gets_the_object_that_is_documented(cli):
    cli("upload", "list.csv", "--root", "files", *QUICK)
    for faults, accounts in ((FIRST_NIGHT, []), (SECOND_NIGHT, [LIMITED])):
        cli.workspace.sim.play(faults, accounts)
        assert [one["sent"] for one in cli("audit", *QUICK).json["notifications"]] == [True, True]
    sent = json.loads(cli.workspace.sim.robots.messages[-1].text)
    for name in (
        "new",
        "still",
        "unknown",
        "silenced",
        "recovered",
        "fewest_link_calls",
        "not_checked",
    ):
        assert sent[name], name
    assert cli("notify", "--test").code == 0
    trial = json.loads(cli.workspace.sim.robots.messages[-1].text)
    for lang in ("en", "zh"):
        text = (DOCS / lang / "howto" / "notify.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```json\n(.*?)^```\n(.*?)^#", text, re.MULTILINE | re.DOTALL)
        documented = json.loads(example[0])
        assert list(documented) == list(sent)
        assert sorted(set(paths(documented))) == sorted(set(paths(sent)))
        assert set(re.findall(r"`([^`]+)`", example[1])) == set(trial)


PAGE = Path(__file__).parents[3] / "docs" / "en" / "howto" / "nightly.md"
PROGRAM = "/srv/tcb/.venv/bin/tcb-ops"


def recipe(name):
    """Return the block under the words that begin with a schedule's name."""
    found = re.search(
        rf"\n{name}[^\n]*:\n\n<!-- not run[^\n]*\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found is not None, name
    return found[1]


def cron():
    """Return the command; cron would end it at a percent sign."""
    *times, command = recipe("cron").strip().split(None, 5)
    assert [bool(re.fullmatch(r"[\d*]+", one)) for one in times] == [True] * 5
    assert "%" not in command
    return command


def systemd():
    """Return the command of the service; neither a shell nor a variable is in it."""
    sections = configparser.ConfigParser(interpolation=None)
    sections.optionxform = str
    sections.read_string(recipe("systemd"))
    assert (sections["Service"]["Type"], sections["Install"]["WantedBy"]) == ("oneshot", "timers.target")
    command = sections["Service"]["ExecStart"]
    assert not set(command) & set("%$|&>")
    return command


def workflow():
    """Return the command of the workflow's only step that runs one."""
    (command,) = re.findall(r"^ +- run: (.+)$", recipe("CI"), re.MULTILINE)
    assert ": " not in command
    assert " #" not in command
    return str(command)


def airflow():
    """Return the operator's bash_command."""
    (statement,) = ast.parse(recipe("Airflow")).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    return str({one.arg: ast.literal_eval(one.value) for one in statement.value.keywords}["bash_command"])


def windows():
    """Return the task's command as it would be on this machine. A task takes up to 261 characters."""
    task = re.fullmatch(
        r'schtasks /Create (?:/\w+ \S+ )+/TR "([^"]+)"', recipe("Windows Task Scheduler").strip()
    )
    assert len(task[1]) <= 261
    return task[1].replace(r"C:\tcb\.venv\Scripts\tcb-ops.exe", PROGRAM).replace("C:\\tcb\\", "/srv/tcb/")


RECIPES = {"cron": cron, "systemd": systemd, "CI": workflow, "Airflow": airflow, "Windows": windows}


@pytest.mark.parametrize("name", RECIPES)
def test_a_schedule_names_program_and_settings_by_absolute_path(name):
    command = RECIPES[name]()
    assert command.startswith(f"{PROGRAM} audit --config /srv/tcb/tcb-ops.toml ")
    assert "\\" not in command


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cron",
        "CI",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("systemd", "Airflow", "Windows")),
    ],
)
def test_a_schedule_works_in_an_empty_environment(name, open_cli, tmp_path_factory):
    cli = open_cli([], [Fault(env=BOOKS.env, errcode=85088)])
    url = cli.folder / "wecom.url"
    url.write_text(f"{cli.workspace.sim.base}/robot/wecom/accept?key=practice-key", encoding="utf-8")
    with (cli.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[[notify]]\nkind = "wecom"\nurl_file = "wecom.url"\n')
    line = RECIPES[name]()
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

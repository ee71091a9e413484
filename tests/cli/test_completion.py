"""What a shell suggests, asked as the shells' scripts ask: by click's variables, through the installed command."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path

import click
import pytest
from workspace import BOOKS, TEA

from tcb_ops.cli import completion
from tcb_ops.cli.main import cli
from tcb_ops.features.notebooks.parameters import notebook_names
from tcb_ops.features.simulator import Fault

COMMAND = str(Path(sys.executable).with_name("tcb-ops"))
MERCHANTS = 'appid,name,env,region\nwx01,茶语小铺,tea-1,east\nwx02,"Tea & $(touch x)",tea-2,east\nwx03,城南书店,books-3,west\n'
FREE = {  # texts that nothing can suggest
    *(
        "THERE=HERE",
        "NAME=HEADER",
        "NAME",
        "NAME=VALUE",
        "local:N|URL",
        "HOST",
        "TEXT",
        "URL",
        "COLUMN",
        "TEMPLATE",
        "GLOB",
        "path",
        "DAYS",
    ),
    "arguments",
}


@pytest.fixture
def ask(open_cli):
    """Ask what completes a line: the words before the last are complete. Gives values, for zsh with their help."""
    cli = open_cli(rows=[("tea-1a2b3c", "a.png")])
    (cli.folder / "many.csv").write_text(MERCHANTS, encoding="utf-8")
    return asking(cli)


def asking(cli):
    """Return the function that asks for completions."""

    def asked(*words: str, by: str = "bash") -> list[str]:
        env = {
            completion.VARIABLE: f"{by}_complete",
            "COMP_WORDS": "\n".join(["tcb-ops", *words]),
            "COMP_CWORD": str(len(words)),
        }
        before = snapshot(cli.folder)
        with cli.spawn([COMMAND], env=env) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert snapshot(cli.folder) == before
        lines = list(filter(None, out.splitlines()))
        return lines if by == "zsh" else [line.removeprefix("plain,") for line in lines]

    asked.cli = cli
    return asked


def snapshot(folder: Path) -> dict[str, bytes]:
    """What must not change: every file but the shared memory of a ledger in use, where SQLite notes its readers."""
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.endswith("-shm")]
    return {file.name: file.read_bytes() for file in files}


def test_every_value_is_completed_or_free():
    open_values = set()
    pending = [cli]
    while pending:
        command = pending.pop()
        pending += command.commands.values() if isinstance(command, click.Group) else ()
        for param in command.params:
            key = param.name if isinstance(param, click.Argument) else param.metavar or param.name
            if param.type in {click.STRING, click.UNPROCESSED} and key not in completion._SUGGESTIONS:
                open_values.add(key)
    assert open_values <= FREE


@pytest.mark.slow
def test_commands_options_choices_and_files(ask):
    assert {"upload", "completion"} <= set(ask(""))
    assert {"-h", "--help"} <= set(ask("-")) & set(ask("show", "-")) & set(ask("merchants", "-"))
    assert ask("--lang", "en", "--led") == ["--ledger"]
    assert ask("--ledger", "x.db", "upl") == ["upload"]
    assert ask("--ledger", "x") == ask("merchants", "--ledger", "x") == ["file,x"]
    assert ask("confirm", "many.") == ["file,many."]  # the shell completes a list; runs are suggested, too
    assert ask("upload", "--lang", "") == ["zh", "en"]
    assert ask("--lang", "=", "z") == ["zh"]
    assert ask("upload", "") == ["file,"]
    assert "file," not in ask("show", "--path", "")
    assert ask("upload", "--root", "fi") == ["dir,fi"]
    assert ask("notebook", "") == notebook_names()
    assert ask("notebook", "03") == notebook_names()[2:3]


@pytest.mark.slow
def test_runs_of_the_ledger_at_hand(ask):
    assert ask("show", "") == ["latest"]
    runs = [ask.cli.upload("--json", "--new-run").json["run"] for _ in range(2)]
    assert ask("show", "") == ["latest", *reversed(runs)]
    assert ask("retry", "--resume", "") == []
    found = ask("diff", runs[0][:6], by="zsh")
    assert found[:2] == ["plain", runs[1]]
    assert found[2].startswith("upload 20")
    assert found[2].endswith(" list.csv")
    assert ask("--ledger", "other.db", "show", "") == ["latest"]
    assert ask("show", "--ledger", "ledger.db", runs[0]) == runs[:1]
    (ask.cli.folder / "old.db").write_bytes(b"no ledger")
    assert ask("show", "--ledger", "old.db", "") == ["latest"]


@pytest.mark.slow
def test_a_pipe_is_not_waited_for(ask):
    os.mkfifo(ask.cli.folder / "pipe")
    assert ask("--ledger", "pipe", "show", "") == ["latest"]
    assert ask("--ledger", "pipe", "retry", "--resume", "") == []
    assert ask("--merchants", "pipe", "list", "--to", "") == ["all", "all-envs"]
    assert ask("--merchants", "pipe", "list", "--where", "") == []
    assert ask("--config", "pipe", "show", "") == []


@pytest.mark.slow
def test_merchants_of_the_file_at_hand(ask):
    many = ("--merchants", "many.csv", "list")
    assert ask(*many, "--to", "a") == ["all", "all-envs"]
    assert ask(*many, "--to", "茶") == ["茶语小铺"]
    assert ask(*many, "--to", "wx03", "--to", "books") == ["books-3"]
    assert ask(*many, "--where", "r") == ["region=east", "region=west"]
    assert ask(*many, "--where", "name", "=", "茶") == ["茶语小铺"]
    assert ask(*many, "--where", "name=茶", by="zsh") == ["plain", "name=茶语小铺", "_"]
    assert ask("--merchants", "nowhere.csv", "show", "--merchant", "") == []
    (ask.cli.folder / "many.csv").write_text("no,merchants\n", encoding="utf-8")
    assert ask(*many, "--to", "wx") == []
    (ask.cli.folder / "tcb-ops.toml").write_text("broken", encoding="utf-8")
    assert ask("list", "--to", "wx") == []


@pytest.mark.slow
def test_codes(ask):
    assert "85088" in ask("explain", "850")
    assert all(code.startswith("-4") for code in ask("retry", "--errcode", "-4"))
    assert ask("explain", "SlowD") == ["SlowDown"]


@pytest.mark.slow
def test_the_codes_of_the_run_that_the_line_names(open_cli):
    rows = [(TEA.env, "a.png"), (TEA.env, "b.png"), (BOOKS.env, "c.png")]
    cli = open_cli(rows, [Fault(path="[ab].png", errcode=40097), Fault(path="c.png", errcode=12345)])
    ask = asking(cli)
    run = cli.upload("--json").json["run"]
    cli.upload("--json", "--limit", "2")
    assert ask("retry", run, "--errcode", "") == ["40097", "12345"]
    assert ask("retry", "latest", "--errcode", "") == ["40097"]
    assert ask("retry", "--errcode", "") == ["40097"]
    assert "85088" in ask("retry", "nope", "--errcode", "")
    assert "85088" in ask("explain", "8")


@pytest.mark.slow
def test_runs_beside_files(ask):
    run = ask.cli.upload("--json").json["run"]
    (ask.cli.folder / f"{run[:4]}.csv").touch()
    for command in ("confirm", "delete", "links"):
        # The item for files comes first: bash forgets what is before it.
        assert ask(command, run[:9]) == [f"file,{run[:9]}", run]
        assert ask(command, "") == ["file,", "latest", run]
        assert ask(command, "la") == ["file,la", "latest"]
        assert ask(command, run[:4]) == [f"file,{run[:4]}", run, f"{run[:4]}.csv"]
    assert ask("upload", run[:4]) == [f"file,{run[:4]}"]


def test_a_line_that_cannot_be_read_gives_nothing(ask):
    assert ask("no-such-command", "x", "--nope", "--n") == ["--note"]
    with ask.cli.spawn([COMMAND], env={completion.VARIABLE: "bash_complete"}) as process:
        assert process.communicate(timeout=60) == ("", "")


def test_it_is_quick(ask):
    code = (
        "import os, sys, resource\nfrom tcb_ops.cli.main import run\nrun([])\n"
        "print(*({'pandas', 'sqlalchemy', 'httpx', 'aiohttp'} & set(sys.modules)))\n"
    )
    env = {completion.VARIABLE: "bash_complete", "COMP_WORDS": "tcb-ops list --to tea", "COMP_CWORD": "3"}
    with ask.cli.spawn([sys.executable, "-c", code], env=env) as process:
        out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.splitlines() == [*(f"plain,{env}" for env in ("tea-1a2b3c", "tea-test-9f")), ""]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_bash_that_has_read_the_script(ask):
    run = ask.cli.upload("--json").json["run"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ask.cli.folder)
        env |= {"PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], env)  # noqa: S606  a terminal of its own

    def read_until(sign: str) -> str:
        got, end = b"", time.monotonic() + 60
        while sign.encode() not in got and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                got += os.read(terminal, 4096)
        assert sign.encode() in got, got
        return got.decode(errors="replace")

    try:
        os.write(terminal, b"source <(tcb-ops completion bash); echo RE''ADY\n")
        read_until("READY")
        os.write(terminal, "tcb-ops --merchants many.csv list --where name=茶\t".encode())
        read_until("name=茶语小铺 ")
        os.write(terminal, b"--to Te\t")
        read_until(r"Tea\ \&\ \$\(touch\ x\) ")
        os.write(terminal, f"\x15tcb-ops --ledger ledger.db delete {run[:-2]}\t".encode())
        read_until(f"{run} ")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)

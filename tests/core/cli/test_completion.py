"""What a shell is told while a line is typed: commands, options, choices, files and runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import TEA

from tcb_ops.cli.setup import VARIABLE

COMMAND = str(Path(sys.executable).with_name("tcb-ops"))


@pytest.fixture
def ask(open_cli):
    """Ask what completes a line: the words before the last are complete."""
    cli = open_cli([(TEA.env, "a.png")])

    def asked(*words):
        env = {
            VARIABLE: "bash_complete",
            "COMP_WORDS": "\n".join(["tcb-ops", *words]),
            "COMP_CWORD": str(len(words)),
        }
        with cli.spawn([COMMAND], env=env) as process:
            out, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, "")
        return [line.removeprefix("plain,") for line in out.splitlines()]

    asked.cli = cli
    return asked


@pytest.mark.integration
def test_commands_options_choices_and_files(ask):
    assert {"upload", "completion"} <= set(ask(""))
    assert ask("--ledger", "x.db", "upl") == ["upload"]
    assert ask("show", "--ledg") == ["--ledger"]
    assert ask("explain", "--ledg") == [""]
    assert ask("upload", "--lang", "") == ["zh", "en"]
    for words in (("upload",), ("upload", "--root"), ("list", "--merchants"), ("verify",)):
        assert ask(*words, "x") == ["file,x"]


@pytest.mark.integration
def test_runs_of_the_ledger_at_hand(ask):
    assert ask("show", "") == ["latest"]
    runs = [ask.cli.upload("--json", "--new-run").json["run"] for _ in range(2)]
    assert ask("show", "") == ["latest", *reversed(runs)]
    assert ask("diff", runs[0], runs[1][:9]) == list(reversed(runs))
    assert ask("retry", "--resume", runs[0]) == runs[:1]
    assert ask("confirm", "list.") == ["file,list."]
    assert ask("--ledger", "other.db", "show", "") == ["latest"]
    (ask.cli.folder / "old.db").write_bytes(b"no ledger")
    os.mkfifo(ask.cli.folder / "pipe")
    for ledger in ("old.db", "pipe"):
        assert ask("show", "--ledger", ledger, "") == ["latest"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_reads_the_script():
    script = subprocess.run(
        [COMMAND, "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    line = 'eval "$(cat)"; COMP_WORDS=(tcb-ops upl); COMP_CWORD=1; _tcb_ops_completion tcb-ops; echo "${COMPREPLY[@]}"'
    env = os.environ | {"PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", line], input=script, capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == "upload"

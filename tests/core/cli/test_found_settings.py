"""A settings file in the working folder that others may have written is refused: it runs programs and says where tokens go."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click
import pytest
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.cli.main import cli as program
from tcb_ops.errors import SettingsError
from tcb_ops.settings_files import Trust, trust

UID, OTHER, ROOT = 1000, 1001, 0
pytestmark = pytest.mark.skipif(os.name == "nt", reason="owners and modes of files are POSIX's")


def entry(owner, mode):
    return os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("owner", "mode", "folder", "result"),
    [
        (UID, 0o100644, 0o755, Trust.OWN),
        (ROOT, 0o100644, 0o755, Trust.OWN),
        (UID, 0o100644, 0o1777, Trust.OWN),
        (UID, 0o100664, 0o755, Trust.GROUP),
        (UID, 0o100644, 0o775, Trust.GROUP),
        (UID, 0o100644, 0o1775, Trust.OWN),
        (OTHER, 0o100644, 0o755, Trust.STRANGER),
        (OTHER, 0o100644, 0o1777, Trust.STRANGER),
        (UID, 0o100646, 0o755, Trust.EVERYBODY),
        (UID, 0o100644, 0o777, Trust.EVERYBODY),
    ],
)
def test_who_may_have_written_a_file(owner, mode, folder, result):
    assert trust(UID, entry(owner, mode), entry(OTHER, folder)) is result


def test_root_trusts_its_own_files_only():
    assert trust(ROOT, entry(OTHER, 0o100600), entry(ROOT, 0o755)) is Trust.STRANGER


def commands(group, *before):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name)


WORDS = {
    "upload": ("list.csv", "--root", "files", "--yes"),
    "links": ("list.csv",),
    "check": ("list.csv",),
    "confirm": ("list.csv",),
    "delete": ("list.csv", "--foreign", "--yes"),
    "sync": ("files", "--to", "all", "--yes"),
    "retry": ("latest",),
    "notebook": ("03_errcode_audit.ipynb", "-p", "target=live"),
    "notify": ("--test",),
}


@pytest.mark.integration
def test_no_command_runs_a_program_or_sends_a_token_of_a_stranger(open_cli):
    cli = open_cli(many(TEA, rows=2))
    ran = cli.folder / "ran"
    own = [sys.executable, "-c", f"open({str(ran)!r}, 'w')"]
    (cli.folder / "tcb-ops.toml").write_text(
        f"""
api_base = "{cli.workspace.sim.base}"
[tokens]
source = "command"
command = {own}
secret = "command:touch {ran}"
[[notify]]
kind = "command"
command = {own}
on = "always"
""",
        encoding="utf-8",
    )
    (cli.folder / "tcb-ops.toml").chmod(0o646)
    sent = Counter(cli.workspace.sim.stats)
    names = list(commands(program))
    assert ("upload",) in names
    # These wait for a browser, a client or a terminal, or read no settings.
    for name in [name for name in names if name[-1] not in {"lab", "simulate", "completion", "demo", "init"}]:
        done = cli(*name, *WORDS.get(name[-1], ()))
        assert not ran.exists(), name
        assert done.code or name == ("explain",), name
    assert Counter(cli.workspace.sim.stats) == sent
    done = cli("audit")
    assert "can be changed by every user" in done.err
    assert f"--config {cli.folder / 'tcb-ops.toml'}" in done.err
    cli("audit", "--config", "tcb-ops.toml")
    assert ran.exists(), "what is named is believed"


@pytest.mark.needs("health")
def test_python_refuses_it_and_the_first_line_names_what_was_found(open_cli, monkeypatch):
    cli = open_cli(many(TEA, rows=2))
    file = cli.folder / "tcb-ops.toml"
    words = ("merchants", "check")
    assert cli(*words).err.startswith(f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml\n")
    file.chmod(0o664)
    assert ", which a group can change" in cli(*words).err.splitlines()[0]
    assert cli(*words, "--config", str(file)).err.startswith(f"SIMULATED {cli.workspace.sim.base}\n")
    file.chmod(0o646)
    with pytest.raises(SettingsError, match="every user"):
        tcb.audit("merchants.csv")
    monkeypatch.setenv("TCB_OPS_CONFIG", str(file))
    assert tcb.load_settings().origin.file == file


@pytest.mark.posix("links")
def test_a_link_is_not_followed_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text('lang = "zh"', encoding="utf-8")
    link = Path("tcb-ops.toml")
    link.symlink_to("own.toml")
    with pytest.raises(SettingsError, match="is a link") as caught:
        tcb.load_settings()
    assert f"--config {tmp_path / link}" in caught.value.text.en
    assert tcb.load_settings(link).lang == "zh"


TOGGLE = """
import os
os.setuid(65534)
print(flush=True)
while True:
    os.rename("evil.toml", "tcb-ops.toml")
    os.rename("tcb-ops.toml", "evil.toml")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_comes_and_goes_is_never_believed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o1777)
    evil = tmp_path / "evil.toml"
    evil.write_text('api_base = "http://127.0.0.1:9"', encoding="utf-8")
    os.chown(evil, 65534, 65534)
    with subprocess.Popen([sys.executable, "-c", TOGGLE], stdout=subprocess.PIPE) as stranger:
        stranger.stdout.readline()
        refused = 0
        try:
            for _ in range(3000):
                with suppress(SettingsError):
                    assert tcb.load_settings().origin.file is None
                    continue
                refused += 1
        finally:
            stranger.kill()
    assert refused


def test_a_pipe_and_a_folder_are_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("tcb-ops.toml")
    os.mkfifo(file)
    with pytest.raises(SettingsError, match="is not a regular file"):
        tcb.load_settings()
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match="it is a folder"):
        tcb.load_settings()

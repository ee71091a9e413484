"""A test workspace for the merchants commands: a simulator with a component, merchants, a token file, settings."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from rigged_simulator import Simulator
from workspace import write_csv, write_settings

from tcb_ops.cli.main import run as run_command
from tcb_ops.features.simulator.faults import Component, Faults
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path


COMPONENT = Component("wxcomponent", secret="practice-secret", ticket="practice-ticket")
TEA, TEA_TEST, BOOKS = (
    Merchant("wxtea", "茶语小铺", "tea-1"),
    Merchant("wxtea", "茶语小铺", "tea-2"),
    Merchant("wxbooks", "城南书店", "books-1"),
)
SECRETS = ("practice-secret", "practice-ticket", "practice-refresh-token", "token-of-")


@dataclass(frozen=True)
class TokenServer:
    """A platform with component and authorizer tokens on loopback, and the files and settings that lead to it."""

    folder: Path
    sim: Simulator
    settings: Settings

    @property
    def file(self):
        return self.folder / "merchants.csv"

    def with_options(self, **tokens):
        """Return the settings with other options for tokens."""
        return replace(self.settings, tokens=replace(self.settings.tokens, **tokens))

    def keep_tokens(self, *appids):
        """Replace the token file by one with tokens for just these appids."""
        write_csv(
            self.folder / "tokens.csv",
            ("appid", "access_token"),
            ((one, f"token-of-{one}") for one in appids),
        )
        (self.folder / "tokens.csv").chmod(0o600)

    def list_merchants(self, *merchants):
        """Write the merchants file."""
        lines = ((one.appid, one.name, one.env, one.owner) for one in merchants)
        write_csv(self.file, ("appid", "name", "env", "owner"), lines)

    def lines(self):
        """Return the lines of the merchants file."""
        with self.file.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def open_token_server(tmp_path, monkeypatch):
    """The function `open_token_server(merchants, faults, …)`; other options go to the simulator."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def opened(merchants, faults=(), **options):
            known = list(merchants)
            appids = dict.fromkeys([*(one.appid for one in known), COMPONENT.appid])
            tokens = {appid: f"token-of-{appid}" for appid in appids}
            given = {"component": COMPONENT} | options
            sim = stack.enter_context(Simulator(known, tokens, faults=Faults(tuple(faults)), **given))
            component = f'component_appid = "{COMPONENT.appid}"'
            file = write_settings(tmp_path, sim.base, component, lang="en")
            token_server = TokenServer(tmp_path, sim, load_settings(file))
            token_server.keep_tokens(*appids)
            return token_server

        yield opened


@pytest.fixture
def type_command(capsys):
    """Run a command in this process: exit code, stdout, stderr; neither shows a trace or a secret."""

    def typed(*words):
        capsys.readouterr()
        code = run_command(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, err
        assert "Internal error" not in out + err, err
        assert not [secret for secret in SECRETS if secret in out + err]
        return code, out, err

    return typed

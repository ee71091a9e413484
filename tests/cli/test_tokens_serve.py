"""`tokens serve`: other machines get the tokens that one machine refreshes, through the source `service`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from workspace import BOOKS, TEA, WaitFor, many

from tcb_ops.model import Secret
from tcb_ops.simulator import Component, Fault, FaultStep
from tcb_ops.wechat.tokens import Token
from tcb_ops.wechat.tokens.server import _end
from tcb_ops.wechat.tokens.service import ServiceTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.conftest import CommandLine

PLATFORM = Component("wxplatform", "PrAcTiCe-app-secret", "PrAcTiCe-ticket")
KEY = "PrAcTiCe-serve-key-0123456789"
SLOW = Fault(step=FaultStep.AUTHORIZER_TOKEN, delay=1.0)


@pytest.fixture
def open_platform(open_cli: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandLine]:
    """A machine that may refresh (serve.toml), and one that asks it (tcb-ops.toml, by `ask`)."""

    def opened(*faults: Fault) -> CommandLine:
        cli: CommandLine = open_cli(many(TEA, BOOKS, rows=5), faults, component=PLATFORM, tokens={})
        (cli.folder / "ticket.txt").write_text(PLATFORM.ticket)
        (cli.folder / "serve.key").write_text(f"{KEY}\n")
        (cli.folder / "serve.key").chmod(0o600)
        monkeypatch.setenv("PRACTICE_SECRET", PLATFORM.secret)
        monkeypatch.setenv("TOKEN_SERVER_KEY", f"Bearer {KEY}")
        configure(cli, 'serve_key = "file:serve.key"')
        return cli

    return opened


def configure(cli: CommandLine, *more: str) -> None:
    lines = (
        f'target = "{cli.workspace.sim.base}"',
        'lang = "en"',
        "[tokens]",
        'source = "component"',
        "sole_owner = true",
        'component_appid = "wxplatform"',
        'secret = "env:PRACTICE_SECRET"',
        'ticket = "file:ticket.txt"',
        *more,
    )
    (cli.folder / "serve.toml").write_text("\n".join(lines), encoding="utf-8")


def serve_by_program(cli: CommandLine, program: str) -> None:
    """Let a Python program be the source of the machine that serves."""
    command = f"command = [{json.dumps(sys.executable)}, '-c', {json.dumps(program)}]"
    (cli.folder / "serve.toml").write_text(
        f"[tokens]\nsource = 'command'\n{command}\nserve_key = 'file:serve.key'", encoding="utf-8"
    )


def ask(cli: CommandLine, url: str) -> None:
    """Let the other machine's settings name the token server."""
    file = cli.folder / "tcb-ops.toml"
    head = file.read_text(encoding="utf-8").split("[tokens]")[0]
    service = ("[tokens]", 'source = "service"', f'url = "{url}"', 'auth_env = "TOKEN_SERVER_KEY"')
    file.write_text("\n".join([head, *service]), encoding="utf-8")


@contextmanager
def serving(cli: CommandLine, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command until it listens; the block gets the URL that it prints, and its process."""
    argv = ("tokens", "serve", "--config", "serve.toml", "--port", "0", *words)
    with cli.process(*argv) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.endswith("/{appid}"), process.communicate()
        yield url, process


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """End the command; return what it printed on stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return err


def kept_secrets(cli: CommandLine) -> list[str]:
    """Every secret of the platform and of the server, tokens included."""
    stored = (file.read_text() for file in (cli.folder / "tcb-ops.tokens").glob("wx*.json"))
    tokens = [token for text in stored for token in re.findall(r'_token": "(.+?)"', text)]
    assert tokens
    return [*tokens, KEY, PLATFORM.secret, PLATFORM.ticket]


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A private authority's certificate; a certificate of it for 127.0.0.1; its key."""
    folder = tmp_path_factory.mktemp("tls")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "cert.key"
    issue = f"{new} -subj /CN=ops-1 -addext subjectAltName=IP:127.0.0.1 -CA {ca} -CAkey {folder / 'ca.key'}"
    for words in (
        f"{new} -subj /CN=authority -keyout {folder / 'ca.key'} -out {ca}",
        f"{issue} -addext basicConstraints=critical,CA:FALSE -keyout {key} -out {cert}",
    ):
        subprocess.run(words.split(), check=True, capture_output=True)
    key.chmod(0o600)
    return str(ca), str(cert), str(key)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["loopback", "TLS"])
def test_another_machine_uploads_with_the_served_tokens(
    open_platform: Callable[..., CommandLine],
    certificate: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    tls: bool,
) -> None:
    cli = open_platform()
    ca, cert, key = certificate
    words = ("--cert", cert, "--key", key) if tls else ()
    with serving(cli, "--verbose", *words) as (url, process):
        assert url.startswith("https://127.0.0.1:" if tls else "http://127.0.0.1:")
        ask(cli, url)
        if tls:
            untrusted = cli.upload("--patience", "0")
            assert untrusted.code == 3, "the certificate is checked"
            monkeypatch.setenv("SSL_CERT_FILE", ca)
        result = cli.upload("--verbose", "--json")
        err = interrupt(process, signal.SIGTERM)
    assert result.json["counts"] == {"uploaded": 10}
    assert cli.workspace.sim.stats["authorizer_token"] == 2, "one for each merchant"
    lines = [line for line in err.splitlines() if re.match(r"\d{4}-", line)]
    assert sorted(line.split()[2:] for line in lines) == [["wxbooks", "200"], ["wxtea", "200"]]
    secrets = kept_secrets(cli)
    assert [one for one in secrets for text in (err, result.out, result.err) if one in text] == []


@pytest.mark.slow
def test_a_refused_token_is_refreshed_once_whoever_asks(open_platform: Callable[..., CommandLine]) -> None:
    cli = open_platform(Fault(step=FaultStep.AUTHORIZER_TOKEN, delay=0.3))
    sim = cli.workspace.sim
    with serving(cli) as (url, _process):
        ask(cli, url)
        assert cli.upload().code == 0
        sim.expire("wxtea")
        assert cli.upload("--new-run").code == 0
        assert sim.stats["authorizer_token:wxtea"] == 2

        async def together() -> tuple[Token, list[Token]]:
            machines = [ServiceTokens(url, {"Authorization": Secret(f"Bearer {KEY}")}) for _ in range(20)]
            old = await machines[0].token("wxtea")
            new = await asyncio.gather(*(one.token("wxtea", old.value) for one in machines))
            new += [await machines[0].token("wxtea", old.value)]  # a late one: it has been replaced already
            for one in machines:
                await one.aclose()
            return old, new

        old, new = asyncio.run(together())
    assert len({token.value for token in new}) == 1
    assert new[0].value != old.value
    assert sim.stats["authorizer_token:wxtea"] == 3


@pytest.mark.slow
def test_requests_at_the_same_time_share_one_look_at_any_source(
    open_platform: Callable[..., CommandLine],
) -> None:
    cli = open_platform()
    program = "import time; open('runs', 'a').write('x'); time.sleep(0.5); print('{\"access_token\": \"t\"}')"
    serve_by_program(cli, program)

    async def together(url: str) -> set[str]:
        machines = [ServiceTokens(url, {"Authorization": Secret(f"Bearer {KEY}")}) for _ in range(10)]
        found = await asyncio.gather(*(one.token("wxtea", Secret("t")) for one in machines))
        for one in machines:
            await one.aclose()
        return {token.value.reveal() for token in found}

    with serving(cli) as (url, _process):
        assert asyncio.run(together(url)) == {"t"}
    assert (cli.folder / "runs").read_text() == "xx", "asked once, and once more for a newer one"


@pytest.mark.slow
def test_without_the_key_nothing_is_served(
    open_platform: Callable[..., CommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = open_platform()
    with serving(cli, "--verbose") as (url, process):
        ask(cli, url)
        monkeypatch.setenv("TOKEN_SERVER_KEY", f"Bearer {KEY[:-1]}x")
        result = cli.upload()
        assert result.code == 3
        assert "401" in result.err
        assert cli.latest().counts == {"pending": 10}
        got = url.format(appid="wxtea")
        headers: tuple[dict[str, str], ...] = ({}, {"Authorization": KEY}, {"Authorization": "Bearer x"})
        for wrong in headers:
            answer = httpx.get(got, headers=wrong)
            assert (answer.status_code, answer.text) == (401, "{}")
        right = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(got, headers=right).status_code == 405
        for path in ("", "wxnobody", "a/b", "%0A2026-11-27%20wxtea%20200", "x" * 65):
            assert httpx.get(url.format(appid=path), headers=right).status_code == 404
        assert cli.workspace.sim.stats["authorizer_token"] == 0
        err = interrupt(process, signal.SIGINT)
    lines = [line.split()[2:4] for line in err.splitlines() if re.match(r"\d{4}-", line)]
    assert [status for _, status in lines[-6:]] == ["405", *["404"] * 5]
    assert {appid for appid, _ in lines} == {"-", "wxtea", "wxnobody"}
    assert {appid for appid, status in lines if status == "401"} == {"-"}


@pytest.mark.slow
def test_a_source_that_serves_nobody_is_503_and_leaves_the_rows_pending(
    open_platform: Callable[..., CommandLine],
) -> None:
    cli = open_platform(Fault(step=FaultStep.COMPONENT_TOKEN, errcode=61004))
    with serving(cli, "--verbose") as (url, process):
        ask(cli, url)
        result = cli.upload("--patience", "0.2")
        err = interrupt(process, signal.SIGTERM)
    assert result.code == 3
    assert "503" in result.err
    assert cli.latest().counts == {"pending": 10}
    assert "61004" in err, "the machine that refreshes says why"


@pytest.mark.kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_running_refreshes_end(
    open_platform: Callable[..., CommandLine], wait_for: WaitFor, number: signal.Signals, code: int
) -> None:
    cli = open_platform(SLOW)
    with serving(cli) as (url, process):
        ask(cli, url)
        with cli.process("upload", "list.csv", "--root", "files") as client:
            wait_for(lambda: cli.workspace.sim.stats["authorizer_token"] == 2)
            err = interrupt(process, number)
            assert client.wait(60) == 0
    assert process.returncode == code
    assert err.count("nterrupted") == 1
    assert "Traceback" not in err
    assert cli.latest().counts == {"uploaded": 10}
    assert {file.name for file in (cli.folder / "tcb-ops.tokens").glob("wxt*")} == {"wxtea.json"}


@pytest.mark.kill
def test_a_program_that_hangs_does_not_outlive_the_command(
    open_platform: Callable[..., CommandLine], wait_for: WaitFor
) -> None:
    cli = open_platform()
    program = "import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(60)"
    serve_by_program(cli, program)
    with serving(cli) as (url, process):
        ask(cli, url)
        with cli.process("upload", "list.csv", "--root", "files") as client:
            wait_for(
                lambda: (cli.folder / "pid").exists() and (cli.folder / "pid").read_text().endswith("\n")
            )
            client.kill()
        pid = int((cli.folder / "pid").read_text())
        started = time.monotonic()
        interrupt(process, signal.SIGTERM)
        assert time.monotonic() - started < 20
    assert process.returncode == 143
    wait_for(lambda: not _lives(pid), 5)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.kill
def test_after_a_kill_the_same_commands_continue(
    open_platform: Callable[..., CommandLine], wait_for: WaitFor
) -> None:
    cli = open_platform(SLOW)
    with serving(cli) as (url, process):
        ask(cli, url)
        with cli.process("upload", "list.csv", "--root", "files", "--patience", "0.2") as client:
            wait_for(lambda: cli.workspace.sim.stats["authorizer_token"] == 2)
            process.kill()
            assert client.wait(60) == 3
    assert cli.latest().counts == {"pending": 10}
    with serving(cli) as (url, process):
        ask(cli, url)
        assert cli.upload().code == 0
    assert cli.latest().counts == {"uploaded": 10}


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--host", "192.0.2.1"), "so that it uses TLS"),
        (("--host", "ops-1.example"), "so that it uses TLS"),
        (("--cert", "cert.pem"), "both --cert and --key"),
        (("--cert", "none.pem", "--key", "serve.key"), "cannot be used for TLS"),
        (("--cert", "serve.key", "--key", "serve.key"), "cannot be used for TLS"),
        (("--cert", "serve.key", "--key", "wide.key"), "can be read by other users"),
        (("--target", "simulator"), "give --target the URL of a running one"),
        (("--where", "name=a"), "cannot narrow"),
        (("--port", "{used}"), "cannot be opened"),
    ],
)
def test_what_cannot_be_served_safely_is_refused(
    open_platform: Callable[..., CommandLine], words: tuple[str, ...], why: str
) -> None:
    cli = open_platform()
    (cli.folder / "wide.key").write_text("x")
    (cli.folder / "wide.key").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as used:
        given = [word.format(used=used.getsockname()[1]) for word in words]
        result = cli("tokens", "serve", "--config", "serve.toml", *given)
    assert (result.code, result.out) == (2, "")
    assert why in result.err
    assert KEY not in result.err


@pytest.mark.parametrize(
    ("setting", "mode", "why"),
    [
        ("", 0o600, "tokens.serve_key is missing"),
        (f'serve_key = "{KEY}"', 0o600, "not contain the secret"),
        ('serve_key = "env:NO_SUCH_KEY"', 0o600, "NO_SUCH_KEY is empty or not set"),
        ('serve_key = "env:SHORT_KEY"', 0o600, "the key is too short"),
        pytest.param(
            'serve_key = "file:serve.key"',
            0o640,
            "can be read by other users",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions"),
        ),
    ],
)
def test_a_key_that_protects_nothing_is_refused(
    open_platform: Callable[..., CommandLine],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    mode: int,
    why: str,
) -> None:
    cli = open_platform()
    monkeypatch.setenv("SHORT_KEY", "Bearer 123456789012345")
    (cli.folder / "serve.key").chmod(mode)
    configure(cli, setting)
    result = cli("tokens", "serve", "--config", "serve.toml", "--port", "0")
    assert (result.code, result.out) == (2, "")
    assert why in result.err
    assert KEY not in result.err


@pytest.mark.parametrize(
    ("renew_at", "expires_at", "end"),
    [(None, None, None), (None, 7200.0, 7200.0), (6600.0, 7200.0, 6900.0), (7100.0, 7200.0, 7200.0)],
)
def test_a_client_asks_again_once_the_source_may_have_a_newer_one(
    renew_at: float | None, expires_at: float | None, end: float | None
) -> None:
    assert _end(Token(Secret("t"), expires_at, renew_at)) == end

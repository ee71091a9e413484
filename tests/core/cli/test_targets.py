"""Where a command sends: said first and last; and the embedded simulator as a target."""

import json

import pytest
from rigged_simulator import Simulator
from workspace import BOOKS, TEA, TEA_TEST, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.features.simulator.state import Request, Response
from tcb_ops.wechat.client import HANDSHAKE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "words",
    [
        ("links", "list.csv"),
        ("upload", "list.csv", "--root", "files"),
        ("upload", "list.csv", "--root", "files", "--json"),
        ("audit",),
    ],
)
def test_a_command_that_sends_names_its_target_first_and_last(open_cli, words):
    cli = open_cli(many(TEA, rows=2))
    result = cli(*words).err.splitlines()
    assert result[0] == f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml"
    assert result[-1].startswith(f"SIMULATED {cli.workspace.sim.base} · run ")


@pytest.mark.parametrize("words", [("merchants", "check"), ("doctor",)])
def test_a_command_that_only_asks_the_platform_names_it_as_well(open_cli, words):
    cli = open_cli(many(TEA, rows=1))
    assert cli(*words).err.startswith(f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml\n")


def test_the_embedded_simulator_is_a_target_from_one_command_to_the_next(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=3))
    (cli.folder / "tokens.csv").unlink()  # its tokens are its own
    target = ("--target", "simulator")
    (cli.folder / "files" / "0.bin").unlink()
    assert cli.upload(*target).code == 2
    (cli.folder / "files" / "0.bin").write_text("here again")
    result = cli.upload("--json", *target)
    assert result.code == 0
    assert result.json["target"] == "simulator"
    assert result.json["counts"] == {"uploaded": 6}
    assert result.err.splitlines()[0].endswith(" (embedded simulator) · tcb-ops.toml")
    assert json.loads((cli.folder / "reports" / result.json["run"] / "manifest.json").read_text("utf-8"))[
        "simulated"
    ]
    assert cli("show", "--json", *target).json["run"] == result.json["run"]
    assert cli("links", "list.csv", *target).code == 0
    assert cli("audit", *target).code == 0
    assert cli("merchants", "check", *target).code == 0
    assert cli("doctor", *target).code == 0
    assert cli("report", *target).code == 0
    assert cli("show").code == 2, "the other target has no run"
    assert cli.calls == 0


def test_a_simulated_run_is_resumed_and_retried_though_the_port_is_another(open_cli):
    cli = open_cli(many(TEA, rows=4))
    (cli.folder / "files" / "2.bin").unlink()
    target = ("--target", "simulator", "--json")
    going = tcb.start_upload(
        cli.workspace.read(on_bad="skip"), settings=cli.workspace.settings, target="simulator"
    )
    assert going.wait().counts == {"uploaded": 3, "invalid": 1}
    listed = cli("runs", "--json", "--target", "simulator").json["runs"]
    assert [(one["run"], one["target"]) for one in listed] == [(going.id, "simulator")]
    (cli.folder / "files" / "2.bin").write_text("x")
    canary = cli.upload("--patience", "0", *target)
    assert canary.json["counts"] == {"uploaded": 4}


def test_python_takes_a_target_too(open_workspace):
    workspace = open_workspace(many(TEA, rows=2), [Fault(errcode=85088)])
    run = workspace.upload(target="simulator")
    assert (run.counts, run.record.target) == ({"uploaded": 2}, "simulator")
    assert tcb.open_run(settings=workspace.settings, target="simulator").id == run.id
    links = tcb.links(
        workspace.read(), settings=workspace.settings, target="simulator", out=workspace.folder / "l.csv"
    )
    assert links.counts == {"linked": 2}
    assert tcb.audit(workspace.merchants, settings=workspace.settings, target="simulator").succeeded
    states = tcb.check_merchants(workspace.merchants, settings=workspace.settings, target="simulator")
    assert all(state.works for state in states)
    link = tcb.upload_link(TEA.env, "a.png", settings=workspace.settings, target="simulator")
    assert link.url.reveal().startswith("http://127.0.0.1:")
    assert workspace.upload(target=workspace.sim.base).counts == {"refused": 2}
    with pytest.raises(tcb.SettingsError, match="target"):
        workspace.upload(target="simulater")
    assert workspace.sim.stats["store_calls"] == 0


@pytest.mark.parametrize(
    ("option", "variable", "line", "expected"),
    [
        (None, None, "", "https://api.weixin.qq.com"),
        (None, None, 'target = "simulator"', "simulator"),
        (None, None, 'target = "https://one.example"', "https://one.example"),
        (None, "https://two.example", 'target = "simulator"', "https://two.example"),
        (None, "simulator", 'api_base = "https://one.example"', "simulator"),
        ({"api_base": "https://three.example"}, "simulator", 'target = "simulator"', "https://three.example"),
        ({"target": "https://three.example/"}, None, 'target = "simulator"', "https://three.example"),
    ],
)
def test_options_beat_variables_and_they_beat_the_file(
    tmp_path, monkeypatch, option, variable, line, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tcb-ops.toml").write_text(line, "utf-8")
    if variable:
        monkeypatch.setenv("TCB_OPS_TARGET", variable)
    assert tcb.load_settings(options=option).run_target == expected


def test_two_names_for_two_targets_are_refused(open_cli):
    cli = open_cli(many(TEA, rows=1))
    result = cli("audit", "--target", "simulator", "--api-base", cli.workspace.sim.base)
    assert result.code == 2
    assert "target and api_base specify different targets" in result.err
    wrong = cli("audit", "--target", "weixin")
    assert (wrong.code, "target" in wrong.err, "https://api.weixin.qq.com" in wrong.err) == (2, True, True)


class Tunnel(Simulator):
    """A platform on this machine that does not say that it is a simulator, as a tunnel to the real one would not."""

    hides = True
    asked = 0

    async def handle(self, request: Request) -> Response:
        if request.target != HANDSHAKE:
            return await super().handle(request)
        self.asked += 1
        return Response(404) if self.hides else await super().handle(request)


@pytest.fixture
def tunnel(open_cli):
    """A command line with three merchants whose target is a Tunnel."""
    cli = open_cli(many(TEA, BOOKS, TEA_TEST, rows=1))
    merchants = list(cli.workspace.merchants)
    with Tunnel(merchants, {each.appid: f"token-of-{each.appid}" for each in merchants}) as server:
        yield cli, server


def test_an_address_of_this_machine_that_is_no_simulator_is_live(tunnel, monkeypatch):
    cli, server = tunnel
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "1")
    target = ("--target", server.base)
    refused = cli.upload("--json", *target)
    assert (refused.code, "--yes" in refused.err, refused.json["error"]["code"]) == (2, True, "usage")
    assert not server.stats
    sent = cli.upload("--json", "--yes", "--quiet", *target)
    assert (sent.code, sent.json["counts"]) == (0, {"uploaded": 3})
    assert sent.err.startswith(f"LIVE {server.base} · tcb-ops.toml\n"), "even with --quiet"
    report = cli.folder / "reports" / sent.json["run"]
    assert json.loads((report / "manifest.json").read_text("utf-8"))["simulated"] is False
    assert not list(report.glob("SIMULATED*"))
    assert "SIMULATED" not in (report / "report.html").read_text("utf-8")
    assert " LIVE " in cli("runs", *target).out
    assert server.asked == 2, "once by each command that sends, not by one that reads"


def test_what_the_handshake_found_is_recorded_with_the_run(tunnel):
    cli, server = tunnel
    server.hides, target = False, ("--target", server.base)
    sent = cli.upload("--json", *target)
    server.__exit__()
    for command in ("report", "runs", "errcodes", "show"):
        assert cli(command, *target).code == 0, "nobody has to listen"
    manifest = cli.folder / "reports" / sent.json["run"] / "manifest.json"
    assert json.loads(manifest.read_text("utf-8"))["simulated"] is True
    assert "SIMULATED" in cli("runs", *target).out


@pytest.mark.parametrize("hides", [True, False])
def test_a_run_is_not_resumed_when_the_address_leads_elsewhere(tunnel, hides):
    cli, server = tunnel
    server.hides, target = hides, ("--target", server.base)
    server.refuse_ip()
    stopped = cli.upload("--json", *target)
    assert (stopped.code, stopped.json["error"]["code"]) == (3, "platform")
    server.refuse_ip(refused=False)
    server.hides = not hides
    calls = server.stats["link_calls"]
    for again in ((), ("--resume", stopped.json["run"])):
        refused = cli.upload(*again, *target)
        assert (refused.code, stopped.json["run"] in refused.err, "--new-run" in refused.err) == (
            2,
            True,
            True,
        )
    assert server.stats["link_calls"] == calls
    server.hides = hides
    assert cli.upload("--json", *target).json["run"] == stopped.json["run"]


def test_where_nothing_listens_a_run_ends_at_once_and_is_resumed_when_the_simulator_runs(tunnel):
    cli, server = tunnel
    server.hides, target = False, ("--target", server.base)
    server.__exit__()
    assert cli("upload", "list.csv", "--root", "files", "--dry-run", *target).code == 0
    words = ("upload", "list.csv", "--root", "files", "--json", *target)  # with the usual patience, 300 s
    stopped = cli(*words)
    assert (stopped.code, stopped.json["counts"]) == (3, {"pending": 3})
    error = stopped.json["error"]
    assert (error["code"], f"--port {server.port}" in error["message"]) == ("not_listening", True)
    assert f"--resume {stopped.json['run']}" in error["command"]
    with server:
        resumed = cli(*words)
    assert (resumed.code, resumed.json["run"], resumed.json["counts"]) == (
        0,
        stopped.json["run"],
        {"uploaded": 3},
    )
    assert json.loads((cli.folder / "reports" / resumed.json["run"] / "manifest.json").read_text("utf-8"))[
        "simulated"
    ]


def test_nobody_is_asked_about_a_target_where_nothing_listens(tunnel, monkeypatch):
    cli, server = tunnel
    server.__exit__()
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "1")
    stopped = cli.upload("--json", "--target", server.base)
    assert (stopped.code, stopped.json["error"]["code"]) == (3, "not_listening")
    assert cli("runs", "--json").json == {"runs": []}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("simulater", "simulator"),
        ("Simulator", "simulator"),
        ("localhost:8771", "http://localhost:8771"),
        ("127.0.0.1:8089", "http://127.0.0.1:8089"),
        ("api.weixin.qq.com", "https://api.weixin.qq.com"),
        ("weixin", None),
        ("hush.example/?token=hush", None),
    ],
)
def test_a_mistyped_target_is_answered_with_the_one_that_was_meant(open_cli, typed, meant):
    refused = open_cli(many(TEA, rows=1)).upload("--target", typed)
    assert refused.code == 2
    assert (f"did you mean {meant}?" in refused.err) == (meant is not None), refused.err
    assert "hush" not in refused.err


@pytest.mark.parametrize(
    ("lang", "told"), [("en", "is not an address of WeChat"), ("zh", "不是微信的地址")], ids=["en", "zh"]
)
def test_a_public_host_that_is_not_wechats_gets_no_tokens_unasked(open_cli, lang, told):
    somebody = "https://api.weixin.qq.com.example"
    refused = open_cli(many(TEA, rows=1)).upload("--target", somebody, "--lang", lang, "--patience", "1")
    assert (refused.code, f"{somebody} {told}" in refused.err) == (2, True), refused.err
    assert "LIVE" not in refused.err

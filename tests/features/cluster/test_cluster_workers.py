"""Workers of a cluster that cannot work on a run, or go away: the others continue, and stderr names them."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

import pytest
from dask_cluster import Cluster, claims
from scripted import good_token, token_server
from workspace import OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import StoppedError, TokenSourceError, UsageError
from tcb_ops.features.cluster import coordinator as of_cluster
from tcb_ops.features.cluster.coordinator import CoordinatorLedger
from tcb_ops.features.cluster.task import RELEASED
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger.locks import host_name
from tcb_ops.model import Merchant

MERCHANTS = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(6)]
LIMITS = RunLimits(concurrency=4, per_env=4, backoff=0.01, slow_wait=0.05, patience=20)
ELSEWHERE = "import socket; socket.gethostname = lambda: 'ops-9'"
"""A worker that this makes believe that it is on another machine."""


@pytest.fixture
def scheduler(tmp_path):
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def workspace_of(open_workspace: OpenWorkspace, rows: int = 10, delay: float = 0.0) -> Workspace:
    return open_workspace(many(*MERCHANTS, rows=rows), [Fault(delay=delay)], merchants=MERCHANTS)


def claimed_by(running: tcb.RunHandle) -> set[str]:
    with closing(CoordinatorLedger(running._settings.ledger)) as ledger:
        return {name for workers in claims(ledger, running.record) for name in workers}


@pytest.mark.integration
def test_a_worker_whose_credentials_are_refused_is_named(open_workspace, scheduler, monkeypatch):
    monkeypatch.setenv("MY_KEY", "right-key")
    workspace = workspace_of(open_workspace)
    wrong = scheduler.start_worker(MY_KEY="wrong-key")
    scheduler.wait_for_workers(1)
    name = f"Worker {host_name()}/{wrong.pid}"
    with token_server({one.appid: good_token(one.appid) for one in MERCHANTS}, "right-key") as (url, _):
        settings = workspace.with_options(tokens={"source": "service", "url": url, "auth_env": "MY_KEY"})
        with pytest.raises(TokenSourceError, match=rf"{name}: .+tokens\.auth_env"):
            workspace.upload(cluster=scheduler.address, settings=settings, limits=LIMITS)


# --- the starting process -----------------------------------------------------------------------------------------


def started(workspace: Workspace, cluster: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    folder = workspace.folder
    argv = [
        *(sys.executable, "-m", "tcb_ops", "upload", workspace.list, "--root", folder / "files"),
        *("--cluster", cluster, "--target", workspace.sim.base, "--lang", "en"),
        *("--ledger", folder / "ledger.db", "--merchants", folder / "merchants.csv"),
        *("--tokens", folder / "tokens.csv"),
    ]
    return subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.kill
def test_a_second_ctrl_c_prints_the_command_that_resumes_and_no_trace(open_workspace, wait_for):
    workspace = workspace_of(open_workspace, rows=40, delay=0.5)
    process = started(workspace, "local:2")
    wait_for(lambda: workspace.sim.stats["stored"] >= 10)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=240)
    assert process.returncode in {130, -signal.SIGINT}  # the latter while Python itself ends
    assert "Traceback" not in err.decode()
    assert "never retrieved" not in err.decode()
    assert "--cluster local:2" in err.decode().rpartition("To resume run")[2]


@pytest.mark.soak
def test_workers_that_waited_for_a_frozen_starting_process_go_on(
    open_workspace, assert_complete, wait_for, scheduler
):
    workspace = workspace_of(open_workspace, rows=60, delay=0.5)
    for _ in range(2):
        scheduler.start_worker("import tcb_ops.features.cluster.task as own; own.SILENT_AFTER = 2.0")
    scheduler.wait_for_workers(2)
    process = started(workspace, scheduler.address)
    wait_for(lambda: workspace.sim.stats["stored"] >= 10)
    os.kill(process.pid, signal.SIGSTOP)
    (run,) = tcb.runs(settings=workspace.settings)

    def one_has_stopped() -> bool:
        with closing(CoordinatorLedger(workspace.settings.ledger)) as ledger:
            return any(workers[-1:] == [RELEASED] for workers in claims(ledger, run.record))

    wait_for(one_has_stopped)
    workspace.sim.play([])
    os.kill(process.pid, signal.SIGCONT)
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert assert_complete(run, 360) == {"uploaded": 360}


@pytest.mark.kill
def test_a_lost_scheduler_is_one_message(open_workspace, wait_for, scheduler):
    workspace = workspace_of(open_workspace, rows=40, delay=0.5)
    scheduler.start_worker()
    scheduler.wait_for_workers(1)
    process = started(workspace, scheduler.address)
    wait_for(lambda: workspace.sim.stats["stored"] >= 4)
    scheduler.scheduler.kill()
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 3
    assert b"scheduler " + scheduler.address.encode() + b" was lost" in err
    assert b"Traceback" not in err
    assert b"distributed" not in err


UNGUARDED = """
import sys
import tcb_ops as tcb
settings = tcb.load_settings(options={"lang": "en"})
tcb.upload(tcb.read_paths("list.csv", "merchants.csv", "files"), cluster="local:1", settings=settings, target=sys.argv[1])
"""


@pytest.mark.slow
def test_a_script_without_its_guard_is_told_so(open_workspace):
    workspace = workspace_of(open_workspace, rows=1)
    (workspace.folder / "script.py").write_text(UNGUARDED, encoding="utf-8")
    argv = [sys.executable, "script.py", workspace.sim.base]
    ended = subprocess.run(
        argv, cwd=workspace.folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert ended.returncode == 1
    assert "UsageError: The workers of local:1 do not start (" in ended.stderr
    assert "In a script" in ended.stderr
    assert not workspace.sim.stats["link_calls"]


# --- machines -----------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_worker_of_another_machine_is_refused_what_stays_on_this_one(open_workspace, scheduler):
    workspace = workspace_of(open_workspace, rows=20, delay=0.2)
    here = scheduler.start_worker()
    scheduler.wait_for_workers(1)
    running = workspace.start_upload(cluster=scheduler.address, limits=LIMITS)
    elsewhere = scheduler.start_worker(ELSEWHERE)
    with pytest.raises(StoppedError, match=rf"Worker ops-9/{elsewhere.pid}: it is on ops-9; the ledger"):
        running.wait()
    assert here.poll() is None


def test_a_worker_that_does_not_see_the_ledger_creates_none(tmp_path):
    from tcb_ops.features.cluster.task import Assignment, _unfit

    assignment = Assignment(
        str(tmp_path / "ledger.db"),
        "r",
        1,
        0,
        tcb.load_settings(),
        LIMITS,
        ".",
        skip_unchanged=False,
        version=tcb.__version__,
    )
    other = replace(assignment, version="9.9.9")
    assert "it has tcb-ops" in str(_unfit(other))
    assert (error := _unfit(assignment)) is not None
    assert "does not see the ledger" in str(error)
    assert "is on" in str(_unfit(replace(assignment, host="ops-9")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_result_that_is_lost_with_its_worker_does_not_end_the_run(
    open_workspace, assert_complete, wait_for, scheduler, monkeypatch
):
    from distributed import Client

    from tcb_ops.features.cluster.task import Assignment, TaskEnd, work_on

    workspace = workspace_of(open_workspace, delay=0.1)
    scheduler.start_worker()
    with Client(scheduler.address, set_as_default=False) as client:
        client.wait_for_workers(1)
        monkeypatch.setattr(of_cluster, "_connected", lambda *_: client)
        running = workspace.start_upload(cluster=scheduler.address, limits=LIMITS)
        wait_for(lambda: bool(claimed_by(running)))
        for state in list(client.futures.values()):
            client.loop.add_callback(state.lose)  # as Dask does when the only worker with a result ends
        run = running.wait()
        assert assert_complete(run, 60) == {"uploaded": 60}
        again = Assignment(
            *(str(workspace.folder / "ledger.db"), run.id, 1, 0, workspace.settings, LIMITS),
            root=str(workspace.folder / "files"),
            skip_unchanged=False,
            version=tcb.__version__,
        )
        assert client.submit(work_on, again, pure=False).result().end is TaskEnd.DONE
    with closing(CoordinatorLedger(workspace.settings.ledger)) as ledger:
        assert all(len(workers) == 1 for workers in claims(ledger, run.record)), "not claimed again"


# --- connecting ---------------------------------------------------------------------------------------------------


CA, CERT = "distributed.comm.tls.ca-file", "distributed.comm.tls.client.cert"


@pytest.fixture
def stranger(monkeypatch):
    """The address of a program that is no scheduler, and the list of what it sends to whoever connects."""
    monkeypatch.setattr(of_cluster, "CONNECT_WITHIN", 1.0)
    sent: list[bytes] = []
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection = stack.enter_context(server.accept()[0])
                    connection.sendall(b"".join(sent))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", sent
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("scheme", "variables", "why"),
    [
        ("tcp", {}, r"tcp://\S+ cannot be reached"),
        ("tcp", {"silent": True}, r"cannot be reached"),
        ("tls", {}, r"tls://\S+ cannot be reached"),
        ("tls", {CA: "/none/ca.pem", CERT: "/none/node.pem"}, r"No such file"),
        ("tls", {CA: __file__, CERT: __file__}, r"cannot be reached \(.+certificate"),
    ],
    ids=["HTTP", "silent", "no certificates", "no file", "no certificate in it"],
)
def test_what_is_no_scheduler_is_a_message(open_workspace, stranger, scheme, variables, why):
    import dask
    import distributed  # noqa: F401  adds its settings, which `set` would remove at its end

    address, sent = stranger
    if "silent" not in variables:
        sent.append(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    workspace = workspace_of(open_workspace, rows=1)
    settings = workspace.with_options(unencrypted_schedulers=[f"tcp://{address}"])
    with dask.config.set(variables), pytest.raises(UsageError, match=why):
        workspace.upload(cluster=f"{scheme}://{address}", settings=settings)

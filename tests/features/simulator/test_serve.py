import os
import signal
import socket
import threading
import time

import pytest
from free_ports import free_port

from tcb_ops.features.simulator.faults import Fault, Faults
from tcb_ops.features.simulator.server import Simulator, serve
from tcb_ops.model import Merchant

MERCHANTS = (Merchant("wx1", "梧桐花店", "shop-a-1f2e3d"),)
TOKENS = {"wx1": "one"}


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def simulator_threads():
    return {thread for thread in threading.enumerate() if thread.name == "tcb-ops-simulator"}


@pytest.mark.needs("workbooks")
def test_it_listens_inside_the_block_and_no_longer():
    others = simulator_threads()
    with Simulator(MERCHANTS, TOKENS, port=free_port()) as sim:
        assert sim.base == f"http://127.0.0.1:{sim.port}"
        assert listens(sim.port)
    assert not listens(sim.port)
    assert simulator_threads() <= others


def test_it_can_come_back_on_the_same_port_and_know_its_own_links(start):
    port = free_port()
    first = start(port=port)
    link = first.ask()
    first.sim.__exit__(None, None, None)
    again = start(port=port)
    assert again.sim.port == port
    assert again.post(link["url"], again.form(again.parts(link))).status_code == 204


def test_what_is_no_http_is_refused_and_not_logged(start, caplog):
    talk = start()
    with socket.create_connection(("127.0.0.1", talk.sim.port), timeout=240) as connection:
        connection.sendall("POST /tcb/uploadfile?access_token=目录 HTTP/1.1\r\n\r\n".encode())
        assert b" 400 " in connection.recv(4096)
    assert caplog.records == []


@pytest.mark.parametrize(
    "target",
    [
        "/tcb/uploadfile?access_token=token-of-b",
        "/tcb/getenvinfo?access_token=token-of-b",
        "/tcb/x",
        "/bucket/key",
    ],
    ids=["link", "another interface", "no interface", "store"],
)
def test_every_answer_has_the_date_of_its_clock(start, target):
    talk = start(clock=lambda: 1557307130.9)
    answer = talk.http.post(talk.sim.base + target, content=b'{"env":"books-4d5e6f","path":"a"}')
    assert answer.headers["Date"] == "Wed, 08 May 2019 09:18:50 GMT"


@pytest.mark.integration
def test_it_stops_in_time_although_an_answer_is_held_back(start):
    talk = start(faults=Faults((Fault("shop-a-1f2e3d", delay=60.0),)))
    with socket.create_connection(("127.0.0.1", talk.sim.port)) as connection:
        body = b'{"env":"shop-a-1f2e3d","path":"a"}'
        head = b"POST /tcb/uploadfile?access_token=token-of-a%%2B1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        until = time.monotonic() + 240
        while not talk.sim.stats["link_calls"] and time.monotonic() < until:
            time.sleep(0.005)
        began = time.monotonic()
        talk.sim.__exit__(None, None, None)
        assert time.monotonic() - began < 30


@pytest.mark.posix("signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_serve_runs_until_it_is_told_to_stop_and_gives_the_signals_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    sim = Simulator(MERCHANTS, TOKENS, port=free_port())
    seen = []

    def ready():
        seen.append(listens(sim.port))
        os.kill(os.getpid(), number)

    serve(sim, ready)
    assert seen == [True]
    assert not listens(sim.port)
    assert signal.getsignal(number) is before

"""Runs of panels on a cluster: what works on them, and what is shown where there is no cluster."""

import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
from dask_cluster import claims
from panel_lab import press
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.cluster import coordinator as cluster
from tcb_ops.features.cluster.coordinator import CoordinatorLedger
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.panels.html import RunState


@pytest.mark.integration
def test_a_run_on_a_cluster_is_cancelled_and_resumed_here(open_lab, read, wait_for, assert_complete):
    lab = open_lab(many(TEA, BOOKS, rows=40), [Fault(delay=0.5)])
    panel = lab.uploads(cluster="local:2")
    panel.start.click()
    wait_for(lambda: lab.workspace.sim.stats["stored"] >= 5)
    press(panel, panel.monitor.stop)
    assert panel.monitor.state is RunState.UNFINISHED
    assert read(panel.worker.line).startswith("Cancelled. Unfinished:")
    assert assert_complete(panel.run, 80)["pending"] > 0
    lab.workspace.sim.play([])
    again = lab.attach()
    press(again, again.monitor.resume.button)
    assert assert_complete(again.run, 80) == {"uploaded": 80}
    assert lab.workspace.sim.stats["stored"] == 80


@pytest.mark.integration
def test_a_cluster_does_what_the_panels_start(open_lab):
    faults = [Fault(env=BOOKS.env, path="banner/1.png", errcode=40097), Fault(delay=0.1)]
    lab = open_lab(faults=faults)
    panel = lab.uploads(cluster="local:2")
    done = []

    def by_workers() -> tuple[str, int, bool]:
        panel.settle()
        done.append(panel.run.id)
        with closing(CoordinatorLedger(panel.context.settings.ledger)) as ledger:
            claimed = any(claims(ledger, panel.run.record))
        return str(panel.run.record.kind), panel.run.record.rows, claimed

    panel.start.click()
    assert by_workers() == ("upload", 30, True)
    lab.workspace.sim.play([])
    uploads, panel = panel, lab.attach(done[0], cluster="local:2")
    panel.monitor.retry.action.button.click()
    assert by_workers() == ("upload", 1, True)
    panel = uploads
    panel.stored.confirm.click()
    assert by_workers() == ("confirm", 30, True)
    panel = lab.audits(cluster="local:2")
    panel.start.click()
    assert by_workers() == ("audit", 3, True)
    assert len(set(done)) == 4


def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)


def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(scheduler=SimpleNamespace(address="tls://ops-1:8786"))
    monkeypatch.setattr(cluster, "_connected", lambda *_: client)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("cluster_name", "given", "shown"),
    [
        ("local:0", None, "It must be local:N, or the URL of a scheduler"),
        ("tcp://127.0.0.1:9", None, "must be reached through TLS"),
        ("local:2", no_extra, "A cluster needs Dask. Install it:"),
        ("tls://ops-1:8786", remote, "or cluster='local:N' on this machine"),
    ],
    ids=["no cluster", "not encrypted", "no extra", "SQLite"],
)
def test_a_cluster_that_cannot_be_used_is_a_message_and_nothing_is_sent(
    open_lab, read, monkeypatch, cluster_name, given, shown
):
    lab = open_lab()
    if given is not None:
        given(monkeypatch)
    panel = lab.uploads(cluster=cluster_name)
    press(panel)
    assert shown in read(panel.worker.line)
    assert not panel.start.disabled
    assert tcb.runs(settings=panel.context.settings) == []
    assert lab.sent == 0

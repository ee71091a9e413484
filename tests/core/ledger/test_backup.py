"""An SQLite ledger is backed up while a run works on it, as the documentation says."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from workspace import TEA, cancel, many

from tcb_ops.features.simulator.faults import Fault, FaultStep


@pytest.mark.integration
def test_a_ledger_is_backed_up_while_a_run_works_on_it_and_the_backup_resumes_the_run(open_cli, wait_for):
    cli = open_cli(many(TEA, rows=40))
    sim, ledger = cli.workspace.sim, cli.folder / "ledger.db"
    sim.play([Fault(step=FaultStep.STORE, path="banner/3?.png", delay=60)])
    handle = cli.workspace.start_upload()
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("VACUUM INTO ?", (str(cli.folder / "backup.db"),))
    assert handle.so_far().counts["pending"]
    cancel(handle)
    sim.play([])
    run = cli.upload("--json").json
    assert (run["run"], run["counts"]) == (handle.id, {"uploaded": 40})
    counts = cli("show", handle.id, "--ledger", "backup.db", "--json").json["counts"]
    assert counts["uploaded"] + counts["pending"] == 40
    for file in cli.folder.glob("ledger.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    shutil.copy(cli.folder / "backup.db", ledger)
    before = sim.stats["store_calls"]
    run = cli.upload("--json").json
    assert (run["run"], run["counts"]) == (handle.id, {"uploaded": 40})
    assert sim.stats["store_calls"] - before == counts["pending"]

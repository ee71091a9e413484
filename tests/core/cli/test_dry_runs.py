"""`--dry-run`: what a run will change, as one table; and the run does it."""

from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from workspace import BOOKS, TEA, TEA_TEST, cancel, many

from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import CommandLine

    OpenCli = Callable[..., CommandLine]

pytestmark = pytest.mark.integration

PACE = ("--backoff", "0.01")
SENT = ("uploaded", "restored")


def planned_and_done(cli, *words):
    """Rehearse a command, then run it; give the counts of the rehearsal, which sent nothing and which the run has kept."""
    calls, objects = cli.calls, dict(cli.workspace.sim.objects)
    shown = cli(*words, "--dry-run")
    assert shown.code == 0, shown.err
    planned = cli(*words, "--dry-run", "--json").json
    assert (cli.calls, dict(cli.workspace.sim.objects)) == (calls, objects)
    done = cli(*words, *PACE, "--json").json["counts"]
    changes = planned["changes"]
    assert changes.get("new", 0) + changes.get("replaced", 0) == sum(done.get(each, 0) for each in SENT)
    assert changes.get("deleted", 0) == done.get("deleted", 0)
    assert sum(sum(line["changes"].values()) for line in planned["by_merchant"]) == planned["rows"]
    head, total = shown.out.splitlines()[1:3]
    assert head.split()[1:] == ["+", "new", "~", "replaced", "−", "deleted", "=", "unchanged"]
    assert total.split()[-4:] == [str(changes.get(step, 0)) for step in head.split()[2::2]], "totals first"
    return changes


def change(cli, *numbers):
    for number in numbers:
        (cli.folder / "files" / f"{number}.bin").write_text(f"changed {number}", encoding="utf-8")


def test_what_is_shown_is_what_is_done(open_cli):
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=4))
    files = ("upload", "list.csv", "--root", "files")
    assert planned_and_done(cli, *files, "--limit", "5") == {"new": 5}
    change(cli, 0, 1)
    backup = ("--skip-unchanged", "--backup", "backup")
    assert planned_and_done(cli, *files, *backup) == {"new": 7, "replaced": 2, "unchanged": 3}
    assert planned_and_done(cli, "undo") == {"replaced": 2, "deleted": 7}
    assert planned_and_done(cli, *files, "--new-run") == {"new": 7, "replaced": 5}
    assert cli.upload("--new-run", "--limit", "2").code == 0
    first = cli("runs", "--json").json["runs"][1]["run"]
    assert planned_and_done(cli, "delete", first) == {"deleted": 10, "unchanged": 2}
    assert planned_and_done(cli, "delete", "latest") == {"deleted": 2}


def test_a_retry_is_rehearsed_by_the_rows_that_are_left(open_cli):
    cli = open_cli(
        many(TEA, BOOKS, rows=3), [Fault(step=FaultStep.LINK, env=TEA.env, errcode=40097, calls=((1, 1),))]
    )
    assert cli.upload(*PACE).code == 1
    assert planned_and_done(cli, "retry") == {"new": 3}
    cli.workspace.sim.play([Fault(step=FaultStep.LINK, env=TEA.env, errcode=40097, calls=((1, 1),))])
    assert cli("links", "list.csv", *PACE).code == 1
    result = cli("retry", "--dry-run")
    assert (result.code, "~ replaced" in result.out, "At least 3 calls" in result.out) == (0, True, True)


def test_of_an_unfinished_run_only_what_is_left_is_shown(open_cli, wait_for):
    cli = open_cli(many(TEA, rows=6), [Fault(step=FaultStep.STORE, path="banner/[3-5].png", delay=60)])
    handle = cli.workspace.start_upload()
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) == 3)
    cancel(handle)
    cli.workspace.sim.play([])
    result = cli.upload("--dry-run")
    assert f"Run {handle.id} of this list is unfinished, and would be resumed: 3 rows pending." in result.err
    assert cli.upload("--dry-run", "--json").json["changes"] == {"new": 3}
    assert cli.upload("--dry-run", "--new-run", "--json").json["changes"] == {"new": 3, "replaced": 3}
    refused = cli("undo", "--resume", handle.id, "--dry-run")
    assert (refused.code, "Leave one of the two out." in refused.err) == (2, True)


def test_what_only_the_store_knows_has_a_column_of_its_own(open_cli):
    lost = Fault(step=FaultStep.STORE, path="banner/1.png", reset=Reset.MIDDLE)
    cli = open_cli(many(TEA, rows=2), [lost])
    assert cli.upload(*PACE, "--attempts", "1").code == 1
    result = cli("undo", "--dry-run")
    assert result.out.splitlines()[1].endswith("? not known")
    assert cli("undo", "--dry-run", "--json").json["changes"] == {"deleted": 1, "not_known": 1}
    assert "? 待查" in cli("undo", "--dry-run", "--lang", "zh").out


def test_an_audit_names_what_it_would_ask(open_cli):
    cli = open_cli(many(TEA, TEA_TEST, BOOKS, rows=1))
    result = cli("audit", "--dry-run")
    asked = dict(line.rsplit(maxsplit=1) for line in result.out.splitlines()[2:] if "/" in line.split()[0])
    assert asked == {"tcb/getenvinfo": "2", "cgi-bin/openapi/quota/get": "2", "tcb/uploadfile": "3"}
    assert "At least 7 calls" in result.out
    assert cli("audit", "--dry-run", "--json").json["asks"] == {name: int(n) for name, n in asked.items()}
    assert cli.calls == 0


def test_many_merchants_share_a_line_and_80_columns_are_enough(open_cli, monkeypatch):
    fleet = [
        Merchant(f"wx{n:03}", f"晨光茶饮旗舰店（华东区第一分公司）{n:03}", f"env-{n:03}") for n in range(400)
    ]
    cli = open_cli(many(*fleet, rows=2), merchants=fleet)
    monkeypatch.setenv("COLUMNS", "80")
    for lang, others in (("en", "380 other merchants"), ("zh", "其他 380 个商户")):
        lines = cli.upload("--dry-run", "--lang", lang).out.splitlines()
        assert max(map(cell_len, lines)) <= 80
        figures = [line.split()[-4:] for line in lines[2:24]]
        assert figures[0] == ["800", "0", "0", "0"]
        assert (lines[23].startswith(others), figures[-1][0]) == (True, "760")
    assert len(cli.upload("--dry-run", "--json").json["by_merchant"]) == 400


def test_who_has_left_is_not_served(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2))
    table = cli.folder / "merchants.csv"
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    left = [f"{line},{'left' if BOOKS.env in line else ''}" for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},status", *left]), encoding="utf-8")
    found = cli.upload("--dry-run", "--json").json
    assert (found["changes"], found["calls"]) == ({"new": 2, "unchanged": 2}, 4)

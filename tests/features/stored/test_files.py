"""What is where: the table of stored files as users ask for it, and a table that disagrees with its runs."""

import csv
from contextlib import closing
from dataclasses import replace

import pytest
from rigged_simulator import Simulator
from stored_runs import confirm, stored, undo, upload_other
from workspace import BOOKS, QUICK, TEA, cancel, many

import tcb_ops as tcb
from tcb_ops.api import start_resume
from tcb_ops.errors import CanaryError, LedgerDamagedError, UsageError
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored.listing import COLUMNS
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.lists.merchants import Merchants

pytestmark = pytest.mark.slow
TABLE = """
    SELECT store, path, run, line, uploaded, changed, md5, bytes, content_type, doubt, looked, found FROM files
    ORDER BY store, path"""


def local_file(workspace, number):
    return workspace.folder / "files" / f"{number}.bin"


def known(workspace, what="", **options):
    return {(line.env, line.path): line for line in tcb.files(what, settings=workspace.settings, **options)}


def test_what_is_where_and_by_which_run(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=3))
    run = workspace.upload()
    found = confirm(workspace, content=True)
    workspace.sim.play([Fault(env=TEA.env, step=FaultStep.STORE, reset=Reset.MIDDLE)])
    lost = upload_other(workspace, TEA.env, "banner/1.png")
    workspace.sim.play([])
    other = upload_other(workspace, TEA.env, "banner/2.png")
    deleted = tcb.delete(
        run,
        merchants=tcb.read_merchants(workspace.folder / "merchants.csv", [f"env={BOOKS.env}"]),
        settings=workspace.settings,
        limits=QUICK,
    )
    lines = known(workspace)
    assert {place: (str(line.state), line.file.changed) for place, line in lines.items()} == {
        (TEA.env, "banner/0.png"): ("uploaded", run.id),
        (TEA.env, "banner/1.png"): ("uploaded", run.id),
        (TEA.env, "banner/2.png"): ("uploaded", other.id),
        **{(BOOKS.env, f"banner/{n}.png"): ("deleted", deleted.id) for n in range(3)},
    }
    assert [str(line.file.doubt) for line in lines.values() if line.file.doubt] == [lost.id]
    at = lines[TEA.env, "banner/0.png"].file
    assert (at.run, at.looked, str(at.found)) == (run.id, found.id, "present")
    assert at.md5 == tcb.open_run(run.id, settings=workspace.settings).results()["tcb_md5"][0]
    assert lines[TEA.env, "banner/2.png"].file.found is None, "nobody has looked at the new file"
    assert {place[0] for place in known(workspace, TEA.env)} == {TEA.env}
    assert known(workspace, TEA.name).keys() == known(workspace, TEA.appid).keys()
    assert list(known(workspace, path="er/2")) == [(BOOKS.env, "banner/2.png"), (TEA.env, "banner/2.png")]


def test_an_undo_gives_a_file_back_to_its_upload_and_a_strangers_to_nobody(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    first = workspace.upload()
    workspace.sim.put(TEA.env, "banner/0.png", b"somebody else's")
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"changed " + file.read_bytes())
    second = workspace.upload(backup=workspace.folder / "backup", new_run=True)
    undone = undo(workspace, second.id)
    assert undone.counts == {"restored": 2}
    lines = known(workspace).values()
    assert [(str(line.state), line.file.run, line.file.changed) for line in lines] == [
        ("restored", undone.id, undone.id),
        ("uploaded", first.id, undone.id),
    ]
    with pytest.raises(UsageError, match="1 file was not uploaded"):
        tcb.delete(workspace.read(), settings=workspace.settings, limits=QUICK)
    assert tcb.delete(first.id, settings=workspace.settings, limits=QUICK).counts == {"deleted": 1}
    assert stored(workspace) == {(TEA.env, "banner/0.png"): b"somebody else's"}


def test_an_environment_that_moved_to_another_merchant_has_one_table(open_workspace):
    moved = replace(BOOKS, env=TEA.env)
    workspace = open_workspace(many(TEA, rows=2), merchants=[TEA, moved])
    root = workspace.folder / "files"
    first = tcb.upload(
        tcb.read_paths(workspace.list, Merchants((TEA,)), root), settings=workspace.settings, limits=QUICK
    )
    (root / "0.bin").write_bytes(b"the new merchant's")
    second = tcb.upload(
        tcb.read_paths(workspace.list, Merchants((moved,)), root),
        settings=workspace.settings,
        limits=QUICK,
        skip_unchanged=True,
        backup=workspace.folder / "backup",
    )
    assert second.counts == {"uploaded": 1, "unchanged": 1}
    assert {(line.appid, line.file.run) for line in known(workspace).values()} == {
        (moved.appid, first.id),
        (moved.appid, second.id),
    }
    with pytest.raises(UsageError, match=f"knows no environment or merchant {TEA.name}"):
        known(workspace, TEA.name)
    left = undo(workspace, first.id)
    assert left.counts == {"deleted": 1, "not_undoable": 1}
    assert undo(workspace, second.id).counts == {"restored": 1}
    assert known(workspace)[TEA.env, "banner/0.png"].file.run == first.id


def test_paths_of_another_case_or_unicode_form_are_other_files(open_workspace):
    paths = ["caf\u00e9.png", "cafe\u0301.png", "Caf\u00e9.png", "CAF\u00c9.PNG"]
    workspace = open_workspace([(TEA.env, path) for path in paths])
    first = workspace.upload()
    other = upload_other(workspace, TEA.env, paths[1], file="3.bin")
    assert {path: line.file.run for (_env, path), line in known(workspace).items()} == {
        path: other.id if path == paths[1] else first.id for path in paths
    }
    assert list(known(workspace, path="e\u0301")) == [(TEA.env, paths[1])]
    assert undo(workspace, first.id).counts == {"deleted": 3, "not_undoable": 1}
    assert [path for _env, path in stored(workspace)] == [paths[1]]


def test_it_is_a_frame_and_a_card(open_workspace):
    workspace = open_workspace(many(TEA, rows=30))
    run = workspace.upload()
    files = tcb.files(TEA.env, settings=workspace.settings)
    assert (len(files), str(files.text)) == (30, "30 paths in 1 environment: 30 uploaded")
    frame = files.frame()
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["run"]) == {run.id}
    card = files._repr_html_() or ""
    assert "30 paths in 1 environment" in card
    assert "banner/0.png" in card


def test_the_command_shows_what_is_where(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2))
    run = cli.upload("--json").json["run"]
    shown = cli("files", TEA.name, "--path", "0.png")
    assert "1 path in" in shown.out
    assert "banner/0.png" in shown.out
    assert run in shown.out
    asked = cli("files", "--json", "--out", "all.csv").json
    assert (asked["counts"], len(asked["files"])) == ({"uploaded": 4}, 4)
    with (cli.folder / "all.csv").open(encoding="utf-8-sig", newline="") as table:
        assert [line["path"] for line in csv.DictReader(table)] == [line["path"] for line in asked["files"]]
    nobody = cli("files", "nobody")
    assert (nobody.code, "Merchants that it knows" in nobody.err) == (2, True)


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(open_workspace, request):
    """A workspace with a ledger in either database, in which runs have changed files in every way."""
    workspace = open_workspace(many(TEA, rows=6))
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
        workspace = replace(workspace, settings=workspace.with_options(ledger=url))
    workspace.sim.put(TEA.env, "banner/5.png", b"somebody else's")
    first = workspace.upload(backup=workspace.folder / "backup")
    for file in (workspace.folder / "files").iterdir():
        file.write_bytes(b"changed " + file.read_bytes())
    second = workspace.upload(backup=workspace.folder / "backup", new_run=True)
    undo(workspace, second.id)
    workspace.sim.remove(TEA.env, "banner/1.png")
    confirm(workspace, first.id, content=True)
    workspace.sim.play([Fault(path="banner/2.png", step=FaultStep.STORE, reset=Reset.MIDDLE)])
    upload_other(workspace, TEA.env, "banner/2.png")
    workspace.sim.play([])
    return workspace, first


def test_a_table_that_disagrees_with_its_runs_is_found_and_made_again(anywhere):
    workspace, first = anywhere
    with closing(Ledger(workspace.settings.ledger)) as ledger:
        table = ledger.fetch(TABLE)
        assert {(bool(line[4]), bool(line[6])) for line in table} == {(True, True)}
        with ledger.writing() as connection:
            connection.execute("DELETE FROM files WHERE path <> 'banner/0.png'")
        before = stored(workspace)
        for start in (tcb.undo, tcb.delete):
            with pytest.raises(LedgerDamagedError, match=f"differs from run {first.id} at 5 paths"):
                start(first.id, settings=workspace.settings, limits=QUICK)
        assert stored(workspace) == before
        report = first.export(workspace.folder / "report")
        [difference] = [
            check
            for check in tcb.verify(report, settings=workspace.settings).checks
            if check.state == "differs"
        ]
        assert "differs from run" in difference.text.en
        ledger.rebuild_files()
        assert ledger.fetch(TABLE) == table
        assert tcb.verify(report, settings=workspace.settings).good
    assert undo(workspace, first.id).counts["deleted"] > 0


def test_a_run_is_not_resumed_where_the_table_differs_from_it(open_workspace, wait_for):
    slow = Fault(path="banner/5.png", step=FaultStep.STORE, delay=60)
    workspace = open_workspace(many(TEA, rows=6), [slow])
    handle = workspace.start_upload()
    wait_for(lambda: handle.so_far().counts.get("uploaded") == 5)
    cancel(handle)
    with closing(Ledger(workspace.settings.ledger)) as ledger, ledger.writing() as connection:
        connection.execute("UPDATE files SET changed = NULL")
    with pytest.raises(LedgerDamagedError) as caught:
        workspace.upload()
    assert "`tcb-ops files --repair`" in str(caught.value.fix)


def test_what_was_under_way_at_an_interruption_is_in_doubt_if_it_cannot_be_sent_again(
    open_workspace, wait_for
):
    slow = Fault(path="banner/1.png", step=FaultStep.STORE, delay=60)
    workspace = open_workspace(many(TEA, rows=2), [slow])
    handle = workspace.start_upload()
    wait_for(lambda: handle.so_far().counts.get("uploaded") == 1 and workspace.sim.stats["store_calls"] == 2)
    cancel(handle)
    workspace.sim.play([])
    local_file(workspace, 1).unlink()
    run = start_resume(handle.id, settings=workspace.settings, limits=QUICK).wait()
    assert (run.id, run.counts) == (handle.id, {"uploaded": 1, "failed": 1})
    doubts = {path: line.file.doubt for (_env, path), line in known(workspace).items()}
    assert doubts == {"banner/0.png": "", "banner/1.png": run.id}
    workspace.sim.put(TEA.env, "banner/1.png", b"whoever sent it")
    assert undo(workspace, run.id).counts == {"deleted": 1, "not_undoable": 1}


def test_what_had_not_begun_at_a_stop_is_not_in_doubt(open_workspace):
    refused = Fault(env=TEA.env, errcode=-501007)
    workspace = open_workspace(many(TEA, BOOKS, rows=1), [refused])
    with pytest.raises(CanaryError):
        workspace.upload(canary=1)
    local_file(workspace, 1).unlink()
    run = start_resume(settings=workspace.settings, limits=QUICK, canary=0).wait()
    assert run.counts == {"refused": 1, "failed": 1}
    assert known(workspace) == {}, "nothing was sent to either path"


@pytest.mark.parametrize(
    ("start", "then"),
    [
        (tcb.undo, Fault(step=FaultStep.DOWNLOAD, errcode=-1, calls=((2, 99),))),
        (tcb.delete, Fault(step=FaultStep.DELETE, errcode=-501007, calls=((2, 99),))),
    ],
    ids=["undo", "delete"],
)
def test_what_was_deleted_without_an_answer_is_in_doubt_if_the_next_call_is_refused(
    open_workspace, start, then
):
    workspace = open_workspace(many(TEA, rows=1))
    run = workspace.upload()
    workspace.sim.play([Fault(step=FaultStep.DELETE, reset=Reset.MIDDLE, calls=((1, 1),)), then])
    ended = start(run.id, settings=workspace.settings, limits=replace(QUICK, attempts=2))
    assert (stored(workspace), ended.succeeded) == ({}, False)
    assert [line.file.doubt for line in known(workspace).values()] == [ended.id]


def test_two_targets_have_files_of_their_own(open_workspace):
    workspace = open_workspace(many(TEA, rows=2))
    run = workspace.upload()
    with Simulator(workspace.merchants, {TEA.appid: f"token-of-{TEA.appid}"}) as elsewhere:
        there = workspace.with_options(api_base=elsewhere.base)
        assert tcb.upload(workspace.read(), settings=there, limits=QUICK, skip_unchanged=True).counts == {
            "uploaded": 2
        }
        with pytest.raises(UsageError):
            tcb.delete(run.id, settings=there, limits=QUICK)
        assert tcb.upload(
            workspace.read(), settings=there, limits=QUICK, skip_unchanged=True, new_run=True
        ).counts == {"unchanged": 2}
    assert undo(workspace, run.id).counts == {"deleted": 2}


def test_paths_that_differ_in_form_or_case_are_different_files(open_workspace):
    names = ["é.png", "e\u0301.png", "A.png", "a.png"]
    workspace = open_workspace([(TEA.env, name) for name in names])
    run = workspace.upload()
    assert {path for _env, path in known(workspace)} == set(names)
    assert undo(workspace, run.id).counts == {"deleted": 4}

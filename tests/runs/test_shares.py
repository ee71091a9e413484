"""Processes that know nothing of one another share a list, and their ledgers become one run."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from workspace import QUICK, Workspace, write_csv

import tcb_ops as tcb
from tcb_ops.api import join_shares
from tcb_ops.cli.main import run as run_command
from tcb_ops.lists.merchants import Merchants, Share, read_share
from tcb_ops.model import Merchant
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import hold
from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workspace import OpenWorkspace

OF = 5
MERCHANTS = [Merchant(f"wx{n:02}", f"商户{n}", f"env-{n:02}") for n in range(12)]
MERCHANTS += [Merchant("wx03", "商户3", "env-03-test"), Merchant("wx04", "商户4", "env-shared")]
MERCHANTS += [Merchant("wx05", "商户5", "env-shared", default=True)]
LIST = [
    (env, f"a/{n}.png") for n in range(4) for env in dict.fromkeys(one.env for one in reversed(MERCHANTS))
]
FAULTS = [
    Fault(env="env-03", errcode=85088),
    Fault(env="env-07", path="a/2.png", errcode=40097),
]
VARYING = {"tcb_rid", "tcb_attempts", "tcb_started_at", "tcb_ended_at"}


@pytest.fixture
def workspace(open_workspace: OpenWorkspace) -> Workspace:
    """A list whose merchants alternate, with rows that have problems: an unknown environment and two of one path."""
    workspace = open_workspace([(env, path) for env, path in LIST], FAULTS, merchants=MERCHANTS)
    with workspace.list.open("a", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(
            [
                ("env-nobody", "a/1.png", "0.bin", ""),
                ("env-01", "a/0.png", "0.bin", ""),
                ("env-02", "/x", "0.bin", ""),
            ]
        )
    return workspace


def ledgers(workspace: Workspace) -> list[str]:
    return [str(workspace.folder / f"machine-{number}.db") for number in range(1, OF + 1)]


def upload(workspace: Workspace, ledger: str, **options: Any) -> tcb.Run:
    settings = workspace.with_options(ledger=ledger)
    return tcb.upload(workspace.read(on_bad="skip"), settings=settings, limits=QUICK, **options)


def in_shares(workspace: Workspace, **options: Any) -> list[tcb.Run]:
    return [
        upload(workspace, ledger, share=(number, OF), **options)
        for number, ledger in enumerate(ledgers(workspace), start=1)
    ]


def joined(workspace: Workspace, out: str = "all.db", **options: Any) -> tcb.Run:
    run_id, _copied = join_shares(workspace.folder / out, ledgers(workspace), **options)
    return tcb.open_run(run_id, settings=workspace.with_options(ledger=str(workspace.folder / out)))


def results(run: tcb.Run, folder: Path) -> tuple[list[dict[str, str]], bytes, bytes]:
    """The rows of results.csv without what varies, failed.csv's lines and errcodes.csv."""
    report = run.export(folder, pdf=False)
    with (report / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [
            {name: value for name, value in row.items() if name not in VARYING}
            for row in csv.DictReader(file)
        ]
    failed = (report / "failed.csv").read_bytes()
    return rows, bytes(failed.count(b"\n")), (report / "errcodes.csv").read_bytes()


def stored(workspace: Workspace) -> dict[tuple[str, str], str]:
    return {at: one.etag for at, one in workspace.sim.objects.items()}


# --- which merchants -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["2/5", (2, 5), Share(2, 5)])
def test_a_share_is_given_in_three_ways(value: Any) -> None:
    assert read_share(value) == Share(2, 5)
    assert str(Share(2, 5)) == "2/5"


@pytest.mark.parametrize(
    "value",
    [
        "0/5",
        "6/5",
        "2",
        "",
        "2/",
        "-1/5",
        "2 / 5",
        "２/５",
        (0, 0),
        (1, 2, 3),
        (True, 2),
        [1, 2],
        2,
        Share(3, 2),
    ],
)
def test_any_other_share_is_an_error_that_names_the_parameter(value: Any, workspace: Workspace) -> None:
    with pytest.raises(tcb.ArgumentError, match="share cannot be"):
        read_share(value)
    for call in (tcb.upload, tcb.links):
        with pytest.raises(tcb.TcbOpsError, match="share cannot be"):
            call(workspace.read(on_bad="skip"), settings=workspace.settings, share=value)
    with pytest.raises(tcb.TcbOpsError, match="share cannot be"):
        tcb.audit(workspace.merchants, settings=workspace.settings, share=value)
    with pytest.raises(tcb.TcbOpsError, match="share cannot be"):
        tcb.read_paths(workspace.list, workspace.merchants, share=value)
    assert tcb.all_runs(settings=workspace.settings) == []


def test_a_merchants_share_never_changes() -> None:
    """The first 8 bytes of the appid's SHA-256: ledgers of last year are joined with those of today."""
    found = {
        appid: [n for n in range(1, 6) if Share(n, 5).has(appid)] for appid in ("wx00", "wxtea", "微信", "")
    }
    assert found == {"wx00": [2], "wxtea": [1], "微信": [1], "": [3]}


def test_every_row_is_in_one_share_with_all_rows_of_its_merchant(workspace: Workspace) -> None:
    batch = workspace.read(on_bad="skip")
    shares = [batch.of_share(Share(number, OF)) for number in range(1, OF + 1)]
    lines = [[row.line for row in share.rows()] for share in shares]
    assert sorted(line for own in lines for line in own) == [row.line for row in batch.rows()]
    assert all(own == sorted(own) for own in lines)
    owners = Counter(appid for share in shares for appid in {row.appid for row in share.rows()})
    assert set(owners.values()) == {1}
    for name in ("count", "valid", "total_bytes", "merchants_count"):
        assert sum(getattr(share, name) for share in shares) == getattr(batch, name)
    assert sum(len(share.problems) for share in shares) == len(batch.problems) == 3
    assert [row.line for row in shares[0].limited(2).rows()] == [
        row.line for row in shares[0].rows() if not row.invalid
    ][:2]


def test_a_problem_of_another_shares_row_refuses_the_list(workspace: Workspace) -> None:
    for number in range(1, OF + 1):
        with pytest.raises(tcb.InputError) as caught:
            tcb.read_paths(
                workspace.list, workspace.merchants, workspace.folder / "files", share=(number, OF)
            )
        assert len(caught.value.problems) == 3


def test_files_of_other_shares_need_not_be_there(workspace: Workspace) -> None:
    mine = {row.file for row in workspace.read(on_bad="skip").of_share(Share(1, OF)).rows()}
    for file in (workspace.folder / "files").iterdir():
        if file.name not in mine:
            file.unlink()
    batch = tcb.read_paths(
        workspace.list, workspace.merchants, workspace.folder / "files", on_bad="skip", share="1/5"
    )
    assert batch.valid == batch.count - len(batch.problems) > 0
    run = tcb.upload(batch, settings=workspace.settings, limits=QUICK)
    assert run.record.share == "1/5"
    with pytest.raises(tcb.ArgumentError, match="share cannot be"):
        tcb.upload(batch, settings=workspace.settings, share="2/5")


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_share_is_resumed_by_its_own_share_only(workspace: Workspace) -> None:
    workspace.sim.play([Fault(delay=0.05)])
    begun = tcb.start_upload(
        workspace.read(on_bad="skip"), settings=workspace.settings, share=(1, OF), limits=QUICK
    )
    begun.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        begun.wait()
    other = tcb.upload(
        workspace.read(on_bad="skip"), settings=workspace.settings, share=(2, OF), limits=QUICK
    )
    whole = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, limits=QUICK)
    assert len({begun.id, other.id, whole.id}) == 3
    with pytest.raises(tcb.UsageError, match="it is share 1/5 of its list"):
        tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, share=(2, OF), resume=begun.id)
    again = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, share="1/5", limits=QUICK)
    assert (again.id, again.record.share) == (begun.id, "1/5")
    assert "pending" not in again.counts


@pytest.mark.slow
def test_five_shares_joined_are_the_run_of_the_whole_list(workspace: Workspace) -> None:
    shares = in_shares(workspace)
    whole = upload(workspace, workspace.settings.ledger)
    run = joined(workspace)
    assert run.counts == whole.counts
    assert sum(run.counts.values()) == len(LIST) + 3 == sum(one.record.rows for one in shares)
    assert sum((Counter(one.counts) for one in shares), Counter()) == Counter(run.counts)
    assert results(run, workspace.folder / "joined") == results(whole, workspace.folder / "whole")
    ours, theirs = run.summary(), whole.summary()
    for name in ("kind", "target", "rows", "counts", "errcodes"):
        assert ours[name] == theirs[name]
    assert ours["calls"]["upload"] == sum(one.summary()["calls"]["upload"] for one in shares)
    assert run.record.seconds == pytest.approx(sum(one.record.seconds for one in shares))
    assert run.record.selection == whole.record.selection
    assert run.record.settings["joined"] == [one.id for one in shares]
    assert [place.env for place in run._ledger.envs(run.record)] == [
        place.env for place in whole._ledger.envs(whole.record)
    ]
    assert tcb.verify(workspace.folder / "joined", settings=run.settings).good
    assert tcb.retry(run, workspace.merchants, settings=run.settings, limits=QUICK).record.parent == run.id


@pytest.mark.slow
def test_shares_on_postgresql_are_joined_too(workspace: Workspace, postgres: Any, database: str) -> None:
    shares = in_shares(workspace)
    run_id, copied = join_shares(postgres.url(database), ledgers(workspace)[::-1])
    assert copied.runs == (run_id,)
    run = tcb.open_run(run_id, settings=workspace.with_options(ledger=postgres.url(database)))
    assert Counter(run.counts) == sum((Counter(one.counts) for one in shares), Counter())


@pytest.mark.slow
def test_shares_are_not_joined_into_the_ledger_of_one(workspace: Workspace) -> None:
    in_shares(workspace)
    first, *others = ledgers(workspace)
    out = workspace.folder / "out.db"
    out.hardlink_to(first)
    with pytest.raises(tcb.UsageError, match="cannot be copied into itself"):
        join_shares(out, [first, *others])
    with closing(Ledger(first)) as ledger:
        assert len(ledger.runs()) == 1


@pytest.mark.slow
def test_retries_of_a_share_become_retries_of_the_joined_run(workspace: Workspace) -> None:
    workspace.sim.play([Fault(env="env-03", errcode=85088)])
    shares = in_shares(workspace)
    refused = next(run for run in shares if "refused" in run.counts)
    workspace.sim.play([])
    retry = tcb.retry(refused, workspace.merchants, settings=refused.settings, limits=QUICK)
    run = joined(workspace)
    assert run.counts.get("refused")
    assert {"refused", "not_attempted"}.isdisjoint(run.final().counts)
    assert [one.id for one in run._ledger.retries(run.record)] == [retry.id]
    with pytest.raises(tcb.UsageError, match="nothing is left to retry"):
        tcb.retry(run, workspace.merchants, settings=run.settings)


@pytest.mark.slow
def test_a_retry_of_the_latest_run_covers_the_joined_run(workspace: Workspace) -> None:
    shares = in_shares(workspace)
    refused = [run for run in shares if "refused" in run.counts]
    assert len(refused) > 1
    first = tcb.retry(refused[0], workspace.merchants, settings=refused[0].settings, limits=QUICK)
    workspace.sim.play([])
    again = tcb.retry(first, workspace.merchants, settings=first.settings, limits=QUICK)
    run = joined(workspace)
    assert tcb.open_run("latest", settings=run.settings).id == again.id
    rest = Counter(run.final().counts) - Counter(uploaded=len(LIST), invalid=3)
    everything = tcb.retry("latest", workspace.merchants, settings=run.settings, limits=QUICK)
    assert everything.record.parent == run.id
    assert everything.counts == {"uploaded": rest["refused"] + rest["not_attempted"]}
    assert {"refused", "not_attempted"}.isdisjoint(run.final().counts)


@pytest.mark.slow
def test_only_runs_with_rows_to_retry_are_suggested(workspace: Workspace) -> None:
    shares = in_shares(workspace)
    refused = [run for run in shares if "refused" in run.counts]
    first = tcb.retry(refused[0], workspace.merchants, settings=refused[0].settings, limits=QUICK)
    workspace.sim.play([])
    again = tcb.retry(first, workspace.merchants, settings=first.settings, limits=QUICK)
    with pytest.raises(tcb.UsageError) as nothing:
        tcb.retry(again, workspace.merchants, settings=again.settings)
    assert nothing.value.text.commands() == []
    run = joined(workspace)
    for retry in (first, again):
        with pytest.raises(tcb.UsageError) as caught:
            tcb.retry(retry.id, workspace.merchants, settings=run.settings)
        (command,) = caught.value.text.commands()
        assert command.startswith(f"tcb-ops retry {run.id} ")


@pytest.mark.slow
def test_joined_again_only_what_is_missing_is_written(workspace: Workspace, typed: Any) -> None:
    shares = in_shares(workspace)
    first = joined(workspace)
    run_id, copied = join_shares(workspace.folder / "all.db", ledgers(workspace))
    assert (run_id, copied.runs, copied.there) == (first.id, (), (first.id,))
    refused = next(run for run in shares if "refused" in run.counts)
    retry = tcb.retry(refused, workspace.merchants, settings=refused.settings, limits=QUICK)
    assert join_shares(workspace.folder / "all.db", ledgers(workspace))[1].runs == (retry.id,)
    _code, out, _err = typed("ledger", "join", "other.db", *ledgers(workspace))
    assert "\n1 retry was added.\n" in out
    assert "added" not in typed("ledger", "join", "other.db", *ledgers(workspace))[1]


@pytest.mark.slow
def test_a_joined_run_is_undone_with_the_backups_of_its_shares(workspace: Workspace) -> None:
    in_shares(workspace)
    before = stored(workspace)
    for file in (workspace.folder / "files").iterdir():
        file.write_text(f"new {file.name}", encoding="utf-8")
    shares = in_shares(workspace, backup=workspace.folder / "kept", new_run=True)
    assert stored(workspace) != before
    run = joined(workspace)
    conflict = tcb.undo(run, settings=run.settings, limits=QUICK)
    assert set(conflict.counts) == {"not_undoable"}, "nothing is deleted on a guess"
    for share in shares:
        shutil.copytree(
            workspace.folder / "kept" / share.id, workspace.folder / "kept" / run.id, dirs_exist_ok=True
        )
    undone = tcb.undo(run, settings=run.settings, limits=QUICK, new_run=True)
    assert undone.counts == {"restored": run.counts["uploaded"]}
    assert stored(workspace) == before


@pytest.mark.slow
def test_audits_in_shares_are_joined_as_one_audit(workspace: Workspace) -> None:
    whole = tcb.audit(workspace.merchants, settings=workspace.settings, limits=QUICK)
    for number, ledger in enumerate(ledgers(workspace), start=1):
        tcb.audit(
            workspace.merchants,
            settings=workspace.with_options(ledger=ledger),
            limits=QUICK,
            share=f"{number}/{OF}",
        )
    run = joined(workspace)
    assert run.counts == whole.counts
    assert [row.row for row in run.rows()] == [row.row for row in whole.rows()]
    assert run.audit().exit_code("any") == whole.audit().exit_code("any") == 1


@pytest.mark.slow
def test_links_in_shares_are_joined_without_their_secrets(workspace: Workspace) -> None:
    for number, ledger in enumerate(ledgers(workspace), start=1):
        tcb.links(
            workspace.read(on_bad="skip"),
            settings=workspace.with_options(ledger=ledger),
            limits=QUICK,
            share=(number, OF),
            out=workspace.folder / f"links-{number}.csv",
        )
    run = joined(workspace)
    assert sum(run.counts.values()) == len(LIST) + 3
    with pytest.raises(tcb.UsageError, match=r"links\.csv"):
        run.links()


# --- what is not joined ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shares_that_are_missing_or_there_twice_are_named(workspace: Workspace) -> None:
    in_shares(workspace)
    places, out = ledgers(workspace), workspace.folder / "all.db"
    for sources, told in (
        (places[:2], "these shares are missing: 3/5, 4/5, 5/5"),
        (
            [*places, places[1]],
            r"share 2/5 appears twice: run .* in .*machine-2\.db, run .* in .*machine-2\.db",
        ),
        ([*places, workspace.settings.ledger], r"does not exist"),
        ([*places[:4], str(out)], "cannot be copied into itself"),
    ):
        with pytest.raises(tcb.UsageError, match=told) as caught:
            join_shares(out, sources)
        assert caught.value.exit_code == 2
    assert not out.exists() or Ledger(str(out)).runs() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("list", "differ in the list"),
        ("of", "differ in the number of shares"),
        ("kind", "differ in the command"),
        ("target", "differ in the target"),
        ("selection", "differ in the part of the list"),
    ],
)
def test_shares_of_different_work_are_named_with_what_differs(
    what: str, told: str, workspace: Workspace
) -> None:
    in_shares(workspace)
    last = workspace.with_options(ledger=ledgers(workspace)[-1])
    if what == "list":
        workspace.list.write_text(workspace.list.read_text("utf-8") + "env-00,new.png,0.bin,\n", "utf-8")
    share = (5, 6) if what == "of" else (5, OF)
    if what == "kind":
        tcb.links(
            workspace.read(on_bad="skip"),
            settings=last,
            limits=QUICK,
            share=share,
            out=workspace.folder / "links.csv",
        )
    elif what == "target":
        tcb.upload(
            workspace.read(on_bad="skip"), settings=last, target="simulator", limits=QUICK, share=share
        )
    else:
        selection = "limit 9" if what == "selection" else ""
        tcb.upload(
            workspace.read(on_bad="skip"),
            settings=last,
            limits=QUICK,
            share=share,
            new_run=True,
            selection=selection,
        )
    with pytest.raises(tcb.UsageError, match=told):
        join_shares(workspace.folder / "all.db", ledgers(workspace))


@pytest.mark.slow
def test_an_earlier_run_of_a_share_is_joined_by_its_id(workspace: Workspace) -> None:
    shares = in_shares(workspace)
    other = upload(workspace, ledgers(workspace)[1], share=(4, OF))
    with pytest.raises(tcb.UsageError, match="share 4/5 appears twice"):
        joined(workspace)
    assert joined(workspace, runs=[shares[1].id]).record.settings["joined"] == [run.id for run in shares]
    whole = upload(workspace, ledgers(workspace)[2])
    for given, told in (
        ([whole.id], "is not the run of a share"),
        (["nosuch"], "has the run nosuch"),
    ):
        with pytest.raises(tcb.UsageError, match=told):
            joined(workspace, runs=given)
    assert other.record.share == "4/5"


@pytest.mark.slow
def test_a_share_that_is_unfinished_is_refused(workspace: Workspace) -> None:
    in_shares(workspace)
    last = workspace.with_options(ledger=ledgers(workspace)[-1])
    begun = tcb.start_upload(workspace.read(on_bad="skip"), settings=last, share=(5, OF), new_run=True)
    begun.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        begun.wait()
    with pytest.raises(
        tcb.UsageError, match=rf"run {begun.id} \(share 5/5\) in .* is unfinished\. Resume it"
    ):
        joined(workspace)
    with (
        closing(Ledger(last.ledger)) as ledger,
        hold(ledger, begun.id),
        pytest.raises(tcb.UsageError, match="is being worked on by"),
    ):
        joined(workspace)
    tcb.resume(begun.id, settings=last, limits=QUICK)
    assert "pending" not in joined(workspace).counts


@pytest.mark.slow
def test_a_share_that_was_undone_is_refused(workspace: Workspace) -> None:
    shares = in_shares(workspace)
    undo = tcb.undo(shares[1], settings=shares[1].settings, limits=QUICK)
    with pytest.raises(tcb.UsageError, match=rf"cannot be joined: run {undo.id} undid it"):
        joined(workspace)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loses", "takes", "told"),
    [
        (True, False, "the list has 59 rows, but its shares have 55 together"),
        (False, True, "the list has 59 rows, but its shares have 63 together"),
        (True, True, r"line \d+ of the list is in two shares"),
    ],
)
def test_shares_with_other_merchants_files_are_refused(
    loses: bool,
    takes: bool,
    told: str,
    workspace: Workspace,
) -> None:
    """A row whose environment belongs to another appid on one machine is in two shares, or in none."""
    in_shares(workspace)
    plain = [m for m in MERCHANTS if int(m.appid[2:]) > 5]  # without the rows that have problems
    mine, other = (next(m for m in plain if Share(n, OF).has(m.appid)) for n in (1, 3))
    appids = {mine.env: other.appid if loses else mine.appid, other.env: mine.appid if takes else other.appid}
    moved = Merchants([replace(m, appid=appids.get(m.env, m.appid)) for m in MERCHANTS])
    tcb.upload(
        tcb.read_paths(workspace.list, moved, workspace.folder / "files", on_bad="skip"),
        settings=workspace.with_options(ledger=ledgers(workspace)[0]),
        limits=QUICK,
        share=(1, OF),
        new_run=True,
    )
    with pytest.raises(tcb.UsageError, match=told):
        joined(workspace)


@pytest.mark.slow
def test_a_killed_join_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shares(workspace)
    monkeypatch.setattr("tcb_ops.runs.ledger_copy.BATCH", 10)

    def stop(_done: int, _runs: int, rows: int) -> None:
        if rows == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        join_shares(workspace.folder / "all.db", ledgers(workspace), progress=stop)
    with closing(Ledger(str(workspace.folder / "all.db"))) as ledger:
        assert ledger.runs() == []
    assert sum(joined(workspace).counts.values()) == len(LIST) + 3


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def typed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Type a command in the shop's folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(workspace.folder)
    write_csv(
        workspace.folder / "merchants.csv",
        ("appid", "name", "env", "default"),
        ((m.appid, m.name, m.env, "yes" if m.default else "") for m in MERCHANTS),
    )

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        shared = ("--target", workspace.sim.base, "--tokens", "tokens.csv") if words[0] != "ledger" else ()
        return run_command([*words, *shared]), *capsys.readouterr()

    return run


QUICKLY = ("--backoff", "0.01", "--slow-wait", "0.05")
LISTED = ("list.csv", "--on-bad", "skip", "--fix-me", "fix.csv")


@pytest.mark.slow
def test_five_machines_and_the_commands_that_join_them(workspace: Workspace, typed: Any) -> None:
    for number in range(1, OF + 1):
        code, out, err = typed(
            "upload",
            *LISTED,
            "--root",
            "files",
            *QUICKLY,
            "--share",
            f"{number}/{OF}",
            "--ledger",
            f"{number}.db",
        )
        assert code in {0, 1}
        assert f"Share {number}/{OF}: " in err
    code, out, err = typed("ledger", "join", "all.db", *(f"{number}.db" for number in range(1, OF + 1)))
    assert code == 0
    assert f"joins 5 shares: {len(LIST) + 3} rows." in out
    report = next(line for line in err.splitlines() if line.startswith("tcb-ops report "))
    assert f"--ledger {workspace.folder / 'all.db'}" in report
    head, again = err.splitlines()[-2:]
    assert head.startswith("When the causes are fixed, run ")
    assert again == report.replace("tcb-ops report ", "tcb-ops retry ")
    code, out, err = typed("ledger", "join", "all.db", *(f"{n}.db" for n in range(1, OF + 1)), "--json")
    found = json.loads(out)
    assert (code, found["copied"], found["rows"]) == (0, [], len(LIST) + 3)
    assert sum(found["counts"].values()) == found["rows"]


@pytest.mark.slow
def test_a_share_without_merchants_has_a_run_without_rows(workspace: Workspace, typed: Any) -> None:
    for number, ledger in ((1, "1.db"), (2, "2.db"), (3, "3.db")):
        code, _out, err = typed(
            "upload", *LISTED, "--root", "files", *QUICKLY, "--where", "appid=wx00",
            "--share", f"{number}/3", "--ledger", ledger,
        )  # fmt: skip
        assert code in {0, 1}
    assert "no merchant of the list belongs to it" in err or "Share 3/3: " in err
    assert typed("ledger", "join", "all.db", "1.db", "2.db", "3.db")[0] == 0
    code, out, _err = typed("check", *LISTED, "--share", "1/1000", "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["share"]) == (0, 0, "1/1000")
    assert typed("audit", "--share", "1/1000", *QUICKLY)[0] == 0


@pytest.mark.parametrize("value", ["0/5", "6/5", "five", "2/5/1"])
@pytest.mark.parametrize("command", ["check", "links", "upload", "audit"])
def test_a_wrong_share_is_refused_by_the_command(
    command: str, value: str, workspace: Workspace, typed: Any
) -> None:
    words = () if command == "audit" else LISTED
    code, out, err = typed(command, *words, "--share", value)
    assert (code, out) == (2, "")
    assert f"Invalid value for '--share': must be K/N, such as 2/5, with K from 1 to N, not '{value}'." in err
    assert workspace.sim.stats["link_calls"] == 0


def test_suggested_commands_repeat_the_share(workspace: Workspace, typed: Any) -> None:
    from tcb_ops.runs.next_commands import resume

    code, _out, err = typed("upload", "list.csv", "--root", "files", "--share", "2/5")
    assert code == 2
    assert "--share 2/5" in next(line for line in err.splitlines() if line.startswith("tcb-ops upload "))
    begun = tcb.start_upload(workspace.read(on_bad="skip"), settings=workspace.settings, share=(2, OF))
    begun.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        begun.wait()
    words = resume(workspace.settings, begun.record)
    assert words[words.index("--share") + 1] == "2/5"
    ledger = ("--ledger", workspace.settings.ledger)
    code, _out, err = typed("upload", "--resume", begun.id, "--share", "3/5", *ledger)
    assert (code, "it is share 2/5 of its list" in err) == (2, True)
    code, _out, _err = typed(
        "upload", "--resume", begun.id, "--share", "2/5", "--root", "files", *QUICKLY, *ledger
    )
    assert code in {0, 1}

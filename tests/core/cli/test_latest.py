"""`latest`: the latest upload or links run, with its retries and corrections; other runs by --kind or id."""

import pytest
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault


@pytest.fixture
def retried(open_cli):
    """An upload with two causes, of which one was retried; and an audit since. Give the command line and the two runs."""
    cli = open_cli(
        many(TEA, BOOKS, rows=2),
        [
            Fault(env=TEA.env, errcode=85088, calls=((1, 1),)),
            Fault(path="banner/0.png", env=BOOKS.env, errcode=40097),
        ],
    )
    assert cli.upload().code == 1
    first = cli.latest().id
    assert cli("retry", "latest", "--errcode", "85088").code == 0
    retry = cli.latest().id
    cli("audit")
    return cli, first, retry


def test_what_is_left_of_an_upload_is_retried_whatever_ran_since(retried):
    cli, first, retry = retried
    again = cli("retry", "--json")
    assert (again.code, again.json["counts"]) == (1, {"refused": 1})
    assert cli.latest().record.parent == first
    assert f"Retrying upload {first} with its retries and corrections {retry} (list.csv)" in again.err


@pytest.mark.needs("health")
@pytest.mark.parametrize("command", ["show", "errcodes", "report", "open --print", "why"])
def test_commands_about_a_run_take_the_upload_with_its_retries(retried, command):
    cli, first, retry = retried
    result = cli(*command.split(), "latest")
    assert f"{first} with its retries and corrections {retry}" in f"{result.out}\n{result.err}"
    assert "banner/1.png" not in result.out
    assert "85088" not in result.out


@pytest.mark.needs("evidence")
def test_what_is_reported_and_opened_is_the_last_state_of_each_row(retried):
    cli, first, retry = retried
    folder = cli.folder / f"reports/{first}-final"
    assert cli("open", "--print").out.strip() == str(folder / "report.html")
    assert (folder / "failed.csv").read_text(encoding="utf-8-sig").count("\n") == 2
    assert cli("verify", str(folder)).code == 0
    for command in ("show", "report"):
        shown = cli(command, "latest", "--json").json
        assert (shown["run"], shown["retries"], shown["counts"]) == (
            first,
            [retry],
            {"uploaded": 3, "refused": 1},
        )
        assert "retries" not in cli(command, first, "--json").json
    assert "2 rows" in cli("errcodes", first).out  # by its id, the run itself


@pytest.mark.needs("health")
def test_other_runs_are_named_by_kind_or_id(retried):
    cli, _first, retry = retried
    audit = cli.latest().id
    assert cli("show", "--kind", "audit", "--json").json["run"] == audit
    assert cli("show", "--kind", "any", "--json").json["run"] == audit
    assert cli("show", retry, "--json").json["counts"] == {"uploaded": 2}


@pytest.mark.needs("health")
def test_a_ledger_of_audits_says_how_to_name_one(open_cli):
    cli = open_cli(many(TEA, rows=1))
    cli("audit")
    audit = cli.latest().id
    refused = cli("errcodes")
    assert (refused.code, f"The newest run is {audit} (audit): give its id. " in refused.err) == (2, True)
    assert cli("errcodes", audit).code == 0


def test_a_code_names_the_rows_that_ended_with_it_last(open_cli):
    faults = [
        Fault(env=BOOKS.env, errcode=85088, calls=((1, 1),)),
        Fault(env=BOOKS.env, errcode=61003, calls=((2, 2),)),
    ]
    cli = open_cli(many(BOOKS, rows=1), faults)
    assert (cli.upload().code, cli("retry").code) == (1, 1)
    refused = cli("retry", "--errcode", "85088")
    assert (refused.code, "Its codes: 61003." in refused.err) == (2, True)
    assert cli("retry", "--errcode", "61003").code == 0


def test_python_follows(retried):
    cli, first, _retry = retried
    settings = cli.workspace.settings
    run = tcb.open_run("latest", settings=settings)
    assert (run.id, run.counts) == (first, {"uploaded": 3, "refused": 1})
    assert tcb.errcodes(settings=settings).to_numpy().sum() == 1
    assert tcb.open_run(first, settings=settings).counts == {"uploaded": 1, "refused": 3}


@pytest.mark.needs("stored")
@pytest.mark.parametrize("command", [("show",), ("open", "--print"), ("confirm",)])
def test_a_name_that_cannot_be_looked_for_as_a_folder_is_an_unknown_run(open_cli, command):
    """As any name in a working folder that this user may not enter."""
    cli = open_cli(many(TEA, rows=1))
    assert cli.upload().code == 0
    result = cli(*command, "a" * 300)
    assert result.code == 2
    assert "tcb-ops runs" in result.err

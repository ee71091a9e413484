"""What an old ledger and its reports say stays the same: the runs that tests/histories.py has made."""

import json
import shutil
from dataclasses import replace

import pytest
from histories import HISTORIES, KEPT, WHOLE

from tcb_ops.cli.main import run as run_command
from tcb_ops.ledger.ledger import Ledger

REPORTS = sorted(folder for folder in HISTORIES.iterdir() if folder.is_dir())
IDS = [json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["run"] for folder in REPORTS]
LINKS, LATER_LINKS = IDS[0], IDS[1]


@pytest.fixture
def command(tmp_path, capsys):
    shutil.copy(HISTORIES / "ledger.db", tmp_path)
    (tmp_path / "tokens.csv").write_text("appid,access_token\nwxtea,token-of-wxtea\n", encoding="utf-8")
    (tmp_path / "tcb-ops.toml").write_text(
        f'target = "http://127.0.0.1:18080"\nledger = "ledger.db"\nlang = "en"\ntimezone = "Asia/Shanghai"\n'
        f'merchants = "{(HISTORIES / "merchants.csv").as_posix()}"\n[tokens]\nsource = "file"\nfile = "tokens.csv"\n',
        encoding="utf-8",
    )

    def run(name, *words):
        capsys.readouterr()
        code = run_command((name, "--config", str(tmp_path / "tcb-ops.toml"), *map(str, words)))
        return code, capsys.readouterr().out

    return run


@pytest.mark.needs("evidence")
@pytest.mark.needs("stored")
@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("kept", "run"), list(zip(REPORTS, IDS, strict=True)), ids=[folder.name for folder in REPORTS]
)
def test_a_report_of_an_old_run_has_the_same_rows_and_is_genuine(command, tmp_path, kept, run):
    assert command("report", run, "--out", tmp_path / "report")[0] == 0
    for name in KEPT[:-1]:
        assert (tmp_path / "report" / name).read_bytes() == (kept / name).read_bytes(), name
    assert command("verify", tmp_path / "report")[0] == 0


@pytest.mark.needs("evidence")
def test_an_old_report_is_still_genuine(command):
    assert command("verify", REPORTS[WHOLE])[0] == 0


@pytest.mark.needs("evidence")
def test_old_runs_are_compared_as_before(command):
    code, out = command("diff", LATER_LINKS, LINKS, "--json")
    counts = json.loads(out)["counts"]
    assert (code, counts["newly_broken"], counts["still_broken"], counts["still_good"]) == (1, 1, 4, 7)
    assert command("diff", LINKS, LATER_LINKS)[0] == 0


@pytest.mark.parametrize("run", IDS)
def test_the_sums_that_a_run_was_finished_with_are_those_of_its_rows(tmp_path, run):
    ledger = Ledger(shutil.copy(HISTORIES / "ledger.db", tmp_path))
    record = ledger.run(run)
    assert record.finished_at is not None
    assert ledger.tallies(record) == ledger.tallies(replace(record, finished_at=None)) != []


def test_an_old_runs_errcodes_are_the_same(command):
    code, out = command("errcodes", LINKS, "--json")
    errcodes = {(each["env"], each["errcode"], each["rows"]) for each in json.loads(out)["errcodes"]}
    assert (code, errcodes) == (
        0,
        {("cake-0c0c0c", 61003, 3), ("tea-1a2b3c", 85088, 1), ("books-77aa01", -601012, 1)},
    ), out

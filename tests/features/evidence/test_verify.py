"""`verify` names what differs, and says what it could not look at."""

import hashlib
import json
import os
import shutil

import pytest
from tables import table

from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.command import verification_verdict
from tcb_ops.features.evidence.verify import State, check_report
from tcb_ops.i18n import Lang
from tcb_ops.ledger.records import END_COLUMNS, PLAN_COLUMNS, Usage
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.export import read_manifest

COPIED = dict.fromkeys((*PLAN_COLUMNS[3:], *END_COLUMNS))
GOOD = RowEnd(0, Outcome.UPLOADED, errcode=0, md5="ab" * 16, started_at=1764034000.25, ended_at=1764034001.5)
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, errmsg="no, 云开发")


def wrong(found):
    return {check.what: check.text.en for check in found.checks if check.state is State.DIFFERS}


def unknown(found):
    """What the check says that the ledger does not know the run."""
    (text,) = (check.text.en for check in found.checks if check.state is State.UNKNOWN)
    return text


def change(file, old, new):
    text = file.read_bytes().decode()
    assert text.count(old) >= 1
    file.write_bytes(text.replace(old, new, 1).encode())


def sql(reported, statement):
    with reported.ledger.writing() as connection:
        connection.execute(statement)


def manifest_as_is(out):
    """Whoever changed a file has the manifest agree with it."""
    told = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    for name in told["files"]:
        body = (out / name).read_bytes()
        told["files"][name] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    (out / "manifest.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("lang", list(Lang))
@pytest.mark.parametrize("finished", [True, False])
def test_a_report_is_what_was_exported(a_run, every_end, tmp_path, lang, finished):
    cells = ('=1+1,"x"\n', "{path}")
    reported = a_run((*every_end, GOOD, REFUSED), finished=finished, cells=cells, target="simulator")
    out = reported.export(tmp_path / "out", lang=lang)
    found = check_report(out, reported.ledger)
    assert wrong(found) == {}
    assert found.good
    states = {check.what: check.state for check in found.checks}
    assert states["rows"] is State.SAME
    assert states["input"] is State.NOT_CHECKED
    assert set(states) == {"rows", "input", *(file.name for file in out.iterdir())}
    assert "Every file is identical to the one exported" in found.proves.en


@pytest.mark.parametrize("ends", [[], [GOOD, REFUSED]], ids=["empty", "two rows"])
def test_a_run_that_lacked_only_its_end_bears_its_report_out_all_the_same(a_run, tmp_path, ends):
    reported = a_run(ends, finished=False)
    out = reported.export(tmp_path / "out")
    reported.ledger.finish(reported.run, 1.8e9)
    assert check_report(out, reported.ledger).good


def test_a_changed_file_a_missing_one_and_an_added_one_are_named(a_run, tmp_path):
    reported = a_run([GOOD, REFUSED])
    out = reported.export(tmp_path / "out")
    change(out / "errcodes.csv", "85088", "85089")
    (out / "report.html").write_text("short", encoding="utf-8")
    (out / "failed.csv").unlink()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    (out / ".DS_Store").touch()
    (out / "failed.fix-me.csv").touch()  # left by `tcb-ops check failed.csv`
    (out / "results.fix-me.csv.txt").touch()
    found = wrong(check_report(out, reported.ledger))
    assert set(found) == {
        "errcodes.csv",
        "report.html",
        "failed.csv",
        "notes.txt",
        "results.fix-me.csv.txt",
    }
    assert "same size" in found["errcodes.csv"]
    assert "5 now" in found["report.html"]
    assert found["failed.csv"] == "is missing."


@pytest.mark.parametrize(
    "changed",
    ["outcome = 'uploaded'", 'detail = \'{"code":"too_large","params":{"host":"a"}}\''],
    ids=["outcome", "what no column of the CSVs has"],
)
def test_a_ledger_whose_rows_were_changed_is_found_out(a_run, tmp_path, changed):
    reported = a_run([GOOD, REFUSED, GOOD])
    out = reported.export(tmp_path / "out")
    sql(reported, f"UPDATE rows SET {changed} WHERE line = 3")
    found = wrong(check_report(out, reported.ledger))
    assert set(found) == {"rows"}
    assert "changed after the export" in found["rows"]


@pytest.mark.parametrize(
    ("statement", "result"),
    [
        ("DELETE FROM rows WHERE line = 4", "was planned with 3 rows, but 2 can be read"),
        ("UPDATE runs SET rows = 2", "was planned with 2 rows, but 3 can be read"),
        (
            "INSERT INTO rows (run, line, place, *) SELECT run, 9, place, * FROM rows WHERE line = 4",
            "but 4 can be read",
        ),
        ("DELETE FROM envs WHERE no = 1", "values that tcb-ops does not write"),
    ],
)
def test_a_ledger_that_lost_rows_is_a_difference_of_its_own(a_run, tmp_path, statement, result):
    reported = a_run([GOOD, REFUSED, GOOD])
    out = reported.export(tmp_path / "out")
    for one in statement.split("; "):
        sql(reported, one.replace("*", ", ".join(COPIED)))
    found = wrong(check_report(out, reported.ledger))
    assert set(found) == {"ledger"}
    assert result in found["ledger"]
    assert str(tmp_path / "reports.db") in found["ledger"]


def test_a_run_that_went_on_since_says_so(a_run, tmp_path):
    reported = a_run([GOOD, RowEnd(0, Outcome.PENDING)], finished=False)
    out = reported.export(tmp_path / "out")
    reported.ledger.record(reported.run, [RowEnd(3, Outcome.UPLOADED)], Usage())
    found = wrong(check_report(out, reported.ledger))
    assert "has been resumed since" in found["rows"]


def test_without_the_ledger_or_its_run_it_says_what_was_not_checked(a_run, tmp_path):
    reported = a_run([GOOD])
    out = reported.export(tmp_path / "out")
    found = check_report(out, None)
    assert found.good
    assert {check.what: check.state for check in found.checks}["rows"] is State.NOT_CHECKED
    assert "compared with manifest.json only" in found.proves.en
    sql(reported, "UPDATE runs SET id = id || '-and-more'")
    found = check_report(out, reported.ledger)
    assert (found.good, wrong(found)) == (False, {})
    assert "reports.db does not know run 20251125-093000-k7q2." in unknown(found)
    assert verification_verdict(found).en.startswith(
        "The files are as manifest.json has them, but the ledger does not"
    )
    (out / "errcodes.csv").write_text("", encoding="utf-8")
    assert (
        "differs from what was exported: 1 of" in verification_verdict(check_report(out, reported.ledger)).en
    )


def test_a_copy_of_an_older_report_is_still_known(a_run, tmp_path):
    reported = a_run([GOOD, RowEnd(0, Outcome.PENDING)], finished=False)
    older = tmp_path / "elsewhere"
    shutil.copytree(reported.export(tmp_path / "out"), older)
    reported.export(tmp_path / "out", lang=Lang.ZH)
    assert check_report(older, reported.ledger).good
    assert check_report(tmp_path / "out", reported.ledger).good


def _unmarked(out, told):
    del told["simulated"], told["mark"], told["files"]["SIMULATED-演练.txt"]
    (out / "SIMULATED-演练.txt").unlink()


def _no_failed_csv(out, told):
    (out / "failed.csv").unlink()
    del told["files"]["failed.csv"]


PAGE, RESULTS = ("not: 2 refused", "not: 1 refused"), (",refused,", ",uploaded,")


@table(
    "tamper, what, result",
    {
        "a page that says otherwise": (lambda out, _: change(out / "report.html", *PAGE), None, ""),
        "another operator": (lambda _, told: told.update(operator="wang.wu"), None, ""),
        "a good row": (lambda out, _: change(out / "results.csv", *RESULTS), None, ""),
        "unmarked": (_unmarked, "SIMULATED-演练.txt", "not listed in manifest.json"),
        "no digest": (lambda _, told: told.update(rows_digest=""), "rows", "their digest in manifest.json"),
        "no failed.csv": (_no_failed_csv, "failed.csv", "not listed in manifest.json"),
    },
)
def test_who_changes_the_manifest_along_with_a_file_is_found_out_by_the_ledger(
    a_run, tmp_path, tamper, what, result
):
    reported = a_run([GOOD, REFUSED, REFUSED], target="simulator")
    out = reported.export(tmp_path / "out")
    told = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    tamper(out, told)
    (out / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    manifest_as_is(out)
    found = wrong(check_report(out, reported.ledger))
    assert set(found) == {"manifest.json", *filter(None, [what])}
    assert "was not exported with this ledger" in found["manifest.json"]
    assert result in found.get(what, "")


@pytest.mark.parametrize("rows", ['"x"', "null", "{}"])
def test_a_manifest_without_a_number_of_rows_is_none(a_run, tmp_path, rows):
    out = a_run([GOOD]).export(tmp_path / "out")
    assert read_manifest(out) is not None
    change(out / "manifest.json", '"rows": 1,', f'"rows": {rows},')
    assert read_manifest(out) is None


def test_a_manifest_that_names_another_run_proves_nothing(a_run, tmp_path):
    reported = a_run([GOOD, REFUSED])
    out = reported.export(tmp_path / "out")
    change(out / "manifest.json", reported.run.id, "20251125-093000-zzzz")
    found = check_report(out, reported.ledger)
    assert not found.good
    assert "does not know run 20251125-093000-zzzz" in unknown(found)


def test_the_list_is_compared_where_it_still_is(a_run, tmp_path):
    body = b"env,path\n"
    reported = a_run([GOOD], list_sha256=hashlib.sha256(body).hexdigest(), root=str(tmp_path / "root"))
    out = reported.export(tmp_path / "out")

    def state():
        checks = check_report(out, reported.ledger, [tmp_path / "here"]).checks
        return next(check.state for check in checks if check.what == "input")

    assert state() is State.NOT_CHECKED
    for place in ("root", "here"):
        (tmp_path / place).mkdir()
    (tmp_path / "here" / "清单.csv").write_bytes(b"another week's")
    assert state() is State.DIFFERS
    (tmp_path / "root" / "清单.csv").write_bytes(body)
    assert state() is State.SAME


def make_pipe(file):
    """A pipe without a writer, whose opening would wait; where there are none, no file."""
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)


SPOILED = {
    "no manifest": lambda manifest: manifest.unlink(),
    "another tool's": lambda manifest: manifest.write_text('{"name": "app", "files": []}', encoding="utf-8"),
    "garbage": lambda manifest: manifest.write_bytes(b"\xff{"),
    "a pipe": lambda manifest: (manifest.unlink(), make_pipe(manifest)),
    "leads out": lambda manifest: change(manifest, '"results.csv"', '"../../etc/passwd"'),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_folder_that_holds_no_report_is_refused(a_run, tmp_path, spoil):
    out = a_run([GOOD]).export(tmp_path / "out")
    spoil(out / "manifest.json")
    with pytest.raises(UsageError, match="contains no tcb-ops report"):
        check_report(out, None)


def result(why):
    """A row's detail by the definition."""
    if why is None:
        return ""
    if str(why.code) == "store_message":
        return str(why.params["message"])
    if str(why.code) == "text" and why.params["en"] == why.params["zh"]:
        return str(why.params["en"])
    kept = {"code": str(why.code), "params": dict(why.params)}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


@pytest.mark.integration
def test_the_digest_is_what_the_module_says_it_is(a_run, every_end, tmp_path):
    """Computed here from the definition alone, over more rows than are encoded at a time."""
    reported = a_run((*every_end, GOOD) * 50, finished=False)
    rows = []
    for record in reported.ledger.rows(reported.run):
        row, end = record.row, record.end
        times = [None if at is None else round(at * 1000) for at in (end.started_at, end.ended_at)]
        rows.append([
            row.line, row.env, row.appid, row.merchant, row.path, row.file, row.size, list(row.cells),
            str(end.outcome), str(end.reason or ""), result(end.detail), end.errcode, end.errmsg, end.rid,
            end.http_status, end.store_code, end.attempts, end.bytes, end.md5, end.file_id, *times, row.content_type, row.cache_control,
        ])  # fmt: skip
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    told = json.loads((reported.export(tmp_path / "out") / "manifest.json").read_text(encoding="utf-8"))
    assert told["rows_digest"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("facts", [{}, {"sha256": "ab" * 32}, {"sha256": "ab" * 32, "bytes": "many"}])
def test_a_manifest_without_the_facts_of_a_file_is_none(a_run, tmp_path, facts):
    out = a_run([GOOD]).export(tmp_path / "out")
    told = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    told["files"]["results.csv"] = facts
    (out / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(UsageError, match=r"manifest\.json is missing or invalid"):
        check_report(out, None)

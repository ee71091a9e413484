"""A report's page with its data inside: one file that can be checked, and read as a run."""

import gzip
import hashlib
import json
import shutil
import tracemalloc
from base64 import b64encode
from dataclasses import replace

import pandas as pd
import pytest
from features.evidence.test_signature import new_key, signers_of

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.verify import State
from tcb_ops.model import Outcome, RowEnd
from tcb_ops.reports.export import ERRCODES, MANIFEST, PAGE, RESULTS, SIGNATURE, export
from tcb_ops.reports.page_data import MOST, read_page
from tcb_ops.run import Run
from tcb_ops.settings import ReportSettings

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
GOOD = RowEnd(0, Outcome.UPLOADED, errcode=0, md5="ab" * 16, started_at=1764034000.25, ended_at=1764034001.5)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return new_key(tmp_path_factory.mktemp("keys") / "signer")


@pytest.fixture
def elsewhere(in_english, tmp_path):
    """Settings of a machine without the ledger."""
    return replace(in_english, ledger=str(tmp_path / "elsewhere" / "none.db"))


@pytest.fixture
def sent(a_run, every_end, in_english, tmp_path):
    """Export a report with data; give a copy of its page, which is alone in a folder."""

    def exported(key=None, name="report", ends=every_end, **about):
        reported = a_run(ends, **about)
        settings = replace(in_english, report=ReportSettings(sign=key)) if key else in_english
        now = 1_764_036_000.0
        report = export(reported.ledger, reported.run, tmp_path / name, settings, now=now, with_data=True)
        exported.run, exported.settings = Run(reported.ledger, reported.run, settings), settings
        (tmp_path / f"{name}-alone").mkdir()
        return shutil.copy(report / PAGE, tmp_path / f"{name}-alone" / "sent.html")

    return exported


def states(verification):
    return {check.what: check.state for check in verification.checks}


def wrong(file, settings, signers):
    """What is wrong with a page, for `verify` and for `open_report`."""
    try:
        found = tcb.verify(file, signers=signers, settings=settings)
    except UsageError as error:
        found = error
    else:
        assert found.good is (State.DIFFERS not in states(found).values())
        found = [check.what for check in found.checks if check.state is State.DIFFERS]
    if found:
        with pytest.raises(UsageError):
            tcb.open_report(file, signers=signers, settings=settings)
    return found


def test_a_page_with_data_is_checked_and_read_without_its_folder_or_ledger(sent, key, elsewhere):
    page, signers = sent(key), signers_of(key)
    found = tcb.verify(page, signers=signers, settings=elsewhere)
    assert found.good
    assert {what for what, state in states(found).items() if state is State.SAME} == {
        *(RESULTS, ERRCODES, PAGE, SIGNATURE)
    }
    run, saved = sent.run, tcb.open_report(page, signers=signers, settings=elsewhere)
    assert (saved.id, saved.counts, saved.succeeded) == (run.id, run.counts, run.succeeded)
    assert "ops@example.com" in saved.signer.en
    for name in ("results", "failed"):
        ours, theirs = getattr(saved, name)(), getattr(run, name)()
        for time in ("tcb_started_at", "tcb_ended_at"):
            theirs[time] = theirs[time].dt.round("ms")
        pd.testing.assert_frame_equal(ours, theirs)
    pd.testing.assert_frame_equal(pd.DataFrame(saved.errcodes()), pd.DataFrame(run.errcodes()))
    pd.testing.assert_frame_equal(pd.DataFrame(saved.causes()), pd.DataFrame(run.causes()))
    assert run.verdict.en in repr(saved)
    assert "<table" in saved._repr_html_()


def test_the_cells_of_a_list_come_back_as_they_were(sent, elsewhere):
    page = sent(ends=[GOOD, GOOD], cells=('=1+1,"x"\n二', "{path}\x07"))
    assert sent.run.results().equals(tcb.open_report(page, settings=elsewhere).results())


def test_a_saved_run_cannot_be_retried_or_undone(sent, elsewhere):
    saved = tcb.open_report(sent(), settings=elsewhere)
    for change in (tcb.retry, tcb.undo, tcb.delete, tcb.resume):
        with pytest.raises(tcb.ArgumentError):
            change(saved, settings=elsewhere)


def test_the_page_says_whether_it_is_signed_and_has_data(sent, key, tmp_path):
    with_both = sent(key).read_text("utf-8")
    assert "inside this page" in with_both
    assert 'href="manifest.json.sig"' in with_both
    plain = sent.run.export(tmp_path / "plain")
    text = (
        sent.run.with_settings(replace(sent.settings, report=ReportSettings())).export(plain) / PAGE
    ).read_text("utf-8")
    assert "not in this page" in text
    assert "manifest.json.sig" not in text
    with pytest.raises(UsageError, match="contains no tcb-ops report"):
        tcb.verify(plain / PAGE, settings=sent.settings)


def test_a_folder_whose_page_has_data_is_checked_as_any_other(sent, key, tmp_path):
    page = sent(key)
    folder, signers = tmp_path / "report", signers_of(key)
    assert tcb.verify(folder, signers=signers, settings=sent.settings).good
    again = sent.run.export(tmp_path / "again", with_data=True)
    shutil.copy(again / PAGE, folder / PAGE)  # the same run, exported at another time
    assert states(tcb.verify(folder, settings=sent.settings))[PAGE] is State.DIFFERS
    content = page.read_bytes()
    end = content.index(b"<!-- tcb-ops manifest.json\n")
    (folder / PAGE).write_bytes(content[:end] + (again / PAGE).read_bytes()[-(len(content) - end) :])
    assert states(tcb.verify(folder, settings=sent.settings))[PAGE] is State.DIFFERS


def test_one_changed_byte_anywhere_in_a_page_is_found(sent, key, elsewhere):
    page, signers = sent(key, ends=[GOOD, GOOD]), signers_of(key)
    content = page.read_bytes()
    marks = [at for at in range(len(content)) if content.startswith(b"<!-- tcb-ops ", at)]
    near = [at + more for at in marks for more in (*range(-9, 1), 14, 30, 45, 90, 200)]
    places = [*range(0, marks[0], 2_500), *(place for place in near if place < len(content))]
    assert wrong(page, elsewhere, signers) == []
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        page.write_bytes(changed)
        assert wrong(page, elsewhere, signers), place
    page.write_bytes(content[:-1])
    assert wrong(page, elsewhere, signers)
    page.write_bytes(content + b"<p>more</p>")
    assert wrong(page, elsewhere, signers)


def block(name, body):
    return b"<!-- tcb-ops %s\n%s\n-->\n" % (name, b64encode(body))


@pytest.fixture
def two(sent, key):
    """The pages of two runs, both signed, cut before each block."""
    pages = sent(key, "one", [GOOD, GOOD]), sent(key, "other", [GOOD], id="20251126-093000-zzzz")
    return pages[0], *(page.read_bytes().split(b"<!-- tcb-ops ") for page in pages)


@pytest.mark.parametrize(
    ("of_other", "found"),
    [
        ({1}, [PAGE, RESULTS]),
        ({1, 2}, [PAGE, RESULTS]),
        ({3}, [PAGE, RESULTS, SIGNATURE]),
        ({3, 4}, [PAGE, RESULTS]),
        ({4}, [SIGNATURE]),
        ({0}, [PAGE]),
    ],
    ids=["data", "all data", "manifest", "proof", "signature", "page"],
)
def test_parts_of_another_signed_report_do_not_fit(two, key, elsewhere, of_other, found):
    page, own, other = two
    parts = [other[at] if at in of_other else part for at, part in enumerate(own)]
    page.write_bytes(b"<!-- tcb-ops ".join(parts))
    assert wrong(page, elsewhere, signers_of(key)) == found


def test_a_page_that_lost_its_signature_or_has_one_of_another_key_is_found(two, key, tmp_path, elsewhere):
    page, own, _other = two
    other_signers = signers_of(new_key(tmp_path / "other-key"))
    assert wrong(page, elsewhere, other_signers) == [SIGNATURE]
    page.write_bytes(b"<!-- tcb-ops ".join(own[:-1]))
    assert wrong(page, elsewhere, None) == [SIGNATURE]
    page.write_bytes(b"<!-- tcb-ops ".join(own[:-2]))
    with pytest.raises(UsageError, match="contains no tcb-ops report"):
        tcb.open_report(page, settings=elsewhere)


def test_an_unsigned_page_says_that_nothing_proves_it(sent, key, elsewhere):
    page = sent()
    assert "Not signed" in tcb.open_report(page, settings=elsewhere).signer.en
    assert wrong(page, elsewhere, signers_of(key)) == [SIGNATURE]


def test_a_signature_that_cannot_be_checked_does_not_open_a_page(sent, key, elsewhere, tmp_path, monkeypatch):
    page = sent(key)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not tcb.verify(page, signers=signers_of(key), settings=elsewhere).good
    with pytest.raises(UsageError, match="there is no ssh-keygen"):
        tcb.open_report(page, signers=signers_of(key), settings=elsewhere)
    assert "there is no ssh-keygen" in tcb.open_report(page, settings=elsewhere).signer.en


@pytest.mark.parametrize("name", [b"results.csv.gz", b"errcodes.csv.gz"])
def test_what_would_fill_the_memory_is_not_unpacked(sent, elsewhere, name):
    page = sent(ends=[GOOD])
    before, mark, after = page.read_bytes().partition(b"<!-- tcb-ops " + name)
    bomb = gzip.compress(bytes(4 * MOST), 1)
    page.write_bytes(before + block(name, bomb) + after.partition(b"-->\n")[2])
    assert mark
    tracemalloc.start()
    try:
        assert read_page(page) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST
    finally:
        tracemalloc.stop()
    with pytest.raises(UsageError, match="is damaged"):
        tcb.open_report(page, settings=elsewhere)


def test_a_run_too_large_for_a_page_is_refused_and_nothing_is_written(a_run, in_english, tmp_path):
    reported = a_run([GOOD] * 1_100, cells=("x" * 60_000, "{path}"))
    run = Run(reported.ledger, reported.run, in_english)
    with pytest.raises(UsageError, match=r"has 66\.\d MB, and a page carries 64 MB at most"):
        run.export(tmp_path / "report", with_data=True)
    assert [*tmp_path.glob("report")] == [*tmp_path.glob("*.part*")] == []


def forged(page, csv=None, **told):
    """Write a page whose parts agree with one another."""
    inside = read_page(page)
    data = inside.data if csv is None else dict.fromkeys(inside.data, csv)
    html = inside.page[: inside.page.index(b"<!-- tcb-ops")]
    html += b"".join(block(f"{name}.gz".encode(), gzip.compress(body)) for name, body in data.items())
    manifest = json.loads(inside.proof[MANIFEST]) | told
    for name, body in {PAGE: html, **data}.items():
        manifest["files"][name] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    page.write_bytes(html + block(MANIFEST.encode(), json.dumps(manifest).encode()))
    return page


@pytest.mark.parametrize("csv", [b"tcb_line,", b"\xff", b"", b"\x00", b"a\r\n1"])
def test_a_page_whose_data_is_of_another_form_is_refused_in_words(sent, elsewhere, csv):
    saved = tcb.open_report(forged(sent(ends=[GOOD]), csv), settings=elsewhere)
    for read in (saved.results, saved.failed, saved.causes, saved.errcodes):
        with pytest.raises(UsageError, match="has another form"):
            read()


def test_text_of_a_stranger_is_shown_escaped_and_a_simulated_run_is_marked(sent, elsewhere):
    page = forged(sent(target="simulator"), verdict="All is well.\x1b[2J<script>")
    saved = tcb.open_report(page, settings=elsewhere)
    assert repr(saved).startswith("SIMULATED 演练 · All is well.␛[2J")
    assert "<script>" not in saved._repr_html_()


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_page_with_another_manifest_inside_contains_no_report(sent, elsewhere, manifest):
    page = sent()
    before = page.read_bytes().partition(b"<!-- tcb-ops manifest.json\n")[0]
    page.write_bytes(before + block(MANIFEST.encode(), manifest))
    for read in (tcb.verify, tcb.open_report):
        with pytest.raises(UsageError, match=f"{page.name} contains no tcb-ops report"):
            read(page, settings=elsewhere)

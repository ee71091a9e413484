"""A report's signature: by OpenSSH, checked by `verify` and by anybody with ssh-keygen."""

import json
import os
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.command import verification_verdict
from tcb_ops.features.evidence.signature import read_signature, sign
from tcb_ops.features.evidence.verify import State, check_report
from tcb_ops.i18n import Text
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.reports.export import MANIFEST, NAMESPACE, SIGNATURE, export
from tcb_ops.settings import ReportSettings

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None and "TCB_OPS_NEED_BROWSER" not in os.environ, reason="no ssh-keygen"
)
NAME = "ops@example.com"


def keygen(*words, **options):
    return subprocess.run(
        ["ssh-keygen", *map(str, words)], capture_output=True, start_new_session=True, check=False, **options
    )


def new_key(file, passphrase=""):
    assert keygen("-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", file).returncode == 0
    return file


def signers_of(key, name=NAME, options=""):
    file = key.with_name(f"{key.name}.signers")
    file.write_text(f"{name} {options}{key.with_name(f'{key.name}.pub').read_text('utf-8')}", "utf-8")
    return file


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return new_key(tmp_path_factory.mktemp("keys") / "signer")


@pytest.fixture
def signed(a_run, every_end, in_english, tmp_path):
    """Export a report, signed with this key; give its folder."""
    reported = a_run(every_end)

    def exported(key, name="report"):
        settings = replace(in_english, report=ReportSettings(sign=key)) if key else in_english
        return export(reported.ledger, reported.run, tmp_path / name, settings, now=1_764_036_000.0)

    exported.ledger = reported.ledger
    return exported


def of_signature(folder, signers=None, ledger=None):
    checks = {check.what: check for check in check_report(folder, ledger, signers=signers).checks}
    check = checks.get(SIGNATURE)
    return (check.state, check.text.en) if check is not None else None


def with_plain_openssh(folder, signers):
    words = ("-Y", "verify", "-f", signers, "-I", NAME, "-n", NAMESPACE, "-s", folder / SIGNATURE)
    return keygen(*words, input=(folder / MANIFEST).read_bytes()).returncode == 0


def test_a_signed_report_is_known_to_its_signer_here_and_elsewhere(signed, key):
    report = signed(key)
    told = json.loads((report / MANIFEST).read_text("utf-8"))
    assert told["signed"] in keygen("-l", "-f", key).stdout.decode()
    assert SIGNATURE not in told["files"]
    state, text = of_signature(report, signers_of(key))
    assert (state, told["signed"] in text, NAME in text) == (State.SAME, True, True)
    assert with_plain_openssh(report, signers_of(key))
    state, text = of_signature(report)
    assert (state, told["signed"] in text) == (State.NOT_CHECKED, True)
    page = (report / "report.html").read_text("utf-8")
    assert f"is signed with the key {told['signed']}" in page
    assert (
        "ssh-keygen -Y verify -f SIGNERS -I NAME -n tcb-ops-report -s manifest.json.sig &lt; manifest.json"
        in page
    )


def test_without_the_setting_no_report_is_signed_and_the_page_says_so(signed):
    report = signed(None)
    assert not (report / SIGNATURE).exists()
    assert of_signature(report) is None
    assert "<dd>not signed</dd>" in (report / "report.html").read_text("utf-8")


def test_a_signature_proves_a_report_whose_ledger_is_another(signed, key, tmp_path):
    report = signed(key)
    with closing(Ledger(str(tmp_path / "strangers.db"))) as stranger:
        assert not check_report(report, stranger).good
        proven = check_report(report, stranger, signers=signers_of(key))
    assert proven.good
    assert "proves the report" not in verification_verdict(proven).en
    assert NAME in proven.proves.en


@pytest.mark.parametrize("name", ["results.csv", "report.html", "errcodes.csv", MANIFEST, SIGNATURE])
def test_one_changed_byte_is_found(signed, key, name):
    report = signed(key)
    body = bytearray((report / name).read_bytes())
    at = body.index(b'"exported_at": "2') + 16 if name == MANIFEST else len(body) // 2
    body[at] ^= 1
    (report / name).write_bytes(body)
    assert not check_report(report, None, signers=signers_of(key)).good
    if name in {MANIFEST, SIGNATURE}:
        assert of_signature(report, signers_of(key))[0] is State.DIFFERS
        assert not with_plain_openssh(report, signers_of(key))


def test_a_manifest_that_agrees_with_a_changed_file_does_not_fit_its_signature(signed, key):
    report = signed(key)
    text = (report / MANIFEST).read_text("utf-8")
    (report / MANIFEST).write_text(text.replace('"rows": ', '"rows":  '), "utf-8")
    assert of_signature(report) == (
        State.DIFFERS,
        "does not fit manifest.json: one of the two was changed.",
    )


def test_another_key_an_old_one_and_another_purpose_are_refused(signed, key, tmp_path):
    report = signed(key)
    other = signers_of(new_key(tmp_path / "other"))
    state, text = of_signature(report, other)
    assert (state, "with a key that" in text) == (State.DIFFERS, True)
    expired = signers_of(key, options='valid-before="20200101" ')
    assert of_signature(report, expired)[0] is State.DIFFERS
    elsewhere = signers_of(key, options='namespaces="file" ')
    assert of_signature(report, elsewhere)[0] is State.DIFFERS
    (report / SIGNATURE).unlink()
    assert keygen("-Y", "sign", "-f", key, "-n", "file", report / MANIFEST).returncode == 0
    assert of_signature(report, signers_of(key)) == (
        State.DIFFERS,
        "was made for another purpose than reports.",
    )


def test_a_signature_that_is_gone_or_none_is_refused(signed, key, tmp_path):
    report = signed(key)
    (report / SIGNATURE).write_text("signed, honestly", "utf-8")
    assert of_signature(report) == (State.DIFFERS, "is no signature of OpenSSH.")
    (report / SIGNATURE).unlink()
    gone = (State.DIFFERS, "is missing: the report is not signed, or no longer.")
    assert of_signature(report) == gone
    assert of_signature(signed(None, "unsigned"), signers_of(key)) == gone
    with pytest.raises(UsageError, match="there is no such file"):
        of_signature(report, tmp_path / "nobody")


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"-----BEGIN SSH SIGNATURE----- AAAA -----END SSH SIGNATURE-----"]
)
def test_what_is_no_signature_is_not_read_as_one(text):
    assert read_signature(text) is None


def test_a_report_signed_again_or_no_longer_leaves_nothing_of_the_old_one(signed, key, tmp_path):
    other = new_key(tmp_path / "other")
    first = (signed(key) / SIGNATURE).read_bytes()
    report = signed(other)
    assert (report / SIGNATURE).read_bytes() != first
    assert of_signature(report, signers_of(other))[0] is State.SAME
    assert not (signed(None) / SIGNATURE).exists()


def test_a_key_with_a_passphrase_asks_nobody_and_leaves_the_report_unsigned(
    signed, tmp_path, caplog, monkeypatch
):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = new_key(tmp_path / "locked", "a passphrase")
    report = signed(locked)
    assert f"The report is not signed: {locked} has a passphrase that no ssh-agent knows" in caplog.text
    assert not (report / SIGNATURE).exists()
    assert of_signature(report) is None
    assert "<dd>not signed</dd>" in (report / "report.html").read_text("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="a script as a program")
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("echo 'unknown option -- Y' >&2; exit 1", "older than 8.2"),
        ("exit 255", "has a passphrase"),
        ("", "there is no ssh-keygen"),
    ],
)
def test_an_openssh_that_cannot_sign_or_check_says_so(signed, key, tmp_path, monkeypatch, program, why):
    report = signed(key)
    tools = tmp_path / "tools"
    tools.mkdir()
    if program:
        (tools / "ssh-keygen").write_text(f"#!/bin/sh\n{program}\n", "utf-8")
        (tools / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    refused = sign(key, b"")
    assert isinstance(refused, Text)
    assert why in refused.en
    if why != "has a passphrase":
        for signers, expected in ((None, State.NOT_CHECKED), (signers_of(key), State.UNKNOWN)):
            state, text = of_signature(report, signers)
            assert (state, why in text) == (expected, True)
        found = check_report(report, signed.ledger, signers=signers_of(key))
        assert not found.good  # the ledger knows it, but a signer was asked for
        assert "cannot check the signature" in verification_verdict(found).en


def test_the_home_folder_is_meant_by_a_tilde_in_the_settings(tmp_path, monkeypatch):
    from tcb_ops.settings import load_settings

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "tcb-ops.toml").write_text('[report]\nsign = "~/.ssh/id_ed25519"\n', "utf-8")
    assert load_settings(tmp_path / "tcb-ops.toml").report.sign == Path(tmp_path, ".ssh", "id_ed25519")

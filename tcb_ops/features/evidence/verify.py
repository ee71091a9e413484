"""Verification that a report is as it was exported. Names each file that differs.

Every file is compared with manifest.json, the manifest with the SHA-256 that the ledger recorded at the export, and the
digest of the rows in the manifest with the ledger's rows. Without the ledger, a change to a file and to the manifest cannot
be detected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tcb_ops.arguments import checked
from tcb_ops.errors import LedgerDamagedError, RunNotFoundError, UsageError
from tcb_ops.features.evidence.signature import accepts, fits, read_signature, signer_of
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, as_list, ngettext, verbatim
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.ledger.run_view import RunView, merged_run
from tcb_ops.reports.export import (
    ALWAYS,
    COPY,
    DEMO_LEDGER,
    LEFT_BY_DESKTOPS,
    MANIFEST,
    NAMESPACE,
    PAGE,
    SIGNATURE,
    SIMULATED,
    Manifest,
    fingerprint,
    read_manifest,
)
from tcb_ops.reports.formats.csv import rows_digest
from tcb_ops.reports.page_data import DATA, PROOF, read_page
from tcb_ops.settings import LEDGER_FILE, Settings
from tcb_ops.start import existing_ledger, settings_for
from tcb_ops.system_errors import system_reason


class State(StrEnum):
    """The result of a check."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"
    UNKNOWN = "unknown"
    """The ledger does not know the run, or a signature cannot be checked: nothing is known to differ, and nothing is proved."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a file (by its name), `input` (the list), `rows` (against the ledger), or `ledger` (readable)."""

    state: State
    what: str
    text: Text


_differs, _same = partial(Check, State.DIFFERS), partial(Check, State.SAME)
ROWS, INPUT, LEDGER = "rows", "input", "ledger"


@dataclass(frozen=True, slots=True, repr=False)
class Verification(Tabular):
    """The checks of a report folder, or of a page with data."""

    folder: Path
    run: str
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Whether nothing differs, and the ledger knows the run or an allowed signer has signed it.

        With signers, the signature must have been checked; other checks that could not be made do not count.
        """
        states = {check.state for check in self.checks}
        return State.DIFFERS not in states and (State.UNKNOWN not in states or self.signed)

    @property
    def signed(self) -> bool:
        """Whether an allowed signer has signed the manifest."""
        return any(check.what == SIGNATURE and check.state is State.SAME for check in self.checks)

    @property
    def ledger_damaged(self) -> bool:
        """Whether the ledger has lost rows or cannot be read, and so proves nothing."""
        return any(check.what == LEDGER and check.state is State.DIFFERS for check in self.checks)

    @property
    def proves(self) -> Text:
        """What is proven if nothing differs, and what is not."""
        same = {check.what: check.text for check in self.checks if check.state is State.SAME}
        if SIGNATURE in same:
            return _(
                "Every file is identical to the one exported when the manifest was signed; the signature is {whose}.",
                whose=same[SIGNATURE],
            )
        if {ROWS, MANIFEST} <= same.keys():
            return _(
                "Every file is identical to the one exported with this ledger, and the ledger's rows are as they were. "
                "Changes by someone who can also write to the ledger cannot be detected."
            )
        return _(
            "The files were compared with manifest.json only: a change to a file and to the manifest cannot be "
            "detected."
        )

    def _table(self, _lang: Lang) -> Lines:
        lines = [(check.what, str(check.state), check.text) for check in self.checks]
        caption = self.proves if self.good else verbatim(str(self.folder))
        return Lines(caption, ("what", "state", "text"), lines, len(lines))

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the object that `verify --json` prints."""
        return {
            "folder": str(self.folder),
            "run": self.run,
            "good": self.good,
            "checks": [
                {"what": check.what, "state": str(check.state), "text": check.text.of(lang)}
                for check in self.checks
            ],
            **({"proves": self.proves.of(lang)} if self.good else {}),
        }


@checked
def verify(
    folder: str | Path, *, signers: str | Path | None = None, settings: Settings | None = None
) -> Verification:
    """Check a report folder, or a page with data, against its manifest, the ledger and the list, as far as they exist.

    `signers`: an OpenSSH file of allowed signers, one of which must have signed it. Nothing is written. Raises UsageError if
    there is no report.
    """
    settings = settings_for({"settings": settings})
    report = Path(folder)
    lists = (Path(), settings.merchants.parent, *report.absolute().parents[:2])
    allowed = Path(signers) if signers is not None else None
    ledger_file = str(Path(settings.ledger).absolute())
    ledger = existing_ledger(settings)
    if not report.is_file():
        return check_report(report, ledger, lists, ledger_file, allowed)
    with page_as_folder(report) as (inside, _manifest):
        verification = check_report(inside, ledger, lists, ledger_file, allowed, alone=True)
    return replace(verification, folder=report)


@contextmanager
def page_as_folder(file: Path) -> Iterator[tuple[Path, Manifest]]:
    """Write what is inside a page with data to a folder, for a while. Raises UsageError if it is none, or damaged."""
    with TemporaryDirectory(prefix="tcb-ops-", ignore_cleanup_errors=True) as name:
        folder, manifest = Path(name), None
        with suppress(OSError):
            if (inside := read_page(file)) is not None:
                for part, body in {PAGE: inside.page, **inside.data, **inside.proof}.items():
                    (folder / part).write_bytes(body)
                manifest = read_manifest(folder)
        if manifest is None:
            text = _(
                "{file} contains no tcb-ops report: it is not a page with data inside, or it is damaged.",
                file=file,
            )
            fix = _("Give the report's folder, or a page that `tcb-ops report --with-data` wrote.")
            raise UsageError(text, fix)
        yield folder, manifest


def check_report(
    folder: Path,
    ledger: LedgerReader | None,
    lists: Sequence[Path] = (),
    ledger_file: str = LEDGER_FILE,
    signers: Path | None = None,
    *,
    alone: bool = False,
) -> Verification:
    """Check a report folder against its manifest, the ledger (if there is one), and the list (if it is found).

    The list is searched by name in the folders of `lists` and in the run's root. `ledger_file` is the name of a missing
    ledger in messages. `signers`: an OpenSSH file of allowed signers. `alone`: the folder has only what is inside a page.
    Raises UsageError if the folder contains no report.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        text = _("{folder} contains no tcb-ops report: manifest.json is missing or invalid.", folder=folder)
        raise UsageError(text, _("Give the folder that `tcb-ops report` wrote."))
    names = [name for name in manifest.files if not alone or name in {PAGE, *DATA}]
    checks = [_check_file(folder, name, manifest) for name in names]
    copy = f"{MANIFEST}{COPY}"
    if (folder / copy).exists() and any(check.state is State.DIFFERS for check in checks):
        text = _("a newer export did not end and may have replaced some files. Export the report again.")
        checks.insert(0, _differs(copy, text))
    checks += _not_listed(folder, manifest)
    checks.append(_check_input(manifest, lists))
    if signers is not None and not signers.is_file():
        fix = _("It has a line for each signer: a name, and the public key that the signer gave you.")
        raise UsageError(_("{file}: there is no such file.", file=signers), fix)
    signature = _check_signature(folder, manifest.signed, signers)
    checks += [signature] if signature is not None else []
    try:
        checks += _check_ledger(folder, manifest, ledger, ledger_file)
    except LedgerDamagedError as error:  # a difference, since it proves nothing
        checks.append(_differs(LEDGER, error.text))
    return Verification(folder, manifest.run, tuple(checks))


def _check_signature(folder: Path, signed: str, signers: Path | None) -> Check | None:
    """Check the signature of a folder's manifest; `signed`: the key's fingerprint, as the manifest has it.

    ==================================================  ==============================  ===============
    the signature                                       without `signers`               with `signers`
    ==================================================  ==============================  ===============
    none, and the manifest tells of none                nothing                         differs
    none, but the manifest tells of one                 differs                         differs
    unreadable, for another purpose, of other bytes     differs                         differs
    right, of a key that they do not have or accept     not checked: whose it is        differs
    right, of a key of theirs                           not checked: whose it is        same
    any that this machine's ssh-keygen cannot check     not checked                     unknown
    ==================================================  ==============================  ===============
    """
    file = folder / SIGNATURE
    if not file.exists() and not signed and signers is None:
        return None
    differs = partial(_differs, SIGNATURE)
    if not file.is_file():
        return differs(_("is missing: the report is not signed, or no longer."))
    try:
        signature, data = read_signature(file.read_bytes()), (folder / MANIFEST).read_bytes()
    except OSError as error:
        return differs(_("cannot be read: {why}.", why=system_reason(error)))
    if signature is None:
        return differs(_("is no signature of OpenSSH."))
    if signature.namespace != NAMESPACE:
        return differs(_("was made for another purpose than reports."))
    answer = fits(file, data)
    if isinstance(answer, Text):
        return Check(State.NOT_CHECKED if signers is None else State.UNKNOWN, SIGNATURE, answer)
    if not answer:
        return differs(_("does not fit manifest.json: one of the two was changed."))
    return _check_signer(file, data, signature.key, signers)


def _check_signer(file: Path, data: bytes, key: str, signers: Path | None) -> Check:
    """Check whose signature it is, which is one of the manifest."""
    if signers is None:
        text = _("fits manifest.json. Whose key {key} is, {--signers:FILE} would tell")
        return Check(State.NOT_CHECKED, SIGNATURE, text.format(key=key))
    if not (who := signer_of(file, signers)):
        text = _("was made with a key that {file} does not have: {key}.", file=signers, key=key)
        return _differs(SIGNATURE, text)
    if not accepts(signers, who, file, data):
        text = _("{file} does not accept this key of {who} for reports, or no longer: {key}.")
        return _differs(SIGNATURE, text.format(file=signers, who=who, key=key))
    return _same(SIGNATURE, _("of {who}, with the key {key}", who=who, key=key))


def _check_file(folder: Path, name: str, manifest: Manifest) -> Check:
    file = folder / name
    try:
        if not file.is_file():  # reading a pipe might never end
            return _differs(name, _("is missing."))
        inside = read_page(file) if name == PAGE else None
        actual = fingerprint(file) if inside is None else inside.fingerprint
        if inside is not None and inside.proof != _proof(folder):
            return _differs(name, _("has another manifest or signature inside than the folder."))
    except OSError as error:
        return _differs(name, _("cannot be read: {why}.", why=system_reason(error)))
    was, now = manifest.files[name]["bytes"], int(actual["bytes"])
    if actual == manifest.files[name]:
        text = ngettext("{n:,} byte, as manifest.json has it", "{n:,} bytes, as manifest.json has it", now)
        return _same(name, text)
    if was == now:
        return _differs(name, _("was changed after the export (same size)."))
    then = ngettext("{n:,} byte", "{n:,} bytes", was)
    return _differs(name, _("was changed after the export ({bytes} then, {now:,} now).", bytes=then, now=now))


def _proof(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder that its page may have inside as proof."""
    return {name: (folder / name).read_bytes() for name in PROOF if (folder / name).is_file()}


def _not_listed(folder: Path, manifest: Manifest) -> Iterator[Check]:
    """Find files of every report that this manifest lacks, and files in the folder that belong to no report."""
    always = {*ALWAYS, *([SIMULATED] if manifest.simulated else [])}
    for name in sorted(always - set(manifest.files)):
        yield _differs(name, _("is not listed in manifest.json, but every such report has it."))
    names = {entry.name for entry in folder.glob("*")}
    demo = {DEMO_LEDGER} if manifest.simulated else set()
    report = {*manifest.files, *always, MANIFEST, SIGNATURE}
    copies = {f"{name}{COPY}" for name in report}  # by an export that did not end
    extra = names - report - copies - demo - LEFT_BY_DESKTOPS
    for name in sorted(name for name in extra if not fnmatchcase(name, "failed.fix-me*.csv")):
        yield _differs(name, _("does not belong to the report: it was added later."))


def _check_input(manifest: Manifest, lists: Sequence[Path]) -> Check:
    """Compare the list: it differs only if every file found with its name does."""
    folders = [*lists, *([Path(manifest.root)] if manifest.root else [])]
    other: Path | None = None
    for file in dict.fromkeys(folder / manifest.input.name for folder in folders):
        with suppress(OSError):
            if file.is_file():
                if fingerprint(file)["sha256"] == manifest.input.sha256:
                    return _same(INPUT, _("{place} is the list that was read", place=file))
                other = other or file
    if other is None:
        text = _(
            "{list_name} (SHA-256 {list_sha256}…) is in none of {folders}. To compare it, run verify in its folder",
            list_name=manifest.input.name,
            list_sha256=manifest.input.sha256[:12],
            folders=as_list(dict.fromkeys(str(folder.absolute()) for folder in folders)),
        )
        return Check(State.NOT_CHECKED, INPUT, text)
    return _differs(INPUT, _("{there} is not the same as when the run read it.", there=other))


# --- against the ledger ---------------------------------------------------------------------------------------------


def _check_ledger(
    folder: Path, manifest: Manifest, ledger: LedgerReader | None, ledger_file: str
) -> Iterator[Check]:
    if ledger is None:
        text = _(
            "The ledger {ledger} does not exist: neither manifest.json nor the rows were compared. Select the run's "
            "ledger with {--ledger}, or its settings file with {--config:FILE}.",
            ledger=ledger_file,
        )
        yield Check(State.NOT_CHECKED, ROWS, text)
        return
    run: RunRecord | None = None
    with suppress(RunNotFoundError):
        run = ledger.run(manifest.run)
    if run is None or run.id != manifest.run:  # it may be the beginning of another's id
        text = _(
            "{name} does not know run {run}. If the run is in another ledger, select it with {--ledger}."
        )
        text = text.format(name=ledger.name, run=manifest.run)
        yield Check(State.UNKNOWN, ROWS, text)
        return
    reader: LedgerReader = merged_run(ledger, run) if manifest.retries else ledger
    if manifest.environments:
        reader = RunView(reader, run, only=manifest.environments)
    with reader.snapshot() as snapshot:
        run = snapshot.run(run.id)
        of_rows = _check_rows(manifest, snapshot, run)
        if fingerprint(folder / MANIFEST)["sha256"] in snapshot.exports(run):
            yield _same(MANIFEST, _("was exported with this ledger"))
        else:
            text = _("was not exported with this ledger: it was changed, or exported with another ledger.")
            yield _differs(MANIFEST, text)
        yield of_rows
        if of_rows.state is State.SAME:
            for member in snapshot.members(run):
                snapshot.ledger.check_files(member)


def _check_rows(manifest: Manifest, snapshot: LedgerReader, run: RunRecord) -> Check:
    if more := ", ".join(name for name in run.retries if name not in manifest.retries):
        text = _("the run was retried after this report was written ({more}): export it again.", more=more)
        return _differs(ROWS, text)
    if gone := ", ".join(name for name in manifest.retries if name not in run.retries):
        text = _("the ledger has no retry {gone} of this run; the rows were not compared.", gone=gone)
        return _differs(ROWS, text)
    if rows_digest(snapshot, run) == manifest.rows_digest:
        return _same(ROWS, _("the ledger has them as they were exported"))
    text = _("The ledger's rows, or their digest in manifest.json, were changed after the export.")
    if manifest.finished_at is None:
        text = _(
            "The run was unfinished when this report was written ({exported_at}) and has been resumed since: export it "
            "again."
        )
    return _differs(ROWS, text.format(exported_at=manifest.exported_at))

"""A run as a page with data has it, which needs no ledger and can only be read."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tcb_ops.arguments import checked
from tcb_ops.errors import UsageError
from tcb_ops.features.evidence.verify import INPUT, State, check_report, page_as_folder
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Joined, Lang, Text, _, as_list, as_sentences, verbatim
from tcb_ops.kinds import kind_named
from tcb_ops.model import Outcome
from tcb_ops.reports.explanations import MARK
from tcb_ops.reports.export import ERRCODES, RESULTS, SIGNATURE, Manifest
from tcb_ops.reports.formats.csv import read_errcodes
from tcb_ops.settings import Settings
from tcb_ops.start import settings_for

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.reports.summary import Cause

_T = TypeVar("_T")
_COLUMNS = ("code", "merchant", "env", "rows", "action")


class SavedRun(Tabular):
    """A run as a page with data has it: it can be read, and nothing else.

    `id`, `counts` and `succeeded`, `results()`, `failed()`, `errcodes()` and `causes()` are those of a Run, with texts in the
    page's language. `signer` says who has signed it. A notebook shows the verdict and the causes.
    """

    def __init__(
        self, manifest: Manifest, results: bytes, errcodes: bytes, signer: Text, settings: Settings
    ) -> None:
        self.id, self.signer = manifest.run, signer
        self.counts = dict(manifest.counts)
        """Rows by outcome, without zeros, including `pending`."""
        marks = [MARK] if manifest.simulated else []
        self._verdict = Joined((*marks, manifest.verdict), verbatim(" · "))
        self._kind = kind_named(manifest.kind)
        self._files, self._settings = {RESULTS: results, ERRCODES: errcodes}, settings

    @property
    def succeeded(self) -> bool:
        """Whether every row succeeded."""
        return self.counts.keys() <= Outcome.successes()

    def results(self) -> pd.DataFrame:
        """Return all rows, as `Run.results` does; times are whole milliseconds."""
        from tcb_ops.reports.data_frames import saved_results_frame

        return self._read(RESULTS, lambda data: saved_results_frame(data, self._settings.timezone))

    def failed(self) -> pd.DataFrame:
        """Return the rows that did not succeed, including pending ones."""
        rows = self.results()
        return rows[~rows["tcb_outcome"].isin(Outcome.successes())].reset_index(drop=True)

    def errcodes(self) -> pd.DataFrame:
        """Return how many rows did not succeed, by merchant (appid, env) × code, as in errcodes.csv."""
        from tcb_ops.reports.data_frames import errcodes_frame

        return errcodes_frame(self._causes(), self._kind, self._settings)

    def causes(self) -> pd.DataFrame:
        """Return what went wrong and what to do: a line per code, merchant and environment, most rows first."""
        from tcb_ops.reports.data_frames import causes_frame

        return causes_frame(self._causes(), self._kind, (), self._settings)

    def _causes(self) -> list[Cause]:
        return self._read(ERRCODES, read_errcodes)

    def _read(self, name: str, read: Callable[[bytes], _T]) -> _T:
        try:
            return read(self._files[name])
        except ValueError:
            text = _("The {name} of run {run} has another form than this tcb-ops writes.")
            raise UsageError(text.format(name=name, run=self.id)) from None

    def _table(self, _lang: Lang) -> Lines:
        causes, caption = self._causes(), as_sentences((self._verdict, self.signer))
        return Lines(caption, _COLUMNS, map(attrgetter(*_COLUMNS), causes), len(causes))


@checked
def open_report(
    file: str | Path, *, signers: str | Path | None = None, settings: Settings | None = None
) -> SavedRun:
    """Open a page with data, which `report --with-data` has written, as a run that can only be read. No ledger is needed.

    `signers`: an OpenSSH file of allowed signers, one of which must have signed it; without it, nothing proves who made the page.
    Raises UsageError if it is no such page, or page, data and proof do not fit one another.
    """
    settings = settings_for({"settings": settings})
    allowed = Path(signers) if signers is not None else None
    with page_as_folder(Path(file)) as (folder, manifest):
        verification = check_report(folder, None, signers=allowed, alone=True)
        results, errcodes = ((folder / name).read_bytes() for name in (RESULTS, ERRCODES))
    checks = {check.what: check for check in verification.checks if check.what != INPUT}
    if wrong := [name for name, check in checks.items() if check.state is State.DIFFERS]:
        text = _("{file} is not as it was exported: {names}.", file=file, names=as_list(wrong))
        raise UsageError(text, _("`tcb-ops verify` says what differs. Ask for the page again."))
    signature = checks.get(SIGNATURE)
    if allowed is not None and not verification.signed and signature is not None:
        raise UsageError(
            _("The signature of {file} cannot be checked: {why}.", file=file, why=signature.text)
        )
    signer = _("Not signed: whoever sent this page may have written it.")
    if signature is not None:
        signer = _("Signature: {text}.", text=signature.text)
    return SavedRun(manifest, results, errcodes, signer, settings)

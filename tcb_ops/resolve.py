"""What callers of the public functions give, such as a path, an id or None, as objects: settings, merchants, rows, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tcb_ops.errors import MissingFeatureError, RunNotFoundError, check_value, has_surrogates
from tcb_ops.i18n import _
from tcb_ops.kinds import ANY_KIND, MissingKind, all_kinds, kind_named, provided
from tcb_ops.model import Merchant
from tcb_ops.run import Run
from tcb_ops.settings import NOT_STARTED, Settings, default_settings, with_target

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.lists.paths import TextRows
    from tcb_ops.runs.ledger import Ledger


class TargetOptions(TypedDict, total=False):
    """The keywords of every function that depends on a target."""

    target: str | None
    """`simulator` (the embedded one) or a URL, instead of the settings' own."""
    settings: Settings | None
    """From `load_settings`; None: the settings file and the environment, as on the command line."""


def settings_for(options: TargetOptions, run: object = None) -> Settings:
    """Return the settings of a call; if it has none, those of the Run that it is given."""
    settings, target = options.get("settings"), options.get("target")
    check_value("target", target, target != "", _("simulator or a URL"))
    if settings is None and isinstance(run, Run):
        settings = run.settings
    return with_target(settings or default_settings(), target)


@contextmanager
def opened_target(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the embedded simulator if it is the target; yield the settings for it, else the settings unchanged.

    `merchants`: called for those that the embedded simulator serves. Raises MissingFeatureError without a simulator.
    """
    if not settings.target or settings.api_base != NOT_STARTED:
        yield settings
        return
    with provided("simulator")(settings, merchants) as opened:
        yield opened


def merchants_for(merchants: Merchants | str | Path) -> Merchants:
    """Return the merchants, read if their file is given."""
    from tcb_ops.lists import merchants as merchants_file
    from tcb_ops.lists.merchants import Merchants

    if isinstance(merchants, Merchants):
        return merchants
    return merchants_file.read_merchants(merchants)


def selected_merchants(merchants: Merchants | str | Path | None) -> Merchants | None:
    """Return the merchants to whose rows a call is narrowed; None for all rows."""
    return None if merchants is None else merchants_for(merchants)


def rows_of_frame(frame: pd.DataFrame) -> TextRows:
    """Return the cells of a DataFrame as text. Whoever passes one has already imported pandas."""
    from tcb_ops.lists.paths import TextRows

    cells = frame.astype(object).where(frame.notna(), "")
    headers = tuple(map(str, frame.columns))
    rows = [tuple(map(str, row)) for row in cells.itertuples(index=False, name=None)]
    texts = map("".join, (headers, *rows))
    storable = not any("\0" in text or has_surrogates(text) for text in texts)
    check_value("source", frame, storable, _("a DataFrame without NUL and lone surrogates in its texts"))
    return TextRows("DataFrame", headers, rows)


def existing_ledger(settings: Settings) -> Ledger | None:
    """Open the ledger for reading; return None without creating it if it does not exist."""
    from tcb_ops.runs.ledger import Ledger

    exists = "://" in settings.ledger or Path(settings.ledger).exists()
    return Ledger(settings.ledger) if exists else None


def ledger_with_runs(settings: Settings) -> Ledger:
    """Open the ledger. Raises RunNotFoundError if it does not exist."""
    ledger = existing_ledger(settings)
    if ledger is None:
        raise RunNotFoundError(
            _(
                "{where} does not exist: no run has used this ledger yet. Check the working folder, and --ledger.",
                where=settings.ledger,
            ),
        )
    return ledger


def is_run_name(name: str) -> bool:
    """Return whether a text can name a run."""
    return name.isprintable() and name != ""


def find_run(run: str | Run, settings: Settings, parameter: str = "run", kind: str | None = None) -> Run:
    """Return a run as it is in the ledger now; the error for a missing run also shows how to list the runs.

    `run`: a Run, or as RUN on the command line. `kind`: of which `latest` is one, or `any`; None: one of the kinds with `main`.
    """
    from tcb_ops.runs.next_commands import command, quoted

    usable = isinstance(run, Run) or is_run_name(run)
    check_value(parameter, run, usable, _("a Run, or the id of a run, or latest"))
    ledger = ledger_with_runs(settings)
    name = run.id if isinstance(run, Run) else _run_of_report(run)
    kinds = None
    if kind != ANY_KIND:
        kinds = [kind_named(kind)] if kind else [each for each in all_kinds() if each.main]
    try:
        record = ledger.run(name, settings.run_target, kinds)
    except RunNotFoundError as error:
        listing = quoted(command(settings, "runs"))
        raise RunNotFoundError(
            _("{text}\nTo list the runs:\n{listing}", text=error.text, listing=listing)
        ) from None
    if isinstance(record.kind, MissingKind):
        raise MissingFeatureError(record.kind)
    return Run(ledger, record, settings)


def _run_of_report(name: str) -> str:
    """Return the run of a report's folder; anything else unchanged."""
    if not Path(name).is_dir():
        return name
    from tcb_ops.reports.export import read_manifest

    manifest = read_manifest(Path(name))
    return manifest.run if manifest is not None else name

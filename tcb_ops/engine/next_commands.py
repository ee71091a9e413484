"""Suggested next commands, which can be copied and work unchanged from any folder.

All are built by `command`, which repeats what the run depended on, with absolute paths. Pure, except for `install` and
the program's name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops import shell
from tcb_ops.catalogue import COMPONENT_MARK
from tcb_ops.i18n import CommandText
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import PLATFORM, SIMULATOR, RunSettings
from tcb_ops.settings import Settings, without_dots

if TYPE_CHECKING:
    from tcb_ops.engine.limits import RunLimits
    from tcb_ops.reports.summary import NextAction

_NOT_TAKEN: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("diff", "errcodes", "report", "runs", "show"), frozenset({"--tokens"})),
    "call": frozenset({"--ledger"}),
    "check": frozenset({"--ledger", "--tokens"}),
    "notify": frozenset({"--tokens"}),
    "open": frozenset({"--merchants", "--tokens"}),
    "verify": frozenset({"--target", "--merchants", "--tokens"}),
}
"""The shared options that a command does not take, by its name."""


def command(settings: Settings, *words: str, target: str | None = None) -> list[str]:
    """Compose a command with these words that works from any folder.

    Args:
        settings: the settings that it needs; values that their file does not have become options.
        words: the command's name, its arguments and options.
        target: the run's target; None for that of the settings.

    """
    shared = shared_options(settings, settings.run_target if target is None else target)
    not_taken = _NOT_TAKEN.get(words[0], ())
    return [_program(), *words, *(word for option in shared if option[0] not in not_taken for word in option)]


def _program() -> str:
    """Return how a shell in any folder finds this program: by its name, or by the path that it was called by."""
    import shutil

    called = Path(sys.argv[0])
    if called.stem != "tcb-ops" or os.path.realpath(shutil.which(called.name) or "") == os.path.realpath(
        called
    ):
        return "tcb-ops"
    return without_dots(called)


def of_run(settings: Settings, run: RunRecord, *words: str) -> list[str]:
    """Compose a command about a run: `of_run(settings, run, "show")`."""
    return command(settings, *words, run.id, target=run.target)


def resume(settings: Settings, run: RunRecord, *, canary: bool = True) -> list[str]:
    """Compose the command that resumes an unfinished run without its list; `canary`: whether to repeat --canary."""
    words = ["retry", run.parent] if run.parent else [str(run.kind)]
    if run.settings.signed is not None:
        words += [*list_of(run), "--on-bad", "skip"]
    words += ["--resume", run.id]
    if not run.parent:
        words += ["--root", without_dots(run.root)] if run.root else []
        words += ["--skip-unchanged"] if run.settings.skip_unchanged else []
        words += ["--canary", str(run.settings.canary)] if canary and run.settings.canary else []
    words += ["--cluster", run.settings.cluster] if run.settings.cluster else []
    if run.out and run.out != str(Path(settings.reports).absolute()):
        words += ["--out", without_dots(run.out)]
    return command(settings, *words, *pace(run.settings), target=run.target)


def upload_options(run: RunRecord) -> list[str]:
    """Return the options that protect what an upload, or that of a confirmation, overwrites."""
    backup = run.settings.backup
    return ["--backup", without_dots(Path(backup).parent)] if backup else []


def list_of(run: RunRecord) -> list[str]:
    """Return the list of a run whose URLs are not kept, and the options that it was read with."""
    listed = without_dots(run.settings.signed or "")
    return [listed or "LIST", *run.selection.words()]  # a placeholder, if it was no file


def retry(
    settings: Settings, run: RunRecord, actions: Sequence[NextAction] = (), narrow: Sequence[str] = ()
) -> list[str]:
    """Compose the command that retries a finished run's rows that did not succeed.

    `actions`: about their codes; where the list itself has some wrong, only the others are retried. `narrow`: options that choose
    some of the rows. A run whose URLs are not kept is sent again instead, without the rows that are stored.
    """
    if run.settings.signed is not None:
        words = [*list_of(run), "--root", without_dots(run.root), *upload_options(run)]
        words += ["--on-bad", "skip", "--skip-unchanged", "--new-run"]
        return command(settings, str(run.kind), *words, *pace(run.settings), target=run.target)
    helped = [action.group.code for action in actions if action.actions and not action.in_list]
    codes = helped if any(action.in_list for action in actions) else []
    only = (word for code in codes for word in ("--errcode", code.removesuffix(COMPONENT_MARK)))
    return command(settings, "retry", run.id, *only, *narrow, *pace(run.settings), target=run.target)


def fixed_list(settings: Settings, run: RunRecord) -> list[str]:
    """Compose the command that runs a corrected copy of a run's failed.csv; `failed-fixed.csv` is a placeholder for it."""
    words = ["--root", without_dots(run.root)] if run.root else []
    words += run.selection.words("column", "map")
    words += [*upload_options(run), *pace(run.settings)]
    return command(settings, str(run.kind), "failed-fixed.csv", *words, target=run.target)


def install(extra: str = "") -> str:
    """Compose the command that installs tcb-ops with an extra into this interpreter."""
    pip = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:  # an environment created by uv
        pip = ["uv", "pip", "install", "--python", sys.executable]
    return quoted([*pip, f"tcb-ops[{extra}]" if extra else "tcb-ops"])


def quoted(words: Sequence[str]) -> CommandText:
    """Quote a command for this machine's shell."""
    return CommandText(shell.join(words))


def pace(settings: RunSettings | RunLimits) -> list[str]:
    """Return limits, or those among a run's settings, that differ from the defaults, as options."""
    from tcb_ops.engine.limits import RunLimits

    usual = asdict(RunLimits())
    given = {name: getattr(settings, name) for name in usual}
    return [
        word
        for name, value in given.items()
        if value != usual[name] and value is not None
        for word in (f"--{name.replace('_', '-')}", f"{value:g}")
    ]


def shared_options(settings: Settings, target: str) -> list[tuple[str, str]]:
    """Return the options that the settings need which their file does not have, with their values."""
    origin, options = settings.origin, list[tuple[str, str]]()
    from_file = origin.from_file
    if origin.file is not None:
        options.append(("--config", without_dots(origin.file)))
    usual_target = from_file.get("target") or str(from_file.get("api_base", PLATFORM)).rstrip("/")
    if target != usual_target or origin.overridden & {"target", "api_base"}:
        options.append(("--target", target))
    # ledger_option is empty for a URL with a password: the command reads it from the same variable or file again.
    if settings.ledger_option and (
        origin.file is None or "ledger" in origin.overridden or settings.ledger != from_file.get("ledger")
    ):
        options.append(("--ledger", settings.ledger_option))
    if settings.merchants != from_file.get("merchants") or "merchants" in origin.overridden:
        options.append(("--merchants", without_dots(settings.merchants)))
    tokens = settings.tokens
    if target != SIMULATOR and tokens.source == "file" and tokens.file != from_file.get("tokens.file"):
        options.append(("--tokens", without_dots(tokens.file)))
    if "lang" in origin.overridden:
        options.append(("--lang", str(settings.lang)))
    return options

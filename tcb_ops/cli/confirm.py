"""Steps before anything is sent: read the list, show its problems or a dry run, ask for confirmation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, ListOptions, target_line
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import format_duration, format_size, sanitize
from tcb_ops.i18n import NOTHING, Lang, Text, _, ngettext, pgettext, verbatim
from tcb_ops.lists.paths import Batch, read_paths
from tcb_ops.lists.problems import PROBLEMS_SHOWN, check_fixme, fixme_beside, format_problem, write_fixme
from tcb_ops.lists.share import Share
from tcb_ops.model import Kind, Problem
from tcb_ops.preflight import DryRun, Scope, accounts_to_ask, facts_line, reckon
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.next_commands import command
from tcb_ops.runs.sources import SourceInspector
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

_FITS = {True: _("yes"), False: _("NO"), None: verbatim("–")}
_FEW = 3
"""Up to this many problems with missing files are listed one by one; more are summarized."""


def show_problems(
    console: Console, source: str, problems: Sequence[Problem], most: int = PROBLEMS_SHOWN
) -> None:
    """Print the first problems, one per line, and the number of those not shown."""
    for problem in problems[:most]:
        console.warn(format_problem(source, problem))
    if len(problems) > most:
        rest = len(problems) - most
        console.warn(
            _(
                "and {more_problems}",
                more_problems=ngettext("{n:,} more problem", "{n:,} more problems", rest),
            )
        )


def read_list(
    console: Console,
    source: str,
    common: CommonOptions,
    settings: Settings,
    listing: ListOptions,
    *,
    root: str | None,
    limit: int | None = None,
    share: Share | None = None,
    others: Sequence[str] = (),
) -> Batch:
    """Read the list and print what was detected. If it is refused, print its problems, write the fix-me CSV, and exit 2.

    `others`: the command's options that are not about the list, for suggestions.
    """
    name = click.get_current_context().command.name or ""
    if listing.fix_me is not None:
        check_fixme(Path(listing.fix_me))
    try:
        batch = read_paths(
            source,
            common.read_merchants(settings),
            root,
            columns=listing.columns(),
            on_bad=listing.on_bad,
            sheet=listing.sheet,
            header_row=listing.header_row or 0,
            rows=listing.rows,
            file_map=listing.maps,
            sources=SourceInspector(lambda: settings),
            share=share,
        )
    except InputError as error:
        if error.source != source:
            raise
        _show_refusal(console, error, listing, root)
        if error.columns:
            fitting = tuple(f"{ours}={header}" for ours, header in error.columns.items())
            listing = replace(listing, column=fitting)
        options = [*others, *listing.words(common), *(["--share", str(share)] if share is not None else [])]
        _suggest(console, error, settings, name, options, root)
        raise click.exceptions.Exit(error.exit_code) from None
    console.info(batch.decided)
    for warning in batch.warnings:
        console.warn(warning)
    if batch.problems:
        show_problems(console, source, batch.problems)
        fix_me, rows = _write_fixme(console, source, listing, batch.problems)
        if rows:
            as_csv = replace(listing, sheet="", header_row=None, rows=None)
            console.fix_me = (
                ngettext(
                    "{fix_me} has the {n:,} skipped row. Correct it there, then run:",
                    "{fix_me} has the {n:,} skipped rows. Correct them there, then run:",
                    rows,
                    fix_me=fix_me,
                ),
                command(
                    settings,
                    name,
                    str(fix_me.absolute()),
                    *_root_option(root),
                    *others,
                    *as_csv.words(common),
                ),
            )
    if batch.left_out:
        console.info(
            _("{rows} excluded by --where", rows=ngettext("{n:,} row", "{n:,} rows", batch.left_out))
        )
    if share is not None:
        console.info(_share_of(batch, share))
    return batch.limited(limit) if limit else batch


def _share_of(batch: Batch, share: Share) -> Text:
    """Return how many rows a share has, and of how many."""
    whole = ngettext("{n:,} row", "{n:,} rows", batch.staging.whole.count())
    if not batch.count:
        return _(
            "Share {share}: none of {whole}, as no merchant of the list belongs to it.",
            share=share,
            whole=whole,
        )
    return _("Share {share}: {rows:,} of {whole}", share=share, rows=batch.count, whole=whole)


def _write_fixme(
    console: Console, source: str, listing: ListOptions, problems: Sequence[Problem]
) -> tuple[Path, int]:
    """Write the rows with problems; return the fix-me CSV and its row count, or the list and 0 if no single row is wrong."""
    if not any(problem.skippable for problem in problems):
        return Path(source), 0
    dest = Path(listing.fix_me) if listing.fix_me else fixme_beside(Path(source))
    return dest, write_fixme(problems, dest, console.lang)


def _show_refusal(console: Console, error: InputError, listing: ListOptions, root: str | None) -> None:
    if error.decided is not None:
        console.info(_("Read as {decided}", decided=error.decided))
    count = len(error.problems)
    if error.missing_files and count > _FEW:
        show_problems(console, error.source, error.problems[:1])
        why = (
            _("the list's folder, because --root was not given")
            if listing.root is None
            else verbatim("--root")
        )
        base = Path(root or ".").absolute()
        console.warn(
            _(
                "The same for all {rows}: none of their files is below {base} ({why}).",
                rows=ngettext("{n:,} row", "{n:,} rows", count),
                base=base,
                why=why,
            )
        )
    else:
        show_problems(console, error.source, error.problems)
    if listing.fix_me or not error.missing_files:  # missing files have one cause: no row to correct
        dest, rows = _write_fixme(console, error.source, listing, error.problems)
        if rows:
            console.warn(
                _(
                    "{dest} has the rows with problems, and what to fix in each. For the other rows: --on-bad skip",
                    dest=dest,
                )
            )
    console.warn(
        _(
            "The list is refused: {problems}. Nothing was sent.",
            problems=ngettext("{n:,} problem", "{n:,} problems", count),
        )
    )


def _suggest(
    console: Console,
    error: InputError,
    settings: Settings,
    name: str,
    options: list[str],
    root: str | None,
) -> None:
    """Suggest a command: with the folder that has the files, with the guessed column, or to rerun after correction."""
    from tcb_ops.lists.local_files import find_root

    source = Path(error.source).absolute()
    found = find_root(error.missing_files, Path.cwd(), source.parent) if error.missing_files else None
    if found is not None:
        text, root = _("The files are below {found}. To use that folder:", found=found), str(found)
    elif error.columns:
        text = _("With the column that you probably mean:")
    elif any(problem.skippable for problem in error.problems):
        text = _("Correct the list, then run:")
    else:
        return
    console.suggest(text, command(settings, name, str(source), *_root_option(root), *options))


def _root_option(root: str | None) -> list[str]:
    return ["--root", str(Path(root).absolute())] if root is not None else []


def dry_run(
    console: Console, batch: Batch, settings: Settings, limits: RunLimits, *, uploads: bool, as_json: bool
) -> int:
    """Print what a run would send, per merchant: calls, calls left today, bytes, and the least time; return the exit code."""
    from tcb_ops.merchants.quota import ask_allowances

    console.release()
    allowances = ask_allowances(settings, accounts_to_ask(batch, settings))
    cost = reckon(batch, settings, limits, allowances, datetime.now(UTC))
    planned = DryRun.of(batch, limits, cost, uploads=uploads)
    if as_json:
        console.json(planned.as_dict())
    else:
        console.print(_table(planned, console.lang, limits))
        console.print(facts_line(batch))
        if planned.seconds:
            least = format_duration(planned.seconds)
            console.print(
                _(
                    "At {rate:g} link calls/s per appid this takes at least {least}.",
                    rate=limits.rate,
                    least=least,
                )
            )
        store = _(" and its store") if uploads else NOTHING
        console.print(
            _(
                "The run would make {calls} to {api_base}{store}.",
                calls=ngettext("{n:,} call", "{n:,} calls", planned.calls),
                api_base=settings.api_base,
                store=store,
            )
        )
        console.print(_("Nothing was sent."))
    for warning in planned.warnings():
        console.warn(warning)
    if cost.unknown is not None:
        console.info(cost.unknown)
    if console.fix_me is not None:
        console.suggest(*console.fix_me)
    console.info(target_line(settings))
    return 0


def _table(planned: DryRun, lang: Lang, limits: RunLimits) -> RenderableType:
    """Return the dry run's table. On a narrow screen the merchants' names are shortened, not the figures."""
    from tcb_ops.reports.formats.terminal import Columns

    cost, uploads = planned.cost, planned.uploads
    heads = (
        _("merchant"),
        _("envs"),
        _("rows"),
        pgettext("made", "calls"),
        *([_("bytes")] if uploads else []),
        _("calls left"),
        _("fits"),
        _("at least"),
    )
    lines = [[head.of(lang) for head in heads]]
    lines += [
        [
            sanitize(share.merchant),
            f"{share.envs:,}",
            f"{share.rows:,}",
            f"{share.calls:,}",
            *([format_size(share.bytes)] if uploads else []),
            cost.left(cost.accounts[share.appid][0]),
            _FITS[cost.fits(share.appid)].of(lang),
            format_duration(share.attempted / limits.rate) if limits.rate else "–",
        ]
        for share in planned.shares
    ]
    platform = cost.platform
    if platform is not None and cost.platform_is_shared:
        lines.append(
            [
                _("of these, the platform's own").of(lang),
                "",
                f"{cost.rows[platform]:,}",
                "",
                *([""] if uploads else []),
                cost.left(platform),
                _FITS[cost.account_fits(platform)].of(lang),
                format_duration(cost.seconds(platform)) if limits.rate else "–",
            ]
        )
    return Columns(lines, numbers=frozenset(range(1, len(heads))), elastic=frozenset({0}))


def confirm_live(
    console: Console, kind: Kind, scope: Scope, what: Text, settings: Settings, *, yes: bool
) -> None:
    """Show what would change on a live target, and ask. Raises UsageError for a no, or without a terminal or --yes."""
    if not scope.needs_confirmation(settings, can_ask=sys.stdin.isatty()):
        return
    console.warn(what)
    if not yes:
        envs = ngettext("{n:,} live environment", "{n:,} live environments", scope.envs)
        base = settings.api_base
        questions = {
            Kind.DELETE: _(
                "Delete files in {live_environments} of {api_base}?", live_environments=envs, api_base=base
            ),
            Kind.UNDO: _(
                "Undo the upload in {live_environments} of {api_base}?", live_environments=envs, api_base=base
            ),
        }
        upload = _("Upload to {live_environments} of {api_base}?", live_environments=envs, api_base=base)
        confirm_or_abort(console, questions.get(kind, upload))


def confirm_or_abort(console: Console, question: Text) -> None:
    """Ask before something is written to a live target. Raises UsageError for a no, or without a terminal."""
    console.release()
    if not sys.stdin.isatty():
        raise UsageError(question, _("Without a terminal, this requires --yes."))
    if not click.confirm(question.of(console.lang), err=True):
        raise UsageError(_("Nothing was sent."))

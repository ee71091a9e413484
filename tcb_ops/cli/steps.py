"""The steps of a command that works on a list or starts a run: read, rehearse, ask, start or resume, follow, confirm, report, notify."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcb_ops import api
from tcb_ops.cli.console import Console, show_problems, show_run
from tcb_ops.cli.options import CommonOptions, ListOptions, RunOptions, target_line
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.next_commands import command, quoted
from tcb_ops.engine.stop_errors import not_listening
from tcb_ops.errors import InputError, InterruptedRunError, StoppedError, UsageError, needed
from tcb_ops.hooks import AuditHooks, DiagnosisHooks, WorkbookHooks, hooks
from tcb_ops.i18n import Text, _, as_lines, ngettext
from tcb_ops.kinds import ANY_KIND, Kind, row_count
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.row_files import source_check
from tcb_ops.model import Listener, Outcome, Problem, Reason, target_name
from tcb_ops.preflight import SendScope, scope_of_rows
from tcb_ops.reports.explanations import total_text
from tcb_ops.reports.summary import by_code, next_command
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings, without_dots
from tcb_ops.start import StartOptions, existing_ledger

if TYPE_CHECKING:
    from tcb_ops.engine.plan import RunSpec

_FEW = 3
"""Up to this many problems with missing files are listed one by one; more are summarized."""


@dataclass(slots=True)
class RunCommand:
    """A command that starts or resumes a run: its options, its console and its settings."""

    common: CommonOptions
    listing: ListOptions
    which: RunOptions
    limits: RunLimits
    settings: Settings
    """From `opened` on, of the target that was opened."""
    console: Console

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the target; the first line printed names it."""
        with self.common.open_target(self.console, self.settings, yes=self.which.yes) as self.settings:
            if (
                self.common.ledger
                and "://" not in self.settings.ledger
                and not Path(self.settings.ledger).exists()
            ):
                self.console.info(_("{ledger} is a new ledger.", ledger=self.settings.ledger_name))
            yield

    @property
    def options(self) -> StartOptions:
        """What every function of the API that starts a run is given."""
        return {
            "settings": self.settings,
            "limits": self.limits,
            "note": self.common.note,
            "new_run": self.which.new_run,
            "resume": self.which.resume,
            "may_resume": self._may_resume,
        }

    @property
    def reports(self) -> str | Path:
        """The report folder if one is given, else the folder of all reports."""
        return self.which.out or self.settings.reports

    def folder(self, run_id: str) -> Path:
        """Return where a run's report goes."""
        return Path(self.which.out) if self.which.out is not None else self.settings.reports / run_id

    def check_folder(self) -> None:
        """Refuse a report folder that cannot be had. Raises UsageError."""
        from tcb_ops.reports.export import check_destination

        check_destination(self.folder("a-run"))

    def read_list(
        self,
        source: str,
        root: str | None,
        others: Sequence[str] = (),
        *,
        guessed: bool = False,
        mark: bool = False,
    ) -> Batch:
        """Read the list and print what was detected. If it is refused, print its problems, write the fix-me CSV, and exit 2.

        `others`: the command's options that are not about the list, for suggestions. `guessed`: the root is a guess; if none
        of the first files is below it, they are not checked. `mark`: a copy of the workbook shows the problems.
        """
        console, settings, listing = self.console, self.settings, self.listing
        try:
            batch = read_paths(
                source,
                self.common.read_merchants(settings),
                root,
                columns=listing.columns(),
                on_bad=listing.on_bad,
                sheet=listing.sheet,
                header_row=listing.header_row or 0,
                rows=listing.rows,
                file_map=listing.maps,
                sources=source_check(lambda: settings),
                guessed=guessed,
            )
        except InputError as error:
            if error.source != source:
                raise
            self._show_refusal(error)
            if mark:
                self._mark(source, error.problems)
            self._suggest_correction(error, None if guessed else root, others)
            error.shown = True
            raise
        console.info(batch.decided)
        for warning in batch.warnings:
            console.warn(warning)
        if batch.problems:
            show_problems(console, source, batch.problems)
            fix_me, rows = self._write_fixme(source, batch.problems)
            if mark:
                self._mark(source, batch.problems)
            if rows:
                where = ngettext(
                    "{fix_me} has the {n:,} skipped row.",
                    "{fix_me} has the {n:,} skipped rows.",
                    rows,
                    fix_me=fix_me,
                )
                as_csv = replace(listing, sheet="", header_row=None, rows=None)
                console.fix_me = (
                    where,
                    _("Correct what is wrong there, then run:"),
                    self._again(
                        fix_me, None if guessed else root, [*others, *as_csv.selection(self.common).words()]
                    ),
                )
        if batch.left_out:
            console.info(_("{rows} excluded by {--where}", rows=row_count(batch.left_out)))
        return batch.limited(self.which.limit) if self.which.limit else batch

    def show_correction(self, batch: Batch, kind: Kind | None = None) -> None:
        """Say which run the list corrects, or warn if it looks like a correction and is none."""
        if not batch.exported:
            return
        from tcb_ops.engine.corrections import corrected_run

        corrected = corrected_run(batch, kind, existing_ledger(self.settings), self.settings)
        if isinstance(corrected, Text):
            self.console.warn(corrected)
        elif corrected is not None:
            text = _("Corrects {rows} of run {id}, and counts in its report {--final}.")
            self.console.info(text.format(rows=row_count(batch.count), id=corrected.id))

    def _mark(self, source: str, problems: Sequence[Problem]) -> None:
        """Mark the problems in a copy of the list's workbook; nothing where the file as a whole cannot be read."""
        if any(problem.line for problem in problems):
            listing, console = self.listing, self.console
            marked = needed(WorkbookHooks).mark(
                Path(source),
                problems,
                console.lang,
                console.warn,
                listing.columns(),
                listing.sheet,
                listing.header_row or 0,
            )
            console.warn(_("{marked} has the problems marked, with what to fix as comments.", marked=marked))

    def _write_fixme(self, source: str, problems: Sequence[Problem]) -> tuple[Path, int]:
        """Write the rows with problems; return the fix-me CSV and its row count, or the list and 0 if no single row is wrong."""
        from tcb_ops.lists.fix_me import write_fixme

        dest = Path(self.listing.fix_me) if self.listing.fix_me else None
        if not any(problem.skippable for problem in problems):
            return Path(source), 0
        return write_fixme(problems, Path(source), self.console.lang, dest)

    def _show_refusal(self, error: InputError) -> None:
        console, count = self.console, len(error.problems)
        if error.decided is not None:
            console.info(_("Read as {decided}", decided=error.decided))
        if error.all_missing and count > _FEW:
            show_problems(console, error.source, error.problems[:1])
            console.warn(error.text)
        else:
            show_problems(console, error.source, error.problems)
        if error.advice is not None:
            console.warn(error.advice)
        # Missing files have one cause: no row to correct.
        if self.listing.fix_me or not error.all_missing:
            dest, written = self._write_fixme(error.source, error.problems)
            if written:
                text = _(
                    "{dest} has the rows with problems, and what to fix in each. For the other rows: {--on-bad:skip}"
                )
                console.warn(text.format(dest=dest))
        problems = ngettext("{n:,} problem", "{n:,} problems", count)
        console.warn(_("The list is refused: {problems}. Nothing was sent.", problems=problems))

    def _suggest_correction(self, error: InputError, root: str | None, others: Sequence[str]) -> None:
        """Suggest the command to run when the list has been corrected; not where only its files are elsewhere."""
        skippable = any(problem.skippable for problem in error.problems)
        if not error.columns and (error.all_missing or not skippable):
            return
        column = (*self.listing.column, *(f"{name}={header}" for name, header in error.columns.items()))
        options = [*others, *replace(self.listing, column=column).selection(self.common).words()]
        error.fix = _("With these columns:") if error.columns else _("Correct the list, then run:")
        command_again = self._again(error.source, root, options)
        error.text = as_lines((error.problem, error.fix, quoted(command_again)))
        self.console.suggest(error.fix, command_again)

    def _again(self, source: str | Path, root: str | None, options: Sequence[str]) -> list[str]:
        name = click.get_current_context().command.name or ""
        root_option = ["--root", without_dots(root)] if root is not None else []
        return command(self.settings, name, without_dots(source), *root_option, *options)

    def dry_run(
        self, works: Sequence[RunSpec], batch: Batch | None = None, *, skip_unchanged: bool = False
    ) -> int:
        """Print what runs would change, `batch`: the list of the first; return the exit code."""
        from tcb_ops.cli.rehearsal import dry_run

        return dry_run(self, works, batch, skip_unchanged=skip_unchanged)

    def ask_confirmation(self, kind: Kind, scope: SendScope, what: Text) -> None:
        """Show what would change on a live target, and ask. Raises UsageError for a no, or without a terminal or --yes.

        Raises OutageError in place of a question if nothing listens at the target.
        """
        if not scope.needs_confirmation(self.settings, can_ask=sys.stdin.isatty()):
            return
        self.console.warn(what)
        if not self.which.yes:
            if self.settings.listener is Listener.NOTHING:
                raise not_listening(self.settings.api_base)
            envs = ngettext("{n:,} live environment", "{n:,} live environments", scope.envs)
            question = kind.question.format(live_environments=envs, api_base=self.settings.api_base)
            self.console.release()
            if not sys.stdin.isatty():
                raise UsageError(question, _("Without a terminal, this requires {--yes}."))
            if scope.most and (diagnosis := hooks(DiagnosisHooks)):  # undo and delete request no links
                diagnosis.warn_of_few_calls(scope, self.settings, self.console)
            if not self.console.confirm(question):
                raise UsageError(_("Nothing was sent."))

    def _may_resume(self, run_id: str, started: float) -> bool:
        """Ask whether to resume an unfinished run over a day old; without a terminal the answer is no."""
        if not sys.stdin.isatty():
            return False
        when = datetime.fromtimestamp(started, self.settings.zone).isoformat(" ", "minutes")
        question = _(
            "Run {run_id} of this list, started {when}, is unfinished. Resume it?", run_id=run_id, when=when
        )
        self.console.release()
        return self.console.confirm(question)

    def resume(
        self,
        kind: Kind,
        root: str | None = None,
        *,
        skip_unchanged: bool | None = None,
        canary: int | None = None,
    ) -> RunHandle:
        """Resume the run that --resume names, without its list.

        Raises UsageError if this command cannot resume it.
        """
        from tcb_ops.engine.plan import check_kept, check_resume

        settings, which = self.settings, self.which
        if which.resume and which.dry_run:
            text = _("{--dry-run} shows what the command without {--resume} would do.")
            raise UsageError(text, _("Leave one of the two out."))
        if not which.resume:
            name = click.get_current_context().command.name
            needs = _("`{name}` needs a list, or {--resume} with a run. For example:", name=name)
            raise UsageError(as_lines((needs, f"tcb-ops {name} list.csv")))
        self.common.refuse_where(
            _("A run is resumed with the merchants that it was started with: omit {--where}.")
        )
        latest_of = kind if which.resume == "latest" else ANY_KIND
        run = api.open_run(which.resume, kind=latest_of, settings=settings)
        if run.record.retries:
            run = api.open_run(run.record.retries[-1], settings=settings)
        record = run.record
        wrong: Text | None = None
        if record.kind is not kind or record.parent:
            wrong = _("it is a run of {kind_there}", kind_there=_("retry") if record.parent else record.kind)
        elif record.target != settings.run_target:
            wrong = _("its target is {target}", target=target_name(record.target))
        elif root and str(Path(root).resolve()) != record.root:
            wrong = _("its files are below {root}", root=record.root)
        check_resume(record, wrong, settings)
        check_kept(record, settings)
        if kind.changes_store:
            scope = scope_of_rows(run.tallies(), frozenset({Outcome.PENDING}))
            self.ask_confirmation(kind, scope, _("Remaining: {text}", text=scope.text))
        return api.start_resume(
            record.id,
            settings=settings,
            limits=self.limits,
            cluster=which.cluster,
            skip_unchanged=skip_unchanged,
            canary=canary,
        )

    def follow(self, handle: RunHandle, then: Callable[[Run], object] | None = None) -> Run:
        """Show a run's progress until its end and return it; with --json, print its summary even if it ends early.

        `then`: as in `RunHandle.wait`.
        """
        resumed = None
        if handle.resumed:
            resumed = _(
                "Resuming run {id}: {done:,} of {rows} done. ({--new-run} starts a new run.)",
                id=handle.id,
                done=handle.done_before,
                rows=row_count(handle.record.rows),
            )
        self.console.release(first=resumed)
        try:
            handle.follow(lambda progress: self.console.follow(progress, handle.record.rows))
            return handle.wait(then)
        except (StoppedError, InterruptedRunError) as error:
            if self.common.json:
                error.summary = handle.so_far().summary()
            raise

    def report(self, handle: RunHandle, fail_on: str = "any") -> int:
        """Show a run's progress, write its report folder, and print how it ended; return the exit code."""
        return self.end_reported(self.follow(handle, self.export), fail_on)

    def end_reported(self, run: Run, fail_on: str = "any") -> int:
        """Print how a run ended whose report is written; return the exit code."""
        from tcb_ops.reports.export import PAGE

        folder = self.folder(run.id)
        return self.end(run, folder, page=Path(without_dots(folder / PAGE)), fail_on=fail_on)

    def export(self, run: Run) -> None:
        """Write a finished run's report folder."""
        try:
            run.export(self.folder(run.id), pdf=self.which.pdf)
        except StoppedError:
            _announce(run, self.console)  # even without a report
            raise

    def end(self, run: Run, where: Path, *, page: Path | None = None, fail_on: str = "any") -> int:
        """Print how a run ended, the next command if anything is left to do, and a link; return the exit code."""
        console, as_json = self.console, self.common.json
        run.refresh()
        sent: list[dict[str, Any]] = []
        try:
            if as_json:  # the object contains what became of the messages
                sent = _announce(run, console)
        finally:
            code, summary = show_run(console, run, as_json=as_json, fail_on=fail_on, notifications=sent)
        groups = by_code(summary.causes)
        if console.fix_me is not None:
            groups = [group for group in groups if group.code != Reason.INVALID]
        following = next_command(self.settings, run.record, groups)
        about_another = run.record.parent or run.record.corrects
        if about_another and (family := run.with_retries(corrected=True)) is not None:
            console.info(total_text(run.record, *family))
        console.suggest_one(following)
        target, shown = target_line(self.settings), page or where.absolute()
        console.link(_("{at} · run {id}: {where}", at=target, id=run.id, where=shown), shown)
        if not as_json:  # last: an interrupt here loses a message, nothing else
            _announce(run, console)
        return code


def _announce(run: Run, console: Console) -> list[dict[str, Any]]:
    """Tell others of a finished run that has findings; return what became of it, for `--json`."""
    audits = hooks(AuditHooks) if run.record.has_findings else None
    return [] if audits is None else audits.announce(run, console)

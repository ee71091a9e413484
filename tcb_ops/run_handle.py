"""A run that goes on in the background: begun, watched, cancelled, waited for; and who works on one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tcb_ops.errors import RunNotFoundError, StoppedError, TcbOpsError, UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Kind, Merchant, Owner
from tcb_ops.run import Run
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.links_file import check_place
from tcb_ops.runs.plan import RunSpec
from tcb_ops.runs.progress import Progress
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.session import RunSession
from tcb_ops.settings import NOT_STARTED, Settings, aim, default_settings
from tcb_ops.wechat.tokens import TokenSource

_going: dict[str, RunHandle] = {}
"""The runs going on in this process, by id, until somebody has waited for their end."""


class RunHandle:
    """A run going on in the background: `watch` it, `cancel` it, `wait` for it."""

    def __init__(
        self,
        ledger: Ledger,
        record: RunRecord,
        sitting: RunSession | None,
        settings: Settings,
        held: ExitStack,
        *,
        resumed: bool,
    ) -> None:
        self._ledger, self._sitting, self._settings, self._held = ledger, sitting, settings, held
        self.record = record
        self.resumed = resumed
        """Whether an unfinished run is being gone on with."""
        self._waiting = threading.Lock()
        self._waited: RunRecord | TcbOpsError | None = None
        _going[record.id] = self

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def links_run_out(self) -> int:
        """Of a finished links run: how many links had run out when links.csv was written."""
        return self._sitting.links_run_out if self._sitting is not None else 0

    def watch(self) -> Iterator[Progress]:
        """Give the progress as it is committed, until the work ends."""
        return self._sitting.watch() if self._sitting is not None else iter(())

    def ended_within(self, seconds: float) -> bool:
        """Wait so long at most for the work's end; gives whether it has ended."""
        return self._sitting is None or self._sitting.ended_within(seconds)

    def follow(self, show: Callable[[Iterator[Progress]], None]) -> None:
        """Hand the progress to `show` until the work ends; Ctrl-C cancels the work, tidily, and shows on."""
        try:
            show(self.watch())
        except KeyboardInterrupt as interrupt:
            if self._sitting is not None:
                self._sitting.interrupted(interrupt)

    def cancel(self) -> None:
        """End tidily; rows not done stay pending, and the same call goes on with them."""
        if self._sitting is not None:
            self._sitting.cancel()

    def wait(self) -> Run:
        """Wait for the run's end. Raises StoppedError, or InterruptedRunError after `cancel` or Ctrl-C.

        Several threads may wait: one of them ends the run, and all hear how.
        """
        with self._waiting:
            if self._waited is None:
                try:
                    with self._held:
                        self._waited = self._sitting.wait() if self._sitting is not None else self.record
                except TcbOpsError as error:
                    self._waited = error
                finally:
                    _going.pop(self.id, None)
        if isinstance(self._waited, TcbOpsError):
            raise self._waited
        return Run(self._ledger, self._waited, self._settings)

    def so_far(self) -> Run:
        """The run as the ledger has it now."""
        return Run(self._ledger, self._ledger.run(self.id), self._settings)


def working(run: str) -> RunHandle | None:
    """The run with this id, if it is going on in this process."""
    return _going.get(run)


def held_by(run: str, *, settings: Settings | None = None) -> Text | None:
    """Who works on a run, as a sentence; None where nobody does. Takes the run's lock for a moment to find out."""
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.locks import hold, planning

    ledger = Ledger((settings or default_settings()).ledger)
    try:
        with planning(ledger), hold(ledger, run):  # who plans to take it waits for us
            return None
    except UsageError as error:
        return error.text


def begin(
    work_of: Callable[[Ledger], RunSpec],
    out: Path | None,
    *,
    settings: Settings | None = None,
    limits: RunLimits | None = None,
    progress: Callable[[Progress], None] | None = None,
    note: str = "",
    new_run: bool = False,
    resume: str = "",
    may_resume: Callable[[str, float], bool] = lambda _run, _begun: False,
    tokens: TokenSource | None = None,
    skip_unchanged: bool = False,
    canary: int = 0,
    target: str | None = None,
) -> RunHandle:
    """Plan the work, or find the unfinished run to go on with, and set off. Raises UsageError, SettingsError, LedgerError.

    `out`: where a links run's file goes, else where the caller is going to export to. `target`: `simulator` or a URL, in
    place of the settings' own; the embedded simulator runs as long as the run is worked on.
    """
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.locks import hold, planning
    from tcb_ops.runs.plan import plan
    from tcb_ops.runs.session import RunSession
    from tcb_ops.simulator import opened_target
    from tcb_ops.wechat.tokens import open_source

    settings, limits = aim(settings or default_settings(), target), limits or RunLimits()
    # Refused, if it cannot be read, before anything is planned. The simulator that is yet to start has its own.
    source = tokens or (open_source(settings) if settings.api_base != NOT_STARTED else None)
    ledger = Ledger(settings.ledger)
    work = work_of(ledger)
    if work.kind is Kind.LINKS and out is not None:
        check_place(out)
    with ExitStack() as stack, planning(ledger) as still_alone:
        planned = plan(
            ledger,
            work,
            settings,
            out=out,
            manner=asdict(limits) | {"skip_unchanged": skip_unchanged, "canary": canary},
            note=note,
            new_run=new_run,
            resume=resume,
            now=time.time(),
            may_go_on=may_resume,
        )
        confirm = stack.enter_context(hold(ledger, planned.run.id))
        if planned.run.finished_at is not None:  # all but its report, which the caller writes
            return RunHandle(ledger, planned.run, None, settings, stack.pop_all(), resumed=True)
        settings = stack.enter_context(opened_target(settings, _merchants(ledger, planned.run)))
        try:
            still_alone()  # or another command may have planned a second run of the list
            sitting = RunSession(
                ledger,
                planned.run,
                settings,
                limits,
                root=work.root or Path(),
                out=out,
                tokens=source or open_source(settings),
                progress=progress,
                skip_unchanged=skip_unchanged,
                canary=canary,
                may_discard=lambda other: _abandoned(ledger, other, new_run=new_run),
                confirm=confirm,
            )
        except (UsageError, StoppedError):
            if not planned.resumed:
                ledger.forget(planned.run)
            raise
        return RunHandle(ledger, planned.run, sitting, settings, stack.pop_all(), resumed=planned.resumed)
    raise AssertionError  # the block above returns or raises


def _merchants(ledger: Ledger, run: RunRecord) -> list[Merchant]:
    """The merchants of a run: whom the embedded simulator serves."""
    return [
        Merchant(place.appid, place.merchant, place.env, owner=Owner(place.owner), left=place.left)
        for place in ledger.envs(run)
    ]


def _abandoned(ledger: Ledger, run_id: str, *, new_run: bool) -> bool:
    """Whether nobody goes on with a run: it is finished, or `new_run` was asked for and nobody works on it."""
    from tcb_ops.runs.locks import hold

    try:
        if ledger.run(run_id).finished_at is not None:
            return True
        with hold(ledger, run_id):
            return new_run
    except RunNotFoundError:  # of another ledger, or of one that is lost
        return new_run
    except UsageError:  # being worked on
        return False

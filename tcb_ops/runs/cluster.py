"""Running on a cluster: Dask distributed starts, restarts and scales the workers; the ledger says what each may write.

The starting process holds the run's lock, divides the merchants into partitions, submits a task for each, submits it
again when it is lost, and reads the progress from the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from tcb_ops.errors import ArgumentError, LedgerError, StoppedError, TcbOpsError, UsageError
from tcb_ops.i18n import Text, _, as_lines, as_list
from tcb_ops.model import SUCCESSES, Kind, Outcome, is_loopback
from tcb_ops.runs.engine import CONFIRM_EVERY, GRACE, RunContext
from tcb_ops.runs.limits import after_canary
from tcb_ops.runs.next_commands import install
from tcb_ops.runs.partitions import HAND_OVER, CoordinatorLedger, divide, partition_count
from tcb_ops.runs.progress import Progress, RateEstimator
from tcb_ops.runs.records import EnvRecord, Partition, Usage, lost_workers
from tcb_ops.runs.stop_errors import canary_stop, interrupted
from tcb_ops.settings import Origin, Settings, holds_password, without_password

if TYPE_CHECKING:
    from distributed import Client, Future

    from tcb_ops.runs.cluster_task import Assignment
    from tcb_ops.runs.sources import SourceQueries

Cluster: TypeAlias = "str | Client"
_LOCAL = r"local:([1-9][0-9]{0,2})"

WORKER_TTL = 6.0
"""Seconds without a heartbeat, of which there are two in a second, after which Dask gives a worker up; by default five minutes."""
CONNECT_WITHIN = 10.0
"""Seconds that a scheduler has to answer."""
BEAT_EVERY = 1.0
"""Seconds between two signs of life for the workers, and two looks at their progress."""
LOOK_EVERY = 0.1
"""Seconds between two looks at the tasks."""
STOP_WITHIN = GRACE + 5.0
"""Seconds that workers have to end when the run stops."""
TRIES = 3
"""Times that a task may fail in an unexpected way before the run stops."""


@contextmanager
def opened_cluster(cluster: Cluster, settings: Settings) -> Iterator[Client]:
    """Start or connect to a cluster; yield its client. A local one is closed at the end, any other one is left as it is.

    `cluster`: `local:N`, the URL of a scheduler, or a client. Raises UsageError if it cannot work on a run.
    """
    try:
        import distributed
    except ModuleNotFoundError:
        raise UsageError(
            _("A cluster needs Dask. Install it:\n{command}", command=install("cluster"))
        ) from None
    with ExitStack() as stack:
        if isinstance(cluster, distributed.Client):
            if cluster.asynchronous:
                raise ArgumentError("cluster", cluster, _("a client that is not asynchronous"))
            if cluster.status != "running":
                raise ArgumentError("cluster", cluster, _("a client that is connected to its scheduler"))
            client = cluster
        elif (local := re.fullmatch(_LOCAL, str(cluster))) is not None:
            client = _local(int(local[1]), settings, stack)
        else:
            client = _connected(str(cluster), stack)
        _refuse_unsuitable(client, settings)
        client.run_on_scheduler(_give_up_silent_workers, WORKER_TTL)
        yield client


def check_cluster(cluster: object) -> None:
    """Raise ArgumentError for anything but the name of a cluster or a client of one."""
    text = isinstance(cluster, str) and re.fullmatch(rf"{_LOCAL}|(tls|tcp)://\S+:[0-9]+", cluster)
    if not (text or hasattr(cluster, "run_on_scheduler")):
        raise ArgumentError(
            "cluster", cluster, _("local:N, the URL of a scheduler (tls://HOST:PORT), or a Client of Dask")
        )


def _local(workers: int, settings: Settings, stack: ExitStack) -> Client:
    import dask
    from distributed import Client, LocalCluster

    secret = {"TCB_OPS_LEDGER": settings.ledger} if holds_password(settings.ledger) else {}
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        local = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: the usual one may be another cluster's
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            preload=["tcb_ops.runs.cluster_task"],
            env=secret,
        )
    stack.callback(local.close, timeout=5)
    return stack.enter_context(Client(local, set_as_default=False))


def dashboard_of(client: Client) -> str:
    """Return the address of the cluster's dashboard; "" if it has none, as without bokeh."""
    if not client.run_on_scheduler(_has_dashboard):
        return ""
    try:
        link = str(client.dashboard_link or "")
    except KeyError:  # the setting distributed.dashboard.link names a variable that is not set
        return ""
    return link if urlsplit(link).scheme in {"", "http", "https"} else ""


def _has_dashboard() -> bool:
    """Return whether the scheduler serves a dashboard. Runs in the scheduler.

    Without bokeh, Dask has the address nevertheless: it serves the advice to install it.
    """
    return "distributed.dashboard.scheduler" in sys.modules


def _connected(address: str, stack: ExitStack) -> Client:
    from distributed import Client

    parts = urlsplit(address)
    if parts.scheme != "tls" and not is_loopback(parts.hostname or ""):
        raise UsageError(
            _(
                "{address}: a scheduler on another machine must be reached through TLS (tls://…): its connection "
                "carries programs and settings.",
                address=address,
            )
        )
    try:
        client = Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            _(
                "The scheduler {address} cannot be reached within {seconds:g} s ({why}). Is it running, and, for tls://, "
                "are its certificates in the settings of Dask (DASK_DISTRIBUTED__COMM__TLS__…)?",
                address=address,
                seconds=CONNECT_WITHIN,
                why=type(error).__name__,
            )
        ) from None
    stack.callback(_close, client)
    return client


def _close(client: Client) -> None:
    """Close a client. One that is just connecting again raises an error of its own, which would hide why the run ended."""
    with suppress(Exception):
        client.close()


def _refuse_unsuitable(client: Client, settings: Settings) -> None:
    """Raise UsageError for a cluster whose versions differ, or that the ledger, tokens or target cannot serve."""
    address = client.scheduler.address
    if not is_loopback(urlsplit(address).hostname or "") and not address.startswith("inproc://"):
        where = {"address": address}
        if "://" not in settings.ledger:
            raise UsageError(
                _(
                    "An SQLite ledger cannot be shared with the workers of {address}: use a PostgreSQL database "
                    "(--ledger postgresql+psycopg://…), or --cluster local:N on this machine.",
                    **where,
                ),
                options=["--ledger", "--cluster"],
            )
        if settings.tokens.source == "component":
            raise UsageError(
                _(
                    "Tokens of the source `component` stay on one machine. Use --cluster local:N there, or serve them "
                    'from it with `tcb-ops tokens serve`, and give this run and its workers source = "service".'
                ),
                options=["--cluster"],
            )
        if settings.on_loopback:
            raise UsageError(
                _("The workers of {address} cannot reach a target on this machine.", **where),
                options=["--target"],
            )
    found = client.get_versions(packages=["tcb_ops"])
    mine = _versions(found["client"])
    for name, there in [("scheduler", found["scheduler"]), *found["workers"].items()]:
        theirs = _versions(there)
        # Workers without tcb-ops are found by their tasks: others may have it.
        if theirs[0] != mine[0] or (name == "scheduler" and theirs != mine):
            raise UsageError(
                _(
                    "{name} of the cluster has Dask {dask} and tcb-ops {version}, this process Dask {mine_dask} and "
                    "tcb-ops {mine}: install the same versions.",
                    name=name,
                    dask=theirs[0],
                    version=theirs[1] or "-",
                    mine_dask=mine[0],
                    mine=mine[1],
                )
            )


def _versions(node: dict[str, Any] | None) -> tuple[str, str]:
    packages = (node or {}).get("packages", {})
    return str(packages.get("distributed") or "-"), str(packages.get("tcb_ops") or "")


def _give_up_silent_workers(ttl: float, dask_scheduler: Any = None) -> None:
    """Have the scheduler give up workers that are silent for `ttl` seconds. Runs in the scheduler."""
    from tornado.ioloop import PeriodicCallback

    if dask_scheduler.worker_ttl is not None and dask_scheduler.worker_ttl <= ttl:
        return
    dask_scheduler.worker_ttl = ttl
    if (before := dask_scheduler.periodic_callbacks.pop("worker-ttl", None)) is not None:
        before.stop()
    looking = PeriodicCallback(dask_scheduler.check_worker_ttl, 1_000)
    dask_scheduler.periodic_callbacks["worker-ttl"] = looking
    looking.start()


class Coordinator:
    """The starting process's part of a session on a cluster, in place of an Engine."""

    def __init__(self, context: RunContext, client: Client, show: Callable[[Progress], None]) -> None:
        self._context, self._run, self._client = context, context.run, client
        self._address = client.scheduler.address if client.scheduler else ""
        self._show_progress = show
        self._stop = threading.Event()
        self._ended_at = time.monotonic()
        self._messages: tuple[Text, ...] = ()
        self._lost: set[str] = set()
        self._unfit: dict[str, TcbOpsError] = {}
        """Errors of workers that cannot work on the run, by address."""
        self._failures = 0

    def interrupt(self) -> None:
        """End the session: workers stop within two seconds, all other rows stay pending."""
        self._stop.set()

    def paused_until(self) -> dict[str, float]:
        """Return nothing: the pauses are those of the workers."""
        return {}

    async def work(self) -> None:
        """Work on the run's pending rows. Raises StoppedError (exit 3) or InterruptedRunError; other rows stay pending."""
        work = asyncio.get_running_loop().run_in_executor(None, self._coordinate)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop.set()
            raise

    def _coordinate(self) -> None:
        with closing(CoordinatorLedger(self._context.settings.ledger)) as ledger:
            self._ledger = ledger
            self._before = {
                outcome: rows
                for outcome, rows in ledger.counts(self._run).items()
                if outcome != Outcome.PENDING
            }
            self._rate = RateEstimator(self._run.rows, sum(self._before.values()))
            self._session, at_work = ledger.begin(self._run)
            try:
                if at_work and self._stop.wait(HAND_OVER):
                    raise interrupted()
                environments = ledger.environments(self._run)
                waiting = after_canary(environments, self._context.canary)
                self._work_through([one for one in environments if one.env not in waiting])
                if waiting:
                    self._check_canary(waiting)
                    self._work_through([one for one in environments if one.env in waiting])
                ledger.beat(self._run, self._session, ended=True)
            finally:
                self._report_use(time.monotonic())
        counts = self._context.ledger.counts(self._run)
        # As in the engine: rows that are no longer found by environment were never worked on.
        self._context.ledger.check_rows(self._run, self._run.rows - counts.get(Outcome.PENDING, 0))

    def _check_canary(self, others: set[str]) -> None:
        """Raise CanaryError if a row of the environments that went first did not succeed."""
        succeeded = SUCCESSES | {Outcome.INVALID}
        tallies = self._ledger.tallies(self._run)
        if rows := sum(one.rows for one in tallies if one.env not in others and one.outcome not in succeeded):
            raise canary_stop(rows)

    def _work_through(self, environments: Sequence[EnvRecord]) -> None:
        """Have workers work on the pending rows of these environments. Raises what stopped them."""
        workers = max(1, len(self._known_workers()))
        limits = self._context.limits
        most = partition_count(
            sum(one.pending > 0 for one in environments),
            workers,
            per_env=limits.per_env,
            concurrency=limits.concurrency,
        )
        groups = divide(environments, most, self._context.settings.tokens.component_appid)
        first = len(self._ledger.partitions(self._run, self._session))
        self._ledger.add_partitions(self._run, self._session, groups, first)
        tasks = {self._submit(number, workers): number for number in range(first, first + len(groups))}
        try:
            self._watch(tasks, workers)
            self._show()
        except TcbOpsError:
            with suppress(LedgerError):
                self._let_stop(tasks)
            raise
        finally:
            if tasks:
                self._client.cancel(list(tasks), force=True)

    def _watch(self, tasks: dict[Future, int], workers: int) -> None:
        """Wait for tasks to end, and submit those again that were lost. Raises what stops the run."""
        beaten, confirmed = 0.0, time.monotonic()
        manned = confirmed
        while tasks:
            if self._stop.wait(LOOK_EVERY):
                raise interrupted()
            now = time.monotonic()
            if now - confirmed >= CONFIRM_EVERY:
                confirmed = now
                self._context.confirm()
            if now - beaten >= BEAT_EVERY:
                beaten = now
                self._ledger.beat(self._run, self._session)
                self._report_use(now)
                self._show()
                manned = now if self._known_workers() else manned
                if now - manned > self._context.limits.patience:
                    raise StoppedError(
                        _(
                            "The cluster {address} has no worker; unfinished rows stay pending.",
                            address=self._address,
                        )
                    )
            for task in [task for task in tasks if task.status != "pending"]:
                number = tasks.pop(task)
                if self._has_to_be_repeated(task):
                    tasks[self._submit(number, workers)] = number

    def _let_stop(self, tasks: dict[Future, int]) -> None:
        """Have the workers stop, and wait until they have, so that the same command can resume the run at once."""
        self._ledger.beat(self._run, self._session, stopping=True)
        end = time.monotonic() + STOP_WITHIN
        while any(task.status == "pending" for task in tasks) and time.monotonic() < end:
            if not self._known_workers():
                return
            time.sleep(LOOK_EVERY)
        if all(task.status == "finished" for task in tasks):
            tasks.clear()
            self._ledger.beat(self._run, self._session, ended=True)
        self._show()

    def _known_workers(self) -> list[str]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"])

    def _assignment(self, number: int, workers: int) -> Assignment:
        """Return the inputs of a partition's task, which contain no password."""
        from tcb_ops.runs.cluster_task import Assignment

        context = self._context
        tokens = context.settings.tokens
        ledger = context.settings.ledger
        settings = replace(
            context.settings,
            ledger="tcb-ops.db",
            tokens=replace(tokens, file=tokens.file.absolute(), store=tokens.store.absolute()),
            _origin=Origin(),  # it has the settings file's values, with the ledger's URL
        )
        return Assignment(
            ledger=without_password(ledger) if "://" in ledger else str(Path(ledger).absolute()),
            run=self._run.id,
            session=self._session,
            partition=number,
            settings=settings,
            limits=context.limits,
            root=str(context.root.absolute()),
            skip_unchanged=context.skip_unchanged,
            workers=workers,
            version=version("tcb-ops"),
        )

    def _submit(self, number: int, workers: int) -> Future:
        from tcb_ops.runs.cluster_task import work_on

        assignment = self._assignment(number, workers)
        fit = None
        if self._unfit:
            fit = [one for one in self._known_workers() if one not in self._unfit]
        # By priority, what a lost worker had begun is the next to be continued; without, it would be the last.
        task = self._client.submit(work_on, assignment, pure=False, retries=0, workers=fit, priority=-number)
        if self._client.status != "running":  # the client drops what it is given while it reconnects
            raise self._connection_lost()
        return task

    def _has_to_be_repeated(self, task: Future) -> bool:
        """Return whether a task's partition has to be submitted again. Raises the error that stops the run."""
        from tcb_ops.runs.cluster_task import TaskEnd

        if task.status in {"cancelled", "lost"}:
            raise self._connection_lost()
        if task.status == "error":
            self._failures += 1
            if self._failures > TRIES:
                raise StoppedError(
                    _(
                        "The cluster's workers cannot run tcb-ops ({why}): install the same version of it, with its "
                        "extras, on each of them.",
                        why=type(task.exception()).__name__,
                    )
                )
            return True
        result = task.result()
        if result.end is TaskEnd.STOPPED:
            raise result.error
        if result.end is TaskEnd.UNFIT:
            self._set_aside(result.worker, result.address, result.error)
        return result.end is not TaskEnd.DONE

    def _connection_lost(self) -> StoppedError:
        return StoppedError(
            _(
                "The connection to the cluster's scheduler {address} was lost; unfinished rows stay pending.",
                address=self._address,
            )
        )

    def _set_aside(self, worker: str, address: str, error: TcbOpsError) -> None:
        """Give a worker no further partition. Raises StoppedError if there is no other one."""
        if address not in self._unfit:
            self._unfit[address] = error
            self._messages += (
                _("Worker {worker} cannot work on this run: {why}.", worker=worker, why=error.text),
            )
        if self._unfit.keys() >= set(self._known_workers()):
            reasons = {one.text.en: one.text for one in self._unfit.values()}
            raise StoppedError(
                as_lines([_("No worker of the cluster can work on this run:"), *reasons.values()])
            )

    def _report_use(self, now: float) -> None:
        """Record the session's time; calls and times by phase are recorded by the workers."""
        with suppress(LedgerError):
            self._ledger.record(self._run, [], Usage(now - self._ended_at))
        self._ended_at = now

    def _show(self) -> None:
        """Show the progress and the workers that were lost, both from the ledger."""
        found = self._ledger.partitions(self._run, self._session)
        counts: Counter[Outcome] = Counter(self._before)
        for one in found:
            for by_worker in one.done.values():
                counts.update(by_worker)
        self._messages += tuple(self._lost_workers(found))
        done = sum(counts.values())
        rate, left = self._rate.update(time.monotonic(), done)
        self._show_progress(
            Progress(self._run.id, self._run.rows, +counts, rate, left, messages=self._messages)
        )

    def _lost_workers(self, found: Sequence[Partition]) -> Iterator[Text]:
        for lost, others in lost_workers(found).items():
            if lost not in self._lost:
                self._lost.add(lost)
                yield _(
                    "Worker {lost} lost; its merchants continue on {others}.",
                    lost=lost,
                    others=as_list(others, 3),
                )


def check_kind(kind: Kind, queries: SourceQueries | None) -> None:
    """Raise UsageError for a run whose secrets stay on one machine: links in a file, the queries of URLs."""
    if queries is not None:
        raise UsageError(
            _(
                "the list has URLs with a query, which may be a signature and never leaves this process, so a cluster "
                "cannot work on it. Omit --cluster."
            ),
            options=["--cluster"],
        )
    if kind is Kind.LINKS:
        raise UsageError(
            _("Links are written to one file of this machine: a cluster works on uploads and audits."),
            options=["--cluster"],
        )

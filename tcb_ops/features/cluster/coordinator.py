"""The starting process of a run on a cluster.

It starts or connects to the workers, which Dask distributed starts again and scales, and refuses a cluster that cannot work on
the run. It holds the run's lock, divides the merchants into partitions, submits a task for each, submits it again when it is lost,
and reads the progress from the ledger, which says what each worker may write.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import os
import pickle
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from tcb_ops.details import DetailCode
from tcb_ops.engine.calls import MakeRunner, RunContext
from tcb_ops.engine.engine import GRACE, LOCK_CHECK_EVERY
from tcb_ops.engine.limits import after_canary
from tcb_ops.engine.next_commands import install
from tcb_ops.engine.plan import RunSpec
from tcb_ops.engine.progress import Progress, ProgressMeter
from tcb_ops.engine.stop_errors import interrupted, stopped
from tcb_ops.errors import ArgumentError, CanaryError, LedgerError, StoppedError, TcbOpsError, UsageError
from tcb_ops.features.cluster.task import BEAT_SECONDS, Assignment, TaskEnd, packed
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import _
from tcb_ops.ledger.connection import ledger_file
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import host_name
from tcb_ops.ledger.records import EnvRecord, RunRecord, Usage
from tcb_ops.model import Outcome, Owner, is_loopback
from tcb_ops.settings import HARMLESS, LEDGER_FILE, Origin, Settings, TokenSettings, holds_password, url_parts
from tcb_ops.signals import handled

if TYPE_CHECKING:
    from distributed import Client, Future

_LOCAL = r"local:([1-9][0-9]{0,2})"

WORKER_TTL = "6s"
"""After so long without a heartbeat, of which there are two in a second, Dask gives a local worker up; by default five minutes."""
CONNECT_WITHIN = 10.0
"""Seconds that a scheduler has to answer."""
CLOSE_WITHIN = 30.0
"""Seconds that the workers of a local cluster have to end."""
PER_WORKER = 8
"""Partitions per worker at most, so that a worker that comes, goes or is slow leaves little undivided."""
FEWEST_PER_WORKER = 2
_OPEN = {"pending", "lost"}
"""States of a task without a result; `lost` is one whose worker ended before it was fetched: Dask computes it again."""
LOOK_EVERY = 0.1
"""Seconds between two looks at the tasks."""
STOP_WITHIN = GRACE + 5.0
"""Seconds that workers have to end when the run stops."""
TRIES = 3
"""Times that a task may fail in an unexpected way before the run stops."""


@contextmanager
def opened_runner(cluster: str, settings: Settings, work: RunSpec) -> Iterator[MakeRunner]:
    """Start or connect to a cluster; yield what makes a run's runner.

    `cluster`: `local:N`, which is closed at the end, or the URL of a scheduler. Raises UsageError if it cannot work on the run: also where secrets stay
    on one machine, as links in a file and the queries of URLs do.
    """
    if work.urls is not None:
        text = _(
            "The list has URLs with a query, which may be a signature and never leaves this process, so a "
            "cluster cannot work on it. Omit {--cluster}."
        )
        raise UsageError(text)
    if work.kind.writes_links:
        text = _(
            "Links are written to one file on this machine, so no cluster can work on them. Omit {--cluster}."
        )
        raise UsageError(text)
    if os.name == "nt":
        text = _("A cluster has not been tried on Windows: run without {--cluster}, or on Linux or macOS.")
        raise UsageError(text)
    try:
        from distributed import utils
    except ModuleNotFoundError:
        raise _not_installed() from None
    stack = ExitStack()
    try:
        # A connection that fails or is lost is reported as an error.
        stack.enter_context(utils.silence_logging_cmgr(logging.CRITICAL))
        if (local := re.fullmatch(_LOCAL, cluster)) is not None:
            client = _local(int(local[1]), settings, stack)
        else:
            client = _connected(cluster, settings, stack)
        address = client.scheduler.address
        reason = None if is_loopback(urlsplit(address).hostname or "") else only_here(settings, address)
        if reason is not None:
            raise reason
        yield partial(Coordinator, client)
    finally:
        # A signal would leave a cluster that is only half closed, and hide why the run ended.
        is_main = threading.current_thread() is threading.main_thread()
        with handled(lambda _number, _frame: None) if is_main else nullcontext():
            stack.close()


def _not_installed() -> UsageError:
    return UsageError(_("A cluster needs Dask. Install it:\n{command}", command=install("cluster")))


def check_cluster(cluster: str) -> None:
    """Raise ArgumentError for anything but the name of a cluster."""
    if not re.fullmatch(rf"{_LOCAL}|(tls|tcp)://\S+:[0-9]+", cluster):
        valid = _("local:N, or the URL of a scheduler (tls://HOST:PORT)")
        raise ArgumentError("cluster", cluster, valid, shown=True)


def _local(workers: int, settings: Settings, stack: ExitStack) -> Client:
    """Start workers on this machine that nobody else can reach: every other user can connect to loopback."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    try:
        keys = Security.temporary()  # they exist in the memory of this process and of its workers only
    except ImportError:
        raise _not_installed() from None
    secret = {"TCB_OPS_LEDGER": settings.ledger} if holds_password(settings.ledger) else {}
    options = {
        "distributed.admin.large-graph-warning-threshold": "1GB",
        "distributed.scheduler.worker-ttl": WORKER_TTL,
        # Scheduler and workers import from it. Dask's own choice, a fixed name below /tmp, may be another user's.
        "temporary-directory": stack.enter_context(TemporaryDirectory(prefix="tcb-ops-cluster-")),
        # Dask has no TLS keys for its HTTP servers, and starts them in any case: they answer every user.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(options):
        try:
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # any free port: the usual one may be another cluster's
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,
                security=keys,
                silence_logs=logging.CRITICAL,
                preload=["tcb_ops.features.cluster.task"],
                env=secret,
            )
        except RuntimeError as error:
            text = _(
                "The workers of {cluster} do not start ({why}). In a script, the call must stand below "
                '`if __name__ == "__main__":`, because each worker imports the script.'
            )
            reason = str(error) or type(error).__name__
            raise UsageError(text.format(cluster=f"local:{workers}", why=reason)) from None
    # What a busy machine has not ended by then does not change how the run ended.
    stack.enter_context(suppress(TimeoutError))
    stack.callback(local.close, timeout=CLOSE_WITHIN)
    return stack.enter_context(Client(local, set_as_default=False))


def _connected(address: str, settings: Settings, stack: ExitStack) -> Client:
    if urlsplit(address).scheme != "tls" and address not in settings.unencrypted_schedulers:
        text = _(
            "{address}: a scheduler must be reached through TLS (tls://…). Without it, whoever can connect, on this "
            "machine every user, can run programs in the workers and read the tokens."
        )
        fix = _(
            'To accept that for this scheduler, set unencrypted_schedulers = ["{address}"] in tcb-ops.toml.'
        )
        raise UsageError(text.format(address=address), fix.format(address=address))
    try:
        client = _client_class()(address, timeout=CONNECT_WITHIN, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        reason = sanitize(str(error.__cause__ or error)) or type(error).__name__
        fix = _(
            "Check that it is running and that its address begins with tls://, and the certificates in Dask's "
            "settings (DASK_DISTRIBUTED__COMM__TLS__…): both sides need those of the same CA."
        )
        text = _("The scheduler {address} cannot be reached ({why}).", address=address, why=reason)
        raise UsageError(text, fix) from None
    # One that is just connecting again raises an error of its own, which would hide why the run ended.
    stack.enter_context(suppress(Exception))
    stack.callback(client.close)
    return client


def _client_class() -> type[Client]:
    from distributed import Client

    class ClosingClient(Client):  # type: ignore[misc]
        """A client that closes itself when it cannot connect, whatever the error: Dask does so for an OSError only."""

        async def _ensure_connected(self, **options: Any) -> None:
            try:
                # Dask waits for ever for another program's greeting.
                async with asyncio.timeout(CONNECT_WITHIN):
                    await super()._ensure_connected(**options)
            except (OSError, ImportError):
                raise
            except Exception as error:
                raise ConnectionError from error

    return ClosingClient


def only_here(settings: Settings, address: str) -> UsageError | None:
    """Return why workers of other machines cannot work with these settings; None if they can."""
    if ledger_file(settings.ledger) is not None:
        text = _(
            "An SQLite ledger cannot be shared with the workers of {address}: use a PostgreSQL database "
            "({--ledger:postgresql+psycopg://…}), or {--cluster:local:N} on this machine."
        )
    elif settings.tokens.source == "component":
        text = _(
            "Tokens of the source `component` stay on one machine. Use {--cluster:local:N} there, or give this "
            'run and its workers source = "service", with a token server of your own.'
        )
    elif settings.on_loopback:
        text = _("The workers of {address} cannot reach a target on this machine.")
    else:
        return None
    return UsageError(text.format(address=address))


# --- the run ------------------------------------------------------------------------------------------------------


def partition_count(environments: int, workers: int, *, per_env: int, concurrency: int) -> int:
    """Return into how many partitions environments are divided: the same number for each worker.

    A worker has one partition at a time. With few environments in it, `per_env` would leave most of its `concurrency` unused.

    ============  =======  =======  ===========  ======
    environments  workers  per_env  concurrency  result
    ============  =======  =======  ===========  ======
    400           2        8        64           16
    80            2        8        64           10
    40            2        8        64           4
    40            2        64       64           16
    10            2        8        64           4
    ============  =======  =======  ===========  ======
    """
    full = environments * per_env // concurrency
    return workers * min(PER_WORKER, max(FEWEST_PER_WORKER, full // workers))


def divide(environments: Sequence[EnvRecord], most: int, component_appid: str = "") -> list[list[EnvRecord]]:
    """Divide environments into at most `most` groups with about the same number of pending rows, the largest first.

    What shares an appid or an environment, and thereby a limit, stays together; so do all of the component's own.

    =============================================  ====  =======================
    environments: appid/env (pending rows)         most  groups
    =============================================  ====  =======================
    a/1 (9), b/2 (5), c/3 (4)                      2     a/1; b/2 + c/3
    a/1 (9), a/2 (5), c/3 (4)                      2     a/1 + a/2; c/3
    a/1 (9), b/1 (5), c/3 (4)                      2     a/1 + b/1; c/3
    a/1 (0), b/2 (5)                               2     b/2
    =============================================  ====  =======================
    """
    waiting = [environment for environment in environments if environment.pending]
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(key: tuple[str, ...]) -> tuple[str, ...]:
        while (above := parent.setdefault(key, key)) != key:
            key = above
        return key

    for environment in waiting:
        appid = component_appid if environment.owner == Owner.PLATFORM else environment.appid
        parent[root(("app", environment.owner, appid))] = root(("env", environment.env))
    together = defaultdict(list)
    for environment in waiting:
        together[root(("env", environment.env))].append(environment)
    groups: list[list[EnvRecord]] = [[] for _ in range(min(most, len(together)))]
    loads = [(0, n) for n in range(len(groups))]
    for group in sorted(together.values(), key=_pending_rows, reverse=True):
        load, n = heapq.heappop(loads)
        groups[n] += group
        heapq.heappush(loads, (load + _pending_rows(group), n))
    return groups


def _pending_rows(environments: Sequence[EnvRecord]) -> int:
    return sum(environment.pending for environment in environments)


_NEEDED = {
    "file": ("file",),
    "command": ("command",),
    "service": ("url", "auth_env", "auth_header"),
    "component": ("sole_owner", "secret", "ticket", "store"),
}
"""The settings of each token source."""


def settings_for_workers(settings: Settings) -> Settings:
    """Return the settings without what workers need not know: of the tokens, they get those of the source in use.

    =======================================================  ============================
    setting                                                  sent
    =======================================================  ============================
    target, hosts, etag, time zone, language                 yes
    tokens.source, tokens.component_appid                    yes
    tokens.file, command, url, secret …                      with the source that uses it
    sections of features, the ledger, the settings file      no
    =======================================================  ============================
    """
    tokens = settings.tokens
    needed = {name: getattr(tokens, name) for name in _NEEDED[tokens.source]}
    paths = {name: path.absolute() for name, path in needed.items() if isinstance(path, Path)}
    return replace(
        settings,
        ledger=LEDGER_FILE,
        tokens=TokenSettings(
            source=tokens.source, component_appid=tokens.component_appid, **(needed | paths)
        ),
        sections={},
        # The settings' own origin has the settings file's values, with the ledger's URL.
        origin=Origin(folder=settings.folder_of("tokens.command")),
    )


class CoordinatorLedger(Ledger):
    """The ledger for the process that starts a run on a cluster, and holds its lock."""

    def begin(self, run: RunRecord) -> int:
        """Begin a session, after the workers of earlier ones have been fenced (`stop_workers`); return its number."""
        newest = "SELECT COALESCE(MAX(session), 0) FROM cluster_sessions WHERE run = ?"
        new = "INSERT INTO cluster_sessions (run, session, beat, stopping, ended) VALUES (?, ?, 0, FALSE, FALSE)"
        with self.writing() as connection:
            (last,) = connection.execute(newest, (run.number,)).fetchone()
            connection.execute(new, (run.number, last + 1))
        return int(last) + 1

    def add_partitions(
        self, run: RunRecord, session: int, groups: Sequence[Sequence[EnvRecord]], first: int
    ) -> None:
        """Record partitions, numbered from `first`."""
        new = "INSERT INTO partitions (run, session, number, envs, fence) VALUES (?, ?, ?, ?, 0)"
        with self.writing() as connection:
            for number, group in enumerate(groups, first):
                numbers = json.dumps([environment.number for environment in group])
                connection.execute(new, (run.number, session, number, numbers))

    def beat(self, run: RunRecord, session: int, *, stopping: bool = False, ended: bool = False) -> None:
        """Show the workers that the starting process is there, or have them stop; `ended`: that all have.

        What has been stopped stays so: another process may have taken the run from this one.
        """
        statement = """
            UPDATE cluster_sessions SET beat = beat + 1, stopping = (stopping OR ?), ended = (ended OR ?)
            WHERE run = ? AND session = ?"""
        with self.writing() as connection:
            connection.execute(statement, (stopping or ended, ended, run.number, session))


class Coordinator:
    """The starting process's part of a session on a cluster, in place of an Engine."""

    def __init__(self, client: Client, context: RunContext, show: Callable[[Progress], None]) -> None:
        self._context, self._run, self._client = context, context.run, client
        self._address = client.scheduler.address if client.scheduler else ""
        self._show_progress = show
        self._stop = threading.Event()
        self._ended_at = time.monotonic()
        self._waiting = False
        """Whether nothing can be done until there is a worker."""
        self._failures = self._partitions = 0
        self._show_again = 0.0
        """When counting the rows may cost time again."""
        self.has_begun_rows = True
        """Nobody knows what the workers had begun."""

    def interrupt(self) -> None:
        """End the session: workers stop within two seconds, all other rows stay pending."""
        self._stop.set()

    async def work(self) -> None:
        """Work on the run's pending rows. Raises StoppedError (exit 3) or InterruptedRunError; other rows stay pending."""
        work = asyncio.get_running_loop().run_in_executor(None, self._coordinate)
        # Cancelled, nobody waits for its error: without this, asyncio would print it.
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop.set()
            raise

    def _coordinate(self) -> None:
        with closing(CoordinatorLedger(self._context.settings.ledger)) as ledger:
            self._ledger = ledger
            self._meter = ProgressMeter(self._run.id, self._run.rows, ledger.counts(self._run))
            self._session = ledger.begin(self._run)
            try:
                environments = ledger.environments(self._run)
                waiting = after_canary(environments, self._context.canary)
                self._work_through([first for first in environments if first.env not in waiting])
                if waiting:
                    self._check_canary(waiting)
                    self._work_through([other for other in environments if other.env in waiting])
                ledger.beat(self._run, self._session, ended=True)
            finally:
                self._report_use(time.monotonic())
        counts = self._context.ledger.counts(self._run)
        # As in the engine: rows that are no longer found by environment were never worked on.
        self._context.ledger.check_rows(self._run, self._run.rows - counts.get(Outcome.PENDING, 0))

    def _check_canary(self, others: set[str]) -> None:
        succeeded = Outcome.successes() | {Outcome.INVALID}
        first = [tally for tally in self._ledger.tallies(self._run) if tally.env not in others]
        if rows := sum(tally.rows for tally in first if tally.outcome not in succeeded):
            raise stopped(CanaryError, DetailCode.CANARY, rows=rows)

    def _work_through(self, environments: Sequence[EnvRecord]) -> None:
        limits = self._context.limits
        open_ones, workers = sum(each.pending > 0 for each in environments), max(1, len(self._workers()))
        most = partition_count(open_ones, workers, per_env=limits.per_env, concurrency=limits.concurrency)
        groups = divide(environments, most, self._context.settings.tokens.component_appid)
        first = self._partitions
        self._partitions += len(groups)
        self._ledger.add_partitions(self._run, self._session, groups, first)
        tasks: dict[Future, int] = {}
        try:
            for number in range(first, self._partitions):
                tasks[self._submit(number)] = number
            self._watch(tasks)
            self._show()
        except TcbOpsError:
            with suppress(LedgerError):
                self._let_stop(tasks)
            raise
        finally:
            if tasks and self._client.status == "running":  # else it is closed, since the run is ending
                with suppress(Exception):
                    self._client.cancel(list(tasks), force=True)

    def _watch(self, tasks: dict[Future, int]) -> None:
        """Wait for tasks to end, and submit those again that were lost. Raises what stops the run."""
        beaten, lock_checked = 0.0, time.monotonic()
        last_worker_at, patience = lock_checked, self._context.limits.patience
        while tasks:
            if self._stop.wait(LOOK_EVERY):
                raise interrupted()
            now = time.monotonic()
            if now - lock_checked >= LOCK_CHECK_EVERY:
                lock_checked = now
                self._context.check_lock()
            if now - beaten >= BEAT_SECONDS:
                beaten = now
                self._ledger.beat(self._run, self._session)
                self._report_use(now)
                last_worker_at = now if self._workers() else last_worker_at
                self._waiting = last_worker_at < now
                if now > self._show_again:
                    self._show()
                if now - last_worker_at > patience:
                    text = _("The cluster {address} has no worker; unfinished rows stay pending.")
                    raise StoppedError(text.format(address=self._address))
            for task in [task for task in tasks if task.status not in _OPEN]:
                number = tasks.pop(task)
                if self._has_to_be_repeated(task):
                    tasks[self._submit(number)] = number
                task.release()  # otherwise Dask computes it again when its worker ends

    def _submit(self, number: int) -> Future:
        # Packed: an import of tcb-ops within the worker's event loop would stop its heartbeat.
        task = self._client.submit(
            pickle.loads,
            packed(self._assignment(number)),
            key=f"work_on-{uuid4().hex}",
            pure=False,
            retries=0,
            # What a lost worker had begun is the next to be continued; without, it would be the last.
            priority=-number,
        )
        if self._client.status != "running":  # the client drops what it is given while it reconnects
            raise self._connection_lost()
        return task

    def _let_stop(self, tasks: dict[Future, int]) -> None:
        """Have the workers stop, and wait until they have, so that the same command can resume the run at once."""
        self._ledger.beat(self._run, self._session, stopping=True)
        end = time.monotonic() + STOP_WITHIN
        while any(task.status == "pending" for task in tasks) and time.monotonic() < end:
            if self._client.status != "running" or not self._workers():
                return
            time.sleep(LOOK_EVERY)
        if all(task.status == "finished" for task in tasks):
            tasks.clear()
            self._ledger.beat(self._run, self._session, ended=True)
        self._show()

    def _workers(self) -> list[str]:
        """Return the workers' addresses; none if the client is closed, as after a second Ctrl-C."""
        if self._client.status not in {"running", "closing", "closed"}:
            raise self._connection_lost()
        with suppress(Exception):
            return list(self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"])
        return []

    def _assignment(self, number: int) -> Assignment:
        context = self._context
        ledger = context.settings.ledger
        file = ledger_file(ledger)
        return Assignment(
            ledger=without_password(ledger) if file is None else str(file.absolute()),
            run=self._run.id,
            session=self._session,
            partition=number,
            settings=settings_for_workers(context.settings),
            limits=context.limits,
            root=str(context.root.absolute()),
            skip_unchanged=context.skip_unchanged,
            version=version("tcb-ops"),
            host=host_name() if only_here(context.settings, self._address) else "",
        )

    def _has_to_be_repeated(self, task: Future) -> bool:
        """Return whether a task's partition has to be submitted again. Raises the error that stops the run."""
        if task.status == "cancelled":
            raise self._connection_lost()
        if task.status == "error":
            self._failures += 1
            if self._failures > TRIES:
                text = _(
                    "The cluster's workers cannot run tcb-ops ({why}): install the same version of it, with its extras, "
                    "on each of them."
                )
                raise StoppedError(text.format(why=type(task.exception()).__name__))
            return True
        result = task.result()
        if result.end is TaskEnd.STOPPED:
            result.error.text = _("Worker {worker}: {why}", worker=result.worker, why=result.error.text)
            result.error.args = (result.error.text.en,)
            raise result.error
        return result.end is TaskEnd.FENCED

    def _connection_lost(self) -> StoppedError:
        text = _(
            "The connection to the cluster's scheduler {address} was lost; unfinished rows stay pending."
        )
        return StoppedError(text.format(address=self._address))

    def _report_use(self, now: float) -> None:
        """Record the session's time; calls are recorded by the workers."""
        with suppress(LedgerError):
            self._ledger.record(self._run, [], Usage(now - self._ended_at))
        self._ended_at = now

    def _show(self) -> None:
        began, counts = time.monotonic(), self._ledger.counts(self._run)
        self._show_again = began + 10 * (time.monotonic() - began)
        note = None
        if self._waiting:
            note = _("{address} has no worker: waiting for one, for at most {seconds:g} s.")
            note = note.format(address=self._address, seconds=self._context.limits.patience)
        self._show_progress(self._meter.at(began, counts, note, away=self._waiting))


def without_password(where: str) -> str:
    """Return a ledger's URL without the parts that may contain a password: drivers also find one in the environment."""
    scheme, account, host, query = url_parts(where)
    if not scheme:
        return where
    user = f"{account.partition(':')[0]}@" if account else ""
    harmless = "&".join(part for part in query.split("&") if part.partition("=")[0] in HARMLESS)
    return f"{scheme}{user}{host}{'?' if harmless else ''}{harmless}"

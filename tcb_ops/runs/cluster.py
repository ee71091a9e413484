"""Running on a cluster: Dask distributed starts, restarts and scales the workers; the ledger says what each may write.

The starting process holds the run's lock, divides the merchants into partitions, submits a task for each, submits it
again when it is lost, and reads the progress from the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import signal
import socket
import ssl
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

from tcb_ops.errors import ArgumentError, LedgerError, StoppedError, TcbOpsError, TokenSourceError, UsageError
from tcb_ops.i18n import Text, _, as_lines, as_list
from tcb_ops.model import SUCCESSES, Kind, Outcome, is_loopback
from tcb_ops.runs.database import ledger_file
from tcb_ops.runs.engine import CONFIRM_EVERY, GRACE, RunContext
from tcb_ops.runs.limits import after_canary
from tcb_ops.runs.locks import host_name
from tcb_ops.runs.next_commands import install
from tcb_ops.runs.partitions import BEAT_SECONDS, CoordinatorLedger, divide, partition_count
from tcb_ops.runs.progress import Progress, RateEstimator
from tcb_ops.runs.records import EnvRecord, Partition, Usage, lost_workers
from tcb_ops.runs.stop_errors import canary_stop, interrupted, without_tokens
from tcb_ops.settings import Origin, Settings, holds_password, without_password

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.security import Security

    from tcb_ops.runs.cluster_task import Assignment
    from tcb_ops.runs.sources import SourceQueries

Cluster: TypeAlias = "str | Client"
_LOCAL = r"local:([1-9][0-9]{0,2})"

WORKER_TTL = 6.0
"""Seconds without a heartbeat, of which there are two in a second, after which Dask gives a worker up; by default five minutes."""
CONNECT_WITHIN = 10.0
"""Seconds that a scheduler has to answer."""
_OPEN = {"pending", "lost"}
"""States of a task without a result; `lost` is one whose worker ended before it was fetched: Dask computes it again."""
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
        from distributed.utils import silence_logging_cmgr
    except ModuleNotFoundError:
        raise UsageError(
            _("A cluster needs Dask. Install it:\n{command}", command=install("cluster"))
        ) from None
    stack = ExitStack()
    try:
        # A connection that fails or is lost is reported as an error.
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
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
    finally:
        with _ctrl_c_ignored():
            stack.close()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C: it would leave a cluster that is only half closed, and hide why the run ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def check_cluster(cluster: object) -> None:
    """Raise ArgumentError for anything but the name of a cluster or a client of one."""
    text = isinstance(cluster, str) and re.fullmatch(rf"{_LOCAL}|(tls|tcp)://\S+:[0-9]+", cluster)
    if not (text or hasattr(cluster, "run_on_scheduler")):
        raise ArgumentError(
            "cluster",
            cluster,
            _("local:N, the URL of a scheduler (tls://HOST:PORT), or a Client of Dask"),
            shown=isinstance(cluster, str),
        )


def _local(workers: int, settings: Settings, stack: ExitStack) -> Client:
    import dask
    from distributed import Client, LocalCluster

    secret = {"TCB_OPS_LEDGER": settings.ledger} if holds_password(settings.ledger) else {}
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        try:
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
        except RuntimeError:
            raise UsageError(
                _(
                    "The workers of {cluster} do not start. In a script, the call must stand below "
                    '`if __name__ == "__main__":`, because each worker imports the script.',
                    cluster=f"local:{workers}",
                )
            ) from None
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
    from distributed.versions import VersionMismatchWarning

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # _refuse_unsuitable compares them
            client = _client_class()(
                address, security=_security(address), timeout=CONNECT_WITHIN, set_as_default=False
            )
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise _not_connected(address, error) from None
    stack.callback(_close, client)
    return client


def _security(address: str) -> Security | None:
    """Return the certificates of Dask's settings; None to leave it to them. Raises UsageError for what is missing there."""
    import dask
    from distributed.security import Security

    if urlsplit(address).scheme != "tls" or dask.config.get("distributed.client.security-loader", None):
        return None
    found = Security()
    files = {
        "CA_FILE": found.tls_ca_file,
        "CLIENT__CERT": found.tls_client_cert,
        "CLIENT__KEY": found.tls_client_key,
    }
    for name, file in files.items():
        variable = f"DASK_DISTRIBUTED__COMM__TLS__{name}"
        if not file and name != "CLIENT__KEY":  # which the certificate's file may contain
            raise UsageError(
                _("{address} needs certificates: {variable} names none.", address=address, variable=variable)
            )
        if file and "\n" not in file and not Path(file).is_file():
            raise UsageError(_("{variable}: the file {file} does not exist.", variable=variable, file=file))
    try:
        found.get_connection_args("client")
    except (OSError, ValueError) as error:
        why = _ssl_reason(error) or type(error).__name__
        names = as_list(str(file) for file in files.values() if file and "\n" not in file)
        raise UsageError(
            _("The certificates {names} cannot be used ({why}).", names=names, why=why)
        ) from None
    return found


def _client_class() -> type[Client]:
    from distributed import Client

    class ClosingClient(Client):  # type: ignore[misc]
        """A client that closes itself when it cannot connect, whatever the error: Dask does so for an OSError only."""

        async def _ensure_connected(self, **options: Any) -> None:
            try:
                async with asyncio.timeout(
                    CONNECT_WITHIN
                ):  # Dask waits for ever for another program's greeting
                    await super()._ensure_connected(**options)
            except (OSError, ImportError):
                raise
            except Exception as error:
                raise ConnectionError from error

    return ClosingClient


def _not_connected(address: str, error: BaseException) -> UsageError:
    """Return the error for a scheduler that cannot be reached, or what listens at its address is none."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    if why := next(filter(None, map(_ssl_reason, causes)), ""):
        return UsageError(
            _(
                "The connection to the scheduler {address} failed ({why}): is it reached with tls://, and are the "
                "certificates on both sides of the same CA?",
                address=address,
                why=why,
            )
        )
    if any(isinstance(one, TimeoutError | ConnectionRefusedError | socket.gaierror) for one in causes):
        return UsageError(
            _(
                "The scheduler {address} cannot be reached within {seconds:g} s ({why}). Is it running?",
                address=address,
                seconds=CONNECT_WITHIN,
                why=type(causes[-1]).__name__,
            )
        )
    return UsageError(
        _(
            "What listens at {address} does not answer as a scheduler of Dask ({why}).",
            address=address,
            why=type(causes[-1]).__name__,
        )
    )


def _ssl_reason(error: BaseException) -> str:
    """Return what is wrong with a certificate or TLS connection; empty for any other error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else type(error).__name__
    return ""


def _close(client: Client) -> None:
    """Close a client. One that is just connecting again raises an error of its own, which would hide why the run ended."""
    with suppress(Exception):
        client.close()


def _refuse_unsuitable(client: Client, settings: Settings) -> None:
    """Raise UsageError for a cluster whose versions differ, or that the ledger, tokens or target cannot serve."""
    address = client.scheduler.address
    if (only_here := _only_here(settings, address)) is not None:
        scheduler_here = is_loopback(urlsplit(address).hostname or "") or address.startswith("inproc://")
        if not scheduler_here or not all(map(on_this_host, _workers_of(client))):
            raise only_here
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


def _only_here(settings: Settings, address: str) -> UsageError | None:
    """Return why workers of other machines cannot work with these settings; None if they can."""
    where = {"address": address}
    if ledger_file(settings.ledger) is not None:
        return UsageError(
            _(
                "An SQLite ledger cannot be shared with the workers of {address}: use a PostgreSQL database "
                "(--ledger postgresql+psycopg://…), or --cluster local:N on this machine.",
                **where,
            ),
            options=["--ledger", "--cluster"],
        )
    if settings.tokens.source == "component":
        return UsageError(
            _(
                "Tokens of the source `component` stay on one machine. Use --cluster local:N there, or serve them "
                'from it with `tcb-ops tokens serve`, and give this run and its workers source = "service".'
            ),
            options=["--cluster"],
        )
    if settings.on_loopback:
        return UsageError(
            _("The workers of {address} cannot reach a target on this machine.", **where),
            options=["--target"],
        )
    return None


def _workers_of(client: Client) -> list[str]:
    return list(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


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


def _failed_on(key: str, dask_scheduler: Any = None) -> str:
    """Return the address of the worker on which a task failed. Runs in the scheduler."""
    return str(min(dask_scheduler.tasks[key].erred_on))


def _without_module(name: str) -> Text:
    return _(
        "it has no module {name}: install tcb-ops there, the same version as here with the same extras.",
        name=name,
    )


def _of_worker(worker: str, error: TcbOpsError) -> TcbOpsError:
    """Return the same error with the worker that it happened on."""
    error.text = _("Worker {worker}: {why}", worker=worker, why=error.text)
    error.args = (error.text.en,)
    return error


def _starts_its_workers(client: Client) -> bool:
    """Return whether all workers are processes of this machine and alike, as with local:N."""
    from distributed import LocalCluster

    return isinstance(client.cluster, LocalCluster)


def on_this_host(address: str) -> bool:
    """Return whether a worker's address is one of this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "inproc" or is_loopback(host):
        return True
    with suppress(OSError):
        for family, kind, _protocol, _name, (ip, *_rest) in socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind) as own:
                own.bind((ip, 0))  # the system refuses any other machine's address
                return True
    return False


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
        self._known: set[str] = set()
        """Addresses of the workers, as of the last look."""
        self._unfit: dict[str, TcbOpsError] = {}
        """Errors of workers that cannot work on the run, by address."""
        self._only_here = _only_here(context.settings, self._address)
        """Why workers of other machines cannot work on the run; None if they can."""
        self._unsent: set[int] = set()
        """Numbers of partitions that wait for a worker that can work on the run."""
        self._meant_for: dict[int, frozenset[str] | None] = {}
        """The workers that a partition was submitted to, by its number; None: to any."""
        self._waiting = False
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
            self._before = {
                outcome: rows
                for outcome, rows in ledger.counts(self._run).items()
                if outcome != Outcome.PENDING
            }
            self._rate = RateEstimator(self._run.rows, sum(self._before.values()))
            self._session = ledger.begin(self._run)
            try:
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
        self._look_at_workers()
        workers = max(1, len(self._fit()))
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
        self._unsent = set(range(first, first + len(groups)))
        tasks: dict[Future, int] = {}
        try:
            self._watch(tasks, workers)
            self._show()
        except TcbOpsError:
            with suppress(LedgerError):
                self._let_stop(tasks)
            raise
        finally:
            self._cancel(list(tasks))

    def _watch(self, tasks: dict[Future, int], workers: int) -> None:
        """Submit partitions, wait for their tasks to end, and submit those again that were lost. Raises what stops the run."""
        beaten, confirmed = 0.0, time.monotonic()
        manned = confirmed
        while tasks or self._unsent:
            self._submit_unsent(tasks, workers)
            if self._stop.wait(LOOK_EVERY):
                raise interrupted()
            now = time.monotonic()
            if now - confirmed >= CONFIRM_EVERY:
                confirmed = now
                self._context.confirm()
            if now - beaten >= BEAT_SECONDS:
                beaten = now
                self._ledger.beat(self._run, self._session)
                self._report_use(now)
                self._look_at_workers()
                self._withdraw(tasks)
                manned = now if self._fit() else manned
                self._report_waiting()
                self._show()
                if now - manned > self._context.limits.patience:
                    raise self._no_worker()
            for task in [task for task in tasks if task.status not in _OPEN]:
                number = tasks.pop(task)
                if self._has_to_be_repeated(task):
                    self._unsent.add(number)
                task.release()  # otherwise Dask computes it again when its worker ends

    def _submit_unsent(self, tasks: dict[Future, int], workers: int) -> None:
        """Submit the partitions that are not with the scheduler, if a worker can work on them."""
        meant_for = self._suitable()
        if meant_for is None or meant_for:
            for number in sorted(self._unsent):
                tasks[self._submit(number, workers, meant_for)] = number
                self._unsent.remove(number)

    def _suitable(self) -> frozenset[str] | None:
        """Return the workers that a partition may be submitted to; None for any."""
        return frozenset(self._fit()) if self._unfit else None

    def _withdraw(self, tasks: dict[Future, int]) -> None:
        """Take back partitions whose workers have all gone, and those not yet begun that a new worker may begin, too."""
        suitable = self._suitable()
        now = self._known if suitable is None else suitable
        taken = None
        for task, number in list(tasks.items()):
            before = self._meant_for[number]
            if task.status not in _OPEN or before is None:
                continue
            if before & now:
                if now <= before:
                    continue
                if taken is None:
                    found = self._ledger.partitions(self._run, self._session)
                    taken = {one.number for one in found if one.workers}
                if number in taken:
                    continue
            del tasks[task]
            self._cancel([task])
            self._unsent.add(number)

    def _cancel(self, tasks: list[Future]) -> None:
        """Take tasks back from the scheduler, unless the client is closed: the run is ending then."""
        if tasks and self._client.status == "running":
            with suppress(Exception):
                self._client.cancel(tasks, force=True)

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

    def _look_at_workers(self) -> None:
        """Look at who is there, and set those of other machines aside if the run stays on this one."""
        if self._client.status not in {"running", "closing", "closed"}:
            raise self._connection_lost()
        self._known = set(self._known_workers())
        # One that is started again at the same address may have been repaired.
        self._unfit = {address: error for address, error in self._unfit.items() if address in self._known}
        if self._only_here is not None:
            for address in sorted(self._known - self._unfit.keys()):
                if not on_this_host(address):
                    self._set_aside(address, address, self._only_here)

    def _fit(self) -> set[str]:
        return self._known - self._unfit.keys()

    def _report_waiting(self) -> None:
        """Say once that nothing can be done until there is a worker."""
        waiting = not self._fit()
        if waiting and not self._waiting:
            self._messages += (
                _(
                    "No worker of {address} can work on this run: waiting for one, for at most {seconds:g} s.",
                    address=self._address,
                    seconds=self._context.limits.patience,
                ),
            )
        self._waiting = waiting

    def _no_worker(self) -> StoppedError:
        """Return the error of a run that no worker can work on."""
        if not self._unfit:
            return StoppedError(
                _("The cluster {address} has no worker; unfinished rows stay pending.", address=self._address)
            )
        reasons = {one.problem.en: one.problem for one in self._unfit.values()}
        return StoppedError(
            as_lines([_("No worker of the cluster can work on this run:"), *reasons.values()])
        )

    def _known_workers(self) -> list[str]:
        """Return the workers' addresses; none if the client is closed, as after a second Ctrl-C."""
        if self._client.status != "running":
            return []
        with suppress(Exception):
            return _workers_of(self._client)
        return []

    def _assignment(self, number: int, workers: int) -> Assignment:
        """Return the inputs of a partition's task, which contain no password."""
        from tcb_ops.runs.cluster_task import Assignment

        context = self._context
        tokens = context.settings.tokens
        ledger = context.settings.ledger
        file = ledger_file(ledger)
        settings = replace(
            context.settings,
            ledger="tcb-ops.db",
            tokens=replace(tokens, file=tokens.file.absolute(), store=tokens.store.absolute()),
            _origin=Origin(),  # it has the settings file's values, with the ledger's URL
        )
        return Assignment(
            ledger=without_password(ledger) if file is None else str(file.absolute()),
            run=self._run.id,
            session=self._session,
            partition=number,
            settings=settings,
            limits=context.limits,
            root=str(context.root.absolute()),
            skip_unchanged=context.skip_unchanged,
            workers=workers,
            version=version("tcb-ops"),
            host="" if self._only_here is None else host_name(),
        )

    def _submit(self, number: int, workers: int, meant_for: frozenset[str] | None) -> Future:
        from tcb_ops.runs.cluster_task import packed

        self._meant_for[number] = meant_for
        # Packed: Dask ends a worker without tcb-ops that is sent an object of it. Unpacked there, it is an error of the task.
        task = self._client.submit(
            pickle.loads,
            packed(self._assignment(number, workers)),
            key=f"work_on-{uuid4().hex}",
            pure=False,
            retries=0,
            workers=None if meant_for is None else sorted(meant_for),
            # What a lost worker had begun is the next to be continued; without, it would be the last.
            priority=-number,
        )
        if self._client.status != "running":  # the client drops what it is given while it reconnects
            raise self._connection_lost()
        return task

    def _has_to_be_repeated(self, task: Future) -> bool:
        """Return whether a task's partition has to be submitted again. Raises the error that stops the run."""
        from tcb_ops.runs.cluster_task import TaskEnd

        if task.status == "cancelled":
            raise self._connection_lost()
        if task.status == "error":
            problem = task.exception()
            if isinstance(problem, ModuleNotFoundError) and (there := self._failed_on(task)):
                self._set_aside(
                    there, there, StoppedError(_without_module(str(problem.name).partition(".")[0]))
                )
                return True
            self._failures += 1
            if self._failures > TRIES:
                raise StoppedError(
                    _(
                        "The cluster's workers cannot run tcb-ops ({why}): install the same version of it, with its "
                        "extras, on each of them.",
                        why=type(problem).__name__,
                    )
                )
            return True
        result = task.result()
        if result.end is TaskEnd.STOPPED:
            why = without_tokens(result.error)
            if why is None or not self._fit() - {result.address}:
                raise _of_worker(result.worker, result.error)
            self._set_aside(result.worker, result.address, TokenSourceError(why))
            return True
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

    def _failed_on(self, task: Future) -> str:
        """Return the address of the worker on which a task failed; empty if the scheduler no longer knows it."""
        with suppress(Exception):
            return str(self._client.run_on_scheduler(_failed_on, task.key))
        return ""

    def _set_aside(self, worker: str, address: str, error: TcbOpsError) -> None:
        """Give a worker no further partition. Raises StoppedError if no worker can join that is different."""
        if address not in self._unfit:
            self._unfit[address] = error
            self._messages += (
                _("Worker {worker} cannot work on this run: {why}", worker=worker, why=error.problem),
            )
        if not self._fit() and _starts_its_workers(self._client):
            raise self._no_worker()

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

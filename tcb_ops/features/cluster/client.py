"""Connecting to a cluster: Dask distributed starts, restarts and scales the workers, and one that cannot work is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tcb_ops.errors import ArgumentError, UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import _
from tcb_ops.model import is_loopback
from tcb_ops.runs.database import ledger_file
from tcb_ops.runs.next_commands import install
from tcb_ops.settings import Settings, holds_password
from tcb_ops.signals import handled

if TYPE_CHECKING:
    from distributed import Client

_LOCAL = r"local:([1-9][0-9]{0,2})"

WORKER_TTL = "6s"
"""After so long without a heartbeat, of which there are two in a second, Dask gives a local worker up; by default five minutes."""
CONNECT_WITHIN = 10.0
"""Seconds that a scheduler has to answer."""
CLOSE_WITHIN = 30.0
"""Seconds that the workers of a local cluster have to end."""


@contextmanager
def opened_cluster(cluster: str, settings: Settings) -> Iterator[Client]:
    """Start or connect to a cluster; yield its client. A local one is closed at the end, any other one is left as it is.

    `cluster`: `local:N`, or the URL of a scheduler. Raises UsageError if it cannot work on a run.
    """
    if os.name == "nt":
        text = _("A cluster has not been tried on Windows: run without --cluster, or on Linux or macOS.")
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
        yield client
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
        raise UsageError(
            _(
                "{address}: a scheduler must be reached through TLS (tls://…). Without it, whoever can connect, on this "
                "machine every user, can run programs in the workers and read the tokens.",
                address=address,
            ),
            _(
                'To accept that for this scheduler, set unencrypted_schedulers = ["{address}"] in tcb-ops.toml.',
                address=address,
            ),
        )
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
            "(--ledger postgresql+psycopg://…), or --cluster local:N on this machine."
        )
    elif settings.tokens.source == "component":
        text = _(
            "Tokens of the source `component` stay on one machine. Use --cluster local:N there, or give this "
            'run and its workers source = "service", with a token server of your own.'
        )
    elif settings.on_loopback:
        text = _("The workers of {address} cannot reach a target on this machine.")
    else:
        return None
    return UsageError(text.format(address=address))

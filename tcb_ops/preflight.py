"""What a run would do, before anything is sent: rows, bytes, warnings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from tcb_ops.formatting import fold
from tcb_ops.i18n import Text, _, as_sentences, ngettext
from tcb_ops.kinds import environment_count, merchant_count, row_count
from tcb_ops.ledger.records import RunRecord, Tally
from tcb_ops.lists.batch import Batch
from tcb_ops.model import Outcome, Row
from tcb_ops.settings import Settings
from tcb_ops.start import existing_ledger, rest_of_unfinished

LINK_LIFE = 15 * 60
"""About how many seconds after its issue a link expires."""
ASKED = 50
"""Merchants about whose link calls the question before an upload asks: those with the most rows."""


def ran_out(links: int, out: Path | str) -> Text | None:
    """Return a warning about links that had expired when their file was finished; None without any."""
    if not links:
        return None
    return _(
        "{links} had expired when {out} was finished. Run again for new ones.",
        links=ngettext("{n:,} link", "{n:,} links", links),
        out=out,
    )


def where_links_are(run: RunRecord, now: float, zone: tzinfo) -> Text:
    """Return where the links of a finished links run are, and until when they can be used."""
    text = _("The links are in {file}, which only you can read.", file=run.links)
    until = (run.finished_at or run.created_at) + LINK_LIFE
    if until <= now:
        return as_sentences((text, _("They have expired: issue them again.")))
    moment = datetime.fromtimestamp(until, zone).isoformat(" ", "minutes")
    return as_sentences((text, _("The last ones expire at about {moment}.", moment=moment)))


def replaced(batch: Batch, settings: Settings) -> Text | None:
    """Return how many paths of a list hold a file that an earlier run of the ledger uploaded; None for none.

    Where its upload is resumed, only the pending rows count.
    """
    from tcb_ops.engine.plan import planned_changes, upload_spec

    if (ledger := existing_ledger(settings)) is None:
        return None
    work, _unfinished = rest_of_unfinished(upload_spec(batch), settings)
    changes = planned_changes(work, ledger, settings.run_target)
    count = sum(change.have is not None and change.have.is_ours for change in changes)
    if not count:
        return None
    return ngettext(
        "{n:,} path holds a file that an earlier run of this ledger uploaded.",
        "{n:,} paths hold files that earlier runs of this ledger uploaded.",
        count,
    )


def long_cached(batch: Batch, settings: Settings) -> Text | None:
    """Return a warning about rows that replace a file of the ledger with one that caches may show for longer than a day."""
    from tcb_ops.engine.changes import DAY, seconds_cached, time_cached

    def rows() -> Iterator[Row]:
        return (row for row in batch.rows() if seconds_cached(row.cache_control) > DAY)

    if not any(rows()) or (ledger := existing_ledger(settings)) is None:
        return None
    known = ledger.known_files(rows(), settings.run_target)
    times = [seconds_cached(row.cache_control) for row, file in known if file is not None and file.md5]
    if not times:
        return None
    return ngettext(
        "{n:,} row replaces a file, and its cache_control lets browsers and the CDN keep it for up to {time}: users may see an "
        "old file that long. Use a new path for each version, such as logo.v2.png, or a shorter cache_control.",
        "{n:,} rows replace files, and their cache_control lets browsers and the CDN keep them for up to {time}: users may see "
        "old files that long. Use a new path for each version, such as logo.v2.png, or a shorter cache_control.",
        len(times),
        time=time_cached(max(times)),
    )


def facts(batch: Batch) -> dict[str, Any]:
    """Return the facts about a checked list, for `--json`."""
    return {
        "list": str(batch.source),
        "sha256": batch.sha256,
        "encoding": batch.encoding,
        "rows": batch.count,
        "valid": batch.valid,
        "invalid": batch.count - batch.valid,
        "left_out": batch.left_out,
        "merchant_left": sum(rows for _, rows in batch.by_departed_merchant()),
        "merchants": batch.merchants_count,
        "envs": batch.envs,
        "bytes": batch.total_bytes if batch.root is not None else None,
    }


@dataclass(frozen=True, slots=True)
class SendScope:
    """The rows, merchants and environments that would be sent."""

    rows: int
    merchants: int
    envs: int
    most: tuple[tuple[str, str, int], ...] = ()
    """Those with the most link calls to make: appid, name, calls."""

    def needs_confirmation(self, settings: Settings, *, can_ask: bool) -> bool:
        """Return whether an operator must confirm before anything is uploaded.

        ==================  ========================  =======
        target              environments              result
        ==================  ========================  =======
        simulated           any                       no
        live, a terminal    any                       yes
        live, no terminal   up to `confirm_over`      no
        live, no terminal   more                      yes
        ==================  ========================  =======
        """
        return not settings.simulated and (can_ask or self.envs > settings.confirm_over)

    @property
    def text(self) -> Text:
        """The figures as text."""
        return _(
            "{rows}: {merchants}, {environments}",
            rows=row_count(self.rows),
            merchants=merchant_count(self.merchants),
            environments=environment_count(self.envs),
        )


def scope_of_list(batch: Batch) -> SendScope:
    """Return the scope of an upload of a list."""
    most = tuple((appid, merchant, rows) for appid, merchant, _, rows, _ in batch.by_merchant()[:ASKED])
    return SendScope(batch.valid, batch.merchants_count, batch.envs, most)


def scope_of_rows(tallies: Iterable[Tally], outcomes: frozenset[Outcome]) -> SendScope:
    """Return the scope of a run's rows with these outcomes, to run again or resume."""
    counted = [tally for tally in tallies if tally.outcome in outcomes and tally.env]
    return SendScope(
        sum(tally.rows for tally in counted),
        len({tally.appid for tally in counted}),
        len({(tally.appid, tally.env) for tally in counted}),
    )


def is_confirmed(typed: str, merchants: int, *, asked: bool) -> bool:
    """Decide whether a run may start.

    ==================  ==============================  ==========
    confirmation        typed                           may start
    ==================  ==============================  ==========
    not asked for       anything                        yes
    asked for           the number, full width or not   yes
    asked for           anything else                   no
    ==================  ==============================  ==========
    """
    return not asked or fold(typed).replace(",", "") == str(merchants)

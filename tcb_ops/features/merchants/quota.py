"""The warning before a live upload that today's link calls are too few."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tcb_ops.cli.console import Console
from tcb_ops.errors import TcbOpsError
from tcb_ops.features.diagnosis.questions import calls_left
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import _, as_list
from tcb_ops.preflight import SendScope
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.settings import Settings

QUOTA_SECONDS = 5.0


def warn_of_few_calls(scope: SendScope, settings: Settings, console: Console) -> None:
    """Warn of merchants whose link calls of today are too few; who cannot be asked within some seconds delays nothing."""
    asking = asyncio.wait_for(
        calls_left([appid for appid, _name, _calls in scope.most], settings), QUOTA_SECONDS
    )
    left: dict[str, int] = {}
    with console.waiting(_("asking for today's link calls")), suppress(TcbOpsError, TimeoutError):
        left = submit_coroutine(asking).result()
    text = _("{merchant} ({left:,} left, {rows:,} needed)")
    short = [
        text.format(merchant=sanitize(name), left=left[appid], rows=calls)
        for appid, name, calls in scope.most
        if left.get(appid, calls) < calls
    ]
    if short:
        text = _("Today's link calls are too few for {merchants}: their other rows would end with 45009.")
        console.warn(text.format(merchants=as_list(short, most=3)))

"""The public function of the merchants feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import check_value
from tcb_ops.features.merchants.check import MerchantStates
from tcb_ops.features.merchants.queries import begin_check, ignore
from tcb_ops.i18n import _
from tcb_ops.model import Merchant
from tcb_ops.start import TargetOptions, merchants_for, opened_target, settings_for


@checked
def check_merchants(
    merchants: Iterable[Merchant] | str | Path = "",
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[TargetOptions],
) -> MerchantStates:
    """Check what each line of a merchants file can do today: token, permission set, 云开发, environment, calls left.

    `progress` is called with the mini programs done and their number. Raises SettingsError, StoppedError.
    """
    settings = settings_for(options)
    if isinstance(merchants, str | PathLike):
        merchants = merchants_for(merchants, options)
    lines = list(merchants)
    usable = all(isinstance(line, Merchant) for line in lines)
    check_value("merchants", merchants, usable, _("Merchants, a list of Merchant, or the path of their file"))
    with opened_target(settings, lambda: lines) as opened:
        return MerchantStates(begin_check(opened, lines, progress=progress or ignore).result().states)

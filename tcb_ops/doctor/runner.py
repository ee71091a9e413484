"""Run all checks in order: the machine, the files, the target. No check can block or end the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tcb_ops.doctor import CheckResult, Grade, from_error, run_limited, skipped
from tcb_ops.doctor import local_checks as local
from tcb_ops.doctor import remote_checks as remote
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.i18n import _
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.settings import Settings, load_settings, setting_names, settings_file

TOTAL_SECONDS = 27.0
"""Time limit for all checks together."""
LOCAL_SECONDS, REMOTE_SECONDS = 6.0, 18.0
"""Time limits for a local check, and for a check over the network."""


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """The input of the checks."""

    settings: Settings | None
    """None if they are invalid."""
    error: SettingsError | None
    """Why they are invalid."""
    known: frozenset[str]
    """Settings known from options and variables if the file is invalid; otherwise all."""
    fallback: Settings | None
    """The settings to use: without the file if it is invalid, None if the options or variables are invalid too."""
    config: str | None
    where: tuple[str, ...]

    @classmethod
    def of(
        cls,
        read: Callable[[], Settings],
        options: Mapping[str, Any],
        config: str | None,
        where: tuple[str, ...],
    ) -> DoctorContext:
        """Read the settings; if they are invalid, use options and variables only."""
        try:
            settings = read()
        except SettingsError as invalid:
            error = invalid
        else:
            return cls(settings, None, frozenset(setting_names(Settings)), settings, config, where)
        try:
            fallback = load_settings(os.devnull, options)
        except SettingsError:
            return cls(None, error, frozenset(), None, config, where)
        return cls(None, error, fallback.origin.overridden, fallback, config, where)


def run_checks(context: DoctorContext) -> Iterator[CheckResult]:
    """Yield the results in order. Blocks for at most about 27 seconds; raises nothing."""
    end = time.monotonic() + TOTAL_SECONDS

    def run(
        names: Sequence[str], check: Callable[[], Sequence[CheckResult]], seconds: float
    ) -> list[CheckResult]:
        return run_limited(names, check, max(0.5, min(seconds, end - time.monotonic())))

    for name, check in (
        ("python", local.check_python),
        ("packages", local.check_packages),
        ("lab", local.check_lab),
        ("browser", local.check_browser),
        ("fonts", local.check_fonts),
    ):
        yield from run([name], check, LOCAL_SECONDS)
    yield _settings(context)
    grades: dict[str, Grade] = {}
    for names, needs, seconds, check_settings in (
        (("merchants",), {"merchants"}, LOCAL_SECONDS, partial(local.check_merchants, where=context.where)),
        (("ledger",), {"ledger"}, LOCAL_SECONDS, local.check_ledger),
        (("secrets",), {"tokens"}, LOCAL_SECONDS, local.check_secrets),
        (("target", "clock"), {"api_base"}, REMOTE_SECONDS, remote.check_target),
        (
            ("tokens", "address"),
            {"tokens", "merchants", "api_base"},
            REMOTE_SECONDS,
            lambda settings: _tokens(context, settings, reached=grades.get("target") is Grade.OK),
        ),
    ):
        if context.fallback is None or not needs <= context.known:
            why = _("unknown, because the settings are invalid")
            yield from (skipped(name, why) for name in names)
            continue
        results = run(names, partial(check_settings, context.fallback), seconds)
        grades.update((result.name, result.grade) for result in results)
        yield from results


def _tokens(context: DoctorContext, settings: Settings, *, reached: bool) -> list[CheckResult]:
    try:
        merchants = list(read_merchants(settings.merchants, context.where))
    except TcbOpsError:  # reported by the check of the merchants file
        merchants = []
    owners = remote.first_token_owners(merchants, settings.tokens.component_appid)
    return remote.check_tokens(settings, owners, reached=reached)


def _settings(context: DoctorContext) -> CheckResult:
    if context.error is not None:
        return from_error("settings", context.error)
    file = settings_file(context.config)
    if file.exists():
        return CheckResult("settings", Grade.OK, _("{file} is valid", file=file))
    seen = _("no {file} here: defaults, TCB_OPS_… variables and options apply", file=file)
    return CheckResult("settings", Grade.OK, seen)

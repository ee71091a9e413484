"""Every check in its order: the machine first, then the files, then the target. None can hang, or end the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tcb_ops.doctor import local_checks as desk
from tcb_ops.doctor import local_checks as machine
from tcb_ops.doctor import remote_checks as target
from tcb_ops.doctor import remote_checks as tokens
from tcb_ops.doctor.check_result import CheckResult, Grade, limited, of_error, skipped
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.i18n import Text
from tcb_ops.settings import Settings, load_settings, settings_file

WHOLE = 27.0
"""Seconds that all checks together may take: somebody watches."""
LOCAL, AWAY = 6.0, 18.0
"""Seconds for a check of this machine, and for one that asks somebody else."""


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """What is examined."""

    settings: Settings | None
    """None where they are not valid."""
    trouble: SettingsError | None
    """Why they are not."""
    known: frozenset[str]
    """Settings that hold nevertheless, since an option or a variable says them; all where the settings are valid."""
    fallback: Settings | None
    """The settings without the file, for those."""
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
        """Read the settings; where they are broken, what the options and variables say by themselves."""
        try:
            settings = read()
        except SettingsError as error:
            trouble = error
        else:
            return cls(settings, None, frozenset(type(settings).model_fields), settings, config, where)
        try:
            fallback = load_settings(os.devnull, options)
        except SettingsError:
            return cls(None, trouble, frozenset(), None, config, where)
        return cls(None, trouble, frozenset(fallback.model_fields_set), fallback, config, where)


def examine(patient: DoctorContext) -> Iterator[CheckResult]:
    """Give the findings, one after the other. Blocks, some 27 seconds at the very most; raises nothing."""
    end = time.monotonic() + WHOLE

    def look(
        names: Sequence[str], check: Callable[[], Sequence[CheckResult]], seconds: float
    ) -> list[CheckResult]:
        return limited(names, check, max(0.5, min(seconds, end - time.monotonic())))

    for name, check in (
        ("python", machine.look_at_python),
        ("packages", machine.look_at_packages),
        ("lab", machine.look_at_lab),
        ("browser", machine.look_at_browser),
        ("fonts", machine.look_at_fonts),
    ):
        yield from look([name], check, LOCAL)
    yield _settings(patient)
    grades: dict[str, Grade] = {}
    for names, needs, seconds, about in (
        (("merchants",), {"merchants"}, LOCAL, lambda s: desk.look_at_merchants(s, patient.where)),
        (("ledger",), {"ledger"}, LOCAL, desk.look_at_ledger),
        (("secrets",), {"tokens"}, LOCAL, desk.look_at_secrets),
        (("target", "clock"), {"api_base"}, AWAY, target.look_at_target),
        (
            ("tokens", "address"),
            {"tokens", "merchants", "api_base"},
            AWAY,
            lambda s: _tokens(patient, s, reached=grades.get("target") is Grade.OK),
        ),
    ):
        if patient.fallback is None or not needs <= patient.known:
            yield from (
                skipped(n, "not known while the settings are broken", "设置有误，无从得知") for n in names
            )
            continue
        found = look(names, partial(about, patient.fallback), seconds)
        grades.update((finding.name, finding.grade) for finding in found)
        yield from found


def _tokens(patient: DoctorContext, settings: Settings, *, reached: bool) -> list[CheckResult]:
    from tcb_ops.lists.merchants import read_merchants

    try:
        lines = read_merchants(settings.merchants, patient.where)
    except TcbOpsError:  # said by the check of the merchants file
        accounts = []
    else:
        accounts = tokens.first_accounts(lines, settings.tokens.component_appid)
    found = tokens.look_at_tokens(settings, accounts, reached=reached)
    if not reached:
        found.append(skipped("address", "the target is not reached", "无法连接目标"))
    return found


def _settings(patient: DoctorContext) -> CheckResult:
    if patient.trouble is not None:
        return of_error("settings", patient.trouble.text)
    file = settings_file(patient.config)
    if file.exists():
        return CheckResult("settings", Grade.OK, Text(f"{file} is valid", f"{file} 有效"))
    seen = Text(
        f"no {file} here: defaults, TCB_OPS_… variables and options hold",
        f"此处没有 {file}：采用默认值、TCB_OPS_… 变量和选项",
    )
    return CheckResult("settings", Grade.OK, seen)

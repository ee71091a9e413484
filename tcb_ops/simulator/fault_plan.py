"""Reading a fault plan from its TOML file; every mistake names the file and the entry."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text
from tcb_ops.simulator import plan_values as values
from tcb_ops.simulator.accounts import Component, EnvStatus, SimulatedAccount, SimulatedEnvironment
from tcb_ops.simulator.faults import Etag, Fault, Faults, FaultStep
from tcb_ops.simulator.plan_values import WrongError

_OF_LINKS = ("lifetime", "other_env")
ANSWERS = ("errcode", "code", "status", "reset", "body", "lifetime", "other_env", "etag")
STORE_ONLY = frozenset({"code", "etag"})
NOT_STORE = frozenset({"errcode", "body", *_OF_LINKS})
_A_DAY = 86_400
_OF_COMPONENT = {"appid", "daily_limit", "used"}
"""What an account says of the platform itself."""

Entry = TypeVar("Entry", Fault, SimulatedAccount, SimulatedEnvironment)
Readers = dict[str, "Callable[[str, Any], Any]"]


def load_faults(path: Path) -> Faults:
    """Read a fault plan. Raises SettingsError with the file, the entry's number and what to write instead."""
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or "cannot be read"
        raise SettingsError(
            Text(f"{path}: the fault plan cannot be read ({why}).", f"{path}：无法读取故障计划（{why}）。")
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            Text(f"{path}: this is not TOML: {error}.", f"{path}：不是有效的 TOML：{error}。")
        ) from None
    tables = {"fault": list, "account": list, "environment": list, "component": dict}
    if any(not isinstance(value, tables.get(key, ())) for key, value in plan.items()):
        raise _no_plan(path)
    component = plan.get("component")
    faults = Faults(
        _entries(path, plan, "fault", Text("fault", "条故障"), _fault),
        None if component is None else _read(path, Text("component", "[component]"), component, _component),
        _entries(path, plan, "account", Text("account", "个 account"), _account),
        _entries(path, plan, "environment", Text("environment", "个 environment"), _environment),
    )
    _check_together(path, faults, plan)
    return faults


def _entries(
    path: Path, plan: dict[str, Any], key: str, name: Text, read: Callable[[dict[str, Any]], Entry]
) -> tuple[Entry, ...]:
    entries = plan.get(key, [])
    if not all(isinstance(entry, dict) for entry in entries):
        raise _no_plan(path)
    return tuple(_read(path, _numbered(name, number), entry, read) for number, entry in enumerate(entries, 1))


def _numbered(name: Text, number: int) -> Text:
    return Text(f"{name.en} {number}", f"第 {number} {name.zh}")


def _no_plan(path: Path) -> SettingsError:
    return SettingsError(
        Text(
            f"{path}: a fault plan holds [[fault]], [[account]] and [[environment]] entries, one [component], and nothing else.",
            f"{path}：故障计划中只能有 [[fault]]、[[account]]、[[environment]] 条目和一个 [component]。",
        )
    )


def _wrong(path: Path, where: Text, wrong: WrongError) -> SettingsError:
    text = wrong.text
    return SettingsError(Text(f"{path}: {where.en}: {text.en}", f"{path}：{where.zh}：{text.zh}"))


_Read = TypeVar("_Read")


def _read(path: Path, where: Text, entry: dict[str, Any], read: Callable[[dict[str, Any]], _Read]) -> _Read:
    try:
        return read(entry)
    except WrongError as wrong:
        error = _wrong(path, where, wrong)
    raise error


def _check_together(path: Path, faults: Faults, plan: dict[str, Any]) -> None:
    """Refuse what no single entry can know: one that stands there twice, and a platform that is a merchant."""
    for key, names in (
        ("account", [account.appid for account in faults.accounts]),
        ("environment", [environment.env for environment in faults.environments]),
    ):
        for number, name in enumerate(names, 1):
            first = names.index(name) + 1
            if first < number:
                wrong = WrongError(f"{name} is entry {first} already.", f"{name} 已写在第 {first} 个中。")
                raise _wrong(path, _numbered(Text(key, f"个 {key}"), number), wrong)
    for number, account in enumerate(faults.accounts, 1):
        if faults.component and account.appid == faults.component.appid:
            foreign = [key for key in plan["account"][number - 1] if key not in _OF_COMPONENT]
            if foreign:
                wrong = WrongError(
                    f"this is the platform itself: {foreign[0]} is for merchants.",
                    f"这是第三方平台自身：{foreign[0]} 只用于商户。",
                )
                raise _wrong(path, _numbered(Text("account", "个 account"), number), wrong)


def _fault(entry: dict[str, Any]) -> Fault:
    found = _values(entry, _FAULT)
    found = {_FIELDS.get(key, key): value for key, value in found.items()}
    if "env" not in entry and "appid" not in entry:
        raise WrongError("say whom it hits: env, appid or both.", "请写明对象：env、appid 或两者。")
    step = found.get("step", FaultStep.LINK)
    foreign = [key for key in entry if key in (NOT_STORE if step is FaultStep.STORE else STORE_ONLY)]
    foreign += [key for key in _OF_LINKS if key in entry and step is not FaultStep.LINK]
    if foreign:
        key = foreign[0]
        other = FaultStep.STORE if key in STORE_ONLY else FaultStep.LINK
        raise WrongError(f'{key} belongs to step = "{other}".', f'{key} 只用于 step = "{other}"。')
    answers = [key for key in ANSWERS if key in entry]
    if len(answers) > 1 and answers != ["code", "status"]:
        raise WrongError(
            f"{' and '.join(answers)} do not go together: one entry has one of them.",
            f"{'、'.join(answers)} 不能同时使用：每条只能选一个。",
        )
    if not answers and "delay" not in entry:
        raise WrongError(
            f"say what goes wrong: one of {', '.join(ANSWERS)}, or delay.",
            f"请写明故障：{'、'.join(ANSWERS)} 之一，或 delay。",
        )
    if "errmsg" in entry and not {"errcode", "code"} & set(entry):
        raise WrongError("errmsg goes with errcode or code.", "errmsg 须与 errcode 或 code 一起使用。")
    return Fault(**found)


def _component(entry: dict[str, Any]) -> Component:
    found = _values(entry, _COMPONENT, needed=("appid",))
    if ("secret" in entry) != ("ticket" in entry):
        raise WrongError(
            "secret and ticket go together; leave out both where tokens come from --tokens.",
            "secret 与 ticket 须同时填写；令牌来自 --tokens 时两者都不写。",
        )
    return Component(**found)


def _account(entry: dict[str, Any]) -> SimulatedAccount:
    return SimulatedAccount(**_values(entry, _ACCOUNT, needed=("appid",)))


def _environment(entry: dict[str, Any]) -> SimulatedEnvironment:
    found = _values(entry, _ENVIRONMENT, needed=("env",))
    if not {"status", "foreign"} & set(entry):
        raise WrongError("say what is wrong with it: status or foreign.", "请写明问题：status 或 foreign。")
    return SimulatedEnvironment(**found)


def _values(
    entry: dict[str, Any], readers: Mapping[str, Callable[[str, Any], Any]], needed: tuple[str, ...] = ()
) -> dict[str, Any]:
    for key in entry:
        if key not in readers:
            raise WrongError(
                f"there is no “{key}”; known are {', '.join(readers)}.",
                f"没有“{key}”这一项；可用：{'、'.join(readers)}。",
            )
    missing = [key for key in needed if key not in entry]
    if missing:
        raise WrongError(f"{missing[0]} is missing.", f"缺少 {missing[0]}。")
    return {key: readers[key](key, value) for key, value in entry.items()}


_FIELDS = {"call": "calls", "body": "garbage"}
_FAULT: Readers = {
    "env": values.text,
    "appid": values.text,
    "path": values.text,
    "step": lambda key, value: FaultStep(values.one_of(key, value, tuple(FaultStep))),
    "call": values.calls,
    "errcode": values.errcode,
    "errmsg": values.text,
    "code": values.text,
    "status": lambda key, value: values.number(key, value, 300, 599),
    "reset": values.reset,
    "body": lambda key, value: bool(values.one_of(key, value, ("garbage",))),
    "lifetime": lambda key, value: values.number(key, value, 0, _A_DAY),
    "other_env": values.plain,
    "etag": lambda key, value: Etag(values.one_of(key, value, tuple(Etag))),
    "delay": values.delay,
}
_COMPONENT: Readers = {
    "appid": values.plain,
    "secret": values.text,
    "ticket": values.text,
    "rotate": values.yes_or_no,
    "ip_refused": values.yes_or_no,
    "token_lifetime": lambda key, value: values.number(key, value, 1, _A_DAY),
    "ticket_lifetime": lambda key, value: values.number(key, value, 1, 7 * _A_DAY),
    "overlap": lambda key, value: values.number(key, value, 0, _A_DAY),
}
_ACCOUNT: Readers = {
    "appid": values.plain,
    "name": values.text,
    "revoked": values.yes_or_no,
    "permissions": values.numbers,
    "cloud": values.yes_or_no,
    "daily_limit": lambda key, value: values.number(key, value, 0, 1_000_000_000),
    "used": lambda key, value: values.number(key, value, 0, 1_000_000_000),
    "refresh_token": values.text,
}
_ENVIRONMENT: Readers = {
    "env": values.plain,
    "status": lambda key, value: EnvStatus(values.one_of(key, value, tuple(EnvStatus))),
    "foreign": values.yes_or_no,
}

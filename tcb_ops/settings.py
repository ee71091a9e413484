"""Settings: `tcb-ops.toml`, overridden by `TCB_OPS_…` variables, overridden by options.

The variable of a nested setting has two underscores: `TCB_OPS_TOKENS__SOURCE`. Paths in the file are relative to the
file's folder, paths in variables and options to the working folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from tcb_ops.arguments import checked
from tcb_ops.errors import SettingsError
from tcb_ops.found_settings import Trust, check_found
from tcb_ops.i18n import Joined, Lang, Text, _, as_lines, as_list
from tcb_ops.model import SIMULATOR, is_loopback, target_label
from tcb_ops.resources import nearest_path, system_reason

SETTINGS_FILE = "tcb-ops.toml"
PREFIX = "TCB_OPS_"
CONFIG = "TCB_OPS_CONFIG"
"""The variable that names the settings file, like `--config`; passes `notebook --config` to the kernel."""
_TARGETS = ("target", "api_base")
"""The settings that give the target."""
LEDGER_FILE = "tcb-ops.db"
NOT_STARTED = "http://127.0.0.1"
"""The API base of the embedded simulator until it listens; never a live one."""
_OTHER_VARIABLES = re.compile("CHROMIUM|RUN_NOW|HEADLESS_OUT|HEADLESS_RESULT|APPID|REFUSED|(NEED|TEST)_.*")
"""TCB_OPS_… variables that are not settings: of the PDF browser, notebooks, a token command, and our tests."""
if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_HARMLESS = {"host", "port", "sslmode", "sslrootcert", "service", "options", "connect_timeout"}
"""Query parameters of a database URL that contain no password."""


class _InvalidError(ValueError):
    """What is expected of a setting."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


class _Checked:
    """Settings that are checked, and kept in the types of their fields."""

    SECTION = ""
    """The prefix of their names: `tokens.`"""

    def __init__(self, _names: Mapping[str, str] = {}, /, **values: Any) -> None:
        """Take settings by name; the others have their defaults. Raises SettingsError with every mistake.

        `_names`: the names that messages use for settings from elsewhere.
        """
        found, wrong = _check(type(self), values)
        if wrong:
            raise _refused([_Mistake(_names.get(key, _name_of(key)), why) for key, why in wrong.items()])
        for one in fields(self):  # type: ignore[arg-type]  # what derives from this is a dataclass
            if one.name not in found:
                made: Any = one.default_factory
                found[one.name] = made() if one.default is MISSING else one.default
        self.__dict__.update(found)  # frozen: not by assignment


@dataclass(frozen=True, init=False)
class TokenSettings(_Checked):
    """The settings of the token source."""

    SECTION = "tokens."
    source: Literal["file", "command", "service", "component"] = "file"
    file: Path = Path("tokens.csv")
    """CSV `appid,access_token[,expires_at]`."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """A program and its arguments, in which `{appid}` is replaced. It prints JSON on stdout."""
    url: str = field(default="", repr=False)
    """Of the token server, with the placeholder `{appid}`."""
    auth_env: str = ""
    """The environment variable with the token server's credentials, sent in `auth_header`."""
    auth_header: str = "Authorization"
    component_appid: str = ""
    """The third-party platform's own appid, whose token is the component token."""
    sole_owner: bool = False
    """Confirms that no other program refreshes these merchants' tokens."""
    secret: str = field(default="", repr=False)
    """Where the component's AppSecret is: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`; never the secret."""
    ticket: str = field(default="", repr=False)
    """Where the component_verify_ticket is, likewise."""
    store: Path = Path("tcb-ops.tokens")
    """The folder of the refresh tokens."""


@dataclass(frozen=True, init=False)
class AuditSettings(_Checked):
    """The settings of audits."""

    SECTION = "audit."

    known: Path = Path("known.csv")
    """Failures that are reported without an alarm until a date; the file may be missing."""


@dataclass(frozen=True, init=False)
class LifecycleSettings(_Checked):
    """How long the ledger keeps runs."""

    SECTION = "lifecycle."

    keep_days: int = 0
    """The age in days from which `prune` removes runs; 0: it needs --older-than."""


@dataclass(frozen=True, init=False)
class NotifySettings(_Checked):
    """A receiver of audit results. Addresses and keys are in variables or files, never in the settings."""

    SECTION = "notify."

    kind: Literal["wecom", "feishu", "dingtalk", "webhook", "command"]
    url_env: str = ""
    url_file: Path | None = None
    secret_env: str = ""
    secret_file: Path | None = None
    format: Literal["markdown", "text"] = "markdown"
    on: Literal["change", "always", "failure"] = "change"
    command: tuple[str, ...] = field(default=(), repr=False)
    """Kind `command`: a program and its arguments. It reads JSON on stdin."""


def system_lang() -> Lang:
    """Return the language of this process's locale."""
    spoken = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return Lang.ZH if spoken.lower().startswith("zh") else Lang.EN


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of settings: what a command must repeat to get the same ones."""

    file: Path | None = None
    """Absolute, with symbolic links resolved; None without a settings file."""
    from_file: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The file's settings, with paths resolved against its folder; the ledger's URL may contain a password."""
    overridden: frozenset[str] = frozenset()
    """Settings given by an option or a variable."""
    found: Trust | None = None
    """Who may have written a file that was found in the working folder; None if it was named by --config or a variable."""
    ledger_choice: Text | None = None
    """Which ledger is used and why, if two are possible."""


@dataclass(frozen=True, init=False, repr=False)
class Settings(_Checked):
    """The settings of all commands. Frozen; contains no token."""

    api_base: str = "https://api.weixin.qq.com"
    """The URL that calls go to."""
    target: Literal["", "simulator"] = ""
    """`simulator`: the embedded simulator, on any port. A URL given as target becomes `api_base`."""
    merchants: Path = Path("merchants.csv")
    ledger: str = LEDGER_FILE
    """A file, or a database URL, which may contain a password and is never shown."""
    reports: Path = Path("reports")
    """The folder of the report folders."""
    lang: Lang = field(default_factory=system_lang)
    timezone: str = "Asia/Shanghai"
    confirm_over: int = 5
    """Uploads to more live environments than this require confirmation."""
    store_hosts: tuple[str, ...] = ()
    """Hosts besides COS's own domains that a link may lead to; a leading dot allows its subdomains."""
    source_hosts: tuple[str, ...] = ()
    """Hosts that files may be read from by URL; `*.example.com` allows the subdomains of example.com."""
    unencrypted_schedulers: tuple[str, ...] = ()
    """Schedulers that `--cluster` may connect to without TLS, such as `tcp://127.0.0.1:8786`: whoever reaches one can run
    programs in its workers."""
    etag: Literal["fail", "warn"] = "fail"
    """Whether a stored object's differing ETag is a failure or a warning."""
    tokens: TokenSettings = field(default_factory=TokenSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    lifecycle: LifecycleSettings = field(default_factory=LifecycleSettings)
    notify: tuple[NotifySettings, ...] = ()
    """The receivers of audit results."""
    origin: Origin = field(default_factory=Origin, compare=False)
    """Where these settings came from."""

    def __init__(self, *, origin: Origin | None = None, **values: Any) -> None:
        """Take values that override the environment and the defaults. Raises SettingsError."""
        named = "api_base"
        # A running simulator has both: the target and its own address.
        if values.get("target") and not is_loopback(urlsplit(str(values.get("api_base", ""))).hostname or ""):
            named, values = "target", _merge_target(values, "target", "api_base")
        variables, target_named = _environment(values)
        super().__init__({"api_base": target_named or named}, **_merged(values, variables))
        self.__dict__["origin"] = origin or Origin()

    def __repr__(self) -> str:
        at = target_label(self.run_target, self.api_base)
        return (
            f"<Settings {at}, merchants {self.merchants}, ledger {self.ledger_name}, "
            f"tokens from {self.tokens.source}>"
        )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of screens and reports."""
        from zoneinfo import ZoneInfo

        return ZoneInfo(self.timezone)

    @property
    def ledger_name(self) -> str:
        """The ledger for display: a database URL without the parts that may contain a password."""
        return shown_url(self.ledger)

    @property
    def ledger_option(self) -> str:
        """The ledger for a suggested command in any folder; empty if its URL may contain a password.

        Such a URL belongs in TCB_OPS_LEDGER or the settings file, where the command finds it again.
        """
        if "://" not in self.ledger:
            return without_dots(self.ledger)
        return "" if holds_password(self.ledger) else self.ledger

    def kept_in(self, file: Path) -> Settings:
        """Return the same settings as read from a settings file that will be written to `file`."""
        values = {"target": self.target, "merchants": self.merchants, "ledger": self.ledger}
        return replace(self, origin=Origin(file, values, self.origin.overridden & {"lang"}))

    @property
    def run_target(self) -> str:
        """The target as stored with runs: the API base, or `simulator` for the embedded one, whose port changes."""
        return self.target or self.api_base

    @property
    def on_loopback(self) -> bool:
        """Whether the target is a simulator on this machine: its reports are marked SIMULATED 演练."""
        return is_loopback(urlsplit(self.api_base).hostname or "")


def without_dots(path: str | Path) -> str:
    """Return a path as an absolute one for a suggested command, without `..` unless that would lead elsewhere (links)."""
    absolute = str(Path(path).absolute()) if str(path) else ""
    normal = os.path.normpath(absolute) if absolute else ""
    return normal if os.path.realpath(normal) == os.path.realpath(absolute) else absolute


def _url_parts(where: str) -> tuple[str, str, str, str]:
    """Split a database URL into scheme with ://, account, host with path, and query; a file has no scheme."""
    scheme, there, rest = where.partition("://")
    beside, _mark, query = rest.partition("?")
    account, _at, host = beside.rpartition("@")
    return scheme + there if there else "", account, host, query


def shown_url(where: str, *, role: bool = True) -> str:
    """Return a ledger's file, or its database URL without password and query, which may contain secrets.

    `role`: whether the user is shown.

    If these cannot be separated from the rest (an @ after a ?), only the scheme is left.
    """
    scheme, account, host, query = _url_parts(where)
    if not scheme:
        return where
    user = account.partition(":")[0]
    shown = f"{user}@" if role and user and "@" not in account else ""
    return scheme + ("…" if "@" in query else shown + host)


def holds_password(where: str) -> bool:
    """Return whether a ledger's URL may contain a password: after the user, or in an unknown query parameter."""
    scheme, account, _host, query = _url_parts(where)
    names = {part.partition("=")[0] for part in query.split("&") if part}
    return bool(scheme) and ("@" in query or ":" in account or not names <= _HARMLESS)


def without_password(where: str) -> str:
    """Return a ledger's URL without the parts that may contain a password: drivers also find one in the environment."""
    scheme, account, host, query = _url_parts(where)
    if not scheme:
        return where
    user = f"{account.partition(':')[0]}@" if account else ""
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] in _HARMLESS)
    return f"{scheme}{user}{host}{'?' if kept else ''}{kept}"


def settings_file(config: str | Path | None = None) -> Path:
    """Return the settings file: the given one, the one in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder."""
    return Path(config if config is not None else os.environ.get(CONFIG) or SETTINGS_FILE)


def with_target(settings: Settings, target: str | None) -> Settings:
    """Return the same settings with another target, `simulator` or a URL; None keeps it. Raises SettingsError."""
    if target is None or target == settings.run_target:
        return settings
    options = _merge_target({"target": target}, "target")
    if not options["target"]:
        found, wrong = _check(Settings, {"api_base": target})
        if wrong:
            raise _refused([_Mistake("target", why) for why in wrong.values()])
        options |= found
    return replace(settings, **options)


def _merge_target(layer: dict[str, Any], *names: str) -> dict[str, Any]:
    """Merge `target` and `api_base` of one layer into one choice; `names`: what this layer calls them."""
    given = {name: layer.get(name) for name in _TARGETS}
    both = [value.rstrip("/") for value in given.values() if isinstance(value, str) and value]
    if not both:
        return {name: value for name, value in layer.items() if name != "target" or value}
    if len(set(both)) > 1:
        raise SettingsError(
            _(
                "{one} and {other} specify different targets: give only one of them.",
                one=names[0],
                other=names[1],
            )
        )
    if both[0] == SIMULATOR:
        return layer | {"target": SIMULATOR, "api_base": NOT_STARTED}
    return layer | {"target": "", "api_base": given["target"] or given["api_base"]}


@checked
def load_settings(config: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings file, the environment and the given options.

    `config` None: the file in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder, which may be missing. Options that
    are None are ignored. Raises SettingsError with the file or variable, never with a value, and for a file in the working
    folder that others may have written.
    """
    file = settings_file(config)
    named_by = "--config" if config is not None else CONFIG if os.environ.get(CONFIG) else ""
    there = file.is_file()
    writers = check_found(file) if there and not named_by else None
    from_file = _merge_target(_read(file, named_by), f"{file}: target", f"{file}: api_base")
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if given.get("target") == "":
        raise _refused([_Mistake("--target", _("it is empty; write simulator or a URL"))])
    target_named = "target" if given.get("target") else "api_base"
    given = _merge_target(given, "--target", "--api-base")
    variables, variable_named = _environment(given)
    overridden = frozenset(given) | variables.keys()
    choice = None
    if there and "ledger" not in from_file and "ledger" not in overridden:
        from_file["ledger"], choice = _ledger_of(file)
    if there and "reports" not in from_file:
        from_file["reports"] = file.parent / "reports"
    if there and "merchants" not in from_file and "merchants" not in overridden:
        beside = file.parent / "merchants.csv"
        if beside.exists() or not Path("merchants.csv").exists():
            from_file["merchants"] = beside

    found, wrong = _check(Settings, _merged(given, variables, from_file))
    if "api_base" not in given:
        target_named = variable_named
    mistakes = [
        _mistake(key, why, given, target_named, file if there else None) for key, why in wrong.items()
    ]
    unknown = _unknown_variables()
    mistakes = [one for one in mistakes if one.name not in {other.name for other in unknown}] + unknown
    if mistakes:
        raise _refused(sorted(mistakes, key=lambda mistake: mistake.line), file)
    origin = Origin(Path(os.path.realpath(file)) if there else None, from_file, overridden, writers, choice)
    return Settings(**found, origin=origin)


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of settings, the first above the others; those of a section one by one."""
    found: dict[str, Any] = {}
    for layer in reversed(layers):
        above = dict(layer)
        for section in SECTIONS:
            if isinstance(found.get(section), Mapping) and isinstance(above.get(section), Mapping):
                above[section] = {**found[section], **above[section]}
        found |= above
    return found


def _environment(above: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what the TCB_OPS_… variables give, and the one that gives the target; "" for none.

    A target in the settings `above` overrides both variables of it. A list is JSON, or words as a shell reads them.
    """
    given = {name.upper(): value for name, value in os.environ.items()}

    def of(model: type[_Checked]) -> dict[str, Any]:
        variables = {name: _variable(f"{model.SECTION}{name}") for name in setting_names(model)}
        found: dict[str, Any] = {name: given[one] for name, one in variables.items() if one in given}
        for name in {"store_hosts", "source_hosts", "unencrypted_schedulers", "command"} & found.keys():
            found[name] = _words(found[name])
        return found

    found = {section: values for section, model in SECTIONS.items() if (values := of(model))} | of(Settings)
    if not above.keys().isdisjoint(_TARGETS):
        return {name: value for name, value in found.items() if name not in _TARGETS}, ""
    named = next((_variable(name) for name in _TARGETS if found.get(name)), "")
    return _merge_target(found, *map(_variable, _TARGETS)), named


def _words(value: str) -> list[str] | str:
    """Return the list that a variable holds; the variable's value where it holds none."""
    import shlex

    with suppress(ValueError):
        found: list[str] = json.loads(value) if value.lstrip().startswith("[") else shlex.split(value)
        return found
    return value


class _Mistake(NamedTuple):
    """An invalid setting, named as in its source."""

    name: str
    why: Text
    line: int = 0
    """Of the settings file; 0 if it was given elsewhere."""


def _mistake(
    key: str, why: Text, options: Mapping[str, Any], target_named: str, file: Path | None
) -> _Mistake:
    """Return a mistake named by the source of the value: an option, a variable, or the file and its line."""
    names, key = key.split("."), _name_of(key)
    if key == "api_base" and target_named:
        return _Mistake(target_named, why)
    if key.partition(".")[0] in options:
        return _Mistake(key, why)
    if _variable(key) in os.environ or file is None:
        return _Mistake(_variable(key), why)
    if key == "api_base" and not (read_toml(file).get(key)):
        key, names = "target", ["target"]
    return _Mistake(key, why, line_of(file, *names))


def _name_of(key: str) -> str:
    """Return the name of a setting without the number of its entry."""
    return re.sub(r"\.\d+", "", key)


def _refused(mistakes: Sequence[_Mistake], file: Path | None = None) -> SettingsError:
    """Return the error that reports every mistake."""
    reported = [
        _("{place}: {name}: {why}.", place=f"{file}:{line}", name=name, why=why)
        if line
        else _("{name}: {why}.", name=name, why=why)
        for name, why, line in mistakes
    ]
    return _reported(reported)


def _reported(mistakes: Sequence[Text]) -> SettingsError:
    if len(mistakes) == 1:
        return SettingsError(mistakes[0], _("Correct it, then run the same command again."))
    return SettingsError(as_lines([*mistakes, _("Correct these, then run the same command again.")]))


def _variable(key: str) -> str:
    """Return the variable of a setting: TCB_OPS_TOKENS__URL for `tokens.url`."""
    return PREFIX + key.upper().replace(".", "__")


def _unknown_variables() -> list[_Mistake]:
    """Return a mistake for each unknown TCB_OPS_… variable."""
    keys = ["config", *setting_names(Settings), *section_keys()]
    known = [_variable(key).removeprefix(PREFIX) for key in keys]
    mistakes = []
    for name in sorted(map(str.upper, os.environ)):
        own = name.removeprefix(PREFIX)
        if own == name or own in known or _OTHER_VARIABLES.fullmatch(own):
            continue
        from difflib import get_close_matches

        if near := get_close_matches(own, known, n=1):
            why = _("there is no such setting (did you mean {prefix}{near}?)", prefix=PREFIX, near=near[0])
        else:
            why = _("there is no such setting; unset this variable")
        mistakes.append(_Mistake(name, why))
    return mistakes


def _ledger_of(file: Path) -> tuple[str, Text | None]:
    """Return the ledger if none is set: beside the settings file, else an existing one in the working folder."""
    usual, here = file.parent / LEDGER_FILE, Path(LEDGER_FILE).absolute()
    if os.path.realpath(usual) == os.path.realpath(here) or not here.exists():
        return str(usual), None
    settings_are = os.path.realpath(file)
    if usual.exists():
        return str(usual), _(
            "Ledger: {path}, which belongs to {settings_are}. {here} in the working folder is not used; choose "
            "another ledger with --ledger.",
            path=os.path.realpath(usual),
            settings_are=settings_are,
            here=here,
        )
    return str(here), _(
        "Ledger: {here}, found in the working folder. There is no ledger beside {settings_are} yet; to use this "
        "one from every folder, set ledger in that file.",
        here=here,
        settings_are=settings_are,
    )


# --- what a setting takes ---------------------------------------------------------------------------------------------


SECTIONS: dict[str, type[TokenSettings | AuditSettings | LifecycleSettings]] = {
    "audit": AuditSettings,
    "lifecycle": LifecycleSettings,
    "tokens": TokenSettings,
}


def section_keys() -> list[str]:
    """Return the name of every setting in a section, such as `tokens.url`."""
    return [f"{section}.{name}" for section, model in SECTIONS.items() for name in setting_names(model)]


def setting_names(model: type[_Checked]) -> list[str]:
    """Return the names of the settings: those of all commands, or those of a section."""
    return list(_kinds(model.SECTION))


@cache
def _kinds(section: str) -> dict[str, Any]:
    """Return the type of each setting of a section."""
    hints = get_type_hints(_model_of(section))
    # Of `Path | None` the first: nobody gives None.
    kinds = {
        name: get_args(kind)[0] if type(None) in get_args(kind) else kind for name, kind in hints.items()
    }
    return {name: kind for name, kind in kinds.items() if name.islower() and kind is not Origin}


def _check(model: type[_Checked], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Text]]:
    """Return the settings that are given, in their own types, and what is wrong with others, by their keys.

    Those of an entry of `[[notify]]` contain its number from 0: `notify.1.to`.
    """
    kinds, found = _kinds(model.SECTION), dict[str, Any]()
    wrong: dict[str, Text] = {}
    for name, value in values.items():
        key = f"{model.SECTION}{name}"
        if name not in kinds:
            wrong[key] = _unknown(key)
        elif key in SECTIONS:
            found[name], mistakes = _made(SECTIONS[key], value)
            wrong |= mistakes
        elif key == "notify" and isinstance(value, list | tuple):
            entries = [_made(NotifySettings, one) for one in value]
            for number, (_its, mistakes) in enumerate(entries):
                wrong |= {f"notify.{number}{name[len(key) :]}": why for name, why in mistakes.items()}
            found[name] = tuple(its for its, _mistakes in entries)
        else:
            try:
                kept = _converted(key, kinds[name], value)
                found[name] = _RULES[key](kept) if key in _RULES else kept
            except _InvalidError as error:
                wrong[key] = error.text
    return found, wrong


def _made(model: type[_Checked], value: Any) -> tuple[_Checked | None, dict[str, Text]]:
    """Return a section, or an entry of `[[notify]]`, and what is wrong with it."""
    if isinstance(value, model):
        return value, {}
    key = model.SECTION.removesuffix(".")
    if not isinstance(value, Mapping):
        return None, {key: _expected(key)}
    found, wrong = _check(model, value)
    if model is NotifySettings and "kind" not in value:
        wrong["notify.kind"] = _expected("notify.kind")
    if wrong:
        return None, wrong
    made = model(**found)
    lacks = _lacks(made) if isinstance(made, NotifySettings) else None
    return (made, {}) if lacks is None else (None, {key: lacks})


def _lacks(entry: NotifySettings) -> Text | None:
    """Return what an entry lacks for its kind; None if it is complete."""
    if entry.kind == "command":
        if not entry.command:
            return _('kind = "command" needs command, a program and its arguments')
    elif bool(entry.url_env) == bool(entry.url_file):
        return _(
            'kind = "{kind}" needs url_env (the name of a variable) or url_file, one of them', kind=entry.kind
        )
    return None


def _converted(key: str, kind: Any, value: Any) -> Any:
    """Return a value in a setting's type; a variable gives each as text. Raises _InvalidError."""
    # A variable with bytes that are not UTF-8 has surrogates.
    text = value if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else None
    is_list = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if get_origin(kind) is tuple and is_list:
        return tuple(value)
    if kind is Lang and text in set(Lang):
        return Lang(text)
    if kind is Path and (text is not None or isinstance(value, Path)):
        return Path(value)
    if kind is bool and (isinstance(value, bool) or (text or "").lower() in {"true", "false", "1", "0"}):
        return value if text is None else text.lower() in {"true", "1"}
    if kind is int and (type(value) is int or re.fullmatch("[0-9]{1,9}", text or "")) and int(value) >= 0:
        return int(value)
    if kind is str and text is not None:
        return text
    raise _InvalidError(_expected(key))


def _matching(pattern: str, why: Text) -> Callable[[Any], Any]:
    """Return the rule that a value, or each one of a list, matches a pattern as a whole."""

    def checked(value: Any) -> Any:
        for one in value if isinstance(value, tuple) else (value,):
            if not re.fullmatch(pattern, str(one), re.DOTALL):
                raise _InvalidError(why)
        return value

    return checked


def _api_base(value: str) -> str:
    if not value.isprintable() or re.search(r"\s", value):
        raise _InvalidError(
            _("contains a space or a control character; it must look like https://api.weixin.qq.com")
        )
    parts = _url(value)
    if parts is None or "@" in parts.netloc or re.search(r"[?#]", value):
        raise _InvalidError(_("must be `simulator`, or look like https://api.weixin.qq.com"))
    if not _is_host(parts.hostname or ""):
        raise _InvalidError(_("has no valid host name; it must look like https://api.weixin.qq.com"))
    if not _has_usable_port(parts):
        raise _InvalidError(_("needs a port from 1 to 65535 after the colon"))
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise _InvalidError(
            _("must be https: the URL contains tokens (http is only for a simulator on this machine)")
        )
    return value.rstrip("/")


def _url(value: str) -> SplitResult | None:
    """Return the parts of a URL of http or https; None for anything else."""
    parts = None
    with suppress(ValueError):
        parts = urlsplit(value)
    return parts if parts is not None and parts.scheme in {"http", "https"} and parts.hostname else None


def _is_host(host: str) -> bool:
    """Return whether a host is an address, or a name that IDNA can encode."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return ":" in host or re.fullmatch(r"[0-9A-Za-z._-]+", name) is not None


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise _InvalidError(_("must be a time zone such as Asia/Shanghai")) from None
    return value


def _token_url(value: str) -> str:
    if not value:
        return value
    parts = _url(value)
    if (
        parts is None
        or not _has_usable_port(parts)
        or "@" in parts.netloc
        or "#" in value
        or not value.isascii()
        or re.search(r"[\s\x00-\x1f]", value)
    ):
        raise _InvalidError(_("must look like https://tokens.example.com/{{appid}}"))
    if "{appid}" not in value.partition("://")[2].partition("/")[2]:
        raise _InvalidError(
            _(
                "has no {{appid}} after its host, where the appid goes; it must look like "
                "https://tokens.example.com/{{appid}}"
            )
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise _InvalidError(
            _("must be https: its responses contain tokens (http is only for a server on this machine)")
        )
    return value


_RULES: dict[str, Callable[[Any], Any]] = {
    "api_base": _api_base,
    "source_hosts": _matching(
        r"(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]+",
        _("must be names of hosts without https:// and path, such as files.example.com or *.example.com"),
    ),
    "timezone": _timezone,
    "unencrypted_schedulers": _matching(
        r"tcp://\S+:[0-9]+", _("must be addresses of schedulers, such as tcp://127.0.0.1:8786")
    ),
    "tokens.url": _token_url,
    "tokens.auth_header": _matching(
        r"[0-9A-Za-z!#$%&'*+.^_`|~-]+", _("is not the name of a header; one looks like Authorization")
    ),
    **dict.fromkeys(
        ("tokens.secret", "tokens.ticket"),
        _matching(
            r"((env|file|command):\s*\S.*)?",
            _(
                "must say where the secret is (env:NAME, file:PATH or command:PROGRAM), not contain the secret "
                "itself"
            ),
        ),
    ),
    # In TOML, "D:\new" contains a line break.
    **dict.fromkeys(
        ("merchants", "ledger", "reports", "tokens.file", "tokens.store", "audit.known"),
        _matching(
            r"[^\x00-\x1f\x7f]*",
            _("contains a control character, such as \\n or \\t; in a path write / in place of each \\"),
        ),
    ),
}
"""What a setting takes beyond its type. Each returns the value as it is kept, or raises _InvalidError."""


def _model_of(
    key: str,
) -> type[Settings | TokenSettings | AuditSettings | LifecycleSettings | NotifySettings]:
    """Return the model that a setting belongs to."""
    section, dot, _name = key.partition(".")
    return (SECTIONS | {"notify": NotifySettings})[section] if dot else Settings


def _unknown(key: str) -> Text:
    """Return the message for an unknown setting, with the most similar name."""
    from difflib import get_close_matches

    model = _model_of(key)
    # it may be in the wrong section
    places = {key.partition(".")[2]: key for key in section_keys()}
    places |= {name: name for name in setting_names(Settings)}
    places |= {name: f"{model.SECTION}{name}" for name in setting_names(model)}
    if near := get_close_matches(key.rpartition(".")[2], places, n=1):
        return _("there is no such setting (did you mean {places}?)", places=places[near[0]])
    return _("there is no such setting; the names are {names}", names=as_list(setting_names(model)))


_EXPECTED: dict[Any, Text] = {
    bool: _("must be true or false, without quotes"),
    int: _("must be a whole number, 0 or more, without quotes"),
    str: _("must be text in quotes"),
    Path: _("must be a path in quotes"),
    tuple: _('must be a list of texts, e.g. ["a", "b"]'),
    TokenSettings: _("must be a section that begins with [tokens]"),
    AuditSettings: _("must be a section that begins with [audit]"),
    LifecycleSettings: _("must be a section that begins with [lifecycle]"),
}


def _expected(key: str) -> Text:
    """Return what a setting accepts, by its type."""
    kind = _kinds(_model_of(key).SECTION)[key.rpartition(".")[2]]
    choices = list(Lang) if kind is Lang else [choice for choice in get_args(kind) if choice]
    if kind is Lang or get_origin(kind) is Literal:
        either = _("{one} or {next}", one="", next="")
        quoted = Joined(tuple(f'"{choice}"' for choice in choices), either)
        return _("must be {choices}", choices=quoted)
    return _EXPECTED[get_origin(kind) or kind]


_practice: Settings | None = None


def default_settings() -> Settings:
    """Return the settings of a call without any: those of an open practice panel, else `load_settings`'s."""
    return _practice or load_settings()


def set_default_settings(settings: Settings | None) -> None:
    """Set the settings of calls in this process that have none; None restores `load_settings`'s."""
    global _practice  # noqa: PLW0603  per process, like the open panel
    _practice = settings


def is_practising() -> bool:
    """Return whether calls without settings go to the simulator of a practice panel."""
    return _practice is not None


def _read(file: Path, named_by: str) -> dict[str, Any]:
    """Read the file; `named_by`: the source of its name, empty if the file may be missing."""
    if not file.exists():
        if not named_by:
            return {}
        problem = _("{file}: no such settings file.", file=file)
        if near := nearest_path(file, lambda path: path.suffix == ".toml"):
            raise SettingsError(problem, _("Did you mean {near}?", near=near))
        raise SettingsError(problem, _("Check {named_by}.", named_by=named_by))
    found = read_toml(file)
    _resolve(file.parent, found)
    return found


def _resolve(folder: Path, found: dict[str, Any]) -> None:
    """Resolve the paths in a settings file against its folder."""
    places: list[tuple[type[_Checked], Any]]
    if isinstance(found.get("ledger"), str) and "://" not in found["ledger"]:
        found["ledger"] = str(folder / found["ledger"])
    audit, entries = found.setdefault("audit", {}), found.get("notify")
    if isinstance(audit, dict):
        audit.setdefault("known", "known.csv")
    places = [(Settings, found), (AuditSettings, audit), (TokenSettings, found.get("tokens"))]
    places += [(NotifySettings, entry) for entry in entries] if isinstance(entries, list) else []
    for model, values in places:
        for name, kind in _kinds(model.SECTION).items():
            value = values.get(name) if isinstance(values, dict) else None
            if kind is Path and isinstance(value, str):
                values[name] = folder / value
            elif model is TokenSettings and isinstance(value, str) and value.startswith("file:"):
                values[name] = f"file:{folder / value.removeprefix('file:').strip()}"


# --- the TOML file ----------------------------------------------------------------------------------------------------

_LONGEST = 200
"""Maximum number of lines of a statement."""
_MISTAKES = 20
"""Maximum number of mistakes that are reported together."""


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises SettingsError with the line that cannot be read, never quoting it."""
    import tomllib

    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(
            _("{file} cannot be read: {why}.", file=file, why=system_reason(error)),
            _("Fix that, or select the settings file with --config."),
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(_("{file} is not UTF-8 text: save it as UTF-8", file=file)) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the parser's text is English only and may quote a value
        found = _unreadable(text)
    raise _reported(
        [_("{file}:{line}: {why_not}.", file=file, line=line, why_not=why_not) for line, why_not in found]
    )


def line_of(file: Path, *names: str) -> int:
    """Return the line of a TOML file that sets a name, preceded by its sections: `line_of(file, "tokens", "url")`.

    An entry of a list of sections has a number from 0: `line_of(file, "notify", "1", "to")`.
    """
    for line, _other, parsed in _statements(file.read_text(encoding="utf-8-sig")):
        found: Any = parsed
        for name in names:
            if isinstance(found, list):  # of [[notify]]: the name is an entry's number
                found = found[int(name)] if int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return line
    return 1


def _statements(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield each statement's line, the next statement's line, and all settings up to there.

    Ends where the text is not valid TOML.
    """
    import tomllib

    lines, begin = text.split("\n"), 1
    for end in range(1, len(lines) + 1):
        try:
            parsed = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            if end - begin >= _LONGEST:
                return
            continue
        yield begin, end + 1, parsed
        begin = end + 1


def _unreadable(text: str) -> list[tuple[int, Text]]:
    """Return the lines that cannot be read, and why: the first, and further ones if its mistake is within a line.

    After any other mistake, such as a bracket that is not closed, what follows may be read wrongly.
    """
    import tomllib

    found: list[tuple[int, Text]] = []
    while len(found) < _MISTAKES:
        line, why_not, within = _first_unreadable(text)
        if within or not found:
            found.append((line, why_not))
        if not within:
            break
        lines = text.split("\n")
        lines[line - 1] = ""
        text = "\n".join(lines)
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        break
    return found


def _first_unreadable(text: str) -> tuple[int, Text, bool]:
    """Return the first line that cannot be read, why, and whether the mistake is certain to be within that line."""
    *_earlier, (_begin, line, parsed) = [(0, 1, dict[str, Any]()), *_statements(text)]
    wrong = text.split("\n")[line - 1]
    name, _equals, value = (part.strip(" []\t\r") for part in wrong.partition("="))
    if name in parsed:
        return line, _("{name} appears twice: remove one", name=name), True
    if "\\" in wrong:
        return (
            line,
            _("in double quotes a backslash must be doubled; or use single quotes, or / instead"),
            False,
        )
    if re.match("[“”„‘’＂]", value):
        return line, _('{name} needs straight quotation marks: write {name} = "…"', name=name), True
    if re.match(r"[^\W\d]|[/.~]", value):
        return line, _('{name} is text without quotes: write {name} = "…"', name=name), True
    return (
        line,
        _('this is not TOML: a setting is written as NAME = VALUE, text in quotes, e.g. lang = "zh"'),
        False,
    )

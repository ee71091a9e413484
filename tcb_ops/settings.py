"""Settings: `tcb-ops.toml`, overridden by `TCB_OPS_…` variables, overridden by options.

The variable of a nested setting has two underscores: `TCB_OPS_TOKENS__SOURCE`. Paths in the file are relative to the
file's folder, paths in variables and options to the working folder.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from tcb_ops import setting_rules as rules
from tcb_ops.arguments import checked
from tcb_ops.errors import SettingsError
from tcb_ops.found_settings import Trust, open_found
from tcb_ops.i18n import Lang, Text, _, as_lines, as_list
from tcb_ops.kinds import features, load
from tcb_ops.model import SIMULATOR, is_loopback, target_label
from tcb_ops.resources import nearest_path
from tcb_ops.toml_file import cannot_be_read, line_of, parse_toml, read_text
from tcb_ops.values import check, values_of

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


# --- the settings -----------------------------------------------------------------------------------------------------


class Section:
    """Settings that are checked, and kept in the types of their fields. A feature's section derives from it."""

    SECTION: ClassVar[str] = ""
    """The prefix of their names: `tokens.`"""
    REPEATED: ClassVar[bool] = False
    """Whether there may be several, written as [[notify]]."""

    BESIDE_FILE: ClassVar[Mapping[str, str]] = {}
    """Paths that are looked for beside the settings file where they are not set."""

    def __init__(self, _names: Mapping[str, str] = {}, /, **values: Any) -> None:
        """Take settings by name; the others have their defaults. Raises SettingsError with every mistake.

        `_names`: the names that messages use for settings from elsewhere.
        """
        converted, wrong = _check(type(self), values)
        if wrong:
            raise _refused([_Mistake(_names.get(key, _name_of(key)), why) for key, why in wrong.items()])
        for one in fields(self):  # type: ignore[arg-type]  # what derives from this is a dataclass
            if one.name not in converted:
                made: Any = one.default_factory
                converted[one.name] = made() if one.default is MISSING else one.default
        self.__dict__.update(converted)  # frozen: not by assignment

    def lacks(self) -> Text | None:
        """Return what is missing for the values that are given; None if nothing is."""
        return None


@dataclass(frozen=True, init=False)
class TokenSettings(Section):
    """The settings of the token source."""

    SECTION = "tokens."

    source: Literal["file", "command", "service", "component"] = "file"
    file: rules.PathName = Path("tokens.csv")
    """CSV `appid,access_token[,expires_at]`."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """A program and its arguments, in which `{appid}` is replaced. It prints JSON on stdout."""
    url: Annotated[str, rules.token_url] = field(default="", repr=False)
    """Of the token server, with the placeholder `{appid}`."""
    auth_env: str = ""
    """The environment variable with the token server's credentials, sent in `auth_header`."""
    auth_header: Annotated[str, rules.header] = "Authorization"
    component_appid: str = ""
    """The third-party platform's own appid, whose token is the component token."""
    sole_owner: bool = False
    """Confirms that no other program refreshes these merchants' tokens."""
    secret: Annotated[str, rules.secret_place] = field(default="", repr=False)
    """Where the component's AppSecret is: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`; never the secret."""
    ticket: Annotated[str, rules.secret_place] = field(default="", repr=False)
    """Where the component_verify_ticket is, likewise."""
    store: rules.PathName = Path("tcb-ops.tokens")
    """The folder of the refresh tokens."""


@dataclass(frozen=True, init=False)
class LifecycleSettings(Section):
    """How long the ledger keeps runs."""

    SECTION = "lifecycle."

    keep_days: rules.Count = 0
    """The age in days from which `prune` removes runs; 0: it needs --older-than."""


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
    merchants_line: int = 0
    """The line of the file that sets `merchants`; 0 if none does."""


@dataclass(frozen=True, init=False, repr=False)
class Settings(Section):
    """The settings of all commands. Frozen; contains no token."""

    api_base: Annotated[str, rules.api_base] = "https://api.weixin.qq.com"
    """The URL that calls go to."""
    target: Literal["", "simulator"] = ""
    """`simulator`: the embedded simulator, on any port. A URL given as target becomes `api_base`."""
    merchants: rules.PathName = Path("merchants.csv")
    ledger: Annotated[str, rules.without_control_characters] = LEDGER_FILE
    """A file, or a database URL, which may contain a password and is never shown."""
    reports: rules.PathName = Path("reports")
    """The folder of the report folders."""
    lang: Lang = field(default_factory=system_lang)
    timezone: Annotated[str, rules.timezone] = "Asia/Shanghai"
    confirm_over: rules.Count = 5
    """Uploads to more live environments than this require confirmation."""
    store_hosts: tuple[str, ...] = ()
    """Hosts besides COS's own domains that a link may lead to; a leading dot allows its subdomains."""
    source_hosts: Annotated[tuple[str, ...], rules.source_hosts] = ()
    """Hosts that files may be read from by URL; `*.example.com` allows the subdomains of example.com."""
    unencrypted_schedulers: Annotated[tuple[str, ...], rules.schedulers] = ()
    """Addresses of schedulers that `--cluster` may connect to without TLS. Whoever reaches one can run programs in its workers."""
    etag: Literal["fail", "warn"] = "fail"
    """Whether a stored object's differing ETag is a failure or a warning."""
    tokens: TokenSettings = field(default_factory=TokenSettings)
    lifecycle: LifecycleSettings = field(default_factory=LifecycleSettings)
    sections: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The sections of features by name, each of its own type; a tuple of those that may be repeated."""
    origin: Origin = field(default_factory=Origin, compare=False)
    """Where these settings came from."""

    def __init__(self, *, origin: Origin | None = None, **values: Any) -> None:
        """Take values that override the environment and the defaults. Raises SettingsError."""
        named = "api_base"
        # A running simulator has both: the target and its own address.
        if values.get("target") and not is_loopback(urlsplit(str(values.get("api_base", ""))).hostname or ""):
            named, values = "target", _merge_target(values, "target", "api_base")
        values |= values.pop("sections", {})
        variables, target_named = _environment(values)
        super().__init__({"api_base": target_named or named}, **_merged(values, variables))
        self.__dict__["origin"] = origin or Origin()

    def __repr__(self) -> str:
        at = target_label(self.run_target, self.api_base)
        return (
            f"<Settings {at}, merchants {self.merchants}, ledger {self.ledger_name}, "
            f"tokens from {self.tokens.source}>"
        )

    def section(self, name: str) -> Any:
        """Return a feature's section, with its defaults where it is not set; a tuple of those that may be repeated."""
        if name in self.sections:
            return self.sections[name]
        model = section_models()[name]
        return () if model.REPEATED else model()

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


def _named_by(config: str | Path | None) -> str:
    """Return the option or variable that names the settings file; "" if it is only found."""
    return "--config" if config is not None else CONFIG if os.environ.get(CONFIG) else ""


def lang_in_file(config: str | None) -> Any:
    """Return `lang` of a settings file whose other settings may be wrong; None without one that may be used."""
    file = settings_file(config)
    with suppress(SettingsError):
        text, _writers = _read(file, _named_by(config))
        return parse_toml(text or "", file).get("lang")
    return None


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
    named_by = _named_by(config)
    text, writers = _read(file, named_by)
    there = writers is not None or (bool(named_by) and file.is_file())  # a pipe has no folder for a ledger
    from_file = {} if text is None else parse_toml(text, file)
    if text is not None:
        _resolve(file.parent, from_file)
    from_file = _merge_target(from_file, f"{file}: target", f"{file}: api_base")
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if given.get("target") == "":
        raise _refused([_Mistake("--target", _("it is empty; write simulator or a URL"))])
    target_named = "target" if given.get("target") else "api_base"
    given = _merge_target(given, "--target", "--api-base")
    variables, variable_named = _environment(given)
    overridden = frozenset(given) | variables.keys()
    merchants_line = line_of(text, "merchants") if text is not None and "merchants" in from_file else 0
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
        _mistake(key, why, given, target_named, text if there else None) for key, why in wrong.items()
    ]
    unknown = _unknown_variables()
    mistakes = [one for one in mistakes if one.name not in {other.name for other in unknown}] + unknown
    if mistakes:
        raise _refused(sorted(mistakes, key=lambda mistake: mistake.line), file)
    path = Path(os.path.realpath(file)) if there else None
    origin = Origin(path, from_file, overridden, writers, choice, merchants_line)
    return Settings(**found, origin=origin)


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of settings, the first above the others; those of a section one by one."""
    found: dict[str, Any] = {}
    for layer in reversed(layers):
        above = dict(layer)
        for section in section_models():
            if isinstance(found.get(section), Mapping) and isinstance(above.get(section), Mapping):
                above[section] = {**found[section], **above[section]}
        found |= above
    return found


def _environment(above: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what the TCB_OPS_… variables give, and the one that gives the target; "" for none.

    A target in the settings `above` overrides both variables of it. A list is JSON, or words as a shell reads them.
    """
    given = {name.upper(): value for name, value in os.environ.items()}

    def of(model: type[Section]) -> dict[str, Any]:
        variables = {name: _variable(f"{model.SECTION}{name}") for name in setting_names(model)}
        found: dict[str, Any] = {name: given[one] for name, one in variables.items() if one in given}
        for name in {"store_hosts", "source_hosts", "unencrypted_schedulers", "command"} & found.keys():
            found[name] = _words(found[name])
        return found

    sections = {name: model for name, model in section_models().items() if not model.REPEATED}
    found = {name: values for name, model in sections.items() if (values := of(model))} | of(Settings)
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
    key: str, why: Text, options: Mapping[str, Any], target_named: str, text: str | None
) -> _Mistake:
    """Return a mistake named by the source of the value: an option, a variable, or the line of the file's text."""
    names, key = key.split("."), _name_of(key)
    if key == "api_base" and target_named:
        return _Mistake(target_named, why)
    if key.partition(".")[0] in options:
        return _Mistake(key, why)
    if _variable(key) in os.environ or text is None:
        return _Mistake(_variable(key), why)
    if key == "api_base" and not tomllib.loads(text).get(key):
        key, names = "target", ["target"]
    return _Mistake(key, why, line_of(text, *names))


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


# --- checking ---------------------------------------------------------------------------------------------------------


@cache
def section_models() -> Mapping[str, type[Section]]:
    """Return the sections by name: the core's, and those that features bring."""
    added = {name: load(place) for feature in features().values() for name, place in feature.settings.items()}
    return {"lifecycle": LifecycleSettings, "tokens": TokenSettings} | added


def section_keys() -> list[str]:
    """Return the name of every setting in a section, such as `tokens.url`."""
    return [
        f"{section}.{name}"
        for section, model in sorted(section_models().items())
        if not model.REPEATED
        for name in setting_names(model)
    ]


def setting_names(model: type[Section]) -> list[str]:
    """Return the names of the settings: those of all commands, or those of a section."""
    if model is not Settings:
        return list(values_of(model))
    return [*(name for name in values_of(model) if name not in {"origin", "sections"}), *section_models()]


def _check(model: type[Section], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Text]]:
    """Return the settings that are given, in their own types, and what is wrong with others, by their keys.

    Those of a repeated section contain its number from 0: `notify.1.to`.
    """
    plain, made, wrong = dict(values), dict[str, Any](), dict[str, Text]()
    if model is Settings:
        for name, section in section_models().items():
            if name in plain:
                made[name], mistakes = _made(name, section, plain.pop(name))
                wrong |= mistakes
    converted, mistakes = check(model, plain, partial(_unknown, model, plain), strict=False)
    wrong |= {f"{model.SECTION}{name}": why for name, why in mistakes.items()}
    added = {name: made.pop(name) for name in list(made) if name not in values_of(model)}
    return converted | made | ({"sections": added} if added else {}), wrong


def _made(name: str, model: type[Section], value: Any) -> tuple[Any, dict[str, Text]]:
    """Return a section, or each of those that may be repeated, and what is wrong with it."""
    if model.REPEATED:
        if not isinstance(value, list | tuple):
            return (), {name: _("must be sections that begin with [[{name}]]", name=name)}
        entries = [_one_made(name, model, entry) for entry in value]
        wrong = {
            f"{name}.{number}{key[len(name) :]}": why
            for number, (_entry, mistakes) in enumerate(entries)
            for key, why in mistakes.items()
        }
        return tuple(entry for entry, _mistakes in entries), wrong
    return _one_made(name, model, value)


def _one_made(name: str, model: type[Section], value: Any) -> tuple[Section | None, dict[str, Text]]:
    if isinstance(value, model):
        return value, {}
    if not isinstance(value, Mapping):
        return None, {name: _("must be a section that begins with [{name}]", name=name)}
    converted, wrong = _check(model, value)
    if wrong:
        return None, wrong
    section = model(**converted)
    lacking = section.lacks()
    return (section, {}) if lacking is None else (None, {name: lacking})


def _unknown(model: type[Section], given: Mapping[str, Any], name: str) -> Text:
    """Return the message for an unknown setting, with the most similar name, which may be in another section."""
    from difflib import get_close_matches

    places = {key.partition(".")[2]: key for key in section_keys()}
    places |= {setting: setting for setting in setting_names(Settings)}
    places |= {setting: f"{model.SECTION}{setting}" for setting in setting_names(model)}
    if near := get_close_matches(name, places, n=1):
        return _("there is no such setting (did you mean {places}?)", places=places[near[0]])
    if isinstance(given[name], Mapping | list):
        return _("the feature with this section is not installed; remove it")
    return _("there is no such setting; the names are {names}", names=as_list(setting_names(model)))


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


def _read(file: Path, named_by: str) -> tuple[str | None, Trust | None]:
    """Read the file; return its text, None if it is missing, and who may have written it, None if it was named.

    `named_by`: the source of its name, empty if the file may be missing.
    """
    if not named_by:
        try:
            descriptor, writers = open_found(file)
        except FileNotFoundError:
            return None, None
        except OSError as error:
            raise cannot_be_read(file, error) from None
        return read_text(descriptor, file), writers
    if file.exists():
        return read_text(file, file), None
    problem = _("{file}: no such settings file.", file=file)
    if near := nearest_path(file, lambda path: path.suffix == ".toml"):
        raise SettingsError(problem, _("Did you mean {near}?", near=near))
    raise SettingsError(problem, _("Check {named_by}.", named_by=named_by))


def _resolve(folder: Path, found: dict[str, Any]) -> None:
    """Resolve the paths in a settings file against its folder."""
    if isinstance(found.get("ledger"), str) and "://" not in found["ledger"]:
        found["ledger"] = str(folder / found["ledger"])
    places: list[tuple[type[Section], Any]] = [(Settings, found)]
    for name, model in section_models().items():
        if model.REPEATED:
            entries = found.get(name)
            places += [(model, entry) for entry in entries] if isinstance(entries, list) else []
        else:
            places.append((model, found.setdefault(name, {})))
    for model, values in places:
        for name, setting in values_of(model).items():
            value = values.get(name) if isinstance(values, dict) else None
            if isinstance(values, dict) and name not in values and model.BESIDE_FILE:
                value = model.BESIDE_FILE.get(name)
            if setting.kind is Path and isinstance(value, str):
                values[name] = folder / value
            elif model is TokenSettings and isinstance(value, str) and value.startswith("file:"):
                values[name] = f"file:{folder / value.removeprefix('file:').strip()}"

"""Settings: `tcb-ops.toml`, overridden by `TCB_OPS_…` variables, overridden by options.

The variable of a nested setting has two underscores: `TCB_OPS_TOKENS__SOURCE`. Paths in the file are relative to the
file's folder, which its commands run in; those in variables and options to the working folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_origin
from urllib.parse import urlsplit

from tcb_ops import setting_rules as rules
from tcb_ops import shell
from tcb_ops.arguments import checked
from tcb_ops.disk import nearest_path
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.hooks import features, load
from tcb_ops.i18n import NOTHING, Lang, Text, _, as_lines, as_list
from tcb_ops.model import PLATFORM, SIMULATOR, Listener, Problem, is_loopback
from tcb_ops.settings_files import Trust, cannot_be_read, open_found, parse_toml, read_text
from tcb_ops.values import InvalidValueError, Value, check, values_of

SETTINGS_FILE = "tcb-ops.toml"
NO_SETTINGS_FILE = _(
    "There is no tcb-ops.toml here: change to the folder that has it, or create a new one with `tcb-ops init`."
)
PREFIX = "TCB_OPS_"
CONFIG = "TCB_OPS_CONFIG"
"""The variable that names the settings file, like `--config`; passes `notebook --config` to the kernel."""
_TARGETS = ("target", "api_base")
"""The settings that give the target."""
LEDGER_FILE = "tcb-ops.db"
NOT_STARTED = "http://127.0.0.1"
"""The API base of the embedded simulator until it listens; never a live one."""
_OTHER_VARIABLES = re.compile("CHROMIUM|DOCUMENT|APPID|REFUSED|(NEED|TEST)_.*")
"""TCB_OPS_… variables that are not settings: of the PDF browser, an executed notebook, a token command, and our tests."""
if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

HARMLESS = {"host", "port", "sslmode", "sslrootcert", "service", "options", "connect_timeout"}
"""Query parameters of a database URL that contain no password."""


# --- the settings -----------------------------------------------------------------------------------------------------


_INTERNAL = {"setting": False}
"""Marks a field that no file and no variable sets."""


class MistakesError(SettingsError):
    """Some settings are wrong; `mistakes`: what is wrong with each, by its name."""

    def __init__(self, mistakes: Mapping[str, Text]) -> None:
        lines = [_("{name}: {why}.", name=name, why=problem) for name, problem in mistakes.items()]
        super().__init__(as_lines(lines), _("Correct it, then try again."))
        self.mistakes = mistakes
        self.problems = [Problem(0, name, problem, NOTHING) for name, problem in mistakes.items()]


class Section:
    """Settings that are checked, and kept in the types of their fields. A feature's section derives from it."""

    REPEATED: ClassVar[bool] = False
    """Whether there may be several, written as [[notify]]."""

    def __init__(self, **values: Any) -> None:
        """Take settings by name; the others have their defaults. Raises SettingsError with every mistake."""
        converted, mistakes = check(type(self), values, self._unknown, strict=False)
        self._set({**values, **converted})
        required = {name for name, value in values_of(type(self)).items() if value.required}
        if not required & mistakes.keys():
            mistakes |= self.lacks()
        if mistakes:
            raise MistakesError(mistakes)

    @classmethod
    def _unknown(cls, name: str, _value: object) -> Text:
        """Return the message for a setting that does not exist, with its other names."""
        if (secret_file := f"{name}_file") in values_of(cls):
            text = _("a secret is not written here: write {name}, and the value into that file")
            return text.format(name=secret_file)
        return _("there is no such setting; the names are {names}", names=as_list(values_of(cls)))

    def _set(self, values: Mapping[str, Any]) -> None:
        for setting in fields(self):  # type: ignore[arg-type]  # what derives from this is a dataclass
            make: Any = setting.default_factory
            default = make() if setting.default is MISSING and make is not MISSING else setting.default
            self.__dict__[setting.name] = values.get(setting.name, default)  # frozen: not by assignment

    def lacks(self) -> Mapping[str, Text]:
        """Return what is missing for the values that are given, by the name of the setting that needs it."""
        return {}


@dataclass(frozen=True, init=False)
class TokenSettings(Section):
    """The settings of the token source."""

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
    redirect_uri: Annotated[str, rules.redirect_uri] = ""
    """The page of the platform to which WeChat leads after an authorization; `fix` makes authorization links with it."""
    sole_owner: bool = False
    """Confirms that no other program refreshes these merchants' tokens."""
    secret: Annotated[str, rules.secret_place] = field(default="", repr=False)
    """Where the component's AppSecret is: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`; never the secret."""
    ticket: Annotated[str, rules.secret_place] = field(default="", repr=False)
    """Where the component_verify_ticket is, likewise."""
    store: rules.PathName = Path("tcb-ops.tokens")
    """The folder of the refresh tokens."""


@dataclass(frozen=True, init=False)
class ReportSettings(Section):
    """What report folders contain."""

    pdf: Annotated[bool, rules.pdf] = False
    """Whether every report has a report.pdf, as with `--pdf`."""
    url: Annotated[str, rules.report_url] = ""
    """Where a server offers the reports' folders, with the placeholder `{run}`: messages link that page."""
    sign: Path | None = None
    """The private SSH key that signs each report, or its public key if an ssh-agent has it; None: reports are not signed."""


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
    """The file's settings by name (`tokens.file`), with paths resolved against its folder; the ledger's URL may contain a
    password.
    """
    overridden: frozenset[str] = frozenset()
    """Settings given by an option or a variable."""
    folder: Path | None = None
    """The file's folder, absolute: where its commands run; None without a settings file."""
    found: Trust | None = None
    """Who may have written a file that was found in the working folder; None if it was named by --config or a variable."""


@dataclass(frozen=True, init=False, repr=False)
class Settings(Section):
    """The settings of all commands. Frozen; contains no token."""

    api_base: Annotated[str, rules.api_base] = PLATFORM
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
    report: ReportSettings = field(default_factory=ReportSettings)
    sections: Mapping[str, Any] = field(default_factory=dict, hash=False, metadata=_INTERNAL)
    """The sections of features by name, each of its own type; a tuple of those that may be repeated."""
    origin: Origin = field(default_factory=Origin, compare=False, metadata=_INTERNAL)
    """Where these settings came from."""
    listener: Listener | None = field(default=None, compare=False, metadata=_INTERNAL)
    """What listens at an http `api_base`; None before it is asked, and for https."""

    def __init__(
        self, *, origin: Origin | None = None, listener: Listener | None = None, **values: Any
    ) -> None:
        """Take values that override the environment and the defaults. Raises SettingsError."""
        values |= values.pop("sections", {})
        # A running simulator has both: the target and its own address.
        host = urlsplit(str(values.get("api_base", ""))).hostname or ""
        running = {"target": SIMULATOR} if values.get("target") == SIMULATOR and is_loopback(host) else {}
        values = {name: value for name, value in values.items() if name not in running}
        combined = _combined([_Layer(_environment(), _variable), _Layer(_by_key(values), str)])
        sections = _sections(combined)
        added = {name: sections.pop(name) for name in sections.keys() - values_of(Settings).keys()}
        internal = {"sections": added, "origin": origin or Origin(), "listener": listener}
        self._set(combined | running | sections | internal)

    def __repr__(self) -> str:
        text = _("<Settings {target}, merchants {merchants}, ledger {ledger}, tokens from {source}>")
        values = {"merchants": self.merchants, "ledger": self.ledger_name, "source": self.tokens.source}
        return text.format(target=self.target_label, **values).of(self.lang)

    def section(self, name: str) -> Any:
        """Return a feature's section, with its defaults where it is not set; a tuple of those that may be repeated."""
        model = section_models()[name]
        return self.sections[name] if name in self.sections else () if model.REPEATED else model()

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

    def folder_of(self, setting: str) -> Path | None:
        """Return the folder that a setting's command runs in: the settings file's; None for the working folder."""
        return None if setting in self.origin.overridden else self.origin.folder

    @property
    def run_target(self) -> str:
        """The target as stored with runs: the API base, or `simulator` for the embedded one, whose port changes."""
        return self.target or self.api_base

    @property
    def simulated(self) -> bool:
        """Whether the target is known to be a simulator: its reports are marked SIMULATED 演练."""
        return SIMULATOR in {self.target, self.listener}

    @property
    def is_rehearsal(self) -> bool:
        """Whether a settings file makes its folder a rehearsal, as `init --practice` does.

        ================  ========================  ======
        the file's        in the end, by variables  result
        own target        and options
        ================  ========================  ======
        simulator         simulator                 True
        simulator         another                   False
        another, no file  simulator                 False
        ================  ========================  ======
        """
        return {self.target, self.origin.from_file.get("target")} == {SIMULATOR}

    @property
    def target_label(self) -> str:
        """The target for display, as LIVE or SIMULATED with its address."""
        return f"{'SIMULATED' if self.simulated else 'LIVE'} {self.api_base}"

    @property
    def on_loopback(self) -> bool:
        """Whether the target is on this machine."""
        return is_loopback(urlsplit(self.api_base).hostname or "")


def without_dots(path: str | Path) -> str:
    """Return a path as an absolute one for a suggested command, without `..` unless that would lead elsewhere (links)."""
    absolute = str(Path(path).absolute()) if str(path) else ""
    normal = os.path.normpath(absolute) if absolute else ""
    return normal if os.path.realpath(normal) == os.path.realpath(absolute) else absolute


def url_parts(where: str) -> tuple[str, str, str, str]:
    """Split a database URL into scheme with ://, account, host with path, and query; a file has no scheme."""
    scheme, separator, rest = where.partition("://")
    beside, _mark, query = rest.partition("?")
    account, _at, host = beside.rpartition("@")
    return scheme + separator if separator else "", account, host, query


def shown_url(where: str, *, role: bool = True) -> str:
    """Return a ledger's file, or its database URL without password and query, which may contain secrets.

    `role`: whether the user is shown.

    If these cannot be separated from the rest (an @ after a ?), only the scheme is left.
    """
    scheme, account, host, query = url_parts(where)
    if not scheme:
        return where
    user = account.partition(":")[0]
    shown = f"{user}@" if role and user and "@" not in account else ""
    return scheme + ("…" if "@" in query else shown + host)


def holds_password(where: str) -> bool:
    """Return whether a ledger's URL may contain a password: after the user, or in an unknown query parameter."""
    scheme, account, _host, query = url_parts(where)
    names = {part.partition("=")[0] for part in query.split("&") if part}
    return bool(scheme) and ("@" in query or ":" in account or not names <= HARMLESS)


def settings_file(config: str | Path | None = None) -> Path:
    """Return the settings file: the given one, the one in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder."""
    return Path(config if config is not None else os.environ.get(CONFIG) or SETTINGS_FILE)


def with_target(settings: Settings, target: str | None) -> Settings:
    """Return the same settings with another target, `simulator` or a URL; None keeps it. Raises SettingsError."""
    if target is None or target == settings.run_target:
        return settings
    return replace(
        settings, listener=None, **_combined([_Layer({"target": target, "api_base": target}, str)])
    )


@checked
def load_settings(config: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings file, the environment and the given options.

    `config` None: the file in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder, which may be missing; in a notebook, after
    `panels.use`, the settings that it uses. Options that are None are ignored. Raises SettingsError with the file or variable,
    never with a value, and for a file in the working folder that others may have written.
    """
    if config is None and _default is not None:
        return _with_options(_default, _given(options))
    return read_settings(config, options)


def read_settings(config: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """Read settings as `load_settings` does, whatever a notebook uses."""
    file = settings_file(config)
    named_by: Text | str = _("{--config}") if config is not None else CONFIG if os.environ.get(CONFIG) else ""
    text, writers = _read(file, named_by)
    in_file = {} if text is None else _in_folder(file.parent, _by_key(parse_toml(text, file)))
    given = _given(options)
    of_file = _Layer(in_file, lambda key: f"{file}: {key}")
    variables = _environment()
    combined = _combined([of_file, _Layer(variables, _variable), _Layer(given, str)], _unknown_variables())
    path = Path(os.path.realpath(file)) if text is not None else None
    folder = file.absolute().parent if text is not None else None
    origin = Origin(path, _one_target(of_file)[0], frozenset(given) | variables.keys(), folder, writers)
    return Settings(**combined, origin=origin)


def _given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    given = _by_key({name: value for name, value in (options or {}).items() if value is not None})
    if given.get("target") == "":
        raise MistakesError({"--target": _("it is empty; write simulator or a URL")})
    return given


def _with_options(settings: Settings, given: Mapping[str, Any]) -> Settings:
    if not given:
        return settings
    internal = {"sections", "origin", "listener"}
    own = {name: value for name, value in vars(settings).items() if name not in internal}
    values, listener = _by_key(own | dict(settings.sections)), settings.listener
    if not given.keys().isdisjoint(_TARGETS):
        values, listener = {name: values[name] for name in values.keys() - _TARGETS}, None
    origin = replace(settings.origin, overridden=settings.origin.overridden | given.keys())
    return Settings(origin=origin, listener=listener, **{**values, **given})


def chosen_lang(config: str | None, asked: str | None) -> Lang:
    """Return the language of messages, even if other settings are wrong: the option's, the variable's, the file's."""
    try:
        return read_settings(config, {"lang": asked}).lang
    except TcbOpsError:
        in_file: object = None
    with suppress(TcbOpsError, OSError):
        file = settings_file(config)
        text, _writers = _read(file, "")
        in_file = parse_toml(text, file).get("lang") if text is not None else None
    given = (asked, os.environ.get(f"{PREFIX}LANG"), in_file)
    return next((Lang(lang) for lang in given if lang in {"zh", "en"}), system_lang())


class _Layer(NamedTuple):
    """Settings of one source, which override those of the sources before."""

    values: Mapping[str, Any]
    """By name, those in sections as `tokens.url`."""
    shown: Callable[[str], str]
    """How messages name a setting of this source."""


def _by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name, those in sections as `tokens.url`; sections that may be repeated stay as they are."""
    by_key = dict(values)
    for name, value in values.items():
        section = vars(value) if isinstance(value, Section) else value
        if isinstance(section, Mapping) and name in section_models() and not section_models()[name].REPEATED:
            by_key |= {f"{name}.{key}": each for key, each in section.items() if each is not None}
            del by_key[name]
    return by_key


def _sections(by_key: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name, model in section_models().items():
        values = {key.removeprefix(f"{name}."): by_key[key] for key in by_key if key.startswith(f"{name}.")}
        if name in by_key or values:
            sections[name] = by_key[name] if model.REPEATED else model(**values)
    return sections


def _combined(layers: Sequence[_Layer], mistakes: Mapping[str, Text] = {}) -> dict[str, Any]:
    """Return the settings of all layers in their own types, by name. Raises MistakesError with every mistake."""
    combined, wrong = dict[str, Any](), dict[str, Text]()
    for layer in layers:
        values, target_name = _one_target(layer)
        for key, value in values.items():
            try:
                combined[key] = _checked(key, value)
            except MistakesError as error:  # of repeated sections
                wrong |= {layer.shown(name): text for name, text in error.mistakes.items()}
            except InvalidValueError as error:
                wrong[layer.shown(target_name if key == "api_base" else key)] = error.text
    if wrong or mistakes:
        raise MistakesError({**wrong, **mistakes})
    return combined


def _one_target(layer: _Layer) -> tuple[dict[str, Any], str]:
    """Merge `target` and `api_base` of a layer into one choice; return its settings, and which of the two made it."""
    values = dict(layer.values)
    given = {key: value for key in _TARGETS if isinstance(value := values.get(key), str) and value}
    if not given:
        return {key: value for key, value in values.items() if key != "target" or value}, "api_base"
    if len({value.rstrip("/") for value in given.values()}) > 1:
        first, second = map(layer.shown, _TARGETS)
        raise SettingsError(
            _("{one} and {other} specify different targets: give only one of them.", one=first, other=second)
        )
    key, value = next(iter(given.items()))
    if value == SIMULATOR:
        return values | {"target": SIMULATOR, "api_base": NOT_STARTED}, key
    return values | {"target": "", "api_base": value}, key


def _checked(key: str, value: Any) -> Any:
    if (setting := setting_values().get(key)) is not None:
        return setting.convert(value, strict=False)
    if (model := section_models().get(key)) is None:
        raise InvalidValueError(_unknown(key, value))
    if not model.REPEATED:
        raise InvalidValueError(_("must be a section that begins with [{name}]", name=key))
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping | model) for entry in value):
        raise InvalidValueError(_("must be sections that begin with [[{name}]]", name=key))
    entries, wrong = list[Section](), dict[str, Text]()
    for number, entry in enumerate(value, 1):
        try:
            entries.append(entry if isinstance(entry, model) else model(**entry))
        except MistakesError as error:
            wrong |= {f"{key}[{number}].{name}": text for name, text in error.mistakes.items()}
    if wrong:
        raise MistakesError(wrong)
    return tuple(entries)


def _environment() -> dict[str, Any]:
    variables = {name.upper(): value for name, value in os.environ.items()}
    return {
        key: _words(value) if get_origin(setting.kind) is tuple else value
        for key, setting in setting_values().items()
        if (value := variables.get(_variable(key))) is not None
    }


def _words(value: str) -> list[str] | str:
    with suppress(ValueError, RecursionError):
        words: list[str] = json.loads(value) if value.lstrip().startswith("[") else shell.split(value)
        return words
    return value


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def _unknown_variables() -> dict[str, Text]:
    names = {CONFIG, *map(_variable, setting_values())}
    others = sorted(name.upper() for name in os.environ if name.upper().startswith(PREFIX))
    return {
        name: _("there is no such setting; correct its name, or unset this variable")
        for name in others
        if name not in names and not _OTHER_VARIABLES.fullmatch(name.removeprefix(PREFIX))
    }


@cache
def section_models() -> Mapping[str, type[Section]]:
    """Return the sections by name: the core's, and those that features bring."""
    added = {name: load(where) for feature in features().values() for name, where in feature.settings.items()}
    return {"report": ReportSettings, "tokens": TokenSettings} | added


@cache
def setting_values() -> Mapping[str, Value]:
    """Return what each setting takes, by name, those in sections as `tokens.url`; without sections that may be repeated."""
    models = {name: model for name, model in sorted(section_models().items()) if not model.REPEATED}
    return {key: value for key, value in values_of(Settings).items() if key not in section_models()} | {
        f"{name}.{key}": value for name, model in models.items() for key, value in values_of(model).items()
    }


def _unknown(key: str, value: object) -> Text:
    """Return the message for an unknown setting, with the most similar name, which may be in another section."""
    from difflib import get_close_matches

    section, _dot, name = key.rpartition(".")
    siblings = [each for each in setting_values() if each.startswith(f"{section}.") or not section]
    names = {
        each.rpartition(".")[2]: each
        for each in (*section_models(), *reversed(list(setting_values())), *siblings)
    }
    if near := get_close_matches(name, names, n=1):
        return _("there is no such setting (did you mean {places}?)", places=names[near[0]])
    if isinstance(value, Mapping | list):
        sections = as_list(sorted(section_models()))
        return _("there is no such section: remove it, or correct its name ({names})", names=sections)
    return _("there is no such setting; the names are {names}", names=as_list(siblings))


_default: Settings | None = None


def default_settings() -> Settings:
    """Return the settings of a call without any: those that a notebook uses, else those of the file and the environment."""
    return _default or read_settings()


def default_lang() -> Lang:
    """Return the language of the default settings; where they cannot be read, that of the system."""
    try:
        return default_settings().lang
    except TcbOpsError:
        return system_lang()


def set_default_settings(settings: Settings | None) -> None:
    """Set the settings of calls in this process that have none; None restores those of the file and the environment."""
    global _default  # noqa: PLW0603  per process, like a notebook
    _default = settings


def _read(file: Path, named_by: Text | str) -> tuple[str | None, Trust | None]:
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


def _in_folder(folder: Path, by_key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a settings file's settings with their paths resolved against its folder, those that are not given too."""
    resolved = _resolved(folder, setting_values(), by_key)
    for name, model in section_models().items():
        if model.REPEATED and isinstance(entries := by_key.get(name), list):
            resolved[name] = [
                _resolved(folder, values_of(model), entry) if isinstance(entry, Mapping) else entry
                for entry in entries
            ]
    return resolved


def _resolved(folder: Path, expected: Mapping[str, Value], given: Mapping[str, Any]) -> dict[str, Any]:
    resolved = dict(given)
    for name, setting in expected.items():
        value = given.get(name, setting.default)
        if setting.kind is Path and isinstance(value, str | Path):
            resolved[name] = folder / Path(value).expanduser()
        elif name == "ledger" and isinstance(value, str) and "://" not in value:
            resolved[name] = str(folder / value)
        elif rules.secret_place in setting.notes and str(value).startswith("file:"):
            resolved[name] = f"file:{folder / str(value).removeprefix('file:').strip()}"
    return resolved

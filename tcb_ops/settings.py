"""Settings: `tcb-ops.toml`, overridden by `TCB_OPS_…` variables, overridden by options.

The variable of a nested setting has two underscores: `TCB_OPS_TOKENS__SOURCE`. Paths in the file are relative to the
file's folder, paths in variables and options to the working folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tcb_ops.errors import SettingsError, check_path, check_value
from tcb_ops.i18n import Joined, Lang, Text, _, as_lines, as_list
from tcb_ops.model import SIMULATOR, is_loopback, target_label
from tcb_ops.resources import nearest_path
from tcb_ops.toml_file import line_of, read_toml

SETTINGS_FILE = "tcb-ops.toml"
PREFIX = "TCB_OPS_"
CONFIG = "TCB_OPS_CONFIG"
"""The variable that names the settings file, like `--config`; passes `notebook --config` to the kernel."""
LEDGER_FILE = "tcb-ops.db"
NOT_STARTED = "http://127.0.0.1"
"""The API base of the embedded simulator until it listens; never a live one."""
_OTHER_VARIABLES = re.compile("CHROMIUM|RUN_NOW|HEADLESS_OUT|HEADLESS_RESULT|APPID|REFUSED|(NEED|TEST)_.*")
"""TCB_OPS_… variables that are not settings: of the PDF browser, notebooks, a token command, and our tests."""
_Pathlike = TypeVar("_Pathlike", Path, str)
_HARMLESS = {"host", "port", "sslmode", "sslrootcert", "service", "options", "connect_timeout"}
"""Query parameters of a database URL that contain no password."""


class _InvalidError(ValueError):
    """An invalid setting, with what is expected; pydantic adds the setting's name."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


def _writable(path: _Pathlike) -> _Pathlike:
    r"""Refuse a path with a control character: in TOML, "D:\new" contains a line break."""
    if re.search(r"[\x00-\x1f\x7f]", str(path)):
        raise _InvalidError(
            _("contains a control character, such as \\n or \\t; in a path write / in place of each \\")
        )
    return path


class TokenSettings(BaseModel):
    """The settings of the token source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["file", "command", "service", "component"] = "file"
    file: Path = Path("tokens.csv")
    """CSV `appid,access_token[,expires_at]`."""
    command: tuple[str, ...] = Field(default=(), repr=False)
    """A program and its arguments, in which `{appid}` is replaced. It prints JSON on stdout."""
    url: str = Field(default="", repr=False)
    """Of the token server, with the placeholder `{appid}`."""
    auth_env: str = ""
    """The environment variable with the token server's credentials, sent in `auth_header`."""
    auth_header: str = "Authorization"
    component_appid: str = ""
    """The third-party platform's own appid, whose token is the component token."""
    sole_owner: bool = False
    """Confirms that no other program refreshes these merchants' tokens."""
    secret: str = Field(default="", repr=False)
    """Where the component's AppSecret is: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`; never the secret."""
    ticket: str = Field(default="", repr=False)
    """Where the component_verify_ticket is, likewise."""
    store: Path = Path("tcb-ops.tokens")
    """The folder of the refresh tokens."""

    _paths = field_validator("file", "store")(_writable)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # pydantic's message would quote the value
            usable = False
        if (
            not usable
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

    @field_validator("auth_header")
    @classmethod
    def _header(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+", value):
            raise _InvalidError(_("is not the name of a header; one looks like Authorization"))
        return value

    @field_validator("secret", "ticket")
    @classmethod
    def _named(cls, value: str) -> str:
        if value and not re.match(r"(env|file|command):\s*\S", value):
            raise _InvalidError(
                _(
                    "must say where the secret is (env:NAME, file:PATH or command:PROGRAM), not contain the secret "
                    "itself"
                )
            )
        return value


class AuditSettings(BaseModel):
    """The settings of audits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    known: Path = Path("known.csv")
    """Failures that are reported without an alarm until a date; the file may be missing."""

    _paths = field_validator("known")(_writable)


class NotifySettings(BaseModel):
    """A receiver of audit results. Addresses and keys are in variables or files, never in the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["wecom", "feishu", "dingtalk", "webhook", "command", "email"]
    url_env: str = ""
    url_file: Path | None = None
    secret_env: str = ""
    secret_file: Path | None = None
    format: Literal["markdown", "text"] = "markdown"
    on: Literal["change", "always", "failure"] = "change"
    command: tuple[str, ...] = Field(default=(), repr=False)
    """Kind `command`: a program and its arguments. It reads JSON on stdin."""
    smtp: str = ""
    """Kind `email`: the mail server, `host` or `host:port`; port 465 means implicit TLS."""
    user: str = ""
    """Kind `email`: the user name; the password is in `secret_env` or `secret_file`."""
    sender: str = ""
    to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> NotifySettings:
        """Refuse an entry without the settings that its kind needs."""
        if self.kind == "command":
            if not self.command:
                raise _InvalidError(_('kind = "command" needs command, a program and its arguments'))
        elif self.kind == "email":
            addressed = re.fullmatch(r"[^\s:]+(:[1-9]\d{0,4})?", self.smtp) and self.sender and self.to
            if not addressed or (self.user and not (self.secret_env or self.secret_file)):
                raise _InvalidError(
                    _(
                        'kind = "email" needs smtp (host:port), sender and to; with user also secret_env or secret_file'
                    )
                )
        elif bool(self.url_env) == bool(self.url_file):
            raise _InvalidError(
                _(
                    'kind = "{kind}" needs url_env (the name of a variable) or url_file, one of them',
                    kind=self.kind,
                )
            )
        return self


class _Variables(EnvSettingsSource):
    """The TCB_OPS_… variables. A list among them is JSON, or words in shell syntax."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        for section, name in ((found, "store_hosts"), (found.get("tokens"), "command")):
            if isinstance(section, dict) and isinstance(value := section.get(name), str):
                with suppress(ValueError):  # invalid: reported with the other mistakes
                    section[name] = (
                        json.loads(value) if value.lstrip().startswith("[") else shlex.split(value)
                    )
        return found


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


def _system_lang() -> Lang:
    spoken = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return Lang.ZH if spoken.lower().startswith("zh") else Lang.EN


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of settings: what a command must repeat to get the same ones."""

    file: Path | None = None
    """Absolute, with symbolic links resolved; None without a settings file."""
    from_file: Mapping[str, Any] = field(default_factory=dict)
    """The file's settings, with paths resolved against its folder."""
    overridden: frozenset[str] = frozenset()
    """Settings given by an option or a variable."""
    ledger_choice: Text | None = None
    """Which ledger is used and why, if two are possible."""


class Settings(BaseSettings):
    """The settings of all commands. Frozen; contains no token."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,  # invalid JSON is reported with the other mistakes
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    api_base: str = "https://api.weixin.qq.com"
    """The URL that calls go to."""
    target: Literal["", "simulator"] = ""
    """`simulator`: the embedded simulator, on any port. A URL given as target becomes `api_base`."""
    merchants: Path = Path("merchants.csv")
    ledger: str = Field(default=LEDGER_FILE, repr=False)
    """A file, or a database URL, which may contain a password and is never shown."""
    reports: Path = Path("reports")
    """The folder of the report folders."""
    lang: Lang = Field(default_factory=_system_lang)
    timezone: str = "Asia/Shanghai"
    confirm_over: int = Field(default=5, ge=0)
    """Uploads to more live environments than this require confirmation."""
    store_hosts: tuple[str, ...] = ()
    """Hosts besides COS's own domains that a link may lead to; a leading dot allows its subdomains."""
    etag: Literal["fail", "warn"] = "fail"
    """Whether a stored object's differing ETag is a failure or a warning."""
    tokens: TokenSettings = TokenSettings()
    audit: AuditSettings = AuditSettings()
    notify: tuple[NotifySettings, ...] = ()
    """The receivers of audit results."""
    _origin: Origin = PrivateAttr(default_factory=Origin)

    def __init__(self, **values: Any) -> None:
        """Take values that override the environment and the defaults. Raises SettingsError."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            if type(self) is not Settings:  # `load_settings` and `aim` add where the value comes from
                raise
            raise _refused([_Mistake(key, why) for key, why in _mistakes(error)]) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **_others: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the call's values before the environment's, and no other source."""
        return init_settings, _Variables(settings_cls)

    def __repr__(self) -> str:
        at = target_label(self.run_target, self.api_base)
        return (
            f"<Settings {at}, merchants {self.merchants}, ledger {self.ledger_name}, "
            f"tokens from {self.tokens.source}>"
        )

    _paths = field_validator("merchants", "ledger", "reports")(_writable)

    @field_validator("api_base")
    @classmethod
    def _base(cls, value: str) -> str:
        if not value.isprintable() or re.search(r"\s", value):
            raise _InvalidError(
                _("contains a space or a control character; it must look like https://api.weixin.qq.com")
            )
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
        except ValueError:  # pydantic's message would quote the value
            usable = False
        if not usable or re.search(r"[?#]", value):
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

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise _InvalidError(_("must be a time zone such as Asia/Shanghai")) from None
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of screens and reports."""
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
            return str(Path(self.ledger).absolute())
        return "" if holds_password(self.ledger) else self.ledger

    @property
    def origin(self) -> Origin:
        """Where these settings came from."""
        return self._origin

    def kept_in(self, file: Path) -> Settings:
        """Return the same settings as read from a settings file that will be written to `file`."""
        values = {"target": self.target, "merchants": self.merchants, "ledger": self.ledger}
        kept = self.model_copy()
        kept._origin = Origin(file, values, self._origin.overridden & {"lang"})  # noqa: SLF001  our own copy
        return kept

    @property
    def run_target(self) -> str:
        """The target as stored with runs: the API base, or `simulator` for the embedded one, whose port changes."""
        return self.target or self.api_base

    @property
    def on_loopback(self) -> bool:
        """Whether the target is a simulator on this machine: its reports are marked SIMULATED 演练."""
        return is_loopback(urlsplit(self.api_base).hostname or "")


class _Named(Settings):
    """Settings whose mistakes are named by the source of the value."""


def shown_url(where: str) -> str:
    """Return a ledger's file, or its database URL without user, password and query, which may contain secrets.

    If these cannot be separated from the rest (an @ after a ?), only the scheme is left.
    """
    scheme, there, rest = where.partition("://")
    if not there:
        return where
    beside, _other, query = rest.partition("?")
    return f"{scheme}://" + ("…" if "@" in query else beside.rpartition("@")[2])


def holds_password(where: str) -> bool:
    """Return whether a ledger's URL may contain a password: after the user, or in an unknown query parameter."""
    _other, there, rest = where.partition("://")
    beside, _other, query = rest.partition("?")
    names = {part.partition("=")[0] for part in query.split("&") if part}
    return bool(there) and ("@" in query or ":" in beside.rpartition("@")[0] or not names <= _HARMLESS)


def settings_file(config: str | Path | None = None) -> Path:
    """Return the settings file: the given one, the one in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder."""
    return Path(config if config is not None else os.environ.get(CONFIG) or SETTINGS_FILE)


def aim(settings: Settings, target: str | None) -> Settings:
    """Return the same settings with another target, `simulator` or a URL; None keeps it. Raises SettingsError."""
    if target is None or target == settings.run_target:
        return settings
    options = _aimed({"target": target}, "target")
    if not options["target"]:
        try:
            options["api_base"] = _Named(api_base=target).api_base
        except ValidationError as error:
            raise _refused([_Mistake("target", why) for _, why in _mistakes(error)]) from None
    return settings.model_copy(update=options)


def _aimed(layer: dict[str, Any], *names: str) -> dict[str, Any]:
    """Merge `target` and `api_base` of one layer into one choice; `names`: what this layer calls them."""
    given = {name: layer.get(name) for name in ("target", "api_base")}
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


def load_settings(config: str | Path | None = None, options: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings file, the environment and the given options.

    `config` None: the file in TCB_OPS_CONFIG, or tcb-ops.toml in the working folder, which may be missing. Options that
    are None are ignored. Raises SettingsError with the file or variable, never with a value.
    """
    if config is not None:
        check_path("config", config)
    names_only = options is None or (
        isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
    )
    check_value("options", options, names_only, _("a mapping, setting → value"))
    file = settings_file(config)
    named_by = "--config" if config is not None else CONFIG if os.environ.get(CONFIG) else ""
    there = file.is_file()
    from_file = _aimed(_read(file, named_by), f"{file}: target", f"{file}: api_base")
    given = _given(options or {})
    target_named = "target" if given.get("target") else "api_base"
    given = _aimed(given, "--target", "--api-base")
    if "api_base" not in given:
        variables = {name: os.environ.get(_variable(name)) for name in ("target", "api_base")}
        target_named = "TCB_OPS_TARGET" if variables["target"] else "TCB_OPS_API_BASE"
        given |= _given(_aimed(_given(variables), "TCB_OPS_TARGET", "TCB_OPS_API_BASE"))
    overridden = frozenset(given) | {name for name in Settings.model_fields if _variables(name)}
    choice = None
    if there and "ledger" not in from_file and "ledger" not in overridden:
        from_file["ledger"], choice = _ledger_of(file)
    if there and "reports" not in from_file:
        from_file["reports"] = file.parent / "reports"
    if there and "merchants" not in from_file and "merchants" not in overridden:
        beside = file.parent / "merchants.csv"
        if beside.exists() or not Path("merchants.csv").exists():
            from_file["merchants"] = beside

    class _Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            *others: Any,
            **named: Any,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            above = super().settings_customise_sources(settings_cls, init_settings, *others, **named)
            return *above, InitSettingsSource(settings_cls, from_file)

    settings, mistakes = None, list[_Mistake]()
    try:
        settings = _Layered(**given)
    except ValidationError as error:
        mistakes = [
            _mistake(key, why, given, target_named, file if there else None) for key, why in _mistakes(error)
        ]
    unknown = _unknown_variables()
    mistakes = [one for one in mistakes if one.name not in {other.name for other in unknown}] + unknown
    if settings is None or mistakes:
        raise _refused(sorted(mistakes, key=lambda mistake: mistake.line), file)
    origin = Origin(Path(os.path.realpath(file)) if there else None, from_file, overridden, choice)
    settings._origin = origin  # noqa: SLF001  our own model's
    return settings


SECTIONS: dict[str, type[BaseModel]] = {"audit": AuditSettings, "tokens": TokenSettings}


def section_keys() -> list[str]:
    """Return the name of every setting in a section, such as `tokens.url`."""
    return [f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields]


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
    if key == "api_base" and key in options:
        return _Mistake(target_named, why)
    if key.partition(".")[0] in options:
        return _Mistake(key, why)
    if _variable(key) in os.environ or file is None:
        return _Mistake(_variable(key), why)
    if key == "api_base" and not (read_toml(file).get(key)):
        key = "target"
    return _Mistake(key, why, line_of(file, *key.split(".")))


def _refused(mistakes: Sequence[_Mistake], file: Path | None = None) -> SettingsError:
    """Return the error that reports every mistake; for a single one, the fix is a separate sentence."""
    reported = [
        _("{place}: {name}: {why}.", place=f"{file}:{line}", name=name, why=why)
        if line
        else _("{name}: {why}.", name=name, why=why)
        for name, why, line in mistakes
    ]
    if len(mistakes) == 1:
        return SettingsError(reported[0], _("Correct it, then run the same command again."))
    return SettingsError(as_lines([*reported, _("Correct these, then run the same command again.")]))


def _variable(key: str) -> str:
    """Return the variable of a setting: TCB_OPS_TOKENS__URL for `tokens.url`."""
    return PREFIX + key.upper().replace(".", "__")


def _variables(name: str) -> bool:
    """Return whether a variable sets a setting, or a part of it."""
    variable = _variable(name)
    return any(known == variable or known.startswith(f"{variable}__") for known in os.environ)


def _unknown_variables() -> list[_Mistake]:
    """Return a mistake for each unknown TCB_OPS_… variable."""
    keys = ["config", *Settings.model_fields, *section_keys()]
    known = [_variable(key).removeprefix(PREFIX) for key in keys]
    mistakes = []
    for name in sorted(map(str.upper, os.environ)):
        own = name.removeprefix(PREFIX)
        if own == name or own in known or _OTHER_VARIABLES.fullmatch(own):
            continue
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


def _key(wrong: Mapping[str, Any]) -> str:
    """Return the setting that a pydantic error concerns: `confirm_over`, `tokens.source`."""
    named = [str(part) for part in wrong["loc"]]
    if named[0] == "notify":  # notify, 0, kind
        return ".".join(["notify", *named[2:3]])
    return ".".join(named[: 2 if named[0] in SECTIONS else 1])


def _mistakes(error: ValidationError) -> list[tuple[str, Text]]:
    """Return each invalid setting with what is expected of it; pydantic's own messages are not shown."""
    found: dict[str, Text] = {}
    for wrong in error.errors(include_input=False, include_url=False):
        invalid, key = wrong.get("ctx", {}).get("error"), _key(wrong)
        if wrong["type"] == "extra_forbidden":
            found[key] = _unknown(key)
        else:
            found[key] = invalid.text if isinstance(invalid, _InvalidError) else _expected(key)
    return list(found.items())


def _model_of(key: str) -> tuple[type[BaseModel], str]:
    """Return the model of a setting, and the part of its name before its own."""
    section, dot, _name = key.partition(".")
    return ((SECTIONS | {"notify": NotifySettings})[section], f"{section}.") if dot else (Settings, "")


def _unknown(key: str) -> Text:
    """Return the message for an unknown setting, with the most similar name."""
    model, section = _model_of(key)
    # it may be in the wrong section
    places = {key.partition(".")[2]: key for key in section_keys()}
    places |= {name: name for name in Settings.model_fields}
    places |= {name: f"{section}{name}" for name in model.model_fields}
    if near := get_close_matches(key.rpartition(".")[2], places, n=1):
        return _("there is no such setting (did you mean {places}?)", places=places[near[0]])
    names = list(model.model_fields)
    return _("there is no such setting; the names are {names}", names=as_list(names))


_EXPECTED: dict[Any, Text] = {
    bool: _("must be true or false, without quotes"),
    int: _("must be a whole number, 0 or more, without quotes"),
    str: _("must be text in quotes"),
    Path: _("must be a path in quotes"),
    tuple: _('must be a list of texts, e.g. ["a", "b"]'),
    TokenSettings: _("must be a section that begins with [tokens]"),
    AuditSettings: _("must be a section that begins with [audit]"),
}


def _expected(key: str) -> Text:
    """Return what a setting accepts, by its type."""
    model, _other = _model_of(key)
    kind = model.model_fields[key.rpartition(".")[2]].annotation
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


def practise_with(settings: Settings | None) -> None:
    """Set the settings of calls in this process that have none; None restores `load_settings`'s."""
    global _practice  # noqa: PLW0603  per process, like the open panel
    _practice = settings


def is_practising() -> bool:
    """Return whether calls without settings go to the simulator of a practice panel."""
    return _practice is not None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


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
    folder = file.parent
    for name in ("merchants", "reports"):
        if isinstance(found.get(name), str):
            found[name] = folder / found[name]
    if isinstance(found.get("ledger"), str) and "://" not in found["ledger"]:
        found["ledger"] = str(folder / found["ledger"])
    _sections_beside(folder, found)
    return found


def _sections_beside(folder: Path, found: dict[str, Any]) -> None:
    """Resolve the paths of the sections against the settings file's folder."""
    tokens = found.get("tokens")
    if isinstance(tokens, dict):
        _beside(folder, tokens)
    entries = found.get("notify")
    for entry in entries if isinstance(entries, list) else ():
        for name in ("url_file", "secret_file"):
            if isinstance(entry, dict) and isinstance(entry.get(name), str):
                entry[name] = folder / entry[name]
    audit = found.setdefault("audit", {})
    if isinstance(audit, dict) and isinstance(audit.get("known", "known.csv"), str):
        audit["known"] = folder / audit.get("known", "known.csv")


def _beside(folder: Path, tokens: dict[str, Any]) -> None:
    """Resolve the paths of `[tokens]` against the settings file's folder."""
    for name in ("file", "store"):
        if isinstance(tokens.get(name), str):
            tokens[name] = folder / tokens[name]
    for name in ("secret", "ticket"):
        value = tokens.get(name)
        if isinstance(value, str) and value.startswith("file:"):
            tokens[name] = f"file:{folder / value.removeprefix('file:').strip()}"

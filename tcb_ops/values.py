"""Checks the values of settings and fault plans against the annotations of a dataclass; messages are our own.

An annotation may carry a `Text`, which says what is valid, a `Raw`, and rules: functions that take a value of the right
type, and return it as it is kept or raise InvalidValueError. Those of settings are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

import msgspec

from tcb_ops.hooks import PdfHooks, hooks
from tcb_ops.i18n import Joined, Text, _
from tcb_ops.model import SIMULATOR, is_loopback


class InvalidValueError(ValueError):
    """What is expected of a value."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


@dataclass(frozen=True, slots=True)
class Raw:
    """Reads the value of the file, in place of the type's own check; raises ValueError."""

    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Named:
    """The name of a field in the file, where it differs."""

    name: str


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a dataclass takes, from its annotation."""

    field: str
    kind: Any
    """Its type, without `None`."""
    notes: tuple[Any, ...]
    required: bool
    default: Any
    """None if it is made for each object."""

    @property
    def name(self) -> str:
        """The name in the file."""
        return next((note.name for note in self.notes if isinstance(note, Named)), self.field)

    def convert(self, value: object, *, strict: bool) -> Any:
        """Return a value in its type; not strict also from text. Raises InvalidValueError, without the value."""
        raw = next((note for note in self.notes if isinstance(note, Raw)), None)
        try:
            if raw is not None:
                value = raw.read(value)
            else:
                if isinstance(value, str):
                    value.encode()  # a variable with bytes that are not UTF-8 has surrogates
                limits = tuple(note for note in self.notes if isinstance(note, msgspec.Meta))
                kind = Annotated[(self.kind, *limits)] if limits else self.kind
                value = msgspec.convert(value, kind, strict=strict, dec_hook=lambda path, text: path(text))
        except (ValueError, TypeError):
            raise InvalidValueError(self.valid(value)) from None
        for note in self.notes:
            if callable(note):
                value = note(value)
        return value

    def valid(self, value: object = None) -> Text:
        """Return what is valid, with the name that `value` may have meant."""
        if note := next((note for note in self.notes if isinstance(note, Text)), None):
            return note
        if get_origin(self.kind) is Literal or issubclass(get_origin(self.kind) or self.kind, StrEnum):
            choices = [str(choice) for choice in get_args(self.kind) or self.kind if choice]
            listed = Joined(tuple(f'"{choice}"' for choice in choices), _("{one} or {next}", one="", next=""))
            from difflib import get_close_matches

            if near := get_close_matches(str(value), choices, n=1):
                return _("must be {choices} (did you mean “{near}”?)", choices=listed, near=near[0])
            return _("must be {choices}", choices=listed)
        limits = next((note for note in self.notes if isinstance(note, msgspec.Meta)), None)
        if limits is not None and limits.le is not None:
            return _("must be a whole number from {least} to {most}", least=limits.ge, most=limits.le)
        return _VALID[get_origin(self.kind) or self.kind]


_VALID: Mapping[Any, Text] = {
    bool: _("must be true or false, without quotes"),
    int: _("must be a whole number, 0 or more, without quotes"),
    str: _("must be text in quotes"),
    Path: _("must be a path in quotes"),
    tuple: _('must be a list of texts, e.g. ["a", "b"]'),
}


def values_of(model: type) -> Mapping[str, Value]:
    """Return what a dataclass takes, by the names in the file; private and internal fields are left out."""
    return _values_of(model)


@cache
def _values_of(model: type) -> Mapping[str, Value]:
    hints, listed = get_type_hints(model, include_extras=True), {}
    for field in fields(model):
        hint = hints[field.name]
        inner = [part for part in get_args(hint) if part is not type(None)]
        if len(inner) == 1 and type(None) in get_args(hint):
            hint = inner[0]
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        required = field.default is MISSING and field.default_factory is MISSING
        default = None if field.default is MISSING else field.default
        value = Value(field.name, kind, tuple(notes), required, default)
        if not field.name.startswith("_") and field.metadata.get("setting", True):
            listed[value.name] = value
    return listed


def check(
    model: type, given: Mapping[str, Any], unknown: Callable[[str, object], Text], *, strict: bool
) -> tuple[dict[str, Any], dict[str, Text]]:
    """Return what is valid of a dataclass's values, by its fields, and what is wrong with others, by their names.

    `unknown` returns the message for a name that does not exist, from it and its value.
    """
    expected = values_of(model)
    converted: dict[str, Any] = {}
    wrong: dict[str, Text] = {}
    for name, value in given.items():
        if name not in expected:
            wrong[name] = unknown(name, value)
            continue
        try:
            converted[expected[name].field] = expected[name].convert(value, strict=strict)
        except InvalidValueError as error:
            wrong[name] = error.text
    for name, value in expected.items():
        if value.required and name not in given:
            wrong[name] = _("is missing: it {valid}", valid=value.valid())
    return converted, wrong


# --- rules of settings ----------------------------------------------------------------------------------------------


def _matching(pattern: str, rule: Text) -> Callable[[Any], Any]:

    def checked(value: Any) -> Any:
        for item in value if isinstance(value, tuple) else (value,):
            if not re.fullmatch(pattern, str(item), re.DOTALL):
                raise InvalidValueError(rule)
        return value

    return checked


def api_base(value: str) -> str:
    """Check the URL that calls go to; it has no last slash."""
    parts = _url(value)
    if parts is None or "?" in value or not _is_host(parts.hostname or ""):
        rule = _("must be `simulator`, or look like https://api.weixin.qq.com")
        near = _nearest_target(value)
        raise InvalidValueError(_("{rule} (did you mean {near}?)", rule=rule, near=near) if near else rule)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidValueError(
            _("must be https: the URL contains tokens (http is only for a simulator on this machine)")
        )
    return value.rstrip("/")


def _nearest_target(value: str) -> str:
    """Return the target that was probably meant: `simulator`, or a host with its scheme; empty if there is none."""
    from difflib import get_close_matches

    if get_close_matches(value.lower(), [SIMULATOR]):
        return SIMULATOR
    scheme = "http" if is_loopback(value.partition(":")[0]) else "https"
    is_host = re.fullmatch(r"localhost|[\w-]+([.][\w-]+)*:[0-9]+|[\w-]+([.][\w-]+)+", value, re.ASCII)
    return f"{scheme}://{value}" if is_host else ""


def _url(value: str) -> SplitResult | None:
    """Return the parts of a URL of http or https without user, fragment, spaces and control characters; None for others."""
    with suppress(ValueError):
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        if usable and "@" not in parts.netloc and value.isprintable() and not re.search(r"[\s#]", value):
            return parts
    return None


def _is_host(host: str) -> bool:
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return ":" in host or re.fullmatch(r"[0-9A-Za-z._-]+", name) is not None


def timezone(value: str) -> str:
    """Check the name of a time zone."""
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise InvalidValueError(_("must be a time zone such as Asia/Shanghai")) from None
    return value


def token_url(value: str) -> str:
    """Check the URL of a token server."""
    if not value:
        return value
    parts = _url(value)
    if parts is None or not value.isascii():
        raise InvalidValueError(_("must look like https://tokens.example.com/{{appid}}"))
    if "{appid}" not in value.partition("://")[2].partition("/")[2]:
        raise InvalidValueError(
            _(
                "has no {{appid}} after its host, where the appid goes; it must look like "
                "https://tokens.example.com/{{appid}}"
            )
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidValueError(
            _("must be https: its responses contain tokens (http is only for a server on this machine)")
        )
    return value


def pdf(value: bool) -> bool:
    """Check whether PDF reports are installed, if they are asked for."""
    if value and hooks(PdfHooks) is None:
        raise InvalidValueError(_("PDF reports are not installed; remove it"))
    return value


source_hosts = _matching(
    r"(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]+",
    _("must be names of hosts without https:// and path, such as files.example.com or *.example.com"),
)
schedulers = _matching(
    r"tcp://\S+:[0-9]+", _("must be addresses of schedulers, such as tcp://127.0.0.1:8786")
)
header = _matching(
    r"[0-9A-Za-z!#$%&'*+.^_`|~-]+", _("is not the name of a header; one looks like Authorization")
)
report_url = _matching(
    r"(https?://[^\s/]+/\S*\{run\}\S*)?", _("must look like https://reports.example.com/{{run}}/")
)
secret_place = _matching(
    r"((env|file|command):\s*\S.*)?",
    _("must say where the secret is (env:NAME, file:PATH or command:PROGRAM), not contain the secret itself"),
)
without_control_characters = _matching(  # in TOML, "D:\new" contains a line break
    r"[^\x00-\x1f\x7f]*",
    _("contains a control character, such as \\n or \\t; in a path write / in place of each \\"),
)
PathName = Annotated[Path, without_control_characters]


Count = Annotated[int, msgspec.Meta(ge=0)]

"""Checks the values of settings and fault plans against the annotations of a dataclass; messages are our own.

An annotation may carry a `Text`, which says what is valid, a `Raw`, and rules: functions that take a value of the right
type, and return it as it is kept or raise InvalidValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from tcb_ops.i18n import Joined, Text, _


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

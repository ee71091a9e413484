"""Messages in English and Chinese: the English is in the code, the Chinese in locale/zh/LC_MESSAGES/tcb_ops.po.

A message is translated when it is shown, not when it is created: a terminal and a report may differ in language. The names
are gettext's, so that Babel finds the messages (`make messages`); placeholders are those of `str.format`. One for an option, `{--root}` or `{--rows:all}`, is filled by whoever
shows the message: a terminal, Python or a panel.
"""

from __future__ import annotations

import gettext as catalogues
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import cast

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "tcb_ops"


class Lang(StrEnum):
    """The languages of screens and reports."""

    EN = "en"
    ZH = "zh"


class CommandText(str):
    """A command line that a message suggests; screens show it in an element of its own."""

    __slots__ = ()


class Text:
    """A text available in each language."""

    __slots__ = ()

    def commands(self) -> list[CommandText]:
        """Return the command lines within the text."""
        return []

    def of(self, lang: Lang) -> str:
        """Return the text in one language."""
        raise NotImplementedError

    def format(self, **values: object) -> Text:
        """Return the message with further values for its placeholders."""
        raise NotImplementedError

    @property
    def en(self) -> str:
        """The text in English."""
        return self.of(Lang.EN)

    @property
    def zh(self) -> str:
        """The text in Chinese."""
        return self.of(Lang.ZH)

    def __str__(self) -> str:
        return in_python(self, shown_lang())

    def __repr__(self) -> str:
        try:
            return str(self)
        except KeyError:  # a message whose values are still to come
            return object.__repr__(self)


@dataclass(frozen=True, slots=True, repr=False)
class Message(Text):
    """A message of the catalogue, with the values of its placeholders; values that are Texts are translated too."""

    msgid: str
    values: Mapping[str, object] = field(hash=False)
    plural: str = ""
    """For any count `n` except 1; empty without a count."""
    context: str = ""

    def of(self, lang: Lang) -> str:
        """Return the message in one language, or in English if the catalogue lacks it."""
        catalogue = _catalogue(lang)
        if self.plural:
            translated = catalogue.ngettext(self.msgid, self.plural, cast("int", self.values["n"]))
        elif self.context:
            translated = catalogue.pgettext(self.context, self.msgid)
        else:
            translated = catalogue.gettext(self.msgid)
        return _filled(translated, self.values, lang)

    def commands(self) -> list[CommandText]:
        """Return the command lines among the values."""
        return _commands(self.values.values())

    def format(self, **values: object) -> Text:
        """Return the message with further values."""
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True, slots=True, repr=False)
class Bilingual(Text):
    """A text that exists in both languages, and is shown as it is: a message in the ledger."""

    english: str
    chinese: str

    def of(self, lang: Lang) -> str:
        """Return the text in one language."""
        return self.chinese if lang is Lang.ZH else self.english


@dataclass(frozen=True, slots=True, repr=False)
class TableText(Text):
    """A message of a table of this package, such as the action in errcodes.csv; its placeholders are those of a `Message`."""

    english: str
    chinese: str
    values: Mapping[str, object] = field(default_factory=dict, hash=False)

    def of(self, lang: Lang) -> str:
        """Return the text in one language."""
        return _filled(self.chinese if lang is Lang.ZH else self.english, self.values, lang)

    def format(self, **values: object) -> Text:
        """Return the text with further values."""
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True, slots=True, repr=False)
class Joined(Text):
    """Texts joined by a separator."""

    parts: tuple[object, ...]
    between: Text

    def of(self, lang: Lang) -> str:
        """Return the joined parts in one language."""
        return self.between.of(lang).join(str(_shown(part, lang)) for part in self.parts)

    def commands(self) -> list[CommandText]:
        """Return the command lines among the parts."""
        return _commands(self.parts)


COMMANDS: Callable[[], Collection[str]] = tuple
"""Returns the commands that there are; `hooks` says which."""
_NO_COMMANDS: ContextVar[bool] = ContextVar("_NO_COMMANDS", default=False)
_NAMES_IN_PYTHON = {"column": "columns", "map": "file_map", "errcode": "codes", "into": "original"}
"""Parameters whose options have other names."""
_FLAGS = {"foreign", "new-run", "skip-unchanged", "with-data"}


@dataclass(frozen=True, slots=True)
class _Option:
    """An option that a message names: its placeholder, `{--root}`, may have a value: `{--rows:all}`."""

    name: str
    lang: Lang

    def __format__(self, value: str) -> str:
        return _NAME_OPTION.get()(self.name, value, self.lang)


@dataclass(frozen=True, slots=True)
class _Advice:
    """A part of a message that names a command, `{tcb-ops why:ask with `tcb-ops why`, or }`: left out where it is not installed."""

    command: str

    def __format__(self, advice: str) -> str:
        return advice if self.command in COMMANDS() else ""


def _on_terminal(name: str, value: str, _lang: Lang) -> str:
    return f"--{name} {value}" if value else f"--{name}"


def _in_python(name: str, value: str, _lang: Lang) -> str:
    if name == "ledger":  # a setting; no function takes it
        chosen = f'"{value}"' if value else "…"
        return f'load_settings(options={{"ledger": {chosen}}})'
    if name == "config" and value:
        return f"load_settings({value})"
    parameter = _NAMES_IN_PYTHON.get(name, name.replace("-", "_"))
    key, equals, column = value.partition("=")
    if equals:
        return f"{parameter}={ {key: column} }"
    if name in _FLAGS:
        return f"{parameter}=True"
    if value:
        return f"{parameter}={value}" if value == "N" else f"{parameter}={value!r}"
    return parameter


def _in_panel(name: str, value: str, lang: Lang) -> str:
    match name:
        case "root" | "backup" | "new-run":
            return f"“{_FIELDS[name].of(lang)}”"
        case "ledger" | "merchants" | "tokens":
            return _("“{name}” in tcb-ops.toml", name=name).of(lang)
        case "header-row":
            return _("delete the rows above it").of(lang)
        case "column" if value:
            return _("the header “{column}” in the list", column=value.partition("=")[0]).of(lang)
    return _in_python(name, value, lang)


_NAME_OPTION: ContextVar[Callable[[str, str, Lang], str]] = ContextVar("_NAME_OPTION", default=_on_terminal)
"""How the front end that shows a message names an option, from its name and value."""


@contextmanager
def _naming_options(front_end: Callable[[str, str, Lang], str]) -> Iterator[None]:
    before = _NAME_OPTION.set(front_end)
    try:
        yield
    finally:
        _NAME_OPTION.reset(before)


def in_python(text: Text, lang: Lang) -> str:
    """Return a text in one language as Python shows it: with parameters in place of options. Commands in it are as they are.

    ========================  ============================
    placeholder               in Python
    ========================  ============================
    {--root}                  root
    {--new-run}               new_run=True
    {--rows:all}              rows='all'
    {--column:path=云端路径}  columns={'path': '云端路径'}
    {--header-row:N}          header_row=N
    {--root:DIR}              root='DIR'
    {--ledger}                load_settings(options={"ledger": …})
    {--config:FILE}           load_settings(FILE)
    ========================  ============================
    """
    with _naming_options(_in_python):
        return text.of(lang)


def in_panel(text: Text, lang: Lang) -> str:
    """Return a text in one language as a panel shows it: it names the panel's fields, else settings, else parameters."""
    with _naming_options(_in_panel):
        return text.of(lang)


def without_commands(text: Text, lang: Lang) -> str:
    """Return a text in one language whose command lines are left out: a program gets them by themselves."""
    before = _NO_COMMANDS.set(True)
    try:
        return text.of(lang).strip()
    finally:
        _NO_COMMANDS.reset(before)


class _Filled(dict[str, object]):
    """The values of a message; placeholders such as `{--root}` name options."""

    def __init__(self, values: Mapping[str, object], lang: Lang) -> None:
        super().__init__((name, _shown(value, lang)) for name, value in values.items())
        self._lang = lang

    def __missing__(self, name: str) -> _Option | _Advice:
        program, space, command = name.partition(" ")
        if program == "tcb-ops" and space:
            return _Advice(command)
        if not name.startswith("--"):
            raise KeyError(name)
        return _Option(name[2:], self._lang)


def _filled(template: str, values: Mapping[str, object], lang: Lang) -> str:
    return template.format_map(_Filled(values, lang))


def _commands(parts: Iterable[object]) -> list[CommandText]:
    commands = []
    for part in parts:
        if isinstance(part, Text):
            commands += part.commands()
        elif isinstance(part, CommandText):
            commands.append(part)
    return commands


_shown_lang: list[Callable[[], Lang]] = [lambda: Lang.EN]


def shown_lang() -> Lang:
    """Return the language in which Python shows a text that nobody shows in another."""
    return _shown_lang[-1]()


def show_in(lang: Callable[[], Lang]) -> None:
    """Show texts in the language that `lang` returns: settings stand above this module."""
    _shown_lang[:] = [lang]


def N_(msgid: str) -> str:  # noqa: N802  gettext's name for it
    """Mark a message that is translated elsewhere."""
    return msgid


def _(msgid: str, /, **values: object) -> Text:
    """Return a message of the catalogue."""
    return Message(msgid, values)


def ngettext(singular: str, plural: str, n: int, /, **values: object) -> Text:
    """Return a message with a count: `ngettext("{n:,} row", "{n:,} rows", count)`."""
    return Message(singular, {"n": n, **values}, plural)


def pgettext(context: str, msgid: str, /, **values: object) -> Text:
    """Return a message whose English is ambiguous without a context."""
    return Message(msgid, values, context=context)


def as_list(items: Iterable[object], most: int = 0) -> Text:
    """Return names or Texts as a list: `a, b, c`; with `most`, at most so many of them: `a, b and 3 more`."""
    parts = tuple(items)
    if not 0 < most < len(parts):
        return Joined(parts, _COMMA)
    return _("{listed} and {more:,} more", listed=Joined(parts[:most], _COMMA), more=len(parts) - most)


def as_clauses(items: Iterable[object]) -> Text:
    """Return Texts joined as parts of a sentence: `a; b; c`."""
    return Joined(tuple(items), _SEMICOLON)


def as_facts(items: Iterable[object]) -> Text:
    """Return Texts joined as facts about something: `CSV, UTF-8, header in row 2`."""
    return Joined(tuple(items), _FACTS)


def as_sentences(items: Iterable[object]) -> Text:
    """Return Texts joined as sentences."""
    return Joined(tuple(items), _SPACE)


def as_lines(items: Iterable[object]) -> Text:
    """Return Texts on separate lines."""
    return Joined(tuple(items), verbatim("\n"))


def verbatim(text: str) -> Text:
    """Return a text that is the same in each language, such as a command."""
    return Bilingual(text, text)


NOTHING = verbatim("")
_FIELDS = {"root": _("Local files"), "backup": _("Backup folder"), "new-run": _("New run")}
"""The fields of a panel, by their options."""
_COMMA = _("{one}, {next}", one="", next="")
_FACTS = pgettext("facts", "{one}, {next}", one="", next="")
_SEMICOLON = _("{one}; {next}", one="", next="")
_SPACE = _("{one} {next}", one="", next="")


def _shown(value: object, lang: Lang) -> object:
    if isinstance(value, CommandText) and _NO_COMMANDS.get():
        return ""
    # Kinds and outcomes are shown by their label: their names are for the ledger and for options.
    text = getattr(value, "label", value)
    return text.of(lang) if isinstance(text, Text) else value


def terminal_lang(lang: Lang) -> Lang:
    """Return the language that a terminal can show: English where it has no Chinese."""
    try:
        for stream in (sys.stdout, sys.stderr):
            "中".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return Lang.EN
    return lang


def translate_click(lang: Lang) -> None:
    """Set the language of click's own messages and the commands' help, which gettext translates."""
    if isinstance(_catalogue(lang), catalogues.GNUTranslations):
        catalogues.bindtextdomain(DOMAIN, LOCALE)
        catalogues.textdomain(DOMAIN)
    else:
        catalogues.textdomain("messages")  # gettext's default, which has no catalogue


@cache
def _catalogue(lang: Lang) -> catalogues.NullTranslations:
    if lang is not Lang.EN:
        with suppress(OSError, ValueError, LookupError, struct.error):  # missing or damaged: English
            return catalogues.translation(DOMAIN, LOCALE, languages=[lang])
    return catalogues.NullTranslations()

"""What the pages have from the program, in their own language; the switch between languages; search in Chinese.

A page asks for text with a comment on a line of its own: `<!-- generated: commands -->`, the facts of a setting, which the page describes below,
with `<!-- setting: api_base -->`, and a part of another file with `<!-- section: CONTRIBUTING.md#Glossary -->`.
"""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import redirect_stdout
from dataclasses import MISSING, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sphinx.errors import ExtensionError
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

import tcb_ops as tcb
from tcb_ops.catalogue import all_errcodes, all_reasons, all_store_codes
from tcb_ops.cli.main import cli, run
from tcb_ops.features.health.codes import by_itself
from tcb_ops.i18n import Lang
from tcb_ops.run import FOR_USERS
from tcb_ops.settings import Settings, section_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
OTHER = {"en": ("zh", "中文"), "zh": ("en", "English")}


def words(lang: Lang, en: str, zh: str) -> str:
    """Choose a word of a generated page."""
    return zh if lang is Lang.ZH else en


# Commands


def command_names(group: click.Group = cli, before: str = "") -> Iterator[str]:
    """Every command by the words that call it: `upload`, `merchants sync`."""
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from command_names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def commands(lang: Lang) -> str:
    """Each command's own help, in the order of `tcb-ops --help`."""
    parts = [help_of("", lang)]
    parts += [f"## {name}\n\n{help_of(name, lang)}" for name in command_names()]
    return "\n\n".join(parts)


def help_of(name: str, lang: Lang) -> str:
    """A command's help as a terminal of 88 columns shows it: what a page has room for."""
    os.environ |= {"COLUMNS": "88", "LC_ALL": "zh_CN.UTF-8" if lang is Lang.ZH else "C.UTF-8"}
    output = StringIO()
    with redirect_stdout(output):
        run([*name.split(), "--help-all"])
    return f"```text\n{output.getvalue().rstrip()}\n```"


# Settings


def setting(name: str, lang: Lang) -> str:
    """The heading and the facts of a setting: type, default, variable."""
    section, _, key = name.rpartition(".")
    field = {one.name: one for one in fields(section_models().get(section, Settings))}.get(key)
    if field is None:
        raise ExtensionError(f"There is no setting {name}.")
    default = words(lang, "the system's", "随系统") if field.default is MISSING else _toml(field.default)
    variable = f"TCB_OPS_{name.upper().replace('.', '__')}"
    facts = words(
        lang, f"default {default} · variable `{variable}`", f"默认值 {default} · 环境变量 `{variable}`"
    )
    return f"### `{key}`\n\n{facts}"


def _toml(value: Any) -> str:
    if value is True or value is False:
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        return f"`{value}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, tuple) else f'`"{value}"`'


# Codes


def errcodes(lang: Lang) -> str:
    """The platform's errcodes: those of the interface's own page first."""
    heads = (
        words(lang, "Listed on the interface's page", "接口文档列出的"),
        words(lang, "All others", "其他"),
    )
    parts = []
    for head, core in zip(heads, (True, False), strict=True):
        parts.append(f"## {head}")
        parts += [
            _entry(
                f"{entry.code} · {words(lang, entry.name, entry.label.of(lang))}",
                entry.meaning.of(lang),
                entry.action.of(lang),
                by_itself()[entry.decision, entry.scope].of(lang),
                lang,
            )
            for entry in all_errcodes()
            if entry.core is core
        ]
    return "\n\n".join(parts)


def store_codes(lang: Lang) -> str:
    """The store's error codes."""
    return "\n\n".join(
        _entry(
            " · ".join(filter(None, (entry.code, entry.label.of(lang)))),
            entry.meaning.of(lang),
            entry.action.of(lang),
            by_itself()[entry.decision, entry.scope].of(lang),
            lang,
        )
        for entry in all_store_codes()
    )


def _entry(head: str, meaning: str, action: str, by_itself: str, lang: Lang) -> str:
    what, program = words(lang, "What to do", "怎么办"), words(lang, "tcb-ops", "tcb-ops")
    return f"### {head}\n\n{meaning}\n\n* **{what}**: {action}\n* **{program}**: {by_itself}"


def reasons(lang: Lang) -> str:
    """Why a row ended without a code."""
    heads = words(lang, "| reason | meaning | what to do |", "| 原因 | 含义 | 怎么办 |")
    lines = [
        f"| `{name}` | {texts.meaning.of(lang)} | {texts.action.of(lang)} |"
        for name, texts in all_reasons().items()
    ]
    return "\n".join([heads, "|---|---|---|", *lines])


# Architecture


def layers(_lang: Lang) -> str:
    """The layers that import-linter holds, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (found,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "\n".join(
        f"{number}. " + ", ".join(f"`{part.strip().removeprefix('tcb_ops.')}`" for part in layer.split("|"))
        for number, layer in enumerate(found, 1)
    )


# Other files


def section(name: str) -> str:
    """A file of the repository, or the part of it below one heading: `CONTRIBUTING.md#Glossary`.

    Links to files keep their text only: those files are not pages.
    """
    file, _, heading = name.partition("#")
    text = (ROOT / file).read_text(encoding="utf-8")
    if heading:
        found = re.search(
            rf"^(#+) {re.escape(heading.replace('-', ' '))}.*\n(.*?)(?=^\1 |\Z)",
            text,
            re.MULTILINE | re.DOTALL,
        )
        if found is None:
            raise ExtensionError(f"{file} has no heading {heading}.")
        text = found[2]
    else:
        text = text.partition("\n")[2]
    return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text).strip()


# Python


API = (
    (
        ("Lists and merchants", "清单和商户"),
        "read_merchants read_paths check_merchants Merchants Batch",
    ),
    (
        ("Runs", "任务"),
        (
            "links upload confirm undo delete audit retry resume upload_link url call start_links start_upload "
            "start_confirm start_undo start_delete start_audit start_retry start_resume"
        ),
    ),
    (
        ("Results", "结果"),
        "next_steps open_run open_report runs errcodes files prune prune_reports diff history verify explain notify Run RunHandle SavedRun Progress Diff History",
    ),
    (
        ("Shared options, limits, settings and values", "共用参数、限制、设置和值"),
        "TargetOptions ResumeOptions StartOptions RunLimits Settings load_settings DownloadLink Kind Lang Link Merchant Outcome Problem Row Secret Text",
    ),
    (
        ("Errors", "错误"),
        (
            "TcbOpsError UsageError ArgumentError SettingsError InputError RunNotFoundError StoppedError CanaryError "
            "InterruptedRunError RefusedError TokenError TransportError"
        ),
    ),
)
"""The public names in the order of the page; those of features that are not here follow."""


def api(lang: Lang) -> str:
    """The public names with their docstrings."""
    listed = {name for _heads, names in API for name in names.split()}
    others = [name for name in tcb.__all__ if name not in listed]
    sections = [*API, (("Others", "其他"), " ".join(others))] if others else API
    parts = []
    for (en, zh), names in sections:
        parts.append(f"## {words(lang, en, zh)}")
        for name in names.split():
            kind = "autoclass" if isinstance(getattr(tcb, name), type) else "autofunction"
            members = f"\n   :members: {', '.join(FOR_USERS.split())}" if name == "Run" else ""
            parts.append(f"```{{eval-rst}}\n.. {kind}:: tcb_ops.{name}{members}\n```")
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[Lang], str]] = {
    "commands": commands,
    "errcodes": errcodes,
    "store-codes": store_codes,
    "reasons": reasons,
    "layers": layers,
    "api": api,
}


def fill(text: str, lang: Lang) -> str:
    """Replace a page's comments by what they ask for."""

    def replaced(comment: re.Match[str]) -> str:
        kind, name = comment.groups()
        if kind == "setting":
            return setting(name, lang)
        if kind == "section":
            return section(name)
        if name not in GENERATED:
            raise ExtensionError(f"Nothing generates {name}; there are {', '.join(GENERATED)}.")
        return GENERATED[name](lang)

    return re.sub(r"^<!-- (generated|section|setting): (\S+) -->$", replaced, text, flags=re.MULTILINE)


class Search(SearchEnglish):  # type: ignore[misc]  # Sphinx's own class is untyped
    """Index words, numbers (errcodes; Sphinx leaves them out) and pairs of Chinese characters.

    With pairs, no dictionary of words is needed, and any two characters are found.
    """

    js_splitter_code = """
function splitQuery(query) {
  const parts = query.match(/[\\p{L}\\p{N}_]+/gu) || [];
  return parts.flatMap(part => part.match(/\\p{Script=Han}+|\\P{Script=Han}+/gu)).flatMap(part =>
    /\\p{Script=Han}/u.test(part) && part.length > 2
      ? Array.from({length: part.length - 1}, (_, i) => part.slice(i, i + 2))
      : [/^\\d+$/.test(part) ? "n" + part : part]);
}
"""

    def split(self, input: str) -> list[str]:  # noqa: A002  the name is Sphinx's
        """Return the terms of a text, as the function above does for a query."""
        terms = []
        for part in re.findall(r"[\u3400-\u9fff]+|[^\W\u3400-\u9fff]+", input):
            if part[0] >= "\u3400":
                terms += [part[i : i + 2] for i in range(max(1, len(part) - 1))]
            else:
                terms.append(f"n{part}" if part.isdigit() else part)
        return terms


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    languages.update(dict.fromkeys(("en", "zh"), Search))

    def on_source(app: Sphinx, _name: str, source: list[str]) -> None:
        source[0] = fill(source[0], Lang(app.config.language[:2]))

    def on_page(app: Sphinx, _name: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
        context["other_language"], context["other_language_name"] = OTHER[app.config.language[:2]]

    def on_docstring(
        _app: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]
    ) -> None:
        # Docstrings mark code as Markdown does; to Sphinx a backslash in it would be an escape.
        lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?![`_])", r"``\1``", line) for line in lines]

    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("source-read", on_source)
    app.connect("html-page-context", on_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

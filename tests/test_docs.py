"""The READMEs say what is so, and both the same. `python tests/test_docs.py` writes their generated blocks anew."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import tcb_ops as tcb
from tcb_ops.cli.main import cli
from tcb_ops.errcodes import all_errcodes, errcode_table
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome
from tcb_ops.reports import annotate_workbook as into
from tcb_ops.reports import summary
from tcb_ops.reports.formats import html as page
from tcb_ops.reports.formats import xlsx as workbook
from tcb_ops.settings import Settings, TokenSettings
from tcb_ops.wechat.tokens import service
from tcb_ops.wechat.tokens.command import COMMAND_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
READMES = {Lang.EN: ROOT / "README.md", Lang.ZH: ROOT / "README.zh-CN.md"}
OTHER_PROGRAMS = {"--appid", "--check"}
"""Options of programs that the READMEs show beside ours."""


BOUNDS = {
    "service": (service.TIMEOUTS.connect + service.TIMEOUTS.answer, service.LARGEST_ANSWER // 1024),
    "command": (COMMAND_SECONDS,),
    "The report folder": (
        page.CAUSES,
        summary.MATRIX_MERCHANTS,
        summary.MATRIX_CODES,
        page.DETAILED,
        page.LISTED,
        workbook.MOST_ROWS,
    ),
    "Back to colleagues": (into.MOST_COPIES,),
}
"""Numbers of the code that a section states, by its English title."""


def help_text() -> str:
    with cli.make_context(
        "tcb-ops", [], max_content_width=100, terminal_width=100, resilient_parsing=True
    ) as context:
        return f"```\n{cli.get_help(context)}\n```"


def blocks(lang: Lang) -> dict[str, str]:
    return {"help": help_text(), "errcodes": errcode_table(lang).strip()}


@dataclass(slots=True)
class Section:
    level: int
    title: str
    prose: list[str] = field(default_factory=list)
    code: list[list[str]] = field(default_factory=list)
    """Every fenced block: its opening line, then its lines without the indent of a list."""

    def names(self) -> set[str]:
        """What stands in backticks: commands, options, settings, files, values."""
        return set(re.findall(r"`([^`]+)`", "\n".join(self.prose)))

    def first_cells(self) -> list[str]:
        """The first column of its tables."""
        return [line.split("|")[1].strip() for line in self.prose if line.startswith("|")]

    def marks(self) -> list[str]:
        """Items and table rows, and the pictures whatever their language, in order."""
        return re.findall(
            r"^ *(?:\*|\d+\.) |^\||!\[[^\]]+\]\((.+?)(?:-zh)?\.png\)", "\n".join(self.prose), re.MULTILINE
        )


def sections(page: str) -> list[Section]:
    found: list[Section] = []
    fence = None
    for line in page.splitlines():
        opened = re.match(r"( *)```", line)
        heading = re.match(r"(#+) (.+)", line)
        if fence is not None and opened:
            fence = None
        elif fence is not None:
            found[-1].code[-1].append(line.removeprefix(fence))
        elif opened:
            fence = opened[1]
            found[-1].code.append([line.strip()])
        elif heading:
            found.append(Section(len(heading[1]), heading[2]))
        elif line:
            found[-1].prose.append(line)
    return found


def without_comments(block: list[str]) -> list[str]:
    return [re.sub(r"(^|\s+)# .*", "", line).rstrip() for line in block]


def anchor(title: str) -> str:
    """The fragment that leads to a heading where the page is shown."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


TEXTS = {lang: file.read_text(encoding="utf-8") for lang, file in READMES.items()}
ENGLISH, CHINESE = (sections(text) for text in TEXTS.values())
PAIRS = list(zip(ENGLISH, CHINESE, strict=False))

both = pytest.mark.parametrize("lang", READMES, ids=str)
each_section = pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[e.title for e, _ in PAIRS])


def section(lang: Lang, title: str) -> Section:
    """The section that stands where the English README has `title`."""
    place = [each.title for each in ENGLISH].index(title)
    return (ENGLISH if lang is Lang.EN else CHINESE)[place]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that call it: `upload`, `merchants sync`."""
    for name, command in cli.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", sub) for below, sub in command.commands.items())


@both
def test_generated_blocks_are_what_the_program_says(lang: Lang):
    for name, current in blocks(lang).items():
        block = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", TEXTS[lang], re.DOTALL)
        assert block is not None, name
        assert block[1] == current, f"run: python tests/test_docs.py   ({name})"


@both
def test_every_errcode_of_the_catalogue_is_there(lang: Lang):
    there = section(lang, "Errcodes").first_cells()
    assert [entry.code for entry in all_errcodes() if str(entry.code) not in there] == []


@both
def test_every_option_that_is_named_exists(lang: Lang):
    options = {opt for _, command in commands() for param in command.params for opt in param.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXTS[lang]))
    assert named - options - OTHER_PROGRAMS <= {"--version", "--help"}


@both
def test_tables_of_settings_outcomes_and_exit_codes_are_complete(lang: Lang):
    _, _, *settings = section(lang, "Settings").first_cells()
    assert settings == [f"`{name}`" for name in Settings.model_fields if name != "tokens"]
    assert all(f"{name} = " in TEXTS[lang] for name in TokenSettings.model_fields)
    outcomes = " ".join(section(lang, "Outcomes").first_cells())
    assert set(re.findall(r"`(\w+)`", outcomes)) == set(Outcome)
    codes = " ".join(section(lang, "Exit codes").first_cells())
    assert re.findall(r"\d+", codes) == ["0", "1", "2", "3", "130", "143"]


@both
@pytest.mark.parametrize("title", BOUNDS)
def test_bounds_are_those_of_the_code(title: str, lang: Lang):
    stated = {
        number.replace(",", "") for number in re.findall(r"[\d,]*\d", "\n".join(section(lang, title).prose))
    }
    assert {f"{bound:g}" for bound in BOUNDS[title]} <= stated


@both
def test_every_command_is_shown_at_work(lang: Lang):
    shown = re.sub(r"<!-- help -->.*<!-- /help -->", "", TEXTS[lang], flags=re.DOTALL)
    assert [name for name, _ in commands() if not re.search(rf"tcb-ops {name}\b|`{name}[ `]", shown)] == []


def test_every_command_and_option_has_help():
    for name, command in commands():
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", "") or param.param_type_name == "argument", f"{name} {param.name}"


@both
def test_every_link_and_picture_leads_somewhere(lang: Lang):
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXTS[lang])
    there = {f"#{anchor(each.title)}" for each in sections(TEXTS[lang])}
    assert {t for t in targets if t.startswith("#")} <= there
    files = [t.partition("#")[0] for t in targets if not t.startswith(("#", "https://"))]
    assert [t for t in files if not (ROOT / t).exists()] == []
    assert "![](" not in TEXTS[lang], "a picture needs a text that says what it shows"


@both
def test_the_contents_lead_to_every_section_in_order(lang: Lang):
    title, *rest = sections(TEXTS[lang])
    assert re.findall(r"\]\(#([^)]+)\)", "\n".join(title.prose)) == [anchor(each.title) for each in rest]


def test_the_readmes_lead_to_one_another():
    assert READMES[Lang.ZH].name in ENGLISH[0].prose[0]
    assert READMES[Lang.EN].name in CHINESE[0].prose[0]


def test_both_readmes_have_the_same_sections():
    assert [each.level for each in ENGLISH] == [each.level for each in CHINESE]


@each_section
def test_both_readmes_have_the_same_code_save_for_its_comments(english: Section, chinese: Section):
    assert len(english.code) == len(chinese.code)
    for ours, theirs in zip(english.code, chinese.code, strict=True):
        if ours[0] == theirs[0] == "```text":  # a drawing: its words may differ, its parts may not
            assert re.findall(r"\w+/", " ".join(ours)) == re.findall(r"\w+/", " ".join(theirs))
        else:
            assert without_comments(ours) == without_comments(theirs)


@each_section
def test_both_readmes_have_the_same_items_tables_and_pictures(english: Section, chinese: Section):
    assert english.marks() == chinese.marks()


@each_section
def test_both_readmes_name_the_same_commands_options_settings_and_files(english: Section, chinese: Section):
    if english.title != "Errcodes":  # generated, from a catalogue that names things in both languages
        assert english.names() == chinese.names()


def test_type_checkers_and_python_have_the_same_public_names():
    tree = ast.parse(Path(tcb.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        (line.module, name.name)
        for line in typed.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    assert imported == {(f"tcb_ops.{module}", name) for name, module in tcb._MODULE_OF.items()}


def test_public_names_are_there_and_used_as_they_are():
    assert sorted(tcb.__all__) == tcb.__all__
    assert all(hasattr(tcb, name) for name in tcb.__all__)
    for text in TEXTS.values():
        assert set(re.findall(r"\btcb\.([a-z_]+)\(", text)) <= set(tcb.__all__)


def test_constraints_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+==[a-zA-Z0-9.+!_-]+( ; .+)?", line), line
        assert "://" not in line


if __name__ == "__main__":
    for language, text in TEXTS.items():
        for name, current in blocks(language).items():
            text = re.sub(  # noqa: PLW2901  block after block
                rf"<!-- {name} -->\n.*?<!-- /{name} -->",
                lambda _, name=name, current=current: f"<!-- {name} -->\n{current}\n<!-- /{name} -->",
                text,
                flags=re.DOTALL,
            )
        READMES[language].write_text(text, encoding="utf-8")

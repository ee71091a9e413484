"""READMEs and documentation say what is so, in both languages alike. `UPDATE_DOCS=1` writes the present outputs into them."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import guards
import pytest
import simulated_runs
from doc_pages import ROOT, RUN_ID, agrees, blocks, commands, commands_in, play, rewrite
from simulated_world import scenario_of

import tcb_ops as tcb
from tcb_ops.cli.main import cli
from tcb_ops.features.tokens import sources as token_sources
from tcb_ops.features.workbooks import annotate as annotate_workbook
from tcb_ops.features.workbooks import report as report_workbook
from tcb_ops.hooks import features
from tcb_ops.model import Outcome
from tcb_ops.programs import COMMAND_SECONDS
from tcb_ops.reports import charts
from tcb_ops.reports.formats import html
from tcb_ops.settings import setting_values

pytestmark = pytest.mark.needs  # the pages tell of every feature

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
ENGLISH = sorted((DOCS / "en").rglob("*.md"))
PAIRS = [READMES, *((page, DOCS / "zh" / page.relative_to(DOCS / "en")) for page in ENGLISH)]
IN_ENGLISH = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks/README.md",
    ROOT / "benchmarks/NOTES.md",
    DOCS / "decisions.md",
    DOCS / "tour.md",
]
ALL = [*(page for pair in PAIRS for page in pair), *IN_ENGLISH]
SHORT = {"CHANGELOG.md": 8_000, "CONTRIBUTING.md": 9_200, "docs/decisions.md": 25_000}
"""The most bytes of pages that grow when each change appends to them."""
ENGLISH_ONLY = {
    "contributing/decisions.md",
    "contributing/benchmarks.md",
    "contributing/testing.md",
    "contributing/tour.md",
}
"""Pages that show a part of an English file."""
OTHER_PROGRAMS = {
    "--appid",
    "--check",
    "--collector",
    "--env",
    "--file",
    "--files",
    "--format",
    "--home-dir",
    "--host",
    "--hostname",
    "--no-cache-dir",
    "--no-create-home",
    "--no-nanny",
    "--nthreads",
    "--nworkers",
    "--protocol",
    "--quick",
    "--read-only",
    "--rm",
    "--shell",
    "--states",
    "--system",
    "--tag",
    "--tmpfs",
    "--user",
    "--username",
    "--volume",
}
"""Options of programs that the pages show beside ours."""
NEITHER_RUN_NOR_PARSED = {
    "python -m pip install": "installs packages",
    "pipx install": "installs packages",
    "uv tool install": "installs packages",
    "uv venv": "makes an environment",
    "uv pip install": "installs packages",
    "bash .ci/run": "installs packages",
    "pip-audit": "needs a network",
    "python -m pytest": "these tests",
    "python token_server.py PORT": "the page runs it with a port",
    "python -c pass": "what start-up is compared with",
}
"""Beginnings of commands that sentences name, each with the reason."""
BOUNDS = {
    "howto/tokens-service.md": (
        token_sources.TIMEOUTS.connect + token_sources.TIMEOUTS.answer,
        token_sources.LARGEST_ANSWER // 1024,
    ),
    "howto/tokens-command.md": (COMMAND_SECONDS,),
    "reference/files.md": (
        html.CAUSES,
        charts.MATRIX_MERCHANTS,
        charts.MATRIX_CODES,
        html.DETAILED,
        html.LISTED,
        report_workbook.MOST_ROWS,
    ),
    "howto/colleagues.md": (annotate_workbook.MOST_COPIES,),
    "explanation/testing.md": (
        simulated_runs.SOME,
        scenario_of(0).rows,
        simulated_runs.MOST_SESSIONS,
        len(guards.GUARDS),
    ),
}
"""Numbers of the code that a page states."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", [page for pair in PAIRS for page in pair], ids=name_of)
all_pages = pytest.mark.parametrize("page", ALL, ids=name_of)
pairs = pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[name_of(english) for english, _ in PAIRS])
languages = pytest.mark.parametrize("lang", ["en", "zh"])


@dataclass(slots=True)
class Page:
    """A page taken apart."""

    text: str
    headings: list[tuple[int, str]] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    code: list[list[str]] = field(default_factory=list)
    """Every fenced block: its opening line, then its lines."""

    @property
    def names(self) -> set[str]:
        """What stands in backticks: commands, options, settings, files, values."""
        return set(re.findall(r"`([^`]+)`", "\n".join(self.prose)))

    @property
    def anchors(self) -> set[str]:
        """The fragments that lead to the headings, on the site and on GitHub."""
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for _, title in self.headings}

    @property
    def marks(self) -> list[str]:
        """Items, table rows and comments, in order, and the pictures whatever their language."""
        found = r"^ *(?:\*|\d+\.) |^\||^<!-- (?:file|generated|section|setting): .*-->$|!\[[^\]]+\]\((.+?)(?:-zh)?\.png\)"
        return re.findall(found, "\n".join(self.prose), re.MULTILINE)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", "\n".join(self.prose))

    def first_cells(self) -> list[str]:
        """The first column of its tables."""
        return [line.split("|")[1].strip() for line in self.prose if line.startswith("|")]


@cache
def read(page: Path) -> Page:
    found = Page(page.read_text(encoding="utf-8"))
    fence = None
    for line in found.text.splitlines():
        opened = re.match(r" *```", line)
        heading = re.match(r"(#+) (.+)", line)
        if fence is not None and opened:
            fence = None
        elif fence is not None:
            found.code[-1].append(line)
        elif opened:
            fence = opened[0]
            found.code.append([line.strip()])
        elif heading:
            found.headings.append((len(heading[1]), heading[2]))
            found.prose.append(heading[2])
        elif line:
            found.prose.append(line)
    return found


def without_comments(block: list[str]) -> list[str]:
    return [re.sub(r"(^|\s+)# .*", "", line).rstrip() for line in block]


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that call it: `upload`, `merchants sync`."""
    for name, command in cli.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", sub) for below, sub in command.commands.items())


@pytest.mark.slow
@all_pages
def test_a_page_shows_what_happens(page: Path, tmp_path: Path):
    different = play(page, tmp_path, "zh" if "zh" in name_of(page) else "en")
    if os.environ.get("UPDATE_DOCS"):
        rewrite(page, different)
        return
    told = "\n".join("\n".join([f"$ {each.what}", *each.actual]) for each in different)
    assert not different, f"not what {name_of(page)} shows; UPDATE_DOCS=1 writes it there:\n{told}"


@pytest.mark.parametrize(
    ("shown", "actual", "same"),
    [
        pytest.param("2 rows succeeded", "2 rows succeeded", True, id="the same"),
        pytest.param("2 rows succeeded", "3 rows succeeded", False, id="another number"),
        pytest.param("a\n…\nd", "a\nb\nc\nd", True, id="lines left out"),
        pytest.param("a\n…\nd", "b\nc\nd", False, id="lines left out, another beginning"),
        pytest.param("run 20261126-013924-1009", "run 20261127-020710-1ccf", True, id="another run"),
        pytest.param("(5.1 s; SIMULATED)", "(12.0 s; SIMULATED)", True, id="another duration"),
        pytest.param("at http://127.0.0.1:8765", "at http://127.0.0.1:41234", True, id="another port"),
        pytest.param("one two", "one\n  two", True, id="another width"),
        pytest.param("22 refused", "20 refused", True, id="a breaker opened sooner"),
        pytest.param("2 refused", "3 refused", False, id="other outcomes"),
    ],
)
def test_an_output_agrees_with_the_one_shown_but_for_what_varies(shown: str, actual: str, *, same: bool):
    assert agrees(shown.splitlines(), actual.splitlines()) is same


def refusal_of(command: str) -> str | None:
    """Return why a command that a sentence names cannot be typed so; None if it can. Nothing is run but `--help`."""
    words = shlex.split(command.replace("COMMAND", "upload"))
    if words[0] == "tcb-ops":
        rest = words[1:]
        try:
            with cli.make_context("tcb-ops", rest) as above:
                _, below, rest = cli.resolve_command(above, [*above._protected_args, *above.args])
                while isinstance(below, click.Group):
                    _, below, rest = below.resolve_command(above, rest)
                below.make_context(below.name, rest, parent=above)
        except click.exceptions.Exit:  # --help
            return None
        except click.UsageError as refusal:
            named_alone = isinstance(refusal, click.MissingParameter) and not rest
            return None if named_alone else refusal.format_message()
        return None
    if words[0] == "make":
        targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        named = {word for word in words[1:] if "=" not in word}
        return None if targets is not None and named <= set(targets[1].split()) else "no such target"
    if words[0] == "python" and (ROOT / words[1]).is_file():
        asked = [sys.executable, *words[1:], "--help"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        return done.stderr if done.returncode else None
    return "neither run nor parsed, and no reason given"


@all_pages
def test_a_command_in_a_sentence_can_be_typed_as_it_stands_there(page: Path):
    excused = "|".join(map(re.escape, NEITHER_RUN_NOR_PARSED))
    named = {re.sub(r"^(\w+=\S* )*(\S*/(?=\w+ ))?", "", each) for each in commands_in(read(page).text)}
    asked = {each: refusal_of(each) for each in named if not re.match(excused, each)}
    assert {each: refusal for each, refusal in asked.items() if refusal is not None} == {}


@pytest.mark.parametrize(
    "command", ["tcb-ops upload --nope", "tcb-ops nope x", "make nope", "curl x", "python tests/x.py"]
)
def test_a_command_that_cannot_be_typed_is_noticed(command: str):
    assert commands_in(f"Type `{command}`.") == [command]
    assert refusal_of(command) is not None


@pytest.mark.parametrize(
    "block",
    [
        "```sh\nmake\n```",
        "```text\ntcb-ops runs\n```",
        "```text\n$ ls\n```",
        "```\npython benchmarks/run.py\n```",
    ],
)
def test_a_block_that_shows_commands_is_run_or_says_why_not(block: str):
    with pytest.raises(AssertionError, match="run"):
        blocks(block)
    assert blocks(f"<!-- not run: needs a network -->\n{block}") == []


def test_both_languages_have_the_same_pages():
    chinese = {page.relative_to(DOCS / "zh") for page in (DOCS / "zh").rglob("*.md")}
    assert chinese == {page.relative_to(DOCS / "en") for page in ENGLISH}


@pairs
def test_both_languages_have_the_same_headings_items_tables_and_pictures(english: Path, chinese: Path):
    if not any(name_of(english).endswith(name) for name in ENGLISH_ONLY | {"contributing/glossary.md"}):
        assert [level for level, _ in read(english).headings] == [
            level for level, _ in read(chinese).headings
        ]
        assert read(english).marks == read(chinese).marks


@pairs
def test_both_languages_name_the_same_commands_options_settings_and_files(english: Path, chinese: Path):
    if not any(name_of(english).endswith(name) for name in ENGLISH_ONLY | {"contributing/glossary.md"}):
        assert read(english).names == read(chinese).names


@pairs
def test_both_languages_have_the_same_code_but_for_comments_and_outputs(english: Path, chinese: Path):
    if any(name_of(english).endswith(name) for name in ENGLISH_ONLY | {"index.md"}):
        return
    ours, theirs = ([b for b in blocks(read(page).text) if b.kind != "text"] for page in (english, chinese))
    ours, theirs = (
        [[c.line for c in commands(b)] if b.kind == "console" else without_comments(b.lines) for b in each]
        for each in (ours, theirs)
    )
    varying = rf'"(en|zh)"|{RUN_ID}'
    assert [re.sub(varying, "", str(each)) for each in ours] == [
        re.sub(varying, "", str(each)) for each in theirs
    ]


@pages
def test_every_link_and_picture_leads_somewhere(page: Path):
    for link in read(page).links:
        if link.startswith("https://"):
            continue
        target, _, fragment = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), link
        if fragment:
            assert fragment in read(there).anchors, link
    assert "![](" not in read(page).text, "a picture needs a text that says what it shows"


def test_every_picture_is_small_and_shown_in_both_languages():
    from screens import LARGEST, SHOTS  # loads a browser's library

    pictures = {file.relative_to(DOCS).as_posix(): file for file in (DOCS / "screens").rglob("*.png")}
    assert [name for name, file in pictures.items() if file.stat().st_size > LARGEST] == []
    assert {f"screens/panels/{shot.name}.png" for shot in SHOTS} <= set(pictures)
    shown = {
        lang: {
            (page.parent / link).resolve().relative_to(DOCS).as_posix()
            for page in (DOCS / lang).rglob("*.md")
            for link in read(page).links
            if link.endswith(".png")
        }
        for lang in ("en", "zh")
    }
    panels = {name for name in pictures if "/panels/" in name}
    assert panels <= shown["en"] & shown["zh"]
    assert set(pictures) == shown["en"] | shown["zh"]


@pages
def test_every_option_that_is_named_exists(page: Path):
    options = {opt for _, command in all_commands() for param in command.params for opt in param.opts}
    prose = "\n".join([*read(page).prose, *(line for block in read(page).code for line in block)])
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose))
    assert named - options - OTHER_PROGRAMS <= {"--version", "--help"}


@languages
def test_every_command_is_shown_at_work(lang: str):
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / lang).rglob("*.md"))
    assert [
        name for name, _ in all_commands() if not re.search(rf"tcb-ops {name}\b|`{name}[ `]", shown)
    ] == []


@pytest.mark.parametrize(("page", "most"), SHORT.items())
def test_a_page_that_is_edited_and_not_appended_to_stays_short(page: str, most: int):
    assert len((ROOT / page).read_bytes()) <= most


def test_what_the_tour_names_is_in_the_code():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tcb_ops").rglob("*.py"))
    named = set(
        re.findall(r"`(?:[A-Z]\w+\.)?(\w+)(?:\([^`]*\))?`", (DOCS / "tour.md").read_text(encoding="utf-8"))
    )
    assert len(named) > 50
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()


@languages
def test_tables_of_settings_outcomes_and_exit_codes_are_complete(lang: str):
    described = re.findall(r"<!-- setting: (\S+) -->", read(DOCS / lang / "reference/settings.md").text)
    assert described == list(setting_values())
    cells = " ".join(read(DOCS / lang / "reference/outcomes.md").first_cells())
    tables = " ".join(
        cell for page in (DOCS / lang / "howto").glob("*.md") for cell in read(page).first_cells()
    )
    assert set(re.findall(r"`([a-z_]+)`", cells)) <= set(Outcome.all())
    for outcome in Outcome.all():
        assert f"`{outcome}`" in cells + tables, (
            f"a row for `{outcome}` in the table of its command's page in docs/{lang}/howto"
        )
    assert re.findall(r"\b\d+\b", cells) == ["0", "1", "2", "3", "130", "143"]


@languages
@pytest.mark.parametrize("page", BOUNDS)
def test_bounds_are_those_of_the_code(page: str, lang: str):
    text = "\n".join(read(DOCS / lang / page).prose)
    stated = {number.replace(",", "") for number in re.findall(r"[\d,]*\d", text)}
    assert {f"{bound:g}" for bound in BOUNDS[page]} <= stated


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_the_readme_is_short_and_begins_with_the_commands_for_a_fresh_machine(readme: Path):
    text = read(readme).text
    assert len(text.encode()) <= 8_192
    assert text.index("make demo") < text.index("make test") < 2_000


def test_the_readmes_lead_to_one_another():
    assert READMES[1].name in read(READMES[0]).links
    assert READMES[0].name in read(READMES[1]).links


def test_every_command_and_option_has_help():
    for name, command in all_commands():
        assert command.help, name
        for param in command.params:
            assert getattr(param, "help", "") or param.param_type_name == "argument", f"{name} {param.name}"


def test_type_checkers_know_the_public_names_of_the_core_and_all_or_none_of_a_feature():
    tree = ast.parse(Path(tcb.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        f"{line.module}:{name.name}"
        for line in typed.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    core = {each for each in imported if ".features." not in each}
    assert core == {f"{module}:{name}" for name, module in tcb._MODULE_OF.items()}
    for name, feature in features().items():
        known = {each for each in imported if each.startswith(f"tcb_ops.features.{name}.")}
        assert known in (set(), set(feature.public)), f"the imports in tcb_ops/__init__.py, feature {name}"


def test_public_names_are_there_and_used_as_they_are():
    assert sorted(tcb.__all__) == tcb.__all__
    assert all(hasattr(tcb, name) for name in tcb.__all__)
    for page in (page for pair in PAIRS for page in pair):
        assert set(re.findall(r"\btcb\.([a-z_]+)\(", read(page).text)) <= set(tcb.__all__)


def test_constraints_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+==[a-zA-Z0-9.+!_-]+( ; .+)?", line), line
        assert "://" not in line

"""Messages: each has its Chinese, with the same placeholders; counts and their nouns agree; both languages of one message."""

import ast
import re
from string import Formatter

import pytest
from messages import PACKAGE, PO, compiled, extracted, translated

from tcb_ops import i18n
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.hooks import features
from tcb_ops.i18n import Lang, _, as_facts, as_list, as_sentences, in_python, ngettext, pgettext
from tcb_ops.model import SIMULATOR, Outcome, target_name

HAN = re.compile("[\u4e00-\u9fff]")
WITH_CHINESE = {
    "signals.py",  # before anything is imported
    "cli/console.py",  # a character to try
    "formatting.py",  # characters that take two columns, quotation marks
    "i18n.py",  # a character to try
    "lists/merchants.py",  # values that a merchants file may have
    "lists/input_files.py",
    "lists/table.py",  # headers that are recognised
    "features/health/audit_result.py",  # headers of known.csv
    "features/health/merchants_sync.py",  # a header
    "reports/formats/terminal.py",
    "features/simulator/platform.py",  # what WeChat answers
}
"""Files whose Chinese is data."""
NAMES = re.compile("演练|已截断|小程序云开发管理|云端路径|素材|旧/")
"""What English messages have, too: marks, names on WeChat's consoles, examples."""


def placeholders(text):
    named = {name for _text, name, _spec, _conversion in Formatter().parse(text) if name is not None}
    return named | set(re.findall(r"%\(\w+\)s", text))


@pytest.mark.needs
@pytest.mark.posix("checkout")
def test_the_catalogue_has_every_message_and_no_other():
    needed = {(message.context, message.id) for message in extracted() if message.id}
    kept = {(message.context, message.id) for message in translated() if message.id}
    assert (needed - kept, kept - needed) == (set(), set()), "run `make messages`, then translate"


def test_every_message_is_translated():
    strings = {
        message.id: message.string if message.pluralizable else (message.string,)
        for message in translated()
        if message.id
    }
    assert [msgid for msgid, zh in strings.items() if not all(zh)] == []
    assert not any(message.fuzzy for message in translated() if message.id)


def test_a_translation_has_the_placeholders_of_its_message():
    different = []
    for message in translated():
        if message.id:
            shown, zh = (
                (message.id[1], message.string[0]) if message.pluralizable else (message.id, message.string)
            )
            if placeholders(shown) != placeholders(zh):
                different.append(message.id)
    assert different == []


def test_a_message_names_an_option_by_its_placeholder():
    """So that Python and panels name what they have; the command line's help, and commands in backticks, are as they stand."""
    of_code = [
        text
        for message in extracted()
        if any(file.startswith("tcb_ops/") for file, _line in message.locations)
        for text in (message.id if message.pluralizable else [message.id])
    ]
    assert len(of_code) > 500
    named = [text for text in of_code if re.search(r"(?<![{`\w-])--[a-z]", re.sub("`[^`]*`", "", text))]
    assert sorted(named) == ["More: --help-all"]


@pytest.mark.needs("health")
def test_a_text_names_a_command_of_another_feature_only_where_it_is_installed():
    """`{tcb-ops why:…}` is left out without it; everything else that is advised exists wherever the advice does."""
    texts = [
        (file.removeprefix("tcb_ops/"), text)
        for message in extracted()
        for file, _line in message.locations
        for text in (message.id if message.pluralizable else [message.id])
    ]
    texts += [
        (str(file.relative_to(PACKAGE)), file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.csv")
    ]
    owners = {
        command.rpartition(":")[2].rstrip("_"): f"features/{name}/"
        for name, feature in features().items()
        for commands in feature.commands.values()
        for command in commands
    }
    assert owners["why"] == "features/health/"
    wrong = []
    for file, text in texts:
        bare = re.sub(r"\{tcb-ops (?:[^{}]|\{\w+\})*\}", "", text)
        named = [command for command in re.findall(r"tcb-ops ([a-z]+)", bare) if command in owners]
        wrong += [(file, command) for command in named if not file.startswith(owners[command])]
    assert [each for each in wrong if not each[0].startswith("--help")] == []


def test_the_compiled_catalogue_is_that_of_the_texts():
    assert PO.with_suffix(".mo").read_bytes() == compiled(translated()), "run `make messages`"


@pytest.mark.slow
def test_no_code_has_chinese_of_its_own():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if str(file.relative_to(PACKAGE)) in WITH_CHINESE:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            f"{file.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
            and HAN.search(NAMES.sub("", node.value))
        ]
    assert found == []


@pytest.mark.parametrize(
    ("count", "en", "zh"),
    [(0, "0 rows", "0 行"), (1, "1 row", "1 行"), (2, "2 rows", "2 行"), (1204, "1,204 rows", "1,204 行")],
)
def test_a_noun_agrees_with_its_number(count, en, zh):
    rows = ngettext("{n:,} row", "{n:,} rows", count)
    assert (rows.en, rows.zh) == (en, zh)


def test_a_message_that_writes_a_noun_after_a_number_counts_it():
    nouns = "attempt|byte|call|cell|character|check|code|column|environment|error|file|line|link|merchant|package|problem|row|run|time|token|value|warning"
    never_one = "merchants|codes|columns|seen|total|bytes|cells|width|many|most|longest_token|most_copies|rows|nargs|n"
    counted = re.compile(
        rf"\{{(?!(?:{never_one})\b)\w+(?::,)?\}} (?:(?:more|live|other|valid|pending) )*(?:{nouns})s\b(?!/)"
    )
    own = [message for message in translated() if message.id and not message.pluralizable]
    assert [message.id for message in own if counted.search(message.id)] == []


def test_one_message_is_shown_in_each_language_with_what_it_holds():
    listed = as_list(["a", "b", "c", "d"], most=2)
    assert (listed.en, listed.zh) == ("a, b and 2 more", "a, b 和另外 2 个".replace(", ", "、"))
    facts = as_facts([ngettext("{n:,} merchant", "{n:,} merchants", 2), "{}"])
    assert (facts.en, facts.zh) == ("2 merchants, {}", "2 个商户，{}")
    sentences = as_sentences([_("Nothing matches."), _("Nothing matches.")])
    assert (str(sentences), sentences.of(Lang.ZH)) == (
        "Nothing matches. Nothing matches.",
        "没有匹配的内容。没有匹配的内容。",
    )


def test_kinds_outcomes_and_the_simulator_are_called_by_their_names_in_each_language():
    said = _(
        "{kind}, {outcome}, {target}", kind=UPLOAD, outcome=Outcome.REFUSED, target=target_name(SIMULATOR)
    )
    assert (said.en, said.zh) == ("upload, refused, the simulator", "上传, 被拒绝, 模拟器")
    assert target_name("https://api.example").zh == "https://api.example"


def test_a_context_tells_messages_with_the_same_english_apart():
    assert _("finished").zh != pgettext("state", "finished").zh


def test_without_its_catalogue_a_message_is_in_english(monkeypatch, tmp_path):
    monkeypatch.setattr(i18n, "LOCALE", tmp_path)
    i18n._catalogue.cache_clear()
    try:
        assert ngettext("{n:,} row", "{n:,} rows", 2).zh == "2 rows"
    finally:
        i18n._catalogue.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (_("{--ledger}"), 'load_settings(options={"ledger": …})'),
        (
            _("{--ledger:postgresql+psycopg://…}"),
            'load_settings(options={"ledger": "postgresql+psycopg://…"})',
        ),
        (_("{--config:FILE}"), "load_settings(FILE)"),
        (_("{--cluster:local:N}"), "cluster='local:N'"),
        (_("{--new-run}"), "new_run=True"),
        (_("{--rows:all}"), "rows='all'"),
        (_("{--header-row:N}"), "header_row=N"),
    ],
)
def test_a_message_names_what_python_takes(text, shown):
    """The ledger is a setting: a function has no parameter of that name."""
    assert in_python(text, Lang.EN) == shown

"""What users and readers of the code read is plain English: these words and phrases are refused."""

from __future__ import annotations

import ast
import csv
import json
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from messages import PACKAGE, extracted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again; begin anew: start a new run",
    r"(is|are) gone on with": "is resumed",
    r"go(es)? on where": "resumes where",
    r"(that|what) is none": "say what it is: is not a workbook",
    r"said at once": "reported in one pass",
    r"fit for": "ready",
    r"to be had": "available",
    r"(empty|answers) for nobody": "name who is meant, or use the passive",
    r"no end within": "did not finish within",
    r"came back": "was returned",
    r"stands? (there )?twice": "appears twice",
    r"is no (appid|CSV|JSON|TOML|UTF-8|MD5)": "is not a(n) …, is not valid …",
    r"not there": "missing; does not exist",
    r"as (it|they) stands?": "as it is; unchanged",
    r"answer(s|ed)? HTTP": "returns HTTP, returned",
    r"gave no( usable)? answer": "did not respond; gave no usable response",
    r"name another": "choose another",
    r"lives? (some|about)": "expires after",
    r"goes unnoticed": "cannot be detected",
    r"hangs? on": "depends on",
    r"starts? afresh": "is reset",
    r"serves once": "can be used only once",
    r"bear(s|ing)?": "tolerate; last",
    r"let us in": "accept the credentials",
    r"but for": "except",
    r"nothing but": "only",
    r"some of them ill": "some with injected faults",
    r"do(es)? not go together": "cannot be combined",
    r"not good": "did not succeed",
    r"sittings?": "session",
    r"may be had": "is available",
    r"\w+; gives": "…; return",
}
"""Each as a pattern of whole words, and what is written instead."""


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """The docstrings of a module, those below its values too; without its tables of cases."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for each in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            match each:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    yield f"{path.relative_to(ROOT)}:{each.lineno}", text


def comments(path: Path) -> Iterator[tuple[str, str]]:
    """The comments of a module."""
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.COMMENT:
                yield f"{path.relative_to(ROOT)}:{token.start[0]} comment", token.string


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    """Where each text is, and the text."""
    return list(_texts())


def _texts() -> Iterator[tuple[str, str]]:
    for message in extracted():
        if message.id and not all(file.startswith("click/") for file, _line in message.locations):
            ids = [message.id] if isinstance(message.id, str) else message.id
            yield from (("message", each) for each in ids)
    for path in sorted(PACKAGE.rglob("*.py")):
        yield from docstrings(path)
        yield from comments(path)
    for path in sorted(PACKAGE.glob("*.csv")):
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            yield from ((path.name, text) for name, text in row.items() if name.endswith("_en"))
    for path in sorted(PACKAGE.rglob("*.j2")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs" / "en").rglob("*.md"), *(ROOT / "docs").glob("*.md")]
    for path in sorted(pages):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield path.name, "".join(cell["source"])


def found(pattern: str, where_and_text: list[tuple[str, str]]) -> list[str]:
    words = re.compile(rf"\b({pattern})\b".replace(" ", r"\s+"), re.IGNORECASE)
    return [
        f"{where}: …{text[max(0, match.start() - 40) : match.end() + 40]}…"
        for where, text in where_and_text
        for match in words.finditer(text)
    ]


@pytest.mark.slow
def test_no_text_has_a_refused_phrase(texts: list[tuple[str, str]]) -> None:
    refused = {instead: places for pattern, instead in INSTEAD.items() if (places := found(pattern, texts))}
    assert refused == {}, "each key is what to write instead"


IN_CHINESE = "[你「」]|样例|账本|正式目标|正式环境|(?<!第三方)平台令牌|给商户的(?:话(?!术)|说明|文字)|向微信询问|商户文件"
"""What Chinese texts do not say; docs/zh/contributing/glossary.md has the words instead."""


def test_chinese_texts_are_polite_and_use_the_words_of_the_glossary() -> None:
    folders = (ROOT / "docs" / "zh", PACKAGE)
    files = [
        file for folder in folders for file in folder.rglob("*") if file.suffix in {".md", ".csv", ".po"}
    ]
    files += [
        *ROOT.glob("*.zh-CN.md"),
        *(ROOT / "notebooks" / "zh").glob("*.ipynb"),
        *(ROOT / "data" / "zh").glob("*"),
    ]
    assert len(files) > 60
    others = [file for file in files if file.name != "glossary.md"]
    assert [file.name for file in others if re.search(IN_CHINESE, file.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_every_kind_of_text_is_looked_at(texts: list[tuple[str, str]]) -> None:
    kinds = ("message", ".py:", " comment", ".csv", ".j2", "README.md", "CHANGELOG.md", "docs/en/", ".ipynb")
    assert [kind for kind in kinds if not any(kind in where for where, _text in texts)] == []
    assert found("anew", [*texts, ("planted", "The list is sent\nAnew.")])

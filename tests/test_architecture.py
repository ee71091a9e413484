"""What holds over the whole package: no import circles, and no code that reads its own messages."""

from __future__ import annotations

import ast
import inspect
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tcb_ops
from tcb_ops.details import _CODES, DetailCode
from tcb_ops.i18n import Lang, Message
from tcb_ops.kinds import kind_names

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(tcb_ops.__file__).parent

SEARCHING = {
    "startswith", "endswith", "split", "rsplit", "splitlines", "partition", "rpartition", "replace", "find", "rfind",
    "index", "count", "removeprefix", "removesuffix",
}  # fmt: skip
"""Methods of a string that make it data."""
MATCHING = {"search", "match", "fullmatch", "sub", "subn", "findall", "finditer", "split"}
"""Functions and methods of `re` that do the same to an argument."""


def modules() -> dict[str, Path]:
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = ("tcb_ops", *file.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that are executed: all but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


def imported(tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """The package's modules that a module imports, wherever in it the import stands, except for types alone."""
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known.keys()


@pytest.mark.slow
def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    graph = {
        name: imported(ast.parse(file.read_text(encoding="utf-8")), known) - {name}
        for name, file in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def imports_by_name(tree: ast.AST) -> Iterator[str]:
    """The places that import a module whose name is a text, or that name what a module has: `tcb_ops.module:name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in {"import_module", "__import__", "LazyFunction", "LazyModule", "lazily"}:
                yield called
        elif isinstance(node, ast.Constant) and re.fullmatch(r"tcb_ops(\.\w+)+:\w+", str(node.value)):
            yield node.value


def test_only_the_hooks_and_the_features_import_by_name() -> None:
    """So the graph above has every import of the core, except from `hooks`, which finds features and what stands above results."""
    places = {
        file.relative_to(PACKAGE).as_posix(): names
        for file in PACKAGE.rglob("*.py")
        if (names := [*imports_by_name(ast.parse(file.read_text(encoding="utf-8")))])
    }
    assert "tcb_ops.engine.list_kinds:LINKS" in places["hooks.py"]
    others = {place for place in places if not re.fullmatch(r"hooks\.py|features/\w+/__init__\.py", place)}
    assert others == {"__init__.py"}, "which imports a public name when it is asked for"


@pytest.mark.slow
def test_every_module_is_imported_under_its_own_name() -> None:
    for name in tcb_ops.__all__:
        getattr(tcb_ops, name)
    for name in modules().keys() - {"tcb_ops", "tcb_ops.__main__"}:
        names: dict[str, Any] = {}
        exec(f"import {name} as module", names)  # noqa: S102  what a user writes, for each module
        assert inspect.ismodule(names["module"]), name
        assert names["module"].__name__ == name


class MessageReader(ast.NodeVisitor):
    """Finds code that searches, splits or compares the text of a message, by function."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: set[str] = set()
        self._functions: list[str] = []
        self._errors: set[str] = set()
        self._texts: set[str] = set()
        self.visit(tree)

    def _is_message(self, node: ast.AST) -> bool:
        """Whether an expression is a message's text: `.en`, `.zh`, `.of(lang)`, `str(error)`, or a name for one of these."""
        match node:
            case ast.Name(id=name):
                return name in self._texts
            case ast.Attribute(attr="en" | "zh"):
                return True
            case ast.Call(func=ast.Attribute(attr="of"), args=[ast.Name(id=lang) | ast.Attribute(attr=lang)]):
                return lang.lstrip("_") in {"lang", "EN", "ZH"}
            case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
                return name in self._errors
            case ast.Attribute(value=ast.Name(id=name), attr="text" | "args"):
                return name in self._errors
            case ast.Call(func=ast.Attribute(value=inner, attr="lower" | "casefold" | "upper" | "strip")):
                return self._is_message(inner)
            case ast.Subscript(value=inner):
                return self._is_message(inner)
        return False

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        known = self._errors, self._texts
        self._errors, self._texts = set(known[0]), set(known[1])
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()
        self._errors, self._texts = known

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _enter  # noqa: N815  the names that ast calls

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._errors.add(node.name)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                (self._texts.add if self._is_message(node.value) else self._texts.discard)(target.id)

    def visit_Compare(self, node: ast.Compare) -> None:
        operators = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
        sides = (node.left, *node.comparators)
        if any(isinstance(one, operators) for one in node.ops) and any(map(self._is_message, sides)):
            self._report()
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            name, arguments = node.func.attr, any(map(self._is_message, node.args))
            if (name in SEARCHING and self._is_message(node.func.value)) or (
                name in MATCHING | {"get"} and arguments
            ):
                self._report()
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._is_message(node.slice):
            self._report()
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        if self._is_message(node.subject):
            self._report()
        self.generic_visit(node)

    def _report(self) -> None:
        self.found.add(".".join(self._functions))


def readers() -> Iterator[str]:
    for name, file in modules().items():
        for function in MessageReader(ast.parse(file.read_text(encoding="utf-8"))).found:
            yield f"{name}:{function}"


@pytest.mark.slow
def test_no_code_searches_compares_or_splits_messages() -> None:
    # Before Python 3.14, tomllib says the line of a mistake in its message only.
    assert sorted(readers()) == ["tcb_ops.settings_files:parse_toml"]


def test_every_reason_has_one_message_in_both_languages_with_the_same_parameters() -> None:
    for code in set(_CODES.values()) - {DetailCode.TEXT}:
        message = code.value
        assert isinstance(message, Message)
        names = set(re.findall(r"\{(\w+)[:}]", message.msgid))
        numbers = dict.fromkeys(names, 7)
        assert re.search("[一-鿿]|；", message.format(**numbers).zh), code
        for name in names:
            with pytest.raises(KeyError):
                message.format(**dict.fromkeys(names - {name}, 7)).of(Lang.ZH)


def test_the_ledger_keeps_no_sentence() -> None:
    """What is written into `detail` and `stopped` comes from `stored`, which takes a code and its parameters."""
    for name in ("records", "ledger"):
        tree = ast.parse((PACKAGE / "ledger" / f"{name}.py").read_text(encoding="utf-8"))
        read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not read & {"en", "zh", "of"}, name


_SHOWN = r"\w+(?:\.\w+)*\s*\|\s*text\b"
"""A message in a template, as it is shown."""
TEMPLATE_READS = re.compile(
    rf"{_SHOWN}\s*(?:not\s+in|in|==|!=)\s|\s(?:in|==|!=)\s+{_SHOWN}|{_SHOWN}\s*\|\s*replace"
)


def test_a_name_is_of_one_class() -> None:
    files: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, []).append(str(file.relative_to(PACKAGE)))
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_no_template_searches_or_compares_messages() -> None:
    templates = {file.name: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.j2")}
    assert any(re.search(_SHOWN, template) for template in templates.values())
    assert {name: found for name, text in templates.items() if (found := TEMPLATE_READS.findall(text))} == {}


@pytest.mark.parametrize(
    "template",
    [
        "{% if cause.why|text == 'x' %}",
        "{% if 'x' in cause.why|text %}",
        "{% if why | text not in known %}",
        "{{ why|text|replace('a', 'b') }}",
    ],
)
def test_the_check_sees_each_way_to_read_a_message_in_a_template(template: str) -> None:
    assert TEMPLATE_READS.search(template)


@pytest.mark.parametrize(
    "line",
    [
        "text.en == 'x'",
        "'x' in text.of(lang)",
        "text.zh.split('。')",
        "re.search('x', text.en)",
        "TABLE[text.en]",
        "message = text.of(lang); message.startswith('x')",
        "text.en.lower().partition(':')",
    ],
)
def test_the_check_sees_each_way_to_read_a_message(line: str) -> None:
    assert MessageReader(ast.parse(f"def f():\n    {line}")).found == {"f"}


def test_the_check_sees_the_text_of_an_error() -> None:
    code = "try:\n    f()\nexcept E as error:\n    'locked' in str(error)"
    assert MessageReader(ast.parse(code)).found == {""}


@pytest.mark.parametrize(
    "line", ["text.en", "f'{text.en}, {name}'", "print(text.of(lang))", "name.split(',')"]
)
def test_the_check_lets_messages_be_written(line: str) -> None:
    assert MessageReader(ast.parse(f"def f():\n    {line}")).found == set()


KINDS = {*kind_names()}
"""The kinds of runs, which only their own modules know by name."""
KIND_MODULES = {"kinds.py", "engine/list_kinds.py"}


def kinds_told_apart(tree: ast.AST) -> Iterator[str]:
    """The expressions that decide by which kind a run is: a comparison, a table of kinds, a kind asked for by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            constants = {
                part.id.lower() for part in parts if isinstance(part, ast.Name) and part.id.isupper()
            }
            literals = {
                part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
            of_kind = any(
                "kind" in (getattr(part, "attr", None), getattr(part, "id", None)) for part in parts
            )
            if constants & KINDS or (of_kind and literals & KINDS):
                yield ast.unparse(node)
        elif isinstance(node, ast.Dict):
            if any(
                isinstance(key, ast.Name) and key.id.isupper() and key.id.lower() in KINDS
                for key in node.keys
            ):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            name, constant = (
                getattr(node.func, "id", None),
                any(isinstance(arg, ast.Constant) for arg in node.args),
            )
            if name == "kind_named" and constant:
                yield ast.unparse(node)


def test_only_the_modules_of_a_kind_know_it_by_name() -> None:
    """Whatever differs between kinds is a field of `Kind`, so that a new kind needs no change elsewhere."""
    offences = {
        f"{file.relative_to(PACKAGE)}: {expression}"
        for file in PACKAGE.rglob("*.py")
        if (path := file.relative_to(PACKAGE)).as_posix() not in KIND_MODULES and path.parts[0] != "features"
        for expression in kinds_told_apart(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert not offences


@pytest.mark.parametrize(
    "line",
    [
        "run.kind == 'upload'",
        "kind in {'upload', 'undo'}",
        "run.kind is not UPLOAD",
        "{UPLOAD: 1, UNDO: 2}",
        "kind_named('audit')",
    ],
)
def test_the_check_sees_each_way_to_tell_kinds_apart(line: str) -> None:
    assert list(kinds_told_apart(ast.parse(line))) == [line]

"""The folder that `lab` fills; the `parameters` cell and what a command line says about it."""

import re
from pathlib import Path

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.features.notebooks.parameters import (
    NOTEBOOKS,
    Parameter,
    fill,
    find_notebook,
    list_parameters,
    notebook_names,
    parameters_of,
    take_parameters,
)
from tcb_ops.features.simulator.sample import SAMPLE

ONE = "02_run_uploads.ipynb"


def test_a_new_workspace_gets_the_notebooks_and_the_sample(tmp_path):
    copied = fill(tmp_path / "work")
    assert {Path(name).stem for name in copied.new if "/" not in name} == set(notebook_names())
    assert (tmp_path / "work" / "data" / "files" / "icon" / "cart.svg").is_file()
    for file in (tmp_path / "work").rglob("*"):
        assert not re.search(r'[<>:"\\|?*]|[. ]$', file.name)
    for name in copied.new:
        source = SAMPLE / name.removeprefix("data/") if name.startswith("data/") else NOTEBOOKS / name
        assert (tmp_path / "work" / name).read_bytes() == source.read_bytes()
    again = fill(tmp_path / "work")
    assert (again.new, again.kept) == ((), ())


@pytest.mark.parametrize("name", [ONE, "data/paths.csv"])
def test_existing_files_are_not_overwritten_and_those_that_differ_are_listed(tmp_path, name):
    fill(tmp_path)
    (tmp_path / name).write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    copied = fill(tmp_path)
    assert (copied.new, copied.kept) == ((), (name,))
    assert (tmp_path / name).read_bytes() == b"mine"
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / name).rename(tmp_path / "mine.old")
    again = fill(tmp_path)
    assert (again.new, again.kept) == ((name,), ())
    assert (tmp_path / "mine.old").read_bytes() == b"mine"


@pytest.mark.parametrize("wanted", ["02", "run_uploads", "02_run_uploads"])
def test_a_notebook_is_found_by_a_part_of_its_name(wanted):
    assert find_notebook(wanted) == NOTEBOOKS / ONE


@pytest.mark.parametrize("wanted", ["", "nope", "nope.ipynb", "../pyproject.toml"])
def test_what_is_no_notebook_is_refused_with_the_names(wanted):
    with pytest.raises(UsageError, match="02_run_uploads"):
        find_notebook(wanted)


CELL = """\
# Parameters
target = "simulator"  # or "live"
名称: str = ""  # 商户 # 名称
rows = 8
share = 0.5
dry = True
many = ["a"]
late = rows + 1
"""
KNOWN = parameters_of(CELL)


def test_a_parameters_cell_gives_names_defaults_and_comments_in_order():
    assert (
        Parameter("target", "simulator", 'or "live"'),
        Parameter("名称", "", "商户 # 名称"),
        Parameter("rows", 8),
        Parameter("share", 0.5),
        Parameter("dry", default=True),
        Parameter("many", None),
        Parameter("late", None),
    ) == KNOWN


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("名称=007", "007"),
        ("名称=true", "true"),
        ("名称=a=b", "a=b"),
        ("名称=", ""),
        ("名称= a ", " a "),
        ("名称=云上茶铺", "云上茶铺"),
        ("target=live", "live"),
        ("rows=007", 7),
        ("rows=-3", -3),
        ("share=2", 2.0),
        ("share=.25", 0.25),
        ("dry=false", False),
        ("dry=True", True),
    ],
)
def test_a_value_is_of_its_defaults_type(word, value):
    taken = take_parameters(KNOWN, [word], "nb")[word.partition("=")[0]]
    assert (taken, type(taken)) == (value, type(value))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["target=maybe"], "one of simulator / live"),
        (["rows=7.0"], "whole number"),
        (["rows=seven"], "whole number"),
        (["rows="], "whole number"),
        (["rows=true"], "whole number"),
        (["share=nan"], "a number"),
        (["share=inf"], "a number"),
        (["dry=1"], "true or false"),
        (["dry=yes"], "true or false"),
        (["many=b"], "neither text nor a number"),
        (["late=3"], "neither text nor a number"),
        (["target"], "NAME=VALUE"),
        (["rows=1", "rows=2"], "twice"),
        (["row=1"], "has no parameter row"),
        (["access_token=abc"], "secrets"),
        (["appSecret=abc"], "secrets"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_what_does_not_fit_is_refused_in_words(words, says):
    with pytest.raises(UsageError, match=says) as refused:
        take_parameters(KNOWN, words, "nb")
    assert "abc" not in str(refused.value)


def test_an_unknown_name_lists_names_and_defaults():
    with pytest.raises(UsageError) as refused:
        take_parameters(KNOWN, ["zzz=1"], "nb")
    assert list_parameters(KNOWN) in refused.value.text.en
    assert "  target = 'simulator'  or \"live\"" in list_parameters(KNOWN)
    assert "  many = …" in list_parameters(KNOWN)


def test_no_language_is_that_of_the_settings_and_others_are_refused():
    known = parameters_of('lang = ""')
    assert take_parameters(known, ["lang=zh"], "nb") == {"lang": "zh"}
    with pytest.raises(UsageError, match="must be one of en / zh"):
        take_parameters(known, ["lang=de"], "nb")


def test_a_notebook_of_ones_own_may_mean_something_else_by_the_same_name():
    known = parameters_of('target = "warehouse"\nlang = "fr"')
    assert take_parameters(known, ["target=shop", "lang=de"], "nb") == {"target": "shop", "lang": "de"}

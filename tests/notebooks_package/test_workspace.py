"""The folder that `lab` fills: ours goes in, the operator's stays."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.notebooks.workspace import NOTEBOOKS, REMEMBERED, Step, fill, find_notebook, notebook_names, step
from tcb_ops.sample import SAMPLE

ONE = "02_run_uploads.ipynb"


@pytest.mark.parametrize(
    ("ours", "theirs", "remembered", "does"),
    [
        ("A", None, None, Step.COPY),
        ("A", None, "A", Step.COPY),
        ("A", "A", None, Step.KEEP),
        ("A", "A", "B", Step.KEEP),
        ("B", "A", "A", Step.COPY),
        ("A", "B", "A", Step.KEEP),
        ("C", "B", "A", Step.BESIDE),
        ("A", "B", None, Step.BESIDE),
    ],
)
def test_what_is_done_about_a_file(ours, theirs, remembered, does):
    assert step(ours, theirs, remembered) is does


def pretend_older(workspace, name, content):
    """Let the workspace be as an older version left it."""
    (workspace / name).write_bytes(content)
    remembered = json.loads((workspace / REMEMBERED).read_text(encoding="utf-8"))
    remembered[name] = hashlib.sha256(content).hexdigest()
    (workspace / REMEMBERED).write_text(json.dumps(remembered), encoding="utf-8")


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
    assert (again.new, again.kept, again.beside) == ((), (), ())


def test_a_copy_that_was_not_changed_follows_a_new_version(tmp_path):
    fill(tmp_path)
    pretend_older(tmp_path, ONE, b"older")
    assert fill(tmp_path).new == (ONE,)
    assert (tmp_path / ONE).read_bytes() == (NOTEBOOKS / ONE).read_bytes()


def test_a_changed_copy_is_kept_while_ours_is_the_same(tmp_path):
    fill(tmp_path)
    (tmp_path / ONE).write_bytes(b"mine")
    assert fill(tmp_path).kept == (ONE,)
    assert (tmp_path / ONE).read_bytes() == b"mine"
    assert not (tmp_path / "02_run_uploads.new.ipynb").exists()


def test_where_both_changed_the_new_one_goes_beside_and_is_never_put_over_changes_either(tmp_path):
    fill(tmp_path)
    pretend_older(tmp_path, ONE, b"older")
    (tmp_path / ONE).write_bytes(b"mine")
    beside = tmp_path / "02_run_uploads.new.ipynb"
    for _ in range(2):
        assert fill(tmp_path).beside == ((ONE, beside.name),)
        assert (tmp_path / ONE).read_bytes() == b"mine"
        assert beside.read_bytes() == (NOTEBOOKS / ONE).read_bytes()
    beside.write_bytes(b"mine too")
    assert fill(tmp_path).beside == ((ONE, beside.name),)  # it is the newest, changed by now
    pretend_older(tmp_path, beside.name, b"older")
    beside.write_bytes(b"mine too")
    for _ in range(2):
        assert fill(tmp_path).beside == ((ONE, "02_run_uploads.new-2.ipynb"),)
    assert (tmp_path / "02_run_uploads.new-2.ipynb").read_bytes() == (NOTEBOOKS / ONE).read_bytes()
    assert beside.read_bytes() == b"mine too"


@pytest.mark.parametrize("memory", [None, "", "{", "[]"], ids=["lost", "empty", "broken", "no object"])
def test_without_a_memory_nothing_that_is_there_is_overwritten(tmp_path, memory):
    (tmp_path / ONE).write_bytes(b"mine")
    if memory is not None:
        (tmp_path / REMEMBERED).write_text(memory, encoding="utf-8")
    fill(tmp_path)
    assert (tmp_path / ONE).read_bytes() == b"mine"


@pytest.mark.parametrize("wanted", ["02", "run_uploads", "02_run_uploads"])
def test_a_notebook_is_found_by_a_part_of_its_name(wanted):
    assert find_notebook(wanted) == NOTEBOOKS / ONE


@pytest.mark.parametrize("wanted", ["", "nope", "nope.ipynb", "../pyproject.toml"])
def test_what_is_no_notebook_is_refused_with_the_names(wanted):
    with pytest.raises(UsageError, match="02_run_uploads"):
        find_notebook(wanted)

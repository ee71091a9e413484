"""The folder that `lab` fills: ours goes in, the operator's stays."""

import re
from pathlib import Path

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.notebooks.workspace import NOTEBOOKS, fill, find_notebook, notebook_names
from tcb_ops.sample import SAMPLE

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

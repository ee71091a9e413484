"""How a notebook's end becomes an exit code; cells that name themselves."""

import pytest
from nbformat.v4 import new_code_cell

from tcb_ops.notebooks.execute import cell_name, decide_exit_code


@pytest.mark.parametrize(
    ("result", "signalled", "own", "other", "code"),
    [
        (None, 0, None, False, 0),
        (0, 0, None, False, 0),
        (1, 0, None, False, 1),
        (3, 0, None, False, 3),
        (1, 143, None, False, 1),
        (None, 143, None, False, 143),
        (None, 130, 130, False, 130),
        (130, 143, 130, False, 143),
        (0, 130, None, True, 130),
        (0, 0, None, True, 3),
        (None, 0, None, True, 3),
        (None, 0, 2, False, 2),
        (0, 0, 2, False, 2),
        (3, 0, 2, False, 3),
    ],
)
def test_the_exit_code_follows_from_the_result_the_signal_and_the_errors(result, signalled, own, other, code):
    assert decide_exit_code(result, signalled, own, other=other) == code


@pytest.mark.parametrize(
    ("source", "name"),
    [("# Run\nx", "Run"), ("\n## 运行  \n", "运行"), ("x = 1", "[7]"), ("", "[7]")],
)
def test_a_cell_is_named_by_its_first_comment(source, name):
    assert cell_name(new_code_cell(source), 7) == name

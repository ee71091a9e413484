"""A signal while a notebook is executed: the kernel gets it, or the next cell is not begun."""

import os
import signal

import nbclient
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tcb_ops.notebooks.execute import ExecutionMonitor, Interrupted


@pytest.fixture
def cells():
    return [new_code_cell("# One\n1"), new_code_cell("# Two\n2")]


@pytest.fixture
def client(cells):
    return nbclient.NotebookClient(new_notebook(cells=cells))


def test_cells_are_reported_by_number_and_name(client, cells):
    reported = []
    monitor = ExecutionMonitor(lambda *cell: reported.append(cell))
    with monitor.over(client):
        for index, cell in enumerate(cells):
            monitor.cell_begins(cell, index)
    assert reported == [(1, 2, "One"), (2, 2, "Two")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("begun", [False, True], ids=["between two cells", "before the cell is sent"])
def test_a_signal_that_no_kernel_gets_ends_the_notebook_before_the_next_cell(
    client, cells, number, code, begun
):
    monitor = ExecutionMonitor(lambda *_: None)
    with monitor.over(client):
        if begun:
            monitor.cell_begins(cells[0], 0)
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted):
            monitor.cell_runs() if begun else monitor.cell_begins(cells[0], 0)
    assert monitor.exit_code == code

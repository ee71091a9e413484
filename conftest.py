"""What concerns the tests and the notebooks alike."""

from __future__ import annotations

import pytest
from nbval.plugin import IPyNbCell


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the notebooks' cells in their order, whatever the order of the tests, and in one process."""
    cells = sorted(
        (item for item in items if isinstance(item, IPyNbCell)), key=lambda cell: (cell.path, cell.cell_num)
    )
    for cell in cells:
        cell.add_marker(pytest.mark.notebook)
        cell.add_marker(pytest.mark.xdist_group("cells"))
    items[:] = cells + [item for item in items if not isinstance(item, IPyNbCell)]

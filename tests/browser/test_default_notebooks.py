"""Each notebook, as it comes, in JupyterLab: one "run all" leads to a panel that works, without credentials."""

import pytest

from tcb_ops.workspace import notebook_names

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("name", notebook_names())
def test_run_all_leads_to_a_panel_and_results_without_errors_or_violations(lab, name):
    with lab.opened(f"{name}.ipynb", shots=name) as notebook:
        notebook.run_all()
        notebook.at_rest()
        assert notebook.page.locator(".jp-RenderedText[data-mime-type*='stderr']").count() == 0
        assert notebook.page.locator(".dataframe, table").count() > 0
        notebook.until(
            "() => document.querySelector('.op-panel .op-export button, .op-panel button.op-export')"
        )
        assert notebook.violations() == []
        notebook.page.locator(".op-panel").first.scroll_into_view_if_needed()
        notebook.shot("panel")

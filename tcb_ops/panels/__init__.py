"""The panels of the notebooks: ipywidgets views over the public functions.

::

    from tcb_ops import panels

    panels.run_uploads(target="live", paths="paths.csv", root="files")   # as a cell's last line
    panels.attach("latest")                                              # a run that is running, or was cut off

`target`: "simulator" (the embedded one, no credentials: with the working folder's settings if tcb-ops.toml itself says
`target = "simulator"`, else with sample data) or "live" (what tcb-ops.toml says). Calls such as `tcb.open_run()` that name no settings use those of the panel that was opened last. `lang`: en or zh; "" is that of the
settings. `where`: `column=value` items of the merchants file, semicolons between them. `cluster`: workers of Dask that
share the work (local:2, or a scheduler's URL); "": this process does it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.kinds import provided

try:
    import anywidget as _anywidget  # noqa: F401  is it there?
    import ipywidgets as _ipywidgets  # noqa: F401  is it there?
except ModuleNotFoundError:
    from tcb_ops.runs.next_commands import install

    raise UsageError(
        _(
            "The panels need ipywidgets and anywidget in this kernel. Install them, then restart the kernel:\n{command}",
            command=install("lab"),
        )
    ) from None

if TYPE_CHECKING:
    from tcb_ops.panels.notebook_panels import Panel
    from tcb_ops.settings import Settings

__all__ = ["attach", "audit_errcodes", "export_report", "generate_links", "run_uploads", "use_ledger"]


def _open(panel: str, given: dict[str, Any]) -> Panel:
    """Open a panel with the arguments of a call. Accepts paths as text and None as not given; refuses other types."""
    from tcb_ops.panels import notebook_panels

    texts = {name: value for name, value in given.items() if value is not None}
    for name, value in texts.items():
        texts[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(texts[name], str):
            text = _("{name} = {value!r}: write it as one text in quotation marks.")
            raise UsageError(text.format(name=name, value=value))
    panel_class = getattr(notebook_panels, panel, None) or provided(panel)
    opened: Panel = panel_class(notebook_panels.PanelOptions(**texts))
    return opened


def generate_links(
    target: str = "simulator", paths: str = "", where: str = "", out: str = "", note: str = "", lang: str = ""
) -> Panel:
    """Return a panel that checks a list and issues its links into `out` (0600; "" is links.csv)."""
    return _open("LinksPanel", locals())


def run_uploads(
    target: str = "simulator",
    paths: str = "",
    root: str = "",
    where: str = "",
    note: str = "",
    report: str = "",
    lang: str = "",
    cluster: str = "",
) -> Panel:
    """Return a panel that checks a list and its files, uploads, cancels, resumes, retries and exports."""
    return _open("UploadPanel", locals())


def audit_errcodes(
    target: str = "simulator",
    where: str = "",
    note: str = "",
    report: str = "",
    lang: str = "",
    cluster: str = "",
) -> Panel:
    """Return a panel that checks each environment, and shows which fail, why, and what to do."""
    return _open("panels.audit_errcodes", locals())


def export_report(target: str = "simulator", run: str = "latest", report: str = "", lang: str = "") -> Panel:
    """Return a panel that shows a chosen run and exports it."""
    return _open("RunPanel", locals())


def attach(run: str = "latest", target: str = "", lang: str = "", cluster: str = "") -> Panel:
    """Return a panel that shows any run: running in this process or another, interrupted, or finished.

    `target` "" is that of the panel that was opened last, "live" where none was.
    """
    return _open("RunPanel", locals() | {"target": "" if target is None else target})


def use_ledger(ledger: str = "", lang: str = "") -> Settings:
    """Read `ledger`, a file or a URL ("": the sample's of 30 days), in all calls that name no settings; return its settings."""
    from tcb_ops.settings import set_default_settings

    settings: Settings = provided("analysis")(ledger, lang)
    set_default_settings(settings)
    return settings

"""The lines of a notebook: `panels.upload(batch)` shows a panel to a person, and does the work where nobody looks.

::

    from tcb_ops import panels

    panels.use("simulator")                            # or "live": the target, merchants and ledger of tcb-ops.toml
    batch = panels.read_paths("paths.csv", root="files")
    run = panels.upload(batch)                         # a panel; under papermill or `tcb-ops notebook`, the upload itself
    run.causes()

The functions are named as those of `tcb_ops`, which a script calls instead. Calls such as `tcb.open_run()` that name no
settings, and `tcb.load_settings()`, use the target of `panels.use`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tcb_ops.arguments import checked
from tcb_ops.errors import InputError, needed
from tcb_ops.hooks import AuditHooks, SimulatorHooks
from tcb_ops.kinds import ANY_KIND

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.lists.batch import Batch
    from tcb_ops.panels.context import PanelContext, RefusedList
    from tcb_ops.run import Run, RunHandle
    from tcb_ops.settings import Settings

__all__ = ["attach", "audit", "links", "read_paths", "upload", "use", "use_ledger"]


@checked
def use(target: str = "simulator", *, where: str | Sequence[str] = "", lang: str = "") -> PanelContext:
    """Choose the target of everything below, and show it.

    Args:
        target: "simulator" (no credentials: with the working folder's settings if tcb-ops.toml itself says
            `target = "simulator"`, else with sample data) or "live" (what tcb-ops.toml says).
        where: only merchants that match, such as "region=华东", as in `tcb_ops.read_merchants`.
        lang: of panels and cards, en or zh; "" is that of the settings.

    """
    from tcb_ops.i18n import Lang
    from tcb_ops.panels.context import open_context, use_context
    from tcb_ops.settings import default_settings, set_default_settings

    if lang in {*Lang}:  # the card of an error, such as one in the merchants file, is in it, too
        set_default_settings(replace(default_settings(), lang=Lang(lang)))
    return use_context(open_context(target, where, lang))


@checked
def read_paths(
    source: Literal[""] | str | Path = "", *, root: Literal[""] | str | Path | None = None
) -> Batch | RefusedList:
    """Read and check a path list, for the merchants of `use`; "" is the list of the sample or the rehearsal.

    `root`: the folder of the local files, "" for the list's own; None: they are not checked. A list with problems shows
    them, and the panel below offers what can be done; where nobody looks, it raises InputError.
    """
    from tcb_ops.panels.context import RefusedList, context_in_use
    from tcb_ops.reports.cards import attended

    context, folder = context_in_use(), None if root is None else str(root)
    try:
        return context.read_list(str(source), folder)
    except InputError as error:
        if not attended():
            raise
        return RefusedList(*context.list_to_read(str(source), folder), error)


@checked
def links(
    batch: Batch | RefusedList | pd.DataFrame | str | Path,
    *,
    out: Literal[""] | str | Path = "",
    note: str = "",
    yes: bool = False,
) -> Run:
    """Request an upload link per row into `out` (0600; "" is links.csv), and return the run.

    A person gets a panel, whose run it is. Where nobody looks, a live target needs `yes`; with the sample, "" is then a
    file beside its ledger.
    """
    from tcb_ops import api

    def start(context: PanelContext, **options: Any) -> RunHandle:
        return api.start_links(context.batch_of(batch), out=context.links_path(str(out)), **options)

    return _run("LinksPanel", start, yes=yes, batch=batch, out=str(out), note=note)


@checked
def upload(
    batch: Batch | RefusedList | pd.DataFrame | str | Path,
    *,
    root: Literal[""] | str | Path | None = None,
    backup: Literal[""] | str | Path = "",
    note: str = "",
    cluster: str = "",
    yes: bool = False,
) -> Run:
    """Upload the files of a list, and return the run.

    A person gets a panel, whose run it is. Where nobody looks, a live target needs `yes`.

    Args:
        batch: from `read_paths`, or what it takes, or a DataFrame.
        root: the folder of the local files, where `batch` does not have it.
        backup: a folder in which files that are replaced are saved first.
        note: kept with the run.
        cluster: workers of Dask that share the work (local:2, or a scheduler's URL); "": this process does it.
        yes: send to a live target although nobody looks.

    """
    from tcb_ops import api

    def start(context: PanelContext, **options: Any) -> RunHandle:
        return api.start_upload(
            context.batch_of(batch, root), backup=backup or None, cluster=cluster or None, **options
        )

    given = {"batch": batch, "root": root, "backup": str(backup), "note": note, "cluster": cluster}
    return _run("UploadPanel", start, yes=yes, **given)


@checked
def audit(*, note: str = "", cluster: str = "", yes: bool = False) -> Run:
    """Check each environment of the merchants of `use`, and return the run; no file is sent.

    A person gets a panel, whose run it is. Where nobody looks, a live target needs `yes`.
    """

    def start(context: PanelContext, **options: Any) -> RunHandle:
        return needed(AuditHooks).start(context.merchants, cluster=cluster or None, **options)

    return _run("", start, yes=yes, note=note, cluster=cluster)


@checked
def attach(run: str = "latest", *, cluster: str = "") -> Run:
    """Show any run of the target in a panel: running in this process or another, interrupted, or finished; return it."""
    from tcb_ops import api
    from tcb_ops.panels.context import context_in_use
    from tcb_ops.reports.cards import attended

    if not attended():
        return api.open_run(run, kind=ANY_KIND, settings=context_in_use().settings)
    return _panel("RunPanel", run=run, cluster=cluster)


def _run(panel: str, start: Any, *, yes: bool, **given: Any) -> Run:
    """Show a panel to a person; where nobody looks, do its work."""
    from tcb_ops.panels.context import context_in_use
    from tcb_ops.panels.unattended import run_unattended
    from tcb_ops.reports.cards import attended

    if attended():
        return _panel(panel, **given)
    return run_unattended(context_in_use(), start, note=given["note"], yes=yes)


def _panel(name: str, **given: Any) -> Run:
    """Display a panel of `notebook_panels`, or that of audits; return the run that it shows. Raises UsageError where there are no widgets."""
    from importlib.util import find_spec

    from tcb_ops.engine.next_commands import install
    from tcb_ops.errors import UsageError
    from tcb_ops.i18n import _

    if not all(map(find_spec, ("anywidget", "ipywidgets"))):
        text = _("The panels need ipywidgets and anywidget in this kernel.")
        fix = _("Install them, then restart the kernel:\n{command}", command=install("lab"))
        raise UsageError(text, fix)
    from IPython.display import display

    from tcb_ops.panels import notebook_panels
    from tcb_ops.panels.context import context_in_use

    panel_class = getattr(notebook_panels, name) if name else needed(AuditHooks).panel
    panel = panel_class(context_in_use(), notebook_panels.PanelOptions(**given))
    display(panel)  # type: ignore[no-untyped-call]  # IPython's
    return notebook_panels.PanelRun(panel)


def use_ledger(ledger: str = "", lang: str = "") -> Settings:
    """Read `ledger`, a file or a URL ("": the sample's of 30 days), in all calls that name no settings; return its settings."""
    from tcb_ops.settings import set_default_settings

    settings = needed(SimulatorHooks).analysis(ledger, lang)
    set_default_settings(settings)
    return settings

"""Links to the files of a report that work where the panel is shown: in JupyterLab, in Notebook 7 and in Voila."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, _, as_list
from tcb_ops.panels.html import esc
from tcb_ops.reports.export import read_manifest
from tcb_ops.run import Run

_SHOWN = {".html", ".json", ".txt"}
"""Endings of files that a browser shows; a page runs its scripts only at the server's own address. Others are downloaded."""
_OPENED = " data-commandlinker-command='docmanager:open' data-commandlinker-args='{}'"
"""Has JupyterLab and Notebook 7 open a file in its viewer; elsewhere the link is followed."""


def report_links(run: Run, lang: Lang) -> str:
    """List the files of a run's report, if it has one, and say if they are older than a change of the run's files."""
    folder = Path(run.record.report or "-")
    manifest = read_manifest(folder)
    if manifest is None or manifest.run != run.id:
        return ""
    since = [
        c.run
        for c in run.overview().changed_by
        if c.at > datetime.fromisoformat(manifest.exported_at).timestamp()
    ]
    text = _("Exported before run {run}, which is not in these files: export again.", run=as_list(since))
    return f"<p>{esc(text.of(lang))}</p>" * bool(since) + file_links(folder)


def file_links(folder: Path) -> str:
    """Name a report folder and list its files; each is a link where the server of the notebook serves it."""
    items, folder = [], folder.resolve()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        label, size = esc(file.name), esc(format_size(file.stat().st_size))
        if served := _served(file):
            address, path = served
            how = "target='_blank'" if file.suffix in _SHOWN else "download"
            if file.suffix == ".csv" and "VOILA_REQUEST_URL" not in os.environ:
                how += _OPENED.format(esc(json.dumps({"path": path})))
            label = f"<a href='{esc(address)}' {how}>{label}</a>"
        items.append(f"<li>{label} <span class='op-quiet'>{size}</span></li>")
    return f"<p><code>{esc(folder)}</code></p><ul class='op-file-list'>{''.join(items)}</ul>"


def _served(file: Path) -> tuple[str, str] | None:
    """Return a file's address, and its path below the folder that the server serves; None if it serves no such file.

    The address begins with the server's base URL; where that is not known, it is relative to the notebook.
    """
    base, root = _server(file) or ("", Path.cwd())
    if not file.is_relative_to(root):
        return None
    path = file.relative_to(root).as_posix()
    return f"{base}{quote(path)}", path


def _server(file: Path) -> tuple[str, Path] | None:
    """Return the address of files, and their folder, of Voila, or of the Jupyter server that started this kernel.

    A Jupyter server that cannot be told by its process is the newest that serves the file.
    """
    if "VOILA_REQUEST_URL" in os.environ:
        return f"{os.environ.get('VOILA_BASE_URL', '/')}voila/files/", Path.cwd()
    if not os.environ.get("JPY_SESSION_NAME"):
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    servers = []
    for record in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            server = json.loads(record.read_text(encoding="utf-8"))
            root = Path(server["root_dir"]).resolve()
            is_parent = str(server["pid"]) == os.environ.get("JPY_PARENT_PID")
            if file.is_relative_to(root):
                servers.append((is_parent, record.stat().st_mtime, f"{server['base_url']}files/", root))
    return max(servers)[2:] if servers else None

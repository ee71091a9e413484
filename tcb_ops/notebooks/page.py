"""An executed notebook as a page for people: no code, no script, no external address."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from tcb_ops import errors
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Bilingual, Lang, Text, _

if TYPE_CHECKING:
    from nbformat import NotebookNode

_OURS = 2
"""Lines in place of a stack trace where an error is ours: its message in English and in Chinese."""
_SIMULATED = _("This run went to a simulator on the same machine. Nothing reached WeChat or a merchant.")
_REPORT = _("The whole report")
_ONLY = "notebook-only"
_MARK = "papermill-error-cell-tag"
"""Of the cells that papermill puts before a cell that failed, in red and in English."""
_FAILED = _("This cell failed")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What a page shows beside the notebook's own cells."""

    lang: Lang
    zone: ZoneInfo
    run: str | None = None
    verdict: Text | None = None
    bad: bool = False
    simulated: bool = False
    title: str = ""
    result: str = ""
    """HTML of our own."""
    report: str = ""
    """A link to the run's report."""


def render_page(content: NotebookNode, name: str, facts: PageFacts) -> str:
    """Render it. Cells without anything to see are left out; an error is shown in words, without its stack trace.

    On top: which run it was, how it ended, when, with which parameters, and whether it went to a simulator; then its
    result and a link to its report. Cells tagged `notebook-only` are for those who sit before the notebook.
    """
    from jinja2 import Environment, PackageLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic",  # the cells alone: the stock pages fetch scripts from three foreign hosts
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    cells, _other = exporter.from_notebook_node(_visible(content, facts.lang))
    environment = Environment(loader=PackageLoader("tcb_ops", "notebooks"), autoescape=True)
    lang, verdict = facts.lang, facts.verdict
    return environment.get_template("page.html.j2").render(
        title=facts.title or _title(content) or name,
        result=facts.result,
        report=facts.report,
        report_name=_REPORT.of(lang),
        cells=cells,
        html_lang="zh-CN" if lang is Lang.ZH else "en",
        simulated=_SIMULATED.of(lang) if facts.simulated else "",
        verdict=verdict.of(lang) if verdict is not None else "",
        bad=facts.bad,
        facts=[fact for fact in (facts.run, _started(content, facts.zone), *_parameters(content)) if fact],
    )


def own_error(output: NotebookNode) -> tuple[int, Text] | None:
    """Return the exit code and the message of an error of ours in a cell's output; None for any other error."""
    kind = vars(errors).get(output.ename)
    if (
        not (isinstance(kind, type) and issubclass(kind, errors.TcbOpsError))
        or len(output.traceback) != _OURS
    ):
        return None
    return kind.exit_code, Bilingual(*output.traceback)


def _started(content: NotebookNode, zone: ZoneInfo) -> str:
    started = content.metadata.papermill.get("start_time")
    return datetime.fromisoformat(started).astimezone(zone).isoformat(" ", "minutes") if started else ""


def _parameters(content: NotebookNode) -> list[str]:
    """List the parameters that were given; the language is seen anyway."""
    given = content.metadata.papermill.get("parameters", {})
    return [sanitize(f"{key} = {value}") for key, value in given.items() if key != "lang"]


def _visible(content: NotebookNode, lang: Lang) -> NotebookNode:
    from nbformat import from_dict

    seen: NotebookNode = from_dict({**content, "cells": []})  # type: ignore[no-untyped-call]
    for cell in content.cells:
        if _MARK in cell.metadata.get("tags", ()):
            continue
        outputs = [
            _in_words(output, lang) for output in cell.get("outputs", ()) if output.get("name") != "stderr"
        ]
        if _ONLY in cell.metadata.get("tags", ()):
            outputs = [output for output in outputs if output["output_type"] == "error"]
            if cell.cell_type == "markdown":
                continue
        if cell.cell_type == "markdown":
            seen.cells.append(cell)
        elif outputs:
            seen.cells.append(from_dict({**cell, "outputs": outputs}))  # type: ignore[no-untyped-call]
    return seen


def _in_words(output: NotebookNode, lang: Lang) -> NotebookNode | dict[str, Any]:
    if output.output_type != "error":
        return output
    own = own_error(output)
    words = own[1].of(lang) if own is not None else f"{output.ename}: {output.evalue}"
    return {**output, "traceback": [f"{_FAILED.of(lang)}: {words}"]}


def _title(content: NotebookNode) -> str:
    first = next((cell.source for cell in content.cells if cell.cell_type == "markdown"), "")
    heading: str = first.partition("\n")[0]
    return heading.lstrip("# ").strip() if heading.startswith("#") else ""

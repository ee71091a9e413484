"""Remedies as code: the calls about each merchant of a cause, in a cell of a notebook and in two files of a report.

Nothing of it is run by itself: a person reads it, and runs what fits.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcb_ops.catalogue import COMPONENT_MARK
from tcb_ops.engine.next_commands import command, of_run, retry, shared_options
from tcb_ops.features.health.open_rows import OpenRows, retries_of
from tcb_ops.features.health.remedies import (
    LOOK,
    PREAUTH_CODE,
    Choice,
    Remedy,
    RemedyStep,
    call_of,
    remedy_of,
)
from tcb_ops.features.health.verdicts import presumed
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, _, as_list
from tcb_ops.kinds import Kind
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Merchant, Owner
from tcb_ops.reports.summary import Cause, CodeGroup
from tcb_ops.run import Run
from tcb_ops.settings import Settings, without_dots

PYTHON, SHELL = "actions.py", "actions.sh"
"""The files of a report."""
_HIDDEN = _(
    "The code of the link is a secret and is hidden here: on a terminal, this command makes the link."
)


@dataclass(frozen=True, slots=True)
class Action:
    """A call about a merchant, or about the account of the platform."""

    step: RemedyStep
    words: tuple[str, str, dict[str, str]]
    """The appid (empty: it takes the component token), the interface and the body."""
    as_component: bool

    def python(self, more: str = "") -> str:
        """Return the call as a line of Python; `more`: further arguments."""
        appid, interface, body = self.words
        given = [_literal(appid) if appid else "None", _literal(interface)]
        given += [_literal(body)] if body else []
        given += ["as_component=True"] if self.as_component else []
        return f"tcb.call({', '.join([*given, *([more] if more else [])])})"

    def shell(self, settings: Settings, target: str) -> str:
        """Return the call as a command for a POSIX shell."""
        appid, interface, body = self.words
        words = ["call", appid or "-", interface, *([json.dumps(body, ensure_ascii=False)] if body else [])]
        words += ["--as-component"] if self.as_component else []
        return shlex.join(command(settings, *words, target=target))


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def remedy_of_code(code: str) -> Remedy:
    """Return what can be done about a code, by what it suggests."""
    return remedy_of(presumed(code, _owner(code)))


def remedy_text(code: str) -> Text | None:
    """Return what can be done about a code before its rows run again; None where nothing has to be done, or can be."""
    remedy = remedy_of_code(code)
    return remedy.text if remedy.steps or remedy.choice is not Choice.NONE else None


def _owner(code: str) -> Owner:
    return Owner.PLATFORM if code.endswith(COMPONENT_MARK) else Owner.MERCHANT


def actions_about(code: str, appid: str, env: str, settings: Settings) -> list[Action]:
    """Return the calls about a merchant whose rows ended with a code, in the order in which they are made."""
    remedy, tokens = remedy_of_code(code), settings.tokens
    steps = [LOOK] if remedy.choice is Choice.ENV else remedy.steps
    merchant = Merchant(appid, "", env, owner=_owner(code))
    actions = []
    for step in steps:
        if step is PREAUTH_CODE and not (tokens.component_appid and tokens.redirect_uri):
            continue
        call = call_of(step, merchant, tokens.component_appid)
        actions.append(Action(step, (call.appid or "", call.interface, call.body), call.as_component))
    return actions


def cell_of(group: CodeGroup, run: Run) -> str:
    """Return the calls about a code of a run, and the retry, as a cell of a notebook; what costs money is a comment."""
    lines, lang = ["import tcb_ops as tcb", ""], run.settings.lang
    of_platform = _owner(group.code) is Owner.PLATFORM  # one call for all
    for share in group.merchants[:1] if of_platform else group.merchants:
        if not of_platform:
            lines.append(f"# {_line(share.merchant or share.appid)}")
        for action in actions_about(group.code, share.appid, share.envs[0], run.settings):
            lines.append(_comment(action.step.does, lang))
            if action.step is PREAUTH_CODE:
                lines += [_comment(_HIDDEN, lang), f"# {_of_link(run.record, share.appid, run.settings)}"]
            else:
                lines.append(f"{_mark(action)}{action.python()}")
    return "\n".join(
        [*lines, "", f'# tcb.retry("{run.id}", codes=["{group.code.removesuffix(COMPONENT_MARK)}"])']
    )


def write_actions(causes: Sequence[Cause], run: RunRecord, folder: Path, settings: Settings) -> None:
    """Write what can be done about a run's causes as actions.py and actions.sh, a block a merchant; without any, nothing."""
    blocks = list(_blocks(causes, run.kind, settings))
    if not blocks:
        return
    lang, target, file = settings.lang, run.target, settings.origin.file
    options = {
        option.removeprefix("--"): value
        for option, value in shared_options(settings, target)
        if option in {"--ledger", "--merchants", "--lang"}
    }
    given = ", ".join(
        [
            _literal(without_dots(file)) if file is not None else "None",
            *([_literal(options)] if options else []),
        ]
    )
    head = _("What can be done about run {id}. Nothing of it was run: run the block of a merchant by itself.")
    head = head.format(id=run.id)
    python = [_comment(head, lang), "# %%", "import tcb_ops as tcb", ""]
    python += [
        f"settings = tcb.load_settings({given})",
        f"on = dict(settings=settings, target={_literal(target)})",
    ]
    shell = ["#!/bin/sh", _comment(head, lang)]
    for title, appid, actions in blocks:
        python += ["", f"# %% {title.of(lang)}"]
        shell += ["", f"# {title.of(lang)}"]
        for action in actions:
            does = _comment(action.step.does, lang)
            if action.step is PREAUTH_CODE:
                by_fix = _of_link(run, appid, settings)
                python += [does, _comment(_HIDDEN, lang), f"# {by_fix}"]
                shell += [does, _comment(_HIDDEN, lang), by_fix]
                continue
            python += [does, f"{_mark(action)}print({action.python('**on')})"]
            shell += [does, f"{_mark(action)}{action.shell(settings, target)}"]
    again = _("Then run the rows again whose cause has gone").of(lang)
    python += ["", f"# %% {again}"]
    shell += ["", f"# {again}"]
    rows = {_rows_of(cause): cause for cause in causes}
    chosen = [each for each, cause in rows.items() if _calls_of(cause, settings)]
    for retried in retries_of(chosen, rows):
        narrow = {"codes": retried.codes, "where": retried.where}
        words = [_literal(run.id), *(f"{name}={_literal(value)}" for name, value in narrow.items() if value)]
        python.append(f"# tcb.retry({', '.join([*words, '**on'])})")
        shell.append(f"# {shlex.join(retry(settings, run, narrow=retried.words))}")
    for name, lines in ((PYTHON, python), (SHELL, shell)):
        (folder / name).write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")


def _rows_of(cause: Cause) -> OpenRows:
    return OpenRows(cause.code.removesuffix(COMPONENT_MARK), cause.appid, cause.env)


def _calls_of(cause: Cause, settings: Settings) -> list[Action]:
    return actions_about(cause.code, cause.appid, cause.env, settings)


def _of_link(run: RunRecord, appid: str, settings: Settings) -> str:
    """Return the command for a POSIX shell that makes the link by which a merchant authorizes the platform."""
    return shlex.join([*of_run(settings, run, "fix"), "--where", f"appid={appid}"])


def _blocks(
    causes: Iterable[Cause], kind: Kind, settings: Settings
) -> Iterator[tuple[Text, str, list[Action]]]:
    """Yield each account's calls about a code, with their title and its appid: a merchant's, or once that of the platform."""
    rows: dict[tuple[str, str], list[Cause]] = {}
    for cause in causes:
        of_platform = _owner(cause.code) is Owner.PLATFORM
        appid = settings.tokens.component_appid if of_platform else cause.appid
        rows.setdefault((appid, cause.code), []).append(cause)
    for (appid, code), its in rows.items():
        if actions := _calls_of(its[0], settings):
            names = as_list(dict.fromkeys(_line(cause.merchant or cause.appid) for cause in its), 3)
            count = kind.unit_count(sum(cause.rows for cause in its))
            title = _("{name} ({appid}): {code}, {rows}. {remedy}", remedy=remedy_of_code(code).text)
            yield title.format(name=names, appid=appid, code=code, rows=count), appid, actions


def _mark(action: Action) -> str:
    """Return what makes a line a comment if it costs money."""
    return "# " if action.step.costs else ""


def _comment(text: Text, lang: Lang) -> str:
    return f"# {_line(text.of(lang))}"


def _line(text: str) -> str:
    """Return a text from outside on one line."""
    return " ".join(sanitize(text).split())

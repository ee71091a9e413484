"""The command that explains a code."""

from __future__ import annotations

from typing import Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.i18n import _
from tcb_ops.model import Owner, Reason


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("code")
@settings_options("json")
def explain(code: str, *, common: CommonOptions) -> int:
    """Explain what a code means and what to do.

    An errcode (85088, -501001) or one of the store's (SlowDown).
    """
    from tcb_ops.errcodes import COMPONENT_MARK, all_reasons, errcode
    from tcb_ops.features.diagnosis.verdicts import presumed_verdict
    from tcb_ops.features.why.codes import describe
    from tcb_ops.features.why.codes import explain as look_up
    from tcb_ops.reports.explanations import ETAG_MISMATCH

    _settings, console = common.start()
    number = code.removesuffix(COMPONENT_MARK)
    name, source, itself = "", "", None
    if (reason := {ETAG_MISMATCH: str(Reason.ETAG_MISMATCH)}.get(code, code)) in Reason.all():
        texts, name = all_reasons()[reason], reason
        meaning, action, facts = texts.meaning, texts.action, dict[str, Any](code=reason)
    else:
        of_component = number != code and number.removeprefix("-").isdecimal()
        entry = errcode(int(number), Owner.PLATFORM) if of_component else look_up(code)
        meaning, action, itself = entry.meaning, entry.action, describe(entry.decision, entry.scope)
        facts = {"code": entry.code, "known": entry.known, "decision": entry.decision, "scope": entry.scope}
        name, source = f"{entry.code} {entry.name}".rstrip() if entry.known else "", entry.source
    presumed = presumed_verdict(str(facts["code"]))
    if common.json:
        texts_shown = {"meaning": meaning.of(console.lang), "action": action.of(console.lang)}
        console.json(facts | texts_shown | {"who": str(presumed.who)})
        return 0
    console.print(_("{name}: {meaning}", name=name, meaning=meaning) if name else meaning)
    console.print(_("What to do: {action}", action=action))
    if str(facts["code"]) != "0":
        console.print(_("Who must act: {who}.", who=presumed.who_acts))
    if itself is not None:
        console.print(_("By itself, tcb-ops {itself}.", itself=itself))
    if source:
        console.print(_("Source: {source}", source=source))
    return 0

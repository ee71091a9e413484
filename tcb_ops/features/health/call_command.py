"""The command that calls any interface of the platform."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tcb_ops.cli import Command
from tcb_ops.cli.options import CommonOptions, settings_options
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _
from tcb_ops.secrets import MASK


@click.command(cls=Command, usual="as-component dry-run yes target json")
@click.argument("merchant")
@click.argument("interface")
@click.argument("body", metavar="[JSON|-]", default="{}")
@click.option("--as-component", is_flag=True, help="Use the component token, not the merchant's.")
@click.option("--dry-run", is_flag=True, help="Show the request without its token, and send nothing.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before a call that may change something on a live target."
)
@settings_options("target", "merchants", "tokens", "json")
def call(
    merchant: str,
    interface: str,
    body: str,
    *,
    as_component: bool,
    dry_run: bool,
    yes: bool,
    common: CommonOptions,
) -> int:
    """Call an interface of the platform with a merchant's token.

    For example: tcb-ops call 老城面馆 tcb/getenvinfo '{"env": "test2-4a89da"}'. MERCHANT is a name or appid; - if the
    interface takes the component token. The body is a JSON object; - reads it from stdin. Tokens and links in the answer
    are hidden.
    """
    from tcb_ops.interface_calls import READING, takes_component_token
    from tcb_ops.interface_calls import call as made

    settings, console = common.start()
    sent = _object(sys.stdin.read() if body == "-" else body)
    component = as_component or takes_component_token(interface)
    token = "component_access_token" if interface.startswith("cgi-bin/component/") else "access_token"
    request = f"POST {settings.run_target}/{interface}?{token}={MASK}"
    if dry_run:
        if common.json:
            console.json(
                {"target": settings.run_target, "interface": interface, "body": sent, "answer": None}
            )
        else:
            console.print(request)
            console.print(json.dumps(sent, ensure_ascii=False))
        return 0
    with common.open_target(console, settings, yes=yes) as settings:
        console.release()
        if not (settings.simulated or yes or interface in READING):
            question = _("{interface} may change something at {target}. Call it?")
            question = question.format(interface=interface, target=settings.api_base)
            if not sys.stdin.isatty() or body == "-":
                raise UsageError(question, _("Without a terminal, this requires {--yes}."))
            if not console.confirm(question):
                raise UsageError(_("Nothing was sent."))
        whose = None if merchant == "-" else merchant
        answer = made(whose, interface, sent, as_component=component, settings=settings)
    if common.json:
        shown = json.loads(json.dumps(answer, default=lambda _secret: MASK))
        console.json({"target": settings.run_target, "interface": interface, "body": sent, "answer": shown})
        return 0
    console.print(json.dumps(answer, ensure_ascii=False, indent=2, default=lambda _secret: MASK))
    return 0


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        fix = _("""Write it as in '{{"env": "test2-4a89da"}}'.""")
        raise UsageError(_("The body is not a JSON object."), fix)
    return value

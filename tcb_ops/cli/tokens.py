"""The command that serves tokens to other machines: tokens serve."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from tcb_ops.cli.options import CommonOptions, Group, WholeNumber, common_options, target_line
from tcb_ops.errors import UsageError
from tcb_ops.i18n import _, verbatim
from tcb_ops.model import SIMULATOR

if TYPE_CHECKING:
    from tcb_ops.wechat.tokens.server import Access


@click.group(cls=Group)
def tokens() -> None:
    """Serve tokens to other machines.

    serve: a token server for their source `service`.
    """


@tokens.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address to listen on."
)
@click.option(
    "--port",
    type=WholeNumber(0, 65535),
    metavar="N",
    default=8766,
    show_default=True,
    help="0 for any free one.",
)
@click.option("--cert", metavar="FILE", help="TLS certificate with its chain (PEM). Needed off this machine.")
@click.option("--key", metavar="FILE", help="Its private key (PEM, mode 0600).")
@common_options
def serve(host: str, port: int, cert: str | None, key: str | None, *, common: CommonOptions) -> int:
    """Serve the tokens of this machine's source to other machines.

    They use the source `service`, with the key that tokens.serve_key names. Press Ctrl-C to stop it; --verbose prints a line
    per request.
    """
    import asyncio

    from tcb_ops.formatting import sanitize
    from tcb_ops.signals import Ended
    from tcb_ops.wechat import open_source
    from tcb_ops.wechat.tokens.server import serve as serve_tokens
    from tcb_ops.wechat.tokens.server import serve_key, tls_context

    common.refuse_where(_("Tokens are served for every merchant: --where cannot narrow them."))
    settings, console = common.start()
    if settings.target == SIMULATOR:
        raise UsageError(
            _("The embedded simulator ends with its command: give --target the URL of a running one."),
            options=["--target"],
        )
    tls = tls_context(host, cert, key)
    secret = asyncio.run(serve_key(settings.tokens))

    def ready(url: str) -> None:
        if common.json:
            console.json({"url": url})
        else:
            console.print(url)
        console.info(target_line(settings))
        console.info(
            _(
                "Tokens of the source `{source}` are served. Press Ctrl-C to stop.",
                source=settings.tokens.source,
            )
        )

    def log(access: Access) -> None:
        when = datetime.fromtimestamp(access.at, settings.zone).isoformat(" ", "seconds")
        why = sanitize(access.why.of(console.lang))
        console.info(verbatim(f"{when} {access.appid} {access.status} {why}".rstrip()))

    raise Ended(
        serve_tokens(
            open_source(settings),
            secret,
            host=host,
            port=port,
            tls=tls,
            ready=ready,
            log=log if common.verbose else None,
        )
    )

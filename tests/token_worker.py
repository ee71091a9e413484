"""What the tests of many processes run in them: `token_worker.py rows|churn BASE STORE …`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tcb_ops.model import Link
from tcb_ops.settings import Settings, TokenSettings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError
from tcb_ops.wechat.tokens import open_source
from tcb_ops.wechat.transport import Transport


def settings_for(base: str, store: str) -> Settings:
    tokens = TokenSettings(
        source="component",
        sole_owner=True,
        component_appid="wxplatform",
        secret="env:PRACTICE_SECRET",
        ticket="env:PRACTICE_TICKET",
        store=Path(store),
    )
    return Settings(api_base=base, tokens=tokens)


async def rows(settings: Settings, tasks: int) -> bool:
    """Rows of one merchant at once, as a run makes them: a refused token is requested again once. Whether all are good."""
    source = open_source(settings)

    async with Transport(connections=tasks) as transport:
        wechat = PlatformClient(transport, settings.api_base)

        async def row(number: int) -> bool:
            token = (await source.token("wx0")).value
            answer = await wechat.upload_link("env-0", f"{os.getpid()}/{number}.png", token)
            if isinstance(answer, ApiError):
                token = (await source.token("wx0", token)).value
                answer = await wechat.upload_link("env-0", f"{os.getpid()}/{number}.png", token)
            return isinstance(answer, Link)

        try:
            return all(await asyncio.gather(*(row(number) for number in range(tasks))))
        finally:
            await source.aclose()


async def churn(settings: Settings) -> None:
    """Refresh for ever; say so after each."""
    while True:
        source = open_source(settings)
        token = await source.token("wx0")
        await source.token("wx0", token.value)
        await source.aclose()
        os.write(1, b".")


def fork_all(processes: int, work: tuple[Settings, int]) -> int:
    """Run `rows` in so many processes that begin at the same moment; how many were not all good."""
    waiting, go = os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            os.close(go)
            os.read(waiting, 1)  # ends when the parent has closed its end
            os._exit(0 if asyncio.run(rows(*work)) else 1)
        children.append(child)
    os.close(go)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    mode, base, store, *numbers = sys.argv[1:]
    if mode == "rows":
        processes, tasks = map(int, numbers)
        sys.exit(fork_all(processes, (settings_for(base, store), tasks)))
    asyncio.run(churn(settings_for(base, store)))

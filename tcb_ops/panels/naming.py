"""The library's sentences name the command line's options: what those are called in a panel, and which it has not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tcb_ops.i18n import Text
from tcb_ops.panels.html import is_command

LINKS_GO_TO = Text("“Links go to”", "“链接写入”")
REPORT = Text("the parameter report", "参数 report")
"""What `--out` is: in the panel that issues links, and where reports are exported."""
_CALLED = {
    "--api-base": Text("the setting api_base", "设置 api_base"),
    "--ledger": Text("the setting ledger", "设置 ledger"),
    "--new-run": Text("“begin anew”", "“重新开始”"),
    "--on-bad skip": Text("“go on without the rows that have problems”", "“跳过有问题的行”"),
    "--root": Text("“Local files”", "“本地文件夹”"),
    "--where": Text("the parameter where", "参数 where"),
}
_OPTION = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")


def here(text: Text, out: Text | None) -> Text:
    """Call options what they are called in a panel; `out` is what `--out` is there, None where there is nothing like it."""
    en, zh = text.en.split("\n"), text.zh.split("\n")
    for option, called in (_CALLED | ({"--out": out} if out is not None else {})).items():
        en = [line if is_command(line) else line.replace(option, called.en) for line in en]
        zh = [line if is_command(line) else line.replace(option, called.zh) for line in zh]
    return Text("\n".join(en), "\n".join(zh))


def _prose(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not is_command(line))


def beyond(texts: Iterable[Text]) -> Text | None:
    """Say which options these sentences still name: no panel has them, the command line does. None where there are none."""
    options = sorted({option for text in texts for option in _OPTION.findall(_prose(text.en))})
    if not options:
        return None
    return Text(
        f"A panel has no {', '.join(options)}: use the command line for that.",
        f"面板没有 {'、'.join(options)}：需要时请使用命令行。",
    )

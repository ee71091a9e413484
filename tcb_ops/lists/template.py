"""What an operator begins with: a merchants file and a workbook to write lists in."""

from __future__ import annotations

import io
from collections.abc import Sequence

from tcb_ops.i18n import Lang, Text

_LAST_ROW = 1_048_576
_ROOM = 1_000
"""Names that may be added to the merchants sheet and still be in the drop-down."""


def merchants_file() -> bytes:
    """A merchants file with its header only; a made-up merchant in it would be asked for by `audit`."""
    return "appid,name,env,default,owner,status\r\n".encode("utf-8-sig")


def list_template(names: Sequence[str], lang: Lang) -> bytes:
    """A workbook for a path list: text columns, and a drop-down of merchants that can be added to on a second sheet."""
    import xlsxwriter

    def say(en: str, zh: str) -> str:
        return Text(en, zh).of(lang)

    made = io.BytesIO()
    with xlsxwriter.Workbook(made, {"in_memory": True}) as book:
        text = book.add_format({"num_format": "@"})
        bold = book.add_format({"num_format": "@", "bold": True, "bottom": 1})
        sheet = book.add_worksheet(say("list", "清单"))
        known = book.add_worksheet(say("merchants", "商户"))
        # Text columns keep 007 and 1E5 as they are typed; numbers in path or file would be refused.
        sheet.set_column("A:A", 24, text)
        sheet.set_column("B:C", 44, text)
        sheet.write_row(
            0, 0, [say("merchant", "商户"), say("path", "上传路径"), say("file", "本地文件")], bold
        )
        sheet.freeze_panes(1, 0)
        known.set_column("A:A", 24, text)
        known.write_row(0, 0, [say("merchant", "商户")], bold)
        known.write_column(1, 0, names, text)
        sheet.data_validation(
            f"A2:A{_LAST_ROW}",
            {
                "validate": "list",
                "source": f"={known.get_name()}!$A$2:$A${len(names) + 1 + _ROOM}",
                "error_type": "warning",
                "error_title": say("Not in the list", "不在列表中"),
                "error_message": say(
                    "No merchant of this name is on the second sheet. Keep it anyway?",
                    "第二个工作表里没有这个商户。仍要保留吗？",
                ),
            },
        )
    return made.getvalue()

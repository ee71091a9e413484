"""What a cloud path may be: the file naming rules of the storage, as pure functions.

Sources: the storage guide's page "file naming rules" (developers.weixin.qq.com, wxcloud/guide/storage/naming) and
the object store's "object overview" (cloud.tencent.com/document/product/436/13324).
"""

from __future__ import annotations

import re
from urllib.parse import quote

from tcb_ops.model import Text

__all__ = [
    "MAX_PATH_BYTES",
    "header_problem",
    "is_media_type",
    "not_advised",
    "path_problem",
    "too_long_in_urls",
]

MAX_PATH_BYTES = 850
"""Both pages limit "the encoded length". Taken as UTF-8: the object overview defines a key as UTF-8 text in the same
list, and the form post sends it so. Percent-encoding is named only for later access; a path that is longer than
this in that form is warned about, not refused."""

_PLAIN = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*\-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:\s*;.*)?")
_DOTS = re.compile(r"(?:^|/)(\.{1,2})(?:/|$)")
_NOT_ADVISED = re.compile(r"[`^\"\\{}\[\]~%#><\u0080-\u00ff\u200b-\u200f\u2028-\u202e\u2060\ufeff]")


def path_problem(path: str) -> tuple[Text, Text] | None:
    r"""What is wrong with a trimmed path, and how to mend it; None where it may be sent.

    ==============================  ============================================
    path                            problem
    ==============================  ============================================
    a/b.png, 目录/图 1.png          none
    (empty)                         is empty
    /a.png                          begins with /
    \a.png                          begins with a backslash
    a/access_token=•••              hidden in a report, no name of a file
    a//b.png                        //
    ./a.png, a/../b.png             a . or .. segment
    a<TAB>b, a<ESC>b, a<DEL>b       a control character (24–27 are refused, the
                                    others break signatures and headers)
    over 850 bytes of UTF-8         too long
    ==============================  ============================================
    """
    if _PLAIN.fullmatch(path) and len(path) <= MAX_PATH_BYTES:
        return None
    if not path:
        return (
            Text("the path is empty", "路径为空"),
            Text("write the cloud path, e.g. banner/a.png", "请填写云端路径，例如 banner/a.png"),
        )
    if path[0] in "/\\":
        return (
            Text(f"the path begins with {path[0]}", f"路径以 {path[0]} 开头"),
            Text(f"take the {path[0]} off the front", f"请去掉开头的 {path[0]}"),
        )
    if found := _CONTROL.search(path):
        code = f"U+{ord(found.group()):04X}"
        return (
            Text(f"the path holds a control character ({code})", f"路径里有控制字符（{code}）"),
            Text(
                "take it out; a line break or tab may have got in by pasting",
                "请删掉它；可能是粘贴时带进了换行或制表符",
            ),
        )
    if "•••" in path:
        return (
            Text("the path holds •••: a report hid a token there", "路径里有 •••：报告在该处隐去了令牌"),
            Text(
                "take the row from the list itself, or run it again with tcb-ops retry",
                "请从原清单中取该行，或用 tcb-ops retry 重跑",
            ),
        )
    if "//" in path:
        return (
            Text("the path holds //", "路径里有连续的 //"),
            Text("write a single /", "请改成一个 /"),
        )
    if found := _DOTS.search(path):
        segment = found.group(1)
        return (
            Text(f"the path has a {segment} segment", f"路径里有 {segment} 这一级"),
            Text("write the path out in full, without . and ..", "请写出完整路径，不要用 . 和 .."),
        )
    if (size := len(path.encode())) > MAX_PATH_BYTES:
        return (
            Text(
                f"the path is {size:,} bytes long in UTF-8; {MAX_PATH_BYTES} are allowed",
                f"路径的 UTF-8 长度是 {size:,} 字节，最多 {MAX_PATH_BYTES} 字节",
            ),
            Text("shorten it (a Chinese character is 3 bytes)", "请缩短路径（一个汉字占 3 字节）"),
        )
    return None


def header_problem(value: str) -> tuple[Text, Text] | None:
    """What is wrong with a value that becomes a header of the object, and how to fix it; None where it may be sent."""
    found = _CONTROL.search(value)
    if found is None:
        return None
    code = f"U+{ord(found.group()):04X}"
    return (
        Text(f"the value holds a control character ({code})", f"值里有控制字符（{code}）"),
        Text(
            "take it out; a line break or tab may have got in by pasting",
            "请删掉它；可能是粘贴时带进了换行或制表符",
        ),
    )


def is_media_type(value: str) -> bool:
    """Whether a content type has the form `type/subtype`, with or without parameters."""
    return _MEDIA_TYPE.fullmatch(value) is not None


def not_advised(path: str) -> str:
    """The first character that the naming rules advise against (or that nobody can see); empty where there is none.

    Letters, digits, ``- ! _ . * /``, Chinese, and the characters that need care (``, : ; = & $ @ + ?`` and space,
    which tcb-ops encodes with care) pass.
    """
    found = _NOT_ADVISED.search(path)
    return found.group() if found else ""


def too_long_in_urls(path: str) -> bool:
    """Whether the path, allowed as it is, is over the limit once it stands percent-encoded in a link."""
    # A character is twelve bytes at most (%F0%9F%98%80), so that short paths need no encoding.
    return len(path) * 12 > MAX_PATH_BYTES and len(quote(path)) > MAX_PATH_BYTES

"""The message about an audit, and what each kind of group robot takes and answers. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tcb_ops.features.audit.result import AuditResult
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, _, ngettext, verbatim
from tcb_ops.model import is_simulated
from tcb_ops.reports.explanations import MARK, code_label
from tcb_ops.reports.findings import FindingLine, FindingSection
from tcb_ops.wechat.responses import HttpResponse

LONGEST_NAME = 40
"""Characters of a name, an environment or a note."""
LONGEST_REMARK = 120
"""Characters of a remark."""
LONGEST_LINE = 400
"""Bytes of a line above or below the environments: the report's path may be long."""
_MARKDOWN = str.maketrans("<>[]*`@#|", "＜＞［］＊｀＠＃｜")
"""Signs that mean something to a robot's markdown, and their full-width forms, which do not."""
_TEXT = str.maketrans("<>@", "＜＞＠")
"""Likewise in text: Feishu reads `<at user_id="all">` there, others `@all`."""
_ADDRESS = re.compile(r":(?=//)|(?<=\w)\.(?=[^\W\d_]{2})|(?<=\d)\.(?=\d+\.\d)")
"""The signs by which chat programs find an address, with or without `https://`, and make a link of it."""


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """A message in lines, so that it can be cut between them."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, bool], ...]
    """Each line, and whether it is an environment (else the title of those below it)."""
    tail: tuple[str, ...]
    lang: Lang

    def fit(self, most: int, size: Callable[[str], int] = lambda text: len(text.encode())) -> str:
        """Return the message with at most `most` bytes, cut at a line, with the count of what was left out.

        `size`: of a request with a text; without it, of the text in UTF-8.
        """
        whole = self._text(len(self.rows))
        if size(whole) <= most:
            return whole
        fitting = bisect(range(len(self.rows)), most, key=lambda rows: size(self._text(rows))) - 1
        return self._text(fitting) if fitting >= 0 else cut("\n".join([*self.head, *self.tail]), most)

    def _text(self, rows: int) -> str:
        """Return the message with its first rows, without a title below which nothing is left."""
        while rows and not self.rows[rows - 1][1]:
            rows -= 1
        left_out = sum(is_environment for _line, is_environment in self.rows[rows:])
        more = [_more(left_out).of(self.lang)] if left_out else []
        return "\n".join([*self.head, *(line for line, _ in self.rows[:rows]), *more, *self.tail])


def cut(text: str, most: int) -> str:
    """Return the beginning of a text in at most `most` bytes of UTF-8, without half a character."""
    raw = text.encode()
    return text if len(raw) <= most else raw[:most].decode(errors="ignore")


def _more(left: int) -> Text:
    return ngettext("… and {n:,} more environment", "… and {n:,} more environments", left)


def audit_message(
    result: AuditResult,
    report: str,
    manifest_sha256: str,
    lang: Lang,
    *,
    markdown: bool,
) -> AuditMessage:
    """Write the message about an audit; `report` is its page or folder, empty where there is none."""
    run = result.run
    title = _("Audit {id}", id=run.id).of(lang)
    strong = "**{}**" if markdown else "{}"
    head = [strong.format(f"{MARK} · {title}" if is_simulated(run.target) else title)]
    if result.stopped is not None:
        head.append(_plain(result.stopped.of(lang), markdown=markdown))
        head.append(_("It affects every merchant; the audit was stopped.").of(lang))
        rows: list[tuple[str, bool]] = []
    else:
        head.append(result.summary().of(lang))
        rows = [row for section in result.news() for row in _rows(section, strong, lang)]
    if result.previous is None and result.stopped is None:
        head.append(_("There is no earlier audit to compare with: everything counts as new.").of(lang))
    if result.previous is not None:
        head.append(_("Compared with audit {id}.", id=result.previous.id).of(lang))
    tail = []
    if report:
        tail.append(_("Report: {report}", report=report).of(lang))
    if manifest_sha256:
        tail.append(f"manifest sha256: {manifest_sha256}")
    return AuditMessage(
        title,
        tuple(cut(line, LONGEST_LINE) for line in head),
        tuple(rows),
        tuple(cut(line, LONGEST_LINE) for line in tail),
        lang,
    )


def trial_message(lang: Lang, *, markdown: bool, simulated: bool) -> AuditMessage:
    """Write the message of `tcb-ops notify --test`."""
    title = _("tcb-ops: test message").of(lang)
    strong = "**{}**" if markdown else "{}"
    head = (
        strong.format(f"{MARK} · {title}" if simulated else title),
        _("The message of the nightly audit will arrive here.").of(lang),
    )
    return AuditMessage(title, head, (), (), lang)


def _rows(section: FindingSection, strong: str, lang: Lang) -> list[tuple[str, bool]]:
    markdown = strong != "{}"
    title = f"{section.title.of(lang)} · {len(section.lines):,}"
    return [
        (strong.format(title), False),
        *((entry_line(line, lang, markdown=markdown), True) for line in section.lines),
    ]


def entry_line(line: FindingLine, lang: Lang, *, markdown: bool) -> str:
    """Return an environment's line of the message; long texts are cut."""
    label = code_label(line.code).of(lang) if line.code else ""
    remark = line.remark.of(lang) if line.remark is not None else ""
    cause = label if label == line.code else f"{line.code} {label}".strip()
    parts = [_cut(part, LONGEST_NAME) for part in (line.name, line.env, cause)]
    parts += [_cut(remark, LONGEST_REMARK), _cut(line.note, LONGEST_NAME)]
    shown = (_plain(part, markdown=markdown) for part in parts if part)
    return f"{'- ' if markdown else '  '}{' · '.join(shown)}"


def _cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters, which shows that it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(text: str, *, markdown: bool) -> str:
    """Return a text from outside on one line, without signs that a robot or a chat program would act on."""
    line = re.sub(r"\s+", " ", sanitize(text)).strip()
    line = _ADDRESS.sub(lambda sign: "：" if sign[0] == ":" else "．", line)
    return line.translate(_MARKDOWN if markdown else _TEXT)


LIMITS: Mapping[tuple[str, str], int] = {
    ("wecom", "text"): 2048,
    ("wecom", "markdown"): 4096,
    ("feishu", "text"): 20_000,
    ("feishu", "markdown"): 20_000,
    ("dingtalk", "text"): 20_000,
    ("dingtalk", "markdown"): 20_000,
}
"""Bytes. WeCom counts the content, the others the whole request."""
UNREADABLE = -1
"""In place of an errcode that is no integer."""
BUSY = frozenset({45009, 130101, 9499, 11232})
"""Codes that mean: too many messages, try again in a minute."""
_HINTS: Mapping[int, Text] = {
    93000: _("the robot's key is not valid: create its address again"),
    45009: _("too many messages: 20 a minute are allowed"),
    310000: _("the robot's security settings refuse it: check keyword, signature and IP addresses"),
    300001: _("the robot's access_token is not valid"),
    19001: _("the robot's address is not valid"),
    19021: _("the signature is wrong, or this machine's clock"),
    19022: _("this machine's address is not allowed"),
    19024: _("the robot asks for a keyword that the message lacks"),
}


def robot_body(kind: str, form: str, message: AuditMessage, secret: str, now: float) -> bytes:
    """Return the body of the request to a robot, with the message cut to what it takes."""
    most = LIMITS[kind, form]
    extra = _feishu_sign(secret, int(now)) if kind == "feishu" and secret else {}

    def body(text: str) -> bytes:
        return _encoded(_content(kind, form, message.title, text) | extra)

    if kind == "wecom":
        return body(message.fit(most))
    return body(message.fit(most, lambda text: len(body(text))))


def _content(kind: str, form: str, title: str, text: str) -> dict[str, Any]:
    if kind == "feishu":
        if form == "text":
            return {"msg_type": "text", "content": {"text": text}}
        return {"msg_type": "interactive", "card": {"elements": [{"tag": "markdown", "content": text}]}}
    if form == "text":
        return {"msgtype": "text", "text": {"content": text}}
    inner = {"title": title, "text": text} if kind == "dingtalk" else {"content": text}
    return {"msgtype": "markdown", "markdown": inner}


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _feishu_sign(secret: str, at: int) -> dict[str, str]:
    digest = hmac.new(f"{at}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": str(at), "sign": base64.b64encode(digest).decode()}


def dingtalk_url(url: str, secret: str, now: float) -> str:
    """Return a DingTalk robot's address with its signature."""
    at = round(now * 1000)
    digest = hmac.new(secret.encode(), f"{at}\n{secret}".encode(), hashlib.sha256).digest()
    return f"{url}&timestamp={at}&sign={quote(base64.b64encode(digest).decode(), safe='')}"


def webhook_signature(secret: str, body: bytes) -> str:
    """Return the value of X-Tcb-Ops-Signature: the body's HMAC-SHA256 in hex."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def refusal(kind: str, response: HttpResponse) -> tuple[Text, int] | None:
    """Return why a message was not accepted, and the errcode (0 for none); None where it was.

    ==========  ======  =====================================  ========
    kind        status  body                                   accepted
    ==========  ======  =====================================  ========
    any         not 2xx any                                    no
    a robot     2xx     errcode (Feishu: code, StatusCode) 0   yes
    a robot     2xx     another errcode                        no
    a robot     2xx     anything else, a web page              no
    webhook     2xx     an errcode or code other than 0        no
    webhook     2xx     a web page                             no
    webhook     2xx     anything else, nothing                 yes
    ==========  ======  =====================================  ========

    A code may be a number or a text, of one answer or of one in a list. An errcode that is neither 0 nor readable is a
    refusal; a webhook's `code` that is not a number, such as "ok", is no code.
    """
    if not 200 <= response.status < 300:
        return verbatim(f"HTTP {response.status}"), 0
    names = {"feishu": ("code", "StatusCode"), "webhook": ("errcode", "code")}.get(kind, ("errcode",))
    codes = list(_codes(response.body, names))
    code = next(filter(None, codes), 0)
    if code:
        hint = _HINTS.get(code)
        shown = verbatim(f"errcode {code}")
        return (shown if hint is None else _("errcode {code}: {hint}", code=code, hint=hint)), code
    if codes or (kind == "webhook" and not response.body.lstrip().startswith(b"<")):
        return None
    return _("it answered with something other than a robot's JSON: check the address"), 0


def _codes(body: bytes, names: tuple[str, ...]) -> Iterator[int]:
    """Yield the codes in an answer; UNREADABLE for an errcode that is no integer."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return
    for entry in answer if isinstance(answer, list) else [answer]:
        for name in names if isinstance(entry, dict) else ():
            values = entry.get(name)
            for value in values if isinstance(values, list) else [values]:
                if (
                    (type(value) is float and value.is_integer())
                    or type(value) is int
                    or (isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value))
                ):
                    yield int(value)
                elif name == "errcode" and value is not None:
                    yield UNREADABLE

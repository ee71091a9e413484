"""What a trial settles of the questions that no document answers (domain.md, "Could not confirm" 1-4). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tcb_ops.doctor.live_record_redacted import looks
from tcb_ops.doctor.live_result import REFRESHES, Trial
from tcb_ops.i18n import Text
from tcb_ops.wechat.cos import etag_verdict
from tcb_ops.wechat.transport import Exchange


@dataclass(frozen=True, slots=True)
class Settled:
    """One question, and what was seen of it."""

    number: int
    """As domain.md counts them."""
    question: Text
    seen: Text
    known: bool
    """False where it stays open."""


def settle(trial: Trial) -> list[Settled]:
    """Say what was seen of each question; where a step failed, that it stays open."""
    return [_pathname(trial), _success(trial), _lifetimes(trial), _limits(trial)]


def _pathname(trial: Trial) -> Settled:
    """Which pathname is signed.

    ===========================================  ====================================================
    seen                                         said
    ===========================================  ====================================================
    upload taken, a bent signature refused with  the store's own words, which are what is signed
    its FormatString
    upload taken, no FormatString                the URL's own pathname at least is taken
    upload refused with a FormatString           what the store would have signed: a mismatch
    no upload                                    open
    ===========================================  ====================================================
    """
    question = Text("1. The pathname that is signed", "1. 参与签名的 pathname")
    quoted = _format_string(trial)
    ids = _lists(trial)
    file_id = (
        Text("file_id ends in the path", "file_id 以路径结尾")
        if trial.link is not None and trial.link.file_id.endswith(f"/{trial.path}")
        else Text("file_id does NOT end in the path", "file_id 不以路径结尾")
    )
    rest = Text(f"{ids.en}; {file_id.en}", f"{ids.zh}；{file_id.zh}")
    if trial.link is None:
        return Settled(1, question, _OPEN, known=False)
    if trial.stored is None:
        if quoted is None:
            return Settled(
                1,
                question,
                Text(f"open: the upload was not taken. {rest.en}.", f"未定：上传未被接受。{rest.zh}。"),
                known=False,
            )
        seen = Text(
            f"the signature was refused; the store itself signs {quoted}. {rest.en}.",
            f"签名被拒绝；存储自己参与签名的是 {quoted}。{rest.zh}。",
        )
        return Settled(1, question, seen, known=True)
    if quoted is None:
        seen = Text(
            f"the store took the signature for a POST to the link's own URL, /<bucket>/<path>; it quoted no FormatString. {rest.en}.",
            f"向链接自身的地址 /<bucket>/<path> POST 时签名被接受；存储未给出 FormatString。{rest.zh}。",
        )
        return Settled(1, question, seen, known=False)
    seen = Text(
        f"the store took the signature, and to a bent one it quoted what it signs: {quoted}. {rest.en}.",
        f"签名被接受；对改动一位的签名，存储给出了参与签名的内容：{quoted}。{rest.zh}。",
    )
    return Settled(1, question, seen, known=True)


def _success(trial: Trial) -> Settled:
    question = Text("2. What a POST that succeeds answers", "2. POST 成功时的应答")
    if trial.stored is None:
        return Settled(2, question, _OPEN, known=False)
    exchange = next(one for one in _posts(trial) if one.status == trial.stored.http_status)
    etag = trial.stored.etag
    bare = etag.removeprefix("W/").strip('"')
    quotes = Text("quoted", "带引号") if etag.startswith(('"', 'W/"')) else Text("without quotes", "不带引号")
    verdict = {
        "same": Text("the file's MD5", "即文件的 MD5"),
        "different": Text("another MD5 than the file's", "与文件的 MD5 不同"),
        "unverified": Text("no MD5", "不是 MD5"),
    }[etag_verdict(etag, trial.stored.md5)]
    shape = looks(bare)
    names = ", ".join(sorted({name.lower() for name, _ in exchange.headers}))
    body = f"{len(exchange.body)} B"
    return Settled(
        2,
        question,
        Text(
            f"HTTP {exchange.status} without success_action_status, a body of {body}; ETag {quotes.en}, {shape.en}: {verdict.en}. Headers: {names}.",
            f"未带 success_action_status 时为 HTTP {exchange.status}，正文 {body}；ETag {quotes.zh}，{shape.zh}：{verdict.zh}。应答头：{names}。",
        ),
        known=True,
    )


def _lifetimes(trial: Trial) -> Settled:
    question = Text("3. How long a link and its token live", "3. 链接及其 token 的有效期")
    if trial.link is None:
        return Settled(3, question, _OPEN, known=False)
    parts = _parts(trial)
    span = trial.link.expires_at - trial.link.starts_at
    other = "" if parts.get("q-key-time") == parts.get("q-sign-time") else parts.get("q-key-time", "")
    key = (
        Text("q-key-time is the same", "q-key-time 与之相同")
        if not other
        else Text("q-key-time is another span", "q-key-time 是另一个时间段")
    )
    token = looks(trial.link.token.reveal())
    return Settled(
        3,
        question,
        Text(
            f"q-sign-time spans {span} s, {key.en}. The token ({token.en}) carries no end that one could read: its own life stays open.",
            f"q-sign-time 为 {span} 秒，{key.zh}。token（{token.zh}）中没有可读的到期时间：其自身的有效期仍未定。",
        ),
        known=True,
    )


def _limits(trial: Trial) -> Settled:
    question = Text("4. How many calls a day", "4. 每日调用上限")
    if not trial.quotas:
        return Settled(4, question, _OPEN, known=False)
    en, zh = [], []
    for interface, answer in trial.quotas.items():
        said = _quota(answer)
        en.append(f"{interface.removeprefix('/cgi-bin/component')}: {said.en}")
        zh.append(f"{interface.removeprefix('/cgi-bin/component')}：{said.zh}")
    known = all(answer is not None for answer in trial.quotas.values())
    if REFRESHES not in trial.quotas:
        en.append("api_authorizer_token: not asked, that needs component_appid")
        zh.append("api_authorizer_token：未查询，需要设置 component_appid")
        known = False
    return Settled(4, question, Text(f"{'; '.join(en)}.", f"{'；'.join(zh)}。"), known=known)


def _quota(answer: dict[str, Any] | None) -> Text:
    """A quota in words: its day, and its rates as they come."""
    if answer is None:
        return Text("refused", "被拒绝")
    day = _numbers(answer.get("quota"), ("daily_limit", "used", "remain"))
    parts = [f"daily_limit {day[0]}, used {day[1]}, remain {day[2]}"]
    for name in ("rate_limit", "component_rate_limit"):
        calls, seconds = _numbers(answer.get(name), ("call_count", "refresh_second"))
        if calls != "?":
            parts.append(f"{name} {calls}/{seconds} s")
    said = ", ".join(parts)
    return Text(said, said)


def _numbers(found: object, names: tuple[str, ...]) -> list[str]:
    values = found if isinstance(found, dict) else {}
    return [f"{values[name]:,}" if type(values.get(name)) is int else "?" for name in names]


def _posts(trial: Trial) -> Iterator[Exchange]:
    """The exchanges with the store: posts to the link's own address."""
    address = trial.link.url.reveal() if trial.link is not None else ""
    return (one for one in trial.exchanges if one.method == "POST" and one.url == address)


def _format_string(trial: Trial) -> str | None:
    """What COS signs, as it quotes it to a signature that does not fit: method and pathname, and both lists."""
    for one in _posts(trial):
        found = re.search(rb"<FormatString>([^<]{0,2000})</FormatString>", one.body)
        if found:
            text = found[1].decode(errors="replace").replace("\r", "")
            return repr(text)[1:-1]
    return None


def _parts(trial: Trial) -> dict[str, str]:
    text = trial.link.authorization.reveal() if trial.link is not None else ""
    return {name: value for name, _, value in (part.partition("=") for part in text.split("&"))}


def _lists(trial: Trial) -> Text:
    parts = _parts(trial)
    headers, params = parts.get("q-header-list", "?"), parts.get("q-url-param-list", "?")
    if not headers and not params:
        return Text(
            "q-header-list and q-url-param-list are empty", "q-header-list 与 q-url-param-list 均为空"
        )
    said = f"q-header-list={headers[:100]} q-url-param-list={params[:100]}"
    return Text(said, said)


_OPEN = Text("open: it did not come to that.", "未定：未进行到这一步。")

"""Why rows did not succeed, or an environment is not ready: one truth table from facts to a verdict, and how it is shown. Pure.

`questions` gathers the facts; `why`, `merchants check`, the audit, `doctor` and `explain` show what follows from them.
causes.csv has the causes: who must act, which facts prove one, and its texts; each code points to the one that it suggests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tcb_ops.catalogue import COMPONENT_MARK, ERRCODE, CauseEntry, all_causes, texts_of
from tcb_ops.details import DetailCode, as_detail
from tcb_ops.errors import StoppedError
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota, ReceivedRequest
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Bilingual, Lang, Text, _, as_clauses, as_list, ngettext
from tcb_ops.kinds import row_count
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import Asked, RunRecord
from tcb_ops.model import Merchant, Owner, Reason
from tcb_ops.secrets import redact

if TYPE_CHECKING:
    from rich.console import RenderableType

Member = TypeVar("Member")

NORMAL, HALTED = "NORMAL", "HALTED"
NO_TOKENS = "no_tokens"
"""In place of a reason: the token source has no token for any merchant."""
NOT_LISTED = "not_listed"
"""In place of a code: WeChat does not list the environment."""
NOT_SHARED = "-601013"
"""The errcode for an environment of another account, whose owner shares it."""
SKEWED = 300
"""Clock difference in seconds that makes links and tokens expire early: links last about 15 minutes."""
FULL_VERDICTS = 3
"""Causes shown with all their evidence and the text for the merchant; of more, so that they fit a screen, without."""
_OF_CODES = {NO_TOKENS: "token_source", NOT_LISTED: "env_gone"}
_PLATFORM_CODES = frozenset({"61004", "61005", "61006", "40125", "61011"})


class Actor(Enum):
    """Who must act: as a string the name, in small letters."""

    YOU = _("you")
    MERCHANT = _("the merchant")
    ADMINISTRATOR = _("your platform's administrator")
    """Of the third-party platform, on open.weixin.qq.com."""
    WECHAT = _("WeChat")
    NOBODY = _("nobody (it passes)")

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Issue:
    """A question that was not answered as asked: the code that stands for the reason, and its texts."""

    code: str
    """An errcode, or one of our own: `no_token`, `dead_token`, `no_answer` …"""
    meaning: Text
    action: Text
    errmsg: str = ""
    """As sent by the platform."""
    stop: StoppedError | None = None
    """The error that stops what is under way, where it concerns every merchant."""

    @property
    def errcode(self) -> int | None:
        """The code as a number, if it is an errcode."""
        return int(self.code) if ERRCODE.fullmatch(self.code) else None

    @property
    def reason(self) -> Text:
        """Why there is no answer, in a clause."""
        if self.errcode is not None:
            return _("{code}, {meaning}", code=self.code, meaning=self.errmsg or self.meaning)
        # The text of a token source, in place of an action, is a clause.
        from_source = self.code == Reason.NO_TOKEN and self is not NEEDS_COMPONENT
        return as_clauses((self.meaning, self.action)) if from_source else self.meaning


NEEDS_COMPONENT = Issue(
    Reason.NO_TOKEN,
    _("that needs the component token, and no component_appid is set"),
    _("Set component_appid under [tokens], and make sure that the token source can provide its token."),
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What WeChat answered about an account, and about a call; None for what was not asked."""

    environments: Mapping[str, str] | Issue | None = None
    """The account's environments, with the status of each."""
    quota: Quota | Issue | None = None
    """Of the link interface, today."""
    info: AuthorizerInfo | Issue | None = None
    request: ReceivedRequest | Issue | None = None
    """What the platform received in the call of a row."""
    link: Literal[True] | Issue | None = None
    """Whether a link is issued for the row; asked where all other answers say that the cause has gone."""
    clock: float | None = None
    """Seconds that the platform's clock is ahead of this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a merchant's environment, and how its rows ended."""

    merchant: Merchant
    answers: Answers = field(default_factory=Answers)
    code: str = ""
    """A code as in errcodes.csv; empty where no row is asked about."""
    path: str = ""
    """The row's cloud path."""
    about_component: bool = False
    """Whether the code is about the component token."""
    errmsg: str = ""
    rid: str = ""
    """Of the row's last call."""
    ended_at: float = 0.0
    """When the row ended, in Unix seconds."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """The status of environments that other accounts list."""
    appids: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By environment, the appids that have it in the merchants file."""
    proxied: bool = False
    """Whether calls go through a proxy of this machine's environment."""

    @property
    def own(self) -> bool:
        """Whether the environment is the platform's own."""
        return self.merchant.owner is Owner.PLATFORM

    @property
    def owner(self) -> Owner:
        """Whose token the code is about."""
        return Owner.PLATFORM if self.about_component else self.merchant.owner

    @property
    def listed(self) -> Mapping[str, str] | None:
        """The status of the environments that the account lists; None if it does not answer."""
        environments = self.answers.environments
        return None if isinstance(environments, Issue) else environments

    def has_others(self, env: str) -> bool:
        """Return whether the merchants file has an environment for other merchants."""
        return bool(set(self.appids.get(env, ())) - {self.merchant.appid})

    @property
    def status(self) -> str:
        """The environment's status, as the account or another one is told; empty if nobody lists it."""
        own = (self.listed or {}).get(self.merchant.env, "")
        return own or ("" if self.listed is None else self.elsewhere.get(self.merchant.env, ""))


def cause_of(facts: Facts) -> str:
    """Return the cause that the facts show, by its name in causes.csv; empty if nothing is wrong.

    `now` is what getenvinfo answers, `rows` the code of the rows; both suggest a cause. If `now` does not explain the rows,
    it is only the reason why their cause cannot be proven. Nothing has passed before a link was issued. The first line of the
    table that fits is the answer.
    """
    answers, listed, status = facts.answers, facts.listed, facts.status
    failed = answers.environments if isinstance(answers.environments, Issue) else None
    now, info, quota = failed.code if failed else "", answers.info, answers.quota
    works = listed is not None
    well = works and answers.link is True
    presumed_now = presumed(now, facts.merchant.owner) if now else ""
    rows = presumed(facts.code, facts.owner) if facts.code else presumed_now
    explains = failed is not None and _explains(failed, facts)
    missing = rows == "set_missing" or presumed_now == "set_missing"
    known = info if isinstance(info, AuthorizerInfo) and not facts.own else None
    left = quota.left if isinstance(quota, Quota) else None
    fault = as_detail(failed.meaning).code if failed and explains and now == Reason.NO_ANSWER else None
    early = {"token_stale", "link_expired", "clock"} & {rows, presumed_now}
    absent = works and not status
    table = (
        ("name_not_resolved", fault is DetailCode.NO_SUCH_HOST),
        ("proxy", fault is DetailCode.PROXY),
        ("no_tls", fault is DetailCode.NO_TLS),
        ("unreachable", fault is not None),
        ("ip_of_proxy", explains and presumed_now == "ip_not_registered" and facts.proxied),
        (presumed_now, explains and (now in _PLATFORM_CODES or now == NO_TOKENS)),
        ("token_wrong_kind", not works and isinstance(quota, Issue) and quota.code == "76022"),
        ("token_of_another", absent and bool(listed) and all(map(facts.has_others, listed or ()))),
        ("clock", bool(early) and abs(answers.clock or 0) > SKEWED),
        (presumed_now, presumed_now in {"component_token", "component_refused"}),
        ("component_token", facts.own and presumed_now == "token_stale"),
        (rows, rows in {"component_token", "component_refused"} and not works),
        ("passed", rows == "component_quota" and well and left != 0),
        ("component_quota", rows == "component_quota" or (facts.own and left == 0)),
        ("revoked", isinstance(info, Issue) and info.code == "61003" and not facts.own),
        ("passed", rows == "revoked" and well),
        ("other_platform", rows == "revoked" and known is not None and not works),
        ("set_unconfirmed", known is not None and known.may_upload and known.unconfirmed and not works),
        ("set_missing", known is not None and not known.may_upload),
        ("passed", missing and well and known is not None),
        ("set_unpublished", missing and known is not None),
        ("permission_unclear", missing and not isinstance(quota, Quota)),
        ("halted", status == HALTED),
        ("unavailable", status not in {"", NORMAL}),
        ("quota_used", left == 0),
        ("env_of_another", absent and bool(facts.code) and facts.has_others(facts.merchant.env)),
        ("no_env", absent and not listed and not facts.own and facts.code != NOT_SHARED),
        ("env_gone", absent),
        ("passed", rows == "quota_used" and left is not None and well),
        ("env_refused", works and rows == "env_gone"),
        ("passed", well and bool(rows) and "environments" in all_causes()[rows].proof),
        ("wechat_fails", explains and presumed_now == "wechat_busy"),
        (rows, True),
    )
    return next(cause for cause, fits in table if fits)


def seems_gone(facts: Facts) -> bool:
    """Return whether only a link call is left to tell whether the cause has gone."""
    issued = replace(facts, answers=replace(facts.answers, link=True))
    return facts.path != "" and facts.answers.link is None and cause_of(issued) == "passed"


def _explains(issue: Issue, facts: Facts) -> bool:
    """Return whether an issue of getenvinfo can be what ended the rows; without rows it is what is wrong."""
    if not facts.code:
        return True
    causes = {presumed(issue.code), presumed(facts.code)}
    return len(causes) == 1 or causes == {"no_token", "token_source"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why, on what evidence, and who must do what."""

    cause: str
    """Its name in causes.csv."""
    code: str
    """The code under which rows are counted, or that stands for the cause."""
    who: Actor
    meaning: Text
    action: Text
    merchant: Merchant
    """The line that was asked about."""
    evidence: tuple[Text, ...] = ()
    not_asked: tuple[Text, ...] = ()
    """What would prove it and could not be asked, each with the reason; without any, the cause is proven."""
    message: Text | None = None
    """What to tell the merchant, where the merchant must act."""
    errmsg: str = ""
    at: float = 0.0
    """When WeChat was asked, in Unix seconds; of what a ledger keeps."""
    asked: Asked | None = None
    """What the merchant was asked for already."""

    def reminded(self, asked: Mapping[tuple[str, str], Asked]) -> Verdict:
        """Return the verdict without advice to ask a merchant that was asked; `asked`: by appid and cause."""
        earlier = asked.get((self.merchant.appid, self.cause))
        if earlier is None:
            return self
        return replace(self, asked=earlier, action=earlier.text, message=None)

    @property
    def proven(self) -> bool:
        """Whether the facts that decide the cause were all told."""
        return not self.not_asked

    @property
    def who_acts(self) -> Text:
        """Who must act; `probably` without proof."""
        return self.who.value if self.proven else _("probably {who}", who=self.who.value)

    def lines(self, most: int | None = None) -> list[Text]:
        """Return the evidence, at most so many lines of it, and without proof why there is none."""
        if self.proven:
            return list(self.evidence[:most])
        return [*self.evidence[:most], _("Not proven: {reasons}", reasons=as_clauses(self.not_asked))]

    def to_json(self) -> dict[str, Any]:
        """Return what a ledger keeps: the code, whom it is about, and the lines in both languages."""
        about = {name: str(getattr(self.merchant, name)) for name in ("appid", "name", "env", "owner")}
        lines = {name: [[t.en, t.zh] for t in getattr(self, name)] for name in ("evidence", "not_asked")}
        asked = {"cause": self.cause, "code": self.code, "errmsg": self.errmsg, "at": self.at}
        return asked | {"merchant": about} | lines

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return all fields, for JSON and data frames."""
        return {
            "code": self.code,
            "errcode": int(self.code) if ERRCODE.fullmatch(self.code) else None,
            "meaning": self.meaning.of(lang),
            "action": self.action.of(lang),
            "errmsg": self.errmsg,
            "cause": self.cause,
            "who": str(self.who),
            "proven": self.proven,
            "evidence": [line.of(lang) for line in self.evidence],
            "not_asked": [line.of(lang) for line in self.not_asked],
            "message": self.message.of(lang) if self.message else None,
            "asked": {"at": self.asked.at, "operator": self.asked.operator, "how": self.asked.how}
            if self.asked
            else None,
        }


def verdict_of(facts: Facts) -> Verdict | None:
    """Return the verdict that the facts lead to; None if nothing is wrong."""
    name = cause_of(facts)
    if not name:
        return None
    stands, issue = all_causes()[name].code, facts.answers.environments
    code = facts.code or stands or name
    if not isinstance(issue, Issue):
        return _verdict(name, code, facts)
    if not facts.code and (presumed(issue.code, facts.merchant.owner) == name or not stands):
        code = issue.code
    return _verdict(name, code, facts, issue if issue.code == code else None)


def grouped(members: Iterable[tuple[Verdict, Member]]) -> list[tuple[Verdict, list[Member]]]:
    """Group by code and cause, and by what merchants were asked, the largest group first; its first verdict stands for it."""
    groups: dict[tuple[str, str, str], tuple[Verdict, list[Member]]] = {}
    for verdict, member in members:
        key = (verdict.code, verdict.cause, verdict.asked.text.en if verdict.asked else "")
        groups.setdefault(key, (verdict, []))[1].append(member)
    return sorted(groups.values(), key=lambda group: -len(group[1]))


def kept_verdicts(reader: LedgerReader, run: RunRecord) -> list[Verdict]:
    """Return the verdicts that a ledger keeps about a run, without those of causes that are not known here."""
    lines = run.answers.get("verdicts", ())
    asked = reader.asked(run.target) if lines else {}
    return [_read_verdict(line).reminded(asked) for line in lines if line["cause"] in all_causes()]


def _read_verdict(line: Mapping[str, Any]) -> Verdict:
    merchant = Merchant(**line["merchant"] | {"owner": Owner(line["merchant"]["owner"])})
    facts = Facts(merchant=merchant, code=line["code"], errmsg=line["errmsg"])
    texts = [tuple(Bilingual(*pair) for pair in line[name]) for name in ("evidence", "not_asked")]
    verdict = _verdict(line["cause"], line["code"], facts)
    return replace(verdict, evidence=texts[0], not_asked=texts[1], at=line.get("at", 0.0))


def presumed_verdict(code: str, appid: str = "", merchant: str = "", env: str = "") -> Verdict:
    """Return what a code alone suggests, without a question to WeChat."""
    owner = Owner.PLATFORM if code.endswith(COMPONENT_MARK) else Owner.MERCHANT
    facts = Facts(merchant=Merchant(appid, merchant, env, owner=owner), code=code)
    return _verdict(presumed(code, owner), code, facts)


def presumed(code: str, owner: Owner = Owner.MERCHANT) -> str:
    """Return the cause that a code suggests."""
    return _OF_CODES.get(code) or texts_of(code, owner).cause or "unknown"


def _verdict(name: str, code: str, facts: Facts, issue: Issue | None = None) -> Verdict:
    cause, who = all_causes()[name], Actor[all_causes()[name].who.upper()]
    if facts.own and who is Actor.MERCHANT:
        who = Actor.ADMINISTRATOR
    line = facts.merchant
    values = {"appid": line.appid or "–", "merchant": redact(line.name) or "–", "env": line.env or "–"}
    known = issue or texts_of(code, facts.owner)
    meaning, action, message = (
        text.format(**values) for text in (cause.meaning, cause.action, cause.message)
    )
    return Verdict(
        name,
        code,
        who,
        meaning if meaning.en else known.meaning,
        action if action.en else known.action,
        facts.merchant,
        tuple(_evidence(cause, facts))[:3],
        tuple(_missing_proof(cause, facts)),
        message if who is Actor.MERCHANT and message.en else None,
        facts.errmsg or (issue.errmsg if issue else ""),
    )


# --- evidence ---------------------------------------------------------------------------------------------------------

_ASKED = {
    "environments": "tcb/getenvinfo",
    "quota": "openapi/quota/get",
    "info": "api_get_authorizer_info",
    "request": "openapi/rid/get",
    "link": "tcb/uploadfile",
}
"""The interfaces that answer the questions, by the fields of Answers."""


def _is_evidence(name: str, facts: Facts) -> bool:
    """Return whether the answer to a question is evidence. An issue that cannot explain the rows is not."""
    answer = getattr(facts.answers, name, None)
    if name == "environments" and isinstance(answer, Issue):
        return _explains(answer, facts)
    if name == "link" and isinstance(answer, Issue):
        return answer.errcode is not None
    return answer is not None and (not isinstance(answer, Issue) or answer.code in {"61003", "76022"})


def _evidence(cause: CauseEntry, facts: Facts) -> Iterator[Text]:
    """Yield what was answered, a line each: first what proves the cause."""
    if "never" in cause.proof and facts.errmsg:
        yield _("errmsg: {errmsg}, rid: {rid}", errmsg=facts.errmsg, rid=facts.rid or "–")
    first = ("request",) if "never" in cause.proof else ()
    for name in dict.fromkeys(("link", *cause.proof, *first, "environments", "info")):
        answer = getattr(facts.answers, name, None)
        if not _is_evidence(name, facts) or (isinstance(answer, Issue) and answer.errcode is None):
            continue
        if isinstance(answer, int | float) and answer is not True:
            yield clock_text(answer)
        else:
            yield _("{interface}: {said}", interface=_ASKED[name], said=_said(answer, facts))


def _said(answer: object, facts: Facts) -> Text:
    env = facts.merchant.env
    match answer:
        case Issue():
            return answer.reason
        case True:
            return _("a link was issued")
        case Quota(left=None):
            return _("no daily limit is told")
        case Quota():
            return _("{left:,} of {limit:,} link calls left", left=answer.left, limit=answer.daily_limit)
        case AuthorizerInfo(may_upload=False):
            return _("permission set 49 is not granted")
        case AuthorizerInfo():
            waits = _("permission set 49 is granted and waits for confirmation")
            return waits if answer.unconfirmed else _("permission set 49 is granted")
        case ReceivedRequest():
            return answer.text
        case _ if not facts.status:
            return _("lists {listed}, not {env}", listed=as_list(facts.listed or ["–"], 3), env=env)
        case _:
            return _("{env} is {status}", env=env, status=facts.status)


def clock_text(offset: float) -> Text:
    """Say how far this machine's clock is from the target's, which is `offset` seconds ahead of it."""
    text = _("this machine's clock is {seconds:,.0f} s ahead of the target's")
    if offset > 0:
        text = _("this machine's clock is {seconds:,.0f} s behind the target's")
    return text.format(seconds=abs(offset))


def _missing_proof(cause: CauseEntry, facts: Facts) -> Iterator[Text]:
    """Yield what would prove the cause and was not told, with the reason."""
    never, issues = "never" in cause.proof, dict[str, Issue]()
    if never:
        yield _("no interface tells this")
    for name in ("environments", "request") if never else cause.proof:
        asked = getattr(facts.answers, name) is not None
        # Without an answer to getenvinfo nothing else is asked.
        first = name if asked or not isinstance(facts.answers.environments, Issue) else "environments"
        answer = getattr(facts.answers, first)
        if isinstance(answer, Issue) and not _is_evidence(first, facts):
            issues[first] = answer
        elif answer is None and not never and not (name == "info" and facts.own):
            yield _("{interface} was not asked", interface=_ASKED.get(name, name))
    if isinstance(link := facts.answers.link, Issue) and not _is_evidence("link", facts):
        issues["link"] = link
    for name, issue in issues.items():
        yield _("{interface}: {said}", interface=_ASKED[name], said=_said(issue, facts))


# --- in a terminal ----------------------------------------------------------------------------------------------------


def render_verdicts(
    verdicts: Sequence[tuple[Verdict, Sequence[str], int]], lang: Lang
) -> Iterator[RenderableType]:
    """Render causes, each with the names of its merchants and the number of its rows: who must act, what, and why."""
    from tcb_ops.reports.formats.terminal import Wrapped

    full = len(verdicts) <= FULL_VERDICTS
    for verdict, names, rows in verdicts:
        count = row_count(rows) if rows else ngettext("{n:,} line", "{n:,} lines", len(names))
        listed = as_list(dict.fromkeys(map(sanitize, names)), 3)
        head = [sanitize(verdict.code), count.of(lang), listed.of(lang)]
        yield Wrapped(" · ".join(head), bold=len(head[0]))
        yield Wrapped(sanitize(verdict.meaning.of(lang)))
        who = verdict.who_acts.of(lang)
        what = _("→ {who}: {action}", who=who, action=verdict.action).of(lang)
        yield Wrapped(sanitize(what), bold=len(who) + 2)
        for line in verdict.lines(None if full else 1):
            yield Wrapped(f"  {sanitize(line.of(lang))}", style="dim")
        if verdict.message is not None and full:
            text = _("Text for the merchant: {text}", text=verdict.message)
            yield Wrapped(f"  {sanitize(text.of(lang))}", style="italic")
        yield ""
    if not full:
        more = _(
            "Texts for merchants, and more evidence: {--json}, or one merchant, as in `tcb-ops why NAME`."
        )
        yield Wrapped(more.of(lang))

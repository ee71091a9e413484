"""The truth table from facts to a cause, and the catalogue of causes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tcb_ops.catalogue import all_causes, catalogue_lines, texts_of
from tcb_ops.details import DetailCode, detail
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota
from tcb_ops.features.health.verdicts import (
    Actor,
    Answers,
    Facts,
    Issue,
    cause_of,
    kept_verdicts,
    presumed,
    presumed_verdict,
    verdict_of,
)
from tcb_ops.hooks import features
from tcb_ops.i18n import Lang, verbatim
from tcb_ops.model import Merchant, Owner

TEA, OWN = Merchant("wxtea", "茶{env}<b>", "tea-1"), Merchant("wxp", "平台", "own-1", owner=Owner.PLATFORM)


def refused(code, meaning=None):
    return Issue(code, meaning or verbatim("m"), verbatim("do"))


def listed(status="NORMAL", env="tea-1"):
    return {env: status}


def no_answer(code):
    return refused("no_answer", detail(code, host="api.weixin.qq.com"))


SET, NO_SET = AuthorizerInfo("茶", frozenset({49})), AuthorizerInfo("茶", frozenset({18}))
UNCONFIRMED = AuthorizerInfo("茶", frozenset({49}), unconfirmed=True)
OTHERS = {"books-1": ("wxbooks",), "tea-1": ("wxtea",)}
SHARED = {"tea-1": ("wxtea", "wxbooks")}
LEFT, NONE_LEFT, UNLIMITED = Quota(5, 1, 4), Quota(5, 5, 0), Quota(0, 0, 0)

TABLE = [
    # rows, environments, quota, info, other facts → cause
    ("no_answer", no_answer(DetailCode.NO_SUCH_HOST), None, None, {}, "name_not_resolved"),
    ("no_answer", no_answer(DetailCode.PROXY), None, None, {}, "proxy"),
    ("no_answer", no_answer(DetailCode.NO_TLS), None, None, {}, "no_tls"),
    ("", no_answer(DetailCode.SILENT), None, None, {}, "unreachable"),
    ("", refused("61004"), None, None, {"proxied": True}, "ip_of_proxy"),
    ("", refused("61004"), None, None, {}, "ip_not_registered"),
    ("61005", refused("61006"), None, None, {}, "ticket"),
    ("", refused("no_tokens"), None, None, {}, "token_source"),
    ("no_token", refused("no_tokens"), None, None, {}, "token_source"),
    ("-601012", refused("no_tokens"), None, None, {}, "env_gone"),
    ("85088", no_answer(DetailCode.NO_SUCH_HOST), None, None, {}, "no_cloud"),
    ("61007", refused("61004"), None, None, {"proxied": True}, "permission_unclear"),
    ("40097", refused("-1"), None, None, {}, "row_wrong"),
    ("48001", refused("48001"), refused("76022"), SET, {}, "token_wrong_kind"),
    ("", listed(), refused("76022"), SET, {}, ""),
    ("-601012", listed(env="books-1"), None, SET, {"appids": OTHERS}, "token_of_another"),
    ("40001", refused("40001"), None, SET, {"clock": 301}, "clock"),
    ("40001", refused("40001"), None, SET, {"clock": -300}, "token_stale"),
    ("RequestTimeTooSkewed", listed(), None, SET, {"clock": -4000}, "clock"),
    ("48001", refused("48001"), None, None, {"merchant": OWN}, "component_refused"),
    ("40001", refused("40001"), None, None, {"merchant": OWN}, "component_token"),
    ("40001", refused("40001"), LEFT, None, {"about_component": True}, "component_token"),
    ("45009", refused("45009"), None, None, {"merchant": OWN}, "component_quota"),
    ("45009", listed(env="own-1"), NONE_LEFT, None, {"merchant": OWN}, "component_quota"),
    ("45009", listed(env="own-1"), LEFT, None, {"merchant": OWN}, "passed"),
    ("45009", listed(env="own-1"), UNLIMITED, None, {"merchant": OWN}, "passed"),
    ("45009", listed(), LEFT, SET, {"about_component": True}, "passed"),
    ("no_token", refused("no_token"), None, refused("61003"), {}, "revoked"),
    ("61003", listed(), None, SET, {}, "passed"),
    ("61003", refused("61003"), None, SET, {}, "other_platform"),
    ("61007", refused("61007"), None, UNCONFIRMED, {}, "set_unconfirmed"),
    ("", listed(), None, NO_SET, {}, "set_missing"),
    ("61007", listed(), LEFT, SET, {}, "passed"),
    ("61007", refused("61007"), LEFT, SET, {}, "set_unpublished"),
    ("61007", refused("61007"), LEFT, refused("no_token"), {}, "set_missing"),
    ("61007", refused("61007"), refused("48001"), refused("no_token"), {}, "permission_unclear"),
    ("-501005", listed("HALTED"), None, SET, {}, "halted"),
    ("", (), None, SET, {"elsewhere": {"tea-1": "HALTED"}}, "halted"),
    ("-501018", listed("UNAVAILABLE"), None, SET, {}, "unavailable"),
    ("", (), NONE_LEFT, SET, {}, "quota_used"),
    ("-601012", listed(env="tea-9"), None, SET, {"appids": SHARED}, "env_of_another"),
    ("", listed(env="tea-9"), None, SET, {"appids": SHARED}, "env_gone"),
    ("-601012", listed(env="tea-9"), None, SET, {}, "env_gone"),
    ("-601012", {}, None, SET, {}, "no_env"),
    ("-601013", {}, None, SET, {}, "env_gone"),
    ("", {}, None, SET, {"appids": SHARED}, "no_env"),
    ("-601012", {}, None, SET, {"appids": SHARED}, "env_of_another"),
    ("45009", listed(), LEFT, SET, {}, "passed"),
    ("45009", listed(), UNLIMITED, SET, {}, "quota_used"),
    ("-501005", listed(), None, SET, {}, "passed"),
    ("-601012", listed(), None, SET, {}, "env_refused"),
    ("40001", listed(), LEFT, SET, {}, "passed"),
    ("-1", refused("-1"), None, SET, {}, "wechat_fails"),
    ("-1", listed(), None, SET, {}, "passed"),
    ("40097", listed(), LEFT, SET, {}, "row_wrong"),
    ("", refused("48004"), None, SET, {}, "account_restricted"),
    ("-12345", listed(), LEFT, SET, {}, "unknown"),
    ("", refused("dead_token"), None, None, {}, "token_stale"),
    ("", refused("61003"), None, None, {"merchant": OWN}, "component_refused"),
    ("", refused("dead_token"), None, None, {"merchant": OWN}, "component_token"),
    ("", listed("FROZEN"), None, None, {}, "unavailable"),
    ("", listed(), None, refused("no_answer"), {}, ""),
    ("", listed(), None, AuthorizerInfo("茶", frozenset({64})), {}, ""),
    ("", listed(), LEFT, SET, {}, ""),
]


def read(line):
    ledger = SimpleNamespace(asked=lambda _target: {})
    return kept_verdicts(ledger, SimpleNamespace(answers={"verdicts": [line]}, target=""))


@pytest.mark.parametrize(("rows", "environments", "quota", "info", "others", "cause"), TABLE)
def test_the_truth_table(rows, environments, quota, info, others, cause):
    others = dict(others)
    answers = Answers(environments, quota, info, clock=others.pop("clock", None), link=True)
    facts = Facts(**{"merchant": TEA, "code": rows, "answers": answers} | others)
    assert cause_of(facts) == cause
    for link in (None, refused(rows)):
        told = cause_of(replace(facts, answers=replace(answers, link=link)))
        assert told != "passed"
        assert cause in {told, "passed"}
    verdict = verdict_of(facts)
    assert (verdict.cause if verdict is not None else "") == cause
    if verdict is not None:
        assert verdict.meaning.en
        assert verdict.action.zh
        assert len(read(verdict.to_json())) == 1


REASONS = ("reasons.csv", *filter(None, (feature.reasons for feature in features().values())))
TABLES = ("errcodes.csv", "storecodes.csv", *REASONS)


def test_every_code_points_to_a_cause_and_every_cause_has_texts_or_its_codes_have():
    causes = all_causes()
    assert {cause.who for cause in causes.values()} == set(map(str, Actor))
    for cause in causes.values():
        assert bool(cause.message.english) == bool(cause.message.chinese) == (cause.who == "merchant")
    for line in (line for table in TABLES for line in catalogue_lines(table)):
        code = line.get("errcode") or line.get("code") or line.get("reason")
        assert line["cause"] in causes or code == "0"
        for owner in Owner:
            texts = texts_of(code, owner)
            for text in (texts.meaning, texts.action):
                assert text.en, code
                assert text.zh, code


def test_a_text_is_written_once():
    """What a line's cause says already, the line leaves out."""
    for line in (line for table in TABLES for line in catalogue_lines(table)):
        cause = all_causes().get(line["cause"])
        if cause is not None:
            for name in ("meaning", "action"):
                assert not line[f"{name}_en"] or line[f"{name}_en"] != getattr(cause, name).english, line


def test_no_text_sends_anybody_to_wechat_devtools():
    """A merchant that has authorized 云开发 to a platform cannot open its console there; the platform's project can."""
    texts = [
        text for table in (*TABLES, "causes.csv") for line in catalogue_lines(table) for text in line.values()
    ]
    assert [text for text in texts if "DevTools" in text or "开发者工具" in text] == []


def test_a_text_for_a_merchant_takes_any_name_and_a_verdict_survives_the_ledger():
    facts = Facts(merchant=TEA, code="-501005", answers=Answers(listed("HALTED"), None, SET))
    verdict = verdict_of(facts)
    assert verdict.message.en.startswith("茶{env}<b>: your cloud environment tea-1 is suspended")
    (again,) = read(json.loads(json.dumps(verdict.to_json())))
    assert [again.as_dict(lang) for lang in Lang] == [verdict.as_dict(lang) for lang in Lang]
    assert read(verdict.to_json() | {"cause": "of a newer version"}) == []


UNPROVEN = [
    (refused("no_tokens", verbatim("the server says 403")), "tcb/getenvinfo: the server says 403"),
    (refused("no_token"), "tcb/getenvinfo: m; do"),
    (refused("40001"), "tcb/getenvinfo: 40001, m"),
]


@pytest.mark.parametrize(("issue", "reason"), UNPROVEN)
def test_what_cannot_be_asked_is_said_and_is_not_the_cause_of_rows_that_ended_otherwise(issue, reason):
    verdict = verdict_of(Facts(merchant=TEA, code="-601012", answers=Answers(issue)))
    assert (verdict.cause, verdict.evidence) == ("env_gone", ())
    assert [line.en for line in verdict.lines()] == [f"Not proven: {reason}"]


def test_an_answer_that_proves_nothing_is_said_once():
    answers = Answers(listed(), refused("48001"), SET)
    lines = [line.en for line in verdict_of(Facts(merchant=TEA, code="45009", answers=answers)).lines()]
    assert [line for line in lines if "quota" in line] == ["Not proven: openapi/quota/get: 48001, m"]


def test_a_code_alone_proves_nothing_where_facts_could():
    assert presumed("61007") == "set_missing"
    assert (presumed_verdict("61007").who, presumed_verdict("61007").proven) == (Actor.MERCHANT, False)
    assert presumed_verdict("40097").proven
    assert verdict_of(Facts(merchant=OWN, code="-501005")).who is Actor.ADMINISTRATOR

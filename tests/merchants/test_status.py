"""The verdict over one line, from what was answered."""

import pytest

from tcb_ops.errcodes import errcode
from tcb_ops.i18n import Lang
from tcb_ops.merchants.status import Issue, MerchantAnswers, judge
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.responses import AuthorizerInfo, CloudEnvironment, Quota

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
OWN = Merchant("wxtea", "平台", "plat-1", owner=Owner.PLATFORM)
NORMAL = (CloudEnvironment("tea-1", "NORMAL"),)
SET_49, SET_64, NO_SET = (
    AuthorizerInfo("茶", frozenset({18, 49})),
    AuthorizerInfo("茶", frozenset({64})),
    AuthorizerInfo("茶", frozenset({18})),
)


def issue(code):
    known = errcode(int(code)) if code.lstrip("-").isdigit() else errcode(0)
    return Issue(code, known.meaning, known.action)


CASES = {
    # answered: environments, info, quota → token, permission, cloud, status, codes
    "all well": ((NORMAL, SET_49, Quota(10, 3, 7)), (True, True, True, "NORMAL", ())),
    "set 64 will do": ((NORMAL, SET_64, None), (True, True, True, "NORMAL", ())),
    "no component token": ((NORMAL, None, None), (True, None, True, "NORMAL", ())),
    "no limit known": ((NORMAL, SET_49, Quota(0, 0, 0)), (True, True, True, "NORMAL", ())),
    "used up": ((NORMAL, SET_49, Quota(10, 10, 0)), (True, True, True, "NORMAL", ("45009",))),
    "quota not told": ((NORMAL, SET_49, issue("76022")), (True, True, True, "NORMAL", ())),
    "no token": ((issue("no_token"), SET_49, None), (False, True, None, "", ("no_token",))),
    "dead token": ((issue("dead_token"), None, None), (False, None, None, "", ("dead_token",))),
    "revoked": ((issue("61003"), issue("61003"), None), (False, None, None, "", ("61003",))),
    "set not granted": ((issue("61007"), NO_SET, None), (True, False, None, "", ("61007",))),
    "set not granted, unasked": ((issue("48001"), None, None), (True, False, None, "", ("48001",))),
    "set not granted, yet answered": ((NORMAL, NO_SET, None), (True, False, True, "NORMAL", ("61007",))),
    "no 云开发": ((issue("85088"), SET_49, None), (True, True, False, "", ("85088",))),
    "no 云开发, no set": ((issue("85088"), NO_SET, None), (True, False, False, "", ("61007", "85088"))),
    "halted": (
        ((CloudEnvironment("tea-1", "HALTED"),), SET_49, None),
        (True, True, True, "HALTED", ("halted",)),
    ),
    "unavailable": (
        ((CloudEnvironment("tea-1", "UNAVAILABLE"),), None, None),
        (True, None, True, "UNAVAILABLE", ("unavailable",)),
    ),
    "a new word": (
        ((CloudEnvironment("tea-1", "FROZEN"),), None, None),
        (True, None, True, "FROZEN", ("unavailable",)),
    ),
    "not its environment": (
        ((CloudEnvironment("x", "NORMAL"),), None, None),
        (True, None, True, "", ("not_listed",)),
    ),
    "no environments": (((), None, None), (True, None, True, "", ("not_listed",))),
    "no answer": ((issue("no_answer"), issue("no_answer"), None), (None, None, None, "", ("no_answer",))),
    "info not answered": ((NORMAL, issue("no_answer"), None), (True, None, True, "NORMAL", ())),
    "an unknown code": ((issue("-12345"), None, None), (None, None, None, "", ("-12345",))),
}


@pytest.mark.parametrize(("answered", "expected"), CASES.values(), ids=CASES)
def test_the_table_of_answers_and_verdicts(answered, expected):
    environments, info, quota = answered
    state = judge(TEA, MerchantAnswers(environments, quota, info), {})
    codes = tuple(t.code for t in state.issues)
    assert (state.token, state.permission, state.cloud, state.env_status, codes) == expected
    assert state.works is not bool(codes)


@pytest.mark.parametrize("status", ["NORMAL", "HALTED"])
def test_a_shared_environment_has_the_status_that_its_owner_is_told(status):
    state = judge(TEA, MerchantAnswers((), None, SET_49), {"tea-1": status})
    assert (state.env_status, state.works) == (status, status == "NORMAL")


@pytest.mark.parametrize("code", ["48001", "61007", "61003"])
@pytest.mark.parametrize("lang", Lang)
def test_an_environment_of_the_platforms_own_never_lacks_a_permission_set(code, lang):
    state = judge(OWN, MerchantAnswers(issue(code), None, NO_SET), {})
    assert state.permission is None
    if code != "61003":
        assert "49" not in state.issues[0].meaning.of(lang) + state.issues[0].action.of(lang)
    well = judge(OWN, MerchantAnswers((CloudEnvironment("plat-1", "NORMAL"),), None, NO_SET), {})
    assert (well.works, well.permission) == (True, None)


def test_a_merchant_that_has_left_does_not_work_and_is_no_trouble():
    from tcb_ops.merchants.status import MerchantState

    state = MerchantState(Merchant("wx", "茶", "e", left=True))
    assert (state.works, state.issues, state.as_dict(Lang.ZH)["left"]) == (False, (), True)


def test_an_environment_that_is_not_the_platforms_is_told_so():
    state = judge(OWN, MerchantAnswers((CloudEnvironment("other", "NORMAL"),)), {})
    assert [t.code for t in state.issues] == ["not_listed"]
    assert "clear owner" in state.issues[0].action.en

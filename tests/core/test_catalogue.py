"""The catalogue holds every code that the interface documents list, in both languages, with the right decision."""

from __future__ import annotations

import re

import pytest

from tcb_ops.catalogue import (
    Decision,
    Scope,
    all_errcodes,
    all_reasons,
    all_store_codes,
    errcode,
    store_code,
)
from tcb_ops.model import Owner

CJK = re.compile(r"[\u4e00-\u9fff]")

CORE = (40001, 0, -1, -1000, 40014, 40097, 40101, 41001, 43002, 44002, 47001, 85088)

DECISIONS: dict[tuple[Decision, Scope], tuple[int, ...]] = {
    (Decision.GOOD, Scope.ROW): (0,),
    (Decision.REFRESH, Scope.APPID): (40001, 40014, 42001),
    (Decision.RETRY, Scope.ROW): (-1, -1000, -501001, -501002, -503001, -601001, -601003, -601008),
    (Decision.SLOW, Scope.APPID): (45011,),
    (Decision.SLOW, Scope.ENV): (-501004,),
    (Decision.STOP, Scope.PLATFORM): (61004, 61005, 61006, 40125, 61011),
    (Decision.STOP, Scope.ENV): (
        *(-501003, -501005, -501015, -501016, -501017, -501018, -501019),
        *(-503002, -601012, -601013),
    ),
    (Decision.STOP, Scope.APPID): (
        *(85088, 61003, 61007, 48001, 45009),
        *(48004, 48006, 50002, 42002, 42007, 61009, 61010, 61016, 61017, 61023, 61028),
        *(40164, 45035, 89503, 85107, -601004, -601010, -601011, -601018, -601026, -601048, -601049),
    ),
    (Decision.FIX, Scope.ROW): (
        *(40097, 40101, 41001, 43002, 44002, 47001),
        *(40002, 40013, 41002, 41004, 41018, 61014, 61024),
        *(-501000, -501007, -501009, -501020, -501021, -503003, -601002),
        *(-604100, -604101, -604102, -604103, -604104, -403001, -605101),
        *(76001, 76002, 76003, 76021, 76022),
    ),
}

STORE_DECISIONS: dict[tuple[Decision, Scope], tuple[str, ...]] = {
    (Decision.NEW_LINK, Scope.ROW): ("ExpiredToken", "RequestExpired"),
    (Decision.NEW_LINK_ONCE, Scope.ENV): (
        *("RequestTimeTooSkewed", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        *("AccessDenied", "AccessForbidden"),
    ),
    (Decision.RETRY, Scope.ROW): (
        *("RequestTimeout", "UserNetworkTooSlow", "IncompleteBody"),
        *("InternalError", "ServiceUnavailable"),
    ),
    (Decision.RETRY_ONCE, Scope.ROW): ("BadDigest",),
    (Decision.SLOW, Scope.ENV): ("SlowDown",),
    (Decision.STOP, Scope.ENV): (
        *("PaymentRequired", "NoSuchBucket", "NoSuchKey", "BucketLocked"),
        *("UnavailableForLegalReasons", "DomainAuditFailed"),
    ),
    (Decision.FIX, Scope.ROW): (
        *("PathConflict", "ObjectLocked", "UploadConflict"),
        *("EntityTooLarge", "EntityTooSmall", "EntitySizeNotMatch", "KeyTooLong", "InvalidObjectName"),
        *("InvalidURI", "InvalidArgument", "MalformedPOSTRequest", "IncorrectNumberOfFilesInPostRequest"),
        *("MissingRequestBodyError", "UnexpectedContent", "InvalidPolicyDocument"),
        *("MissingContentLength", "PreconditionFailed", "MethodNotAllowed"),
    ),
}

STORE_STATUSES = {
    **dict.fromkeys(("PaymentRequired",), 402),
    **dict.fromkeys(("RequestExpired", "RequestTimeTooSkewed", "InvalidAccessKeyId"), 403),
    **dict.fromkeys(("SignatureDoesNotMatch", "AccessDenied", "AccessForbidden"), 403),
    **dict.fromkeys(("NoSuchBucket", "NoSuchKey"), 404),
    **dict.fromkeys(("MethodNotAllowed",), 405),
    **dict.fromkeys(("PathConflict", "ObjectLocked", "BucketLocked", "UploadConflict"), 409),
    **dict.fromkeys(("MissingContentLength",), 411),
    **dict.fromkeys(("PreconditionFailed",), 412),
    **dict.fromkeys(("UnavailableForLegalReasons", "DomainAuditFailed"), 451),
    **dict.fromkeys(("InternalError",), 500),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable"), 503),
}
"""All others come with 400."""


def test_codes_and_names_are_unique():
    entries = all_errcodes()
    assert len({entry.code for entry in entries}) == len(entries)
    assert len({entry.name for entry in entries}) == len(entries)
    assert len({entry.code for entry in all_store_codes()}) == len(all_store_codes())


def test_the_interface_pages_own_table_comes_first_and_alone_is_core():
    assert tuple(entry.code for entry in all_errcodes() if entry.core) == CORE
    assert tuple(entry.code for entry in all_errcodes()[: len(CORE)]) == CORE


PAGE = (
    "developers.weixin.qq.com/doc/oplatform/openApi/cloudbase-common/file-management/api_getuploadtcbfilelink"
)


def test_a_source_that_names_an_interface_has_the_address_of_its_page():
    """As wechat/client.py calls it, `tcb/uploadfile`; api_getuploadfilelink is componenttcb's."""
    sources = [entry.source for entry in all_errcodes() if re.match(r".+ page \(", entry.source)]
    assert len(sources) == len(CORE)
    assert all(source.startswith(f"getUploadTcbFileLink page ({PAGE})") for source in sources)


def test_advice_about_the_cloud_console_says_where_a_platform_finds_it():
    """A merchant that has authorized 云开发 to the platform cannot open its own."""
    texts = [entry.action for entry in (*all_errcodes(), *all_store_codes(), *all_reasons().values())]
    about = [text for text in texts if "cloud console" in text.en or "云开发控制台" in text.zh]
    assert len(about) > 10
    for text in about:
        for words in (text.en, text.zh):
            assert "extAppid" in words
            assert "tcb.cloud.tencent.com" in words


def test_the_advice_for_85088_is_the_order_that_the_interface_asks_for():
    """Call, the administrator's confirmation, the same call again, an environment that costs money, a wait."""
    advice = errcode(85088).action
    steps = (
        *("createclouduser", "-601049", "-601048", "confirm", "again", "createenvandresource"),
        *("pay-as-you-go", "ten minutes", "try again"),
    )
    assert sorted(map(advice.en.index, steps)) == list(map(advice.en.index, steps))
    for code in (-601026, -601048, -601049):
        entry = errcode(code)
        assert entry.known
        assert entry.meaning.en.startswith("tcb/createclouduser: ")
        assert "same call again" in entry.action.en
        assert "再次发起同一调用" in entry.action.zh


@pytest.mark.parametrize("entry", [*all_errcodes(), *all_store_codes()], ids=lambda entry: str(entry.code))
def test_every_code_is_known_and_says_what_it_means_and_what_to_do(entry):
    assert entry.known
    if entry in all_store_codes():
        assert entry.http_status == STORE_STATUSES.get(entry.code, 400)
    else:
        assert re.fullmatch(r"[a-z][a-z0-9_]{1,39}", entry.name)
        assert entry.source
    for text in (entry.meaning, entry.action):
        assert text.en.endswith(".")
        assert text.zh.endswith("。")


@pytest.mark.parametrize(
    ("entries", "decisions"),
    [(all_errcodes(), DECISIONS), (all_store_codes(), STORE_DECISIONS)],
    ids=["errcodes", "store codes"],
)
def test_each_code_has_its_decision_and_scope_and_none_is_left_out(entries, decisions):
    expected = {code: pair for pair, codes in decisions.items() for code in codes}
    assert {entry.code: (entry.decision, entry.scope) for entry in entries} == expected


@pytest.mark.parametrize("code", [-501999, 1, 99999, -1001])
def test_an_unknown_errcode_is_shown_as_it_is_and_not_retried(code):
    entry = errcode(code)
    assert not entry.known
    assert (entry.code, entry.decision, entry.scope) == (code, Decision.FIX, Scope.ROW)
    assert str(code) in entry.meaning.en
    assert "errmsg" in entry.action.en
    assert "openapi/rid/get" in entry.action.en


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Request has expired", "RequestExpired"),
        ("request HAS Expired.", "RequestExpired"),
        (
            "You post object request has been expired, expiration time: a but the time now : b",
            "RequestExpired",
        ),
        ("Access Denied.", "AccessDenied"),
        ("", "AccessDenied"),
    ],
)
def test_access_denied_is_an_expired_link_only_where_its_message_says_so(message, code):
    assert store_code("AccessDenied", message, 403).code == code


def test_the_message_of_any_other_code_changes_nothing():
    assert store_code("InvalidArgument", "Request has expired", 400).decision is Decision.FIX


@pytest.mark.parametrize(
    ("code", "status", "decision"),
    [
        ("NewCode", 500, Decision.RETRY),
        ("NewCode", 599, Decision.RETRY),
        ("NewCode", 499, Decision.FIX),
        ("NewCode", 600, Decision.FIX),
        ("NewCode", 200, Decision.FIX),
        ("NewCode", 0, Decision.FIX),
        ("", 502, Decision.RETRY),
        ("", 403, Decision.FIX),
    ],
)
def test_an_unknown_store_code_is_retried_only_with_a_5xx(code, status, decision):
    entry = store_code(code, "<html>", status)
    assert not entry.known
    assert (entry.code, entry.http_status) == (code, status)
    assert (entry.decision, entry.scope) == (decision, Scope.ROW)
    assert (code or f"HTTP {status}") in entry.meaning.en


def test_a_known_store_code_keeps_its_decision_whatever_the_status():
    """An <Error> body may come with a 200."""
    assert store_code("KeyTooLong", "", 500).decision is Decision.FIX
    assert store_code("InternalError", "", 200).decision is Decision.RETRY


@pytest.mark.parametrize("entry", all_errcodes(), ids=lambda entry: str(entry.code))
def test_in_an_environment_of_the_platforms_own_no_code_speaks_of_a_permission_set(entry):
    own = errcode(entry.code, Owner.PLATFORM)
    assert (own.code, own.decision, own.scope) == (entry.code, entry.decision, entry.scope)
    if entry.decision in {Decision.REFRESH, Decision.STOP}:
        for text in (own.meaning, own.action):
            assert "set 49" not in text.en
            assert "权限集 49" not in text.zh
            assert "authorizer_access_token" not in text.en

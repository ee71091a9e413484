"""What a trial settles, also where it did not get far; and which object is deleted."""

import pytest

from tcb_ops.doctor.live import _file_id
from tcb_ops.doctor.live_findings import settle
from tcb_ops.doctor.live_result import REFRESHES, Trial
from tcb_ops.model import Link, Owner, Secret
from tcb_ops.wechat.cos import StoredObject, StoreRefusal
from tcb_ops.wechat.transport import Exchange

URL = "https://cos.ap-shanghai.myqcloud.com/7465-tea-1-1/tcb-ops-doctor/x.txt"
SIGNED = "q-sign-algorithm=sha1&q-ak=AKID&q-sign-time=1;901&q-key-time=1;901&q-header-list=&q-url-param-list=&q-signature=ab"
PATH = "tcb-ops-doctor/x.txt"
OWN_ID = f"cloud://tea-1.7465-tea-1-1/{PATH}"
QUOTED = b"<Error><FormatString>post\n/7465-tea-1-1/tcb-ops-doctor/x.txt\n\n\n</FormatString></Error>"
STORED = StoredObject(204, '"d41d8cd98f00b204e9800998ecf8427e"', "d41d8cd98f00b204e9800998ecf8427e")
REFUSED = StoreRefusal(403, "SignatureDoesNotMatch", "", "")


def link(file_id=OWN_ID, signed=SIGNED):
    return Link(Secret(URL), Secret("t"), Secret(signed), file_id, Secret("c"), 901, 1)


def trial(**fields):
    return Trial("tea-1", Owner.MERCHANT, PATH, b"x", 0.0, **fields)


def post(status, body=b""):
    return Exchange("POST", URL, 1, 0, 0, status, (("ETag", "x"),), body)


@pytest.mark.parametrize(
    ("fields", "known", "said"),
    [
        ({}, False, "open"),
        ({"link": link()}, False, "open: the upload was not taken"),
        (
            {"link": link(), "refused": REFUSED, "exchanges": [post(403, QUOTED)]},
            True,
            "the signature was refused",
        ),
        ({"link": link(), "stored": STORED, "exchanges": [post(204)]}, False, "quoted no FormatString"),
        (
            {"link": link(), "stored": STORED, "exchanges": [post(204), post(403, QUOTED)]},
            True,
            "post\\n/7465-tea-1-1/",
        ),
        (
            {"link": link("cloud://tea-1.b/testupload", SIGNED.replace("list=&q-url", "list=host&q-url"))},
            False,
            "q-header-list=host q-url-param-list=; file_id does NOT end in the path",
        ),
    ],
    ids=["no link", "no upload", "refused", "taken", "taken and quoted", "another file_id"],
)
def test_the_pathname(fields, known, said):
    first = settle(trial(**fields))[0]
    assert (first.number, first.known, said in first.seen.en) == (1, known, True), first.seen.en
    assert bool(first.seen.zh)


def test_lives_and_limits():
    quotas = {
        "/tcb/uploadfile": {"quota": {"daily_limit": 1000, "used": 3, "remain": 997}, "rate_limit": "odd"},
        REFRESHES: None,
    }
    _, success, lives, limits = settle(trial(link=link(), quotas=quotas))
    assert not success.known
    assert "q-sign-time spans 900 s, q-key-time is the same" in lives.seen.en
    assert limits.seen.en == (
        "/tcb/uploadfile: daily_limit 1,000, used 3, remain 997; /api_authorizer_token: refused."
    )
    assert not limits.known
    other = settle(trial(link=link(signed=SIGNED.replace("q-key-time=1;901", "q-key-time=1;61"))))[2]
    assert "q-key-time is another span" in other.seen.en


@pytest.mark.parametrize(
    ("told", "deleted"),
    [
        (OWN_ID, OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/testupload", OWN_ID),
        ("", OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/other-tcb-ops-doctor/x.txt.bak", OWN_ID),
    ],
    ids=["ours", "the documents' sample", "none", "alike"],
)
def test_nothing_but_our_own_object_is_ever_deleted(told, deleted):
    assert _file_id(link(told), PATH, "tea-1") == deleted

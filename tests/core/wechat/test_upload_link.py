import json
import traceback
from typing import Any

import pytest
from scripted import SECRET, Server, always
from tables import table

from tcb_ops.errors import TransportError
from tcb_ops.model import Link, Owner, Reason, Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink, check_link
from tcb_ops.wechat.transport import Transport

WECHAT = "https://api.weixin.qq.com"
REHEARSAL = "http://127.0.0.1:8080"
BUCKET = "7465-test2-4a89da-1258717764"
ENV = "test2-4a89da"
OTHERS = "626f-books-77aa01-1258717764"
PATH = "目录/a b.png"
FILE_ID = f"cloud://{ENV}.{BUCKET}/{PATH}"
SIGNED = "q-sign-algorithm=sha1&q-ak=AKID&q-sign-time=1557307130;1557308030&q-key-time=1557307130;1557308030&q-signature=ac"
URL = f"https://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}"
GOOD: dict[str, Any] = {
    "errcode": 0,
    "errmsg": "ok",
    "url": URL,
    "token": "Cukha70zkXIBqkh1",
    "authorization": SIGNED,
    "file_id": FILE_ID,
    "cos_file_id": "HDze32/qZENCwWi5+N5akg==",
}
PLAIN = {"url": "https://a.test/b", "file_id": "cloud://b"}
"""With them, a response is printable ASCII without an escape."""


async def asked(
    body: bytes, status: str = "200 OK", token: str = SECRET
) -> Link | ApiError | InvalidResponse | UnsafeLink:
    async with Server(always(body, status)) as server, Transport(connections=1) as transport:
        return await PlatformClient(transport, server.base).upload_link(ENV, PATH, Secret(token))


def answer(**changed: Any) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name not in names}).encode()


@table(
    "owner, token, line",
    {
        "a merchant's": (Owner.MERCHANT, "abc-_.~1", b"POST /tcb/uploadfile?access_token=abc-_.~1 HTTP/1.1"),
        "the platform's own": (
            Owner.PLATFORM,
            "abc",
            b"POST /componenttcb/uploadfile?access_token=abc HTTP/1.1",
        ),
        "a token that needs quoting": (
            Owner.MERCHANT,
            "a b&c=d#e%f\r\n",
            b"POST /tcb/uploadfile?access_token=a%20b%26c%3Dd%23e%25f%0D%0A HTTP/1.1",
        ),
    },
)
def test_the_request_is_a_post_with_the_token_in_the_query_and_raw_compact_utf8_json(run, owner, token, line):
    async def ask() -> tuple[bytes, bytes]:
        async with Server(always(answer())) as server, Transport(connections=1) as transport:
            await PlatformClient(transport, f"{server.base}/").upload_link(ENV, PATH, Secret(token), owner)
            return server.heads[0], server.bodies[0]

    head, body = run(ask())
    assert head.split(b"\r\n")[0] == line
    assert body == '{"env":"test2-4a89da","path":"目录/a b.png"}'.encode()
    assert b"\r\ncontent-type: application/json\r\n" in head.lower()
    assert b"transfer-encoding" not in head.lower()


def test_a_link_holds_the_answers_fields_and_the_end_of_its_signature(run):
    link = run(asked(answer()))
    assert link == Link(
        url=Secret(URL),
        token=Secret(GOOD["token"]),
        authorization=Secret(SIGNED),
        file_id=FILE_ID,
        cos_file_id=Secret(GOOD["cos_file_id"]),
        expires_at=1557308030,
        starts_at=1557307130,
    )
    assert "Cukha" not in repr(link)


@pytest.mark.parametrize(
    "body", [without("errcode", "errmsg"), answer(errcode="0"), b"\xef\xbb\xbf" + answer()]
)
def test_an_answer_without_an_errcode_is_a_good_one(run, body):
    assert isinstance(run(asked(body)), Link)


RID = "61725984-6126f6f9-040f19c4"
REFUSALS = {
    "as WeChat writes it": (
        {"errcode": 40001, "errmsg": f"invalid credential, access_token is invalid or not latest rid: {RID}"},
        ApiError(40001, "invalid credential, access_token is invalid or not latest", RID, 200),
    ),
    "an errcode as text": ({"errcode": "-501004", "errmsg": "busy"}, ApiError(-501004, "busy", "", 200)),
    "no errmsg": ({"errcode": -1}, ApiError(-1, "", "", 200)),
    "an errmsg that is no text": ({"errcode": 85088, "errmsg": None}, ApiError(85088, "", "", 200)),
    "the token echoed": (
        {"errcode": 40014, "errmsg": f"bad token {SECRET} at ?access_token={SECRET}&x=1"},
        ApiError(40014, "bad token ••• at ?access_token=•••&x=1", "", 200),
    ),
    "another token echoed": (
        {"errcode": 40014, "errmsg": "url=/tcb/uploadfile?access_token=another-ones"},
        ApiError(40014, "url=/tcb/uploadfile?access_token=•••", "", 200),
    ),
    "control characters": (
        {"errcode": 1, "errmsg": "two\nlines\x1b[31m\ud800"},
        ApiError(1, "two lines [31m", "", 200),
    ),
    "an endless errmsg": ({"errcode": 1, "errmsg": "x" * 5000}, ApiError(1, "x" * 1000, "", 200)),
    "an errcode with a point": ({"errcode": 40001.0}, ApiError(40001, "", "", 200)),
    "a rid behind an endless errmsg": (
        {"errcode": 1, "errmsg": f"{'x' * 5000}, rid: {RID}"},
        ApiError(1, "x" * 1000, RID, 200),
    ),
    "a rid too long to be one": (
        {"errcode": 1, "errmsg": f"a rid: {'1' * 65}"},
        ApiError(1, f"a rid: {'1' * 65}", "", 200),
    ),
    "no rid": ({"errcode": 1, "errmsg": "a grid: 1"}, ApiError(1, "a grid: 1", "", 200)),
    "an errcode beside a link": ({**GOOD, "errcode": 45009}, ApiError(45009, "ok", "", 200)),
}


@table("result, refusal", REFUSALS)
def test_an_errcode_is_a_refusal(run, result, refusal):
    assert run(asked(json.dumps(result).encode())) == refusal


def test_a_token_with_characters_that_are_quoted_is_scrubbed_in_either_form(run):
    body = json.dumps({"errcode": 1, "errmsg": "a/b+c== a%2Fb%2Bc%3D%3D"}).encode()
    assert run(asked(body, token="a/b+c==")).errmsg == "••• •••"


def test_a_token_across_the_cut_of_an_errmsg_leaves_no_half(run):
    body = json.dumps({"errcode": 1, "errmsg": "x" * 995 + SECRET}).encode()
    assert SECRET[:3] not in run(asked(body)).errmsg


def test_an_address_that_cannot_be_written_is_a_transport_error_without_the_token(run):
    async def ask() -> None:
        async with Transport(connections=1) as transport:
            await PlatformClient(transport, "https://h:port").upload_link(ENV, PATH, Secret(SECRET))

    with pytest.raises(TransportError, match="cannot be sent as it is") as caught:
        run(ask())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@table(
    "status, body, retryable",
    {
        "5xx page": ("502 Bad Gateway", b"<html>", True),
        "5xx with a link": ("503 Busy", answer(), True),
        "429": ("429 Slow", b"", True),
        "408": ("408 Slow", b"", True),
        "404": ("404 No", b"<html>", False),
        "redirect": ("302 Found", b"", False),
        "empty": ("200 OK", b"", True),
        "a captive portal's page": ("200 OK", b"<html>login</html>", True),
        "half of it": ("200 OK", b'{"errcode":0,', True),
        "no object": ("200 OK", b"[]", True),
        "an empty object": ("200 OK", b"{}", True),
        "a well of brackets": ("200 OK", b"[" * 100_000, True),
        "no text": ("200 OK", b"\xff\xfe\x00", True),
        "an endless number": ("200 OK", b'{"errcode":' + b"9" * 5000 + b"}", True),
        "a number that is no errcode": ("200 OK", answer(errcode=10**12), True),
        "errcode is null": ("200 OK", answer(errcode=None), True),
        "errcode is words": ("200 OK", answer(errcode="soon"), True),
        "errcode is true": ("200 OK", answer(errcode=True), True),
        "no url": ("200 OK", without("url"), True),
        "no authorization": ("200 OK", without("authorization"), True),
        "no token": ("200 OK", without("token"), True),
        "no cos_file_id": ("200 OK", without("cos_file_id"), True),
        "url is a number": ("200 OK", answer(url=7), True),
        "a line break in a field": ("200 OK", answer(token="a\r\nb"), True),
        "a line break as it stands": (
            "200 OK",
            answer(token="LINE", **PLAIN).replace(b"LINE", b"a\nb"),
            True,
        ),
        "a delete character": ("200 OK", answer(token="DEL", **PLAIN).replace(b"DEL", b"\x7f"), True),
        "a C1 character": ("200 OK", answer(token="C1", **PLAIN).replace(b"C1", b"\xc2\x85"), True),
        "half a surrogate in a field": ("200 OK", answer(url="https://\ud800"), True),
    },
)
def test_an_answer_with_neither_link_nor_errcode_is_no_answer(run, status, body, retryable):
    result = run(asked(body, status))
    assert isinstance(result, InvalidResponse)
    assert result.retryable is retryable
    assert result.http_status == int(status[:3])
    assert result.why.en
    assert result.why.zh


@table(
    "changed",
    {
        "a link that is not https": {"url": f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}"},
        "no sign time": {"authorization": "q-sign-algorithm=sha1"},
        "half a sign time": {"authorization": "q-sign-time=1557307130"},
        "an endless sign time": {"authorization": f"q-sign-time=1;{'9' * 400}"},
        "an end beyond the calendar": {"authorization": "q-sign-time=1;999999999999"},
        "a short one beyond the calendar": {"authorization": "q-sign-time=253402214399;253402214401"},
        "an end before its start": {"authorization": "q-sign-time=2;1"},
        "a life of more than 7 days": {"authorization": "q-sign-time=1;604802"},
        "an endless authorization": {"authorization": f"{SIGNED}&{'x' * 16384}"},
        "an endless token": {"token": "x" * 16385},
        "an endless cos_file_id": {"cos_file_id": "x" * 16385},
        "an endless file_id": {"file_id": "x" * 16385},
        "an endless url": {"url": f"{URL}{'目' * 16384}"},
        "of PG mode": {"url": f"https://{ENV}.api.tcloudbasegateway.com/{PATH}"},
    },
)
def test_a_link_that_must_not_be_used_is_a_bad_link_that_does_not_show_it(run, changed):
    result = run(asked(answer(**changed)))
    assert isinstance(result, UnsafeLink)
    assert PATH not in repr(result)
    gateway = "tcloudbasegateway" in changed.get("url", "")
    assert result.reason is (Reason.PG_MODE if gateway else Reason.BAD_LINK)


def test_the_token_is_nowhere_in_what_wechat_gives_or_raises(run):
    async def ask() -> None:
        async with Server(always()) as server:
            pass
        async with Transport(connections=1) as transport:
            await PlatformClient(transport, server.base).upload_link(ENV, PATH, Secret(SECRET))

    with pytest.raises(Exception, match="No connection") as caught:
        run(ask())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


HOST = "https://cos.ap-shanghai.myqcloud.com"
GOOD_LINKS = {
    "as it stands": (f"{HOST}/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "percent-encoded": (f"{HOST}/{BUCKET}/%E7%9B%AE%E5%BD%95/a%20b.png", FILE_ID, WECHAT, ()),
    "all of it encoded": (f"{HOST}/{BUCKET}/%e7%9b%ae%e5%bd%95%2fa%20b%2Epng", FILE_ID, WECHAT, ()),
    "the usual port, written out": (f"{HOST}:443/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "the newer domain": (f"https://cos.ap-shanghai.tencentcos.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "upper case": (f"{HOST.upper().replace('HTTPS', 'https')}/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "no file_id: any bucket": (f"{HOST}/any-bucket/{PATH}", "", WECHAT, ()),
    "an odd file_id: any bucket": (f"{HOST}/any-bucket/{PATH}", "cloud:odd", WECHAT, ()),
    "an allowed host": (f"https://s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",)),
    "an allowed domain": (f"https://a.s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (".corp.cn",)),
    "COS's own beside an allowed host": (f"{HOST}/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",)),
    "loopback under loopback": (f"http://127.0.0.1:9000/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, ()),
    "loopback by its names": (f"http://localhost:9/{BUCKET}/{PATH}", FILE_ID, "http://[::1]:8", ()),
}
BAD_LINKS = {
    "http": (f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "http, rehearsal": (f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, ()),
    "ftp": (f"ftp://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "no scheme": (f"//cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "another host": (f"https://evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "the gateway": (f"https://{ENV}.api.tcloudbasegateway.com/{PATH}", FILE_ID, WECHAT, ()),
    "another host, rehearsal": (f"https://evil.cn/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, ()),
    "a host that ends alike": (f"https://evilmyqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "a host that begins alike": (f"https://a.myqcloud.com.evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "below an allowed host": (f"https://a.s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",)),
    "user info": (f"https://cos.ap.myqcloud.com@evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "user and password": (f"https://u:p@cos.ap.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "backslash": (f"https://evil.cn\\.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "fragment in the host": (f"https://evil.cn#.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "query in the host": (f"https://evil.cn?.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "full-width dot": (f"https://cos．ap.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "another port": (f"{HOST}:8443/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "loopback under the real base": (f"https://127.0.0.1/{BUCKET}/{PATH}", FILE_ID, WECHAT, ()),
    "a base alike": (f"http://127.0.0.1/{BUCKET}/{PATH}", FILE_ID, "http://127.0.0.1.evil.cn", ()),
    "another path": (f"{HOST}/{BUCKET}/testupload", FILE_ID, WECHAT, ()),
    "another bucket": (f"{HOST}/other-bucket/{PATH}", FILE_ID, WECHAT, ()),
    "no bucket": (f"{HOST}/{PATH}", "", WECHAT, ()),
    "two segments before the path": (f"{HOST}/{BUCKET}/more/{PATH}", "", WECHAT, ()),
    "encoded twice": (f"{HOST}/{BUCKET}/%25E7%259B%25AE%25E5%25BD%2595/a b.png", FILE_ID, WECHAT, ()),
    "dot segments": (f"{HOST}/{BUCKET}/x/../{PATH}", FILE_ID, WECHAT, ()),
    "another's bucket": (f"{HOST}/{OTHERS}/{PATH}", f"cloud://{ENV}.{OTHERS}/{PATH}", WECHAT, ()),
    "another's bucket, no file_id": (f"{HOST}/{OTHERS}/{PATH}", "", WECHAT, ()),
    "another's bucket in a rehearsal": (f"http://127.0.0.1:9/{OTHERS}/{PATH}", "", REHEARSAL, ()),
    "another's file_id": (f"{HOST}/{BUCKET}/{PATH}", f"cloud://books-77.{BUCKET}/{PATH}", WECHAT, ()),
    "an environment that begins alike": (f"{HOST}/7465-{ENV}-9-1258717764/{PATH}", "", WECHAT, ()),
    "query": (f"{HOST}/{BUCKET}/{PATH}?a=b", FILE_ID, WECHAT, ()),
    "fragment": (f"{HOST}/{BUCKET}/{PATH}#a", FILE_ID, WECHAT, ()),
    "no path": (f"{HOST}", FILE_ID, WECHAT, ()),
    "empty": ("", FILE_ID, WECHAT, ()),
    "another path in a rehearsal": (f"http://127.0.0.1:9/{BUCKET}/other", FILE_ID, REHEARSAL, ()),
}


@table("url, file_id, base, hosts", GOOD_LINKS)
def test_a_good_link(url, file_id, base, hosts):
    assert check_link(url, file_id, ENV, PATH, base, hosts) is None


@table("url, file_id, base, hosts", BAD_LINKS)
def test_a_bad_link_is_refused_in_both_languages_without_showing_it(url, file_id, base, hosts):
    why = check_link(url, file_id, ENV, PATH, base, hosts)
    assert why is not None
    assert why.en
    assert why.zh
    assert PATH not in why.en + why.zh


UNENCODED = ["a?b.png", "a#b.png", "100%.png", "a%41.png", "a+b.png", "{a}.png"]


@pytest.mark.parametrize(
    ("target", "path", "good"),
    [("a%20b?c", "a b?c", False), ("a%20b%3Fc", "a b?c", True), *((path, path, True) for path in UNENCODED)],
)
def test_a_link_is_good_with_its_path_encoded_as_a_whole_or_not_at_all(target, path, good):
    why = check_link(f"{HOST}/{BUCKET}/{target}", f"cloud://{ENV}.{BUCKET}/{path}", ENV, path, WECHAT, ())
    assert (why is None) == good

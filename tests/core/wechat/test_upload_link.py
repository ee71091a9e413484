from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from scripted import SECRET, Run, Server, always

from tcb_ops.errors import TransportError
from tcb_ops.model import Link, Owner, Reason, Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink, check_link, own_file_id
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


async def asked(
    body: bytes, status: str = "200 OK", token: str = SECRET
) -> Link | ApiError | InvalidResponse | UnsafeLink:
    async with Server(always(body, status)) as server, Transport(connections=1) as transport:
        return await PlatformClient(transport, server.base).upload_link(ENV, PATH, Secret(token))


def answer(**changed: Any) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name not in names}).encode()


@pytest.mark.parametrize(
    ("owner", "token", "line"),
    [
        pytest.param(
            Owner.MERCHANT,
            "abc-_.~1",
            b"POST /tcb/uploadfile?access_token=abc-_.~1 HTTP/1.1",
            id="a merchant's",
        ),
        pytest.param(
            Owner.PLATFORM,
            "abc",
            b"POST /componenttcb/uploadfile?access_token=abc HTTP/1.1",
            id="the platform's own",
        ),
        pytest.param(
            Owner.MERCHANT,
            "a b&c=d#e%f\r\n",
            b"POST /tcb/uploadfile?access_token=a%20b%26c%3Dd%23e%25f%0D%0A HTTP/1.1",
            id="a token that needs quoting",
        ),
    ],
)
def test_the_request_is_a_post_with_the_token_in_the_query_and_raw_compact_utf8_json(
    run: Run, owner: Owner, token: str, line: bytes
) -> None:
    async def ask() -> tuple[bytes, bytes]:
        async with Server(always(answer())) as server, Transport(connections=1) as transport:
            await PlatformClient(transport, f"{server.base}/").upload_link(ENV, PATH, Secret(token), owner)
            return server.heads[0], server.bodies[0]

    head, body = run(ask())
    assert head.split(b"\r\n")[0] == line
    assert body == '{"env":"test2-4a89da","path":"目录/a b.png"}'.encode()
    assert b"\r\ncontent-type: application/json\r\n" in head.lower()
    assert b"transfer-encoding" not in head.lower()


def test_every_merchants_call_carries_its_own_token(run: Run) -> None:
    async def ask() -> list[bytes]:
        async with Server(always(answer())) as server, Transport(connections=1) as transport:
            wechat = PlatformClient(transport, server.base)
            for token in ("a", "b", "a"):
                await wechat.upload_link(ENV, PATH, Secret(token))
            await wechat.upload_link(ENV, PATH, Secret("a"), Owner.PLATFORM)
            return [head.split()[1] for head in server.heads]

    assert run(ask()) == [
        b"/tcb/uploadfile?access_token=a",
        b"/tcb/uploadfile?access_token=b",
        b"/tcb/uploadfile?access_token=a",
        b"/componenttcb/uploadfile?access_token=a",
    ]


def test_a_link_holds_the_answers_fields_and_the_end_of_its_signature(run: Run) -> None:
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
def test_an_answer_without_an_errcode_is_a_good_one(run: Run, body: bytes) -> None:
    assert isinstance(run(asked(body)), Link)


RID = "61725984-6126f6f9-040f19c4"
REFUSALS = [
    pytest.param(
        {"errcode": 40001, "errmsg": f"invalid credential, access_token is invalid or not latest rid: {RID}"},
        ApiError(40001, "invalid credential, access_token is invalid or not latest", RID, 200),
        id="as WeChat writes it",
    ),
    pytest.param(
        {"errcode": "-501004", "errmsg": "busy"}, ApiError(-501004, "busy", "", 200), id="an errcode as text"
    ),
    pytest.param({"errcode": -1}, ApiError(-1, "", "", 200), id="no errmsg"),
    pytest.param(
        {"errcode": 85088, "errmsg": None}, ApiError(85088, "", "", 200), id="an errmsg that is no text"
    ),
    pytest.param(
        {"errcode": 40014, "errmsg": f"bad token {SECRET} at ?access_token={SECRET}&x=1"},
        ApiError(40014, "bad token ••• at ?access_token=•••&x=1", "", 200),
        id="the token echoed",
    ),
    pytest.param(
        {"errcode": 40014, "errmsg": "url=/tcb/uploadfile?access_token=another-ones"},
        ApiError(40014, "url=/tcb/uploadfile?access_token=•••", "", 200),
        id="another token echoed",
    ),
    pytest.param(
        {"errcode": 1, "errmsg": "two\nlines\x1b[31m\ud800"},
        ApiError(1, "two lines [31m", "", 200),
        id="control characters",
    ),
    pytest.param(
        {"errcode": 1, "errmsg": "x" * 5000}, ApiError(1, "x" * 1000, "", 200), id="an endless errmsg"
    ),
    pytest.param({"errcode": 40001.0}, ApiError(40001, "", "", 200), id="an errcode with a point"),
    pytest.param(
        {"errcode": 1, "errmsg": f"{'x' * 5000}, rid: {RID}"},
        ApiError(1, "x" * 1000, RID, 200),
        id="a rid behind an endless errmsg",
    ),
    pytest.param(
        {"errcode": 1, "errmsg": f"a rid: {'1' * 65}"},
        ApiError(1, f"a rid: {'1' * 65}", "", 200),
        id="a rid too long to be one",
    ),
    pytest.param({"errcode": 1, "errmsg": "a grid: 1"}, ApiError(1, "a grid: 1", "", 200), id="no rid"),
    pytest.param({**GOOD, "errcode": 45009}, ApiError(45009, "ok", "", 200), id="an errcode beside a link"),
]


@pytest.mark.parametrize(("result", "refusal"), REFUSALS)
def test_an_errcode_is_a_refusal(run: Run, result: dict[str, Any], refusal: ApiError) -> None:
    assert run(asked(json.dumps(result).encode())) == refusal


def test_a_token_with_characters_that_are_quoted_is_scrubbed_in_either_form(run: Run) -> None:
    body = json.dumps({"errcode": 1, "errmsg": "a/b+c== a%2Fb%2Bc%3D%3D"}).encode()
    assert run(asked(body, token="a/b+c==")).errmsg == "••• •••"


def test_a_token_across_the_cut_of_an_errmsg_leaves_no_half(run: Run) -> None:
    body = json.dumps({"errcode": 1, "errmsg": "x" * 995 + SECRET}).encode()
    assert SECRET[:3] not in run(asked(body)).errmsg


@pytest.mark.parametrize(("base", "token"), [(WECHAT, "x" * 70_000), ("https://h:port", SECRET)])
def test_an_address_that_cannot_be_written_is_a_transport_error_without_the_token(
    run: Run, base: str, token: str
) -> None:
    async def ask() -> None:
        async with Transport(connections=1) as transport:
            await PlatformClient(transport, base).upload_link(ENV, PATH, Secret(token))

    with pytest.raises(TransportError, match="cannot be sent as it is") as caught:
        run(ask())
    assert token not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("status", "body", "retryable"),
    [
        pytest.param("502 Bad Gateway", b"<html>", True, id="5xx page"),
        pytest.param("503 Busy", answer(), True, id="5xx with a link"),
        pytest.param("429 Slow", b"", True, id="429"),
        pytest.param("408 Slow", b"", True, id="408"),
        pytest.param("404 No", b"<html>", False, id="404"),
        pytest.param("302 Found", b"", False, id="redirect"),
        pytest.param("200 OK", b"", True, id="empty"),
        pytest.param("200 OK", b"<html>login</html>", True, id="a captive portal's page"),
        pytest.param("200 OK", b'{"errcode":0,', True, id="half of it"),
        pytest.param("200 OK", b"[]", True, id="no object"),
        pytest.param("200 OK", b"{}", True, id="an empty object"),
        pytest.param("200 OK", b"[" * 100_000, True, id="a well of brackets"),
        pytest.param("200 OK", b"\xff\xfe\x00", True, id="no text"),
        pytest.param("200 OK", b'{"errcode":' + b"9" * 5000 + b"}", True, id="an endless number"),
        pytest.param("200 OK", answer(errcode=10**12), True, id="a number that is no errcode"),
        pytest.param("200 OK", answer(errcode=None), True, id="errcode is null"),
        pytest.param("200 OK", answer(errcode="soon"), True, id="errcode is words"),
        pytest.param("200 OK", answer(errcode=True), True, id="errcode is true"),
        pytest.param("200 OK", without("url"), True, id="no url"),
        pytest.param("200 OK", without("authorization"), True, id="no authorization"),
        pytest.param("200 OK", without("token"), True, id="no token"),
        pytest.param("200 OK", without("cos_file_id"), True, id="no cos_file_id"),
        pytest.param("200 OK", answer(url=7), True, id="url is a number"),
        pytest.param("200 OK", answer(token="a\r\nb"), True, id="a line break in a field"),
        pytest.param("200 OK", answer(url="https://\ud800"), True, id="half a surrogate in a field"),
    ],
)
def test_an_answer_with_neither_link_nor_errcode_is_no_answer(
    run: Run, status: str, body: bytes, retryable: bool
) -> None:
    result = run(asked(body, status))
    assert isinstance(result, InvalidResponse)
    assert result.retryable is retryable
    assert result.http_status == int(status[:3])
    assert result.why.en
    assert result.why.zh


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(
            {"url": f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}"}, id="a link that is not https"
        ),
        pytest.param({"authorization": "q-sign-algorithm=sha1"}, id="no sign time"),
        pytest.param({"authorization": "q-sign-time=1557307130"}, id="half a sign time"),
        pytest.param({"authorization": f"q-sign-time=1;{'9' * 400}"}, id="an endless sign time"),
        pytest.param({"authorization": "q-sign-time=1;999999999999"}, id="an end beyond the calendar"),
        pytest.param(
            {"authorization": "q-sign-time=253402214399;253402214401"}, id="a short one beyond the calendar"
        ),
        pytest.param({"authorization": "q-sign-time=2;1"}, id="an end before its start"),
        pytest.param({"authorization": "q-sign-time=1;604802"}, id="a life of more than 7 days"),
        pytest.param({"authorization": f"{SIGNED}&{'x' * 16384}"}, id="an endless authorization"),
        pytest.param({"token": "x" * 16385}, id="an endless token"),
        pytest.param({"cos_file_id": "x" * 16385}, id="an endless cos_file_id"),
        pytest.param({"file_id": "x" * 16385}, id="an endless file_id"),
        pytest.param({"url": f"{URL}{'目' * 16384}"}, id="an endless url"),
        pytest.param({"url": f"https://{ENV}.api.tcloudbasegateway.com/{PATH}"}, id="of PG mode"),
    ],
)
def test_a_link_that_must_not_be_used_is_a_bad_link_that_does_not_show_it(
    run: Run, changed: dict[str, str]
) -> None:
    result = run(asked(answer(**changed)))
    assert isinstance(result, UnsafeLink)
    assert PATH not in repr(result)
    gateway = "tcloudbasegateway" in changed.get("url", "")
    assert result.reason is (Reason.PG_MODE if gateway else Reason.BAD_LINK)


def test_the_token_is_nowhere_in_what_wechat_gives_or_raises(run: Run) -> None:
    async def ask() -> None:
        async with Server(always()) as server:
            pass
        async with Transport(connections=1) as transport:
            await PlatformClient(transport, server.base).upload_link(ENV, PATH, Secret(SECRET))

    with pytest.raises(Exception, match="No connection") as caught:
        run(ask())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


HOST = "https://cos.ap-shanghai.myqcloud.com"
GOOD_LINKS = [
    pytest.param(f"{HOST}/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="as it stands"),
    pytest.param(f"{HOST}/{BUCKET}/%E7%9B%AE%E5%BD%95/a%20b.png", FILE_ID, WECHAT, (), id="percent-encoded"),
    pytest.param(
        f"{HOST}/{BUCKET}/%e7%9b%ae%e5%bd%95%2fa%20b%2Epng", FILE_ID, WECHAT, (), id="all of it encoded"
    ),
    pytest.param(f"{HOST}:443/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="the usual port, written out"),
    pytest.param(
        f"https://cos.ap-shanghai.tencentcos.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="the newer domain"
    ),
    pytest.param(
        f"{HOST.upper().replace('HTTPS', 'https')}/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="upper case"
    ),
    pytest.param(f"{HOST}/any-bucket/{PATH}", "", WECHAT, (), id="no file_id: any bucket"),
    pytest.param(f"{HOST}/any-bucket/{PATH}", "cloud:odd", WECHAT, (), id="an odd file_id: any bucket"),
    pytest.param(f"https://s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",), id="an allowed host"),
    pytest.param(
        f"https://a.s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (".corp.cn",), id="an allowed domain"
    ),
    pytest.param(
        f"{HOST}/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",), id="COS's own beside an allowed host"
    ),
    pytest.param(
        f"http://127.0.0.1:9000/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, (), id="loopback under loopback"
    ),
    pytest.param(
        f"http://localhost:9/{BUCKET}/{PATH}", FILE_ID, "http://[::1]:8", (), id="loopback by its names"
    ),
]
BAD_LINKS = [
    pytest.param(f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="http"),
    pytest.param(
        f"http://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, (), id="http, rehearsal"
    ),
    pytest.param(f"ftp://cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="ftp"),
    pytest.param(f"//cos.ap-shanghai.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="no scheme"),
    pytest.param(f"https://evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="another host"),
    pytest.param(f"https://{ENV}.api.tcloudbasegateway.com/{PATH}", FILE_ID, WECHAT, (), id="the gateway"),
    pytest.param(f"https://evil.cn/{BUCKET}/{PATH}", FILE_ID, REHEARSAL, (), id="another host, rehearsal"),
    pytest.param(
        f"https://evilmyqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="a host that ends alike"
    ),
    pytest.param(
        f"https://a.myqcloud.com.evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="a host that begins alike"
    ),
    pytest.param(
        f"https://a.s.corp.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, ("s.corp.cn",), id="below an allowed host"
    ),
    pytest.param(f"https://cos.ap.myqcloud.com@evil.cn/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="user info"),
    pytest.param(
        f"https://u:p@cos.ap.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="user and password"
    ),
    pytest.param(f"https://evil.cn\\.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="backslash"),
    pytest.param(
        f"https://evil.cn#.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="fragment in the host"
    ),
    pytest.param(
        f"https://evil.cn?.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="query in the host"
    ),
    pytest.param(f"https://cos．ap.myqcloud.com/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="full-width dot"),
    pytest.param(f"{HOST}:8443/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="another port"),
    pytest.param(
        f"https://127.0.0.1/{BUCKET}/{PATH}", FILE_ID, WECHAT, (), id="loopback under the real base"
    ),
    pytest.param(
        f"http://127.0.0.1/{BUCKET}/{PATH}", FILE_ID, "http://127.0.0.1.evil.cn", (), id="a base alike"
    ),
    pytest.param(f"{HOST}/{BUCKET}/testupload", FILE_ID, WECHAT, (), id="another path"),
    pytest.param(f"{HOST}/other-bucket/{PATH}", FILE_ID, WECHAT, (), id="another bucket"),
    pytest.param(f"{HOST}/{PATH}", "", WECHAT, (), id="no bucket"),
    pytest.param(f"{HOST}/{BUCKET}/more/{PATH}", "", WECHAT, (), id="two segments before the path"),
    pytest.param(
        f"{HOST}/{BUCKET}/%25E7%259B%25AE%25E5%25BD%2595/a b.png", FILE_ID, WECHAT, (), id="encoded twice"
    ),
    pytest.param(f"{HOST}/{BUCKET}/x/../{PATH}", FILE_ID, WECHAT, (), id="dot segments"),
    pytest.param(
        f"{HOST}/{OTHERS}/{PATH}", f"cloud://{ENV}.{OTHERS}/{PATH}", WECHAT, (), id="another's bucket"
    ),
    pytest.param(f"{HOST}/{OTHERS}/{PATH}", "", WECHAT, (), id="another's bucket, no file_id"),
    pytest.param(
        f"http://127.0.0.1:9/{OTHERS}/{PATH}", "", REHEARSAL, (), id="another's bucket in a rehearsal"
    ),
    pytest.param(
        f"{HOST}/{BUCKET}/{PATH}", f"cloud://books-77.{BUCKET}/{PATH}", WECHAT, (), id="another's file_id"
    ),
    pytest.param(
        f"{HOST}/7465-{ENV}-9-1258717764/{PATH}", "", WECHAT, (), id="an environment that begins alike"
    ),
    pytest.param(f"{HOST}/{BUCKET}/{PATH}?a=b", FILE_ID, WECHAT, (), id="query"),
    pytest.param(f"{HOST}/{BUCKET}/{PATH}#a", FILE_ID, WECHAT, (), id="fragment"),
    pytest.param(f"{HOST}", FILE_ID, WECHAT, (), id="no path"),
    pytest.param("", FILE_ID, WECHAT, (), id="empty"),
    pytest.param(
        f"http://127.0.0.1:9/{BUCKET}/other", FILE_ID, REHEARSAL, (), id="another path in a rehearsal"
    ),
]


@pytest.mark.parametrize(("url", "file_id", "base", "hosts"), GOOD_LINKS)
def test_a_good_link(url: str, file_id: str, base: str, hosts: tuple[str, ...]) -> None:
    assert check_link(url, file_id, ENV, PATH, base, hosts) is None


@pytest.mark.parametrize(("url", "file_id", "base", "hosts"), BAD_LINKS)
def test_a_bad_link_is_refused_in_both_languages_without_showing_it(
    url: str, file_id: str, base: str, hosts: tuple[str, ...]
) -> None:
    why = check_link(url, file_id, ENV, PATH, base, hosts)
    assert why is not None
    assert why.en
    assert why.zh
    assert PATH not in why.en + why.zh


def test_a_link_that_is_encoded_but_for_a_question_mark_would_end_there() -> None:
    path = "a b?c"
    assert (
        check_link(f"{HOST}/{BUCKET}/a%20b?c", f"cloud://{ENV}.{BUCKET}/{path}", ENV, path, WECHAT, ())
        is not None
    )
    assert (
        check_link(f"{HOST}/{BUCKET}/a%20b%3Fc", f"cloud://{ENV}.{BUCKET}/{path}", ENV, path, WECHAT, ())
        is None
    )


@pytest.mark.parametrize("path", ["a?b.png", "a#b.png", "100%.png", "a%41.png", "a+b.png", "{a}.png"])
def test_a_link_with_the_path_unencoded_is_good_whatever_characters_it_has(path: str) -> None:
    assert (
        check_link(f"{HOST}/{BUCKET}/{path}", f"cloud://{ENV}.{BUCKET}/{path}", ENV, path, WECHAT, ()) is None
    )


OWN_ID = "cloud://tea-1.7465-tea-1-1/probe/x.txt"


@pytest.mark.parametrize(
    "answered",
    [
        OWN_ID,
        "cloud://tea-1.7465-tea-1-1/testupload",
        "",
        "cloud://tea-1.7465-tea-1-1/other-probe/x.txt.bak",
    ],
    ids=["ours", "the documents' sample", "none", "alike"],
)
def test_nothing_but_our_own_object_is_ever_deleted(answered: str):
    url = Secret("https://cos.ap-shanghai.myqcloud.com/7465-tea-1-1/probe/x.txt")
    link = Link(url, Secret("t"), Secret("s"), answered, Secret("c"), 901, 1)
    assert own_file_id(link, "probe/x.txt", "tea-1") == OWN_ID

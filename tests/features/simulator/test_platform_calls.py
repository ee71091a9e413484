import asyncio
import json
import re
import time
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from features.simulator.conftest import RESET_ERRORS, Talk
from rigged_simulator import Call, Simulator

from tcb_ops.features.simulator.faults import Fault, Faults, FaultStep, Reset
from tcb_ops.features.simulator.state import Request
from tcb_ops.model import Merchant

ENV, BUCKET, APPID, TOKEN = (
    "shop-a-1f2e3d",
    "7368-shop-a-1f2e3d-1258717764",
    "wx0000000000000001",
    "token-of-a+1",
)
RID = re.compile(r"(.*) rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}")


def body(env=ENV, path="a.png"):
    return json.dumps({"env": env, "path": path}, ensure_ascii=False).encode()


MESSAGES = {
    43002: "require POST method",
    41001: "access_token missing",
    40001: "invalid credential, access_token is invalid or not latest",
    44002: "empty post data",
    47001: "data format error",
    40101: "missing parameter",
    40097: "invalid args",
    -601012: "no permission for this environment",
}
REFUSED = {
    "GET": (43002, body(), TOKEN, "GET"),
    "no token": (41001, body(), ""),
    "unknown token": (40001, body(), "other"),
    "token before body": (40001, b"", "other"),
    "empty body": (44002, b""),
    "not JSON": (47001, b"env=a&path=b"),
    "GB18030": (47001, body(path="上传海报").decode().encode("gb18030")),
    "UTF-16": (47001, body().decode().encode("utf-16")),
    "BOM": (47001, b"\xef\xbb\xbf" + body()),
    "a list": (47001, b"[]"),
    "too deep": (47001, b"[" * 100_000),
    "no env": (40101, b'{"path":"a"}'),
    "no path": (40101, b'{"env":"a"}'),
    "empty env": (40101, body(env="")),
    "empty path": (40101, body(path="")),
    "null path": (40101, body(path=None)),
    "a number for path": (40097, body(path=7)),
    "a list for env": (40097, body(env=[ENV])),
    "leading slash": (40097, body(path="/a")),
    "double slash": (40097, body(path="a//b")),
    "851 bytes": (40097, body(path="花" * 283 + "ab")),
    "half a surrogate pair": (40097, b'{"env":"a","path":"\\ud800"}'),
    "env of another appid": (-601012, body(env="books-4d5e6f")),
    "no such env": (-601012, body(env="nowhere")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_call_is_refused_with_http_200_and_a_rid(shared, name):
    errcode, *call = REFUSED[name]
    answer = shared.ask_raw(*call)
    assert answer.status_code == 200
    assert answer.json()["errcode"] == errcode
    assert RID.fullmatch(answer.json()["errmsg"])[1] == MESSAGES[errcode]
    assert set(answer.json()) == {"errcode", "errmsg"}


def test_a_link_has_the_documented_shape(start):
    talk = start(clock=lambda: 1557307130.9)
    link = talk.ask("this/is/a/example/file.path")
    assert list(link) == ["errcode", "errmsg", "url", "token", "authorization", "file_id", "cos_file_id"]
    assert (link["errcode"], link["errmsg"]) == (0, "ok")
    assert link["url"] == f"{talk.sim.base}/{BUCKET}/this/is/a/example/file.path"
    assert link["file_id"] == f"cloud://{ENV}.{BUCKET}/this/is/a/example/file.path"
    assert "&q-sign-time=1557307130;1557308030&q-key-time=1557307130;1557308030&" in link["authorization"]
    assert "&q-header-list=&q-url-param-list=&q-signature=" in link["authorization"]
    assert {"+", "/"} <= set(link["cos_file_id"])


def test_a_plus_in_the_token_must_be_encoded(shared):
    answer = shared.http.post(f"{shared.sim.base}/tcb/uploadfile?access_token={TOKEN}", content=body())
    assert answer.json()["errcode"] == 40001


@pytest.mark.parametrize(
    "path", ["目录/海报 1.png", "a%41.png", "a?b#c.png", "a+b&c=d;e.png", "花" * 283, "a\u200bb"]
)
def test_an_encoded_url_is_ascii_and_decodes_to_the_path(shared, path):
    url = shared.ask(path)["url"]
    assert url.isascii()
    assert unquote(urlsplit(url).path) == f"/{BUCKET}/{path}"


def test_a_path_sent_as_ascii_escapes_is_answered_ok_and_counted(start):
    talk = start()
    raw, escaped = body(path="目录/a.png"), json.dumps({"env": ENV, "path": "目录/a.png"}).encode()
    plain = json.dumps({"env": ENV, "path": "a.png"}).encode()
    assert [talk.ask_raw(content).json()["errcode"] for content in (raw, plain)] == [0, 0]
    assert talk.sim.stats["escaped_bodies"] == 0
    assert talk.ask_raw(escaped).json()["errcode"] == 0
    assert talk.sim.stats["escaped_bodies"] == 1


def faulty(start, **fault):
    return start(faults=Faults((Fault(ENV, path="banner/*", **fault),)), record=True)


def test_a_planned_errcode_comes_in_the_platforms_shape(start):
    answer = faulty(start, errcode=85088).ask()
    assert answer["errcode"] == 85088
    assert RID.fullmatch(answer["errmsg"])[1] == "no qbase privilege"


def test_a_fault_hangs_on_the_nth_call_of_its_path_whatever_comes_between(start):
    talk = faulty(start, calls=((2, 3),), errcode=-1)
    answers = {"1": [], "2": []}
    for name in "11212122":
        answers[name].append(talk.ask(f"banner/{name}")["errcode"])
    assert answers == {"1": [0, -1, -1, 0], "2": [0, -1, -1, 0]}


def test_calls_that_the_platform_refuses_do_not_count_for_a_fault(start):
    talk = faulty(start, calls=((1, 1),), errcode=-1)
    assert [talk.ask(token="other")["errcode"], talk.ask()["errcode"], talk.ask()["errcode"]] == [
        40001,
        -1,
        0,
    ]


def test_a_reset_breaks_the_connection_before_an_answer(start):
    with pytest.raises(RESET_ERRORS):
        faulty(start, reset=Reset.BEFORE).ask()


def test_a_reset_in_the_middle_breaks_it_within_the_answer(start):
    with pytest.raises(httpx.RemoteProtocolError, match=r"received [1-9][0-9]* bytes"):
        faulty(start, reset=Reset.MIDDLE).ask()


def test_a_delay_comes_before_the_answer(start):
    talk = faulty(start, delay=0.2)
    talk.ask("other.png")
    began = time.monotonic()
    assert talk.ask()["errcode"] == 0
    assert time.monotonic() - began >= 0.2


def test_calls_are_recorded_in_order(start):
    talk = start(
        faults=Faults((Fault(ENV, path="b", status=503), Fault(ENV, path="c", errcode=-1))), record=True
    )
    talk.ask("a")
    talk.ask("a", token="other")
    talk.ask_raw(body(path="b"))
    talk.ask("c")
    talk.ask_raw(b"")
    assert talk.sim.calls == [
        *(Call(FaultStep.LINK, ENV, path) for path in "aabc"),
        Call(FaultStep.LINK, "", ""),
    ]
    assert talk.sim.stats["link_calls"] == 5
    assert {name: n for name, n in talk.sim.stats.items() if name.startswith("link:")} == {
        "link:0": 1,
        "link:40001": 1,
        "link:status 503": 1,
        "link:-1": 1,
        "link:44002": 1,
    }


def test_a_link_and_its_upload_are_decided_without_a_socket():
    simulator = Simulator([Merchant(APPID, "梧桐花店", ENV)], {APPID: TOKEN}, clock=lambda: 1557307130.0)

    async def exchange():
        target = f"/tcb/uploadfile?access_token={quote(TOKEN)}"
        link = json.loads((await simulator.handle(Request("POST", target, {}, body()))).body)
        form = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
            for name, value in Talk.parts(link, "a.png")
        )
        content = form + b"--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(content))}
        target = link["url"].removeprefix(simulator.base)
        return await simulator.handle(Request("POST", target, headers, content))

    answer = asyncio.run(exchange())
    assert (answer.status, answer.reset, answer.headers["Date"]) == (
        204,
        None,
        "Wed, 08 May 2019 09:18:50 GMT",
    )
    assert list(simulator.objects) == [(BUCKET, "a.png")]

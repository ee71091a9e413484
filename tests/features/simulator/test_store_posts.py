"""Forms posted to the store: how they are read, stored, refused and signed for, and planned faults."""

import hashlib
import re
import socket
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import httpx
import pytest
from features.simulator.conftest import RESET_ERRORS
from qcloud_cos.cos_exception import digest_xml

from tcb_ops.features.simulator.cos import FORM_HEAD, INDEX, boundary_of, read_form
from tcb_ops.features.simulator.faults import Etag, Fault, Faults, FaultStep, Reset
from tcb_ops.features.simulator.state import SimulatedObject

FILE = b"\r\n--b0undar\r\n--\r\n\x00\xff--b0undary" * 40
BODY = (
    b'--b0undary\r\nContent-Disposition: form-data; name="key"\r\n\r\n\xe7\x9b\xae/a.png\r\n'
    b'--b0undary\r\ncontent-disposition:form-data; filename="name=x"; name="Signature"\r\n\r\nq=1\r\n'
    b'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: a/b\r\n\r\n'
    + FILE
    + b"\r\n--b0undary--\r\n"
)


def test_a_form_is_its_fields_and_the_place_of_its_file():
    form = read_form(BODY, b"b0undary")
    assert form.fields == {"key": "目/a.png", "signature": "q=1"}
    assert BODY[form.start : form.end] == FILE


def field(name, value):
    return b'--b0undary\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (field(b"key", b"a") * 2 + b"--b0undary--", "The field key is given twice"),
        (field(b"key", b"\xff\xfe") + b"--b0undary--", "UTF-8"),
        (field(b"\xff", b"a") + b"--b0undary--", "UTF-8"),
        (b"--b0undary\r\nContent-Type: a/b\r\n\r\nx\r\n--b0undary--", "not a whole form"),
        (b"--b0undary\r\n\r\nx\r\n--b0undary--", "not a whole form"),
        (b"--b0undaryx\r\n", "not a whole form"),
        (b"--b0undary\r\nX: " + b"a" * (FORM_HEAD + 9) + b"\r\n\r\n--b0undary--", "not a whole form"),
        (b"x" * 99, "not a whole form"),
        (b"", "not a whole form"),
        (BODY[:-4], "not a whole form"),
        (BODY[:-40], "not a whole form"),
    ],
    ids=["twice", "not UTF-8", "name", "no name", "no headers", "boundary", "long head", "none", "empty", "cut", "cut before"],
)  # fmt: skip
def test_a_form_that_is_none_says_what_is_wrong(body, message):
    refusal = read_form(body, b"b0undary")
    assert (refusal.status, refusal.code) == (400, "MalformedPOSTRequest")
    assert message in refusal.message


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;charset=utf-8; BOUNDARY="a b"', b"a b"),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("multipart/form-data", None),
        ("", None),
    ],
    ids=["plain", "quoted", "mixed", "json", "no boundary", "none"],
)
def test_the_boundary_is_read_from_the_content_type(content_type, wanted):
    assert boundary_of(content_type) == wanted


ENV, BUCKET, PATH = "shop-a-1f2e3d", "7368-shop-a-1f2e3d-1258717764", "banner/1.png"
HELLO_MD5 = hashlib.md5(b"hello").hexdigest()


def test_a_form_as_documented_is_stored_and_answered_204(start):
    talk = start()
    answer = talk.upload("目录/海报 1.png")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["etag"] == f'"{HELLO_MD5}"'
    assert unquote(answer.headers["location"]) == f"{talk.sim.base}/{BUCKET}/目录/海报 1.png"
    assert answer.headers["server"] == "tencent-cos"
    assert answer.headers["x-cos-request-id"]
    assert talk.sim.objects == {(BUCKET, "目录/海报 1.png"): SimulatedObject(5, HELLO_MD5, 1)}


@pytest.mark.parametrize(
    "path",
    ["a%41.png", "a?b#c.png", "a+b &=;.png", "a/../b", "花" * 283, "a\tb", '[x]{y}|^"<>\\`', "trailing/"],
)
def test_any_path_that_gets_a_link_can_be_stored_under_it(start, path):
    talk = start()
    link = talk.ask(path)
    answer = exchange(talk, request(talk, link, talk.form(talk.parts(link, path))))
    assert answer.startswith(b"HTTP/1.1 204 "), answer
    assert list(talk.sim.objects) == [(BUCKET, path)]


def request(talk, link, body):
    """Give a post as it goes onto the wire, its target byte for byte the link's."""
    head = f"POST {link['url'].removeprefix(talk.sim.base)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary={talk.boundary}\r\n\r\n".encode() + body


def exchange(talk, data):
    with socket.create_connection(("127.0.0.1", talk.sim.port), timeout=240) as connection:
        connection.sendall(data)
        return connection.recv(65536)


def without(name):
    return lambda parts, other: [part for part in parts if part[0] != name]


def changed(name, value):
    return lambda parts, other: [(n, value(v) if n == name else v) for n, v in parts]


def replaced(name, old, new):
    return changed(name, lambda value: value.replace(old, new))


def swapped(name):
    return lambda parts, other: [(n, dict(other)[n] if n == name else v) for n, v in parts]


FORMS = {
    "no key": (without("key"), 400, "MalformedPOSTRequest"),
    "empty key": (changed("key", lambda _: b""), 400, "MalformedPOSTRequest"),
    "key twice": (lambda parts, other: [parts[0], *parts], 400, "MalformedPOSTRequest"),
    "key not UTF-8": (changed("key", lambda v: v + b"\xff"), 400, "MalformedPOSTRequest"),
    "another key": (changed("key", lambda v: v + b"x"), 403, "AccessDenied"),
    "no Signature": (without("Signature"), 403, "AccessDenied"),
    "no signature in Signature": (changed("Signature", lambda _: b"x"), 403, "InvalidAccessKeyId"),
    "another access key": (replaced("Signature", b"q-ak=AKID", b"q-ak=AKIE"), 403, "InvalidAccessKeyId"),
    "a longer time": (
        changed("Signature", lambda v: re.sub(rb";(\d+)", lambda m: b";%d" % (int(m[1]) + 9), v)),
        403,
        "SignatureDoesNotMatch",
    ),
    "another link's Signature": (swapped("Signature"), 403, "SignatureDoesNotMatch"),
    "no token": (without("x-cos-security-token"), 403, "InvalidAccessKeyId"),
    "another link's token": (swapped("x-cos-security-token"), 403, "AccessDenied"),
    "token of another appid": (replaced("x-cos-security-token", b"1", b"2"), 403, "AccessDenied"),
    "no cos_file_id": (without("x-cos-meta-fileid"), 400, "InvalidArgument"),
    "another link's cos_file_id": (swapped("x-cos-meta-fileid"), 400, "InvalidArgument"),
    "lost plus signs": (replaced("x-cos-meta-fileid", b"+", b" "), 400, "InvalidArgument"),
    "no file": (without("file"), 400, "IncorrectNumberOfFilesInPostRequest"),
    "two files": (lambda parts, other: [*parts, parts[-1]], 400, "IncorrectNumberOfFilesInPostRequest"),
    "a field after the file": (
        lambda parts, other: [*parts, ("Content-Type", b"")],
        400,
        "MalformedPOSTRequest",
    ),
    "file first": (lambda parts, other: [parts[-1], *parts[:-1]], 400, "MalformedPOSTRequest"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_wrong_form_is_refused_as_the_official_library_reads_it_and_not_stored(shared, name):
    change, status, code = FORMS[name]
    link, other = shared.ask(), shared.ask("another.png")
    parts = change(shared.parts(link), shared.parts(other, "another.png"))
    answer = shared.post(link["url"], shared.form(parts))
    read = digest_xml(answer.content)
    assert (answer.status_code, read["code"]) == (status, code)
    assert read["resource"].endswith(f"/{BUCKET}/{PATH}")
    assert read["requestid"] == answer.headers["x-cos-request-id"]
    assert shared.sim.objects == {}


def test_a_signature_that_does_not_match_shows_what_should_have_been_signed(shared):
    link, other = shared.ask("目录/a.png"), shared.ask("other.png")
    answer = shared.post(other["url"], shared.form(shared.parts(link, "目录/a.png")))
    root = ET.fromstring(answer.content)
    assert [child.tag for child in root] == [
        "Code",
        "Message",
        "StringToSign",
        "FormatString",
        "Resource",
        "RequestId",
        "TraceId",
    ]
    assert root.findtext("FormatString") == f"post\n/{BUCKET}/other.png\n\n\n"
    assert root.findtext("StringToSign").startswith("sha1\n")
    assert root.findtext("RequestId") == answer.headers["x-cos-request-id"]


@pytest.mark.parametrize(("later", "status"), [(899.0, 204), (900.0, 403)], ids=["in time", "run out"])
def test_a_link_lives_as_long_as_its_signature_says(start, later, status):
    now = [1557307130.0]
    talk = start(clock=lambda: now[0])
    link = talk.ask()
    now[0] += later
    answer = talk.post(link["url"], talk.form(talk.parts(link)))
    assert answer.status_code == status
    if status == 403:
        root = ET.fromstring(answer.content)
        assert (root.findtext("Code"), root.findtext("Message")) == ("AccessDenied", "Request has expired")
        assert root.findtext("ServerTime") == "2019-05-08T09:33:50Z"


def chunks(data):
    yield data


def test_a_chunked_body_is_refused_with_411(shared):
    link = shared.ask()
    answer = shared.post(link["url"], chunks(shared.form(shared.parts(link))))
    assert answer.status_code == 411
    assert digest_xml(answer.content)["code"] == "MissingContentLength"


@pytest.mark.parametrize(
    ("method", "url", "headers", "status", "code"),
    [
        ("GET", f"/{BUCKET}/a", {}, 405, "MethodNotAllowed"),
        ("PUT", f"/{BUCKET}/a", {}, 405, "MethodNotAllowed"),
        ("POST", "/nothing/a", {}, 404, "NoSuchBucket"),
        ("POST", "/", {}, 404, "NoSuchBucket"),
        ("POST", f"/{BUCKET}/", {}, 400, "InvalidURI"),
        ("POST", f"/{BUCKET}/%FF", {}, 400, "InvalidURI"),
        ("POST", f"/{BUCKET}/a", {"Content-Type": "application/json"}, 400, "MalformedPOSTRequest"),
        ("POST", f"/{BUCKET}/a", {"Content-Type": "multipart/form-data"}, 400, "MalformedPOSTRequest"),
    ],
    ids=["GET", "PUT", "bucket", "root", "no key", "not UTF-8", "JSON", "no boundary"],
)
def test_what_is_no_form_post_is_refused_by_its_head(shared, method, url, headers, status, code):
    answer = shared.http.request(method, shared.sim.base + url, content=b"x", headers=headers)
    assert answer.status_code == status
    assert digest_xml(answer.content)["code"] == code


@pytest.mark.parametrize(("over", "status"), [(65537, b"400"), (65536, b"100")], ids=["over", "at the limit"])
def test_a_form_over_five_gigabytes_is_refused_before_it_is_sent(shared, over, status):
    head = f"POST /{BUCKET}/a HTTP/1.1\r\nHost: x\r\nContent-Length: {5 * 1024**3 + over}\r\n"
    head += "Expect: 100-continue\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    answer = exchange(shared, head.encode())
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"<Code>EntityTooLarge</Code>" in answer) is (status == b"400")


def test_a_body_that_is_no_whole_form_is_refused(shared):
    link = shared.ask()
    answer = shared.post(link["url"], shared.form(shared.parts(link))[:-6])
    assert digest_xml(answer.content)["code"] == "MalformedPOSTRequest"


def test_a_refusal_is_readable_after_a_large_body_on_the_same_connection(shared):
    link = shared.ask()
    parts = changed("key", lambda v: v + b"x")(shared.parts(link, data=bytes(4_000_000)), None)
    assert shared.post(link["url"], shared.form(parts)).status_code == 403
    assert shared.ask()["errcode"] == 0


def test_a_client_that_goes_away_in_mid_send_leaves_nothing(start, tmp_path, caplog):
    talk = start(store=tmp_path / "s", record=True)
    link = talk.ask()
    post = request(talk, link, talk.form(talk.parts(link, data=bytes(100_000))))
    with socket.create_connection(("127.0.0.1", talk.sim.port), timeout=240) as connection:
        connection.sendall(post[:50_000])
    assert talk.upload("other.png").status_code == 204
    assert list(talk.sim.objects) == [(BUCKET, "other.png")]
    talk.sim.remove(ENV, "other.png")
    assert (
        talk.sim.objects,
        [file.name for file in tmp_path.rglob("*") if file.is_file()],
        caplog.records,
    ) == (
        {},
        [INDEX],
        [],
    )


def test_bytes_are_kept_in_the_folder_when_asked(start, tmp_path):
    talk = start(store=tmp_path / "objects")
    data = bytes(range(256)) * 2000
    keys = ("目录/a.png", "目录", "../../../outside", "花" * 282, "a:b?*", "a. ")
    for path in keys:
        link = talk.ask(path)
        assert b" 204 " in exchange(talk, request(talk, link, talk.form(talk.parts(link, path, data))))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.parent for file in files} == {tmp_path / "objects"}
    assert [file.read_bytes() for file in files if file.name != INDEX] == [data] * len(keys)


def faulty(start, **fault):
    return start(faults=Faults((Fault(ENV, step=FaultStep.STORE, path="banner/*", **fault),)), record=True)


@pytest.mark.parametrize(
    ("fault", "status", "code", "message"),
    [
        ({"code": "SlowDown"}, 503, "SlowDown", None),
        ({"code": "NoSuchBucket"}, 404, "NoSuchBucket", None),
        ({"code": "AccessDenied"}, 403, "AccessDenied", "Access Denied."),
        (
            {"code": "AccessDenied", "errmsg": "Request has expired"},
            403,
            "AccessDenied",
            "Request has expired",
        ),
        ({"code": "InternalError", "status": 502}, 502, "InternalError", None),
        ({"code": "Odd"}, 400, "Odd", None),
    ],
)
def test_a_planned_store_code_comes_in_the_stores_shape(start, fault, status, code, message):
    talk = faulty(start, **fault)
    answer = talk.upload()
    read = digest_xml(answer.content)
    assert (answer.status_code, read["code"]) == (status, code)
    assert read["message"] == (message or read["message"])
    assert talk.sim.objects == {}
    assert talk.upload("other.png").status_code == 204


def test_a_reset_before_the_answer_stores_nothing(start):
    talk = faulty(start, reset=Reset.BEFORE)
    with pytest.raises(RESET_ERRORS):
        talk.upload()
    assert talk.sim.objects == {}
    assert talk.sim.stats["store:reset"] == 1


def test_a_reset_within_the_answer_comes_after_the_object_is_stored(start):
    talk = faulty(start, reset=Reset.MIDDLE)
    with pytest.raises(httpx.RemoteProtocolError):
        talk.upload()
    assert talk.sim.objects[BUCKET, PATH].times == 1


@pytest.mark.parametrize(("etag", "md5"), [(Etag.WRONG, True), (Etag.OPAQUE, False)], ids=["wrong", "opaque"])
def test_a_planned_etag_is_not_the_md5(start, etag, md5):
    talk = faulty(start, etag=etag)
    answer = talk.upload()
    result = answer.headers["etag"].strip('"')
    assert answer.status_code == 204
    assert result != HELLO_MD5
    assert bool(re.fullmatch("[0-9a-f]{32}", result)) is md5
    assert talk.sim.objects[BUCKET, PATH].md5 == HELLO_MD5

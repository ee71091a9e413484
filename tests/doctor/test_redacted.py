"""What a record keeps: forms and lengths; never a secret."""

import json

import pytest

from tcb_ops.doctor.live_record_redacted import as_kept, form_of, signature_of
from tcb_ops.wechat.transport import Exchange

TOKEN = "69_" + "Sn0wFl4ke" * 6
SIGNED = (
    "q-sign-algorithm=sha1&q-ak=AKIDplanted0key&q-sign-time=1557307130;1557308030"
    "&q-key-time=1557307130;1557308030&q-header-list=&q-url-param-list=&q-signature=" + "ab" * 20
)


def exchange(body=b"", headers=(), url="https://api.weixin.qq.com/tcb/uploadfile?access_token=planted"):
    return Exchange("POST", url, 7, 0, 0.1, 200, tuple(headers), body)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", "<empty>"),
        ("1557308030", "<10 characters, decimal digits>"),
        ("ab01" * 10, "<40 characters, lower-case hex>"),
        ("AB01", "<4 characters, hex>"),
        ("xyz1", "<4 characters, letters and digits>"),
        ("a-b_", "<4 characters, URL-safe base64>"),
        ("a/b+c=", "<6 characters, base64>"),
        ("a b", "<3 characters, printable ASCII>"),
        ("茶", "<1 characters, other characters>"),
    ],
)
def test_a_form_is_not_the_text(text, form):
    assert form_of(text) == form


def test_a_signature_shows_its_times_and_lists_only():
    assert signature_of(SIGNED) == {
        "q-sign-algorithm": "sha1",
        "q-ak": "<15 characters, letters and digits>",
        "q-sign-time": "1557307130;1557308030",
        "q-key-time": "1557307130;1557308030",
        "q-header-list": "",
        "q-url-param-list": "",
        "q-signature": "<40 characters, lower-case hex>",
    }


def test_what_is_not_listed_is_described():
    body = {
        "errcode": 0,
        "errmsg": f"ok access_token={TOKEN}",
        "url": "https://cos.ap-shanghai.myqcloud.com/b/a.png",
        "token": TOKEN,
        "authorization": SIGNED,
        "cos_file_id": "HDze32/qZEN+",
        "something_new": TOKEN,
        "list": [{"download_url": f"https://x.tcb.qcloud.la/a.png?sign={TOKEN}&t=1", "nested": {"k": TOKEN}}],
    }
    headers = [("Date", "now"), ("Set-Cookie", TOKEN), ("ETag", '"e"'), ("X-New", TOKEN)]
    kept = as_kept(exchange(json.dumps(body).encode(), headers))
    said = json.dumps(kept)
    assert [
        secret for secret in (TOKEN, "AKIDplanted0key", "ab" * 20, "HDze32", "planted") if secret in said
    ] == []
    assert kept["body"]["url"]["address"] == "https://cos.ap-shanghai.myqcloud.com/b/a.png"
    assert kept["body"]["list"][0]["download_url"]["query"]["t"] == "<1 characters, decimal digits>"
    assert {line.split(":")[0] for line in kept["headers"]} == {"Date", "Set-Cookie", "ETag", "X-New"}


def test_cos_errors_keep_what_is_signed_and_bodies_of_files_only_their_length():
    xml = (
        b"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>sha1\n1;2\nff</StringToSign>"
        b"<FormatString>post\n/b/a\n\n\n</FormatString><Token>planted-token</Token></Error>"
    )
    kept = as_kept(exchange(xml))["body"]
    assert kept["FormatString"] == "post\n/b/a\n\n\n"
    assert kept["StringToSign"].startswith("<")
    assert "planted" not in str(kept)
    assert as_kept(exchange(b"\x00file"))["body"] == "<5 bytes>"
    assert as_kept(exchange(b"[" * 100_000))["body"] == "<100000 bytes>"

from hashlib import sha1
from unittest import mock
from urllib.parse import quote

import pytest
from qcloud_cos import CosConfig, CosS3Client

from tcb_ops.features.simulator.signing import (
    authorization,
    read_authorization,
    signature,
)

DOC_ID = "AKIDQjz3ltompVjBni5LitkWHFlFpwkn9U5q"
DOC_KEY = "BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz"
DOC_HOST = "examplebucket-1250000000.cos.ap-beijing.myqcloud.com"
GO_KEY = "AKIDZfbOA78asKUYBcXFrJD0a1ICvR98JM"
BUCKET = "7465-test2-4a89da-1258717764"

PUBLISHED = {
    "document 436/7778, PUT Object": (
        DOC_KEY,
        "1557989151;1557996351",
        ("PUT", "/exampleobject(腾讯云)"),
        (),
        (
            ("Date", "Thu, 16 May 2019 06:45:51 GMT"),
            ("Host", DOC_HOST),
            ("x-cos-acl", "private"),
            ("x-cos-grant-read", 'uin="100000000011"'),
            ("Content-Type", "text/plain"),
            ("Content-Length", "13"),
            ("Content-MD5", "mQ/fVh815F3k6TAUm8m0eg=="),
        ),
        "8b2751e77f43a0995d6e9eb9477f4b685cca4172",
        "3b8851a11a569213c17ba8fa7dcf2abec6935172",
    ),
    "document 436/7778, GET Object": (
        DOC_KEY,
        "1557989753;1557996953",
        ("GET", "/exampleobject(腾讯云)"),
        (("response-content-type", "application/octet-stream"), ("response-cache-control", "max-age=600")),
        (("Date", "Thu, 16 May 2019 06:55:53 GMT"), ("Host", DOC_HOST)),
        "54ecfe22f59d3514fdc764b87a32d8133ea611e6",
        "01681b8c9d798a678e43b685a9f1bba0f6c0e012",
    ),
    "cos-go-sdk-v5 auth_test.go": (
        GO_KEY,
        "1480932292;1481012292",
        ("PUT", "/testfile2"),
        (),
        (
            ("Host", "testbucket-125000000.cos.ap-guangzhou.myqcloud.com"),
            ("x-cos-content-sha1", "db8ac1c259eb89d4a131b253bacfca5f319d54f2"),
            ("x-cos-stroage-class", "nearline"),
        ),
        None,
        "ce4ac0ecbcdb30538b3fee0a97cc6389694ce53a",
    ),
}


def listed(pairs):
    """Return the signed part of parameters or headers, which no upload link has."""
    quoted = sorted((quote(name, safe="-_.~").lower(), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in quoted)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_vectors_come_out(name):
    key, key_time, (method, path), params, headers, digest_wanted, wanted = PUBLISHED[name]
    http = f"{method.lower()}\n{path}\n{listed(params)}\n{listed(headers)}\n"
    if digest_wanted:
        assert sha1(http.encode()).hexdigest() == digest_wanted
    assert signature(key, key_time, http) == wanted


def official(start, end, method, path):
    """Ask Tencent's own library, which takes its start as a minute before its clock."""
    config = CosConfig(Region="ap-shanghai", SecretId=DOC_ID, SecretKey=DOC_KEY, Scheme="https")
    with mock.patch("qcloud_cos.cos_auth.time.time", return_value=start + 60):
        return CosS3Client(config).get_auth(
            Method=method, Bucket="x-1250000000", Key=path, Expired=end - start - 60, SignHost=False
        )


LIKE_THE_LIBRARY = {
    "an upload link": ("post", f"/{BUCKET}/testupload"),
    "Chinese and a space": ("post", f"/{BUCKET}/目录/a b.png"),
    "every awkward character": ("post", f"/{BUCKET}/a%41+b&c=d;e?f#g'(h)*!~[]{{}}|^\"<>\\"),
}


@pytest.mark.parametrize("name", LIKE_THE_LIBRARY)
def test_the_official_library_signs_alike(name):
    method, path = LIKE_THE_LIBRARY[name]
    ours = authorization(DOC_ID, DOC_KEY, "1557307130;1557308030", method, path)
    assert ours == official(1557307130, 1557308030, method, path)


def test_an_authorization_is_read_back():
    text = authorization(DOC_ID, DOC_KEY, "1557307130;1557308030", "post", "/b/k")
    read = read_authorization(text)
    assert read is not None
    assert (read.secret_id, read.end) == (DOC_ID, 1557308030)
    assert text.endswith(read.signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer x",
        "q-sign-algorithm=md5&q-sign-time=1;2&q-key-time=1;2",
        "q-sign-algorithm=sha1&q-sign-time=12&q-key-time=12",
        "q-sign-algorithm=sha1&q-sign-time=a;b&q-key-time=a;b",
        "q-sign-algorithm=sha1&q-sign-time=1;２&q-key-time=1;２",
        "q-sign-algorithm=sha1&q-sign-time=1;9&q-key-time=1;2",
        "q-sign-algorithm=sha1",
    ],
    ids=["empty", "bearer", "md5", "no semicolon", "letters", "full-width digit", "two times", "no time"],
)
def test_what_is_no_authorization_is_not_read(text):
    assert read_authorization(text) is None

from unittest import mock

import pytest
from qcloud_cos import CosConfig, CosS3Client

from tcb_ops.features.simulator.cos import authorization, read_authorization

DOC_ID = "AKIDQjz3ltompVjBni5LitkWHFlFpwkn9U5q"
DOC_KEY = "BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz"
BUCKET = "7465-test2-4a89da-1258717764"


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

"""Secrets leave texts from outside, prose stays."""

from __future__ import annotations

import pytest

from tcb_ops.reports.redact import redact


@pytest.mark.parametrize(
    "text",
    [
        "GET /tcb/uploadfile?access_token=PLANTED failed",
        "authorizer_access_token=PLANTED",
        'body {"access_token":"PLANTED","expires_in":7200}',
        "{'component_access_token': 'PLANTED'}",
        "authorizer_refresh_token=PLANTED",
        "component_appsecret=PLANTED",
        "q-sign-algorithm=sha1&q-ak=PLANTED&q-signature=PLANTED",
        "q-signature%3DPLANTED%26x",
        "x-cos-security-token: PLANTEDPLANTEDPLANTED",
        "Signature=PLANTED",
        "token=PLANTED; path=/",
        "cos_file_id=PLANTED",
        "see https://cos.ap-shanghai.myqcloud.com/b/k?sign=PLANTED&x=PLANTED",
        "Authorization: PLANTEDPLANTEDPLANTED",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    assert "PLANTED" not in redact(text)
    assert "•••" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "invalid credential, access_token is invalid or not latest",
        "access_token: expired",
        "The Signature you specified is invalid.",
        "61725984-6126f6f9-040f19c4",
        "https://api.weixin.qq.com/tcb/uploadfile",
        "cloud://test2-4a89da.7465-test2-4a89da-1258717764/a=b/活动.png",
        "path holds a ? and a = sign",
    ],
)
def test_prose_and_addresses_stay_as_they_are(text: str) -> None:
    assert redact(text) == text

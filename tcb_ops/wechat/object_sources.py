"""Files in object stores (`cos://`, `oss://`, `s3://`): their presigned URLs, which opendal computes on this machine.

The keys are those in the vendors' environment variables; no file and no metadata service of the machine is asked for others.
A presigned URL is a secret, read like any other URL: its host must be in `source_hosts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tcb_ops.details import Detail, DetailCode, detail
from tcb_ops.model import Secret

if TYPE_CHECKING:
    from opendal import AsyncOperator

_OBJECT = re.compile(r"(?P<scheme>cos|oss|s3)://(?P<bucket>[0-9A-Za-z.-]+)/(?P<key>[^?#\x00-\x1f\x7f]+)")
VALID_FOR = 900
"""Seconds that a URL is valid: until the request has begun, not until the file has been read."""
_NEEDED: Mapping[str, Mapping[str, str]] = {
    "cos": {
        "TENCENTCLOUD_SECRET_ID": "secret_id",
        "TENCENTCLOUD_SECRET_KEY": "secret_key",
        "TENCENTCLOUD_REGION": "region",
    },
    "oss": {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "access_key_id",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "access_key_secret",
        "OSS_ENDPOINT": "endpoint",
    },
    "s3": {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_REGION": "region",
    },
}
_OPTIONAL: Mapping[str, Mapping[str, str]] = {
    "cos": {"TENCENTCLOUD_SECURITY_TOKEN": "security_token"},
    "oss": {"ALIBABA_CLOUD_SECURITY_TOKEN": "security_token"},
    "s3": {"AWS_SESSION_TOKEN": "session_token", "AWS_ENDPOINT_URL": "endpoint"},
}
"""Variable → opendal's option, by scheme."""
_FIXED: Mapping[str, Mapping[str, str]] = {
    "cos": {"disable_config_load": "true"},
    "oss": {},
    "s3": {"disable_config_load": "true", "disable_ec2_metadata": "true"},
}


def is_object(url: str) -> bool:
    """Return whether a URL is that of an object in a store."""
    return url.partition("://")[0] in _NEEDED


def object_problem(url: str, shown: str, environment: Mapping[str, str] = os.environ) -> Detail | None:
    """Return why an object cannot be read; None if its URL can be signed.

    ==================================  ===========================
    URL                                 problem
    ==================================  ===========================
    s3://bucket/a/b.png                 none
    s3://bucket, s3:///a, s3://b/a?x    address
    any, without a needed variable      keys, with its name
    any, without opendal                package
    ==================================  ===========================
    """
    found = _OBJECT.fullmatch(url)
    if found is None:
        return detail(DetailCode.SOURCE_ADDRESS, url=shown)
    if find_spec("opendal") is None:
        return detail(DetailCode.SOURCE_PACKAGE, scheme=found["scheme"])
    if lacking := [name for name in _NEEDED[found["scheme"]] if not environment.get(name)]:
        return detail(DetailCode.SOURCE_KEYS, scheme=found["scheme"], names=", ".join(lacking))
    return None


async def presigned(url: str, method: str) -> Secret | None:
    """Return the URL for a HEAD or GET request of an object that has no problem; None if opendal cannot make it."""
    found = _OBJECT.fullmatch(url)
    if found is None:
        message = "an object without a problem has a bucket and a key"
        raise AssertionError(message)
    try:
        operator = _operator(found["scheme"], found["bucket"], _options(found["scheme"], os.environ))
        sign = operator.presign_stat if method == "HEAD" else operator.presign_read
        return Secret((await sign(found["key"], VALID_FOR)).url)
    except Exception:  # noqa: BLE001  opendal's errors have no base class, and their texts may hold what it was given
        return None


def _options(scheme: str, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return opendal's options for a scheme."""
    named = {**_NEEDED[scheme], **_OPTIONAL[scheme]}
    options = {ours: environment[name] for name, ours in named.items() if environment.get(name)}
    if scheme == "cos":
        options["endpoint"] = f"https://cos.{options.pop('region')}.myqcloud.com"
    return tuple((options | dict(_FIXED[scheme])).items())


@cache
def _operator(scheme: str, bucket: str, options: tuple[tuple[str, str], ...]) -> AsyncOperator:
    from opendal import AsyncOperator

    return AsyncOperator(scheme, bucket=bucket, **dict(options))

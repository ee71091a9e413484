"""Quotas of a cloud environment, from Tencent Cloud's own interface with keys that WeChat issues for an hour or two.

Requests are signed with TC3-HMAC-SHA256. Sources: cloud.tencent.com/document/api/213/30654 (signature),
/product/876/42145 (DescribeQuotaData), /api/876/78167 (DescribeBaasPackageList).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tcb_ops.errors import TransportError
from tcb_ops.model import QuotaUsage, Secret, is_simulated
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens import read_object
from tcb_ops.wechat.transport import Transport

ENDPOINT = "https://tcb.tencentcloudapi.com"
SERVICE, VERSION = "tcb", "2018-06-08"
STORAGE, WRITES = "StorageSizepkg", "StorageWritepkg"
"""Metrics: the size of what is stored, in MB; write requests since the beginning of the month."""
_CONTENT_TYPE = "application/json; charset=utf-8"
_MB_PER = {"MB": 1, "GB": 1024, "TB": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class CloudKeys:
    """Temporary keys for one mini program's environments. Never stored."""

    secret_id: Secret
    secret_key: Secret
    token: Secret


def signature(key: str, scope: str, timestamp: int, headers: Mapping[str, str], body: bytes) -> str:
    """Return the hex TC3-HMAC-SHA256 signature of a POST to `/` without a query.

    `scope` is `DATE/SERVICE/tc3_request` with the UTC date; `headers` are those that are signed, in lower case.
    """
    signed = sorted(headers)
    lines = [f"{name}:{headers[name]}" for name in signed]
    canonical = "\n".join(["POST", "/", "", *lines, "", ";".join(signed), _sha256(body)])
    secret = f"TC3{key}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{_sha256(canonical.encode())}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def signed_headers(keys: CloudKeys, host: str, action: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers of a signed call."""
    timestamp = int(now)
    scope = f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d}/{SERVICE}/tc3_request"
    signed = {"content-type": _CONTENT_TYPE, "host": host, "x-tc-action": action.lower()}
    found = signature(keys.secret_key.reveal(), scope, timestamp, signed, body)
    return {
        "Content-Type": _CONTENT_TYPE,
        "Authorization": f"TC3-HMAC-SHA256 Credential={keys.secret_id.reveal()}/{scope}, "
        f"SignedHeaders={';'.join(sorted(signed))}, Signature={found}",
        "X-TC-Action": action,
        "X-TC-Version": VERSION,
        "X-TC-Timestamp": str(timestamp),
        "X-TC-Token": keys.token.reveal(),
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class CloudClient:
    """Reads quotas. Under a loopback target the simulator is asked, else Tencent Cloud."""

    transport: Transport
    target: str
    clock: Callable[[], float]
    """Unix seconds."""
    capacities: dict[str, int] = field(default_factory=dict)
    """MB by package, each asked once."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def usage(self, keys: CloudKeys, env: str, package: str, metric: str) -> QuotaUsage | None:
        """Return an environment's usage; None if it cannot be read.

        The limit is the one in the response, where it has one; that of storage is else its package's.
        """
        found = await self._call(keys, "DescribeQuotaData", {"EnvId": env, "MetricName": metric})
        used = found.get("Value")
        if type(used) is not int or used < 0:
            return None
        limit = _limit(found.get("SubValue"))
        if not limit and metric == STORAGE and package:
            async with self.lock:
                if package not in self.capacities:
                    self.capacities[package] = await self._capacity(keys, env, package)
                limit = self.capacities[package]
        return QuotaUsage(used, limit)

    async def _capacity(self, keys: CloudKeys, env: str, package: str) -> int:
        """Return a package's storage in MB; 0 if unknown."""
        found = await self._call(keys, "DescribeBaasPackageList", {"EnvId": env, "PackageName": package})
        listed = found.get("PackageList")
        return max(map(capacity_of, listed), default=0) if isinstance(listed, list) else 0

    async def _call(self, keys: CloudKeys, action: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the response's object; empty for a refusal or no usable response."""
        origin = endpoint(self.target)
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        headers = signed_headers(keys, origin.partition("://")[2], action, body, self.clock())
        try:
            response: HttpResponse = await self.transport.post_json(Secret(f"{origin}/"), body, headers)
        except TransportError:
            return {}
        found = read_object(response.body).get("Response")
        return found if isinstance(found, dict) and "Error" not in found else {}


def endpoint(target: str) -> str:
    """Return where quotas are read: a simulated target itself, else Tencent Cloud."""
    return "/".join(target.split("/", 3)[:3]) if is_simulated(target) else ENDPOINT


def _limit(value: object) -> int:
    """Return a limit from a response's additional value, which is a number or a text; 0 if it is none."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"[1-9]\d{0,14}", text) else 0


def capacity_of(package: object) -> int:
    """Return the storage of a package in MB, from its ResourceLimit; 0 if it has none."""
    try:
        capacity = json.loads(package["ResourceLimit"])["Capacity"]  # type: ignore[index]
        size = float(capacity["MaxSize"]) * _MB_PER[capacity["Unit"]]
    except (KeyError, TypeError, ValueError):
        return 0
    return int(size) if math.isfinite(size) and size > 0 else 0

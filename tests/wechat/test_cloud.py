"""Calls to Tencent Cloud: their signature, and what is read from a response."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from scripted import Server

from tcb_ops.model import QuotaUsage, Secret
from tcb_ops.wechat.client import CloudClient, CloudKeys, capacity_of, endpoint, signature
from tcb_ops.wechat.transport import Transport

if TYPE_CHECKING:
    from scripted import Connection, Run

KEYS = CloudKeys(Secret("AKIDpractice0001"), Secret("practice-key-0001"), Secret("practice-token-0001"))


def test_the_signature_is_that_of_the_documented_example():
    """The key of cloud.tencent.com/document/api/213/30654 is literally 32 asterisks."""
    body = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
    headers = {
        "content-type": "application/json; charset=utf-8",
        "host": "cvm.tencentcloudapi.com",
        "x-tc-action": "describeinstances",
    }
    found = signature("*" * 32, "2019-02-25/cvm/tc3_request", 1551113065, headers, body)
    assert found == "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"


@pytest.mark.parametrize(
    ("limits", "megabytes"),
    [
        ('{"Qps":500,"Capacity":{"TimeUnit":"m","Unit":"GB","MaxSize":3}}', 3072),
        ('{"Capacity":{"Unit":"MB","MaxSize":"512"}}', 512),
        ('{"Capacity":{"Unit":"个","MaxSize":3}}', 0),
        ('{"Capacity":{"Unit":"GB","MaxSize":-1}}', 0),
        ('{"Capacity":{"Unit":"GB","MaxSize":1e999}}', 0),
        ('{"Capacity":[]}', 0),
        ("not JSON", 0),
        (None, 0),
    ],
)
def test_the_storage_of_a_package(limits: Any, megabytes: int):
    assert capacity_of({"ResourceLimit": limits}) == megabytes


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{"Value": 27, "SubValue": "100"}], (27, 100)),
        ([{"Value": 27, "SubValue": None}, {"PackageList": []}], (27, 0)),
        ([{"Value": 27}, {"PackageList": None}], (27, 0)),
        ([{"Value": 27}, {"Error": {"Code": "UnauthorizedOperation"}}], (27, 0)),
        ([{"Value": "27"}], None),
        ([{"Value": -1}], None),
        ([{"Value": True}], None),
        ([{"Error": {"Code": "InternalError"}, "Value": 27}], None),
        (["nonsense"], None),
    ],
)
def test_what_is_used_and_allowed(run: Run, answers: list[Any], expected: tuple[int, int] | None) -> None:
    found, server = run(ask_usage(answers))
    assert (found and (found.used, found.limit)) == expected
    assert json.loads(server.bodies[0]) == {"EnvId": "tea-1a2b3c", "MetricName": "StorageSizepkg"}
    assert len(server.heads) == len(answers)
    assert b"practice-key" not in b"".join(server.heads)


async def ask_usage(answers: list[Any]) -> tuple[QuotaUsage | None, Server]:
    async def script(connection: Connection) -> None:
        for answer in answers:
            await connection.request()
            await connection.answer(json.dumps({"Response": answer}).encode())

    async with Server(script) as server, Transport(connections=1) as transport:
        client = CloudClient(transport, f"{server.base}/below", lambda: 1_764_000_000.0)
        return await client.usage(KEYS, "tea-1a2b3c", "basic", "StorageSizepkg"), server


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("https://api.weixin.qq.com", "https://tcb.tencentcloudapi.com"),
        ("https://proxy.example.com/wechat", "https://tcb.tencentcloudapi.com"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://[::1]:8765/base", "http://[::1]:8765"),
    ],
)
def test_a_simulated_target_is_asked_itself_and_no_other(target: str, origin: str):
    assert endpoint(target) == origin

"""Whatever bytes a file or an answer has: it is read, or refused in a documented error; nothing else, and no secret.

Hypothesis changes valid examples. `make test` tries the same sixty of each every time; `make soak` others, for a minute each.
"""

import asyncio
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from openpyxl import Workbook

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.tokens.sources import read_token
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Link, Merchant, Secret
from tcb_ops.wechat.cos import StoredObject, StoreRefusal, Unconfirmed, post_object
from tcb_ops.wechat.local_files import open_file
from tcb_ops.wechat.responses import HttpResponse, InvalidResponse, UnsafeLink, read_link, read_response

SECRET = "SECRET-of-a-link-that-nobody-may-see"
TEA = Merchants((Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),), "merchants.csv")
LIST = 'env,path,file,备注\ntea-1a2b3c,a/b.png,a.png,"x, y"\r\ntea-1a2b3c,目录/c.png,,\n'.encode()
MERCHANTS = "appid,name,env,负责人\nwxtea,茶语小铺,tea-1a2b3c,李\nwxbooks,城南书店,books-77aa01,王\n".encode()
SETTINGS = b'target = "simulator"\nledger = "x.db"\nroot = "files"\n[tokens]\nfile = "t.csv"\n[report]\nlang = "zh"\n'
TOKEN = json.dumps({"access_token": "token-of-wxtea", "expires_in": 7200}).encode()
LINK = json.dumps(
    {
        "errcode": 0,
        "errmsg": "ok rid: 62f3-1c",
        "url": "https://cos.ap-shanghai.myqcloud.com/7465-tea-1a2b3c-1250000000/a.png",
        "token": SECRET,
        "authorization": f"q-sign-time=1700000000;1700000900&q-signature={SECRET}",
        "file_id": "cloud://tea-1a2b3c.7465-tea-1a2b3c-1250000000/a.png",
        "cos_file_id": SECRET,
    }
).encode()
STORE = (
    f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no {SECRET}</Message></Error>".encode()
)
PIECES = [b'"', b",", b"\n", b"\r", b"\0", b"\t", b";", b"=", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"&#x41;", b"<", b"<!DOCTYPE a [",
          b"{" * 5000, b"[" * 5000, b"9" * 5000, b"-1", b"1e999", b"NaN", b"null", b"\\ud800", "\u202e".encode(), b"../", b"'=cmd|"]  # fmt: skip
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES) | st.binary(max_size=8)),
    max_size=4,
)


def workbook() -> bytes:
    book, out = Workbook(), io.BytesIO()
    for cells in (("env", "path", "file"), ("tea-1a2b3c", "a.png", 7), ("tea-1a2b3c", "=1+1", None)):
        book.active.append(cells)
    book.save(out)
    return out.getvalue()


def changed(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Replace some bytes after a part of the data."""
    for part, length, new in changes:
        begin = int(part * len(data))
        data = data[:begin] + new + data[begin + length :]
    return data


def changed_workbook(package: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Change the parts of a workbook, and after three changes also the package around them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as parts, zipfile.ZipFile(out, "w") as new:
        names = parts.namelist()
        for number, name in enumerate(names):
            here = [change for change in changes[:3] if int(change[0] * 997) % len(names) == number]
            new.writestr(name, changed(parts.read(name), here))
    return changed(out.getvalue(), changes[3:])


class Answers:
    """A transport that takes each file, and always gives the same answer."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def send(self, _request, form, **_options):
        async for _part in form:
            pass
        status = (200, 204, 301, 403, 503)[len(self.body) % 5]
        headers = {"ETag": self.body[:40].decode("latin-1"), "x-cos-request-id": "NjJm"}
        return HttpResponse(status, CIMultiDict(headers), self.body)


def as_list(data: bytes, folder: Path) -> None:
    (folder / "list.csv").write_bytes(data)
    tcb.read_paths(folder / "list.csv", TEA, folder)


def as_workbook(data: bytes, folder: Path) -> None:
    (folder / "list.xlsx").write_bytes(data)
    read_paths(folder / "list.xlsx", TEA, folder)


def as_merchants(data: bytes, folder: Path) -> None:
    (folder / "merchants.csv").write_bytes(data)
    read_merchants(folder / "merchants.csv")


def as_settings(data: bytes, folder: Path) -> None:
    (folder / "tcb-ops.toml").write_bytes(data)
    tcb.load_settings(folder / "tcb-ops.toml")


def as_token(data: bytes, _folder: Path) -> None:
    assert "token-of-wxtea" not in repr(read_token(data, 1_700_000_000))


def as_platform_answer(data: bytes, _folder: Path) -> None:
    for status in (200, 500):
        response = HttpResponse(status, CIMultiDict(), data)
        answer = read_response(response, [Secret(SECRET)])
        if isinstance(answer, dict):
            answer = read_link(answer, response, "tea-1a2b3c", "a.png", "https://api.weixin.qq.com", ())
        assert SECRET not in repr(answer)
        assert isinstance(answer, Link | InvalidResponse | UnsafeLink) or answer.errcode


def as_store_answer(data: bytes, folder: Path) -> None:
    link = Link(
        Secret("https://cos.ap-shanghai.myqcloud.com/b/a.png"),
        Secret(SECRET),
        Secret(SECRET),
        "",
        Secret(SECRET),
        9,
        1,
    )
    file = folder / "a.png"
    file.write_bytes(b"a")
    body = open_file(file, 1, file.stat().st_mtime_ns)
    answer = asyncio.run(post_object(Answers(data), link, "a.png", body))
    assert isinstance(answer, StoredObject | StoreRefusal | Unconfirmed)
    assert SECRET not in repr(answer)


@dataclass(frozen=True)
class Input:
    """Something that is read, and a valid example of it."""

    read: Callable[[bytes, Path], None]
    example: bytes
    change: Callable[[bytes, list[tuple[float, int, bytes]]], bytes] = changed


INPUTS = [
    Input(as_list, LIST),
    Input(as_list, LIST.decode().encode("gb18030")),
    Input(as_workbook, workbook(), changed_workbook),
    Input(as_merchants, MERCHANTS),
    Input(as_settings, SETTINGS),
    Input(as_token, TOKEN),
    Input(as_platform_answer, LINK),
    Input(as_store_answer, STORE),
]
names = pytest.mark.parametrize(
    "source", INPUTS, ids=[f"{number} {source.read.__name__}" for number, source in enumerate(INPUTS)]
)


def fuzz(source, folder, budget):
    @settings(budget, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(edits)
    def try_one(changes):
        with suppress(UsageError):
            source.read(source.change(source.example, changes), folder)

    try_one()


@names
@pytest.mark.slow
def test_changed_input_is_read_or_refused(source, tmp_path):
    fuzz(source, tmp_path, settings(derandomize=True, max_examples=60))


@names
@pytest.mark.soak
def test_changed_input_is_read_or_refused_for_a_minute(source, tmp_path):
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "60"))
    while time.monotonic() < end:
        fuzz(source, tmp_path, settings(max_examples=500))

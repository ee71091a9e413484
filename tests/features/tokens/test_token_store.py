"""The refresh tokens on disk: whole at any moment, for their owner alone, of one platform."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tables import table

from tcb_ops.errors import SettingsError, TokenError, TokenSourceError
from tcb_ops.features.tokens.component_store import IDENTITY, LOCKS, StoredToken, TokenStore
from tcb_ops.model import Secret

BASE = "https://api.weixin.qq.com"
KEPT = StoredToken(Secret("AcCeSs"), Secret("ReFrEsH"), 1600.0, 2200.0)
ENDLESS = json.dumps(
    {
        "schema": 1,
        "appid": "wx1",
        "access_token": "a",
        "refresh_token": "r",
        "renew_at": 10**400,
        "expires_at": 1,
    }
)
NEWER = json.dumps({"schema": 2, "component_appid": "wxplatform", "api_base": BASE}).encode()

posix = pytest.mark.posix("file modes")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "conf" / "tcb-ops.tokens"


def opened(folder: Path, component: str = "wxplatform", base: str = BASE) -> TokenStore:
    return TokenStore(folder, component, base)


def test_what_is_written_is_read_by_the_next(folder):
    opened(folder).write("wx1", KEPT)
    assert opened(folder, base=f"{BASE}/").read("wx1") == KEPT
    assert opened(folder).read("wx2") is None
    opened(folder).write("wxplatform", StoredToken(Secret("c"), None, 1.0, 2.0))
    assert opened(folder).read("wxplatform") == StoredToken(Secret("c"), None, 1.0, 2.0)


def test_nothing_shows_a_token(folder):
    assert "AcCeSs" not in repr(KEPT)
    assert "ReFrEsH" not in repr(KEPT) + repr(KEPT.token)


@posix
def test_everything_in_it_is_its_owners_alone_whatever_the_umask(folder):
    before = os.umask(0)
    try:
        store = opened(folder)
        store.write("wx1", KEPT)

        async def held() -> None:
            async with store.hold("wx1"):
                pass

        asyncio.run(held())
    finally:
        os.umask(before)
    modes = {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in (folder, *folder.rglob("*"))}
    assert modes == {
        ".": 0o700,
        LOCKS: 0o700,
        f"{LOCKS}/{IDENTITY}.lock": 0o600,
        f"{LOCKS}/wx1.lock": 0o600,
        IDENTITY: 0o600,
        "wx1.json": 0o600,
    }


@posix
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a named pipe")
@pytest.mark.parametrize("which", ["wx1.json", IDENTITY])
def test_a_pipe_in_the_store_is_refused_since_reading_it_would_never_end(folder, which):
    opened(folder)
    (folder / which).unlink(missing_ok=True)
    os.mkfifo(folder / which, 0o600)
    with pytest.raises(SettingsError, match="neither a file nor a folder"):
        opened(folder)


@pytest.mark.posix("file modes")
@pytest.mark.parametrize("which", [".", "wx1.json", IDENTITY])
@pytest.mark.parametrize("mode", [0o040, 0o004])
def test_a_store_that_others_may_read_is_refused_with_the_fix(folder, which, mode):
    opened(folder).write("wx1", KEPT)
    path = folder / which
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(SettingsError, match="chmod -R go-rwx") as caught:
        opened(folder)
    assert "可被本机其他用户读取" in caught.value.text.zh
    assert caught.value.exit_code == 2


@table(
    "component, base, why",
    {
        "component": ("wxother", BASE, "belongs to another platform.*component_appid"),
        "api-base": (
            "wxplatform",
            "http://127.0.0.1:1",
            "belongs to another platform.*api_base",
        ),
    },
)
def test_another_platforms_store_is_refused(folder, component, base, why):
    opened(folder)
    with pytest.raises(SettingsError, match=why):
        opened(folder, component, base)


@table(
    "ours, name, content, why",
    {
        "a file": (False, ".", b"{}", "is not a folder"),
        "a folder of something else": (
            False,
            "notes.txt",
            b"mine",
            "contains other files and is not a token store",
        ),
        "no JSON": (True, IDENTITY, b"\xff{", "another version wrote it .*schema, component_appid, api_base"),
        "newer": (True, IDENTITY, NEWER, "another version wrote it .*schema"),
        "unreadable": (True, IDENTITY, None, "cannot be used .it is a folder"),
    },
)
def test_what_is_no_store_of_ours_is_refused_and_left_alone(folder, ours, name, content, why):
    if ours:
        opened(folder)
        (folder / name).unlink()
    else:
        (folder / name).parent.mkdir(parents=True, mode=0o700)
    if content is None:
        (folder / name).mkdir(mode=0o700)
    else:
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(SettingsError, match=why) as caught:
        opened(folder)
    assert str(folder) in caught.value.text.zh
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_making_that_was_killed_is_gone_on_with(folder):
    (folder / LOCKS).mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / f".{IDENTITY}.part").touch(mode=0o600)
    opened(folder).write("wx1", KEPT)
    assert opened(folder).read("wx1") == KEPT


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": 1}', '{"schema": 9, "appid": "wx1"}', "of-another", ENDLESS],
    ids=["empty", "torn", "list", "fields", "newer", "of-another", "endless-time"],
)
def test_a_broken_record_is_one_merchants_trouble_with_the_fix(folder, text):
    store = opened(folder)
    store.write("wx2", KEPT)
    (folder / "wx1.json").write_text((folder / "wx2.json").read_text() if text == "of-another" else text)
    with pytest.raises(TokenError, match=r"wx1\.json is not a token record: delete it"):
        store.read("wx1")
    assert store.read("wx2") == KEPT


@posix
@pytest.mark.parametrize("how", ["a folder", "closed"])
def test_a_record_that_alone_cannot_be_read_is_one_merchants_trouble(folder, how):
    store = opened(folder)
    store.write("wx2", KEPT)
    store.write("wx1", KEPT)
    if how == "closed":
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        (folder / "wx1.json").chmod(0)
    else:
        (folder / "wx1.json").unlink()
        (folder / "wx1.json").mkdir(0o700)
    with pytest.raises(TokenError, match=r"wx1\.json cannot be read \(.*\): delete it"):
        store.read("wx1")
    assert store.read("wx2") == KEPT


def test_a_disk_that_takes_nothing_is_everybodys_trouble(folder):
    store = opened(folder)
    (folder / ".wx1.json.part").mkdir()
    with pytest.raises(TokenSourceError, match=r"wx1\.json: it is a folder"):
        store.write("wx1", KEPT)


@pytest.mark.parametrize("appid", ["", "..", "../wx1", "a/b", "_platform", ".wx", "wx 1", "x" * 65, "商户"])
def test_only_an_appid_becomes_a_file(folder, appid):
    store = opened(folder)
    with pytest.raises(TokenError, match="is not an appid"):
        store.read(appid)
    with pytest.raises(TokenError, match="is not an appid"):
        store.write(appid, KEPT)


def test_one_holds_an_appid_at_a_time_and_others_do_not_wait(run, folder):
    first, second = opened(folder), opened(folder)
    order: list[Any] = []

    async def hold(store: TokenStore, appid: str, name: str, go: asyncio.Event | None = None) -> None:
        async with store.hold(appid):
            order.append(name)
            if go is not None:
                await go.wait()
                order.append(f"{name} done")

    async def all_three() -> None:
        go = asyncio.Event()
        one = asyncio.create_task(hold(first, "wx1", "first", go))
        await asyncio.sleep(0)
        two = asyncio.create_task(hold(second, "wx1", "second"))
        await hold(second, "wx2", "other")
        go.set()
        await asyncio.gather(one, two)

    run(all_three())
    assert order == ["first", "other", "first done", "second"]

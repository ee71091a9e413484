"""A second fake platform and store, independent of the simulator, with its own faults and expected outcomes.

Over raw sockets it implements the link interface and COS's form post for a generated list. The faults of a row are
drawn from a seed and apply to the nth call of a step for (env, path). `expected` derives each row's outcome from the
interface's rules alone; the journal records what was stored. Nothing of tcb_ops is imported here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from types import TracebackType

ATTEMPTS = 4
PLANTED = "PLANTED"
"""Part of every secret that this server sends or accepts."""


@dataclass(frozen=True)
class Fault:
    """A response to one call, and how a client must handle it."""

    name: str
    effect: str
    """ok, retry, retry_once, new_link, new_link_once, slow, end."""
    outcome: str = ""
    """The row's outcome if this is its last response."""
    scope: str = ""
    """The scope in which three successive rows with this result stop the others: env or appid; empty for none."""
    body: tuple[Any, ...] = ()
    """An errcode, or an HTTP status and COS's code."""


def _link(name: str, effect: str, outcome: str = "failed", scope: str = "", *body: Any) -> Fault:
    return Fault(name, effect, outcome, scope, body)


def _store(name: str, effect: str, scope: str = "", *body: Any) -> Fault:
    return Fault(name, effect, "failed", scope, body)


OK = Fault("ok", "ok")
PASSING_LINK = [
    _link("busy", "retry", "refused", "", -1),
    _link("system-error", "retry", "refused", "", -501001),
    _link("http-502", "retry"),
    _link("http-429", "retry"),
    _link("page", "retry"),
    _link("half-a-body", "retry"),
    _link("reset", "retry"),
    _link("no-fields", "retry"),
    _link("late", "ok"),
]
SLOW_LINK = [
    _link("slow-appid", "slow", "refused", "appid", 45011),
    _link("slow-env", "slow", "refused", "env", -501004),
]
LASTING_LINK = [
    _link("bad-path", "end", "refused", "", 40097),
    _link("unknown-code", "end", "refused", "", 987654),
    _link("dead-token", "end", "refused", "", 40001),
    _link("no-cloud", "end", "refused", "appid", 85088),
    _link("halted", "end", "refused", "env", -501005),
    _link("http-404", "end"),
    _link("redirect", "end"),
    _link("other-env", "end"),
    _link("other-path", "end"),
    _link("other-host", "end"),
    _link("no-signature", "end"),
]
PASSING_STORE = [
    _store("internal", "retry", "", 500, "InternalError"),
    _store("timeout", "retry", "", 400, "RequestTimeout"),
    _store("http-503", "retry"),
    _store("error-in-200", "retry", "", 200, "InternalError"),
    _store("page-200", "retry"),
    _store("redirect-307", "retry"),
    _store("redirect-302", "retry"),
    _store("stored-no-etag", "retry"),
    _store("http-202", "retry"),
    _store("wrong-etag", "retry", "env"),
    _store("reset-unread", "retry"),
    _store("reset-read", "retry"),
    _store("reset-stored", "retry"),
    _store("half-a-head", "retry"),
    _store("digest", "retry_once", "", 400, "BadDigest"),
    _store("expired", "new_link", "", 400, "ExpiredToken"),
    _store("ran-out", "new_link", "", 403, "AccessDenied", "Request has expired"),
    _store("denied", "new_link_once", "env", 403, "AccessDenied", "Access Denied."),
    _store("late", "ok"),
    _store("ok-200", "ok"),
    _store("ok-201", "ok"),
    _store("opaque", "ok"),
]
SLOW_STORE = [_store("slow-down", "slow", "env", 503, "SlowDown")]
LASTING_STORE = [
    _store("malformed", "end", "", 400, "MalformedPOSTRequest"),
    _store("too-large", "end", "", 400, "EntityTooLarge"),
    _store("http-403", "end"),
    _store("no-bucket", "end", "env", 404, "NoSuchBucket"),
]
UNCONFIRMED = {"page-200", "redirect-307", "redirect-302", "stored-no-etag", "http-202"}


@dataclass(frozen=True)
class Plan:
    """The faults of one row's link and store calls. After the last one calls succeed, or it repeats for ever."""

    link: tuple[Fault, ...] = ()
    store: tuple[Fault, ...] = ()
    link_for_ever: bool = False
    store_for_ever: bool = False

    def answer(self, step: str, call: int) -> Fault:
        """Return the response to the nth call of a step, from 1."""
        faults, for_ever = (
            (self.link, self.link_for_ever) if step == "link" else (self.store, self.store_for_ever)
        )
        if call <= len(faults):
            return faults[call - 1]
        return faults[-1] if faults and for_ever else OK


def expected(plan: Plan) -> tuple[str, Fault]:
    """Return a row's outcome and last response: a link, then the file, each tried at most four times.

    `slow` costs no attempt. A new link costs the store an attempt, and resets the attempts of the link.
    """
    links = stores = link_tries = store_tries = 0
    linked = relinked = retried_once = False
    while True:
        step = "store" if linked else "link"
        links, stores = links + (not linked), stores + linked
        fault = plan.answer(step, stores if linked else links)
        if fault.effect == "slow":
            continue
        if fault.effect == "ok":
            if linked:
                return "uploaded", fault
            linked, link_tries = True, 0
            continue
        if fault.effect == "end":
            return fault.outcome, fault
        tries = link_tries + 1 if step == "link" else store_tries + 1
        if step == "link":
            link_tries = tries
        else:
            store_tries = tries
        spent = (fault.effect == "retry_once" and retried_once) or (
            fault.effect == "new_link_once" and relinked
        )
        if tries >= ATTEMPTS or spent:
            return fault.outcome, fault
        retried_once = retried_once or fault.effect == "retry_once"
        if fault.effect.startswith("new_link"):
            linked, relinked = False, True


def draw(seed: str) -> Plan:
    """Draw a row's plan."""
    chance = random.Random(seed)
    kind = chance.random()
    if kind < 0.35:
        return Plan()

    def some(faults: list[Fault], most: int = 3) -> tuple[Fault, ...]:
        return tuple(chance.choices(faults, k=chance.randint(1, most)))

    if kind < 0.55:
        return Plan(link=some(PASSING_LINK))
    if kind < 0.75:
        return Plan(store=some(PASSING_STORE))
    if kind < 0.83:
        return Plan(link=some(PASSING_LINK, 2), store=some(PASSING_STORE, 4))
    if kind < 0.85:
        return Plan(link=some(SLOW_LINK, 1), store=some(SLOW_STORE, 1))
    if kind < 0.89:
        return Plan(link=some(PASSING_LINK[:-1], 1), link_for_ever=True)
    if kind < 0.94:
        return Plan(store=some(PASSING_STORE[:-4], 1), store_for_ever=True)
    if kind < 0.97:
        return Plan(link=(*some(PASSING_LINK, 2), chance.choice(LASTING_LINK)))
    return Plan(store=(*some(PASSING_STORE[:6], 2), chance.choice(LASTING_STORE)))


def draw_all(rows: list[tuple[str, str, str]], seed: int) -> dict[tuple[str, str], Plan]:
    """Return the plans of rows (appid, env, path), by (env, path), with too few stops per scope to open a breaker."""
    plans: dict[tuple[str, str], Plan] = {}
    stops: Counter[tuple[str, str]] = Counter()
    for appid, env, path in rows:
        plan = draw(f"{seed}/{env}/{path}")
        outcome, last = expected(plan)
        if outcome != "uploaded" and last.scope:
            where = (appid if last.scope == "appid" else env, str(last.body[1:] or last.body or last.name))
            stops[where] += 1
            if stops[where] > 2:
                plan = Plan()
        plans[env, path] = plan
    return plans


@dataclass
class FaultServer:
    """A server for the plans on loopback, in its own thread. `tokens` are the merchants' by appid."""

    plans: dict[tuple[str, str], Plan]
    tokens: dict[str, str]
    owners: dict[str, str]
    """Environment → appid of its merchant."""
    stored: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """The journal, by (env, path): MD5 and Content-Type of the stored object."""
    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    """Forbidden requests: following a redirect, posting to another bucket, using a replaced link."""
    port: int = 0

    def __post_init__(self) -> None:
        self._links: dict[tuple[str, str], str] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(240)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(240)

    @property
    def base(self) -> str:
        """The target URL."""
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8")
        line, *lines = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        length = int(headers.get("content-length", "0"))
        if target.startswith("/tcb/uploadfile?"):
            asked = json.loads(await reader.readexactly(length))
            return await self._link(writer, target, asked["env"], asked["path"])
        if method == "POST" and (found := re.fullmatch(r"/[0-9a-f]{4}-([^/]+)-1250000000/(.+)", target)):
            return await self._store(reader, writer, headers, length, found[1], unquote(found[2]))
        if target != "/.well-known/tcb-ops-simulator":  # what it is, asked once: this is no simulator
            self.violations.append(f"{method} {target[:60]}")
        await reader.readexactly(length)
        _answer(writer, 404, b"")
        return True

    def _next(self, step: str, env: str, path: str) -> Fault:
        self.calls[step, env, path] += 1
        return self.plans[env, path].answer(step, self.calls[step, env, path])

    async def _link(self, writer: asyncio.StreamWriter, target: str, env: str, path: str) -> bool:
        token = unquote(target.partition("access_token=")[2])
        if token != self.tokens[self.owners[env]]:
            self.violations.append(f"a token of another merchant for {env}")
        fault = self._next("link", env, path)
        if fault.body:
            payload = {
                "errcode": fault.body[0],
                "errmsg": f"said of {token} rid: 61725984-6126f6f9-040f19c4",
            }
            _answer(writer, 200, json.dumps(payload).encode())
            return True
        number = self.calls["link", env, path]
        bucket, to = f"{env[:2].encode().hex()}-{env}-1250000000", path
        if fault.name == "other-env":
            bucket = "6f74-other-env-1-1250000000"
        if fault.name == "other-path":
            to = f"{path}.other"
        base = "https://store.evil.example" if fault.name == "other-host" else self.base
        now = int(time.time())
        sign = f"q-sign-algorithm=sha1&q-ak=AKID{PLANTED}&q-sign-time={now};{now + 900}&q-key-time={now};{now + 900}"
        answer = {
            "errcode": 0,
            "errmsg": "ok",
            "url": f"{base}/{bucket}/{quote(to)}",
            "token": f"{PLANTED}-token-{number}-{hashlib.sha1(path.encode()).hexdigest()}",
            "authorization": f"{sign}&q-header-list=&q-url-param-list=&q-signature={PLANTED}{number}",
            "file_id": f"cloud://{env}.{bucket}/{to}",
            "cos_file_id": f"{PLANTED}+/=={number}",
        }
        if fault.name == "no-fields":
            del answer["token"], answer["authorization"]
        if fault.name == "no-signature":
            answer["authorization"] = f"Basic {PLANTED}"
        if fault.effect == "ok":
            self._links[env, path] = str(answer["token"])
        body = json.dumps(answer, ensure_ascii=False).encode()
        if fault.name == "late":
            await asyncio.sleep(0.3)
        return self._answer_link(writer, fault, body)

    @staticmethod
    def _answer_link(writer: asyncio.StreamWriter, fault: Fault, body: bytes) -> bool:
        match fault.name:
            case "reset":
                return _reset(writer)
            case "http-502" | "http-429" | "http-404":
                _answer(writer, int(fault.name[5:]), b"<html>gateway</html>", "Content-Type: text/html\r\n")
            case "page":
                _answer(writer, 200, b"<html>login</html>", "Content-Type: text/html\r\n")
            case "redirect":
                _answer(writer, 302, b"", "Location: /followed/link\r\n")
            case "half-a-body":
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:50])
                return False
            case _:
                _answer(writer, 200, body, "Content-Type: application/json\r\n")
        return True

    async def _store(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        headers: dict[str, str],
        length: int,
        env: str,
        path: str,
    ) -> bool:
        if (env, path) not in self.plans:
            self.violations.append(f"a form for {env}/{path[:40]}")
            return False
        fault = self._next("store", env, path)
        if fault.name == "reset-unread":
            return _reset(writer)
        body = await reader.readexactly(length)
        fields, content = _form(headers["content-type"], body)
        if next(iter(fields)) != "key" or list(fields)[-1] != "file" or fields["key"] != path:
            self.violations.append(f"fields {list(fields)} for {env}/{path}")
        if fields.get("x-cos-security-token") != self._links.get((env, path)):
            self.violations.append(f"a link that was replaced, for {env}/{path}")
        md5 = hashlib.md5(content).hexdigest()
        if fault.name == "wrong-etag":
            content, md5 = content[:-1], hashlib.md5(content[:-1]).hexdigest()
        if (
            fault.name in {"stored-no-etag", "wrong-etag", "reset-stored", "half-a-head"}
            or fault.effect == "ok"
        ):
            self.stored[env, path] = (md5, fields.get("Content-Type", ""))
        if fault.name == "late":
            await asyncio.sleep(0.3)
        if fault.effect.startswith("new_link"):
            self._links.pop((env, path), None)
        return self._answer_store(writer, fault, md5, path)

    @staticmethod
    def _answer_store(writer: asyncio.StreamWriter, fault: Fault, md5: str, path: str) -> bool:
        if fault.body:
            status, code, *message = fault.body
            text = message[0] if message else f"Message of {code}."
            xml = f"<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code><Message>{text}</Message></Error>"
            _answer(writer, status, xml.encode(), "Content-Type: application/xml\r\n")
            return True
        etag = f'ETag: "{md5}"\r\n'
        match fault.name:
            case "http-503" | "http-403":
                _answer(writer, int(fault.name[5:]), b"<html>gateway</html>", "Content-Type: text/html\r\n")
            case "page-200":
                _answer(writer, 200, b"<html>blocked by policy</html>", "Content-Type: text/html\r\n")
            case "redirect-307" | "redirect-302":
                _answer(writer, int(fault.name[9:]), b"", f"Location: /followed/store\r\n{etag}")
            case "stored-no-etag":
                _answer(writer, 204, b"")
            case "http-202":
                _answer(writer, 202, b"", etag)
            case "reset-read" | "reset-stored":
                return _reset(writer)
            case "half-a-head":
                writer.write(b"HTTP/1.1 204 No Content\r\nETa")
                return False
            case "ok-200":
                _answer(writer, 200, b"", etag)
            case "ok-201":
                xml = f"<PostResponse><Key>{quote(path)}</Key><ETag>&quot;{md5}&quot;</ETag></PostResponse>"
                _answer(writer, 201, xml.encode(), f"Content-Type: application/xml\r\n{etag}")
            case "opaque":
                _answer(writer, 204, b"", f'ETag: "{md5}-1"\r\n')
            case _:
                _answer(writer, 204, b"", etag)
        return True


def _answer(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
    length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status} Status\r\n{length}{headers}\r\n".encode() + body)


def _reset(writer: asyncio.StreamWriter) -> bool:
    plug = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields of a form in order, with "" for the file, and the file's bytes."""
    boundary = content_type.partition("boundary=")[2].encode()
    fields: dict[str, str] = {}
    content = b""
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.findall(rb'[ ;]name="([^"]*)"', head)[0].decode()
        fields[name] = "" if b"filename=" in head else value.decode()
        content = value if b"filename=" in head else content
    return fields, content

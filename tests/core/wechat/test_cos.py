from __future__ import annotations

import asyncio
import email
import hashlib
import logging
import os
import re
import sys
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from scripted import SECRET, Connection, Run, Script, Server, always, length_in

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.model import Link, Secret
from tcb_ops.runs.lease import LapsedError
from tcb_ops.wechat.cos import StoredObject, StoreRefusal, Unconfirmed, etag_verdict, post_object
from tcb_ops.wechat.local_files import FileBody, FileChangedError, FileUnreadableError, open_file
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.transport import Timeouts, Transport

PATH = "目录/a b.png"
SIGNATURE = (
    "q-sign-algorithm=sha1&q-ak=AKIDabc&q-sign-time=1;2&q-signature=ca20694b28aab1a395b20dbd5d92bdfc9c60993f"
)
QUICK = Timeouts(connect=10, answer=10, slowest=1 << 30)


def link_to(base: str, target: str = f"/bucket/{PATH}") -> Link:
    return Link(
        url=Secret(base + target),
        token=Secret(f"{SECRET}-token"),
        authorization=Secret(SIGNATURE),
        file_id=f"cloud://env.bucket/{PATH}",
        cos_file_id=Secret("HDze32/qZENCwWi5+N5akg=="),
        expires_at=2,
    )


def made(folder: Path, content: bytes) -> Path:
    path = folder / "local 文件.png"
    path.write_bytes(content)
    return path


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def opened(path: Path) -> FileBody:
    now = path.stat()
    return open_file(path, now.st_size, now.st_mtime_ns)


async def posted(
    script: Script, body: FileBody, path: str = PATH, *headers: str
) -> tuple[StoredObject | StoreRefusal | Unconfirmed, Server]:
    async with Server(script) as server, Transport(connections=1, timeouts=QUICK) as transport:
        return await post_object(transport, link_to(server.base), path, body, *headers), server


SIZES = [0, 1, 4096, (1 << 20) - (64 << 10), (1 << 20) - (64 << 10) + 1, 1 << 20, (3 << 20) + 17]


@pytest.mark.parametrize("size", SIZES)
def test_the_form_is_the_documented_one_with_the_file_last_and_an_exact_length(
    run: Run, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    result, server = run(
        posted(
            always(b"", "204 No Content", 'ETag: "e"\r\nx-cos-request-id: r1\r\n'),
            opened(made(tmp_path, content)),
        )
    )

    head, body = server.heads[0], server.bodies[0]
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /bucket/目录/a%20b.png HTTP/1.1"
    assert "transfer-encoding" not in head.decode().lower()
    assert length_in(head) == len(body)
    (kind,) = [line for line in lines if line.lower().startswith("content-type")]
    form = email.message_from_bytes(kind.encode() + b"\r\n\r\n" + body)
    parts: list[Any] = list(form.walk())[1:]
    names = [re.findall(r'\bname="([^"]*)"', part["Content-Disposition"])[0] for part in parts]
    assert names == ["key", "Signature", "x-cos-security-token", "x-cos-meta-fileid", "file"]
    texts = [part.get_payload(decode=True) for part in parts]
    assert texts == [
        PATH.encode(),
        SIGNATURE.encode(),
        f"{SECRET}-token".encode(),
        b"HDze32/qZENCwWi5+N5akg==",
        content,
    ]
    assert [part.get_filename() for part in parts] == [None] * 4 + ["file"]
    assert body.endswith(b"--\r\n")
    assert result == StoredObject(204, '"e"', hashlib.md5(content).hexdigest())


# POST Object's form fields (cloud.tencent.com/document/product/436/14690) besides `Signature` and
# `x-cos-security-token`, which the platform's page adds; `x-cos-meta-*` by its prefix.
COS_FIELDS = {
    "acl", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Type", "Expires", "key",
    "success_action_redirect", "success_action_status", "x-cos-storage-class", "file",
}  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        pytest.param(("image/svg+xml", ""), {"Content-Type": "image/svg+xml"}, id="type"),
        pytest.param(("", "max-age=60"), {"Cache-Control": "max-age=60"}, id="cache"),
        pytest.param(
            ("text/html; charset=utf-8", "public, max-age=31536000, immutable"),
            {
                "Content-Type": "text/html; charset=utf-8",
                "Cache-Control": "public, max-age=31536000, immutable",
            },
            id="both",
        ),
        pytest.param(("", ""), {}, id="none"),
    ],
)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_the_object_s_headers_are_cos_s_form_fields_before_the_file(
    run: Run, tmp_path: Path, headers: tuple[str, str], sent: dict[str, str], size: int
) -> None:
    script = always(b"", "204 No Content", 'ETag: "e"\r\n')
    _, server = run(posted(script, opened(made(tmp_path, os.urandom(size))), PATH, *headers))
    kind = re.findall(rb"(?im)^content-type:[^\r]*", server.heads[0])[0]
    form = email.message_from_bytes(kind + b"\r\n\r\n" + server.bodies[0])
    parts: list[Any] = list(form.walk())[1:]
    fields = [re.findall(r'\bname="([^"]*)"', part["Content-Disposition"])[0] for part in parts]
    values = dict(zip(fields, (part.get_payload(decode=True) for part in parts), strict=True))
    assert fields[0] == "key"
    assert fields[-1] == "file"
    assert {name: values[name].decode() for name in sent} == sent
    assert {"Content-Type", "Cache-Control"} & set(fields) == set(sent)
    own = {"Signature", "x-cos-security-token"}
    assert all(name in COS_FIELDS | own or name.startswith("x-cos-meta-") for name in fields)
    assert length_in(server.heads[0]) == len(server.bodies[0])


class Noting(Transport):
    async def send(
        self, request: httpx.Request, *, sending: int = 0, exact_url: str | None = None
    ) -> HttpResponse:
        try:
            self.in_one_write = len(request.content) == sending
        except httpx.RequestNotRead:
            self.in_one_write = False
        return await super().send(request, sending=sending, exact_url=exact_url)


@pytest.mark.parametrize(
    ("size", "one_write"), [(4096, True), (124 << 10, True), (128 << 10, False), (1 << 20, False)]
)
def test_a_form_up_to_128_kib_is_one_write(run: Run, tmp_path: Path, size: int, *, one_write: bool) -> None:
    async def post() -> bool:
        async with Server(always()) as server, Noting(connections=1) as transport:
            await post_object(transport, link_to(server.base), PATH, opened(made(tmp_path, bytes(size))))
            return transport.in_one_write

    assert run(post()) is one_write


def test_an_upload_whose_end_is_refused_is_aborted(run: Run, tmp_path: Path) -> None:
    def refuse() -> None:
        raise LapsedError

    async def post() -> list[bytes]:
        async with Server(always()) as server, Transport(connections=1) as transport:
            body = opened(made(tmp_path, bytes(1 << 20)))
            with pytest.raises(LapsedError):
                await post_object(transport, link_to(server.base), PATH, body, before_end=refuse)
            return server.bodies

    assert run(post()) == []


def test_a_key_that_names_filename_is_kept_by_a_file_of_that_very_name(run: Run, tmp_path: Path) -> None:
    _, server = run(posted(always(), opened(made(tmp_path, b"x")), "a/${filename}"))
    assert b'filename="${filename}"' in server.bodies[0]


XML = "<?xml version='1.0' encoding='utf-8' ?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
ANSWERS = [
    pytest.param("200 OK", "", "StoredObject", id="200"),
    pytest.param(
        "201 Created", "<PostResponse><Key>a</Key></PostResponse>", "StoredObject", id="201 with its XML"
    ),
    pytest.param("204 No Content", "", "StoredObject", id="204"),
    pytest.param(
        "200 OK",
        XML.format(code="AccessDenied", message="Access Denied.", more=""),
        "AccessDenied",
        id="200, Error",
    ),
    pytest.param("201 Created", "<Error><Code>Broken", "Unconfirmed", id="201, half an Error"),
    pytest.param(
        "200 OK",
        '<Error xmlns="http://x"><Code>AccessDenied</Code></Error>',
        "Unconfirmed",
        id="200, Error in a namespace",
    ),
    pytest.param("200 OK", "<Response><Error/></Response>", "Unconfirmed", id="200, an Error within"),
    pytest.param("200 OK", "<error><code>A</code></error>", "Unconfirmed", id="200, in lower case"),
    pytest.param("200 OK", "<html><p>Login error</html>", "Unconfirmed", id="200, a page that is no XML"),
    pytest.param(
        "201 Created",
        "<PostResponse><Key>error.png</Key></PostResponse>",
        "StoredObject",
        id="201, error in a key",
    ),
    pytest.param(
        "403 Forbidden",
        XML.format(code="AccessDenied", message="Request has expired", more=""),
        "AccessDenied",
        id="403",
    ),
    pytest.param("503 Busy", XML.format(code="SlowDown", message="", more=""), "SlowDown", id="503"),
    pytest.param("502 Bad Gateway", "<html>no</html>", "", id="a gateway's page"),
    pytest.param("302 Found", "", "Unconfirmed", id="redirect"),
    pytest.param("307 Temporary Redirect", "", "Unconfirmed", id="redirect of a POST"),
    pytest.param(
        "301 Moved Permanently",
        XML.format(code="PermanentRedirect", message="", more=""),
        "Unconfirmed",
        id="redirect with COS's XML",
    ),
    pytest.param("202 Accepted", "", "Unconfirmed", id="another 2xx"),
    pytest.param("403 Forbidden", "", "", id="nothing"),
    pytest.param(
        "403 Forbidden", XML.format(code="no code, <b/>", message="", more=""), "", id="a code that is none"
    ),
]


@pytest.mark.parametrize(("status", "body", "code"), ANSWERS)
def test_what_an_answer_means(run: Run, tmp_path: Path, status: str, body: str, code: str) -> None:
    headers = 'ETag: "e"\r\nLocation: /elsewhere\r\n'
    result, server = run(posted(always(body.encode(), status, headers), opened(made(tmp_path, b"x"))))
    assert len(server.heads) == 1, "a redirect was followed"
    if code in {"StoredObject", "Unconfirmed"}:
        assert type(result).__name__ == code
    else:
        assert isinstance(result, StoreRefusal)
        assert result.code == code
    assert result.http_status == int(status[:3])


@pytest.mark.parametrize(
    ("headers", "confirmed"),
    [
        pytest.param("", False, id="no ETag"),
        pytest.param("Content-Type: text/html\r\n", False, id="a page"),
        pytest.param("ETag: \r\n", False, id="an empty ETag"),
        pytest.param('ETag: ""\r\n', False, id="an ETag of nothing"),
        pytest.param('ETag: "9d41d8cd98f00b204e980-2"\r\n', True, id="an ETag that is no MD5"),
        pytest.param("etag: W/abc\r\n", True, id="a weak one"),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content"])
def test_an_answer_without_an_etag_confirms_nothing(
    run: Run, tmp_path: Path, status: str, headers: str, *, confirmed: bool
) -> None:
    result, _ = run(posted(always(b"", status, headers), opened(made(tmp_path, b"x"))))
    assert isinstance(result, StoredObject if confirmed else Unconfirmed)
    assert result.http_status == int(status[:3])


def test_a_web_page_confirms_nothing_though_it_has_an_etag(run: Run, tmp_path: Path) -> None:
    headers = 'ETag: "page"\r\nContent-Type: text/html; charset=utf-8\r\n'
    result, _ = run(posted(always(b"<p>Please log in", "200 OK", headers), opened(made(tmp_path, b"x"))))
    assert isinstance(result, Unconfirmed)


def test_a_refusal_has_cos_s_words_and_nothing_that_was_signed(run: Run, tmp_path: Path) -> None:
    more = (
        "<StringToSign>sha1\n1615113257;1615199657\nabc\n</StringToSign><FormatString>put\n/secret\n</FormatString>"
        "<RequestId>NWU1</RequestId><TraceId>t</TraceId>"
    )
    message = f"Signature {SIGNATURE.replace('&', '&amp;')} with q-ak=AKIDother&amp;q-signature=ff for {SECRET}-token is invalid."
    body = XML.format(code="SignatureDoesNotMatch", message=message, more=more).encode()
    result, _ = run(posted(always(body, "403 Forbidden"), opened(made(tmp_path, b"x"))))
    assert result == StoreRefusal(
        403,
        "SignatureDoesNotMatch",
        "Signature ••• with q-ak=••• for ••• is invalid.",
        "NWU1",
    )


@pytest.mark.parametrize(
    "quoted", [f"{SECRET}-token"[:12], f"{SECRET}-token"[:12].lower(), quote(SIGNATURE[-24:], safe="")]
)
def test_a_part_of_a_secret_stands_in_no_field_of_a_refusal(run: Run, tmp_path: Path, quoted: str) -> None:
    body = XML.format(code="".join(filter(str.isalnum, quoted)), message=f"no {quoted}.", more="").encode()
    more = f"x-cos-request-id: {quoted}\r\n"
    result, _ = run(posted(always(body, "403 Forbidden", more), opened(made(tmp_path, b"x"))))
    assert quoted not in f"{result}"
    assert "no •••." in f"{result}"


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            b'<!DOCTYPE x [<!ENTITY a "Access">]><Error><Code>&a;Denied</Code></Error>', id="one entity"
        ),
        pytest.param(f"{BOMB}<Error><Code>&b;</Code></Error>".encode(), id="entities"),
        pytest.param(
            b"<!doctype x SYSTEM 'file:///etc/passwd'><Error><Code>A</Code></Error>", id="a doctype"
        ),
        pytest.param(b"<Error><Code>A</Code>" + b" " * 70_000 + b"</Error>", id="too long"),
        pytest.param(f"{BOMB}<Error><Code>&b;</Code></Error>".encode("utf-16"), id="entities in UTF-16"),
        pytest.param(b"<Error>\xff\xfe</Error", id="no text"),
        pytest.param(b"<Error>\x00</Error>", id="NUL"),
    ],
)
def test_xml_that_is_not_safe_to_read_is_not_read(run: Run, tmp_path: Path, body: bytes) -> None:
    result, _ = run(posted(always(body, "403 Forbidden"), opened(made(tmp_path, b"x"))))
    assert result == StoreRefusal(403, "", "", "")


@pytest.mark.parametrize(
    ("etag", "verdict"),
    [
        pytest.param('"0CC175B9C0F1B6A831C399E269772661"', "same", id="quoted, upper case"),
        pytest.param("0cc175b9c0f1b6a831c399e269772661", "same", id="bare"),
        pytest.param(' W/"0cc175b9c0f1b6a831c399e269772661" ', "same", id="weak"),
        pytest.param('"1cc175b9c0f1b6a831c399e269772661"', "different", id="another"),
        pytest.param('"0cc175b9c0f1b6a831c399e269772661-2"', "unverified", id="in parts"),
        pytest.param('"0cc175b9c0f1b6a831c399e26977266"', "unverified", id="31 digits"),
        pytest.param('"gcc175b9c0f1b6a831c399e269772661"', "unverified", id="not hex"),
        pytest.param("", "unverified", id="none"),
    ],
)
def test_the_verdict_on_an_etag(etag: str, verdict: str) -> None:
    assert etag_verdict(etag, hashlib.md5(b"a").hexdigest()) == verdict


# The local file


def test_a_file_that_is_not_the_planned_one_is_not_opened(tmp_path: Path) -> None:
    path = made(tmp_path, b"12345")
    now = path.stat()
    with pytest.raises(FileChangedError):
        open_file(path, 4, now.st_mtime_ns)
    with pytest.raises(FileChangedError) as caught:
        open_file(path, 5, now.st_mtime_ns + 1)
    assert str(path) in caught.value.text.en
    assert str(path) in caught.value.text.zh


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "a NUL in its name"])
def test_what_is_no_readable_file_is_unreadable_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        if sys.platform == "win32":
            pytest.skip("no named pipes in the file system")
        os.mkfifo(path)
    elif kind == "device":
        path = Path(os.devnull)
    elif kind.startswith("a NUL"):
        path = tmp_path / "a\0b"
    before = open_files()
    with pytest.raises(FileUnreadableError) as caught:
        open_file(path, 0, 0)
    assert caught.value.text.en
    assert caught.value.text.zh
    assert open_files() == before


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_body_is_good_for_one_sending(run: Run, tmp_path: Path, size: int) -> None:
    body = opened(made(tmp_path, bytes(size)))
    run(posted(always(), body))
    with pytest.raises(RuntimeError, match="one sending"):
        run(posted(always(), body))


@pytest.mark.parametrize("change", ["grew", "shrank", "was written to"])
def test_a_file_that_changes_while_it_is_sent_breaks_the_form_off(
    run: Run, tmp_path: Path, change: str
) -> None:
    path = made(tmp_path, bytes(32 << 20))  # more than is read ahead and the sockets hold
    body = opened(path)

    async def changes_it(connection: Connection) -> None:
        head = await connection.head()
        length = length_in(head)
        got = len(await connection.reader.readexactly(100_000))
        if change == "grew":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "shrank":
            os.truncate(path, 300_000)
        else:
            os.utime(path, ns=(1, 1))
        while chunk := await connection.reader.read(1 << 20):
            got += len(chunk)
        assert got < length, "the whole form came, and with it an object"
        connection.server.left.set()

    async def post() -> None:
        async with Server(changes_it) as server, Transport(connections=1, timeouts=QUICK) as transport:
            try:
                await post_object(transport, link_to(server.base), PATH, body)
            finally:
                await server.left.wait()

    with pytest.raises(FileChangedError) as caught:
        run(post())
    assert body.md5 == ""
    assert SECRET not in "".join(traceback.format_exception(caught.value))


class NeverRead(FileBody):
    """A file whose disk never gives the last part, so that an answer always comes before it."""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield bytes(self.size - 1)
        await asyncio.Event().wait()


@pytest.mark.parametrize(("body", "size"), [(NeverRead, 1 << 20), (FileBody, 64 << 20)])
def test_success_before_the_whole_file_was_sent_is_no_success(
    run: Run, tmp_path: Path, body: type[FileBody], size: int
) -> None:
    async def stores_nothing(connection: Connection) -> None:
        await connection.head()
        await connection.answer(b"", "204 No Content", 'ETag: "e"\r\n')
        await connection.gone()

    path = made(tmp_path, bytes(size))
    file = body(path, os.open(path, os.O_RDONLY), size, path.stat().st_mtime_ns)
    with pytest.raises(TransportError) as caught:
        run(posted(stores_nothing, file))
    assert caught.value.fault is TransportFault.RESET
    assert "whole file" in caught.value.text.en


def test_a_file_that_was_opened_for_a_task_that_has_gone_is_closed(tmp_path: Path) -> None:
    path = made(tmp_path, bytes(3 << 20))
    before = open_files()
    opened(path)
    assert open_files() == before


def test_an_early_refusal_of_a_large_file_is_returned(run: Run, tmp_path: Path) -> None:
    async def refuses_early(connection: Connection) -> None:
        await connection.head()
        await connection.answer(
            XML.format(code="AccessDenied", message="no", more="").encode(), "403 Forbidden"
        )
        await connection.gone()

    result, _ = run(posted(refuses_early, opened(made(tmp_path, bytes(64 << 20)))))
    assert result == StoreRefusal(403, "AccessDenied", "no", "")


def test_cancelling_a_large_upload_closes_the_file_and_the_connection(run: Run, tmp_path: Path) -> None:
    body = opened(made(tmp_path, bytes(64 << 20)))

    async def begins_to_read(connection: Connection) -> None:
        await connection.head()
        await connection.reader.readexactly(1 << 20)
        connection.server.asked.set()
        await connection.gone()

    async def cancelled() -> None:
        async with Server(begins_to_read) as server, Transport(connections=1) as transport:
            task = asyncio.create_task(post_object(transport, link_to(server.base), PATH, body))
            await server.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.left.wait()

    run(cancelled())
    with pytest.raises(FileUnreadableError):
        next(body.read())


async def resets(connection: Connection) -> None:
    await connection.head()
    await connection.reader.readexactly(10)
    connection.reset()


@pytest.mark.parametrize("size", [10, 8 << 20])
def test_nothing_of_the_link_is_in_an_error_or_a_log(
    run: Run, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(TransportError) as caught:
        run(posted(resets, opened(made(tmp_path, bytes(size)))))
    everything = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert caught.value.fault is TransportFault.RESET
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in (SECRET, "q-signature", "HDze32", "/bucket/"):
        assert secret not in everything

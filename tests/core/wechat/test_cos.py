import asyncio
import email
import hashlib
import logging
import os
import re
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from scripted import SECRET, Connection, Script, Server, always, length_in
from tables import table

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.i18n import NOTHING
from tcb_ops.ledger.locks import LapsedError
from tcb_ops.model import Link, Secret
from tcb_ops.wechat.cos import StoredObject, StoreRefusal, Unconfirmed, etag_verdict, post_object
from tcb_ops.wechat.local_files import FileBody, FileChangedError, FileUnreadableError, memory_for, open_file
from tcb_ops.wechat.transport import Timeouts, Transport

PATH = "目录/a b.png"
SIGNATURE = (
    "q-sign-algorithm=sha1&q-ak=AKIDabc&q-sign-time=1;2&q-signature=ca20694b28aab1a395b20dbd5d92bdfc9c60993f"
)
IN_PARTS = "9d41d8cd98f00b204e9800998ecf8427-2"
"""An ETag that COS writes, and that is no MD5."""
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


def opened(path: Path) -> FileBody:
    now = path.stat()
    return open_file(path, now.st_size, now.st_mtime_ns, memory=memory_for(now.st_size))


async def posted(
    script: Script, body: FileBody, path: str = PATH, *headers: str, any_etag: bool = False
) -> tuple[StoredObject | StoreRefusal | Unconfirmed, Server]:
    async with Server(script) as server, Transport(connections=1, timeouts=QUICK) as transport:
        answer = await post_object(transport, link_to(server.base), path, body, *headers, any_etag=any_etag)
        return answer, server


def form_of(server: Server) -> list[Any]:
    """The parts of the form that came, whose length was declared exactly."""
    head, body = server.heads[0], server.bodies[0]
    assert length_in(head) == len(body)
    kind = re.findall(rb"(?im)^content-type:[^\r]*", head)[0]
    return list(email.message_from_bytes(kind + b"\r\n\r\n" + body).walk())[1:]


def name_of(part: Any) -> str:
    return re.findall(r'\bname="([^"]*)"', part["Content-Disposition"])[0]


SIZES = [
    0,
    1,
    4096,
    64 << 10,
    256 << 10,
    (1 << 20) - (64 << 10),
    (1 << 20) - (64 << 10) + 1,
    1 << 20,
    (3 << 20) + 17,
]


@pytest.mark.parametrize("size", SIZES)
def test_the_form_is_the_documented_one_with_the_file_last_and_an_exact_length(run, tmp_path, size):
    content = os.urandom(size)
    result, server = run(
        posted(
            always(b"", "204 No Content", f'ETag: "{IN_PARTS}"\r\nx-cos-request-id: r1\r\n'),
            opened(made(tmp_path, content)),
        )
    )

    head, parts = server.heads[0].decode(), form_of(server)
    assert head.startswith("POST /bucket/目录/a%20b.png HTTP/1.1\r\n")
    assert "transfer-encoding" not in head.lower()
    fields = {"key": PATH.encode(), "Signature": SIGNATURE.encode()}
    fields |= {"x-cos-security-token": f"{SECRET}-token".encode()}
    fields |= {"x-cos-meta-fileid": b"HDze32/qZENCwWi5+N5akg==", "file": content}
    assert [(name_of(part), part.get_payload(decode=True)) for part in parts] == list(fields.items())
    assert [part.get_filename() for part in parts] == [None] * 4 + ["file"]
    assert server.bodies[0].endswith(b"--\r\n")
    assert result == StoredObject(204, IN_PARTS, hashlib.md5(content).hexdigest(), "unverified")


# POST Object's form fields (cloud.tencent.com/document/product/436/14690) besides `Signature` and
# `x-cos-security-token`, which the platform's page adds; `x-cos-meta-*` by its prefix.
COS_FIELDS = {
    "acl", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Type", "Expires", "key",
    "success_action_redirect", "success_action_status", "x-cos-storage-class", "file",
}  # fmt: skip


@table(
    "headers, sent",
    {
        "type": (("image/svg+xml", ""), {"Content-Type": "image/svg+xml"}),
        "cache": (("", "max-age=60"), {"Cache-Control": "max-age=60"}),
        "both": (
            ("text/html; charset=utf-8", "public, max-age=31536000, immutable"),
            {
                "Content-Type": "text/html; charset=utf-8",
                "Cache-Control": "public, max-age=31536000, immutable",
            },
        ),
        "none": (("", ""), {}),
    },
)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_the_object_s_headers_are_cos_s_form_fields_before_the_file(run, tmp_path, headers, sent, size):
    script = always(b"", "204 No Content", f'ETag: "{IN_PARTS}"\r\n')
    _, server = run(posted(script, opened(made(tmp_path, os.urandom(size))), PATH, *headers))
    values = {name_of(part): part.get_payload(decode=True).decode("latin-1") for part in form_of(server)}
    fields = list(values)
    assert fields[0] == "key"
    assert fields[-1] == "file"
    assert {name: values[name] for name in sent} == sent
    assert {"Content-Type", "Cache-Control"} & set(fields) == set(sent)
    own = {"Signature", "x-cos-security-token"}
    assert all(name in COS_FIELDS | own or name.startswith("x-cos-meta-") for name in fields)


@pytest.mark.parametrize("size", [5, 256 << 10, 1 << 20], ids=["joined", "in parts", "a stream"])
def test_an_upload_whose_end_is_refused_is_aborted(run, tmp_path, size):
    def refuse() -> None:
        raise LapsedError(NOTHING)

    async def post() -> list[bytes]:
        async with Server(always()) as server, Transport(connections=1) as transport:
            body = opened(made(tmp_path, bytes(size)))
            with pytest.raises(LapsedError):
                await post_object(transport, link_to(server.base), PATH, body, before_end=refuse)
            return server.bodies

    assert run(post()) == []


def test_a_key_that_names_filename_is_kept_by_a_file_of_that_very_name(run, tmp_path):
    _, server = run(posted(always(), opened(made(tmp_path, b"x")), "a/${filename}"))
    assert b'filename="${filename}"' in server.bodies[0]


def error(code, message="", more=""):
    """The XML of a refusal."""
    text = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return f"<?xml version='1.0' encoding='utf-8' ?>\n{text}"


ANSWERS = {
    "200": ("200 OK", "", "StoredObject"),
    "201 with its XML": ("201 Created", "<PostResponse><Key>a</Key></PostResponse>", "StoredObject"),
    "204": ("204 No Content", "", "StoredObject"),
    "200, Error": ("200 OK", error("AccessDenied", "Access Denied."), "AccessDenied"),
    "201, half an Error": ("201 Created", "<Error><Code>Broken", "Unconfirmed"),
    "200, Error in a namespace": (
        "200 OK",
        '<Error xmlns="http://x"><Code>AccessDenied</Code></Error>',
        "Unconfirmed",
    ),
    "200, an Error within": ("200 OK", "<Response><Error/></Response>", "Unconfirmed"),
    "200, in lower case": ("200 OK", "<error><code>A</code></error>", "Unconfirmed"),
    "200, a page that is no XML": ("200 OK", "<html><p>Login error</html>", "Unconfirmed"),
    "201, error in a key": (
        "201 Created",
        "<PostResponse><Key>error.png</Key></PostResponse>",
        "StoredObject",
    ),
    "403": ("403 Forbidden", error("AccessDenied", "Request has expired"), "AccessDenied"),
    "503": ("503 Busy", error("SlowDown"), "SlowDown"),
    "a gateway's page": ("502 Bad Gateway", "<html>no</html>", ""),
    "redirect": ("302 Found", "", "Unconfirmed"),
    "redirect of a POST": ("307 Temporary Redirect", "", "Unconfirmed"),
    "redirect with COS's XML": ("301 Moved Permanently", error("PermanentRedirect"), "Unconfirmed"),
    "another 2xx": ("202 Accepted", "", "Unconfirmed"),
    "nothing": ("403 Forbidden", "", ""),
    "a code that is none": ("403 Forbidden", error("no code, <b/>"), ""),
}


@table("status, body, code", ANSWERS)
def test_what_an_answer_means(run, tmp_path, status, body, code):
    headers = f'ETag: "{IN_PARTS}"\r\nx-cos-request-id: r1\r\nLocation: /elsewhere\r\n'
    result, server = run(posted(always(body.encode(), status, headers), opened(made(tmp_path, b"x"))))
    assert len(server.heads) == 1, "a redirect was followed"
    if code in {"StoredObject", "Unconfirmed"}:
        assert type(result).__name__ == code
    else:
        assert isinstance(result, StoreRefusal)
        assert result.code == code
    assert result.http_status == int(status[:3])


OF_X = hashlib.md5(b"x").hexdigest()
COS = "x-cos-request-id: r1\r\n"
JSON, XHTML = "Content-Type: application/json\r\n", "Content-Type: application/xhtml+xml\r\n"


@table(
    "headers, body, verdict, with_any_etag",
    {
        "no ETag": (COS, "", None, None),
        "an empty ETag": (f"ETag: \r\n{COS}", "", None, None),
        "an ETag of nothing": (f'ETag: ""\r\n{COS}', "", None, None),
        "the MD5": (f'ETag: "{OF_X}"\r\n', "", "same", "same"),
        "the MD5, weak": (f'ETag: W/"{OF_X.upper()}"\r\n', "", "same", "same"),
        "the MD5 and a page": (f'ETag: "{OF_X}"\r\n', "<html></html>", "same", "same"),
        "in parts": (f'ETag: "{IN_PARTS}"\r\n{COS}', "", "unverified", "unverified"),
        "in parts, COS's XML": (
            f'ETag: "{IN_PARTS}"\r\n{COS}',
            "<PostResponse><Key>a</Key></PostResponse>",
            "unverified",
            "unverified",
        ),
        "another MD5": (f'ETag: "{IN_PARTS[:32]}"\r\n{COS}', "", "different", "unverified"),
        "a form of its own": (f'ETag: "kms/+7f=="\r\n{COS}', "", None, "unverified"),
        "in parts, not from COS": (f'ETag: "{IN_PARTS}"\r\n', "", None, None),
        "another MD5, not from COS": (f'ETag: "{IN_PARTS[:32]}"\r\n', "", None, None),
        "a page": (f'ETag: "{IN_PARTS}"\r\n{COS}', "<p>Please sign in</p>", None, None),
        "a portal's JSON": (f'ETag: "page"\r\n{JSON}', '{"login": "required"}', None, None),
        "a portal's XHTML": (f'ETag: "page"\r\n{XHTML}', "<html><body/></html>", None, None),
        "a portal's text": ("ETag: W/abc\r\n", "Please sign in.", None, None),
    },
)
@pytest.mark.parametrize("status", ["200 OK", "201 Created"])
@pytest.mark.parametrize("any_etag", [False, True])
def test_only_an_etag_of_the_store_confirms(
    run, tmp_path, status, headers, body, verdict, with_any_etag, *, any_etag
):
    result, _ = run(
        posted(always(body.encode(), status, headers), opened(made(tmp_path, b"x")), any_etag=any_etag)
    )
    expected = with_any_etag if any_etag else verdict
    assert result.http_status == int(status[:3])
    if expected is None:
        assert isinstance(result, Unconfirmed)
    else:
        assert isinstance(result, StoredObject)
        assert result.verdict == expected


def test_a_refusal_has_cos_s_words_and_nothing_that_was_signed(run, tmp_path):
    more = (
        "<StringToSign>sha1\n1615113257;1615199657\nabc\n</StringToSign><FormatString>put\n/secret\n</FormatString>"
        "<RequestId>NWU1</RequestId><TraceId>t</TraceId>"
    )
    message = f"Signature {SIGNATURE.replace('&', '&amp;')} with q-ak=AKIDother&amp;q-signature=ff for {SECRET}-token is invalid."
    body = error("SignatureDoesNotMatch", message, more).encode()
    result, _ = run(posted(always(body, "403 Forbidden"), opened(made(tmp_path, b"x"))))
    assert result == StoreRefusal(
        403, "SignatureDoesNotMatch", "Signature ••• with q-ak=••• for ••• is invalid.", "NWU1"
    )


@pytest.mark.parametrize(
    "quoted", [f"{SECRET}-token"[:12], f"{SECRET}-token"[:12].lower(), quote(SIGNATURE[-24:], safe="")]
)
def test_a_part_of_a_secret_stands_in_no_field_of_a_refusal(run, tmp_path, quoted):
    body = error("".join(filter(str.isalnum, quoted)), f"no {quoted}.").encode()
    more = f"x-cos-request-id: {quoted}\r\n"
    result, _ = run(posted(always(body, "403 Forbidden", more), opened(made(tmp_path, b"x"))))
    assert quoted not in f"{result}"
    assert "no •••." in f"{result}"


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@table(
    "body",
    {
        "one entity": b'<!DOCTYPE x [<!ENTITY a "Access">]><Error><Code>&a;Denied</Code></Error>',
        "entities": f"{BOMB}<Error><Code>&b;</Code></Error>".encode(),
        "a doctype": b"<!doctype x SYSTEM 'file:///etc/passwd'><Error><Code>A</Code></Error>",
        "too long": b"<Error><Code>A</Code>" + b" " * 70_000 + b"</Error>",
        "entities in UTF-16": f"{BOMB}<Error><Code>&b;</Code></Error>".encode("utf-16"),
        "no text": b"<Error>\xff\xfe</Error",
        "NUL": b"<Error>\x00</Error>",
    },
)
def test_xml_that_is_not_safe_to_read_is_not_read(run, tmp_path, body):
    result, _ = run(posted(always(body, "403 Forbidden"), opened(made(tmp_path, b"x"))))
    assert result == StoreRefusal(403, "", "", "")


@table(
    "etag, verdict, with_any_etag",
    {
        "upper case": ("0CC175B9C0F1B6A831C399E269772661", "same", "same"),
        "lower case": ("0cc175b9c0f1b6a831c399e269772661", "same", "same"),
        "another": ("1cc175b9c0f1b6a831c399e269772661", "different", "unverified"),
        "in parts": ("0cc175b9c0f1b6a831c399e269772661-2", "unverified", "unverified"),
        "in no parts": ("0cc175b9c0f1b6a831c399e269772661-", None, "unverified"),
        "31 digits": ("0cc175b9c0f1b6a831c399e26977266", None, "unverified"),
        "not hex": ("gcc175b9c0f1b6a831c399e269772661", None, "unverified"),
        "none": ("", None, None),
    },
)
def test_the_verdict_on_an_etag(etag, verdict, with_any_etag):
    md5 = hashlib.md5(b"a").hexdigest()
    assert etag_verdict(etag, md5, any_etag=False) == verdict
    assert etag_verdict(etag, md5, any_etag=True) == with_any_etag


def test_a_body_is_good_for_one_sending(run, tmp_path):
    body = opened(made(tmp_path, bytes(3 << 20)))
    run(posted(always(), body))
    with pytest.raises(FileUnreadableError):
        run(posted(always(), body))


@pytest.mark.posix("megabytes through Wine's sockets take minutes on a busy machine")
@pytest.mark.parametrize("change", ["grew", "shrank", "was written to"])
def test_a_file_that_changes_while_it_is_sent_breaks_the_form_off(run, tmp_path, change):
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
def test_success_before_the_whole_file_was_sent_is_no_success(run, tmp_path, body, size):
    async def stores_nothing(connection: Connection) -> None:
        await connection.head()
        await connection.answer(b"", "204 No Content", f'ETag: "{IN_PARTS}"\r\nx-cos-request-id: r1\r\n')
        await connection.gone()

    path = made(tmp_path, bytes(size))
    file = body(path, os.open(path, os.O_RDONLY), size, path.stat().st_mtime_ns)
    with pytest.raises(TransportError) as caught:
        run(posted(stores_nothing, file))
    assert caught.value.fault is TransportFault.RESET
    assert "whole file" in caught.value.text.en


def test_an_early_refusal_of_a_large_file_is_returned(run, tmp_path):
    async def refuses_early(connection: Connection) -> None:
        await connection.head()
        await connection.answer(error("AccessDenied", "no").encode(), "403 Forbidden")
        await connection.gone()

    result, _ = run(posted(refuses_early, opened(made(tmp_path, bytes(64 << 20)))))
    assert result == StoreRefusal(403, "AccessDenied", "no", "")


def test_cancelling_a_large_upload_closes_the_file_and_the_connection(run, tmp_path):
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
def test_nothing_of_the_link_is_in_an_error_or_a_log(run, tmp_path, size, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(TransportError) as caught:
        run(posted(resets, opened(made(tmp_path, bytes(size)))))
    everything = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert caught.value.fault is TransportFault.RESET
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in (SECRET, "q-signature", "HDze32", "/bucket/"):
        assert secret not in everything

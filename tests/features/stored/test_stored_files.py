"""What is decided about a stored file; objects by their file_id: located, fetched, deleted over real sockets."""

from dataclasses import replace

import pytest
from rigged_simulator import Simulator
from scripted import Server

from tcb_ops.details import detail
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.features.simulator.faults import Component
from tcb_ops.features.stored import StoredCode, StoredOutcome, StoredReason
from tcb_ops.features.stored.backup import SavedFile
from tcb_ops.features.stored.client import NOT_THERE, FileClient, FileStatus, read_files
from tcb_ops.features.stored.kinds import DELETE, UNDO
from tcb_ops.features.stored.rules import (
    Subject,
    UndoStep,
    confirm_outcome,
    delete_want,
    may_be_stored,
    undo_step,
    undo_want,
)
from tcb_ops.ledger.files import OwnFile, StoredFile
from tcb_ops.ledger.records import may_have_changed
from tcb_ops.model import Merchant, Outcome, Owner, Reason, RowEnd, RunSettings, Secret, Want
from tcb_ops.wechat.cos import post_object
from tcb_ops.wechat.local_files import open_file
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink
from tcb_ops.wechat.transport import Transport

OURS, OTHER, OLD = "0" * 32, "1" * 32, "2" * 32


@pytest.mark.parametrize(
    ("etag", "outcome"),
    [
        (OURS, StoredOutcome.PRESENT),
        (f"{OURS}-1", StoredOutcome.FOREIGN),
        (f"{OTHER}-12", StoredOutcome.FOREIGN),
        (OLD, StoredOutcome.STALE),
        (OTHER, StoredOutcome.DIFFERENT),
        ("", StoredOutcome.DIFFERENT),
    ],
)
def test_what_an_etag_says(etag, outcome):
    assert confirm_outcome(etag, OURS, {OLD}) is outcome


@pytest.mark.parametrize(
    ("now", "before", "step"),
    [
        (OLD, OLD, UndoStep.NOTHING),
        (OURS, OLD, UndoStep.RESTORE),
        (OTHER, OLD, UndoStep.CONFLICT),
        (None, OLD, UndoStep.CONFLICT),
        (None, None, UndoStep.NOTHING),
        (OURS, None, UndoStep.DELETE),
        (OTHER, None, UndoStep.CONFLICT),
    ],
)
def test_how_an_upload_is_undone(now, before, step):
    assert undo_step(now, OURS, before) is step
    if now == OURS:
        assert undo_step(now, "", before) is UndoStep.CONFLICT


def test_headers_are_undone_too_and_what_may_not_have_been_stored_is_left():
    assert undo_step(OURS, OURS, OURS) is UndoStep.NOTHING
    assert undo_step(None, "", None, certain=False) is UndoStep.NOTHING
    assert undo_step(OTHER, "", None, certain=False) is UndoStep.NOT_KNOWN


def own(**changes):
    """What the upload `own` stored at a path where nothing had been, as far as the ledger knew."""
    values = {"md5": OURS, "bytes": 5, "file_id": "", "content_type": "", "cache_control": ""}
    return OwnFile(**values | {"sent": frozenset({OURS}), "replaced": ""} | changes)


SAVED = SavedFile("tea-1", "a", OLD, sent=(OURS,))
NONE_SAVED = SavedFile("tea-1", "a", "", sent=(OURS,))
DAMAGED = detail(StoredCode.BACKUP_DAMAGED, file="0000002.json")
LATER = {"run": "later", "changed": "later", "changed_number": 9}
UNDONE = {"run": "undo", "changed": "undo", "changed_number": 9, "uploaded": False, "md5": ""}


@pytest.mark.parametrize(
    ("file", "stored", "saved", "conflict", "want", "why"),
    [
        (LATER, own(), SAVED, False, Want.AS_IT_IS, StoredCode.WRITTEN_SINCE),
        (LATER, own(), DAMAGED, False, Want.AS_IT_IS, StoredCode.WRITTEN_SINCE),
        (LATER, own(), None, False, Want.AS_IT_IS, StoredCode.WRITTEN_SINCE),
        ({}, own(replaced="earlier"), None, False, Want.AS_IT_IS, StoredCode.NO_BACKUP),
        ({}, own(replaced="earlier"), SAVED, False, Want.FILE, None),
        ({}, own(), DAMAGED, False, Want.AS_IT_IS, StoredCode.BACKUP_DAMAGED),
        ({}, own(), replace(SAVED, md5=OURS), False, Want.AS_IT_IS, StoredCode.SAVED_AS_SENT),
        ({}, own(sent=frozenset({OLD})), SAVED, False, Want.AS_IT_IS, StoredCode.SAVED_AS_SENT),
        (UNDONE, own(), NONE_SAVED, False, Want.AS_IT_IS, None),
        (None, None, None, False, Want.NOT_KNOWN, None),
        (None, None, SAVED, False, Want.NOT_KNOWN, None),
        ({}, own(sent=frozenset()), None, False, Want.NOT_KNOWN, None),
        ({}, own(sent=frozenset()), NONE_SAVED, False, Want.NOT_KNOWN, None),
        ({}, own(), SAVED, True, Want.NOT_KNOWN, None),
        ({}, own(), SAVED, False, Want.FILE, None),
        ({}, own(), NONE_SAVED, False, Want.NOTHING, None),
        ({}, own(), None, False, Want.NOTHING, None),
    ],
)
def test_what_an_undo_wants(file, stored, saved, conflict, want, why):
    subject = Subject(5, frozenset({"own"}), frozenset({"undo"}), saved is not None)
    at = None if file is None else known(**file)
    wanted, text = undo_want(subject, at, stored, saved, conflict=conflict)
    assert (wanted, text and text.code) == (want, why)


@pytest.mark.parametrize(
    ("file", "want"),
    [
        (None, Want.NOTHING),
        ({}, Want.NOTHING),
        ({"doubt": "delete"}, Want.NOTHING),
        (LATER, Want.AS_IT_IS),
        ({"run": "delete", "changed": "delete", "changed_number": 9, "md5": ""}, Want.AS_IT_IS),
        ({"doubt": "other"}, Want.AS_IT_IS),
        ({"pending": ("other",)}, Want.AS_IT_IS),
    ],
)
def test_what_a_delete_wants(file, want):
    subject = Subject(5, frozenset({"own"}), frozenset({"delete"}), has_backup=False)
    assert delete_want(subject, None if file is None else known(**file)) is want


@pytest.mark.parametrize(
    ("outcome", "saved", "doubtful", "part"),
    [
        (Outcome.UPLOADED, None, False, True),
        (Outcome.UPLOADED, False, False, True),
        (Outcome.PENDING, True, False, True),
        (Outcome.PENDING, False, True, False),
        (Outcome.PENDING, None, False, False),
        (Outcome.REFUSED, True, False, True),
        (Outcome.REFUSED, None, True, True),
        (Outcome.REFUSED, None, False, False),
        (Outcome.FAILED, False, True, False),
        (Outcome.FAILED, None, True, True),
        (Outcome.FAILED, None, False, False),
        (Outcome.NOT_ATTEMPTED, None, True, True),
        (Outcome.NOT_ATTEMPTED, None, False, False),
        (Outcome.UNCHANGED, None, True, False),
    ],
)
def test_which_rows_are_part_of_an_undo(outcome, saved, doubtful, part):
    assert may_be_stored(outcome, saved, doubtful=doubtful) is part


WITH_BACKUP, UNDOING = RunSettings(backup="b"), RunSettings(backup="b", undoes="20261127-1")


@pytest.mark.parametrize(
    ("reason", "kind", "settings", "most"),
    [
        (Reason.NO_ANSWER, UPLOAD, RunSettings(), 0),
        (Reason.NO_CONFIRMATION, UPLOAD, RunSettings(), 0),
        (Reason.ETAG_MISMATCH, UPLOAD, WITH_BACKUP, 0),
        (Reason.NO_ANSWER, DELETE, RunSettings(), 0),
        (Reason.STORE_REFUSED, UPLOAD, RunSettings(), 2),
        (Reason.STORE_REFUSED, UPLOAD, WITH_BACKUP, 3),
        (Reason.STORE_REFUSED, UNDO, UNDOING, 3),
        (Reason.REFUSED, UPLOAD, RunSettings(), 2),
        (Reason.REFUSED, UPLOAD, WITH_BACKUP, 3),
        (Reason.REFUSED, UNDO, UNDOING, 2),
        (Reason.REFUSED, UNDO, RunSettings(undoes="20261127-1"), 2),
        (Reason.REFUSED, DELETE, RunSettings(), 1),
        (Reason.FILE_CHANGED, UPLOAD, RunSettings(), 1),
        (Reason.BREAKER, UPLOAD, RunSettings(), 1),
        (Reason.FILE_CHANGED, UPLOAD, WITH_BACKUP, 2),
        (StoredReason.BACKUP_FAILED, UPLOAD, WITH_BACKUP, 2),
        (StoredReason.BACKUP_DAMAGED, UNDO, UNDOING, 1),
        (StoredReason.CONFLICT, DELETE, RunSettings(), 0),
    ],
)
def test_which_rows_without_success_may_have_changed_their_paths(reason, kind, settings, most):
    """`most`: so many calls have changed nothing for certain."""
    doubtful = [
        may_have_changed(RowEnd(2, Outcome.FAILED, reason, attempts=attempts), kind, settings, None)
        for attempts in range(1, 6)
    ]
    assert doubtful == [attempts > most for attempts in range(1, 6)]


@pytest.mark.parametrize(
    ("cut_off", "doubtful"), [(None, False), (99.0, True), (100.0, True), (101.0, False)]
)
def test_what_ends_after_a_cut_may_have_been_sent_before(cut_off, doubtful):
    end = RowEnd(2, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN, ended_at=100.0)
    assert may_have_changed(end, UPLOAD, RunSettings(), cut_off) is doubtful


SHOP = Merchant("wxtea", "茶", "tea-1")
OWN = Merchant("wxtea", "茶", "own-1", owner=Owner.PLATFORM)
TOKEN, COMPONENT = Secret("token+of/tea"), Secret("token-of-component")


class CountingTransport(Transport):
    sent = 0

    async def send(self, request, *body, **options):
        self.sent += 1
        return await super().send(request, *body, **options)

    def open(self, request):
        self.sent += 1
        return super().open(request)


@pytest.fixture
def platform():
    tokens = {"wxtea": TOKEN.reveal(), "wxcomponent": COMPONENT.reveal()}
    with Simulator([SHOP, OWN], tokens, component=Component("wxcomponent")) as sim:
        yield sim


@pytest.mark.parametrize(
    ("where", "token"), [(SHOP, TOKEN), (OWN, COMPONENT)], ids=["merchant's", "platform's"]
)
def test_an_object_is_located_fetched_and_deleted(run, platform, tmp_path, where, token):
    path = "a/海报 1.png"
    (tmp_path / "f").write_bytes(b"\x00bytes")
    stat = (tmp_path / "f").stat()

    async def all_of_it():
        async with Transport(connections=2) as transport:
            client = FileClient(transport, platform.base)
            link = await client.upload_link(where.env, path, token, where.owner)
            await post_object(
                transport, link, path, open_file(tmp_path / "f", stat.st_size, stat.st_mtime_ns)
            )
            ids = [link.file_id, f"{link.file_id}x"]
            located = await client.locate(where.env, ids, token, where.owner)
            assert {one.file_id: one.status for one in located.values()} == {ids[0]: 0, ids[1]: NOT_THERE}
            url = located[ids[0]].url
            assert (await client.fetch(url)).body == b"\x00bytes"
            deleted = await client.delete(where.env, ids, token, where.owner)
            assert [deleted[each].status for each in ids] == [0, NOT_THERE]
            assert (await client.fetch(url)).status == 404
            refused = await client.delete("other-env", ids, token, where.owner)
            assert isinstance(refused, ApiError)
            assert token.reveal() not in repr(located)

    run(all_of_it())
    assert platform.objects == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.tcb.qcloud.la/a?sign=planted",
        "https://evil.example/a?sign=planted",
        "https://tcb.qcloud.la.evil.example/a?sign=planted",
        "https://bucket.tcb.qcloud.la:8443/a?sign=planted",
        "https://user@bucket.tcb.qcloud.la/a?sign=planted",
        "http://127.0.0.1:1/a?sign=planted",
        "file:///etc/passwd",
        "",
    ],
    ids=["http", "stranger", "look-alike", "port", "user", "loopback under a live base", "file", "empty"],
)
def test_nothing_is_fetched_from_where_no_store_is(run, url):
    async def fetch():
        base = "https://api.weixin.qq.com"
        async with CountingTransport(connections=1) as transport:
            result = await FileClient(transport, base).fetch(Secret(url))
            return result, transport.sent

    result, sent = run(fetch())
    assert isinstance(result, UnsafeLink)
    assert "planted" not in result.why.en
    assert sent == 0


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"file_list": None},
        {"file_list": []},
        {"file_list": ["a"]},
        {"file_list": [{"fileid": "a"}]},
        {"file_list": [{"fileid": "a", "status": "0"}]},
        {"file_list": [{"fileid": "b", "status": 0}]},
    ],
)
def test_an_answer_about_none_of_the_files_is_invalid(result):
    assert isinstance(read_files(result, "file_list", ["a"], TOKEN), InvalidResponse)


def test_of_an_answer_only_what_is_clear_counts():
    two = "cloud://e.bucket/y", "cloud://e.bucket/z"
    result = {
        "file_list": [
            {"fileid": "b", "status": -503003, "errmsg": "STORAGE\x1b[31m"},
            {"fileid": "stranger", "status": 0},
            *(
                {"fileid": file, "status": 0, "errmsg": "ok", "download_url": "https://x/y?sign=1"}
                for file in two
            ),
            {"fileid": "c", "status": 0},
            {"fileid": "c", "status": -503003},
        ]
    }
    assert read_files(result, "file_list", [*two, "b", "c", "d"], TOKEN) == {
        "cloud://e.bucket/y": FileStatus("cloud://e.bucket/y", 0, "ok", Secret("https://x/y?sign=1")),
        "b": FileStatus("b", -503003, "STORAGE [31m", Secret("")),
    }


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "416 Range Not Satisfiable"])
@pytest.mark.parametrize("length", ["", "Content-Length: 10\r\n"], ids=["no length", "length"])
@pytest.mark.parametrize("to_sink", [True, False])
def test_an_answer_may_end_with_its_connection(run, status, length, to_sink):
    async def closes(connection):
        await connection.head()
        await connection.say(f"HTTP/1.1 {status}\r\nConnection: close\r\n{length}\r\n".encode())
        await connection.say(b"01234")
        await connection.say(b"56789")

    async def fetched():
        taken = bytearray()
        async with Server(closes) as server, Transport(connections=1) as transport:
            client = FileClient(transport, server.base)
            answer = await client.fetch(Secret(f"{server.base}/a"), sink=taken.extend if to_sink else None)
        return answer.status, answer.body + taken

    assert run(fetched()) == (int(status[:3]), b"0123456789")


def known(**changes):
    """What is known of a path: by default, the file of the run `own`, which is numbered 5."""
    values = {
        "run": "own", "line": 2, "uploaded": True, "changed": "own", "changed_number": 5, "changed_at": 1.0, "md5": OURS,
        "bytes": 5, "file_id": "", "content_type": "", "cache_control": "", "source": "", "etag": "", "doubt": "",
        "looked": "", "found": None,
    }  # fmt: skip
    return StoredFile(**values | changes)


GIVEN_BACK = {"changed": "undo", "changed_number": 9}
PUT_BACK = {**GIVEN_BACK, "run": "undo", "uploaded": False, "md5": OLD}
GONE = {**GIVEN_BACK, "run": "undo", "uploaded": False, "md5": ""}


@pytest.mark.parametrize(
    ("changes", "ours", "sure"),
    [
        ({}, True, True),
        (GIVEN_BACK, True, True),
        (PUT_BACK, False, True),
        (GONE, False, False),
        ({"restoring": True, "pending": ("undo",)}, False, False),
        ({"pending": ("upload",)}, True, False),
        ({"doubt": "upload"}, True, False),
        ({"doubt": "undo", "restoring": True}, False, False),
        ({"looked": "confirm", "found": StoredOutcome.PRESENT}, True, True),
        ({"looked": "confirm", "found": StoredOutcome.DIFFERENT}, True, False),
        ({"looked": "other", "found": Outcome.FAILED}, True, False),
        ({"agrees": False}, False, False),
    ],
)
def test_whose_file_it_is_and_whether_it_is_certain(changes, ours, sure):
    file = known(**changes)
    assert (file.is_ours, file.is_known, file.is_of({"own"})) == (ours, sure, ours or file.restoring)
    assert not file.is_of({"other"})


@pytest.mark.parametrize(
    ("changes", "asked", "since"),
    [
        ({}, {}, ""),
        (GIVEN_BACK, {}, ""),
        (PUT_BACK, {}, "undo"),
        (PUT_BACK, {"sent": [OLD]}, ""),
        (GONE, {}, "undo"),
        ({"run": "other", "changed": "other", "changed_number": 9}, {}, "other"),
        ({"run": "other", "changed": "other", "changed_number": 3}, {}, "other"),
        ({"run": "other", "changed": "other", "changed_number": 3}, {"certain": False}, ""),
        ({"run": "other", "changed": "other", "changed_number": 9}, {"certain": False}, "other"),
        ({"changed": ""}, {}, ""),
    ],
)
def test_which_run_has_changed_a_path_since(changes, asked, since):
    assert known(**changes).changed_since({"own"}, 5, **asked) == since


def test_a_run_that_may_have_changed_a_path_is_named():
    assert known().may_have_changed(()) == ""
    assert known(doubt="other").may_have_changed({"own"}) == "other"
    assert known(doubt="own", pending=("own", "late")).may_have_changed({"own"}) == "late"

"""Files that are sent from URLs, over real sockets: what every kind of server leads to, and that queries stay secret."""

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from source_server import Sources
from workspace import QUICK, TEA, Workspace, write_csv

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.details import DetailCode
from tcb_ops.errors import InputError, UsageError
from tcb_ops.features.sources import SourceCode
from tcb_ops.features.sources import urls as source_urls
from tcb_ops.features.sources.urls import read_status, source_problem
from tcb_ops.lists.batch import Batch
from tcb_ops.model import Reason
from tcb_ops.run import Run
from tcb_ops.settings import Settings, load_settings

pytestmark = pytest.mark.integration

BIG = bytes(range(256)) * 8000
"""More than is read as a whole before it is sent."""
SECRET = "q-signature=5f0e1cafe5f0e1cafe0123456789abcdef"


@dataclass
class Web:
    """A workspace whose files are at URLs."""

    workspace: Workspace
    sources: Sources
    settings: Settings

    def list(self, *urls: str) -> Path:
        lines = [(TEA.env, f"web/{n}.bin", url, f"第 {n} 行") for n, url in enumerate(urls)]
        return write_csv(self.workspace.list, ("env", "path", "file", "备注"), lines)

    def read(self, *urls: str, **options: Any) -> Batch:
        return tcb.read_paths(
            self.list(*urls),
            self.workspace.merchants,
            self.workspace.folder / "files",
            settings=self.settings,
            **options,
        )

    def upload(self, batch: Batch, **options: Any) -> Run:
        return tcb.upload(batch, settings=self.settings, limits=QUICK, **options)

    def stored(self, n: int = 0) -> bytes | None:
        return self.workspace.sim.content(TEA.env, f"web/{n}.bin")


@pytest.fixture
def web(open_workspace, tmp_path):
    with Sources() as sources:
        workspace = open_workspace([], store=tmp_path / "store")
        settings = workspace.with_options(source_hosts=["127.0.0.1"])
        yield Web(workspace, sources, settings)


def ended(run: Run) -> list[tuple[str, str]]:
    """The outcome and the reason of each row."""
    return [(str(record.end.outcome), str(record.end.reason or "")) for record in run.rows()]


def codes(batch: Batch) -> list[DetailCode]:
    return [problem.message.code for problem in batch.problems]  # type: ignore[attr-defined]  # each is a Detail


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "hosts", "loopback", "code"),
    [
        ("https://a.com/x.png", "a.com", False, None),
        ("https://A.com/x.png", "a.com", False, None),
        ("https://a.com:8443/x?sign=y", "a.com", False, None),
        ("https://a.com", "a.com", False, None),
        ("https://a.com/图/1.png", "a.com", False, None),
        ("https://b.a.com/x.png", "*.a.com", False, None),
        ("https://a.com/x.png", "*.a.com", False, DetailCode.SOURCE_HOST),
        ("https://ba.com/x.png", "*.a.com", False, DetailCode.SOURCE_HOST),
        ("https://a.com.evil.cn/x.png", "a.com", False, DetailCode.SOURCE_HOST),
        ("https://a.com./x.png", "a.com", False, DetailCode.SOURCE_HOST),
        ("https://a.com/x.png", "", False, DetailCode.SOURCE_HOST),
        ("http://127.0.0.1:8000/x.png", "127.0.0.1", True, None),
        ("http://localhost/x.png", "localhost", True, None),
        ("http://[::1]/x.png", "::1", True, None),
        ("http://127.0.0.1:8000/x.png", "127.0.0.1", False, DetailCode.SOURCE_HOST),
        ("https://127.0.0.1/x.png", "127.0.0.1", False, DetailCode.SOURCE_HOST),
        ("http://127.0.0.1/x.png", "a.com", True, DetailCode.SOURCE_HOST),
        ("http://a.com/x.png", "a.com", True, SourceCode.SOURCE_ADDRESS),
        ("ftp://a.com/x.png", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("file:///etc/passwd", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://me:pw@a.com/x.png", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://a.com\\@b.com/x", "a.com b.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://a.com/x.png#top", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://a.com/x y.png", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://a.com/x\r\nHost: b.com", "a.com", False, SourceCode.SOURCE_ADDRESS),
        ("https://a.com/x.png?•••", "a.com", False, SourceCode.SOURCE_MASKED),
    ],
)
def test_which_urls_are_asked(url, hosts, loopback, code):
    found = source_problem(url, url.partition("?")[0], tuple(hosts.split()), loopback=loopback)
    assert (found and found.code) == code


def test_what_a_status_means():
    meant = {
        None: (200,),
        SourceCode.SOURCE_REFUSED: (206, 401),
        SourceCode.SOURCE_REDIRECT: (302, 304),
        SourceCode.SOURCE_GONE: (404, 410),
        DetailCode.FILE_CHANGED: (412,),
        SourceCode.SOURCE_BUSY: (429, 500, 503),
    }
    assert [(code, *map(read_status, statuses)) for code, statuses in meant.items()] == [
        (code,) * (1 + len(statuses)) for code, statuses in meant.items()
    ]


# --- before the run ----------------------------------------------------------------------------------------------------


def test_each_url_is_asked_for_once_and_its_bytes_are_sent(web, assert_complete):
    urls = [web.sources.serve("/a.webp", b"small"), web.sources.serve("/图%201.png", BIG)]
    batch = web.read(*urls, urls[0])
    assert sum(web.sources.asked.values()) == 2
    assert batch.total_bytes == 2 * len(b"small") + len(BIG)
    run = web.upload(batch)
    assert assert_complete(run, 3) == {"uploaded": 3}
    assert [web.stored(n) for n in range(3)] == [b"small", BIG, b"small"]
    md5 = [record.end.md5 for record in run.rows()]
    assert web.sources.matched["/a.webp"] == f'"{md5[0]}"'
    assert md5 == [hashlib.md5(content).hexdigest() for content in (b"small", BIG, b"small")]
    assert [record.row.file for record in run.rows()] == [*urls, urls[0]]


def test_the_extension_of_the_url_decides_the_type_where_the_path_has_none(web):
    url = web.sources.serve("/a.webp", b"x", headers={"Content-Type": "text/html"})
    list_ = write_csv(web.workspace.list, ("env", "path", "file"), [(TEA.env, "web/a", f"{url}?v=1.png")])
    batch = tcb.read_paths(list_, web.workspace.merchants, web.workspace.folder, settings=web.settings)
    (record,) = web.upload(batch).rows()
    assert record.row.content_type == "image/webp"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"status": {"HEAD": 404}}, SourceCode.SOURCE_GONE),
        ({"status": {"HEAD": 410}}, SourceCode.SOURCE_GONE),
        ({"status": {"HEAD": 403, "RANGE": 403}}, SourceCode.SOURCE_REFUSED),
        ({"status": {"HEAD": 302}, "location": "https://example.com/a"}, SourceCode.SOURCE_REDIRECT),
        ({"status": {"HEAD": 302}}, SourceCode.SOURCE_REDIRECT),
        ({"headers": {"Content-Encoding": "gzip"}}, SourceCode.SOURCE_ENCODED),
        ({"told": 6 * 1024**3}, DetailCode.FILE_LARGE),
        ({"status": {"HEAD": 503}}, DetailCode.NOT_INSPECTED),
    ],
)
def test_a_url_that_cannot_be_sent_is_a_problem_of_its_row(web, how, code, monkeypatch):
    monkeypatch.setattr(source_urls, "TRY_AGAIN", (0, 0))
    good, bad = web.sources.serve("/good", b"x"), web.sources.serve("/bad", b"x", **how)
    with pytest.raises(InputError) as caught:
        web.read(good, bad)
    assert [problem.line for problem in caught.value.problems] == [3]
    batch = web.read(good, bad, on_bad="skip")
    assert codes(batch) == [code]
    assert ended(web.upload(batch)) == [("uploaded", ""), ("invalid", "invalid")]
    assert ("GET", "/bad") not in web.sources.asked or code is SourceCode.SOURCE_REFUSED


def test_a_host_that_is_not_allowed_is_not_asked(web):
    with Sources() as other:
        url = other.serve("/a", b"x").replace("127.0.0.1", "localhost")
        redirected = web.sources.serve("/b", b"x", status={"HEAD": 302, "GET": 302}, location=url)
        batch = web.read(url, redirected, on_bad="skip")
        assert codes(batch) == [DetailCode.SOURCE_HOST, SourceCode.SOURCE_REDIRECT]
        assert "source_hosts" in batch.problems[0].message.en
        # The settings of the run decide again: those of the list may have been others.
        listed = web.settings
        web.settings = web.workspace.with_options(source_hosts=["localhost"])
        batch = web.read(url)
        web.settings = listed
        other.asked.clear()
        assert ended(web.upload(batch)) == [("failed", "file_unreadable")]
        assert not other.asked


def test_without_the_setting_no_url_is_read(open_workspace):
    workspace = open_workspace([])
    with Sources() as sources:
        web = Web(workspace, sources, workspace.settings)
        with pytest.raises(InputError, match="source_hosts"):
            web.read(sources.serve("/a", b"x"))
        with pytest.raises(InputError, match="source_hosts"):
            workspace.read()
        assert not sources.asked


def test_a_host_that_cannot_be_reached_is_tried_for_one_url(web, monkeypatch):
    monkeypatch.setattr(source_urls, "TRY_AGAIN", (0, 0))
    monkeypatch.setattr(source_urls, "AT_ONCE", 1)
    gone = free_port()
    urls = [f"http://127.0.0.1:{gone}/{n}" for n in range(50)]
    batch = web.read(*urls, on_bad="skip")
    assert codes(batch) == [DetailCode.NOT_INSPECTED] * 50


def test_a_server_without_head_is_asked_for_a_byte(web):
    urls = [
        web.sources.serve("/signed", b"signed", status={"HEAD": 403}),
        web.sources.serve("/no-head", BIG, status={"HEAD": 405}),
        web.sources.serve("/no-range", b"no range", status={"HEAD": 501, "RANGE": 200}),
        web.sources.serve("/empty", b"", status={"HEAD": 405, "RANGE": 416}),
    ]
    batch = web.read(*urls)
    assert [row.size for row in batch.rows()] == [6, len(BIG), 8, None]
    assert ended(web.upload(batch)) == [("uploaded", "")] * 4
    assert [web.stored(n) for n in range(4)] == [b"signed", BIG, b"no range", b""]


# --- when it is sent ---------------------------------------------------------------------------------------------------


def test_a_body_of_unknown_length_is_not_sent(web):
    run = web.upload(web.read(*(web.sources.serve(f"/{n}", b"x" * n, chunked=True) for n in range(2))))
    assert ended(run) == [("failed", "file_unreadable")] * 2
    assert {record.end.detail.code for record in run.rows()} == {SourceCode.SOURCE_NO_LENGTH}
    assert web.stored(1) is None


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "big"])
@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ({"content": b"other"}, Reason.FILE_CHANGED),
        ({"content": b"longer than before"}, Reason.FILE_CHANGED),
        ({"content": b"other", "careless": True}, Reason.FILE_CHANGED),
        ({"content": b"longer than before", "careless": True, "etag": ""}, Reason.FILE_CHANGED),
        ({"content": b"longer", "careless": True, "etag": "", "chunked": True}, Reason.FILE_UNREADABLE),
        ({"status": {"GET": 404}}, Reason.FILE_UNREADABLE),
        ({"status": {"GET": 403}}, Reason.FILE_UNREADABLE),
        ({"status": {"GET": 302}, "location": "https://example.com/a"}, Reason.SOURCE_REDIRECT),
        ({"status": {"GET": 307}, "location": "http://127.0.0.1:1/a"}, Reason.SOURCE_REDIRECT),
        ({"status": {"GET": 302}, "location": "/a"}, Reason.SOURCE_REDIRECT),
        ({"declared_less": 1, "careless": True}, Reason.FILE_CHANGED),
        ({"declared_more": 1, "careless": True}, Reason.FILE_CHANGED),
        ({"headers": {"Content-Encoding": "gzip"}}, Reason.FILE_UNREADABLE),
        ({"status": {"GET": 500}}, Reason.NO_ANSWER),
    ],
)
def test_what_a_server_does_after_the_plan(web, content, after, reason):
    url = web.sources.serve("/a", content)
    batch = web.read(url)
    more = dict(after)
    now = more.pop("content", content)
    for name, by in (("declared_less", -1), ("declared_more", 1)):
        if more.pop(name, None):
            more["declared"] = len(now) + by
    web.sources.serve("/a", now, **more)
    # More than was declared, in one packet with it, is not HTTP; without it, the length is another one.
    one_of = {reason, Reason.NO_ANSWER} if "declared_less" in after else {reason}
    ((outcome, why),) = ended(web.upload(batch))
    assert outcome == "failed"
    assert why in one_of
    assert web.stored() is None


@pytest.mark.parametrize("content", [b"small" * 10, BIG], ids=["small", "big"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_length_that_is_a_lie_from_the_beginning_is_no_success(web, content, by):
    length = len(content) + by
    batch = web.read(web.sources.serve("/a", content, told=length, declared=length))
    assert ended(web.upload(batch)) == [("failed", "no_answer")]
    assert web.stored() is None


def test_certificates_are_checked(web, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(source_urls, "TRY_AGAIN", (0,))
    both = tmp_path / "both.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=a"
    words += f" -addext subjectAltName=IP:127.0.0.1 -keyout {both} -out {tmp_path / 'cert.pem'}"
    subprocess.run(words.split(), check=True)
    both.write_bytes(both.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    with Sources(both) as sources:
        url = sources.serve("/a", b"over TLS")
        batch = web.read(url, on_bad="skip")
        assert codes(batch) == [DetailCode.NOT_INSPECTED]
        assert not sources.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert ended(web.upload(web.read(url))) == [("uploaded", "")]
        assert web.stored() == b"over TLS"


def test_a_server_that_is_away_ends_its_rows_and_not_the_run(web):
    with Sources(port=free_port()) as away:
        urls = [away.serve("/a", b"a"), web.sources.serve("/b", b"b"), away.serve("/c", b"c")]
        batch = web.read(*urls)
    run = web.upload(batch)
    assert ended(run) == [("failed", "no_answer"), ("uploaded", ""), ("failed", "no_answer")]


def test_the_workers_of_a_cluster_read_urls(web):
    batch = web.read(*(web.sources.serve(f"/{n}", b"%d" % n) for n in range(8)))
    assert ended(web.upload(batch, cluster="local:2")) == [("uploaded", "")] * 8


def test_a_retry_looks_at_the_url_again(web):
    batch = web.read(web.sources.serve("/a", b"before"))
    web.sources.serve("/a", b"after that")
    run = web.upload(batch)
    assert ended(run) == [("failed", "file_changed")]
    again = tcb.retry(run, web.workspace.merchants, settings=web.settings, limits=QUICK)
    assert ended(again) == [("uploaded", "")]
    assert web.stored() == b"after that"


def test_unchanged_rows_are_known_by_their_etag_else_by_their_bytes(web):
    urls = [
        web.sources.serve("/tagged", b"tagged"),
        web.sources.serve("/plain", b"plain", etag=""),
        web.sources.serve("/weak", b"weak", etag='W/"1"'),
        web.sources.serve("/new", b"old"),
    ]
    web.upload(web.read(*urls))
    web.sources.asked.clear()
    web.sources.serve("/new", b"new")
    run = web.upload(web.read(*urls), skip_unchanged=True, new_run=True)
    assert ended(run) == [*[("unchanged", "")] * 3, ("uploaded", "")]
    assert web.sources.asked["GET", "/tagged"] == 0
    assert web.sources.asked["GET", "/plain"] == 1
    assert web.stored(3) == b"new"


# --- queries are secrets ------------------------------------------------------------------------------------------------


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_query_is_sent_and_nowhere_kept(web, capsys, caplog):
    good, gone, busy = (web.sources.serve(f"/{n}", b"x") for n in "abc")
    elsewhere = web.sources.serve("/d", b"x")
    list_ = web.list(*(f"{url}?{SECRET}" for url in (good, gone, busy, elsewhere)))
    batch = tcb.read_paths(list_, web.workspace.merchants, web.workspace.folder, settings=web.settings)
    assert SECRET not in repr([*batch.rows()])
    assert [row.file for row in batch.rows()] == [f"{url}?•••" for url in (good, gone, busy, elsewhere)]
    web.sources.serve("/b", b"x", status={"GET": 404})
    web.sources.serve("/c", b"x", status={"GET": 500})
    web.sources.serve("/d", b"x", status={"GET": 302}, location=f"https://example.com/?{SECRET}")
    run = web.upload(batch, out=web.workspace.folder / "report")
    assert ended(run) == [
        ("uploaded", ""),
        ("failed", "file_unreadable"),
        ("failed", "no_answer"),
        ("failed", "source_redirect"),
    ]
    assert web.sources.asked["GET", f"/a?{SECRET}"] == 1
    run.export(web.workspace.folder / "report")
    assert tcb.verify(web.workspace.folder / "report", settings=web.settings).good
    list_.unlink()
    assert b"cafe5f0e1cafe" not in everything_in(web.workspace.folder)
    assert b"cafe5f0e1cafe" not in json.dumps(run.summary(), default=str).encode()
    assert "cafe5f0e1cafe" not in run._repr_html_() + str(run.results().to_csv()) + caplog.text
    assert "cafe5f0e1cafe" not in "".join(capsys.readouterr())


def test_a_problem_does_not_show_the_query_or_the_password(web, capsys):
    list_ = web.list(f"{web.sources.base}/gone?{SECRET}", f"https://me:pass-word-12345@127.0.0.1/a?{SECRET}")
    common = ["--config", str(settings_file(web)), "--target", web.workspace.sim.base]
    assert run_command(["check", str(list_), "--root", str(web.workspace.folder), *common]) == 2
    shown = "".join(capsys.readouterr())
    list_.unlink()
    everything = shown.encode() + everything_in(web.workspace.folder)
    assert "•••" in shown
    assert b"cafe5f0e1cafe" not in everything
    assert b"pass-word" not in everything


def settings_file(web: Web) -> Path:
    folder = web.workspace.folder
    (folder / "tcb-ops.toml").write_text(
        'source_hosts = ["127.0.0.1"]\nlang = "en"\n[tokens]\nsource = "file"\nfile = "tokens.csv"\n',
        encoding="utf-8",
    )
    return folder / "tcb-ops.toml"


def test_a_failed_csv_with_masked_urls_is_refused(web):
    batch = web.read(f"{web.sources.serve('/a', b'x')}?{SECRET}")
    web.sources.serve("/a", b"x", status={"GET": 404})
    run = web.upload(batch)
    run.export(web.workspace.folder / "report")
    failed = web.workspace.folder / "report" / "failed.csv"
    with pytest.raises(InputError) as caught:
        tcb.read_paths(failed, web.workspace.merchants, web.workspace.folder, settings=web.settings)
    assert [problem.message.code for problem in caught.value.problems] == [SourceCode.SOURCE_MASKED]


def test_a_run_with_queries_needs_its_list_again(web):
    list_ = web.list(f"{web.sources.serve('/a', b'x')}?{SECRET}")
    batch = tcb.read_paths(list_, web.workspace.merchants, web.workspace.folder, settings=web.settings)
    web.sources.serve("/a", b"x", status={"GET": 404})
    run = web.upload(batch)
    with pytest.raises(UsageError, match="--skip-unchanged --new-run") as caught:
        tcb.retry(run, web.workspace.merchants, settings=web.settings)
    assert str(list_) in str(caught.value)
    with pytest.raises(UsageError, match="a cluster cannot work on it"):
        web.upload(batch, new_run=True, cluster="local:2")


@pytest.mark.slow
def test_killed_and_resumed_with_the_list(web, wait_for, assert_complete):
    rows = 60
    urls = [f"{web.sources.serve(f'/{n}', b'%d' % n)}?{SECRET}&n={n}" for n in range(rows)]
    list_ = web.list(*urls)
    stuck = web.sources.base

    def wait(path: str) -> None:
        if int(path[1:]) >= rows // 2:
            wait_for(lambda: stuck == "")

    web.sources.on_get = wait
    common = ["--config", str(settings_file(web)), "--target", web.workspace.sim.base]
    root = ["--root", str(web.workspace.folder)]
    words = [sys.executable, "-m", "tcb_ops", "upload", str(list_), *root, *common]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=web.workspace.folder
    ) as run:
        settings = load_settings(web.workspace.folder / "tcb-ops.toml", {"target": web.workspace.sim.base})
        wait_for(
            lambda: any(one.counts.get("uploaded", 0) >= rows // 3 for one in tcb.runs(settings=settings))
        )
        run.send_signal(signal.SIGKILL)
        run.communicate()
    stuck = ""
    (killed,) = tcb.runs(settings=settings)
    with pytest.raises(UsageError) as caught:
        tcb.resume(killed, settings=settings)
    assert f"upload {list_} --on-bad skip --resume {killed.id}" in str(caught.value)
    assert run_command(["upload", "--resume", killed.id, *common]) == 2
    done = {record.row.path for record in killed.rows() if record.end.outcome == "uploaded"}
    web.sources.asked.clear()
    assert run_command(["upload", str(list_), *root, "--resume", killed.id, *common]) == 0
    assert assert_complete(tcb.open_run(killed.id, settings=settings), rows) == {"uploaded": rows}
    asked = {path.partition("?")[0] for method, path in web.sources.asked if method == "GET"}
    assert asked == {f"/{n}" for n in range(rows) if f"web/{n}.bin" not in done}
    assert [web.stored(n) for n in range(rows)] == [b"%d" % n for n in range(rows)]


def test_a_dry_run_looks_at_urls_and_sends_nothing(web, capsys):
    list_ = web.list(web.sources.serve("/a", b"x"))
    common = ["--config", str(settings_file(web)), "--target", web.workspace.sim.base, "--merchants"]
    assert (
        run_command(["upload", str(list_), "--dry-run", *common, str(web.workspace.folder / "merchants.csv")])
        == 0
    )
    assert web.sources.asked == {("HEAD", "/a"): 1}
    capsys.readouterr()


@pytest.mark.parametrize("url", ["s3://b/a.png", "cos://b-125/a.png", "OSS://b/a.png", "gs://b/a.png"])
@pytest.mark.parametrize("allowed", [True, False], ids=["with settings", "without"])
def test_an_address_of_an_object_store_is_a_problem_that_says_to_presign(web, url, *, allowed):
    list_, workspace = web.list(url), web.workspace
    settings = {"settings": web.settings} if allowed else {}
    batch = tcb.read_paths(list_, workspace.merchants, workspace.folder, on_bad="skip", **settings)
    (problem,) = batch.problems
    if url.startswith("gs"):
        assert "presign" not in problem.fix.en
    else:
        assert codes(batch) == [DetailCode.SOURCE_STORE]
        assert "presign the objects with your store's own tools" in problem.fix.en
        assert "https URLs in `file`" in problem.fix.en

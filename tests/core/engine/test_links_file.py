"""links.csv: the list's columns and the links, each row once, in the list's order, for its owner alone."""

import csv
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ledgers import PLACES
from workspace import BOOKS, QUICK, TEA, many

import tcb_ops as tcb
from tcb_ops.engine.links_file import LINK_COLUMNS, LinksFile, check_columns
from tcb_ops.engine.list_kinds import LINKS
from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.ledger.database import Connection
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import NewRun, RunRecord, Usage
from tcb_ops.model import Link, Outcome, Reason, Row, RowEnd, RunSettings, Secret

ZONE = ZoneInfo("Asia/Shanghai")
CELLS = ("tea", "a,b.png", '第 1 行\n"quoted"', "第 1 行\n第 2 行")


def link(name: str = "", until: int = 1_900) -> Link:
    return Link(
        Secret(f"https://cos/{name}"),
        Secret(f"token,{name}"),
        Secret(f"q-sign-time=1000;{until}&q-signature={name}"),
        f"cloud://tea.b/{name}",
        Secret(f"c+/={name}"),
        until,
        1_000,
    )


def linked(line: int, name: str = "", until: int = 1_900) -> RowEnd:
    return RowEnd(
        line, Outcome.LINKED, errcode=0, errmsg="ok", attempts=1, link=link(name or str(line), until)
    )


@pytest.fixture
def run(sqlite_ledger):
    rows = [Row(line, "tea", f"{line}.png", "wxtea", "", "", CELLS) for line in (2, 3, 5, 9)]
    headers = ("env", "path", "备注", "说明")
    new = NewRun("run-1", LINKS, "t", "list.csv", "", 0, headers, "", RunSettings(), "", "", "", "", 1.0)
    return sqlite_ledger.plan(new, rows, PLACES[:1])


@pytest.fixture
def links(tmp_path):
    opened = LinksFile(tmp_path / "links.csv", "run-1", ZONE, clock=lambda: 1_000.0)
    opened.open()
    yield opened
    opened.close()


def done(ledger: Ledger, run: RunRecord, links: LinksFile, ends: Iterable[RowEnd]) -> None:
    """As the writer does it: first the file, then the ledger."""
    ends = list(ends)
    links.append(ends)
    ledger.record(run, ends, Usage())


def written(links: LinksFile) -> list[list[str]]:
    with links.dest.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_finished_file_is_the_list_in_its_order_with_the_interfaces_columns(sqlite_ledger, run, links):
    refused = RowEnd(3, Outcome.REFUSED, Reason.REFUSED, errcode=85088, errmsg="no qbase")
    done(sqlite_ledger, run, links, [linked(9), linked(2)])
    done(sqlite_ledger, run, links, [refused, RowEnd(5, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN)])
    assert links.finish(sqlite_ledger, run, 1_500) == 0
    header, *rows = written(links)
    assert header == ["env", "path", "备注", "说明", *LINK_COLUMNS]
    until = "1970-01-01T08:31:40+08:00"
    good = [
        [
            *(*CELLS, "0", "ok", f"https://cos/{n}", f"token,{n}", f"q-sign-time=1000;1900&q-signature={n}"),
            *(f"cloud://tea.b/{n}", f"c+/={n}", until),
        ]
        for n in ("2", "9")
    ]
    assert rows == [good[0], [*CELLS, "85088", "no qbase", *[""] * 6], [*CELLS, *[""] * 8], good[1]]
    links.discard()
    assert not links.part.exists()
    assert not links.dest.read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.posix("file modes")
def test_both_files_are_their_owners_alone(sqlite_ledger, run, links):
    before = os.umask(0)
    try:
        links.close()
        links.part.chmod(0o644)  # as a copy may have left it
        links.open()
        assert stat.S_IMODE(links.part.stat().st_mode) == 0o600
        done(sqlite_ledger, run, links, map(linked, (2, 3, 5, 9)))
        links.finish(sqlite_ledger, run, 1_500)
        assert stat.S_IMODE(links.dest.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_link_is_with_the_operating_system_before_the_ledger_hears_of_it(links):
    links.append([linked(2)])
    assert b"q-signature=2" in links.part.read_bytes()


def test_the_first_line_is_on_the_disk_before_a_link_is_written(links, monkeypatch):
    links.discard()
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    links.open()
    assert sizes[0] == len("# run-1\n"), "else only later records might survive, and belong to nobody"


@pytest.mark.parametrize(
    ("name", "cut"), [("3", 1), ("3", 5), ("3", 40), ("x" * 100_000, 10)], ids=["1", "5", "40", "long"]
)
def test_a_torn_line_is_cut_whole_and_its_row_is_lost(links, name, cut):
    links.append([linked(2)])
    good = links.part.read_bytes()
    links.append([linked(3, name)])
    links.close()
    links.part.write_bytes(links.part.read_bytes()[:-cut])
    links.open()
    assert list(links.lost([2, 3], 1_500)) == [3]
    assert links.part.read_bytes() == good


def test_a_torn_first_line_starts_the_file_again(links):
    links.close()
    links.part.write_bytes(b"# run")
    links.open()
    links.append([linked(2)])
    assert list(links.lost([2, 3], 1_500)) == [3]
    assert links.part.read_bytes().startswith(b"# run-1\n2,")


def test_links_that_are_missing_or_have_run_out_are_lost(links):
    links.append([linked(2, until=1_900), linked(3, until=1_400), linked(5, until=1_500)])
    assert list(links.lost([2, 3, 5, 9, 10_000], 1_500)) == [3, 5, 9, 10_000]
    assert list(links.lost([], 1_500)) == []


def test_of_a_row_asked_for_again_the_newest_link_counts(sqlite_ledger, run, links):
    done(sqlite_ledger, run, links, [linked(2, "old", until=1_400), *map(linked, (3, 5, 9))])
    links.append([linked(2, "new", until=1_900)])
    assert list(links.lost([2], 1_500)) == []
    links.append([linked(3, "newest", until=1_450)])
    assert list(links.lost([3], 1_500)) == [3]
    assert links.finish(sqlite_ledger, run, 1_500) == 1
    rows = written(links)
    assert len(rows) == 5
    assert [row[6] for row in rows[1:3]] == ["https://cos/new", "https://cos/newest"]


def test_a_folder_that_is_not_there_stops_the_run_with_a_sentence(tmp_path):
    with pytest.raises(StoppedError, match=r"links\.csv\.part: there is no such file") as caught:
        LinksFile(tmp_path / "none" / "links.csv", "run-1", ZONE).open()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["url", "Token", " errcode ", "expires_at"])
def test_a_list_must_not_have_a_column_of_ours(name):
    with pytest.raises(UsageError, match=name.strip()):
        check_columns(["env", "path", name])
    check_columns(["env", "path", f"{name}s", "备注", "tcb_errcode"])


@pytest.mark.posix("syncing of folders")
def test_a_power_cut_at_no_moment_loses_a_link_that_the_ledger_has(open_workspace, monkeypatch):
    """Nothing is relied on that was not synced: file before ledger, bytes before name, name before `finished`, all before the part goes."""
    workspace = open_workspace(many(TEA, BOOKS, rows=20))
    folder = workspace.folder
    dest, part = folder / "links.csv", folder / "links.csv.part"
    synced: dict[int, bytes] = {}
    names: set[str] = set()
    wrong: list[str] = []
    seen: set[str] = set()
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def require(holds: bool, what: str) -> None:
        seen.add(what)
        if not holds:
            wrong.append(what)

    def syncing(handle: int) -> None:
        fsync(handle)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            names.clear()
            names.update(entry.name for entry in folder.iterdir())
        for one in folder.glob("*.part"):
            if os.path.samestat(os.fstat(handle), one.stat()):
                synced[one.stat().st_ino] = one.read_bytes()

    @contextmanager
    def committing(ledger: Ledger, **options: int) -> Iterator[Connection]:
        with writing(ledger, **options) as connection:
            yield connection
            linked = {
                line for (line,) in connection.execute("SELECT line FROM rows WHERE outcome = 'linked'")
            }
            if linked and part.exists():
                lines = synced.get(part.stat().st_ino, b"").splitlines()[1:]
                held = {int(line.partition(b",")[0]) for line in lines}
                require(held >= linked, "links before the ledger")
                require(part.name in names, "the part file's name before the ledger")
            if connection.execute("SELECT finished_at FROM runs").fetchone() != (None,):
                require(dest.name in names, "the file's name before the run's end")

    def replacing(source: Any, target: Any) -> None:
        if Path(target) == dest:
            body = Path(source).read_bytes()
            require(synced.get(Path(source).stat().st_ino) == body, "bytes before the name")
            require(body.count(b"\r\n") == 41, "all rows before the name")
        replace(source, target)

    def removing(file: Any, **options: Any) -> None:
        if Path(file) == part:
            with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
                (finished,) = ledger.execute("SELECT finished_at FROM runs").fetchone()
            require(finished is not None, "the run's end before the part file goes")
        unlink(file, **options)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "unlink", removing)
    writing = Ledger.writing
    monkeypatch.setattr(Ledger, "writing", committing)
    run = tcb.links(workspace.read(), settings=workspace.settings, limits=QUICK, out=dest)
    assert run.counts == {"linked": 40}
    assert wrong == []
    assert len(seen) == 6

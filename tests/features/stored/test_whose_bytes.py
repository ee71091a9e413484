"""One state machine for everything that writes to the store: whatever users do in turn, nobody's bytes are lost.

Hypothesis makes up the steps: uploads, their retries and corrections, runs that are killed and resumed, undo, delete, sync,
confirm, prune, runs whose kind is gone, the same paths at another target, and strangers who write there. After each step the
simulator's store, which is the truth, is compared with a model of whose bytes are at each path, and with the table.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cut_off import CutOff, Kill
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from workspace import BOOKS, TEA, options_for, write_csv

import tcb_ops as tcb
from tcb_ops.api import prune, start_links, start_resume, start_retry, start_upload
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import InterruptedRunError, UsageError
from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.features.stored import StoredOutcome
from tcb_ops.features.stored.api import start_confirm, start_delete, start_undo, undo_scope
from tcb_ops.features.stored.kinds import UNDO
from tcb_ops.features.stored.sync import plan_sync
from tcb_ops.kinds import Kind
from tcb_ops.ledger.histories import family_of
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Outcome
from tcb_ops.settings import load_settings, with_target

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.settings import Settings

Place = tuple[str, str]
"""Environment and path."""
PLACES: list[Place] = [(TEA.env, "a"), (TEA.env, "b"), (TEA.env, "c"), (BOOKS.env, "a"), (BOOKS.env, "d/e")]
STRANGER = "a stranger"
LIMITS = RunLimits(concurrency=1, per_env=1, attempts=2, backoff=0.001, slow_wait=0.01, patience=5)
"""Calls come one at a time, in the same order each time, so that Hypothesis can repeat and shorten what it has found."""
REFUSED = {"step": FaultStep.STORE, "code": "AccessDenied", "status": 403}
LOST = {"step": FaultStep.STORE, "reset": Reset.MIDDLE}
FAULTS: dict[str, list[dict[str, Any]]] = {
    "no link": [{"step": FaultStep.LINK, "errcode": -501007}],
    "store refuses": [REFUSED],
    "every answer lost": [LOST],
    "first answer lost": [{**LOST, "calls": ((1, 1),)}],
    "first answer lost, then refused": [{**LOST, "calls": ((1, 1),)}, REFUSED],
}
NO_SECOND_LOOK = {"step": FaultStep.DOWNLOAD, "errcode": -1, "calls": ((2, 99),)}
UNDO_FAULTS: dict[str, list[dict[str, Any]]] = {
    "store refuses": [REFUSED],
    "every answer lost": [LOST],
    "restored without an answer": [LOST, NO_SECOND_LOOK],
    "deleted without an answer": [{"step": FaultStep.DELETE, "reset": Reset.MIDDLE}, NO_SECOND_LOOK],
}
"""An undo looks before it tries again, so only one that cannot look ends without an answer."""

nothing = st.none()
kills = st.one_of(nothing, nothing, st.builds(Kill, st.integers(0, 12), st.booleans()))
masks = st.sampled_from([0b1, 0b1, 0b11, 0b110, 0b1001, 0b10100, 0b11111])
"""Some of the places: few, so that runs are short, and often the first, so that runs meet there."""
faults = st.one_of(nothing, nothing, st.tuples(st.sampled_from(sorted(FAULTS)), masks))
undo_faults = st.one_of(nothing, nothing, st.sampled_from(sorted(UNDO_FAULTS)))
contents = st.integers(0, 3)
"""So few that runs and strangers often send the same bytes."""
ages = st.sampled_from([0, 0, 0, 1, 1, 2])
"""Which of several: 0 is the newest."""


@dataclass(frozen=True)
class Stored:
    """What is at a path, and who put it there."""

    md5: str
    owner: str
    """The id of an upload, whose retries count as the same, or STRANGER."""
    in_parts: bool = False
    """Whether its ETag is none of an MD5."""


@dataclass
class Upload:
    """What the model knows of an upload and its retries."""

    id: str
    root: Path
    files: dict[Place, str]
    """The local file of each path."""
    with_backup: bool = False
    is_sync: bool = False
    put: dict[Place, list[str]] = field(default_factory=dict)
    """The MD5s of what it put at a path, also where it got no answer."""
    overwrote: dict[Place, list[Stored | None]] = field(default_factory=dict)
    """What was at a path each time that it put its file over what was not its own; None: nothing."""
    certain: set[Place] = field(default_factory=set)
    """The paths of rows that ended as uploaded."""
    to_retry: bool = False
    """Whether it has finished, and a row did not succeed."""
    taken_back: set[Place] = field(default_factory=set)
    """The paths that undo or delete has dealt with."""


class WhoseBytes(RuleBasedStateMachine):
    """Users, strangers and kills in turn."""

    sim: CutOff
    other_sim: CutOff
    """Another target, with the same environments and tokens."""
    base: Path
    ledger = ""
    """The URL of a PostgreSQL database; empty for SQLite."""
    examples = 0
    steps = 0

    def __init__(self):
        super().__init__()
        type(self).examples += 1
        self.folder = self.base / f"example-{self.examples}"
        self.folder.mkdir()
        self.photos = self.folder / "photos"
        self.photos.mkdir()
        for place in PLACES:
            self.sim.remove(*place)
            self.other_sim.remove(*place)
        merchants = (TEA, BOOKS)
        named = ((merchant.appid, merchant.name, merchant.env) for merchant in merchants)
        write_csv(self.folder / "merchants.csv", ("appid", "name", "env"), named)
        tokens = ((merchant.appid, f"token-of-{merchant.appid}") for merchant in merchants)
        write_csv(self.folder / "tokens.csv", ("appid", "access_token"), tokens)
        self.merchants = Merchants(merchants)
        options = options_for(self.folder, self.sim) | {"reports": str(self.folder / "reports")}
        self.settings: Settings = load_settings(
            options=options | ({"ledger": self.ledger} if self.ledger else {})
        )
        self.common: dict[str, Any] = {"settings": self.settings, "limits": LIMITS}
        self.elsewhere = self.common | {"settings": with_target(self.settings, self.other_sim.base)}
        self.latest_elsewhere = ""
        self.has_looked = False
        self.uploads: list[Upload] = []
        """Those that the ledger still has."""
        self.all_uploads: list[Upload] = []
        self.unfinished: dict[str, tuple[Kind, Upload | None]] = {}
        """Runs that were killed, by id, with their upload."""
        self.truth: dict[Place, Stored] = {}
        self.last_change: dict[Place, str] = {}
        """Who wrote to a path last, of those that the ledger knows for certain; STRANGER: restored; empty: removed."""
        self.touched: set[Place] = set()
        """Where a stranger has been since a run changed the path."""
        self.lists = 0

    def teardown(self):
        with closing(Ledger(self.settings.ledger)) as ledger:
            if not ledger.fetch("SELECT number FROM pruned_runs"):
                found = "" if ledger.fetch("SELECT 1 FROM runs WHERE kind = 'gone'") else ", found"
                columns = f"store, path, run, line, uploaded, changed, md5{found} FROM files WHERE changed IS NOT NULL ORDER BY 1, 2"
                known = ledger.fetch(f"SELECT {columns}")
                ledger.rebuild_files()
                assert ledger.fetch(f"SELECT {columns}") == known, "the runs tell the same as the table"
        shutil.rmtree(self.folder)
        if self.ledger:
            with closing(Ledger(self.ledger)) as ledger, ledger.writing() as connection:
                connection.execute("TRUNCATE runs, stores, pruned_runs, holders CASCADE")

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(
        mask=masks,
        content=contents,
        with_backup=st.booleans(),
        skip_unchanged=st.booleans(),
        fault=faults,
        kill=kills,
    )
    def upload(self, mask, content, *, with_backup, skip_unchanged, fault, kill):
        batch, files = self.new_list(selected(mask), content)
        options = {"skip_unchanged": skip_unchanged}
        if with_backup:
            options["backup"] = self.folder / "backup"
        start = partial(start_upload, batch, **options, **self.common)
        new = Upload("", batch.root or self.folder, files, with_backup)
        self.send(start, kill, fault, new)

    @initialize(before=st.just(0) | masks, mask=masks, backups=st.tuples(st.booleans(), st.booleans()))
    def begin(self, before, mask, backups):
        """Begin with what strangers have stored, and with two versions of an upload."""
        for place in selected(before):
            self.put_by_stranger(place, 9)
        for content, with_backup in enumerate(backups):
            self.upload_all(selected(mask), content, with_backup)

    @rule(mask=masks, content=contents, with_backup=st.booleans())
    def plain_upload(self, mask, content, *, with_backup):
        """Upload as most people do, so that other steps meet what has succeeded."""
        self.upload_all(selected(mask), content, with_backup)

    @rule(content=contents, with_backup=st.booleans())
    def upload_over_the_latest(self, content, *, with_backup):
        if upload := self.pick(self.uploads, 0):
            self.upload_all(upload.files, content, with_backup)

    def upload_all(self, places, content, with_backup):
        batch, files = self.new_list(places, content)
        options = {"backup": self.folder / "backup"} if with_backup else {}
        new = Upload("", batch.root or self.folder, files, with_backup)
        self.send(partial(start_upload, batch, **options, **self.common), None, None, new)

    @rule(age=ages, content=st.none() | contents, fault=faults, kill=kills)
    def retry(self, age, content, fault, kill):
        if (upload := self.pick([one for one in self.uploads if one.to_retry], age)) is None:
            return
        if content is not None:
            for file in upload.files.values():
                (upload.root / file).write_bytes(data(content))
        self.send(partial(start_retry, upload.id, self.merchants, **self.common), kill, fault, upload)

    @rule(age=ages, content=contents, fault=faults, kill=kills)
    def correct(self, age, content, fault, kill):
        """Upload a corrected failed.csv: the same rows, with other files."""
        if (upload := self.pick([one for one in self.uploads if one.to_retry], age)) is None:
            return
        self.lists += 1
        report = self.folder / f"report-{self.lists}"
        tcb.open_run(upload.id, settings=self.settings).export(report)
        for file in upload.files.values():
            (upload.root / file).write_bytes(data(content))
        try:
            batch = tcb.read_paths(report / "failed.csv", self.merchants, upload.root)
        except UsageError:
            return  # no row is left
        files = {(row.env, row.path): row.file for row in batch.rows()}
        self.send(partial(start_upload, batch, **self.common), kill, fault, Upload("", upload.root, files))

    @rule(mask=masks, content=contents, takes_back=st.sampled_from([None, start_undo, start_delete]))
    def work_at_the_other_target(self, mask, content, takes_back):
        """Upload to the same paths there, or take that back: nothing changes here."""
        before = self.objects()
        if takes_back is None or not self.latest_elsewhere:
            batch, _files = self.new_list(selected(mask), content)
            run = self.work(partial(start_upload, batch, **self.elsewhere), None)
            self.latest_elsewhere = run.id
        else:
            self.work(partial(takes_back, self.latest_elsewhere, **self.elsewhere), None)
        assert not self.changes(before), "a target has a store of its own"

    @rule()
    def lose_a_kind(self):
        """Delete the folder of the kind that has only looked: undo says the same as before."""
        if not self.has_looked:
            self.idle()
            return
        previews = self.previews()
        with closing(Ledger(self.settings.ledger)) as ledger, ledger.writing() as connection:
            connection.execute("UPDATE runs SET kind = 'gone' WHERE kind = 'confirm'")
        self.has_looked = False
        assert self.previews() == previews, "what has only looked says nothing of whose a file is"

    def previews(self):
        """Return what an undo of each upload would do; None where it is refused."""
        scopes = dict[str, object]()
        for upload in self.uploads:
            scopes[upload.id] = None
            with suppress(UsageError):
                scopes[upload.id] = undo_scope(upload.id, settings=self.settings).counts
        return scopes

    @rule(age=ages, kill=kills, skip_unchanged=st.booleans())
    def resume(self, age, kill, *, skip_unchanged):
        if (run_id := self.pick(list(self.unfinished), age)) is None:
            return
        kind, upload = self.unfinished[run_id]
        start = partial(start_resume, run_id, **self.common)
        if kind is UPLOAD:
            assert upload is not None
            self.send(partial(start, skip_unchanged=skip_unchanged), kill, None, upload)
        elif kind is UNDO:
            assert upload is not None
            self.take_back(upload, start, kill)
        else:
            self.remove(start, kill, upload)

    @rule()
    def undo_first_time(self):
        if upload := self.pick([one for one in self.uploads if not one.taken_back], 0):
            self.take_back(upload, partial(start_undo, upload.id, **self.common), None)

    @rule(age=ages, kill=kills, fault=undo_faults)
    def undo(self, age, kill, fault):
        if upload := self.pick(self.uploads, age):
            self.take_back(upload, partial(start_undo, upload.id, **self.common), kill, fault)

    @rule(age=ages, kill=kills)
    def delete(self, age, kill):
        if upload := self.pick(self.uploads, age):
            self.remove(partial(start_delete, upload.id, **self.common), kill, upload)

    @rule(mask=masks, kill=kills)
    def delete_list(self, mask, kill):
        batch, _files = self.new_list(selected(mask), None)
        self.remove(partial(start_delete, batch, **self.common), kill, None)

    @rule(mask=st.integers(1, 7), content=contents, deletes=st.booleans(), confirms=st.booleans(), kill=kills)
    def sync(self, mask, content, *, deletes, confirms, kill):
        """Make the first three paths the same as a folder, as `tcb-ops sync` does."""
        here = [path for number, (_env, path) in enumerate(PLACES[:3]) if mask >> number & 1]
        for _env, path in PLACES[:3]:
            (self.photos / path).unlink(missing_ok=True)
        for path in here:
            (self.photos / path).write_bytes(data(content))
        plan = plan_sync(
            str(self.photos),
            [TEA.env],
            merchants=self.merchants,
            path="{rel}",
            include=(),
            exclude=(),
            own=frozenset(),
            settings=self.settings,
        )
        if confirms:
            self.work(partial(start_confirm, plan.batch, content=True, new_run=True, **self.common), None)
        files = {(TEA.env, path): path for path in here}
        new = Upload("", self.photos, files, is_sync=True)
        start = partial(start_upload, plan.batch, skip_unchanged=True, **self.common)
        run = self.send(start, kill, None, new)
        if run is None or not deletes or not all(outcome.succeeded for outcome in run.outcomes):
            return
        gone = plan.gone_from(())
        if gone is not None:
            self.remove(partial(start_delete, gone, new_run=True, **self.common), kill, None)

    @rule(age=ages, links=st.booleans())
    def look(self, age, *, links):
        """Confirm an upload, or request links for its paths."""
        if (upload := self.pick(self.uploads, age)) is None:
            return
        before = self.objects()
        if links:
            batch, _files = self.new_list(upload.files, None)
            self.work(
                partial(start_links, batch, out=self.folder / f"{self.lists}.links.csv", **self.common), None
            )
        else:
            self.has_looked = True
            start = partial(start_confirm, upload.id, content=True, new_run=True, **self.common)
            run = self.work(start, None)
            for place, (outcome, digest) in ends(run).items() if run is not None else ():
                self.check_confirmed(upload, place, outcome, digest)
        assert not self.changes(before), "whoever looks changes nothing"

    @rule(age=ages)
    def prune(self, age):
        """Remove from the ledger what finished before an upload."""
        if (upload := self.pick(self.uploads[1:], age)) is None:
            return
        with closing(Ledger(self.settings.ledger)) as ledger, ledger.writing() as connection:
            earlier = f"number < (SELECT number FROM runs WHERE id = '{upload.id}')"
            aged = f"UPDATE runs SET finished_at = finished_at - 200000 WHERE finished_at IS NOT NULL AND {earlier}"
            connection.execute(aged)
        before = self.objects()
        pruned = {run.id for run in prune(1, settings=self.settings)}
        self.uploads = [upload for upload in self.uploads if upload.id not in pruned]
        assert not self.changes(before), "pruning concerns the ledger alone"

    @rule(mask=masks, content=st.none() | contents, in_parts=st.booleans())
    def stranger(self, mask, content, *, in_parts):
        """Let somebody else write to paths, or remove what is there."""
        for place in selected(mask):
            if content is not None:
                self.put_by_stranger(place, content, in_parts=in_parts)
            else:
                self.sim.remove(*place)
                self.truth.pop(place, None)
                self.touched.add(place)

    def put_by_stranger(self, place, content, *, in_parts=False):
        etag = f"{md5(data(content))}-2" if in_parts else None
        self.sim.put(*place, data(content), etag)
        self.truth[place] = Stored(md5(data(content)), STRANGER, in_parts)
        self.touched.add(place)

    @invariant()
    def count_steps(self):
        type(self).steps += 1

    @invariant()
    def the_other_target_has_a_table_of_its_own(self):
        stored = self.other_sim.objects
        there = {
            place: stored[key].md5 for place in PLACES if (key := (bucket_of(place[0]), place[1])) in stored
        }
        with closing(Ledger(self.settings.ledger)) as ledger:
            files = ledger.files(self.elsewhere["settings"].run_target, PLACES)
        assert {place: file.md5 for place, file in files.items() if file.md5} == there

    @invariant()
    def the_table_is_true(self):
        """What the ledger is certain of is in the store, unless a stranger has been there."""
        with closing(Ledger(self.settings.ledger)) as ledger:
            for place, file in ledger.files(self.settings.run_target, PLACES).items():
                stored = self.truth.get(place)
                if place in self.touched or file.doubt or file.pending:
                    continue
                assert file.agrees, "the row says the same"
                assert (stored.md5 if stored is not None else "") == file.md5, "the table has what is there"
                if (
                    stored is not None
                    and file.uploaded
                    and (runs := ledger.stored_runs("id = ?", (file.run,)))
                ):
                    owner = family_of(ledger, ledger.run(runs[0].id))[0].id
                    put = next(one.put.get(place, []) for one in self.all_uploads if one.id == owner)
                    # A stranger, or an upload that got no answer, may have put the same bytes there again.
                    told = any(one.id == stored.owner and place in one.certain for one in self.all_uploads)
                    same = stored.md5 in put and not told
                    assert stored.owner == owner or same, "and whose it is, if the bytes can tell"
                if stored is not None and not file.uploaded:
                    known = {upload.id for upload in self.uploads if place in upload.certain}
                    assert stored.owner not in known, (
                        "what no run uploaded is a stranger's, a pruned run's, or of an upload without an answer"
                    )

    # --- what must hold -------------------------------------------------------------------------------------------

    def send(self, start, kill, fault, upload):
        """Work on an upload or a retry, and check what it wrote; None if it was refused."""
        before, ended = self.objects(), self.ended()
        if fault is not None:
            name, mask = fault
            found = (Fault(env=env, path=path, **one) for env, path in selected(mask) for one in FAULTS[name])
            self.sim.play(found)
        run = self.work(start, kill)
        self.sim.play([])
        changed = self.changes(before)
        if run is None:
            assert not changed, "what is refused sends nothing"
            return None
        if run.record.parent:  # of an upload without rows that are left, its correction is retried
            with closing(Ledger(self.settings.ledger)) as ledger:
                original = family_of(ledger, run.record)[0].id
            upload = next(one for one in self.all_uploads if one.id == original)
        if not upload.id:
            known = [one for one in self.uploads if one.id == run.id]
            upload.id = run.id
            upload = known[0] if known else upload
            if not known:
                self.uploads.append(upload)
                self.all_uploads.append(upload)
        self.note_end(run, upload)
        for place, written in changed.items():
            assert written is not None, "an upload removes nothing"
            assert place in upload.files, "an upload writes to its own paths only"
            previous = self.truth.get(place)
            if previous is None or previous.owner != upload.id:
                upload.overwrote.setdefault(place, []).append(previous)
            upload.put.setdefault(place, []).append(written.md5)
            upload.taken_back.discard(place)
            self.truth[place] = Stored(written.md5, upload.id)
        after = self.objects()
        if run.id == upload.id and run.record.finished_at is not None:
            upload.to_retry = not run.succeeded
        for place, (outcome, digest) in self.new_ends(run, ended).items():
            if outcome is Outcome.UPLOADED:
                local = md5((upload.root / upload.files[place]).read_bytes())
                assert after[place].md5 == digest == local, "what is called uploaded is in the store"
                upload.certain.add(place)
                self.last_change[place] = upload.id
            elif outcome in {Outcome.UNCHANGED, Outcome.NOT_ATTEMPTED, Outcome.INVALID}:
                assert place not in changed or ended.get(run.id) is not None
                if outcome is Outcome.UNCHANGED and digest:
                    self.last_change[place] = upload.id
        return run

    def take_back(self, upload, start, kill, fault=None):
        """Undo an upload, and check what became of each of its paths."""
        before, ended = self.objects(), self.ended()
        scope = None
        with suppress(UsageError):
            scope = undo_scope(upload.id, settings=self.settings)
        self.sim.play(Fault(**one) for one in UNDO_FAULTS.get(fault or "", ()))
        run = self.work(start, kill)
        self.sim.play([])
        changed = self.changes(before)
        if run is None:
            assert not changed, "what is refused changes nothing"
            return
        self.note_end(run, upload)
        was = dict(self.truth)
        for place, written in changed.items():
            self.check_own(upload, place, "an undo touches nobody else's bytes")
            self.check_restored(upload, place, written)
        new = self.new_ends(run, ended)
        for place, (outcome, _digest) in new.items():
            upload.taken_back.add(place)
            overwrote = upload.overwrote.get(place, [])
            if outcome is StoredOutcome.RESTORED:
                assert place in self.truth
                digest = self.truth[place].md5
                originals = [one for one in overwrote if one is not None and one.md5 == digest]
                assert originals, "the original is back"
                self.truth[place] = originals[-1]
                self.last_change[place] = self.known_owner(place, originals[-1])
            elif outcome is StoredOutcome.DELETED:
                assert place not in self.truth, "what is called deleted is gone"
                self.last_change[place] = ""
            elif outcome is Outcome.FAILED and place in changed:  # it got no answer
                stored = self.truth.get(place)
                self.last_change[place] = self.known_owner(place, stored) if stored is not None else ""
            elif kill is None:
                assert place not in changed, f"{outcome} rows are untouched"
        own = all(upload.put.get(place) and is_last(was.get(place), upload, place) for place in new)
        if (
            scope is not None
            and kill is None
            and fault is None
            and run.id not in ended
            and own
            and "unknown" not in scope.counts
        ):
            assert run.counts == scope.counts, "an undo does what its preview said"

    def known_owner(self, place, stored):
        """Return who put bytes at a path, as far as bytes can tell: a stranger may have put an upload's own there."""
        same = [one.id for one in self.all_uploads if stored.md5 in one.put.get(place, [])]
        return same[-1] if stored.owner == STRANGER and same else stored.owner

    def check_own(self, upload, place, why):
        """Assert that the bytes at a path are an upload's, or cannot be told from them."""
        previous = self.truth.get(place)
        assert previous is not None, why
        same = previous.md5 in upload.put.get(place, []) and not previous.in_parts
        # Of a stranger, or of an upload that got no answer, nobody knows that it put the same bytes there.
        told = any(one.id == previous.owner and place in one.certain for one in self.all_uploads)
        assert previous.owner == upload.id or (same and not told), why

    def check_restored(self, upload, place, written):
        overwrote = upload.overwrote.get(place, [None])
        if written is None:
            known = [
                one
                for one in overwrote
                if one is not None
                and any(one.owner == other.id and place in other.certain for other in self.all_uploads)
            ]
            if upload.with_backup:
                assert None in overwrote, "a backup has what was there before"
            else:
                assert not known, "what an earlier run had put there is not known to be gone"
            self.truth.pop(place, None)
            return
        assert upload.with_backup, "without a backup nothing can be restored"
        same = [one for one in overwrote if one is not None and one.md5 == written.md5]
        assert same, "an undo stores nothing but what was there before the upload"
        self.truth[place] = Stored(written.md5, same[-1].owner)

    def remove(self, start, kill, upload):
        """Delete files of an upload or of a list, and check that they were what could be deleted."""
        before, ended = self.objects(), self.ended()
        run = self.work(start, kill)
        changed = self.changes(before)
        if run is None:
            assert not changed, "what is refused removes nothing"
            return
        self.note_end(run, upload)
        for place, written in changed.items():
            assert written is None, "a delete writes nothing"
            owner = self.truth[place].owner
            if upload is not None and owner != STRANGER:
                assert owner == upload.id, "a delete leaves what other runs have put there since"
            assert self.last_change.get(place) not in {"", STRANGER}, (
                "only what a run has uploaded is deleted"
            )
            self.truth.pop(place)
            for other in self.all_uploads:
                if other.id == owner:
                    other.taken_back.add(place)
        for place, (outcome, _digest) in self.new_ends(run, ended).items():
            if upload is not None:
                upload.taken_back.add(place)
            if outcome in {StoredOutcome.DELETED, StoredOutcome.ALREADY_GONE}:
                assert place not in self.truth, "what is called deleted is gone"
                self.last_change[place] = ""
            elif kill is None:
                assert place not in changed

    def check_confirmed(self, upload, place, outcome, digest):
        """Compare what a confirm says with what is in the store."""
        stored = self.truth.get(place)
        match outcome:
            case StoredOutcome.PRESENT:
                assert stored is not None
                assert stored.md5 == digest, "what is present has the bytes that were sent"
            case StoredOutcome.ABSENT:
                assert stored is None, "what is absent is not there"
            case StoredOutcome.FOREIGN:
                assert stored is not None
                assert stored.in_parts, "what is foreign was written in parts"
            case StoredOutcome.DIFFERENT | StoredOutcome.STALE:
                assert stored is not None
                assert stored.md5 != digest, "what differs is not what was sent"
            case Outcome.UNKNOWN:
                assert place not in upload.certain, "what was uploaded can be compared"
            case _:
                assert outcome == "undone"
                assert place in upload.taken_back, "what is undone was taken back"
                assert stored is None or stored.owner != upload.id, "what is undone is no longer there"

    # --- helpers --------------------------------------------------------------------------------------------------

    def work(self, start, kill):
        """Wait for a run's end, or kill it; None if it is refused.

        A killed run is left as a second Ctrl-C leaves it: calls in flight are not waited for, their rows stay pending.
        """
        if kill is not None:
            self.sim.cut(kill)
        try:
            handle = start()
            while not handle.ended_within(0.001):
                session = handle._session
                if self.sim.reached.is_set() and session is not None:
                    session._future.cancel()
                    assert handle.ended_within(30)
            with suppress(InterruptedRunError):
                handle.wait()
            return handle.so_far()
        except UsageError:
            return None
        finally:
            self.sim.release()

    def note_end(self, run, upload):
        self.unfinished.pop(run.id, None)
        run.refresh()
        if run.record.finished_at is None:
            self.unfinished[run.id] = run.record.kind, upload

    def ended(self):
        """Return the rows of unfinished runs that have ended."""
        return {run_id: set(ends(tcb.open_run(run_id, settings=self.settings))) for run_id in self.unfinished}

    @staticmethod
    def new_ends(run, ended):
        """Return how rows have ended that had not before."""
        return {place: end for place, end in ends(run).items() if place not in ended.get(run.id, ())}

    def objects(self):
        stored = self.sim.objects
        return {
            (env, path): stored[bucket_of(env), path]
            for env, path in PLACES
            if (bucket_of(env), path) in stored
        }

    def changes(self, before):
        """Return what was written since, also with the same bytes; None: removed."""
        after = self.objects()
        changed = {place: after.get(place) for place in PLACES if after.get(place) is not before.get(place)}
        self.touched -= set(changed)
        return changed

    def new_list(self, places, content):
        """Write a list that no other is equal to, and its files; without content, a list alone."""
        self.lists += 1
        root = self.folder / f"files-{self.lists}"
        root.mkdir()
        files = {place: f"{number}.bin" for number, place in enumerate(places)}
        for file in files.values() if content is not None else ():
            (root / file).write_bytes(data(content))
        listed = ((*place, file, "") for place, file in files.items())
        # A failed.csv is known by its headers, and by the second in which its rows ended.
        headers = ("env", "path", "file", f"list {self.lists}")
        source = write_csv(self.folder / f"{self.lists}.csv", headers, listed)
        return tcb.read_paths(source, self.merchants, root if content is not None else None), files

    def pick(self, some, age):
        """Return one of some, counted from the newest; None if there is none, and the step does nothing.

        Not a precondition: what there is may depend on the moment of a kill, and Hypothesis repeats its choices.
        """
        if some:
            return some[-1 - age % len(some)]
        self.idle()
        return None

    def idle(self):
        """Do not count a step that did nothing."""
        type(self).steps -= 1


def ends(run):
    return {
        (record.row.env, record.row.path): (record.end.outcome, record.end.md5)
        for record in run.rows()
        if record.end.outcome is not Outcome.PENDING
    }


def is_last(stored, upload, place):
    """Return whether what an upload put at a path last is there."""
    return stored is not None and stored.owner == upload.id and stored.md5 == upload.put[place][-1]


def selected(mask):
    return [place for number, place in enumerate(PLACES) if mask >> number & 1]


def data(content):
    return f"content {content}".encode()


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def explore(sims, base, ledger, budget, report):
    """Play the machine with as many examples as the budget has; `report`: called with how many steps were played."""
    sim, other_sim = sims
    played = {"sim": sim, "other_sim": other_sim, "base": base, "ledger": ledger}
    machine = type("Machine", (WhoseBytes,), played)
    checks = list(HealthCheck)
    run_state_machine_as_test(
        machine,
        settings=settings(
            budget, deadline=None, database=None, suppress_health_check=checks, report_multiple_bugs=False
        ),
    )
    report(f"{machine.examples:,} examples, {machine.steps:,} steps")


@pytest.fixture
def sims():
    merchants = (TEA, BOOKS)
    tokens = {one.appid: f"token-of-{one.appid}" for one in merchants}
    with CutOff(merchants, tokens) as sim, CutOff(merchants, tokens) as other:
        yield sim, other


@pytest.fixture
def report(capsys, record_property):
    """Say in the test's report, and on the terminal, what was played."""

    def write(played):
        record_property("played", played)
        with capsys.disabled():
            sys.stdout.write(f"\n{played}\n")

    return write


QUICK = settings(derandomize=True, stateful_step_count=7, phases=[Phase.generate])
"""The same examples each time. What fails is not shortened, which would take minutes: `make soak` does it."""
LONG = settings(
    stateful_step_count=16, max_examples=300, phases=[Phase.generate, Phase.shrink], print_blob=True
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nobodys_bytes_are_lost(sims, report, tmp_path):
    explore(sims, tmp_path, "", settings(QUICK, max_examples=30), report)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nobodys_bytes_are_lost_on_postgresql(sims, report, tmp_path, postgres, database):
    explore(sims, tmp_path, postgres.url(database), settings(QUICK, max_examples=6), report)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_nobodys_bytes_are_lost_in_long_rounds(sims, report, tmp_path, where, request):
    ledger = ""
    if where == "postgresql":
        ledger = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
    explore(sims, tmp_path, ledger, LONG, report)

"""What a power cut may leave of the files below a folder: rebuilt from the log that tests/crash.c writes of a program.

A state belongs to a position in the log. Everything before it was called, nothing after it. What the calls left:

=====================================  ===============================================================================
what was called                        what is there after the power cut
=====================================  ===============================================================================
a write before the file's last sync    its bytes
a later write                          its bytes or not, page by page of 4 KiB; the file may have grown all the same
a later truncation                     it or not; it, if a write after it is there
a new file                             its name, if the file or its folder was synced since
a rename, link, removal, new folder    it, if its folder was synced since
later changes of names                 the first of those of a folder, up to some point: each folder by itself
=====================================  ===============================================================================

This is what POSIX promises. File systems with one journal, such as ext4, promise more: there, any sync keeps every earlier
change of names. Which of the later writes and names survive is chosen in six ways (`CHOICES`): none, all, names without
data, data without names, and two that a seed decides.

States with equal bytes count once, at the last of their positions: there the most had been shown.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

RECORD = struct.Struct("=2Ii5Iq")
"""`struct record` of crash.c."""
CREATED, EMPTIED, IS_FOLDER = 1, 2, 4
PAGE = 4096
"""Bytes that reach the disk together."""
MARK = "!"
"""The kind of a record that says what had happened by then, on the screen or elsewhere."""
CHOICES = ("none", "random", "names", "prefix", "none", "data", "random", "all")
"""How is chosen what survives of what was not synced, in turn; none of it, which is the likeliest, twice."""
NEEDS_PRELOADING = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="needs Linux and a C compiler, cc: it preloads a library",
)
"""Skips what writes the log where it cannot be written."""


def build(folder: Path) -> Path:
    """Compile the library that writes the log."""
    library = folder / "crash.so"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        library,
        Path(__file__).with_name("crash.c"),
        "-ldl",
        "-lpthread",
    ]
    subprocess.run(command, check=True)
    return library


@dataclass(frozen=True, slots=True)
class Record:
    """A call in the log."""

    kind: str
    process: int
    descriptor: int
    flags: int
    mode: int
    first: bytes
    second: bytes
    offset: int


def read_log(log: Path) -> list[Record]:
    """Read a log, whose last record may be incomplete: its program may have been killed."""
    data, position, records = log.read_bytes(), 0, []
    while position + RECORD.size <= len(data):
        kind, process, descriptor, flags, mode, first, second, _, offset = RECORD.unpack_from(data, position)
        start = position + RECORD.size
        middle, position = start + first, start + first + second
        if position <= len(data):
            texts = data[start:middle], data[middle:position]
            records.append(Record(chr(kind), process, descriptor, flags, mode, *texts, offset))
    return records


def mark(log: Path, text: str) -> None:
    """Append a mark to the log of a program that runs: what happened outside of it."""
    data = f"{text}\n".encode()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, RECORD.pack(ord(MARK), 0, 0, 0, 0, len(data), 0, 0, 0) + data)
    finally:
        os.close(handle)


# --- the file system -------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class StoredFile:
    """A file: the bytes of its last sync, and what was written since."""

    mode: int
    synced: bytes = b""
    later: list[Change] = field(default_factory=list)

    def content(self, changes: Sequence[Change]) -> bytes:
        """Return its bytes if these of the later changes survive."""
        if not changes:
            return self.synced
        data = bytearray(self.synced)
        for change in changes:
            if isinstance(change, int):
                del data[change:]
                data.extend(bytes(change - len(data)))
            else:
                offset, written = change
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(written)] = written
        return bytes(data)

    def sync(self) -> None:
        self.synced, self.later = self.content(self.later), []


Change: TypeAlias = int | tuple[int, bytes]
"""The size that a file is cut or grown to, or an offset and what was written there: at most a page."""


@dataclass(eq=False, slots=True)
class Folder:
    """A folder: its names as they were at its last sync, as they are now, and the changes in between."""

    mode: int
    synced: dict[str, Entry] = field(default_factory=dict)
    now: dict[str, Entry] = field(default_factory=dict)
    later: list[Naming] = field(default_factory=list)

    def change(self, naming: Naming) -> None:
        naming.apply(self.now)
        self.later.append(naming)

    def sync(self) -> None:
        self.synced, self.later = dict(self.now), []

    def sync_new(self, file: StoredFile) -> None:
        """Keep the name of a file that has been synced, and with it what happened to that name before."""
        made = next((naming for naming in self.later if naming.is_new and naming.entry is file), None)
        if made is not None:
            before = self.later[: self.later.index(made) + 1]
            for naming in before:
                if naming.names & made.names:
                    naming.apply(self.synced)
                    self.later.remove(naming)


Entry: TypeAlias = StoredFile | Folder


@dataclass(eq=False, slots=True)
class Naming:
    """A change of a folder's names: `new` now stands for `entry`, and `old` for nothing."""

    old: str
    new: str
    entry: Entry | None
    is_new: bool = False

    @property
    def names(self) -> set[str]:
        return {self.old, self.new} - {""}

    def apply(self, names: dict[str, Entry]) -> None:
        if self.old:
            names.pop(self.old, None)
        if self.new and self.entry is not None:
            names[self.new] = self.entry


@dataclass(frozen=True, slots=True)
class State:
    """What is below the folder after a power cut: relative paths, each with its mode and, of a file, its bytes."""

    position: int
    choice: str
    marks: tuple[str, ...]
    """All marks before the position."""
    entries: Mapping[str, tuple[int, bytes | None]]

    @property
    def digest(self) -> bytes:
        whole = hashlib.blake2b(digest_size=16)
        for path, (mode, data) in sorted(self.entries.items()):
            size = -1 if data is None else len(data)
            whole.update(f"{path}\0{mode}\0{size}\0".encode() + (data or b""))
        return whole.digest()

    def write(self, folder: Path) -> None:
        """Replace what is in the folder by this state."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path, (mode, data) in self.entries.items():
            if data is None:
                (folder / path).mkdir(mode=mode)
                (folder / path).chmod(mode)
            else:
                handle = os.open(folder / path, os.O_WRONLY | os.O_CREAT, mode)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)


class Replay:
    """The files below a folder while the calls of a log are made again, one after the other."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._top, self._records, self._root = str(folder), records, Folder(0o755)
        self._open: dict[tuple[int, int], Entry] = {}
        self._marks: list[str] = []
        self._text = b""
        self.position = 0

    def step(self) -> None:
        """Make the next call."""
        record = self._records[self.position]
        self.position += 1
        key = record.process, record.descriptor
        if record.kind == MARK:
            *lines, self._text = (self._text + record.first).split(b"\n")
            self._marks += [line.decode() for line in lines]
        elif record.kind == "o":
            self._open[key] = self._opened(record)
        elif record.kind == "c":
            del self._open[key]
        elif record.kind == "w":
            self._file(key).later += _pages(record.offset, record.first)
        elif record.kind == "t":
            self._file(key).later.append(record.offset)
        elif record.kind == "s":
            entry = self._open[key]
            entry.sync()
            if isinstance(entry, StoredFile):
                for folder in self._folders(self._root):
                    folder.sync_new(entry)
        else:
            self._name(record)

    def state(self, choice: str, seed: random.Random) -> State:
        """Return a state that a power cut may leave at this position."""
        entries: dict[str, tuple[int, bytes | None]] = {}
        chosen: dict[int, bytes] = {}  # a file with two names has the same bytes under both

        def collect(folder: Folder, prefix: str) -> None:
            for name, entry in _names_left(folder, choice, seed).items():
                if isinstance(entry, Folder):
                    entries[f"{prefix}{name}"] = entry.mode, None
                    collect(entry, f"{prefix}{name}/")
                    continue
                if id(entry) not in chosen:
                    chosen[id(entry)] = entry.content(_writes_left(entry, choice, seed))
                entries[f"{prefix}{name}"] = entry.mode, chosen[id(entry)]

        collect(self._root, "")
        return State(self.position, choice, tuple(self._marks), entries)

    def _file(self, key: tuple[int, int]) -> StoredFile:
        entry = self._open[key]
        assert isinstance(entry, StoredFile)
        return entry

    def _opened(self, record: Record) -> Entry:
        folder, name = self._parent(record.first)
        if folder is None:
            return self._root
        if record.flags & CREATED:
            folder.change(Naming("", name, StoredFile(record.mode), is_new=True))
        entry = folder.now[name]
        if record.flags & EMPTIED and not record.flags & CREATED and isinstance(entry, StoredFile):
            entry.later.append(0)
        return entry

    def _name(self, record: Record) -> None:
        folder, name = self._parent(record.first)
        assert folder is not None
        if record.kind == "m":
            folder.change(Naming("", name, Folder(record.mode & ~0o022), is_new=True))
        elif record.kind == "u":
            folder.change(Naming(name, "", None))
        elif record.kind == "p":
            folder.now[name].mode = record.mode
        else:
            other, new = self._parent(record.second)
            if other is not folder:
                raise NotImplementedError("a rename or link between folders")
            old = name if record.kind == "r" else ""
            folder.change(Naming(old, new, folder.now[name]))

    def _parent(self, path: bytes) -> tuple[Folder | None, str]:
        """Return the folder that has a name, and the name; no folder for the top."""
        relative = os.path.relpath(os.path.normpath(os.fsdecode(path)), self._top)
        if relative == ".":
            return None, ""
        *folders, name = relative.split("/")
        folder = self._root
        for each in folders:
            entry = folder.now[each]
            assert isinstance(entry, Folder)
            folder = entry
        return folder, name

    def _folders(self, folder: Folder) -> Iterator[Folder]:
        yield folder
        for entry in folder.now.values():
            if isinstance(entry, Folder):
                yield from self._folders(entry)


def _pages(offset: int, data: bytes) -> Iterator[Change]:
    """Split a write into what reaches the disk together."""
    while data:
        size = PAGE - offset % PAGE
        yield offset, data[:size]
        offset, data = offset + size, data[size:]


def _names_left(folder: Folder, choice: str, seed: random.Random) -> dict[str, Entry]:
    changes = folder.later
    count = {"none": 0, "data": 0, "names": len(changes), "all": len(changes)}.get(choice)
    if count is None:
        count = seed.randint(0, len(changes))
    names = dict(folder.synced)
    for naming in changes[:count]:
        naming.apply(names)
    return names


def _writes_left(file: StoredFile, choice: str, seed: random.Random) -> list[Change]:
    changes = file.later
    if not changes or choice in {"none", "names"}:
        return []
    if choice in {"data", "all"}:
        return changes
    if choice == "prefix":
        return changes[: seed.randint(0, len(changes))]
    share = seed.random()
    keep = [seed.random() < share for _ in changes]
    last = max((number for number, survives in enumerate(keep) if survives), default=-1)
    return [
        change
        for number, change in enumerate(changes)
        if keep[number] or (isinstance(change, int) and number < last)
    ]


# --- the choice of states --------------------------------------------------------------------------------------------


def final_state(folder: Path, records: Sequence[Record]) -> State:
    """Return the state after all calls, nothing lost: what is in the folder now, if the log is complete."""
    replay = Replay(folder, records)
    for _ in records:
        replay.step()
    return replay.state("all", random.Random(0))


def states(
    folder: Path,
    records: Sequence[Record],
    most: int,
    seed: int,
    since: Callable[[str], bool] = lambda _mark: True,
) -> list[State]:
    """Return at most so many different states, in the order of their positions.

    The positions are spread over the log from the first mark for which `since` holds: before each sync, where the most is
    not synced, after each mark, where something had just been promised, and at the end.
    """
    begin = next(
        n for n, record in enumerate(records) if record.kind == MARK and since(record.first.decode())
    )
    cuts = sorted(
        {
            number + (record.kind == MARK)
            for number, record in enumerate(records)
            if number >= begin and record.kind in "!s"
        }
        | {len(records)}
    )
    choose = random.Random(seed)
    tried: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for number in range(2 * most):  # some come out equal
        left, right = number * len(cuts) // (2 * most), (number + 1) * len(cuts) // (2 * most)
        cut = cuts[choose.randrange(left, max(right, left + 1))]
        tried[cut].append((number, CHOICES[number % len(CHOICES)]))
    replay = Replay(folder, records)
    different: dict[bytes, State] = {}
    for cut in sorted(tried):
        while replay.position < cut:
            replay.step()
        for number, choice in tried[cut]:
            state = replay.state(choice, random.Random(f"{seed}/{number}"))
            different.pop(state.digest, None)
            different[state.digest] = state
    found = list(different.values())
    if len(found) > most:
        found = [found[number] for number in sorted(choose.sample(range(len(found)), most))]
    return sorted(found, key=lambda state: state.position)

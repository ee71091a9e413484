"""The files that rows name: local ones, those of other machines, and URLs; their Content-Type.

The query of a URL may be a signature, so it is taken apart before anything else sees it.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from tcb_ops.details import DetailCode, DetailCodes, detail
from tcb_ops.disk import nearest_path
from tcb_ops.formatting import shown
from tcb_ops.hooks import MapHooks, SourceHooks, hooks
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem, Row, Secret, SourceFile, file_problem, in_object_store, is_source
from tcb_ops.secrets import MASK
from tcb_ops.settings import Settings
from tcb_ops.shell import quote
from tcb_ops.system_errors import path_too_long, system_reason

MAX_FILE_BYTES = 5 * 1024**3
"""The limit of POST Object (cloud.tencent.com/document/product/436/14690)."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that can be uploaded."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """The reason why a file cannot be uploaded."""

    message: Text
    fix: Text
    missing: bool = False
    """No file has this name."""


class LocalFiles:
    """The files below a root; each is inspected only once."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip(os.sep) + os.sep
        self._name = str(root)
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)
        self.inspect = lru_cache(maxsize=16_384)(self._inspect)

    def problem(self) -> Problem | None:
        """Return the problem if the root folder does not exist."""
        if os.path.isdir(self._root):  # noqa: PTH112  strings: a Path is slower than the stat itself
            return None
        fix = _("choose the folder that contains the files as {--root}")
        if near := nearest_path(Path(self._name), Path.is_dir):
            fix = _("did you mean {near} ({--root})?", near=shown(str(near)))
        return file_problem(_("there is no folder {root} ({--root})", root=shown(self._name)), fix)

    def _inspect(self, file: str) -> LocalFile | UnusableFile:
        """Inspect a file, given relative to the root with forward slashes. Links are resolved."""
        if os.path.isabs(file) or ntpath.splitdrive(file)[0]:  # noqa: PTH117  as above
            fix = _("write it relative to the folder of local files, e.g. banner/a.png")
            if hooks(MapHooks):
                fix = _(
                    "write it relative to the folder of local files, e.g. banner/a.png, or map its folder to one here: {--map} {mapping}",
                    mapping=quote(f"{shown(file.rpartition('/')[0] or '/')}=FOLDER"),
                )
            return UnusableFile(detail(DetailCode.NOT_RELATIVE, file=shown(file)), fix)
        folder, name = os.path.split(os.path.join(self._root, file))  # noqa: PTH118  as above
        try:
            real = os.path.join(self._folder(folder), name)  # noqa: PTH118  as above
            facts = os.lstat(real)
            if stat.S_ISLNK(facts.st_mode) or name in {"", ".", ".."}:
                real = os.path.realpath(real)
                facts = os.stat(real)  # noqa: PTH116  as above
            readable = os.access(real, os.R_OK)
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not path_too_long(error):
                fix = _("check the name (upper and lower case and Unicode form matter) and {--root}")
                return UnusableFile(detail(DetailCode.NO_FILE, name=shown(file)), fix, missing=True)
            message = detail(DetailCode.NOT_INSPECTED, file=shown(file), why=system_reason(error))
            return UnusableFile(message, _("check its name and permissions"))
        if not real.startswith(self._inside):
            fix = _("copy it into the folder of local files, or choose one that contains all files: {--root}")
            return UnusableFile(detail(DetailCode.OUTSIDE, file=shown(file)), fix)
        return _judge(file, facts, readable=readable)


def _judge(file: str, facts: os.stat_result, *, readable: bool) -> LocalFile | UnusableFile:
    name = shown(file)
    if stat.S_ISDIR(facts.st_mode):
        code, fix = DetailCode.IS_FOLDER, _("give a file; a folder needs a row per file")
    elif not stat.S_ISREG(facts.st_mode):
        code, fix = DetailCode.IS_SPECIAL, _("give a regular file")
    elif not readable:
        code, fix = DetailCode.NO_PERMISSION, _("give yourself read permission on it")
    elif facts.st_size > MAX_FILE_BYTES:
        message = detail(DetailCode.FILE_LARGE, name=name, bytes=facts.st_size, most=MAX_FILE_BYTES)
        return UnusableFile(message, SOURCE_FIXES[DetailCode.FILE_LARGE])
    else:
        return LocalFile(facts.st_size, facts.st_mtime_ns)
    return UnusableFile(detail(code, name=name), fix)


# --- URLs ----------------------------------------------------------------------------------------------------------

SourceCheck: TypeAlias = Callable[[Sequence[Secret]], Mapping[Secret, SourceFile | UnusableFile]]
"""Looks at some URLs."""
_HOST = re.compile(r"\[[^\]]*\](:[0-9]*)?|[^:]*(:[0-9]*)?")
_RUN = 12
"""Characters of a query that are replaced wherever else a row has them; a shorter one may be part of any word."""


def split_source(url: str) -> tuple[str, str | None]:
    """Return a URL as it may be shown, and its query or fragment; None without one.

    =================================  =============================  ==========
    URL                                shown                          query
    =================================  =============================  ==========
    https://a.com/b.png                https://a.com/b.png            None
    https://a.com/b.png?sign=x         https://a.com/b.png?•••        sign=x
    https://a.com/b.png#sign=x         https://a.com/b.png#•••        sign=x
    https://me:secret@a.com/b.png      https://•••@a.com/b.png        None
    https://me:sec/ret@a.com/b.png     https://•••@a.com/b.png        None
    https://me:sec?ret@a.com/b.png     https://•••?•••                ret@a.com…
    =================================  =============================  ==========
    """
    cut = re.search("[?#]", url)
    base, query = (url[: cut.start()], url[cut.end() :]) if cut is not None else (url, None)
    scheme, slashes, rest = base.partition("://")
    if not slashes:
        scheme, rest = "", base
    host, slash, path = rest.partition("/")
    if "@" in host:
        rest = f"{MASK}@{host.rpartition('@')[2]}{slash}{path}"
    elif slashes and not _HOST.fullmatch(host):  # what looks like a port is a password
        _user, separator, after = rest.rpartition("@")
        rest = f"{MASK}@{after}" if separator else MASK
    shown = f"{scheme}{slashes}{rest}"
    return (shown, None) if cut is None else (f"{shown}{cut[0]}{MASK}", query)


def whole_source(shown: str, query: Secret | None) -> Secret:
    """Return the URL that `split_source` took apart."""
    return Secret(shown if query is None else f"{shown.removesuffix(MASK)}{query.reveal()}")


def conceal(cells: Sequence[str], url: str) -> list[str]:
    """Return a row's cells without the secret part of its URL."""
    shown, query = split_source(url)
    cells = [cell.replace(url, shown) if url in cell else cell for cell in cells]
    if query is None or len(query) < _RUN:
        return cells
    return [cell.replace(query, MASK) if query in cell else cell for cell in cells]


def concealed(cells: Sequence[str]) -> list[str]:
    """Return cells as a list's rows have them, whichever of them holds a URL."""
    for cell in cells:
        if is_source(cell.strip()):
            cells = conceal(cells, cell.strip())
    return list(cells)


def refuse_sources(urls: Sequence[Secret]) -> dict[Secret, SourceFile | UnusableFile]:
    """Refuse URLs where there are no settings that allow their hosts."""
    refused: dict[Secret, SourceFile | UnusableFile] = {}
    for url in urls:
        shown = split_source(url.reveal())[0]
        host = shown.partition("://")[2].partition("/")[0].rpartition("@")[2]
        message = detail(DetailCode.SOURCE_HOST, host=host)
        if in_object_store(shown):
            message = detail(DetailCode.SOURCE_STORE, url=shown)
        refused[url] = UnusableFile(message, SOURCE_FIXES[message.code])
    return refused


SOURCE_FIXES: dict[DetailCodes, Text] = {
    DetailCode.SOURCE_HOST: _("add the host to source_hosts in tcb-ops.toml, or correct the URL"),
    DetailCode.SOURCE_STORE: _(
        "presign the objects with your store's own tools, and put the https URLs in `file`"
    ),
    DetailCode.FILE_LARGE: _("split or compress it, or upload it in the console"),
}
"""What to do about a URL that cannot be used."""


def source_check(settings: Callable[[], Settings]) -> SourceCheck:
    """Return what looks at URLs, with these settings where there is one to look at; without the feature, they are refused."""
    if (sources := hooks(SourceHooks)) is None:
        return refuse_sources
    loaded = cache(lambda: sources.check(settings))  # it loads the HTTP library
    return lambda urls: loaded()(urls)  # noqa: PLW0108  not before there is a URL


# --- files as they are now -----------------------------------------------------------------------------------------

_PAGE = 2_000
"""Rows whose URLs are asked at once."""


def as_they_are(rows: Iterable[Row], root: Path, inspect: SourceCheck) -> Iterator[Row]:
    """Yield rows with their files' current sizes and versions. A missing file is reported when it is to be sent."""
    stream = iter(rows)
    while page := list(islice(stream, _PAGE)):
        urls = [*dict.fromkeys(Secret(row.file) for row in page if is_source(row.file))]
        facts = inspect(urls) if urls else {}
        for row in page:
            if not is_source(row.file):
                yield _as_it_is(row, root)
            elif isinstance(source := facts[Secret(row.file)], SourceFile):
                yield replace(row, size=source.size, etag=source.etag)
            else:
                yield row


def _as_it_is(row: Row, root: Path) -> Row:
    try:
        now = (root / row.file).stat()
    except (OSError, ValueError):
        return row
    return replace(row, size=now.st_size, mtime_ns=now.st_mtime_ns)


# --- Content-Type --------------------------------------------------------------------------------------------------


def content_type_of(path: str, file: str = "") -> str:
    """Return the Content-Type for the extension of a cloud path or, if it has none, of the local file.

    The table is the standard library's (not the machine's /etc/mime.types), with the web types that are missing or
    differ between Python versions. A compressed file has its own type: it is stored as it is, without
    Content-Encoding.

    =====================  ==========  ==========================
    path                   file        type
    =====================  ==========  ==========================
    a/b.PNG                any         image/png
    a/b.tar.gz             any         application/gzip
    a/b                    c.webp      image/webp
    a/b                    URL?query   of the URL's path
    a/b.unknown            c.png       application/octet-stream
    a/.png, a/b            c           application/octet-stream
    =====================  ==========  ==========================
    """
    file = file.partition("?")[0] if is_source(file) else file
    extension = posixpath.splitext(path)[1] or posixpath.splitext(file)[1]
    return _types().get(extension.lower(), "application/octet-stream")


@cache
def _types() -> dict[str, str]:
    # An instance has the library's own table; the module-level one also reads the machine's files.
    from mimetypes import MimeTypes

    return MimeTypes((str(Path(__file__).with_name("mime.types")),)).types_map[True]

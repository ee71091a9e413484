"""URLs in the `file` column: their queries, which may be signatures, are taken apart before anything else sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tcb_ops.details import DetailCode, detail
from tcb_ops.i18n import _
from tcb_ops.lists.local_files import UnusableFile
from tcb_ops.model import Secret, SourceFile, is_source
from tcb_ops.secrets import MASK

SourceCheck: TypeAlias = Callable[[Sequence[Secret]], Mapping[Secret, SourceFile | UnusableFile]]
"""Looks at some URLs."""
_CUT = re.compile(r"[?#]")
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
    cut = _CUT.search(url)
    base, query = (url[: cut.start()], url[cut.end() :]) if cut is not None else (url, None)
    scheme, slashes, rest = base.partition("://")
    if not slashes:
        scheme, rest = "", base
    host, slash, path = rest.partition("/")
    if "@" in host:
        rest = f"{MASK}@{host.rpartition('@')[2]}{slash}{path}"
    elif slashes and not _HOST.fullmatch(host):  # what looks like a port is a password
        _user, at, after = rest.rpartition("@")
        rest = f"{MASK}@{after}" if at else MASK
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
    return {url: _not_allowed(url) for url in urls}


def _not_allowed(url: Secret) -> UnusableFile:
    shown, _query = split_source(url.reveal())
    host = shown.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return UnusableFile(detail(DetailCode.SOURCE_HOST, host=host), SOURCE_FIXES[DetailCode.SOURCE_HOST])


SOURCE_FIXES = {
    DetailCode.SOURCE_ADDRESS: _("correct the URL"),
    DetailCode.SOURCE_HOST: _("add the host to source_hosts in tcb-ops.toml, or correct the URL"),
    DetailCode.SOURCE_MASKED: _("copy the URL from the original list"),
    DetailCode.SOURCE_GONE: _("correct the URL"),
    DetailCode.SOURCE_REFUSED: _("check who may read it; a signed URL may have expired"),
    DetailCode.SOURCE_REDIRECT: _("write the address that it leads to"),
    DetailCode.SOURCE_ENCODED: _("have it sent without Content-Encoding, or download it and give the file"),
    DetailCode.SOURCE_PACKAGE: _('install it: pip install "tcb-ops[sources]"'),
    DetailCode.SOURCE_KEYS: _("set them, in the way that the store's vendor documents"),
    DetailCode.SOURCE_UNSIGNED: _("check the endpoint and the region in the environment variables"),
    DetailCode.FILE_LARGE: _("split or compress it, or upload it in the console"),
}
"""What to do about a URL that cannot be used."""

"""A report's data and proof inside its page, so that one file can be sent, read and checked.

After the page, files stand in comments, which browsers do not show, in Base64; the data is compressed::

    <!-- tcb-ops results.csv.gz
    H4sIAAAA…
    -->

The last of them are manifest.json and its signature, if there is one. The manifest has the SHA-256 of all that precedes it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tcb_ops.disk import open_regular, sync_to_disk
from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import _

MOST = 64_000_000
"""Bytes that a page carries, before they are compressed."""
_LARGEST_PAGE = 2 * MOST
DATA, PROOF = ("results.csv", "errcodes.csv"), ("manifest.json", "manifest.json.sig")
"""The files inside a page. The signature is there if the report is signed."""
_NAMES = [*(f"{name}.gz".encode() for name in DATA), *map(str.encode, PROOF)]
_BLOCK = re.compile(rb"^<!-- tcb-ops ([a-z.]+)\n([0-9A-Za-z+/]*={0,2})\n-->\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PageData:
    """A page with data, taken apart."""

    page: bytes
    """What the manifest has the SHA-256 of: the page and its data, without the proof."""
    data: dict[str, bytes]
    """By name."""
    proof: dict[str, bytes]
    """By name, too."""

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """The SHA-256 and size of the page, as the manifest has them."""
        return {"sha256": sha256(self.page).hexdigest(), "bytes": len(self.page)}


def add_data(page: Path, *files: Path) -> None:
    """Add files to a page, compressed. Raises UsageError if they are too large."""
    if (size := sum(file.stat().st_size for file in files)) > MOST:
        text = _("The run's data has {size}, and a page carries {most} at most. No report was written.")
        fix = _("Omit {--with-data}, or select merchants with {--where}.")
        raise UsageError(text.format(size=format_size(size), most=format_size(MOST)), fix)
    with page.open("ab") as stream:
        for file in files:
            stream.write(_block(f"{file.name}.gz", gzip.compress(file.read_bytes(), mtime=0)))


def add_proof(page: Path, *files: Path) -> None:
    """Add the manifest of a page with data to it, and its signature."""
    with page.open("ab") as stream:
        for file in files:
            stream.write(_block(file.name, file.read_bytes()))
    sync_to_disk(page)


def read_page(file: Path) -> PageData | None:
    """Take a page with data apart; None for anything else, such as one that was damaged. Raises OSError.

    Whether all of it is as it was exported is for the manifest to say.
    """
    with open_regular(file) as stream:
        content = stream.read(_LARGEST_PAGE + 1)
    _page, *blocks = _BLOCK.split(content)
    names, texts = blocks[::3], blocks[1::3]
    if names not in (_NAMES, _NAMES[:-1]) or len(content) > _LARGEST_PAGE:
        return None
    try:
        bodies = [b64decode(text) for text in texts]
        data = dict(zip(DATA, map(_unpacked, bodies), strict=False))
    except (ValueError, zlib.error):
        return None
    proof = dict(zip(PROOF, bodies[len(DATA) :], strict=False))
    tail = b"".join(_block(name, body) for name, body in proof.items())
    # Where the proof is written in another way, it stays in the page, which then is not the one of the manifest.
    return PageData(content.removesuffix(tail), data, proof)


def _unpacked(body: bytes) -> bytes:
    """Decompress a file, but no more than a page may carry. Raises ValueError, zlib.error."""
    unpacking = zlib.decompressobj(wbits=31)
    unpacked = unpacking.decompress(body, MOST + 1)
    if not unpacking.eof:
        raise ValueError("larger")
    return unpacked


def _block(name: str, body: bytes) -> bytes:
    return b"<!-- tcb-ops %s\n%s\n-->\n" % (name.encode(), b64encode(body))

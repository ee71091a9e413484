"""A patched part: changed where intended, byte for byte unchanged elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tcb_ops.xlsx import PartPatcher
from tcb_ops.xlsx.copies import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE = (
    '<?xml version="1.0" encoding="UTF-8"?>\r\n<!-- 注释 --><a\n  x = "1>2"  y=\'"\'>'
    "<cut>中文<deep/></cut><cut/>  <keep z=\"&lt;\"/><tag w='3'/><tag w='4'>t</tag></a >\n"
)
AFTER = (
    '<?xml version="1.0" encoding="UTF-8"?>\r\n<!-- 注释 --><a\n  x = "1>2"  y=\'"\'>'
    '[中文]  <keep z="&lt;"/><tag w="5"/><tag w="5">t</tag>结束</a >\n'
)


class Changed(PartPatcher):
    """Cuts out every `cut`, the first of them for what it holds; gives every `tag` another w; adds to the end of `a`."""

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        if name == "cut":
            self.cut_from_here()
        elif name == "tag":
            self.change_tag(replaced(self.tag(), "w", "5"))

    def end(self, name: str) -> None:
        if name == "cut":
            held = self.cut_so_far().removeprefix("<cut>").removesuffix("<deep/></cut>")
            self.cut_to_here(f"[{held}]" if held != "<cut/>" else "")
        elif name == "a":
            self.insert("结束")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_it_does_not_matter_in_which_pieces_the_part_comes(size: int) -> None:
    before = BEFORE.encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(before), size):
            yield before[at : at + size]

    assert b"".join(Changed().patch(pieces())).decode() == AFTER


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030"])
def test_another_encoding_is_refused_since_what_is_added_would_be_garbled(encoding: str) -> None:
    body = f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode(encoding)
    with pytest.raises((ValueError, LookupError)):
        b"".join(Changed().patch(iter([body])))

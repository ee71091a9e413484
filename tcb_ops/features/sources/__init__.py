"""Files that are elsewhere than the list says: at https URLs, and in folders of other machines (`--map`)."""

from __future__ import annotations

from enum import unique
from typing import TYPE_CHECKING

from tcb_ops.details import DetailCodes
from tcb_ops.hooks import Feature, MapHooks, SourceHooks, lazily
from tcb_ops.i18n import _


@unique
class SourceCode(DetailCodes):
    """The codes of URLs that files are sent from."""

    SOURCE_ADDRESS = _(
        "{url} is not an address that files are read from: https without a user name, spaces or #"
    )
    SOURCE_MASKED = _("the query of {url} is masked, as in every report")
    SOURCE_GONE = _("there is no file at {url} (HTTP {status})")
    SOURCE_REFUSED = _("{url} cannot be read (HTTP {status})")
    SOURCE_REDIRECT = _("{url} redirects to another address (HTTP {status}), which is not followed")
    SOURCE_BUSY = _("{url} returned HTTP {status}; trying again later may help")
    SOURCE_NO_LENGTH = _("{url} is sent without Content-Length, which the store needs first")
    SOURCE_ENCODED = _("{url} is sent with Content-Encoding, so these are not the file's own bytes")


if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tcb_ops.engine.calls import CallContext
    from tcb_ops.features.sources import maps as _maps
    from tcb_ops.features.sources import urls as _urls
    from tcb_ops.model import Row
    from tcb_ops.wechat.local_files import Body
else:
    _maps, _urls = lazily(__name__, "maps", "urls")


def _body(context: CallContext, row: Row) -> AbstractAsyncContextManager[Body]:
    return _urls.source_body(context, row)


FEATURE = Feature(
    hooks=[
        MapHooks(path_map=_maps.path_map),
        SourceHooks(body=_body, check=_urls.SourceInspector, urls=_urls.source_urls),
    ],
)

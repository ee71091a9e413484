"""Files that are elsewhere than the list says: at https URLs, and in folders of other machines (`--map`)."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature


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


FEATURE = Feature(
    provides={
        "file_map": "tcb_ops.features.sources.maps:path_map",
        "source_body": "tcb_ops.features.sources.urls:source_body",
        "source_check": "tcb_ops.features.sources.urls:SourceInspector",
        "source_urls": "tcb_ops.features.sources.urls:source_urls",
    },
)

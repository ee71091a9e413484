"""tcb-ops: upload files into many merchants' WeChat cloud environments, see every errcode, prove what happened.

::

    import tcb_ops as tcb

    merchants = tcb.read_merchants("merchants.csv")
    batch = tcb.read_paths("paths.csv", merchants, root="files")
    run = tcb.upload(batch)
    run.counts, run.results(), run.errcodes()

Importing is quick and does nothing: the module of a name loads when the name is first used, and pandas, SQLAlchemy and
the HTTP client where they are needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcb_ops.api import (
        all_runs as all_runs,
    )
    from tcb_ops.api import (
        audit as audit,
    )
    from tcb_ops.api import (
        check_merchants as check_merchants,
    )
    from tcb_ops.api import (
        diff as diff,
    )
    from tcb_ops.api import (
        history as history,
    )
    from tcb_ops.api import (
        links as links,
    )
    from tcb_ops.api import (
        open_run as open_run,
    )
    from tcb_ops.api import (
        read_merchants as read_merchants,
    )
    from tcb_ops.api import (
        read_paths as read_paths,
    )
    from tcb_ops.api import (
        resume as resume,
    )
    from tcb_ops.api import (
        retry as retry,
    )
    from tcb_ops.api import (
        start_audit as start_audit,
    )
    from tcb_ops.api import (
        start_links as start_links,
    )
    from tcb_ops.api import (
        start_resume as start_resume,
    )
    from tcb_ops.api import (
        start_retry as start_retry,
    )
    from tcb_ops.api import (
        start_upload as start_upload,
    )
    from tcb_ops.api import (
        upload as upload,
    )
    from tcb_ops.api import (
        upload_link as upload_link,
    )
    from tcb_ops.api import (
        verify as verify,
    )
    from tcb_ops.errcodes import explain as explain
    from tcb_ops.errors import (
        ArgumentError as ArgumentError,
    )
    from tcb_ops.errors import (
        CanaryError as CanaryError,
    )
    from tcb_ops.errors import (
        InputError as InputError,
    )
    from tcb_ops.errors import (
        InterruptedRunError as InterruptedRunError,
    )
    from tcb_ops.errors import (
        RefusedError as RefusedError,
    )
    from tcb_ops.errors import (
        RunNotFoundError as RunNotFoundError,
    )
    from tcb_ops.errors import (
        SettingsError as SettingsError,
    )
    from tcb_ops.errors import (
        StoppedError as StoppedError,
    )
    from tcb_ops.errors import (
        TcbOpsError as TcbOpsError,
    )
    from tcb_ops.errors import (
        TokenError as TokenError,
    )
    from tcb_ops.errors import (
        TransportError as TransportError,
    )
    from tcb_ops.errors import (
        UsageError as UsageError,
    )
    from tcb_ops.i18n import (
        Lang as Lang,
    )
    from tcb_ops.i18n import (
        Text as Text,
    )
    from tcb_ops.lists.merchants import Merchants as Merchants
    from tcb_ops.lists.paths import Batch as Batch
    from tcb_ops.model import (
        Kind as Kind,
    )
    from tcb_ops.model import (
        Link as Link,
    )
    from tcb_ops.model import (
        Merchant as Merchant,
    )
    from tcb_ops.model import (
        Outcome as Outcome,
    )
    from tcb_ops.model import (
        Problem as Problem,
    )
    from tcb_ops.model import (
        Row as Row,
    )
    from tcb_ops.model import (
        Secret as Secret,
    )
    from tcb_ops.run import (
        Diff as Diff,
    )
    from tcb_ops.run import (
        History as History,
    )
    from tcb_ops.run import (
        Run as Run,
    )
    from tcb_ops.run import (
        RunHandle as RunHandle,
    )
    from tcb_ops.runs.limits import RunLimits as RunLimits
    from tcb_ops.runs.progress import Progress as Progress
    from tcb_ops.settings import (
        Settings as Settings,
    )
    from tcb_ops.settings import (
        load_settings as load_settings,
    )

__version__ = "0.1.0"

_MODULES = {
    "api": (
        "all_runs",
        "audit",
        "check_merchants",
        "diff",
        "history",
        "links",
        "open_run",
        "read_merchants",
        "read_paths",
        "resume",
        "retry",
        "start_audit",
        "start_links",
        "start_resume",
        "start_retry",
        "start_upload",
        "upload",
        "upload_link",
        "verify",
    ),
    "errcodes": ("explain",),
    "errors": (
        "ArgumentError",
        "CanaryError",
        "InputError",
        "InterruptedRunError",
        "RefusedError",
        "RunNotFoundError",
        "SettingsError",
        "StoppedError",
        "TcbOpsError",
        "TokenError",
        "TransportError",
        "UsageError",
    ),
    "i18n": (
        "Lang",
        "Text",
    ),
    "lists.merchants": ("Merchants",),
    "lists.paths": ("Batch",),
    "model": (
        "Kind",
        "Link",
        "Merchant",
        "Outcome",
        "Problem",
        "Row",
        "Secret",
    ),
    "run": (
        "Diff",
        "History",
        "Run",
        "RunHandle",
    ),
    "runs.limits": ("RunLimits",),
    "runs.progress": ("Progress",),
    "settings": (
        "Settings",
        "load_settings",
    ),
}
"""The public names by the module that has them."""
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  made of the one list


def __getattr__(name: str) -> object:
    """Load a public name: the command line can be interrupted before, without a trace."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

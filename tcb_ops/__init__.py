"""tcb-ops: upload files into many merchants' WeChat cloud environments, see every errcode, prove what happened.

::

    import tcb_ops as tcb

    merchants = tcb.read_merchants("merchants.csv")
    batch = tcb.read_paths("paths.csv", merchants, root="files")
    run = tcb.upload(batch)
    run.counts, run.results(), run.errcodes()

Importing is quick and does nothing: pandas, SQLAlchemy and the HTTP client load where they are used.
"""

from tcb_ops.doors.python import (
    Working,
    all_runs,
    audit,
    check_merchants,
    diff,
    history,
    links,
    open_run,
    resume,
    retry,
    start_audit,
    start_links,
    start_resume,
    start_retry,
    start_upload,
    upload,
    upload_link,
    verify,
)
from tcb_ops.errcodes import explain
from tcb_ops.errors import (
    CanaryError,
    InputError,
    InterruptedRunError,
    RefusedError,
    RunNotFoundError,
    SettingsError,
    StoppedError,
    TcbOpsError,
    TokenError,
    TransportError,
    UsageError,
)
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import Batch, read_paths
from tcb_ops.model import Kind, Lang, Link, Merchant, Outcome, Problem, Row, Secret, Text
from tcb_ops.run import Run
from tcb_ops.runs.pacing import Pace
from tcb_ops.runs.progress import Progress
from tcb_ops.settings import Settings, load_settings

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CanaryError",
    "InputError",
    "InterruptedRunError",
    "Kind",
    "Lang",
    "Link",
    "Merchant",
    "Merchants",
    "Outcome",
    "Pace",
    "Problem",
    "Progress",
    "RefusedError",
    "Row",
    "Run",
    "RunNotFoundError",
    "Secret",
    "Settings",
    "SettingsError",
    "StoppedError",
    "TcbOpsError",
    "Text",
    "TokenError",
    "TransportError",
    "UsageError",
    "Working",
    "all_runs",
    "audit",
    "check_merchants",
    "diff",
    "explain",
    "history",
    "links",
    "load_settings",
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
]

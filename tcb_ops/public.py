"""The public names, which `tcb_ops` gives when they are asked for."""

from tcb_ops.api import (
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
from tcb_ops.i18n import Lang, Text
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import Batch, read_paths
from tcb_ops.model import Kind, Link, Merchant, Outcome, Problem, Row, Secret
from tcb_ops.run import Run
from tcb_ops.run_handle import RunHandle
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.progress import Progress
from tcb_ops.settings import Settings, load_settings

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
    "Problem",
    "Progress",
    "RefusedError",
    "Row",
    "Run",
    "RunHandle",
    "RunLimits",
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

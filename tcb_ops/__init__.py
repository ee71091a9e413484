"""tcb-ops: upload files into many merchants' WeChat cloud environments, see every errcode, prove what happened.

::

    import tcb_ops as tcb

    merchants = tcb.read_merchants("merchants.csv")
    batch = tcb.read_paths("paths.csv", merchants, root="files")
    run = tcb.upload(batch)
    run.counts, run.results(), run.errcodes()

Importing is quick and has no side effects: a name's module is loaded when the name is first used, and pandas
and the HTTP client only where they are needed.
"""

# isort: skip_file
# Type checkers and editors read these imports; `_PUBLIC` and the features (`Feature.public`) say the same to Python.
# A feature that has one name here has all of its names here; one that has none works the same, but its names have no types.
TYPE_CHECKING = False  # for type checkers, which know the name: typing takes twice the time of a bare start

if TYPE_CHECKING:
    from tcb_ops.api import errcodes as errcodes, links as links, open_run as open_run, prune as prune
    from tcb_ops.api import prune_reports as prune_reports
    from tcb_ops.api import read_merchants as read_merchants, read_paths as read_paths
    from tcb_ops.api import resume as resume, retry as retry, runs as runs, start_links as start_links
    from tcb_ops.api import start_resume as start_resume, start_retry as start_retry
    from tcb_ops.api import start_upload as start_upload, upload as upload
    from tcb_ops.errors import ArgumentError as ArgumentError, CanaryError as CanaryError
    from tcb_ops.errors import InputError as InputError, InterruptedRunError as InterruptedRunError
    from tcb_ops.errors import RefusedError as RefusedError, RunNotFoundError as RunNotFoundError
    from tcb_ops.errors import SettingsError as SettingsError, StoppedError as StoppedError
    from tcb_ops.errors import TcbOpsError as TcbOpsError, TokenError as TokenError
    from tcb_ops.errors import TransportError as TransportError, UsageError as UsageError
    from tcb_ops.features.health.audit import audit as audit, start_audit as start_audit
    from tcb_ops.features.health.next_steps import next_steps as next_steps
    from tcb_ops.features.health.notifications import notify as notify
    from tcb_ops.features.evidence.diffs import Diff as Diff, diff as diff
    from tcb_ops.features.evidence.history import History as History, history as history
    from tcb_ops.features.evidence.saved_run import SavedRun as SavedRun, open_report as open_report
    from tcb_ops.features.evidence.verify import verify as verify
    from tcb_ops.features.health.merchants import check_merchants as check_merchants
    from tcb_ops.features.stored.api import confirm as confirm, delete as delete
    from tcb_ops.features.stored.api import start_confirm as start_confirm, start_delete as start_delete
    from tcb_ops.features.stored.api import start_undo as start_undo, undo as undo
    from tcb_ops.features.stored.listing import files as files
    from tcb_ops.features.stored.urls import DownloadLink as DownloadLink, url as url
    from tcb_ops.features.health.codes import explain as explain
    from tcb_ops.interface_calls import call as call, upload_link as upload_link
    from tcb_ops.i18n import Lang as Lang, Text as Text
    from tcb_ops.lists.batch import Batch as Batch
    from tcb_ops.lists.merchants import Merchants as Merchants
    from tcb_ops.kinds import Kind as Kind
    from tcb_ops.model import Link as Link, Merchant as Merchant, Outcome as Outcome, Problem as Problem
    from tcb_ops.model import Row as Row, Secret as Secret
    from tcb_ops.run import Run as Run, RunHandle as RunHandle
    from tcb_ops.engine.limits import RunLimits as RunLimits
    from tcb_ops.engine.progress import Progress as Progress
    from tcb_ops.settings import Settings as Settings, load_settings as load_settings
    from tcb_ops.start import ResumeOptions as ResumeOptions, StartOptions as StartOptions
    from tcb_ops.start import TargetOptions as TargetOptions

__version__ = "0.1.0"

_PUBLIC = {
    "api": (
        "errcodes links open_run prune prune_reports read_merchants read_paths "
        "resume retry runs start_links start_resume start_retry start_upload upload"
    ),
    "errors": (
        "ArgumentError CanaryError InputError InterruptedRunError RefusedError RunNotFoundError "
        "SettingsError StoppedError TcbOpsError TokenError TransportError UsageError"
    ),
    "interface_calls": "call upload_link",
    "i18n": "Lang Text",
    "lists.batch": "Batch",
    "lists.merchants": "Merchants",
    "kinds": "Kind",
    "model": "Link Merchant Outcome Problem Row Secret",
    "run": "Run RunHandle",
    "engine.limits": "RunLimits",
    "engine.progress": "Progress",
    "settings": "Settings load_settings",
    "start": "ResumeOptions StartOptions TargetOptions",
}
"""The core's public names, by module."""
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _PUBLIC.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that the command line handles signals before heavy imports."""
    from importlib import import_module
    from importlib.machinery import PathFinder

    value: object
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    elif PathFinder.find_spec(f"{__name__}.{name}", __path__):  # Python asks before it imports a module
        raise AttributeError(name)
    else:
        from tcb_ops.hooks import features, load, public_names

        brought = public_names()
        if name == "__all__":
            value = sorted({*_MODULE_OF, *brought})
        elif name in brought:
            value = load(brought[name])
        else:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}; its features are {', '.join(features())}"
            )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from tcb_ops.hooks import public_names

    return [*_MODULE_OF, *public_names(), "__version__"]

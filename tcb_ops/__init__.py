"""tcb-ops: upload files into many merchants' WeChat cloud environments, see every errcode, prove what happened.

::

    import tcb_ops as tcb

    merchants = tcb.read_merchants("merchants.csv")
    batch = tcb.read_paths("paths.csv", merchants, root="files")
    run = tcb.upload(batch)
    run.counts, run.results(), run.errcodes()

Importing is quick and does nothing: the modules behind a name load when it is first used, and pandas, SQLAlchemy and the
HTTP client where they are needed.
"""

from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcb_ops.public import *  # noqa: F403  the one list of them is there

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load the public names: the command line can be interrupted before, without a trace."""
    is_module = PathFinder.find_spec(f"{__name__}.{name}", __path__) is not None  # noqa: F405  every package has it
    if not is_module and (name == "__all__" or not name.startswith("_")):
        public = import_module("tcb_ops.public")
        if name in {"__all__", *public.__all__}:
            return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    public = import_module("tcb_ops.public")
    return sorted([*public.__all__, "__version__"])

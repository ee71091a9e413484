"""Reading and checking of path lists and merchants files; all problems are reported in one pass."""

from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import Batch, OnBad, read_paths
from tcb_ops.lists.problems import format_problem, write_fixme
from tcb_ops.lists.validate import path_problem

__all__ = [
    "Batch",
    "Merchants",
    "OnBad",
    "format_problem",
    "path_problem",
    "read_merchants",
    "read_paths",
    "write_fixme",
]

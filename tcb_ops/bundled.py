"""Folders of files that come with the package."""

from __future__ import annotations

from pathlib import Path


def bundled(inside: str, beside: str) -> Path:
    """Return a folder of bundled files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / inside if (package / inside).is_dir() else package.parent / beside


SAMPLE = bundled("data", "data")
"""The sample: merchants, lists, files, a fault plan, a ledger."""


def sample_folder() -> Path:
    """Return the sample's copy in the working folder, which an operator may have changed, or else the packaged sample."""
    copied = Path("data")
    names = ("merchants.csv", "paths.csv", "files")
    return copied if all((copied / name).exists() for name in names) else SAMPLE

"""RESULTS.md: a section for each table, with its date and commit, and before them the targets that are missed.

Each benchmark writes its own sections; those of the others stay as they are.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILE = Path(__file__).with_name("RESULTS.md")
ROUNDS = 5
"""Fewer are not written: the speed of a shared machine changes by a factor of two within minutes."""
INTRODUCTION = (
    "What is measured, and how: README.md. Figures are medians of the rounds, ratios medians within a round."
)
HEAD = "| figure | measured | target | |\n|---|---:|---:|---|"
MISSED = "| MISSED |"


@dataclass(frozen=True)
class Figure:
    """A figure that a benchmark is held to."""

    what: str
    value: float | None
    """None where it was not measured."""
    bound: Literal["≥", "≤"]
    target: float
    full_size: bool = False
    """Judged only with full sizes: it grows with them."""

    def judged(self, *, quick: bool = False) -> Literal["met", "missed", "not judged"]:
        """`not judged`: not measured, or only meaningful with full sizes."""
        if self.value is None or (quick and self.full_size):
            return "not judged"
        good = self.value >= self.target if self.bound == "≥" else self.value <= self.target
        return "met" if good else "missed"


def target_table(figures: Iterable[Figure], *, quick: bool = False) -> str:
    lines = [HEAD]
    for one in figures:
        value = "not measured" if one.value is None else f"{one.value:.{2 if one.target >= 1 else 3}f}"
        judged = one.judged(quick=quick).replace("missed", "MISSED")
        lines.append(f"| {one.what} | {value} | {one.bound} {one.target:g} | {judged} |")
    return "\n".join(lines)


def about(rounds: int, loads: Sequence[float] = (), *, quick: bool = False) -> str:
    """Return when a table was measured, of what, how often, and under what load."""
    git = ["git", "describe", "--always", "--dirty"]
    told = subprocess.run(git, cwd=FILE.parent, check=False, capture_output=True, text=True)
    least, most = (f"{of(loads or os.getloadavg()[:1]):.1f}" for of in (min, max))
    load = least if least == most else f"{least} to {most}"
    return (
        f"commit {told.stdout.strip() or 'not known'} · {datetime.now(UTC):%Y-%m-%d} · Python {platform.python_version()} · "
        f"{rounds} {'round' if rounds == 1 else 'rounds'}{', small sizes' if quick else ''} · load {load} on {os.cpu_count()} cores"
    )


def write(*sections: str, dropped: Iterable[str] = ()) -> None:
    """Write sections, each with its heading, in place of those of the same name, or after the others.

    `dropped`: headings of sections that are not measured any more.
    """
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    kept = {_heading(old): old for old in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]}
    kept = {heading: old for heading, old in kept.items() if heading not in set(dropped)}
    kept |= {_heading(new): new for new in sections}
    parts = [part.strip() for part in kept.values()]
    FILE.write_text(
        "\n\n".join(["# Results", INTRODUCTION, _verdict(parts), *parts]) + "\n", encoding="utf-8"
    )


def _heading(section: str) -> str:
    return section.partition("\n")[0]


def _verdict(sections: Iterable[str]) -> str:
    """Say which targets of all sections are missed."""
    judged = re.findall(r"^\| .+ \| (?:met|MISSED|not judged) \|$", "\n".join(sections), re.MULTILINE)
    missed = [line for line in judged if line.endswith(MISSED)]
    if not missed:
        return f"No target of {len(judged)} is missed."
    return "\n".join([f"Missed: {len(missed)} of {len(judged)} targets.", "", HEAD, *missed])

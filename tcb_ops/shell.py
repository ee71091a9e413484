"""Commands as this machine's shell reads them: POSIX shells, or PowerShell and cmd on Windows."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise

WINDOWS = os.name == "nt"

_PLAIN = re.compile(r"[\w.:/\\+=-]+", re.ASCII)
"""Words that neither PowerShell nor cmd changes: a comma, a brace or an @ means something to one of them."""


def quote(word: str, *, windows: bool = WINDOWS) -> str:
    """Quote one word of a command.

    ===========  ===============================================================
    POSIX        as `shlex.quote`
    Windows      in double quotes, which PowerShell and cmd both read; backslashes
                 double before a quote only
    ===========  ===============================================================
    """
    if not windows:
        return shlex.quote(word)
    if _PLAIN.fullmatch(word):
        return word
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def join(words: Sequence[str]) -> str:
    """Compose a command that can be pasted."""
    return " ".join(map(quote, words))


def split(command: str, *, windows: bool = WINDOWS) -> list[str]:
    r"""Split a command into words. Raises ValueError if its quotes do not match. On Windows a `\` is part of a path."""
    lexer = shlex.shlex(command, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if windows:
        lexer.escape = ""
    return list(lexer)


_CALLS = {
    "runs": "tcb.runs()",
    "show": "tcb.open_run({arguments})",
    "errcodes": "tcb.errcodes({arguments})",
    "resume": "tcb.resume({arguments})",
    "retry": "tcb.retry({arguments})",
    "report": "tcb.open_run({arguments}).report()",
    "why": "tcb.open_run({arguments}).why()",
    "notify": "tcb.notify({arguments})",
}

_OF_RETRIES = {"--errcode": "codes", "--where": "where"}
"""Options of `retry` that may be repeated, with the arguments."""


def as_call(command: str) -> str:
    """Return the call of Python (`import tcb_ops as tcb`) that does what a suggested command does; else the command.

    ========================================  ===============================
    tcb-ops upload … --resume ID              tcb.resume('ID')
    tcb-ops runs, errcodes ID, retry ID, …    tcb.runs(), …
    tcb-ops retry ID --target URL             tcb.retry('ID', target='URL')
    tcb-ops retry ID --errcode 85088          tcb.retry('ID', codes=['85088'])
    any other, such as a resume with a list   as it is
    ========================================  ===============================
    """
    words = split(command)
    options = dict(pairwise(words))
    _program, verb, run, *_rest = *words, "", ""
    if run == "--resume":
        verb, run = "resume", options[run]
    named = [f"{name}={options[f'--{name}']!r}" for name in ("target", "cluster") if f"--{name}" in options]
    for option, name in _OF_RETRIES.items() if verb == "retry" else ():
        if values := [value for word, value in pairwise(words) if word == option]:
            named.append(f"{name}={values!r}")
    return _CALLS[verb].format(arguments=", ".join([repr(run), *named])) if verb in _CALLS else command

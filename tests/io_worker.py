"""Runs commands as tests/core/test_io_errors.py asks, each in a child of its own in which one call may fail.

A line of stdin is a JSON object: `words` of a command; the `call` that fails, its `number` and the `errno`. A line of stdout says
how it ended: the exit `code`, what it wrote to `stderr`, and how many calls of each kind it `made`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile

from tcb_ops.cli.main import run as run_command

CALLS = ("open", "write", "fsync", "rename", "socket", "connect", "recv")
"""The kinds of calls in the order of crash.c."""
LONGEST = 60
"""Seconds after which a command counts as hanging."""


def main() -> None:
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as result:
            child = os.fork()
            if not child:
                signal.alarm(LONGEST)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(errors.fileno(), 2)
                call = CALLS.index(asked["call"]) if asked["call"] else -1
                library.crash_fail(call, asked["number"], asked["errno"])
                code = run_command(asked["words"])
                made = {name: library.crash_made(number) for number, name in enumerate(CALLS)}
                result.write(json.dumps({"code": code, "made": made, "modules": list(sys.modules)}))
                result.flush()
                sys.stderr.flush()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            for file in (errors, result):
                file.seek(0)
            ended = json.loads(result.read() or "{}") or {"code": -status, "made": {}, "modules": []}
            for name in ended.pop("modules"):  # later children have them already
                if name.partition(".")[0] in {"tcb_ops", "aiohttp", "xlsxwriter", "uvloop"}:
                    importlib.import_module(name)
            sys.stdout.write(json.dumps(ended | {"stderr": errors.read()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

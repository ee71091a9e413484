"""The signature of a report's manifest: made and checked by OpenSSH's ssh-keygen, so that a stranger needs nothing else.

The format is that of `ssh-keygen -Y sign` (PROTOCOL.sshsig of OpenSSH).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tcb_ops.i18n import Text, _
from tcb_ops.reports.export import NAMESPACE
from tcb_ops.system_errors import system_reason

SECONDS = 30
"""That ssh-keygen may take: an agent may ask a person."""
_USAGE = 1
"""The exit code of ssh-keygen for options that it does not know; for any other failure it is 255."""
_TOO_OLD = _("the OpenSSH of this machine is older than 8.2 and has no signatures of files")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says of itself; whether that is so is another question."""

    key: str
    """The key's fingerprint, as ssh-keygen writes it."""
    namespace: str


def sign(key: Path, data: bytes) -> bytes | Text:
    """Return the signature of some bytes with a key, or why there is none. Nobody is asked for a passphrase."""
    key = key.expanduser()
    if not key.is_file():
        return _("{key} does not exist", key=key)
    done = _run("-Y", "sign", "-f", str(key), "-n", NAMESPACE, data=data)
    if isinstance(done, Text):
        return done
    if done.returncode == 0 and read_signature(done.stdout) is not None:
        return done.stdout
    if done.returncode == _USAGE:
        return _TOO_OLD
    opened = _run("-y", "-P", "", "-f", str(key))
    if isinstance(opened, Text) or opened.returncode:
        return _(
            "{key} has a passphrase that no ssh-agent knows (ssh-add {key}), or is no private key that only you can read",
            key=key,
        )
    return _("ssh-keygen ended with code {code}", code=done.returncode)


def signed_with(signature: bytes) -> str:
    """Return the fingerprint of a signature's key."""
    parts = read_signature(signature)
    return parts.key if parts is not None else ""


def read_signature(text: bytes) -> Signature | None:
    """Read a signature in its armour; None for anything else."""
    lines = text.split()
    try:
        blob = b64decode(b"".join(lines[3:-3]), validate=True)
        if lines[:3] != [b"-----BEGIN", b"SSH", b"SIGNATURE-----"] or blob[:10] != b"SSHSIG\0\0\0\1":
            return None
        fields, at = [], 10
        for _each in range(2):
            end = at + 4 + int.from_bytes(blob[at : at + 4])
            fields.append(blob[at + 4 : end])
            at = end
        key, namespace = fields[0], fields[1].decode()
    except ValueError:
        return None
    return Signature(f"SHA256:{b64encode(sha256(key).digest()).decode().rstrip('=')}", namespace)


def fits(file: Path, data: bytes) -> bool | Text:
    """Return whether a signature is that of some bytes, by whatever key; a Text if ssh-keygen cannot tell."""
    done = _run("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file), data=data)
    if isinstance(done, Text):
        return done
    return _TOO_OLD if done.returncode == _USAGE else done.returncode == 0


def signer_of(file: Path, signers: Path) -> str:
    """Return the name that a file of allowed signers gives the key of a signature; empty if it does not have the key."""
    done = _run("-Y", "find-principals", "-s", str(file), "-f", str(signers))
    found = "" if isinstance(done, Text) or done.returncode else done.stdout.decode(errors="replace").strip()
    return found.splitlines()[0] if found else ""


def accepts(signers: Path, who: str, file: Path, data: bytes) -> bool:
    """Return whether a file of allowed signers accepts a signature: also of its key's time and purpose."""
    words = ("-Y", "verify", "-f", str(signers), "-I", who, "-n", NAMESPACE, "-s", str(file))
    done = _run(*words, data=data)
    return not isinstance(done, Text) and done.returncode == 0


def _run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes] | Text:
    """Run ssh-keygen, which can ask nobody; return what it did, or why it could not."""
    program = shutil.which("ssh-keygen")
    if program is None:
        return _("there is no ssh-keygen on this machine (OpenSSH)")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    try:
        return subprocess.run(  # noqa: S603  OpenSSH's own program, no shell
            [program, *words],
            input=data,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=ours | {"SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=os.name == "posix",  # without a terminal to ask on
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        return _("ssh-keygen took longer than {seconds} seconds", seconds=SECONDS)
    except OSError as error:
        return system_reason(error)

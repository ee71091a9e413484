"""The sample that the demo, the notebooks and rehearsals work on: merchants, lists, files, and a fault plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcb_ops.lists.paths import Batch
from tcb_ops.model import Kind, Outcome
from tcb_ops.run import Run
from tcb_ops.settings import Settings
from tcb_ops.simulator import Faults, Simulator


def _folder() -> Path:
    """The sample's folder: within the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "data"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "data"


SAMPLE = _folder()
MERCHANTS = SAMPLE / "merchants.csv"
PATHS = SAMPLE / "paths.csv"
FILES = SAMPLE / "files"
FAULTS = SAMPLE / "faults.toml"


@contextmanager
def rehearsal(
    folder: Path, *, lang: str | None = None, port: int = 0
) -> Iterator[tuple[Settings, Simulator, Faults]]:
    """Run the simulator with the sample's merchants and faults; `folder` takes the ledger and the made-up tokens.

    Gives the settings that lead to it, the simulator, and its fault plan. Raises UsageError when `port` is taken.
    """
    import secrets

    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.model import SIMULATOR
    from tcb_ops.settings import LEDGER_FILE, load_settings
    from tcb_ops.simulator import Simulator, load_faults

    merchants, faults = read_merchants(MERCHANTS), load_faults(FAULTS)
    tokens = {merchant.appid: secrets.token_hex(24) for merchant in merchants}
    file = folder / "tokens.csv"
    file.touch(mode=0o600)
    file.write_text(
        "".join(f"{line}\n" for line in ("appid,access_token", *map(",".join, tokens.items()))),
        encoding="utf-8",
    )
    with Simulator(list(merchants), tokens, faults=faults, port=port) as simulator:
        options = {
            "api_base": simulator.base,
            "merchants": MERCHANTS,
            "ledger": str(folder / LEDGER_FILE),
            "lang": lang,
            "tokens": {"source": "file", "file": file},
        }
        # The target is the embedded simulator, whatever port it has this time.
        yield load_settings(options=options).model_copy(update={"target": SIMULATOR}), simulator, faults


def unexpected_lines(run: Run, batch: Batch, faults: Faults) -> list[int]:
    """Return the lines of a run that ended otherwise than the fault plan implies."""
    from tcb_ops.simulator import expected_outcomes

    envs: dict[str, set[str]] = {}
    for merchant in batch.merchants:
        envs.setdefault(merchant.appid, set()).add(merchant.env)
    lines = []
    for record in run.rows():
        row, outcome = record.row, record.end.outcome
        siblings = envs[row.appid] - {row.env}
        implied = expected_outcomes(
            faults, row.env, row.appid, row.path, kind=Kind(run.record.kind), siblings=siblings
        )
        if outcome not in implied or outcome is Outcome.PENDING:
            lines.append(row.line)
    return lines

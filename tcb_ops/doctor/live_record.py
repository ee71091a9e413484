"""doctor-live-ENV-TIME.json: the answers of a trial with their secrets redacted, for its owner alone."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tcb_ops.doctor.live_findings import settle
from tcb_ops.doctor.live_record_redacted import as_kept
from tcb_ops.doctor.live_result import Trial
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.secrets import redact_known
from tcb_ops.settings import Settings


def write_record(trial: Trial, settings: Settings, folder: Path) -> Path:
    """Write the record into a folder, 0600; gives the file. Raises UsageError where it cannot be written."""
    when = datetime.fromtimestamp(trial.began_at, settings.zone)
    env = re.sub(r"[^0-9A-Za-z_-]+", "_", trial.env)[:60]
    file = folder / f"doctor-live-{env}-{when:%Y%m%d-%H%M%S}-{trial.path[15:19]}.json"
    text = redact_known(json.dumps(record_of(trial, settings), ensure_ascii=False, indent=2), trial.secrets)
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:  # noqa: PTH123  a descriptor, for the mode
            out.write(text + "\n")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(Text(f"{file} cannot be written ({why})", f"{file} 无法写入（{why}）")) from None
    return file


def record_of(trial: Trial, settings: Settings) -> dict[str, Any]:
    """What is kept of a trial, before the last net (`without`)."""
    return {
        "tcb_ops": version("tcb-ops"),
        "target": settings.api_base,
        "simulated": settings.on_loopback,
        "env": trial.env,
        "owner": str(trial.owner),
        "path": trial.path,
        "began_at": datetime.fromtimestamp(trial.began_at, settings.zone).isoformat(timespec="seconds"),
        "steps": [
            {"step": step.name, "good": step.good, "en": step.seen.en, "zh": step.seen.zh}
            for step in trial.steps
        ],
        "left_behind": trial.left or None,
        "settled": [
            {
                "number": one.number,
                "known": one.known,
                "question": {"en": one.question.en, "zh": one.question.zh},
                "seen": {"en": one.seen.en, "zh": one.seen.zh},
            }
            for one in settle(trial)
        ],
        "exchanges": [as_kept(one) for one in trial.exchanges],
    }

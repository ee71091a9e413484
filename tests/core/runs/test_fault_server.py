"""The real command against a second server that was written apart from the simulator: each row ends as implied."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fault_server import PLANTED, UNCONFIRMED, FaultServer, draw_all, expected

FILES = 400
QUICK = ("--backoff", "0.02", "--slow-wait", "0.1", "--patience", "120")
TYPES = {"png": "image/png", "svg": "image/svg+xml", "bin": "application/octet-stream"}


@pytest.mark.parametrize(
    ("rows", "envs"),
    [
        pytest.param(600, 20, id="600 rows", marks=pytest.mark.slow),
        pytest.param(20_000, 100, id="20,000 rows", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_every_row_ends_as_the_second_server_implies(tmp_path, rows, envs):
    places = [(f"wx{n * 4 // 5:04d}", f"env{n:03d}-{n:06x}") for n in range(envs)]
    suffix = list(TYPES)
    listed = [
        (*places[n % envs], f"批次/{n // envs} 图.{suffix[n % 3]}", f"{n % FILES}.dat") for n in range(rows)
    ]
    tokens = {appid: f"{PLANTED}-{appid}-access-token-0123456789" for appid, _ in places}
    local = _write(tmp_path, places, listed, tokens)
    plans = draw_all([row[:3] for row in listed], seed=20261126)
    with FaultServer(plans, tokens, {env: appid for appid, env in places}) as server:
        command = (
            sys.executable,
            "-m",
            "tcb_ops",
            "upload",
            "list.csv",
            "--root",
            "files",
            "--out",
            "report",
        )
        done = subprocess.run(
            [*command, "--api-base", server.base, "--yes", "--lang", "en", "--json", *QUICK],
            cwd=tmp_path,
            capture_output=True,
            timeout=3000,
            check=False,
        )
    assert done.returncode == 1, done.stderr[-2000:]
    assert server.violations == []
    with (tmp_path / "report" / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        results = list(csv.DictReader(file))
    assert len(results) == rows
    wrong, false_success = [], []
    for row in results:
        key = row["env"], row["path"]
        outcome, last = expected(plans[key])
        confirmed = ("No confirmation from the store" in row["tcb_reason"]) == (
            outcome == "failed" and last.name in UNCONFIRMED
        )
        if row["tcb_outcome"] != outcome or not confirmed:
            wrong.append((key, row["tcb_outcome"], row["tcb_reason"], outcome, plans[key]))
        if row["tcb_outcome"] == "uploaded":
            told = row["tcb_md5"], row["tcb_content_type"]
            own = local[row["file"]], TYPES[row["path"].rpartition(".")[2]]
            if not told == own == server.stored.get(key):
                false_success.append((key, told, own, server.stored.get(key)))
    assert false_success == []
    assert wrong == []
    counts = Counter(expected(plan)[0] for plan in plans.values())
    assert json.loads(done.stdout)["counts"] == dict(counts)
    assert set(counts) == {"uploaded", "failed", "refused"}
    kept = [one for one in (*tmp_path.glob("report/*"), *tmp_path.glob("tcb-ops.db*")) if one.is_file()]
    result = [done.stdout, done.stderr, *(one.read_bytes() for one in kept)]
    assert not any(PLANTED.encode() in one for one in result)


def _write(
    folder: Path,
    places: list[tuple[str, str]],
    listed: list[tuple[str, str, str, str]],
    tokens: dict[str, str],
) -> dict[str, str]:
    """Write what the command needs; gives the MD5 of each local file."""
    (folder / "files").mkdir()
    local = {}
    for name in sorted({file for *_, file in listed}):
        size = 1_500_000 if name == "7.dat" else 200
        content = hashlib.sha256(name.encode()).digest() * (size // 32)
        (folder / "files" / name).write_bytes(content)
        local[name] = hashlib.md5(content).hexdigest()
    tables = {
        "list.csv": [("env", "path", "file"), *((env, path, file) for _, env, path, file in listed)],
        "merchants.csv": [("appid", "name", "env"), *((appid, f"商户{appid}", env) for appid, env in places)],
        "tokens.csv": [("appid", "access_token"), *tokens.items()],
    }
    for name, lines in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
    (folder / "tokens.csv").chmod(0o600)
    (folder / "tcb-ops.toml").write_text('[tokens]\nsource = "file"\nfile = "tokens.csv"\n', encoding="utf-8")
    return local

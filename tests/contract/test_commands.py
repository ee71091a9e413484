"""Contract §3: streams, exit codes, the JSON object, the target's line, resuming."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from contract.conftest import GOOD, MIXED_COUNTS, QUICK, ended

if TYPE_CHECKING:
    from contract.conftest import Operator

KEYS = {"run", "kind", "target", "rows", "counts", "errcodes", "calls", "seconds", "report"}
SLOW = [("tea-prod", f"slow/{n}.png") for n in range(12)]
NOWHERE = ("--api-base", "http://127.0.0.1:9", "--patience", "0.2")


@pytest.mark.slow
def test_a_process_gives_data_on_stdout_and_messages_on_stderr(mixed: Operator) -> None:
    with mixed.process(
        "upload", "list.csv", "--root", "files", "--per-env", "1", *QUICK, "--json"
    ) as process:
        done = ended(process)
    assert done.code == 1
    found = done.json
    assert set(found) >= KEYS
    assert (found["kind"], found["target"], found["rows"]) == ("upload", mixed.base, 15)
    assert found["counts"] == MIXED_COUNTS
    assert found["calls"].keys() == {"link", "upload"}
    assert found["seconds"] > 0
    assert done.err.startswith(f"SIMULATED {mixed.base} · tcb-ops.toml\n")
    with mixed.process("show", "latest", "--json") as process:
        shown = ended(process)
    assert (shown.code, shown.json) == (0, found)


@pytest.mark.slow
def test_the_json_object_tells_errcodes_by_merchant_with_the_rows_that_they_stopped(mixed: Operator) -> None:
    found = mixed.upload("--json").json
    assert sorted(found["errcodes"], key=lambda line: line["errcode"]) == [
        {"appid": "wxtea", "merchant": "茶语小铺", "env": "tea-test", "errcode": 40097, "rows": 1},
        {"appid": "wxnoodle", "merchant": "老城面馆", "env": "noodle-prod", "errcode": 85088, "rows": 8},
    ]


@pytest.mark.needs("health")
@pytest.mark.parametrize(
    ("kind", "counts"), [("upload", {"uploaded": 4}), ("links", {"linked": 4}), ("audit", None)]
)
def test_the_kinds_have_one_object_and_exit_codes_of_one_meaning(
    operator: Operator, kind: str, counts: dict[str, int] | None
) -> None:
    done = operator("audit", "--json", *QUICK) if kind == "audit" else getattr(operator, kind)("--json")
    assert (done.code, done.json["kind"]) == (0 if counts else 1, kind)
    assert sum(done.json["counts"].values()) == done.json["rows"]
    if counts:
        assert done.json["counts"] == counts


def test_exit_2_sends_nothing_and_leaves_stdout_empty(operator: Operator) -> None:
    calls = [
        ("upload",),
        ("upload", "no-such-list.csv"),
        ("upload", "list.csv", "--no-such-option"),
        ("upload", "list.csv", "--concurrency", "0"),
        ("show", "no-such-run"),
        ("explain", "no such code"),
        ("no-such-command",),
    ]
    for words in calls:
        done = operator(*words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err, words
    assert operator("runs", "--json").json == {"runs": []}


@pytest.mark.parametrize(
    "rows", [[("tea-prod", "halt/1.png")], GOOD], ids=["refused to everybody", "nobody answers"]
)
def test_a_problem_that_affects_every_row_is_exit_3_with_the_rows_pending(
    operator: Operator, rows: list[tuple[str, str]]
) -> None:
    operator.list(rows)
    done = operator.upload("--json", *(NOWHERE if rows is GOOD else ()))
    assert done.code == 3
    assert done.json["counts"] == {"pending": len(rows)}


@pytest.mark.kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_tidily_and_the_same_command_resumes_it(
    operator: Operator, number: signal.Signals, code: int
) -> None:
    operator.list(SLOW)
    words = ("upload", "list.csv", "--root", "files", "--per-env", "2", "--json")
    with operator.process(*words) as process:
        wait_for(lambda: _counts(operator).get("uploaded", 0) > 0)
        process.send_signal(number)
        stopped = ended(process)
    assert stopped.code == code
    assert "Traceback" not in stopped.err
    assert 0 < stopped.json["counts"]["pending"] < len(SLOW)
    again = operator(*words)
    assert (again.code, again.json["run"]) == (0, stopped.json["run"])
    assert again.json["counts"] == {"uploaded": len(SLOW)}
    assert stopped.json["run"] in again.err.rpartition("· ")[0], "it says so before it works"


def test_a_finished_run_is_never_resumed(operator: Operator) -> None:
    runs = {operator.upload("--json").json["run"] for _ in range(2)}
    assert len(runs) == 2


def test_another_root_or_list_is_another_run(operator: Operator) -> None:
    operator.list([*GOOD, ("tea-prod", "halt/1.png")])
    unfinished = operator.upload("--json", "--concurrency", "1").json["run"]
    operator.list([*GOOD, ("tea-prod", "other.png")])
    other = operator.upload("--json").json
    assert other["run"] != unfinished
    assert other["counts"] == {"uploaded": 5}


@pytest.mark.slow
def test_an_unfinished_run_over_a_day_old_is_not_resumed_without_being_asked_for(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = operator.upload("--json", *NOWHERE).json["run"]
    later = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    asked = operator.upload("--json", *NOWHERE)
    assert (asked.code, asked.json["error"]["code"]) == (2, "usage")
    assert unfinished in asked.err
    named = operator.upload("--json", *NOWHERE, "--resume", unfinished)
    assert (named.code, named.json["run"]) == (3, unfinished)
    fresh = operator.upload("--json", *NOWHERE, "--new-run")
    assert (fresh.code, fresh.json["run"] == unfinished) == (3, False)


@pytest.mark.slow
def test_a_run_that_a_process_works_on_is_refused_to_another(operator: Operator) -> None:
    operator.list(SLOW)
    words = ("upload", "list.csv", "--root", "files", "--per-env", "1", "--json")
    with operator.process(*words) as process:
        wait_for(lambda: "pending" in _counts(operator))
        refused = operator(*words)
        process.kill()
    assert (refused.code, refused.json["error"]["code"]) == (2, "usage")
    assert str(process.pid) in refused.err


def test_the_target_is_named_first_and_embedded_simulators_are_one_target(operator: Operator) -> None:
    done = operator.upload("--target", "simulator", "--json")
    assert re.match(r"SIMULATED http://127\.0\.0\.1:\d+", done.err)
    assert (done.code, done.json["target"]) == (0, "simulator")
    assert operator("show", "latest", "--target", "simulator", "--json").json["run"] == done.json["run"]
    assert operator("show", "latest", "--json").code == 2, "latest is of the present target"


def test_live_uploads_to_many_environments_need_yes_without_a_terminal(operator: Operator) -> None:
    envs = ("tea-prod", "tea-test", "books-prod", "noodle-prod", "shore-prod")
    operator.list([(env, "a.png") for env in envs])
    live = ("--api-base", "https://api.example.invalid", "--patience", "0.1", "--backoff", "0.01")
    with (operator.folder / "tcb-ops.toml").open("r+", encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        file.write("confirm_over = 4\n" + text)
    refused = operator("upload", "list.csv", "--root", "files", *live)
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert refused.err.startswith("LIVE https://api.example.invalid · tcb-ops.toml\n")
    assert operator("upload", "list.csv", "--root", "files", *live, "--yes").code == 3


@pytest.mark.needs("health")
def test_explain_gives_the_entry_of_a_code(operator: Operator) -> None:
    done = operator("explain", "85088", "--json")
    assert (done.code, done.json["code"]) == (0, 85088)


def _counts(operator: Operator) -> dict[str, int]:
    done = operator("show", "--json")
    counts: dict[str, int] = done.json["counts"] if done.code == 0 else {}
    return counts


def wait_for(holds: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)

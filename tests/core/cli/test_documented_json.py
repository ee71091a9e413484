"""What programs read: the documentation names every key of `--json` and of a webhook's message, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from workspace import TEA, many

from tcb_ops.features.simulator import Fault, FaultStep, SimulatedAccount
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parents[3] / "docs"
QUICK = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "10", "--json")
NEW, STILL, RECOVERED, UNKNOWN, SILENCED = (
    Merchant(f"wx{name}", name, f"{name}-1a2b3c")
    for name in ("new", "still", "recovered", "unknown", "silenced")
)
ALWAYS = [
    Fault(env=TEA.env, path="banner/0.png", step=FaultStep.STORE, code="PaymentRequired", status=402),
    Fault(env=STILL.env, errcode=85088),
    Fault(env=SILENCED.env, errcode=85088),
]
FIRST_NIGHT = [*ALWAYS, Fault(env=RECOVERED.env, errcode=85088)]
SECOND_NIGHT = [*ALWAYS, Fault(env=NEW.env, errcode=61003), Fault(env=UNKNOWN.env, errcode=-1)]
LIMITED = SimulatedAccount(TEA.appid, daily_limit=30)
COUNTED = {"counts", "not_checked"}
"""Their keys are data: outcomes, checks."""


@pytest.fixture
def cli(open_cli: Callable[..., Any]) -> Any:
    """A workspace in which an audit on the second night finds something of every kind."""
    opened = open_cli(
        [*many(TEA, rows=40), *many(STILL, rows=1)],
        FIRST_NIGHT,
        merchants=[TEA, NEW, STILL, RECOVERED, UNKNOWN, SILENCED],
    )
    (opened.folder / "known.csv").write_text(
        f"env,cause,until,note\n{SILENCED.env},85088,2999-12-31,x\n{TEA.env},85088,2020-01-01,x\n",
        encoding="utf-8",
    )
    (opened.folder / "hook.url").write_text(
        f"{opened.workspace.sim.base}/robot/webhook/accept", encoding="utf-8"
    )
    with (opened.folder / "tcb-ops.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[[notify]]\nkind = "webhook"\nurl_file = "hook.url"\n' * 2)
    return opened


def keys(value: Any) -> Iterator[str]:
    """All keys of an object and of those inside it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in COUNTED:
                yield from keys(inner)
    elif isinstance(value, list):
        for one in value:
            yield from keys(one)


def paths(value: Any, above: str = "") -> Iterator[str]:
    """Where each key of an object is; the items of a list have one path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{above}/{key}"
            yield from paths(inner, f"{above}/{key}")
    elif isinstance(value, list):
        for one in value:
            yield from paths(one, above)


@pytest.mark.slow
def test_every_key_of_json_is_documented(cli: Any):
    overwritten = cli("upload", "list.csv", "--root", "files", *QUICK).json["run"]
    found = [cli("upload", "list.csv", "--root", "files", "--confirm", *QUICK).json]
    found.append(cli("confirm", "--json").json)
    for faults, accounts in ((FIRST_NIGHT, []), (SECOND_NIGHT, [LIMITED])):
        cli.workspace.sim.play(faults, accounts)
        found.append(cli("audit", *QUICK).json)
    found += [cli("show", run, "--json").json for run in (overwritten, found[0]["run"])]
    found.append(cli("errcodes", "--json").json)
    printed = {key for one in found for key in keys(one)}
    assert {"store_codes", "fewest_link_calls", "confirmed", "until", "receiver"} <= printed
    for lang in ("en", "zh"):
        text = (DOCS / lang / "reference" / "files.md").read_text(encoding="utf-8")
        (section,) = re.findall(r"^## --json\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
        assert printed <= set(re.findall(r"`([^`]+)`", section))
        first = "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
        assert set(re.findall(r"`([^`]+)`", first)) - printed == {"workers"}


@pytest.mark.slow
def test_a_webhook_gets_the_object_that_is_documented(cli: Any):
    cli("upload", "list.csv", "--root", "files", *QUICK)
    for faults, accounts in ((FIRST_NIGHT, []), (SECOND_NIGHT, [LIMITED])):
        cli.workspace.sim.play(faults, accounts)
        assert [one["sent"] for one in cli("audit", *QUICK).json["notifications"]] == [True, True]
    sent = json.loads(cli.workspace.sim.robots.messages[-1].text)
    for name in (
        "new",
        "still",
        "unknown",
        "silenced",
        "recovered",
        "expired",
        "fewest_link_calls",
        "not_checked",
    ):
        assert sent[name], name
    assert cli("notify", "--test").code == 0
    trial = json.loads(cli.workspace.sim.robots.messages[-1].text)
    for lang in ("en", "zh"):
        text = (DOCS / lang / "howto" / "nightly.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```json\n(.*?)^```\n(.*?)^#", text, re.MULTILINE | re.DOTALL)
        documented = json.loads(example[0])
        assert list(documented) == list(sent)
        assert sorted(set(paths(documented))) == sorted(set(paths(sent)))
        assert set(re.findall(r"`([^`]+)`", example[1])) == set(trial)

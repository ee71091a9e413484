"""Planted causes: a run fails, WeChat is asked, and the cause and who must act are named."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from token_server import BOOKS, COMPONENT, SECRETS, TEA, TokenServer
from workspace import QUICK, write_csv

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import (
    EnvStatus,
    Fault,
    FaultStep,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.model import Merchant, Owner

OWN = Merchant(COMPONENT.appid, "平台", "own-1", owner=Owner.PLATFORM)
SHARED = Merchant("wxtea", "茶语小铺", "books-1")
QUESTIONS = ("env_info", "describe_envs", "quota", "authorizer_info", "rid")
NO_SET = SimulatedAccount("wxtea", permissions=(18,))
WELL = SimulatedAccount("wxtea")
USED_UP, NO_CLOUD = replace(WELL, daily_limit=5, used=5), replace(WELL, cloud=False)
UNCONFIRMED = replace(WELL, unconfirmed=True)


def refused(code: int, *steps: FaultStep) -> tuple[Fault, ...]:
    """Return faults by which the link call, and these steps, are refused with a code."""
    return tuple(Fault(appid="*", env="*", step=step, errcode=code) for step in (FaultStep.LINK, *steps))


class World:
    """A simulator that can change between a run and the question why."""

    def __init__(self, server: TokenServer, skew: list[float]) -> None:
        self.server, self.sim, self.settings, self.skew = server, server.sim, server.settings, skew
        self.tokens = {line.appid: f"token-of-{line.appid}" for line in (TEA, BOOKS, OWN)}

    def keep(self, **tokens: str) -> None:
        """Give merchants these tokens in the token file; an empty one removes the line."""
        self.tokens |= tokens
        lines = [(appid, token) for appid, token in self.tokens.items() if token]
        write_csv(self.server.folder / "tokens.csv", ("appid", "access_token"), lines).chmod(0o600)

    def rotate(self) -> None:
        self.token = self.sim.rotate("wxtea")

    def revoke(self) -> None:
        self.sim.revoke("wxtea")

    def expire(self) -> None:
        self.sim.expire("wxtea")

    def refuse_ip(self) -> None:
        self.sim.refuse_ip()

    def without_component(self) -> None:
        self.settings = self.server.with_options(component_appid="")


@dataclass(frozen=True)
class Planted:
    """What is wrong, what changes before the question, and the answer."""

    code: str
    cause: str
    who: str
    faults: tuple[Fault, ...] = ()
    accounts: tuple[SimulatedAccount, ...] = ()
    environments: tuple[SimulatedEnvironment, ...] = ()
    before: Callable[[World], Any] = lambda _world: None
    """What is done before the run."""
    then: Callable[[World], Any] = lambda _world: None
    """What is done between the run and the question."""
    line: Merchant = TEA
    proven: bool = True


def change(*faults: Fault, accounts: tuple[SimulatedAccount, ...] | None = None) -> Callable[[World], None]:
    return lambda world: world.sim.play(faults, accounts)


def all_of(*steps: Callable[[World], Any]) -> Callable[[World], None]:
    return lambda world: [step(world) for step in steps] and None


INFO, QUOTA = FaultStep.ENV_INFO, FaultStep.QUOTA
HALTED = SimulatedEnvironment("tea-1", EnvStatus.HALTED)
PLANTED = {
    "an old token": Planted("40001", "token_stale", "you", before=World.rotate),
    "an old token, replaced since": Planted(
        "40001", "passed", "nobody", before=World.rotate, then=lambda w: w.keep(wxtea=w.token)
    ),
    "a token that a revocation ended": Planted(
        "40001", "revoked", "merchant", before=all_of(World.rotate, World.revoke)
    ),
    "a token that our clock calls expired": Planted(
        "42001", "clock", "you", before=World.expire, then=lambda w: w.skew.append(3600)
    ),
    "a component token that is old": Planted(
        "40001", "component_token", "you", before=lambda w: w.sim.rotate(COMPONENT.appid), line=OWN
    ),
    "an old token, and an old component token": Planted(
        "40001",
        "token_stale",
        "you",
        before=all_of(World.rotate, lambda w: w.sim.rotate(COMPONENT.appid)),
        proven=False,
    ),
    "an expired token": Planted("42001", "token_stale", "you", before=World.expire),
    "an expired token, renewed since": Planted(
        "42001", "passed", "nobody", before=World.expire, then=lambda w: w.keep(wxtea=w.sim.rotate("wxtea"))
    ),
    "half a token": Planted("40014", "token_stale", "you", refused(40014, INFO)),
    "a component token for a merchant": Planted(
        "48001", "token_wrong_kind", "you", before=lambda w: w.keep(wxtea=w.tokens[COMPONENT.appid])
    ),
    "48001, and no set": Planted(
        "48001", "set_missing", "merchant", refused(48001), then=change(accounts=(NO_SET,))
    ),
    "48001, and a set": Planted(
        "48001", "set_unpublished", "administrator", refused(48001, INFO), proven=False
    ),
    "48001, without a component token": Planted(
        "48001", "set_missing", "merchant", refused(48001, INFO), then=World.without_component, proven=False
    ),
    "48001, and nobody says why": Planted(
        "48001",
        "permission_unclear",
        "you",
        refused(48001, INFO, QUOTA),
        then=World.without_component,
        proven=False,
    ),
    "48001 in an environment of ours": Planted(
        "48001", "component_refused", "you", refused(48001, FaultStep.DESCRIBE_ENVS), line=OWN
    ),
    "no set": Planted("61007", "set_missing", "merchant", accounts=(NO_SET,)),
    "no set, granted since": Planted(
        "61007", "passed", "nobody", accounts=(NO_SET,), then=change(accounts=(WELL,))
    ),
    "a set that we have not published": Planted(
        "61007", "set_unpublished", "administrator", refused(61007, INFO), proven=False
    ),
    "a set that we have not confirmed": Planted(
        "61016", "set_unconfirmed", "administrator", accounts=(UNCONFIRMED,)
    ),
    "61007 for a set that we have not confirmed": Planted(
        "61007", "set_unconfirmed", "administrator", refused(61007), then=change(accounts=(UNCONFIRMED,))
    ),
    "revoked": Planted("61003", "revoked", "merchant", before=World.revoke),
    "a token of another platform": Planted("61003", "other_platform", "you", refused(61003, INFO)),
    "revoked, authorized since": Planted(
        "61003", "passed", "nobody", before=World.revoke, then=lambda w: w.sim.authorize("wxtea")
    ),
    "no calls left": Planted("45009", "quota_used", "nobody", accounts=(USED_UP,)),
    "no calls left yesterday": Planted(
        "45009",
        "passed",
        "nobody",
        accounts=(USED_UP,),
        then=change(accounts=(replace(WELL, daily_limit=5),)),
    ),
    "no calls of the platform left": Planted(
        "45009",
        "component_quota",
        "administrator",
        accounts=(SimulatedAccount(COMPONENT.appid, daily_limit=5, used=5),),
        line=OWN,
    ),
    "no calls left, and the quota is not told": Planted(
        "45009", "quota_used", "nobody", refused(45009) + refused(48001, QUOTA)[1:], proven=False
    ),
    "an address that is not registered": Planted(
        "61004", "ip_not_registered", "administrator", before=World.refuse_ip
    ),
    "an address that is registered since": Planted(
        "61004", "passed", "nobody", before=World.refuse_ip, then=lambda w: w.sim.refuse_ip(refused=False)
    ),
    "no 云开发": Planted("85088", "no_cloud", "merchant", accounts=(NO_CLOUD,)),
    "云开发, opened since": Planted(
        "85088", "passed", "nobody", accounts=(NO_CLOUD,), then=change(accounts=(WELL,))
    ),
    "halted": Planted("-501005", "halted", "merchant", environments=(HALTED,)),
    "halted, and ours": Planted(
        "-501005",
        "halted",
        "administrator",
        environments=(SimulatedEnvironment("own-1", EnvStatus.HALTED),),
        line=OWN,
    ),
    "halted, paid since": Planted(
        "-501005",
        "passed",
        "nobody",
        environments=(HALTED,),
        then=lambda w: w.sim.set_status("tea-1", EnvStatus.NORMAL),
    ),
    "unavailable": Planted(
        "-501018",
        "unavailable",
        "wechat",
        environments=(SimulatedEnvironment("tea-1", EnvStatus.UNAVAILABLE),),
    ),
    "an environment that is gone, the merchant's only one": Planted(
        "-601012", "no_env", "you", environments=(SimulatedEnvironment("tea-1", foreign=True),)
    ),
    "an environment that is gone, one of two": Planted(
        "-601012", "env_gone", "you", refused(-601012), line=replace(TEA, env="tea-0")
    ),
    "an environment that is gone, and no token any more": Planted(
        "-601012", "env_gone", "you", refused(-601012), then=lambda w: w.keep(wxtea=""), proven=False
    ),
    "no set, and an address that is not registered any more": Planted(
        "61007", "permission_unclear", "you", accounts=(NO_SET,), then=World.refuse_ip, proven=False
    ),
    "an environment of another merchant": Planted(
        "-601012", "env_of_another", "you", refused(-601012), line=SHARED
    ),
    "a token of another merchant": Planted(
        "-601012", "token_of_another", "you", before=lambda w: w.keep(wxtea=w.tokens["wxbooks"])
    ),
    "-601012 against its own list": Planted("-601012", "env_refused", "wechat", refused(-601012)),
    "busy, and no more": Planted("-1", "passed", "nobody", refused(-1), then=change()),
    "busy, and still": Planted("-1", "wechat_fails", "wechat", refused(-1, INFO)),
    "a gateway that answers": Planted(
        "no_answer",
        "unreachable",
        "you",
        (Fault(appid="*", status=502), Fault(appid="*", step=INFO, status=502)),
    ),
    "no line in the token file": Planted("no_token", "no_token", "you", before=lambda w: w.keep(wxtea="")),
    "no token since it was revoked": Planted(
        "no_token", "revoked", "merchant", before=all_of(lambda w: w.keep(wxtea=""), World.revoke)
    ),
    "no line in the token file, added since": Planted(
        "no_token",
        "passed",
        "nobody",
        before=lambda w: w.keep(wxtea=""),
        then=lambda w: w.keep(wxtea="token-of-wxtea"),
    ),
    "a proxy that drops the query": Planted("41001", "changed_on_way", "you", refused(41001)),
    "an argument": Planted("40097", "row_wrong", "you", refused(40097)),
    "a package": Planted("-501017", "package_used", "merchant", refused(-501017)),
    "a banned account": Planted("48004", "account_restricted", "merchant", refused(48004)),
    "a code that nobody knows": Planted("-12345", "unknown", "wechat", refused(-12345), proven=False),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_cause_is_named_with_at_most_five_calls(open_token_server, planted):
    skew: list[float] = []
    lines = [TEA, BOOKS, OWN]
    server = open_token_server(
        lines,
        planted.faults,
        accounts=planted.accounts,
        environments=planted.environments,
        clock=lambda: time.time() + sum(skew),
    )
    world = World(server, skew)
    in_file = lines if planted.line in lines else [*lines, planted.line]
    server.list_merchants(*in_file)
    planted.before(world)
    rows = ((planted.line.env, planted.line.appid, f"a/{n}.png") for n in range(2))
    paths = write_csv(server.folder / "list.csv", ("env", "appid", "path"), rows)
    batch = tcb.read_paths(paths, server.file)
    limits = replace(QUICK, attempts=1)
    try:
        run = tcb.links(batch, out="links.csv", settings=world.settings, limits=limits)
    except tcb.StoppedError:
        run = tcb.open_run("latest", settings=world.settings)
    planted.then(world)
    before = world.sim.stats
    (diagnosis,) = run.with_settings(world.settings).why()
    verdict = diagnosis.verdict
    assert (verdict.code.removesuffix(" (component)"), verdict.cause, str(verdict.who), verdict.proven) == (
        planted.code,
        planted.cause,
        planted.who,
        planted.proven,
    ), verdict
    asked = world.sim.stats - before
    assert 0 < sum(asked[step] for step in (*QUESTIONS, "link_calls")) <= 5
    assert asked["link_calls"] == (planted.cause == "passed")
    assert (verdict.message is not None) == (planted.who == "merchant")
    assert verdict.evidence or verdict.errmsg or verdict.code in {"no_answer", "no_token"}
    assert verdict.proven or verdict.lines()[-1].en.startswith("Not proven: ")
    told = repr(diagnosis.as_dict("en")) + repr(diagnosis.redacted()) + repr(verdict.to_json())
    assert not [secret for secret in SECRETS if secret in told]


def test_at_least_twenty_of_forty_causes_share_their_code():
    codes = Counter(planted.code for planted in PLANTED.values())
    assert sum(count for count in codes.values() if count > 1) >= 20
    assert len(PLANTED) >= 40

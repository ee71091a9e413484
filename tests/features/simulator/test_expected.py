import pytest
from expected import expected_outcomes

from tcb_ops.features.simulator import (
    Component,
    EnvStatus,
    Etag,
    Fault,
    Faults,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.model import Outcome
from tcb_ops.runs.list_kinds import LINKS, UPLOAD

LINKED, UPLOADED, REFUSED = Outcome.LINKED, Outcome.UPLOADED, Outcome.REFUSED
FAILED, NOT_ATTEMPTED, PENDING = Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.PENDING

ENV, APPID, PATH, SIBLING = "shop-a", "wx1", "banner/1.png", "shop-a-test"
ONCE = ((1, 1),)


def link(**fault):
    return [Fault(ENV, **fault)]


def store(**fault):
    return [Fault(ENV, step=FaultStep.STORE, **fault)]


TABLE = {
    "nothing": ([], {LINKED}, {UPLOADED}),
    "another env": ([Fault("shop-b", errcode=85088)], {LINKED}, {UPLOADED}),
    "-1 at call 1": (link(calls=ONCE, errcode=-1), {LINKED}, {UPLOADED}),
    "-1 at calls 1-3": (link(calls=((1, 3),), errcode=-1), {LINKED}, {UPLOADED}),
    "-1 at calls 1-4": (link(calls=((1, 4),), errcode=-1), {REFUSED}, {REFUSED}),
    "-1 at every call": (link(errcode=-1), {REFUSED}, {REFUSED}),
    "503 at every link call": (link(status=503), {FAILED}, {FAILED}),
    "503 at link call 1": (link(calls=ONCE, status=503), {LINKED}, {UPLOADED}),
    "429 at link call 1": (link(calls=ONCE, status=429), {LINKED}, {UPLOADED}),
    "404 at link call 1": (link(calls=ONCE, status=404), {FAILED}, {FAILED}),
    "link reset at call 1": (link(calls=ONCE, reset=Reset.BEFORE), {LINKED}, {UPLOADED}),
    "link reset always": (link(reset=Reset.MIDDLE), {FAILED}, {FAILED}),
    "garbage at call 1": (link(calls=ONCE, garbage=True), {LINKED}, {UPLOADED}),
    "garbage always": (link(garbage=True), {FAILED}, {FAILED}),
    "delay": (link(delay=1.0), {LINKED}, {UPLOADED}),
    "47001": (link(errcode=47001), {REFUSED}, {REFUSED}),
    "unknown errcode": (link(errcode=123456), {REFUSED}, {REFUSED}),
    "85088 for the env": (link(errcode=85088), {REFUSED, NOT_ATTEMPTED}, {REFUSED, NOT_ATTEMPTED}),
    "85088 for the path": (link(path=PATH, errcode=85088), {REFUSED}, {REFUSED}),
    "85088 for a sibling": (
        [Fault(SIBLING, errcode=85088)],
        {LINKED, NOT_ATTEMPTED},
        {UPLOADED, NOT_ATTEMPTED},
    ),
    "85088 for two other paths": (
        [Fault(ENV, path=path, errcode=85088) for path in ("a", "b")],
        {LINKED},
        {UPLOADED},
    ),
    "85088 for three other paths": (
        [Fault(ENV, path=path, errcode=85088) for path in ("a", "b", "c")],
        {LINKED, NOT_ATTEMPTED},
        {UPLOADED, NOT_ATTEMPTED},
    ),
    "-601012 for a sibling": ([Fault(SIBLING, errcode=-601012)], {LINKED}, {UPLOADED}),
    "85088 after a retry": (
        [*link(calls=ONCE, errcode=-1), *link(calls=((2, 2),), errcode=85088)],
        {REFUSED, NOT_ATTEMPTED},
        {REFUSED, NOT_ATTEMPTED},
    ),
    "61004 here": (link(errcode=61004), {PENDING}, {PENDING}),
    "61004 elsewhere": ([Fault("shop-b", errcode=61004)], {LINKED, PENDING}, {UPLOADED, PENDING}),
    "40001 at call 1": (link(calls=ONCE, errcode=40001), {LINKED, REFUSED}, {UPLOADED, REFUSED}),
    "40001 always": (link(errcode=40001), {REFUSED}, {REFUSED}),
    "45011 at call 1": (link(calls=ONCE, errcode=45011), {LINKED}, {UPLOADED}),
    "45011 always": (link(errcode=45011), {REFUSED, NOT_ATTEMPTED}, {REFUSED, NOT_ATTEMPTED}),
    "another environment's bucket": (link(calls=ONCE, other_env=SIBLING), {FAILED}, {FAILED}),
    "lifetime 0 at call 1": (link(calls=ONCE, lifetime=0), {LINKED}, {UPLOADED}),
    "lifetime 0 always": (link(lifetime=0), {LINKED}, {FAILED}),
    "lifetime 1 always": (link(lifetime=1), {LINKED}, {UPLOADED, FAILED}),
    "SlowDown at call 1": (store(calls=ONCE, code="SlowDown"), {LINKED}, {UPLOADED}),
    "SlowDown always": (store(code="SlowDown"), {LINKED}, {FAILED, NOT_ATTEMPTED}),
    "store 503 at call 1": (store(calls=ONCE, status=503), {LINKED}, {UPLOADED}),
    "store 503 always": (store(status=503), {LINKED}, {FAILED}),
    "store 404 at call 1": (store(calls=ONCE, status=404), {LINKED}, {FAILED}),
    "store reset at call 1": (store(calls=ONCE, reset=Reset.MIDDLE), {LINKED}, {UPLOADED}),
    "store reset always": (store(reset=Reset.BEFORE), {LINKED}, {FAILED}),
    "BadDigest at call 1": (store(calls=ONCE, code="BadDigest"), {LINKED}, {UPLOADED}),
    "BadDigest at calls 1-2": (store(calls=((1, 2),), code="BadDigest"), {LINKED}, {FAILED}),
    "EntityTooLarge": (store(calls=ONCE, code="EntityTooLarge"), {LINKED}, {FAILED}),
    "NoSuchBucket for the env": (store(code="NoSuchBucket"), {LINKED}, {FAILED, NOT_ATTEMPTED}),
    "NoSuchBucket for the path": (store(path=PATH, code="NoSuchBucket"), {LINKED}, {FAILED}),
    "ExpiredToken at call 1": (store(calls=ONCE, code="ExpiredToken"), {LINKED}, {UPLOADED}),
    "ExpiredToken always": (store(code="ExpiredToken"), {LINKED}, {FAILED}),
    "AccessDenied at call 1": (store(calls=ONCE, code="AccessDenied"), {LINKED}, {UPLOADED}),
    "AccessDenied at calls 1-2": (
        store(calls=((1, 2),), code="AccessDenied"),
        {LINKED},
        {FAILED, NOT_ATTEMPTED},
    ),
    "AccessDenied, run out, at calls 1-2": (
        store(calls=((1, 2),), code="AccessDenied", errmsg="Request has expired"),
        {LINKED},
        {UPLOADED},
    ),
    "wrong ETag at call 1": (store(calls=ONCE, etag=Etag.WRONG), {LINKED}, {UPLOADED}),
    "wrong ETag always": (store(etag=Etag.WRONG), {LINKED}, {FAILED, NOT_ATTEMPTED}),
    "opaque ETag": (store(etag=Etag.OPAQUE), {LINKED}, {UPLOADED}),
    "no ETag at call 1": (store(calls=ONCE, etag=Etag.MISSING), {LINKED}, {UPLOADED}),
    "no ETag ever": (store(etag=Etag.MISSING), {LINKED}, {FAILED}),
    "redirect at call 1": (store(calls=ONCE, status=307), {LINKED}, {UPLOADED}),
    "redirect always": (store(status=307), {LINKED}, {FAILED}),
    "the new link is refused": (
        [*store(calls=ONCE, code="AccessDenied"), *link(calls=((2, 2),), errcode=47001)],
        {LINKED},
        {REFUSED},
    ),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", [LINKS, UPLOAD])
def test_a_plan_has_its_expected_outcomes(name, kind):
    entries, links, upload = TABLE[name]
    wanted = links if kind is LINKS else upload
    assert (
        expected_outcomes(Faults(tuple(entries)), ENV, APPID, PATH, kind=kind, siblings=[SIBLING]) == wanted
    )


@pytest.mark.parametrize(("attempts", "wanted"), [(1, {REFUSED}), (2, {LINKED})])
def test_attempts_bound_what_a_retry_can_fix(attempts, wanted):
    faults = Faults(tuple(link(calls=ONCE, errcode=-1)))
    assert expected_outcomes(faults, ENV, APPID, PATH, kind=LINKS, attempts=attempts) == wanted


def standing(*accounts, environments=(), entries=(), **component):
    return Faults(tuple(entries), Component("wxc", **component), accounts, tuple(environments))


STOPPED = {REFUSED, NOT_ATTEMPTED}
STANDING = {
    "all in order": (standing(SimulatedAccount(APPID)), {UPLOADED}),
    "revoked": (standing(SimulatedAccount(APPID, revoked=True)), STOPPED),
    "another revoked": (standing(SimulatedAccount("wx2", revoked=True)), {UPLOADED}),
    "neither 49 nor 64": (standing(SimulatedAccount(APPID, permissions=(18,))), STOPPED),
    "64": (standing(SimulatedAccount(APPID, permissions=(64,))), {UPLOADED}),
    "no cloud": (standing(SimulatedAccount(APPID, cloud=False)), STOPPED),
    "HALTED": (standing(environments=[SimulatedEnvironment(ENV, EnvStatus.HALTED)]), STOPPED),
    "UNAVAILABLE": (standing(environments=[SimulatedEnvironment(ENV, EnvStatus.UNAVAILABLE)]), STOPPED),
    "foreign": (standing(environments=[SimulatedEnvironment(ENV, foreign=True)]), STOPPED),
    "NORMAL": (standing(environments=[SimulatedEnvironment(ENV)]), {UPLOADED}),
    "a sibling HALTED": (
        standing(environments=[SimulatedEnvironment(SIBLING, EnvStatus.HALTED)]),
        {UPLOADED},
    ),
    "quota used up": (standing(SimulatedAccount(APPID, daily_limit=5, used=5)), STOPPED),
    "quota left": (standing(SimulatedAccount(APPID, daily_limit=5, used=4)), {UPLOADED, *STOPPED}),
    "no limit": (standing(SimulatedAccount(APPID, used=4)), {UPLOADED}),
    "IP refused": (standing(ip_refused=True), {PENDING}),
    "before any fault": (
        standing(
            SimulatedAccount(APPID, cloud=False), entries=[Fault(ENV, step=FaultStep.LINK, errcode=47001)]
        ),
        STOPPED,
    ),
    "the component is no merchant": (standing(SimulatedAccount("wxc", daily_limit=5, used=5)), {UPLOADED}),
    "a fault of another interface": (
        standing(entries=[Fault(ENV, step=FaultStep.QUOTA, errcode=47001)]),
        {UPLOADED},
    ),
}


@pytest.mark.parametrize("name", STANDING)
def test_the_state_of_accounts_has_its_expected_outcomes(name):
    plan, wanted = STANDING[name]
    assert expected_outcomes(plan, ENV, APPID, PATH, kind=UPLOAD, siblings=[SIBLING]) == wanted


def test_a_row_of_the_platforms_environment_hangs_on_the_components_quota():
    plan = standing(SimulatedAccount("wxc", daily_limit=5, used=5))
    assert expected_outcomes(plan, "own", "wxc", PATH, kind=UPLOAD) == STOPPED

"""Single calls: tokens, refusals that pass, refusals that end, and who is held up by whom."""

import asyncio

import pytest
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.engine.limits import NextStep, RunLimits
from tcb_ops.engine.single_calls import Caller, CallFailure
from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import Bilingual, Text
from tcb_ops.model import Secret
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.tokens import Token

GATEWAY = InvalidResponse(502, Bilingual("a gateway", "网关"), retryable=True)
GARBAGE = InvalidResponse(404, Bilingual("not the platform", "不是平台"), retryable=False)
UNREACHABLE = TransportError(TransportFault.UNREACHABLE, Bilingual("nobody", "连不上"))
RESET = TransportError(TransportFault.RESET, Bilingual("cut", "断开"))


SAID: list[Text] = []
WAITS: list[float] = []


class Tokens:
    """Gives these tokens, one after the other; the last one for ever."""

    def __init__(self, *tokens):
        self.tokens, self.refused = list(tokens), []

    async def token(self, appid, refused=None):
        self.refused.append(refused and refused.reveal())
        given = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(given, int):
            raise TokenError(Bilingual(f"errcode {given}", f"errcode {given}"), given)
        if given is None:
            raise TokenError(Bilingual(f"no token for {appid}", f"没有 {appid} 的令牌"))
        return Token(Secret(given))

    async def aclose(self):
        pass


def refusal(code):
    return ApiError(code, "said so", "", 200)


def asked(tokens, *answers, limits=None):
    """Call once with these answers one after the other; gives what came out, the tokens used and the waits."""
    left, used, waits = list(answers), [], WAITS

    async def call(token):
        used.append(token.reveal())
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(seconds):
        waits.append(seconds)

    caller = Caller(tokens, limits or RunLimits(attempts=3), sleep, SAID.append)
    SAID.clear()
    WAITS.clear()
    return asyncio.run(caller.call("wx1", call)), used, list(waits)


def test_a_refused_token_is_looked_up_again_once_a_call():
    tokens = Tokens("t1", "t2")
    assert asked(tokens, refusal(42001), "found")[:2] == ("found", ["t1", "t2"])
    assert tokens.refused == [None, "t1"]
    found, used, _ = asked(Tokens("t1", "t2", "t3"), refusal(40001), refusal(40001))
    assert (found.answer.errcode, found.step, used) == (40001, NextStep.END, ["t1", "t2"])


def test_the_same_token_again_is_not_tried():
    found, used, _ = asked(Tokens("t1"), refusal(40001))
    assert (found.answer.errcode, found.step, used) == (40001, NextStep.REFRESH, ["t1"])


@pytest.mark.parametrize("tokens", [(None,), ("t1", None)], ids=["at first", "after a refusal"])
def test_no_token_is_the_sources_own_error(tokens):
    with pytest.raises(TokenError, match="no token for wx1"):
        asked(Tokens(*tokens), refusal(40001))


@pytest.mark.parametrize("passing", [refusal(-1), GATEWAY, RESET], ids=["-1", "a gateway", "a reset"])
def test_passing_trouble_is_tried_again_with_growing_waits(passing):
    found, used, waits = asked(Tokens("t1"), passing, passing, "found")
    assert (found, len(used)) == ("found", 3)
    assert waits[1] > waits[0] > 0
    ended, used, _ = asked(Tokens("t1"), passing, passing, passing)
    assert isinstance(ended, CallFailure)
    assert len(used) == 3


def test_told_to_slow_down_it_pauses_and_counts_no_attempt():
    found, used, waits = asked(Tokens("t1"), *[refusal(45011)] * 4, "found", limits=RunLimits(attempts=2))
    assert (found, len(used), waits) == ("found", 5, [60.0] * 4)
    assert [text.en for text in SAID] == [
        "The platform asks to slow down (45011): pausing 60 s at a time, then continuing."
    ]
    ended, used, _ = asked(Tokens("t1"), *[refusal(45011)] * 9, limits=RunLimits(attempts=2, patience=120))
    assert (ended.answer.errcode, len(used)) == (45011, 3)


def test_a_token_source_that_is_told_to_slow_down_is_waited_for_too():
    found, used, waits = asked(Tokens(45011, 45011, "t1"), "found")
    assert (found, used, waits) == ("found", ["t1"], [60, 60])
    with pytest.raises(TokenError, match="45011"):
        asked(Tokens(45011), limits=RunLimits(attempts=2, patience=120))
    assert WAITS == [60, 60]
    with pytest.raises(TokenError, match="61003"):
        asked(Tokens(61003))
    assert WAITS == []


@pytest.mark.parametrize("answer", [refusal(85088), refusal(61003), GARBAGE], ids=["85088", "61003", "404"])
def test_what_does_not_pass_is_not_tried_again(answer):
    ended, used, waits = asked(Tokens("t1"), answer)
    assert (len(used), waits) == (1, [])
    assert (ended.answer, ended.step, ended.unreachable) == (answer, NextStep.END, False)


@pytest.mark.parametrize("code", [61004, 61005, 61006, 40125])
def test_what_concerns_every_merchant_says_so_at_once(code):
    ended, used, _ = asked(Tokens("t1"), refusal(code))
    assert (ended.answer.errcode, ended.step, len(used)) == (code, NextStep.STOP_RUN, 1)


def test_no_host_reached_is_told_from_one_dead_call_among_others():
    assert asked(Tokens("t1"), UNREACHABLE, UNREACHABLE, UNREACHABLE)[0].unreachable
    assert not asked(Tokens("t1"), RESET, UNREACHABLE, UNREACHABLE)[0].unreachable


def test_a_new_token_is_no_attempt():
    found, used, _ = asked(Tokens("t1", "t2"), refusal(40001), GATEWAY, "found", limits=RunLimits(attempts=2))
    assert (found, used) == ("found", ["t1", "t2", "t2"])


@pytest.mark.integration
def test_upload_link_follows_the_policy(open_workspace):
    workspace = open_workspace(many(TEA, rows=1), [Fault(env=TEA.env, calls=((1, 1),), errcode=-1)])
    assert tcb.upload_link(TEA.env, "a.png", settings=workspace.settings).file_id.endswith("/a.png")
    assert workspace.sim.stats["link_calls"] == 2, "a busy platform is asked once more"
    workspace.sim.expire(TEA.appid)
    with pytest.raises(tcb.RefusedError, match="errcode 42001") as refused:
        tcb.upload_link(TEA.env, "a.png", settings=workspace.settings)
    assert refused.value.errcode == 42001
    assert refused.value.fix is not None
    assert ".." not in refused.value.text.en
    assert workspace.sim.stats["link_calls"] == 3, (
        "the token file has no newer token, so the refused one is not sent again"
    )

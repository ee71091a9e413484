"""Remedies: what can be done about a cause, as values, and what an answer means. Pure; `fix` carries them out.

causes.csv names the remedy of each cause. Where the operator must act, one without steps says why there is nothing to call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from tcb_ops.catalogue import Decision, all_causes, errcode
from tcb_ops.i18n import NOTHING, Text, _
from tcb_ops.model import Merchant, Owner


class RemedyState(Enum):
    """What became of a step, and so of a merchant's rows."""

    DONE = _("ready to run again")
    WAITING = _("waiting for the merchant")
    """Its administrator was asked, and has not confirmed."""
    LATER = _("later")
    """WeChat needs time: make the same call again."""
    IMPOSSIBLE = _("not possible")
    SKIPPED = _("left to you")

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyStep:
    """A call of a remedy. An answer without an errcode is its end."""

    interface: str
    does: Text
    """What the call does, in a sentence."""
    body: Mapping[str, str] = field(default_factory=dict)
    """With the placeholders {appid}, whose token it takes, and {alias}."""
    as_component: bool = False
    """Whether it takes the component token."""
    costs: bool = False
    """Whether it costs money: only a person may agree."""
    changes: bool = True
    """Whether it changes anything at WeChat."""
    waiting: frozenset[int] = frozenset()
    """The errcodes that say that a person was asked and has not confirmed."""


@dataclass(frozen=True, slots=True)
class RemedyCall:
    """A step about a merchant, as `call` takes it."""

    appid: str | None
    """None: it takes the component token."""
    interface: str
    body: dict[str, str]
    as_component: bool


class Choice(Enum):
    """What a person decides or does before the rows can run again."""

    NONE = "none"
    ENV = "env"
    """Which environment is meant; the rows are uploaded there, as a correction."""
    LETTER = "letter"
    """To send the merchant a text, with a link where one can be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What can be done about a cause: steps, then a retry of its rows."""

    text: Text
    """What it does; without steps, a choice or a retry, why there is nothing to call."""
    steps: tuple[RemedyStep, ...] = ()
    choice: Choice = Choice.NONE
    retries: bool = True
    """Whether the rows can run again afterwards."""


LOOK = RemedyStep(
    interface="tcb/getenvinfo", changes=False, does=_("Asks WeChat for the merchant's environments.")
)
OPEN_CLOUD = RemedyStep(
    interface="tcb/createclouduser",
    waiting=frozenset({-601026, -601048, -601049}),
    does=_(
        "Asks the mini program's administrator in WeChat to agree to CloudBase, at most once in 24 hours; once they have, opens it."
    ),
)
CREATE_ENV = RemedyStep(
    interface="tcb/createenvandresource",
    body={"type": "CreatePostpayPackage", "alias": "{alias}"},
    costs=True,
    does=_("Creates a pay-as-you-go environment, which costs money. It is ready after about ten minutes."),
)
CLEAR_QUOTA = RemedyStep(
    interface="cgi-bin/clear_quota",
    body={"appid": "{appid}"},
    does=_("Resets today's calls. An account has ten resets a month."),
)
CLEAR_COMPONENT_QUOTA = replace(CLEAR_QUOTA, as_component=True)
PREAUTH_CODE = RemedyStep(
    interface="cgi-bin/component/api_create_preauthcode",
    as_component=True,
    changes=False,
    does=_("Makes a link by which the merchant authorizes your platform."),
)

REMEDIES: Mapping[str, Remedy] = {
    "retry": Remedy(text=_("Nothing has to be done first: the rows run again.")),
    "open_cloud": Remedy(
        text=_("Open CloudBase for the merchant, and create an environment."), steps=(OPEN_CLOUD, CREATE_ENV)
    ),
    "create_env": Remedy(text=_("The merchant has no environment yet: create one."), steps=(CREATE_ENV,)),
    "clear_quota": Remedy(text=_("Reset the quota of today."), steps=(CLEAR_QUOTA,)),
    "clear_component_quota": Remedy(text=_("Reset the quota of today."), steps=(CLEAR_COMPONENT_QUOTA,)),
    "renew_token": Remedy(text=_("Ask again with a renewed token from the token source."), steps=(LOOK,)),
    "authorize": Remedy(
        text=_("Send the merchant a link for the authorization, with permission set 49."),
        steps=(PREAUTH_CODE,),
        choice=Choice.LETTER,
    ),
    "choose_env": Remedy(
        text=_("Choose the environment that is meant; the rows are uploaded there as a correction."),
        choice=Choice.ENV,
    ),
    "look": Remedy(
        text=_("Ask for the environment's status; the rows run again once it is NORMAL."), steps=(LOOK,)
    ),
    "tell": Remedy(text=_("Send the merchant the text."), choice=Choice.LETTER),
    "by_machine": Remedy(
        text=_("It lies on this machine or in its network, where no interface reaches."), retries=False
    ),
    "by_tokens": Remedy(
        text=_("It lies in your token source or in the settings, which only you change."), retries=False
    ),
    "by_list": Remedy(
        text=_("Only you know what the list or the file should be: correct it."), retries=False
    ),
    "by_console": Remedy(text=_("It is done on a console, which has no interface."), retries=False),
    "by_resume": Remedy(text=_("The run has not ended: run its command again."), retries=False),
    "": Remedy(text=NOTHING, retries=False),
}


def remedy_of(cause: str) -> Remedy:
    """Return the remedy of a cause, by its name in causes.csv."""
    return REMEDIES[all_causes()[cause].remedy]


def call_of(step: RemedyStep, merchant: Merchant, component_appid: str) -> RemedyCall:
    """Return a step's call about a merchant; an environment of the platform is asked about with the component token."""
    own = merchant.owner is Owner.PLATFORM
    component = step.as_component or own
    appid = component_appid if component else merchant.appid
    alias = merchant.env.rpartition("-")[0] or merchant.env
    body = {name: value.format(appid=appid, alias=alias) for name, value in step.body.items()}
    interface = "componenttcb/describeenvs" if own and step is LOOK else step.interface
    return RemedyCall(None if component else appid, interface, body, component)


def decide(step: RemedyStep, code: int, status: str = "") -> RemedyState:
    """Return what an answer to a step means. `status`: of the environment that was asked about; empty if there is none.

    ==================  ================================================  ==========
    step                errcode, status                                   state
    ==================  ================================================  ==========
    any                 one for which a person was asked                  WAITING
    any                 one that WeChat recovers from, such as -1, 45011  LATER
    any                 any other                                         IMPOSSIBLE
    asks for a status   none, NORMAL                                      DONE
    asks for a status   none, HALTED                                      WAITING
    asks for a status   none, UNAVAILABLE and others                      LATER
    asks for a status   none, not listed                                  IMPOSSIBLE
    any other           none                                              DONE
    ==================  ================================================  ==========
    """
    if code in step.waiting:
        return RemedyState.WAITING
    if code:
        passes = errcode(code).decision in {Decision.RETRY, Decision.SLOW}
        return RemedyState.LATER if passes else RemedyState.IMPOSSIBLE
    if step is not LOOK:
        return RemedyState.DONE
    return {"NORMAL": RemedyState.DONE, "HALTED": RemedyState.WAITING, "": RemedyState.IMPOSSIBLE}.get(
        status, RemedyState.LATER
    )

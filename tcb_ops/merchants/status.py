"""What a line of the merchants file can do today, and what stands in its way. Pure: from answers to a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tcb_ops.errcodes import errcode
from tcb_ops.i18n import Lang, Text
from tcb_ops.merchants.asking import RENEW_COMPONENT, TransportFailure
from tcb_ops.model import Merchant, Owner, Reason
from tcb_ops.wechat.authorizers import Environment, Info, Quota

NORMAL, HALTED = "NORMAL", "HALTED"
_REFUSED = frozenset({Reason.DEAD_TOKEN, "40001", "40014", "42001"})
COMPONENT_CODES = _REFUSED | {Reason.NO_TOKEN, "48001", "61014"}
"""Troubles that are the token's own; where the component token was used, no merchant's."""
_TOKEN_CODES = COMPONENT_CODES - {"48001", "61014"} | {"61003", "42002", "61023", "42007"}
"""Troubles that are the token's, or the authorization's whose token it is."""
_PERMISSION_CODES = frozenset({"48001", "61007", "61017", "-601004", "-601018"})
"""Troubles that say: the permission set was not granted (domain.md §3)."""
_NO_CLOUD = "85088"
WITHOUT_CLOUD = _PERMISSION_CODES | {_NO_CLOUD}
"""Troubles of a merchant that has not let the platform into its 云开发, or has none: told, and no failure of ours."""


@dataclass(frozen=True, slots=True)
class MerchantState:
    """What one line of the merchants file can do today. None where it was not looked at, or could not be."""

    merchant: Merchant
    token: bool | None = None
    """The token is accepted."""
    permission: bool | None = None
    """Permission set 49 or 64 is granted; an environment of the platform's own needs none."""
    cloud: bool | None = None
    """云开发 is open."""
    env_status: str = ""
    """NORMAL, HALTED or UNAVAILABLE; empty where it is not known."""
    quota: Quota | None = None
    """Of the upload link's calls today."""
    troubles: tuple[TransportFailure, ...] = ()
    """What stands in the way, first things first."""

    @property
    def works(self) -> bool:
        """Whether rows of this line can be done. A merchant that has left is not looked at, and does not work."""
        return not self.troubles and not self.merchant.left

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Everything of it, flat but for the quota and the troubles: for JSON and for frames."""
        return {
            "appid": self.merchant.appid,
            "merchant": self.merchant.name,
            "env": self.merchant.env,
            "owner": str(self.merchant.owner),
            "left": self.merchant.left,
            "works": self.works,
            "token": self.token,
            "permission": self.permission,
            "cloud": self.cloud,
            "env_status": self.env_status or None,
            "quota": self.quota.figures if self.quota else None,
            "troubles": [
                {
                    "code": trouble.code,
                    "errcode": trouble.errcode,
                    "meaning": trouble.meaning.of(lang),
                    "action": trouble.action.of(lang),
                    "errmsg": trouble.errmsg,
                }
                for trouble in self.troubles
            ],
        }


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered about one mini program; for the platform's own environments, about the platform."""

    environments: tuple[Environment, ...] | TransportFailure
    quota: Quota | TransportFailure | None = None
    """None where it was not asked for."""
    info: Info | TransportFailure | None = None
    """None where there is no component token to ask with."""


def judge(merchant: Merchant, answers: Answers, elsewhere: Mapping[str, str]) -> MerchantState:
    """Judge a line by what was answered; `elsewhere` is the status of environments that others have listed.

    ==================================  =====  ==========  =====  ===========  ===================
    getenvinfo answers                  token  permission  cloud  env_status   trouble
    ==================================  =====  ==========  =====  ===========  ===================
    no token, 40001, 42001, 61003 …     no     –           –      –            itself
    61007, 48001 …                      yes    no          –      –            itself
    85088                               yes    –           no     –            itself
    anything else, no answer            –      –           –      –            itself
    the environment, NORMAL             yes    –           yes    NORMAL       none
    the environment, HALTED …           yes    –           yes    HALTED …     halted, unavailable
    other environments, another has it  yes    –           yes    the other's  as the status says
    other environments                  yes    –           yes    –            not_listed
    ==================================  =====  ==========  =====  ===========  ===================

    func_info, where it was asked for, decides the permission over that (61007 where no set is granted). A quota with
    nothing left is 45009; one that could not be asked for stands in nobody's way. An environment of the platform's own
    has no permission set, and no trouble of that name.
    """
    own = merchant.owner is Owner.MERCHANT
    found, info = answers.environments, answers.info
    code = found.code if isinstance(found, TransportFailure) else ""
    troubles: list[TransportFailure] = []
    token: bool | None = None if code else True
    permission: bool | None = None
    cloud: bool | None = None if code else True
    status = ""
    if isinstance(found, TransportFailure):
        token = False if code in _TOKEN_CODES else True if code in _PERMISSION_CODES | {_NO_CLOUD} else None
        permission = False if own and code in _PERMISSION_CODES else None
        cloud = False if code == _NO_CLOUD else None
        troubles.append(found if own or code not in _PERMISSION_CODES else _not_the_platforms(found))
    else:
        status = next(
            (one.status for one in found if one.env == merchant.env), elsewhere.get(merchant.env, "")
        )
    if own and info is not None:
        if isinstance(info, TransportFailure):
            troubles += [info] if info.errcode is not None and info.code != code else []
        else:
            permission = info.may_upload
            if not permission and code not in _PERMISSION_CODES:
                troubles.insert(0, _no_permission())
    if not isinstance(found, TransportFailure) and status != NORMAL:
        troubles.append(_of_status(status, own=own))
    quota = answers.quota if isinstance(answers.quota, Quota) else None
    if quota is not None and quota.left == 0:
        troubles.append(_of_code(45009, merchant.owner))
    return MerchantState(merchant, token, permission, cloud, status, quota, tuple(troubles))


def of_the_component(trouble: TransportFailure) -> TransportFailure:
    """The same trouble where the component token met it: the words for a merchant's token would mislead."""
    if trouble.code in _REFUSED:
        action = RENEW_COMPONENT
    elif trouble.code in COMPONENT_CODES and trouble.code != Reason.NO_TOKEN:
        action = Text(
            "Make sure that component_appid is the third-party platform's own appid.",
            "请确认 component_appid 是第三方平台自己的 appid。",
        )
    else:
        action = trouble.action
    return replace(trouble, action=action)


def _of_code(code: int, owner: Owner) -> TransportFailure:
    known = errcode(code, owner)
    return TransportFailure(str(code), known.meaning, known.action)


def _not_the_platforms(trouble: TransportFailure) -> TransportFailure:
    """Permission sets are what merchants grant: the catalogue's words for them would mislead here."""
    return TransportFailure(
        trouble.code,
        Text(
            "The platform may not use the cloud interfaces of its own environments.",
            "第三方平台不能使用其自有环境的云开发接口。",
        ),
        Text(
            "Check that component_appid is the platform's own, and its cloud permissions on open.weixin.qq.com.",
            "请确认 component_appid 是平台自己的，并在 open.weixin.qq.com 检查平台的云开发权限。",
        ),
        trouble.errmsg,
    )


def _no_permission() -> TransportFailure:
    known = errcode(61007)
    return TransportFailure(
        "61007",
        Text(
            "Neither permission set 49 (小程序云开发管理) nor 64 is granted to the platform.",
            "商户未将权限集 49（小程序云开发管理）或 64 授权给第三方平台。",
        ),
        known.action,
    )


def _of_status(status: str, *, own: bool) -> TransportFailure:
    if status == HALTED:
        return TransportFailure(
            "halted",
            Text(
                "The environment is HALTED: unpaid, over its quota, or banned.",
                "环境已停服（HALTED）：欠费、超出配额或被封禁。",
            ),
            Text(
                "Have its owner settle that in the cloud console; rows for it are refused until then.",
                "请环境的所有者在云开发控制台处理；在此之前，该环境的行都会被拒绝。",
            ),
        )
    if not status and not own:
        return TransportFailure(
            "not_listed",
            Text("It is not among the platform's own environments.", "平台自有环境中没有这一个。"),
            Text(
                "Correct env in the merchants file; if the environment is a merchant's, clear owner there.",
                "请改正商户表中的 env；若该环境属于商户，请清除 owner。",
            ),
        )
    if status:
        return TransportFailure(
            "unavailable",
            Text(f"The environment is {status}.", f"环境状态为 {status}。"),
            Text(
                "Look at it in the cloud console; try again when it is NORMAL.",
                "请在云开发控制台查看；状态恢复为 NORMAL 后再试。",
            ),
        )
    return TransportFailure(
        "not_listed",
        Text(
            "It is not among the merchant's environments at the platform.",
            "平台返回的该商户环境中没有这一个。",
        ),
        errcode(-601012).action,
    )

"""Who there is besides the merchants file's word: the platform itself, the state of its merchants' accounts, of environments.

Part of a fault plan (faults.py shows the TOML); what changes while the simulator runs is in authorizations.py.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum

PERMISSION_SETS = frozenset({49, 64})
"""Either lets the platform use the merchant's cloud: 49 小程序云开发管理, 64 on older pages (domain.md §2.3)."""


class EnvStatus(StrEnum):
    """What getenvinfo says of an environment."""

    NORMAL = "NORMAL"
    HALTED = "HALTED"
    """Unpaid, over quota or banned: uploadfile answers -501005."""
    UNAVAILABLE = "UNAVAILABLE"
    """uploadfile answers -501018."""


@dataclass(frozen=True, slots=True)
class Component:
    """The third-party platform. Times are seconds of the simulator's clock."""

    appid: str
    secret: str = field(default="", repr=False)
    """Empty: tokens come from outside, and the interfaces that give them are not played."""
    ticket: str = field(default="", repr=False)
    _: KW_ONLY
    rotate: bool = False
    """Each refresh gives a new refresh token as well."""
    ip_refused: bool = False
    """Every call is answered 61004."""
    token_lifetime: int = 7200
    """Of component and merchants' access tokens."""
    ticket_lifetime: int = 12 * 3600
    overlap: int = 300
    """How long the token before the newest still works."""


@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """A merchant's account. One that no line of the merchants file has is an authorizer without environments."""

    appid: str
    name: str = ""
    """Its nick_name at the platform; empty means the merchants file's."""
    _: KW_ONLY
    revoked: bool = False
    permissions: tuple[int, ...] = (18, 49)
    """Permission sets that it granted."""
    cloud: bool = True
    """Whether 云开发 is open."""
    daily_limit: int = 0
    """Calls of uploadfile that it may make in all; 0 for no limit."""
    used: int = 0
    """Those made before the simulator began."""
    refresh_token: str = field(default="", repr=False)

    def refusal(self) -> int:
        """Give the errcode that refuses every call to its cloud, or 0.

        ========================  =======
        revoked                   61003
        neither set 49 nor 64     61007
        ========================  =======
        """
        if self.revoked:
            return 61003
        return 0 if PERMISSION_SETS & set(self.permissions) else 61007


@dataclass(frozen=True, slots=True)
class SimulatedEnvironment:
    """An environment that is not NORMAL, or not its merchant's."""

    env: str
    status: EnvStatus = EnvStatus.NORMAL
    _: KW_ONLY
    foreign: bool = False
    """It belongs to somebody else, whatever the merchants file says."""

    def refusal(self) -> int:
        """Give the errcode that refuses what would read or write in it, or 0."""
        if self.foreign:
            return -601012
        match self.status:
            case EnvStatus.HALTED:
                return -501005
            case EnvStatus.UNAVAILABLE:
                return -501018
            case EnvStatus.NORMAL:
                return 0

"""What an account has and may still do: getenvinfo, describeenvs, openapi/quota/get. Shapes: domain.md §2.1, 2.2, 2.4."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tcb_ops.simulator.links import bucket_of

if TYPE_CHECKING:
    from tcb_ops.simulator.accounts import Environment
    from tcb_ops.simulator.authorizations import Authorizations

__all__ = ["describe_envs", "env_info", "quota_of"]

_RATE = {"call_count": 5000, "refresh_second": 60}
"""Shown, and not held against anybody."""


def env_info(known: Authorizations, appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer getenvinfo: 85088 where 云开发 is not open, -601012 for an env that is not the caller's."""
    if not known.account(appid).cloud:
        return 85088
    env = asked.get("env")
    found = [each for each in known.environments_of(appid) if env in {None, "", each.env}]
    if env and not found:
        return -601012
    return _listed(known, found)


def describe_envs(known: Authorizations, appid: str, _asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer describeenvs: the platform's own environments, each with its bucket."""
    answer = _listed(known, known.environments_of(appid))
    for entry in answer["info_list"]:
        entry |= {"dbinstance_id": f"tnt-{entry['env'][:9]}", "bucket_id": bucket_of(entry["env"])}
    return answer


def quota_of(known: Authorizations, appid: str, cgi_path: str) -> dict[str, Any]:
    """Give the answer of quota/get for an interface that is there; a limit of 0 stands for none."""
    limit, used = known.daily_limit(appid, cgi_path), known.used[appid, cgi_path]
    return {
        "errcode": 0,
        "errmsg": "ok",
        "quota": {"daily_limit": limit, "used": used, "remain": max(0, limit - used)},
        "rate_limit": _RATE,
        "component_rate_limit": _RATE,
    }


def _listed(known: Authorizations, environments: list[Environment]) -> dict[str, Any]:
    made = datetime.fromtimestamp(known.began, UTC) + timedelta(hours=8)  # the platform speaks Beijing time
    return {
        "errcode": 0,
        "errmsg": "ok",
        "info_list": [
            {
                "env": environment.env,
                "alias": environment.env.rpartition("-")[0] or environment.env,
                "create_time": f"{made:%Y-%m-%d %H:%M:%S}",
                "update_time": f"{made:%Y-%m-%d %H:%M:%S}",
                "status": str(environment.status),
                "package_id": "basic",
                "package_name": "基础版 1",
            }
            for environment in environments
        ],
    }

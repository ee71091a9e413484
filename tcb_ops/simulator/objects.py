"""Files by their file_id: batchdownloadfile, batchdeletefile. Shapes: domain.md §2.1.

Top-level errcode 0 can hide a file's own status: 0, -503003 for one that is not there, -503002 for another environment's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tcb_ops.simulator.links import bucket_of, download_url

if TYPE_CHECKING:
    from tcb_ops.simulator.authorizations import Authorizations
    from tcb_ops.simulator.store import Store

__all__ = ["delete_files", "download_files"]

MOST = 50
"""Files that one call may name."""
_LIFE = 7200
"""Seconds that a download URL lives where max_age does not say."""
_FILE_ID = re.compile(r"cloud://([^./]+)\.([^/]+)/(.+)", re.DOTALL)


def download_files(
    known: Authorizations, store: Store, base: str, appid: str, asked: dict[str, Any]
) -> dict[str, Any] | int:
    """Answer batchdownloadfile: a URL on the simulator for each file."""
    files = _list(asked, "file_list", dict)
    refused = files if isinstance(files, int) else known.env_refusal(appid, str(asked.get("env")))
    if isinstance(files, int) or refused:
        return refused
    answers = []
    for file in files:
        file_id, max_age = str(file.get("fileid")), file.get("max_age", _LIFE)
        if type(max_age) is not int or max_age < 0:
            return 40097
        status, bucket, path = _find(store, asked["env"], file_id)
        url = "" if status else download_url(base, bucket, path, int(known.clock()) + max_age)
        answers.append({"fileid": file_id, "download_url": url} | _status(status))
    return {"errcode": 0, "errmsg": "ok", "file_list": answers}


def delete_files(
    known: Authorizations, store: Store, appid: str, asked: dict[str, Any]
) -> dict[str, Any] | int:
    """Answer batchdeletefile: each file that is there is gone."""
    ids = _list(asked, "fileid_list", str)
    refused = ids if isinstance(ids, int) else known.env_refusal(appid, str(asked.get("env")))
    if isinstance(ids, int) or refused:
        return refused
    answers = []
    for file_id in ids:
        status, bucket, path = _find(store, asked["env"], file_id)
        if not status:
            store.remove(bucket, path)
        answers.append({"fileid": file_id} | _status(status))
    return {"errcode": 0, "errmsg": "ok", "delete_list": answers}


def _list(asked: dict[str, Any], key: str, kind: type) -> list[Any] | int:
    if not asked.get("env") or not asked.get(key):
        return 40101
    found = asked[key]
    if not isinstance(asked["env"], str) or not isinstance(found, list) or len(found) > MOST:
        return 40097
    return found if all(isinstance(each, kind) for each in found) else 40097


def _find(store: Store, env: str, file_id: str) -> tuple[int, str, str]:
    parts = _FILE_ID.fullmatch(file_id)
    if parts is None:
        return -503003, "", ""
    if parts[1] != env or parts[2] != bucket_of(env):
        return -503002, "", ""
    return (0 if store.holds(parts[2], parts[3]) else -503003), parts[2], parts[3]


def _status(status: int) -> dict[str, Any]:
    said = {0: "ok", -503002: "STORAGE_EXCEED_AUTHORITY", -503003: "STORAGE_FILE_NONEXIST"}
    return {"status": status, "errmsg": said[status]}

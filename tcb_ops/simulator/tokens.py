"""The access tokens that the simulated platform accepts, and what it says to the others."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text


class Tokens:
    """A mapping appid → token, or a CSV `appid,access_token[,expires_at]` that is read again when it has changed.

    A file that cannot be read any more, or is half written, leaves the tokens as they were.
    """

    def __init__(self, source: Mapping[str, str] | Path) -> None:
        self._file = source if isinstance(source, Path) else None
        self._seen = (0, 0)
        self._rotations = 0
        self._appids: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        """Unix seconds, of the tokens that end."""
        self._issued: dict[str, str] = {}
        """Token → appid, of those that `issue` gave: no file takes them away."""
        self._overlaps: dict[str, float] = {}
        """Unix seconds until which the token before the newest works."""
        if isinstance(source, Path):
            self._read(source)
        else:
            self._appids = {token: appid for appid, token in source.items()}

    def owner(self, token: str, now: float) -> str | int:
        """Give the appid whose token this is, or the errcode that refuses it."""
        if self._file is not None:
            self._read_if_changed(self._file)
        appid = self._appids.get(token)
        if appid is None or now >= self._overlaps.get(token, float("inf")):
            return 40001
        end = self._ends.get(token)
        return appid if end is None or now < end else 42001

    def rotate(self, appid: str) -> str:
        """Give the appid a new token; the old one is refused with 40001 from now on."""
        token = self._new(appid)
        self._appids = {old: owner for old, owner in self._appids.items() if owner != appid} | {token: appid}
        self._issued = {old: owner for old, owner in self._issued.items() if owner != appid}
        return token

    def issue(self, appid: str, now: float, lifetime: float, overlap: float) -> str:
        """Give the appid a new token that lives `lifetime` seconds.

        Of its older ones those that were the newest work for `overlap` seconds more, the others are 40001 at once.
        """
        token = self._new(appid)
        theirs = [old for old, owner in list(self._appids.items()) if owner == appid]
        gone = {old for old in theirs if old in self._overlaps}
        self._overlaps |= {old: now + overlap for old in theirs if old not in gone}
        for old in gone:
            self._overlaps.pop(old, None)
            self._ends.pop(old, None)
            self._issued.pop(old, None)
        self._ends[token] = now + lifetime
        self._issued[token] = appid
        self._appids = {old: owner for old, owner in self._appids.items() if old not in gone} | {token: appid}
        return token

    def expire(self, appid: str) -> None:
        """Let the appid's token run out: it is refused with 42001 from now on."""
        self._ends |= {token: float("-inf") for token, owner in self._appids.items() if owner == appid}

    def _new(self, appid: str) -> str:
        self._rotations += 1
        mark = hashlib.sha256(f"{appid}/{self._rotations}".encode()).hexdigest()
        return f"{self._rotations}_{mark}"

    def _read_if_changed(self, file: Path) -> None:
        try:
            stat = file.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._seen:
                self._read(file)
        except (OSError, SettingsError):
            return

    def _read(self, file: Path) -> None:
        try:
            stat = file.stat()
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            why = error.strerror or "cannot be read"
            raise _bad(file, f"cannot be read ({why})", f"无法读取（{why}）") from None
        except UnicodeDecodeError:
            raise _bad(file, "is not UTF-8", "不是 UTF-8 编码") from None
        appids: dict[str, str] = {}
        ends: dict[str, float] = {}
        for line, cells in _records(file, lines):
            appid, token = (cells.get("appid") or "").strip(), (cells.get("access_token") or "").strip()
            if not appid or not token:
                raise _bad(
                    file,
                    f"line {line}: appid or access_token is missing",
                    f"第 {line} 行：缺少 appid 或 access_token",
                )
            appids[token] = appid
            end = (cells.get("expires_at") or "").strip()
            if end:
                ends[token] = _seconds(file, line, end)
        if not appids:
            raise _bad(file, "holds no token", "没有任何 token")
        ends |= {token: end for token, end in self._ends.items() if token in self._issued}
        self._appids, self._ends = appids | self._issued, ends
        self._seen = (stat.st_mtime_ns, stat.st_size)


def _records(file: Path, lines: list[str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(line, cells) of every line below the header."""
    reader = csv.DictReader(lines, strict=True)
    line = 0
    try:
        for cells in reader:
            line = reader.line_num
            yield line, cells
    except csv.Error:
        raise _bad(
            file,
            f"line {line + 1}: is no CSV (a quotation mark that is not closed?)",
            f"第 {line + 1} 行：不是 CSV（可能有未闭合的引号）",
        ) from None


def _seconds(file: Path, line: int, text: str) -> float:
    try:
        return (
            float(text) if text.replace(".", "", 1).isdecimal() else datetime.fromisoformat(text).timestamp()
        )
    except ValueError:
        raise _bad(
            file,
            f"line {line}: expires_at is neither Unix seconds nor ISO 8601",
            f"第 {line} 行：expires_at 既不是 Unix 秒也不是 ISO 8601",
        ) from None


def _bad(file: Path, en: str, zh: str) -> SettingsError:
    return SettingsError(
        Text(
            f"token file {file}: {en}. It is a CSV with the columns appid,access_token[,expires_at].",
            f"token 文件 {file}：{zh}。它应是包含 appid,access_token[,expires_at] 列的 CSV。",
        )
    )

"""The access tokens that the simulated platform accepts."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text

NEVER = float("inf")


@dataclass(slots=True)
class _AccessToken:
    """Times are Unix seconds."""

    appid: str
    expires: float = NEVER
    """From then on it is refused with 42001."""
    replaced: float = NEVER
    """From then on it is refused with 40001, because a newer one was issued."""
    issued: bool = False
    """Given by `issue`: no file takes it away."""


class Tokens:
    """A mapping appid → token, or a CSV `appid,access_token[,expires_at]` that is read again when it has changed.

    A file that cannot be read any more, or is half written, leaves the tokens as they were.
    """

    def __init__(self, source: Mapping[str, str] | Path) -> None:
        self._file = source if isinstance(source, Path) else None
        self._seen = (0, 0)
        self._made = 0
        self._tokens: dict[str, _AccessToken] = {}
        if isinstance(source, Path):
            self._read(source)
        else:
            self._tokens = {token: _AccessToken(appid) for appid, token in source.items()}

    def owner(self, token: str, now: float) -> str | int:
        """Return the appid whose token this is, or the errcode that refuses it."""
        if self._file is not None:
            self._read_if_changed(self._file)
        known = self._tokens.get(token)
        if known is None or now >= known.replaced:
            return 40001
        return 42001 if now >= known.expires else known.appid

    def rotate(self, appid: str) -> str:
        """Give the appid a new token; the old ones are refused with 40001 from now on."""
        token = self._new(appid)
        kept = {old: known for old, known in self._tokens.items() if known.appid != appid}
        self._tokens = kept | {token: _AccessToken(appid)}
        return token

    def issue(self, appid: str, now: float, lifetime: float, overlap: float) -> str:
        """Give the appid a new token that lives `lifetime` seconds.

        Of its older ones those that were the newest work for `overlap` seconds more, the others are 40001 at once.
        """
        token = self._new(appid)
        kept = {}
        for old, known in list(self._tokens.items()):
            if known.appid != appid or known.replaced == NEVER:
                kept[old] = known
            if known.appid == appid:
                known.replaced = min(known.replaced, now + overlap)
        self._tokens = kept | {token: _AccessToken(appid, now + lifetime, issued=True)}
        return token

    def expire(self, appid: str) -> None:
        """Let the appid's token run out: it is refused with 42001 from now on."""
        for known in list(self._tokens.values()):
            if known.appid == appid:
                known.expires = -NEVER

    def _new(self, appid: str) -> str:
        self._made += 1
        return f"{self._made}_{hashlib.sha256(f'{appid}/{self._made}'.encode()).hexdigest()}"

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
            why = error.strerror or type(error).__name__
            raise _bad(file, f"cannot be read ({why})", f"无法读取（{why}）") from None
        except UnicodeDecodeError:
            raise _bad(file, "is not UTF-8", "不是 UTF-8 编码") from None
        found = _parse(file, lines)
        for token, known in self._tokens.items():
            if known.issued:
                found[token] = known
            elif token in found:
                found[token].replaced = known.replaced
        self._tokens = found
        self._seen = (stat.st_mtime_ns, stat.st_size)


def _parse(file: Path, lines: list[str]) -> dict[str, _AccessToken]:
    reader = csv.DictReader(lines, strict=True)
    found: dict[str, _AccessToken] = {}
    line = 0
    try:
        for row in reader:
            line = reader.line_num
            cells = {name: (row.get(name) or "").strip() for name in ("appid", "access_token", "expires_at")}
            if not cells["appid"] or not cells["access_token"]:
                raise _bad(
                    file,
                    f"line {line}: appid or access_token is missing",
                    f"第 {line} 行：缺少 appid 或 access_token",
                )
            expires = _seconds(file, line, cells["expires_at"]) if cells["expires_at"] else NEVER
            found[cells["access_token"]] = _AccessToken(cells["appid"], expires)
    except csv.Error:
        raise _bad(
            file,
            f"line {line + 1}: is no CSV (a quotation mark that is not closed?)",
            f"第 {line + 1} 行：不是 CSV（可能有未闭合的引号）",
        ) from None
    if not found:
        raise _bad(file, "holds no token", "没有任何 token")
    return found


def _seconds(file: Path, line: int, text: str) -> float:
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise _bad(
            file,
            f"line {line}: expires_at is neither Unix seconds nor ISO 8601",
            f"第 {line} 行：expires_at 既不是 Unix 秒也不是 ISO 8601",
        ) from None


def _bad(file: Path, en: str, zh: str) -> SettingsError:
    return SettingsError(
        Text(f"token file {file}: {en}.", f"token 文件 {file}：{zh}。"),
        Text(
            "It is a CSV with the columns appid,access_token[,expires_at].",
            "它应是包含 appid,access_token[,expires_at] 列的 CSV。",
        ),
    )

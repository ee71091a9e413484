"""A secret of the platform's own: read from the environment, a file or a program, each time it is needed."""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.resources import raise_if_exhausted
from tcb_ops.wechat.tokens.command import NoOutput, kill, output_of

PROGRAM_SECONDS = 30
LONGEST = 4096
"""Characters; an AppSecret has 32, a ticket some 100."""


@dataclass(frozen=True, slots=True)
class Credential:
    """`env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENTS`, as a setting names it."""

    setting: str
    """Such as `tokens.secret`, for messages."""
    kind: str
    where: str
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def named(cls, setting: str, value: str) -> Credential:
        """Take a setting apart. Raises SettingsError where it is empty, or its variable or file is not there."""
        kind, _, where = value.partition(":")
        where = where.strip()
        if not where:
            raise SettingsError(
                Text(
                    f"{setting} is missing: say where it is, as env:NAME, file:PATH or command:PROGRAM.",
                    f"缺少 {setting}：请写明它在哪里，形如 env:变量名、file:路径 或 command:程序。",
                )
            )
        found = cls(setting, kind, where)
        if kind != "command":  # a program may be slow, and is asked only when its answer is needed
            found._read()
        return found

    async def read(self) -> Secret:
        """Look it up, now. Raises SettingsError saying where it was looked for, never what was found."""
        return await asyncio.to_thread(self._read)

    def let_go(self) -> None:
        """End a program that still runs."""
        for program in tuple(self._running):
            kill(program)

    def _read(self) -> Secret:
        match self.kind:
            case "env":
                text = self.environment.get(self.where, "")
            case "file":
                text = self._of_file(Path(self.where))
            case _:
                text = self._of_program()
        text = text.strip()
        if not text:
            raise self._bad("is empty or not set", "为空或未设置")
        if len(text) > LONGEST or not text.isascii() or not text.isprintable():
            raise self._bad("holds what no secret or ticket holds", "的内容不是密钥或票据")
        return Secret(text)

    def _of_file(self, file: Path) -> str:
        try:
            with file.open("rb") as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    raise self._bad("is not a regular file", "不是普通文件")
                return opened.read(LONGEST * 2).decode("utf-8-sig", "replace")
        except OSError as error:
            raise_if_exhausted(error)
            why = error.strerror or "cannot be read"
        raise self._bad(f"cannot be read ({why})", f"无法读取（{why}）")

    def _of_program(self) -> str:
        try:
            printed = output_of(shlex.split(self.where), os.environ, PROGRAM_SECONDS, self._running)
        except ValueError:
            printed = NoOutput(Text("cannot be started (its quotes do not match)", "无法启动（引号不成对）"))
        if isinstance(printed, bytes):
            return printed.decode("utf-8", "replace")
        raise self._bad(printed.did.en, printed.did.zh)

    def _bad(self, en: str, zh: str) -> SettingsError:
        # Of a program only its name: an argument may be what it should not be.
        where = self.where.split()[0] if self.kind == "command" else self.where
        kinds = {
            "env": Text("environment variable", "环境变量"),
            "file": Text("file", "文件"),
            "command": Text("program", "程序"),
        }
        kind = kinds[self.kind]
        return SettingsError(
            Text(
                f"{self.setting}: the {kind.en} {where} {en}. Mend that first.",
                f"{self.setting}：{kind.zh} {where} {zh}。请先修正。",
            )
        )

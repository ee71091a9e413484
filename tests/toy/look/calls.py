"""The calls of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcb_ops.engine.calls import Calls, FailedAttempt
from tcb_ops.model import Reason

from . import OPEN, SHUT

if TYPE_CHECKING:
    from tcb_ops.engine.scheduler import Task
    from tcb_ops.model import RowEnd


class LookCalls(Calls):
    """Asks whether the environment of a row is open."""

    async def advance(self, task: Task) -> RowEnd | FailedAttempt:
        """Ask once; a row whose environment is not open is refused."""
        answer = await self._ask(task, self.wechat.call("tcb/getenvinfo", {}, task.token))
        if isinstance(answer, FailedAttempt):
            return answer
        is_open = any((env["env"], env["status"]) == (task.row.env, "NORMAL") for env in answer["info_list"])
        return self._end(task, OPEN) if is_open else self._end(task, SHUT, Reason.REFUSED)

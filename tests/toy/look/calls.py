"""The calls of the rows."""

from tcb_ops.engine.calls import Calls, FailedAttempt
from tcb_ops.model import Reason

from . import OPEN, SHUT


class LookCalls(Calls):
    async def advance(self, task):
        answer = await self._ask(task, self.wechat.call("tcb/getenvinfo", {}, task.token))
        if isinstance(answer, FailedAttempt):
            return answer
        is_open = any((env["env"], env["status"]) == (task.row.env, "NORMAL") for env in answer["info_list"])
        return self._end(task, OPEN) if is_open else self._end(task, SHUT, Reason.REFUSED)

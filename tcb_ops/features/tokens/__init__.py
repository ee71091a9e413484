"""Token sources beside the file: the company's token server, and a program."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "command": "tcb_ops.features.tokens.command:command_tokens",
        "service": "tcb_ops.features.tokens.service:service_tokens",
    },
)

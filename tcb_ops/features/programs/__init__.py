"""An operator's programs, and secrets named in a setting: what token sources and messages of audits share."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature


@unique
class ProgramCode(DetailCodes):
    """The codes of programs that fail."""

    NOT_STARTED = _("cannot be started ({why})")
    PRINTED_TOO_MUCH = _("printed more than 64 KB")
    NO_OUTPUT = _("did not finish within {command_seconds:g} s")
    ENDED_BY_SIGNAL = _("was ended by signal {value}")
    EXIT_CODE = _("ended with exit code {code}")


FEATURE = Feature()

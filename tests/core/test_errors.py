"""An error keeps what happened and what to do apart."""

import pytest

from tcb_ops.errors import RefusedError, SettingsError, TokenError, TransportError, TransportFault
from tcb_ops.i18n import Bilingual

PROBLEM, FIX = Bilingual("It is so.", "是这样。"), Bilingual("Do this.", "做这个。")


@pytest.mark.parametrize(
    "error",
    [
        SettingsError(PROBLEM, FIX),
        TokenError(PROBLEM, 61003, fix=FIX),
        TransportError(TransportFault.RESET, PROBLEM, FIX),
        RefusedError(PROBLEM, 85088, fix=FIX),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_problem_and_then_the_fix(error):
    assert (error.problem, error.fix) == (PROBLEM, FIX)
    assert (str(error), error.text.zh) == ("It is so. Do this.", "是这样。做这个。")


def test_an_error_without_a_fix_says_the_problem():
    error = SettingsError(PROBLEM)
    assert (error.fix, error.text) == (None, PROBLEM)

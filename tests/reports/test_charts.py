"""Charts: one colour per code, text escaped, cells that a keyboard reaches."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.formats.charts import code_colour, heat_map, outcome_class
from tcb_ops.reports.summary import causes_of, errcode_matrix
from tcb_ops.runs.records import Tally


def test_a_code_has_one_colour_and_common_codes_differ():
    codes = ["40001", "40097", "85088", "61007", "45009", "-501005", "-501018", "no_token", "AccessDenied"]
    colours = [code_colour(code) for code in codes]
    assert colours == [code_colour(code) for code in codes]
    assert len(set(colours)) == len(codes)
    assert all(re.fullmatch(r"hsl\(\d+ 60% \d+%\)", colour) for colour in colours)


def test_every_outcome_has_a_colour():
    assert {outcome_class(one) for one in Outcome} == {"good", "bad", "failed", "skip", "pending"}


def test_the_heat_map_has_a_button_per_cell_and_escapes_names():
    evil = "<b>\"&'"
    tallies = [
        Tally("wx1", evil, "env-1", Outcome.REFUSED, Reason.REFUSED, 85088, "", 12),
        Tally("wx2", "乙", "env-2", Outcome.FAILED, Reason.STORE_REFUSED, None, evil, 1),
    ]
    matrix = errcode_matrix(causes_of(tallies))
    assert matrix is not None
    drawn = heat_map(matrix, Lang.EN)
    cells = ET.fromstring(drawn).findall(".//g")
    assert [(cell.get("data-appid"), cell.get("data-code")) for cell in cells] == [
        ("wx1", "85088"),
        ("wx2", evil),
    ]
    assert [cell.get("tabindex") for cell in cells] == ["0", "0"]
    assert cells[0].get("aria-label") == f"{evil}, 85088: 12 rows"

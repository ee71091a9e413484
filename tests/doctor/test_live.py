"""Which object `doctor --live` deletes; what is on the wire is in tests/cli/test_doctor.py."""

import pytest

from tcb_ops.doctor.live import own_file_id
from tcb_ops.model import Link, Secret

URL = "https://cos.ap-shanghai.myqcloud.com/7465-tea-1-1/tcb-ops-doctor/x.txt"
PATH = "tcb-ops-doctor/x.txt"
OWN_ID = f"cloud://tea-1.7465-tea-1-1/{PATH}"


@pytest.mark.parametrize(
    ("told", "deleted"),
    [
        (OWN_ID, OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/testupload", OWN_ID),
        ("", OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/other-tcb-ops-doctor/x.txt.bak", OWN_ID),
    ],
    ids=["ours", "the documents' sample", "none", "alike"],
)
def test_nothing_but_our_own_object_is_ever_deleted(told, deleted):
    assert (
        own_file_id(Link(Secret(URL), Secret("t"), Secret("s"), told, Secret("c"), 901, 1), PATH, "tea-1")
        == deleted
    )

"""Running again, carefully: retry, skip-unchanged, canary."""

from functools import partial

import pytest
from free_ports import free_port
from workspace import BOOKS, QUICK, TEA, TEA_TEST

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.model import Selection

pytestmark = pytest.mark.slow


@pytest.fixture
def open_workspace(open_workspace):
    return partial(open_workspace, port=free_port())


def reopened(workspace, faults=()):
    """The shop's platform with other faults, on the same port."""
    from rigged_simulator import Simulator

    from tcb_ops.features.simulator.faults import Faults

    tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in workspace.merchants}
    workspace.sim.__exit__(None, None, None)
    return Simulator(
        list(workspace.merchants), tokens, faults=Faults(tuple(faults)), record=True, port=workspace.sim.port
    )


def test_a_retry_runs_the_bad_rows_alone_as_a_child_of_their_run(open_workspace, assert_complete):
    workspace = open_workspace(faults=[Fault(appid="wxbooks", errcode=85088)])
    first = workspace.upload()
    assert assert_complete(first, 30)["uploaded"] == 20
    with reopened(workspace) as fixed:
        again = workspace.retry("latest")
        assert assert_complete(again, 10) == {"uploaded": 10}
        assert {call.env for call in fixed.calls} == {BOOKS.env}
    assert again.record.parent == first.id
    assert again.record.headers == first.record.headers
    assert [record.row.line for record in again.rows()] == list(range(22, 32))


def test_a_retry_is_narrowed_by_code_and_by_merchant(open_workspace, assert_complete):
    faults = [Fault(env=BOOKS.env, errcode=40097), Fault(env=TEA.env, path="banner/1.png", errcode=-601002)]
    workspace = open_workspace(faults=faults)
    run = workspace.upload()
    assert run.counts["refused"] == 11
    assert assert_complete(workspace.retry(run.id, codes=[-601002]), 1) == {"refused": 1}
    by_merchant = tcb.retry(
        run.id, workspace.settings.merchants, settings=workspace.settings, limits=QUICK, where="appid=wxtea"
    )
    assert by_merchant.record.selection == Selection.of(("where", "appid=wxtea"))
    assert [record.row.env for record in by_merchant.rows()] == [TEA.env]


def test_a_retry_sends_a_fixed_file_and_misses_one_that_is_gone(open_workspace, assert_complete):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, path="banner/[01].png", errcode=40097)])
    workspace.upload()
    (workspace.folder / "files" / "20.bin").write_text("fixed", encoding="utf-8")
    (workspace.folder / "files" / "21.bin").unlink()
    with reopened(workspace) as platform:
        again = workspace.retry("latest")
        assert assert_complete(again, 2) == {"uploaded": 1, "failed": 1}
        assert [stored.size for stored in platform.objects.values()] == [len("fixed")]
    gone = [record.end for record in again.rows() if record.end.outcome is tcb.Outcome.FAILED]
    assert gone[0].detail is not None
    assert gone[0].detail.params["file"].endswith("21.bin")


def test_what_cannot_be_retried_is_said(open_workspace):
    workspace = open_workspace()
    good = workspace.upload()
    with pytest.raises(tcb.UsageError, match=rf"Run {good.id} \(upload\) has nothing to retry") as caught:
        tcb.retry(good.id, workspace.merchants, settings=workspace.settings)
    assert [line.split()[:3] for line in caught.value.text.commands()] == [["tcb-ops", "errcodes", good.id]]


def test_a_retry_names_the_merchants_that_the_merchants_file_lacks(open_workspace):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=40097)])
    run = workspace.upload()
    others = tcb.Merchants([m for m in workspace.merchants if m.env != BOOKS.env], "shops.csv")
    with pytest.raises(tcb.UsageError) as caught:
        tcb.retry(run.id, others, settings=workspace.settings)
    missing = f"shops.csv has no line for their merchants: {BOOKS.name} ({BOOKS.appid}, {BOOKS.env})."
    assert f"{missing} Add these merchants" in caught.value.text.en
    handle = tcb.start_retry(run.id, workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert (handle.warning, handle.wait().counts) == (None, {"refused": 10})
    with pytest.raises(tcb.UsageError) as caught:
        tcb.retry(run.id, others, codes=[85088], settings=workspace.settings)
    assert f"Run {run.id} has no such rows to retry" in caught.value.text.en


def test_a_retry_warns_of_missing_merchants_and_runs_the_other_rows(open_workspace):
    workspace = open_workspace(faults=[Fault(errcode=40097)])
    run = workspace.upload()
    others = tcb.Merchants([m for m in workspace.merchants if m.env != BOOKS.env], "shops.csv")
    handle = tcb.start_retry(run.id, others, settings=workspace.settings, limits=QUICK)
    assert handle.wait().counts == {"refused": 20}
    assert f"no line for their merchants: {BOOKS.name} ({BOOKS.appid}, {BOOKS.env})." in str(handle.warning)
    narrowed = tcb.Merchants(others[:1], "shops.csv", others)
    selected = tcb.start_retry(run.id, narrowed, settings=workspace.settings, limits=QUICK)
    assert (selected.wait().counts, selected.warning) == ({"refused": 10}, None)


def test_rows_whose_bytes_are_there_end_as_unchanged_and_nothing_is_sent(open_workspace, assert_complete):
    workspace = open_workspace()
    first = workspace.upload()
    before = len(workspace.sim.calls)
    again = workspace.upload(skip_unchanged=True)
    assert assert_complete(again, 30) == {"unchanged": 30}
    assert again.succeeded
    assert len(workspace.sim.calls) == before
    since = {record.end.detail for record in again.rows()}
    assert [(str(one.code), one.params) for one in since if one] == [("unchanged_since", {"run": first.id})]


def test_a_changed_file_is_sent_even_if_its_size_is_the_same(open_workspace, assert_complete):
    workspace = open_workspace()
    workspace.upload()
    file = workspace.folder / "files" / "0.bin"
    file.write_text(file.read_text(encoding="utf-8").swapcase(), encoding="utf-8")
    again = workspace.upload(skip_unchanged=True)
    assert assert_complete(again, 30) == {"uploaded": 1, "unchanged": 29}


@pytest.mark.parametrize(
    ("header", "value"), [("content_type", "image/webp"), ("缓存控制", "max-age=60")], ids=["type", "cache"]
)
def test_a_changed_header_is_sent_again_though_the_bytes_are_there(
    open_workspace, assert_complete, header, value
):
    workspace = open_workspace()
    workspace.upload()
    lines = workspace.list.read_text(encoding="utf-8").splitlines()
    more = [f"{lines[0]},{header}", *(f"{line},{value}" for line in lines[1:])]
    workspace.list.write_text("\n".join(more) + "\n", encoding="utf-8")
    again = workspace.upload(skip_unchanged=True)
    assert assert_complete(again, 30) == {"uploaded": 30}
    third = workspace.upload(skip_unchanged=True, new_run=True)
    assert assert_complete(third, 30) == {"unchanged": 30}


def test_a_later_failure_puts_the_earlier_upload_in_doubt(open_workspace, assert_complete):
    workspace = open_workspace([(TEA.env, "a.png")])
    workspace.upload()
    with reopened(workspace, [Fault(env=TEA.env, step=FaultStep.STORE, code="PaymentRequired")]):
        assert assert_complete(workspace.upload(), 1) == {"failed": 1}
    with reopened(workspace):
        again = workspace.upload(skip_unchanged=True)
    assert assert_complete(again, 1) == {"uploaded": 1}


def test_a_canary_that_is_not_good_stops_the_run_and_the_rest_can_follow(open_workspace, assert_complete):
    workspace = open_workspace(faults=[Fault(env=TEA.env, path="banner/3.png", errcode=40097)])
    with pytest.raises(tcb.CanaryError, match="without canary"):
        workspace.upload(canary=1)
    stopped = tcb.open_run(settings=workspace.settings)
    assert assert_complete(stopped, 30) == {"uploaded": 9, "refused": 1, "pending": 20}
    assert {call.env for call in workspace.sim.calls} == {TEA.env}
    rest = workspace.upload()
    assert rest.id == stopped.id
    assert assert_complete(rest, 30) == {"uploaded": 29, "refused": 1}


def test_a_good_canary_lets_the_others_follow_in_the_same_run(open_workspace, assert_complete):
    workspace = open_workspace()
    assert assert_complete(workspace.upload(canary=2), 30) == {"uploaded": 30}
    order = [call.env for call in workspace.sim.calls]
    assert set(order[: order.index(BOOKS.env)]) == {TEA.env, TEA_TEST.env}


def test_rows_that_were_skipped_as_bad_hold_up_neither_a_run_nor_a_canary(open_workspace, assert_complete):
    workspace = open_workspace()
    with workspace.list.open("a", encoding="utf-8") as out:
        out.write(f"nobodys-env,x.png,0.bin,\n{TEA.env},/x.png,0.bin,\n")
    run = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, limits=QUICK)
    assert assert_complete(run, 32) == {"uploaded": 30, "invalid": 2}
    run = tcb.upload(workspace.read(on_bad="skip"), settings=workspace.settings, limits=QUICK, canary=1)
    assert assert_complete(run, 32) == {"uploaded": 30, "invalid": 2}
    with pytest.raises(tcb.UsageError, match=rf"Run {run.id} \(upload\) has nothing to retry") as caught:
        tcb.retry(run.id, workspace.merchants, settings=workspace.settings)
    assert "succeeded" not in caught.value.text.en


def test_a_second_retry_leaves_out_what_the_first_has_fixed(open_workspace, assert_complete):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=40097)])
    run = workspace.upload()
    with reopened(workspace, [Fault(env=BOOKS.env, path="banner/[0-4].png", errcode=40097)]):
        first = workspace.retry(run.id)
        assert assert_complete(first, 10) == {"uploaded": 5, "refused": 5}
    with reopened(workspace):
        second = workspace.retry(run.id)
        assert assert_complete(second, 5) == {"uploaded": 5}
        for done in (run, second):
            with pytest.raises(tcb.UsageError, match=f"Run {done.id} .* has nothing to retry"):
                tcb.retry(done.id, workspace.merchants, settings=workspace.settings)


def test_a_retry_goes_to_the_target_of_its_run_or_nowhere(open_workspace):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=40097)])
    run = workspace.upload()
    elsewhere = workspace.with_options(api_base="https://api.weixin.qq.com")
    with pytest.raises(
        tcb.UsageError, match=rf"(?s)went to {workspace.sim.base}, and now .* target='{workspace.sim.base}'"
    ):
        tcb.retry(run.id, workspace.merchants, settings=elsewhere)
    assert [one.id for one in tcb.runs(settings=workspace.settings)] == [run.id]


def test_latest_is_of_the_target_and_says_where_the_newest_run_of_another_is(open_workspace):
    workspace = open_workspace()
    run = workspace.upload()
    with pytest.raises(tcb.RunNotFoundError, match=run.id):
        tcb.open_run(settings=workspace.with_options(api_base="https://api.weixin.qq.com"))

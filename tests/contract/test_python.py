"""Contract §6: the Python API."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from contract.conftest import GOOD, MIXED, MIXED_COUNTS, TOKENS, read_csv

import tcb_ops as tcb

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract.conftest import Operator

QUICK = tcb.RunLimits(per_env=1, backoff=0.01, slow_wait=0.05, patience=5)
SLOW = [("tea-prod", f"slow/{n}.png") for n in range(8)]
FUNCTIONS = [name for name in tcb.__all__ if inspect.isfunction(getattr(tcb, name))]


@pytest.fixture
def batch(mixed: Operator) -> tcb.Batch:
    return tcb.read_paths("list.csv", "merchants.csv", root="files")


# --- the public names -----------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    words = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def test_an_sqlite_ledger_loads_nothing_of_postgresql(tmp_path: Path) -> None:
    opened = f"from tcb_ops.ledger.ledger import Ledger; Ledger({str(tmp_path / 'ledger.db')!r}).runs()"
    loaded = loaded_by(opened)
    assert "sqlite3" in loaded
    assert {"psycopg", "tcb_ops.features.postgres.database"} & loaded == set()


@pytest.mark.slow
def test_importing_loads_no_heavy_library_and_panels_need_no_command_line() -> None:
    assert {"pandas", "sqlite3", "aiohttp", "httpx", "click", "rich"} & loaded_by("import tcb_ops") == set()
    assert {"click", "rich"} & loaded_by("import tcb_ops.panels") == set()
    reports = "import tcb_ops.reports.export, tcb_ops.features.evidence.verify, tcb_ops.reports.cards"
    assert {"aiohttp", "httpx", "pandas", "rich"} & loaded_by(reports) == set()
    heavy = {"pandas", "sqlite3", "aiohttp", "httpx", "asyncio", "rich.console"}
    assert heavy & loaded_by("from tcb_ops.cli.main import run; run(['-h'])") == set()


@pytest.mark.slow
def test_commands_load_only_what_they_use(mixed: Operator) -> None:
    loaded = loaded_by("import tcb_ops; tcb_ops.audit('merchants.csv')")
    assert "aiohttp" in loaded
    assert {"aiohttp.web", "tcb_ops.features.simulator.server"} & loaded == set()
    assert "httpx" not in loaded_by("import tcb_ops; tcb_ops.links(tcb_ops.read_paths('list.csv'))")
    listing = loaded_by("from tcb_ops.cli.main import run; run(['runs'])")
    assert "sqlite3" in listing
    assert {"pandas", "asyncio", "aiohttp", "httpx", "jinja2", "xlsxwriter"} & listing == set()
    checked = loaded_by(
        "import os; from tcb_ops.cli.main import run; sys.stdout = open(os.devnull, 'w'); "
        "run(['check', 'list.csv', '--on-bad', 'skip']); sys.stdout = sys.__stdout__"
    )
    assert "tcb_ops.lists.paths" in checked
    assert {"pandas", "tcb_ops.ledger.database", "aiohttp", "httpx", "jinja2"} & checked == set()


def test_the_public_names_are_listed_and_no_submodule_takes_the_place_of_one() -> None:
    assert set(dir(tcb)) == {*tcb.__all__, "__version__"}
    for name in set(tcb.__all__) & {module.name for module in pkgutil.iter_modules(tcb.__path__)}:
        import_module(f"tcb_ops.{name}")
    assert not any(inspect.ismodule(getattr(tcb, name)) for name in tcb.__all__)
    with pytest.raises(AttributeError):
        tcb.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_explicit_typed_parameters(name: str) -> None:
    signature = inspect.signature(getattr(tcb, name))
    assert signature.return_annotation is not inspect.Parameter.empty
    for parameter in signature.parameters.values():
        assert parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        assert parameter.annotation is not parameter.empty
    assert inspect.getdoc(getattr(tcb, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_keyword_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        getattr(tcb, name)(no_such_option=1)


def test_a_type_error_names_the_function_that_was_called() -> None:
    for name in ("links", "upload", "audit", "retry", "resume"):
        for function in (name, f"start_{name}"):
            with pytest.raises(TypeError, match=rf"^{function}\(\) .*'foo'"):
                getattr(tcb, function)(foo=1)


def test_blocking_functions_take_what_their_start_functions_take() -> None:
    for name in ("links", "upload", "audit", "retry", "resume"):
        blocking, starting = (inspect.signature(getattr(tcb, f"{start}{name}")) for start in ("", "start_"))
        assert blocking.parameters == starting.parameters
        assert getattr(tcb, name).__name__ == name


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "import tcb_ops.ledger.ledger as module; assert module.Ledger; import tcb_ops; assert callable(tcb_ops.runs)",
        "import tcb_ops; tcb_ops.runs; import tcb_ops.ledger.ledger as module; assert module.Ledger",
        "import tcb_ops.engine.plan as module; import tcb_ops; assert callable(tcb_ops.runs); assert module.plan",
        "import tcb_ops.catalogue as module; assert module.errcode(0); from tcb_ops import errcodes; errcodes.__wrapped__",
    ],
)
def test_a_public_name_and_the_modules_beside_it_are_imported_in_any_order(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_example_of_the_contract(mixed: Operator) -> None:
    merchants = tcb.read_merchants("merchants.csv")
    batch = tcb.read_paths("list.csv", merchants, root="files")
    run = tcb.upload(batch, limits=QUICK)
    assert run.counts == MIXED_COUNTS
    assert list(run.results()["path"]) == [path for _, path in MIXED]
    assert run.errcodes().to_numpy().sum() == len(run.failed()) == 11
    report = run.export("reports/today")
    assert (report / "report.html").exists()
    assert tcb.open_run("latest").id == run.id
    assert tcb.explain(85088).known
    link = tcb.upload_link("tea-prod", "a/b.png")
    assert link.url.reveal().startswith("http")
    assert link.url.reveal() not in repr(link)


def test_an_upload_takes_a_dataframe_and_limits_by_name(mixed: Operator) -> None:
    frame = pd.read_csv("list.csv", dtype=str)
    run = tcb.upload(
        frame, merchants="merchants.csv", root="files", rate=500, per_env=1, backoff=0.01, patience=5
    )
    assert run.counts == MIXED_COUNTS
    assert tcb.links(frame, per_env=1, backoff=0.01, patience=5).counts["linked"] == 5
    assert [each.id for each in tcb.runs()][1:] == [run.id]
    assert tcb.errcodes(run.id).equals(run.errcodes())
    retried = run.retry(codes=[40097], backoff=0.01)
    assert (retried.record.parent, retried.counts) == (run.id, {"refused": 1})
    assert run.report().resolve() == (mixed.folder / "reports" / run.id).resolve()
    assert (run.report() / "results.csv").exists()
    assert tcb.audit(backoff=0.01, patience=1).record.rows == 5


def test_an_upload_takes_the_path_of_its_list(operator: Operator) -> None:
    assert tcb.upload("list.csv", root="files", note="now").counts == {"uploaded": len(GOOD)}
    assert tcb.links(operator.folder / "list.csv").counts == {"linked": len(GOOD)}
    (operator.folder / "bad.csv").write_text(
        "env,path\ntea-prod,../b.png\ntea-prod,a.png\n", encoding="utf-8"
    )
    with pytest.raises(tcb.InputError) as refused:
        tcb.upload("bad.csv")
    assert [problem.line for problem in refused.value.problems] == [2, 3], "the path, and the missing file"


def test_a_run_is_narrowed_by_where_and_says_so(mixed: Operator) -> None:
    tea = ("where", "name=茶语小铺")
    merchants = tcb.read_merchants("merchants.csv", where="name=茶语小铺; default=yes")
    assert [merchant.env for merchant in merchants] == ["tea-prod"]
    batch = tcb.read_paths("list.csv", where=["name=茶语小铺"])
    assert (batch.count, batch.left_out) == (5, 10)
    links = tcb.links(batch, limits=QUICK)
    assert links.record.selection.options == (tea,)
    run = tcb.upload("list.csv", root="files", where="name=茶语小铺", limits=QUICK)
    assert run.counts == {"uploaded": 4, "refused": 1}
    assert tcb.confirm(run, where="env=tea-prod", limits=QUICK).counts == {"present": 4}
    audit = tcb.audit(where="name=茶语小铺", limits=QUICK)
    assert (audit.record.rows, audit.record.selection.options) == (2, (tea,))
    assert tcb.retry(run, where="env=tea-test", limits=QUICK).record.selection.options == (
        ("where", "env=tea-test"),
    )
    assert [state.merchant.env for state in tcb.check_merchants(where="name=城南书店")] == ["books-prod"]
    assert tcb.delete(run, where="env=tea-prod", limits=QUICK).counts == {"deleted": 4}
    for call in (tcb.delete, tcb.confirm):
        with pytest.raises(tcb.ArgumentError, match="where"):
            call(batch, where="env=tea-prod")
        with pytest.raises(tcb.ArgumentError, match="merchants"):
            call(batch, merchants=merchants)


def test_results_have_the_index_and_the_types_of_the_frame_that_was_the_list(mixed: Operator) -> None:
    frame = pd.read_csv("list.csv", dtype=str).assign(
        number=range(len(MIXED)), part=pd.Categorical(["a"] * 15)
    )
    frame.index = pd.Index([f"row {number}" for number in range(len(MIXED))], name="key")
    run = tcb.upload(frame, merchants="merchants.csv", root="files", limits=QUICK)
    frame["number"] = 0  # what was sent is what counts
    joined = frame.join(run.results()[["tcb_outcome", "number"]].rename(columns={"number": "number_sent"}))
    assert joined["tcb_outcome"].value_counts().to_dict() == MIXED_COUNTS
    assert [*joined["number_sent"]] == [*range(len(MIXED))]
    assert run.results().dtypes[["number", "part"]].astype(str).to_dict() == {
        "number": "int64",
        "part": "category",
    }
    assert run.results(columns=["part"]).index.equals(frame.index)
    assert run.results(columns=["part"]).columns.tolist() == ["part"]
    failed = run.failed()
    assert set(failed.index) == set(joined.index[~joined["tcb_outcome"].isin({"uploaded"})])
    assert run.final().results().index.equals(frame.index)
    assert run.retry(limits=QUICK).results().index.isin(failed.index).all()
    opened = tcb.open_run(run.id).results()
    assert opened.index.equals(pd.RangeIndex(len(MIXED)))
    assert isinstance(opened["number"].dtype, pd.StringDtype)
    bad = failed[failed["tcb_errcode"] == 40097]
    corrected = tcb.upload(
        bad.assign(path="better.png"), merchants="merchants.csv", root="files", limits=QUICK
    )
    assert corrected.results().index.equals(bad.index)
    final = run.final().results()
    assert final.index.equals(frame.index)
    assert [*final.loc[bad.index, "path"]] == ["better.png"], "the corrected one"


def test_results_are_frames_and_short_tables(mixed: Operator, batch: tcb.Batch) -> None:
    merchants = tcb.read_merchants("merchants.csv")
    assert merchants.frame().dtypes.astype(str).to_dict() == dict.fromkeys(
        ("appid", "name", "env", "owner"), "string"
    ) | {
        "default": "boolean",
        "left": "boolean",
    }
    assert len(merchants.frame()) == 5
    frame = batch.frame()
    assert [*frame["tcb_line"]] == [row.line for row in batch.rows()]
    assert [*frame["path"]] == [path for _env, path in MIXED]
    assert not any(frame["tcb_problem"])
    (mixed.folder / "bad.csv").write_text("env,path\n<b>x</b>,a.png\ntea-prod,../b.png\n", encoding="utf-8")
    with pytest.raises(tcb.InputError) as refused:
        tcb.read_paths("bad.csv")
    problems = refused.value.frame()
    assert [*problems.columns] == ["line", "column", "value", "problem", "fix"]
    assert [*problems["line"]] == [2, 3]
    assert all(tcb.read_paths("bad.csv", on_bad="skip").frame()["tcb_problem"])
    run = tcb.upload(batch, limits=QUICK)
    states = tcb.check_merchants(merchants)
    assert [*states.frame()["works"]] == [state.works for state in states]
    verification = tcb.verify(run.report())
    assert len(verification.frame()) == len(verification.checks)
    assert tcb.explain(85088).frame()["code"].tolist() == ["85088"]
    audited = tcb.audit(backoff=0.01, patience=1).audit()
    assert len(audited.frame()) == audited.environments - audited.healthy
    assert "new" in set(audited.frame()["state"])
    shown = [merchants, batch, refused.value, states, verification, tcb.explain("SlowDown"), audited]
    pages = [result._repr_html_() for result in shown]
    assert all("<table" in page for page in pages)
    assert "&lt;b&gt;x" in pages[2]
    assert "<b>x" not in "".join(pages)
    assert {"id", "counts", "results", "failed", "errcodes", "retry", "report"} <= set(dir(run))
    assert len(dir(run)) <= 20
    assert all(hasattr(run, name) for name in dir(run))


def test_a_limit_is_given_once(batch: tcb.Batch) -> None:
    with pytest.raises(tcb.ArgumentError) as twice:
        tcb.upload(batch, limits=tcb.RunLimits(rate=5), rate=6)
    assert twice.value.parameter == "rate"
    with pytest.raises(tcb.ArgumentError) as none:
        tcb.start_links(batch, concurrency=0)
    assert none.value.parameter == "concurrency"
    assert batch.root is not None
    with pytest.raises(tcb.ArgumentError) as known:
        tcb.upload(batch, merchants="merchants.csv")
    assert known.value.parameter == "merchants"


def test_messages_name_parameters(mixed: Operator) -> None:
    (mixed.folder / "other.csv").write_text("environment,where to\ntea-prod,a.png\n", encoding="utf-8")
    with pytest.raises(tcb.InputError, match=r"columns={'path': 'HEADER'}") as refused:
        tcb.read_paths("other.csv")
    assert "--column" in refused.value.text.en
    with pytest.raises(tcb.InputError, match=r"folder nowhere \(root\)"):
        tcb.read_paths("list.csv", root="nowhere")


def test_what_is_missing_says_how_to_go_on(operator: Operator) -> None:
    (operator.folder / "elsewhere").mkdir()
    with pytest.raises(tcb.InputError) as files:
        tcb.upload("list.csv", root="elsewhere")
    assert str(operator.folder / "elsewhere") in str(files.value)
    assert "root='DIR'" in str(files.value)
    (operator.folder / "merchants.csv").unlink()
    for call in (tcb.audit, tcb.check_merchants, lambda: tcb.upload_link("tea-prod", "a.png")):
        with pytest.raises(tcb.UsageError) as merchants:
            call()
        assert str(operator.folder / "merchants.csv") in str(merchants.value)
        assert "merchants='FILE'" in str(merchants.value)


def test_the_usage_names_the_options_that_are_required(operator: Operator) -> None:
    assert operator("notebook", "--help").out.startswith("Usage: tcb-ops notebook --out DIR [OPTIONS] NAME")


def test_a_run_against_the_embedded_simulator(operator: Operator) -> None:
    batch = tcb.read_paths("list.csv", "merchants.csv", root="files")
    run = tcb.upload(batch, target="simulator", limits=tcb.RunLimits(rate=50))
    assert run.counts == {"uploaded": 4}
    assert tcb.open_run(target="simulator").id == run.id
    assert tcb.audit("merchants.csv", target="simulator").counts == {"healthy": 5}
    with pytest.raises(tcb.RunNotFoundError, match="target='simulator'"):
        tcb.open_run("latest")


def test_a_retry_of_a_run_goes_where_the_run_went(mixed: Operator, batch: tcb.Batch) -> None:
    run = tcb.upload(batch, limits=QUICK)
    again = tcb.retry(run, "merchants.csv", limits=QUICK, codes=[40097])
    assert again.counts == {"refused": 1}
    simulated = tcb.links(batch, out="simulated.csv", target="simulator")
    assert simulated.counts == {"linked": 15}
    with pytest.raises(tcb.UsageError) as raised:
        tcb.retry(simulated, "merchants.csv")
    assert simulated.id in str(raised.value), "nothing is left to do, which the simulator's ledger knows"


def test_frames_fit_into_a_workbook_with_times_of_the_settings_time_zone(batch: tcb.Batch) -> None:
    run = tcb.upload(batch, limits=QUICK, settings=tcb.load_settings(options={"timezone": "Asia/Urumqi"}))
    report = run.export("report")
    frames = {
        "results": run.results(),
        "failed": run.failed(),
        "timeline": run.timeline(),
        "history": tcb.history().frame(),
        "errcodes": run.errcodes(),
        "causes": run.causes(),
        "merchants": run.by_merchant(),
        "diff": tcb.diff(run, run).frame(),
    }
    with pd.ExcelWriter(io.BytesIO(), engine="xlsxwriter") as book:
        for name, frame in frames.items():
            frame.to_excel(book, sheet_name=name)
    assert (
        frames["results"].attrs
        == frames["failed"].attrs
        == frames["timeline"].attrs
        == {"timezone": "Asia/Urumqi"}
    )
    assert list(frames["failed"]["tcb_line"]) == [
        int(line["tcb_line"]) for line in read_csv(report / "failed.csv")
    ]
    first, written = (
        frames["results"]["tcb_started_at"].iloc[0],
        read_csv(report / "results.csv")[0]["tcb_started_at"],
    )
    assert first.tzinfo is None
    assert abs(first - pd.Timestamp(written).tz_localize(None)) < pd.Timedelta(milliseconds=1)
    assert written.endswith("+06:00")


def test_links_are_read_from_their_file_when_asked_for(operator: Operator, batch: tcb.Batch) -> None:
    run = tcb.links(batch, out="mine.csv", limits=QUICK)
    links, written = run.links(), read_csv(operator.folder / "mine.csv")
    assert list(links["url"]) == [line["url"] for line in written]
    assert links["errcode"].fillna(-1).tolist() == [int(line["errcode"] or -1) for line in written]
    assert str(links["expires_at"].dtype) == "datetime64[us]"
    assert links.attrs == {"timezone": "Asia/Shanghai"}
    links.to_excel(io.BytesIO(), engine="xlsxwriter")
    later = tcb.links(batch, out="mine.csv", limits=QUICK)
    for without in (run, tcb.upload(batch, limits=QUICK)):
        with pytest.raises(tcb.UsageError) as raised:
            without.links()
        assert without.id in str(raised.value)
    (operator.folder / "mine.csv").unlink()
    with pytest.raises(tcb.UsageError, match=r"mine\.csv"):
        later.links()


def test_progress_is_reported_by_callback_and_by_iterator(batch: tcb.Batch) -> None:
    seen: list[tcb.Progress] = []
    handle = tcb.start_upload(batch, limits=QUICK, progress=seen.append)
    watched = list(handle.watch())
    run = handle.wait()
    assert seen[-1].done == watched[-1].done == sum(run.counts.values()) == len(MIXED)


def test_values_say_shortly_what_they_are_and_hold_no_secret(mixed: Operator, batch: tcb.Batch) -> None:
    handle = tcb.start_upload(batch, limits=QUICK)
    run = handle.wait()
    merchants = tcb.read_merchants("merchants.csv")
    shown = [
        (handle, run.id),
        (run, run.id),
        (batch, "list.csv"),
        (merchants, "merchants.csv"),
        (tcb.diff(run, run), run.id),
        (tcb.history(), "9"),
        (tcb.RunLimits(rate=5), "rate=5"),
        (tcb.load_settings(), mixed.base),
    ]
    for value, part in shown:
        assert part in repr(value)
        assert len(repr(value)) < 300
        assert not any(token in repr(value) for token in TOKENS.values())
    url = "postgresql://me:pass-word@host/db"
    assert "pass-word" not in repr(tcb.load_settings(options={"ledger": url}))


# --- DataFrames as lists ----------------------------------------------------------------------------------------------


def test_a_dataframe_is_a_list(operator: Operator) -> None:
    frame = pd.DataFrame(
        {
            "env": [env for env, _ in GOOD],
            "path": [path for _, path in GOOD],
            "file": [f"{number}.bin" for number in range(1, 5)],
            "number": [7, None, 9, 10],
            "content_type": ["text/x-own", None, float("nan"), pd.NA],
            "cache_control": pd.array(["no-store", None, None, None], dtype="string"),
        },
        index=[30, 20, 10, 0],
    )
    rows = list(tcb.read_paths(frame, tcb.read_merchants("merchants.csv"), root="files").rows())
    assert [row.line for row in rows] == [2, 3, 4, 5]
    assert [row.cells[4] for row in rows] == ["text/x-own", "", "", ""]
    assert (rows[0].content_type, rows[0].cache_control) == ("text/x-own", "no-store")
    run = tcb.upload(tcb.read_paths(frame, "merchants.csv", root="files"))
    assert run.counts == {"uploaded": 4}
    assert list(run.results()["tcb_content_type"]) == ["text/x-own", "image/png", "image/png", "image/png"]


def test_problems_of_a_dataframe_read_like_those_of_a_csv_file(operator: Operator) -> None:
    frame = pd.DataFrame({"env": ["tea-prod", None, "nowhere"], "path": ["a.png", "b.png", "c.png"]})
    frame.to_csv("same.csv", index=False)
    found = []
    for source in (frame, "same.csv"):
        with pytest.raises(tcb.InputError) as raised:
            tcb.read_paths(source, "merchants.csv")
        found.append([(problem.line, problem.column, problem.message) for problem in raised.value.problems])
    assert found[0] == found[1]
    assert [line for line, *_ in found[0]] == [3, 4]
    for empty in (pd.DataFrame(), frame[:0], frame[["env"]]):
        with pytest.raises(tcb.InputError):
            tcb.read_paths(empty, "merchants.csv")


@pytest.mark.slow
def test_an_unfinished_run_of_the_same_dataframe_is_resumed(operator: Operator) -> None:
    frame = pd.DataFrame([*SLOW], columns=["env", "path"]).assign(file="1.bin")

    def start() -> tcb.RunHandle:
        return tcb.start_upload(tcb.read_paths(frame, "merchants.csv", root="files"), limits=QUICK)

    handle = start()
    next(handle.watch())
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    again = start()
    assert (again.id, again.resumed) == (handle.id, True)
    assert again.wait().counts == {"uploaded": 8}


# --- asynchronous code, and Ctrl-C -------------------------------------------------------------------------------------


def test_a_handle_can_be_awaited_and_blocking_calls_work_inside_a_running_loop(batch: tcb.Batch) -> None:
    async def work() -> tuple[tcb.Run, tcb.Run, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        beside = asyncio.create_task(count())
        run = await tcb.start_upload(batch, limits=QUICK)
        beside.cancel()
        return run, tcb.links(batch, out="mine.csv", limits=QUICK), turns

    run, linked, turns = asyncio.run(work())
    assert run.counts == MIXED_COUNTS
    assert linked.counts["linked"] == 5
    assert turns > 1, "the loop is not held up"


@pytest.mark.slow
def test_cancelling_who_awaits_ends_the_run_tidily(operator: Operator) -> None:
    operator.list(SLOW)

    async def work() -> tcb.RunHandle:
        handle = tcb.start_upload(tcb.read_paths("list.csv", "merchants.csv", root="files"), limits=QUICK)
        task = asyncio.ensure_future(handle)
        await asyncio.to_thread(next, handle.watch())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return handle

    handle = asyncio.run(work())
    counts = tcb.open_run(handle.id).counts
    assert 0 < counts["pending"] < len(SLOW)
    assert tcb.resume(handle.id).counts == {"uploaded": len(SLOW)}


@pytest.mark.slow
def test_cancel_ends_a_run_and_several_threads_hear_of_it(operator: Operator) -> None:
    operator.list(SLOW)
    handle = tcb.start_upload(tcb.read_paths("list.csv", "merchants.csv", root="files"), limits=QUICK)
    heard: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(tcb.InterruptedRunError) as raised:
            handle.wait()
        heard.append(raised.value)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    next(handle.watch())
    handle.cancel()
    for thread in threads:
        thread.join(240)
    assert len(heard) == 2


@pytest.mark.slow
@pytest.mark.parametrize("call", ["tcb.upload({})", "asyncio.run(awaited({}))", "asyncio.run(blocking({}))"])
def test_ctrl_c_ends_a_call_tidily(operator: Operator, call: str) -> None:
    """In a process of its own, which sends itself the signal after the first commit."""
    operator.list(SLOW)
    script = f"""
import asyncio, os, signal, tcb_ops as tcb

seen = []
def progress(look):
    if not seen:
        os.kill(os.getpid(), signal.{signal.SIGINT.name})
    seen.append(look)

async def awaited(batch, **options):
    return await tcb.start_upload(batch, **options)

async def blocking(batch, **options):
    return tcb.upload(batch, **options)

try:
    {call.format('tcb.read_paths("list.csv", "merchants.csv", root="files"), limits=tcb.RunLimits(per_env=1), progress=progress')}
except (tcb.InterruptedRunError, KeyboardInterrupt):
    run = tcb.open_run()
    print(run.counts["pending"] > 0, run.record.stopped is not None)
"""
    words = [sys.executable, "-c", script]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    done = subprocess.run(words, cwd=operator.folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True", "True"]), done.stderr
    assert "Traceback" not in done.stderr


def links_of_list(options: dict[str, Any]) -> None:
    tcb.links(tcb.read_paths("list.csv", "merchants.csv"), out="mine.csv", **options)


@pytest.mark.slow
@pytest.mark.posix("fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_forked_after_a_run_is_refused_and_plans_nothing(batch: tcb.Batch) -> None:
    tcb.upload(batch, limits=QUICK)
    https = tcb.load_settings(options={"target": "https://127.0.0.1:9"})
    with get_context("fork").Pool(1) as pool:
        for options in ({}, {"settings": https}):
            with pytest.raises(tcb.UsageError, match="by spawn"):
                pool.apply_async(links_of_list, (options,)).get(60)
    assert len(tcb.runs()) == 1
    assert not list(Path().glob("mine.csv*"))


# --- wrong values -------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, Any]] = {
    "limits": ("upload", 3),
    "target": ("upload", "the simulator"),
    "settings": ("upload", "tcb-ops.toml"),
    "note": ("upload", 7),
    "new_run": ("upload", "yes"),
    "resume": ("upload", 5),
    "skip_unchanged": ("upload", 1),
    "canary": ("upload", -1),
    "progress": ("upload", "bar"),
    "may_resume": ("upload", True),
    "tokens": ("upload", {"wxtea": "token"}),
    "out": ("upload", 1),
    "out of links": ("links", 1),
    "where": ("upload", 5),
    "where beside a Batch": ("upload", "name=x"),
}


@pytest.mark.parametrize(("parameter", "call"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_an_error_that_names_its_parameter(
    batch: tcb.Batch, parameter: str, call: tuple[str, Any]
) -> None:
    name, value = call
    parameter = parameter.partition(" ")[0]
    with pytest.raises(tcb.UsageError) as raised:
        getattr(tcb, name)(batch, **{parameter: value})
    assert parameter in str(raised.value)
    assert tcb.runs() == [], "nothing was planned"


OTHERS: dict[str, tuple[Any, str]] = {
    "a rate below 0": (lambda: tcb.RunLimits(rate=-1), "rate"),
    "no concurrency": (lambda: tcb.RunLimits(concurrency=0), "concurrency"),
    "half an attempt": (lambda: tcb.RunLimits(attempts=0.5), "attempts"),  # type: ignore[arg-type]
    "endless patience": (lambda: tcb.RunLimits(patience=float("inf")), "patience"),
    "a language": (lambda: tcb.load_settings(options={"lang": "fr"}), "lang"),
    "a language of Settings": (lambda: tcb.Settings(lang="fr"), "lang"),  # type: ignore[arg-type]
    "an unknown setting": (lambda: tcb.load_settings(options={"colour": "red"}), "colour"),
    "a number for a batch": (lambda: tcb.upload(3), "batch"),  # type: ignore[arg-type]
    "a list to upload that is not there": (lambda: tcb.upload("nope.csv"), 'batch = "nope.csv"'),
    "a number for a list": (lambda: tcb.read_paths(3, "merchants.csv"), "source"),  # type: ignore[arg-type]
    "a number for merchants": (lambda: tcb.read_paths("list.csv", 3), "merchants"),  # type: ignore[arg-type]
    "on_bad": (lambda: tcb.read_paths("list.csv", "merchants.csv", on_bad="ignore"), "on_bad"),  # type: ignore[arg-type]
    "rows": (lambda: tcb.read_paths("list.csv", "merchants.csv", rows="some"), "rows"),  # type: ignore[arg-type]
    "header_row": (lambda: tcb.read_paths("list.csv", "merchants.csv", header_row=-1), "header_row"),
    "where without a match": (lambda: tcb.read_merchants("merchants.csv", "name=x"), "where"),
    "where twice": (
        lambda: tcb.audit(tcb.read_merchants("merchants.csv", "owner="), where="owner="),
        "where",
    ),
    "merchants of an audit": (lambda: tcb.audit(None), "merchants"),  # type: ignore[arg-type]
    "a run of a number": (lambda: tcb.open_run(5), "run"),  # type: ignore[arg-type]
    "no days": (lambda: tcb.history(0), "days"),
    "no date": (lambda: tcb.history(until="yesterday"), "until"),
    "codes as a text": (lambda: tcb.retry("latest", "merchants.csv", codes="85088"), "codes"),
    "a folder of a number": (lambda: tcb.verify(5), "folder"),  # type: ignore[arg-type]
    "a code of nothing": (lambda: tcb.explain(None), "code"),  # type: ignore[arg-type]
    "settings of a number": (lambda: tcb.runs(settings=5), "settings"),  # type: ignore[arg-type]
    "a settings file of a number": (lambda: tcb.load_settings(5), "config"),  # type: ignore[arg-type]
    "options of a list": (lambda: tcb.load_settings(options=["lang"]), "options"),  # type: ignore[arg-type]
    "an option of a number": (lambda: tcb.load_settings(options={5: 1}), "options"),  # type: ignore[dict-item]
    "columns of numbers": (
        lambda: tcb.read_paths("list.csv", "merchants.csv", columns={"path": 5}),
        "columns",
    ),  # type: ignore[dict-item]
    "a root of a number": (lambda: tcb.read_paths("list.csv", "merchants.csv", root=5), "root"),  # type: ignore[arg-type]
    "a batch's root": (lambda: tcb.read_paths("list.csv", "merchants.csv").check_files(5), "root"),  # type: ignore[arg-type]
    "a path of 5,000 characters": (lambda: tcb.read_merchants("x" * 5_000), "source"),
    "no rows": (lambda: tcb.read_paths("list.csv", "merchants.csv").limited(0), "n"),
    "merchants to check": (lambda: tcb.check_merchants(5), "merchants"),  # type: ignore[arg-type]
    "no merchants to check": (lambda: tcb.check_merchants([5]), "merchants"),  # type: ignore[list-item]
    "lines of merchants": (lambda: tcb.Merchants([5]), "lines"),  # type: ignore[list-item]
    "a merchant of a number": (lambda: tcb.read_merchants("merchants.csv").resolve(5), "name_or_appid"),  # type: ignore[arg-type]
    "a merchant's environment": (lambda: tcb.read_merchants("merchants.csv").for_env([]), "env"),  # type: ignore[arg-type]
    "a target of a link": (lambda: tcb.upload_link("tea-prod", "a.png", target=5), "target"),  # type: ignore[arg-type]
    "a list that is not there": (lambda: tcb.read_paths("nope.csv", "merchants.csv"), 'source = "nope.csv"'),
    "merchants that are not there": (lambda: tcb.read_merchants("nope.csv"), 'source = "nope.csv"'),
    "merchants of a list": (lambda: tcb.read_paths("list.csv", "nope.csv"), 'merchants = "nope.csv"'),
    "merchants to audit": (lambda: tcb.audit("nope.csv"), 'merchants = "nope.csv"'),
    "an unknown environment": (lambda: tcb.upload_link("nowhere", "a.png"), "env"),
    "a path without a name": (lambda: tcb.upload_link("tea-prod", ""), "path"),
    "a path that leads up": (lambda: tcb.upload_link("tea-prod", "../a.png"), "path"),
    "another appid": (lambda: tcb.upload_link("tea-prod", "a.png", appid="wxbooks"), "appid"),
    "an appid of a number": (lambda: tcb.upload_link("tea-prod", "a.png", appid=5), "appid"),  # type: ignore[arg-type]
    "progress of a check": (lambda: tcb.check_merchants("merchants.csv", progress=5), "progress"),  # type: ignore[arg-type]
    "an environment of a number": (lambda: tcb.upload_link(5, "a.png"), "env"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "parameter"), OTHERS.values(), ids=OTHERS)
def test_every_other_wrong_value_is_named_too(operator: Operator, call: Any, parameter: str) -> None:
    with pytest.raises(tcb.UsageError) as raised:
        call()
    assert parameter in str(raised.value)


ANYTHING: dict[str, Any] = {
    "None": None,
    "0": 0,
    "-1": -1,
    "empty": "",
    "NUL": "\0",
    "bytes": b"x",
    "object": object(),
    "a long number": 10**400,
    "a DataFrame": pd.DataFrame({"path": [1]}),
}
OPTIONAL = (
    *("root", "rows", "target", "settings", "limits", "may_resume", "progress", "tokens", "out"),
    *("config", "options", "damaged"),
)
ALLOWED: dict[str, set[str]] = {
    **{parameter: {"None"} for parameter in OPTIONAL},
    **{limit: {"None"} for limit in ("concurrency", "per_env", "rate", "attempts")},
    **{limit: {"None", "0"} for limit in ("backoff", "slow_wait", "patience")},
    "batch": {"a DataFrame"},
    "errcodes kind": {"None"},
    "note": {"empty", "NUL"},
    "where": {"empty"},
    "appid": {"None", "empty"},
    "canary": {"0"},
    "code": {"0", "-1", "a long number"},
    "source": {"a DataFrame"},
    "codes": {"None"},
    "header_row": {"0"},
    "resume": {"None"},
    "sheet": {"empty"},
    "diff merchants": {"None"},
    "resume canary": {"None", "0"},
    "retry path": {"empty", "NUL"},
    "files what": {"empty"},
    "files path": {"empty"},
    "known": {"None"},
    "cluster": {"None"},
    "notify run": {"None"},
    "open_run kind": {"None"},
    "backup": {"None"},
    "as_component": {"None"},
    "body": {"None"},
    "confirm merchants": {"None"},
    "delete merchants": {"None"},
    "undo merchants": {"None"},
    "resume skip_unchanged": {"None"},
    "signers": {"None"},
}
"""What may be given, by parameter, or by function and parameter."""


@pytest.mark.parametrize("text", ["a\0b", "\udcff"])
@pytest.mark.parametrize("column", ["path", "note"])
def test_a_dataframe_with_what_no_file_can_hold_is_refused(
    operator: Operator, text: str, column: str
) -> None:
    cells = {"env": "tea-prod", "path": "a.png", "note": ""} | {column: text}
    frame = pd.DataFrame([cells], dtype=object)
    with pytest.raises(tcb.ArgumentError, match="source cannot be DataFrame"):
        tcb.read_paths(frame, "merchants.csv")


def test_skipped_rows_without_an_environment_do_not_keep_a_list_from_the_simulator(
    operator: Operator,
) -> None:
    operator.list([*GOOD, ("", "a.png"), ("nowhere", "b.png")])
    batch = tcb.read_paths("list.csv", "merchants.csv", root="files", on_bad="skip")
    run = tcb.links(batch, out="links.csv", target="simulator", limits=QUICK)
    assert run.counts == {"linked": len(GOOD), "invalid": 2}


@pytest.mark.slow
def test_no_parameter_takes_just_anything(batch: tcb.Batch) -> None:
    run = tcb.upload(batch, target="simulator", limits=QUICK)
    usual = {
        "batch": batch,
        "merchants": "merchants.csv",
        "run": run,
        "what": run,
        "older": run,
        "newer": run,
        "env": "tea-prod",
        "path": "a.png",
        "code": 85088,
        "merchant": "wxtea",
        "interface": "tcb/getenvinfo",
        "older_than": 180,
        "folder": run.export("report"),
        "file": run.export("page", with_data=True) / "report.html",
        "target": "simulator",
        "settings": tcb.load_settings(options={"target": "simulator"}),
        "source": "list.csv",
    }
    own = {"read_merchants": {"source": "merchants.csv"}, "files": {"what": "tea-prod"}}
    taken = []
    for name in FUNCTIONS:
        takes = inspect.signature(getattr(tcb, name)).parameters
        given = {key: value for key, value in (usual | own.get(name, {})).items() if key in takes}
        for parameter in takes:
            function = name.removeprefix("start_")
            allowed = ALLOWED.get(f"{function} {parameter}", ALLOWED.get(parameter, set()))
            if "batch" in takes and parameter != "merchants":  # a Batch has its merchants
                given.pop("merchants", None)
            for what in ANYTHING.keys() - allowed:
                try:
                    getattr(tcb, name)(**given | {parameter: ANYTHING[what]})
                except tcb.TcbOpsError as error:
                    if parameter not in str(error):
                        taken.append((name, parameter, what, str(error)))
                except Exception as error:  # noqa: BLE001  each is reported
                    taken.append((name, parameter, what, repr(error)))
                else:
                    taken.append((name, parameter, what, "accepted"))
    assert taken == []
    assert [one.id for one in tcb.runs()] == [run.id], "nothing was planned"


METHODS: dict[str, tuple[Callable[[tcb.Run], Any], str]] = {
    "export": (lambda run: run.export(5), "out"),  # type: ignore[arg-type]
    "export, replace": (lambda run: run.export("report", replace=1), "replace"),  # type: ignore[arg-type]
    "write_into": (lambda run: run.write_into(5), "original"),  # type: ignore[arg-type]
    "write_into, out": (lambda run: run.write_into("list.xlsx", 5), "out"),  # type: ignore[arg-type]
    "write_into, split_by": (lambda run: run.write_into("list.xlsx", split_by=5), "split_by"),  # type: ignore[arg-type]
    "with_settings": (lambda run: run.with_settings(5), "settings"),  # type: ignore[arg-type]
    "rows, line": (lambda run: run.rows(line="2"), "line"),  # type: ignore[arg-type]
    "rows, merchant": (lambda run: run.rows(merchant=5), "merchant"),  # type: ignore[arg-type]
    "rows, path": (lambda run: run.rows(path=5), "path"),  # type: ignore[arg-type]
    "rows, outcomes": (lambda run: run.rows(outcomes="uploaded"), "outcomes"),  # type: ignore[arg-type]
    "planned_bytes": (lambda run: run.planned_bytes({"up"}), "outcomes"),  # type: ignore[arg-type]
    "merchants_like": (lambda run: run.merchants_like(5), "name"),  # type: ignore[arg-type]
    "rows, a line that no database holds": (lambda run: run.rows(line=10**18), "line"),
    "rows, surrogates": (lambda run: run.rows(path="a\udcff"), "path"),
    "page, code": (lambda run: run.page(code=85088), "code"),  # type: ignore[arg-type]
    "page, tallies": (lambda run: run.page(tallies=[5]), "tallies"),  # type: ignore[list-item]
    "page, NUL": (lambda run: run.page(path="a\0"), "path"),
    "page, limit": (lambda run: run.page(limit=-1), "limit"),
    "of_merchants": (lambda run: run.of_merchants([object()]), "merchants"),  # type: ignore[list-item]
    "to_parquet": (lambda run: run.to_parquet("x" * 5_000), "out"),
    "export, a long path": (lambda run: run.export("/".join(["x" * 200] * 25)), "out"),
    "diff": (lambda run: tcb.diff(run, 5), "newer"),  # type: ignore[arg-type]
    "retry, codes": (lambda run: tcb.retry(run, "merchants.csv", codes=[None]), "codes"),  # type: ignore[list-item]
    "retry, where": (lambda run: tcb.retry(run, "merchants.csv", where=5), "where"),  # type: ignore[arg-type]
}


@pytest.mark.posix("file names")
def test_a_wrong_value_for_a_method_is_named(batch: tcb.Batch) -> None:
    handle = tcb.start_upload(batch, limits=QUICK)
    with pytest.raises(tcb.UsageError, match="seconds"):
        handle.ended_within("long")  # type: ignore[arg-type]
    with pytest.raises(tcb.UsageError, match="show"):
        handle.follow(5)  # type: ignore[arg-type]
    run = handle.wait()
    for name, (call, parameter) in METHODS.items():
        with pytest.raises(tcb.UsageError) as raised:
            call(run)
        assert parameter in str(raised.value), name
    assert [one.id for one in tcb.runs()] == [run.id], "nothing was planned"


def test_a_wrong_value_is_not_repeated_where_it_may_be_a_secret(batch: tcb.Batch, operator: Operator) -> None:
    with pytest.raises(tcb.UsageError) as raised:
        tcb.upload(batch, tokens=TOKENS)  # type: ignore[arg-type]
    assert not any(token in repr(raised.value) + str(raised.value) for token in TOKENS.values())


def test_settings_that_cannot_be_used_are_errors_of_ours(operator: Operator) -> None:
    file: Path = operator.folder / "tcb-ops.toml"
    for text in ("api_base = 5", "lang = 'fr'", "[tokens]\nsource = 'nowhere'", "not toml"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(tcb.SettingsError):
            tcb.open_run()

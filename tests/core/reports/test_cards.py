"""Cards in notebooks: what each shows, escaped, in both languages, without an address or a folder of this machine."""

import os
import pickle
import re
from html import unescape
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import tcb_ops as tcb
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.errors import InputError, LedgerError
from tcb_ops.i18n import Lang, _, verbatim
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import SIMULATOR, Outcome, Owner, Problem, Reason, RowEnd
from tcb_ops.reports.cards import errcodes_html, error_html
from tcb_ops.reports.export import Report
from tcb_ops.run import Run
from tcb_ops.settings import Settings

PLANTED = "<script>alert(1)</script>"
UPLOADED = RowEnd(0, Outcome.UPLOADED, errcode=0)
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
TEXT = re.compile(r"<[^>]*>")


@pytest.fixture
def run_of(a_run, tmp_path, monkeypatch):
    """A function that plans a run with these ends, and returns it as users have it; the working folder is its ledger's."""
    monkeypatch.chdir(tmp_path)

    def make(ends, lang=Lang.EN, **about):
        reported = a_run(ends, **about)
        return Run(reported.ledger, reported.run, Settings(lang=lang, timezone="Asia/Shanghai"))

    return make


def words(html):
    return " ".join(TEXT.sub(" ", html).split())


def test_a_run_says_how_it_ended_where_when_and_by_whom(run_of, every_end):
    run = run_of(every_end, target=SIMULATOR)
    html = run._repr_html_()
    shown = words(html)
    for part in (
        "SIMULATED 演练 Upload of 清单.csv, 25 rows",
        run.id,
        "li.na",
        "begun 2025-11-25 09:26+08:00, took",
        "simulator",
    ):
        assert part in shown
    assert run.record.kind.verdict(run.outcomes, finished=True).en in shown
    assert "run.causes()" in shown
    assert "85088" not in html
    assert not re.search("http|<script|ops-1", html)
    assert sum(map(float, re.findall(r"[^-]width:([\d.]+)%", html))) == pytest.approx(100), "the bar"
    live = run_of([UPLOADED], id="live", lang=Lang.ZH)
    assert words(live._repr_html_()).startswith("LIVE 线上 上传：清单.csv，1 行")
    assert "run.causes()" not in live._repr_html_()


def test_a_run_names_its_report_but_no_folder_of_this_machine(run_of, tmp_path, tmp_path_factory):
    run = run_of([REFUSED], target=SIMULATOR)
    report = run.report()
    assert f"Report: reports/{run.id}" in words(run._repr_html_())
    assert f'href="reports/{run.id}/report.html"' in run._repr_html_()
    elsewhere = tmp_path_factory.mktemp("other") / "today"
    other = run.report(elsewhere)
    html = run._repr_html_() + other._repr_html_() + report._repr_html_() + repr(report) + repr(other)
    assert "Report: today" in words(run._repr_html_())
    assert str(tmp_path.parent) not in html
    assert "href" not in other._repr_html_()


def test_an_unfinished_run_says_how_to_resume_it(run_of):
    run = run_of([UPLOADED, RowEnd(0, Outcome.PENDING)], finished=False, target=SIMULATOR)
    shown = words(run._repr_html_())
    assert "Unfinished: 1 of 2 rows have ended" in shown
    call = re.search(r"To resume it: (tcb\.resume\(.*?\))", shown)[1].replace("&#39;", "'")
    assert call == f"tcb.resume('{run.id}', target='simulator')"


def test_every_text_is_escaped(run_of):
    places = [EnvRecord(0, "e", "wx", PLANTED, Owner.MERCHANT, left=False)]
    end = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_code=PLANTED)
    run = run_of([end], places=places, target=f"https://x/{PLANTED}", list_name=PLANTED, operator=PLANTED)
    error = InputError(
        verbatim(PLANTED), PLANTED, [Problem(2, PLANTED, verbatim(PLANTED), verbatim(PLANTED), PLANTED)] * 2
    )
    cards = [run._repr_html_(), run.causes()._repr_html_(), error_html(error, Lang.EN)]
    assert [card.count("&lt;script&gt;") >= 3 - number for number, card in enumerate(cards)] == [True] * 3
    assert "<script" not in "".join(cards)


# --- causes ---------------------------------------------------------------------------------------------------------


@pytest.mark.needs("health")
def test_causes_are_a_card_by_code_and_what_is_derived_from_them_is_a_plain_frame(run_of):
    causes = run_of(
        [REFUSED, REFUSED, REFUSED, UPLOADED, RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN)]
    ).causes()
    shown = words(causes._repr_html_())
    assert shown.startswith(
        "Did not succeed: 4 rows, 2 causes. 85088 · 3 rows · Who must act: probably the merchant"
    )
    assert causes["action"][0] in unescape(shown)
    assert "晨光文具, Blue Whale no_token · 1 row" in shown
    assert "the environment" not in shown
    for derived in (
        causes.head(),
        causes[causes["rows"] > 1],
        causes.copy(),
        causes.sort_values("code"),
        causes.reset_index(),
    ):
        assert type(derived) is pd.DataFrame
    assert type(pickle.loads(pickle.dumps(causes))) is pd.DataFrame  # noqa: S301  our own
    causes.loc[0, "rows"] += 100
    assert "85088 · 103 rows" in words(causes._repr_html_()), "it shows what the frame holds"
    causes["colleague"] = "小周"
    assert "小周" in causes._repr_html_(), "a frame with more columns is shown whole"


def test_causes_say_that_there_are_none(run_of):
    assert words(run_of([UPLOADED], lang=Lang.ZH).causes()._repr_html_()) == "没有问题：全部成功。"


# --- lists, reports ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a merchants file."""
    monkeypatch.chdir(tmp_path)
    Path("merchants.csv").write_text("appid,name,env\nwx1,茶铺,tea\nwx2,书屋,books\n", encoding="utf-8")
    Path("a.png").write_bytes(b"12345")
    return tmp_path


def test_a_batch_says_what_was_read_and_what_is_skipped(folder):
    Path("list.csv").write_text("环境ID,path\ntea,a.png\n<i>,a.png\nbooks,../b.png\n", encoding="utf-8")
    batch = tcb.read_paths("list.csv", root=".", on_bad="skip")
    html = batch._repr_html_()
    shown = words(html)
    for part in (
        "1 of 3 rows valid: 1 merchant, 1 environment, 5 B",
        "UTF-8",
        "环境ID (env)",
        "茶铺 1 1 5 B",
    ):
        assert part in shown
    assert (
        "2 rows have problems and are skipped: line column value problem what to do 3 环境ID &lt;i&gt;"
        in shown
    )
    assert "<i>" not in html
    assert {"rows", "problems", "merchants", "frame"} <= {*dir(batch)}
    assert not {"staging", "until", "given"} & {*dir(batch)}


def test_a_report_is_a_path_with_its_files(run_of):
    run = run_of([REFUSED], target=SIMULATOR)
    report = run.report("out/today")
    assert isinstance(report, Report)
    assert report.folder == Path("out/today")
    assert [file.name for file in report.files] == sorted(file.name for file in Path("out/today").iterdir())
    assert type(report / "results.csv") is type(Path())
    assert pd.read_csv(report / "results.csv")["tcb_errcode"].tolist() == [85088]
    html = report._repr_html_()
    assert all(
        f'href="out/today/{name}"' in html for name in ("report.html", "SIMULATED-%E6%BC%94%E7%BB%83.txt")
    )
    assert "KB" in html


def test_what_a_run_shows_to_users_is_in_its_docstring(run_of):
    run = run_of([UPLOADED])
    assert all(f"`{name}" in Run.__doc__ for name in dir(run))
    assert all(hasattr(run, name) for name in dir(run))


# --- in words ---------------------------------------------------------------------------------------------------------


def test_errcodes_are_shown_in_chinese_and_keep_their_names(run_of):
    errcodes = run_of([REFUSED, REFUSED, UPLOADED], lang=Lang.ZH).errcodes()
    assert words(errcodes._repr_html_()).startswith("未成功：2 行，共 1 种原因。 商户 环境 行数 85088")
    assert {"错误码", "商户", "环境"} <= {*repr(errcodes).split()}
    assert "merchant" not in errcodes._repr_html_() + repr(errcodes)
    assert [*errcodes.index.names, errcodes.columns.name] == ["merchant", "appid", "env", "errcode"]
    assert type(errcodes.head()) is type(errcodes.sum(axis=1).to_frame()) is pd.DataFrame
    assert "merchant" in repr(run_of([REFUSED], id="english").errcodes())


def test_the_errcode_table_has_the_sums_of_all_lines_and_the_appids_of_namesakes():
    lines = [("晨光文具", "wx1", "tea-1", (2, 0)), ("晨光文具", "wx2", "tea-2", (0, 1))]
    lines += [("", "wx3", f"env-{number}", (1, 0)) for number in range(20)]
    shown = words(errcodes_html(["85088", "AccessDenied"], lines, UPLOAD, Lang.EN))
    assert shown.startswith(
        "Did not succeed: 23 rows, 2 causes. merchant environment rows 85088 AccessDenied all merchants 23 22 1 "
        "晨光文具 wx1 tea-1 2 2 晨光文具 wx2 tea-2 1 1 wx3 env-0 1 1 wx3 env-1"
    )
    assert shown.endswith("… and 10 more lines")
    assert words(errcodes_html([], [], UPLOAD, Lang.EN)) == "Nothing is wrong: every row succeeded."


def test_a_printed_errcode_table_leaves_no_column_out(run_of, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    codes = range(85001, 85031)
    ends = [RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=code) for code in codes]
    printed = repr(run_of(ends).errcodes())
    assert {*map(str, codes)} <= {*printed.split()}
    assert max(map(len, printed.splitlines())) <= 120


def test_printed_causes_say_what_to_do(run_of):
    causes = run_of([REFUSED, REFUSED]).causes()
    printed = str(causes)
    assert printed.startswith("Did not succeed: 2 rows, 1 cause.\n85088 · 2 rows · 晨光文具: ")
    assert causes["action"][0] in printed
    assert "晨光文具" in repr(causes[["merchant"]]), "a plain frame"


@pytest.mark.usefixtures("folder")
def test_what_is_printed_is_in_the_language_of_the_settings(run_of, monkeypatch):
    monkeypatch.setenv("TCB_OPS_LANG", "zh")
    Path("bad.csv").write_text("env,path\ntea,../b.png\ntea,a.png\n", encoding="utf-8")
    with pytest.raises(InputError) as missing:
        tcb.read_paths("list.csv")
    with pytest.raises(InputError) as bad:
        tcb.read_paths("bad.csv", root="nowhere")
    run = run_of([UPLOADED, REFUSED], lang=Lang.ZH)
    shown = {
        str(missing.value): "没有这个文件",
        repr(missing.value): "没有这个文件",
        bad.value._repr_html_(): "行号",
        repr(run): "上传：已上传 1、被拒绝 1",
        repr(run.stopped or run.verdict): "共 2 行",
        repr(tcb.explain(85088)): "85088：该小程序没有开通云开发。",
        repr(tcb.read_merchants("merchants.csv")): "2 行",
        tcb.read_merchants("merchants.csv")._repr_html_(): "名称",
        repr(tcb.read_paths("bad.csv", on_bad="skip").problems): "1 处问题",
        repr(tcb.load_settings()): "商户表",
        repr(bad.value.problems[0].message): "没有文件夹",
    }
    assert [text for text, words in shown.items() if words not in text] == []
    assert "Message(" not in "".join(shown)
    assert "<td>0" not in bad.value._repr_html_().replace(' style="', ">").split("行号")[1], "no line 0"


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_says_what_happened_and_what_to_do_and_lists_its_problems():
    problems = [Problem(line, "path", _("path is empty"), _("fill it in"), "") for line in range(2, 62)]
    shown = words(error_html(InputError(verbatim("list.csv: 60"), "list.csv", problems), Lang.EN))
    assert shown.startswith("InputError list.csv: 60 line column value problem what to do 2 path")
    assert shown.count("fill it in") == 50
    assert "… and 10 more problems" in shown
    one = InputError(verbatim("list.csv:2: empty"), "list.csv", problems[:1])
    assert words(error_html(one, Lang.EN)) == "InputError list.csv:2: empty"
    chinese = error_html(LedgerError(verbatim("a\n\x1b[31mb"), verbatim("c")), Lang.ZH)
    assert words(chinese) == "LedgerError a ␛[31mbc"


@pytest.mark.notebook
def test_an_error_in_a_notebook_is_a_card_and_a_line(folder):
    Path("bad.csv").write_text("env,path\nnowhere,a.png\ntea,../b.png\n", encoding="utf-8")
    cells = [
        "import tcb_ops as tcb",
        "tcb.upload('bad.csv')",
        "try: tcb.open_run('x')\nexcept tcb.TcbOpsError: pass",
        "tcb.upload('bad.csv')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True)
    with client.setup_kernel(env={**os.environ}):
        for number, cell in enumerate(notebook.cells):
            client.kc.allow_stdin = number == 3  # as a front end does
            client.execute_cell(cell, number)
    nothing, (card, error), caught, (_card, seen) = (cell.outputs for cell in notebook.cells)
    assert (nothing, caught) == ([], [])
    assert (card.output_type, error.output_type) == ("display_data", "error")
    assert words(card.data["text/html"]).startswith("InputError bad.csv has 2 problems")
    assert "<details" in card.data["text/html"]
    assert "tcb.upload(&#39;bad.csv&#39;)" in card.data["text/html"], "where in the code"
    assert str(folder.parent) not in str(notebook)
    assert len(error.traceback) == 1
    assert error.traceback[0].startswith("InputError: bad.csv has 2 problems")
    assert seen.traceback == ["InputError: shown above; the cells below were not run."], "once for a person"

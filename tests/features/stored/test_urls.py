"""Links to look at stored files: asked for on request, for two hours, and written nowhere."""

import csv
import logging
import os
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import openpyxl
import pytest
import xlsxwriter
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.features.stored.client import FileStatus
from tcb_ops.features.stored.urls import link_of
from tcb_ops.i18n import Text
from tcb_ops.model import Owner, Secret

pytestmark = pytest.mark.slow


def fetch(link):
    return httpx.get(link.reveal(), trust_env=False).content


def now(settings):
    return datetime.now(settings.zone)


def test_each_row_that_stored_a_file_has_a_link_that_opens_it(open_workspace):
    workspace = open_workspace(many(TEA, rows=60) + many(BOOKS, rows=2))
    workspace.sim.play([Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)])
    run = workspace.upload()
    before = now(workspace.settings).replace(microsecond=0, tzinfo=None)
    frame = run.urls()
    assert list(frame.columns) == [*run.results().columns, "tcb_url", "tcb_url_until", "tcb_url_problem"]
    stored = frame[frame["tcb_outcome"] == "uploaded"]
    for row in (0, 59, 60):
        env, path = stored["tcb_env"].iloc[row], stored["path"].iloc[row]
        assert fetch(stored["tcb_url"].iloc[row]) == workspace.sim.content(env, path)
    assert workspace.sim.stats["download"] == 3, "50 files a call"
    assert (stored["tcb_url_until"] >= before + timedelta(hours=2)).all()
    assert (stored["tcb_url_until"] <= before + timedelta(hours=2, minutes=5)).all()
    (refused,) = frame[frame["tcb_outcome"] == "refused"].itertuples()
    assert (refused.tcb_url, refused.tcb_url_problem) == (None, "")


def test_a_file_that_is_gone_and_a_merchant_that_is_refused_have_reasons_and_the_others_links(open_workspace):
    workspace = open_workspace(many(TEA, BOOKS, rows=2))
    run = workspace.upload()
    workspace.sim.remove(TEA.env, "banner/0.png")
    workspace.sim.play([Fault(env=BOOKS.env, path="*", step=FaultStep.DOWNLOAD, errcode=61007)])
    frame = run.urls()
    assert [link is not None for link in frame["tcb_url"]] == [False, True, False, False]
    gone, _there, *refused = frame["tcb_url_problem"]
    assert gone.startswith("errcode -503003 ")
    assert all(problem.startswith("errcode 61007 ") for problem in refused)


def test_no_link_is_in_what_shows_or_keeps_a_run(open_workspace, caplog):
    caplog.set_level(logging.DEBUG)
    workspace = open_workspace(many(TEA, rows=1))
    run = workspace.upload()
    frame = run.urls()
    single = tcb.url(TEA.env, "banner/0.png", settings=workspace.settings)
    secrets = [link.reveal().partition("sign=")[2][:12] for link in (frame["tcb_url"][0], single.url)]
    report = run.export(workspace.folder / "report")
    kept = b"".join(
        file.read_bytes()
        for folder in (report, workspace.folder)
        for file in folder.glob("*")
        if file.is_file()
    )
    shown = f"{frame.to_string()}{frame.to_html()}{frame.to_csv()}{single!r}{run._repr_html_()}{caplog.text}"
    for secret in secrets:
        assert len(secret) == 12
        assert secret not in shown
        assert secret.encode() not in kept


@pytest.mark.parametrize("what", [TEA.env, BOOKS.name, BOOKS.appid])
def test_one_file_by_environment_or_merchant(open_workspace, what):
    workspace = open_workspace(many(TEA, BOOKS, rows=1))
    workspace.upload()
    env = TEA.env if what == TEA.env else BOOKS.env
    link = tcb.url(what, "banner/0.png", settings=workspace.settings)
    assert fetch(link.url) == workspace.sim.content(env, "banner/0.png")
    assert timedelta(hours=1, minutes=55) < link.until - now(workspace.settings) <= timedelta(hours=2)


def test_one_file_that_is_not_there_is_named_with_the_platforms_answer(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    with pytest.raises(tcb.UsageError, match=rf"{TEA.env}, nothing\.png: errcode -503003 "):
        tcb.url(TEA.env, "nothing.png", settings=workspace.settings)
    with pytest.raises(tcb.UsageError, match="nobody"):
        tcb.url("nobody", "banner/0.png", settings=workspace.settings)


@pytest.mark.parametrize(
    "url", ["https://elsewhere.example/banner/0.png", "http://b.tcb.qcloud.la/banner/0.png", ""]
)
def test_a_link_to_another_host_is_not_shown(open_workspace, url):
    settings = open_workspace(many(TEA, rows=1)).with_options(api_base="https://api.weixin.qq.com")
    good = FileStatus("cloud://x", 0, "ok", Secret("https://b.tcb.qcloud.la/banner/0.png?sign=1"))
    assert link_of(good, Owner.MERCHANT, settings) is good.url
    assert isinstance(link_of(replace(good, url=Secret(url)), Owner.MERCHANT, settings), Text)


def test_show_url_prints_the_links_of_the_chosen_rows_and_when_they_end(open_cli):
    cli = open_cli(many(TEA, BOOKS, rows=2))
    assert cli("upload", "list.csv", "--root", "files", "--yes").code == 0
    shown = cli("show", "--url", "--merchant", BOOKS.name)
    assert shown.code == 0
    assert [line for line in shown.out.splitlines() if not line.startswith(" ")] == [
        f"{BOOKS.env}  banner/0.png",
        f"{BOOKS.env}  banner/1.png",
    ]
    links = [line.strip() for line in shown.out.splitlines() if line.startswith(" ")]
    for number, link in enumerate(links):
        held = cli.workspace.sim.content(BOOKS.env, f"banner/{number}.png")
        assert httpx.get(link, trust_env=False).content == held
    assert "The links end at " in shown.err
    cli.workspace.sim.remove(BOOKS.env, "banner/0.png")
    printed = cli("show", "--url", "--merchant", BOOKS.name, "--json")
    assert printed.code == 1
    gone, there = printed.json["rows"]
    assert gone["problem"].startswith("errcode -503003 ")
    assert there["url"].startswith(f"{cli.workspace.sim.base}/")
    assert datetime.fromisoformat(printed.json["until"]) > now(cli.workspace.settings)


def test_show_url_of_rows_that_stored_nothing_says_so(open_cli):
    cli = open_cli(many(TEA, rows=1))
    cli.workspace.sim.play([Fault(env=TEA.env, path="*", errcode=40097)])
    assert cli("upload", "list.csv", "--root", "files").code == 1
    shown = cli("show", "--url")
    assert (shown.code, shown.out) == (0, "")
    assert "None of these rows stored a file." in shown.err


def test_a_colleagues_workbook_has_a_column_of_links_on_request(open_cli):
    cli = open_cli(many(TEA, rows=2))
    cli.workspace.sim.play([Fault(env=TEA.env, path="banner/1.png", errcode=40097)])
    with xlsxwriter.Workbook(cli.folder / "list.xlsx") as book:
        sheet = book.add_worksheet()
        for line, cells in enumerate(
            csv.reader((cli.folder / "list.csv").read_text(encoding="utf-8").splitlines())
        ):
            sheet.write_row(line, 0, cells)
    assert cli("upload", "list.xlsx", "--root", "files").code == 1
    assert cli("report", "--urls").code == 2
    written = cli("report", "--into", "list.xlsx", "--urls", "--out", "copy.xlsx")
    assert (written.code, written.err.startswith("SIMULATED")) == (0, True), written.err
    head, stored, refused = openpyxl.load_workbook(cli.folder / "copy.xlsx").active.iter_rows(
        values_only=True
    )
    assert head[-1].startswith("link, until ")
    assert httpx.get(stored[-1], trust_env=False).content == cli.workspace.sim.content(
        TEA.env, "banner/0.png"
    )
    assert refused[-1] is None
    assert cli("report", "--into", "list.xlsx", "--urls", "--split-by", "env", "--out", "copies").code == 0
    (copied,) = (cli.folder / "copies").iterdir()
    assert "http" in openpyxl.load_workbook(copied).active.cell(2, len(head)).value
    for file in (cli.folder / "copy.xlsx", copied) if os.name != "nt" else ():
        assert file.stat().st_mode & 0o777 == 0o600
    links = stored[-1].partition("sign=")[2][:12].encode()
    assert not any(links in file.read_bytes() for file in cli.folder.glob("tcb-ops.db*") if file.is_file())

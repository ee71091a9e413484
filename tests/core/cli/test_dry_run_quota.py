"""--dry-run against the calls that are left today: what is shown, what is warned of, what is asked."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone

import pytest
from token_server import COMPONENT, token_server_opener

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.features.merchants.check import QuotaAccount, fits, seconds_left_of_the_day
from tcb_ops.features.merchants.queries import ask_allowances
from tcb_ops.features.simulator import Fault, FaultStep, SimulatedAccount
from tcb_ops.model import Merchant, Owner
from tcb_ops.preflight import accounts_to_ask, reckon
from tcb_ops.runs.limits import RunLimits
from tcb_ops.wechat.responses import Quota

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
BOOKS = Merchant("wxbooks", "城南书店", "books-1")
OWN = Merchant("wxbooks", "城南书店", "own-1", owner=Owner.PLATFORM)


@pytest.fixture
def open_token_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merchants.csv").write_text(
        "appid,name,env,owner\nwxtea,茶语小铺,tea-1,\nwxbooks,城南书店,books-1,\nwxbooks,城南书店,own-1,platform\n",
        encoding="utf-8",
    )
    rows = [
        *(("tea-1", n) for n in range(12)),
        *(("books-1", n) for n in range(3)),
        ("own-1", 0),
        ("own-1", 1),
    ]
    (tmp_path / "list.csv").write_text(
        "env,path\n" + "".join(f"{env},{n}.png\n" for env, n in rows), encoding="utf-8"
    )
    with ExitStack() as stack:
        yield token_server_opener(stack, tmp_path)


@pytest.fixture
def dry_run(capsys):
    def typed(*words):
        capsys.readouterr()
        code = run_command(("links", "list.csv", "--dry-run", *words))
        result = capsys.readouterr()
        assert code == 0, result.err
        return result

    return typed


DAY = 86400.0
FITS = {
    # rows, quota, rate, seconds left of the day → fits
    "enough": ((10, Quota(100, 0, 10), None, DAY), True),
    "one too many": ((11, Quota(100, 0, 10), None, DAY), False),
    "none left": ((1, Quota(100, 100, 0), None, DAY), False),
    "no limit known": ((10, Quota(0, 0, 0), None, DAY), None),
    "not told": ((10, None, None, DAY), None),
    "in time": ((10, Quota(100, 0, 10), 1.0, 10), True),
    "too slow": ((11, Quota(100, 0, 50), 1.0, 10), False),
    "too slow, not told": ((11, None, 1.0, 10), False),
    "in time, not told": ((10, None, 1.0, 10), None),
}


@pytest.mark.parametrize(("given", "expected"), FITS.values(), ids=FITS)
def test_the_table_of_what_fits(given, expected):
    assert fits(*given) is expected


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (datetime(2026, 3, 1, 15, 59, 30, tzinfo=UTC), 30),
        (datetime(2026, 3, 1, 16, 0, 0, tzinfo=UTC), 86400),
        (datetime(2026, 3, 1, 4, 0, 0, tzinfo=UTC), 12 * 3600),
    ],
    ids=["just before", "midnight", "noon"],
)
def test_the_day_ends_at_midnight_in_beijing(now, left):
    assert seconds_left_of_the_day(now) == left


def test_calls_left_are_shown_and_too_many_rows_warned_of(open_token_server, dry_run):
    token_server = open_token_server(
        [TEA, BOOKS, OWN],
        accounts=[
            SimulatedAccount("wxtea", daily_limit=10, used=3),
            SimulatedAccount("wxbooks", daily_limit=99),
        ],
    )
    result = dry_run()
    assert "More rows than link calls left today: 茶语小铺 (12 rows, 7 left)." in result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert ["茶语小铺", "1", "12", "12", "7", "NO", "–"] in lines
    assert ["城南书店", "2", "5", "5", "99", "–", "–"] in lines
    assert any(line[-4:] == ["2", "–", "–", "–"] for line in lines), result.out
    assert (token_server.sim.stats["link_calls"], token_server.sim.stats["quota"]) == (0, 3)


def test_the_platforms_own_environments_count_against_the_components_calls(open_token_server, dry_run):
    open_token_server(
        [TEA, BOOKS, OWN],
        accounts=[
            SimulatedAccount(COMPONENT.appid, daily_limit=1),
            SimulatedAccount("wxbooks", daily_limit=9),
        ],
    )
    result = dry_run("--json")
    found = json.loads(result.out)
    quota = {"daily_limit": 1, "used": 0, "remain": 1}
    assert found["platform"] == {"appid": COMPONENT.appid, "rows": 2, "quota": quota, "fits": False}
    by_appid = {line["appid"]: (line["quota"], line["fits"]) for line in found["by_merchant"]}
    assert by_appid == {
        "wxtea": (None, None),
        "wxbooks": ({"daily_limit": 9, "used": 0, "remain": 9}, False),
    }
    assert "the platform's own environments (2 rows, 1 left)" in result.err


def test_rows_of_a_merchant_that_has_left_are_told_and_no_calls_of_theirs_counted(open_token_server, dry_run):
    token_server = open_token_server([TEA, BOOKS, OWN])
    (token_server.folder / "merchants.csv").write_text(
        "appid,name,env,status\nwxtea,茶语小铺,tea-1,left\nwxbooks,城南书店,books-1,\nwxbooks,城南书店,own-1,\n",
        encoding="utf-8",
    )
    result = dry_run()
    assert "12 of them will not be attempted: the merchant has left (茶语小铺)" in result.out
    assert "5 calls to" in result.out
    found = json.loads(dry_run("--json").out)
    assert (found["valid"], found["merchant_left"], found["calls"]) == (17, 12, 5)
    assert {line["appid"]: line["calls"] for line in found["by_merchant"]} == {"wxtea": 0, "wxbooks": 5}
    assert token_server.sim.stats["quota"] == 2  # the one that has left is not asked about
    assert "其中 12 行不会执行：商户已离开（茶语小铺）" in dry_run("--lang", "zh").out


def test_a_rate_that_needs_more_than_a_day_is_warned_of(open_token_server, dry_run):
    open_token_server([TEA, BOOKS, OWN])
    result = dry_run(
        "--rate", "0.00002", "--lang", "zh"
    )  # not even the two rows of one account fit into a day
    assert "按此速率今天调用不完：城南书店、平台自有环境、茶语小铺 最长需要 166h40m" in result.err
    assert "今天调用不完" not in dry_run("--rate", "1000000", "--lang", "zh").err


@pytest.mark.parametrize(
    ("beijing", "says"),
    [
        ((0, 0), "茶语小铺 最长需要 33h20m，而配额日在北京时间零点结束，还有 24h00m"),
        ((15, 39), "茶语小铺 最长需要 33h20m，而配额日在北京时间零点结束，还有 8h21m"),
        ((15, 41), "城南书店、茶语小铺 最长需要 33h20m，而配额日在北京时间零点结束，还有 8h19m"),
        (
            (23, 59),
            "城南书店、平台自有环境、茶语小铺 最长需要 33h20m，而配额日在北京时间零点结束，还有 1m00s",
        ),
    ],
    ids=["midnight", "before the second's", "after it", "the last minute"],
)
def test_what_is_left_of_the_day_decides_who_is_warned_of(open_token_server, beijing, says):
    token_server = open_token_server([TEA, BOOKS, OWN])
    batch = tcb.read_paths("list.csv", tcb.read_merchants("merchants.csv"))
    now = datetime(2026, 3, 1, *beijing, tzinfo=timezone(timedelta(hours=8)))
    allowances = ask_allowances(token_server.settings, accounts_to_ask(batch, token_server.settings))
    cost = reckon(batch, token_server.settings, RunLimits(rate=0.0001), allowances, now)
    warnings = cost.warnings({merchant.appid: merchant.name for merchant in (TEA, BOOKS)})
    assert any(f"按此速率今天调用不完：{says}。" in text.zh for text in warnings)


def test_where_it_cannot_be_asked_it_says_so_once_and_goes_on(open_token_server, dry_run):
    token_server = open_token_server([TEA, BOOKS, OWN], accounts=[SimulatedAccount("wxtea", daily_limit=10)])
    token_server.keep_tokens("wxtea")
    result = dry_run("--json")
    assert {line["appid"]: line["fits"] for line in json.loads(result.out)["by_merchant"]} == {
        "wxtea": False,
        "wxbooks": None,
    }
    assert result.err.count("unknown for some") == 1
    (token_server.folder / "tokens.csv").unlink()
    assert "unknown for some" in dry_run().err
    result = dry_run("--api-base", "http://127.0.0.1:1")
    assert "unknown for some" in result.err


@pytest.mark.slow
def test_what_does_not_answer_in_time_is_not_waited_for(open_token_server):
    token_server = open_token_server(
        [TEA, BOOKS],
        [Fault(appid="wxtea", step=FaultStep.QUOTA, delay=30)],
        accounts=[SimulatedAccount("wxbooks", daily_limit=5)],
    )
    found = ask_allowances(token_server.settings, [QuotaAccount("wxtea"), QuotaAccount("wxbooks")], seconds=2)
    assert found.quotas == {QuotaAccount("wxbooks"): Quota(5, 0, 5)}
    assert "within 2 s" in found.why_not.en

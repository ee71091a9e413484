"""What an account has and may still do: environments of both owners, permission sets, quotas."""

import pytest

from tcb_ops.features.simulator.faults import EnvStatus, SimulatedAccount, SimulatedEnvironment
from tcb_ops.model import Merchant, Owner

SHOP, BOOKS, PLATFORM = "wx0000000000000001", "wx0000000000000002", "wxcccccccccccccccc"
TOKENS = {SHOP: "of-shop", BOOKS: "of-books", PLATFORM: "of-platform"}
MERCHANTS = (
    Merchant(SHOP, "梧桐花店", "shop-a-1f2e3d"),
    Merchant(SHOP, "梧桐花店", "shared-77aa"),
    Merchant(BOOKS, "海盐书房", "shared-77aa"),
    Merchant(BOOKS, "海盐书房", "own-1a2b3c", owner=Owner.PLATFORM),
    Merchant(SHOP, "梧桐花店", "own-1a2b3c", owner=Owner.PLATFORM),
    Merchant(SHOP, "梧桐花店", "own-4d5e6f", owner=Owner.PLATFORM),
)


@pytest.fixture
def town(start):
    def started(**options):
        return start(merchants=MERCHANTS, tokens=TOKENS, component_appid=PLATFORM, **options)

    return started


def envs(answer):
    return [entry["env"] for entry in answer["info_list"]]


def test_getenvinfo_has_the_documented_shape(town):
    answer = town(clock=lambda: 1554344968).call("tcb/getenvinfo", "of-shop", env="shop-a-1f2e3d")
    assert answer == {
        "errcode": 0,
        "errmsg": "ok",
        "info_list": [
            {
                "env": "shop-a-1f2e3d",
                "alias": "shop-a",
                "create_time": "2019-04-04 10:29:28",
                "update_time": "2019-04-04 10:29:28",
                "status": "NORMAL",
                "package_id": "basic",
                "package_name": "基础版 1",
            }
        ],
    }


def test_a_merchant_sees_its_own_environments_and_the_platform_its_own(town):
    talk = town()
    assert envs(talk.call("tcb/getenvinfo", "of-shop")) == ["shop-a-1f2e3d", "shared-77aa"]
    assert envs(talk.call("tcb/getenvinfo", "of-books")) == ["shared-77aa"]
    answer = talk.call("componenttcb/describeenvs", "of-platform")
    assert envs(answer) == ["own-1a2b3c", "own-4d5e6f"]
    assert answer["info_list"][0]["bucket_id"] == "6f77-own-1a2b3c-1258717764"
    assert talk.call("tcb/getenvinfo", "of-shop", env="own-1a2b3c")["errcode"] == -601012
    assert talk.sim.stats[f"env_info:{SHOP}"] == 2


LINKS = [
    ("tcb", "of-shop", "shop-a-1f2e3d", 0),
    ("tcb", "of-shop", "shared-77aa", 0),
    ("tcb", "of-books", "shared-77aa", 0),
    ("tcb", "of-books", "shop-a-1f2e3d", -601012),
    ("tcb", "of-shop", "own-1a2b3c", -601012),
    ("tcb", "of-platform", "own-1a2b3c", 48001),
    ("componenttcb", "of-platform", "own-1a2b3c", 0),
    ("componenttcb", "of-platform", "own-4d5e6f", 0),
    ("componenttcb", "of-platform", "shop-a-1f2e3d", -601012),
    ("componenttcb", "of-shop", "own-1a2b3c", 61014),
    ("componenttcb", "unknown", "own-1a2b3c", 40001),
]


@pytest.mark.parametrize(("wing", "token", "env", "errcode"), LINKS)
def test_an_environment_is_served_to_its_owner_with_the_right_token(town, wing, token, env, errcode):
    assert town().call(f"{wing}/uploadfile", token, env=env, path="a.png")["errcode"] == errcode


@pytest.mark.parametrize(
    ("account", "errcode"),
    [
        (SimulatedAccount(SHOP, revoked=True), 61003),
        (SimulatedAccount(SHOP, permissions=()), 61007),
        (SimulatedAccount(SHOP, permissions=(18,)), 61007),
        (SimulatedAccount(SHOP, permissions=(49,)), 0),
        (SimulatedAccount(SHOP, permissions=(64,)), 0),
        (SimulatedAccount(SHOP, cloud=False), 85088),
        (SimulatedAccount(SHOP, revoked=True, permissions=(), cloud=False), 61003),
        (SimulatedAccount(SHOP, permissions=(), cloud=False), 61007),
    ],
)
def test_an_account_that_is_not_in_order_is_refused(town, account, errcode):
    talk = town(accounts=[account])
    calls = (
        ("tcb/uploadfile", {"path": "a"}),
        ("tcb/getenvinfo", {}),
        ("tcb/batchdeletefile", {"fileid_list": ["cloud://a.b/c"]}),
        ("tcb/batchdownloadfile", {"file_list": [{"fileid": "cloud://a.b/c"}]}),
    )
    for route, body in calls:
        assert talk.call(route, "of-shop", env="shop-a-1f2e3d", **body)["errcode"] == errcode
    assert talk.call("tcb/uploadfile", "of-books", env="shared-77aa", path="a")["errcode"] == 0
    assert talk.call("componenttcb/uploadfile", "of-platform", env="own-1a2b3c", path="a")["errcode"] == 0


@pytest.mark.parametrize(
    ("status", "errcode"), [(EnvStatus.HALTED, -501005), (EnvStatus.UNAVAILABLE, -501018)]
)
def test_an_environment_that_is_not_normal_says_so_and_takes_no_files(town, status, errcode):
    talk = town(
        environments=[
            SimulatedEnvironment("shop-a-1f2e3d", status),
            SimulatedEnvironment("own-1a2b3c", status),
        ]
    )
    listed = talk.call("tcb/getenvinfo", "of-shop")["info_list"]
    assert [entry["status"] for entry in listed] == [status, "NORMAL"]
    asked = {"env": "shop-a-1f2e3d", "path": "a"}
    assert talk.call("tcb/uploadfile", "of-shop", **asked)["errcode"] == errcode
    result = talk.call("componenttcb/uploadfile", "of-platform", env="own-1a2b3c", path="a")
    assert result["errcode"] == errcode
    talk.sim.set_status("shop-a-1f2e3d", EnvStatus.NORMAL)
    assert talk.call("tcb/uploadfile", "of-shop", **asked)["errcode"] == 0


def test_an_environment_of_somebody_else_is_neither_listed_nor_served(town):
    talk = town(
        environments=[
            SimulatedEnvironment("shop-a-1f2e3d", foreign=True),
            SimulatedEnvironment("own-1a2b3c", foreign=True),
        ]
    )
    listed = talk.call("tcb/getenvinfo", "of-shop")["info_list"]
    assert [entry["env"] for entry in listed] == ["shared-77aa"]
    assert talk.call("tcb/getenvinfo", "of-shop", env="shop-a-1f2e3d")["errcode"] == -601012
    own = talk.call("componenttcb/describeenvs", "of-platform")["info_list"]
    assert "own-1a2b3c" not in [entry["env"] for entry in own]
    for wing, token, env in (
        ("tcb", "of-shop", "shop-a-1f2e3d"),
        ("componenttcb", "of-platform", "own-1a2b3c"),
    ):
        assert talk.call(f"{wing}/uploadfile", token, env=env, path="a")["errcode"] == -601012


def quota(talk, token, cgi_path):
    return talk.call("cgi-bin/openapi/quota/get", token, cgi_path=cgi_path)


def test_uploadfile_counts_against_the_quota_of_its_appid(town):
    talk = town(accounts=[SimulatedAccount(SHOP, daily_limit=12, used=10)])
    answer = quota(talk, "of-shop", "/tcb/uploadfile")
    assert list(answer) == ["errcode", "errmsg", "quota", "rate_limit", "component_rate_limit"]
    assert answer["quota"] == {"daily_limit": 12, "used": 10, "remain": 2}
    assert answer["rate_limit"] == {"call_count": 5000, "refresh_second": 60}
    codes = [
        talk.call("tcb/uploadfile", "of-shop", env=env, path="a")["errcode"]
        for env in ("shop-a-1f2e3d", "shared-77aa", "shop-a-1f2e3d")
    ]
    assert codes == [0, 0, 45009]
    assert quota(talk, "of-shop", "/tcb/uploadfile")["quota"] == {"daily_limit": 12, "used": 12, "remain": 0}
    assert talk.call("tcb/uploadfile", "of-books", env="shared-77aa", path="a")["errcode"] == 0
    assert quota(talk, "of-books", "/tcb/uploadfile")["quota"] == {"daily_limit": 0, "used": 1, "remain": 0}
    assert quota(talk, "of-shop", "/tcb/getenvinfo")["quota"]["used"] == 0


@pytest.mark.parametrize(
    ("token", "cgi_path", "errcode"),
    [
        ("of-shop", "/cgi-bin/openapi/quota/get", 0),
        ("of-platform", "/componenttcb/describeenvs", 0),
        ("of-platform", "/tcb/uploadfile", 76022),
        ("of-shop", "/componenttcb/uploadfile", 76022),
        ("of-shop", "/tcb/nothing", 76021),
        ("of-shop", "tcb/uploadfile", 76003),
        ("of-shop", "https://api.weixin.qq.com/tcb/uploadfile", 76003),
        ("of-shop", "/tcb/uploadfile?access_token=x", 76003),
        ("of-shop", 7, 76003),
        ("of-shop", "", 40101),
        ("unknown", "/tcb/uploadfile", 40001),
    ],
)
def test_a_quota_is_told_for_paths_of_the_right_form_and_token(town, token, cgi_path, errcode):
    assert quota(town(), token, cgi_path)["errcode"] == errcode

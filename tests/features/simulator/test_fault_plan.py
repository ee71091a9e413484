import pytest

from tcb_ops.errors import SettingsError
from tcb_ops.features.simulator.faults import (
    Component,
    EnvStatus,
    Etag,
    Fault,
    Faults,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
    load_faults,
)


def plan(tmp_path, text):
    file = tmp_path / "faults.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('env = "a"\nerrcode = 85088', Fault("a", errcode=85088)),
        ('appid = "wx1"\nerrcode = -1\nerrmsg = "busy"', Fault(appid="wx1", errcode=-1, errmsg="busy")),
        (
            'env = "a"\npath = "b/*"\nstep = "store"\ncode = "SlowDown"',
            Fault("a", path="b/*", step=FaultStep.STORE, code="SlowDown"),
        ),
        ('env = "a"\nreset = true', Fault("a", reset=Reset.BEFORE)),
        ('env = "a"\nreset = "middle"', Fault("a", reset=Reset.MIDDLE)),
        ('env = "a"\nbody = "garbage"', Fault("a", body="garbage")),
        ('env = "a"\nother_env = "b-1"', Fault("a", other_env="b-1")),
        (
            'env = "a"\nstep = "store"\netag = "opaque"\ndelay = 1',
            Fault("a", step=FaultStep.STORE, etag=Etag.OPAQUE, delay=1.0),
        ),
        ('env = "a"\ncall = 2\nerrcode = -1', Fault("a", calls=((2, 2),), errcode=-1)),
        ('env = "a"\ncall = "1-3"\nerrcode = -1', Fault("a", calls=((1, 3),), errcode=-1)),
        ('env = "a"\ncall = [1, "4-5"]\nerrcode = -1', Fault("a", calls=((1, 1), (4, 5)), errcode=-1)),
    ],
)
def test_an_entry_is_read(tmp_path, text, wanted):
    assert load_faults(plan(tmp_path, f"[[fault]]\n{text}\n")) == Faults((wanted,))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('env = ""\nerrcode = 1', "env must be non-empty text"),
        ('env = "a"\nerrcod = 1', "errcod does not exist"),
        ('env = "a"\nstep = "stroe"\ndelay = 1', "(did you mean “store”?)"),
        ('env = "a"\nerrcode = "85088"', "whole number"),
        ('env = "a"\nstatus = 200', "from 300 to 599"),
        ('env = "a"\nreset = "end"', 'true or "middle"'),
        ('env = "a"\nbody = "x"', "garbage"),
        ('env = "a"\ndelay = nan', "seconds"),
        ('env = "a"\ncall = "3-1"\nerrcode = 1', "counts from 1"),
        ('env = "a"\ncall = true\nerrcode = 1', "counts from 1"),
    ],
)
def test_a_wrong_entry_names_the_file_and_its_number(tmp_path, text, result):
    file = plan(tmp_path, f'[[fault]]\nenv = "ok"\nerrcode = -1\n[[fault]]\n{text}\n')
    with pytest.raises(SettingsError) as caught:
        load_faults(file)
    assert f"{file}: fault 2: " in caught.value.text.en
    assert result in caught.value.text.en
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("fault", "env", "appid", "path", "call", "played"),
    [
        (Fault("a", errcode=1), "a", "wx1", "p", 1, True),
        (Fault("a", errcode=1), "ab", "wx1", "p", 1, False),
        (Fault("a*", errcode=1), "ab", "wx1", "p", 1, True),
        (Fault("A", errcode=1), "a", "wx1", "p", 1, False),
        (Fault(appid="wx1", errcode=1), "b", "wx1", "p", 1, True),
        (Fault("a", "wx1", errcode=1), "a", "wx2", "p", 1, False),
        (Fault("a", path="b/*.png", errcode=1), "a", "wx1", "b/c/d.png", 1, True),
        (Fault("a", path="b/*.png", errcode=1), "a", "wx1", "b/d.jpg", 1, False),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 1, False),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 3, True),
        (Fault("a", calls=((2, 3),), errcode=1), "a", "wx1", "p", 4, False),
        (Fault("a", step=FaultStep.STORE, code="X"), "a", "wx1", "p", 1, False),
    ],
)
def test_a_fault_is_played_where_it_fits(fault, env, appid, path, call, played):
    found = Faults((fault,)).within(env, appid).find(FaultStep.LINK, path, call)
    assert found is (fault if played else None)


def test_the_first_entry_that_fits_is_played():
    first, second = Fault("a", calls=((1, 1),), errcode=1), Fault("a", errcode=2)
    faults = Faults((first, second))
    assert [faults.find(FaultStep.LINK, "p", call) for call in (1, 2)] == [first, second]


PLATFORM = """
[component]
appid = "wxc"
secret = "practice-secret"
ticket = "practice-ticket"
rotate = true
ip_refused = true
token_lifetime = 60
ticket_lifetime = 600
overlap = 0

[[account]]
appid = "wx1"
name = "梧桐花店"
revoked = true
permissions = [18, 64]
cloud = false
daily_limit = 1000
used = 990
refresh_token = "practice-refresh"

[[account]]
appid = "wxc"
daily_limit = 7

[[environment]]
env = "a"
status = "HALTED"

[[environment]]
env = "b"
foreign = true

[[fault]]
appid = "wx1"
step = "authorizer_token"
errcode = 50002
"""


def test_a_plan_says_who_is_not_in_order(tmp_path):
    assert load_faults(plan(tmp_path, PLATFORM)) == Faults(
        (Fault(appid="wx1", step=FaultStep.AUTHORIZER_TOKEN, errcode=50002),),
        Component(
            "wxc",
            "practice-secret",
            "practice-ticket",
            rotate=True,
            ip_refused=True,
            token_lifetime=60,
            ticket_lifetime=600,
            overlap=0,
        ),
        (
            SimulatedAccount(
                "wx1",
                "梧桐花店",
                revoked=True,
                permissions=(18, 64),
                cloud=False,
                daily_limit=1000,
                used=990,
                refresh_token="practice-refresh",
            ),
            SimulatedAccount("wxc", daily_limit=7),
        ),
        (SimulatedEnvironment("a", EnvStatus.HALTED), SimulatedEnvironment("b", foreign=True)),
    )


def test_the_sample_s_plan_names_only_merchants_and_environments_that_are_there():
    from tcb_ops.features.simulator.sample import FAULTS, MERCHANTS
    from tcb_ops.lists.merchants import read_merchants

    faults, merchants = load_faults(FAULTS), list(read_merchants(MERCHANTS))
    assert faults.component is None
    assert {account.appid for account in faults.accounts} <= {merchant.appid for merchant in merchants}
    assert {environment.env for environment in faults.environments} <= {m.env for m in merchants}
    assert all(any(fault.concerns(m.env, m.appid) for m in merchants) for fault in faults.entries)


@pytest.mark.parametrize(
    ("text", "where", "result"),
    [
        ('[component]\nappid = "wx*"', "component: ", "for exactly one"),
        ('[component]\nappid = "c"\ntoken_lifetime = 0', "component: ", "from 1 to 86400"),
        ('[component]\nappid = "c"\nappsecret = "planted"', "component: ", "appsecret does not exist"),
        ("[[account]]\nrevoked = true", "account 1: ", "appid is missing"),
        ('[[account]]\nappid = "a"\npermissions = ["49"]', "account 1: ", "whole number"),
        (
            '[[environment]]\nenv = "a"\nstatus = "ILL"',
            "environment 1: ",
            '"NORMAL" or "HALTED" or "UNAVAILABLE"',
        ),
        ('[[fault]]\nenv = "a"\nstep = "tokens"\nerrcode = 1', "fault 1: ", "authorizer_token"),
    ],
)
def test_a_mistake_about_the_platform_names_file_and_entry_and_no_secret(tmp_path, text, where, result):
    file = plan(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_faults(file)
    assert f"{file}: {where}" in caught.value.text.en
    assert result in caught.value.text.en
    assert caught.value.text.zh.startswith(f"{file}：")
    assert "planted" not in caught.value.text.en + caught.value.text.zh
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["[[fault]\n", "[fault]\nenv = 'a'\n", "[[faults]]\nenv = 'a'\n", "fault = [1]\n", "[[component]]\n", "account = 1\n"],
)  # fmt: skip
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path, text):
    with pytest.raises(SettingsError, match=r"faults\.toml"):
        load_faults(plan(tmp_path, text))

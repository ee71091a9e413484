"""Settings: the file, the environment above it, options above both; and no value in a message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tables import table

from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import ArgumentError, SettingsError
from tcb_ops.i18n import Lang
from tcb_ops.settings import NOT_STARTED, Settings, load_settings, setting_values


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text, name="tcb-ops.toml"):
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_the_defaults_hold():
    settings = load_settings()
    assert settings.api_base == "https://api.weixin.qq.com"
    assert (settings.merchants, settings.ledger) == (Path("merchants.csv"), "tcb-ops.db")
    assert (settings.tokens.source, settings.tokens.file) == ("file", Path("tokens.csv"))
    assert (settings.timezone, settings.confirm_over, settings.etag) == ("Asia/Shanghai", 5, "fail")
    assert settings.store_hosts == ()
    assert not settings.on_loopback


def test_options_override_the_environment_which_overrides_the_file(monkeypatch):
    write('api_base = "https://file.example.com"\nconfirm_over = 1\netag = "warn"\ntimezone = "Asia/Tokyo"')
    monkeypatch.setenv("TCB_OPS_API_BASE", "https://env.example.com")
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "2")
    settings = load_settings(options={"api_base": "https://option.example.com", "confirm_over": None})
    assert settings.api_base == "https://option.example.com"
    assert settings.confirm_over == 2
    assert (settings.etag, settings.timezone) == ("warn", "Asia/Tokyo")


def test_nested_settings_are_merged_one_by_one(monkeypatch):
    write('[tokens]\nsource = "command"\ncommand = ["get-token", "--all"]\nfile = "t.csv"')
    monkeypatch.setenv("TCB_OPS_TOKENS__SOURCE", "file")
    tokens = load_settings(options={"tokens": {"file": Path("mine.csv")}}).tokens
    assert (tokens.source, tokens.command, tokens.file) == ("file", ("get-token", "--all"), Path("mine.csv"))


def test_paths_of_the_file_are_relative_to_its_folder_and_others_to_the_working_folder(monkeypatch):
    file = write('merchants = "m.csv"\nledger = "runs.db"\n[tokens]\nfile = "t.csv"', "conf/mine.toml")
    settings = load_settings(file)
    assert settings.merchants == Path("conf/m.csv")
    assert Path(settings.ledger) == Path("conf/runs.db")
    assert settings.tokens.file == Path("conf/t.csv")
    monkeypatch.setenv("TCB_OPS_MERCHANTS", "here.csv")
    assert load_settings(file, {"ledger": "there.db"}).merchants == Path("here.csv")
    assert load_settings(file, {"ledger": "there.db"}).ledger == "there.db"


@table(
    "value, words",
    {
        "words": ("get-token --appid {appid} 'a b'", ("get-token", "--appid", "{appid}", "a b")),
        "json": ('["get-token", "{appid}"]', ("get-token", "{appid}")),
    },
)
def test_a_list_from_the_environment_is_json_or_words(monkeypatch, value, words):
    monkeypatch.setenv("TCB_OPS_TOKENS__COMMAND", value)
    monkeypatch.setenv("TCB_OPS_STORE_HOSTS", value)
    assert load_settings().tokens.command == words
    assert load_settings().store_hosts == words


@pytest.mark.parametrize(
    ("spoken", "lang"),
    [("zh_CN.UTF-8", Lang.ZH), ("zh_TW", Lang.ZH), ("en_GB.UTF-8", Lang.EN), ("C", Lang.EN), ("", Lang.EN)],
)
def test_the_language_is_the_systems_unless_it_is_set(monkeypatch, spoken, lang):
    monkeypatch.setenv("LANG", spoken)
    assert load_settings().lang is lang
    assert load_settings(options={"lang": "zh"}).lang is Lang.ZH


@pytest.mark.parametrize(
    "base",
    [
        "http://api.weixin.qq.com",
        "http://127.0.0.1.example.com",
        "api.weixin.qq.com",
        "ftp://api.weixin.qq.com",
        "https://",
        "https://u:hunter2@api.weixin.qq.com",
        "https://api.weixin.qq.com/?access_token=hunter2",
        "https://api.weixin.qq.com/#x",
        "https://api.weixin.qq.com?",
        "https://[hunter2",
        "https://api.weixin.qq.com:99999",
        "https://api.weixin.qq.com:0",
        "https://api.weixin.qq.com:hunter2",
        "https://api.weixin.qq.com/a b",
        "https://api.weixin.qq.com\n",
        "https://api.weixin\x00.qq.com",
        f"https://{'h' * 64}.com",
        "https://a,b",
        "",
    ],
)
def test_an_api_base_that_would_give_tokens_away_is_refused_without_showing_it(base):
    with pytest.raises(SettingsError, match="api_base") as caught:
        load_settings(options={"api_base": base})
    assert "hunter2" not in f"{caught.value!r}{caught.value.text.zh}{caught.value.__context__}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("base", "kept", "loopback"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", True),
        ("http://localhost:1", "http://localhost:1", True),
        ("http://[::1]:1", "http://[::1]:1", True),
        ("https://网关.example.cn:8443", "https://网关.example.cn:8443", False),
        ("https://gate.example.com/wx/", "https://gate.example.com/wx", False),
    ],
)
def test_a_good_api_base_is_kept_without_its_last_slash(base, kept, loopback):
    settings = load_settings(options={"api_base": base})
    assert (settings.api_base, settings.on_loopback) == (kept, loopback)


@pytest.mark.needs("health")
@table(
    "text, where",
    {
        "unknown": ('colour = "red"', "colour: there is no such setting; the names are api"),
        "mistyped": ('lang = "zh"\nlegder = "x"', "legder: … (did you mean ledger"),
        "mistyped-nested": ("[tokens]\nfiel = 1", "tokens.fiel: … (did you mean tokens.file"),
        "wrong-section": ('auth_env = "K"', "auth_env: … (did you mean tokens.auth_env"),
        "source": ('\n# x\n[tokens]\nfile = "a"\nsource = "magic"', 'tokens.source: must be "file" or'),
        "no-time-zone": ('timezone = "Mars/Base"', "timezone: must be a time zone"),
        "no-language": ('lang = "de"', 'lang: must be "en" or "zh"'),
        "no-number": ('confirm_over = "5 or so"', "confirm_over: must be a whole number"),
        "number-for-a-list": ("store_hosts = 5", "store_hosts: must be a list of texts"),
        "number-for-a-path": ("merchants = 5", "merchants: must be a path in quotes"),
        "no-boolean": ("[tokens]\nsole_owner = 5", "tokens.sole_owner: must be true or false"),
        "no-toml": ("x = = 1", "1: this is not TOML"),
        "no-quotes": ('etag = "fail"\n\nlang = zh\n[tokens]', "3: this is not TOML"),
        "open-bracket": ('lang = "zh"\n[tokens\n', "2: this is not TOML"),
        "not-closed": ("lang = [", "1: this is not TOML"),
        "repeated-section": ('[[notify]]\nkind = "x"', 'notify[1].kind: must be "wecom" or'),
        "second-of-a-repeated-section": (
            '[[notify]]\nkind = "command"\ncommand = ["a"]\n[[notify]]\nto = "x"',
            "notify[2].to: there is no such setting…notify[2].kind: is missing",
        ),
        "no-section": (
            "[limits]\nx = 1",
            "limits: there is no such section: remove it, or correct its name (",
        ),
    },
)
def test_a_wrong_setting_is_named_with_file_and_what_is_expected(text, where):
    write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    line, *parts = where.split("…")
    problem = caught.value.text
    place = "tcb-ops.toml:" if "TOML" in line else "tcb-ops.toml: "
    assert f"{place}{line.strip()}" in problem.en, problem.en
    assert [part for part in parts if part not in problem.en] == [], problem.en
    assert problem.zh.startswith("tcb-ops.toml")
    assert not re.search(r"[a-z]+ [a-z]+ [a-z]+", problem.zh), problem.zh


@pytest.mark.needs("health")
def test_the_mistakes_of_repeated_sections_are_reported_in_one_pass_with_their_numbers():
    wecom = '[[notify]]\nkind = "wecom"\n'
    write(f'lang = "de"\n{wecom}on = "never"\n{wecom}url_file = 5\n[[notify]]\nkind = "command"\nto = "x"')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert re.findall(r"tcb-ops.toml: ([^:]+): (.+?) ", caught.value.text.en) == [
        ("lang", "must"),
        ("notify[1].on", "must"),
        ("notify[1].kind", '"wecom"'),
        ("notify[2].url_file", "must"),
        ("notify[3].to", "there"),
        ("notify[3].kind", '"command"'),
    ]


def test_all_mistakes_are_reported_in_one_pass(monkeypatch):
    write('legder = "x"\nlang = "de"\nstore_hosts = ["a", 5, 6]\n[tokens]\nfiel = 1\nsource = "magic"')
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "hunter2")
    monkeypatch.setenv("TCB_OPS_MERCHANT", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = caught.value.text
    assert [line.rpartition(": ")[0].partition(": must")[0] for line in text.en.splitlines()] == [
        *(
            f"tcb-ops.toml: {name}"
            for name in ("legder", "lang", "store_hosts", "tokens.fiel", "tokens.source")
        ),
        "TCB_OPS_CONFIRM_OVER",
        "TCB_OPS_MERCHANT",
    ]
    assert "(did you mean ledger?).\n" in text.en
    assert "（您要写的是不是“ledger”？）。\n" in text.zh
    assert "hunter2" not in text.en + text.zh


@pytest.mark.parametrize("variable", ["TCB_OPS_LEGDER", "TCB_OPS_TOKENS_SOURCE", "TCB_OPS_TOKENS"])
def test_an_unknown_variable_is_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "hunter2")
    with pytest.raises(SettingsError, match=f"^{variable}: there is no such setting") as caught:
        load_settings()
    assert not re.search(r"[a-z]+ [a-z]+ [a-z]+|hunter2", caught.value.text.zh)


def test_variables_that_our_own_code_and_tests_read_are_known(monkeypatch):
    root = Path(__file__).parents[2]
    files = (file for folder in ("tcb_ops", ".ci", "tests") for file in (root / folder).rglob("*"))
    texts = [file.read_text("utf-8") for file in files if file.suffix == ".py" or file.name == "run"]
    names = set(re.findall(r"\bTCB_OPS_[A-Z_]*[A-Z]\b", "".join(texts))) - {
        "TCB_OPS_TOKENS",
        "TCB_OPS_LEGDER",
        "TCB_OPS_TOKENS_SOURCE",
        "TCB_OPS_MERCHANT",
    }
    assert len(names) > 10
    for name in names:
        monkeypatch.setenv(name, "")
    with pytest.raises(SettingsError) as caught:  # no setting is right when it is empty
        load_settings(options={"api_base": "https://api.example.com"})
    assert [line for line in caught.value.text.en.splitlines() if "no such setting" in line] == []


def test_words_of_libraries_never_show_whatever_is_wrong():
    """Every setting is given every kind of wrong value."""
    wrong = ("5", "-5", "1.5", "true", '"x y"', "[5]", '[["x"]]', "{x = 1}", "1979-05-27", "nan")
    foreign = re.compile(r"(?i)valid|input|msgspec|value error|should|type=|decod|expect")
    found = []
    for key in setting_values():
        section, _dot, name = key.rpartition(".")
        for value in wrong:
            write(f"[{section}]\n{name} = {value}" if section else f"{name} = {value}")
            try:
                load_settings()
            except SettingsError as error:
                found.append((f": {key}", error.text))
    assert len(found) > 100
    assert [text.en for _, text in found if foreign.search(text.en + text.zh)] == []
    assert [text.en for name, text in found if name not in text.en] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TCB_OPS_CONFIRM_OVER", "many-hunter2"),
        ("TCB_OPS_TOKENS__SOURCE", "hunter2"),
        ("TCB_OPS_STORE_HOSTS", '["a.hunter2.com'),
        ("TCB_OPS_TOKENS__COMMAND", "get 'hunter2"),
        ("TCB_OPS_TOKENS", "hunter2"),
        ("TCB_OPS_API_BASE", "http://hunter2.com"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert "hunter2" not in f"{caught.value!r}{caught.value.text.zh}"
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("target", "api_base", "run_target", "base"),
    [
        ("http://127.0.0.1:8765/", None, "http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765", "http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("simulator", None, "simulator", NOT_STARTED),
    ],
)
def test_settings_made_in_python_take_the_target_of_the_environment(
    monkeypatch, target, api_base, run_target, base
):
    monkeypatch.setenv("TCB_OPS_TARGET", target)
    if api_base is not None:
        monkeypatch.setenv("TCB_OPS_API_BASE", api_base)
    settings = Settings()
    assert (settings.run_target, settings.api_base) == (run_target, base)
    assert Settings(api_base="https://one.example").run_target == "https://one.example"
    simulated = Settings(target="simulator")
    assert (simulated.run_target, simulated.on_loopback) == ("simulator", True)
    assert Settings(target="https://one.example").api_base == "https://one.example"
    with pytest.raises(SettingsError, match="target and api_base specify different targets"):
        Settings(target="simulator", api_base="https://one.example")
    with pytest.raises(SettingsError, match=r"^target: must be"):
        Settings(target="weixin")


@pytest.mark.parametrize("read", [Settings, load_settings])
@pytest.mark.parametrize("api_base", [None, "weixin"])
def test_a_wrong_target_of_the_environment_is_reported_once(monkeypatch, read, api_base):
    monkeypatch.setenv("TCB_OPS_TARGET", "weixin")
    if api_base is not None:
        monkeypatch.setenv("TCB_OPS_API_BASE", api_base)
    with pytest.raises(SettingsError) as caught:
        read()
    assert str(caught.value) == (
        "TCB_OPS_TARGET: must be `simulator`, or look like https://api.weixin.qq.com. "
        "Correct it, then try again."
    )


def test_a_variable_names_the_file_as_the_option_does(monkeypatch):
    write("confirm_over = 1")
    write("confirm_over = 2", "other.toml")
    monkeypatch.setenv("TCB_OPS_CONFIG", "other.toml")
    assert load_settings().confirm_over == 2
    assert load_settings("tcb-ops.toml").confirm_over == 1
    with pytest.raises(SettingsError, match=r"nope\.toml: no such settings file. Check config"):
        load_settings("nope.toml")
    monkeypatch.setenv("TCB_OPS_CONFIG", "nope.toml")
    with pytest.raises(SettingsError, match=r"nope\.toml: no such settings file. Check TCB_OPS_CONFIG"):
        load_settings()


def test_a_settings_file_with_a_byte_order_mark_is_read():
    Path("tcb-ops.toml").write_text('lang = "zh"', encoding="utf-8-sig")
    assert load_settings().lang is Lang.ZH


@table(
    "content",
    {
        "utf-16": b"\xff\xfe\x00",
        "gbk": b"lang = '\xc4\xe3'",
    },
)
def test_a_settings_file_in_another_encoding_is_said(content):
    Path("tcb-ops.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"tcb-ops\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "shown", "repeated"),
    [
        ("postgresql://db.example.com/runs", "postgresql://db.example.com/runs", True),
        ("postgresql://op@db.example.com/runs", "postgresql://op@db.example.com/runs", True),
        ("postgresql://op@/runs?host=/var/run/postgresql", "postgresql://op@/runs", True),
        ("postgresql://op:hunter2@db:5432/runs", "postgresql://op@db:5432/runs", False),
        ("postgresql://op:hun@ter2@db/runs", "postgresql://db/runs", False),
        ("postgresql://op:hun/ter2@db/runs", "postgresql://op@db/runs", False),
        ("postgresql://op:hun?ter2@db/runs", "postgresql://…", False),
        ("postgresql://op@db/runs?password=hunter2", "postgresql://op@db/runs", False),
        ("postgresql://op@db/runs?password=hun@ter2", "postgresql://…", False),
        ("postgresql://db/runs?sslpassword=hunter2&host=h", "postgresql://db/runs", False),
        ("postgresql://db/runs?passfile=/hunter2", "postgresql://db/runs", False),
    ],
)
def test_a_database_url_is_shown_and_suggested_without_a_password(url, shown, repeated):
    settings = load_settings(options={"ledger": url})
    assert settings.ledger_name == shown
    assert settings.ledger_option == (url if repeated else "")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("name", ["rate", "backoff", "slow_wait", "patience"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pace_is_a_finite_number(name, value):
    with pytest.raises(ArgumentError, match=name):
        RunLimits(**{name: value})


@pytest.mark.posix("file names")
def test_paths_of_the_token_sources_are_relative_to_the_files_folder(monkeypatch):
    write(
        '[tokens]\nstore = "mine.tokens"\nsecret = "file: key"\nticket = "command:get-ticket --now"\n',
        "conf/tcb-ops.toml",
    )
    tokens = load_settings("conf/tcb-ops.toml").tokens
    assert (tokens.store, tokens.secret) == (Path("conf/mine.tokens"), "file:conf/key")
    assert tokens.ticket == "command:get-ticket --now"
    monkeypatch.setenv("TCB_OPS_TOKENS__TICKET", "file:here")
    assert load_settings("conf/tcb-ops.toml").tokens.ticket == "file:here"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("url", "tokens.example/{appid}", "must look like https"),
        ("url", "https://me:PrAcTiCe@tokens.example/{appid}", "must look like https"),
        ("url", "https://tokens.example/{appid} ", "must look like https"),
        ("url", "https://tokens.example/{appid}#PrAcTiCe", "must look like https"),
        ("url", "https://tokens.example/PrAcTiCe", "no {appid} after its host"),
        ("url", "https://{appid}.example/PrAcTiCe", "no {appid} after its host"),
        ("url", "http://tokens.example/{appid}?k=PrAcTiCe", "must be https"),
        ("secret", "PrAcTiCe", "not contain the secret itself"),
        ("secret", "env:", "not contain the secret itself"),
        ("ticket", "PrAcTiCe@@@", "not contain the secret itself"),
        ("auth_header", "X PrAcTiCe", "is not the name of a header"),
        ("sole_owner", "PrAcTiCe", "true or false"),
        ("source", "PrAcTiCe", '"service"'),
    ],
)
def test_a_token_setting_that_cannot_work_is_named_and_its_value_not_shown(name, value, why):
    with pytest.raises(SettingsError) as caught:
        load_settings(options={"tokens": {name: value}})
    text = caught.value.text
    assert f"tokens.{name}: " in text.en
    assert why in text.en
    assert text.zh != text.en
    assert "PrAcTiCe" not in text.en + text.zh
    assert caught.value.__cause__ is None


@pytest.mark.needs("health")
def test_files_that_are_not_named_stand_beside_the_settings_file(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "tcb-ops.db").touch()
    (elsewhere / "merchants.csv").touch()
    assert (load_settings().ledger, load_settings().reports) == ("tcb-ops.db", Path("reports"))
    (home / "tcb-ops.toml").write_text("", encoding="utf-8")
    settings = load_settings(home / "tcb-ops.toml")
    assert (settings.ledger, settings.reports) == (str(home / "tcb-ops.db"), home / "reports")
    assert (settings.merchants, settings.tokens.file) == (home / "merchants.csv", home / "tokens.csv")
    assert settings.section("audit").known == home / "known.csv"


@pytest.mark.parametrize(
    ("of_file", "variable", "is_rehearsal"),
    [
        ("simulator", None, True),
        ("simulator", "simulator", True),
        ("simulator", "https://api.weixin.qq.com", False),
        ("https://api.weixin.qq.com", "simulator", False),
        (None, "simulator", False),
        (None, None, False),
    ],
)
def test_a_settings_file_makes_its_folder_a_rehearsal(tmp_path, monkeypatch, of_file, variable, is_rehearsal):
    monkeypatch.chdir(tmp_path)
    if of_file:
        (tmp_path / "tcb-ops.toml").write_text(f'target = "{of_file}"\n', encoding="utf-8")
    if variable:
        monkeypatch.setenv("TCB_OPS_TARGET", variable)
    assert load_settings().is_rehearsal is is_rehearsal

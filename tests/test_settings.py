"""Settings: the file, the environment above it, options above both; and no value in a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tcb_ops.cli.options import pace_options
from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Lang
from tcb_ops.settings import load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text: str, name: str = "tcb-ops.toml") -> Path:
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.api_base == "https://api.weixin.qq.com"
    assert (settings.merchants, settings.ledger) == (Path("merchants.csv"), "tcb-ops.db")
    assert (settings.tokens.source, settings.tokens.file) == ("file", Path("tokens.csv"))
    assert (settings.timezone, settings.confirm_over, settings.etag) == ("Asia/Shanghai", 5, "fail")
    assert settings.store_hosts == ()
    assert not settings.on_loopback


def test_options_override_the_environment_which_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('api_base = "https://file.example.com"\nconfirm_over = 1\netag = "warn"\ntimezone = "Asia/Tokyo"')
    monkeypatch.setenv("TCB_OPS_API_BASE", "https://env.example.com")
    monkeypatch.setenv("TCB_OPS_CONFIRM_OVER", "2")
    settings = load_settings(options={"api_base": "https://option.example.com", "confirm_over": None})
    assert settings.api_base == "https://option.example.com"
    assert settings.confirm_over == 2
    assert (settings.etag, settings.timezone) == ("warn", "Asia/Tokyo")


def test_nested_settings_are_merged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[tokens]\nsource = "command"\ncommand = ["get-token", "--all"]\nfile = "t.csv"')
    monkeypatch.setenv("TCB_OPS_TOKENS__SOURCE", "file")
    tokens = load_settings(options={"tokens": {"file": Path("mine.csv")}}).tokens
    assert (tokens.source, tokens.command, tokens.file) == ("file", ("get-token", "--all"), Path("mine.csv"))


def test_paths_of_the_file_are_relative_to_its_folder_and_others_to_the_working_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write('merchants = "m.csv"\nledger = "runs.db"\n[tokens]\nfile = "t.csv"', "conf/mine.toml")
    settings = load_settings(file)
    assert settings.merchants == Path("conf/m.csv")
    assert Path(settings.ledger) == Path("conf/runs.db")
    assert settings.tokens.file == Path("conf/t.csv")
    monkeypatch.setenv("TCB_OPS_MERCHANTS", "here.csv")
    assert load_settings(file, {"ledger": "there.db"}).merchants == Path("here.csv")
    assert load_settings(file, {"ledger": "there.db"}).ledger == "there.db"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "TCB_OPS_TOKENS__COMMAND",
            "get-token --appid {appid} 'a b'",
            ("get-token", "--appid", "{appid}", "a b"),
        ),
        ("TCB_OPS_TOKENS__COMMAND", '["get-token", "{appid}"]', ("get-token", "{appid}")),
    ],
    ids=["a-command-line", "json"],
)
def test_a_token_command_from_the_environment_is_words(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv(variable, value)
    assert load_settings().tokens.command == words


@pytest.mark.parametrize("value", ['["store.example.com", ".example.cn"]', "store.example.com .example.cn"])
def test_a_list_from_the_environment_is_json_or_words(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TCB_OPS_STORE_HOSTS", value)
    assert load_settings().store_hosts == ("store.example.com", ".example.cn")


@pytest.mark.parametrize(
    ("spoken", "lang"),
    [("zh_CN.UTF-8", Lang.ZH), ("zh_TW", Lang.ZH), ("en_GB.UTF-8", Lang.EN), ("C", Lang.EN), ("", Lang.EN)],
)
def test_the_language_is_the_systems_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, spoken: str, lang: Lang
) -> None:
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
        "https://:hunter2@api.weixin.qq.com",
        "https://[hunter2",
        "https://api.weixin.qq.com:99999",
        "https://api.weixin.qq.com:0",
        "https://api.weixin.qq.com:hunter2",
        "https://api.weixin.qq.com/a b",
        "https://api.weixin.qq.com\n",
        "https://api.weixin\x00.qq.com",
        f"https://{'h' * 64}.com",
        "https://a..b",
        "https://a,b",
        "",
    ],
)
def test_an_api_base_that_would_give_tokens_away_is_refused_without_showing_it(base: str) -> None:
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
def test_a_good_api_base_is_kept_without_its_last_slash(base: str, kept: str, loopback: bool) -> None:
    settings = load_settings(options={"api_base": base})
    assert (settings.api_base, settings.on_loopback) == (kept, loopback)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param('colour = "red"', "tcb-ops.toml: colour", id="unknown"),
        pytest.param("[tokens]\nfiel = 1", "tcb-ops.toml: tokens.fiel", id="unknown-nested"),
        pytest.param('[tokens]\nsource = "magic"', "tcb-ops.toml: tokens.source", id="unknown-source"),
        pytest.param('timezone = "Mars/Base"', "tcb-ops.toml: timezone", id="no-time-zone"),
        pytest.param('lang = "de"', "tcb-ops.toml: lang", id="no-language"),
        pytest.param("confirm_over = -1", "tcb-ops.toml: confirm_over", id="negative"),
        pytest.param('etag = "ignore"', "tcb-ops.toml: etag", id="no-such-choice"),
        pytest.param("store_hosts = 5", "tcb-ops.toml: store_hosts", id="number-for-a-list"),
        pytest.param("tokens = 5", "tcb-ops.toml: tokens", id="number-for-a-table"),
        pytest.param("merchants = 5", "tcb-ops.toml: merchants", id="number-for-a-path"),
        pytest.param("x = = 1", "tcb-ops.toml: cannot be read as TOML", id="no-toml"),
    ],
)
def test_a_wrong_setting_is_said_with_file_and_key(text: str, where: str) -> None:
    write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert where in caught.value.text.en
    assert "tcb-ops.toml" in caught.value.text.zh


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
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert "hunter2" not in f"{caught.value!r}{caught.value.text.zh}"
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.__context__)


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"nope\.toml: no such settings file"):
        load_settings("nope.toml")


def test_a_variable_names_the_file_as_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    write("confirm_over = 1")
    write("confirm_over = 2", "other.toml")
    monkeypatch.setenv("TCB_OPS_CONFIG", "other.toml")
    assert load_settings().confirm_over == 2
    assert load_settings("tcb-ops.toml").confirm_over == 1
    monkeypatch.setenv("TCB_OPS_CONFIG", "nope.toml")
    with pytest.raises(SettingsError, match=r"nope\.toml: no such settings file. Check TCB_OPS_CONFIG"):
        load_settings()


def test_a_settings_file_with_a_byte_order_mark_is_read() -> None:
    Path("tcb-ops.toml").write_text('lang = "zh"', encoding="utf-8-sig")
    assert load_settings().lang is Lang.ZH


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"lang = '\xc4\xe3'"], ids=["utf-16", "gbk"])
def test_a_settings_file_in_another_encoding_is_said(content: bytes) -> None:
    Path("tcb-ops.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"tcb-ops\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "shown", "repeated"),
    [
        ("postgresql://db.example.com/runs", "postgresql://db.example.com/runs", True),
        ("postgresql://op@db.example.com/runs", "postgresql://db.example.com/runs", True),
        ("postgresql://op@/runs?host=/var/run/postgresql", "postgresql:///runs", True),
        ("postgresql://op:hunter2@db:5432/runs", "postgresql://db:5432/runs", False),
        ("postgresql://op:hun@ter2@db/runs", "postgresql://db/runs", False),
        ("postgresql://op:hun/ter2@db/runs", "postgresql://db/runs", False),
        ("postgresql://op:hun?ter2@db/runs", "postgresql://…", False),
        ("postgresql://op@db/runs?password=hunter2", "postgresql://db/runs", False),
        ("postgresql://op@db/runs?password=hun@ter2", "postgresql://…", False),
        ("postgresql://db/runs?sslpassword=hunter2&host=h", "postgresql://db/runs", False),
        ("postgresql://db/runs?passfile=/hunter2", "postgresql://db/runs", False),
    ],
)
def test_a_database_url_is_shown_and_suggested_without_a_password(
    url: str, shown: str, repeated: bool
) -> None:
    settings = load_settings(options={"ledger": url})
    assert settings.ledger_name == shown
    assert settings.ledger_option == (url if repeated else "")
    assert "hunter2" not in repr(settings)


def test_the_ledger_is_shown_without_its_password() -> None:
    settings = load_settings(options={"ledger": "postgresql://op:hunter2@db.example.com/runs"})
    assert settings.ledger_name == "postgresql://db.example.com/runs"
    assert "hunter2" not in f"{settings!r}{settings}"
    assert load_settings(options={"ledger": "a@b.db"}).ledger_name == "a@b.db"


@pytest.mark.parametrize("name", ["api_base", "ledger", "lang"])
def test_settings_do_not_change(name: str) -> None:
    settings: Any = load_settings()
    with pytest.raises(Exception, match="frozen"):
        setattr(settings, name, "x")


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        *((o, v, 2) for o in ("--rate", "--backoff", "--slow-wait", "--patience") for v in ("nan", "inf")),
        ("--rate", "1e-7", 2),
        ("--rate", "0.5", 0),
        ("--backoff", "0", 0),
    ],
)
def test_a_pace_is_a_finite_number(option: str, value: str, code: int) -> None:
    command = pace_options(click.command(lambda **_: None))
    assert CliRunner().invoke(command, [option, value]).exit_code == code


def test_paths_of_the_token_sources_are_relative_to_the_files_folder(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("url", "ftp://tokens.example/{appid}", "must look like https"),
        ("url", "https://me:PrAcTiCe@tokens.example/{appid}", "must look like https"),
        ("url", "https://tokens.example:0/{appid}", "must look like https"),
        ("url", "https://tokens.example/{appid} ", "must look like https"),
        ("url", "https://tokens.example/{appid}#PrAcTiCe", "must look like https"),
        ("url", "https://tokens.example/PrAcTiCe", "no {appid} behind its host"),
        ("url", "https://{appid}.example/PrAcTiCe", "no {appid} behind its host"),
        ("url", "http://tokens.example/{appid}?k=PrAcTiCe", "must be https"),
        ("secret", "PrAcTiCe", "never be the secret itself"),
        ("secret", "env:", "never be the secret itself"),
        ("ticket", "PrAcTiCe@@@", "never be the secret itself"),
        ("auth_header", "X PrAcTiCe", "is not the name of a header"),
        ("sole_owner", "PrAcTiCe", "valid boolean"),
        ("source", "PrAcTiCe", "'service'"),
    ],
)
def test_a_token_setting_that_cannot_work_is_named_and_its_value_not_shown(
    name: str, value: str, why: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(options={"tokens": {name: value}})
    text = caught.value.text
    assert f"tokens.{name}: " in text.en
    assert why in text.en
    assert text.zh != text.en
    assert "PrAcTiCe" not in text.en + text.zh
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    ["https://t.example/{appid}", "https://t.example:8443/x?appid={appid}", "http://127.0.0.1:1/{appid}"],
)
def test_a_good_url_of_a_token_server_is_kept(url: str) -> None:
    assert load_settings(options={"tokens": {"url": url}}).tokens.url == url


def test_ledger_and_reports_belong_to_the_settings_file_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert (load_settings().ledger, load_settings().reports) == ("tcb-ops.db", Path("reports"))
    (home / "tcb-ops.toml").write_text("", encoding="utf-8")
    settings = load_settings(home / "tcb-ops.toml")
    assert (settings.ledger, settings.reports) == (str(home / "tcb-ops.db"), home / "reports")
    assert settings.origin.ledger_choice is None


@pytest.mark.parametrize(("of_file", "used"), [(False, "elsewhere"), (True, "home")])
def test_a_ledger_of_the_working_folder_is_found_and_the_choice_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_problem: bool, used: str
) -> None:
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "tcb-ops.toml").write_text("", encoding="utf-8")
    (tmp_path / "elsewhere" / "tcb-ops.db").touch()
    if file_problem:
        (tmp_path / "home" / "tcb-ops.db").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = load_settings(tmp_path / "home" / "tcb-ops.toml")
    assert settings.ledger == str(tmp_path / used / "tcb-ops.db")
    assert settings.origin.ledger_choice is not None
    assert settings.origin.ledger_choice.en.startswith(f"Ledger: {tmp_path / used / 'tcb-ops.db'}")
    named = load_settings(tmp_path / "home" / "tcb-ops.toml", {"ledger": "mine.db"})
    assert (named.ledger, named.origin.ledger_choice) == ("mine.db", None)


def test_a_link_to_the_settings_folder_is_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "home" / "tcb-ops.toml").write_text("", encoding="utf-8")
    (tmp_path / "home" / "tcb-ops.db").touch()
    monkeypatch.chdir(tmp_path / "home")
    assert load_settings(tmp_path / "link" / "tcb-ops.toml").origin.ledger_choice is None

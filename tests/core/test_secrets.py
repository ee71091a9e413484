"""Secrets leave texts from outside, prose stays."""

import base64
import json
import random
import re
import string
import time
from urllib.parse import quote, unquote

import pytest

from tcb_ops.model import Secret
from tcb_ops.secrets import LONGEST_TEXT, redact, redact_known

TOKEN = Secret("80_dK3Yk-9sQx0Lw7vPz2RtA8uBnM4cEfGhJ1iOoKqVbXyZ5T6" + "wW_eHs3" * 20)
PATH = "活动/banner 1.png"
LINK = Secret("https://cos.ap-shanghai.myqcloud.com/7465-test2-4a89da-1258717764/" + quote(PATH))
FILE_ID = f"cloud://test2-4a89da.7465-test2-4a89da-1258717764/{PATH}"


@pytest.mark.parametrize(
    "text",
    [
        "GET /tcb/uploadfile?access_token=PLANTED failed",
        "authorizer_access_token=PLANTED",
        'body {"access_token":"PLANTED","expires_in":7200}',
        "{'component_access_token': 'PLANTED'}",
        "authorizer_refresh_token=PLANTED",
        "component_appsecret=PLANTED",
        "q-sign-algorithm=sha1&q-ak=PLANTED&q-signature=PLANTED",
        "q-signature%3DPLANTED%26x",
        "x-cos-security-token: PLANTEDPLANTEDPLANTED",
        "Signature=PLANTED",
        "token=PLANTED; path=/",
        "cos_file_id=PLANTED",
        "see https://cos.ap-shanghai.myqcloud.com/b/k?sign=PLANTED&x=PLANTED",
        "Authorization: PLANTEDPLANTEDPLANTED",
        "?auth_code=PLANTED&expires_in=600",
        "pre_auth_code%3DPLANTED%26",
        "preauthcode=PLANTED",
        '{"authorization_code":"PLANTED"}',
        '{"pre_auth_code": "PLANTED", "expires_in": 600}',
        r'"request_body":"{\"authorization_code\":\"PLANTED\"}"',
        r'"request_body":"{\"access_token\": \"PLANTED\"}"',
        "<PreAuthCode>preauthcode@@@PLANTED</PreAuthCode>",
        "the code queryauthcode@@@PLANTED has expired",
        "refreshtoken@@@PLANTED",
        "preauthcode%40%40%40PLANTED",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text):
    assert "PLANTED" not in redact(text)
    assert "•••" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "invalid credential, access_token is invalid or not latest",
        "access_token: expired",
        "invalid authorization_code",
        "auth_code: expired",
        "The Signature you specified is invalid.",
        "61725984-6126f6f9-040f19c4",
        "https://api.weixin.qq.com/tcb/uploadfile",
        "cloud://test2-4a89da.7465-test2-4a89da-1258717764/a=b/活动.png",
        "path holds a ? and a = sign",
    ],
)
def test_prose_and_addresses_stay_as_they_are(text):
    assert redact(text) == text


# --- secrets that are known ---------------------------------------------------------------------------------------------


def _base64(text, chance):
    """As a part of something longer that begins and ends anywhere."""
    around = [chance.randbytes(chance.randrange(7)) for _ in range(2)]
    code = chance.choice((base64.b64encode, base64.urlsafe_b64encode))
    return code(around[0] + text.encode() + around[1]).decode().rstrip(chance.choice(("=", "")))


WRITTEN = {
    "as it stands": lambda text, _: text,
    "lower case": lambda text, _: text.lower(),
    "upper case": lambda text, _: text.upper(),
    "mixed case": lambda text, chance: "".join(chance.choice((one.lower(), one.upper())) for one in text),
    "percent-encoded": lambda text, _: quote(text, safe=""),
    "percent-encoded, small hex digits": lambda text, _: quote(text, safe="").replace("%2F", "%2f"),
    "every character percent-encoded": lambda text, _: "".join(f"%{ord(one):02x}" for one in text),
    "percent-encoded twice": lambda text, _: quote(quote(text, safe=""), safe=""),
    "as JSON within JSON": lambda text, _: json.dumps(text)[1:-1].replace("/", "\\/").replace("&", "\\u0026"),
    "Base64": _base64,
    "Base64 of lower case": lambda text, chance: _base64(text.lower(), chance),
    "Base64 of upper case": lambda text, chance: _base64(text.upper(), chance),
    "Base64, percent-encoded": lambda text, chance: quote(_base64(text, chance), safe=""),
    "Base64 in lower case": lambda text, chance: _base64(text, chance).lower(),
}
AROUND = ("", " ", '"', "token ", "(", "中", ": ", "<b>", "%20", "=", "-", "/", "A")


def _twelve_of(secret, shown):
    """Twelve characters of a secret that whoever reads `shown` can find, by decoding all that can be decoded."""
    texts = [shown]
    for _ in range(3):
        texts.append(unquote(texts[-1].replace("\\u0026", "&").replace("\\/", "/").replace("\\\\", "\\")))
    for text in tuple(texts):
        for run in re.findall(r"[0-9A-Za-z+/]{4,}", text.translate(str.maketrans("-_", "+/"))):
            pieces = (run[at:] for at in range(4))
            texts += (base64.b64decode(f"{one}{'A' * (-len(one) % 4)}").decode("latin-1") for one in pieces)
    parts = {secret[at : at + 12].lower() for at in range(len(secret) - 11)}
    return [part for part in parts if any(part in text.lower() for text in texts)]


@pytest.mark.slow
@pytest.mark.parametrize("written", WRITTEN)
def test_no_twelve_characters_of_a_secret_stay_however_they_are_written(written):
    chance = random.Random(written)
    for _ in range(300):
        letters = chance.choice(
            (string.ascii_letters + string.digits + "-_", string.ascii_letters + "+/=&;@%")
        )
        secret = "".join(chance.choice(letters) for _ in range(chance.randrange(12, 400)))
        long = chance.randrange(12, min(60, len(secret)) + 1)
        begin = chance.randrange(len(secret) - long + 1)
        quoted = WRITTEN[written](secret[begin : begin + long], chance)
        text = f"invalid credential {chance.choice(AROUND)}{quoted}{chance.choice(AROUND)} of wxtea"
        others = [Secret("".join(chance.choice(letters) for _ in range(40))) for _ in range(3)]
        shown = redact(text, (*others, Secret(secret)))
        assert not (seen := _twelve_of(secret, shown)), (text, shown, seen)
        assert secret[begin : begin + 12] not in shown
        assert "•••" in shown
        assert shown.startswith("invalid credential ")
        assert shown.endswith(" of wxtea")


def test_a_text_without_a_secret_is_left_as_it_is():
    chance = random.Random(1)
    words = [
        "invalid",
        "credential",
        "access_token",
        "rid",
        "61725984-6126f6f9-040f19c4",
        "not",
        "latest",
        "%E4%B8",
        "路径",
    ]
    for _ in range(300):
        text = " ".join(chance.choice(words) for _ in range(chance.randrange(20)))
        assert redact(text, (TOKEN, LINK), (PATH, FILE_ID)) == text


def test_eleven_characters_are_no_secret_and_twelve_are():
    value = TOKEN.reveal()
    assert redact(f"of {value[20:31]}", (TOKEN,)) == f"of {value[20:31]}"
    assert redact(f"of {value[20:32]}.", (TOKEN,)) == "of •••."


def test_a_short_secret_goes_as_a_whole():
    assert redact("bad secret aB/c1: ab%2FC1", (Secret("aB/c1"),)) == "bad secret •••: •••"


@pytest.mark.parametrize("path", [PATH, quote(PATH), FILE_ID])
def test_the_path_within_a_link_is_no_secret(path):
    result = f"no such key {path}."
    assert redact(result, (LINK,), (PATH, FILE_ID)) == result
    assert "myqcloud" not in redact(f"{result} {LINK.reveal()}", (LINK,), (PATH, FILE_ID))


def test_escapes_of_json_are_seen_through():
    secret = 'a"b\\c'
    assert redact_known(json.dumps({"x": secret}), {secret, ""}) == '{"x": "•••"}'
    assert redact_known("a%2Bb a+b", {"a%2Bb"}) == "••• •••"


def test_it_costs_little_whatever_a_server_says():
    """Some 100 µs for an errmsg as they are; for the longest that is looked at, made of what looks like the secret, no more
    than a moment. The bounds are wide: machines are slow and busy."""
    secrets = (LINK, Secret("t" * 1500), Secret("q-sign-algorithm=sha1&q-ak=AKID" * 10), TOKEN)
    for text, bound in (
        ("invalid credential, access_token is invalid or not latest" * 3, 0.05),
        (TOKEN.reveal() * 99, 5),
    ):
        began = time.process_time()
        redact(text[:LONGEST_TEXT], secrets)
        assert time.process_time() - began < bound

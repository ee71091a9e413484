import json
import os
from contextlib import ExitStack

import httpx
import pytest
from rigged_simulator import Simulator

from tcb_ops.features.simulator.faults import Component
from tcb_ops.model import Merchant

ENV = "shop-a-1f2e3d"
BUCKET = "7368-shop-a-1f2e3d-1258717764"
APPID = "wx0000000000000001"
OTHER_APPID = "wx0000000000000002"
TOKEN = "token-of-a+1"

MERCHANTS = (
    Merchant(APPID, "梧桐花店", ENV),
    Merchant(APPID, "梧桐花店", "shop-a-test-9c8b7a"),
    Merchant(OTHER_APPID, "海盐书房", "books-4d5e6f"),
)
COMPONENT = Component("wxcccccccccccccccc", "practice-secret", "practice-ticket")
TOKENS = {APPID: TOKEN, OTHER_APPID: "token-of-b"}
RESET_ERRORS = (httpx.ReadError, *((httpx.RemoteProtocolError,) if os.name == "nt" else ()))
"""What a client may see of a reset. On Windows, asyncio shuts the connection down before it resets it."""

Part = tuple[str, bytes]


class Talk:
    """A plain HTTP client that speaks to one simulator, wrongly if a test wants it."""

    boundary = "----b0undary"

    def __init__(self, sim, http):
        self.sim = sim
        self.http = http

    def ask(self, path="banner/1.png", env=ENV, token=TOKEN):
        body = json.dumps({"env": env, "path": path}, ensure_ascii=False).encode()
        return self.ask_raw(body, token).json()

    def ask_raw(self, body, token=TOKEN, method="POST"):
        return self.http.request(
            method, f"{self.sim.base}/tcb/uploadfile", params={"access_token": token}, content=body
        )

    def call(self, route, token="", **body):
        """Call another interface of the platform."""
        url = f"{self.sim.base}/{route}"
        content = json.dumps(body, ensure_ascii=False).encode()
        return self.http.post(url, params={"access_token": token} if token else {}, content=content).json()

    def component(self, name, token="", **body):
        """Call an interface of the platform about its authorizers."""
        return self.call(f"cgi-bin/component/{name}", token, **{"component_appid": COMPONENT.appid} | body)

    def component_token(self, **wrong):
        """Get the component token with the right secret and ticket."""
        body = {"component_appsecret": COMPONENT.secret, "component_verify_ticket": COMPONENT.ticket}
        return self.component("api_component_token", **body | wrong)["component_access_token"]

    def refresh(self, component_token, refresh_token, appid=APPID):
        """Ask for a merchant's tokens."""
        body = {"authorizer_appid": appid, "authorizer_refresh_token": refresh_token}
        return self.component("api_authorizer_token", component_token, **body)

    @staticmethod
    def parts(link, path="banner/1.png", data=b"hello"):
        return [
            ("key", path.encode()),
            ("Signature", link["authorization"].encode()),
            ("x-cos-security-token", link["token"].encode()),
            ("x-cos-meta-fileid", link["cos_file_id"].encode()),
            ("file", data),
        ]

    def form(self, parts):
        body = b""
        for name, value in parts:
            filename = '; filename="x"' if name == "file" else ""
            head = f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
            body += head.encode() + value + b"\r\n"
        return body + f"--{self.boundary}--\r\n".encode()

    def post(self, url, body, **headers):
        content_type = {"Content-Type": f"multipart/form-data; boundary={self.boundary}"}
        return self.http.post(url, content=body, headers=content_type | headers)

    def upload(self, path="banner/1.png", data=b"hello", env=ENV):
        link = self.ask(path, env)
        return self.post(link["url"], self.form(self.parts(link, path, data)))


@pytest.fixture
def start():
    """Start a simulator with options; give a Talk with it. All end with the test."""
    with ExitStack() as stack:

        def started(**options):
            tokens = options.pop("tokens", TOKENS)
            merchants = options.pop("merchants", MERCHANTS)
            sim = stack.enter_context(Simulator(merchants, tokens, **options))
            return Talk(sim, stack.enter_context(httpx.Client(trust_env=False, timeout=240)))

        yield started


@pytest.fixture(scope="module")
def shared():
    """One simulator for tests that only ask it."""
    with Simulator(MERCHANTS, TOKENS) as sim, httpx.Client(trust_env=False, timeout=240) as http:
        yield Talk(sim, http)

"""E-mail about an audit, over a real socket: what arrives, and what is reported as not sent."""

from __future__ import annotations

import email
import email.policy
import json
from typing import TYPE_CHECKING, Any

import pytest
from smtp import MailServer
from workspace import BOOKS, QUICK, OpenWorkspace, Workspace

import tcb_ops as tcb
import tcb_ops.notifications as send
from tcb_ops.i18n import Lang
from tcb_ops.settings import load_settings
from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tcb_ops.notifications import Notification

PASSWORD = "practice-mail-password-1"
BROKEN = [Fault(env=BOOKS.env, errcode=85088)]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "RETRY_WAITS", (0.0,))
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)


def mailed(workspace: Workspace, server: str, *, export: bool = False, **more: Any) -> Notification:
    entry = {
        "kind": "email",
        "smtp": server,
        "sender": "audit@example.com",
        "to": ["a@example.com", "b@example.com"],
    }
    settings = workspace.with_options(notify=[entry | more])
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    if export:
        run.export(workspace.folder / "report")
    (found,) = tcb.notify(run, settings=settings)
    shown = json.dumps(found.to_json(Lang.EN)) + repr(found)
    assert PASSWORD[:12] not in shown
    return found


def test_an_email_has_the_message_as_text_and_the_page_attached(open_workspace: OpenWorkspace):
    workspace = open_workspace([], BROKEN)
    with MailServer() as server:
        found = mailed(workspace, server.address, export=True, user="audit", secret_env="MAIL_PASSWORD")
    assert found.sent
    (raw,) = server.mails
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["To"] == "a@example.com, b@example.com"
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    assert f"  {BOOKS.name} · {BOOKS.env} · 85088" in text
    assert "**" not in text
    assert "manifest sha256: " in text
    (page,) = mail.iter_attachments()
    assert page.get_filename() == "report.html"
    assert page.get_content() == (workspace.folder / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "connections", "why"),
    [
        ({"replies": {"MAIL": "550 no"}}, 1, "550"),
        ({"replies": {"MAIL": "451 later"}}, 2, "451"),
        ({"replies": {"DATA": "554 no"}}, 1, "554"),
        ({"replies": {"MAIL": ""}}, 2, "closed"),
        ({"replies": {"EHLO": "502 no", "HELO": "502 no"}}, 1, "502"),
        ({"refused": ("a@example.com", "b@example.com")}, 1, "550"),
        ({"refused": ("b@example.com",)}, 1, "1 of 2"),
        ({"silent": True}, 2, "no response in time"),
    ],
)
def test_what_a_mail_server_refuses_is_never_reported_as_sent(
    open_workspace: OpenWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    connections: int,
    why: str,
):
    if "silent" in options:
        monkeypatch.setattr(send, "MAIL_SECONDS", 0.5)
    workspace = open_workspace([], BROKEN)
    with MailServer(**options) as server:
        found = mailed(workspace, server.address)
    assert not found.sent
    assert why in found.detail.en
    assert server.connections == connections


def test_a_refused_password_is_reported_without_it(open_workspace: OpenWorkspace):
    workspace = open_workspace([], BROKEN)
    with MailServer({"AUTH": f"535 wrong: {PASSWORD}"}) as server:
        found = mailed(workspace, server.address, user="audit", secret_env="MAIL_PASSWORD")
    assert (found.sent, server.mails) == (False, [])
    assert "535" in found.detail.en


@pytest.mark.parametrize("port", [1, 465])
def test_a_mail_server_that_is_away_fails_no_audit(open_workspace: OpenWorkspace, port: int):
    found = mailed(open_workspace([], BROKEN), f"127.0.0.1:{port}")
    assert not found.sent
    assert "cannot be reached" in found.detail.en


@pytest.mark.parametrize("to", ["", "x@y\\nBcc: y@z", "ops", "@", "a@b\u2028"])
def test_an_invalid_address_is_refused_with_file_line_and_fix(tmp_path: Path, to: str):
    file = tmp_path / "tcb-ops.toml"
    entry = '[[notify]]\nkind = "email"\nsmtp = "127.0.0.1:1"\nsender = "商户 <a@b>"\nto = '
    file.write_text(f'{entry}["a@b, c@d"]\n{entry}["c@d", "{to}"]\n', encoding="utf-8")
    with pytest.raises(tcb.SettingsError) as refused:
        load_settings(file)
    assert f"{file}:10: notify.to: " in str(refused.value)
    assert "must be an e-mail address on one line, such as ops@example.com" in str(refused.value)


def test_an_unexpected_error_of_one_receiver_leaves_the_others(
    open_workspace: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> None:
        raise ValueError(PASSWORD)

    workspace = open_workspace([], BROKEN)
    monkeypatch.setattr(send, "_send_mail", broken)
    mail = {"kind": "email", "smtp": "127.0.0.1:1", "sender": "a@b", "to": ["c@d"]}
    settings = workspace.with_options(notify=[mail, {"kind": "command", "command": ["true"]}])
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    found = tcb.notify(run, settings=settings)
    assert [one.sent for one in found] == [False, True]
    assert "ValueError" in found[0].detail.en
    assert PASSWORD not in repr(found)

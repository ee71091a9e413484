"""How commands are quoted and split for POSIX shells, and for PowerShell and cmd."""

import subprocess
from pathlib import Path

import pytest
from tables import table

from tcb_ops import disk, shell, system_errors


@table(
    "word, posix, windows",
    {
        "plain": ("list.csv", "list.csv", "list.csv"),
        "path": (r"C:\lists\a.csv", r"'C:\lists\a.csv'", r"C:\lists\a.csv"),
        "blank": ("my list.csv", "'my list.csv'", '"my list.csv"'),
        "chinese": ("清单.csv", "清单.csv", '"清单.csv"'),
        "empty": ("", "''", '""'),
        "ends-in-a-backslash": ("C:\\my lists\\", r"'C:\my lists\'", r'"C:\my lists\\"'),
        "quote": ('a"b', "'a\"b'", r'"a\"b"'),
        "backslash-and-quote": ('a\\"b', "'a\\\"b'", r'"a\\\"b"'),
        "comma-that-powershell-splits-at": ("a,b", "a,b", '"a,b"'),
        "ampersand": ("a&b", "'a&b'", '"a&b"'),
    },
)
def test_a_word_is_quoted_for_the_shell_of_the_machine(word, posix, windows):
    assert shell.quote(word, windows=True) == windows
    quoted = shell.quote(word, windows=False)
    assert shell.split(quoted, windows=False) == [word]
    if word.isascii():
        assert quoted == posix


@table(
    "windows, command, words",
    {
        "backslashes-are-paths": (True, r"C:\bin\token.exe --for wx1", [r"C:\bin\token.exe", "--for", "wx1"]),
        "quoted-path": (True, r'"C:\my bin\token.exe" wx1', [r"C:\my bin\token.exe", "wx1"]),
        "posix-escape": (False, r"/opt/my\ bin/token wx1", ["/opt/my bin/token", "wx1"]),
        "hash-is-no-comment": (False, "token #1", ["token", "#1"]),
    },
)
def test_a_command_is_split_as_the_machine_writes_paths(windows, command, words):
    assert shell.split(command, windows=windows) == words


@pytest.mark.parametrize("windows", [False, True])
def test_quotes_that_do_not_match_are_an_error(windows):
    with pytest.raises(ValueError, match="quotation"):
        shell.split('token "wx1', windows=windows)


@pytest.mark.posix("file modes")
def test_who_else_may_read_a_file_and_what_restricts_it(tmp_path):
    file = tmp_path / "tokens of the shop.csv"
    file.touch(mode=0o600)
    assert not disk.others_may_read(file, windows=False)
    file.chmod(0o640)
    assert disk.others_may_read(file, windows=False)
    subprocess.run(shell.split(disk.restricting(file, windows=False)), check=True)
    assert not disk.others_may_read(file, windows=False)
    assert disk.others_may_read(file, windows=True)  # outside this user's profile
    assert not disk.others_may_read(Path.home() / "tokens.csv", windows=True)
    assert disk.restricting(file, windows=True).startswith("icacls ")


@table(
    "winerror, name, message",
    {
        "open-in-excel": (32, "a", "another program, such as Excel, is using it: close it there"),
        "locked": (33, "a", "another program, such as Excel, is using it: close it there"),
        "name": (123, "a?", "Windows does not allow such a name"),
        "device": (6, "CON", "Windows reserves that name for a device"),
        "long-name": (206, "a", "the path is too long"),
        "long-path": (3, f"/{'a' * 300}", "the path is too long"),
        "short-path": (3, "/a", "no permission"),
        "access-denied": (5, "a", "no permission"),
        "not-on-windows": (None, f"/{'a' * 300}", "no permission"),
    },
)
def test_windows_own_code_says_more_than_errno(winerror, name, message):
    error = PermissionError(13, "", name)
    error.winerror = winerror
    assert system_errors.system_reason(error).en.startswith(message)


def test_a_folder_in_a_files_place_is_named_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "WINDOWS", True)
    for path, message in ((tmp_path, "it is a folder"), (tmp_path / "missing", "no permission")):
        assert system_errors.system_reason(PermissionError(13, "", str(path))).en == message


@table(
    "command, call",
    {
        "resume": (
            "tcb-ops upload --resume 20261201-010203-abcd --root /a",
            "tcb.resume('20261201-010203-abcd')",
        ),
        "retry": (
            "/opt/bin/tcb-ops retry 20261201-010203-abcd --rate 5",
            "tcb.retry('20261201-010203-abcd')",
        ),
        "target": (
            "tcb-ops retry 1201-abcd --target simulator",
            "tcb.retry('1201-abcd', target='simulator')",
        ),
        "cluster": (
            "tcb-ops upload --resume 1201-abcd --cluster local:2 --target simulator",
            "tcb.resume('1201-abcd', target='simulator', cluster='local:2')",
        ),
        "some-rows": (
            "tcb-ops retry 1201-abcd --errcode 85088 --errcode 45009 --where appid=wxtea --concurrency 8",
            "tcb.retry('1201-abcd', codes=['85088', '45009'], where=['appid=wxtea'])",
        ),
        "where-of-another-command": (
            "tcb-ops why 1201-abcd --where region=x",
            "tcb.open_run('1201-abcd').why()",
        ),
        "a-resume-with-its-list": (
            "tcb-ops upload list.csv --on-bad skip --resume 1201-abcd",
            "tcb-ops upload list.csv --on-bad skip --resume 1201-abcd",
        ),
        "report": ("tcb-ops report 1201-abcd", "tcb.open_run('1201-abcd').report()"),
        "no-run": ("tcb-ops runs --config /a/tcb-ops.toml", "tcb.runs()"),
        "a-command-without-a-call": ("tcb-ops doctor", "tcb-ops doctor"),
        "another-program": ("pip install pyarrow", "pip install pyarrow"),
    },
)
def test_an_error_in_python_suggests_a_call(command, call):
    assert shell.as_call(command) == call

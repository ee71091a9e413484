"""simulate and demo: what a new operator tries first."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from workspace import BOOKS, TEA, many

import tcb_ops
from tcb_ops.cli.main import run
from tcb_ops.features.simulator.cos import INDEX
from tcb_ops.features.simulator.faults import Etag, load_faults
from tcb_ops.features.simulator.sample import FAULTS

SIMULATE = ("simulate", "--merchants", "merchants.csv", "--tokens", "tokens.csv", "--port", "0")


def ask(base, token, env):
    answer = httpx.post(
        f"{base}/tcb/uploadfile",
        params={"access_token": token},
        json={"env": env, "path": "a.png"},
        trust_env=False,
    )
    return answer.json()["errcode"]


@pytest.mark.slow
def test_simulate_says_its_base_first_and_ends_with_0(open_cli):
    cli = open_cli(many(TEA, rows=1))
    with cli.process(*SIMULATE) as process:
        base = process.stdout.readline().strip()
        assert base.startswith("http://127.0.0.1:")
        assert ask(base, f"token-of-{TEA.appid}", TEA.env) == 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, "")
    assert f"use --target {base}" in err


@pytest.mark.slow
def test_simulate_serves_exactly_those_merchants_tokens_and_faults(open_cli):
    cli = open_cli(many(TEA, rows=1), merchants=[TEA])
    (cli.folder / "faults.toml").write_text(
        f'[[fault]]\nenv = "{TEA.env}"\npath = "bad*"\nerrcode = 85088\n', "utf-8"
    )
    (cli.folder / "list.csv").write_text(
        f"env,path,file\n{TEA.env},a.png,0.bin\n{TEA.env},bad.png,0.bin\n", "utf-8"
    )
    with cli.process(*SIMULATE, "--faults", "faults.toml", "--store", "kept") as process:
        base = process.stdout.readline().strip()
        assert ask(base, f"token-of-{TEA.appid}", BOOKS.env) != 0
        assert ask(base, "another", TEA.env) == 40001
        result = cli("upload", "list.csv", "--root", "files", "--api-base", base, "--json")
        assert result.json["counts"] == {"uploaded": 1, "refused": 1}
        assert result.json["target"] == base
        process.terminate()
        process.communicate(timeout=240)
    kept = [file for file in (cli.folder / "kept").rglob("*") if file.is_file()]
    kept = [file for file in kept if file.name != INDEX]
    assert [file.read_bytes() for file in kept] == [(cli.folder / "files" / "0.bin").read_bytes()]


@pytest.mark.slow
def test_simulate_needs_no_tokens_where_its_plan_plays_the_platform(open_cli):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "tokens.csv").unlink()
    result = cli("simulate", "--merchants", "merchants.csv")
    assert (result.code, result.out) == (2, "")
    assert "tokens.csv: cannot be read" in result.err
    platform = '[component]\nappid = "wxc"\nsecret = "practice-secret"\nticket = "practice-ticket"\n'
    (cli.folder / "faults.toml").write_text(platform, "utf-8")
    words = ("simulate", "--merchants", "merchants.csv", "--port", "0", "--faults", "faults.toml")
    with cli.process(*words) as process:
        base = process.stdout.readline().strip()
        answer = httpx.post(
            f"{base}/cgi-bin/component/api_component_token",
            json={
                "component_appid": "wxc",
                "component_appsecret": "practice-secret",
                "component_verify_ticket": "practice-ticket",
            },
            trust_env=False,
        )
        assert set(answer.json()) == {"component_access_token", "expires_in"}
        process.terminate()
        process.communicate(timeout=240)


def test_simulate_refuses_what_it_cannot_serve(open_cli):
    cli = open_cli(many(TEA, rows=1))
    (cli.folder / "bad.toml").write_text("[[fault]]\nerrcod = 1\n", "utf-8")
    taken = str(cli.workspace.sim.port)
    for words, told in (
        ((*SIMULATE[:-1], taken), f"Port {taken} is in use"),
        ((*SIMULATE, "--faults", "bad.toml"), "errcod"),
        ((*SIMULATE, "--faults", "nope.toml"), "nope.toml"),
        (("simulate", "--merchants", "nope.csv", "--tokens", "tokens.csv"), "nope.csv"),
        (("simulate", "--merchants", "merchants.csv", "--tokens", "nope.csv"), "nope.csv"),
        (("simulate", "--merchants", "merchants.csv", "--tokens", "tokens.csv", "--port", "70000"), "--port"),
    ):
        result = cli(*words)
        assert (result.code, result.out) == (2, ""), words
        assert told in result.err


@pytest.mark.slow
def test_demo_ends_0_and_writes_its_report_again_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(["demo", "--lang", "en"]) == 0
        result = capsys.readouterr()
    assert [file.name for file in tmp_path.iterdir()] == ["demo-report"]
    report = tmp_path / "demo-report"
    manifest = json.loads((report / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["simulated"] is True
    for name, known in manifest["files"].items():
        assert hashlib.sha256((report / name).read_bytes()).hexdigest() == known["sha256"]
    with (report / "results.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    faults = load_faults(FAULTS)
    down = {account.appid for account in faults.accounts} | {each.env for each in faults.environments}
    lasting = [fault for fault in faults.entries if fault.is_at(9) and fault.etag is not Etag.OPAQUE]
    for row in rows:
        env, appid, path = row["tcb_env"], row["tcb_appid"], row["上传路径"]
        hit = any(fault.concerns(env, appid) and fnmatchcase(path, fault.path) for fault in lasting)
        assert (row["tcb_outcome"] == "uploaded") is not (hit or bool({env, appid} & down)), row
    outcomes = [row["tcb_outcome"] for row in rows]
    assert {o: outcomes.count(o) for o in set(outcomes)} == manifest["counts"]
    assert "SIMULATED" in (report / "report.html").read_text(encoding="utf-8")
    assert [word for word in ("85088", "61007", "星河影院", str(report)) if word not in result.out] == []
    first, second, *_ = result.err.splitlines()
    assert (first.split()[0], second.split()[0]) == ("SIMULATED", "1/4")
    assert "4/4" in result.err


def test_demo_leaves_a_folder_of_somebody_elses_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-report").mkdir()
    (tmp_path / "demo-report" / "mine.txt").write_text("mine", "utf-8")
    assert run(["demo"]) == 2
    assert "demo-report" in capsys.readouterr().err
    assert (tmp_path / "demo-report" / "mine.txt").read_text("utf-8") == "mine"


@pytest.mark.kill
def test_demo_interrupted_is_130_and_leaves_nothing(tmp_path):
    argv = [sys.executable, "-m", "tcb_ops", "demo", "--lang", "en"]
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    env = os.environ | {"TMPDIR": str(tmp_path / "t"), "PYTHONUTF8": "1"}
    (tmp_path / "t").mkdir()
    with subprocess.Popen(argv, cwd=tmp_path, env=env, **kept) as process:
        for line in process.stderr:
            if line.startswith("3/4"):
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.rglob("*")] == ["t"]


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("TCB_OPS_TEST_WHEEL") != "1", reason="builds the wheel: .ci/run asks for it"
)
def test_the_wheel_installed_elsewhere_gives_the_demo_too(tmp_path):
    """The wheel alone is unpacked where nothing of the checkout is in reach; its dependencies are this machine's."""
    here = Path(tcb_ops.__file__).parent.parent
    if not (here / "pyproject.toml").exists() or find_spec("pip") is None:
        pytest.skip("needs the checkout and pip")
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w"]
    if find_spec("hatchling") is None:
        words.remove("--no-build-isolation")
    subprocess.run(
        [sys.executable, *words, tmp_path / "w", here], check=True, capture_output=True, timeout=100
    )
    (built,) = (tmp_path / "w").iterdir()
    import venv  # not in Windows' embeddable Python

    venv.create(tmp_path / "v", with_pip=False, symlinks=True)
    python = tmp_path / "v" / "bin" / "python"
    (site,) = (tmp_path / "v" / "lib").glob("python*/site-packages")
    shutil.unpack_archive(built, site, "zip")
    libraries = Path(httpx.__file__).parent.parent
    (site / "libraries.pth").write_text(f"{libraries}\n", "utf-8")
    (tmp_path / "elsewhere").mkdir()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = (
        "import sys, pathlib, tcb_ops; from tcb_ops.features.simulator.sample import SAMPLE; "
        f"assert pathlib.Path(tcb_ops.__file__).is_relative_to({str(site)!r}); "
        f"assert SAMPLE.is_relative_to({str(site)!r}); from tcb_ops.cli.main import main; main()"
    )
    ended = subprocess.run(
        [python, "-c", code, "demo", "--lang", "zh"],
        cwd=tmp_path / "elsewhere",
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "报告在" in ended.stdout + ended.stderr
    assert (tmp_path / "elsewhere" / "demo-report" / "report.html").exists()
    notebooks = {file.name for file in (here / "notebooks").glob("*.ipynb")}
    assert {file.name for file in (site / "tcb_ops" / "notebook_files").glob("*.ipynb")} == notebooks != set()

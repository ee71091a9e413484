"""`notebook` and `lab` as a user types them."""

import html
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tables import table
from workspace import BOOKS, TEA, many

from tcb_ops.features.notebooks.parameters import notebook_names, open_notebook
from tcb_ops.features.simulator.faults import Fault

PARAMETERS = '# Parameters\ntext = "a"  # any text\nrows = 3\nlang = "en"'
WORK = """\
# Work
import tcb_ops as tcb
merchants = tcb.read_merchants("merchants.csv")
run = tcb.links(tcb.read_paths("list.csv", merchants))
run.counts
"""


def keep(folder, *cells, name="own"):
    """Write a notebook of one's own; its name is a command's argument."""
    content = new_notebook(
        cells=[
            new_markdown_cell("# 自己的 notebook\n\nSee <b>this</b>."),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            *map(new_code_cell, cells),
        ]
    )
    nbformat.write(content, folder / f"{name}.ipynb")
    return f"{name}.ipynb"


def outputs(file):
    return [output for cell in nbformat.read(file, 4).cells for output in cell.get("outputs", ())]


@pytest.mark.notebook
def test_a_notebook_is_run_with_parameters_and_leaves_itself_and_a_page_without_code_or_addresses(open_cli):
    cli = open_cli()
    result = cli(
        "notebook",
        keep(cli.folder, WORK, "# Told\ntext, rows"),
        "-p",
        "text=007",
        "--out",
        "out",
        "-p",
        "rows=12",
    )
    assert (result.code, result.out) == (0, "out/own.ipynb\nout/own.html\n"), result.err
    names = ["自己的 notebook", "Work", "Told"]  # the text before a cell, else its first line
    assert [line.split(" · ")[1] for line in result.err.splitlines()] == names
    assert cli.calls == 30
    assert [output.data["text/plain"] for output in outputs(cli.folder / "out" / "own.ipynb")] == [
        "{'linked': 30}",
        "('007', 12)",
    ]
    page = (cli.folder / "out" / "own.html").read_text(encoding="utf-8")
    assert "<title>自己的 notebook</title>" in page
    assert "('007', 12)" in page.replace("&#39;", "'")
    assert "read_merchants" not in page
    assert re.findall(r"https?:|//[\w.]+/|<script|@import|url\(", page) == []
    assert sorted(path.name for path in (cli.folder / "out").iterdir()) == ["own.html", "own.ipynb"]
    for secret in (f"token-of-{TEA.appid}", "q-signature", "security-token"):
        assert not any(secret in file.read_text(encoding="utf-8") for file in (cli.folder / "out").iterdir())


@pytest.mark.notebook
def test_the_metadata_of_an_output_is_how_the_command_ends(open_cli):
    cli = open_cli([("tea-1a2b3c", "a.png")])
    text = {"en": "One row is not good.", "zh": "有一行未成功。"}
    result = {"run": "r1", "exit_code": 1, "simulated": True, "text": text}
    name = keep(
        cli.folder,
        f"from IPython.display import display\ndisplay({{'text/plain': 'x'}}, metadata={{'tcb_ops': {result!r}}}, raw=True)",
        'import os\nos.path.basename(os.environ["TCB_OPS_REPORTS"])',
    )
    (cli.folder / "out" / "r1").mkdir(parents=True)
    (cli.folder / "out" / "r1" / "report.html").touch()
    ended = cli("notebook", name, "--out", "out", "--json", "--lang", "zh")
    assert ended.code == 1
    assert ended.json == {
        "notebook": "out/own.ipynb",
        "page": "out/own.html",
        "run": "r1",
        "report": "out/r1",
        "exit_code": 1,
    }
    assert "有一行未成功。" in ended.err
    assert outputs(cli.folder / "out" / "own.ipynb")[-1].data["text/plain"] == "'out'"
    page = (cli.folder / "out" / "own.html").read_text(encoding="utf-8")
    assert 'href="r1/report.html"' in page


@pytest.mark.notebook
def test_our_errors_in_a_cell_are_their_sentence_and_their_exit_code(open_cli):
    lang, says = "zh", "list.csv 有 2 处问题"
    cli = open_cli([(TEA.env, "/wrong.png"), ("nowhere", "b.png")])
    result = cli("notebook", keep(cli.folder, WORK), "--out", "out", "--lang", lang)
    assert result.code == 2
    assert says in result.err
    assert cli.calls == 0
    shown = (cli.folder / "out" / "own.html").read_text(encoding="utf-8")
    assert says in shown
    assert "Traceback" not in shown
    card, error = outputs(cli.folder / "out" / "own.ipynb")
    assert "<details" in card.data["text/html"]
    assert error.output_type == "error"
    assert not any("Traceback" in line for line in error.traceback)


@pytest.mark.notebook
def test_an_error_advises_a_command_on_the_terminal_and_a_call_in_the_notebook(open_cli):
    cli = open_cli(many(TEA, rows=1))
    cli.links()
    result = cli("notebook", "04", "--out", "out", "-p", "ledger=ledger.db", "-p", "run_id=nowhere")
    assert result.code == 2
    assert "No run 'nowhere' in ledger.db. To list the runs:\ntcb-ops runs " in result.err
    card = outputs(cli.folder / "out" / "04_analysis.ipynb")[-2]
    assert "tcb.runs()" in card.data["text/html"]


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(open_cli):
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that nobody can write")
    result = open_cli()("notebook", "03", "--out", "/proc")
    assert result.code == 2
    assert "--out /proc" in result.err
    assert "Panel" not in result.err


@pytest.mark.notebook
def test_any_other_error_names_its_cell_by_its_first_line_and_is_exit_3(open_cli):
    cli = open_cli()
    result = cli("notebook", keep(cli.folder, "# One\n1", "1 / 0", "# Never\n1"), "--out", "out")
    assert result.code == 3
    assert "own 3/4 · 1 / 0" in result.err
    assert "the cell “1 / 0” failed with ZeroDivisionError: division by zero" in result.err
    assert "Never" not in result.err
    assert "own.ipynb" in result.err
    page = (cli.folder / "out" / "own.html").read_text(encoding="utf-8")
    assert "This cell failed: ZeroDivisionError: division by zero" in page


@pytest.mark.notebook
def test_a_kernel_that_dies_is_said_in_words(open_cli):
    cli = open_cli()
    result = cli("notebook", keep(cli.folder, "# Die\nimport os\nos._exit(9)"), "--out", "out")
    assert result.code == 3
    assert "kernel" in result.err
    nbformat.read(cli.folder / "out" / "own.ipynb", 4)


@table(
    "words, says",
    {
        "secret": (["-p", "token=x"], "secrets cannot be notebook parameters"),
        "option without its parameter": (["--where", "a=b"], "has no parameter where"),
        "a value in other bytes": (["-p", "text=\udcff"], "in UTF-8"),
        "a name in other bytes": (["-p", "te\udcffxt=a"], "in UTF-8"),
        "a folder in other bytes": (["--out", "out\udcff"], "in UTF-8"),
    },
)
def test_parameters_are_checked_before_anything_runs(open_cli, words, says):
    cli = open_cli()
    result = cli("notebook", keep(cli.folder, WORK), "--out", "out", *words)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert not (cli.folder / "out").exists()
    assert cli.calls == 0


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}'], ids=["empty", "no notebook", "broken"])
def test_what_is_no_notebook_is_said(open_cli, content):
    cli = open_cli()
    assert "no such notebook" in cli("notebook", "own.ipynb", "--out", "out").err
    (cli.folder / "own.ipynb").write_text(content, encoding="utf-8")
    result = cli("notebook", "own.ipynb", "--out", "out")
    assert (result.code, "cannot be read" in result.err) == (2, True)
    assert not (cli.folder / "out").exists()


@pytest.mark.notebook
def test_a_notebook_that_was_not_executed_here_is_never_overwritten_an_executed_one_is(open_cli):
    cli = open_cli()
    name = keep(cli.folder, "# One\n1")
    before = (cli.folder / name).read_bytes()
    for out in (".", "other"):
        (cli.folder / "other").mkdir(exist_ok=True)
        (cli.folder / "other" / name).write_bytes(before)
        result = cli("notebook", name, "--out", out)
        assert result.code == 2
        assert "Choose another --out" in result.err
        assert (cli.folder / out / name).read_bytes() == before
    assert cli("notebook", name, "--out", "out").code == 0
    assert cli("notebook", name, "--out", "out", "--quiet").code == 0


@pytest.mark.notebook
def test_options_that_name_a_target_reach_the_notebooks_own_settings(open_cli):
    cli = open_cli()
    (cli.folder / "tcb-ops.toml").rename(cli.folder / "other.toml")
    name = keep(
        cli.folder, WORK, "# Ledger\nimport os\nsorted(file for file in os.listdir() if file.endswith('.db'))"
    )
    result = cli("notebook", name, "--out", "out", "--config", "other.toml", "--ledger", "mine.db")
    assert result.code == 0
    assert cli.calls == 30
    assert outputs(cli.folder / "out" / "own.ipynb")[-1].data["text/plain"] == "['mine.db']"


@pytest.mark.parametrize("option", ["--target", "--api-base", "--merchants", "--tokens", "--ledger"])
def test_an_option_of_a_live_run_is_refused_where_the_notebook_practises(open_cli, option):
    cli = open_cli()
    value = cli.workspace.sim.base if option in {"--target", "--api-base"} else "merchants.csv"
    result = cli("notebook", "03", option, value, "--out", "out")
    assert (result.code, result.out) == (2, "")
    assert f"{option} is for a live run" in result.err
    assert "-p target=live" in result.err
    assert not (cli.folder / "out").exists()


@pytest.mark.notebook
def test_a_page_has_the_next_command_which_works_from_any_folder(open_cli, tmp_path_factory, monkeypatch):
    cli = open_cli(faults=[Fault(env=BOOKS.env, path="banner/7.png", errcode=85088, calls=((1, 1),))])
    words = ("-p", "target=live", "-p", "paths=list.csv", "-p", "root=files")
    assert cli("notebook", "02", *words, "--out", "out").code == 1
    page = (cli.folder / "out" / "02_run_uploads.html").read_text(encoding="utf-8")
    (command,) = re.findall('<p class="next">[^<]* <code>(.*?)</code>', page)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    program, *words = shlex.split(html.unescape(command))
    assert (program, words[:2]) == ("tcb-ops", ["retry", cli.latest().id])
    assert cli(*words).code == 0


@pytest.mark.notebook
def test_a_live_notebook_works_only_if_it_is_told_so(open_cli):
    cli = open_cli()
    toml = cli.folder / "tcb-ops.toml"
    live = toml.read_text(encoding="utf-8").replace(cli.workspace.sim.base, "https://api.weixin.qq.com")
    toml.write_text(live, encoding="utf-8")
    result = cli("notebook", "03", "-p", "target=live", "--out", "out", "--lang", "en")
    assert result.code == 2
    assert "Nothing was sent: the target is live" in result.err
    assert "yes = True" in result.err
    assert cli.calls == 0


@pytest.mark.notebook
@pytest.mark.kill
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        *(pytest.param(one, 143, marks=pytest.mark.soak) for one in (signal.SIGHUP, signal.SIGTERM)),
    ],
)
def test_an_interrupt_ends_the_notebooks_run_tidily_and_the_same_command_goes_on(
    open_cli, wait_for, number, code
):
    cli = open_cli(many(TEA, BOOKS, rows=20), [Fault(delay=0.1)])
    name = keep(cli.folder, WORK.replace("merchants))", "merchants), limits=tcb.RunLimits(concurrency=2))"))
    words = ("notebook", name, "--out", "out")
    with cli.process(*words) as process:
        wait_for(lambda: cli.calls > 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert f"resume run {cli.latest().id}" in err
    assert cli.calls < 40
    assert "out/own.ipynb" in out
    card, error = outputs(cli.folder / "out" / "own.ipynb")
    assert "<details" in card.data["text/html"]
    assert error.ename == "InterruptedRunError"
    run = cli.latest()
    assert (run.record.finished_at, run.record.stopped is not None) == (None, True)
    again = cli(*words)
    assert again.code == 0, again.err
    assert cli.latest().id == run.id
    assert cli.assert_complete(cli("show", "--json").json, 40) == {"linked": 40}


@pytest.mark.notebook
@pytest.mark.kill
def test_an_interrupt_between_cells_ends_before_the_next(open_cli):
    cli = open_cli()
    name = keep(
        cli.folder,
        "# Sleep\nopen('begun', 'w').close()\nimport time\ntime.sleep(60)",
        "# Next\nopen('next', 'w')",
    )
    with cli.process("notebook", name, "--out", "out", stderr=subprocess.PIPE) as process:
        for line in process.stderr:
            if "own 1/" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.communicate(timeout=240)
    assert process.returncode == 143
    assert not (cli.folder / "next").exists()
    nbformat.read(cli.folder / "out" / "own.ipynb", 4)


@pytest.mark.notebook
@pytest.mark.kill
def test_a_killed_command_leaves_no_broken_notebook_and_its_kernel_ends(open_cli, wait_for):
    cli = open_cli(many(TEA, rows=60), [Fault(delay=0.1)])
    name = keep(cli.folder, "# Pid\nimport os\nopen('pid', 'w').write(str(os.getpid()))", WORK)
    with cli.process("notebook", name, "--out", "out") as process:
        wait_for(lambda: cli.calls > 4)
        process.kill()
    assert sorted((cli.folder / "out").iterdir()) == []
    pid = int((cli.folder / "pid").read_text(encoding="utf-8"))
    wait_for(lambda: not _is_there(pid))
    assert cli("notebook", name, "--out", "out").code == 0
    assert cli.assert_complete(cli("show", "--json").json, 60) == {"linked": 60}


def _is_there(pid):
    """Whether a process lives; a dead one that nobody has fetched yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")


def test_lab_copies_and_says_what_it_kept(open_cli):
    cli = open_cli()
    result = cli("lab", "work", "--no-open")
    assert result.code == 0
    assert result.out.split() == [f"work/{name}.ipynb" for name in notebook_names()]
    own = cli.folder / "work" / f"{notebook_names()[0]}.ipynb"
    own.write_text("mine", encoding="utf-8")
    again = cli("lab", "work", "--no-open")
    assert (again.code, again.out) == (0, "")
    assert f"{own.name}: not overwritten; it differs" in again.err
    assert own.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_copies_panels_speak_the_language_of_the_copies(open_cli, lang):
    cli = open_cli()
    assert cli("lab", "work", "--no-open", "--lang", lang).code == 0
    for file in (cli.folder / "work").glob("*.ipynb"):
        assert open_notebook(file).parameters["lang"] == lang
    assert "differs" not in cli("lab", "work", "--no-open").err


def test_lab_that_only_copies_says_what_is_missing_here(open_cli, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    result = open_cli()("lab", "work", "--no-open")
    assert result.code == 0
    assert "To open them here, install jupyterlab, ipywidgets, anywidget:\n" in result.err


def test_lab_into_a_folder_that_cannot_be_is_said(open_cli):
    cli = open_cli()
    (cli.folder / "file").write_text("", encoding="utf-8")
    result = cli("lab", "file", "--no-open")
    assert result.code == 2
    assert "Choose a writable folder" in result.err


@pytest.mark.parametrize(("words", "spoken"), [((), None), (("--lang", "zh"), "zh")])
def test_lab_passes_the_chosen_language_to_the_panels(open_cli, monkeypatch, words, spoken):
    started = []

    def server(_words, env):
        started.append(env.get("TCB_OPS_LANG"))
        return nullcontext(SimpleNamespace(wait=lambda: 0))

    cli = open_cli()
    monkeypatch.setattr(subprocess, "Popen", server)
    assert cli("lab", "work", *words).code == 0
    assert started == [spoken]


@pytest.mark.notebook
@pytest.mark.kill
def test_lab_serves_its_workspace_and_ends_with_a_signal(open_cli):
    cli = open_cli()
    words = ("lab", "--no-browser", "--", "--ServerApp.port=0", "--allow-root")
    (cli.folder / "jupyterlab.py").write_text("raise SystemExit('another program')", encoding="utf-8")
    with cli.process(*words, stderr=subprocess.PIPE) as process:
        for line in process.stderr:
            if "/lab?token=" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=240)
    assert process.returncode == 143
    assert (cli.folder / "data" / "paths.csv").is_file()
    assert not (cli.folder / "--ServerApp.port=0").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("notebook", "own.ipynb", "--out", "out"), ("lab", "work")])
def test_a_missing_extra_is_said_with_what_to_install(open_cli, words):
    cli = open_cli()
    keep(cli.folder, WORK)
    hide = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('nbclient', 'jupyterlab'))\n"
        "from tcb_ops.cli.main import main\n"
        f"main({words!r})"
    )

    def suggested(before=""):
        with cli.spawn([sys.executable, "-c", f"import sys; {before}\n{hide}"]) as process:
            _, err = process.communicate(timeout=240)
        assert process.returncode == 2, err
        return shlex.split(err.splitlines()[-1])

    assert suggested() == [sys.executable, "-m", "pip", "install", "tcb-ops[lab]"]
    without_pip = suggested("sys.modules['pip'] = None")  # as in an environment that uv made
    assert without_pip == ["uv", "pip", "install", "--python", sys.executable, "tcb-ops[lab]"]
    assert not (cli.folder / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions of folders are not looked at elsewhere")
def test_a_folder_into_which_everybody_can_put_modules_runs_no_kernel(open_cli):
    cli = open_cli()
    (cli.folder / "ipykernel_launcher.py").write_text("open('ran', 'w').close()", encoding="utf-8")
    cli.folder.chmod(0o1777)
    for words in (("notebook", keep(cli.folder, WORK), "--out", "out"), ("lab", ".")):
        result = cli(*words)
        assert (result.code, "everybody can write to it" in result.err) == (2, True)
    assert not (cli.folder / "ran").exists()

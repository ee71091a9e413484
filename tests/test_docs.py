"""The README says what is so. `python tests/test_docs.py` writes its generated blocks anew."""

import re
import subprocess
import sys
from pathlib import Path

import tcb_ops as tcb
from tcb_ops.doors.cli import cli
from tcb_ops.errcodes import all_errcodes, errcode_table
from tcb_ops.model import Lang
from tcb_ops.settings import Settings, TokenSettings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def help_text() -> str:
    with cli.make_context(
        "tcb-ops", [], max_content_width=100, terminal_width=100, resilient_parsing=True
    ) as context:
        return f"```\n{cli.get_help(context)}\n```"


BLOCKS = {"help": help_text, "errcodes": lambda: errcode_table(Lang.EN).strip()}


def test_generated_blocks_of_the_readme_are_what_the_program_says():
    readme = README.read_text(encoding="utf-8")
    for name, current in BLOCKS.items():
        block = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", readme, re.DOTALL)
        assert block is not None, name
        assert block[1] == current(), f"run: python tests/test_docs.py   ({name})"


def test_every_errcode_of_the_catalogue_is_in_the_readme():
    readme = README.read_text(encoding="utf-8")
    assert [
        entry.code for entry in all_errcodes() if not re.search(rf"\|\s*`?{entry.code}`?\s", readme)
    ] == []


def test_every_option_and_setting_that_the_readme_names_exists():
    readme = README.read_text(encoding="utf-8")
    options = {opt for command in cli.commands.values() for param in command.params for opt in param.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme))
    other_programs = {"--appid", "--check"}
    assert named - options - other_programs <= {"--version", "--help"}
    settings = set(
        re.findall(r"^\| `([a-z_]+)` \|", readme.split("### Settings")[1].split("## ")[0], re.MULTILINE)
    )
    assert settings == set(Settings.model_fields) - {"tokens"}
    assert all(f"{field} = " in readme for field in TokenSettings.model_fields)


def test_every_command_has_help_and_a_test_of_its_name_in_the_readme():
    readme = README.read_text(encoding="utf-8")
    for name, command in cli.commands.items():
        assert command.help, name
        assert re.search(rf"tcb-ops {name}\b|`{name}`", readme), name
        for param in command.params:
            assert getattr(param, "help", "") or param.param_type_name == "argument", f"{name} {param.name}"


def test_public_names_are_there_and_used_in_the_readme_as_they_are():
    assert sorted(tcb.__all__) == tcb.__all__
    assert all(hasattr(tcb, name) for name in tcb.__all__)
    readme = README.read_text(encoding="utf-8")
    assert set(re.findall(r"\btcb\.([a-z_]+)\(", readme)) <= set(tcb.__all__)


def test_importing_is_quick_and_loads_no_heavy_library():
    heavy = {"pandas", "sqlalchemy", "aiohttp", "httpx", "rich", "jinja2", "click", "IPython", "ipywidgets"}
    code = "import sys, tcb_ops; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert heavy & set(loaded) == set()


def test_constraints_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+==[a-zA-Z0-9.+!_-]+( ; .+)?", line), line
        assert "://" not in line


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    for name, current in BLOCKS.items():
        text = re.sub(
            rf"<!-- {name} -->\n.*?<!-- /{name} -->",
            lambda _, name=name, current=current: f"<!-- {name} -->\n{current()}\n<!-- /{name} -->",
            text,
            flags=re.DOTALL,
        )
    README.write_text(text, encoding="utf-8")

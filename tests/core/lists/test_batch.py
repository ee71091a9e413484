import csv
import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import Lang
from tcb_ops.lists.fix_me import write_fixme
from tcb_ops.lists.paths import read_paths


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name, size in (("a.png", 3), ("图.png", 5)):
        (root / name).write_bytes(b"x" * size)
    return root


LIST = "env,path,file\ntea-1a2b3c,a.png,\ntea-1a2b3c,b.png,图.png\nbooks-77aa01,a.png,\n"


def test_with_a_root_rows_carry_size_and_time(write, merchants, root):
    batch = read_paths(write(LIST), merchants, root)
    assert [(r.size, r.mtime_ns) for r in batch.rows()] == [
        (s.st_size, s.st_mtime_ns) for s in ((root / f).stat() for f in ("a.png", "图.png", "a.png"))
    ]
    assert (batch.total_bytes, batch.root) == (11, root)


def test_without_a_root_files_are_left_alone_until_asked_for(write, merchants, root):
    batch = read_paths(write(LIST), merchants)
    assert [r.size for r in batch.rows()] == [None] * 3
    assert (batch.total_bytes, batch.root) == (0, None)
    checked = batch.check_files(root)
    assert [r.size for r in checked.rows()] == [3, 5, 3]
    assert checked.root == root


def test_a_bad_file_refuses_the_list_or_makes_its_row_invalid(write, merchants, root):
    path = write(LIST.replace("图.png", "gone.png"))
    with pytest.raises(InputError, match="column 'file': there is no file"):
        read_paths(path, merchants, root)
    batch = read_paths(path, merchants, root, on_bad="skip")
    assert [r.invalid and r.invalid.en for r in batch.rows()] == [
        None,
        "there is no file gone.png in the folder of local files",
        None,
    ]
    assert batch.total_bytes == 6
    (root / "gone.png").write_bytes(b"x")
    assert batch.check_files(root).valid == 3


def test_a_root_that_is_not_there_refuses_the_list_whatever_is_skipped(write, merchants, root):
    text = LIST + "nope,x,\n"
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants, root / "nowhere", on_bad="skip")
    assert [p.line for p in raised.value.problems] == [0, 5]


def test_a_row_whose_path_is_bad_is_not_blamed_for_its_file_too(write, merchants, root):
    with pytest.raises(InputError) as raised:
        read_paths(write("env,path\ntea-1a2b3c,/a.png\n"), merchants, root)
    assert len(raised.value.problems) == 1


def test_limited_has_the_first_valid_rows_only(write, merchants, root):
    batch = read_paths(write(LIST.replace("file\n", "file\nnope,a.png,\n")), merchants, on_bad="skip")
    few = batch.limited(2)
    assert [r.line for r in few.rows()] == [3, 4]
    assert (few.count, few.valid, few.envs, few.merchants_count) == (2, 2, 1, 1)
    assert batch.limited(99).count == 3
    assert batch.count == 4


def test_problems_are_a_sequence(write, merchants):
    text = "env,path\n" + "".join(f"nope,{i}\n" for i in range(4500))
    problems = read_paths(write(text), merchants, on_bad="skip").problems
    assert len(problems) == 4500
    assert [p.line for p in problems] == list(range(2, 4502))
    assert (problems[0].line, problems[-1].line) == (2, 4501)
    assert [p.line for p in problems[1:3]] == [3, 4]
    with pytest.raises(IndexError):
        problems[4500]
    with pytest.raises(IndexError):
        problems[-4501]


def test_an_error_keeps_its_problems_readable_as_long_as_it_lives(write, merchants):
    with pytest.raises(InputError) as raised:
        read_paths(write("env,path\nnope,a\n"), merchants)
    gc.collect()
    assert [p.line for p in raised.value.problems] == [2]


def test_a_closed_batch_says_so(write, merchants):
    with read_paths(write(LIST), merchants) as batch:
        pass
    with pytest.raises(UsageError, match="closed") as raised:
        next(batch.rows())
    assert raised.value.__context__ is None
    batch.close()


@pytest.mark.slow
def test_nothing_is_left_in_the_temporary_folder_even_while_it_is_open(write, merchants, tmp_path):
    script = """
import os, sys
from pathlib import Path
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant
batch = read_paths(sys.argv[1], Merchants([Merchant("a", "甲", "e")]))
assert batch.count == 40000
print(os.listdir(os.environ["TMPDIR"]))
"""
    (tmp_path / "tmp").mkdir()
    path = write(
        "env,path\n" + "".join(f"e,some/long/path/to/make/it/spill-{i}.png\n" for i in range(40_000))
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"TMPDIR": str(tmp_path / "tmp"), "PATH": ""},
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak as Linux tells it")
def test_memory_does_not_grow_with_the_list(write):
    script = """
import json, sys
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant
merchants = Merchants([Merchant(f"wx{i}", f"商户{i}", f"env-{i}") for i in range(200)])
batch = read_paths(sys.argv[1], merchants)
rows = sum(1 for _ in batch.rows())
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([rows, batch.envs, int(peak)]))
"""
    peaks = []
    for many in (60_000, 200_000):  # the smaller one, too, fills the cache of the staged rows
        lines = "".join(f"env-{i % 200},banner/{i:07}.png,春季活动,007\n" for i in range(many))
        path = write("env,path,说明,编号\n" + lines, f"{many}.csv")
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        rows, envs, peak = json.loads(done.stdout)
        assert (rows, envs) == (many, 200)
        peaks.append(peak)
    assert peaks[1] < peaks[0] * 1.1


BAD_LIST = "环境ID,上传路径,备注\r\ntea-1a2b3c,好.png,x\r\nnope,/b.png,=1+1\r\ntea-1a2b3c,好.png,007\r\n"


def read(path):
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\r\n") == data.count(b"\n")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_the_rows_with_problems_stand_once_each_with_what_and_how(write, merchants, tmp_path):
    with pytest.raises(InputError) as raised:
        read_paths(write(BAD_LIST), merchants)
    problems = raised.value.problems
    assert write_fixme(problems, tmp_path / "list.csv", Lang.ZH) == (tmp_path / "list.fix-me.csv", 2)
    header, first, second = read(tmp_path / "list.fix-me.csv")
    assert header == [
        "环境ID",
        "上传路径",
        "备注",
        "tcb_line",
        "tcb_column",
        "tcb_problem",
        "tcb_fix",
        "tcb_list",
        "tcb_checksum",
    ]
    assert first[:5] == ["nope", "/b.png", "'=1+1", "3", "环境ID; 上传路径"]
    assert first[5] == "; ".join(p.message.zh for p in problems[:2])
    assert second[:5] == ["tea-1a2b3c", "好.png", "007", "4", "上传路径"]
    assert second[6] == problems[2].fix.zh


@pytest.mark.parametrize("text", ["env,path\n", "", "a,b\nc,d\n"], ids=["header only", "empty", "no column"])
def test_problems_of_the_file_as_a_whole_give_no_fix_me_file(write, merchants, tmp_path, text):
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    dest, rows = write_fixme(raised.value.problems, tmp_path / "list.csv", Lang.EN)
    assert (rows, dest.exists()) == (0, False)


def test_a_file_that_cannot_be_written_is_reported(write, merchants, tmp_path):
    problems = read_paths(write(BAD_LIST), merchants, on_bad="skip").problems
    with pytest.raises(UsageError, match="cannot be written"):
        write_fixme(problems, tmp_path / "list.csv", Lang.EN, tmp_path / "nowhere/fix-me.csv")

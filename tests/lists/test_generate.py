from __future__ import annotations

import csv
import time
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.lists.generate import (
    FIELDS,
    GeneratedList,
    PathTemplate,
    default_root,
    scan,
    write_list,
)
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from pathlib import Path

TODAY = "2026-03-15"
TEA, BOOKS = Merchant("wxtea", "茶语小铺", "tea-1a2b3c"), Merchant("wxbooks", "城南书店", "books-77aa01")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "素材"
    for file in ("a.png", "春/b.tar.gz", "README"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(b"123")
    return source


def make(
    folder: Path, targets: list[Merchant], template: str = "{rel}", root: Path | None = None
) -> tuple[Path, Path, GeneratedList]:
    gathered, dest = scan(folder), folder.parent / "list.csv"
    base = default_root(gathered.folder, dest, root)
    return dest, base, write_list(gathered, targets, PathTemplate(template, TODAY), dest, base)


def read(dest: Path) -> list[dict[str, Any]]:
    with dest.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        pytest.param("{rel}", ["a.png", "README", "春/b.tar.gz"], id="rel"),
        pytest.param("banner/{date}/{name}", [f"banner/{TODAY}/{n}" for n in ("a.png", "README", "b.tar.gz")], id="date"),
        pytest.param("x/{dir}/{stem}-1.{ext}", ["x/a-1.png", "x/README-1.", "x/春/b.tar-1.gz"], id="dir, stem and ext"),
        pytest.param("{merchant}/{appid}/{env}/{rel}", [f"茶语小铺/wxtea/tea-1a2b3c/{n}" for n in ("a.png", "README", "春/b.tar.gz")], id="whose"),
        pytest.param("{{}}/{rel}", ["{}/a.png", "{}/README", "{}/春/b.tar.gz"], id="braces"),
    ],
)  # fmt: skip
def test_a_template_makes_cloud_paths(template: str, paths: list[str]) -> None:
    assert PathTemplate(template, TODAY).paths(["a.png", "README", "春/b.tar.gz"], TEA) == paths


@pytest.mark.parametrize(
    "template", ["{nmae}", "{}", "{0}", "{name.real}", "{name[0]}", "{name!r}", "{date:%Y}", "{name", "a}b"]
)
def test_a_template_with_an_unknown_field_lists_the_fields(template: str) -> None:
    with pytest.raises(UsageError) as raised:
        PathTemplate(template, TODAY)
    assert all(f"{{{field}}}" in raised.value.text.en for field in FIELDS)
    assert raised.value.__cause__ is None


def test_the_list_has_a_row_per_environment_and_file_and_passes_check(folder: Path) -> None:
    dest, base, made = make(folder, [TEA, BOOKS], "banner/{rel}")
    assert dest.read_bytes().startswith(b"\xef\xbb\xbfenv,merchant,path,file\r\n")
    assert (made.rows, made.files, made.envs, made.merchants, made.bytes) == (6, 3, 2, 2, 18)
    assert read(dest)[3] == {
        "env": "books-77aa01",
        "merchant": "城南书店",
        "path": "banner/README",
        "file": "素材/README",
    }
    assert base == dest.parent  # where `upload` looks by itself
    batch = read_paths(dest, Merchants([TEA, BOOKS]), base)
    assert (batch.valid, batch.total_bytes, batch.warnings) == (6, 18, ())


def test_files_are_written_from_the_root_on(folder: Path, tmp_path: Path) -> None:
    dest, base, _ = make(folder, [TEA], root=folder)
    assert [row["file"] for row in read(dest)] == ["README", "a.png", "春/b.tar.gz"]
    assert read_paths(dest, Merchants([TEA]), base).valid == 3
    (tmp_path / "here").mkdir()
    assert default_root(folder, tmp_path / "here" / "list.csv", None) == folder
    with pytest.raises(UsageError, match="is not below --root"):
        make(folder, [TEA], root=tmp_path / "here")


def test_a_shared_environment_gets_an_appid_and_may_not_be_written_twice(folder: Path) -> None:
    noodle, soup = Merchant("wxnoodle", "同名", "shared"), Merchant("wxsoup", "同名", "shared")
    dest, base, _ = make(folder, [noodle, soup], "{appid}/{rel}")
    assert list(read(dest)[0]) == ["env", "merchant", "path", "file", "appid"]
    rows = list(read_paths(dest, Merchants([noodle, soup]), base).rows())
    assert [row.appid for row in rows] == ["wxnoodle"] * 3 + ["wxsoup"] * 3
    dest.unlink()
    with pytest.raises(
        UsageError, match=r"share the environment shared, and both would write README: put \{appid\}"
    ):
        make(folder, [TEA, noodle, soup])


@pytest.mark.parametrize("template", ["x.png", "{date}", "{env}.png"])
def test_two_files_may_not_become_one_path(folder: Path, template: str) -> None:
    with pytest.raises(UsageError, match=r"README and a\.png would both become"):
        make(folder, [TEA, BOOKS], template)
    assert not (folder.parent / "list.csv").exists()


def test_cells_that_a_spreadsheet_would_run_come_back_as_they_were(folder: Path) -> None:
    (folder / "=1+1.png").write_bytes(b"x")
    dest, base, _ = make(folder, [Merchant("wx1", "@home", "e")], root=folder)
    assert "'=1+1.png" in dest.read_text("utf-8-sig")
    paths = [row.path for row in read_paths(dest, Merchants([Merchant("wx1", "@home", "e")]), base).rows()]
    assert "=1+1.png" in paths


@pytest.mark.parametrize(
    ("name", "template", "says"),
    [
        pytest.param("a\nb.png", "{rel}", "control character", id="a line break"),
        pytest.param("b.png", "/{rel}", "begins with /", id="a leading slash"),
        pytest.param("b.png", "a//{rel}", "contains //", id="two slashes"),
        pytest.param("b.png", "../{rel}", ".. segment", id="dots"),
        pytest.param("b.png", "", "is empty", id="nothing"),
        pytest.param("b.png", "{rel} ", "begins or ends with a space", id="a space"),
        pytest.param("b.png ", "x/{stem}", "the file name", id="a name that would be trimmed"),
        pytest.param("a\\b.png", "x/{stem}", "the file name", id="a backslash"),
        pytest.param("x" * 200 + ".png", "中" * 230 + "/{rel}", "850 are allowed", id="too long"),
    ],
)
def test_what_could_not_be_sent_is_not_written(folder: Path, name: str, template: str, says: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(InputError) as raised:
        make(folder, [TEA], template)
    assert any(says in problem.message.en for problem in raised.value.problems)
    assert not (folder.parent / "list.csv").exists()


def test_a_list_is_never_overwritten(folder: Path) -> None:
    dest, _, _ = make(folder, [TEA])
    before = dest.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        make(folder, [BOOKS])
    assert dest.read_bytes() == before


def test_a_file_that_cannot_be_written_is_reported(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_list(scan(folder), [TEA], PathTemplate("{rel}", TODAY), folder / "no/list.csv", folder)


def test_four_hundred_environments_are_quick(folder: Path) -> None:
    for n in range(100):
        (folder / f"{n}.png").write_bytes(b"x")
    targets = [Merchant(f"wx{n}", f"商户{n}", f"env-{n}") for n in range(400)]
    began = time.process_time()
    _, _, made = make(folder, targets, "{env}/{date}/{rel}")
    assert made.rows == 400 * 103
    assert time.process_time() - began < 5

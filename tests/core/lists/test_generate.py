from __future__ import annotations

import csv
import io
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.features.merchants.sync import EMPTY_FILE
from tcb_ops.i18n import Lang
from tcb_ops.lists.generate import (
    FIELDS,
    GeneratedList,
    PathTemplate,
    default_root,
    is_included,
    list_template,
    scan,
    select_targets,
    write_list,
)
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for file in (
        "a.png",
        "b.JPG",
        "春/a.png",
        "春/深/c.png",
        ".DS_Store",
        "Thumbs.db",
        "春/thumbs.db",
        "desktop.ini",
        "~$list.xlsx",
        ".git/config",
        ".hidden",
    ):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(b"x")
    return source


def test_a_folder_gives_all_files_below_it_but_what_nobody_means(tree: Path) -> None:
    (tree / "linked").symlink_to(tree / "春", target_is_directory=True)
    found = scan(tree)
    assert (found.folder, found.files) == (tree, ("a.png", "b.JPG", "春/a.png", "春/深/c.png"))
    assert (found.junk, found.own, found.excluded) == (8, 0, 0)


def test_a_file_gives_itself(tree: Path) -> None:
    found = scan(tree / "春" / "a.png")
    assert (found.folder, found.files) == (tree / "春", ("a.png",))


def test_tokens_and_the_ledger_are_never_taken(tree: Path) -> None:
    locks = tree / "ledger-locks"
    locks.mkdir()
    (locks / "x.lock").touch()
    (tree / "innocent.txt").symlink_to(tree / "a.png")
    own = frozenset(map(os.path.realpath, (tree / "a.png", locks)))
    found = scan(tree, own=own)
    assert (found.files, found.own) == (("b.JPG", "春/a.png", "春/深/c.png"), 3)
    with pytest.raises(UsageError, match="tcb-ops's own: 1"):
        scan(tree / "a.png", own=own)


@pytest.mark.parametrize(
    ("file", "include", "exclude", "meant"),
    [
        ("a/b.png", [], [], True),
        ("a/b.PNG", ["*.png"], [], True),
        ("a/b.png", ["*.PNG"], [], True),
        ("a/b.png", ["*.jpg"], [], False),
        ("a/b.png", ["*.jpg", "b.*"], [], True),
        ("a/b.png", ["*.png"], ["b.*"], False),
        ("a/b.png", ["a/*"], [], True),
        ("a/b.png", ["b/*"], [], False),
        ("a/b.png", [], ["a/*"], False),
        ("旧/b.png", [], ["旧/*"], False),
    ],
)
def test_patterns_leave_files_in_or_out(
    file: str, include: list[str], exclude: list[str], meant: bool
) -> None:
    assert is_included(file, include, exclude) is meant


def test_what_is_not_there_or_leaves_nothing_is_refused_in_words(tree: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        scan(tree / "nowhere")
    with pytest.raises(UsageError, match=r"no file remains \(hidden or temporary: 7; .*--exclude: 4"):
        scan(tree, include=["*.gif"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(tree: Path) -> None:
    (tree / "春").chmod(0)
    try:
        with pytest.raises(UsageError, match="cannot be read"):
            scan(tree)
    finally:
        (tree / "春").chmod(0o700)


def narrowed(merchants: Merchants, *envs: str) -> Merchants:
    return Merchants([m for m in merchants if m.env in envs], merchants.source, merchants)


@pytest.mark.parametrize(
    ("to", "envs"),
    [
        pytest.param(["books-77aa01"], ["books-77aa01"], id="an env"),
        pytest.param(["城南书店"], ["books-77aa01"], id="a name"),
        pytest.param([" ＷＸＢＯＯＫＳ "], ["books-77aa01"], id="an appid, wide"),
        pytest.param(["茶语小铺"], ["tea-1a2b3c"], id="a name: its default"),
        pytest.param(
            ["tea-test-9f", "茶语小铺", "wxtea"], ["tea-test-9f", "tea-1a2b3c"], id="each once, in order"
        ),
        pytest.param(["wxsoup"], ["shared-5e6f"], id="a shared env, by its merchant"),
    ],
)
def test_to_names_environments_and_merchants(merchants: Merchants, to: list[str], envs: list[str]) -> None:
    assert [m.env for m in select_targets(merchants, to)] == envs


def test_all_means_each_merchant_s_only_or_default_environment(merchants: Merchants) -> None:
    some = narrowed(merchants, "tea-1a2b3c", "tea-test-9f", "books-77aa01", "shared-5e6f")
    assert [(m.appid, m.env) for m in select_targets(some, ["all"])] == [
        ("wxtea", "tea-1a2b3c"),
        ("wxbooks", "books-77aa01"),
        ("wxnoodle", "shared-5e6f"),
        ("wxsoup", "shared-5e6f"),
    ]
    # Where --where leaves one environment of a merchant, that is the one that is meant.
    assert [m.env for m in select_targets(narrowed(merchants, "tea-test-9f", "bakery-b"), ["all"])] == [
        "tea-test-9f",
        "bakery-b",
    ]


def test_all_envs_means_every_environment_once(merchants: Merchants) -> None:
    some = narrowed(merchants, "tea-1a2b3c", "tea-test-9f", "bakery-a", "bakery-b")
    assert [m.env for m in select_targets(some, ["all-envs"])] == [
        "tea-1a2b3c",
        "tea-test-9f",
        "bakery-a",
        "bakery-b",
    ]


def test_whoever_has_left_is_passed_over(merchants: Merchants) -> None:
    gone = Merchants([replace(m, left=m.appid != "wxbooks") for m in merchants], merchants.source)
    assert [m.env for m in select_targets(gone, ["all"])] == ["books-77aa01"]
    with pytest.raises(UsageError, match="selects no merchant"):
        select_targets(narrowed(gone, "tea-1a2b3c"), ["all-envs"])


@pytest.mark.parametrize(
    ("to", "says"),
    [
        pytest.param("茶语小店", "did you mean 茶语小铺?", id="a name that is nobody's"),
        pytest.param("tea-1a2b3d", "did you mean tea-1a2b3c?", id="an env that is nobody's"),
        pytest.param("zzz", "see merchants.csv", id="nothing like it"),
        pytest.param("", "has this name", id="nothing"),
        pytest.param(
            "麦田烘焙", "several environments: bakery-a (麦田烘焙, wxbakery), bakery-b", id="no default"
        ),
        pytest.param("shared-5e6f", "several merchants share this environment", id="shared"),
        pytest.param("all", "none of them the default: bakery-a (麦田烘焙, wxbakery), bakery-b", id="all"),
        pytest.param("all-envs", "share an environment: shared-5e6f (老街面馆, wxnoodle)", id="all-envs"),
    ],
)
def test_what_matches_nobody_or_several_is_refused(merchants: Merchants, to: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        select_targets(merchants, [to])
    assert says in raised.value.text.en


def test_whom_where_leaves_out_cannot_be_named(merchants: Merchants) -> None:
    with pytest.raises(UsageError, match="excluded by --where"):
        select_targets(narrowed(merchants, "tea-1a2b3c"), ["城南书店"])


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


@pytest.mark.slow
def test_four_hundred_environments_are_quick(folder: Path) -> None:
    for n in range(100):
        (folder / f"{n}.png").write_bytes(b"x")
    targets = [Merchant(f"wx{n}", f"商户{n}", f"env-{n}") for n in range(400)]
    began = time.process_time()
    _, _, made = make(folder, targets, "{env}/{date}/{rel}")
    assert made.rows == 400 * 103
    assert time.process_time() - began < 5


NAMES = ["茶语小铺", "城南书店"]


@pytest.mark.parametrize("lang", list(Lang))
def test_the_template_has_text_columns_and_a_drop_down_of_merchants(lang: Lang) -> None:
    book = openpyxl.load_workbook(io.BytesIO(list_template(NAMES, lang)))
    sheet, known = book.worksheets
    assert [sheet.column_dimensions[c].number_format for c in "AB"] == ["@", "@"]
    assert [cell.value for cell in known["A"]][1:] == NAMES
    (rule,) = sheet.data_validations.dataValidation
    assert (rule.type, rule.formula1, str(rule.sqref)) == (
        "list",
        f"{known.title}!$A$2:$A$1003",
        "A2:A1048576",
    )


@pytest.mark.parametrize("lang", list(Lang))
def test_filled_in_the_template_is_a_list(lang: Lang, tmp_path: Path, merchants: Merchants) -> None:
    file = tmp_path / "list.xlsx"
    file.write_bytes(list_template(NAMES, lang))
    with pytest.raises(InputError, match="no row below it"):
        read_paths(file, merchants)
    book = openpyxl.load_workbook(file)
    book.worksheets[0].append(["茶语小铺", "a/007.png", "a.png"])
    book.save(file)
    (row,) = read_paths(file, merchants).rows()
    assert (row.line, row.env, row.path, row.file) == (2, "tea-1a2b3c", "a/007.png", "a.png")


def test_the_merchants_file_waits_for_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "merchants.csv"
    file.write_bytes(EMPTY_FILE)
    with pytest.raises(InputError, match="no merchant below it"):
        read_merchants(file)
    file.write_bytes(EMPTY_FILE + "wxtea,茶语小铺,tea-1a2b3c,yes,,\r\n".encode())
    assert read_merchants(file)[0].default

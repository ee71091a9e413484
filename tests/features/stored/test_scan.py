import csv
import io
import os
from dataclasses import replace

import openpyxl
import pytest

from tcb_ops.cli.setup import list_template
from tcb_ops.errors import InputError, UsageError
from tcb_ops.features.stored.scan import (
    FIELDS,
    PathTemplate,
    default_root,
    is_included,
    scan,
    select_targets,
    write_list,
)
from tcb_ops.i18n import Lang
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Merchant


@pytest.fixture
def merchants():
    east, north = ({"columns": (("region", region),)} for region in ("华东", "华北"))
    lines = (
        Merchant("wxtea", "茶语小铺", "tea-1a2b3c", default=True, **east),
        Merchant("wxtea", "茶语小铺", "tea-test-9f", **east),
        Merchant("wxbooks", "城南书店", "books-77aa01", **north),
        Merchant("wxnoodle", "老街面馆", "shared-5e6f", **north),
        Merchant("wxsoup", "Soup & Co", "shared-5e6f", **east),
        Merchant("wxbakery", "麦田烘焙", "bakery-a", **east),
        Merchant("wxbakery", "麦田烘焙", "bakery-b", **east),
    )
    return Merchants(lines, "merchants.csv")


@pytest.fixture
def tree(tmp_path):
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


@pytest.mark.posix("special files")
def test_a_folder_gives_all_files_below_it_but_what_nobody_means(tree):
    (tree / "linked").symlink_to(tree / "春", target_is_directory=True)
    found = scan(tree)
    assert (found.folder, found.files) == (tree, ("a.png", "b.JPG", "春/a.png", "春/深/c.png"))
    assert (found.junk, found.own, found.excluded) == (8, 0, 0)


def test_a_file_gives_itself(tree):
    found = scan(tree / "春" / "a.png")
    assert (found.folder, found.files) == (tree / "春", ("a.png",))


@pytest.mark.posix("file names")
def test_tokens_and_the_ledger_are_never_taken(tree):
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
def test_patterns_leave_files_in_or_out(file, include, exclude, meant):
    assert is_included(file, include, exclude) is meant


def test_what_is_not_there_or_leaves_nothing_is_refused_in_words(tree):
    with pytest.raises(UsageError, match="no such file or folder"):
        scan(tree / "nowhere")
    with pytest.raises(UsageError, match=r"no file remains \(hidden or temporary: 7; .*exclude: 4"):
        scan(tree, include=["*.gif"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(tree):
    (tree / "春").chmod(0)
    try:
        with pytest.raises(UsageError, match="cannot be read"):
            scan(tree)
    finally:
        (tree / "春").chmod(0o700)


def narrowed(merchants, *envs):
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
def test_to_names_environments_and_merchants(merchants, to, envs):
    assert [m.env for m in select_targets(merchants, to)] == envs


def test_all_means_each_merchant_s_only_or_default_environment(merchants):
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


def test_all_envs_means_every_environment_once(merchants):
    some = narrowed(merchants, "tea-1a2b3c", "tea-test-9f", "bakery-a", "bakery-b")
    assert [m.env for m in select_targets(some, ["all-envs"])] == [
        "tea-1a2b3c",
        "tea-test-9f",
        "bakery-a",
        "bakery-b",
    ]


def test_whoever_has_left_is_passed_over(merchants):
    gone = Merchants([replace(m, left=m.appid != "wxbooks") for m in merchants], merchants.source)
    assert [m.env for m in select_targets(gone, ["all"])] == ["books-77aa01"]
    with pytest.raises(UsageError, match="selects no merchant"):
        select_targets(narrowed(gone, "tea-1a2b3c"), ["all-envs"])


@pytest.mark.parametrize(
    ("to", "says"),
    [
        pytest.param("茶语小店", "did you mean 茶语小铺?", id="a name that is nobody's"),
        pytest.param("books-77aa0", "no name or appid 'books-77aa0'", id="an env that is nobody's"),
        pytest.param("", "is empty", id="nothing"),
        pytest.param(
            "麦田烘焙", "several environments: bakery-a (麦田烘焙, wxbakery), bakery-b", id="no default"
        ),
        pytest.param("shared-5e6f", "several merchants share this environment", id="shared"),
        pytest.param("all", "--where: bakery-a (麦田烘焙, wxbakery), bakery-b", id="all"),
        pytest.param("all-envs", "--where: shared-5e6f (老街面馆, wxnoodle)", id="all-envs"),
    ],
)
def test_what_matches_nobody_or_several_is_refused(merchants, to, says):
    with pytest.raises(UsageError) as raised:
        select_targets(merchants, [to])
    assert says in raised.value.text.en


def test_whom_where_leaves_out_cannot_be_named(merchants):
    with pytest.raises(UsageError, match="excluded by where"):
        select_targets(narrowed(merchants, "tea-1a2b3c"), ["城南书店"])


TODAY = "2026-03-15"
TEA, BOOKS = Merchant("wxtea", "茶语小铺", "tea-1a2b3c"), Merchant("wxbooks", "城南书店", "books-77aa01")


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "素材"
    for file in ("a.png", "春/b.tar.gz", "README"):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(b"123")
    return source


def make(folder, targets, template="{rel}"):
    """Write list.csv beside the folder, and read it as `check` does."""
    scanned, dest = scan(folder), folder.parent / "list.csv"
    base = default_root(scanned.folder, dest)
    write_list(scanned, targets, PathTemplate(template, TODAY), dest, base)
    return read_paths(dest, Merchants(targets), base)


def read(dest):
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
def test_a_template_makes_cloud_paths(template, paths):
    assert PathTemplate(template, TODAY).paths(["a.png", "README", "春/b.tar.gz"], TEA) == paths


@pytest.mark.parametrize(
    "template", ["{nmae}", "{}", "{0}", "{name.real}", "{name[0]}", "{name!r}", "{date:%Y}", "{name", "a}b"]
)
def test_a_template_with_an_unknown_field_lists_the_fields(template):
    with pytest.raises(UsageError) as raised:
        PathTemplate(template, TODAY)
    assert all(f"{{{field}}}" in raised.value.text.en for field in FIELDS)
    assert raised.value.__cause__ is None


def test_the_list_has_a_row_per_environment_and_file_and_passes_check(folder):
    batch, dest = make(folder, [TEA, BOOKS], "banner/{rel}"), folder.parent / "list.csv"
    assert dest.read_bytes().startswith(b"\xef\xbb\xbfenv,merchant,path,file\r\n")
    assert (batch.valid, batch.envs, batch.merchants_count, batch.total_bytes) == (6, 2, 2, 18)
    assert read(dest)[3] == {
        "env": "books-77aa01",
        "merchant": "城南书店",
        "path": "banner/README",
        "file": "素材/README",
    }
    assert batch.root == dest.parent  # where `upload` looks by itself
    assert batch.warnings == ()


def test_files_are_written_from_the_source_on_where_the_list_is_elsewhere(folder, tmp_path):
    assert default_root(folder, tmp_path / "here" / "list.csv") == folder


def test_a_shared_environment_gets_an_appid_and_may_not_be_written_twice(folder):
    noodle, soup = Merchant("wxnoodle", "同名", "shared"), Merchant("wxsoup", "同名", "shared")
    batch = make(folder, [noodle, soup], "{appid}/{rel}")
    assert batch.headers == ("env", "merchant", "path", "file", "appid")
    assert [row.appid for row in batch.rows()] == ["wxnoodle"] * 3 + ["wxsoup"] * 3


def test_cells_that_a_spreadsheet_would_run_come_back_as_they_were(folder):
    (folder / "=1+1.png").write_bytes(b"x")
    batch = make(folder, [Merchant("wx1", "@home", "e")])
    assert "'=1+1.png" in (folder.parent / "list.csv").read_text("utf-8-sig")
    assert "=1+1.png" in [row.path for row in batch.rows()]


@pytest.mark.posix("file names")
@pytest.mark.parametrize("name", ["b.png ", "a\\b.png", "a\udcff.png"])
def test_a_name_that_a_list_cannot_have_is_refused(folder, name):
    (folder / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="the file name"):
        make(folder, [TEA])
    assert not (folder.parent / "list.csv").exists()


def test_a_list_is_never_overwritten_and_goes_nowhere_else(folder):
    make(folder, [TEA])
    before = (folder.parent / "list.csv").read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        make(folder, [BOOKS])
    assert (folder.parent / "list.csv").read_bytes() == before
    with pytest.raises(UsageError, match="cannot be written"):
        write_list(scan(folder), [TEA], PathTemplate("{rel}", TODAY), folder / "no/list.csv", folder)


@pytest.mark.needs("workbooks")
@pytest.mark.parametrize("lang", list(Lang))
def test_filled_in_the_template_is_a_list(lang, tmp_path, merchants):
    file = tmp_path / "list.xlsx"
    file.write_bytes(list_template(lang))
    with pytest.raises(InputError, match="no row below it"):
        read_paths(file, merchants)
    book = openpyxl.load_workbook(io.BytesIO(list_template(lang)))
    sheet = book.worksheets[0]
    assert [sheet.column_dimensions[column].number_format for column in "AB"] == ["@", "@"]
    sheet.append(["茶语小铺", "a/007.png", "a.png"])
    book.save(file)
    (row,) = read_paths(file, merchants).rows()
    assert (row.line, row.env, row.path, row.file) == (2, "tea-1a2b3c", "a/007.png", "a.png")

"""The files that rows name: local ones, mapped ones, URLs and what of them is kept; the type of an object by its name."""

import csv
import mimetypes
import os
import socket
from pathlib import Path

import pytest
from tables import table

from tcb_ops.details import DetailCode
from tcb_ops.errors import InputError, UsageError
from tcb_ops.features.sources.maps import path_map
from tcb_ops.i18n import Lang
from tcb_ops.lists import batch as list_batch
from tcb_ops.lists import row_files
from tcb_ops.lists.fix_me import write_fixme
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.row_files import (
    MAX_FILE_BYTES,
    LocalFile,
    LocalFiles,
    UnusableFile,
    concealed,
    content_type_of,
    split_source,
    whole_source,
)
from tcb_ops.model import Merchant, Secret, SourceFile, is_source
from tcb_ops.shell import quote


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "目录").mkdir(parents=True)
    (root / "目录/图 1.png").write_bytes(b"1234")
    (root / "a.png").write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "root-of-another").mkdir()
    (tmp_path / "root-of-another/x.png").write_bytes(b"x")
    return root


def test_a_regular_file_gives_its_size_and_time(root):
    found = LocalFiles(root).inspect("目录/图 1.png")
    assert found == LocalFile(4, (root / "目录/图 1.png").stat().st_mtime_ns)
    assert LocalFiles(root).inspect("a.png") == LocalFile(0, (root / "a.png").stat().st_mtime_ns)
    assert LocalFiles(root).inspect("目录/../a.png") == LocalFiles(root).inspect("a.png")


def unusable(root, file):
    """Return why a file cannot be used, and what to do."""
    result = LocalFiles(root).inspect(file)
    assert isinstance(result, UnusableFile), file
    return result.message.en, result.fix.en


@pytest.mark.posix("special files")
@table(
    "file, says",
    {
        "missing": ("none.png", "there is no file none.png"),
        "below a file": ("a.png/b.png", "there is no file"),
        "folder": ("目录", "is a folder"),
        "folder with a slash": ("目录/", "is a folder"),
        "outside by dots": ("../outside.png", "outside the folder of local files"),
        "a folder whose name begins alike": ("../root-of-another/x.png", "outside the folder of local files"),
        "the folder above": ("..", "outside the folder of local files"),
        "a name too long": ("x" * 300, "cannot be inspected"),
        "absolute, though inside the root": ("{root}/a.png", "not relative"),
    },
)
def test_an_unusable_file_is_reported_with_the_reason(root, file, says):
    assert says in unusable(root, file.replace("{root}", str(root)))[0]


@pytest.mark.posix("links")
def test_links_are_resolved_before_a_file_counts_as_inside(root):
    (root / "out.png").symlink_to(root.parent / "outside.png")
    (root / "in.png").symlink_to(root / "a.png")
    (root / "away").symlink_to(root.parent, target_is_directory=True)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "dangling.png").symlink_to(root / "gone.png")
    assert "outside the folder of local files" in unusable(root, "out.png")[0]
    assert "outside the folder of local files" in unusable(root, "away/outside.png")[0]
    assert "cannot be inspected" in unusable(root, "loop.png")[0]
    assert "there is no file" in unusable(root, "dangling.png")[0]
    assert isinstance(LocalFiles(root).inspect("in.png"), LocalFile)


@pytest.mark.posix("special files")
def test_special_files_are_refused(root):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        here = Path.cwd()
        os.chdir(root)  # a socket's name has 108 bytes at most
        try:
            unix.bind("socket")
        finally:
            os.chdir(here)
        for name in ("pipe", "socket"):
            assert "not a regular file" in unusable(root, name)[0]


def test_five_gigabytes_pass_and_a_byte_more_does_not(root):
    for name, size in (("full", MAX_FILE_BYTES), ("over", MAX_FILE_BYTES + 1)):
        with (root / name).open("wb") as file:
            file.truncate(size)
    assert isinstance(LocalFiles(root).inspect("full"), LocalFile)
    assert "5,368,709,121 bytes" in unusable(root, "over")[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(root):
    (root / "a.png").chmod(0)
    assert "no permission" in unusable(root, "a.png")[0]


def test_a_root_that_is_not_there_is_a_problem_of_the_whole(root):
    assert LocalFiles(root).problem() is None
    for wrong in (root / "nowhere", root / "a.png"):
        problem = LocalFiles(wrong).problem()
        assert (problem.line, problem.skippable) == (0, False)


@pytest.mark.posix("file names")
def test_a_missing_file_is_said_to_be_and_that_case_matters(root):
    for file in ("A.PNG", "Banner/none.png", "a.png/x"):
        assert "upper and lower case" in unusable(root, file)[1]


def test_a_file_named_on_windows_gets_the_map_option_suggested(root):
    for file in ("D:/素材/春.png", "//nas/public/春.png"):
        message, fix = unusable(root, file)
        assert "not relative" in message
        assert f"--map {quote(file.rpartition('/')[0] + '=FOLDER')}" in fix


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data" / "素材" / "春").mkdir(parents=True)
    (tmp_path / "data" / "素材" / "春" / "a.png").write_bytes(b"1234")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "data"


@table(
    "items, root, file, gives",
    {
        "absolute target": (["D:\\素材={data}/素材"], "", "D:/素材/春/a.png", "素材/春/a.png"),
        "the target is the root": (["D:\\素材={data}/素材"], "素材", "d:/素材/a.png", "a.png"),
        "the root, by a dot": (["d:/素材\\=."], "", "D:/素材/a.png", "a.png"),
        "a whole drive": (["D:=素材"], "", "D:/春/a.png", "素材/春/a.png"),
        "a share": (["\\\\nas\\Public=素材"], "", "//NAS/public/a.png", "素材/a.png"),
        "begins alike": (["D:\\素材=素材"], "", "D:/素材2/a.png", "D:/素材2/a.png"),
        "relative already": (["D:\\素材=素材"], "", "a.png", "a.png"),
        "the longest counts": (["D:\\=.", "D:\\素材\\春=素材/春"], "", "D:/素材/春/a", "素材/春/a"),
        "a slash too many": (["D:\\素材=素材"], "", "D:/素材//a.png", "素材/a.png"),
        "none": ([], "", "D:/a.png", "D:/a.png"),
    },
)
def test_a_file_of_another_machine_is_found_below_the_root(data, items, root, file, gives):
    assert path_map([item.format(data=data) for item in items], data / root)(file) == gives


@pytest.mark.parametrize("item", ["D:\\素材", "=x", "D:\\素材=", " = "])
def test_an_item_that_maps_nothing_is_refused(data, item):
    for root in (data, None):
        with pytest.raises(UsageError, match="THERE=HERE"):
            path_map([item], root)


@pytest.mark.parametrize("target", ["{data}/../elsewhere", "..", "/"])
def test_a_target_outside_the_root_is_refused(data, target):
    with pytest.raises(UsageError, match="not below the root"):
        path_map([f"D:\\素材={target.format(data=data)}"], data)


LIST = "env,path,file\ntea-1a2b3c,a.png,D:\\素材\\春\\a.png\n"


def test_a_list_from_windows_finds_its_files(write, merchants, data):
    path = write(LIST)
    batch = read_paths(path, merchants, data, file_map=["d:\\素材=素材"])
    (row,) = batch.rows()
    assert (row.file, row.size) == ("素材/春/a.png", 4)
    assert row.cells[2] == "D:\\素材\\春\\a.png"
    with pytest.raises(InputError) as raised:
        read_paths(path, merchants, data)
    assert f"--map {quote('D:/素材/春=FOLDER')}" in raised.value.problems[0].fix.en


def test_a_mapped_file_cannot_leave_the_root(write, merchants, data):
    (data.parent / "x.png").write_bytes(b"x")
    path = write("env,path,file\ntea-1a2b3c,a.png,D:\\素材\\..\\..\\x.png\n")
    with pytest.raises(InputError, match="outside the folder of local files"):
        read_paths(path, merchants, data, file_map=["D:\\素材=素材"])


def test_without_a_root_files_are_left_as_they_are(write, merchants):
    (row,) = read_paths(write(LIST), merchants, file_map=["D:\\素材=/nowhere"]).rows()
    assert row.file == "D:/素材/春/a.png"


@table(
    "there, problems",
    {
        "first": ("a.png", 2),
        "on the first page": ("b.png", 2),
        "later": ("c.png", None),
        "none": ("d.png", None),
    },
)
def test_a_guessed_root_counts_if_one_of_the_first_files_is_there(
    write, merchants, data, monkeypatch, there, problems
):
    monkeypatch.setattr(list_batch, "_PAGE", 2)
    (data / there).write_bytes(b"x")
    rows = "".join(f"tea-1a2b3c,{name}.png\n" for name in "abc")
    batch = read_paths(write(f"env,path\n{rows}"), merchants, data, guessed=True, on_bad="skip")
    assert (batch.root, len(batch.problems)) == ((None, 0) if problems is None else (data, problems))


KNOWN = Merchants((Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),))
SIGNED = "https://a.com/b.png?sign=0123456789abcdef"


@pytest.mark.parametrize(
    ("file", "is_url"),
    [
        ("https://a.com/b.png", True),
        ("s3://bucket/key", True),
        ("HTTP://a.com", True),
        ("C://a.png", False),
        ("D:/素材/a.png", False),
        ("a/b.png", False),
        ("//nas/a.png", False),
        ("what?.png", False),
        ("https:/a.com/b.png", True),
        ("https：//a.com/b.png", True),
        ("<https://a.com/b.png>", True),
        ('=HYPERLINK("https://a.com/b?sign=x")', True),
        ("https:\\\\a.com\\b.png", True),
        ("//a.com/b.png?sign=x", True),
        ("a.com/b.png?sign=x", True),
        ("a.com/b.png?•••", True),
    ],
)
def test_what_is_a_url(file, is_url):
    assert is_source(file) is is_url


@pytest.mark.parametrize(
    ("url", "shown", "query"),
    [
        ("https://a.com/b.png", "https://a.com/b.png", None),
        (SIGNED, "https://a.com/b.png?•••", "sign=0123456789abcdef"),
        ("https://a.com/b.png?", "https://a.com/b.png?•••", ""),
        ("https://a.com?x=1", "https://a.com?•••", "x=1"),
        ("https://a.com/b?x=1?y=https://c/d@e", "https://a.com/b?•••", "x=1?y=https://c/d@e"),
    ],
)
def test_a_url_is_taken_apart_and_put_together(url, shown, query):
    assert split_source(url) == (shown, query)
    assert whole_source(shown, None if query is None else Secret(query)).reveal() == url


def test_a_password_in_a_url_is_never_kept():
    assert split_source("https://me:pass@a.com/b@c.png?x=1") == ("https://•••@a.com/b@c.png?•••", "x=1")
    assert split_source("https://me:pa/ss@a.com/c.png") == ("https://•••@a.com/c.png", None)
    assert split_source("https://me:pa?ss@a.com/c.png") == ("https://•••?•••", "ss@a.com/c.png")
    assert split_source("https://a.com:443/b@c.png#x=1") == ("https://a.com:443/b@c.png#•••", "x=1")
    assert split_source("https://[::1]:80/b@c.png") == ("https://[::1]:80/b@c.png", None)


def test_the_row_keeps_no_query_wherever_the_list_repeats_it():
    query = SIGNED.partition("?")[2]
    cells = concealed(
        ["tea", "a.png", f" {SIGNED} ", f"see {SIGNED}", f"?{query}", "sign", "https://b.cn/?id=5"]
    )
    assert cells[:6] == [
        "tea",
        "a.png",
        " https://a.com/b.png?••• ",
        "see https://a.com/b.png?•••",
        "?•••",
        "sign",
    ]
    assert not any(query in cell for cell in cells)


def listed(folder, *lines):
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("env", "path", "file", "link"), *lines])
    return folder / "list.csv"


def looked_at(urls):
    return {url: SourceFile(5, f'"{url.reveal()[-1]}"') for url in urls}


def test_a_list_keeps_facts_of_urls_and_other_columns_as_they_are(tmp_path):
    (tmp_path / "c.png").write_bytes(b"local")
    other = "https://shop.cn/?id=5"
    lines = [
        ("tea-1a2b3c", "a.png", SIGNED, other),
        ("tea-1a2b3c", "b.png", "https://a.com/图/b.png", other),
        ("tea-1a2b3c", "c.png", "c.png", other),
    ]
    with read_paths(listed(tmp_path, *lines), KNOWN, tmp_path, sources=looked_at) as batch:
        rows = list(batch.rows())
        assert [(row.file, row.size, row.etag) for row in rows] == [
            ("https://a.com/b.png?•••", 5, '"f"'),
            ("https://a.com/图/b.png", 5, '"g"'),
            ("c.png", 5, ""),
        ]
        assert rows[0].cells == ("tea-1a2b3c", "a.png", "https://a.com/b.png?•••", other)
        assert list(batch.staging.queries()) == [(2, Secret("sign=0123456789abcdef"))]
        assert batch.total_bytes == 15


def test_a_row_that_is_shifted_shows_no_query(tmp_path):
    lines = [("tea-1a2b3c", "a.png", "x", "y", SIGNED), ("tea-1a2b3c", "b.png", "x", SIGNED, "y")]
    with read_paths(listed(tmp_path, *lines), KNOWN, on_bad="skip") as batch:
        write_fixme(batch.problems, batch.source, Lang.EN, tmp_path / "fix-me.csv")
        shown = "".join(p.message.en + p.value for p in batch.problems)
        assert "0123456789abcdef" not in shown + (tmp_path / "fix-me.csv").read_text("utf-8")
        assert [p.message.code for p in batch.problems] == [DetailCode.CELLS_BEYOND] * 2


@pytest.mark.parametrize(
    ("url", "message", "fix"),
    [
        (SIGNED, "a.com", "source_hosts"),
        ("cos://photos-1250000000/a.png", "is an object of a store", "presign"),
        ("s3://photos/a.png", "is an object of a store", "presign"),
        ("oss://photos/a.png", "is an object of a store", "presign"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_problem_of_each_row_that_says_what_to_do(tmp_path, url, message, fix):
    lines = [("tea-1a2b3c", f"{number}.png", url, "") for number in range(2)]
    with read_paths(listed(tmp_path, *lines), KNOWN) as batch:
        assert not batch.problems
    with read_paths(listed(tmp_path, *lines), KNOWN, tmp_path, on_bad="skip") as batch:
        assert [(problem.line, problem.column) for problem in batch.problems] == [(2, "file"), (3, "file")]
        for problem in batch.problems:
            assert message in problem.message.en
            assert fix in problem.fix.en


@pytest.mark.parametrize(
    ("path", "file", "kind"),
    [
        ("a/b.PNG", "", "image/png"),
        ("a/b.svg", "", "image/svg+xml"),
        ("a/b.webp", "", "image/webp"),
        ("a/b.avif", "", "image/avif"),
        ("a/b.woff2", "", "font/woff2"),
        ("a/b.wasm", "", "application/wasm"),
        ("a/b.mjs", "", "text/javascript"),
        ("a/b.js", "", "text/javascript"),
        ("a/b.m4a", "", "audio/mp4"),
        ("a/b.tar.gz", "", "application/gzip"),
        ("a/b.html", "c.png", "text/html"),
        ("a/b", "c.webp", "image/webp"),
        ("a.png/b", "c", "application/octet-stream"),
        ("a/b.unknown", "c.png", "application/octet-stream"),
        ("a/.png", "c", "application/octet-stream"),
        ("a/b.", "", "application/octet-stream"),
        ("a/b", "https://a.com/c.webp?•••", "image/webp"),
        ("a/b", "what?.webp", "image/webp"),
    ],
)
def test_the_type_is_that_of_the_path_s_extension_else_of_the_file_s(path, file, kind):
    assert content_type_of(path, file) == kind


def test_what_the_machine_says_of_an_extension_does_not_count(tmp_path):
    (tmp_path / "mime.types").write_text("x/machine odd9 png\n")
    try:
        mimetypes.init([str(tmp_path / "mime.types")])
        row_files._types.cache_clear()
        assert mimetypes.guess_type("a.odd9")[0] == "x/machine"
        assert content_type_of("a.odd9") == "application/octet-stream"
        assert content_type_of("a.png") == "image/png"
    finally:
        mimetypes.init()
        row_files._types.cache_clear()


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("content_type,cache_control", {}),
        ("Content-Type,Cache-Control", {}),
        ("内容类型,缓存控制", {}),
        ("类型,缓存", {"content_type": "类型", "cache_control": "缓存"}),
    ],
)
def test_the_columns_are_found_and_carried_through(write, merchants, header, columns):
    text = f"env,path,{header}\ntea-1a2b3c,a.png, image/x-own ,max-age=60\ntea-1a2b3c,b.png,,\n"
    batch = read_paths(write(text), merchants, columns=columns)
    first, second = batch.rows()
    assert (first.content_type, first.cache_control) == ("image/x-own", "max-age=60")
    assert (second.content_type, second.cache_control) == ("", "")
    assert batch.headers == ("env", "path", *header.split(","))
    assert first.cells == ("tea-1a2b3c", "a.png", " image/x-own ", "max-age=60")


@pytest.mark.parametrize("bad", ["image/png\r\nX-Evil: 1", "a/b\tc", "a/b\x1bc", "a/b\x7fc"])
@pytest.mark.parametrize("column", ["content_type", "缓存控制"])
def test_a_control_character_is_a_problem_of_its_row(write, merchants, column, bad):
    text = f'env,path,{column}\ntea-1a2b3c,a.png,\ntea-1a2b3c,b.png,"{bad}"\n'
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (3, column)
    assert "control character" in problem.message.en
    (good, skipped) = read_paths(write(text), merchants, on_bad="skip").rows()
    assert good.invalid is None
    assert skipped.invalid is not None


@pytest.mark.parametrize(
    "bad", ["foo", "text", "海报", "image/", "/png", "image png", "a/b/c", "image/png charset"]
)
def test_a_type_that_is_none_is_a_problem_of_its_row(write, merchants, bad):
    text = f"env,path,内容类型\ntea-1a2b3c,a.png,{bad}\ntea-1a2b3c,b.png,text/html; charset=utf-8\n"
    with pytest.raises(InputError) as raised:
        read_paths(write(text), merchants)
    (problem,) = raised.value.problems
    assert (problem.line, problem.column, problem.value) == (2, "内容类型", bad)
    assert "not a media type (type/subtype)" in problem.message.en
    assert "image/png" in problem.fix.en

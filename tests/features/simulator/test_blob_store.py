import pytest

from tcb_ops.features.simulator.cos import Upload, object_file


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("banner/海报 1.png", "banner/海报 1.png"),
        ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
        ("/etc//passwd", "%/etc/%/passwd"),
        ("a/./b/", "a/%2E/b/%"),
        ("a:b?*", "a%3Ab%3F%2A"),
        ("..\\..\\x", "..%5C..%5Cx"),
        ("C:/x", "C%3A/x"),
        ("50%/a%2F", "50%25/a%252F"),
        ("a.", "a%2E"),
        ("a ", "a%20"),
        ("a\x00\n", "a%00%0A"),
        ("...", "%2E%2E%2E"),
    ],
)
def test_a_key_becomes_a_file_below_the_bucket(tmp_path, key, wanted):
    file = object_file(tmp_path, "bucket", key)
    assert file.relative_to(tmp_path / "bucket").as_posix() == wanted
    assert file.resolve().is_relative_to((tmp_path / "bucket").resolve())


def test_long_names_fit_a_file_system_and_stay_different(tmp_path):
    one, other = (object_file(tmp_path, "b", "花" * 282 + end) for end in "ab")
    assert one != other
    assert max(len(part.encode()) for part in one.relative_to(tmp_path).parts) <= 255


def test_an_upload_that_is_not_kept_leaves_nothing(tmp_path):
    with Upload(tmp_path) as upload:
        upload.write(b"x")
    assert not list(tmp_path.iterdir())


def test_an_upload_that_is_kept_stands_whole_in_its_place(tmp_path):
    with Upload(tmp_path) as upload:
        upload.write(b"he")
        upload.write(b"llo")
        upload.keep(tmp_path / "b" / "c" / "a.png")
    assert [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()] == [b"hello"]

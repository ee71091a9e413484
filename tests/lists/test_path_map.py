from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tcb_ops.errors import InputError, UsageError
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.sources import PathMap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tcb_ops.lists.merchants import Merchants


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "素材" / "春").mkdir(parents=True)
    (tmp_path / "data" / "素材" / "春" / "a.png").write_bytes(b"1234")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("items", "root", "file", "gives"),
    [
        pytest.param(["D:\\素材={data}/素材"], "", "D:/素材/春/a.png", "素材/春/a.png", id="absolute target"),
        pytest.param(["D:\\素材={data}/素材"], "素材", "d:/素材/a.png", "a.png", id="the target is the root"),
        pytest.param(["d:/素材\\=."], "", "D:/素材/a.png", "a.png", id="the root, by a dot"),
        pytest.param(["D:=素材"], "", "D:/春/a.png", "素材/春/a.png", id="a whole drive"),
        pytest.param(["\\\\nas\\Public=素材"], "", "//NAS/public/a.png", "素材/a.png", id="a share"),
        pytest.param(["D:\\素材=素材"], "", "D:/素材2/a.png", "D:/素材2/a.png", id="begins alike"),
        pytest.param(["D:\\素材=素材"], "", "a.png", "a.png", id="relative already"),
        pytest.param(
            ["D:\\=.", "D:\\素材\\春=素材/春"], "", "D:/素材/春/a", "素材/春/a", id="the longest counts"
        ),
        pytest.param(["D:\\素材=素材"], "", "D:/素材//a.png", "素材/a.png", id="a slash too many"),
        pytest.param([], "", "D:/a.png", "D:/a.png", id="none"),
    ],
)
def test_a_file_of_another_machine_is_found_below_the_root(
    data: Path, items: list[str], root: str, file: str, gives: str
) -> None:
    assert PathMap([item.format(data=data) for item in items], data / root).map(file) == gives


@pytest.mark.parametrize("item", ["D:\\素材", "=x", "D:\\素材=", " = "])
def test_an_item_that_maps_nothing_is_refused(data: Path, item: str) -> None:
    for root in (data, None):
        with pytest.raises(UsageError, match="THERE=HERE"):
            PathMap([item], root)


@pytest.mark.parametrize("target", ["{data}/../elsewhere", "..", "/"])
def test_a_target_outside_the_root_is_refused(data: Path, target: str) -> None:
    with pytest.raises(UsageError, match="not below the root"):
        PathMap([f"D:\\素材={target.format(data=data)}"], data)


LIST = "env,path,file\ntea-1a2b3c,a.png,D:\\素材\\春\\a.png\n"


def test_a_list_from_windows_finds_its_files(
    write: Callable[..., Path], merchants: Merchants, data: Path
) -> None:
    path = write(LIST)
    batch = read_paths(path, merchants, data, file_map=["d:\\素材=素材"])
    (row,) = batch.rows()
    assert (row.file, row.size) == ("素材/春/a.png", 4)
    assert row.cells[2] == "D:\\素材\\春\\a.png"
    with pytest.raises(InputError) as raised:
        read_paths(path, merchants, data)
    assert "--map 'D:/素材/春=FOLDER'" in raised.value.problems[0].fix.en


def test_a_mapped_file_cannot_leave_the_root(
    write: Callable[..., Path], merchants: Merchants, data: Path
) -> None:
    (data.parent / "x.png").write_bytes(b"x")
    path = write("env,path,file\ntea-1a2b3c,a.png,D:\\素材\\..\\..\\x.png\n")
    with pytest.raises(InputError, match="outside the root"):
        read_paths(path, merchants, data, file_map=["D:\\素材=素材"])


def test_without_a_root_files_are_left_as_they_are(write: Callable[..., Path], merchants: Merchants) -> None:
    (row,) = read_paths(write(LIST), merchants, file_map=["D:\\素材=/nowhere"]).rows()
    assert row.file == "D:/素材/春/a.png"

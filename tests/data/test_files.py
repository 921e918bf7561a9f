"""Files are where torchvision has them, come from nowhere unasked, and are unpacked only if right."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.data import Files
from lrwd_sweep.data.cifar import CIFAR10
from lrwd_sweep.data.download import Published
from lrwd_sweep.data.files import data_folder
from lrwd_sweep.errors import DataError
from tests.data.formats import COLOUR, write_cifar10

FILES = [
    Published("a/one.gz", "http://localhost/one.gz", ""),
    Published("two.mat", "http://localhost/two", ""),
]


def test_the_folder_is_the_one_given_else_the_environments_else_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LRWD_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() == tmp_path / ".cache" / "lrwd-sweep"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_folder() == Path("/cache/lrwd-sweep")
    monkeypatch.setenv("LRWD_DATA", "/data")
    assert data_folder() == Path("/data")
    assert data_folder("~/mine") == tmp_path / "mine"
    assert Files().root == Path("/data")


def test_what_is_there_is_found_packed_or_not(tmp_path: Path) -> None:
    for name in ("a/one", "two.mat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert Files(tmp_path).obtain("x", FILES) == [tmp_path / "a/one", tmp_path / "two.mat"]
    (tmp_path / "a/one").rename(tmp_path / "a/one.gz")
    assert Files(tmp_path).obtain("x", FILES) == [tmp_path / "a/one.gz", tmp_path / "two.mat"]


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.data.files.download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(DataError) as error:
        Files(tmp_path).obtain("x", FILES)
    assert str(error.value) == (
        f"x is not in {tmp_path} (no a/one.gz); add --download, put a/one.gz and two.mat "
        "there, or name another folder by --data-dir"
    )
    assert not list(tmp_path.iterdir())


def test_only_what_is_missing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "lrwd_sweep.data.files.download", lambda file, to, _: asked.append(f"{file.url} {to}")
    )
    (tmp_path / "two.mat").touch()
    Files(tmp_path, may_download=True).obtain("x", FILES)
    assert asked == [f"http://localhost/one.gz {tmp_path / 'a/one.gz'}"]


def _archive(root: Path, leave_out: str = "") -> Published:
    """CIFAR-10 as published, but tiny; its folder is not there any more."""
    write_cifar10(root)
    folder = root / "cifar-10-batches-py"
    path = root / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            if file.name != leave_out:
                tar.add(file, f"{folder.name}/{file.name}")
        bad = tarfile.TarInfo("../outside")
        bad.size = 3
        tar.addfile(bad, io.BytesIO(b"bad"))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return replace(CIFAR10.archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_archive_placed_by_hand_is_unpacked_once(tmp_path: Path) -> None:
    root = tmp_path / "data"
    cifar = replace(CIFAR10, archive=_archive(root))
    first = cifar.load(Files(root), COLOUR)
    (root / "cifar-10-python.tar.gz").unlink()
    assert (cifar.load(Files(root), COLOUR).train.x == first.train.x).all()
    assert not (tmp_path / "outside").exists()  # nothing but what was asked for
    assert not list(root.rglob("*.part"))


def test_another_archive_than_the_published_one_is_refused_before_it_is_read(tmp_path: Path) -> None:
    _archive(tmp_path)
    with pytest.raises(
        DataError, match=r"cifar-10-python\.tar\.gz is not the published file: its SHA-256 is"
    ):
        CIFAR10.load(Files(tmp_path), COLOUR)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-python.tar.gz"]


def test_an_archive_without_its_files_is_refused_and_what_there_was_is_unpacked_again(tmp_path: Path) -> None:
    cifar = replace(CIFAR10, archive=_archive(tmp_path, leave_out="data_batch_4"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"cannot unpack .*it holds no file .*data_batch_4"):
            cifar.load(Files(tmp_path), COLOUR)


def test_a_broken_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"\x1f\x8b no archive")
    archive = replace(CIFAR10.archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match="cannot unpack") as error:
        replace(CIFAR10, archive=archive).load(Files(tmp_path), COLOUR)
    assert "\n" not in str(error.value)

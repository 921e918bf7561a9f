"""A user's image folder is counted without opening a file, split by a fixed seed, and read exactly."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import functional

from lrwd_sweep.data import Splits, load
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DataSet, find_data_set
from lrwd_sweep.spec.image_folder import scan
from tests.refusal import assert_raises


def write_images(folder: Path, count: int, *, side: int = 32, ending: str = "png", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(seed)
    for k in range(count):
        pixels = torch.from_numpy(stream.integers(0, 256, (3, side, side), np.uint8))
        functional.to_pil_image(pixels).save(folder / f"{k:03}.{ending}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a folder of twenty cats and thirty dogs, all for training."""
    write_images(tmp_path / "images" / "train" / "cat", 20, seed=1)
    write_images(tmp_path / "images" / "train" / "dog", 30, seed=2)
    return tmp_path / "images"


def _load(name: str) -> Splits:
    return load(name, find_data_set(name))


def _rows(splits: Splits) -> list[list[bytes]]:
    return [[x.numpy().tobytes() for x in split.x] for split in splits.parts.values()]


def test_sizes_are_counted_class_by_class(root: Path) -> None:
    assert find_data_set(f"folder:{root}") == DataSet(40, 5, 5, 2, (3, 32, 32))
    assert find_data_set(f"folder:{root}@64").shape == (3, 64, 64)
    write_images(root / "val" / "dog", 7, seed=3)
    assert find_data_set(f"folder:{root}") == DataSet(45, 7, 5, 2, (3, 32, 32))
    write_images(root / "test" / "cat", 4, seed=4)
    assert find_data_set(f"folder:{root}") == DataSet(50, 7, 4, 2, (3, 32, 32))


def test_every_image_is_in_one_split_wherever_the_folder_is(root: Path, tmp_path: Path) -> None:
    splits = _load(f"folder:{root}")
    rows = _rows(splits)
    assert len({row for part in rows for row in part}) == 50
    labels = [split.y.bincount(minlength=2).tolist() for split in splits.parts.values()]
    assert labels == [[16, 24], [2, 3], [2, 3]]
    dogs = [pil_loader(str(path)) for path in (root / "train" / "dog").iterdir()]
    written = {functional.pil_to_tensor(image).numpy().tobytes() for image in dogs}
    assert {row.numpy().tobytes() for row in splits.train.x[splits.train.y == 1]} <= written
    shutil.copytree(root, tmp_path / "elsewhere")
    assert _rows(_load(f"folder:{tmp_path / 'elsewhere'}")) == rows
    write_images(root / "train" / "cat" / "more", 3, ending="JPEG", seed=5)
    (root / "train" / "cat" / "notes.txt").touch()
    found, theirs = scan(f"folder:{root}"), ImageFolder(str(root / "train"))
    assert list(found.classes) == theirs.classes
    assert sorted(found.train + found.validation + found.test) == sorted(theirs.samples)


def test_images_of_any_kind_become_squares_in_three_channels(tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = write_images(tmp_path / "train" / label, 6, side=50, ending="jpg", seed=ord(label))
        grey = torch.arange(40 * 20, dtype=torch.int32).reshape(1, 40, 20).to(torch.uint8)
        functional.to_pil_image(grey).save(folder / "grey.png")
    splits = _load(f"folder:{tmp_path}@16")
    assert splits.train.x.shape == (10, 3, 16, 16)
    assert splits.train.x.dtype == torch.uint8
    x, _ = splits.train.batch(torch.arange(10))
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-12


def test_wrong_names_and_folders_are_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    for name in ("folder:", "folder:@32", "folder:x@3", "folder:x@1025"):
        assert_raises("write folder:PATH, or folder:PATH@SIZE with 4 to 1024 pixels", find_data_set, name)
    no_train, few = "there is no folder .*train'; put the images of a class in", "too few images to hold any"
    spoiled: list[tuple[Callable[[Path], object], str]] = [
        (lambda at: (at / "train").rename(at / "no"), no_train),
        (lambda at: shutil.rmtree(at / "train/cat"), "train' holds 1 classes; put the images of each in a"),
        (lambda at: (at / "train/eel").mkdir(), "eel' holds no images"),
        (lambda at: write_images(at / "train/eel", 2), f"eel' has {few} out; add some"),
        (lambda at: write_images(at / "val/wolf", 2), "wolf' is a class that train does not have"),
        (lambda at: (at / "test").mkdir(), "test' holds no images; put some in it, or remove it"),
    ]
    for k, (spoil, line) in enumerate(spoiled):
        copy = shutil.copytree(root, tmp_path / str(k))
        spoil(copy)
        assert_raises(line, find_data_set, f"folder:{copy}", error=DataError)


def test_files_that_are_not_images_and_changing_folders_are_refused(root: Path) -> None:
    other = replace(find_data_set(f"folder:{root}"), train=41)
    assert_raises("has changed while it was read", load, f"folder:{root}", other, error=DataError)
    path = root / "train" / "cat" / "004.png"
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 50, path.read_bytes()[:-900]):
        path.write_bytes(content)
        assert_raises(r"004\.png is not a readable image", _load, f"folder:{root}", error=DataError)

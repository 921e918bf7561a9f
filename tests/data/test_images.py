"""Pickles, folders and digits are read exactly and split by a fixed seed; augmentation is as named."""

import contextlib
import importlib.util
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional
from torchvision.datasets import ImageFolder

from lrwd_sweep.data import Splits, augmentation, load
from lrwd_sweep.data.images import crop_flip, cutout, read_digits, read_pickle
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import AUGMENTATIONS, DATA_SETS, DataSet, find_data_set
from lrwd_sweep.spec.user_files import scan_images
from tests.data.formats import python2_pickle, write_images
from tests.refusal import assert_raises
from tests.small import CELLS, pack, splits, task

MARK = "ran"
TOUCH = f"open({MARK!r}, 'w').close()"


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "data_batch_1"


def _assert_read(file: Path, content: bytes, expected: dict[str, Any]) -> None:
    file.write_bytes(content)
    found = read_pickle(file)
    np.testing.assert_equal(found, expected)
    for mine, other in zip(found.values(), expected.values(), strict=True):
        assert np.asarray(mine).dtype.newbyteorder("=") == np.asarray(other).dtype.newbyteorder("=")


def test_pickles_of_any_protocol_python_and_numpy_are_read(file: Path) -> None:
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in ("u1", "i4", ">i2", "f4", "f8")}
    rest = {"columns": np.asfortranarray(np.eye(2, 3)), "mixed": [-(2**70), 2**70, "é", b"\xe9", ""]}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        _assert_read(file, pickle.dumps(arrays | rest, protocol), arrays | rest)
    table = {"data": np.arange(256, dtype=np.uint8).reshape(2, 128), "labels": [0, 9], "filenames": ["a.png"]}
    _assert_read(file, python2_pickle(table), table)
    for protocol, core in product((2, 3), (b"numpy.core", b"numpy._core")):  # these names end in a newline
        former = pickle.dumps(table, protocol).replace(b"cnumpy._core.", b"cnumpy.core.")
        _assert_read(file, former.replace(b"cnumpy.core", b"c" + core), table)


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


EVAL = b"(cbuiltins\neval\nU" + bytes([len(TOUCH)]) + TOUCH.encode()  # the arguments of OBJ
CALL = EVAL.replace(b"(cbuiltins\neval\n", b"cbuiltins\neval\n(") + b"tR"
ARRAY = b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
LIVE = {
    "os.system, protocol 0": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 0),
    "builtins.eval": pickle.dumps({"data": Runs(eval, TOUCH)}, 5),
    "nested": pickle.dumps({"data": [({"a": [Runs(os.system, f"touch {MARK}")]},)]}, 4),
    "an array of objects": pickle.dumps({"data": np.array([Runs(eval, TOUCH)], dtype=object)}, 4),
    "a dtype that is a call": ARRAY + CALL + b"\x87Rs.",
    "OBJ": EVAL + b"o.",
}


def test_a_malicious_pickle_is_refused_and_nothing_runs(file: Path) -> None:
    mark = file.with_name(MARK)
    for kind, content in LIVE.items():
        file.write_bytes(content)
        line = r"data_batch_1 is not a pickled data set \(it asks for"
        assert_raises(line, read_pickle, file, error=DataError)
        assert not mark.exists(), kind
        with contextlib.suppress(TypeError, ValueError):  # numpy refuses the result of the call, after it
            pickle.loads(content)
        assert mark.exists(), kind  # it was a live one
        mark.unlink()


SHAPED = python2_pickle({"data": np.zeros((2, 3), np.uint8)})
STRANGE = {
    "a persistent name": b"\x80\x02}U\x04dataPname\ns.",
    "ndarray called": b"\x80\x02}U\x04datacnumpy\nndarray\n)Rs.",
    "a shape without its bytes": SHAPED.replace(b"J\x03\x00\x00\x00", b"J\xff\xff\xff\x7f"),
    "a long name of many lines": b"\x80\x04\x8c\xc8" + b"a\n" * 100 + b"\x8c\x01x\x93.",
    "a text of 2⁶¹ bytes": b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x20.",
    "text": b"<!DOCTYPE html><html>",
    "a memo that is not there": b"\x80\x02}U\x04datah\x07s.",
}


def test_other_content_and_every_truncation_is_refused_in_one_line(file: Path) -> None:
    whole = python2_pickle({"labels": [1, 2], "data": np.arange(12, dtype=np.uint8).reshape(2, 6)})
    cut = {f"the first {n} bytes": whole[:n] for n in range(len(whole))}
    for content in (STRANGE | cut).values():
        file.write_bytes(content)
        assert_raises(f"^(?=.{{1,500}}$){file} .*get it again", read_pickle, file, error=DataError)
    assert_raises("Is a directory", read_pickle, file.parent, error=DataError)


def test_crop_flip_gives_crops_of_the_padded_image_half_of_them_mirrored() -> None:
    for side, pad in ((8, 1), (28, 4), (32, 4), (64, 8)):
        x = torch.arange(1.0, side * side + 1).reshape(1, 1, side, side).repeat(40, 2, 1, 1)
        padded, places = functional.pad(x[0], (pad,) * 4), product(range(2 * pad + 1), repeat=2)
        crops = [padded[:, top : top + side, left : left + side] for top, left in places]
        plain = {crop.numpy().tobytes() for crop in crops}
        mirrored = {crop.flip(2).numpy().tobytes() for crop in crops}
        assert len(plain | mirrored) == 2 * (2 * pad + 1) ** 2
        found = [image.numpy().tobytes() for image in crop_flip(x, torch.Generator())]
        assert set(found) <= plain | mirrored, side
        assert 0 < sum(image in mirrored for image in found) < 40, side


def test_cutout_blanks_a_square_of_half_the_side_clipped_at_the_border() -> None:
    for side in (8, 28):
        x, half, near = torch.ones(300, 3, side, side, dtype=torch.float64), side // 2, torch.arange(side)
        squares = set()
        for row, column in product(range(side), repeat=2):
            inside = [(near >= k - half // 2) & (near < k - half // 2 + half) for k in (row, column)]
            squares.add((~torch.outer(*inside)).double().expand(3, -1, -1).numpy().tobytes())
        found = {image.numpy().tobytes() for image in cutout(x, torch.Generator())}
        assert found <= squares, side
        assert len(found) > 30, side
        assert x.min() == 1  # not in place


def test_training_images_are_changed_by_the_seed_and_not_by_the_pack() -> None:
    for augment, (lanes, seed) in product(AUGMENTATIONS, ((1, 0), (3, 0), (1, 1))):
        trainer = pack("sgd", task(augment=augment, epochs=1), CELLS[:lanes], seed=seed)
        trainer.lanes.gradient = Mock(wraps=trainer.lanes.gradient)  # type: ignore[method-assign]
        trainer.run()
        order = torch.randperm(48, generator=generator(seed, "data order")).split(16)  # type: ignore[no-untyped-call]
        change = augmentation(augment, generator(seed, "augmentation"))
        for found, index in zip(trainer.lanes.gradient.call_args_list, order, strict=True):
            batch, _ = splits().train.batch(index)
            assert torch.equal(found.args[0], change(batch)), (augment, lanes, seed)
            assert torch.equal(found.args[0], batch) is (augment == "none"), (augment, lanes, seed)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images" / "train" / "cat", 20, seed=1)
    write_images(tmp_path / "images" / "train" / "dog", 30, seed=2)
    return tmp_path / "images"


def _folder(name: str) -> Splits:
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
    splits = _folder(f"folder:{root}")
    rows = _rows(splits)
    assert len({row for part in rows for row in part}) == 50
    labels = [split.y.bincount(minlength=2).tolist() for split in splits.parts.values()]
    assert labels == [[16, 24], [2, 3], [2, 3]]
    dogs = map(Image.open, (root / "train" / "dog").iterdir())
    written = {np.asarray(dog).transpose(2, 0, 1).tobytes() for dog in dogs}
    assert {row.numpy().tobytes() for row in splits.train.x[splits.train.y == 1]} <= written
    shutil.copytree(root, tmp_path / "elsewhere")
    assert _rows(_folder(f"folder:{tmp_path / 'elsewhere'}")) == rows
    write_images(root / "train" / "cat" / "more", 3, ending="JPEG", seed=5)
    (root / "train" / "cat" / "notes.txt").touch()
    found, theirs = scan_images(f"folder:{root}"), ImageFolder(str(root / "train"))
    assert list(found.classes) == theirs.classes
    assert sorted(found.train + found.validation + found.test) == sorted(theirs.samples)


def test_images_of_any_kind_become_squares_in_three_channels(tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = write_images(tmp_path / "train" / label, 6, side=50, ending="jpg", seed=ord(label))
        Image.fromarray(np.arange(800).reshape(40, 20).astype(np.uint8)).save(folder / "grey.png")
    splits = _folder(f"folder:{tmp_path}@16")
    assert splits.train.x.shape == (10, 3, 16, 16)
    assert splits.train.x.dtype == torch.uint8
    x, _ = splits.train.batch(torch.arange(10))
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-12


def test_wrong_names_folders_and_files_are_refused_in_one_line(root: Path, tmp_path: Path) -> None:
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
    other = replace(find_data_set(f"folder:{root}"), train=41)
    assert_raises("has changed while it was read", load, f"folder:{root}", other, error=DataError)
    path = root / "train" / "cat" / "004.png"
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 50, path.read_bytes()[:-900]):
        path.write_bytes(content)
        assert_raises(r"004\.png is not a readable image", _folder, f"folder:{root}", error=DataError)


def test_digits_are_split_without_overlap_and_standardised_by_the_training_split() -> None:
    splits, sizes = load("digits", DATA_SETS["digits"]), DATA_SETS["digits"]
    parts = splits.parts.values()
    assert [*map(len, parts)] == [sizes.train, sizes.validation, sizes.test]
    rows = torch.cat([part.x for part in parts])
    assert rows.shape == (1797, 1, 8, 8)
    assert len(torch.unique(rows, dim=0)) == 1797  # no image is in two splits
    assert splits.train.x.mean().abs() < 1e-12
    assert (splits.train.x.std(correction=0) - 1).abs() < 1e-12
    assert splits.test.x.mean().abs() > 1e-9  # not by its own statistics
    assert splits.train.x.min() == splits.test.x.min()  # black is the same in every split


def test_digits_are_scikit_learns_or_their_absence_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.column_stack(load_digits(return_X_y=True))
    assert (read_digits() == expected).all()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # its files have moved
    assert (read_digits() == expected).all()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert_raises("pip install scikit-learn", read_digits, error=DataError)

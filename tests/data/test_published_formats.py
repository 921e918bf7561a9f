"""Each published format is read as it is, split by a fixed seed, and refused when anything is wrong."""

from __future__ import annotations

import gzip
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from scipy import io  # type: ignore[import-untyped]

from lrwd_sweep.data import LOADERS, Split
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.data.formats import COLOUR, FORMATS, Images, python2_pickle, write_idx

NAMES = list(FORMATS)


def _rows(split: Split) -> list[tuple[bytes, int]]:
    """Each image's bytes with its label."""
    assert split.x.dtype == torch.uint8
    return [(x.numpy().tobytes(), int(y)) for x, y in zip(split.x, split.y, strict=True)]


def _written(images: list[Images]) -> list[tuple[bytes, int]]:
    return [(x.tobytes(), int(y)) for part in images for x, y in zip(*part, strict=True)]


def test_every_name_has_a_loader_and_a_format_here() -> None:
    assert set(LOADERS) == set(DATA_SETS)
    assert {format_.name for format_ in FORMATS.values()} | {"digits"} == set(LOADERS)


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_in_its_split_with_its_label(tmp_path: Path, name: str) -> None:
    train, test = FORMATS[name].write(tmp_path)
    splits, sizes = FORMATS[name].read(tmp_path), FORMATS[name].sizes
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [
        sizes.train,
        sizes.validation,
        sizes.test,
    ]
    assert sorted(_rows(splits.train) + _rows(splits.validation)) == sorted(_written(train))
    assert _rows(splits.test) == _written([test])
    assert splits.train.x.shape[1:] == sizes.shape


@pytest.mark.parametrize("name", NAMES)
def test_images_are_normalised_channel_by_channel_with_the_training_statistics(
    tmp_path: Path, name: str
) -> None:
    FORMATS[name].write(tmp_path)
    splits = FORMATS[name].read(tmp_path).to(torch.device("cpu"), torch.float64)
    x, _ = splits.train.batch(torch.arange(len(splits.train)))
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-12
    assert (x.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-12
    test, _ = splits.test.batch(torch.arange(len(splits.test)))
    assert test.mean(dim=(0, 2, 3)).abs().min() > 1e-6  # not with its own


@pytest.mark.parametrize("name", NAMES)
def test_the_same_images_are_held_out_every_time(tmp_path: Path, name: str) -> None:
    FORMATS[name].write(tmp_path)
    first, again = FORMATS[name].read(tmp_path), FORMATS[name].read(tmp_path)
    assert _rows(first.validation) == _rows(again.validation)
    assert not {row for row, _ in _rows(first.validation)} & {row for row, _ in _rows(first.train)}


def test_both_formats_of_imagenet32_give_the_same_splits(tmp_path: Path) -> None:
    for name in ("imagenet32", "imagenet32-npz"):
        FORMATS[name].write(tmp_path / name)
    a, b = (FORMATS[name].read(tmp_path / name) for name in ("imagenet32", "imagenet32-npz"))
    assert _rows(a.train) == _rows(b.train)
    assert _rows(a.test) == _rows(b.test)


TORCHVISION: dict[str, Callable[[Path, bool], Any]] = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "mnist": torchvision.datasets.MNIST,
    "fashion-mnist": torchvision.datasets.FashionMNIST,
    "svhn": lambda root, train: torchvision.datasets.SVHN(root, "train" if train else "test"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_reads_the_same_from_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    FORMATS[name].write(tmp_path)
    for packed in tmp_path.glob("*/raw/*.gz"):  # torchvision wants these unpacked
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    for kind in (torchvision.datasets.CIFAR10, torchvision.datasets.SVHN):
        monkeypatch.setattr(kind, "_check_integrity", lambda _: True)  # these are not the published bytes
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda _: None)  # the classes' names
    train, test = (TORCHVISION[name](tmp_path, part) for part in (True, False))

    def theirs(data: Any) -> list[tuple[bytes, int]]:
        rows = [(np.asarray(image), int(label)) for image, label in data]
        return [((x if x.ndim == 2 else x.transpose(2, 0, 1)).tobytes(), label) for x, label in rows]

    splits = FORMATS[name].read(tmp_path)
    assert sorted(_rows(splits.train) + _rows(splits.validation)) == sorted(theirs(train))
    assert _rows(splits.test) == theirs(test)


def _batch(**changes: Any) -> bytes:
    """A pickled batch of CIFAR-10, or of ImageNet32x32 where its labels say so, but for `changes`."""
    table = {"data": np.zeros((12, 3072), np.uint8), "labels": [k % 5 for k in range(12)]} | changes
    return python2_pickle({key: value for key, value in table.items() if value is not None})


WRONG_BATCHES = {
    "a truncated file": (_batch()[:-400], "no whole pickle"),
    "an empty file": (b"", "no whole pickle"),
    "a web page": (b"<html>not found</html>", "its pickle holds|no whole pickle"),
    "no images": (_batch(data=None), "has no 'data'"),
    "no labels": (_batch(labels=None), "has no 'labels'"),
    "images of numbers": (
        _batch(data=np.zeros((12, 3072), "i4")),
        "no images of bytes but an array of int32",
    ),
    "smaller images": (
        _batch(data=np.zeros((12, 768), np.uint8)),
        r"shape \(768,\) instead of \(3, 32, 32\)",
    ),
    "one image": (_batch(data=np.zeros(3072, np.uint8)), "holds images of shape"),
    "no image": (_batch(data=np.zeros((0, 3072), np.uint8), labels=[]), "instead of"),
    "images as a list": (_batch(data=[0, 1]), "no images of bytes but a list of int"),
    "a label too many": (_batch(labels=[0] * 13), "13 labels for 12 images"),
    "a label that is no class": (
        _batch(labels=[0] * 11 + [5]),
        "mislabelled: it has the label 5, outside 0 to 4",
    ),
    "a negative label": (_batch(labels=[0] * 11 + [-1]), "mislabelled: it has the label -1"),
    "labels as text": (_batch(labels=["cat"] * 12), "no labels but a list of str"),
    "an image too many": (
        _batch(data=np.zeros((13, 3072), np.uint8), labels=[0] * 13),
        "more than 60 training",
    ),
    "an image too few": (
        _batch(data=np.zeros((11, 3072), np.uint8), labels=[0] * 11),
        "holds 59 training images",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_BATCHES)
def test_a_wrong_batch_is_refused_in_one_line_that_names_it(tmp_path: Path, wrong: str) -> None:
    content, line = WRONG_BATCHES[wrong]
    FORMATS["cifar10"].write(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").write_bytes(content)
    with pytest.raises(DataError, match=line) as error:
        FORMATS["cifar10"].read(tmp_path)
    assert "cifar-10-batches-py" in str(error.value)
    assert "remove it and get it again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    FORMATS["cifar10"].write(tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").glob("data_batch_*"):
        path.write_bytes(_batch(labels=[k % 4 for k in range(12)]))
    with pytest.raises(DataError, match="mislabelled: no training image has class 4"):
        FORMATS["cifar10"].read(tmp_path)


def test_a_test_split_of_another_size_is_refused(tmp_path: Path) -> None:
    FORMATS["cifar10"].write(tmp_path)
    sizes = replace(COLOUR, test=21)
    with pytest.raises(DataError, match="holds 20 test images instead of 21"):
        replace(FORMATS["cifar10"], sizes=sizes).read(tmp_path)


def test_imagenet32_labels_begin_at_1(tmp_path: Path) -> None:
    FORMATS["imagenet32"].write(tmp_path)
    path = tmp_path / "imagenet32" / "train_data_batch_3"
    table = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(table | {"labels": [label - 1 for label in table["labels"]]}))
    with pytest.raises(
        DataError, match="train_data_batch_3 is mislabelled: it has the label 0, outside 1 to 5"
    ):
        FORMATS["imagenet32"].read(tmp_path)


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


_WHOLE = _idx(np.zeros((60, 28, 28), np.uint8))
WRONG_IDX = {
    "truncated": (_WHOLE[:-1], "ends before the 47,040 bytes"),
    "too long": (_WHOLE + b"\0", "is longer than the 47,040 bytes"),
    "only a header": (_WHOLE[:10], "no IDX file"),
    "empty": (b"", "no IDX file"),
    "another magic number": (b"\0\0\x0d\x03" + _WHOLE[4:], "no IDX file of bytes in 3 dimensions"),
    "other dimensions": (_idx(np.zeros((60, 784), np.uint8)), "no IDX file of bytes in 3 dimensions"),
    "too few images": (_idx(np.zeros((59, 28, 28), np.uint8)), "59×28×28 instead of 60×28×28"),
    "smaller images": (_idx(np.zeros((60, 14, 14), np.uint8)), "60×14×14 instead of 60×28×28"),
    "a size that is not there": (b"\0\0\x08\x03" + b"\xff" * 12, "instead of 60×28×28"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("wrong", WRONG_IDX)
def test_a_wrong_idx_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, wrong: str, packed: bool
) -> None:
    content, line = WRONG_IDX[wrong]
    FORMATS["mnist"].write(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.unlink()
    path = path.with_suffix(".gz") if packed else path
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=line) as error:
        FORMATS["mnist"].read(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


_PACKED = gzip.compress(_idx(np.zeros((20, 28, 28), np.uint8)))


@pytest.mark.parametrize(
    "content", [_PACKED[:-9], b"no gzip", _PACKED[:40] + b"x" * 99, _PACKED[:-8] + bytes(8)], ids=len
)
def test_a_broken_gzip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    FORMATS["mnist"].write(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read|no IDX file|is longer"):
        FORMATS["mnist"].read(tmp_path)


def test_no_more_of_a_gzip_file_is_unpacked_than_there_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FORMATS["mnist"].write(tmp_path)
    asked: list[int] = []
    read = gzip.GzipFile.read

    def watched(self: gzip.GzipFile, size: int = -1) -> bytes:
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(_idx(np.zeros((20, 28, 28), np.uint8)) + bytes(10**7)))
    with pytest.raises(DataError, match="longer than the 15,680 bytes"):
        FORMATS["mnist"].read(tmp_path)
    assert asked == [16 + 15_680 + 1]


def test_mislabelled_idx_labels_are_refused(tmp_path: Path) -> None:
    FORMATS["mnist"].write(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    write_idx(path, np.full(60, 5))
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is mislabelled: it has the label 5"):
        FORMATS["mnist"].read(tmp_path)


MATLAB: dict[str, tuple[Any, str]] = {
    "other shape": ({"X": np.zeros((16, 16, 3, 120), np.uint8)}, r"uint8 \(16, 16, 3, 120\) as X"),
    "other type": ({"X": np.zeros((32, 32, 3, 120), np.float64)}, r"double \(32, 32, 3, 120\) as X"),
    "no labels": ({"X": np.zeros((32, 32, 3, 120), np.uint8), "y": None}, "nothing as y"),
    "label 0": ({"y": np.zeros((120, 1), np.uint8)}, "mislabelled: it has the label 0, outside 1 to 10"),
    "label 11": ({"y": np.full((120, 1), 11, np.uint8)}, "mislabelled: it has the label 11"),
    "too few": ({"X": np.zeros((32, 32, 3, 119), np.uint8)}, r"uint8 \(32, 32, 3, 119\) as X"),
}


@pytest.mark.parametrize("wrong", MATLAB)
def test_a_wrong_matlab_file_is_refused_in_one_line_that_names_it(tmp_path: Path, wrong: str) -> None:
    changes, line = MATLAB[wrong]
    FORMATS["svhn"].write(tmp_path)
    path = tmp_path / "train_32x32.mat"
    table = {key: value for key, value in io.loadmat(path).items() if not key.startswith("_")} | changes
    io.savemat(path, {key: value for key, value in table.items() if value is not None}, do_compression=True)
    with pytest.raises(DataError, match=line) as error:
        FORMATS["svhn"].read(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [0, 1, 60, 127, 200, 5000])
def test_a_truncated_matlab_file_is_refused(tmp_path: Path, length: int) -> None:
    FORMATS["svhn"].write(tmp_path)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"train_32x32\.mat"):
        FORMATS["svhn"].read(tmp_path)


def test_the_digit_0_has_class_0_in_svhn(tmp_path: Path) -> None:
    _, (_, y) = FORMATS["svhn"].write(tmp_path)
    assert FORMATS["svhn"].read(tmp_path).test.y.tolist() == y.tolist()
    assert (io.loadmat(tmp_path / "test_32x32.mat")["y"] == 10).any()


NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"data": np.array([{}, {}])}, "no npz file that can be read"),
    "no images": ({"data": None}, "has no 'data'"),
    "numbers": ({"data": np.zeros((6, 3072))}, "no images of bytes but an array of float64"),
    "a bomb": ({"data": np.zeros((1000, 3072), np.uint8)}, "unpacks to more data than 60 images have"),
    "labels from 0": ({"labels": np.zeros(6, int)}, "mislabelled: it has the label 0"),
    "labels as numbers": ({"labels": np.ones(6)}, "no labels but an array of float64"),
}


@pytest.mark.parametrize("wrong", NPZ)
def test_a_wrong_npz_file_is_refused_in_one_line_that_names_it(tmp_path: Path, wrong: str) -> None:
    changes, line = NPZ[wrong]
    FORMATS["imagenet32-npz"].write(tmp_path)
    path = tmp_path / "Imagenet32_train_npz" / "train_data_batch_7.npz"
    table: dict[str, Any] = dict(np.load(path)) | changes
    np.savez_compressed(path, **{key: value for key, value in table.items() if value is not None})
    with pytest.raises(DataError, match=line) as error:
        FORMATS["imagenet32-npz"].read(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_npz_file_that_hides_its_size_is_refused(tmp_path: Path) -> None:
    FORMATS["imagenet32-npz"].write(tmp_path)
    path = tmp_path / "Imagenet32_train_npz" / "train_data_batch_7.npz"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    header += b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000000000000, 3072)}".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"data.npy": header + bytes(3072)}).items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"train_data_batch_7\.npz unpacks to more data"):
        FORMATS["imagenet32-npz"].read(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_one_line_that_says_what_where_and_how(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        FORMATS[name].read(tmp_path)
    line = str(error.value)
    assert line.startswith(f"{FORMATS[name].name} is not in {tmp_path} (no ")
    assert "\n" not in line
    assert ("image-net.org" if "imagenet" in name else "add --download, put") in line
    assert line.endswith("name another folder by --data-dir")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "svhn"])
def test_one_missing_file_of_many_is_named(tmp_path: Path, name: str) -> None:
    FORMATS[name].write(tmp_path)
    gone = sorted(path for path in tmp_path.rglob("*") if path.is_file())[-1]
    gone.unlink()
    with pytest.raises(DataError, match=gone.stem):
        FORMATS[name].read(tmp_path)


def test_catalogued_sizes_are_those_published() -> None:
    totals = {name: (s.train + s.validation, s.test, s.classes) for name, s in DATA_SETS.items()}
    assert totals == {
        "digits": (1097, 700, 10),
        "mnist": (60_000, 10_000, 10),
        "fashion-mnist": (60_000, 10_000, 10),
        "svhn": (73_257, 26_032, 10),
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
        "imagenet32": (1_281_167, 50_000, 1000),
    }

"""Tiny data sets in the formats of the published ones, with the images and labels in them."""

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import io  # type: ignore[import-untyped]
from torchvision import datasets

from lrwd_sweep.data import Splits, load
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles

Array = np.ndarray[Any, Any]
Images = tuple[Array, Array]  # (n, C, H, W) uint8, and (n,) from 0
Written = tuple[list[Images], Images]  # the training images, file by file, and the test images
COLOUR = DataSet(train=50, validation=10, test=20, classes=5, shape=(3, 32, 32))
GREY = DataSet(train=50, validation=10, test=20, classes=5, shape=(1, 28, 28))
DIGITS = DataSet(train=100, validation=20, test=40, classes=10, shape=(3, 32, 32))


def parts(sizes: DataSet, files: int) -> Written:
    def images(count: int, seed: int) -> Images:
        x = np.random.default_rng(seed).integers(0, 256, (count, *sizes.shape), np.uint8)
        return x, np.arange(count) % sizes.classes

    each = (sizes.train + sizes.validation) // files
    return [images(each, seed) for seed in range(files)], images(sizes.test, files)


def python2_pickle(table: dict[str, Any]) -> bytes:
    """Pickle as Python 2 did at protocol 2: strings are bytes, and so is the content of an array."""
    return b"\x80\x02" + _python2(table) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(one) for key, one in value.items()) + b"u"
    if isinstance(value, np.ndarray):
        kind = value.dtype.str
        dtype = b"cnumpy\ndtype\n" + _python2(kind[1:]) + b"K\x00K\x01\x87R(K\x03" + _python2(kind[0])
        dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    raw = value.encode() if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(raw)) + raw


def write_batches(folder: str, names: Sequence[str], labels: str, first: int, root: Path) -> Written:
    """Write batches of flat images, the test part last; ImageNet's labels count from 1, CIFAR's from 0."""
    train, test = parts(COLOUR, len(names) - 1)
    (root / folder).mkdir(parents=True)
    for name, (x, y) in zip(names, [*train, test], strict=True):
        path, mean, coarse = root / folder / name, x.mean(axis=0).flatten(), (y // 5).tolist()
        table: dict[str, Any] = {"data": x.reshape(len(x), -1), labels: (y + first).tolist()}
        if path.suffix == ".npz":
            np.savez_compressed(path, **table, mean=mean)
        elif first:
            path.write_bytes(pickle.dumps(table | {"mean": mean}, protocol=4))
        else:  # by Python 2
            files = [f"{k}.png" for k in range(len(y))]
            more = {"coarse_labels": coarse, "batch_label": name, "filenames": files}
            path.write_bytes(python2_pickle(more | table))
    return train, test


def write_idx(path: Path, array: Array) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: str, root: Path) -> Written:
    """Write four IDX files, those of the test part packed."""
    train, test = parts(GREY, 1)
    for stem, end, (x, y) in (("train", "", train[0]), ("t10k", ".gz", test)):
        write_idx(root / folder / "raw" / f"{stem}-images-idx3-ubyte{end}", x[:, 0])
        write_idx(root / folder / "raw" / f"{stem}-labels-idx1-ubyte{end}", y)
    return train, test


def write_svhn(root: Path) -> Written:
    """Write two MATLAB files, compressed as the published ones are; the digit 0 has the label 10."""
    train, test = parts(DIGITS, 1)
    root.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in (("train", train[0]), ("test", test)):
        table = {"X": x.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y).astype(np.uint8)[:, None]}
        io.savemat(root / f"{name}_32x32.mat", table, do_compression=True)
    return train, test


def publish(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Make torchvision take the files below `root` for the published ones, by their MD5."""

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "0" * 32

    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        for name in ("train_list", "test_list"):
            stored = [[file, md5(root / kind.base_folder / file)] for file, _ in getattr(kind, name)]
            patch.setattr(kind, name, stored)
        patch.setattr(kind, "tgz_md5", md5(root / kind.filename))
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        files = [(file, md5(root / kind.__name__ / "raw" / file)) for file, _ in kind.resources]
        patch.setattr(kind, "resources", files)
    for split, (url, file, _) in datasets.SVHN.split_list.items():
        patch.setitem(datasets.SVHN.split_list, split, [url, file, md5(root / file)])


@dataclass(frozen=True)
class Format:
    name: str
    writer: Callable[[Path], Written]
    sizes: DataSet

    def write(self, root: Path, patch: pytest.MonkeyPatch) -> Written:
        written = self.writer(root)
        publish(patch, root)
        return written

    def read(self, root: Path, *, download: bool = False) -> Splits:
        return load(self.name, self.sizes, DataFiles(str(root), download))


BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
SMALL = [*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]
CIFAR10 = partial(write_batches, "cifar-10-batches-py", BATCHES, "labels", 0)
CIFAR100 = partial(write_batches, "cifar-100-python", ["train", "test"], "fine_labels", 0)
NPZ = partial(write_batches, "Imagenet32_train_npz", [f"{name}.npz" for name in SMALL], "labels", 1)
FORMATS = {
    "cifar10": Format("cifar10", CIFAR10, COLOUR),
    "cifar100": Format("cifar100", CIFAR100, COLOUR),
    "mnist": Format("mnist", partial(write_mnist, "MNIST"), GREY),
    "fashion-mnist": Format("fashion-mnist", partial(write_mnist, "FashionMNIST"), GREY),
    "svhn": Format("svhn", write_svhn, DIGITS),
    "imagenet32": Format("imagenet32", partial(write_batches, "imagenet32", SMALL, "labels", 1), COLOUR),
    "imagenet32-npz": Format("imagenet32", NPZ, COLOUR),
}


def write_images(folder: Path, count: int, *, side: int = 32, ending: str = "png", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(seed)
    for k in range(count):
        Image.fromarray(stream.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{k:03}.{ending}")
    return folder

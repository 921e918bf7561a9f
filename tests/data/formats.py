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
import torch
from scipy import io  # type: ignore[import-untyped]
from torchvision import datasets
from torchvision.transforms import functional

from lrwd_sweep.data import Splits, load
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles

Array = np.ndarray[Any, Any]
Images = tuple[Array, Array]  # (n, C, H, W) uint8, and (n,) from 0
COLOUR = DataSet(train=50, validation=10, test=20, classes=5, shape=(3, 32, 32))
GREY = DataSet(train=50, validation=10, test=20, classes=5, shape=(1, 28, 28))
DIGITS = DataSet(train=100, validation=20, test=40, classes=10, shape=(3, 32, 32))


def parts(sizes: DataSet, files: int) -> tuple[list[Images], Images]:
    """Draw the training images, file by file, and the test images."""

    def images(count: int, seed: int) -> Images:
        x = np.random.default_rng(seed).integers(0, 256, (count, *sizes.shape), np.uint8)
        return x, np.arange(count) % sizes.classes

    each = (sizes.train + sizes.validation) // files
    return [images(each, seed) for seed in range(files)], images(sizes.test, files)


def python2_pickle(table: dict[str, Any]) -> bytes:
    """Pickle as Python 2 did at protocol 2: strings are bytes, and so is the content of an array."""
    body = b"".join(_string(key) + _python2(value) for key, value in table.items())
    return b"\x80\x02}(" + body + b"u."


def _string(text: bytes | str) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return b"T" + struct.pack("<i", len(raw)) + raw


def _python2(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        kind = value.dtype.str
        dtype = b"cnumpy\ndtype\n" + _string(kind[1:]) + b"K\x00K\x01\x87R(K\x03" + _string(kind[0])
        dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + _string(value.tobytes()) + b"tb"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    return b"J" + struct.pack("<i", value) if isinstance(value, int) else _string(value)


def write_cifar(folder: str, names: Sequence[str], labels: str, root: Path) -> tuple[list[Images], Images]:
    """Write batches and the test part as Python 2 pickled them; CIFAR-100's images have coarse labels too."""
    train, test = parts(COLOUR, len(names) - 1)
    (root / folder).mkdir(parents=True)
    for name, (x, y) in zip(names, [*train, test], strict=True):
        files, coarse = [f"{k}.png" for k in range(len(y))], [int(label) // 5 for label in y]
        table = {"batch_label": name, labels: y.tolist(), "data": x.reshape(len(x), -1), "filenames": files}
        (root / folder / name).write_bytes(python2_pickle({"coarse_labels": coarse} | table))
    return train, test


def write_idx(path: Path, array: Array) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: str, root: Path) -> tuple[list[Images], Images]:
    """Write four IDX files, those of the test part packed."""
    train, test = parts(GREY, 1)
    for stem, end, (x, y) in (("train", "", train[0]), ("t10k", ".gz", test)):
        write_idx(root / folder / "raw" / f"{stem}-images-idx3-ubyte{end}", x[:, 0])
        write_idx(root / folder / "raw" / f"{stem}-labels-idx1-ubyte{end}", y)
    return train, test


def write_svhn(root: Path) -> tuple[list[Images], Images]:
    """Write two MATLAB files, compressed as the published ones are; the digit 0 has the label 10."""
    train, test = parts(DIGITS, 1)
    root.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in (("train", train[0]), ("test", test)):
        table = {"X": x.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y).astype(np.uint8)[:, None]}
        io.savemat(root / f"{name}_32x32.mat", table, do_compression=True)
    return train, test


def write_imagenet32(folder: str, root: Path) -> tuple[list[Images], Images]:
    """Write ten batches and `val_data`, as npz files if the folder's name says so; labels count from 1."""
    train, test = parts(COLOUR, 10)
    (root / folder).mkdir(parents=True)
    names = [*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]
    mean = np.mean([x.mean(axis=0).reshape(-1) for x, _ in train], axis=0)
    for name, (x, y) in zip(names, [*train, test], strict=True):
        table: dict[str, Any] = {"data": x.reshape(len(x), -1), "labels": (y + 1).tolist(), "mean": mean}
        if folder.endswith("npz"):
            np.savez_compressed(root / folder / f"{name}.npz", **table)
        else:
            (root / folder / name).write_bytes(pickle.dumps(table, protocol=4))
    return train, test


def publish(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Make torchvision take the files below `root` for the published ones, by their MD5."""

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "0" * 32

    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        for name in ("train_list", "test_list"):
            files = [[file, md5(root / kind.base_folder / file)] for file, _ in getattr(kind, name)]
            patch.setattr(kind, name, files)
        patch.setattr(kind, "tgz_md5", md5(root / kind.filename))
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        raw = root / kind.__name__ / "raw"
        patch.setattr(kind, "resources", [(file, md5(raw / file)) for file, _ in kind.resources])
    splits = datasets.SVHN.split_list.items()
    table = {split: [url, file, md5(root / file)] for split, (url, file, _) in splits}
    patch.setattr(datasets.SVHN, "split_list", table)


@dataclass(frozen=True)
class Format:
    name: str
    writer: Callable[[Path], tuple[list[Images], Images]]
    sizes: DataSet

    def write(self, root: Path, patch: pytest.MonkeyPatch) -> tuple[list[Images], Images]:
        written = self.writer(root)
        publish(patch, root)
        return written

    def read(self, root: Path, *, download: bool = False) -> Splits:
        return load(self.name, self.sizes, DataFiles(str(root), download))


BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
CIFAR10 = partial(write_cifar, "cifar-10-batches-py", BATCHES, "labels")
CIFAR100 = partial(write_cifar, "cifar-100-python", ["train", "test"], "fine_labels")
FORMATS = {
    "cifar10": Format("cifar10", CIFAR10, COLOUR),
    "cifar100": Format("cifar100", CIFAR100, COLOUR),
    "mnist": Format("mnist", partial(write_mnist, "MNIST"), GREY),
    "fashion-mnist": Format("fashion-mnist", partial(write_mnist, "FashionMNIST"), GREY),
    "svhn": Format("svhn", write_svhn, DIGITS),
    "imagenet32": Format("imagenet32", partial(write_imagenet32, "imagenet32"), COLOUR),
    "imagenet32-npz": Format("imagenet32", partial(write_imagenet32, "Imagenet32_train_npz"), COLOUR),
}


def write_images(folder: Path, count: int, *, side: int = 32, ending: str = "png", seed: int = 0) -> Path:
    """Write square images of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(seed)
    for k in range(count):
        pixels = torch.from_numpy(stream.integers(0, 256, (3, side, side), np.uint8))
        functional.to_pil_image(pixels).save(folder / f"{k:03}.{ending}")
    return folder

"""Each published format is read as it is, split by a fixed seed, and refused if anything is wrong."""

import pickle
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from lrwd_sweep.data import Split
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS
from tests.data.formats import COLOUR, FORMATS, Format, Images, publish, python2_pickle, write_idx
from tests.refusal import assert_raises

CIFAR, MNIST = FORMATS["cifar10"], FORMATS["mnist"]
ARCHIVE, BATCHES = "cifar-10-python.tar.gz", "cifar-10-batches-py"
PACKED = "MNIST/raw/t10k-images-idx3-ubyte.gz"
Rows = list[tuple[bytes, int]]  # each image's bytes with its label


def _rows(split: Split) -> Rows:
    assert split.x.dtype == torch.uint8
    return [(x.numpy().tobytes(), int(y)) for x, y in zip(split.x, split.y, strict=True)]


def _written(parts: list[Images]) -> Rows:
    return [(x.tobytes(), int(y)) for part in parts for x, y in zip(*part, strict=True)]


def _assert_refused(format_: Format, root: Path, *parts: str, download: bool = False) -> None:
    short = "^(?=.{1,700}$)" + "".join(f"(?=.*{re.escape(part)})" for part in parts)
    assert_raises(short, format_.read, root, error=DataError, download=download)


def test_formats_are_read_and_split_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {format_.name for format_ in FORMATS.values()} | {"digits"} == set(DATA_SETS)
    for name, format_ in FORMATS.items():
        train, test = format_.write(tmp_path / name, monkeypatch)
        splits, sizes = format_.read(tmp_path / name), format_.sizes
        drawn = np.random.default_rng(0).permutation(sizes.train + sizes.validation)[: sizes.validation]
        rows = _written(train)
        assert _rows(splits.validation) == [rows[k] for k in sorted(drawn)], name
        assert _rows(splits.train) == [row for k, row in enumerate(rows) if k not in drawn], name
        assert _rows(splits.test) == _written([test]), name
        assert splits.train.x.shape[1:] == sizes.shape, name
        numbers = splits.to(torch.device("cpu"), torch.float64)
        x, test_x = (part.batch(torch.arange(len(part)))[0] for part in (numbers.train, numbers.test))
        deviation, mean = torch.std_mean(x, (0, 2, 3), correction=0)
        assert max(mean.abs().max(), (deviation - 1).abs().max()) < 1e-12, name
        assert test_x.mean(dim=(0, 2, 3)).abs().min() > 1e-6, name  # by the training statistics
        assert name != "svhn" or (splits.test.y == 0).any()  # the digit 0, whose label is 10 in the file


def test_missing_files_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, format_ in FORMATS.items():
        root = tmp_path / name
        format_.write(root, monkeypatch)
        gone = max(path for path in root.rglob("*") if path.is_file())
        gone.unlink()
        how = "image-net.org" if "imagenet" in name else "add download=True, put"
        missing = f"{format_.name} is not in {root} (no "
        _assert_refused(format_, root, missing, gone.stem, how, " by data_dir")
    images, labels = "MNIST/raw/train-images-idx3-ubyte.gz", " and MNIST/raw/t10k-labels-idx1-ubyte.gz there"
    _assert_refused(MNIST, tmp_path, f"(no {images}); add download=True, put {images}", labels)


def test_other_files_are_refused_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.data.images._Unpickler", None)  # calling it would raise another error
    other = ("cifar10", f"{BATCHES}/data_batch_4"), ("svhn", "train_32x32.mat"), ("mnist", PACKED)
    for name, file in other:
        FORMATS[name].write(tmp_path, monkeypatch)
        path = tmp_path / file
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        wrong = f"{path} is not the published file (its MD5 is not "
        _assert_refused(FORMATS[name], tmp_path, wrong, "; remove it and get it again")


def test_wrong_idx_files_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MNIST.write(tmp_path, monkeypatch)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    labels, whole = path.with_name("train-labels-idx1-ubyte"), path.read_bytes()
    web, kind, count = b"<html>not found</html>", b"\0\0\x0d\x03" + whole[4:], b"\0\0\x08\x03" + b"\xff" * 12
    for content in (whole[:-1], whole + b"\0", b"", web, kind, count):
        path.write_bytes(content)
        _assert_refused(MNIST, tmp_path, f"{path} cannot be read as IDX", "remove it and get it again")
    for where, array, complaint in (
        (path, np.zeros((60, 14, 14)), "holds images of shape (14, 14) instead of (1, 28, 28)"),
        (path, np.zeros((59, 28, 28)), "holds 60 labels for 59 images"),
        (labels, np.full(59, 5), f"{labels} is mislabelled: it has the label 5, outside 0 to 4"),
    ):
        write_idx(where, array)
        _assert_refused(MNIST, tmp_path, complaint)


def _images(count: int, values: int = 3072, kind: str = "u1") -> Any:
    return np.zeros((count, values), kind)


WRONG_BATCHES: list[tuple[bytes | dict[str, Any], str]] = [
    (pickle.dumps([1]), "is not a pickled data set"),
    (python2_pickle({"labels": [1] * 6}), "train_data_batch_10 has no 'data'"),
    ({"data": _images(6, kind="i4")}, "no images of bytes but an array of int32"),
    ({"data": _images(6, 768)}, "shape (768,) instead of (3, 32, 32)"),
    ({"labels": [1] * 7}, "7 labels for 6 images"),
    ({"labels": [1] * 5 + [6]}, "mislabelled: it has the label 6, outside 1 to 5"),
    ({"labels": ["cat"] * 6}, "no labels but a list of str"),
    ({"data": _images(7), "labels": [1] * 7}, "more than 60 training"),
    ({"data": _images(5), "labels": [1] * 5}, "holds 59 training images"),
]


def test_wrong_batches_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet, npz = FORMATS["imagenet32"], FORMATS["imagenet32-npz"]
    imagenet.write(tmp_path / "a", monkeypatch)
    path = tmp_path / "a" / "imagenet32" / "train_data_batch_10"
    right = {"data": _images(6), "labels": [k % 5 + 1 for k in range(6)]}
    for wrong, line in WRONG_BATCHES:
        path.write_bytes(wrong if isinstance(wrong, bytes) else python2_pickle(right | wrong))
        where = str(path.parent if "training" in line else path)
        _assert_refused(imagenet, tmp_path / "a", line, where, "remove it and get it again")
    npz.write(tmp_path / "b", monkeypatch)
    path = tmp_path / "b" / "Imagenet32_train_npz" / "train_data_batch_7.npz"
    table: dict[str, Any] = dict(np.load(path))
    np.savez_compressed(path, **table | {"labels": np.ones(6)})
    _assert_refused(npz, tmp_path / "b", "no labels but an array of float64", str(path))
    np.savez_compressed(path, **table | {"data": np.array([{}, {}])})
    for content in (path.read_bytes(), path.read_bytes()[:-9]):
        path.write_bytes(content)
        _assert_refused(npz, tmp_path / "b", "is not a readable npz file", str(path))


def _archive(root: Path, patch: pytest.MonkeyPatch, leave_out: str = "") -> None:
    CIFAR.writer(root)
    with tarfile.open(root / ARCHIVE, "w:gz") as tar:
        for path in (root / BATCHES).iterdir():
            if path.name != leave_out:
                tar.add(path, f"{BATCHES}/{path.name}")
    publish(patch, root)
    shutil.rmtree(root / BATCHES)


def test_archives_are_unpacked_once_if_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _archive(tmp_path, monkeypatch)
    first = CIFAR.read(tmp_path)
    few, lacking = replace(COLOUR, test=21), replace(COLOUR, classes=6)
    _assert_refused(replace(CIFAR, sizes=few), tmp_path, "20 test images instead of 21")
    missing = "mislabelled: no training image has class 5"
    _assert_refused(replace(CIFAR, sizes=lacking), tmp_path, missing)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BATCHES, ARCHIVE]
    (tmp_path / ARCHIVE).unlink()
    assert torch.equal(CIFAR.read(tmp_path).train.x, first.train.x)
    shutil.rmtree(tmp_path / BATCHES)
    _archive(tmp_path, monkeypatch, leave_out="data_batch_4")
    _assert_refused(CIFAR, tmp_path, f"cannot unpack {tmp_path / ARCHIVE}", "unpack it by hand in")
    (tmp_path / ARCHIVE).write_bytes(b"\x1f\x8b another")
    shutil.rmtree(tmp_path / BATCHES)
    _assert_refused(CIFAR, tmp_path, f"{tmp_path / ARCHIVE} is not the published file")
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "mirror")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_missing_files_are_downloaded_from_the_first_mirror_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mirror: str
) -> None:
    _, test = MNIST.write(tmp_path, monkeypatch)
    raw, folder = tmp_path / "MNIST" / "raw", tmp_path / "mirror"
    packed = sorted(raw.glob("*.gz"))
    for path in packed:
        path.rename(folder / path.name)
    kept = {path.name for path in raw.iterdir()}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{mirror}/gone/", f"{mirror}/"])
    assert _rows(MNIST.read(tmp_path, download=True).test) == _written([test])
    assert {path.name for path in raw.iterdir()} == kept | {path.name for path in packed}
    out, err = capsys.readouterr()
    assert (out, "%" in err) == ("", False)  # redrawn on a terminal only
    assert err.count("downloading") == 2 * len(packed)
    assert f"downloading {mirror}/{packed[0].name}\n" in err
    first = datasets.MNIST.resources[0][0]
    remedy = f"; run the same command again, or put {first} in {tmp_path / 'data/MNIST/raw'}"
    (folder / first).write_bytes(b"another file")
    for address, reason in (
        (f"{mirror}/", "corrupted"),
        (f"{mirror}/gone/", "HTTP Error 404"),
        ("http://127.0.0.1:1/", "Connection refused"),
    ):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        complaint = f"cannot download {address}{first}: "
        _assert_refused(MNIST, tmp_path / "data", complaint, reason, remedy, download=True)
        assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    _assert_refused(MNIST, folder / first, "cannot download", "Not a directory", download=True)

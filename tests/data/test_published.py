"""Each published format is read as it is, split by a fixed seed, and refused if anything is wrong."""

from __future__ import annotations

import gzip
import pickle
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from lrwd_sweep.data import Split
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS
from lrwd_sweep.spec.data_files import DataFiles
from tests.data.formats import COLOUR, FORMATS, Format, Images, publish, python2_pickle, write_idx

CIFAR, MNIST = FORMATS["cifar10"], FORMATS["mnist"]
ARCHIVE, BATCHES = "cifar-10-python.tar.gz", "cifar-10-batches-py"
Rows = list[tuple[bytes, int]]  # each image's bytes with its label


def _rows(split: Split) -> Rows:
    assert split.x.dtype == torch.uint8
    return [(x.numpy().tobytes(), int(y)) for x, y in zip(split.x, split.y, strict=True)]


def _written(parts: list[Images]) -> Rows:
    return [(x.tobytes(), int(y)) for part in parts for x, y in zip(*part, strict=True)]


def _refused(format_: Format, root: Path, *parts: str, download: bool = False) -> None:
    with pytest.raises(DataError) as error:
        format_.read(root, download=download)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 700
    for part in parts:
        assert part in line


def test_every_format_gives_its_images_and_labels_split_by_the_fixed_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        x, _ = numbers.train.batch(torch.arange(sizes.train))
        assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-12, name
        assert (x.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-12, name
        x, _ = numbers.test.batch(torch.arange(sizes.test))
        assert x.mean(dim=(0, 2, 3)).abs().min() > 1e-6, name  # by the training statistics
        if name == "svhn":
            assert (splits.test.y == 0).any()  # the digit 0, whose label is 10 in the file


TORCHVISION: dict[str, Callable[[Path, bool], Any]] = {
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "svhn": lambda root, train: datasets.SVHN(root, "train" if train else "test"),
}


def test_torchvision_reads_the_same_from_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda _: None)  # the classes' names
    for name, kind in TORCHVISION.items():
        FORMATS[name].write(tmp_path, monkeypatch)
        splits = FORMATS[name].read(tmp_path)
        for packed in tmp_path.glob("*/raw/*.gz"):  # torchvision wants these unpacked
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        train, test = (
            [(np.asarray(image), int(label)) for image, label in kind(tmp_path, part)]
            for part in (True, False)
        )
        for ours, theirs in (
            (_rows(splits.train) + _rows(splits.validation), train),
            (_rows(splits.test), test),
        ):
            bytes_ = [((x if x.ndim == 2 else x.transpose(2, 0, 1)).tobytes(), label) for x, label in theirs]
            assert sorted(ours) == sorted(bytes_), name


def test_missing_files_are_one_line_that_says_what_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, format_ in FORMATS.items():
        root = tmp_path / name
        how = "image-net.org" if "imagenet" in name else "add --download, put"
        rest = (f"{format_.name} is not in {root} (no ", how, "or name another folder by --data-dir")
        _refused(format_, root, *rest)
        assert not root.exists()
        format_.write(root, monkeypatch)
        gone = max(path for path in root.rglob("*") if path.is_file())
        gone.unlink()
        _refused(format_, root, gone.stem, *rest)
    _refused(
        MNIST,
        tmp_path,
        "(no MNIST/raw/train-images-idx3-ubyte.gz); add --download, put MNIST/raw/train-images-idx3-ubyte",
        " and MNIST/raw/t10k-labels-idx1-ubyte.gz there",
    )


def test_a_file_other_than_the_published_one_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("lrwd_sweep.data.images._Unpickler", never)
    for name, file in {
        "cifar10": f"{BATCHES}/data_batch_4",
        "cifar100": "cifar-100-python/test",
        "mnist": "MNIST/raw/t10k-images-idx3-ubyte.gz",
        "svhn": "train_32x32.mat",
    }.items():
        FORMATS[name].write(tmp_path, monkeypatch)
        path = tmp_path / file
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        _refused(
            FORMATS[name],
            tmp_path,
            f"{path} is not the published file (its MD5 is not ",
            "; remove it and get it again",
        )


def test_a_wrong_unpacked_idx_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MNIST.write(tmp_path, monkeypatch)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content, complaint in (
        (whole[:-1], "cannot be read as IDX"),
        (whole + b"\0", "cannot be read as IDX"),
        (b"", "cannot be read as IDX"),
        (b"<html>not found</html>", "cannot be read as IDX"),
        (b"\0\0\x0d\x03" + whole[4:], "cannot be read as IDX"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "cannot be read as IDX"),
    ):
        path.write_bytes(content)
        _refused(MNIST, tmp_path, f"{path} {complaint}", "remove it and get it again")
    for array, complaint in (
        (np.zeros((59, 28, 28)), "holds 60 labels for 59 images"),
        (np.zeros((60, 14, 14)), "holds images of shape (14, 14) instead of (1, 28, 28)"),
    ):
        write_idx(path, array)
        _refused(MNIST, tmp_path, complaint)
    path.write_bytes(whole)
    labels = path.with_name("train-labels-idx1-ubyte")
    write_idx(labels, np.full(60, 5))
    _refused(MNIST, tmp_path, f"{labels} is mislabelled: it has the label 5, outside 0 to 4")


def _batch(**changes: Any) -> bytes:
    """Pickle a batch of ImageNet32x32 but for `changes`."""
    table = {"data": np.zeros((6, 3072), np.uint8), "labels": [k % 5 + 1 for k in range(6)]} | changes
    return python2_pickle({key: value for key, value in table.items() if value is not None})


WRONG_BATCHES = {
    "a truncated file": (_batch()[:-400], "is not a pickled data set"),
    "an empty file": (b"", "is not a pickled data set"),
    "a web page": (b"<html>not found</html>", "is not a pickled data set"),
    "a list": (pickle.dumps([1]), "is not a pickled data set"),
    "no images": (_batch(data=None), "has no 'data'"),
    "no labels": (_batch(labels=None), "has no 'labels'"),
    "images of numbers": (_batch(data=np.zeros((6, 3072), "i4")), "no images of bytes but an array of int32"),
    "smaller images": (_batch(data=np.zeros((6, 768), np.uint8)), "shape (768,) instead of (3, 32, 32)"),
    "one image": (_batch(data=np.zeros(3072, np.uint8)), "holds images of shape"),
    "no image": (_batch(data=np.zeros((0, 3072), np.uint8), labels=[]), "instead of"),
    "images as a list": (_batch(data=[0, 1]), "no images of bytes but a list of int"),
    "a label too many": (_batch(labels=[1] * 7), "7 labels for 6 images"),
    "a label that is no class": (
        _batch(labels=[1] * 5 + [6]),
        "mislabelled: it has the label 6, outside 1 to 5",
    ),
    "labels from 0": (_batch(labels=[0] * 6), "mislabelled: it has the label 0, outside 1 to 5"),
    "labels as text": (_batch(labels=["cat"] * 6), "no labels but a list of str"),
    "an image too many": (
        _batch(data=np.zeros((7, 3072), np.uint8), labels=[1] * 7),
        "more than 60 training",
    ),
    "an image too few": (
        _batch(data=np.zeros((5, 3072), np.uint8), labels=[1] * 5),
        "holds 59 training images",
    ),
}
WRONG_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"data": np.array([{}, {}])}, "is not a readable npz file"),
    "no images": ({"data": None}, "has no 'data'"),
    "numbers": ({"data": np.zeros((6, 3072))}, "no images of bytes but an array of float64"),
    "labels from 0": ({"labels": np.zeros(6, int)}, "mislabelled: it has the label 0"),
    "labels as numbers": ({"labels": np.ones(6)}, "no labels but an array of float64"),
}


def test_a_wrong_batch_of_imagenet32_is_refused_in_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet, npz = FORMATS["imagenet32"], FORMATS["imagenet32-npz"]
    imagenet.write(tmp_path / "a", monkeypatch)
    path = tmp_path / "a" / "imagenet32" / "train_data_batch_10"
    for wrong, (content, line) in WRONG_BATCHES.items():
        path.write_bytes(content)
        where = str(path.parent if "an image too" in wrong else path)
        _refused(imagenet, tmp_path / "a", line, where, "remove it and get it again")
    npz.write(tmp_path / "b", monkeypatch)
    path = tmp_path / "b" / "Imagenet32_train_npz" / "train_data_batch_7.npz"
    whole = path.read_bytes()
    for changes, line in WRONG_NPZ.values():
        path.write_bytes(whole)
        table: dict[str, Any] = dict(np.load(path)) | changes
        np.savez_compressed(path, **{key: value for key, value in table.items() if value is not None})
        _refused(npz, tmp_path / "b", line, str(path))
    path.write_bytes(whole[:-9])
    _refused(npz, tmp_path / "b", "is not a readable npz file", str(path))


def test_other_sizes_and_a_class_without_training_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CIFAR.write(tmp_path, monkeypatch)
    _refused(replace(CIFAR, sizes=replace(COLOUR, test=21)), tmp_path, "20 test images instead of 21")
    _refused(
        replace(CIFAR, sizes=replace(COLOUR, classes=6)),
        tmp_path,
        "mislabelled: no training image has class 5",
    )


def test_the_folder_is_the_one_given_else_the_environments_else_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LRWD_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataFiles().root == tmp_path / ".cache" / "lrwd-sweep"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert DataFiles().root == Path("/cache/lrwd-sweep")
    monkeypatch.setenv("LRWD_DATA", "/data")
    assert DataFiles().root == Path("/data")
    assert DataFiles("~/mine").root == tmp_path / "mine"


def _archive(root: Path, patch: pytest.MonkeyPatch, leave_out: str = "") -> None:
    """Write CIFAR-10 as its archive only."""
    CIFAR.writer(root)
    with tarfile.open(root / ARCHIVE, "w:gz") as tar:
        for path in (root / BATCHES).iterdir():
            if path.name != leave_out:
                tar.add(path, f"{BATCHES}/{path.name}")
    publish(patch, root)
    shutil.rmtree(root / BATCHES)


def test_an_archive_placed_by_hand_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _archive(tmp_path, monkeypatch)
    first = CIFAR.read(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [BATCHES, ARCHIVE]
    (tmp_path / ARCHIVE).unlink()
    assert torch.equal(CIFAR.read(tmp_path).train.x, first.train.x)


def test_an_archive_that_is_not_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _archive(tmp_path, monkeypatch, leave_out="data_batch_4")
    _refused(CIFAR, tmp_path, f"cannot unpack {tmp_path / ARCHIVE}", "unpack it by hand in")
    (tmp_path / ARCHIVE).write_bytes(b"\x1f\x8b another")
    shutil.rmtree(tmp_path / BATCHES)
    _refused(CIFAR, tmp_path, f"{tmp_path / ARCHIVE} is not the published file")
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]


@dataclass
class Server:
    """A server on this machine, with its files by name."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(state.files.get(self.path[1:], b""))
            state.asked.append(self.path[1:])

        def do_HEAD(self) -> None:
            if self.path[1:] in state.files:
                self.send_response(200)
                self.send_header("Content-Length", str(len(state.files[self.path[1:]])))
                self.end_headers()
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}/"
        yield state
        http.shutdown()


def test_only_what_is_missing_is_downloaded_from_the_first_mirror_that_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    _, test = MNIST.write(tmp_path, monkeypatch)
    raw = tmp_path / "MNIST" / "raw"
    packed = sorted(raw.glob("*.gz"))
    server.files = {path.name: path.read_bytes() for path in packed}
    for path in packed:
        path.unlink()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}gone/", server.url])
    assert _rows(MNIST.read(tmp_path, download=True).test) == _written([test])
    assert {path for path in server.asked if "gone" not in path} == {path.name for path in packed}
    assert len(list(raw.iterdir())) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "%" not in captured.err  # redrawn on a terminal only
    assert f"downloading {server.url}{packed[0].name}\n" in captured.err


def test_an_archive_is_downloaded_and_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    _archive(tmp_path, monkeypatch)
    server.files = {ARCHIVE: (tmp_path / ARCHIVE).read_bytes()}
    (tmp_path / ARCHIVE).unlink()
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}{ARCHIVE}")
    assert len(CIFAR.read(tmp_path, download=True).train) == COLOUR.train
    assert sorted(path.name for path in tmp_path.iterdir()) == [BATCHES, ARCHIVE]


def test_a_failed_download_is_one_line_with_the_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    first = datasets.MNIST.resources[0][0]
    remedy = f"; run the same command again, or put {first} in {tmp_path / 'MNIST' / 'raw'}"
    server.files = {first: b"another file"}
    for mirror, reason in (
        (server.url, "corrupted"),
        (f"{server.url}gone/", "HTTP Error 404: Not Found"),
        ("http://127.0.0.1:1/", "Connection refused"),
    ):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror])
        _refused(MNIST, tmp_path, f"cannot download {mirror}{first}: ", reason, remedy, download=True)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    _refused(MNIST, tmp_path / "file", "cannot download", "Not a directory", download=True)


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

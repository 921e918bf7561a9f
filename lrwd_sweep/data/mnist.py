"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 60,000 and 10,000 images of 28×28.

5,000 of the training images are held out for validation, drawn by a fixed seed.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrwd_sweep.data.download import Published
from lrwd_sweep.data.files import Files
from lrwd_sweep.data.images import Bytes, Images, as_splits, broken, held_out
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.spec.catalog import DATA_SETS, DataSet

_UNSIGNED_BYTES = 8  # third byte of an IDX file's magic number; the fourth is its dimensions


@dataclass(frozen=True, slots=True)
class Mnist:
    """One of the two, as four IDX files, packed or not."""

    name: str
    folder: str
    site: str
    sha256: Mapping[str, str]  # by file: training images and labels, test images and labels

    def load(self, files: Files | None = None, sizes: DataSet | None = None) -> Splits:
        """The splits. Raises DataError when files are missing, broken or not what `sizes` says."""
        files, sizes = files or Files(), sizes or DATA_SETS[self.name]
        published = [
            Published(f"{self.folder}/raw/{name}", f"{self.site}/{name}", sha256)
            for name, sha256 in self.sha256.items()
        ]
        train_x, train_y, test_x, test_y = files.obtain(self.name, published)
        train = _read(train_x, train_y, sizes, sizes.train + sizes.validation)
        test = _read(test_x, test_y, sizes, sizes.test)
        return as_splits(*held_out([train], sizes, train_x.parent), test, sizes, test_x.parent)


def _read(images: Path, labels: Path, sizes: DataSet, count: int) -> Images:
    x = read_idx(images, (count, *sizes.shape[1:]))
    return Images.checked(labels, x.reshape(count, -1), read_idx(labels, (count,)), sizes)


def read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """The array of bytes in an IDX file, which must have that shape. Raises DataError.

    The file: two zero bytes, 8 for unsigned bytes, the number of dimensions, each as a big-endian 32-bit
    number, then the content. No more is unpacked than there should be.
    """
    header = 4 + 4 * len(shape)
    size = int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise broken(path, f"cannot be read: {error}") from None
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTES, len(shape))) or len(content) < header:
        raise broken(path, f"is no IDX file of bytes in {len(shape)} dimensions")
    found = struct.unpack(f">{len(shape)}I", content[4:header])
    if found != shape:
        raise broken(path, f"holds an array of {_times(found)} instead of {_times(shape)}")
    if len(content) != header + size:
        what = "is longer than" if len(content) > header + size else "ends before"
        raise broken(path, f"{what} the {size:,} bytes that it says it holds")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


MNIST = Mnist(
    "mnist",
    "MNIST",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
FASHION_MNIST = Mnist(
    "fashion-mnist",
    "FashionMNIST",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)

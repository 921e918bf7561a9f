"""Images read from files, checked, and divided into splits: digits, ImageNet32x32, folders; augmentation.

Augmentation shifts, mirrors and cuts out training images on their device. Blank is 0 in normalised images,
the mean colour: the paper's CIFAR recipe comes from fb.resnet.torch by way of Shake-Shake, which normalises
first and pads then; Cutout (DeVries and Taylor 2017) does the same.
"""

import importlib.util
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data.splits import Split, Splits
from lrwd_sweep.errors import DataError, arg
from lrwd_sweep.spec import user_files
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles

HOLD_OUT_SEED = 0  # also of the digits
IMAGENET_TRAIN = tuple(f"train_data_batch_{k}" for k in range(1, 11))
IMAGENET_TEST = "val_data"
IMAGENET_FOLDERS = (
    "imagenet32",
    "Imagenet32_train",
    "Imagenet32_val",
    "Imagenet32_train_npz",
    "Imagenet32_val_npz",
)
_LONGEST = 300  # characters of a message, which may quote the file

Augment = Callable[[Tensor], Tensor]  # (B, C, H, W), normalised


def broken(path: Path, what: str) -> DataError:
    """Return the error for a corrupt file; `what` may be long, or have lines."""
    return DataError(f"{path} {' '.join(what.split())[:_LONGEST]}; remove it and get it again")


_CORES = ("numpy.core", "numpy._core")  # of numpy 1 and 2
_NAMES: dict[tuple[str, str], Any] = {  # names in pickled arrays, and their replacements
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, never called
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
    **{(f"{core}.multiarray", "_reconstruct"): lambda *_: np.empty(0, np.uint8) for core in _CORES},
    **{
        (f"{core}.numeric", "_frombuffer"): lambda raw, kind, shape, order: np.frombuffer(raw, kind).reshape(
            shape, order=order
        )
        for core in _CORES
    },
}


class _Unpickler(pickle.Unpickler):
    """An unpickler of containers, text, numbers and numpy arrays that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of an allowed name."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _NAMES[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a dictionary of arrays and lists, pickled by Python 2 or 3. Raises DataError."""
    try:
        with path.open("rb") as file:
            table = _Unpickler(file, encoding="latin-1").load()
    except Exception as error:  # a corrupt pickle raises nearly anything
        raise broken(path, f"is not a pickled data set ({error or type(error).__name__})") from None
    if not isinstance(table, dict):
        raise broken(path, f"is not a pickled data set (but {_kind(table)})")
    return table


def checked(path: Path, x: Any, y: Any, sizes: DataSet, *, first: int = 0) -> Split:
    """Check what a file holds, its classes counted from `first`. Raises DataError naming the file."""
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8:
        raise broken(path, f"holds no images of bytes but {_kind(x)}")
    if x.ndim < 2 or x[0:1].size != math.prod(sizes.shape):
        raise broken(path, f"holds images of shape {x.shape[1:]} instead of {sizes.shape}")
    labels = y.tolist() if isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu" else y
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise broken(path, f"holds no labels but {_kind(y)}")
    if len(labels) != len(x):
        raise broken(path, f"holds {len(labels)} labels for {len(x)} images")
    last = first + sizes.classes - 1
    for label in (min(labels), max(labels)):
        if not first <= label <= last:
            raise broken(path, f"is mislabelled: it has the label {label}, outside {first} to {last}")
    images = np.require(x, requirements="W")  # an array out of a file may be read-only
    return Split(torch.from_numpy(images).view(-1, *sizes.shape), torch.tensor(labels) - first)


def _room(count: int, sizes: DataSet) -> Split:
    return Split(torch.empty(count, *sizes.shape, dtype=torch.uint8), torch.empty(count, dtype=torch.int64))


def held_out(parts: Iterable[Split], sizes: DataSet, where: Path) -> tuple[Split, Split]:
    """Divide the training part of a data set, file by file, into training and validation images.

    `sizes.validation` images are drawn by a fixed seed. At most one file is in memory twice.
    Raises DataError if the files hold more or fewer images than `sizes` says.
    """
    total = sizes.train + sizes.validation
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[np.random.default_rng(HOLD_OUT_SEED).permutation(total)[: sizes.validation]] = True
    made, filled, seen = [_room(sizes.train, sizes), _room(sizes.validation, sizes)], [0, 0], 0
    for part in parts:
        mine = chosen[seen : seen + len(part)]
        seen += len(part)
        if seen > total:
            raise broken(where, f"holds more than {total} training images")
        for k, rows in enumerate((~mine, mine)):
            end = filled[k] + int(rows.sum())
            made[k].x[filled[k] : end], made[k].y[filled[k] : end] = part.x[rows], part.y[rows]
            filled[k] = end
    if seen < total:
        raise broken(where, f"holds {seen} training images instead of {total}")
    return made[0], made[1]


def as_splits(train: Split, validation: Split, test: Split, sizes: DataSet, where: Path) -> Splits:
    """Return the splits, normalised with the training statistics. Raises DataError if a class is missing."""
    if len(test) != sizes.test:
        raise broken(where, f"holds {len(test)} test images instead of {sizes.test}")
    counts = torch.bincount(train.y, minlength=sizes.classes)
    if not counts.all():
        raise broken(where, f"is mislabelled: no training image has class {int(counts.argmin())}, from 0")
    return Splits(train, validation, test).standardized()


def read_digits() -> np.ndarray:
    """Read the table (1797, 65): 64 pixels and the label.

    It lies in scikit-learn's folder; importing scikit-learn would double the start-up time.
    """
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else None
    if path is not None and path.is_file():
        return np.loadtxt(path, delimiter=",")
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - in case its files have moved
    except ImportError:
        raise DataError(
            "the digits ship inside scikit-learn, which is missing; pip install scikit-learn"
        ) from None
    x, y = load_digits(return_X_y=True)
    return np.column_stack([x, y])


def load_digits(sizes: DataSet) -> Splits:
    """Read 400 training, 697 validation and 700 test images (n, 1, 8, 8), standardised by the first.

    The channel has one mean and one deviation, as the paper normalises its images: pixels at the rim, dark in
    nearly every image, stay small. Raises DataError without scikit-learn.
    """
    table = read_digits()
    table = table[np.random.default_rng(HOLD_OUT_SEED).permutation(len(table))]
    x, y = torch.from_numpy(table[:, :-1]).reshape(-1, *sizes.shape), torch.from_numpy(table[:, -1]).long()
    train = x[: sizes.train]
    x = (x - train.mean()) / train.std(correction=0)
    bounds = [sizes.train, sizes.validation, sizes.test]
    return Splits(*(Split(a, b) for a, b in zip(torch.split(x, bounds), torch.split(y, bounds), strict=True)))


def load_imagenet32(files: DataFiles, sizes: DataSet) -> Splits:
    """Read ImageNet32x32 from pickled batches or npz files (Chrabaszcz et al. 2017).

    The published validation images are the test split: the labels of ImageNet's test images are not public.
    Raises DataError if files are missing or corrupt.
    """
    *train, test = [_find_batch(files.root, name) for name in (*IMAGENET_TRAIN, IMAGENET_TEST)]
    kept, validation = held_out((_read_batch(path, sizes) for path in train), sizes, train[0].parent)
    return as_splits(kept, validation, _read_batch(test, sizes), sizes, test.parent)


def _find_batch(root: Path, name: str) -> Path:
    """Return a batch in either format, from a folder that its archive makes, possibly inside `imagenet32`."""
    folders = [root / folder for folder in IMAGENET_FOLDERS]
    folders += [root / IMAGENET_FOLDERS[0] / folder for folder in IMAGENET_FOLDERS[1:]]
    for folder in (*folders, root):
        for path in (folder / name, folder / f"{name}.npz"):
            if path.is_file():
                return path
    raise DataError(
        f"imagenet32 is not in {root} (no {name}); get Imagenet32_train and Imagenet32_val, or their npz "
        f"files, from image-net.org, which asks for an account, and unpack them in "
        f"{root / IMAGENET_FOLDERS[0]}, or "
        f"name another folder by {arg('data_dir')}"
    )


def _read_batch(path: Path, sizes: DataSet) -> Split:
    """Read `data` (n, 3072) and `labels` (n,) from 1."""
    table = _read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    for key in ("data", "labels"):
        if key not in table:
            raise broken(path, f"has no {key!r}")
    return checked(path, table["data"], table["labels"], sizes, first=1)


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in ("data", "labels") if key in archive}
    except Exception as error:  # numpy and zlib fail in many ways on a corrupt file
        raise broken(path, f"is not a readable npz file ({error})") from None


def load_folder(name: str, sizes: DataSet) -> Splits:
    """Read the images of `folder:PATH@SIZE` in three channels. Raises DataError naming the file.

    As in downsampled ImageNet, an image of another shape is squeezed into the square, not cut.
    """
    found = user_files.scan_images(name)
    counts = (len(found.train), len(found.validation), len(found.test))
    if counts != (sizes.train, sizes.validation, sizes.test):
        raise DataError(f"{name} has changed while it was read; run the same command again")
    train, validation, test = (
        _read_files(samples, sizes) for samples in (found.train, found.validation, found.test)
    )
    return as_splits(train, validation, test, sizes, Path(name))


def _read_files(samples: Sequence[user_files.Sample], sizes: DataSet) -> Split:
    images, side = _room(len(samples), sizes), sizes.shape[-1]
    with ThreadPoolExecutor() as threads:
        for k, pixels in enumerate(threads.map(lambda sample: _read_pixels(sample[0], side), samples)):
            images.x[k], images.y[k] = pixels, samples[k][1]
    return images


def _read_pixels(path: str, side: int) -> Tensor:  # (3, side, side)
    from torchvision.datasets.folder import pil_loader  # noqa: PLC0415 - slow to load, only for this set
    from torchvision.transforms import functional  # noqa: PLC0415

    try:
        image = functional.resize(pil_loader(path), [side, side])
    except Exception as error:  # decoders fail in many ways on a corrupt file
        raise broken(Path(path), f"is not a readable image ({error})") from None
    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"a list of {' and '.join(sorted({type(item).__name__ for item in value}))}"
    return type(value).__name__


def augmentation(name: str, stream: torch.Generator) -> Augment:
    """Return the augmentation of that name in the catalog, drawing only from `stream`."""
    if name == "none":
        return lambda x: x
    if name == "crop-flip":
        return lambda x: crop_flip(x, stream)
    return lambda x: cutout(crop_flip(x, stream), stream)


def crop_flip(x: Tensor, stream: torch.Generator) -> Tensor:  # (B, C, H, W)
    """Shift each image by −p to p pixels along each axis, p an eighth of its side, and mirror half of them.

    For 32×32 this is the paper's: a crop of 32 out of the image padded by 4.
    """
    batch, channels, height, width = x.shape
    pad_y, pad_x = round(height / 8), round(width / 8)
    top = _below(2 * pad_y + 1, batch, x, stream)
    left = _below(2 * pad_x + 1, batch, x, stream)
    mirrored = _below(2, batch, x, stream) == 1
    rows = top + torch.arange(height, device=x.device)  # (B, H)
    columns = left + torch.arange(width, device=x.device)  # (B, W)
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(x, (pad_x, pad_x, pad_y, pad_y)).flatten(2)
    source = rows[:, :, None] * (width + 2 * pad_x) + columns[:, None, :]  # (B, H, W)
    return padded.gather(2, source.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(x.shape)


def cutout(x: Tensor, stream: torch.Generator) -> Tensor:  # (B, C, H, W)
    """Blank a square of half the side around a random pixel of each image; the border clips it."""
    batch, _, height, width = x.shape
    rows = _near(_below(height, batch, x, stream), height)  # (B, H)
    columns = _near(_below(width, batch, x, stream), width)  # (B, W)
    blank = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(blank, torch.zeros((), dtype=x.dtype, device=x.device), x)


def _below(most: int, batch: int, like: Tensor, stream: torch.Generator) -> Tensor:  # (B, 1)
    """Draw a whole number from 0 to most − 1 for each image."""
    return torch.randint(most, (batch, 1), generator=stream, device=like.device)


def _near(centre: Tensor, size: int) -> Tensor:  # (B, 1) → (B, size)
    """Mark the interval of half the size around each centre."""
    distance = torch.arange(size, device=centre.device) - centre
    half = size // 2 // 2
    return (distance >= -half) & (distance < half)

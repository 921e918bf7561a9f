"""Training, validation and test splits: held on a device, mapped by processes from one file, or streamed."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lrwd_sweep.nets.network import joined, moved
from lrwd_sweep.nets.randomness import seed_globals, seeded

EVAL_BATCH = 256  # items evaluated at a time, in every pack, so that no rounding depends on the pack
_CHUNK = 10_000  # images counted at a time
_PREFIX = "lrwd-sweep-"  # of temporary folders
NAMES = ("train", "validation", "test")

Arrays = Mapping[str, npt.NDArray[Any]]  # by name


@dataclass(frozen=True, slots=True)
class Pixels:
    """The map from bytes to numbers: (byte − mean)/deviation, channel by channel."""

    mean: Tensor  # (C, 1, 1)
    deviation: Tensor  # (C, 1, 1)

    @classmethod
    def of(cls, x: Tensor) -> Self:  # (n, C, H, W) uint8
        """Compute the statistics of images exactly."""
        return cls.from_counts(torch.stack([*map(counts_of, torch.split(x, _CHUNK))]).sum(0))

    @classmethod
    def from_counts(cls, counts: Tensor) -> Self:  # (C, 256)
        """Compute the statistics from counts of the bytes of every channel."""
        share = counts.double() / counts[0].sum()
        values = torch.arange(256, dtype=torch.float64)
        mean = share @ values
        deviation = (share @ values.square() - mean.square()).clamp_min(0).sqrt()
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant channel becomes 0
        return cls(mean.reshape(-1, 1, 1), deviation.reshape(-1, 1, 1))

    @classmethod
    def as_given(cls, channels: int) -> Self:
        """Return the map that keeps the numbers 0 to 255."""
        return cls(torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1))

    def numbers(self, x: Tensor) -> Tensor:
        """Normalise bytes (B, C, H, W), in the statistics' type."""
        return x.to(self.mean.dtype).sub_(self.mean).div_(self.deviation)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move to a device; bytes become numbers of type `dtype`."""
        return type(self)(self.mean.to(device, dtype), self.deviation.to(device, dtype))


def counts_of(x: Tensor) -> Tensor:  # (n, C, H, W) uint8 → (C, 256)
    """Count the bytes of every channel."""
    return torch.stack([torch.bincount(one.flatten(), minlength=256) for one in x.unbind(1)])


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and targets of one split.

    Images stay bytes, a quarter of their size as float32, and become numbers a batch at a time.
    """

    x: Tensor  # (n, *shape), as they are, or uint8 with `pixels`
    y: Tensor  # (n,) int64 classes; (n, *positions) int64 classes; (n, *shape) floating-point numbers
    pixels: Pixels | None = None
    more: tuple[Tensor, ...] = ()  # further inputs
    real: torch.dtype | None = None  # of floating-point numbers, once moved

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def device(self) -> torch.device:
        """Return the device of the tensors."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of floating-point inputs of a batch, which parameters get too."""
        if self.pixels is not None:
            return self.pixels.mean.dtype
        return self.x.dtype if self.x.is_floating_point() else self.real or torch.float32

    def batch(self, index: Tensor) -> tuple[Any, Tensor]:  # (B,) → (B, *shape), (B, …)
        """Return the inputs (a tensor, or a tuple of several) and targets at `index`."""
        more = tuple(one.index_select(0, index) for one in self.more)
        return joined((self._numbers(self.x.index_select(0, index)), *more)), self.y.index_select(0, index)

    def part(self, order: Tensor) -> Tensor:
        """Return the indices of a part of the items, the same ones for every seed, in this order."""
        if len(order) == len(self):
            return order
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[order]

    @property
    def center(self) -> Tensor | None:
        """Return the mean target, of targets that are numbers."""
        return center_of(torch.split(self.y, EVAL_BATCH)) if self.y.is_floating_point() else None

    def batches(self, size: int) -> Iterator[tuple[Any, Tensor]]:
        """Yield all items in order, at most `size` at a time."""
        for x, y, *more in zip(
            *(torch.split(one, size) for one in (self.x, self.y, *self.more)), strict=True
        ):
            yield joined((self._numbers(x), *more)), y

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move to a device, with floating-point numbers of batches as `dtype`; whole numbers stay."""
        x, y, *more = (moved(one, device, dtype) for one in (self.x, self.y, *self.more))
        pixels = None if self.pixels is None else self.pixels.to(device, dtype)
        return replace(self, x=x, y=y, pixels=pixels, more=tuple(more), real=dtype)

    def _numbers(self, x: Tensor) -> Tensor:
        return x if self.pixels is None else self.pixels.numbers(x)


def center_of(parts: Iterable[Tensor]) -> Tensor | None:  # (n, *shape) each
    """Return the mean over all rows; the same bits if the parts are the same. None if there are no rows."""
    total, count, dtype = None, 0, None
    for part in parts:
        found = part.double().sum(dim=0)
        total = found if total is None else total + found
        count, dtype = count + len(part), part.dtype
    return None if total is None or not count else (total / count).to(dtype)


def item_seed(seed: int, epoch: int, item: int) -> int:
    """Return the seed under which an item is read: in the epochs 1, 2, … of a run; else seed and epoch are 0.

    >>> item_seed(0, 1, 5)
    1513299886
    """
    return int(np.random.SeedSequence((seed, epoch, item)).generate_state(1)[0])


def _unopened(item: int) -> tuple[Tensor, ...]:
    raise AssertionError("the data set of this split has not been opened")


@dataclass(frozen=True, slots=True)
class StreamedSplit(Split):
    """A split whose items are read from the user's data set, a batch at a time; x and y are rows like its.

    Before an item is read, torch, numpy and random are seeded by `item_seed`: random transforms are the same
    in every lane, pack and process, and after an interruption.
    """

    read: Callable[[int], tuple[Tensor, ...]] = _unopened  # an item's inputs, and its target
    count: int = 0
    mean: Tensor | None = None  # of targets that are numbers
    counts: Tensor | None = None  # (C, 256) of the bytes of images
    probe: Tensor | None = None  # a digest of some items, in bytes
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return self.count

    @property
    def center(self) -> Tensor | None:
        """Return the mean target, of targets that are numbers."""
        return self.mean

    def in_epoch(self, seed: int, epoch: int) -> Self:
        """Return the split as it is read in an epoch of training."""
        return replace(self, seed=seed, epoch=epoch)

    def columns(self, index: Sequence[int]) -> list[Tensor]:
        """Read items as they are: every input, and then the targets."""
        items = []
        with seeded(0):
            for k in index:
                seed_globals(item_seed(self.seed, self.epoch, k))
                items.append(self.read(k))
        return [torch.stack(same) for same in zip(*items, strict=True)]

    def batch(self, index: Tensor) -> tuple[Any, Tensor]:  # (B,) → (B, *shape), (B, …)
        """Return the inputs (a tensor, or a tuple of several) and targets at `index`."""
        columns = (moved(one, self.device, self.dtype) for one in self.columns(index.tolist()))
        x, *more, y = columns
        return joined((self._numbers(x), *more)), y if y.is_floating_point() else y.long()

    def batches(self, size: int) -> Iterator[tuple[Any, Tensor]]:
        """Yield all items in order, at most `size` at a time."""
        return map(self.batch, torch.split(torch.arange(self.count), size))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Give batches on a device, with floating-point numbers as `dtype`."""
        mean = None if self.mean is None else self.mean.to(device, dtype)
        return replace(Split.to(self, device, dtype), mean=mean)


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits to train on, to choose by, and to report."""

    train: Split
    validation: Split
    test: Split  # possibly empty

    @property
    def parts(self) -> dict[str, Split]:
        """The splits by name."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def of_bytes(self) -> bool:
        """True if the inputs are images of bytes."""
        return self.train.pixels is not None

    def standardized(self) -> Self:
        """Standardise images of bytes by the training split's mean and deviation of every channel."""
        counts = self.train.counts if isinstance(self.train, StreamedSplit) else None
        pixels = Pixels.of(self.train.x) if counts is None else Pixels.from_counts(counts)
        return type(self)(*(replace(split, pixels=pixels) for split in self.parts.values()))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move every split to a device."""
        return type(self)(*(split.to(device, dtype) for split in self.parts.values()))


def make_folder() -> Path:
    """Create a temporary folder; remove those that killed programs left. Raises OSError."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _is_alive(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def _is_alive(pid: str) -> bool:
    """Check whether a process of any user has this number; if that is unknown, assume so."""
    if os.name != "posix":
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True


def _tensors(splits: Splits) -> dict[str, Tensor]:
    """Return all tensors of the splits by name, on the CPU."""
    found: dict[str, Tensor] = {}
    for name, split in splits.parts.items():
        found |= {f"{name} x": split.x, f"{name} y": split.y}
        found |= {f"{name} {k}": one for k, one in enumerate(split.more)}
        if isinstance(split, StreamedSplit):
            found[f"{name} count"] = torch.tensor(split.count)
            others = {"center": split.mean, "probe": split.probe}
            found |= {f"{name} {key}": value for key, value in others.items() if value is not None}
        if split.pixels is not None:
            found |= {f"{name} mean": split.pixels.mean, f"{name} deviation": split.pixels.deviation}
    return {key: value.cpu().contiguous() for key, value in found.items()}


def _joined(found: Mapping[str, Tensor]) -> Splits:
    """Return the splits of tensors by name; those that are streamed have to be opened."""

    def split(name: str) -> Split:
        mean, deviation = found.get(f"{name} mean"), found.get(f"{name} deviation")
        pixels = None if mean is None or deviation is None else Pixels(mean, deviation)
        more = tuple(found[f"{name} {k}"] for k in range(len(found)) if f"{name} {k}" in found)
        made = Split(found[f"{name} x"], found[f"{name} y"], pixels, more)
        if (count := found.get(f"{name} count")) is None:
            return made
        center, probe = found.get(f"{name} center"), found[f"{name} probe"]
        return StreamedSplit(made.x, made.y, pixels, more, count=int(count), mean=center, probe=probe)

    return Splits(*map(split, NAMES))


def arrays_of(splits: Splits) -> Arrays:
    """Return all tensors of the splits by name, to send to another machine."""
    return {name: value.numpy() for name, value in _tensors(splits).items()}


def splits_of(arrays: Arrays) -> Splits:
    """Return the splits on the CPU, in the memory of the arrays, which may be read-only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of such memory; training does not write to data
        return _joined({name: torch.from_numpy(value) for name, value in arrays.items()})


def digest_of(arrays: Arrays) -> str:
    """Return a digest of all names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(value.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def save_splits(splits: Splits, file: Path) -> None:
    """Write the splits for `load_splits` on the same machine. Raises OSError."""
    try:
        torch.save(_tensors(splits), file)
    except RuntimeError as error:  # torch's zip writer, on a full disk
        raise OSError(f"{file} cannot be written ({error})") from error


def load_splits(file: Path) -> Splits:
    """Map the splits of a file into memory, on the CPU."""
    return _joined(torch.load(file, mmap=True, weights_only=True))

"""Items of the user's data sets: read one at a time, checked, and stacked without a second copy of all."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Subset
from torch.utils.data.dataloader import default_collate, default_convert

from lrwd_sweep.data.splits import item_seed
from lrwd_sweep.errors import DataError, arg, brief, shown
from lrwd_sweep.nets.randomness import seed_globals
from lrwd_sweep.nets.randomness import seeded as seeded_globals

ARRAYS = (Tensor, np.ndarray)
NUMERIC = "biufc"  # kinds of numpy's types that torch has
_READ_TWICE = 8  # items, to detect items that differ between reads
_BLOCK = 2**26  # bytes taken at a time for items of unknown number; the system gets so many back at once

_TARGETS = ("labels", "label", "target", "targets", "y")  # the key of the target, if items are dicts

Item = tuple[Tensor, ...]  # inputs, then the target


@dataclass(frozen=True, slots=True)
class MapStyle:
    """A split as a map-style data set: its items can be read in any order, and again."""

    name: str
    items: Any
    first: Item = field(init=False)
    names: tuple[str, ...] = field(init=False)  # of the inputs, if items are dicts

    def __post_init__(self) -> None:
        if not len(self.items):
            raise DataError(f"{self.name} is empty; give it items")
        item = self.items[0]
        object.__setattr__(self, "first", item_of(self.name, 0, item))
        object.__setattr__(self, "names", names_of(item))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return map(self.read, range(len(self)))

    @property
    def nbytes(self) -> int:
        """The bytes of all items together."""
        return len(self) * _size(self.first)

    def read(self, k: int) -> Item:
        """Read an item. Raises DataError if it is not like the first."""
        item = item_of(self.name, k, self.items[k])
        _refuse_unlike(self.name, k, item, self.first)
        return item

    def refuse_random(self, *, seeded: bool) -> None:
        """Raise DataError for items that are different every time, if `seeded` even under the same seed."""
        for k in range(min(len(self), _READ_TWICE)):
            if seeded:
                with seeded_globals(0):
                    both = []
                    for _ in range(2):
                        seed_globals(item_seed(0, 0, k))
                        both.append(self.read(k))
            else:
                both = [self.read(k), self.read(k)]
            if not all(map(torch.equal, *both)):
                raise DataError(
                    f"item {k} of {self.name} is different every time, also under the same seed; draw its "
                    "random numbers by torch, numpy.random or random, without generators of its own"
                    if seeded
                    else f"item {k} of {self.name} is different every time; add {arg('stream', True)} to "
                    "read it anew in every epoch, or leave random transforms out"
                )


@dataclass(slots=True)
class Listing:
    """A split whose items can only be read in its own order."""

    name: str
    items: Any
    length: int | None = None  # if it is known
    names: tuple[str, ...] = ()  # of the inputs, if items are dicts; known once they are read

    def __iter__(self) -> Iterator[Item]:
        for k, item in enumerate(self.items):
            self.names = names_of(item)
            yield item_of(self.name, k, item)

    def refuse_random(self, items: Sequence[Tensor]) -> None:
        """Raise DataError if the first items differ from those that were read; a generator is read once."""
        if iter(self.items) is self.items:
            return
        for k, item in enumerate(itertools.islice(self, _READ_TWICE)):
            if not all(map(torch.equal, item, (column[k] for column in items))):
                raise DataError(
                    f"item {k} of {self.name} is different every time; it is read once, so leave random "
                    f"transforms out and take {arg('augment')}, or make it a data set with __getitem__ and "
                    f"__len__ and add {arg('stream', True)}"
                )


def opened(name: str, part: Any) -> MapStyle | Listing:
    """Return the items of a data set, a loader or an iterable. Raises DataError for anything else."""
    if isinstance(part, DataLoader):
        if part.collate_fn not in (default_collate, default_convert):
            return Listing(name, _of_batches(name, part))
        sampler = part.sampler
        whole = isinstance(sampler, RandomSampler) and not sampler.replacement
        part = part.dataset
        if not (whole or isinstance(part, IterableDataset)):
            part = Subset(part, list(sampler))
    if isinstance(part, str | Mapping | Tensor | MapStyle):
        raise DataError(f"{name} is {kind(part)}; give tensors (x, y), a data set or a data loader")
    length = len(part) if hasattr(part, "__len__") else None
    if hasattr(part, "__getitem__") and length is not None and not isinstance(part, IterableDataset):
        return MapStyle(name, part)
    if not hasattr(part, "__iter__"):
        raise DataError(f"{name} is {kind(part)}; give tensors (x, y), a data set or a data loader")
    return Listing(name, part, length)


def _of_batches(name: str, loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the items of a loader that makes its batches by a function of the user."""
    for k, batch in enumerate(loader):
        if isinstance(batch, Mapping):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))
            continue
        for *x, y in zip(*item_of(name, k, batch), strict=True):
            yield tuple(x), y


def stacked(part: MapStyle | Listing, room: float = math.inf) -> list[Tensor]:
    """Read all items to memory: every input, and then the targets, each (n, …).

    Raises DataError if they take more than `room` bytes. At any time they are in memory once.
    """
    count = len(part) if isinstance(part, MapStyle) else None
    blocks: list[list[Tensor]] = []
    first: Item | None = None
    rows = filled = done = 0
    for k, item in enumerate(part):
        if first is None:
            first = item
            rows = count or max(1, _BLOCK // max(1, _size(item)))
        _refuse_unlike(part.name, k, item, first)
        known = getattr(part, "length", None) or k + 1
        if max(known, k + 1) * _size(first) > room:
            raise DataError(
                f"{part.name} does not fit: {max(known, k + 1)} items are more than {room / 1e9:.1f} GB, "
                "half of the free memory; give fewer, or a data set with __getitem__ and __len__, which is "
                "read batch by batch"
            )
        if not blocks or filled == rows:
            blocks.append([torch.empty(rows, *one.shape, dtype=one.dtype) for one in item])
            filled = 0
        for column, one in zip(blocks[-1], item, strict=True):
            column[filled] = one
        filled, done = filled + 1, done + 1
    if first is None:
        raise DataError(f"{part.name} is empty; give it items")
    if len(blocks) == 1 and filled == rows:
        return blocks[0]
    found = [torch.empty(done, *one.shape, dtype=one.dtype) for one in first]
    for begin in range(0, done, rows):
        for whole, column in zip(found, blocks.pop(0), strict=True):
            whole[begin : begin + rows] = column[: done - begin]
    return found


def _size(item: Item) -> int:
    return sum(one.nbytes for one in item)


def _refuse_unlike(name: str, k: int, item: Item, first: Item) -> None:
    """Raise DataError for an item whose shapes or types are not those of the first."""
    for word, described in (("shape", lambda one: tuple(one.shape)), ("type", type_of)):
        mine, other = ([described(one) for one in two] for two in (item, first))
        if mine != other:
            one, two = next(((a, b) for a, b in zip(mine, other, strict=False) if a != b), (mine, other))
            raise DataError(f"item {k} of {name} has {word} {one}, item 0 has {two}; make them equal")


def type_of(x: Tensor) -> str:
    """Return torch's name of a tensor's type."""
    return str(x.dtype).removeprefix("torch.")


def arrays(x: Any) -> tuple[Any, ...]:
    """Return the inputs as a tuple of arrays; empty if they are something else."""
    found = tuple(x) if isinstance(x, tuple | list) else (x,)
    return found if all(isinstance(one, ARRAYS) for one in found) else ()


def names_of(item: Any) -> tuple[str, ...]:
    """Return the names of the inputs of a dict; texts in it are left out, and () for other items."""
    if not isinstance(item, Mapping):
        return ()
    return tuple(key for key, value in item.items() if key not in _TARGETS and not isinstance(value, str))


def item_of(name: str, k: int, item: Any) -> Item:
    """Return an item's inputs and then its target."""
    if isinstance(item, Mapping):
        target = next((key for key in _TARGETS if key in item), None)
        if target is None:
            keys = brief(", ".join(map(str, item)))
            raise DataError(f"item {k} of {name} has the keys {keys}; name the target labels")
        values = (item[key] for key in names_of(item))
        inputs = tuple(np.asarray(value) if isinstance(value, list) else value for value in values)
        y = item[target]
        item = inputs, np.asarray(y) if isinstance(y, list) else y
    if isinstance(item, tuple) and len(item) > 2 and arrays(item[:-1]):
        item = (item[:-1], item[-1])
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {k} of {name} is {kind(item)}; make it a pair (x, y)")
    x, y = item
    found = arrays(x)
    if not found:
        raise DataError(
            f"item {k} of {name} holds {what(x)} as x; make it a tensor, as by ToTensor(), or a tuple of "
            "tensors"
        )
    return *(numbers(name, one) for one in found), _label(name, k, y)


def _label(name: str, k: int, y: Any) -> Tensor:
    """Return an item's target: a number, or a tensor of them. Raises DataError."""
    if isinstance(y, np.generic):
        y = y.item()
    if isinstance(y, np.ndarray) and y.dtype.kind in NUMERIC:
        return tensor(y)
    if isinstance(y, Tensor):
        return tensor(y)
    if isinstance(y, bool) or not isinstance(y, int | float):
        raise no_target(name, k, y)
    return torch.tensor(y, dtype=torch.float32 if isinstance(y, float) else torch.int64)


def no_target(name: str, k: int, label: object) -> DataError:
    """Make the error for a label that is no number."""
    return DataError(
        f"item {k} of {name} has the label {shown(label)}; make it a class, a whole number from 0, or a "
        "floating-point number or tensor"
    )


def numbers(name: str, x: Tensor | np.ndarray) -> Tensor:
    """Return an input as a tensor. Raises DataError if it holds no numbers."""
    if isinstance(x, np.ndarray) and x.dtype.kind not in NUMERIC:
        raise DataError(f"x of {name} is an array of type {x.dtype}; give floating-point numbers")
    return tensor(x)


def tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return numbers as a tensor on the CPU, of the same memory if that is possible."""
    if isinstance(values, Tensor):
        return values.detach().cpu().resolve_neg()
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if min(native.strides, default=0) < 0:  # also where numpy takes a single row for contiguous
        native = native.copy(order="C")
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def what(value: object) -> str:
    """Describe a value of the wrong type."""
    found = kind(value)
    return found if found.startswith("a ") else f"a value {found}"


def kind(value: object) -> str:
    """Describe the type of a value, for behind "is"."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"

"""Splits that the user's function returns, as tensors: read in any form and checked against each other."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Subset, TensorDataset
from torch.utils.data.dataloader import default_collate, default_convert

from lrwd_sweep.data.splits import Pixels, Split, Splits
from lrwd_sweep.errors import DataError, arg, brief, shown
from lrwd_sweep.spec.catalog import CLASS, FLOAT, IGNORED, MULTI_HOT, POSITION

NAMES = ("train", "validation", "test")
_INSTEAD = {"train": "there is nothing to learn", "validation": "hold some out", "test": "leave test out"}
_NUMERIC = "biufc"  # kinds of numpy's types that torch has
_READ_TWICE = 8  # items, to detect items that differ between reads

Pair = tuple[tuple[Tensor, ...], Tensor]  # inputs and targets
_ARRAYS = (Tensor, np.ndarray)


def splits_of(found: Any) -> Splits:
    """Return the splits of what the user's function returned. Raises DataError."""
    return _splits({split: _pair(split, part) for split, part in _parts(found).items()})


def kind_of(labels: Sequence[Tensor]) -> str:
    """Return the kind of target that the splits' labels are."""
    if not labels[0].is_floating_point():
        return CLASS if labels[0].dim() == 1 else POSITION
    return MULTI_HOT if all(bool(((y == 0) | (y == 1)).all()) for y in labels) else FLOAT


def _parts(found: Any) -> dict[str, Any]:
    """Return the splits by name. Raises DataError."""
    if isinstance(found, Mapping):
        parts = dict(found)
        if not {"train", "validation"} <= parts.keys() <= set(NAMES):
            found = brief(", ".join(map(str, parts)))
            raise DataError(f"it returns {found}; name {', '.join(NAMES)} (or no test)")
    elif isinstance(found, tuple | list) and len(found) in (2, 3) and not isinstance(found[0], _ARRAYS):
        parts = dict(zip(NAMES, found, strict=False))
    else:
        raise DataError(
            f"it returns {_what(found)}; return train, validation and optionally test, each a pair of "
            "tensors (x, y) or a data set"
        )
    if parts.get("test") is None:
        parts.pop("test", None)
    return parts


def _pair(name: str, part: Any) -> Pair:
    """Return a split as inputs (n, *shape) and targets (n, …). Raises DataError."""
    if isinstance(part, TensorDataset):
        *inputs, y = part.tensors
        part = (tuple(inputs), y)
    if isinstance(part, tuple) and len(part) != 2 and all(isinstance(v, _ARRAYS) for v in part):
        raise DataError(f"{name} holds {_kind(part)}; make it (x, y), or ((x1, x2), y) with several inputs")
    if isinstance(part, tuple | list) and len(part) == 2 and any(isinstance(v, _ARRAYS) for v in part):
        x, y = part
        found = _arrays(x)
        if not found:
            raise DataError(f"x of {name} is {_kind(x)}; make it a tensor, or a tuple of tensors")
        return _inputs(name, [_numbers(name, one) for one in found]), _targets(name, _labels(name, y))
    if isinstance(part, DataLoader):
        part = _without_batches(name, part)
    items, again = _items(name, part)
    if not items:
        raise DataError(f"{name} is empty; give it items")
    shapes = [[tuple(one.shape) for one in item] for item in items]
    for k, mine in enumerate(shapes):
        if mine != shapes[0]:
            unlike = [pair for pair in zip(mine, shapes[0], strict=False) if pair[0] != pair[1]]
            one, first = unlike[0] if unlike else (mine, shapes[0])
            raise DataError(f"item {k} of {name} has shape {one}, item 0 has {first}; make them equal")
    for k, item in enumerate(items[:_READ_TWICE]):
        if again and not all(map(torch.equal, item, _item(name, k, again[k]))):
            raise DataError(
                f"item {k} of {name} is different every time; it is read once, so leave random transforms "
                f"out and take {arg('augment')}"
            )
    *inputs, y = (torch.stack(same) for same in zip(*items, strict=True))
    return _inputs(name, inputs), _targets(name, y)


Item = tuple[Tensor, ...]  # inputs, then the target


def _items(name: str, part: Any) -> tuple[list[Item], Sequence[Any]]:
    """Return all items of a data set, and what to read them from again; empty if that is not possible."""
    listed = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    if isinstance(part, str | Mapping | Tensor) or not (listed or hasattr(part, "__iter__")):
        raise DataError(f"{name} is {_kind(part)}; give tensors (x, y), a data set or a data loader")
    if listed:
        return [_item(name, k, part[k]) for k in range(len(part))], part
    items, size, most = [], 0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for k, item in enumerate(part):
        items.append(_item(name, k, item))
        size += sum(one.nbytes for one in items[-1])
        if size > most:
            raise DataError(f"{name} does not end before {k} items, half of the memory; give fewer")
    return items, [] if iter(part) is part else list(itertools.islice(part, _READ_TWICE))


def _without_batches(name: str, loader: DataLoader[Any]) -> Any:
    """Return the items of a data loader: those of its sampler in the data set's order, if it may be known."""
    if loader.collate_fn not in (default_collate, default_convert):
        batches = [_item(name, k, batch) for k, batch in enumerate(loader)]
        return [(one[:-1], one[-1]) for batch in batches for one in zip(*batch, strict=True)]
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset
    sampler = loader.sampler
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement
    return loader.dataset if whole else Subset(loader.dataset, list(sampler))


def _arrays(x: Any) -> tuple[Any, ...]:
    """Return the inputs as a tuple of arrays; empty if they are something else."""
    found = tuple(x) if isinstance(x, tuple | list) else (x,)
    return found if all(isinstance(one, _ARRAYS) for one in found) else ()


def _item(name: str, k: int, item: Any) -> Item:
    """Return an item's inputs and then its target."""
    if isinstance(item, tuple) and len(item) > 2 and _arrays(item[:-1]):
        item = (item[:-1], item[-1])
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {k} of {name} is {_kind(item)}; make it a pair (x, y)")
    x, y = item
    found = _arrays(x)
    if not found:
        raise DataError(
            f"item {k} of {name} holds {_what(x)} as x; make it a tensor, as by ToTensor(), or a tuple of "
            "tensors"
        )
    return *(_numbers(name, one) for one in found), _label(name, k, y)


def _label(name: str, k: int, y: Any) -> Tensor:
    """Return an item's target: a number, or a tensor of them. Raises DataError."""
    if isinstance(y, np.generic):
        y = y.item()
    if isinstance(y, np.ndarray) and y.dtype.kind in _NUMERIC:
        return _tensor(y)
    if isinstance(y, Tensor):
        return _tensor(y)
    if isinstance(y, bool) or not isinstance(y, int | float):
        raise _no_target(name, k, y)
    return torch.tensor(y, dtype=torch.float32 if isinstance(y, float) else torch.int64)


def _no_target(name: str, k: int, label: object) -> DataError:
    return DataError(
        f"item {k} of {name} has the label {shown(label)}; make it a class, a whole number from 0, or a "
        "floating-point number or tensor"
    )


def _numbers(name: str, x: Tensor | np.ndarray) -> Tensor:
    if isinstance(x, np.ndarray) and x.dtype.kind not in _NUMERIC:
        raise DataError(f"x of {name} is an array of type {x.dtype}; give floating-point numbers")
    return _tensor(x)


def _labels(name: str, y: Any) -> Tensor:
    """Return targets as a tensor. Raises DataError if one is not a number."""
    if isinstance(y, Tensor):
        return _tensor(y)
    if not isinstance(y, np.ndarray | list | tuple):
        raise DataError(f"y of {name} is {_kind(y)}; make it a tensor")
    values = np.asarray(y.tolist() if isinstance(y, np.ndarray) and y.dtype.kind == "O" else y)
    if values.dtype.kind not in _NUMERIC:
        labels = list(y)
        k = next((k for k, one in enumerate(labels) if not isinstance(one, int | np.integer)), 0)
        raise _no_target(name, k, labels[k].item() if isinstance(labels[k], np.generic) else labels[k])
    return _tensor(values)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu().resolve_neg()
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if min(native.strides, default=0) < 0:  # also where numpy takes a single row for contiguous
        native = native.copy(order="C")
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def _inputs(name: str, every: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the inputs. Raises DataError if one is empty, not finite or complex."""
    for x in every:
        table = len(every) == 1 and x.is_floating_point()
        if x.dim() < 1 + table or not x.numel():
            none = f"; {name} is empty: {_INSTEAD[name]}" if x.dim() and not len(x) else ""
            raise DataError(f"x of {name} has shape {tuple(x.shape)}; give it one row per item{none}")
        if x.is_complex():
            raise DataError(f"x of {name} is {type_of(x)}; give real numbers, as by torch.view_as_real")
        _refuse_not_finite(name, x)
    return tuple(every)


def _refuse_not_finite(name: str, values: Tensor) -> None:
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        rows = torch.isfinite(values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)).all(dim=1)
        raise DataError(f"item {int(rows.to(torch.uint8).argmin())} of {name} is not finite; leave it out")


def _targets(name: str, y: Tensor) -> Tensor:
    """Return classes as int64 and numbers as they are. Raises DataError for anything else."""
    if y.dim() == 0 or y.is_complex() or y.dtype == torch.bool or (y.dim() > 1 and y.shape[1:].numel() == 0):
        raise DataError(
            f"y of {name} is {type_of(y)} of shape {tuple(y.shape)}; give each item a class (y.long()), a "
            "class for every position, or floating-point numbers (y.float())"
        )
    if y.is_floating_point():
        _refuse_not_finite(name, y)
        return y
    if tuple(y.shape[1:]) == (1,):
        raise DataError(f"y of {name} has shape {tuple(y.shape)}; give one class per item, y.squeeze(1)")
    return y.long()


def _splits(pairs: Mapping[str, Pair]) -> Splits:
    """Check the splits against each other. Raises DataError."""
    inputs, y = pairs["train"]
    for name, (mine, labels) in pairs.items():
        if len(mine) != len(inputs):
            raise DataError(
                f"{name} has {len(mine)} inputs per item, train has {len(inputs)}; make them equal"
            )
        for x, first in zip(mine, inputs, strict=True):
            if len(x) != len(labels):
                raise DataError(f"{name} has {len(x)} inputs and {len(labels)} labels; give one for each")
            _refuse_unlike(name, "x", x, first)
        _refuse_unlike(name, "y", labels, y)
    kind = kind_of([labels for _, labels in pairs.values()])
    if kind == CLASS:
        _refuse_gaps({name: labels for name, (_, labels) in pairs.items()})
    elif kind == POSITION:
        _refuse_positions({name: labels for name, (_, labels) in pairs.items()})
    elif bool((y == y[:1]).all()):
        raise DataError("y of train is the same for every item; there is nothing to learn")
    x = inputs[0]
    images = len(inputs) == 1 and x.dtype == torch.uint8 and x.dim() == 4
    pixels = Pixels.as_given(x.shape[1]) if images else None
    made = {name: Split(mine[0], labels, pixels, mine[1:]) for name, (mine, labels) in pairs.items()}
    empty = Split(x[:0], y[:0], pixels, tuple(one[:0] for one in inputs[1:]))
    return Splits(made["train"], made["validation"], made.get("test", empty))


def _refuse_unlike(name: str, what: str, values: Tensor, first: Tensor) -> None:
    """Raise DataError if a split's values have another type or shape than those of train."""
    if values.shape[1:] != first.shape[1:] or values.dtype != first.dtype:
        raise DataError(
            f"{what} of {name} is {type_of(values)} of {tuple(values.shape[1:])}, that of train "
            f"{type_of(first)} of {tuple(first.shape[1:])}; make them equal"
        )


def _refuse_gaps(labels: Mapping[str, Tensor]) -> None:
    """Raise DataError unless train has all classes from 0, two at least, and the others no more."""
    present = torch.unique(labels["train"]).tolist()
    if len(present) < 2:
        raise DataError("train has fewer than two classes; add items of another")
    for expected, label in enumerate(present):
        if label != expected:
            raise DataError(
                f"train has the label {label} and none that is {expected}; count classes from 0 without gaps"
            )
    for name, y in labels.items():
        for label in (int(y.min()), int(y.max())):
            if not 0 <= label <= present[-1]:
                raise DataError(f"{name} has the label {label}, train has 0 to {present[-1]}; leave it out")


def _refuse_positions(labels: Mapping[str, Tensor]) -> None:
    """Raise DataError unless every split has a class at some position, train two, and none is negative."""
    for name, y in labels.items():
        present = torch.unique(y).tolist()
        counting = [label for label in present if label != IGNORED]
        if counting and counting[0] < 0:
            raise DataError(
                f"{name} has the label {counting[0]}; count classes from 0, and mark positions that do not "
                f"count by {IGNORED}"
            )
        if len(counting) < 1 + (name == "train"):
            raise DataError(
                f"y of {name} has fewer than {1 + (name == 'train')} classes that count; add some"
            )


def type_of(x: Tensor) -> str:
    """Return torch's name of a tensor's type."""
    return str(x.dtype).removeprefix("torch.")


def _what(value: object) -> str:
    kind = _kind(value)
    return kind if kind.startswith("a ") else f"a value {kind}"


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"

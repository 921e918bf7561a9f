"""User data: the results of the user's function, checked once and held as tensors."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lrwd_sweep.data.splits import EVAL_BATCH, Pixels, Split, Splits
from lrwd_sweep.errors import DataError, UsageError, arg, brief, shown
from lrwd_sweep.nets import is_by_item, network
from lrwd_sweep.nets.loss import find_loss, is_mean_over_items, refuse_state
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task

NAMES = ("train", "validation", "test")
SEED = 0  # of the generators while the function runs: a split drawn at random is the same every time
_INSTEAD = {"train": "there is nothing to learn", "validation": "hold some out", "test": "leave test out"}
_ONE_TENSOR = "one tensor of inputs per item is supported"
_CLASSES_ONLY = "only classification is supported"
_NUMERIC = "biufc"  # kinds of numpy's types that torch has
MOST_CHANNELS = 4  # of an image, with transparency
_READ_TWICE = 8  # items, to detect items that differ between reads
_CHUNK = 2**25  # bytes hashed at a time, in parallel
_DIGITS = 12  # of a digest: two data sets share one with probability 10⁻¹⁴

Pair = tuple[Tensor, Tensor]
_ARRAYS = (Tensor, np.ndarray)


def completed(task: Task, *, anew: bool = False) -> Task:
    """Complete a task from its user code: digests, sizes and kind of the data, kind of the loss.

    With `anew`, data that this process has read are read again, because their files may have changed.
    Raises UsageError, UnknownName or DataError.
    """
    found = [user_code.find(option, name) for option, name in task.user_code.items()]
    for one in found:
        one.refuse_stale()
    code = {one.name: one.digest for one in found}
    sizes, standardize = task.sizes, task.standardize
    if task.data in code:
        if anew:
            _read.cache_clear()
        splits, sizes = _read(task.data, code[task.data], os.getcwd())
        if standardize and not splits.of_bytes:
            raise UsageError(
                f"{arg('standardize')} is for images as uint8 (n, channels, height, width); x of {task.data} "
                f"is {_dtype(splits.train.x)}: leave it out, and standardise in the function"
            )
        if standardize and _is_channels_last(splits.train.x.shape):
            raise UsageError(
                f"{arg('standardize')} takes images as (n, channels, height, width); x of {task.data} has "
                f"shape {tuple(splits.train.x.shape)}, channels last: give x.permute(0, 3, 1, 2), or leave "
                "it out"
            )
        standardize = bool(standardize) if splits.of_bytes else None
    if task.loss in code and sizes is not None:
        with redirect_stdout(sys.stderr):
            refuse_state(find_loss(task.loss), task.loss, sizes.classes)
    known = replace(task, code=tuple(code.items()), sizes=sizes, standardize=standardize, whole_loss=False)
    return replace(known, whole_loss=sizes is not None and _is_scored_whole(known, sizes))


def _is_channels_last(shape: Sequence[int]) -> bool:
    """Tell whether images of that shape are (n, H, W, C): read as (n, C, H, W), each row were a channel."""
    return shape[1] > MOST_CHANNELS >= shape[3]


def _is_scored_whole(task: Task, sizes: DataSet) -> bool:
    """Tell whether the loss of a split differs from the mean over its batches."""
    if max(sizes.validation, sizes.test) <= EVAL_BATCH:
        return False
    with redirect_stdout(sys.stderr):
        if not is_mean_over_items(find_loss(task.loss), sizes.classes):
            return True
        return user_code.is_user_code(task.net) and not is_by_item(network(task))


def load(name: str, sizes: DataSet, *, standardize: bool = False) -> Splits:
    """Return the splits that the function `name` returns, images of bytes standardised if `standardize`.

    Raises UsageError, UnknownName or DataError.
    """
    splits, found = _read(name, user_code.find("data", name).digest, os.getcwd())
    if sizes != found or sizes.digest not in ("", found.digest):
        raise DataError(
            f"{arg('data', name)} gives other data than a moment ago; run the same command again, and seed "
            "its random numbers"
        )
    return splits.standardized() if standardize and splits.of_bytes else splits


@lru_cache(maxsize=1)
def _read(name: str, code: str, folder: str) -> tuple[Splits, DataSet]:
    """Read the data and their sizes, once for code of that digest in a working `folder`."""
    splits = _loaded(name)
    counts = (len(splits.train), len(splits.validation), len(splits.test))
    classes, shape = int(splits.train.y.max()) + 1, tuple(splits.train.x.shape[1:])
    return splits, DataSet(*counts, classes, shape, digest(splits))


def digest(splits: Splits) -> str:
    """Hash the inputs and labels, their shapes and types: equal if the same numbers are read elsewhere."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for split in (splits.train, splits.validation, splits.test):
            for values in (split.x, split.y):
                whole.update(f"{values.dtype} {tuple(values.shape)};".encode())
                row = max(1, values[:1].numel() * values.element_size())
                for part in threads.map(_hash, torch.split(values, max(1, _CHUNK // row))):
                    whole.update(part)
    return whole.hexdigest()[:_DIGITS]


def _hash(values: Tensor) -> bytes:
    # A clone, as `contiguous` leaves the strides of empty tensors and of single rows as they are.
    flat = values.clone(memory_format=torch.contiguous_format).view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()


def _loaded(name: str) -> Splits:
    code = user_code.find("data", name)
    arguments = code.arguments({}, {})
    try:
        with seeded(SEED), redirect_stdout(sys.stderr):
            parts = _parts(code(**arguments))
            return _splits({split: _pair(split, part) for split, part in parts.items()})
    except DataError as error:
        raise DataError(f"{arg('data', name)}: {error.text}") from error
    except UsageError as error:  # raised by the function itself
        raise DataError(error.text) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"{arg('data', name)} cannot be read: {code.told(error)}") from error


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
    """Return a split as x (n, *shape) and y (n,). Raises DataError, and all errors of the data set."""
    if isinstance(part, TensorDataset):
        part = part.tensors
    if isinstance(part, tuple) and len(part) != 2 and all(isinstance(v, _ARRAYS) for v in part):
        raise DataError(f"{name} holds {_kind(part)}; make it the two tensors x and y ({_ONE_TENSOR})")
    if isinstance(part, tuple | list) and len(part) == 2 and any(isinstance(v, _ARRAYS) for v in part):
        x, y = part
        if not isinstance(x, _ARRAYS):
            raise DataError(f"x of {name} is {_kind(x)}; make it one tensor ({_ONE_TENSOR})")
        return _inputs(name, _numbers(name, x)), _labels(name, _classes(name, y))
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__") or isinstance(part, str | Mapping):
        raise DataError(f"{name} is {_kind(part)}; give tensors (x, y), or a data set with a length")
    items = [_item(name, k, part[k]) for k in range(len(part))]
    if not items:
        raise DataError(f"{name} is empty; give it items")
    for k, (x, _) in enumerate(items):
        if x.shape != items[0][0].shape:
            raise DataError(
                f"item {k} of {name} has shape {tuple(x.shape)}, item 0 has {tuple(items[0][0].shape)}; make "
                "them equal"
            )
    for k, (x, y) in enumerate(items[:_READ_TWICE]):
        again = _item(name, k, part[k])
        if not torch.equal(x, again[0]) or y != again[1]:
            raise DataError(
                f"item {k} of {name} is different every time; it is read once, so leave random transforms "
                f"out and take {arg('augment')}"
            )
    return _inputs(name, torch.stack([x for x, _ in items])), torch.tensor([y for _, y in items])


def _item(name: str, k: int, item: Any) -> tuple[Tensor, int]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {k} of {name} is {_kind(item)}; make it a pair (x, class)")
    x, y = item
    if not isinstance(x, _ARRAYS):
        several = f" ({_ONE_TENSOR})" if isinstance(x, tuple | list | Mapping) else ""
        raise DataError(
            f"item {k} of {name} holds {_what(x)} as x; make it a tensor, as by ToTensor(){several}"
        )
    try:
        label = y.item() if isinstance(y, Tensor | np.ndarray | np.generic) else y
    except (RuntimeError, ValueError):  # several numbers
        label = None
    if isinstance(label, bool) or not isinstance(label, int):
        raise _no_class(name, k, y)
    return _numbers(name, x), label


def _no_class(name: str, k: int, label: object) -> DataError:
    return DataError(
        f"item {k} of {name} has the label {shown(label)}; make it a class, a whole number from 0 "
        f"({_CLASSES_ONLY})"
    )


def _numbers(name: str, x: Tensor | np.ndarray) -> Tensor:
    if isinstance(x, np.ndarray) and x.dtype.kind not in _NUMERIC:
        raise DataError(f"x of {name} is an array of type {x.dtype}; give floating-point numbers")
    return _tensor(x)


def _classes(name: str, y: Any) -> Tensor:
    """Return labels as a tensor. Raises DataError if one is not a number."""
    if isinstance(y, Tensor):
        return _tensor(y)
    if not isinstance(y, np.ndarray | list | tuple):
        raise DataError(f"y of {name} is {_kind(y)}; make it a tensor")
    values = np.asarray(y.tolist() if isinstance(y, np.ndarray) and y.dtype.kind == "O" else y)
    if values.dtype.kind not in _NUMERIC:
        labels = list(y)
        k = next((k for k, one in enumerate(labels) if not isinstance(one, int | np.integer)), 0)
        raise _no_class(name, k, labels[k].item() if isinstance(labels[k], np.generic) else labels[k])
    return _tensor(values)


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu().resolve_neg()
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if min(native.strides, default=0) < 0:  # also where numpy takes a single row for contiguous
        native = native.copy(order="C")
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def _inputs(name: str, x: Tensor) -> Tensor:
    if x.dim() < 2 or not x.numel():
        none = f"; {name} is empty: {_INSTEAD[name]}" if x.dim() and not len(x) else ""
        raise DataError(f"x of {name} has shape {tuple(x.shape)}; give it one row per item{none}")
    if x.dtype == torch.uint8 and x.dim() == 4:
        return x
    if not x.is_floating_point():
        raise DataError(
            f"x of {name} is {_dtype(x)}; give floating-point numbers (a network of tokens calls x.long()), "
            "or images as uint8 (n, channels, height, width)"
        )
    if not bool(torch.isfinite(x).all()):
        rows = torch.isfinite(x.flatten(1)).all(dim=1)
        raise DataError(f"item {int(rows.to(torch.uint8).argmin())} of {name} is not finite; leave it out")
    return x


def _labels(name: str, y: Tensor) -> Tensor:
    if y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(
            f"y of {name} is {_dtype(y)} of shape {tuple(y.shape)}; give each item one class, a whole number "
            f"from 0 ({_CLASSES_ONLY})"
        )
    return y.long()


def _splits(pairs: Mapping[str, Pair]) -> Splits:
    """Check the splits against each other. Raises DataError."""
    x, y = pairs["train"]
    present = torch.unique(y).tolist()
    if len(present) < 2:
        raise DataError("train has fewer than two classes; add items of another")
    for expected, label in enumerate(present):
        if label != expected:
            raise DataError(
                f"train has the label {label} and none that is {expected}; count classes from 0 without gaps"
            )
    for name, (inputs, labels) in pairs.items():
        if len(inputs) != len(labels):
            raise DataError(f"{name} has {len(inputs)} inputs and {len(labels)} labels; give one for each")
        if inputs.shape[1:] != x.shape[1:] or inputs.dtype != x.dtype:
            raise DataError(
                f"x of {name} is {_dtype(inputs)} of {tuple(inputs.shape[1:])}, that of train {_dtype(x)} of "
                f"{tuple(x.shape[1:])}; make them equal"
            )
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label <= present[-1]:
                raise DataError(f"{name} has the label {label}, train has 0 to {present[-1]}; leave it out")
    pixels = Pixels.as_given(x.shape[1]) if x.dtype == torch.uint8 else None
    made = {name: Split(inputs, labels, pixels) for name, (inputs, labels) in pairs.items()}
    return Splits(made["train"], made["validation"], made.get("test", Split(x[:0], y[:0], pixels)))


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _what(value: object) -> str:
    kind = _kind(value)
    return kind if kind.startswith("a ") else f"a value {kind}"


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"

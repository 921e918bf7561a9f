"""Splits that the user's function returns, as tensors or streamed: checked against each other."""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lrwd_sweep.data.splits import NAMES, Pixels, Split, Splits, StreamedSplit
from lrwd_sweep.data.stream import Hashes, survey
from lrwd_sweep.data.user_items import (
    ARRAYS,
    NUMERIC,
    Listing,
    MapStyle,
    arrays,
    kind,
    no_target,
    numbers,
    opened,
    stacked,
    tensor,
    type_of,
    what,
)
from lrwd_sweep.errors import DataError, arg, brief
from lrwd_sweep.spec.catalog import CLASS, FLOAT, IGNORED, MULTI_HOT, POSITION

_log = logging.getLogger(__name__)

_INSTEAD = {"train": "there is nothing to learn", "validation": "hold some out", "test": "leave test out"}
_CHUNK = 2**24  # numbers checked at a time
_DIGITS = 12  # of a digest: two data sets share one with probability 10⁻¹⁴

Pair = tuple[tuple[Tensor, ...], Tensor]  # inputs and targets


@dataclass(frozen=True, slots=True)
class UserSplits:
    """The splits of user data, and what tells them from others."""

    splits: Splits
    hashes: Mapping[str, Sequence[Hashes]]  # of every input, then of the targets
    names: tuple[str, ...] = ()  # of the inputs, if items are dicts

    @property
    def digest(self) -> str:
        """Digest of inputs and targets, their shapes and types: equal if the same numbers are read."""
        whole = hashlib.sha256()
        for one in (one for name in NAMES for one in self.hashes[name]):
            whole.update(b"".join([one.header, *one.chunks]))
        return whole.hexdigest()[:_DIGITS]

    @property
    def streams(self) -> bool:
        """True if some split is streamed."""
        return any(isinstance(one, StreamedSplit) for one in self.splits.parts.values())


def read(returned: Any, *, stream: bool = False, room: float = math.inf) -> UserSplits:
    """Read the splits of what the user's function returned. Raises DataError.

    Map-style data sets are streamed if `stream`, or if they take more than `room` bytes.
    """
    parts = {name: _opened(name, part) for name, part in parts_of(returned).items()}
    styled = [one for one in parts.values() if isinstance(one, MapStyle)]
    if stream and not styled:
        raise DataError(
            f"{arg('stream', True)} is for data sets with __getitem__ and __len__; leave it out, or return "
            "such a data set"
        )
    for one in styled:
        one.refuse_random(seeded=stream)
    needed = sum(one.nbytes for one in styled)
    if needed > room and not stream:
        stream = True
        _log.info(
            "the data take %.1f GB, more than half of the free memory; they are read batch by batch, anew in "
            "every epoch",
            needed / 1e9,
        )
    made: dict[str, Split] = {}
    hashes: dict[str, Sequence[Hashes]] = {}
    for name, part in parts.items():
        if isinstance(part, MapStyle) and stream:
            made[name], hashes[name] = survey(part, partial(_checked, name))
            continue
        if isinstance(part, MapStyle | Listing):
            columns = stacked(part, room)
            room -= sum(one.nbytes for one in columns)
            if isinstance(part, Listing):
                part.refuse_random(columns)
            inputs, y = _checked(name, columns, 0)
        else:
            inputs, y = part
        made[name] = Split(inputs[0], y, more=inputs[1:])
    _refuse_unlike_splits(made)
    names = {n: part.names for n, part in parts.items() if isinstance(part, MapStyle | Listing)}
    if len({*names.values()}) > 1:
        found = "; ".join(f"{n}: {', '.join(keys) or 'no dicts'}" for n, keys in names.items())
        raise DataError(f"the splits have items with different keys ({found}); make them equal")
    train = made["train"]
    made.setdefault("test", Split(train.x[:0], train.y[:0], more=tuple(one[:0] for one in train.more)))
    if train.x.dtype == torch.uint8 and train.x.dim() == 4 and not train.more:
        pixels = Pixels.as_given(train.x.shape[1])
        made = {name: replace(split, pixels=pixels) for name, split in made.items()}
    hashes |= {n: [*map(Hashes.of, (s.x, *s.more, s.y))] for n, s in made.items() if n not in hashes}
    return UserSplits(Splits(**made), hashes, next(iter(names.values()), ()))


def kind_of(labels: Sequence[Tensor]) -> str:
    """Return the kind of target that the splits' labels are."""
    if not labels[0].is_floating_point():
        return CLASS if labels[0].dim() == 1 else POSITION
    return MULTI_HOT if all(bool(((y == 0) | (y == 1)).all()) for y in labels) else FLOAT


def parts_of(found: Any) -> dict[str, Any]:
    """Return the splits by name. Raises DataError."""
    if isinstance(found, Mapping):
        parts = dict(found)
        if not {"train", "validation"} <= parts.keys() <= set(NAMES):
            found = brief(", ".join(map(str, parts)))
            raise DataError(f"it returns {found}; name {', '.join(NAMES)} (or no test)")
    elif isinstance(found, tuple | list) and len(found) in (2, 3) and not isinstance(found[0], ARRAYS):
        parts = dict(zip(NAMES, found, strict=False))
    else:
        raise DataError(
            f"it returns {what(found)}; return train, validation and optionally test, each a pair of "
            "tensors (x, y) or a data set"
        )
    if parts.get("test") is None:
        parts.pop("test", None)
    return parts


def _opened(name: str, part: Any) -> Pair | MapStyle | Listing:
    """Return a split of tensors as inputs (n, *shape) and targets (n, …), another as what its items are in.

    Raises DataError.
    """
    if isinstance(part, TensorDataset):
        *xs, y = part.tensors
        part = (tuple(xs), y)
    if isinstance(part, tuple) and len(part) != 2 and all(isinstance(v, ARRAYS) for v in part):
        raise DataError(f"{name} holds {kind(part)}; make it (x, y), or ((x1, x2), y) with several inputs")
    if not (isinstance(part, tuple | list) and len(part) == 2 and any(isinstance(v, ARRAYS) for v in part)):
        return opened(name, part)
    x, y = part
    found = arrays(x)
    if not found:
        raise DataError(f"x of {name} is {kind(x)}; make it a tensor, or a tuple of tensors")
    inputs, labels = _inputs(name, [numbers(name, one) for one in found]), _targets(name, _labels(name, y))
    for one in inputs:
        if len(one) != len(labels):
            raise DataError(f"{name} has {len(one)} inputs and {len(labels)} labels; give one for each")
    return inputs, labels


def _checked(name: str, columns: Sequence[Tensor], begin: int) -> Pair:
    """Check columns of items, the first of which is number `begin`. Raises DataError."""
    *inputs, y = columns
    return _inputs(name, inputs, begin), _targets(name, y, begin)


def _labels(name: str, y: Any) -> Tensor:
    """Return targets as a tensor. Raises DataError if one is not a number."""
    if isinstance(y, Tensor):
        return tensor(y)
    if not isinstance(y, np.ndarray | list | tuple):
        raise DataError(f"y of {name} is {kind(y)}; make it a tensor")
    values = np.asarray(y.tolist() if isinstance(y, np.ndarray) and y.dtype.kind == "O" else y)
    if values.dtype.kind not in NUMERIC:
        labels = list(y)
        k = next((k for k, one in enumerate(labels) if not isinstance(one, int | np.integer)), 0)
        raise no_target(name, k, labels[k].item() if isinstance(labels[k], np.generic) else labels[k])
    return tensor(values)


def _inputs(name: str, every: Sequence[Tensor], begin: int = 0) -> tuple[Tensor, ...]:
    """Return the inputs. Raises DataError if one is empty, not finite or complex."""
    for x in every:
        table = len(every) == 1 and x.is_floating_point()
        if x.dim() < 1 + table or not x.numel():
            none = f"; {name} is empty: {_INSTEAD[name]}" if x.dim() and not len(x) else ""
            raise DataError(f"x of {name} has shape {tuple(x.shape)}; give it one row per item{none}")
        if x.is_complex():
            raise DataError(f"x of {name} is {type_of(x)}; give real numbers, as by torch.view_as_real")
        _refuse_not_finite(name, x, begin)
    return tuple(every)


def _refuse_not_finite(name: str, values: Tensor, begin: int) -> None:
    if not values.is_floating_point():
        return
    for part in torch.split(values, max(1, _CHUNK // max(1, values[:1].numel()))):
        finite = torch.isfinite(part)
        if not bool(finite.all()):
            rows = (finite.flatten(1) if finite.dim() > 1 else finite.unsqueeze(1)).all(dim=1)
            k = begin + int(rows.to(torch.uint8).argmin())
            raise DataError(f"item {k} of {name} is not finite; leave it out")
        begin += len(part)


def _targets(name: str, y: Tensor, begin: int = 0) -> Tensor:
    """Return classes as int64 and numbers as they are. Raises DataError for anything else."""
    if y.dim() == 0 or y.is_complex() or y.dtype == torch.bool or (y.dim() > 1 and y.shape[1:].numel() == 0):
        raise DataError(
            f"y of {name} is {type_of(y)} of shape {tuple(y.shape)}; give each item a class (y.long()), a "
            "class for every position, or floating-point numbers (y.float())"
        )
    if y.is_floating_point():
        _refuse_not_finite(name, y, begin)
        return y
    if tuple(y.shape[1:]) == (1,):
        raise DataError(f"y of {name} has shape {tuple(y.shape)}; give one class per item, y.squeeze(1)")
    return y.long()


def _refuse_unlike_splits(splits: Mapping[str, Split]) -> None:
    """Check the splits against each other. Raises DataError."""
    train = splits["train"]
    inputs = (train.x, *train.more)
    for name, split in splits.items():
        mine = (split.x, *split.more)
        if len(mine) != len(inputs):
            raise DataError(
                f"{name} has {len(mine)} inputs per item, train has {len(inputs)}; make them equal"
            )
        for x, first in zip(mine, inputs, strict=True):
            _refuse_unlike(name, "x", x, first)
        _refuse_unlike(name, "y", split.y, train.y)
    labels = {name: split.y for name, split in splits.items()}
    target = kind_of([*labels.values()])
    if target == CLASS:
        _refuse_gaps(labels)
    elif target == POSITION:
        _refuse_positions(labels)
    elif bool((train.y == train.y[:1]).all()):
        raise DataError("y of train is the same for every item; there is nothing to learn")


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

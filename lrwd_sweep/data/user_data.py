"""User data: the results of the user's function, checked once and held as tensors."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from lrwd_sweep.data.splits import EVAL_BATCH, Splits
from lrwd_sweep.data.user_splits import kind_of, splits_of, type_of
from lrwd_sweep.errors import DataError, UsageError, arg
from lrwd_sweep.nets import is_by_item, network, output_of
from lrwd_sweep.nets.loss import find_loss, is_mean_over_items, refuse_state
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CLASS, IGNORED, POSITION, REAL, DataSet, Input
from lrwd_sweep.spec.task import Task

SEED = 0  # of the generators while the function runs: a split drawn at random is the same every time
MOST_CHANNELS = 4  # of an image, with transparency
_CHUNK = 2**25  # bytes hashed at a time, in parallel
_DIGITS = 12  # of a digest: two data sets share one with probability 10⁻¹⁴


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
                f"is {type_of(splits.train.x)}: leave it out, and standardise in the function"
            )
        if standardize and _is_channels_last(splits.train.x.shape):
            raise UsageError(
                f"{arg('standardize')} takes images as (n, channels, height, width); x of {task.data} has "
                f"shape {tuple(splits.train.x.shape)}, channels last: give x.permute(0, 3, 1, 2), or leave "
                "it out"
            )
        standardize = bool(standardize) if splits.of_bytes else None
        if task.net == "gpt":
            _refuse_negative_tokens(task.data, splits)
    known = replace(task, code=tuple(code.items()), sizes=sizes, standardize=standardize, whole_loss=False)
    if task.loss in code and sizes is not None:
        with redirect_stdout(sys.stderr):
            refuse_state(find_loss(task.loss), task.loss, sizes.item, _output(known))
    return replace(known, whole_loss=sizes is not None and _is_scored_whole(known, sizes))


def _refuse_negative_tokens(name: str, splits: Splits) -> None:
    """Raise DataError for tokens that an embedding cannot look up."""
    for split in (splits.train, splits.validation, splits.test):
        if isinstance(split.x, Tensor) and len(split) and (least := int(split.x.min())) < 0:
            raise DataError(f"{arg('data', name)}: x has the token {least}; number tokens from 0")


def _is_channels_last(shape: Sequence[int]) -> bool:
    """Tell whether images of that shape are (n, H, W, C): read as (n, C, H, W), each row were a channel."""
    return shape[1] > MOST_CHANNELS >= shape[3]


def _is_scored_whole(task: Task, sizes: DataSet) -> bool:
    """Tell whether the loss of a split differs from the mean over its batches."""
    if max(sizes.validation, sizes.test) <= EVAL_BATCH:
        return False
    with redirect_stdout(sys.stderr):
        if not is_mean_over_items(find_loss(task.loss), sizes.item, _output(task)):
            return True
        return user_code.is_user_code(task.net) and not is_by_item(network(task))


def _output(task: Task) -> tuple[int, ...] | None:
    """Return the shape of an item's output, if it does not follow from the target. Raises UsageError."""
    return None if task.data_set.target == CLASS else output_of(network(task))


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
    return splits, _sizes(splits)


def _sizes(splits: Splits) -> DataSet:
    """Return the sizes of the splits, and what one item is."""
    every = [splits.train, splits.validation, splits.test]
    labels = [split.y for split in every if len(split)]
    classes, target = 0, kind_of(labels)
    if target in (CLASS, POSITION):
        classes = max(int(y.max()) for y in labels) + 1
    inputs = tuple(_input(same) for same in zip(*((s.x, *s.more) for s in every if len(s)), strict=True))
    if len(inputs) == 1 and (splits.of_bytes or inputs[0].type == REAL):
        inputs = ()
    return DataSet(
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test),
        classes=classes,
        shape=tuple(splits.train.x.shape[1:]),
        digest=digest(splits),
        target=target,
        target_shape=tuple(splits.train.y.shape[1:]),
        masked=target == POSITION and any(bool((y == IGNORED).any()) for y in labels),
        inputs=inputs,
    )


def _input(same: Sequence[Tensor]) -> Input:
    """Describe one input of all splits."""
    first = same[0]
    if first.is_floating_point():
        return Input(tuple(first.shape[1:]))
    return Input(tuple(first.shape[1:]), type_of(first), max(int(x.max()) for x in same))


def digest(splits: Splits) -> str:
    """Hash the inputs and labels, their shapes and types: equal if the same numbers are read elsewhere."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for split in (splits.train, splits.validation, splits.test):
            for values in (split.x, *split.more, split.y):
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
            return splits_of(code(**arguments))
    except DataError as error:
        raise DataError(f"{arg('data', name)}: {error.text}") from error
    except UsageError as error:  # raised by the function itself
        raise DataError(error.text) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"{arg('data', name)} cannot be read: {code.told(error)}") from error

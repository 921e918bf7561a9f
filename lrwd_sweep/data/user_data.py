"""User data: the results of the user's function, checked once, and held as tensors or streamed."""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace

import torch
from torch import Tensor

from lrwd_sweep.data.splits import EVAL_BATCH, Splits, StreamedSplit
from lrwd_sweep.data.stream import probe
from lrwd_sweep.data.user_items import Item, MapStyle, opened, type_of
from lrwd_sweep.data.user_splits import UserSplits, kind_of, parts_of, read
from lrwd_sweep.errors import DataError, UsageError, arg
from lrwd_sweep.nets import network
from lrwd_sweep.nets.loss import find_loss, is_mean_over_items, refuse_state
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CLASS, IGNORED, POSITION, REAL, DataSet, Input
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import UserCode

SEED = 0  # of the generators while the function runs: a split drawn at random is the same every time
MOST_CHANNELS = 4  # of an image, with transparency


def completed(task: Task, *, anew: bool = False, room: float = math.inf) -> Task:
    """Complete a task from its user code: digests, sizes and kind of the data, kind of the loss.

    Data sets are streamed if they would take more than `room` bytes, or if the task says so. With `anew`,
    data that this process has read are read again, because their files may have changed.
    Raises UsageError, UnknownName or DataError.
    """
    code = {}
    for option, name in task.user_code.items():
        one = user_code.find(option, name)
        one.refuse_stale()
        code[name] = one.digest
    sizes, standardize, stream = task.sizes, task.standardize, task.stream
    if task.data in code:
        if anew:
            _known.clear()
        found = _read(task.data, code[task.data], stream, room)
        splits, sizes, stream = found.splits, _sizes(found), found.streams
        x = splits.train.x
        if standardize and not splits.of_bytes:
            raise UsageError(
                f"{arg('standardize')} is for images as uint8 (n, channels, height, width); x of {task.data} "
                f"is {type_of(x)}: leave it out, and standardise in the function"
            )
        if standardize and _is_channels_last(x.shape):
            raise UsageError(
                f"{arg('standardize')} takes images as (n, channels, height, width); x of {task.data} has "
                f"shape {(sizes.train, *x.shape[1:])}, channels last: give x.permute(0, 3, 1, 2), or leave "
                "it out"
            )
        standardize = bool(standardize) if splits.of_bytes else None
        if task.net == "gpt":
            _refuse_negative_tokens(task.data, splits)
    known = replace(
        task,
        code=tuple(code.items()),
        sizes=sizes,
        standardize=standardize,
        stream=stream,
        whole_loss=False,
    )
    if task.loss in code and sizes is not None:
        with redirect_stdout(sys.stderr):
            refuse_state(find_loss(task.loss), task.loss, sizes.item, _output(known))
    return replace(known, whole_loss=sizes is not None and _is_scored_whole(known, sizes))


def _refuse_negative_tokens(name: str, splits: Splits) -> None:
    """Raise DataError for tokens that an embedding cannot look up."""
    for split in splits.parts.values():
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
        return user_code.is_user_code(task.net) and not network(task).by_item


def _output(task: Task) -> tuple[int, ...] | None:
    """Return the shape of an item's output, if it does not follow from the target. Raises UsageError."""
    return None if task.data_set.target == CLASS else network(task).output


def load(name: str, sizes: DataSet, *, standardize: bool = False, stream: bool = False) -> Splits:
    """Return the splits that the function `name` returns, images of bytes standardised if `standardize`.

    Raises UsageError, UnknownName or DataError.
    """
    found = _read(name, user_code.find("data", name).digest, stream)
    if sizes != (other := _sizes(found)) or sizes.digest not in ("", other.digest):
        raise DataError(
            f"{arg('data', name)} gives other data than a moment ago; run the same command again, and seed "
            "its random numbers"
        )
    return found.splits.standardized() if standardize and found.splits.of_bytes else found.splits


def reopened(name: str, splits: Splits, classes: int) -> Splits:
    """Return splits of another process with the data sets of those that are streamed made anew.

    Raises UsageError, UnknownName or DataError.
    """
    every = splits.parts
    streamed = {part: one for part, one in every.items() if isinstance(one, StreamedSplit)}
    if not streamed:
        return splits
    code = user_code.find("data", name)
    with _told(code), seeded(SEED), redirect_stdout(sys.stderr):
        parts = parts_of(code(**code.arguments({}, {})))
        for part, split in streamed.items():
            items = opened(part, parts.get(part))
            assert isinstance(items, MapStyle)
            every[part] = made = replace(split, read=_reader(code, part, items.read, classes))
            if len(items) != len(split) or not torch.equal(probe(made), split.probe):  # type: ignore[arg-type]
                raise DataError(
                    f"{part} is different in another process; make the order of its items fixed, as by "
                    "sorted()"
                )
    return Splits(**every)


def _reader(code: UserCode, part: str, read: Callable[[int], Item], classes: int) -> Callable[[int], Item]:
    """Return the function that reads an item in training. It raises DataError for any exception."""

    def checked(k: int) -> Item:
        with _told(code, f": item {k} of {part}"):
            item = read(k)
        if classes and (most := int(item[-1].max())) >= classes:
            raise DataError(
                f"{arg('data', code.name)}: item {k} of {part} has the label {most}, and had one below "
                f"{classes} when it was read first; leave random labels out"
            )
        return item

    return checked


_known: dict[tuple[str, str, str], tuple[bool, UserSplits]] = {}  # the data that were read last, and as asked


def _read(name: str, code: str, stream: bool, room: float = math.inf) -> UserSplits:
    """Read the data, once for code of that digest in a working folder."""
    key = name, code, os.getcwd()
    asked, found = _known.get(key, (None, None))
    if found is None or stream not in (asked, found.streams):
        _known.clear()  # only one is kept
        found = _loaded(name, stream, room)
        _known[key] = stream, found
    return found


def _sizes(found: UserSplits) -> DataSet:
    """Return the sizes of the splits, and what one item is."""
    splits = found.splits
    every = [split for split in splits.parts.values() if len(split)]
    labels = [split.y for split in every]
    classes, target = 0, kind_of(labels)
    if target in (CLASS, POSITION):
        classes = max(int(y.max()) for y in labels) + 1
    inputs = tuple(_input(same) for same in zip(*((s.x, *s.more) for s in every), strict=True))
    if len(inputs) > 1 and found.names:
        inputs = tuple(replace(one, name=name) for one, name in zip(inputs, found.names, strict=True))
    if len(inputs) == 1 and (splits.of_bytes or inputs[0].type == REAL):
        inputs = ()
    return DataSet(
        train=len(splits.train),
        validation=len(splits.validation),
        test=len(splits.test),
        classes=classes,
        shape=tuple(splits.train.x.shape[1:]),
        digest=found.digest,
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


def _loaded(name: str, stream: bool, room: float) -> UserSplits:
    code = user_code.find("data", name)
    arguments = code.arguments({}, {})
    with _told(code), seeded(SEED), redirect_stdout(sys.stderr):
        found = read(code(**arguments), stream=stream, room=room)
    classes = _sizes(found).classes
    every = found.splits.parts
    for part, split in every.items():
        if isinstance(split, StreamedSplit):
            every[part] = replace(split, read=_reader(code, part, split.read, classes))
    return replace(found, splits=Splits(**every))


@contextmanager
def _told(code: UserCode, what: str = "") -> Iterator[None]:
    """Raise DataError for any exception of the user's function or data set."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{arg('data', code.name)}: {error.text}") from error
    except UsageError as error:  # raised by the function itself
        raise DataError(error.text) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"{arg('data', code.name)}{what} cannot be read: {code.told(error)}") from error

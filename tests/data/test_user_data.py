"""User data: tensors, arrays or data sets, split as they say, and refused in one line if they are wrong."""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate, random_split

from lrwd_sweep.data import load
from lrwd_sweep.data.user_data import completed
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CPU, F32, F64, Items, loaded, returned


def _completed(make: Callable[[], Any], **options: Any) -> Task:
    """Complete a task of data that `make` gives, although this folder may have read others."""
    returned.append(make)
    return completed(Task(data="tests.small:data", batch_size=4, **options), anew=True)


def _pair(count: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(count)
    return torch.randn(count, 5, generator=stream), torch.arange(count) % classes


class Streamed(IterableDataset[tuple[Tensor, Tensor]]):
    """The same items without a length."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(*self.columns, strict=True)


def _named(items: list[Any]) -> dict[str, Tensor]:
    return dict(zip(("x", "labels"), default_collate(items), strict=True))


FORMS: dict[str, Callable[..., Any]] = {
    "tensors": lambda x, y: (x, y),
    "tensors of other strides": lambda x, y: (x.t().contiguous().t(), torch.stack([y, y], 1)[:, 1]),
    "views of negative numbers": lambda x, y: (torch.imag(torch.complex(x, -x).conj()), y.tolist()),
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "read-only arrays": lambda *pair: tuple(np.broadcast_to(v.numpy(), v.shape) for v in pair),
    "reversed arrays": lambda *pair: tuple(v.flip(0).numpy()[::-1] for v in pair),
    "big-endian arrays": lambda x, y: (x.numpy().astype(">f4"), y.numpy().astype(">i4")),
    "labels as objects": lambda x, y: (x, y.numpy().astype(object)),
    "a TensorDataset": TensorDataset,
    "a map-style data set": lambda *pair: Items(*pair, change=lambda x, y: (x, int(y))),
    "a data loader": lambda *pair: DataLoader(Items(*pair), batch_size=5),
    "a shuffling data loader": lambda *pair: DataLoader(TensorDataset(*pair), 4, shuffle=True),
    "a sampler": lambda x, y: DataLoader(Items(x.repeat(2, 1), y.repeat(2)), 4, sampler=range(len(x))),
    "its own collation": lambda *pair: DataLoader(Items(*pair), 5, collate_fn=partial(default_collate)),
    "a list of dicts": lambda x, y: [{"x": [*one.numpy()], "label": int(k)} for one, k in zip(x, y)],  # noqa: B905
    "a loader of dicts": lambda *pair: DataLoader(Items(*pair), 5, collate_fn=_named),
    "an iterable data set": Streamed,
    "a loader of an iterable": lambda *pair: DataLoader(Streamed(*pair), 4),
    "a generator": lambda *pair: iter(Streamed(*pair)),
}


def test_every_form_gives_the_same_tensors() -> None:
    pairs = [_pair(12), _pair(6), _pair(9)]
    for name, form in FORMS.items():
        task = _completed(lambda form=form: [form(*pair) for pair in pairs])  # type: ignore[misc]
        assert task.sizes == DataSet(12, 6, 9, 3, (5,)), name
        for split, (x, y) in zip(loaded(task).parts.values(), pairs, strict=True):
            assert torch.equal(split.x, x), name
            assert torch.equal(split.y, y), name


BYTES = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).to(torch.uint8)


def test_images_of_bytes_are_given_as_they_are_or_standardised_and_other_inputs_are_not() -> None:
    images = (BYTES, torch.arange(4) % 2)
    for asked, (dtype, off) in product((None, False, True), ((F32, 1e-6), (F64, 1e-12))):
        task = _completed(lambda: [images] * 2, standardize=asked)
        assert task.standardize is bool(asked)
        x, _ = loaded(task).train.to(CPU, dtype).batch(torch.arange(4))
        deviation, mean = torch.std_mean(x, (0, 2, 3), correction=0)
        standard = bool(max(mean.abs().max(), deviation.sub(1).abs().max()) < off)
        assert (x.dtype, standard, torch.equal(x, BYTES.to(dtype))) == (dtype, task.standardize, not asked)
    pair = (BYTES.permute(0, 2, 3, 1), torch.arange(4) % 2)
    last = r"^standardize .* has shape \(4, 8, 8, 3\), channels last: give x\.permute"
    floats = r"^standardize is for images as uint8 .*; x of .* is float32: leave"
    for data, complaint in (((pair, pair), last), ((_pair(), _pair(6)), floats)):
        assert not _completed(lambda data=data: data).standardize  # type: ignore[misc]
        assert_raises(complaint, _completed, lambda data=data: data, standardize=True)


def test_random_split_is_the_same_every_time_and_the_test_split_optional() -> None:
    def splits() -> Any:
        x = torch.arange(40.0).reshape(20, 2) + np.random.rand()  # as users write
        train, validation = random_split(Items(x, torch.arange(20) % 2), [12, 8])
        return {"train": train, "validation": validation, "test": None}

    before = torch.get_rng_state()
    one, other = (loaded(_completed(splits)) for _ in range(2))
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(one.test) == 0


def test_data_are_read_once_and_again_only_if_asked() -> None:
    x, y = _pair()
    made = iter([((x, y), _pair(6)), ((x + 1, y), _pair(6))])
    task = _completed(lambda: next(made))
    loaded(task)
    assert completed(task) == task
    again = completed(task, anew=True)
    assert again.data_set.digest != task.data_set.digest
    assert loaded(again).train.x.sub(x).sub(1).abs().max() < 1e-6
    other = "gives other data than a moment ago; .* and seed its random numbers"
    for sizes in (task.data_set, DataSet(13, 6, 0, 3, (5,))):
        assert_raises(other, load, task.data, sizes, error=DataError)


def test_digest_depends_on_every_number_its_type_and_shape() -> None:
    def found(x: Tensor, y: Tensor, *others: tuple[Tensor, Tensor]) -> str:
        return _completed(lambda: ((x, y), *others)).data_set.digest

    x, y = _pair()
    other, label = x.clone(), y.clone()
    other[7, 3] = other[7, 3].nextafter(torch.tensor(9.0))
    label[[4, 5]] = label[[5, 4]]
    v = _pair(6)
    flat, deep = (v[0].reshape(6, 1, 5), v[1]), x.reshape(12, 1, 5)
    first = found(x, y, v)
    assert len(first) == 12
    assert first == found(x.t().contiguous().t(), y.int(), v)
    assert found(x[:, :1].expand(12, 5), y, v) == found(x[:, :1].repeat(1, 5), y, v)
    digests = [found(other, y, v), found(x, label, v), found(x, y, (-v[0], v[1])), found(x, y, v, v)]
    digests += [found(x[:6], y[:6], (x[6:], y[6:])), found(deep, y, flat)]
    digests += [found(x.to(kind), y, (v[0].to(kind), v[1])) for kind in (torch.float64, torch.bfloat16)]
    assert len({first, *digests}) == 9


X, Y = _pair()
NAN = torch.where(torch.arange(12).unsqueeze(1) == 7, torch.nan, X)
V = _pair(6)
RANDOM = Items(X, Y, change=lambda x, y: (x, np.random.rand()))
RAGGED = [(torch.zeros(3 + (k == 4)), k % 2) for k in range(6)]
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: (X, Y), "it returns a tuple of 2; return train, validation and optionally test"),
    (lambda: {"train": (X, Y), "val": V}, "it returns train, val; name train, validation, test (or no test)"),
    (lambda: ((X, Y[:-1]), V), "train has 12 inputs and 11 labels; give one for each"),
    (lambda: ((X, Y), (V[0][:, :4], V[1])), "x of validation is float32 of (4,), that of train float32 of"),
    (lambda: ((X, Y), (V[0], V[1] + 1)), "validation has the label 3, train has 0 to 2; leave it out"),
    (lambda: ((X, Y + 1), V), "train has the label 1 and none that is 0; count classes from 0"),
    (lambda: ((X, Y * 0), V), "train has fewer than two classes; add items of another"),
    (lambda: ((X, Y.float()), V), "y of validation is int64 of (), that of train float32 of (); make them"),
    (lambda: ((X, Y > 1), V), "y of train is bool of shape (12,); give each item a class (y.long())"),
    (lambda: ((X, Y.view(12, 1)), V), "y of train has shape (12, 1); give one class per item, y.squeeze(1)"),
    (lambda: ((X + 1j, Y), V), "x of train is complex64; give real numbers"),
    (lambda: ((X, X[:, 0] * 0 + 2), (V[0], V[0][:, 0])), "y of train is the same for every item"),
    (lambda: ((X, NAN[:, 0]), (V[0], V[0][:, 0])), "item 7 of train is not finite"),
    (lambda: ((X, X.long() * 0 - 100), (V[0], V[0].long() * 0)), "y of train has fewer than 2 classes that"),
    (lambda: (((X, X), Y), V), "validation has 1 inputs per item, train has 2; make them equal"),
    (lambda: ((X[:, 0], Y), V), "x of train has shape (12,); give it one row per item"),
    (lambda: ((X, Y), V, (X[:0], Y[:0])), "x of test has shape (0, 5); give it one row per item; test is"),
    (lambda: ((X, X, Y), V), "train holds a tuple of 3; make it (x, y), or ((x1, x2), y) with several"),
    (lambda: ((X, Y), [((X, 0), 0)]), "item 0 of validation holds a tuple of 2 as x; make it a tensor"),
    (lambda: ((NAN, Y), V), "item 7 of train is not finite; leave it out"),
    (lambda: (Items(X, Y), 3), "validation is of type int; give tensors (x, y), a data set or a data"),
    (lambda: (RAGGED, V), "item 4 of train has shape (4,), item 0 has (3,); make them equal"),
    (lambda: (RANDOM, V), "item 0 of train is different every time; add stream=True to read it"),
    (lambda: ([(1, 2)] * 3, V), "item 0 of train holds a value of type int as x; make it a tensor, as by"),
    (lambda: ([X[0]] * 3, V), "item 0 of train is of type Tensor; make it a pair (x, y)"),
    (lambda: ([(X[0], True)] * 3, V), "item 0 of train has the label True; make it a class"),
    (lambda: ([(X[0], list(range(999)))] * 3, V), "20, 21, …; make it a class"),
    (lambda: (((X, 3), Y), V), "x of train is a tuple of 2; make it a tensor, or a tuple of tensors"),
    (lambda: ((X, np.array(["cat", "dog"] * 6)), V), "item 0 of train has the label 'cat'; make it a class"),
    (lambda: ((X, np.array([0, "dog"] * 6, object)), V), "item 1 of train has the label 'dog'; make it a"),
    (lambda: ((np.full((12, 5), "cat"), Y), V), "x of train is an array of type <U3; give floating-point"),
    (lambda: (Items(Y, change=sys.exit), V), "cannot be read: SystemExit: tensor(0) (small.py, line"),
    (lambda: sys.exit(1), "raised SystemExit: 1 (small.py, line"),
]


def test_wrong_data_are_refused_in_one_line_and_ctrl_c_is_not() -> None:
    for make, complaint in WRONG:
        assert_raises(f"^data='tests.small:data'.*{re.escape(complaint)}", _completed, make, error=DataError)
    with pytest.raises(KeyboardInterrupt):
        _completed(Mock(side_effect=KeyboardInterrupt))

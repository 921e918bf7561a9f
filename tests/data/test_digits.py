"""The embedded digits are split by a fixed seed and standardised by the training split."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import pytest
import torch

from lrwd_sweep.data import digits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS


def test_splits_have_the_catalogued_sizes_and_are_disjoint() -> None:
    splits, sizes = digits.load(), DATA_SETS["digits"]
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [sizes.train, sizes.validation, sizes.test]
    rows = torch.cat([part.x for part in parts])
    assert rows.shape == (1797, 1, 8, 8)
    assert len(torch.unique(rows, dim=0)) == 1797  # no image is in two splits
    assert torch.cat([part.y for part in parts]).bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180
    ]  # fmt: skip


def test_every_class_is_in_the_training_split() -> None:
    assert digits.load().train.y.bincount(minlength=10).min() >= 20


def test_standardised_with_the_training_statistics_of_its_one_channel() -> None:
    splits = digits.load()
    assert splits.train.x.mean().abs() < 1e-12
    assert (splits.train.x.std(correction=0) - 1).abs() < 1e-12
    assert splits.test.x.mean().abs() > 1e-9  # not with its own
    assert splits.train.x.min() == splits.test.x.min()  # black is the same in every split


def test_same_split_every_time() -> None:
    assert torch.equal(digits.load().test.x, digits.load().test.x)


def test_table_is_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    table = digits._read()
    assert (table[:, :-1] == x).all()
    assert (table[:, -1] == y).all()


def test_digits_are_read_by_scikit_learn_if_its_files_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digits._read()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert (digits._read() == expected).all()


def test_missing_scikit_learn_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits._read()

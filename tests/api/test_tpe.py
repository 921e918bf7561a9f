"""A search from Python is the command line's: the same points, and the same call searches on."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep import Study
from lrwd_sweep.cli import app
from lrwd_sweep.errors import UsageError
from lrwd_sweep.runner.execution import Execution
from tests.api.sweeps import stored


def search(trials: int, **others: Any) -> Study:
    """Search a small box."""
    asked: dict[str, Any] = {"lr": "2^-7:2^-3", "weight_decay": "2^-7:2^-3", "epochs": 1, "seeds": 2}
    return lrwd_sweep.tpe(trials=trials, progress=False, **{**asked, **others})


def test_more_trials_search_on_to_the_points_of_the_command_line_and_the_same_train_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first, found = search(4).frame, search(6)
    options = "--lr 2^-7:2^-3 --wd 2^-7:2^-3 --epochs 1 --seeds 2 --storage other.db"
    for trials in (4, 6):
        words = ["lrwd-sweep", "tpe", "--trials", str(trials), *options.split()]
        monkeypatch.setattr(sys, "argv", words)
        assert app.run() == 0
    assert len(stored(name=found.name)) == 12
    assert stored(name=found.name) == stored("other.db", found.name)
    monkeypatch.delattr(Execution, "train")
    again = search(6).frame
    assert first.merge(again).equals(first)  # not a bit of a lane differs
    with pytest.raises(AttributeError):
        search(7)
    with pytest.raises(UsageError, match=r"^trials=0 is not a whole number"):
        search(0)

"""Splits in a file for other processes: the same numbers, bytes still bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrwd_sweep.data import Pixels, Split, Splits
from lrwd_sweep.data.digits import load
from lrwd_sweep.data.splits_file import load_splits, make_folder, save_splits


def test_splits_come_back_as_they_were(tmp_path: Path) -> None:
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(256, (7, 3, 4, 4), generator=stream, dtype=torch.uint8)
    images = Split(x, torch.arange(7), Pixels.of(x)).to(torch.device("cpu"), torch.float32)
    digits = load()
    save_splits(Splits(images, digits.validation, digits.test), tmp_path / "splits")
    found = load_splits(tmp_path / "splits")
    for split, before in ((found.train, images), (found.validation, digits.validation)):
        assert split.x.dtype == before.x.dtype
        for (x, y), (x_before, y_before) in zip(split.batches(5), before.batches(5), strict=True):
            assert torch.equal(x, x_before)
            assert torch.equal(y, y_before)
    assert len(found.test) == len(digits.test)


def test_what_killed_programs_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for name in (f"{ended.pid}-left", f"{os.getpid()}-held", "notes"):
        (tmp_path / f"lrwd-sweep-{name}").mkdir()
    mine = make_folder()
    assert mine.is_dir()
    assert not (tmp_path / f"lrwd-sweep-{ended.pid}-left").exists()
    mine.rmdir()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"lrwd-sweep-{os.getpid()}-held",
        "lrwd-sweep-notes",
    }

"""Splits normalise images of bytes batch by batch, and survive a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrwd_sweep.data import Pixels, Split, Splits, load
from lrwd_sweep.data.splits import load_splits, make_folder, save_splits
from lrwd_sweep.spec.catalog import DATA_SETS

CPU = torch.device("cpu")


def test_images_are_normalised_by_the_batch_and_stay_bytes_also_in_a_file(tmp_path: Path) -> None:
    x = torch.randint(256, (25, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[:, 1] = 7  # a constant channel becomes 0
    exact = x.double().sub(x.double().mean((0, 2, 3), keepdim=True))
    exact[:, [0, 2]] /= x[:, [0, 2]].double().std((0, 2, 3), correction=0, keepdim=True)
    digits, index = load("digits", DATA_SETS["digits"]).validation, torch.tensor([7, 0, 7])
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        made = Split(x, torch.arange(25), Pixels.of(x)).to(CPU, dtype)
        save_splits(Splits(made, digits, digits), tmp_path / "splits")
        found = load_splits(tmp_path / "splits")
        assert torch.equal(found.test.x, digits.x)
        for split in (made, found.train):
            assert (split.x.dtype, split.dtype, split.device) == (torch.uint8, dtype, CPU)
            numbers, y = split.batch(index)
            assert numbers.dtype == dtype
            assert (numbers - exact[index]).abs().max() < tolerance
            assert y.tolist() == [7, 0, 7]
            parts = list(split.batches(10))
            assert [len(y) for _, y in parts] == [10, 10, 5]
            assert torch.equal(torch.cat([part for part, _ in parts]), split.batch(torch.arange(25))[0])
            assert torch.cat([y for _, y in parts]).tolist() == list(range(25))


def test_folders_of_killed_programs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    kept = {f"lrwd-sweep-{os.getpid()}-held", "lrwd-sweep-notes"}
    for name in (f"lrwd-sweep-{ended.pid}-left", *kept):
        (tmp_path / name).mkdir()
    mine = make_folder()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, mine.name}

"""Training images are shifted, mirrored and blanked as documented, equally for equal seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import Pixels, Split, Splits, augmentation
from lrwd_sweep.data.augment import crop_flip, cutout
from lrwd_sweep.engine.trainer import PackTrainer, generator
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import AUGMENTATIONS, DataSet
from lrwd_sweep.spec.task import Task


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _coordinates(batch: int, side: int) -> Tensor:
    """Make images whose pixels are their own positions, from 1."""
    return torch.arange(1.0, side * side + 1).reshape(1, 1, side, side).repeat(batch, 2, 1, 1)


@pytest.mark.parametrize(("side", "pad"), [(8, 1), (28, 4), (32, 4), (64, 8)])
def test_crop_flip_gives_crops_of_the_padded_image_half_of_them_mirrored(side: int, pad: int) -> None:
    x = _coordinates(40, side)
    padded = functional.pad(x[0], (pad, pad, pad, pad))
    crops = {
        padded[:, top : top + side, left : left + side].numpy().tobytes(): (top, left, False)
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    }
    crops |= {
        torch.frombuffer(bytearray(crop), dtype=torch.float32)
        .reshape(2, side, side)
        .flip(2)
        .numpy()
        .tobytes(): (top, left, True)
        for crop, (top, left, _) in crops.items()
    }
    assert len(crops) == 2 * (2 * pad + 1) ** 2
    seen = [crops[image.numpy().tobytes()] for image in crop_flip(x, _stream())]
    assert {mirrored for *_, mirrored in seen} == {False, True}


def test_shifts_and_mirrors_are_equally_likely() -> None:
    x = _coordinates(9000, 8)
    shifted = crop_flip(x, _stream())
    middle = shifted[:, 0, 3:5, 3:5]  # never padding: pixels 3 and 4 shifted by at most 1
    rows, columns = (middle - 1).div(8, rounding_mode="floor"), (middle - 1) % 8
    mirrored = columns[:, 0, 0] > columns[:, 0, 1]
    assert mirrored.double().mean() == pytest.approx(0.5, abs=0.02)
    for shift in (rows[:, 0, 0] - 3, columns.amin(dim=(1, 2)) - 3):
        assert set(shift.tolist()) == {-1, 0, 1}
        for value in (-1, 0, 1):
            assert (shift == value).double().mean() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("side", [8, 28, 32])
def test_cutout_blanks_a_square_of_half_the_side_clipped_at_the_border(side: int) -> None:
    x = torch.ones(500, 3, side, side, dtype=torch.float64)
    out = cutout(x, _stream())
    assert x.min() == 1  # not in place
    half = side // 2
    seen = set()
    for image in out:
        blank = image[0] == 0
        assert all(torch.equal(channel == 0, blank) for channel in image)
        rows, columns = blank.any(dim=1).nonzero().flatten(), blank.any(dim=0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        assert blank.sum() == height * width  # a rectangle
        for first, length in ((int(rows[0]), height), (int(columns[0]), width)):
            assert half // 2 <= length <= half
            assert length == half or first == 0 or first + length == side
        seen.add((height, width))
    assert (half, half) in seen
    assert len(seen) > 1


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"none"}))
def test_same_seed_same_images_and_another_seed_others(name: str) -> None:
    x = torch.randn(30, 3, 16, 16)
    first, again, other = (augmentation(name, _stream(seed)) for seed in (1, 1, 2))
    for _ in range(3):
        mine = first(x)
        assert torch.equal(mine, again(x))
        assert not torch.equal(mine, other(x))
        assert mine.shape == x.shape
        assert mine.dtype == x.dtype


def test_augmentation_none_returns_the_images() -> None:
    x = torch.randn(3, 1, 8, 8)
    assert augmentation("none", _stream())(x) is x


@pytest.fixture
def splits() -> Splits:
    x = torch.randint(0, 256, (60, 3, 8, 8), generator=_stream(), dtype=torch.uint8)
    pixels = Pixels.of(x[:40])
    parts = (slice(0, 40), slice(40, 50), slice(50, 60))
    made = Splits(*(Split(x[part], torch.arange(60)[part] % 10, pixels) for part in parts))
    return made.to(torch.device("cpu"), torch.float32)


def _batches(
    splits: Splits, lanes: int, seed: int, augment: str, patch: pytest.MonkeyPatch
) -> tuple[list[Tensor], Callable[[], list[float]]]:
    task = Task(net="mlp", augment=augment, epochs=2, batch_size=20).changed(
        sizes=DataSet(40, 10, 10, 10, (3, 8, 8))
    )
    trainer = PackTrainer(
        Optimizer.parse("sgd"), task, [Cell(0.1, 0.01 * k) for k in range(lanes)], seed, splits
    )
    seen: list[Tensor] = []
    step = trainer.step

    def watched(x: Tensor, y: Tensor, t: int) -> Tensor:
        seen.append(x.clone())
        return step(x, y, t)

    patch.setattr(trainer, "step", watched)
    trials = trainer.run()
    return seen, lambda: [trial.metrics["val_loss"] for trial in trials]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_images_depend_on_the_seed_and_not_on_the_pack(
    splits: Splits, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, small = _batches(splits, 1, 0, augment, monkeypatch)
    three, large = _batches(splits, 3, 0, augment, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert small()[0] == pytest.approx(large()[0], rel=1e-6)
    other, _ = _batches(splits, 1, 1, augment, monkeypatch)
    assert not torch.equal(one[0], other[0])


def test_only_training_images_are_changed(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, _ = _batches(splits, 1, 0, "crop-flip-cutout", monkeypatch)
    order = torch.randperm(40, generator=generator(0, "data order"))
    plain, _ = splits.train.batch(order[:20])
    changed = augmentation("crop-flip-cutout", generator(0, "augmentation"))(plain)
    assert torch.equal(seen[0], changed)
    assert not torch.equal(seen[0], plain)

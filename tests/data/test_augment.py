"""Training images are shifted, mirrored and blanked as documented, equally for equal seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import Pixels, Split, Splits, augmentation
from lrwd_sweep.data.augment import crop_flip, cutout
from lrwd_sweep.engine.pack import PackTrainer, generator
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import AUGMENTATIONS, DataSet
from lrwd_sweep.spec.task import Task


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _coordinates(batch: int, side: int) -> Tensor:
    """Make images whose pixels are their own positions, from 1."""
    return torch.arange(1.0, side * side + 1).reshape(1, 1, side, side).repeat(batch, 2, 1, 1)


def test_crop_flip_gives_crops_of_the_padded_image_half_of_them_mirrored() -> None:
    for side, pad in ((8, 1), (28, 4), (32, 4), (64, 8)):
        x = _coordinates(40, side)
        padded = functional.pad(x[0], (pad, pad, pad, pad))
        places = range(2 * pad + 1)
        crops = [padded[:, top : top + side, left : left + side] for top in places for left in places]
        plain = {crop.numpy().tobytes() for crop in crops}
        mirrored = {crop.flip(2).numpy().tobytes() for crop in crops}
        assert len(plain | mirrored) == 2 * (2 * pad + 1) ** 2
        found = [image.numpy().tobytes() for image in crop_flip(x, _stream())]
        assert set(found) <= plain | mirrored, side
        assert 0 < sum(image in mirrored for image in found) < 40, side


def test_cutout_blanks_a_square_of_half_the_side_clipped_at_the_border() -> None:
    for side in (8, 28, 32):
        x = torch.ones(300, 3, side, side, dtype=torch.float64)
        out = cutout(x, _stream())
        assert x.min() == 1  # not in place
        half, seen = side // 2, set()
        for image in out:
            blank = image[0] == 0
            assert all(torch.equal(channel == 0, blank) for channel in image)
            lengths = []
            for axis in (0, 1):
                places = blank.any(dim=1 - axis).nonzero().flatten().tolist()
                first, length = places[0], places[-1] - places[0] + 1
                assert half // 2 <= length <= half, side
                assert length == half or first == 0 or first + length == side, side
                lengths.append(length)
            assert blank.sum() == lengths[0] * lengths[1]  # a rectangle
            seen.add(tuple(lengths))
        assert (half, half) in seen
        assert len(seen) > 1


def test_same_seed_gives_the_same_images() -> None:
    x = torch.randn(30, 3, 16, 16)
    assert augmentation("none", _stream())(x) is x
    for name in sorted(set(AUGMENTATIONS) - {"none"}):
        first, again, other = (augmentation(name, _stream(seed)) for seed in (1, 1, 2))
        for _ in range(3):
            mine = first(x)
            assert torch.equal(mine, again(x)), name
            assert not torch.equal(mine, other(x)), name
            assert (mine.shape, mine.dtype) == (x.shape, x.dtype), name


def _batches(lanes: int, seed: int, augment: str) -> tuple[Splits, list[Tensor], float]:
    """Train, and return the batches of training and the first lane's loss."""
    x = torch.randint(0, 256, (60, 3, 8, 8), generator=_stream(), dtype=torch.uint8)
    parts = [Split(x[part], torch.arange(60)[part] % 10, Pixels.of(x[:40])) for part in PARTS]
    splits = Splits(*parts).to(torch.device("cpu"), torch.float32)
    sizes = DataSet(40, 10, 10, 10, (3, 8, 8))
    task = Task(net="mlp", augment=augment, epochs=2, batch_size=20).changed(sizes=sizes)
    cells = [Cell(0.1, 0.01 * k) for k in range(lanes)]
    trainer = PackTrainer(Optimizer.parse("sgd"), task, cells, seed, splits)
    seen: list[Tensor] = []
    augmented = trainer.augment

    def watched(x: Tensor) -> Tensor:
        seen.append(augmented(x).clone())
        return seen[-1]

    trainer.augment = watched
    return splits, seen, trainer.run()[0].metrics["val_loss"]


PARTS = (slice(0, 40), slice(40, 50), slice(50, 60))


def test_only_training_images_are_changed_by_the_seed_and_not_by_the_pack() -> None:
    for augment in AUGMENTATIONS:
        splits, one, loss = _batches(1, 0, augment)
        _, three, same = _batches(3, 0, augment)
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True)), augment
        assert loss == pytest.approx(same, rel=1e-6), augment
        assert not torch.equal(one[0], _batches(1, 1, augment)[1][0]), augment
        order = torch.randperm(40, generator=generator(0, "data order"))
        plain, _ = splits.train.batch(order[:20])
        assert torch.equal(one[0], augmentation(augment, generator(0, "augmentation"))(plain)), augment
        assert torch.equal(one[0], plain) is (augment == "none"), augment

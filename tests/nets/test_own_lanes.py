"""A lane of somebody's network that cannot go on alone, or not as under torch.optim."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from tests.nets.conftest import task

WELL = [Cell(0.1, 1e-3), Cell(0.02, 1e-2)]
SGDW = Optimizer.parse("sgdw")


class Two(nn.Module):
    """Two heads, both of which train."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 4), nn.Linear(64, 4)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.logits(x.flatten(1))

    def logits(self, x: Tensor) -> Tensor:
        found: Tensor = self.a(x) + self.b(x)
        return found


class Late(Two):
    """The second from the fifth step on."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) if self.steps > 4 else self.a(x)


class Early(Two):
    """The second until the fifth step."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) if self.steps < 5 else self.a(x)


class Thawing(Two):
    """The second, from the fifth step on."""

    def logits(self, x: Tensor) -> Tensor:
        self.b.requires_grad_(self.steps > 4)
        return super().logits(x)


class ByValues(Two):
    """One of them, as the inputs are."""

    def logits(self, x: Tensor) -> Tensor:
        head = self.a if x.min() >= 0 else self.b
        found: Tensor = head(x)
        return found


class Assigning(Two):
    """Normalised weights, each time in new memory."""

    def logits(self, x: Tensor) -> Tensor:
        self.b.weight.data = functional.normalize(self.b.weight.data)
        return super().logits(x)


class AssigningToEvaluate(Assigning):
    def logits(self, x: Tensor) -> Tensor:
        return Two.logits(self, x) if self.training else super().logits(x)


@pytest.mark.parametrize(
    ("kind", "engine", "complaint"),
    [
        (Late, "loop", r"b\.weight of Late has a gradient, and had none .*; let it take part in every step"),
        (Late, "vmap", r"b\.weight of Late has a gradient, and had none"),
        (Thawing, "loop", r"b\.weight of Thawing has a gradient, and had none"),
        (Early, "loop", r"b\.weight of Early has no gradient at a step, .*; let it take part in every step"),
        (Early, "vmap", r"b\.weight of Early has no gradient at a step"),
        (ByValues, "loop", r"a\.weight of ByValues has no gradient at a step"),
        (
            Assigning,
            "loop",
            r"b\.weight of Assigning is not where .* by \.data\.copy_\(\)",
        ),
        (AssigningToEvaluate, "loop", r"b\.weight of AssigningToEvaluate is not where"),
    ],
)
def test_a_parameter_that_would_not_train_as_under_torch_optim_is_named(
    kind: type[nn.Module], engine: str, complaint: str, tiny32: Splits
) -> None:
    trainer = PackTrainer(SGDW, task(f"{__name__}:{kind.__name__}", engine=engine), WELL, 0, tiny32)
    with pytest.raises(UsageError, match=rf"the parameter {complaint}"):
        trainer.run()


class Finite(Two):
    """Raises where numbers are no numbers."""

    def logits(self, x: Tensor) -> Tensor:
        h = super().logits(x)
        masked = torch.where(x[:, :4] < 0, -torch.inf, h).softmax(1).nan_to_num()
        if not h.isfinite().all():
            raise ValueError("not finite")
        return h + 0.1 * masked


class FiniteToEvaluate(Two):
    """Raises so in evaluation alone."""

    def logits(self, x: Tensor) -> Tensor:
        h = super().logits(x)
        if not self.training and not h.isfinite().all():
            raise ValueError("not finite")
        return h


@pytest.mark.parametrize("kind", [Finite, FiniteToEvaluate])
def test_a_lane_that_raises_as_it_diverges_ends_alone(kind: type[nn.Module], tiny32: Splits) -> None:
    train = partial(PackTrainer, SGDW, task(f"{__name__}:{kind.__name__}", engine="loop"))
    trials = train([WELL[0], Cell(1e38, 1e-3), WELL[1]], 0, tiny32).run()
    assert trials[1].status is Status.DIVERGED
    assert [trials[0], trials[2]] == train(WELL, 0, tiny32).run()


class Faulty(Finite):
    """Raises whatever the numbers are."""

    def logits(self, x: Tensor) -> Tensor:
        if self.steps > 4:
            raise ValueError("a mistake")
        return super().logits(x)


def test_a_mistake_in_a_lane_that_is_well_is_raised(tiny32: Splits) -> None:
    trainer = PackTrainer(SGDW, task(f"{__name__}:Faulty", engine="loop"), WELL, 0, tiny32)
    with pytest.raises(ValueError, match="a mistake"):
        trainer.run()

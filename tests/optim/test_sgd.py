"""The two forms of momentum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim.problem import smooth, start, train


def _end(name: str, **options: object) -> Tensor:
    task = Task(epochs=17, **options)  # type: ignore[arg-type]
    return train(Optimizer.parse(name), task, start(), smooth(task.steps), [(0.02, 0.01)])[0]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("name", ["sgd", "sgdw"])
def test_forms_agree_at_a_constant_rate_and_not_under_a_schedule(name: str, nesterov: bool) -> None:
    apart = {}
    for schedule in ("fixed", "cosine"):
        ends = [
            _end(name, schedule=schedule, nesterov=nesterov, momentum_form=form)
            for form in ("paper", "torch")
        ]
        apart[schedule] = (ends[0] - ends[1]).abs().max().item()
    assert apart["fixed"] < 1e-12
    assert apart["cosine"] > 1e-3


@pytest.mark.parametrize("form", ["paper", "torch"])
def test_without_momentum_nesterov_changes_nothing(form: str) -> None:
    plain, nesterov = (_end("sgdw", momentum=0.0, nesterov=n, momentum_form=form) for n in (False, True))
    torch.testing.assert_close(plain, nesterov, rtol=0, atol=1e-14)

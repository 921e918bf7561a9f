"""Devices to verify on, and a way to break every update a little."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lrwd_sweep.optim import Update, make_update

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def _decay_too_strong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update decays by a hundredth more than it was told."""

    def broken(*arguments: Any, alpha: torch.Tensor, lam: torch.Tensor) -> Update:
        return make_update(*arguments, alpha=alpha, lam=1.01 * lam)

    for module in ("problem", "propositions", "rotation"):
        monkeypatch.setattr(f"lrwd_sweep.lab.verify.{module}.make_update", broken)

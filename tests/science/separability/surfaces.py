"""Surfaces with known answers, and what the tests read of a result."""

from collections.abc import Callable

import numpy as np
import pytest

from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability import Estimate, Separability, TransferRegret
from lrwd_sweep.science.surface import CellStatus, Float, Surface


def centred(count: int, step: float = 1.0) -> Float:
    """A log2 axis of equal steps around 0."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=np.float64)


A, L = np.meshgrid(centred(11), centred(11), indexing="ij")  # the lattice of most known answers
BOWL = 0.3 * A**2 + 0.5 * L**2
RIDGE = (A + L) ** 2


def surface(
    y: Float,  # (I, J) or (I, J, R); NaN and infinity are diverged lanes
    log_lr: Float | None = None,
    log_decay: Float | None = None,
    *,
    rule: DecayRule = DecayRule.INDEPENDENT,
    cap: float | None = None,
    baseline: Float | None = None,  # (I, R) a λ = 0 column
    seeds: tuple[int, ...] | None = None,
    metric: str = "val_loss",
) -> Surface:
    """A surface over centred unit steps, or over the given axes."""
    y = y[..., None] if y.ndim == 2 else y
    log_lr = centred(y.shape[0]) if log_lr is None else log_lr
    log_decay = centred(y.shape[1]) if log_decay is None else log_decay
    weight_decay = 2.0**log_decay
    if baseline is not None:
        y = np.concatenate([baseline[:, None, :], y], axis=1)
        weight_decay = np.concatenate([[0.0], weight_decay])
    finite = np.isfinite(y)
    lanes = np.where(finite, CellStatus.COMPLETE.value, CellStatus.DIVERGED.value).astype("U8")
    seeds = tuple(range(y.shape[2])) if seeds is None else seeds
    return Surface(2.0**log_lr, weight_decay, seeds, np.where(finite, y, np.nan), lanes, rule, metric, cap)


def noisy(y: Float, seeds: int, noise: float, stream: int = 0, offset: float = 1.0) -> Float:
    """y (I, J) with independent noise in every cell and seed, and a common offset per seed: (I, J, R)."""
    rng = np.random.default_rng(stream)
    shift = offset * rng.standard_normal(seeds)
    return y[..., None] + noise * rng.standard_normal((*y.shape, seeds)) + shift


def repeated(y: Float, seeds: int = 3) -> Float:
    return np.repeat(y[..., None], seeds, axis=2)


def value(estimate: Estimate) -> float:
    assert estimate.value is not None, estimate.reason
    return estimate.value


def regret(found: Separability, octaves: float) -> TransferRegret:
    return next(each for each in found.transfer_regret if each.octaves == pytest.approx(octaves))


Draw = Callable[[np.random.Generator, int], Float]  # (rng, R) → (11, 11, R) without any effect of λ


def white(rng: np.random.Generator, seeds: int) -> Float:
    """Independent noise in every cell and seed, and a common offset per seed."""
    return rng.standard_normal((*A.shape, seeds)) + rng.standard_normal(seeds)


NO_EFFECT: dict[str, Draw] = {
    "white": white,
    "noisier at the highest λ": lambda rng, r: np.exp2(0.3 * L)[..., None] * rng.standard_normal((11, 11, r)),
    "offsets of rows and seeds": lambda rng, r: white(rng, r) + 2 * rng.standard_normal((11, 1, r)),
    "level": lambda rng, r: white(rng, r) + 0.3 * A[..., None] ** 2,
}

"""Separability: can α and λ be tuned one at a time on this surface, and if not, along which line together?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lrwd_sweep.surface import Bool, Surface


class Verdict(StrEnum):
    """What the interval of the ridge slope s allows to be said."""

    SEPARABLE = "separable"  # s within (−0.25, 0.25)
    PRODUCT_COUPLED = "product-coupled"  # s within (−1.25, −0.75): only the product αλ matters
    COUPLED = "coupled"  # s excludes (−0.25, 0.25) otherwise
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval; None where undetermined, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TransferRegret:
    """What moving α by `octaves` without retuning λ costs on average, in the metric's units."""

    octaves: float
    estimate: Estimate
    pairs: int  # ordered pairs of rows in the mean
    pairs_out: int  # pairs left out because the transferred cell diverged or reached its cap
    in_sample: bool  # λ was chosen and scored on the same seeds


@dataclass(frozen=True, slots=True)
class Separability:
    """Every metric of one surface. Indices (i, j) are those of the surface given, baseline column included."""

    verdict: Verdict
    point_verdict: Verdict
    reason: str  # why undetermined; or a caution; may be empty
    ridge_slope: Estimate  # s = d log2 λ* / d log2 α
    ridge_rows: int  # rows that carried s
    reverse_slope: Estimate  # s′ = d log2 α* / d log2 λ
    ridge: tuple[tuple[int, float], ...]  # (row i, log2 λ*) of the rows that carried s
    slope_by_convention: dict[str, float | None]  # s as "independent" and as "lr-scaled"
    curvature_coupling: Estimate  # ρ
    transfer_regret: tuple[TransferRegret, ...]  # by distance
    interaction_share: Estimate
    top10_tilt: Estimate
    top10: tuple[tuple[int, int], ...]  # the ten best cells, best first
    basin: Bool  # (I, J)
    basin_tolerance: float | None  # τ, in the metric's units
    on_edge: tuple[str, ...]  # sides of the lattice the best cell lies on: "lr:low", "weight_decay:high", …


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two surfaces, resampled by the same seeds; differences are b − a, the ratio is b/a."""

    slope_difference: Estimate
    regret_ratio: Estimate
    best_difference: Estimate
    verdict: str  # one plain sentence that claims no more than the intervals do


def analyse(
    surface: Surface,
    *,
    basin_quantile: float = 0.5,
    basin_tolerance: float | None = None,
    resamples: int = 1000,
) -> Separability:
    """All metrics of `surface` with their intervals."""
    raise AssertionError


def compare(a: Surface, b: Surface, *, basin_quantile: float = 0.5, resamples: int = 1000) -> Comparison:
    """The paired comparison of two surfaces."""
    raise AssertionError

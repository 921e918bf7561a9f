"""The best α, λ and τ along a scale (epochs, batch size, width, training items), and published rules.

One lattice is trained at every value x of the scale. A power law y ∝ x^e is fitted to the best values; the
seeds are resampled jointly, the same ones in every lattice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import log2

import numpy as np

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability.bootstrap import Cells, Estimate, LeftOut, Resamples, too_few_seeds
from lrwd_sweep.science.separability.verdict import MARGIN
from lrwd_sweep.science.surface import Float, Surface

WINDOW = 2.0  # octaves on either side of the least cell of a profile, to which a parabola is fitted
ON_EDGE = "best {} on the edge at {}"
LR, DECAY, TAU_EPOCHS, TAU_SHARE = "lr", "weight_decay", "tau_epochs", "tau_share"


class Axis(StrEnum):
    """The quantity that grows from lattice to lattice."""

    EPOCHS = "epochs"
    BATCH_SIZE = "batch-size"
    WIDTH = "width"
    TRAIN_FRACTION = "train-fraction"


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """A published rule: the exponents of λ (independent, per step) and of α along each axis."""

    name: str
    source: str
    exponents: Mapping[Axis, float]
    rates: Mapping[Axis, float] = field(default_factory=dict)  # of α; an axis without one keeps α


RULES = (
    ScalingRule(
        "τ constant in epochs",
        "Wang & Aitchison 2025",
        {Axis.EPOCHS: 0.0, Axis.BATCH_SIZE: 1.0, Axis.TRAIN_FRACTION: -1.0, Axis.WIDTH: 0.0},
    ),
    ScalingRule("τ constant as a share of the run", "tested by Bergsma et al. 2025", {Axis.EPOCHS: -1.0}),
    ScalingRule(
        "λ ∝ 1/√N",
        "Loshchilov & Hutter 2019, B.1",
        {Axis.EPOCHS: -0.5, Axis.BATCH_SIZE: 0.5, Axis.TRAIN_FRACTION: -0.5},
    ),
    ScalingRule(  # λ = αw
        "α ∝ 1/width, w ∝ √width", "Fan et al. 2025", {Axis.WIDTH: -0.5}, {Axis.WIDTH: -1.0}
    ),
)


class Support(StrEnum):
    """The conclusion on a rule: an equivalence test of its exponent, with the margin of a verdict."""

    SUPPORTED = "supported"  # the interval lies within the margin about the rule's exponent
    CONTRADICTED = "contradicted"  # the interval lies outside it
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, eq=False)
class ScaledLattice:
    """One lattice of the scale."""

    value: float  # x
    surface: Surface
    steps: int  # N, updates of a run
    steps_per_epoch: float


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best point of one lattice, between its cells."""

    value: float  # x
    best: float | None  # the smallest mean, in the metric's units
    lr: Estimate  # α*
    weight_decay: Estimate  # in the study's convention
    tau_epochs: Estimate  # 1/λ* in epochs; undetermined for coupled decay
    tau_share: Estimate  # in runs
    edges: tuple[str, ...]  # "lr" and "weight_decay", where the least cell is the first or last


@dataclass(frozen=True, slots=True)
class RuleResult:
    """A rule against what was measured."""

    rule: ScalingRule
    predicted: float  # exponent of λ
    rate: float  # exponent of α
    support: Support
    regret: Estimate  # cost at the largest scale of the smallest one's best cell, moved by the rule


@dataclass(frozen=True, slots=True)
class PowerLaws:
    """The movement of the best values along an axis."""

    axis: Axis
    optima: tuple[Optimum, ...]  # by x, ascending
    exponents: Mapping[str, Estimate]  # of lr, weight_decay (independent λ), tau_epochs, tau_share
    regret: Estimate  # cost at the largest x of the best cell of the smallest, in the metric's units
    kept: float  # exponent of λ if that cell is kept: −½ per octave of steps for normalized decay, else 0
    rules: tuple[RuleResult, ...]


def scaling(
    axis: Axis, scales: Sequence[ScaledLattice], *, resamples: int = 1000, margin: float = MARGIN
) -> PowerLaws:
    """Fit power laws to the best values of lattices along an axis.

    Only seeds that all lattices have count; with fewer than three there are no intervals. An exponent is
    undetermined if a best value lies on the edge of its axis. Raises UsageError for fewer than two values of
    x, or for lattices in different decay conventions.
    """
    scales = sorted(scales, key=lambda scale: scale.value)
    if len({scale.value for scale in scales}) < 2:
        raise UsageError("a scale needs at least two different values")
    if len({(scale.surface.rule, scale.surface.normalized) for scale in scales}) > 1:
        raise UsageError("the lattices of a scale need the same decay rule")
    seeds = tuple(
        seed for seed in scales[0].surface.seeds if all(seed in scale.surface.seeds for scale in scales)
    )
    sides = [_Side.of(scale, seeds) for scale in scales]
    drawn = Resamples.draw(len(seeds), resamples)
    with np.errstate(all="ignore"):
        places = [side.places(drawn.weights) for side in sides]
        optima = tuple(side.optimum(place, drawn) for side, place in zip(sides, places, strict=True))
        x = np.log2([scale.value for scale in scales])
        exponents = {
            name: _exponent(
                x, [place[name] for place in places], optima, axes_of(name, scales[0].surface.rule), drawn
            )
            for name in (LR, DECAY, TAU_EPOCHS, TAU_SHARE)
        }
        left_out = LeftOut.draw(len(seeds), resamples)
        ratio = float(x[-1] - x[0])
        # λ = λ_norm/√N falls as N grows while the cell stays
        kept = log2(scales[0].steps / scales[-1].steps) / 2 / ratio if scales[0].surface.normalized else 0.0
        results = []
        for rule in RULES if scales[0].surface.rule is not DecayRule.COUPLED else ():
            if axis in rule.exponents:
                predicted, rate = rule.exponents[axis], rule.rates.get(axis, 0.0)
                found = [_support(exponents[DECAY], predicted, margin)]
                found += [_support(exponents[LR], rate, margin)] * (axis in rule.rates)
                own = predicted - kept - rate * (LR in axes_of(DECAY, scales[0].surface.rule))
                cost = _carried(sides[0], sides[-1], rate * ratio, own * ratio, left_out)
                results.append(RuleResult(rule, predicted, rate, _joint(found), cost))
        cost = _carried(sides[0], sides[-1], 0.0, 0.0, left_out)
        return PowerLaws(axis, optima, exponents, cost, kept, tuple(results))


def axes_of(name: str, rule: DecayRule) -> tuple[str, ...]:
    """Return the axes of the lattice from which a best value is made: λ = αw needs both."""
    if name == LR:
        return (LR,)
    return (LR, DECAY) if rule in (DecayRule.LR_SCALED, DecayRule.CORRECTED) else (DECAY,)


def _support(exponent: Estimate, predicted: float, margin: float) -> Support:
    if exponent.low is None or exponent.high is None:
        return Support.UNDETERMINED
    if predicted - margin < exponent.low and exponent.high < predicted + margin:
        return Support.SUPPORTED
    if exponent.high <= predicted - margin or exponent.low >= predicted + margin:
        return Support.CONTRADICTED
    return Support.UNDETERMINED


def _joint(found: Sequence[Support]) -> Support:
    """Conclude on a rule of several exponents."""
    if Support.CONTRADICTED in found:
        return Support.CONTRADICTED
    return Support.UNDETERMINED if Support.UNDETERMINED in found else Support.SUPPORTED


@dataclass(frozen=True, eq=False)
class _Side:
    """One lattice, with log₂ axes, lower being better, λ = 0 left out."""

    scale: ScaledLattice
    cells: Cells
    log_lr: Float  # (I,)
    log_decay: Float  # (J,)

    @classmethod
    def of(cls, scale: ScaledLattice, seeds: tuple[int, ...]) -> _Side:
        surface = scale.surface.with_seeds(seeds).minimized().without_baseline()
        return cls(scale, Cells.of(surface), np.log2(surface.lr), np.log2(surface.weight_decay))

    def places(self, weights: Float) -> dict[str, Float]:
        """Return log₂ of the best values for every row of weights, (S,); NaN where there is none."""
        means = self.cells.means(weights)
        lr = _least(means.min(axis=2), self.log_lr)
        decay = _least(means.min(axis=1), self.log_decay)
        lam = self._independent(lr, decay)
        return {
            LR: lr,
            DECAY: lam if self.scale.surface.rule is not DecayRule.COUPLED else decay,
            "own": decay,
            TAU_EPOCHS: -lam - log2(self.scale.steps_per_epoch),
            TAU_SHARE: -lam - log2(self.scale.steps),
        }

    def _independent(self, lr: Float, decay: Float) -> Float:
        """Return log₂ λ of the independent rule (SCIENCE: λ = αw, λ = λ_norm/√N); NaN for coupled decay."""
        rule = self.scale.surface.rule
        if rule is DecayRule.COUPLED:
            return np.full(len(decay), np.nan)
        lam = decay + lr if rule in (DecayRule.LR_SCALED, DecayRule.CORRECTED) else decay
        return lam - log2(self.scale.steps) / 2 if self.scale.surface.normalized else lam

    def optimum(self, place: Mapping[str, Float], drawn: Resamples) -> Optimum:
        """Return the best point with its intervals."""
        means = self.cells.means(drawn.weights[:1])[0]
        finite = np.isfinite(means)
        edges = []
        for name, profile in ((LR, means.min(axis=1)), (DECAY, means.min(axis=0))):
            if finite.any() and int(profile.argmin()) in (0, len(profile) - 1):
                edges.append(name)
        found = {
            name: drawn.estimate(place[name], "no cell counts, or coupled decay").mapped(lambda x: 2.0**x)
            for name in (LR, "own", TAU_EPOCHS, TAU_SHARE)
        }
        best = float(means.min()) if finite.any() else None
        if best is not None and self.scale.surface.direction is not self.scale.surface.minimized().direction:
            best = -best
        return Optimum(
            self.scale.value, best, found[LR], found["own"], found[TAU_EPOCHS], found[TAU_SHARE], tuple(edges)
        )


def _least(
    profile: Float,  # (S, n), infinite where no cell counts
    axis: Float,  # (n,) log₂, ascending
) -> Float:  # (S,)
    """Return where a profile is least: the vertex of the parabola through the cells near its least cell.

    The parabola is the least-squares one over all cells within WINDOW octaves, at least one on either side.
    Its vertex counts only between the neighbours of the least cell; on the edge, the least cell is returned.
    """
    found = np.full(len(profile), np.nan)
    least = profile.argmin(axis=1)
    for k in np.unique(least):
        rows = np.flatnonzero((least == k) & np.isfinite(profile[np.arange(len(profile)), least]))
        found[rows] = axis[k]
        if k in (0, len(axis) - 1) or not len(rows):
            continue
        near = np.flatnonzero(np.abs(axis - axis[k]) <= WINDOW + 1e-9)
        near = np.union1d(near, [k - 1, k, k + 1])
        near = near[np.isfinite(profile[rows][:, near]).all(axis=0)]
        if len(near) < 3:
            continue
        design = np.vander(axis[near] - axis[k], 3)
        bend, slope, _ = np.linalg.lstsq(design, profile[np.ix_(rows, near)].T, rcond=None)[0]
        vertex = np.where(bend > 0, -slope / (2 * bend), 0.0)
        found[rows] = np.clip(axis[k] + vertex, axis[k - 1], axis[k + 1])
    return found


def _exponent(
    x: Float,  # (K,) log₂
    places: Sequence[Float],  # K of (S,)
    optima: Sequence[Optimum],
    axes: Sequence[str],  # from which y is made
    drawn: Resamples,
) -> Estimate:
    """Return the least-squares slope of log₂ y on log₂ x."""
    for optimum in optima:
        if edges := [axis for axis in axes if axis in optimum.edges]:
            return Estimate(None, reason=ON_EDGE.format(edges[0], f"{optimum.value:g}"))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return drawn.estimate(weights @ np.stack(places), "coupled decay has no averaging time")


def _carried(small: _Side, large: _Side, rate: float, decay: float, left_out: LeftOut) -> Estimate:
    """Return the cost at `large` of the best cell of `small`, its α and λ moved by some octaves.

    y(carried cell) − y(best cell of `large`), both chosen on some seeds and scored on the others, as transfer
    regret is. The carried cell is the nearest one of the large lattice in octaves.
    """
    losses = []
    for choose, score in left_out.ways(left_out.weights()):
        here = small.cells.means(choose).reshape(len(choose), -1).argmin(axis=1)
        i, j = np.divmod(here, len(small.log_decay))
        row = np.abs(large.log_lr[None] - (small.log_lr[i] + rate)[:, None]).argmin(axis=1)
        column = np.abs(large.log_decay[None] - (small.log_decay[j] + decay)[:, None]).argmin(axis=1)
        chosen = large.cells.means(choose).reshape(len(choose), -1).argmin(axis=1)
        scores = large.cells.means(score)
        at = np.arange(len(scores))
        own = scores.reshape(len(scores), -1)[at, chosen]
        losses.append((scores[at, row, column] - own)[:, None])
    combined = left_out.combine(losses)[:, 0]
    if left_out.in_sample and not len(left_out.resamples.mass) and np.isfinite(combined[0]):
        return Estimate(float(combined[0]), reason=too_few_seeds(left_out.resamples.weights.shape[1]))
    return left_out.estimate(combined, "the carried cell diverged or was not trained")

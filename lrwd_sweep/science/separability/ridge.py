"""The ridge: each row's optimum λ*, and the slope at which it moves with α."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from lrwd_sweep.science.separability.bootstrap import Estimate, t95
from lrwd_sweep.science.surface import ROUNDING, Bool, Float, median

MIN_ROWS = 3
MIN_ROWS_OF_INTERVAL = 5
REACH = 2  # neighbours on either side whose curvatures are smoothed
OCTAVES = 2.0  # a window reaches as far to either side of the ridge
_STEPS = 6  # of the window after the line; it settles in two or three
_SETTLED = 0.005  # change of the slope
_STEEPEST = 4.0  # the window follows no steeper line
_MOST = 1000.0  # octaves of λ* either way; floats hold 1,023
_LEVERAGE = 0.85  # a row that determines its own fitted value further than this counts as if it did not


@dataclass(frozen=True, eq=False)
class Minima:
    """The interior minimum of every row of every resample."""

    position: Float  # (S, I) l*, in octaves; 0 if there is none
    curvature: Float  # (S, I) second derivative in the metric's units per octave²; 0 if there is none

    @classmethod
    def joined(cls, parts: Iterable[Minima]) -> Minima:
        """Join the minima of all parts' resamples, in order."""
        position, curvature = zip(*((part.position, part.curvature) for part in parts), strict=True)
        return cls(np.concatenate(position), np.concatenate(curvature))


def row_minima(
    y: Float,  # (S, I, J), infinite if the cell is out
    axis: Float,  # (J,) l = log2 λ, strictly ascending, any spacing
) -> Minima:
    """Fit the parabola through each row's smallest cell and its two neighbours, and return its vertex.

    A minimum is interior if both neighbours count. With abscissae l₋, l₀, l₊ and divided differences
    d₋ = (y₀ − y₋)/(l₀ − l₋), d₊ = (y₊ − y₀)/(l₊ − l₀): c = 2 (d₊ − d₋)/(l₊ − l₋) and
    l* = (l₋ + l₀)/2 − d₋/c. A row that is flat to rounding has no minimum.
    """
    columns = y.shape[2]
    if columns < 3:
        nothing = np.zeros(y.shape[:2])
        return Minima(nothing, nothing)
    lowest = y.argmin(axis=2)
    centre = lowest.clip(1, columns - 2)
    left, middle, right = (
        np.take_along_axis(y, (centre + step)[..., None], axis=2)[..., 0] for step in (-1, 0, 1)
    )
    interior = (lowest == centre) & np.isfinite(left) & np.isfinite(middle) & np.isfinite(right)
    left, middle, right = (np.where(interior, value, 0.0) for value in (left, middle, right))
    before, after = (middle - left), (right - middle)
    size = np.maximum(np.abs(left), np.abs(right))
    interior &= after - before > 2 * ROUNDING * size
    slope_before = before / (axis[centre] - axis[centre - 1])
    slope_after = after / (axis[centre + 1] - axis[centre])
    curvature = 2 * (slope_after - slope_before) / (axis[centre + 1] - axis[centre - 1])
    curvature = np.where(interior, curvature, 1.0)
    position = (axis[centre - 1] + axis[centre]) / 2 - slope_before / curvature
    return Minima(np.where(interior, position, 0.0), np.where(interior, curvature, 0.0))


@dataclass(frozen=True, eq=False)
class RidgeLine:
    """The least-squares line l* = height + slope · (a − centre) of every resample; NaN if undefined.

    Slope: octaves of λ per octave of α. Any real number: 0 separable, −1 only the product αλ matters, +1
    only the ratio. Invariant to shifting either axis and to y → cy + d with c > 0; under w = λ/α it becomes
    s − 1 exactly. On an exact quadratic s = −H_al/H_ll. The reverse slope s′ = d a*/d l is the slope of the
    transposed surface.

    It misleads if the ridge bends (one number for two slopes), if the ridge leaves the lattice (rows whose
    optimum is just outside enter only when noise pulls it in, which draws s towards 0), and on a metric in
    coarse steps (ties go to the smaller index).
    """

    minima: Minima  # (S, I) to which it is fitted
    slope: Float  # (S,) s = d l*/d a
    centre: float  # a, the weighted mean of the sample's rows, where the height is known best
    height: Float  # (S,) l* at the centre, octaves
    bow: Float  # (S,) q A²/4 of the parabola with second-order coefficient q over the A octaves of the rows

    @classmethod
    def fit(
        cls,
        minima: Minima,
        axis: Float,  # (I,) a = log2 α
        rows: Bool,  # (I,) rows with a cell in the basin
    ) -> RidgeLine:
        """Fit lines with weight c̄² to at least three rows, and parabolas to at least four.

        c̄ is the curvature smoothed over neighbouring rows, see `smoothed_curvature`; a row without an
        interior minimum has no weight. Var l* ∝ 1/c², but c from three cells is nearly as noisy as l*, so
        weights c² would let a lucky row decide. Every resample has weights of its own: on a ridge that bends
        they move the slope, and weights held fixed at the sample's made the interval a quarter too short.

        The bow is how far the middle of the ridge lies below the chord of its ends, in octaves of λ: 0 for a
        straight ridge, below 0 if its ends bend to smaller λ.
        """
        weight = _weights(minima, rows)
        slope, middle, height, da = _lines(minima.position, weight, axis)
        carrying = axis[weight[0] > 0]
        centre = float(middle[0])
        height = height + slope * (centre - middle)
        q, _ = _bend(minima.position, weight, da)
        reach = float(np.ptp(carrying)) if carrying.size else 0.0
        return cls(minima, slope, centre, height, q * reach**2 / 4)


def away_from_ends(
    minima: Minima,
    across: Float,  # (J,) the axis of the minima
    axis: Float,  # (I,) the axis of the rows
    rows: Bool,  # (I,) rows with a cell in the basin
) -> Minima:
    """Drop the minima of rows whose ridge comes within half a step of an end of `across`, or leaves it.

    Such a row has an interior minimum only when noise pulls it in, which draws the slope towards 0. The
    ridge is the weighted parabola through the minima, with fewer than five the line; it is fitted anew
    without the rows that it drops. A resample of which fewer than three rows would stay keeps them.
    """
    if len(across) < 3:
        return minima
    every = _weights(minima, rows)
    low, high = (across[0] + across[1]) / 2, (across[-2] + across[-1]) / 2
    slack = ROUNDING * max(abs(low), abs(high)) + 1e-9 * (high - low)
    weight = every
    for _ in range(_STEPS):
        slope, _, height, da = _lines(minima.position, weight, axis)
        q, square = _bend(minima.position, weight, da)
        bends = (np.count_nonzero(weight, axis=1) >= MIN_ROWS_OF_INTERVAL) & np.isfinite(q)
        ridge = height[:, None] + slope[:, None] * da + np.where(bends, q, 0.0)[:, None] * square
        kept = np.where((ridge < low - slack) | (ridge > high + slack), 0.0, every)
        few = np.count_nonzero(kept, axis=1) < MIN_ROWS
        before, weight = weight, np.where(few[:, None], weight, kept)
        if ((weight > 0) == (before > 0)).all():
            break
    return Minima(minima.position, np.where(rows & (weight == 0), 0.0, minima.curvature))


def smoothed_curvature(
    curvature: Float,  # (S, I); 0 if a row has no interior minimum
    rows: Bool,  # (I,) rows with a cell in the basin
) -> Float:
    """Return c̄, the median of the positive curvatures of a row and its two neighbours on either side, (S, I).

    Neighbours are the next rows of the basin, fewer at its ends. 0 outside of the basin, and if none of
    these rows has an interior minimum.

    >>> smoothed_curvature(np.array([[3.0, 1.0, 0.0, 2.0, 9.0, 9.0]]), np.array([True] * 5 + [False]))
    array([[2. , 2. , 2.5, 2. , 5.5, 0. ]])
    """
    smooth = np.zeros_like(curvature)
    if not rows.any():
        return smooth
    found = np.where(curvature[:, rows] > 0, curvature[:, rows], np.inf)
    padded = np.pad(found, ((0, 0), (REACH, REACH)), constant_values=np.inf)
    near = np.sort(np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=1), axis=2)
    count = np.isfinite(near).sum(axis=2, keepdims=True)
    lower, upper = (np.take_along_axis(near, at // 2, axis=2)[..., 0] for at in ((count - 1).clip(0), count))
    smooth[:, rows] = np.where(count[..., 0] > 0, (lower + upper) / 2, 0.0)
    return smooth


def slope_from_rows(minima: Minima, axis: Float, rows: Bool) -> Estimate:
    """Return the sample's slope with a 90 % interval from its rows: how straight the ridge is; needs 5 rows.

    HC3 (MacKinnon & White 1985): v = Σ (w_i (a_i−ā) e_i / ((1−h_i) S))², S = Σ w (a−ā)², leverages
    h_i = w_i (1/Σw + (a_i−ā)²/S), 1−h_i ≥ 0.15, and t with ν = max(1/Σq_i² − 1, 1), q_i ∝ (w_i (a_i−ā))².
    The noise of the rows and a ridge that is not straight are in it; what seeds do to all rows is not.
    """
    sample = Minima(minima.position[:1], minima.curvature[:1])
    weight = _weights(sample, rows)
    slope, _, height, da = (x[0] for x in _lines(sample.position, weight, axis))
    w = weight[0]
    carried = int(np.count_nonzero(w))
    if not np.isfinite(slope):
        return Estimate(None, reason="a ridge slope is undetermined")
    if carried < MIN_ROWS_OF_INTERVAL:
        reason = f"{carried} rows carry the ridge, an interval from rows needs {MIN_ROWS_OF_INTERVAL}"
        return Estimate(float(slope), reason=reason)
    spread = w @ da**2
    leverage = np.minimum(w * (1 / w.sum() + da**2 / spread), _LEVERAGE)
    residual = np.where(w > 0, sample.position[0] - height - slope * da, 0.0) / (1 - leverage)
    variance = float((((w * da * residual) / spread) ** 2).sum())
    q = (w * da) ** 2 / ((w * da) ** 2).sum()
    half = t95(max(1 / float(q @ q) - 1, 1.0)) * sqrt(variance)
    return Estimate(float(slope), float(slope) - half, float(slope) + half)


def follows_ridge(axis: Float) -> bool:
    """Tell if an axis is fine enough for a window: steps of an octave at most, four of its values."""
    return len(axis) > MIN_ROWS and median(np.diff(axis)) <= OCTAVES / 2


def windowed_minima(
    y: Float,  # (S, I, J), infinite if the cell is out
    axis: Float,  # (J,) l = log2 λ
    log_lr: Float,  # (I,) a = log2 α
    rows: Bool,  # (I,) rows with a cell in the basin
) -> Minima:
    """Fit each row's weighted parabola in a window of two octaves that follows the ridge line.

    The line starts at the rows' three-cell minima. Each step centres every row's window on the line, weights
    its cells by 1 − |l − l_line|/(2 + h) with h the axis' median step, drops rows whose line comes within
    h/2 of an end of the axis or beyond it, and fits the line anew, with weight c̄². A row near an end keeps
    its optimum whether noise pulls it in or not, which the three-cell minimum does not.
    """
    step = median(np.diff(axis))
    found = row_minima(y, axis)
    slope, middle, height, _ = _lines(found.position, _weights(found, rows), log_lr)
    lost = ~np.isfinite(slope)
    for _ in range(_STEPS):
        steep = np.clip(np.where(lost, 0.0, slope), -_STEEPEST, _STEEPEST)
        line = height[:, None] + steep[:, None] * (log_lr - middle[:, None])  # (S, I)
        near = rows & (line >= axis[0] + step / 2) & (line <= axis[-1] - step / 2)
        few = near.sum(axis=1) < MIN_ROWS
        wider = rows & (line >= axis[0] - step / 2) & (line <= axis[-1] + step / 2)
        near = np.where(few[:, None], wider, near)
        found = _window_minima(y, axis, line, step)
        found = Minima(found.position, np.where(near & ~lost[:, None], found.curvature, 0.0))
        before = slope
        slope, middle, height, _ = _lines(found.position, _weights(found, rows), log_lr)
        lost |= ~np.isfinite(slope)
        if (lost | (np.abs(slope - before) < _SETTLED)).all():
            break
    return Minima(found.position, np.where(lost[:, None], 0.0, found.curvature))


def _window_minima(y: Float, axis: Float, line: Float, step: float) -> Minima:
    """Return the vertex of every row's weighted parabola in the window around `line` (S, I)."""
    x = axis - line[..., None]  # (S, I, J)
    inside = np.isfinite(y)
    w = np.where(inside, np.clip(1 - np.abs(x) / (OCTAVES + step), 0.0, None), 0.0)
    v = np.where(inside, y, 0.0)
    v = v - ((w * v).sum(axis=2) / _above_0(w.sum(axis=2)))[..., None]
    wx, wxx = w * x, w * x * x
    s0, s1, s2, s3, s4 = (part.sum(axis=2) for part in (w, wx, wxx, wxx * x, wxx * x * x))
    t0, t1, t2 = ((part * v).sum(axis=2) for part in (w, wx, wxx))
    m0, m1, m2 = s1 * s3 - s2**2, s1 * s2 - s0 * s3, s0 * s2 - s1**2  # cofactors of the normal equations
    determinant = s2 * m0 + s3 * m1 + s4 * m2
    linear = (s2 * s3 - s1 * s4) * t0 + (s0 * s4 - s2**2) * t1 + m1 * t2  # Cramer's numerators
    quadratic = m0 * t0 + m1 * t1 + m2 * t2
    bowl = (np.count_nonzero(w, axis=2) > MIN_ROWS) & (determinant > 0)
    bowl &= quadratic > ROUNDING * determinant * np.abs(v).max(axis=2, initial=0.0)
    shift = -linear / np.where(bowl, 2 * quadratic, 1.0)
    reach = OCTAVES - step / 2
    curvature = np.where(bowl, 2 * quadratic / np.where(bowl, determinant, 1.0), 0.0)
    return Minima(np.where(bowl, line + np.clip(shift, -reach, reach), 0.0), curvature)


def contour_slope(
    y: Float,  # (S, I, J), infinite if the cell is out
    axis: Float,  # (J,) l = log2 λ
    log_lr: Float,  # (I,) a = log2 α
    tolerance: float,  # τ of the basin, in the metric's units
) -> Float:
    """Return the slope on a of each row's largest λ with y ≤ y_min + τ, interpolated in l, (S,).

    Octaves per octave; NaN with fewer than three rows whose contour crosses between two cells that count.
    It describes the wall of the basin, not its optimum.
    """
    limit = y.min(axis=(1, 2), initial=np.inf)[:, None] + tolerance
    below = y <= limit[..., None]
    last = y.shape[2] - 1 - below[..., ::-1].argmax(axis=2)  # (S, I)
    after = np.minimum(last + 1, y.shape[2] - 1)
    here, there = (np.take_along_axis(y, at[..., None], axis=2)[..., 0] for at in (last, after))
    crosses = below.any(axis=2) & (after > last) & np.isfinite(there)
    rise = np.where(crosses, there - here, 1.0)
    part = np.where(crosses, limit - here, 0.0) / rise
    position = axis[last] + part * (axis[after] - axis[last])
    return _lines(np.where(crosses, position, 0.0), crosses.astype(np.float64), log_lr)[0]


@dataclass(frozen=True, slots=True)
class RidgeTimescale:
    """τ* of the ridge: over how much of the run its decay averages the updates, where η = 1."""

    lr: float  # α at which it holds; at every α if the ridge is separable in the independent λ
    steps: Estimate
    epochs: Estimate
    share: Estimate  # of the run


@dataclass(frozen=True, slots=True)
class RidgeCentre:
    """The point of the ridge that is known best, with the interval of its λ*."""

    log_lr: float  # a, log2 α
    log_decay: Estimate  # l*, log2 of the number on the decay axis

    def timescale(
        self,
        steps: Callable[[float, float], float | None],  # (α, number on the decay axis) → τ in steps
        steps_per_epoch: float,
        epochs: float,
    ) -> RidgeTimescale:
        """Convert the ridge's λ* and the ends of its interval into τ* = 1/λ*.

        For the independent rule "separable in λ" is the claim of Wang & Aitchison (2025) and Bergsma et al.
        (2025) that τ* does not depend on α.
        """
        lr, found = 2.0**self.log_lr, self.log_decay
        shortest, value, longest = (
            None if l_star is None else steps(lr, 2.0 ** min(max(l_star, -_MOST), _MOST))
            for l_star in (found.high, found.value, found.low)
        )
        reason = found.reason
        if value is None:
            reason = reason or "the decay has no time scale"
        elif shortest is None or longest is None:
            shortest = longest = None
        tau, run = Estimate(value, shortest, longest, reason), steps_per_epoch * epochs
        in_epochs = tau.mapped(lambda steps: steps / steps_per_epoch)
        return RidgeTimescale(lr, tau, in_epochs, tau.mapped(lambda steps: steps / run))


def _weights(minima: Minima, rows: Bool) -> Float:
    """Weigh rows by c̄², 1 at most, and those without a minimum by 0, (S, I)."""
    smooth = smoothed_curvature(minima.curvature, rows)
    smooth = smooth / np.maximum(smooth.max(axis=1, keepdims=True, initial=0.0), np.finfo(float).tiny)
    return np.where(minima.curvature > 0, smooth**2, 0.0)


def _lines(position: Float, weight: Float, axis: Float) -> tuple[Float, Float, Float, Float]:
    """Fit weighted lines to (S, I) positions: slopes, NaN below 3 rows, ā, l̄, (S,), and a − ā, (S, I)."""
    enough = np.count_nonzero(weight, axis=1) >= MIN_ROWS
    total = np.where(enough, weight.sum(axis=1), 1.0)
    middle = (weight @ axis) / total
    da = axis - middle[:, None]
    spread = (weight * da**2).sum(axis=1)
    enough &= spread > 0
    slope = (weight * da * position).sum(axis=1) / np.where(enough, spread, 1.0)
    height = (weight * position).sum(axis=1) / total
    return np.where(enough, slope, np.nan), middle, np.where(enough, height, np.nan), da


def _bend(position: Float, weight: Float, da: Float) -> tuple[Float, Float]:
    """Return the parabolas' second-order coefficients, (S,), NaN below 4 rows, and their terms, (S, I).

    The terms are (a − ā)² less its weighted projection on the line.
    """
    total, spread = weight.sum(axis=1), (weight * da**2).sum(axis=1)
    square = da**2 - (spread / _above_0(total))[:, None]
    square = square - ((weight * da * square).sum(axis=1) / _above_0(spread))[:, None] * da
    size = (weight * square**2).sum(axis=1)
    bends = (np.count_nonzero(weight, axis=1) > MIN_ROWS) & (size > 0)
    q = (weight * square * position).sum(axis=1) / np.where(bends, size, 1.0)
    return np.where(bends, q, np.nan), square


def _above_0(x: Float) -> Float:
    return np.where(x > 0, x, 1.0)

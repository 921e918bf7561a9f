"""Every measure of separability as rows of a table: for a terminal, markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import NOTHING, Row, alike, estimate_text
from lrwd_sweep.report.view.notation import counted, short_decimal
from lrwd_sweep.science.separability import Estimate, Separability
from lrwd_sweep.science.separability.bootstrap import CROSS_SCORED_SEEDS


def separability_rows(results: Sequence[Result]) -> list[Row]:
    """List every measure of separability of each study, with its interval or the reason for none."""
    found = [_without_repeated_reasons(result.separability) for result in results]

    def row(label: str, show: Callable[[Separability], str]) -> Row:
        return label, *map(show, found)

    def verdict_at(size: float) -> Callable[[Separability], str]:
        return lambda s: next((str(other.verdict) for other in s.robustness if other.basin == size), NOTHING)

    def slope_as(rule: str) -> Callable[[Separability], str]:
        return lambda s: NOTHING if (x := s.slope_by_convention.get(rule)) is None else alike([x], 2)[0]

    def basin(s: Separability) -> str:
        if s.basin_tolerance is None:
            return NOTHING
        return f"{int(np.sum(s.basin))} cells within {short_decimal(s.basin_tolerance)} of the best"

    no_ridge = any(s.ridge_slope.value is None and s.contour_slope.value is not None for s in found)
    sizes = dict.fromkeys(other.basin for s in found for other in s.robustness)
    rules = dict.fromkeys(rule for s in found for rule in s.slope_by_convention)
    rows = [
        row("verdict", lambda s: str(s.verdict)),
        row("  margin", _margin),
        *([row("  its interval allows", _allowed)] if any(s.allowed for s in found) else []),
        row("by the point estimate", lambda s: str(s.point_verdict)),
        *(row(f"  with the basin at {size:.3g}", verdict_at(size)) for size in sizes),
        row("ridge slope s", lambda s: estimate_text(s.ridge_slope)),
        row("  from rows", lambda s: str(s.ridge_rows)),
        row("  with their interval", lambda s: _short(s.slope_from_rows)),
        *([row("  of three-cell minima", _three_cells)] if any(s.windowed for s in found) else []),
        row("effect of λ within rows", lambda s: s.noise_test.text if s.noise_test else NOTHING),
        *(row(f"  as {rule}", slope_as(rule)) for rule in rules),
        row("bow of the ridge, octaves", lambda s: _short(s.bow)),
        *([row("contour slope", lambda s: _short(s.contour_slope))] if no_ridge else []),
        *([row("interaction contrast", _contrast)] if any(s.contrast for s in found) else []),
        ("τ* of the ridge, η = 1", *map(_timescale, results)),
        row("reverse slope s′", lambda s: estimate_text(s.reverse_slope)),
        row("curvature coupling ρ", lambda s: estimate_text(s.curvature_coupling)),
        *_regret_rows(found),
        *_cost_rows(found),
        ("best value, new seeds", *(_short(result.expected_best, None) for result in results)),
        row("interaction share", lambda s: estimate_text(_clipped(s.interaction_share))),
        row("top-10 tilt", lambda s: estimate_text(s.top10_tilt)),
        row("basin", basin),
    ]
    if any(result.surface.weight_decay[0] == 0 for result in results):
        gains = (
            NOTHING if result.surface.weight_decay[0] > 0 else estimate_text(s.baseline_gain, None)
            for result, s in zip(results, found, strict=True)
        )
        rows.append(("gain over λ = 0", *gains))
    if any(s.reason for s in found):
        rows.append(row("remark", lambda s: s.reason or NOTHING))
    return rows


def _without_repeated_reasons(found: Separability) -> Separability:
    """Drop the reasons that the remark gives anyway, as for everything with too few cells."""
    names = ("ridge_slope", "reverse_slope", "curvature_coupling", "interaction_share", "top10_tilt")
    estimates: dict[str, Estimate] = {name: getattr(found, name) for name in names}
    shorter: dict[str, Any] = {
        name: replace(estimate, reason="")
        for name, estimate in estimates.items()
        if estimate.value is None and (estimate.reason in found.reason or found.basin_tolerance is None)
    }
    return replace(found, **shorter)


def _clipped(share: Estimate) -> Estimate:
    """Clip a share to [0, 1], where it has a meaning; noise scatters the estimate beyond."""
    value, low, high = (
        None if x is None else min(max(x, 0.0), 1.0) for x in (share.value, share.low, share.high)
    )
    return replace(share, value=value, low=low, high=high)


def _regret_rows(found: Sequence[Separability]) -> list[Row]:
    """List the transfer regret by distance, then on which seeds it was scored."""
    tables = [{regret.octaves: regret for regret in s.transfer_regret} for s in found]
    rows: list[Row] = []
    for octaves in sorted({octaves for table in tables for octaves in table}):
        entries = []
        for regret in (table.get(octaves) for table in tables):
            if regret is None:
                entries.append(NOTHING)
                continue
            out = f"; {regret.pairs_out} pairs out" * bool(regret.pairs_out)
            entries.append(estimate_text(regret.estimate, None) + out)
        rows.append((f"transfer regret, {counted(octaves, 'octave')}", *entries))
    if rows:
        in_sample = f"in sample: no interval below {CROSS_SCORED_SEEDS} seeds"
        scored = (
            dict.fromkeys(in_sample if r.in_sample else "on the other seeds" for r in table.values())
            for table in tables
        )
        rows.append(("  scored", *map(" / ".join, scored)))
    return rows


def _short(estimate: Estimate, places: int | None = 2) -> str:
    """Write value and interval without remarks, a dash without a value."""
    return NOTHING if estimate.value is None else estimate_text(replace(estimate, reason=""), places)


def _margin(found: Separability) -> str:
    octaves = counted(float(f"{found.margin_octaves:.2g}"), "octave")
    return f"±{found.margin:g}: λ* moves by at most {octaves}"


def _allowed(found: Separability) -> str:
    if not found.allowed:
        return NOTHING
    text = " or ".join(found.allowed)
    if found.too_near_margin:
        return f"{text}; too near the margin for any number of seeds"
    seeds = found.seeds_to_settle
    return text if seeds is None else f"{text}; about {seeds} seeds would tell"


def _three_cells(found: Separability) -> str:
    return _short(found.three_cell_slope) if found.windowed else NOTHING


def _contrast(found: Separability) -> str:
    """Write how much costlier the higher α makes the higher λ, and how far apart they are."""
    if found.contrast is None:
        return NOTHING
    lr, decay = (float(f"{octaves:.2g}") for octaves in found.contrast.octaves)
    return f"{_short(found.contrast.estimate, None)} over {lr:g} × {decay:g} octaves"


def _timescale(result: Result) -> str:
    """Write τ* in steps, in epochs if they are known, and as a share of the run."""
    tau = result.timescale
    if tau is None or tau.steps.value is None:
        return NOTHING if tau is None else tau.steps.reason or NOTHING
    steps, epochs, share = (_rough(each) for each in (tau.steps, tau.epochs, tau.share))
    in_epochs = "" if tau.epochs.value is None else f"{epochs} epochs, "
    return f"{steps} steps, {in_epochs}{share} of the run"


def _rough(estimate: Estimate) -> str:
    value, low, high = (
        None if x is None else short_decimal(x, 2) for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]" if low is not None and high is not None else str(value)


def _cost_rows(found: Sequence[Separability]) -> list[Row]:
    """List the costs of tuning one at a time and of a wrong learning rate, in the metric's units."""
    rows = []
    for first, label in (("lr", "α first"), ("weight_decay", "λ first")):
        regrets = [next((r for r in s.sequential_regret if r.first == first), None) for s in found]
        texts = (NOTHING if regret is None else _cost(regret.estimate) for regret in regrets)
        rows.append((f"tuning one at a time, {label}", *texts))
    known = [s.lr_sensitivity for s in found]
    for name, label in (
        ("fixed", "a wrong α, λ kept"),
        ("tuned", "  λ retuned"),
        ("difference", "  gain of that"),
    ):
        write = _cost if name == "fixed" else lambda estimate: _short(estimate, None)
        texts = (NOTHING if each is None else write(getattr(each, name)) for each in known)
        rows.append((label, *texts))
    return rows


def _cost(estimate: Estimate) -> str:
    """Write a cost in the metric's units, a dash and the reason without one."""
    return f"{NOTHING} ({estimate.reason})" if estimate.value is None else estimate_text(estimate, None)

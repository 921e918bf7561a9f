"""Studies, comparisons and recommended cells in words and tables: rows of a label and one entry per study."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrwd_sweep.report.recommend import Recommendations, Recommended
from lrwd_sweep.report.recommend.code import CodeLine
from lrwd_sweep.report.result import Candidate, ComparedResults, Result, at_cap, titles
from lrwd_sweep.report.view.notation import (
    NEVER,
    alike,
    counted,
    estimate_text,
    lattice_value,
    plain,
    short_decimal,
    with_error,
)
from lrwd_sweep.report.view.tiles import runs_of
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import WD_RATIO
from lrwd_sweep.science.refinement import Left, Refinement
from lrwd_sweep.science.separability import Estimate, Separability
from lrwd_sweep.science.separability.bootstrap import CROSS_SCORED_SEEDS
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Direction, says_higher
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import FIELDS

Row = tuple[str, ...]  # a label and its entries

NOTHING = "–"
LEFT = {
    Left.COLUMN: "away from the best decay of the row",
    Left.ROW: "in a row outside the basin",
    Left.BUDGET: "beyond --max-runs",
}


def title(result: Result, among: Sequence[Result]) -> str:
    """Name the optimizer, and the differences from other studies of the same optimizer."""
    return plain(titles(among)[list(among).index(result)] if result in among else result.spec.title)


def task_text(result: Result) -> str:
    """Describe the task, and how much of the study is trained."""
    spec, surface, counts = result.spec, result.surface, result.surface.counts()
    parts = []
    if (t := spec.task) is not None:
        parts.append(
            f"{t.data}, {t.net}, {t.schedule} schedule, {counted(t.epochs, 'epoch')}, batch {t.batch_size}"
        )
        parts.append(", ".join(_particulars(spec)))
    if spec.command is not None:
        parts.append(plain(spec.command.text))
    if result.snapshot is not None:
        parts.append(str(result.snapshot))
    parts.append(f"{counted(counts['cells'], 'cell')} × {counted(len(surface.seeds), 'seed')}")
    if result.refinement is not None:
        parts.append(_refinement_text(result.refinement))
        counts |= {CellStatus.MISSING.value: 0}
    elif CellStatus.MISSING.value in surface.lanes:
        parts.append(runs_of([surface]))
    parts.append(", ".join(f"{n} {status}" for status, n in counts.items() if n and status != "cells"))
    parts.append(", ".join(_direction_text(result)))
    return "; ".join(filter(None, parts))


def _particulars(spec: StudySpec) -> Iterator[str]:
    """Describe the task's deviations from its defaults, and the reading of the user's byte images."""
    images = None if spec.task is None else spec.task.standardize
    if images is not None:
        yield f"byte images {'standardised' if images else 'as given'}"
    for name, value in spec.particulars.items():
        yield FIELDS[name].words.format(value, epochs=counted(value, "epoch") if type(value) is int else "")


def _refinement_text(found: Refinement) -> str:
    """Count the runs of a refined lattice, and its cells that were never trained by the reason."""
    text = f"refined: {found.asked.sum() - found.todo.sum()} of {counted(found.asked.size, 'run')}"
    if not found.left:
        return text
    counts = Counter(found.left.values())
    reasons = ", ".join(f"{counts[left]} {why}" for left, why in LEFT.items() if counts[left])
    return f"{text}, {counted(len(found.left), 'cell')} {NEVER} ({reasons})"


def _direction_text(result: Result) -> Iterator[str]:
    """Say which end of the metric is better, unless it is the lower as the name implies; and the cap."""
    surface, metric = result.surface, plain(result.surface.metric)
    if surface.direction is Direction.MAXIMIZE:
        yield f"a higher {metric} is better"
    elif says_higher(surface.metric):
        yield f"a lower {metric} is better"
    if result.spec.given_cap is not None:
        yield f"cells {at_cap(result, surface)} are out"


def tensors(result: Result) -> str:
    """Say which parameters decay, as the training study recorded it."""
    t = result.spec.task
    return "which tensors decay is not stored" if t is None or not t.tensors else t.tensors


def place_text(result: Result, cell: Cell) -> str:
    """Write a cell, as in `α 2⁻⁷ = 0.00781, λ 2⁻⁵ = 0.0312`."""
    return f"α {lattice_value(cell.lr)}, {result.spec.optimizer.symbol} {lattice_value(cell.weight_decay)}"


def averaging(result: Result, cell: Cell) -> str:
    """Write the time over which decay averages a cell's updates, at η = 1; empty without decay.

    A range if nothing counted how often SGDP or AdamP projected a step: decay is ten times slower there.
    """
    decay, t = result.conventions(cell), result.spec.task
    unit, size = ("steps", 1) if t is None else ("epochs", t.steps_per_epoch)
    ends = (decay.timescale_steps, decay.timescale_steps_projected)
    text = " to ".join(short_decimal(steps / size) for steps in ends if steps is not None)
    run = result.spec.run_steps
    share = f", {ends[0] / run:.2g} of the run" if run and ends[0] is not None else ""
    return f"{text} {unit.removesuffix('s') if text == '1' else unit}{share}" if text else ""


def best_rows(results: Sequence[Result]) -> list[Row]:
    """List the best cell of each study: place, value, and decay in every convention."""
    found = [(result, next(iter(result.ranked(1)), None)) for result in results]

    def row(label: str, show: Callable[[Result, Candidate], str]) -> Row:
        return label, *(NOTHING if best is None else show(result, best) for result, best in found)

    def converted(label: str, name: str) -> Row:
        return row(f"  {label}", lambda result, best: _decimal(getattr(result.conventions(best.cell), name)))

    def projected(result: Result, best: Candidate) -> str:
        share = result.projected(best.cell)
        return NOTHING if share is None else f"in {share:.0%} of steps, else 1"

    families = [result.spec.optimizer.family for result in results]
    metrics = dict.fromkeys(plain(result.surface.metric) for result in results)
    return [
        row("learning rate α", lambda _, best: lattice_value(best.cell.lr)),
        row("weight decay as swept", _decay),
        converted("λ independent", "independent"),
        converted("w lr-scaled", "lr_scaled"),
        converted("λ′ coupled", "coupled"),
        converted("λ normalised", "normalized"),
        row("averaging time scale, η = 1", lambda result, best: averaging(result, best.cell) or NOTHING),
        *(
            [row(f"κ: {WD_RATIO} where Π acts", projected)]
            if any(family and family.projected for family in families)
            else []
        ),
        row(" / ".join(metrics), lambda _, best: with_error(best.value, best.sem)),
        row("on the test split", lambda _, best: _decimal(best.test_value, 4)),
        row("on the lattice's edge", lambda result, _: ", ".join(result.separability.on_edge) or "no"),
    ]


def _decimal(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else short_decimal(value, digits)


def _decay(result: Result, point: Candidate) -> str:
    return f"{result.spec.optimizer.symbol} {lattice_value(point.cell.weight_decay)}"


def candidate_head(result: Result) -> Row:
    """Return the headings of `candidate_rows` after the rank."""
    return "learning rate α", "weight decay", plain(result.surface.metric), "test split"


def candidate_rows(result: Result, count: int = 10) -> list[Row]:
    """List the best points of a study: rank, α, decay, value ± standard error, test value."""
    rows: list[Row] = []
    for k, point in enumerate(result.ranked(count), 1):
        value, test = with_error(point.value, point.sem), _decimal(point.test_value, 4)
        rows.append((str(k), lattice_value(point.cell.lr), _decay(result, point), value, test))
    return rows


def comparison_rows(compared: ComparedResults) -> list[Row]:
    """List the paired differences of two studies."""
    found = compared.comparison
    higher = " (higher is better)" * (compared.a.surface.direction is Direction.MAXIMIZE)
    return [
        ("slope difference", estimate_text(found.slope_difference)),
        ("transfer regret ratio", estimate_text(found.regret_ratio, None)),
        (f"difference of the best values{higher}", estimate_text(found.best_difference, None)),
    ]


def separability_rows(results: Sequence[Result]) -> list[Row]:
    """List every measure of separability of each study, with its interval or the reason for none."""
    found = [_without_repeated_reasons(result.separability) for result in results]

    def row(label: str, show: Callable[..., str], *of: Any) -> Row:
        return label, *(show(s, *of) for s in found)

    no_ridge = any(s.ridge_slope.value is None and s.contour_slope.value is not None for s in found)
    sizes = dict.fromkeys(other.basin for s in found for other in s.robustness)
    rules = dict.fromkeys(rule for s in found for rule in s.slope_by_convention)
    distances = sorted({regret.octaves for s in found for regret in s.transfer_regret})
    has_baseline = [result.surface.weight_decay[0] == 0 for result in results]
    rows = [
        row("verdict", lambda s: str(s.verdict)),
        row("  margin", _margin),
        row("  its interval allows", _allowed),
        row("by the point estimate", lambda s: str(s.point_verdict)),
        *(row(f"  with the basin at {size:.3g}", _verdict_at, size) for size in sizes),
        row("ridge slope s", lambda s: estimate_text(s.ridge_slope)),
        row("  from rows", lambda s: str(s.ridge_rows)),
        row("  with their interval", lambda s: _short(s.slope_from_rows)),
        row("  of three-cell minima", lambda s: _short(s.three_cell_slope) if s.windowed else NOTHING),
        row("effect of λ within rows", lambda s: s.noise_test.text if s.noise_test else NOTHING),
        *(row(f"  as {rule}", _slope_as, rule) for rule in rules),
        row("bow of the ridge, octaves", lambda s: _short(s.bow)),
        row("contour slope", lambda s: _short(s.contour_slope)),
        row("interaction contrast", _contrast),
        ("τ* of the ridge, η = 1", *map(_timescale, results)),
        row("reverse slope s′", lambda s: estimate_text(s.reverse_slope)),
        row("curvature coupling ρ", lambda s: estimate_text(s.curvature_coupling)),
        *(row(f"transfer regret, {counted(octaves, 'octave')}", _regret, octaves) for octaves in distances),
        row("  scored", _scored),
        row("tuning one at a time, α first", _tuned_first, "lr"),
        row("tuning one at a time, λ first", _tuned_first, "weight_decay"),
        row("a wrong α, λ kept", lambda s: _cost(s.lr_sensitivity and s.lr_sensitivity.fixed)),
        row("  λ retuned", lambda s: _short(s.lr_sensitivity and s.lr_sensitivity.tuned, None)),
        row("  gain of that", lambda s: _short(s.lr_sensitivity and s.lr_sensitivity.difference, None)),
        ("best value, new seeds", *(_short(result.expected_best, None) for result in results)),
        row("interaction share", _share),
        row("top-10 tilt", lambda s: estimate_text(s.top10_tilt)),
        row("basin", _basin),
        ("gain over λ = 0", *map(_gain, found, has_baseline)),
        row("remark", lambda s: s.reason or NOTHING),
    ]
    absent = {
        "  its interval allows": not any(s.allowed for s in found),
        "  of three-cell minima": not any(s.windowed for s in found),
        "contour slope": not no_ridge,
        "interaction contrast": not any(s.contrast for s in found),
        "  scored": not distances,
        "gain over λ = 0": not any(has_baseline),
        "remark": not any(s.reason for s in found),
    }
    return [row for row in rows if not absent.get(row[0])]


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


def _short(estimate: Estimate | None, places: int | None = 2) -> str:
    """Write value and interval without remarks, a dash without a value."""
    if estimate is None or estimate.value is None:
        return NOTHING
    return estimate_text(replace(estimate, reason=""), places)


def _cost(estimate: Estimate | None) -> str:
    """Write a cost in the metric's units, a dash and the reason without one."""
    if estimate is None:
        return NOTHING
    return f"{NOTHING} ({estimate.reason})" if estimate.value is None else estimate_text(estimate, None)


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


def _verdict_at(found: Separability, size: float) -> str:
    return next((str(other.verdict) for other in found.robustness if other.basin == size), NOTHING)


def _slope_as(found: Separability, rule: str) -> str:
    slope = found.slope_by_convention.get(rule)
    return NOTHING if slope is None else alike([slope], 2)[0]


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
    epochs = "" if tau.epochs.value is None else f"{_rough(tau.epochs)} epochs, "
    return f"{_rough(tau.steps)} steps, {epochs}{_rough(tau.share)} of the run"


def _rough(estimate: Estimate) -> str:
    value, low, high = (
        None if x is None else short_decimal(x, 2) for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]" if low is not None and high is not None else str(value)


def _regret(found: Separability, octaves: float) -> str:
    """Write the transfer regret at a distance, and the pairs that it leaves out."""
    for regret in found.transfer_regret:
        if regret.octaves == octaves:
            out = f"; {regret.pairs_out} pairs out" * bool(regret.pairs_out)
            return estimate_text(regret.estimate, None) + out
    return NOTHING


def _scored(found: Separability) -> str:
    """Say on which seeds the transfer regret was scored."""
    in_sample = f"in sample: no interval below {CROSS_SCORED_SEEDS} seeds"
    kinds = (in_sample if regret.in_sample else "on the other seeds" for regret in found.transfer_regret)
    return " / ".join(dict.fromkeys(kinds))


def _tuned_first(found: Separability, first: str) -> str:
    return _cost(next((regret.estimate for regret in found.sequential_regret if regret.first == first), None))


def _share(found: Separability) -> str:
    """Clip the interaction share to [0, 1], where it has a meaning; noise scatters the estimate beyond."""
    share = found.interaction_share
    value, low, high = (
        None if x is None else min(max(x, 0.0), 1.0) for x in (share.value, share.low, share.high)
    )
    return estimate_text(Estimate(value, low, high, share.reason))


def _basin(found: Separability) -> str:
    if found.basin_tolerance is None:
        return NOTHING
    return f"{int(np.sum(found.basin))} cells within {short_decimal(found.basin_tolerance)} of the best"


def _gain(found: Separability, has_baseline: bool) -> str:
    return estimate_text(found.baseline_gain, None) if has_baseline else NOTHING


def headline(result: Result, found: Recommended) -> str:
    """Describe a recommended cell: its place, its value, and the values of its neighbours."""
    symbol, metric = result.spec.optimizer.symbol, plain(result.surface.metric)
    text = (
        f"{found.role}: α = {lattice_value(found.cell.lr)}, {symbol} = "
        f"{lattice_value(found.cell.weight_decay)}; {metric} {short_decimal(found.value, 4)}"
    )
    if found.around is not None:
        mean, worst = (short_decimal(value, 4) for value in (found.around.mean, found.around.worst))
        text += f", with its neighbours {mean} on average, {worst} at worst"
    tau = averaging(result, found.cell)
    return f"{text}; decay averages over {tau} where η = 1" if tau else text


def new_lines(found: Sequence[Recommended]) -> list[list[CodeLine]]:
    """Return the lines of every cell, without the code and remarks of an earlier cell."""
    seen: set[str] = set()
    cells = []
    for cell in found:
        lines = [
            CodeLine("" if line.code in seen else line.code, "" if line.remark in seen else line.remark)
            for line in cell.lines
        ]
        seen |= {text for line in cell.lines for text in (line.code, line.remark)}
        cells.append([line for line in lines if line.code or line.remark])
    return cells


def snippet(result: Result, found: Recommendations) -> str:
    """Write the recommended cells as Python, with everything else in comments."""
    lines: list[str] = []
    for cell, recipe in zip(found.cells, new_lines(found.cells), strict=True):
        lines.append(f"# {headline(result, cell)}")
        for line in recipe:
            lines += [f"# {line.remark}"] * bool(line.remark) + [line.code] * bool(line.code)
    return "\n".join(lines)  # without an empty line, so that it stays one block of markdown

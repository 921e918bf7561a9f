"""What a report says about studies and comparisons, as rows of text: a label and one entry per study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lrwd_sweep.report.result import Candidate, ComparedResults, Result, at_cap, titles
from lrwd_sweep.report.view.legend import runs_of
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, counted, short_decimal
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.science.decay import WD_RATIO
from lrwd_sweep.science.direction import says_higher
from lrwd_sweep.science.lattice import Cell, format_value
from lrwd_sweep.science.separability import Estimate, Separability, TransferRegret
from lrwd_sweep.science.separability.replicates import CROSS_SCORED_SEEDS
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import FIELDS

Row = tuple[str, ...]  # a label and its entries
_NOTHING = "–"


def title(result: Result, among: Sequence[Result]) -> str:
    """The optimizer's name, with what sets the study apart from others of the same optimizer."""
    return plain(titles(among)[list(among).index(result)] if result in among else result.spec.title)


def task_text(result: Result) -> str:
    """What was trained, and how far it is."""
    t = result.spec.task
    parts = []
    if t is not None:
        parts.append(
            f"{t.data}, {t.net}, {t.schedule} schedule, {counted(t.epochs, 'epoch')}, batch {t.batch_size}"
        )
        parts.append(", ".join(_particulars(result.spec)))
    if result.snapshot is not None:
        parts.append(str(result.snapshot))
    counts = result.surface.counts()
    parts.append(f"{counted(counts['cells'], 'cell')} × {counted(len(result.surface.seeds), 'seed')}")
    if CellStatus.MISSING.value in result.surface.lanes:
        parts.append(runs_of([result.surface]))
    parts.append(", ".join(f"{n} {status}" for status, n in counts.items() if n and status != "cells"))
    parts.append(direction_text(result))
    return "; ".join(part for part in parts if part)


def tensors(result: Result) -> str:
    """Which parameters decay, as the study says that trained them."""
    t = result.spec.task
    return "which tensors decay is not stored" if t is None or not t.tensors else t.tensors


def direction_text(result: Result) -> str:
    """Which end of the metric is better, unless it is the lower as the name says; and the cap."""
    surface, parts = result.surface, []
    metric, cap = plain(surface.metric), result.spec.given_cap
    if surface.direction is Direction.MAXIMIZE:
        parts.append(f"a higher {metric} is better")
    elif says_higher(surface.metric):
        parts.append(f"a lower {metric} is better")
    if cap is not None:
        parts.append(f"cells {at_cap(result, surface)} are out")
    return ", ".join(parts)


def _particulars(spec: StudySpec) -> list[str]:
    """What is not as usual in a study's training, and how it reads the user's images of bytes, in words."""
    images = None if spec.task is None else spec.task.standardize
    return [
        *([] if images is None else [f"byte images {'standardised' if images else 'as given'}"]),
        *(
            FIELDS[name].words.format(
                value, epochs=counted(value, "epoch") if name in ("warmup", "t_0") else ""
            )
            for name, value in spec.particulars.items()
        ),
    ]


_MANY_DIGITS = 1e7  # a number as large is written in short


def lattice_value(value: float) -> str:
    """A power of two with its decimal, or the decimal alone."""
    label = axis_labels([value], UNICODE)[0]
    decimal = short_decimal(value)
    return f"{label} = {decimal}" if format_value(value).startswith("2^") else decimal


def with_error(candidate: Candidate) -> str:
    """Value ± standard error, to the error's second digit; absurdly large numbers in short."""
    if candidate.sem is None or candidate.sem == 0:
        return short_decimal(candidate.value, 4)
    if max(abs(candidate.value), candidate.sem) >= _MANY_DIGITS:
        return f"{short_decimal(candidate.value, 4)} ± {short_decimal(candidate.sem, 2)}"
    places = min(max(1 - int(np.floor(np.log10(candidate.sem))), 0), 12)
    return f"{candidate.value:.{places}f} ± {candidate.sem:.{places}f}"


def estimate_text(estimate: Estimate, places: int | None = 2) -> str:
    """Value and 90 % interval to `places` decimals, or why there is none.

    Without `places`, as for numbers in the metric's units, three digits of the largest of the three.
    """
    if estimate.value is None:
        return f"undetermined: {estimate.reason}" if estimate.reason else "undetermined"
    numbers = [x for x in (estimate.value, estimate.low, estimate.high) if x is not None]
    text, *interval = _alike(numbers, places)
    if len(interval) == 2:
        text += f" [{', '.join(interval)}]"
    return text + (f" ({estimate.reason})" if estimate.reason else "")


def _alike(numbers: Sequence[float], places: int | None) -> list[str]:
    """Numbers to the same decimal place, with a true minus and no minus before zero."""
    if places is None:
        largest = max(map(abs, numbers)) or 1.0
        places = 2 - math.floor(math.log10(largest))
        if not 0 <= places <= 7:
            return [short_decimal(number).replace("-", "−", 1) for number in numbers]
    texts = [f"{number:.{places}f}" for number in numbers]
    return [text.replace("-", "−" if text.strip("-0.") else "") for text in texts]


def best_rows(results: Sequence[Result]) -> list[Row]:
    """The best cell of each study: where, how good, and its decay in every convention."""
    return [
        ("learning rate α", *(_of_best(result, _lr) for result in results)),
        ("weight decay as swept", *(_of_best(result, _decay) for result in results)),
        *(
            (f"  {label}", *(_of_best(result, _converted(name)) for result in results))
            for label, name in (
                ("λ independent", "independent"),
                ("w lr-scaled", "lr_scaled"),
                ("λ′ coupled", "coupled"),
                ("λ normalised", "normalized"),
            )
        ),
        ("averaging time scale, η = 1", *(_of_best(result, _timescale) for result in results)),
        *_projected_row(results),
        (_metric_label(results), *(_of_best(result, lambda _, best: with_error(best)) for result in results)),
        ("on the test split", *(_of_best(result, _test) for result in results)),
        ("on the lattice's edge", *(_of_best(result, _edge) for result in results)),
    ]


def _edge(result: Result, _: Candidate) -> str:
    return ", ".join(result.separability.on_edge) or "no"


def _metric_label(results: Sequence[Result]) -> str:
    return " / ".join(dict.fromkeys(plain(result.surface.metric) for result in results))


def _of_best(result: Result, show: Callable[[Result, Candidate], str]) -> str:
    best = result.ranked(1)
    return show(result, best[0]) if best else _NOTHING


def _lr(_: Result, best: Candidate) -> str:
    return lattice_value(best.cell.lr)


def _decay(result: Result, best: Candidate) -> str:
    return f"{result.spec.optimizer.symbol} {lattice_value(best.cell.weight_decay)}"


def _converted(name: str) -> Callable[[Result, Candidate], str]:
    def show(result: Result, best: Candidate) -> str:
        value: float | None = getattr(result.conventions(best.cell), name)
        return _NOTHING if value is None else short_decimal(value)

    return show


def averaging(result: Result, cell: Cell) -> str:
    """Over how long decay averages a cell's updates, where η = 1; empty where it does not.

    A range where nobody counted how often SGDP or AdamP projected: ten times as long where they did.
    """
    decay, t = result.conventions(cell), result.spec.task
    unit, size = ("steps", 1) if t is None else ("epochs", t.steps_per_epoch)
    ends = (decay.timescale_steps, decay.timescale_steps_projected)
    text = " to ".join(short_decimal(steps / size) for steps in ends if steps is not None)
    return f"{text} {unit}" if text else ""


def _timescale(result: Result, best: Candidate) -> str:
    return averaging(result, best.cell) or _NOTHING


def _projected_row(results: Sequence[Result]) -> Iterator[Row]:
    """What κ is in the formulas of SGDP and AdamP, and how often it was not 1."""
    families = [result.spec.optimizer.family for result in results]
    if any(family and family.projected for family in families):
        yield (f"κ: {WD_RATIO} where Π acts", *(_of_best(result, _projected) for result in results))


def _projected(result: Result, best: Candidate) -> str:
    share = result.projected(best.cell)
    return _NOTHING if share is None else f"in {share:.0%} of steps, else 1"


def _test(_: Result, best: Candidate) -> str:
    return _NOTHING if best.test_value is None else short_decimal(best.test_value, 4)


def separability_rows(results: Sequence[Result]) -> list[Row]:
    """Every metric of each study with its interval or its reason."""
    found = [_said_once(result.separability) for result in results]
    rows: list[Row] = [
        ("verdict", *(str(s.verdict) for s in found)),
        ("by the point estimate", *(str(s.point_verdict) for s in found)),
        *(
            (f"  with the basin at {size:.3g}", *(_verdict_at(s, size) for s in found))
            for size in dict.fromkeys(other.basin for s in found for other in s.robustness)
        ),
        ("ridge slope s", *(estimate_text(s.ridge_slope) for s in found)),
        ("  from rows", *(str(s.ridge_rows) for s in found)),
        ("effect of λ within rows", *(s.noise_test.text if s.noise_test else _NOTHING for s in found)),
    ]
    rows += [
        (f"  as {rule}", *(_slope(s.slope_by_convention.get(rule)) for s in found))
        for rule in dict.fromkeys(rule for s in found for rule in s.slope_by_convention)
    ]
    rows += [
        ("reverse slope s′", *(estimate_text(s.reverse_slope) for s in found)),
        ("curvature coupling ρ", *(estimate_text(s.curvature_coupling) for s in found)),
        *_regret_rows(results),
        ("interaction share", *(estimate_text(_clipped(s.interaction_share)) for s in found)),
        ("top-10 tilt", *(estimate_text(s.top10_tilt) for s in found)),
        ("basin", *(_basin(result) for result in results)),
    ]
    if any(result.surface.weight_decay[0] == 0 for result in results):
        rows.append(("gain over λ = 0", *map(_baseline_gain, results)))
    if any(s.reason for s in found):
        rows.append(("remark", *(s.reason or _NOTHING for s in found)))
    return rows


def _said_once(found: Separability) -> Separability:
    """The same without the reasons that its remark gives anyway, as for everything with too few cells."""
    names = ("ridge_slope", "reverse_slope", "curvature_coupling", "interaction_share", "top10_tilt")
    estimates: dict[str, Estimate] = {name: getattr(found, name) for name in names}
    shorter: dict[str, Any] = {
        name: replace(estimate, reason="")
        for name, estimate in estimates.items()
        if estimate.value is None and (estimate.reason in found.reason or found.basin_tolerance is None)
    }
    return replace(found, **shorter)


def _clipped(share: Estimate) -> Estimate:
    """A share within [0, 1], where it means something; noise alone scatters the estimate beyond."""
    value, low, high = (
        None if x is None else min(max(x, 0.0), 1.0) for x in (share.value, share.low, share.high)
    )
    return replace(share, value=value, low=low, high=high)


def _verdict_at(found: Separability, basin: float) -> str:
    return next((str(other.verdict) for other in found.robustness if other.basin == basin), _NOTHING)


def _slope(value: float | None) -> str:
    return _NOTHING if value is None else _alike([value], 2)[0]


def _regret_rows(results: Sequence[Result]) -> list[Row]:
    """Transfer regret by distance."""
    tables = [{regret.octaves: regret for regret in r.separability.transfer_regret} for r in results]
    rows = []
    for octaves in sorted({octaves for table in tables for octaves in table}):
        entries = []
        for table in tables:
            regret = table.get(octaves)
            if regret is None:
                entries.append(_NOTHING)
                continue
            out = f"; {regret.pairs_out} pairs out" * bool(regret.pairs_out)
            entries.append(estimate_text(regret.estimate, None) + out)
        rows.append((f"transfer regret, {counted(octaves, 'octave')}", *entries))
    if rows:
        rows.append(("  scored", *(" / ".join(dict.fromkeys(_scored(table.values()))) for table in tables)))
    return rows


def _scored(regrets: Iterable[TransferRegret]) -> list[str]:
    """Whether λ was chosen and scored on the same seeds."""
    in_sample = f"in sample: no interval below {CROSS_SCORED_SEEDS} seeds"
    return [in_sample if regret.in_sample else "on the other seeds" for regret in regrets]


def _baseline_gain(result: Result) -> str:
    if result.surface.weight_decay[0] > 0:
        return _NOTHING
    return estimate_text(result.separability.baseline_gain, None)


def _basin(result: Result) -> str:
    s = result.separability
    if s.basin_tolerance is None:
        return _NOTHING
    return f"{int(np.sum(s.basin))} cells within {short_decimal(s.basin_tolerance)} of the best"


def comparison_rows(compared: ComparedResults) -> list[Row]:
    """The paired differences of two studies."""
    found = compared.comparison
    higher = " (higher is better)" * (compared.a.surface.direction is Direction.MAXIMIZE)
    return [
        ("slope difference", estimate_text(found.slope_difference)),
        ("transfer regret ratio", estimate_text(found.regret_ratio, None)),
        (f"difference of the best values{higher}", estimate_text(found.best_difference, None)),
    ]


def candidate_rows(result: Result, count: int = 10) -> list[Row]:
    """The best points of a study: rank, α, decay, value ± standard error, test value."""
    return [
        (str(k), _lr(result, c), _decay(result, c), with_error(c), _test(result, c))
        for k, c in enumerate(result.ranked(count), 1)
    ]

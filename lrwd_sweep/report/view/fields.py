"""The texts of a report about studies, comparisons and gates: rows of a label and one entry per study."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import Candidate, ComparedResults, Result, at_cap, titles
from lrwd_sweep.report.view.notation import (
    NEVER,
    UNICODE,
    axes_are_decimal,
    axis_labels,
    counted,
    plain,
    short_decimal,
)
from lrwd_sweep.report.view.tiles import runs_of
from lrwd_sweep.science.lattice import Cell, format_value
from lrwd_sweep.science.optimizer import WD_RATIO
from lrwd_sweep.science.refinement import Left, Refinement
from lrwd_sweep.science.separability import Estimate
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Direction, says_higher
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import FIELDS

Row = tuple[str, ...]  # a label and its entries

GATE_HEAD = ("gate", "limit", "study", "value", "result", "basis")
POINT_HEAD = ("learning rate α", "weight decay")  # then the metric, and:
TEST_SPLIT = "test split"
NOTHING = "–"
LEFT = {
    Left.COLUMN: "away from the best decay of the row",
    Left.ROW: "in a row outside the basin",
    Left.BUDGET: "beyond --max-runs",
}
_NAMED = 3  # failed gates in a headline
_MANY_DIGITS = 1e7  # from here on numbers are written with an exponent


def title(result: Result, among: Sequence[Result]) -> str:
    """Name the optimizer, and the differences from other studies of the same optimizer."""
    return plain(titles(among)[list(among).index(result)] if result in among else result.spec.title)


def task_text(result: Result) -> str:
    """Describe the task, and how much of the study is trained."""
    t = result.spec.task
    parts = []
    if t is not None:
        parts.append(
            f"{t.data}, {t.net}, {t.schedule} schedule, {counted(t.epochs, 'epoch')}, batch {t.batch_size}"
        )
        parts.append(", ".join(_particulars(result.spec)))
    if result.spec.command is not None:
        parts.append(plain(result.spec.command.text))
    if result.snapshot is not None:
        parts.append(str(result.snapshot))
    counts = result.surface.counts()
    parts.append(f"{counted(counts['cells'], 'cell')} × {counted(len(result.surface.seeds), 'seed')}")
    if result.refinement is not None:
        parts.append(refinement_text(result.refinement))
        counts |= {CellStatus.MISSING.value: 0}
    elif CellStatus.MISSING.value in result.surface.lanes:
        parts.append(runs_of([result.surface]))
    parts.append(", ".join(f"{n} {status}" for status, n in counts.items() if n and status != "cells"))
    parts.append(_direction_text(result))
    return "; ".join(part for part in parts if part)


def refinement_text(found: Refinement) -> str:
    """Count the runs of a refined lattice, and its cells that were never trained by the reason."""
    text = f"refined: {found.asked.sum() - found.todo.sum()} of {counted(found.asked.size, 'run')}"
    if not found.left:
        return text
    counts = Counter(found.left.values())
    reasons = ", ".join(f"{counts[left]} {why}" for left, why in LEFT.items() if counts[left])
    return f"{text}, {counted(len(found.left), 'cell')} {NEVER} ({reasons})"


def _particulars(spec: StudySpec) -> list[str]:
    """Describe the task's deviations from its defaults, and the reading of the user's byte images."""
    images = None if spec.task is None else spec.task.standardize
    return [
        *([] if images is None else [f"byte images {'standardised' if images else 'as given'}"]),
        *(
            FIELDS[name].words.format(value, epochs=counted(value, "epoch") if type(value) is int else "")
            for name, value in spec.particulars.items()
        ),
    ]


def _direction_text(result: Result) -> str:
    """Say which end of the metric is better, unless it is the lower as the name implies; and the cap."""
    surface, parts = result.surface, []
    metric = plain(surface.metric)
    if surface.direction is Direction.MAXIMIZE:
        parts.append(f"a higher {metric} is better")
    elif says_higher(surface.metric):
        parts.append(f"a lower {metric} is better")
    if result.spec.given_cap is not None:
        parts.append(f"cells {at_cap(result, surface)} are out")
    return ", ".join(parts)


def tensors(result: Result) -> str:
    """Say which parameters decay, as the training study recorded it."""
    t = result.spec.task
    return "which tensors decay is not stored" if t is None or not t.tensors else t.tensors


def lattice_value(value: float) -> str:
    """Write a power of two with its decimal, any other value only as decimal."""
    label, decimal = axis_labels([value], UNICODE)[0], short_decimal(value)
    power = format_value(value).startswith("2^") and not axes_are_decimal()
    return f"{label} = {decimal}" if power else decimal


def place_text(result: Result, cell: Cell) -> str:
    """Write a cell, as in `α 2⁻⁷ = 0.00781, λ 2⁻⁵ = 0.0312`."""
    return f"α {lattice_value(cell.lr)}, {result.spec.optimizer.symbol} {lattice_value(cell.weight_decay)}"


def with_error(candidate: Candidate) -> str:
    """Write value ± standard error, to the error's second digit; absurdly large numbers in short."""
    value, sem = candidate.value, candidate.sem
    if sem is None or sem == 0:
        return short_decimal(value, 4)
    if max(abs(value), sem) >= _MANY_DIGITS:
        return f"{short_decimal(value, 4)} ± {short_decimal(sem, 2)}"
    places = min(max(1 - int(np.floor(np.log10(sem))), 0), 12)
    return f"{value:.{places}f} ± {sem:.{places}f}"


def estimate_text(estimate: Estimate, places: int | None = 2) -> str:
    """Write value and 90 % interval to `places` decimals, or why there is none.

    With `places` None, for numbers in the metric's units, three digits of the largest of the three.
    """
    if estimate.value is None:
        return f"undetermined: {estimate.reason}" if estimate.reason else "undetermined"
    numbers = [x for x in (estimate.value, estimate.low, estimate.high) if x is not None]
    text, *interval = alike(numbers, places)
    if len(interval) == 2:
        text += f" [{', '.join(interval)}]"
    return text + (f" ({estimate.reason})" if estimate.reason else "")


def alike(numbers: Sequence[float], places: int | None) -> list[str]:
    """Write numbers to the same decimal place, with a true minus and no minus before zero."""
    if places is None:
        largest = max(map(abs, numbers)) or 1.0
        places = 2 - math.floor(math.log10(largest))
        if not 0 <= places <= 7:
            return [short_decimal(number).replace("-", "−", 1) for number in numbers]
    texts = [f"{number:.{places}f}" for number in numbers]
    return [text.replace("-", "−" if text.strip("-0.") else "") for text in texts]


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
        row(" / ".join(metrics), lambda _, best: with_error(best)),
        row("on the test split", lambda _, best: _decimal(best.test_value, 4)),
        row("on the lattice's edge", lambda result, _: ", ".join(result.separability.on_edge) or "no"),
    ]


def _decimal(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else short_decimal(value, digits)


def _decay(result: Result, point: Candidate) -> str:
    return f"{result.spec.optimizer.symbol} {lattice_value(point.cell.weight_decay)}"


def candidate_rows(result: Result, count: int = 10) -> list[Row]:
    """List the best points of a study: rank, α, decay, value ± standard error, test value."""
    return [
        (
            str(k),
            lattice_value(point.cell.lr),
            _decay(result, point),
            with_error(point),
            _decimal(point.test_value, 4),
        )
        for k, point in enumerate(result.ranked(count), 1)
    ]


def comparison_rows(compared: ComparedResults) -> list[Row]:
    """List the paired differences of two studies."""
    found = compared.comparison
    higher = " (higher is better)" * (compared.a.surface.direction is Direction.MAXIMIZE)
    return [
        ("slope difference", estimate_text(found.slope_difference)),
        ("transfer regret ratio", estimate_text(found.regret_ratio, None)),
        (f"difference of the best values{higher}", estimate_text(found.best_difference, None)),
    ]


def gate_rows(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> list[Row]:
    """List one row per gate and study, in the columns of GATE_HEAD."""
    names = {result.name: title(result, results) for result in results}
    return [
        (
            outcome.gate,
            _scalar(outcome.limit),
            names.get(outcome.study, plain(outcome.study)),
            gate_value(outcome),
            "passed" if outcome.passed else "FAILED",
            plain(outcome.reason) or NOTHING,
        )
        for outcome in outcomes
    ]


def gate_sentence(outcome: GateOutcome) -> str:
    """Write `gate max-best failed for adamw: 0.146, limit 0.14 (val_loss, standard error 0.0004)`."""
    how = "passed" if outcome.passed else "failed"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    found = f"{gate_value(outcome)}, limit {_scalar(outcome.limit)}{reason}"
    return plain(f"gate {outcome.gate} {how} for {outcome.study}: {found}")


def gate_headline(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> str:
    """Write `1 of 4 gates failed: max-best 0.146 > 0.14 (adamw)`; empty without gates."""
    if not outcomes:
        return ""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    every = counted(len(outcomes), "gate")
    if not failed:
        return f"{len(outcomes)} of {every} passed"
    names = {result.name: title(result, results) for result in results}
    named = [f"{_failure(each)} ({names.get(each.study, plain(each.study))})" for each in failed[:_NAMED]]
    more = [f"{len(failed) - _NAMED} more"] * (len(failed) > _NAMED)
    return f"{len(failed)} of {every} failed: {'; '.join([*named, *more])}"


def _failure(outcome: GateOutcome) -> str:
    """Write how a value misses its limit, as in `max-best 0.146 > 0.14`."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return f"{outcome.gate} undetermined"
    if isinstance(value, str) or isinstance(limit, str):
        return f"{outcome.gate} {plain(str(value))}, not {limit}"
    low = outcome.gate.startswith("min-")
    if value >= limit if low else value <= limit:  # it fails for another reason
        return f"{outcome.gate}: {plain(outcome.reason)}"
    shown = (f"{value:.{digits}g}" for digits in (3, 4, 5))
    short = next((x for x in shown if (float(x) < limit if low else float(x) > limit)), gate_value(outcome))
    return f"{outcome.gate} {short} {'<' if low else '>'} {_scalar(limit)}"


def gate_value(outcome: GateOutcome) -> str:
    """Write the value to six digits, or to all if six would hide on which side of the limit it lies."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return "undetermined"
    text = _scalar(value)
    if isinstance(value, str) or isinstance(limit, str):
        return text
    fails = operator.lt if outcome.gate.startswith("min-") else operator.gt
    hidden = fails(float(text), limit) is not fails(value, limit)
    return repr(value) if hidden else text


def _scalar(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"

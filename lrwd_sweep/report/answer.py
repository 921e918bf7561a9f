"""The answer of a report: a verdict per study, their differences, what to use and what to do next."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lrwd_sweep.report.recommend import next_step, recommendations
from lrwd_sweep.report.result import Candidate, ComparedResults, Result
from lrwd_sweep.report.view.notation import counted, plain, short_decimal
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.report.view.tiles import runs_of
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability import Contrast, Estimate, Separability, Verdict
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import methods_of

_FEW = 3  # studies whose differences have a line each
_DIGITS = 3  # of a pasted number that is long
_SHORT = 6  # characters of a number that is pasted as it is
_LEAST_STEP = 1.02  # of an axis whose values three digits tell apart
_MOST_ROWS = 5  # whose best weight decay is listed
_NUMBER = re.compile(r"\b(lr|weight_decay)=(\d[\d.]*(?:e-?\d+)?)(?=[,)])")


class Topic(StrEnum):
    """The topic of a line; lines of one topic have the same parts."""

    VERDICT = "verdict"  # verdict, slope, meaning, the meaning in a few words
    DIFFERENCE = "difference"  # slope difference, meaning
    DIFFERENCES = "differences"  # one part per study
    COST = "cost"  # one part per study, the metric
    USE = "use"  # a Python call as code; the value it gave
    NEXT = "next"  # words of a shell command as code; runs and reason
    MORE = "more"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the answer, in Unicode; a renderer aligns and breaks it."""

    topic: Topic
    label: str
    parts: tuple[str, ...]
    code: tuple[str, ...] = ()  # words that may be broken between
    shell: bool = False  # the code is a shell's

    @property
    def code_line(self) -> str:
        """Return the code on one line."""
        return " ".join(self.code)


def answer(results: Sequence[Result], comparisons: Sequence[ComparedResults] = ()) -> list[Line]:
    """Return the lines of the answer in the order in which they are printed."""
    return [
        *(_verdict(result, results) for result in results),
        *_differences(results, comparisons),
        *_costs(results),
        _use(results),
        _next(results),
    ]


def _verdict(result: Result, among: Sequence[Result]) -> Line:
    found, label = result.separability, title(result, among)
    meaning = "; ".join(filter(None, [_meaning(result), _bend(found), _refined(result), _unfinished(result)]))
    return Line(
        Topic.VERDICT, label, (str(found.verdict).upper(), _slope(found), meaning, _few_words(result))
    )


def _few_words(result: Result) -> str:
    """Say what the verdict means, where there is no room for a sentence."""
    found = result.separability
    texts = {
        Verdict.SEPARABLE: "tune one at a time",
        Verdict.PRODUCT_COUPLED: "keep lr × wd constant",
        Verdict.COUPLED: f"2 × lr: {_factor(found.ridge_slope.value or 0.0)}",
    }
    return texts.get(found.verdict) or next(filter(None, _obstacles(result)), "")


def _obstacles(result: Result) -> Iterator[str]:
    """Yield in a few words what keeps the verdict open, the first to mend first."""
    found, test = result.separability, result.separability.noise_test
    yield "unfinished" * bool(_unfinished(result))
    if found.ridge_slope.value is None:
        if found.contrast is not None:
            value = found.contrast.estimate.value or 0.0
            shown = f"high lr: wd {'costlier' if value > 0 else 'cheaper'}"
            yield shown if found.contrast.estimate.excludes(0) else "no interaction shown"
        return
    yield f"needs {MIN_SEEDS} seeds" * (len(result.surface.seeds) < MIN_SEEDS)
    yield "no effect of wd" * (test is not None and not test.passed)
    yield "too near the margin" * found.too_near_margin
    yield f"about {found.seeds_to_settle} seeds would tell" * (found.seeds_to_settle is not None)


def _factor(slope: float) -> str:
    """Write what doubling the learning rate does to the best weight decay."""
    return f"{'divide' if slope < 0 else 'multiply'} wd by {2 ** abs(slope):.2g}"


def _slope(found: Separability) -> str:
    """Write the ridge slope, or what stands in for it, with its interval."""
    if found.ridge_slope.has_interval:
        return f"slope {_interval(found.ridge_slope)}"
    if found.ridge_slope.value is not None:
        from_rows = found.slope_from_rows
        if from_rows.has_interval:
            return f"slope {_interval(from_rows)} (from rows)"
        return f"slope {_interval(found.ridge_slope)}"
    if found.contour_slope.value is not None:
        return f"contour slope {_interval(found.contour_slope)}"
    return "no slope"


def _meaning(result: Result) -> str:
    """Say what the verdict means in use, or what keeps it open."""
    found, slope = result.separability, result.separability.ridge_slope.value
    match found.verdict:
        case Verdict.SEPARABLE:
            return "lr and wd can be tuned one at a time"
        case Verdict.PRODUCT_COUPLED:
            return "keep lr × wd constant: double the lr → halve wd"
        case Verdict.COUPLED if slope is not None:
            return (
                f"double the lr → {_factor(slope)}"
                + "; product-coupled not excluded" * found.product_not_excluded
            )
    return _open(result)


def _open(result: Result) -> str:
    """Say why a verdict is undetermined, and what the interval allows."""
    found, seeds = result.separability, len(result.surface.seeds)
    if found.ridge_slope.value is None:
        return _without_slope(result)
    if seeds < MIN_SEEDS:
        suggested = found.verdict_from_rows
        rows = "" if suggested is Verdict.UNDETERMINED else f"rows suggest {suggested}; "
        return f"{rows}a verdict needs {MIN_SEEDS} seeds, here {seeds}"
    if found.noise_test is not None and not found.noise_test.passed:
        return "wd has no measurable effect within rows"
    if not found.allowed:
        return found.reason.partition(";")[0]
    held = _either(found.allowed) + f", not {_either(found.excluded)}" * bool(found.excluded)
    settles = f"about {found.seeds_to_settle} seeds would tell" * (found.seeds_to_settle is not None)
    too_near = "too near the margin for any number of seeds" * found.too_near_margin
    return "; ".join(filter(None, [held, settles, too_near]))


def _either(verdicts: Sequence[Verdict]) -> str:
    return " or ".join(verdicts)


def _without_slope(result: Result) -> str:
    found = result.separability
    if found.contour_slope.value is not None:
        return "no row has its best wd inside the lattice"
    if found.contrast is not None:
        return "; ".join([_contrasted(found.contrast), *_best_by_row(result)])
    if not result.surface.inside.any():
        return "" if _unfinished(result) else "no cell counts"
    return found.reason.partition(";")[0]


def _contrasted(found: Contrast) -> str:
    """Say what raising the learning rate does to the cost of decay, for a lattice without a ridge slope."""
    value, octaves = found.estimate, counted(float(f"{found.octaves[0]:.2g}"), "octave")
    lr = f"raising lr by {octaves}"
    if not value.has_interval or value.value is None:
        return ""
    if not value.excludes(0):
        return f"{lr} is not shown to change what wd costs: {_interval(value, None)}"
    costlier = value if value.value > 0 else value.negated()
    return f"{lr} makes wd {'costlier' if value.value > 0 else 'cheaper'} by {_interval(costlier, None)}"


def _best_by_row(result: Result) -> Iterator[str]:
    best, surface = result.separability.best_by_row, result.surface
    if 2 <= len(best) <= _MOST_ROWS:
        decays = ", ".join(short_decimal(float(surface.weight_decay[j])) for _, j in best)
        low, high = (short_decimal(float(surface.lr[best[k][0]])) for k in (0, -1))
        yield f"best wd {decays} at lr {low} to {high}"


def _bend(found: Separability) -> str:
    """Say by how much the ridge bends if one slope misleads: by more than the margin lets λ* move."""
    bow = found.bow.value
    if bow is None or not found.bow.excludes(0) or abs(bow) <= found.margin_octaves:
        return ""
    return f"the ridge bends by {counted(round(abs(bow)), 'octave')}"


def _refined(result: Result) -> str:
    """Count the runs of a refined lattice, and the cells that it left untrained."""
    found, spec = result.refinement, result.spec.refine
    if found is None or spec is None or found.todo.any():
        return ""
    text = f"{found.asked.sum()} of {counted(found.asked.size, 'run')}"
    text += f", {counted(len(found.left), 'cell')} never trained" * bool(found.left)
    return text + f"; {found.unfit} more would exceed --max-runs {spec.max_runs}" * bool(found.unfit)


def _unfinished(result: Result) -> str:
    if result.spec.is_search or not result.lacking:
        return ""
    if result.refinement is not None:
        return f"unfinished: {counted(int(result.refinement.todo.sum()), 'run')} to go in this round"
    return f"unfinished: {runs_of([result.surface])}"


def _differences(results: Sequence[Result], comparisons: Sequence[ComparedResults]) -> Iterator[Line]:
    """Yield a line per pair, or one for all pairs of many studies."""
    if len(results) <= _FEW:
        for each in comparisons:
            a, b = title(each.a, results), title(each.b, results)
            slopes = each.comparison.slope_difference
            number = _interval(slopes, sign="+") if slopes.value is not None else "no slope difference"
            yield Line(Topic.DIFFERENCE, f"{b} − {a}", (number, _compared(each, a, b)))
    elif comparisons:
        parts = tuple(
            f"{title(each.b, results)} {_interval(each.comparison.slope_difference, sign='+')}"
            for each in comparisons
        )
        yield Line(Topic.DIFFERENCES, f"slope minus {title(comparisons[0].a, results)}'s", parts)


def _compared(each: ComparedResults, a: str, b: str) -> str:
    slopes, distance = each.comparison.slope_difference, each.comparison.distance_difference
    if not slopes.has_interval:
        return slopes.reason or "no interval"
    if not slopes.excludes(0):
        return "a difference is not shown"
    if distance.high is None or not distance.excludes(0):
        return "the slopes differ (settled)"
    return f"{b if distance.high < 0 else a} is nearer to separable (settled)"


def _costs(results: Sequence[Result]) -> Iterator[Line]:
    """Yield what tuning the learning rate and then the decay, once each, costs in every study.

    Scored in sample it lies high, so that with fewer than three seeds there is no line.
    """
    parts, metrics, intervals = [], [], True
    for result in results:
        found = next((each for each in result.separability.sequential_regret if each.first == "lr"), None)
        if found is None or found.in_sample or found.estimate.value is None:
            continue
        value, half = found.estimate.value, _half(found.estimate)
        intervals = intervals and half is not None
        places = _places(_noise(result) if half is None else half)
        parts.append(
            f"{title(result, results)} {_fixed(value, places)}"
            + ("" if half is None else f" ± {_fixed(half, places)}")
        )
        metrics.append(plain(result.surface.metric))
    if parts:
        unit = ", ".join(dict.fromkeys(metrics))
        remark = unit if intervals else f"{unit} (no ± yet)"
        yield Line(Topic.COST, "tuning one at a time costs", (*parts, remark))


def best_result(results: Sequence[Result]) -> tuple[Result, Candidate] | None:
    """Return the study with the best value and its best point; of several metrics only the first counts.

    Studies rank by what new seeds should give if all of them have that, else by the best mean. None if no
    cell counts.
    """
    metric = results[0].surface.metric
    found = [
        (result, point) for result in results if result.surface.metric == metric for point in result.ranked(1)
    ]
    if not found:
        return None
    sign = -1 if found[0][0].surface.direction is Direction.MAXIMIZE else 1
    expected = [result.expected_best.value for result, _ in found]
    values = [
        point.value if None in expected or other is None else other
        for (_, point), other in zip(found, expected, strict=True)
    ]
    return found[min(range(len(found)), key=lambda k: (sign * values[k], k))]


def _use(results: Sequence[Result]) -> Line:
    found = best_result(results)
    if found is None:
        return Line(Topic.USE, "use", ("nothing: no cell counts",))
    result, point = found
    places = _places(point.sem or abs(point.value) / 100)
    value = f"{plain(result.surface.metric)} {_fixed(point.value, places)}"
    value += f" {result.snapshot}" * (result.snapshot is not None)
    value += " (higher is better)" * (result.surface.direction is Direction.MAXIMIZE)
    expected = result.expected_best.value
    if expected is not None:
        value += f", new seeds ≈ {_fixed(expected, places)}"
    value += f", {methods}" if (methods := methods_of(result.spec.task, result.spec.metric)) else ""
    if result.spec.command is not None and not result.spec.command.function:
        return Line(Topic.USE, "use", (value,), _in_own_flags(result, point), shell=True)
    first = recommendations(result, results).cells[0]
    code = next((line.code for line in first.lines if line.code), "")
    no_library = code.startswith("dict(") and result.spec.task is not None
    if "\n" in code or "N**0.5" in code or not code or no_library:
        lr, wd = (short_decimal(each) for each in (point.cell.lr, point.cell.weight_decay))
        where = f"{title(result, results)} at lr {lr}, wd {wd}" + "; its code: see --full" * (not no_library)
        return Line(Topic.USE, "use", (where, value))
    call = rounded(code, result.spec.lattice)
    scaled = result.spec.optimizer.rule is DecayRule.INDEPENDENT and "weight_decay=" in call
    if scaled and result.conventions(point.cell).lr_scaled != point.cell.weight_decay and "dict(" not in call:
        value += f"; weight_decay is wd / lr, wd {short_decimal(point.cell.weight_decay)}"
    return Line(Topic.USE, "use", (value,), tuple(re.split(r"(?<=,) ", call)))


def _in_own_flags(result: Result, point: Candidate) -> tuple[str, ...]:
    """Return the words of the user's command with the values of a point, in three digits where they do."""
    command, lattice = result.spec.command, result.spec.lattice
    assert command is not None, "the study is one of a command"

    def write(value: float) -> str:
        text = f"dict(lr={value!r})"
        return rounded(text, lattice).removeprefix("dict(lr=").removesuffix(")")

    return command.pasted(point.cell, result.spec.seeds[0], write)


def rounded(code: str, lattice: Lattice) -> str:
    """Round the numbers of a call to three digits where they are long and still mean the same cell.

    >>> rounded("Adam(params, lr=0.125, weight_decay=0.000690533966002)", Lattice((0.125,), (1e-4, 7e-4)))
    'Adam(params, lr=0.125, weight_decay=6.91e-4)'
    """
    axes = (sorted(value for value in axis if value) for axis in (lattice.lr, lattice.weight_decay))
    if any(high / low < _LEAST_STEP for axis in axes for low, high in pairwise(axis)):
        return code

    def short(found: re.Match[str]) -> str:
        name, number = found.groups()
        return found[0] if len(number) <= _SHORT else f"{name}={short_decimal(float(number), _DIGITS)}"

    return _NUMBER.sub(short, code)


def _next(results: Sequence[Result]) -> Line:
    found = next_step(results, [title(result, results) for result in results])
    why = plain(found.why)
    if found.runs:
        why = f"+{counted(found.runs, 'run')}: {why}"
    return Line(Topic.NEXT, "next", (why,), found.command or ())


def _half(estimate: Estimate) -> float | None:
    return None if estimate.low is None or estimate.high is None else (estimate.high - estimate.low) / 2


def _noise(result: Result) -> float:
    """Return the standard error of the best mean, in the metric's units."""
    for point in result.ranked(1):
        return point.sem or abs(point.value) / 100
    return 0.0


def _places(noise: float) -> int:
    """Return the decimal places up to the first digit of the noise.

    >>> _places(0.0012), _places(0.4), _places(30.0)
    (3, 1, 0)
    """
    return min(max(-math.floor(math.log10(noise)), 0), 7) if noise > 0 and math.isfinite(noise) else 3


def _interval(estimate: Estimate, places: int | None = 2, sign: str = "") -> str:
    """Write a number and its interval to `places` decimals, or in the metric's units to their noise."""
    if estimate.value is None:
        return "–"
    half = _half(estimate)
    if places is None:
        places = _places(half / 3 if half else abs(estimate.value) / 100)
    elif half is not None and half >= 1:
        places = 1
    if estimate.low is None or estimate.high is None:
        return _fixed(estimate.value, places, sign)
    low, high = (_fixed(each, places) for each in (estimate.low, estimate.high))
    return f"{_fixed(estimate.value, places, sign)} [{low}, {high}]"


def _fixed(value: float, places: int, sign: str = "") -> str:
    """Write a number with a true minus, and no minus before zero; in short if it is huge."""
    if abs(value) >= 1e7:
        return short_decimal(value).replace("-", "−", 1)
    text = f"{value:{sign}.{places}f}"
    return text.replace("-", "−" if text.strip("-0.") else "")

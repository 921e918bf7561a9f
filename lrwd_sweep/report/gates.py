"""Gates: conditions that every study of a report must meet for a build to pass.

A gate judges what the report shows. If its value is undetermined it fails and gives the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import hypot, isfinite
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.report.result import Result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Estimate, Verdict
from lrwd_sweep.science.separability.bootstrap import IN_SAMPLE
from lrwd_sweep.science.separability.regret import SAME_DISTANCE
from lrwd_sweep.science.surface import is_flat
from lrwd_sweep.science.trial import Direction, Status

INSIDE = "inside"  # value of the gate no-edge for a best cell on no side of the lattice
_NO_BEST = "no cell counts: each has a lane that is missing, failed, diverged or reached the cap"


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """The judgement of one gate on one study."""

    gate: str  # its option without the dashes
    study: str
    value: float | str | None  # None if undetermined
    limit: float | str
    passed: bool
    reason: str = ""  # origin of the value, or the reason for its absence or failure


class Gate(Protocol):
    """A condition on one study."""

    name: ClassVar[str]  # the option without its dashes

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""


@dataclass(frozen=True, slots=True)
class MaxBest:
    """The best point's seed mean is at most `limit`, in the units of a metric of which lower is better.

    Only the mean decides; its standard error is shown. Fails if no point counts.
    """

    limit: float
    name: ClassVar[str] = "max-best"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study. Raises UsageError if higher is better."""
        return _judge_best(self.name, result, self.limit, Direction.MINIMIZE, "min-best")


@dataclass(frozen=True, slots=True)
class MinBest:
    """The best point's seed mean is at least `limit`, as `MaxBest` for metrics of which higher is better."""

    limit: float
    name: ClassVar[str] = "min-best"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study. Raises UsageError if lower is better."""
        return _judge_best(self.name, result, self.limit, Direction.MAXIMIZE, "max-best")


@dataclass(frozen=True, slots=True)
class MaxAbsSlope:
    """The ridge slope's whole 90 % interval lies within ±`limit`: max(|low|, |high|) ≤ `limit`.

    In octaves of λ per octave of α, in the study's own decay convention. Fails without an interval.
    """

    limit: float
    name: ClassVar[str] = "max-abs-slope"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        slope = result.separability.ridge_slope
        if slope.low is None or slope.high is None:
            return _at_most(self.name, result, None, self.limit, slope.reason)
        reason = f"far end of the slope's interval, {_interval(slope)}"
        return _at_most(self.name, result, max(abs(slope.low), abs(slope.high)), self.limit, reason)


@dataclass(frozen=True, slots=True)
class MaxTransferRegret:
    """Moving α by `octaves` without retuning λ costs at most `limit` on average, in the metric's units.

    The mean T(Δ) decides; its interval is shown. With fewer than three seeds the mean is scored in sample and
    biased upward, which makes the gate stricter. Fails if no two rows of the basin are that far apart, and if
    the mean leaves a pair out: a transferred cell that diverged or reached the cap is worse than any number.
    """

    limit: float
    octaves: float = 1.0
    name: ClassVar[str] = "max-transfer-regret"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        known = result.separability.transfer_regret
        at = f"at {self.octaves:g} octave{'s' * (self.octaves != 1)}"
        regret = next((r for r in known if abs(r.octaves - self.octaves) < SAME_DISTANCE), None)
        if regret is None:
            others = ", ".join(f"{r.octaves:g}" for r in known) or "none"
            reason = f"{at} the basin has no two rows; distances are {others}"
            return _at_most(self.name, result, None, self.limit, reason)
        value, out = regret.estimate.value, regret.pairs_out
        if value is None:
            return _at_most(self.name, result, None, self.limit, f"{at}, {regret.estimate.reason}")
        if out:
            reason = (
                f"{at}, {out} of {out + regret.pairs} transfers diverge or reach the cap, "
                "which is worse than any number"
            )
            return GateOutcome(self.name, result.name, value, self.limit, False, reason)
        return _at_most(self.name, result, value, self.limit, f"{at}, {_interval(regret.estimate)}")


@dataclass(frozen=True, slots=True)
class MaxSequentialRegret:
    """Tuning α and λ one at a time, once each in either order, costs at most `limit`, in the metric's units.

    The mean SR over all start values decides, of the worse order. With fewer than three seeds it is scored in
    sample and biased upward, which makes the gate stricter. SR is 0 for a perfect ridge too. Fails if either
    order has no value.
    """

    limit: float
    name: ClassVar[str] = "max-sequential-regret"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        known = result.separability.sequential_regret
        names = {"lr": "α", "weight_decay": result.spec.optimizer.symbol}
        reason = "; ".join(f"{names[each.first]} first {_written(each.estimate)}" for each in known)
        if any(each.in_sample for each in known):
            reason += f"; {IN_SAMPLE}"
        if out := sum(each.starts_out for each in known):
            reason += f"; {out} start value{'s' * (out != 1)} left out, where no cell counts"
        values = [each.estimate.value for each in known]
        worse = max((value for value in values if value is not None), default=None)
        return _at_most(self.name, result, None if None in values else worse, self.limit, reason)


@dataclass(frozen=True, slots=True)
class MaxLrSensitivity:
    """A wrong learning rate at the best cell's λ costs at most `limit` on average, in the metric's units.

    The learning-rate sensitivity of Wortsman et al. (2023) over the lattice's α. Fails if the value before
    the first step is not known, as for an import.
    """

    limit: float
    name: ClassVar[str] = "max-lr-sensitivity"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        found = result.separability.lr_sensitivity
        if found is None or found.fixed.value is None:
            reason = "" if found is None else found.fixed.reason
            return _at_most(self.name, result, None, self.limit, reason)
        kept, retuned = (_written(each) for each in (found.fixed, found.tuned))
        reason = f"best {result.spec.optimizer.symbol} kept {kept}, retuned {retuned}"
        return _at_most(self.name, result, found.fixed.value, self.limit, reason)


@dataclass(frozen=True, slots=True)
class Require:
    """The verdict, which rests on the interval of the ridge slope, is `verdict`."""

    verdict: Verdict
    name: ClassVar[str] = "require"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        found = result.separability
        passed = found.verdict is self.verdict
        return GateOutcome(
            self.name, result.name, str(found.verdict), str(self.verdict), passed, found.reason
        )


@dataclass(frozen=True, slots=True)
class NoEdge:
    """The best cell with λ > 0 lies on no side of the lattice. Fails if there is no such cell."""

    name: ClassVar[str] = "no-edge"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        positive = result.surface.without_baseline()
        if positive.best() is None:
            why = _NO_BEST if any(result.spec.lattice.weight_decay) else "no cell has weight decay above 0"
            return GateOutcome(self.name, result.name, None, INSIDE, False, why)
        if is_flat(positive.mean[positive.inside]):
            reason = "every cell that counts is as good"
            return GateOutcome(self.name, result.name, None, INSIDE, False, reason)
        edge = ", ".join(result.separability.on_edge)
        return GateOutcome(self.name, result.name, edge or INSIDE, INSIDE, not edge)


@dataclass(frozen=True, slots=True)
class MaxFailed:
    """At most `limit` lanes failed for a reason outside the mathematics, such as lack of memory.

    A diverged lane did not fail; a missing lane was not tried (see `MinSeeds`).
    """

    limit: int
    name: ClassVar[str] = "max-failed"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        failed = [trial for trial in result.trials if trial.status is Status.FAILED]
        reason = failed[0].detail if failed else ""
        return _at_most(self.name, result, len(failed), self.limit, reason)


@dataclass(frozen=True, slots=True)
class MinSeeds:
    """Every cell (of a search: every point) was trained to its end with at least `limit` seeds.

    A diverged lane counts, a failed or missing one does not. Fails if nothing was trained.
    """

    limit: int
    name: ClassVar[str] = "min-seeds"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        trained = Counter(trial.cell for trial in result.trials if trial.status is not Status.FAILED)
        tried = {trial.cell for trial in result.trials}
        cells: Iterable[Cell] = tried if result.spec.is_search else result.spec.lattice.cells()
        fewest = min((trained[cell] for cell in cells), default=0)
        passed = fewest >= self.limit
        return GateOutcome(self.name, result.name, fewest, self.limit, passed, "fewest seeds of any cell")


@dataclass(frozen=True, slots=True)
class EarlierBest:
    """A study's best point in an earlier report."""

    metric: str
    value: float | None  # seed mean; None if no point counted
    sem: float | None  # its standard error; None with fewer than two seeds
    direction: Direction = Direction.MINIMIZE  # better end of the metric


@dataclass(frozen=True, slots=True)
class EarlierReport:
    """The best points of an earlier `report --format json`, by study name."""

    source: str  # the file it was read from
    studies: Mapping[str, EarlierBest]


@dataclass(frozen=True, slots=True)
class MaxRegression:
    """The best point's seed mean is at most `limit` worse than an earlier report's, in the metric's units.

    Studies are matched by name. Only the difference of the means decides: a margin that grew with the noise
    would pass a study for having few seeds. Its standard error, √(sem² + earlier sem²), is shown, so that
    `limit` can be chosen above it; common seeds make the true error smaller. Fails if the earlier report
    lacks the study or has it in another metric or direction, and if either has no point that counts.
    """

    limit: float
    earlier: EarlierReport
    name: ClassVar[str] = "max-regression"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study."""
        then, now = self.earlier.studies.get(result.name), next(iter(result.ranked(1)), None)
        undetermined = self._mismatch(then, result) or (_NO_BEST if now is None else "")
        if undetermined or now is None or then is None or then.value is None:
            return _at_most(self.name, result, None, self.limit, undetermined)
        both = then.sem is not None and now.sem is not None
        error = _error(hypot(then.sem or 0.0, now.sem or 0.0) if both else None)
        reason = f"{now.value:.6g} now, {then.value:.6g} in {self.earlier.source}, {then.metric}{error}"
        worse = now.value - then.value
        if result.surface.direction is Direction.MAXIMIZE:
            worse = -worse
        return _at_most(self.name, result, worse, self.limit, reason)

    def _mismatch(self, then: EarlierBest | None, result: Result) -> str:
        """Explain why the earlier report is not comparable with the study; empty if it is."""
        source, metric = self.earlier.source, result.surface.metric
        if then is None:
            names = list(self.earlier.studies)
            some = ", ".join(map(repr, names[:5])) + ", …" * (len(names) > 5) if names else "none"
            return f"{source} has no study {result.name!r}, only {some}"
        if then.metric != metric:
            return f"{source} is in {then.metric}, this report in {metric}; see --metric"
        if then.direction is not result.surface.direction:
            return (
                f"{source} has {metric} {then.direction}d, this report {result.surface.direction}d; "
                "see --maximize and --minimize"
            )
        return f"in {source} no cell counts" if then.value is None else ""


def read_earlier_report(path: Path) -> EarlierReport:
    """Read a JSON report of schema_version 1 or 2. Raises UsageError naming the file and the remedy."""
    remedy = "name a file that report --format json wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{arg('baseline', str(path))}: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{arg('baseline', str(path))} is not JSON; {remedy}") from None
    version = document.get("schema_version", 1) if isinstance(document, dict) else 1
    if version not in (1, 2) or isinstance(version, bool):
        raise UsageError(
            f"{arg('baseline', str(path))} has schema_version {version!r}, this program "
            "knows 1 and 2; write it again"
        )
    try:
        studies = {_text(study["study_name"]): _earlier_best(study) for study in document["studies"]}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UsageError(f"{arg('baseline', str(path))} is not a report; {remedy}") from None
    return EarlierReport(str(path), studies)


def _refuse_constant(constant: str) -> None:
    raise ValueError(constant)  # JSON has no NaN and no Infinity


def _earlier_best(study: Mapping[str, Any]) -> EarlierBest:
    best, metric = study["best"], _text(study["metric"])
    direction = Direction(study.get("direction", Direction.MINIMIZE))
    if best is None:
        return EarlierBest(metric, None, None, direction)
    sem = best["sem"]
    return EarlierBest(metric, _number(best["value"]), None if sem is None else _number(sem), direction)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(value)
    return float(value)


def _at_most(gate: str, result: Result, value: float | None, limit: float, reason: str) -> GateOutcome:
    return GateOutcome(gate, result.name, value, limit, value is not None and value <= limit, reason)


def _judge_best(gate: str, result: Result, limit: float, direction: Direction, other: str) -> GateOutcome:
    """Compare the best point with a limit on a metric of this direction; `other` is the opposite gate."""
    if result.surface.direction is not direction:
        better = "higher" if direction is Direction.MINIMIZE else "lower"
        metric = brief(result.surface.metric)
        given, instead = (arg(name.replace("-", "_"), limit) for name in (gate, other))
        raise UsageError(f"{given}: in study {result.name!r} a {better} {metric} is better; give {instead}")
    for best in result.ranked(1):
        passed = best.value <= limit if direction is Direction.MINIMIZE else best.value >= limit
        reason = f"{result.surface.metric}{_error(best.sem)}"
        return GateOutcome(gate, result.name, best.value, limit, passed, reason)
    return GateOutcome(gate, result.name, None, limit, False, _NO_BEST)


def _error(sem: float | None) -> str:
    return "" if sem is None else f", standard error {sem:.2g}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.reason
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _written(estimate: Estimate) -> str:
    """Write a value with its interval if it has one, or why there is no value."""
    if estimate.value is None or estimate.has_interval:
        return _interval(estimate)
    return f"{estimate.value:.3g}"

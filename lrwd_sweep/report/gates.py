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


@dataclass(frozen=True)
class _Limit:
    """A gate that holds a number against a limit, by default the most that is allowed."""

    limit: float
    name: ClassVar[str]

    def judged(
        self, result: Result, value: float | None, reason: str = "", *, allowed: bool = True
    ) -> GateOutcome:
        passed = allowed and value is not None and self.allows(value)
        return GateOutcome(self.name, result.name, value, self.limit, passed, reason)

    def allows(self, value: float) -> bool:
        return value <= self.limit


class MaxBest(_Limit):
    """The best point's seed mean is at most `limit`, in the units of a metric of which lower is better.

    Only the mean decides; its standard error is shown. Fails if no point counts.
    """

    name, direction, other = "max-best", Direction.MINIMIZE, "min_best"

    def check(self, result: Result) -> GateOutcome:
        """Judge a study. Raises UsageError if the other end of the metric is better."""
        metric = result.surface.metric
        if result.surface.direction is not self.direction:
            better = "higher" if self.direction is Direction.MINIMIZE else "lower"
            given, instead = (arg(name, self.limit) for name in (self.name.replace("-", "_"), self.other))
            raise UsageError(
                f"{given}: in study {result.name!r} a {better} {brief(metric)} is better; give {instead}"
            )
        for best in result.ranked(1):
            return self.judged(result, best.value, f"{metric}{_error(best.sem)}")
        return self.judged(result, None, _NO_BEST)


class MinBest(MaxBest):
    """The best point's seed mean is at least `limit`, as `MaxBest` for metrics of which higher is better."""

    name, direction, other = "min-best", Direction.MAXIMIZE, "max_best"

    def allows(self, value: float) -> bool:
        return value >= self.limit


class MaxAbsSlope(_Limit):
    """The ridge slope's whole 90 % interval lies within ±`limit`: max(|low|, |high|) ≤ `limit`.

    In octaves of λ per octave of α, in the study's own decay convention. Fails without an interval.
    """

    name = "max-abs-slope"

    def check(self, result: Result) -> GateOutcome:
        slope = result.separability.ridge_slope
        if slope.low is None or slope.high is None:
            return self.judged(result, None, slope.reason)
        reason = f"far end of the slope's interval, {_interval(slope)}"
        return self.judged(result, max(abs(slope.low), abs(slope.high)), reason)


@dataclass(frozen=True)
class MaxTransferRegret(_Limit):
    """Moving α by `octaves` without retuning λ costs at most `limit` on average, in the metric's units.

    The mean T(Δ) decides; its interval is shown. With fewer than three seeds the mean is scored in sample and
    biased upward, which makes the gate stricter. Fails if no two rows of the basin are that far apart, and if
    the mean leaves a pair out: a transferred cell that diverged or reached the cap is worse than any number.
    """

    octaves: float = 1.0
    name = "max-transfer-regret"

    def check(self, result: Result) -> GateOutcome:
        known = result.separability.transfer_regret
        at = f"at {self.octaves:g} octave{'s' * (self.octaves != 1)}"
        regret = next((r for r in known if abs(r.octaves - self.octaves) < SAME_DISTANCE), None)
        if regret is None:
            others = ", ".join(f"{r.octaves:g}" for r in known) or "none"
            return self.judged(result, None, f"{at} the basin has no two rows; distances are {others}")
        found, out = regret.estimate, regret.pairs_out
        if found.value is None or not out:
            return self.judged(result, found.value, f"{at}, {_interval(found)}")
        diverge = f"{out} of {out + regret.pairs} transfers diverge or reach the cap"
        reason = f"{at}, {diverge}, which is worse than any number"
        return self.judged(result, found.value, reason, allowed=False)


class MaxSequentialRegret(_Limit):
    """Tuning α and λ one at a time, once each in either order, costs at most `limit`, in the metric's units.

    The mean SR over all start values decides, of the worse order. With fewer than three seeds it is scored in
    sample and biased upward, which makes the gate stricter. SR is 0 for a perfect ridge too. Fails if either
    order has no value.
    """

    name = "max-sequential-regret"

    def check(self, result: Result) -> GateOutcome:
        known = result.separability.sequential_regret
        names = {"lr": "α", "weight_decay": result.spec.optimizer.symbol}
        reason = "; ".join(f"{names[each.first]} first {_written(each.estimate)}" for each in known)
        if any(each.in_sample for each in known):
            reason += f"; {IN_SAMPLE}"
        if out := sum(each.starts_out for each in known):
            reason += f"; {out} start value{'s' * (out != 1)} left out, where no cell counts"
        values = [each.estimate.value for each in known]
        worst = max((value for value in values if value is not None), default=None)
        return self.judged(result, None if None in values else worst, reason)


class MaxLrSensitivity(_Limit):
    """A wrong learning rate at the best cell's λ costs at most `limit` on average, in the metric's units.

    The learning-rate sensitivity of Wortsman et al. (2023) over the lattice's α. Fails if the value before
    the first step is not known, as for an import.
    """

    name = "max-lr-sensitivity"

    def check(self, result: Result) -> GateOutcome:
        found = result.separability.lr_sensitivity
        if found is None or found.fixed.value is None:
            return self.judged(result, None, "" if found is None else found.fixed.reason)
        kept, retuned = _written(found.fixed), _written(found.tuned)
        reason = f"best {result.spec.optimizer.symbol} kept {kept}, retuned {retuned}"
        return self.judged(result, found.fixed.value, reason)


@dataclass(frozen=True, slots=True)
class Require:
    """The verdict, which rests on the interval of the ridge slope, is `verdict`."""

    verdict: Verdict
    name: ClassVar[str] = "require"

    def check(self, result: Result) -> GateOutcome:
        found, passed = result.separability, result.separability.verdict is self.verdict
        limit = str(self.verdict)
        return GateOutcome(self.name, result.name, str(found.verdict), limit, passed, found.reason)


@dataclass(frozen=True, slots=True)
class NoEdge:
    """The best cell with λ > 0 lies on no side of the lattice. Fails if there is no such cell."""

    name: ClassVar[str] = "no-edge"

    def check(self, result: Result) -> GateOutcome:
        positive, value, reason = result.surface.without_baseline(), None, ""
        if positive.best() is None:
            reason = _NO_BEST if any(result.spec.lattice.weight_decay) else "no cell has weight decay above 0"
        elif is_flat(positive.mean[positive.inside]):
            reason = "every cell that counts is as good"
        else:
            value = ", ".join(result.separability.on_edge) or INSIDE
        return GateOutcome(self.name, result.name, value, INSIDE, value == INSIDE, reason)


class MaxFailed(_Limit):
    """At most `limit` lanes failed for a reason outside the mathematics, such as lack of memory.

    A diverged lane did not fail; a missing lane was not tried (see `MinSeeds`).
    """

    name = "max-failed"

    def check(self, result: Result) -> GateOutcome:
        failed = [trial for trial in result.trials if trial.status is Status.FAILED]
        return self.judged(result, len(failed), failed[0].detail if failed else "")


class MinSeeds(_Limit):
    """Every cell (of a search: every point) was trained to its end with at least `limit` seeds.

    A diverged lane counts, a failed or missing one does not. Fails if nothing was trained.
    """

    name = "min-seeds"

    def allows(self, value: float) -> bool:
        return value >= self.limit

    def check(self, result: Result) -> GateOutcome:
        trained = Counter(trial.cell for trial in result.trials if trial.status is not Status.FAILED)
        tried = {trial.cell for trial in result.trials}
        cells: Iterable[Cell] = tried if result.spec.is_search else result.spec.lattice.cells()
        fewest = min((trained[cell] for cell in cells), default=0)
        return self.judged(result, fewest, "fewest seeds of any cell")


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


@dataclass(frozen=True)
class MaxRegression(_Limit):
    """The best point's seed mean is at most `limit` worse than an earlier report's, in the metric's units.

    Studies are matched by name. Only the difference of the means decides: a margin that grew with the noise
    would pass a study for having few seeds. Its standard error, √(sem² + earlier sem²), is shown, so that
    `limit` can be chosen above it; common seeds make the true error smaller. Fails if the earlier report
    lacks the study or has it in another metric or direction, and if either has no point that counts.
    """

    earlier: EarlierReport
    name = "max-regression"

    def check(self, result: Result) -> GateOutcome:
        then, now = self.earlier.studies.get(result.name), next(iter(result.ranked(1)), None)
        source, metric, direction = self.earlier.source, result.surface.metric, result.surface.direction
        if then is None:
            names = list(self.earlier.studies)
            some = ", ".join(map(repr, names[:5])) + ", …" * (len(names) > 5) if names else "none"
            why = f"{source} has no study {result.name!r}, only {some}"
        elif then.metric != metric:
            why = f"{source} is in {then.metric}, this report in {metric}; see --metric"
        elif then.direction is not direction:
            both = f"{source} has {metric} {then.direction}d, this report {direction}d"
            why = f"{both}; see --maximize and --minimize"
        elif then.value is None:
            why = f"in {source} no cell counts"
        elif now is None:
            why = _NO_BEST
        else:
            known = then.sem is not None and now.sem is not None
            error = _error(hypot(then.sem or 0.0, now.sem or 0.0) if known else None)
            reason = f"{now.value:.6g} now, {then.value:.6g} in {source}, {metric}{error}"
            sign = -1 if direction is Direction.MAXIMIZE else 1
            return self.judged(result, sign * (now.value - then.value), reason)
        return self.judged(result, None, why)


def read_earlier_report(path: Path) -> EarlierReport:
    """Read a JSON report of schema_version 1 or 2. Raises UsageError naming the file and the remedy."""
    file, remedy = arg("baseline", str(path)), "name a file that report --format json wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file} is not JSON; {remedy}") from None
    version = document.get("schema_version", 1) if isinstance(document, dict) else 1
    if version not in (1, 2) or isinstance(version, bool):
        raise UsageError(f"{file} has schema_version {version!r}, this program knows 1 and 2; write it again")
    try:
        studies = {_text(study["study_name"]): _earlier_best(study) for study in document["studies"]}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UsageError(f"{file} is not a report; {remedy}") from None
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

"""Gates: what every study of a report must hold, so that a build may pass.

A gate passes on what is shown. Where its value is undetermined it fails, and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot
from typing import ClassVar, Protocol

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.report.gates.earlier_report import EarlierBest, EarlierReport
from lrwd_sweep.report.result import Candidate, Result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Estimate, TransferRegret, Verdict
from lrwd_sweep.science.separability.basin import is_flat
from lrwd_sweep.science.separability.regret import SAME_DISTANCE
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.spec.study import Kind

INSIDE = "inside"  # where the best cell is when it lies on no side of the lattice
_NO_BEST = "no cell counts: each has a lane that is missing, failed, diverged or reached the cap"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gate found of one study."""

    gate: str  # its option without the dashes
    study: str
    value: float | str | None  # None where undetermined
    limit: float | str
    passed: bool
    reason: str = ""  # what the value rests on; why there is none, or why it does not pass


class Gate(Protocol):
    """One thing to hold."""

    name: ClassVar[str]  # the option without its dashes

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""


@dataclass(frozen=True, slots=True)
class MaxBest:
    """The best point's seed mean is at most `limit`, in the units of a metric of which lower is better.

    The mean alone decides; its standard error is shown. Fails when no point counts.
    """

    limit: float
    name: ClassVar[str] = "max-best"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it. Raises UsageError where higher is better."""
        return _of_best(self.name, result, self.limit, Direction.MINIMIZE, "min-best")


@dataclass(frozen=True, slots=True)
class MinBest:
    """The best point's seed mean is at least `limit`, in the units of a metric of which higher is better.

    Everything else is as for `MaxBest`.
    """

    limit: float
    name: ClassVar[str] = "min-best"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it. Raises UsageError where lower is better."""
        return _of_best(self.name, result, self.limit, Direction.MAXIMIZE, "max-best")


@dataclass(frozen=True, slots=True)
class MaxAbsSlope:
    """The ridge slope's whole 90 % interval lies within ±`limit`: max(|low|, |high|) ≤ `limit`.

    Octaves per octave, in the study's own decay convention. Fails without an interval.
    """

    limit: float
    name: ClassVar[str] = "max-abs-slope"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        slope = result.separability.ridge_slope
        if slope.low is None or slope.high is None:
            return _at_most(self.name, result, None, self.limit, slope.reason)
        reason = f"far end of the slope's interval, {_interval(slope)}"
        return _at_most(self.name, result, max(abs(slope.low), abs(slope.high)), self.limit, reason)


@dataclass(frozen=True, slots=True)
class MaxTransferRegret:
    """Moving α by `octaves` without retuning λ costs at most `limit` on average, in the metric's units.

    The mean T(Δ) decides; its interval is shown. Below four seeds there is none: the mean is scored in sample
    and lies high, so that the gate is the stricter. Fails where no two rows of the basin are that far apart,
    and where a pair is left out of the mean: that the transferred cell diverged, or reached the cap, is
    worse than any number.
    """

    limit: float
    octaves: float = 1.0
    name: ClassVar[str] = "max-transfer-regret"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        known = result.separability.transfer_regret
        at = f"at {self.octaves:g} octave{'s' * (self.octaves != 1)}"
        regret = next((r for r in known if abs(r.octaves - self.octaves) < SAME_DISTANCE), None)
        if regret is None:
            others = ", ".join(f"{r.octaves:g}" for r in known) or "none"
            reason = f"{at} there are no two rows of the basin; distances are {others}"
            return _at_most(self.name, result, None, self.limit, reason)
        return self._judged(result, regret, at)

    def _judged(self, result: Result, regret: TransferRegret, at: str) -> Outcome:
        value, out = regret.estimate.value, regret.pairs_out
        if value is None:
            return _at_most(self.name, result, None, self.limit, f"{at}, {regret.estimate.reason}")
        if out:
            reason = (
                f"{at}, {out} of {out + regret.pairs} transfers diverge or reach the cap, "
                "which is worse than any number"
            )
            return Outcome(self.name, result.name, value, self.limit, False, reason)
        return _at_most(self.name, result, value, self.limit, f"{at}, {_interval(regret.estimate)}")


@dataclass(frozen=True, slots=True)
class Require:
    """The verdict is `verdict`: what the interval of the ridge slope shows, not its point estimate."""

    verdict: Verdict
    name: ClassVar[str] = "require"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        found = result.separability
        passed = found.verdict is self.verdict
        return Outcome(self.name, result.name, str(found.verdict), str(self.verdict), passed, found.reason)


@dataclass(frozen=True, slots=True)
class NoEdge:
    """The best cell with λ > 0 lies on no side of the lattice. Fails when there is no such cell."""

    name: ClassVar[str] = "no-edge"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        positive = result.surface.without_baseline()
        if positive.best() is None:
            why = _NO_BEST if any(result.spec.lattice.weight_decay) else "no cell has weight decay above 0"
            return Outcome(self.name, result.name, None, INSIDE, False, why)
        if is_flat(positive.mean[positive.inside]):
            return Outcome(self.name, result.name, None, INSIDE, False, "every cell that counts is as good")
        edge = ", ".join(result.separability.on_edge)
        return Outcome(self.name, result.name, edge or INSIDE, INSIDE, not edge)


@dataclass(frozen=True, slots=True)
class MaxFailed:
    """At most `limit` lanes failed for a reason outside the mathematics, such as no memory.

    A lane that diverged is an outcome and no failure; one that is missing was not tried (see `MinSeeds`).
    """

    limit: int
    name: ClassVar[str] = "max-failed"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        failed = [trial for trial in result.trials if trial.status is Status.FAILED]
        reason = failed[0].detail if failed else ""
        return _at_most(self.name, result, len(failed), self.limit, reason)


@dataclass(frozen=True, slots=True)
class MinSeeds:
    """Every cell (of a search: every point) was trained to its end with at least `limit` seeds.

    A diverged lane was; a failed or missing one was not. Fails when nothing was trained.
    """

    limit: int
    name: ClassVar[str] = "min-seeds"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        trained = Counter(trial.cell for trial in result.trials if trial.status is not Status.FAILED)
        tried = {trial.cell for trial in result.trials}
        cells: Iterable[Cell] = tried if result.spec.kind is Kind.TPE else result.spec.lattice.cells()
        fewest = min((trained[cell] for cell in cells), default=0)
        passed = fewest >= self.limit
        return Outcome(self.name, result.name, fewest, self.limit, passed, "fewest seeds of any cell")


@dataclass(frozen=True, slots=True)
class MaxRegression:
    """The best point's seed mean is at most `limit` worse than an earlier report's, in the metric's units.

    Studies are matched by name. The difference of the means alone decides: a margin that grew with the noise
    would pass a study for having few seeds. Its standard error, √(sem² + earlier sem²), is shown, so that
    `limit` can be chosen above it; equal seeds make it smaller than that. Fails when the earlier report lacks
    the study or has it in another metric or direction, and when either has no point that counts.
    """

    limit: float
    earlier: EarlierReport
    name: ClassVar[str] = "max-regression"

    def check(self, result: Result) -> Outcome:
        """Whether a study holds it."""
        then, now = self.earlier.studies.get(result.name), _best(result)
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
        """Why the earlier report has nothing to compare the study with; empty when it has."""
        source, metric = self.earlier.source, result.surface.metric
        if then is None:
            return f"{source} has no study {result.name!r}, only {_some(list(self.earlier.studies))}"
        if then.metric != metric:
            return f"{source} is in {then.metric}, this report in {metric}; see --metric"
        if then.direction is not result.surface.direction:
            return (
                f"{source} has {metric} {then.direction}d, this report {result.surface.direction}d; "
                "see --maximize and --minimize"
            )
        return f"in {source} no cell counts" if then.value is None else ""


def _at_most(gate: str, result: Result, value: float | None, limit: float, reason: str) -> Outcome:
    return Outcome(gate, result.name, value, limit, value is not None and value <= limit, reason)


def _of_best(gate: str, result: Result, limit: float, direction: Direction, other: str) -> Outcome:
    """How the best point stands to a limit of a metric of this direction; `other` is the other's gate."""
    if result.surface.direction is not direction:
        better = "higher" if direction is Direction.MINIMIZE else "lower"
        metric = brief(result.surface.metric)
        raise UsageError(
            f"--{gate} {limit:g}: in study {result.name!r} a {better} {metric} is better; "
            f"give --{other} {limit:g}"
        )
    best = _best(result)
    if best is None:
        return Outcome(gate, result.name, None, limit, False, _NO_BEST)
    passed = best.value <= limit if direction is Direction.MINIMIZE else best.value >= limit
    reason = f"{result.surface.metric}{_error(best.sem)}"
    return Outcome(gate, result.name, best.value, limit, passed, reason)


def _best(result: Result) -> Candidate | None:
    found = result.ranked(1)
    return found[0] if found else None


def _error(sem: float | None) -> str:
    return "" if sem is None else f", standard error {sem:.2g}"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.reason
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(repr, names[:most])) + ", …" * (len(names) > most) if names else "none"

"""A study as it stands: its trials as a surface, and its separability; reading and comparing studies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief
from lrwd_sweep.science.conversion import Conventions, conventions
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.refinement import Refinement, refine, with_presumed
from lrwd_sweep.science.separability import (
    Estimate,
    PairedDifferences,
    RidgeTimescale,
    Separability,
    analyse,
    compare,
)
from lrwd_sweep.science.separability.analysis import Settings
from lrwd_sweep.science.separability.verdict import MARGIN
from lrwd_sweep.science.surface import CellStatus, Surface, mean_and_error, on_lattice
from lrwd_sweep.science.trial import Direction, Status, Trial, metric_direction
from lrwd_sweep.spec.catalog import direction_of, of_last_weights
from lrwd_sweep.spec.job import WHOLE, Shard
from lrwd_sweep.spec.study import StudySpec, labels
from lrwd_sweep.spec.task import refuse_early

if TYPE_CHECKING:
    from lrwd_sweep.store import Store


def surface_of(trials: Iterable[Trial], spec: StudySpec) -> Surface:
    """Lay trials out on the study's lattice in its metric; those of a search in their nearest cells."""
    return Surface.from_trials(
        on_lattice(trials, spec.lattice, spec.metric) if spec.is_search else trials,
        spec.lattice,
        spec.seeds,
        metric=spec.metric,
        rule=spec.optimizer.rule,
        cap=spec.cap,
        normalized=spec.optimizer.normalized,
        direction=spec.direction,
        tau_of_one=spec.tau_of_one,
    )


def refinement(surface: Surface, spec: StudySpec) -> Refinement:
    """Return the state of a refined lattice; `surface` is in the study's own metric, of all its seeds."""
    assert spec.refine is not None, "the lattice is trained whole"
    margin = MARGIN if spec.refine.margin is None else spec.refine.margin
    with np.errstate(all="ignore"):  # absurdly large values overflow
        return refine(surface, budget=spec.refine.max_runs, settings=Settings(margin=margin))


def round_of(spec: StudySpec, trials: Sequence[Trial]) -> dict[int, list[Cell]]:
    """Return the lanes of a refined lattice's present round that did not end, cells by seed."""
    surface = surface_of(trials, spec)
    found: dict[int, list[Cell]] = {}
    for r, i, j in np.argwhere(np.moveaxis(refinement(surface, spec).todo, 2, 0)):
        found.setdefault(spec.seeds[r], []).append(surface.cell(i, j))
    return found


def count_runs(spec: StudySpec, trials: Iterable[Trial], shard: Shard = WHOLE) -> int:
    """Count the runs of a lattice; of a refined one those that ended and those of the present round."""
    if spec.refine is None:
        return shard.count(spec.lattice, spec.seeds)
    surface = surface_of(trials, spec)
    return surface.runs[0] + int(refinement(surface, spec).todo.sum())


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of a study with its seed means in the metric that ranks."""

    cell: Cell
    value: float
    sem: float | None  # standard error of `value`; None with fewer than two seeds
    test_value: float | None  # the same measure on the test split, which ranked nothing; None if unknown


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The end of a cycle of warm restarts, where η has come down."""

    restart: int  # from 1
    epoch: int

    def __str__(self) -> str:
        return f"at restart {self.restart} (epoch {self.epoch})"


@dataclass(frozen=True, eq=False)
class Result:
    """One study's results in one metric."""

    name: str
    spec: StudySpec
    created: str  # ISO 8601, UTC
    trials: tuple[Trial, ...]
    surface: Surface
    separability: Separability
    storage: str | None = None  # its store, unless that is the default file in the working directory
    snapshot: Snapshot | None = None  # under warm restarts, the epoch that the metrics belong to
    data_dir: str | None = None  # directory of the data set's files, if given
    older: bool = False  # begun by a version that did not store its version: some numbers have changed since
    seconds: float = 0.0  # that training took; 0 if the store does not say
    refinement: Refinement | None = None  # of a refined lattice; `surface` has its seeds only

    @property
    def lacking(self) -> int:
        """The number of cells with missing or failed lanes; of a refined lattice those of its next round."""
        if self.refinement is not None:
            return int(self.refinement.todo.any(axis=2).sum())
        counts = self.surface.counts()
        return counts[CellStatus.MISSING.value] + counts[CellStatus.FAILED.value]

    @property
    def best(self) -> Cell | None:
        """The point with the best seed mean; None if none counts."""
        found = self.ranked(1)
        return found[0].cell if found else None

    def ranked(self, count: int) -> list[Candidate]:
        """Return the `count` best points that count, best first; of a search its own points."""
        return self._ranking[:count]

    @cached_property
    def _ranking(self) -> list[Candidate]:
        metric, seeds = self.surface.metric, self.surface.seeds
        of_test = metric.replace("val_", "test_").replace("train_", "test_")
        sign = -1 if self.surface.direction is Direction.MAXIMIZE else 1
        limit = math.inf if self.surface.cap is None else sign * self.surface.cap
        found = []
        for cell, trials in self._complete.items():
            values = {trial.seed: trial.metrics[metric] for trial in trials if metric in trial.metrics}
            if not all(sign * values.get(seed, math.nan) < limit for seed in seeds):
                continue
            mean, error = mean_and_error(np.array([values[seed] for seed in seeds]))
            if math.isfinite(mean):
                tests = [trial.metrics[of_test] for trial in trials if of_test in trial.metrics]
                test_value = sum(tests) / len(tests) if tests and "_test_" in f"_{of_test}" else None
                sem = float(error) if len(seeds) > 1 else None
                found.append(Candidate(cell, float(mean), sem, test_value))
        return sorted(found, key=lambda candidate: (sign * candidate.value, candidate.cell))

    @cached_property
    def _complete(self) -> dict[Cell, list[Trial]]:
        found: dict[Cell, list[Trial]] = {}
        for trial in self.trials:
            if trial.status is Status.COMPLETE:
                found.setdefault(trial.cell, []).append(trial)
        return found

    def conventions(self, cell: Cell) -> Conventions:
        """Convert the cell's decay to every convention, as far as the study's task is known.

        N is the number of steps of the run, or of the cycle that ends at the snapshot.
        """
        t, n, momentum, constant = self.spec.task, self.spec.run_steps, None, False
        if t is not None:
            end = t.epochs if self.snapshot is None else self.snapshot.epoch
            n = t.timetable.steps_of_cycle(end * t.steps_per_epoch - 1)
            momentum, constant = t.momentum, t.timetable.is_constant
        return conventions(
            self.spec.optimizer,
            cell.lr,
            cell.weight_decay,
            n,
            momentum,
            constant=constant,
            own_schedule=t is not None and t.decay_schedule is not None,
            projected=self.projected(cell),
        )

    @property
    def expected_best(self) -> Estimate:
        """The value to expect of new seeds at the best cell; none for a search, whose points are no cells."""
        if self.spec.is_search:
            return Estimate(None, reason="a search's best point is no cell of the lattice")
        return self.separability.expected_best

    @property
    def timescale(self) -> RidgeTimescale | None:
        """τ* of the ridge, where η = 1; None without a ridge, or if the number of steps is unknown.

        Of SGDP and AdamP it is that of steps that are not projected. Epochs of an import are unknown.
        """
        centre, t, steps = self.separability.ridge_centre, self.spec.task, self.spec.run_steps
        per_epoch, epochs = (steps, 1) if t is None else (t.steps_per_epoch, t.epochs)
        if centre is None or per_epoch is None:
            return None
        at = self.conventions
        found = centre.timescale(lambda lr, w: at(Cell(lr, w)).timescale_steps, per_epoch, epochs)
        return found if t is not None else replace(found, epochs=Estimate(None, reason="epochs are unknown"))

    def projected(self, cell: Cell) -> float | None:
        """Return the share of its matrices' steps that the cell's lanes projected; None if not counted."""
        curves = [trial.curves.get("projection") for trial in self._complete.get(cell, ())]
        found = [sum(curve) / len(curve) for curve in curves if curve]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True, eq=False)
class ComparedResults:
    """Two results and their paired differences."""

    a: Result
    b: Result
    comparison: PairedDifferences


def result(
    name: str,
    spec: StudySpec,
    created: str,
    trials: Sequence[Trial],
    *,
    metric: str | None = None,
    direction: Direction | None = None,
    cap: float | None = None,
    at_restart: int | None = None,
    margin: float = MARGIN,
) -> Result:
    """Lay a study's trials out as a surface in `metric` (default: the spec's) and analyse it.

    `direction` and `cap` are the metric's (default: those stored for the study's own metric). Under warm
    restarts the metrics are those of the snapshot `at_restart` (default: the last). Raises UnknownName if
    neither the task nor any trial has the metric, UsageError if there is no such snapshot, if the metric's
    name implies that higher is better and no direction is given, and for a margin outside (0, 0.5].
    """
    snapshot = _snapshot(name, spec, at_restart)
    found = None if spec.refine is None else refinement(surface_of(trials, spec), spec)
    if at_restart is not None and snapshot is not None:
        trials = [_at(snapshot, trial) for trial in trials]
    if metric is not None and metric != spec.metric:
        known = {name for trial in trials for name in trial.metrics}
        if spec.task is None and metric not in known:
            raise UnknownName("metric", metric, known)
        if spec.task is None or direction_of(metric) is None:
            maximize, minimize = direction is Direction.MAXIMIZE, direction is Direction.MINIMIZE
            direction = metric_direction(metric, maximize=maximize, minimize=minimize)
        spec = replace(spec, metric=metric, direction=direction or Direction.MINIMIZE, given_cap=None)
    direction = direction if spec.task is None else direction_of(spec.metric, direction)
    cap = spec.given_cap if cap is None else cap
    spec = replace(spec, direction=direction or spec.direction, given_cap=cap)
    if at_restart is not None and snapshot is not None:
        refuse_early(spec.metric, spec.task, at_restart, snapshot.epoch)
    surface = surface_of(trials, spec)
    if found is not None:
        surface = with_presumed(surface.with_seeds(found.seeds))
    return Result(
        name,
        spec,
        created,
        tuple(trials),
        surface,
        analyse(surface, margin=margin, initial=_initial(trials, spec, surface.seeds)),
        snapshot=snapshot,
        refinement=found,
    )


def _initial(trials: Iterable[Trial], spec: StudySpec, seeds: Sequence[int]) -> list[float] | None:
    """Return the metric before the first step by seed, common to all cells; None if it was not measured."""
    found: dict[int, float] = {}
    for trial in trials:
        if (value := trial.metrics.get(f"initial_{of_last_weights(spec.metric)}")) is not None:
            found.setdefault(trial.seed, value)
    return [found[seed] for seed in seeds] if found.keys() >= set(seeds) else None


def at_cap(result: Result, surface: Surface) -> str:
    """Describe the exclusion of a cell that did not diverge; empty if the surface has no cap.

    The surface may be in another metric than the study's.
    """
    if surface.cap is None:
        return ""
    spec = result.spec
    if spec.given_cap is None or surface.metric != spec.metric:
        return "at chance level"
    return (
        f"at or {'below' if spec.direction is Direction.MAXIMIZE else 'above'} the cap of {spec.given_cap:g}"
    )


def _snapshot(name: str, spec: StudySpec, at_restart: int | None) -> Snapshot | None:
    """Return the snapshot `at_restart` or the last one; None without warm restarts."""
    epochs = () if spec.task is None else spec.task.timetable.snapshots
    if at_restart is None:
        return Snapshot(len(epochs), epochs[-1]) if epochs else None
    asked = f"{arg('at_restart', at_restart)}: study {name!r}"
    if not epochs:
        raise UsageError(f"{asked} has no snapshot of a restart; leave it out")
    if at_restart > len(epochs):
        known = ", ".join(map(str, epochs))
        raise UsageError(f"{asked} has {len(epochs)}, at the end of epoch {known}; choose 1 to {len(epochs)}")
    return Snapshot(at_restart, epochs[at_restart - 1])


def _at(snapshot: Snapshot, trial: Trial) -> Trial:
    """Return a trial as it stood at a snapshot; one that had diverged or failed by then keeps its status."""
    curves = {name: values[: snapshot.epoch] for name, values in trial.curves.items()}
    found = trial.snapshots.get(snapshot.epoch)
    if found is None:
        return replace(trial, metrics={}, curves=curves)
    return replace(trial, status=Status.COMPLETE, metrics=found, curves=curves, detail="")


def titles(results: Sequence[Result]) -> list[str]:
    """Title every result by its optimizer and the differences of its task; by its name if nothing does."""
    found = labels([result.spec for result in results])
    return [r.name if found.count(label) > 1 else label for r, label in zip(results, found, strict=True)]


def refuse_two_directions(results: Sequence[Result]) -> None:
    """Raise UsageError if higher is better in one result and lower in another, of the same metric."""
    first: dict[str, Result] = {}
    for each in results:
        other = first.setdefault(each.surface.metric, each)
        if other.surface.direction is not each.surface.direction:
            higher, lower = (each, other) if each.surface.direction is Direction.MAXIMIZE else (other, each)
            raise UsageError(
                f"a higher {brief(each.surface.metric)} is better in study {higher.name!r}, a lower one in "
                f"{lower.name!r}; give {arg('maximize', True)} or {arg('minimize', True)} "
                "for both, or report one at a time"
            )


def comparison(a: Result, b: Result) -> ComparedResults:
    """Compare two results paired by seed, each named by its optimizer (or study) and its formula.

    Raises UsageError if higher is better in one and lower in the other.
    """
    refuse_two_directions([a, b])
    of_a, of_b = titles([a, b])
    differences = compare(
        a.surface,
        b.surface,
        name_a=f"{of_a} ({a.spec.formula})",
        name_b=f"{of_b} ({b.spec.formula})",
        margin=a.separability.margin,
    )
    return ComparedResults(a, b, differences)


def read_results(
    store: Store,
    names: Sequence[str],
    metric: str | None = None,
    *,
    direction: Direction | None = None,
    cap: float | None = None,
    curves: bool = False,
    at_restart: int | None = None,
    data_dir: str | None = None,
    margin: float = MARGIN,
) -> tuple[list[Result], list[ComparedResults]]:
    """Read studies from the store, analyse each, and compare each further one with the first.

    Raises UnknownName for a study or a metric, UsageError if two studies of one metric differ in direction,
    if `cap` meets several metrics, and where `result` does.
    """
    results = []
    for name in names:
        record = store.get_study(name)
        family = record.spec.optimizer.family
        needs_projection = family is not None and family.projected  # the time scale of decay depends on it
        found = result(
            record.name,
            record.spec,
            record.created,
            store.trials(record.name, curves=curves or needs_projection),
            metric=metric,
            direction=direction,
            cap=cap,
            at_restart=at_restart,
            margin=margin,
        )
        found = replace(found, storage=store.storage, data_dir=data_dir)
        results.append(replace(found, older=not record.version, seconds=record.seconds))
    refuse_two_directions(results)
    if cap is not None and len({result.surface.metric for result in results}) > 1:
        raise UsageError(f"{arg('cap', cap)}: the studies differ in metric; choose one with {arg('metric')}")
    return results, [comparison(results[0], other) for other in results[1:]]

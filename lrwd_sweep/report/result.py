"""A study as it stands: specification, surface and separability, ready to be shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.errors import UnknownName, UsageError, brief
from lrwd_sweep.science.conversion import Conventions, conventions
from lrwd_sweep.science.direction import chosen
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Comparison, Separability, analyse, compare
from lrwd_sweep.science.surface import Surface, mean_and_error
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec, labels


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of a study with its seed mean in the metric that chooses, and in that of the test split."""

    cell: Cell
    value: float
    sem: float | None  # standard error of `value`; None with fewer than two seeds
    test_value: float | None


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
    storage: str | None = None  # where its store is, unless that is the default file here
    snapshot: Snapshot | None = None  # what the metrics are of, under warm restarts
    data_dir: str | None = None  # where the files of its data set were, if that was said
    older: bool = (
        False  # begun before its version was stored: earlier reports computed some numbers otherwise
    )

    @property
    def best(self) -> Cell | None:
        """The point with the best seed mean, or None when none counts."""
        found = self.ranked(1)
        return found[0].cell if found else None

    def ranked(self, count: int) -> list[Candidate]:
        """The `count` best points that count, best first; of a TPE search its own points, not their cells."""
        metric, seeds = self.surface.metric, self.spec.seeds
        points: dict[Cell, dict[int, float]] = {}
        for trial in self.trials:
            if trial.status is Status.COMPLETE and metric in trial.metrics:
                points.setdefault(trial.cell, {})[trial.seed] = trial.metrics[metric]
        sign = -1 if self.surface.direction is Direction.MAXIMIZE else 1
        limit = math.inf if self.surface.cap is None else sign * self.surface.cap
        found = []
        for cell, values in points.items():
            if all(sign * values.get(seed, math.nan) < limit for seed in seeds):
                value, sem = _mean_and_error([values[seed] for seed in seeds])
                if math.isfinite(value):
                    found.append(Candidate(cell, value, sem, None))
        best = sorted(found, key=lambda candidate: (sign * candidate.value, candidate.cell))[:count]
        return [replace(candidate, test_value=self.test_value(candidate.cell)) for candidate in best]

    def test_value(self, cell: Cell) -> float | None:
        """The seed mean of the same measure on the test split, which chose nothing; None if unknown."""
        metric = self.surface.metric.replace("val_", "test_").replace("train_", "test_")
        found = [
            trial.metrics[metric]
            for trial in self.trials
            if trial.cell == cell and trial.status is Status.COMPLETE and metric in trial.metrics
        ]
        return sum(found) / len(found) if found and metric.startswith("test_") else None

    def conventions(self, cell: Cell) -> Conventions:
        """The cell's decay in every convention, as far as the study's task is known.

        N is that of the run, or of the cycle that ends at the snapshot.
        """
        t = self.spec.task
        projected = self.projected(cell)
        if t is None:
            return conventions(
                self.spec.optimizer, cell.lr, cell.weight_decay, None, None, projected=projected
            )
        end = t.epochs if self.snapshot is None else self.snapshot.epoch
        n = t.timetable.steps_of_cycle(end * t.steps_per_epoch - 1)
        constant = t.schedule is Schedule.FIXED and not t.warmup
        return conventions(
            self.spec.optimizer,
            cell.lr,
            cell.weight_decay,
            n,
            t.momentum,
            constant=constant,
            projected=projected,
        )

    def projected(self, cell: Cell) -> float | None:
        """The share of its matrices' steps that the cell's lanes projected; None where nobody counted."""
        found = [
            sum(trial.curves["projection"]) / len(trial.curves["projection"])
            for trial in self.trials
            if trial.cell == cell and trial.status is Status.COMPLETE and trial.curves.get("projection")
        ]
        return sum(found) / len(found) if found else None


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None with fewer than two values."""
    mean, error = mean_and_error(np.array(values))
    return float(mean), float(error) if len(values) > 1 else None


@dataclass(frozen=True, eq=False)
class ComparedResults:
    """Two results and what separates them."""

    a: Result
    b: Result
    comparison: Comparison


def result(
    name: str,
    spec: StudySpec,
    created: str,
    trials: Sequence[Trial],
    *,
    metric: str | None = None,
    direction: Direction | None = None,
    cap: float | None = None,
    storage: str | None = None,
    at_restart: int | None = None,
    data_dir: str | None = None,
    older: bool = False,
) -> Result:
    """Lay a study's trials out as a surface in `metric` (default: the spec's) and analyse it.

    `direction` and `cap` are the metric's; by default the spec's for its own metric. Under warm restarts the
    metrics are those of the snapshot `at_restart` (default: the newest). Raises UnknownName when neither the
    task nor any trial has the metric, UsageError without such a snapshot, or where the name of another metric
    says that higher is better and no direction is given.
    """
    snapshot = _snapshot(name, spec, at_restart)
    if at_restart is not None and snapshot is not None:
        trials = [_at(snapshot, trial) for trial in trials]
    if metric is not None and metric != spec.metric:
        known = {name for trial in trials for name in trial.metrics}
        if spec.task is None and metric not in known:
            raise UnknownName("metric", metric, known)
        spec = _in_other_metric(spec, metric, direction)
    spec = _as_asked(name, spec, direction, cap)
    laid_out = on_lattice(trials, spec.lattice, spec.metric) if spec.kind is Kind.TPE else trials
    surface = Surface.from_trials(
        laid_out,
        spec.lattice,
        spec.seeds,
        metric=spec.metric,
        rule=spec.optimizer.rule,
        cap=spec.cap,
        normalized=spec.optimizer.normalized,
        direction=spec.direction,
    )
    separability = analyse(surface)
    return Result(
        name, spec, created, tuple(trials), surface, separability, storage, snapshot, data_dir, older
    )


def _in_other_metric(spec: StudySpec, metric: str, direction: Direction | None) -> StudySpec:
    """The spec judged by a metric whose direction it does not tell; lrwd-sweep's own are all minimised."""
    if spec.task is None:
        maximize, minimize = direction is Direction.MAXIMIZE, direction is Direction.MINIMIZE
        direction = chosen(metric, maximize=maximize, minimize=minimize)
    return replace(spec, metric=metric, direction=direction or Direction.MINIMIZE, given_cap=None)


def _as_asked(name: str, spec: StudySpec, direction: Direction | None, cap: float | None) -> StudySpec:
    """The spec with the direction and the cap that a report gives to its metric."""
    if direction is Direction.MAXIMIZE and spec.task is not None:
        raise UsageError(
            f"--maximize: a lower {spec.metric} is better, which lrwd-sweep measured in study {name!r}; "
            "leave the option out"
        )
    if cap is not None:
        spec = replace(spec, given_cap=cap)
    return spec if direction is None else replace(spec, direction=direction)


def at_cap(result: Result, surface: Surface) -> str:
    """What a cell has reached that is out and did not diverge, in words; the surface may be another metric's.

    Empty where there is no cap.
    """
    if surface.cap is None:
        return ""
    spec = result.spec
    if spec.given_cap is None or surface.metric != spec.metric:
        return "at chance level"
    return (
        f"at or {'below' if spec.direction is Direction.MAXIMIZE else 'above'} the cap of {spec.given_cap:g}"
    )


def refuse_two_directions(results: Sequence[Result]) -> None:
    """Raise UsageError where higher is better in one result and lower in another, of the same metric."""
    first: dict[str, Result] = {}
    for each in results:
        other = first.setdefault(each.surface.metric, each)
        if other.surface.direction is not each.surface.direction:
            higher, lower = (each, other) if each.surface.direction is Direction.MAXIMIZE else (other, each)
            raise UsageError(
                f"a higher {brief(each.surface.metric)} is better in study {higher.name!r}, a lower one in "
                f"{lower.name!r}; give --maximize or --minimize for both, or report one at a time"
            )


def _snapshot(name: str, spec: StudySpec, at_restart: int | None) -> Snapshot | None:
    """The snapshot asked for, or the newest; None for a study without warm restarts that none is asked of."""
    epochs = () if spec.task is None else spec.task.timetable.snapshots
    if at_restart is None:
        return Snapshot(len(epochs), epochs[-1]) if epochs else None
    if not epochs:
        raise UsageError(
            f"--at-restart {at_restart}: study {name!r} has no snapshot of a restart; leave it out"
        )
    if at_restart > len(epochs):
        known = ", ".join(map(str, epochs))
        raise UsageError(
            f"--at-restart {at_restart}: study {name!r} has {len(epochs)}, at the end of epoch {known}; "
            f"choose 1 to {len(epochs)}"
        )
    return Snapshot(at_restart, epochs[at_restart - 1])


def _at(snapshot: Snapshot, trial: Trial) -> Trial:
    """A trial as it stood at a snapshot; one that had diverged or failed by then stays what it is."""
    curves = {name: values[: snapshot.epoch] for name, values in trial.curves.items()}
    found = trial.snapshots.get(snapshot.epoch)
    if found is None:
        return replace(trial, metrics={}, curves=curves)
    return replace(trial, status=Status.COMPLETE, metrics=found, curves=curves, detail="")


def on_lattice(trials: Sequence[Trial], lattice: Lattice, metric: str) -> list[Trial]:
    """Trials of a continuous search moved to their nearest lattice cells in log distance.

    Per cell and seed the completed ones are averaged; without any, the cell shows what became of the first.
    """
    groups: dict[tuple[Cell, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((nearest(trial.cell, lattice), trial.seed), []).append(trial)
    moved = []
    for (cell, seed), group in groups.items():
        values = [trial.metrics[metric] for trial in group if metric in trial.metrics]
        if values:
            moved.append(Trial(cell, seed, Status.COMPLETE, {metric: sum(values) / len(values)}))
        else:
            moved.append(replace(group[0], cell=cell))
    return moved


def nearest(cell: Cell, lattice: Lattice) -> Cell:
    """The cell of a lattice at the smallest log distance, axis by axis."""
    return Cell(_nearest(cell.lr, lattice.lr), _nearest(cell.weight_decay, lattice.weight_decay))


def _nearest(value: float, axis: Sequence[float]) -> float:
    """The axis value at the smallest log distance; 0 is near to 0 alone."""
    if value <= 0:
        return min(axis)
    return min((at for at in axis if at > 0), key=lambda at: abs(math.log(at / value)))


def titles(results: Sequence[Result]) -> list[str]:
    """A title for every result: its optimizer, and what of its task differs; its name where nothing does."""
    found = labels([result.spec for result in results])
    return [r.name if found.count(label) > 1 else label for r, label in zip(results, found, strict=True)]


def comparison(a: Result, b: Result) -> ComparedResults:
    """The paired comparison of two results, each named by its optimizer (or study) and its formula.

    Raises UsageError where higher is better in the one and lower in the other.
    """
    refuse_two_directions([a, b])
    names = titles([a, b])
    name_a, name_b = (f"{name} ({result.spec.formula})" for name, result in zip(names, (a, b), strict=True))
    return ComparedResults(a, b, compare(a.surface, b.surface, name_a=name_a, name_b=name_b))

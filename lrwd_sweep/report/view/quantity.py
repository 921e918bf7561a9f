"""A quantity by name, a metric or a diagnostic: its surface, its learning curves, or why a study has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result, nearest, on_lattice
from lrwd_sweep.science.direction import says_higher
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.catalog import DIAGNOSTICS, chance_level
from lrwd_sweep.spec.study import Kind, StudySpec

SCATTER, CURVES = "scatter", "curves"  # pictures that are no quantity of their own
X, Y = "train_loss", "test_error"  # of the scatter
ERROR, LOSS = "val_error", "train_loss"  # of the curves
DRAWN_FROM = {SCATTER: (X, Y), CURVES: (ERROR, LOSS)}
_AT_THE_END = "norm"  # the other diagnostics follow η down to nothing: their mean over the epochs says more


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that was measured in every lane."""

    name: str

    @property
    def ranked(self) -> bool:
        """Whether one end is better."""
        return self.name not in DIAGNOSTICS

    @property
    def label(self) -> str:
        """The name, with what stands for a whole run."""
        return self.name if self.ranked or self.name == _AT_THE_END else f"{self.name}, mean over the epochs"

    def surface(self, result: Result) -> Surface | None:
        """One value per lane: a metric's last, a diagnostic's at the end or its mean; None without any."""
        trials = [replace(trial, metrics=self._metrics(trial)) for trial in result.trials]
        if not any(trial.metrics for trial in trials):
            return None
        spec = result.spec
        if spec.kind is Kind.TPE:
            trials = on_lattice(trials, spec.lattice, self.label)
        direction, cap = self._reading(spec)
        return Surface.from_trials(
            trials,
            spec.lattice,
            spec.seeds,
            metric=self.label,
            rule=spec.optimizer.rule,
            cap=cap,
            normalized=spec.optimizer.normalized,
            direction=direction,
        )

    def _reading(self, spec: StudySpec) -> tuple[Direction, float | None]:
        """Which end is better, and from where on a cell is out: the study's own, or by the metric's name."""
        if self.name == spec.metric:
            return spec.direction, spec.cap
        if not self.ranked or spec.task is None:
            higher = self.ranked and says_higher(self.name)
            return Direction.MAXIMIZE if higher else Direction.MINIMIZE, None
        if not self.name.endswith("_error"):
            return Direction.MINIMIZE, None
        return Direction.MINIMIZE, chance_level(self.name, spec.task.data_set.classes)

    def _metrics(self, trial: Trial) -> Mapping[str, float]:
        if trial.status is not Status.COMPLETE:
            return {}
        if self.ranked:
            found = trial.metrics.get(self.name, np.nan)
        else:
            curve = np.array(trial.curves.get(self.name, (np.nan,)))
            found = float(curve[-1] if self.name == _AT_THE_END else curve.mean())
        return {self.label: found} if np.isfinite(found) else {}

    def curves(self, result: Result) -> dict[tuple[int, int], Float]:
        """By lattice cell (i, j), the seed mean (E,); of cells alone in which every seed is complete."""
        rows = {value: i for i, value in enumerate(result.spec.lattice.lr)}
        columns = {value: j for j, value in enumerate(result.spec.lattice.weight_decay)}
        seeds: dict[tuple[int, int], set[int]] = {}
        lanes: dict[tuple[int, int], list[tuple[float, ...]]] = {}
        for trial in result.trials:
            if trial.status is Status.COMPLETE and self.name in trial.curves:
                cell = nearest(trial.cell, result.spec.lattice)
                place = rows[cell.lr], columns[cell.weight_decay]
                seeds.setdefault(place, set()).add(trial.seed)
                lanes.setdefault(place, []).append(trial.curves[self.name])
        whole = [place for place, found in seeds.items() if found.issuperset(result.spec.seeds)]
        return {place: np.array(lanes[place]).mean(axis=0) for place in whole}

    def absence(self, result: Result) -> str:
        """Why a study has none."""
        family = result.spec.optimizer.family
        if self.name == "projection" and not (family and family.projected):
            return "no projection: only adamp and sgdp have one"
        if self.ranked:
            return f"no {self.name} in the store"
        if any(trial.curves for trial in result.trials):
            return f"no {self.name}: its network has no scale-invariant tensors, or it was trained without"
        return f"no {self.name}: the study has no learning curves"


def quantities(names: Iterable[str]) -> list[Quantity]:
    """What the named pictures show or are drawn from, each once."""
    every = [part for name in names for part in DRAWN_FROM.get(name, (name,))]
    return [Quantity(name) for name in dict.fromkeys(every)]


def resolved(names: Iterable[str], results: Sequence[Result]) -> list[str]:
    """The names of pictures and quantities meant, each once; `effective-lr` is `effective_lr`.

    Raises UnknownName for one that is neither a picture nor measured in any of the results.
    """
    trials = [trial for result in results for trial in result.trials]
    known = {SCATTER, CURVES, *DIAGNOSTICS, *(name for trial in trials for name in trial.metrics)}
    known |= {name for trial in trials for name in trial.curves}
    known |= {part for parts in DRAWN_FROM.values() for part in parts}  # where all diverged, none is measured
    found = [name if name in known else name.replace("-", "_") for name in names]
    for name in found:
        if name not in known:
            raise UnknownName("name for --show", name, known)
    return list(dict.fromkeys(found))

"""Trained and imported studies, as Python and notebooks see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, refuse_two_directions, titles
from lrwd_sweep.report.view import notebook_html, text_of
from lrwd_sweep.report.view.lane_table import curve_frame, lane_frame
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.report.view.tables import snippet
from lrwd_sweep.report.view.terminal import Report
from lrwd_sweep.science.separability import PairedDifferences, Separability
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.store import open_store

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Best:
    """The best point of a study by its mean over all seeds, in the metric's units."""

    lr: float
    weight_decay: float  # in the study's own decay convention
    value: float
    sem: float | None  # standard error of `value`; None with fewer than two seeds
    test_value: float | None  # the same measure on the test split, which chose nothing


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """One study as read from the store: a picture in a notebook, a report when printed."""

    result: Result  # for the modules of this package
    store: Path  # the file that it was read from

    @property
    def name(self) -> str:
        """The name in the store, for `load`."""
        return self.result.name

    @property
    def optimizer(self) -> str:
        """The optimizer's name, for `sweep`."""
        return self.result.spec.title

    @property
    def formula(self) -> str:
        """The update that trained, in the paper's letters."""
        return self.result.spec.formula

    @property
    def metric(self) -> str:
        """The metric that cells are judged by."""
        return self.result.surface.metric

    @property
    def direction(self) -> str:
        """The better end of the metric: minimize or maximize."""
        return str(self.result.surface.direction)

    @property
    def surface(self) -> Surface:
        """Arrays: `lr` (I,), `weight_decay` (J,), `values` (I, J, R) by seed, `mean` and `sem` (I, J).

        `values` is NaN where a lane did not complete, `mean` where one of the seeds did not.
        """
        return self.result.surface

    @property
    def separability(self) -> Separability:
        """Verdict, ridge slope and the other metrics, each with its 90 % interval."""
        return self.result.separability

    @property
    def best(self) -> Best | None:
        """The best point; None if no cell counts."""
        for found in self.result.ranked(1):
            at = found.cell
            return Best(at.lr, at.weight_decay, found.value, found.sem, found.test_value)
        return None

    @cached_property
    def frame(self) -> DataFrame:
        """A row per lane: lr, weight_decay, seed, status, detail, then every metric. Raises HostError."""
        return lane_frame({self.name: self.result.trials}, self.metric)

    def curves(self) -> DataFrame:
        """Read the curves, a row per lane and epoch: lr, weight_decay, seed, epoch, then every curve.

        Raises HostError, also without pandas, and UnknownName if the study was deleted.
        """
        with open_store(str(self.store), write=False) as store:
            return curve_frame({self.name: store.trials(self.name, curves=True)})

    @property
    def recipe(self) -> str:
        """The best and the most forgiving cell as lines of Python to paste; empty if no cell counts."""
        return snippet(self.result, recommendations(self.result))

    def __repr__(self) -> str:
        surface, best, counts = self.surface, self.best, self.surface.counts()
        states = ("diverged", "failed", *["missing"] * (not surface.is_refined))
        wrong = "".join(f", {counts[s]} {s}" for s in states if counts[s]) + ", refined" * surface.is_refined
        parts = [
            f"{len(surface.lr)}×{len(surface.weight_decay)} cells × {len(surface.seeds)} seeds{wrong}",
            str(self.separability.verdict),
        ]
        if best is not None:
            at = f"lr={best.lr:.4g}, weight_decay={best.weight_decay:.4g}"
            parts.append(f"best {plain(self.metric)} {best.value:.4g} at {at}")
        return f"<Study {self.name!r} of {plain(self.optimizer)}: {'; '.join(parts)}>"

    def __str__(self) -> str:
        return text_of(self.__rich__()).rstrip()

    def __rich__(self) -> Report:
        return Report([self.result], full=True)

    def _repr_html_(self) -> str:
        return notebook_html(self.__rich__())


class Comparison:
    """Studies side by side, each compared with the first, seed by seed.

    The same seed is the same initialisation and data order in all of them. Raises UsageError without a study,
    if one is given twice, and if the same metric is better higher in one and lower in another.
    """

    def __init__(self, *studies: Study) -> None:
        self._results = [study.result for study in studies]
        self.studies: dict[str, Study] = dict(zip(titles(self._results), studies, strict=True))
        if not studies or len(self.studies) < len(studies):
            raise UsageError("a comparison needs different studies, as in Comparison(load('a'), load('b'))")
        refuse_two_directions(self._results)
        self._compared = [comparison(self._results[0], other) for other in self._results[1:]]

    @property
    def differences(self) -> dict[str, PairedDifferences]:
        """Slope and best value of every other study minus the first's, paired by seed; by title."""
        _, *others = self.studies
        return {title: compared.comparison for title, compared in zip(others, self._compared, strict=True)}

    @property
    def verdict(self) -> str:
        """A sentence for every other study, which claims only what the intervals support."""
        return "\n".join(found.verdict for found in self.differences.values())

    @cached_property
    def frame(self) -> DataFrame:
        """The frames of all studies as one, their titles in column `study`. Raises HostError."""
        trials = {title: study.result.trials for title, study in self.studies.items()}
        return lane_frame(trials, self._results[0].surface.metric)

    def __repr__(self) -> str:
        found = (f"{plain(title)} {study.separability.verdict}" for title, study in self.studies.items())
        return f"<Comparison: {', '.join(found)}>"

    def __str__(self) -> str:
        return text_of(self.__rich__()).rstrip()

    def __rich__(self) -> Report:
        return Report(self._results, self._compared, full=True)

    def _repr_html_(self) -> str:
        return notebook_html(self.__rich__())

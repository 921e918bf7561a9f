"""From a specification to a trained and shown study: the part that grid, compare and tpe share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrwd_sweep.cli.data_files import DataFiles
from lrwd_sweep.cli.signals import Interrupted, stop_on_signals
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.spec import StudySpec
from lrwd_sweep.view import consoles

if TYPE_CHECKING:
    from lrwd_sweep.result import ComparedResults, Result
    from lrwd_sweep.store import Store


@dataclass(frozen=True, slots=True)
class Trainer:
    """Where and how studies train."""

    store: Store
    device: str
    max_lanes: int | None
    files: DataFiles

    def grid(self, name: str, spec: StudySpec, title: str = "") -> None:
        """Train what the lattice misses, and say so under this title. Raises Interrupted after a signal."""
        from lrwd_sweep.trial import unfinished

        known = self.store.find_study(name)
        if known is not None:
            known = self.store.begin_study(name, spec)
            cells = list(spec.lattice.cells())
            missing = sum(map(len, unfinished(cells, spec.seeds, self.store.finished(name)).values()))
            kept = len(cells) * len(spec.seeds) - missing
            note(f"{name}: {kept} of {len(cells) * len(spec.seeds)} lanes are in the store", and_(missing))
            if not missing:
                return
        self._train(name, spec, None, title)

    def tpe(self, name: str, spec: StudySpec, points: int) -> None:
        """Search until there are `points` points, and say so. Raises Interrupted after a signal."""
        if self.store.find_study(name) is not None:
            self.store.begin_study(name, spec)
            finished = self.store.finished(name)
            cells = {trial.cell for trial in self.store.trials(name)}
            whole = sum(all((cell, seed) in finished for seed in spec.seeds) for cell in cells)
            note(f"{name}: {whole} of {points} points are in the store", and_(max(points - whole, 0)))
            if whole >= points and whole == len(cells):
                return
        self._train(name, spec, points)

    def _train(self, name: str, spec: StudySpec, points: int | None, title: str = "") -> None:
        from lrwd_sweep.engine import Pool, Stopped
        from lrwd_sweep.sweep import Sweep
        from lrwd_sweep.view.live import Progress

        assert spec.training is not None, "an imported study does not train"
        pool = Pool(spec.training, self.device, files=self.files.open())
        self.store.begin_study(name, spec)
        known = self.store.trials(name)
        with stop_on_signals() as stop, Progress(consoles.stderr(), spec, known, title) as progress:
            sweep = Sweep(name, spec, self.store, pool, progress, self.max_lanes, stop)
            try:
                if points is None:
                    sweep.grid()
                else:
                    sweep.tpe(points)
            except Stopped:
                raise Interrupted(stop.signal) from None


def check_device(name: str) -> None:
    """Refuse a device that is not there before anything is opened or stored."""
    if name not in ("auto", "cpu"):
        from lrwd_sweep.engine.device import choose

        choose(name)


def note(*parts: str) -> None:
    """One line on stderr."""
    from lrwd_sweep.view.plain import plain

    consoles.stderr().print(plain("; ".join(parts)), soft_wrap=True)


def and_(missing: int) -> str:
    """What follows from what is missing."""
    return f"training the {missing} that are missing" if missing else "nothing to train"


def read_results(
    store: Store,
    names: Sequence[str],
    metric: str | None,
    *,
    curves: bool = False,
    at_restart: int | None = None,
) -> tuple[list[Result], list[ComparedResults]]:
    """Studies of the store as they stand, and each further one compared with the first."""
    from lrwd_sweep.result import comparison, result

    results = []
    for name in names:
        record = store.get_study(name)
        trials = store.trials(record.name, curves=curves)
        results.append(
            result(
                record.name,
                record.spec,
                record.created,
                trials,
                metric=metric,
                storage=store.storage,
                at_restart=at_restart,
            )
        )
    return results, [comparison(results[0], other) for other in results[1:]]


def show(store: Store, names: Sequence[str], metric: str | None, pictures: Sequence[str] = ()) -> None:
    """Print the report of studies of the store on stdout, and further pictures by name."""
    from lrwd_sweep.view.pictures import show_renderables
    from lrwd_sweep.view.tables import Report

    results, comparisons = read_results(store, names, metric, curves=bool(pictures))
    for part in (Report(results, comparisons), *show_renderables(results, pictures)):
        consoles.stdout().print(part)


def refuse_failed(store: Store, names: Sequence[str]) -> None:
    """Raise DeviceError when lanes failed for want of memory; the report is out by now."""
    from lrwd_sweep.trial import Status

    failed = [trial for name in names for trial in store.trials(name) if trial.status is Status.FAILED]
    if failed:
        raise DeviceError(
            f"{len(failed)} lanes failed: {failed[0].detail}; the same command tries them again"
        )

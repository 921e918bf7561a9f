"""The run that grid, compare and tpe share: open the store, train, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.runner.runner import Runner, check_device

if TYPE_CHECKING:
    from lrwd_sweep.cli.options import Place
    from lrwd_sweep.report.result import Result
    from lrwd_sweep.spec.study import StudySpec
    from lrwd_sweep.store import Store


@contextmanager
def opened(place: Place, specs: Mapping[str, StudySpec]) -> Iterator[Runner]:
    """Open the store to train studies, by name, after refusing what cannot be trained."""
    place.files.check(specs.values())
    check_device(place.device)
    from lrwd_sweep.store import check_name, open_store

    for name in specs:
        check_name(name)
    with open_store(place.storage, write=True) as store:
        yield Runner(
            store,
            place.device,
            place.max_lanes,
            place.files,
            place.quiet,
            place.retrain_damaged,
            place.checkpoint_every,
        )


def report(
    runner: Runner, place: Place, names: Sequence[str], metric: str, pictures: Sequence[str] = ()
) -> None:
    """Print the report of trained studies and further pictures. Raises DeviceError if lanes failed."""
    from lrwd_sweep.report.result import read_results
    from lrwd_sweep.report.view.pictures import show_renderables
    from lrwd_sweep.report.view.terminal import Report
    from lrwd_sweep.science.separability.verdict import MARGIN

    results, comparisons = read_results(
        runner.store,
        names,
        metric,
        curves=bool(pictures),
        data_dir=runner.files.folder,
        margin=MARGIN if place.margin is None else place.margin,
    )
    if not runner.quiet:
        tell_what_changed(results)
    further = show_renderables(results, pictures)
    consoles.stdout().print(Report(results, comparisons, place.full, further))
    refuse_failed(runner.store, names)


def tell_what_changed(results: Sequence[Result]) -> None:
    """Note why studies of an earlier version have other numbers than in earlier reports."""
    older = [result for result in results if result.older]
    if not older:
        return
    names = ", ".join(result.name for result in older)
    above = sum(map(_above_chance, older))
    losses = f", and {counted(above, 'cell')} with a loss above chance count" if above else ""
    consoles.note(
        f"{names}: begun by an earlier lrwd-sweep. Stored values are the same; slopes and verdicts differ, "
        f"since rows weigh by smoothed curvature, an F test within rows replaces the noise guard{losses}"
    )


def _above_chance(result: Result) -> int:
    """Count the cells whose cross-entropy reaches ln C; earlier versions left them out."""
    import numpy as np

    from lrwd_sweep.spec.catalog import CROSS_ENTROPY

    task, surface = result.spec.task, result.surface
    if task is None or task.loss != CROSS_ENTROPY or not surface.metric.endswith("_loss"):
        return 0
    chance = np.log(task.data_set.classes)
    return int((surface.inside & (surface.values >= chance).any(axis=2)).sum())


def refuse_failed(store: Store, names: Sequence[str]) -> None:
    """Raise DeviceError if lanes failed for want of memory."""
    from lrwd_sweep.science.trial import Status

    failed = [trial for name in names for trial in store.trials(name) if trial.status is Status.FAILED]
    if failed:
        raise DeviceError(
            f"{len(failed)} lanes failed: {failed[0].detail}; the same command tries them again"
        )

"""What grid, compare and tpe share once their studies are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.view import consoles

if TYPE_CHECKING:
    from lrwd_sweep.store import Store


def show(
    store: Store,
    names: Sequence[str],
    metric: str | None,
    pictures: Sequence[str] = (),
    data_dir: str | None = None,
) -> None:
    """Print the report of studies of the store on stdout, and further pictures by name.

    The commands that it gives name the folder of the data's files, where that was given.
    """
    from lrwd_sweep.store import read_results
    from lrwd_sweep.view.pictures import show_renderables
    from lrwd_sweep.view.tables import Report

    results, comparisons = read_results(store, names, metric, curves=bool(pictures), data_dir=data_dir)
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

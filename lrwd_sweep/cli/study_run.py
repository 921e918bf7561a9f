"""The run that grid, compare and tpe share: open the store, train, report."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from lrwd_sweep.errors import DeviceError, UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted, styled
from lrwd_sweep.runner.runner import Runner, check_device, check_place, told
from lrwd_sweep.runner.study_loop import missing, runs
from lrwd_sweep.spec.job import WHOLE, Shard, refuse_refined_shard

if TYPE_CHECKING:
    from lrwd_sweep.cli.options import Place
    from lrwd_sweep.report.result import Result
    from lrwd_sweep.science.trial import Trial
    from lrwd_sweep.spec.study import StudySpec
    from lrwd_sweep.store import Store


@contextmanager
def opened(place: Place, specs: Mapping[str, StudySpec], points: int | None = None) -> Iterator[Runner]:
    """Open the store to train studies, by name, after refusing what cannot be trained.

    A line says what it is first: torch and the store take time to load.
    """
    _check(place, specs)
    if not place.quiet:
        where = place.choice.place(place.device)
        consoles.note(told(list(specs.values()), where, points, place.shard))
    if not place.choice.is_ray:
        check_device(place.device)
    from lrwd_sweep.store import check_name, open_store

    for name in specs:
        check_name(name)
    with open_store(_storage(place), write=True) as store:
        yield Runner(
            store,
            place.device,
            place.max_lanes,
            place.files,
            place.quiet,
            place.retrain_damaged,
            place.checkpoint_every,
            announced=True,
            choice=place.choice,
            shard=place.shard,
        )


def _check(place: Place, specs: Mapping[str, StudySpec]) -> None:
    """Refuse what cannot be trained, before torch and the store are loaded."""
    refuse_refined_shard(place.shard, (spec.refine for spec in specs.values()))
    check_place(
        specs.values(), place.device, place.max_lanes, place.files, place.checkpoint_every, place.choice
    )
    place.files.check(specs.values())


def _storage(place: Place) -> str | None:
    """Return the file to write: by default each shard has its own, so that no two commands write one file."""
    if place.shard is None or place.storage is not None:
        return place.storage
    from lrwd_sweep.store.database import shard_file

    return shard_file(place.shard)


def show_forecast(place: Place, specs: Mapping[str, StudySpec], points: int | None = None) -> None:
    """Print what training studies, by name, would take; write nothing. Raises what training them would."""
    if place.retrain_damaged:
        raise UsageError(f"{arg('dry_run', True)} does not count damaged lanes; leave --retrain-damaged out")
    if place.choice.is_ray:
        raise UsageError(f"{arg('dry_run', True)} measures this machine; leave {arg('executor', 'ray')} out")
    _check(place, specs)
    check_device(place.device)
    from lrwd_sweep.report.view.notation import about
    from lrwd_sweep.runner.study_loop import forecast
    from lrwd_sweep.store import check_name, preview_store

    for name in specs:
        check_name(name)
    path, store = preview_store(_storage(place))
    shard, found = place.shard or WHOLE, None
    with store or nullcontext():
        for name, spec in specs.items():
            if store is not None:
                store.check_study(name, spec)
        lacking = {name: missing(store, name, spec, points, shard) for name, spec in specs.items()}
        new = {name: lacking[name].runs for name in specs if lacking[name].runs}
        commands = {name: spec for name, spec in specs.items() if spec.command and name in new}
        if new and not commands:
            begun = {name: specs[name] for name in new}
            found = forecast(begun, new, store, place.device, place.max_lanes, place.files, points)
    lines = [("", told(list(specs.values()), place.device, points, place.shard))]
    for name, spec in specs.items():
        left, stored = lacking[name].runs, lacking[name].stored
        every = runs(spec, points, shard) if stored is None else stored + left
        rounds = " in the next round" * (spec.refine is not None)
        lines.append(
            ("study", f"{name}: {every - left} of {counted(every, 'run')} are stored, {left} are new{rounds}")
        )
    lines.append(("store", f"{path}{'' if path.exists() else ', which would be created'}"))
    for name, spec in commands.items():
        from lrwd_sweep.runner.executors.commands import CommandExecution, run_folder

        execution = CommandExecution(spec, run_folder(path, name))
        words = " ".join(execution.example(shard))
        lines.append(("command", f"{words}, {execution.slots} at a time; logs in {execution.folder}"))
    if commands:
        lines.append(("time", "the first run will tell"))
    elif found is None:
        lines.append(("time", "nothing to train"))
    else:
        share = f"{_size(found.bytes * found.packs)} of {_size(found.free)} that are free"
        packs = counted(found.packs, "pack")
        at_once = f"{counted(found.packs * found.lanes, 'run')} at once, {found.lanes} in each of {packs}"
        lines.append(("memory", f"about {share}, for up to {at_once}"))
        how = "" if found.time.whole else " of smaller packs"
        lines.append(
            ("time", f"{about(found.time.seconds)} if as busy as now, estimated from a few steps{how}")
        )
    lines.append(("", "dry run: nothing is trained or written"))
    console = consoles.stdout()
    for label, text in lines:
        line = f"{label:8}{text}" if label else text
        console.print(styled(line, console.options.ascii_only), soft_wrap=True)


def _size(count: float) -> str:
    """Write a number of bytes.

    >>> _size(1.3e6), _size(8.21e10)
    ('1.3 MB', '82.1 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def report(
    runner: Runner, place: Place, names: Sequence[str], metric: str, pictures: Sequence[str] = ()
) -> None:
    """Print the report of trained studies and further pictures, or a line on a shard of them.

    Raises DeviceError if lanes failed.
    """
    if place.shard is not None:
        _report_shard(runner.store, place.shard, names, by_default=place.storage is None)
        refuse_failed(trial for name in names for trial in runner.store.trials(name))
        return
    from lrwd_sweep.report.result import read_results
    from lrwd_sweep.report.view.pictures import HEATMAP, show_renderables
    from lrwd_sweep.report.view.terminal import Report
    from lrwd_sweep.science.separability.verdict import MARGIN

    results, comparisons = read_results(
        runner.store,
        names,
        metric,
        curves=any(name != HEATMAP for name in pictures),
        data_dir=runner.files.folder,
        margin=MARGIN if place.margin is None else place.margin,
    )
    if not runner.quiet:
        tell_what_changed(results)
    further = show_renderables(results, pictures)
    consoles.stdout().print(Report(results, comparisons, place.full, further))
    refuse_failed(trial for result in results for trial in result.trials)


def _report_shard(store: Store, shard: Shard, names: Sequence[str], *, by_default: bool) -> None:
    """Print what the store has of a shard, and the command that joins all shards."""
    from lrwd_sweep.store.database import locate

    specs = {name: store.get_study(name).spec for name in names}
    every = sum(map(runs, specs.values()))
    mine = sum(runs(spec, shard=shard) for spec in specs.values())
    left = sum(missing(store, name, spec, shard=shard).runs for name, spec in specs.items())
    into, sources = "ALL.db", f"{shlex.quote(str(store.path))} …"
    if by_default:
        name = store.path.name.replace(f"-{shard.part}of", "-*of")
        into, sources = str(locate(None)), str(store.path.with_name(name))
    have = f"{mine} of {counted(every, 'run')}"
    if left:
        have = f"{mine - left} of its {counted(mine, 'run')}"
    text = f"{shard}: {have} in {store.path}; join with lrwd-sweep study merge {into} {sources}"
    console = consoles.stdout()
    console.print(styled(text, console.options.ascii_only), soft_wrap=True)


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


def refuse_failed(trials: Iterable[Trial]) -> None:
    """Raise DeviceError if lanes failed for want of memory."""
    from lrwd_sweep.science.trial import Status

    failed = [trial for trial in trials if trial.status is Status.FAILED]
    if failed:
        raise DeviceError(
            f"{len(failed)} lanes failed: {failed[0].detail}; the same command tries them again"
        )

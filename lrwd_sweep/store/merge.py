"""Stores that trained parts of the same studies, joined into one."""

from __future__ import annotations

from collections.abc import Sequence

from lrwd_sweep.errors import SpecMismatch, StoreError, UsageError
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import Lane, Store

Merged = dict[str, list[int]]  # study → number of lanes that each source added


def merge_stores(into: Store, sources: Sequence[Store]) -> Merged:
    """Add all studies of the sources to a store, or nothing; return the lanes that were added.

    A lane that several stores hold must be equal, unless it failed. Raises SpecMismatch, naming the
    difference, if a study has another specification in one of them, StoreError for a lane that differs,
    UsageError if a store would be merged into itself or the sources hold no study.
    """
    if any(source.path.resolve() == into.path.resolve() for source in sources):
        raise UsageError(f"{into.path} cannot be merged into itself; name the other stores")
    specs: dict[str, StudySpec] = {}
    lanes: dict[str, dict[Lane, Trial]] = {}
    added: Merged = {}
    for k, source in enumerate([into, *sources]):
        for summary in source.studies():
            name = summary.name
            spec = source.get_study(name).spec
            if (known := specs.get(name)) is not None and (found := known.differences(spec)):
                raise SpecMismatch(
                    f"study {name!r} of {source.path} has another specification than before "
                    f"({'; '.join(found)}); leave that store out"
                )
            specs[name] = spec if known is None else known.extended(spec)
            mine = lanes.setdefault(name, {})
            counts = added.setdefault(name, [0] * len(sources))
            for trial in source.trials(name, curves=True):
                if _adds(mine, trial, f"study {name!r} of {source.path}") and k:
                    counts[k - 1] += 1
    if not any(map(sum, added.values())) and not specs:
        raise UsageError(f"{', '.join(str(source.path) for source in sources)}: there is no study to merge")
    for name, spec in specs.items():
        into.begin_study(name, spec)
        into.add_trials(name, lanes[name].values())
    for names in (source.latest() for source in sources):
        if names:
            into.record_comparison(names)
    return added


def _adds(known: dict[Lane, Trial], trial: Trial, where: str) -> bool:
    """Add a trial to those known; return False if it was known. Raises StoreError if it differs."""
    lane = (trial.cell, trial.seed)
    before = known.get(lane)
    failed = before is not None and Status.FAILED in (before.status, trial.status)
    if before is not None and not failed and repr(before) != repr(trial):  # NaN is not equal to itself
        raise StoreError(
            f"{where}: lr {trial.cell.lr!r}, weight decay {trial.cell.weight_decay!r}, seed {trial.seed} "
            "differs from the same lane of another store; another machine or version trained it: leave that "
            "store out"
        )
    if before is not None and (before.status is not Status.FAILED or trial.status is Status.FAILED):
        return False
    known[lane] = trial
    return True

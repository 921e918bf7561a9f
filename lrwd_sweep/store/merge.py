"""Stores that trained parts of the same studies, joined into one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lrwd_sweep.errors import SpecMismatch, StoreError, UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial, unfinished
from lrwd_sweep.spec.job import Shard, find_parts
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import Lane, Store


@dataclass(slots=True)
class MergedStudy:
    """One study of a merged store."""

    added: list[int]  # number of lanes by source
    seconds: float = 0.0  # of training that the added lanes took
    missing: int = 0  # lanes of its lattice that no store holds
    shards: dict[Shard, tuple[int, int]] = field(default_factory=dict)  # missing and all, where some miss


def merge_stores(into: Store, sources: Sequence[Store]) -> dict[str, MergedStudy]:
    """Add all studies of the sources to a store, or nothing; return what became of each.

    A lane that several stores hold must be equal, unless it failed. Raises SpecMismatch, naming the
    difference, if a study has another specification in one of them, StoreError for a lane that differs,
    UsageError if a store would be merged into itself or the sources hold no study.
    """
    if any(source.path.resolve() == into.path.resolve() for source in sources):
        raise UsageError(f"{into.path} cannot be merged into itself; name the other stores")
    specs: dict[str, StudySpec] = {}
    lanes: dict[str, dict[Lane, Trial]] = {}
    held: dict[str, list[list[Lane]]] = {}  # by each source
    merged: dict[str, MergedStudy] = {}
    for k, source in enumerate([into, *sources]):
        for summary in source.studies():
            name = summary.name
            record = source.get_study(name)
            if (known := specs.get(name)) is not None and (found := known.differences(record.spec)):
                raise SpecMismatch(
                    f"study {name!r} of {source.path} has another specification than before "
                    f"({'; '.join(found)}); leave that store out"
                )
            specs[name] = record.spec if known is None else known.extended(record.spec)
            mine = lanes.setdefault(name, {})
            study = merged.setdefault(name, MergedStudy([0] * len(sources)))
            trials = source.trials(name, curves=True)
            new = sum(_adds(mine, trial, f"study {name!r} of {source.path}") for trial in trials)
            if k:
                held.setdefault(name, []).append([(trial.cell, trial.seed) for trial in trials])
                study.added[k - 1] = new
                study.seconds += record.seconds * new / max(len(trials), 1)
    if not specs:
        raise UsageError(f"{', '.join(str(source.path) for source in sources)}: there is no study to merge")
    for name, spec in specs.items():
        into.begin_study(name, spec)
        into.add_trials(name, lanes[name].values(), seconds=merged[name].seconds)
        if spec.kind is Kind.GRID and spec.refine is None:
            _find_missing(merged[name], spec, into.finished(name), held.get(name, ()))
    for names in (source.latest() for source in sources):
        if names:
            into.record_comparison(names)
    return merged


def _find_missing(
    study: MergedStudy, spec: StudySpec, finished: set[Lane], held: Iterable[Iterable[Lane]]
) -> None:
    """Count the lanes that are missing, and by shard if the sources are shards."""
    left: Mapping[int, Sequence[Cell]] = unfinished(spec.lattice.cells(), spec.seeds, finished)
    study.missing = sum(map(len, left.values()))
    parts = find_parts(held) if study.missing else 1
    for shard in (Shard(part, parts) for part in range(1, parts + 1) if parts > 1):
        if mine := sum(map(len, shard.among(left).values())):
            study.shards[shard] = mine, shard.count(spec.lattice, spec.seeds)


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

"""Studies of the store as they stand, analysed."""

from __future__ import annotations

from collections.abc import Sequence

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.result import ComparedResults, Result, comparison, refuse_two_directions, result
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.store.store import Store


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
) -> tuple[list[Result], list[ComparedResults]]:
    """Each study's result, and each further one compared with the first.

    Raises UnknownName for a study or a metric, UsageError without such a snapshot, where higher is better in
    one study and lower in another of the same metric, and where `result` does.
    """
    results = []
    for name in names:
        record = store.get_study(name)
        family = record.spec.optimizer.family
        counted = (
            family is not None and family.projected
        )  # how often, in a curve: decay's time scale needs it
        trials = store.trials(record.name, curves=curves or counted)
        results.append(
            result(
                record.name,
                record.spec,
                record.created,
                trials,
                metric=metric,
                direction=direction,
                cap=cap,
                storage=store.storage,
                at_restart=at_restart,
                data_dir=data_dir,
                older=not record.version,
            )
        )
    refuse_two_directions(results)
    if cap is not None and len({result.surface.metric for result in results}) > 1:
        raise UsageError(f"--cap {cap:g}: the studies are in different metrics; choose one with --metric")
    return results, [comparison(results[0], other) for other in results[1:]]

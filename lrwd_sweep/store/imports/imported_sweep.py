"""A table of runs as a sweep: a full lattice or scattered points, and the trials of the runs that ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from lrwd_sweep.errors import arg, shown
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store.imports.extent import (
    Axis,
    extent_of,
    gap_note,
    in_convention,
    lane_text,
    merged_rates,
    named,
    scattered,
)
from lrwd_sweep.store.imports.imported_run import (
    COMPLETE,
    FAILED,
    UNFINISHED,
    ImportedRuns,
    ImportedTrials,
    parse_runs,
)
from lrwd_sweep.store.imports.run_states import StateColumn, end_column, state_columns
from lrwd_sweep.store.imports.run_table import (
    OF_A_RUN,
    Columns,
    RowFault,
    RunTable,
    SweepContext,
    distinct,
    fault_lines,
    higher_is_better_source,
    is_number,
    number,
    numbers,
    read_context,
    some,
)


class Derived(NamedTuple):
    """A rule whose number follows from another rule's exactly, under any schedule."""

    rule: DecayRule
    meaning: str
    number_of: Callable[[Axis, Axis], Axis]  # of α and the recorded number


DERIVED_RULES = {  # by the rule of the recorded number
    DecayRule.LR_SCALED: Derived(DecayRule.INDEPENDENT, "λ = αw", lambda lr, decay: decay * lr),
    DecayRule.INDEPENDENT: Derived(DecayRule.LR_SCALED, "w = λ/α", lambda lr, decay: decay / lr),
}


@dataclass(frozen=True, slots=True)
class ImportedSweep:
    """The trials of the runs that ended, and their lattice, or the box of scattered points."""

    trials: Sequence[Trial]
    lattice: Lattice
    seeds: tuple[int, ...]
    metric: str = "value"
    context: SweepContext = field(default_factory=SweepContext)
    notes: tuple[str, ...] = ()  # merged rates, runs without a result, what varies besides
    scattered: bool = False  # points of a search: the lattice is what they are drawn on
    converted: Mapping[DecayRule, ImportedSweep] = field(
        default_factory=dict
    )  # by the rule that was recorded


def to_sweep(table: RunTable, columns: Mapping[str, str], metric: str) -> ImportedSweep:
    """Build the sweep of a table of runs. Raises UsageError with a line per kind of fault.

    `columns` maps known names to columns. `metric` is what the value measures; a further column that holds
    only numbers is a metric of its own. Without a seed column all rows have seed 0. A value that is not
    finite is a diverged lane; a run that did not finish, by a column of states or because its curve ends
    early, has no trial. Rates that differ by rounding are merged. Runs that fill a lattice only in another
    convention have that lattice as `converted`; runs that fill none are scattered points.
    """
    names = table.column_names(columns, metric)
    texts = table.columns()
    context, unclear = read_context(names, texts, columns)
    of_a_run = {name: column for name, column in names.items() if name in OF_A_RUN}
    used = {*of_a_run.values(), *context.columns}
    further = {column: texts[column] for column in table.header if column and column not in used}
    states, unknown = state_columns(further, columns.get("status"))
    table.refuse(unclear + unknown)
    states += end_column(table.progress, texts, names["value"]) if columns.get("status") is None else []
    read, invalid, faults = parse_runs(table, of_a_run, states)
    table.refuse(fault_lines(faults))
    runs, merges = _merged(read)
    settings = table.settings - used
    remedy = _remedy(table, runs, further, settings, seeded="seed" in names)
    table.refuse(fault_lines(_repeated(runs, read, remedy) or _contradictions(runs, metric, names["value"])))
    numeric = _metrics(runs, further, {*settings, table.progress, *(state.name for state in states)})
    context = replace(
        context, higher=higher_is_better_source(metric, table.measured or of_a_run["value"], further)
    )

    def sweep(
        lattice: Lattice, seeds: tuple[int, ...], kept: ImportedRuns, notes: Iterable[str]
    ) -> ImportedSweep:
        kept = kept.select(kept.status != UNFINISHED)
        left_out = Counter(invalid) + Counter(read.word) - Counter(kept.word)
        further_notes = [*_state_notes(states, left_out, kept), *_variation(kept, further, settings)]
        trials = ImportedTrials(
            replace(kept, table=table.only(numeric)), metric, numeric, measured=of_a_run["value"]
        )
        return ImportedSweep(trials, lattice, seeds, metric, context, (*table.notes, *notes, *further_notes))

    extent = extent_of(table, runs, states)
    if not extent.lacking:
        return sweep(extent.lattice, extent.seeds, extent.runs, merges)
    converted = {}
    for recorded, (rule, meaning, number_of) in DERIVED_RULES.items():
        derived = extent_of(table, in_convention(read, number_of), states)
        if derived.is_nearly_full and not extent.is_nearly_full and len(derived.lattice) > 1:
            size = f"{len(derived.lattice.lr)} × {len(derived.lattice.weight_decay)}"
            note = f"not a lattice in weight_decay, but a full one ({size}) in {meaning}: read as {rule}"
            lacking = f"{derived.lacking} of its lanes have no run: missing"
            notes = [note, *[lacking] * (derived.lacking > 0)]
            converted[recorded] = sweep(derived.lattice, derived.seeds, derived.runs, notes)
    if not converted and (note := gap_note(table, extent)):
        return sweep(extent.lattice, extent.seeds, extent.runs, [*merges, note])
    lattice, seeds, kept, notes = scattered(read)
    fits = [
        f"they fill a lattice in {DERIVED_RULES[rule].meaning}, if weight_decay was {rule}"
        for rule in converted
    ]
    found = sweep(lattice, seeds, kept, [*notes, *fits])
    return replace(found, scattered=True, converted=converted)


def _merged(runs: ImportedRuns) -> tuple[ImportedRuns, list[str]]:
    """Return the runs with one rate for those that differ by rounding, and notes of the merges."""
    notes = []
    for axis in ("lr", "weight_decay"):
        values, place, counts = np.unique(getattr(runs, axis), return_inverse=True, return_counts=True)
        kept = merged_rates(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if kept:
            merged = (f"{a!r} is read as {b!r}" for a, b in kept.items())
            notes.append(f"{axis} equal but for rounding: {some(merged, 3)}")
            rates: Any = {axis: np.array([kept.get(v, v) for v in values.tolist()])[place]}
            runs = replace(runs, **rates)
    return runs, notes


def _repeated(runs: ImportedRuns, read: ImportedRuns, remedy: Callable[[int, int], str]) -> list[RowFault]:
    """Find runs with a result whose lane has one already; `read` are the `runs` before merging rates."""
    results = np.flatnonzero(runs.has_result)
    if np.diff(np.sort(runs.lanes()[results])).all():  # sooner, and in less memory
        return []
    _, first, lane = np.unique(runs.lanes()[results], return_index=True, return_inverse=True)
    repeating = np.flatnonzero(first[lane] != np.arange(len(results)))
    run, other = int(results[repeating[0]]), int(results[first[lane[repeating[0]]]])
    rounded = "" if read.cell(run) == read.cell(other) else "; the rates are equal but for rounding"
    text = f"repeats {runs.place(other)} ({lane_text(runs.cell(run), int(runs.seed[run]))}{rounded})"
    return [RowFault(runs.place(run), f"{text}; {remedy(other, run)}", "repeats")] * len(repeating)


def _contradictions(runs: ImportedRuns, metric: str, column: str) -> list[RowFault]:
    """Find runs whose value differs from the column named as the metric; an export has both.

    `column` holds the values.
    """
    if metric not in runs.table.header or metric == column:
        return []
    complete = np.flatnonzero(runs.status == COMPLETE)
    found = numbers(runs.texts(metric)[complete])
    if found is not None:
        complete = complete[found != runs.value[complete]]
    return [
        RowFault(
            runs.place(k),
            f"value is {value!r} but column {shown(metric)} holds {shown(text)}; use another {arg('metric')}",
            "contradicts",
        )
        for k, value, text in zip(
            complete.tolist(), runs.value[complete].tolist(), runs.texts(metric)[complete], strict=True
        )
        if text and not (is_number(text) and number(text) == value)
    ]


def _metrics(runs: ImportedRuns, further: Columns, others: Collection[str]) -> list[str]:
    """Return the further columns that hold only numbers; an empty field is a run without one."""
    complete = runs.select(runs.status == COMPLETE)

    def is_metric(column: str) -> bool:
        texts = complete.texts(column)
        return any(texts) and numbers(texts) is not None

    return [column for column in further if column not in others and is_metric(column)]


def _remedy(
    table: RunTable, runs: ImportedRuns, further: Columns, settings: Collection[str], *, seeded: bool
) -> Callable[[int, int], str]:
    """Return a function that says what to do about two runs of one lane."""
    most = max(1, len(runs) // 4)

    def remedy(first: int, second: int) -> str:
        columns = {name: runs.texts(name) for name in further}
        differ = [name for name, texts in columns.items() if texts[first] != texts[second]]
        chosen = [name for name in differ if name in settings] or [
            name for name in differ if not settings and name and len(distinct(further[name])) <= most
        ]
        if len(chosen) == 1:
            value = columns[chosen[0]][first]
            by, where = arg("by", chosen[0]), arg("where", f"{chosen[0]}={value}")
            return f"they differ in {shown(chosen[0])}: {where} keeps one value, {by} makes a study of each"
        if chosen:
            return (
                f"they differ in {some(map(shown, chosen))}: choose one value of each with {arg('where')} K=V"
            )
        if seeded:
            return "keep one row of each run"
        return f"name the column of seeds with {arg('columns', 'seed=' + table.likely('seed'))}"

    return remedy


def _variation(runs: ImportedRuns, further: Columns, settings: Collection[str]) -> list[str]:
    """Describe the hyperparameters besides lr and weight decay that vary."""
    varied = [column for column in further if column in settings and len({*runs.texts(column)}) > 1]
    if not varied:
        return []
    what = f"{len(varied)} more hyperparameters vary" if len(varied) > 1 else "one more hyperparameter varies"
    return [
        f"lr × weight_decay is not all that was varied: {what} ({some(varied)}), whose effects are in the "
        "values; --where K=V keeps one value, --by K makes a study of each"
    ]


def _state_notes(states: Sequence[StateColumn], left_out: Mapping[str, int], kept: ImportedRuns) -> list[str]:
    """Describe the treatment of runs without a result."""
    failed = Counter(kept.word[kept.status == FAILED])
    parts = [
        f"{some(f'{n} {word}' for word, n in counts.items())} {what}"
        for counts, what in ((left_out, "left out, without a result"), (failed, "counted as failed"))
        if counts
    ]
    return [f"{named(states)}: {'; '.join(parts)}; --columns status= uses every value"] if parts else []

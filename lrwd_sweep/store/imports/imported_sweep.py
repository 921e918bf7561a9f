"""A table of runs as a sweep: a full lattice or scattered points, and the trials of the runs that ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lrwd_sweep.errors import arg, shown
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.imports.extent import (
    extent_of,
    gap_note,
    in_convention,
    lane_text,
    merged_rates,
    named,
    scattered,
)
from lrwd_sweep.store.imports.imported_run import ImportedRun, parse_runs
from lrwd_sweep.store.imports.run_states import StateColumn, end_column, state_columns
from lrwd_sweep.store.imports.run_table import (
    OF_A_RUN,
    RowFault,
    RunTable,
    SweepContext,
    distinct,
    fault_lines,
    higher_is_better_source,
    is_number,
    number,
    read_context,
    some,
)
from lrwd_sweep.store.trials import Lane


class Derived(NamedTuple):
    """A rule whose number follows from another rule's exactly, under any schedule."""

    rule: DecayRule
    meaning: str
    number_of: Callable[[Cell], float]


DERIVED_RULES = {  # by the rule of the recorded number
    DecayRule.LR_SCALED: Derived(DecayRule.INDEPENDENT, "λ = αw", lambda cell: cell.weight_decay * cell.lr),
    DecayRule.INDEPENDENT: Derived(DecayRule.LR_SCALED, "w = λ/α", lambda cell: cell.weight_decay / cell.lr),
}


@dataclass(frozen=True, slots=True)
class ImportedSweep:
    """The trials of the runs that ended, and their lattice, or the box of scattered points."""

    trials: tuple[Trial, ...]
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
    table.refuse(fault_lines(_repeated(runs, read, remedy) or _contradictions(runs, metric)))
    numeric = _metrics(runs, further, {*settings, table.progress, *(state.name for state in states)})
    context = replace(
        context, higher=higher_is_better_source(metric, table.measured or of_a_run["value"], further)
    )

    def sweep(
        lattice: Lattice, seeds: tuple[int, ...], kept: Iterable[ImportedRun], notes: Iterable[str]
    ) -> ImportedSweep:
        kept = [run for run in kept if run.status is not None]
        left_out = Counter(invalid) + Counter(run.word for run in read) - Counter(run.word for run in kept)
        curves = [table.curves.get((run.place, of_a_run["value"]), {}) for run in kept]
        trials = tuple(run.trial(metric, numeric, curve) for run, curve in zip(kept, curves, strict=True))
        further_notes = [*_state_notes(states, left_out, kept), *_variation(kept, further, settings)]
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


def _merged(runs: Sequence[ImportedRun]) -> tuple[list[ImportedRun], list[str]]:
    """Return the runs with one rate for those that differ by rounding, and notes of the merges."""
    lr = merged_rates(run.cell.lr for run in runs)
    decay = merged_rates(run.cell.weight_decay for run in runs)
    cells = (run.cell for run in runs)
    merged = (Cell(lr.get(c.lr, c.lr), decay.get(c.weight_decay, c.weight_decay)) for c in cells)
    notes = [
        f"{axis} equal but for rounding: {some((f'{a!r} is read as {b!r}' for a, b in kept.items()), 3)}"
        for axis, kept in (("lr", lr), ("weight_decay", decay))
        if kept
    ]
    return [replace(run, cell=cell) for run, cell in zip(runs, merged, strict=True)], notes


def _repeated(
    runs: Sequence[ImportedRun],
    read: Sequence[ImportedRun],
    remedy: Callable[[ImportedRun, ImportedRun], str],
) -> list[RowFault]:
    """Find runs with a result whose lane has one already; `read` are the `runs` before merging rates."""
    first: dict[Lane, tuple[ImportedRun, Cell]] = {}
    faults = []
    for run, original in zip(runs, read, strict=True):
        if run.has_result:
            other, cell = first.setdefault((run.cell, run.seed), (run, original.cell))
            if other is not run:
                rounded = "" if cell == original.cell else "; the rates are equal but for rounding"
                text = f"repeats {other.place} ({lane_text(run.cell, run.seed)}{rounded})"
                faults.append(RowFault(run.place, f"{text}; {remedy(other, run)}", "repeats"))
    return faults


def _contradictions(runs: Sequence[ImportedRun], metric: str) -> list[RowFault]:
    """Find runs whose value differs from the column named as the metric; an export has both."""
    return [
        RowFault(
            run.place,
            f"value is {run.value!r} but column {shown(metric)} holds {shown(text)}; use another "
            f"{arg('metric')}",
            "contradicts",
        )
        for run in runs
        if run.status is Status.COMPLETE
        and (text := run.further.get(metric, ""))
        and not (is_number(text) and number(text) == run.value)
    ]


def _metrics(
    runs: Sequence[ImportedRun], further: Mapping[str, Sequence[str]], others: Collection[str]
) -> list[str]:
    """Return the further columns that hold only numbers; an empty field is a run without one."""
    complete = [run for run in runs if run.status is Status.COMPLETE]

    def is_metric(column: str) -> bool:
        texts = distinct(run.further[column] for run in complete)
        return bool(texts) and all(map(is_number, texts))

    return [column for column in further if column not in others and is_metric(column)]


def _remedy(
    table: RunTable,
    runs: Sequence[ImportedRun],
    further: Mapping[str, Sequence[str]],
    settings: Collection[str],
    *,
    seeded: bool,
) -> Callable[[ImportedRun, ImportedRun], str]:
    """Return a function that says what to do about two runs of one lane."""
    most = max(1, len(runs) // 4)

    def remedy(first: ImportedRun, second: ImportedRun) -> str:
        differ = [name for name in further if first.further[name] != second.further[name]]
        chosen = [name for name in differ if name in settings] or [
            name for name in differ if not settings and name and len(distinct(further[name])) <= most
        ]
        if len(chosen) == 1:
            value = first.further[chosen[0]]
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


def _variation(
    runs: Sequence[ImportedRun], further: Mapping[str, Sequence[str]], settings: Collection[str]
) -> list[str]:
    """Describe the hyperparameters besides lr and weight decay that vary."""
    varied = [
        column for column in further if column in settings and len({run.further[column] for run in runs}) > 1
    ]
    if not varied:
        return []
    what = f"{len(varied)} more hyperparameters vary" if len(varied) > 1 else "one more hyperparameter varies"
    return [
        f"lr × weight_decay is not all that was varied: {what} ({some(varied)}), whose effects are in the "
        "values; --where K=V keeps one value, --by K makes a study of each"
    ]


def _state_notes(
    states: Sequence[StateColumn], left_out: Mapping[str, int], kept: Sequence[ImportedRun]
) -> list[str]:
    """Describe the treatment of runs without a result."""
    failed = Counter(run.word for run in kept if run.status is Status.FAILED)
    parts = [
        f"{some(f'{n} {word}' for word, n in counts.items())} {what}"
        for counts, what in ((left_out, "left out, without a result"), (failed, "counted as failed"))
        if counts
    ]
    return [f"{named(states)}: {'; '.join(parts)}; --columns status= uses every value"] if parts else []

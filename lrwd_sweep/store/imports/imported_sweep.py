"""A table of runs as a sweep, a full lattice or scattered points, and the study that it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import NORMALIZED, DecayRule, Family, Optimizer
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store.imports.extent import (
    Axis,
    Extent,
    extent_of,
    gap_note,
    in_convention,
    lane_text,
    merge_rates,
    named,
    scattered,
)
from lrwd_sweep.store.imports.imported_runs import ImportedRuns, ImportedTrials, parse_runs
from lrwd_sweep.store.imports.run_states import (
    RunState,
    StateColumns,
    SweepContext,
    end_column,
    higher_is_better_source,
    read_context,
    state_columns,
)
from lrwd_sweep.store.imports.run_table import (
    OF_A_RUN,
    Columns,
    RowFault,
    RunTable,
    distinct,
    fault_lines,
    is_number,
    number,
    numbers,
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

    trials: ImportedTrials
    lattice: Lattice
    seeds: tuple[int, ...]
    metric: str
    context: SweepContext
    notes: tuple[str, ...]  # merged rates, runs without a result, what varies besides
    scattered: bool = False  # points of a search: the lattice is what they are drawn on
    converted: Mapping[DecayRule, ImportedSweep] = field(default_factory=dict)  # by the recorded rule


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
    if columns.get("status") is None:
        states |= end_column(table.progress, texts, names["value"])
    read, invalid, faults = parse_runs(table, of_a_run, states)
    table.refuse(fault_lines(faults))
    runs, merges = merge_rates(read)
    settings = table.settings - used
    remedy = _remedy(table, runs, further, settings, seeded="seed" in names)
    table.refuse(fault_lines(_repeated(runs, read, remedy) or _contradictions(runs, metric, names["value"])))
    numeric = _metrics(runs, further, {*settings, table.progress, *states})
    context = replace(
        context, higher=higher_is_better_source(metric, table.measured or of_a_run["value"], further)
    )

    def sweep(extent: Extent, notes: Iterable[str]) -> ImportedSweep:
        kept = extent.runs.select(extent.runs.state != RunState.UNFINISHED)
        left_out = Counter(invalid) + Counter(read.word) - Counter(kept.word)
        further_notes = [*_state_notes(states, left_out, kept), *_variation(kept, further, settings)]
        kept = replace(kept, table=table.only(numeric))  # frees the texts that no trial needs
        trials = ImportedTrials(kept, metric, numeric, of_a_run["value"])
        every = (*table.notes, *notes, *further_notes)
        return ImportedSweep(trials, extent.lattice, extent.seeds, metric, context, every)

    extent = extent_of(runs, states)
    if not extent.lacking:
        return sweep(extent, merges)
    converted, fits = {}, []
    for recorded, (rule, meaning, number_of) in DERIVED_RULES.items():
        derived = extent_of(in_convention(read, number_of), states)
        if derived.is_nearly_full and not extent.is_nearly_full and len(derived.lattice) > 1:
            size = f"{len(derived.lattice.lr)} × {len(derived.lattice.weight_decay)}"
            note = f"not a lattice in weight_decay, but a full one ({size}) in {meaning}: read as {rule}"
            lacking = f"{derived.lacking} of its lanes have no run: missing"
            converted[recorded] = sweep(derived, [note, *[lacking] * (derived.lacking > 0)])
            fits.append(f"they fill a lattice in {meaning}, if weight_decay was {recorded}")
    if not converted and (note := gap_note(extent)):
        return sweep(extent, [*merges, note])
    points, note = scattered(read, states)
    return replace(sweep(points, [note, *fits]), scattered=True, converted=converted)


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
    complete = np.flatnonzero(runs.state == RunState.COMPLETE)
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
    complete = runs.select(runs.state == RunState.COMPLETE)

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


def _state_notes(states: StateColumns, left_out: Mapping[str, int], kept: ImportedRuns) -> list[str]:
    """Describe the treatment of runs without a result."""
    failed = Counter(kept.word[kept.state == RunState.FAILED])
    parts = [
        f"{some(f'{n} {word}' for word, n in counts.items())} {what}"
        for counts, what in ((left_out, "left out, without a result"), (failed, "counted as failed"))
        if counts
    ]
    return [f"{named(states)}: {'; '.join(parts)}; --columns status= uses every value"] if parts else []


class ImportedStudy(NamedTuple):
    """A study to store, with remarks on its reading."""

    spec: StudySpec
    trials: ImportedTrials
    notes: tuple[str, ...]


def to_study(
    sweep: ImportedSweep,
    optimizer: str,
    *,
    decay_rule: str | None = None,
    direction: Direction | None = None,
    cap: float | None = None,
    initial: float | None = None,
    steps: int | None = None,
) -> ImportedStudy:
    """Return the study that `sweep` becomes; the file's own columns are defaults.

    `initial` is the metric's value before the first step, `steps` the number of steps of a run. Raises
    UsageError if the decay rule or the direction of the metric is unknown, if `optimizer` is a free label
    without a decay rule, if `initial` is better than the best value, and if the file and the arguments
    contradict each other.
    """
    rules = [arg("decay_rule", rule) for rule in ("lr-scaled", "independent")]
    higher, lower = arg("maximize", True), arg("minimize", True)
    open_questions = [
        (open_rule(sweep, optimizer, decay_rule), f"add {' or '.join(rules)}"),
        (open_direction(sweep, direction), f"add {higher}, or {lower} if lower is better"),
    ]
    if left := [f"{question} {remedy}" for question, remedy in open_questions if question]:
        raise UsageError("\n".join(left))
    stated = sweep.context.direction
    if None not in (direction, stated) and direction is not stated:
        raise UsageError(
            f"{arg(str(direction), True)} contradicts the file, whose column direction holds {stated}; "
            f"leave one out ({arg('columns')} direction=)"
        )
    found = _optimizer(optimizer, decay_rule, sweep.context.decay_rule)
    sweep.context.refuse_other(found, optimizer)
    sweep, found = _in_fitting_convention(sweep, found)
    spec = StudySpec(
        Kind.IMPORT,
        found,
        sweep.lattice,
        sweep.seeds,
        sweep.metric,
        task=None,
        direction=direction or stated or Direction.MINIMIZE,
        given_cap=sweep.context.cap if cap is None else cap,
        scattered=sweep.scattered,
        run_steps=steps,
    )
    trials = sweep.trials
    if initial is not None:
        _refuse_worse(initial, trials, spec)
        trials = replace(trials, constant={f"initial_{spec.metric}": initial})
    return ImportedStudy(spec, trials, sweep.notes)


def _refuse_worse(initial: float, trials: ImportedTrials, spec: StudySpec) -> None:
    """Raise UsageError if the metric's value before the first step is better than every run's."""
    values = trials.runs.value[trials.runs.state == RunState.COMPLETE].tolist()
    higher = spec.direction is Direction.MAXIMIZE
    best = (max if higher else min)(values, default=initial)
    if best < initial if higher else best > initial:
        raise UsageError(
            f"{arg('initial_loss', initial)} is better than the best value of all runs, {best:g}; give the "
            f"{spec.metric} before the first step"
        )


def _in_fitting_convention(sweep: ImportedSweep, optimizer: Optimizer) -> tuple[ImportedSweep, Optimizer]:
    """Return the sweep in the convention in which it fills a lattice, and its optimizer there."""
    if optimizer.rule in sweep.converted:
        rule = DERIVED_RULES[optimizer.rule].rule
        return sweep.converted[optimizer.rule], replace(optimizer, rule=rule)
    for recorded, other in sweep.converted.items():
        if optimizer.rule in DERIVED_RULES:
            rule, meaning = DERIVED_RULES[recorded][:2]
            size = f"{len(other.lattice.lr)} × {len(other.lattice.weight_decay)}"
            name = arg("optimizer", f"{optimizer.family}w:{recorded}")
            remedy = f"write {name}" if optimizer.family else f"add {arg('decay_rule', str(recorded))}"
            raise UsageError(
                f"the runs are not a lattice in weight_decay; they are a full one ({size}) in {meaning}, if "
                f"weight_decay was {recorded}; {remedy}"
            )
    return sweep, optimizer


def open_rule(sweep: ImportedSweep, optimizer: str, decay_rule: str | None) -> str:
    """Return the question that a name like `adamw` leaves open: the paper's decay or torch.optim.AdamW's.

    Empty if the name, `decay_rule` or the file answers it, and for an unknown name.
    """
    if decay_rule is not None or sweep.context.decay_rule is not None:
        return ""
    try:
        known = Optimizer.parse(optimizer)
    except UsageError:
        return ""
    if _settles(optimizer, known):
        return ""
    end = f":{NORMALIZED}" if known.normalized else ""
    scaled, paper = (f"{known.family}w:{rule}{end}" for rule in (DecayRule.LR_SCALED, DecayRule.INDEPENDENT))
    trained = {
        Family.ADAM: "torch.optim.AdamW",
        Family.AMSGRAD: "torch.optim.AdamW with amsgrad",
    }.get(known.family or Family.SGD, "with a decay times the learning rate, like torch.optim.AdamW,")
    return f"{optimizer.strip()}: did you train {trained} ({scaled}) or the paper's rule ({paper})?"


def open_direction(sweep: ImportedSweep, direction: Direction | None) -> str:
    """Return the question that a name like `val_acc` leaves open; empty if it is answered or clear."""
    if direction is not None or sweep.context.direction is not None or not sweep.context.higher:
        return ""
    return f"is a higher or a lower value better ({sweep.context.higher} suggests higher)?"


def _settles(name: str, known: Optimizer) -> bool:
    """Return whether a name determines the rule: L2, the rule of its authors, or the rule itself."""
    return known.rule is not DecayRule.INDEPENDENT or str(DecayRule.INDEPENDENT) in name.lower().split(":")


def _optimizer(name: str, decay_rule: str | None, stated: DecayRule | None) -> Optimizer:
    if decay_rule is not None and decay_rule not in list(DecayRule):
        raise UnknownName("decay rule", decay_rule, DecayRule)
    if not name.strip():
        raise UsageError(f"{arg('optimizer', name)} is empty; name the optimizer that was swept")
    if decay_rule is not None and stated is not None and decay_rule != stated:
        raise UsageError(
            f"{arg('decay_rule', decay_rule)} contradicts the file, whose column decay_rule holds {stated}; "
            f"leave one out ({arg('columns')} decay_rule=)"
        )
    rule = stated if decay_rule is None else DecayRule(decay_rule)
    try:
        known = Optimizer.parse(name)
    except UnknownName as unknown:
        if rule is None:
            rules = ", ".join(DecayRule)
            raise UsageError(
                f"{unknown.text} (for any other, add {arg('decay_rule')}: one of {rules})"
            ) from None
        return Optimizer(None, rule, name.strip())
    if rule in (None, known.rule):
        return known
    if _settles(name, known) or rule is DecayRule.COUPLED:
        source = "the file's column decay_rule" if decay_rule is None else arg("decay_rule")
        what = known.rule if _settles(name, known) else "decoupled"
        raise UsageError(
            f"{source} {rule} contradicts {arg('optimizer', name)}, which is {what}; " + _spelled(known, rule)
        )
    return replace(known, rule=rule)


def _spelled(known: Optimizer, rule: DecayRule) -> str:
    if known.family is not None and known.family.projected and rule is DecayRule.COUPLED:
        return f"{known.family} has no L2"
    stem = str(known.family) if rule is DecayRule.COUPLED else f"{known.family}w:{rule}"
    return f"write {arg('optimizer', stem)}" + f":{NORMALIZED}" * known.normalized

"""The study that a sweep becomes, and the questions that its file and names leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.optimizer import NORMALIZED, DecayRule, Family, Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store.imports.imported_run import ImportedTrials
from lrwd_sweep.store.imports.imported_sweep import DERIVED_RULES, ImportedSweep


class ImportedStudy(NamedTuple):
    """A study to store, with remarks on its reading."""

    spec: StudySpec
    trials: Sequence[Trial]
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
    trials = sweep.trials if initial is None else _beginning_at(initial, sweep.trials, spec)
    return ImportedStudy(spec, trials, sweep.notes)


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


def _beginning_at(initial: float, trials: Sequence[Trial], spec: StudySpec) -> Sequence[Trial]:
    """Return the trials with the metric's value before the first step. Raises UsageError."""
    values = [trial.metrics[spec.metric] for trial in trials if trial.status is Status.COMPLETE]
    higher = spec.direction is Direction.MAXIMIZE
    best = (max if higher else min)(values, default=initial)
    if best > initial if not higher else best < initial:
        raise UsageError(
            f"{arg('initial_loss', initial)} is better than the best value of all runs, {best:g}; give the "
            f"{spec.metric} before the first step"
        )
    assert isinstance(trials, ImportedTrials)
    return replace(trials, constant={f"initial_{spec.metric}": initial})


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
            f"{source} {rule} contradicts {arg('optimizer', name)}, which is {what}; " + _remedy(known, rule)
        )
    return replace(known, rule=rule)


def _remedy(known: Optimizer, rule: DecayRule) -> str:
    if known.family is not None and known.family.projected and rule is DecayRule.COUPLED:
        return f"{known.family} has no L2"
    stem = str(known.family) if rule is DecayRule.COUPLED else f"{known.family}w:{rule}"
    return f"write {arg('optimizer', stem)}" + f":{NORMALIZED}" * known.normalized

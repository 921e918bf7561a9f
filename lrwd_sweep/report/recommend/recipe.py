"""A cell as code: lines to paste, in PyTorch's convention, in the paper's, and for another length of run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lrwd_sweep.report.recommend.constructor import (
    beside,
    by_hand,
    coupled,
    decoupled,
    digits,
    groups,
    without_decay,
)
from lrwd_sweep.report.recommend.remark import (
    EXACT,
    NO_SCHEDULED,
    PACKAGE,
    about_n,
    about_steps,
    joined,
    l2_is_decay,
    update,
)
from lrwd_sweep.report.recommend.strength import Strength
from lrwd_sweep.science.conversion import NAMES, Convention, Conventions
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Family
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

_SCHEDULED = (DecayRule.INDEPENDENT, DecayRule.LR_SCALED)  # rules that are one another under any schedule


@dataclass(frozen=True, slots=True)
class Line:
    """Code to paste, and what must be known about it; without code, why there is none."""

    code: str
    remark: str


def recipe(spec: StudySpec, cell: Cell, decay: Conventions) -> tuple[Line, ...]:
    """The lines for one cell of a study, whose N of normalised decay is that of `decay`."""
    if cell.weight_decay == 0:
        return (_without_decay(spec, cell),)
    strength = Strength(spec, cell, decay.steps)
    if spec.optimizer.family is None:
        return tuple(_foreign(strength))
    every, family = _every(spec), spec.optimizer.family
    first = [] if every or spec.task is None else [_in_groups(spec.task)]
    if spec.optimizer.rule is DecayRule.COUPLED:
        lines = [*_l2(strength, family), *_instead_of_l2(strength, family)]
    else:
        own = _scheduled if spec.optimizer.rule in _SCHEDULED else _unscheduled
        lines = [*own(strength, family)]
    return (*first, *lines, *_other_length(strength, family))


def _every(spec: StudySpec) -> bool:
    """Whether every parameter decays."""
    return spec.task is None or (spec.task.decay_all and not spec.task.undecayed)


def _in_groups(task: Task) -> Line:
    """The parameters that decay and those that do not."""
    found = [] if task.decay_all else ["biases and parameters of normalisation"]
    found += ["parameters that --no-decay names"] if task.no_decay else []
    return Line(groups(task), f"params of these lines: {' and '.join(found)} do not decay in this study")


def _values(cell: Cell, weight_decay: str) -> str:
    return f"dict(lr={digits(cell.lr)}, weight_decay={weight_decay})"


def _without_decay(spec: StudySpec, cell: Cell) -> Line:
    remark, family = "no decay, which is the same in every convention", spec.optimizer.family
    if family is None:
        return Line(_values(cell, "0"), remark)
    code = without_decay(family, spec.task).call(cell)
    return Line(code, joined(remark, about_steps(spec, family)))


def _renewed(s: Strength, constructor: str, number: str) -> str:
    """A constructor, and its decay's new number at each restart where that changes it."""
    if not s.open or not s.restarts:
        return constructor
    body = [f'group["weight_decay"] = {number}']
    return beside(constructor, "at each restart, with the new N", body, every=_every(s.spec))


def _l2(s: Strength, family: Family) -> Iterator[Line]:
    found = coupled(family, s.spec.task)
    assert found is not None, "SGDP and AdamP have no coupled rule"
    code = _renewed(s, found.call(s.cell, s.given), s.given)
    own = f"L2, the rule of this study: {DecayRule.COUPLED.update}"
    yield Line(code, joined(own, about_n(s), about_steps(s.spec, family)))


def _instead_of_l2(s: Strength, family: Family) -> Iterator[Line]:
    if family is not Family.SGD:
        what = "AdamW" if family in (Family.ADAM, Family.AMSGRAD) else "decoupled decay"
        yield Line(
            "",
            f"no line for {what}: no constant decay does what this λ′ does in {NAMES[family]} "
            f"(Proposition 2); sweep {family}w",
        )
        return
    yield Line(_values(s.cell, s.given), update(s, family, DecayRule.COUPLED))
    lam = s.number(Convention.INDEPENDENT)
    if lam is None:
        yield Line("", "no line for SGDW: its λ takes the momentum, which an imported study does not tell")
        return
    named = update(s, family, DecayRule.INDEPENDENT)
    yield Line(_values(s.cell, lam), joined(named, l2_is_decay(s.spec)))


def _scheduled(s: Strength, family: Family) -> Iterator[Line]:
    """Decay that goes as the rate does: as the library decays or by hand, as L2, as the paper writes it."""
    w, l2, lam = map(s.number, (Convention.LR_SCALED, Convention.COUPLED, Convention.INDEPENDENT))
    if w is None:
        why = "its w takes the momentum, which an imported study does not tell"
        yield Line("", f"no line for {NAMES[family]} of the adamp package: {why}")
    else:
        yield _decoupled(s, family, w)
    if l2 is not None:
        found = coupled(family, s.spec.task)
        assert found is not None, "what L2 is decay in has a coupled rule"
        code = _renewed(s, found.call(s.cell, l2), l2)
        yield Line(code, f"L2 instead of decay: {l2_is_decay(s.spec)}")
    if lam is not None:
        yield Line(_values(s.cell, lam), update(s, family, DecayRule.INDEPENDENT))


def _decoupled(s: Strength, family: Family, w: str) -> Line:
    found, about = decoupled(family, s.spec.task), (about_n(s), about_steps(s.spec, family))
    if found is not None:
        return Line(_renewed(s, found.call(s.cell, w), w), joined(PACKAGE.get(family, EXACT), *about))
    constructor = without_decay(family, s.spec.task).call(s.cell)
    code = by_hand(constructor, f'group["lr"] * {w}', every=_every(s.spec))
    return Line(code, joined("decoupled by hand, w = λ/α: the decay is exact under any schedule", *about))


def _unscheduled(s: Strength, family: Family) -> Iterator[Line]:
    """Decay that the schedule leaves alone, or squares, by hand; and what else it is at a constant rate."""
    fixed = s.own is Convention.FIXED
    constructor = without_decay(family, s.spec.task).call(s.cell)
    lr, every = digits(s.cell.lr), _every(s.spec)
    if family.projected:  # and decays less where it projects, so that it must decay itself
        share = s.given + ' * (1 - group["momentum"])' * (family is Family.SGDP)
        of_lr = '/ group["lr"]' if fixed else f'* group["lr"] / {lr}'
        body = [f"decay = {share}", f'group["weight_decay"] = decay {of_lr}']
        code = beside(constructor, "before each optimizer.step(), for lr above 0", body, every=every)
    else:
        code = by_hand(constructor, s.given if fixed else f'group["lr"] ** 2 / {lr} * {s.given}', every=every)
    about = "d whatever the schedule" if fixed else "η²αc, where lr = ηα"
    does = "pytorch_optimizer's fixed_decay" if fixed else "timm's corrected_weight_decay"
    remark = f"decoupled by hand, {about}: what {does} does"
    yield Line(code, joined(remark, about_n(s), about_steps(s.spec, family)))
    yield from _where_constant(s, family)


def _where_constant(s: Strength, family: Family) -> Iterator[Line]:
    """What fixed and corrected decay is in other conventions, where the rate is constant."""
    lam, w = s.number(Convention.INDEPENDENT), s.number(Convention.LR_SCALED)
    if lam is None or w is None:
        yield Line("", NO_SCHEDULED)
        return
    same, found = "the same while the rate is constant, as here", decoupled(family, s.spec.task)
    if found is not None:
        yield Line(found.call(s.cell, w), same)
    yield Line(_values(s.cell, lam), f"{same}; {update(s, family, DecayRule.INDEPENDENT)}")


def _foreign(s: Strength) -> Iterator[Line]:
    yield Line(_values(s.cell, s.given), joined(f"as swept: {s.spec.formula}", about_n(s)))
    if s.own is Convention.COUPLED:
        yield Line(
            "", "no line for decoupled decay: what L2 does to an unknown optimizer has no constant equivalent"
        )
        return
    if s.spec.optimizer.rule not in _SCHEDULED:
        yield Line("", NO_SCHEDULED)
        return
    other = Convention.LR_SCALED if s.own is Convention.INDEPENDENT else Convention.INDEPENDENT
    number = s.number(other)
    assert number is not None, "w = λ/α, whatever the optimizer"
    yield Line(_values(s.cell, number), f"the same, {other}: exact under any schedule")


def _other_length(s: Strength, family: Family) -> Iterator[Line]:
    """The cell for a run of N steps, as the paper proposes for λ; L2 alone is no λ, unless it is SGD's."""
    rule, t = s.spec.optimizer.rule, s.spec.task
    is_lambda = rule in _SCHEDULED or (family is Family.SGD and rule is DecayRule.COUPLED)
    found = None
    if rule is DecayRule.COUPLED:
        found, convention = coupled(family, t), Convention.COUPLED
    elif rule in _SCHEDULED:
        found = decoupled(family, t)
        convention = Convention.INDEPENDENT if found is None else Convention.LR_SCALED
    else:
        convention = s.own
    number = s.for_length(convention)
    if t is None or number is None or not (is_lambda or s.spec.optimizer.normalized):
        return
    proposal = "λ = λ_norm/√N, as the paper proposes"
    if not is_lambda:
        proposal = f"{rule.symbol} = λ_norm/√N, as the paper proposes for λ"
    remark = (
        f"{'a last cycle of ' * s.restarts}T epochs at batch b, N = T·⌊{t.data_set.train}/b⌋ steps "
        f"(here {s.steps}): {proposal}"
    )
    yield Line(_values(s.cell, number) if found is None else found.call(s.cell, number), remark)

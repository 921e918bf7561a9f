"""A cell as code: lines to paste, in PyTorch's convention, in the paper's, and for another length of run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lrwd_sweep.conversion import Conventions
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.lattice import Cell
from lrwd_sweep.optimizer import Family, Optimizer
from lrwd_sweep.schedule import Schedule
from lrwd_sweep.spec import StudySpec, Training

_TORCH_DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


@dataclass(frozen=True, slots=True)
class Line:
    """Code to paste, and what must be known about it; without code, why there is none."""

    code: str
    remark: str


def recipe(spec: StudySpec, cell: Cell, decay: Conventions) -> tuple[Line, ...]:
    """The lines for one cell of a study, whose decay in every convention is `decay`."""
    if cell.weight_decay == 0:
        lines = _without_decay(spec, cell)
    elif spec.optimizer.family is None:
        lines = _foreign(spec, cell, decay)
    elif spec.optimizer.family is Family.SGD:
        lines = _sgd(spec, cell, decay)
    else:
        lines = _adam(spec, cell, decay)
    return tuple(lines)


def digits(value: float) -> str:
    """A number with all the digits that are a cell's identity.

    >>> digits(2**-6), digits(1e-3)
    ('0.015625', '0.001')
    """
    return f"{value:.12g}"


def _joined(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


def _call(name: str, cell: Cell, **arguments: str | None) -> str:
    """A constructor's line; arguments that are None are left out."""
    given = {"lr": digits(cell.lr)} | arguments
    return f"{name}(params, {', '.join(f'{key}={value}' for key, value in given.items() if value)})"


def _values(cell: Cell, weight_decay: float) -> str:
    return f"dict(lr={digits(cell.lr)}, weight_decay={digits(weight_decay)})"


def _without_decay(spec: StudySpec, cell: Cell) -> Iterator[Line]:
    remark = "no decay, which is the same in every convention"
    match spec.optimizer.family:
        case Family.ADAM:
            yield Line(_call("torch.optim.Adam", cell, **_moments(spec.training)), remark)
        case Family.SGD:
            code = _call("torch.optim.SGD", cell, momentum=_momentum(spec))
            yield Line(code, _joined(remark, _momentum_remark(spec)))
        case _:
            yield Line(_values(cell, 0.0), remark)


def _adam(spec: StudySpec, cell: Cell, decay: Conventions) -> Iterator[Line]:
    moments, own = _moments(spec.training), "" if spec.training else "betas and ε as in your sweep"
    if decay.lr_scaled is None or decay.independent is None:
        code = _call("torch.optim.Adam", cell, weight_decay=digits(cell.weight_decay), **moments)
        yield Line(code, _joined("L2, the rule of this study: g ← g + λ′θ", own))
        yield Line(
            "",
            "no line for AdamW: no constant decay does what this λ′ does (Proposition 2); sweep adamw",
        )
        return
    code = _call("torch.optim.AdamW", cell, weight_decay=digits(decay.lr_scaled), **moments)
    exact = "w = λ/α: exact under any schedule, which multiplies the decay too"
    yield Line(code, _joined(exact, own))
    yield Line(
        _values(cell, decay.independent),
        f"the paper's AdamW: {Optimizer(Family.ADAM, DecayRule.INDEPENDENT).formula}",
    )
    if decay.normalized:
        w = _other_length(spec, decay.lr_scaled)
        yield Line(_call("torch.optim.AdamW", cell, weight_decay=w, **moments), _length(spec))


def _moments(training: Training | None) -> dict[str, str | None]:
    """Adam's further arguments where they are not PyTorch's defaults."""
    if training is None:
        return {}
    own = {name: getattr(training, name) for name in _TORCH_DEFAULTS}
    betas = f"({own['beta1']!r}, {own['beta2']!r})"
    differs = {name for name, value in own.items() if value != _TORCH_DEFAULTS[name]}
    return {
        "betas": betas if differs & {"beta1", "beta2"} else None,
        "eps": repr(own["eps"]) if "eps" in differs else None,
    }


def _sgd(spec: StudySpec, cell: Cell, decay: Conventions) -> Iterator[Line]:
    torch, momentum, form = "torch.optim.SGD", _momentum(spec), _momentum_remark(spec)
    coupled = spec.optimizer.rule is DecayRule.COUPLED
    if not coupled and decay.lr_scaled is not None:
        step = _decoupled_step(_call(torch, cell, momentum=momentum), decay.lr_scaled)
        yield Line(step, _joined("decoupled by hand, w = λ/α: exact under any schedule", form))
    if decay.coupled is not None:
        code = _call(torch, cell, momentum=momentum, weight_decay=digits(decay.coupled))
        if coupled:
            yield Line(code, _joined("L2, the rule of this study", form))
        else:
            yield Line(code, f"L2 instead of decay: {_l2_is_decay(spec)}")
    yield from _paper_sgd(spec, cell, decay)
    if decay.normalized and decay.coupled:
        l2 = _other_length(spec, decay.coupled)
        yield Line(_call(torch, cell, momentum=momentum, weight_decay=l2), _length(spec))


def _momentum(spec: StudySpec) -> str:
    """The momentum as code: a name where nobody told us."""
    return "momentum" if spec.training is None else repr(spec.training.momentum)


def _l2_is_decay(spec: StudySpec) -> str:
    """How far L2 in SGD is decay."""
    if spec.training is not None and spec.training.momentum == 0:
        return "λ = α·λ′ is exact without momentum (Proposition 1)"
    return "λ = α·λ′/(1−β₁) holds asymptotically, not step by step"


def _momentum_remark(spec: StudySpec) -> str:
    """Where PyTorch's SGD, with α outside its momentum buffer, is the paper's."""
    t = spec.training
    if t is None:
        return "momentum as in your sweep"
    if t.momentum == 0:
        return ""
    if t.schedule is Schedule.FIXED:
        return "the paper's steps, as the rate is constant"
    return "PyTorch has α outside the momentum: the paper's steps while the rate is constant"


def _decoupled_step(constructor: str, w: float) -> str:
    return (
        f"optimizer = {constructor}\n"
        "# before each optimizer.step():\n"
        "for group in optimizer.param_groups:\n"
        '    for p in group["params"]:\n'
        f'        p.data.mul_(1 - group["lr"] * {digits(w)})'
    )


def _paper_sgd(spec: StudySpec, cell: Cell, decay: Conventions) -> Iterator[Line]:
    if spec.optimizer.rule is DecayRule.COUPLED:
        yield Line(_values(cell, cell.weight_decay), f"the paper's SGD: {spec.formula}")
    if decay.independent is None:
        yield Line("", "no line for SGDW: its λ takes the momentum, which an imported study does not tell")
    else:
        near = _l2_is_decay(spec) if spec.optimizer.rule is DecayRule.COUPLED else ""
        update = f"the paper's SGDW: {Optimizer(Family.SGD, DecayRule.INDEPENDENT).formula}"
        yield Line(_values(cell, decay.independent), _joined(update, near))


def _foreign(spec: StudySpec, cell: Cell, decay: Conventions) -> Iterator[Line]:
    yield Line(_values(cell, cell.weight_decay), f"as swept: {spec.formula}")
    for rule, value in ((DecayRule.INDEPENDENT, decay.independent), (DecayRule.LR_SCALED, decay.lr_scaled)):
        if value is not None and rule is not spec.optimizer.rule:
            yield Line(_values(cell, value), f"the same, {rule}: exact under any schedule")
    if decay.independent is None:
        yield Line(
            "", "no line for decoupled decay: what L2 does to an unknown optimizer has no constant equivalent"
        )


def _other_length(spec: StudySpec, weight_decay: float) -> str:
    """A weight decay as an expression in the number N of steps of another run."""
    assert spec.training is not None, "an imported study has no normalised decay"
    return f"{digits(weight_decay * math.sqrt(spec.training.steps))} / N**0.5"


def _length(spec: StudySpec) -> str:
    t = spec.training
    assert t is not None, "an imported study has no normalised decay"
    return (
        f"T epochs at batch b, N = T·⌊{t.data_set.train}/b⌋ steps (here {t.steps}): λ = λ_norm/√N, "
        "as the paper proposes"
    )

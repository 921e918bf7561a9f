"""What must be known about a line of code: how far it holds, what it is the same as, what to fill in."""

from __future__ import annotations

from dataclasses import replace

from lrwd_sweep.report.recommend.strength import Strength, constant
from lrwd_sweep.science.conversion import NAMES
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import MomentumForm

EXACT = "w = λ/α: exact under any schedule, which multiplies the decay too"
NO_SCHEDULED = "no line for decay that the schedule scales, as AdamW's: the two agree while η = 1 alone"
PACKAGE = {
    Family.ADAMP: f"adamp is its authors' package; {EXACT}",
    Family.SGDP: "adamp is its authors' package, which divides w by 1−β₁: w = λ(1−β₁)/α, exact under any "
    "schedule, which multiplies the decay too",
}
_UNTOLD = {  # what the study of an import does not say, by family
    Family.SGD: "momentum",
    Family.SGDP: "momentum",
    Family.ADAGRAD: "ε",
    Family.RMSPROP: "alpha, ε and momentum",
}


def joined(*remarks: str) -> str:
    """Several in one."""
    return "; ".join(filter(None, remarks))


def about_steps(spec: StudySpec, family: Family) -> str:
    """Where the library's steps are the study's, besides decay; what else is to be filled in."""
    t = spec.task
    if t is None:
        return f"{_UNTOLD.get(family, 'betas and ε')} as in your sweep"
    if family is not Family.SGD or not t.momentum or t.momentum_form is MomentumForm.TORCH:
        return ""
    if constant(t):
        return "the paper's steps, as the rate is constant"
    return (
        "PyTorch has α outside the momentum: the paper's momentum only while the rate is constant; "
        "--momentum-form torch sweeps PyTorch's"
    )


def about_n(s: Strength) -> str:
    """What N is, where the number of a cell is λ_norm."""
    if not s.spec.optimizer.normalized:
        return ""
    what = f"{s.spec.optimizer.rule.symbol} = λ_norm/√N"
    t = s.spec.task
    if t is None:
        return f"{what}, N the steps of your run"
    if not s.restarts:
        return f"{what}, N = {s.steps} steps"
    table = t.timetable
    times = f", then ×{table.t_mult} each" if table.t_mult > 1 else ""
    return f"{what}, N the steps of the cycle: {table.t_0 * t.steps_per_epoch} in the first{times}"


def update(s: Strength, family: Family, rule: DecayRule) -> str:
    """The study's update with another rule, by name and formula."""
    t, name = s.spec.task, NAMES[family] + "W" * (rule is not DecayRule.COUPLED)
    if family is Family.SGD and t is not None and t.momentum_form is MomentumForm.TORCH:
        name += " in PyTorch's form"
    elif family in (Family.SGD, Family.ADAM):
        name = f"the paper's {name}"
    else:
        name = f"{NAMES[family]} with the AdamW paper's decay"
    return f"{name}: {replace(s.spec, optimizer=Optimizer(family, rule)).formula}"


def l2_is_decay(spec: StudySpec) -> str:
    """How far L2 in SGD is decay."""
    if spec.task is not None and spec.task.momentum == 0:
        return "λ = α·λ′ is exact without momentum (Proposition 1)"
    return "λ = α·λ′/(1−β₁) holds asymptotically, not step by step"

"""The constructors of libraries by family, and decay that they do not have as code.

A new family needs a row in `LIBRARIES`. Its other arguments follow from `Family.hyperparameters`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lrwd_sweep.science.optimizer import Convention, Family
from lrwd_sweep.science.schedule import DecaySchedule

EXACT = "w = λ/α: exact under any schedule, which multiplies the decay too"


@dataclass(frozen=True, slots=True)
class Constructors:
    """The constructors of a family, by the meaning of their argument weight_decay."""

    coupled: str = ""  # it is λ′, L2; empty if no library has it
    decoupled: str = ""  # it is w, lr-scaled; empty if no library has it
    unknown: str = ""  # hyperparameters that an imported study does not tell
    remark: str = EXACT  # on `decoupled`
    arguments: tuple[str, ...] = ()  # always passed
    share: str = ""  # factor of the decay that the constructor divides by
    l2: str = ""  # argument that makes its weight_decay L2
    decoupling: str = ""  # argument that makes it decoupled


LIBRARIES = {
    None: Constructors(),  # an imported optimizer that is not one of ours
    Family.SGD: Constructors("torch.optim.SGD", "", "momentum"),
    Family.ADAM: Constructors("torch.optim.Adam", "torch.optim.AdamW", "betas and ε"),
    Family.AMSGRAD: Constructors(
        "torch.optim.Adam", "torch.optim.AdamW", "betas and ε", EXACT, ("amsgrad=True",)
    ),
    Family.ADAGRAD: Constructors("torch.optim.Adagrad", "", "ε"),
    Family.RMSPROP: Constructors("torch.optim.RMSprop", "", "alpha, ε and momentum"),
    Family.SGDP: Constructors(
        decoupled="adamp.SGDP",
        unknown="momentum",
        remark="adamp is its authors' package, which divides w by 1−β₁: w = λ(1−β₁)/α, exact under any "
        "schedule, which multiplies the decay too",
        share=' * (1 - group["momentum"])',
    ),
    Family.LION: Constructors(
        "pytorch_optimizer.Lion", "pytorch_optimizer.Lion", "betas", l2="weight_decouple=False"
    ),
    Family.ADAMP: Constructors("", "adamp.AdamP", "betas and ε", f"adamp is its authors' package; {EXACT}"),
    Family.ADOPT: Constructors(
        "pytorch_optimizer.ADOPT",
        "pytorch_optimizer.ADOPT",
        "betas and ε",
        arguments=("clip_lambda=lambda step: (step - 1) ** 0.25",),  # as the authors count
        decoupling="weight_decouple=True",
    ),
    Family.SCHEDULE_FREE: Constructors(
        decoupled="pytorch_optimizer.ScheduleFreeAdamW",
        unknown="betas and ε",
        remark=f"optimizer.eval() before it is evaluated, optimizer.train() after; {EXACT}",
    ),
    Family.MUON: Constructors(unknown="momentum, betas and ε"),
    Family.NDADAM: Constructors(unknown="betas and ε"),
    Family.KFAC: Constructors(unknown="momentum, damping and averages of the factors"),
}

# The decay of each step as code, from the number x; weight_decay that makes a projected family decay so,
# less where it projects; and a remark.
BY_HAND = {
    Convention.LR_SCALED: ('group["lr"] * {x}', "", "w = λ/α: the decay is exact under any schedule"),
    Convention.FIXED: (
        "{x}",
        'decay / group["lr"]',
        "d whatever the schedule: what pytorch_optimizer's fixed_decay does",
    ),
    Convention.CORRECTED: (
        'group["lr"] ** 2 / {lr} * {x}',
        'decay * group["lr"] / {lr}',
        "η²αc, where lr = ηα: what timm's corrected_weight_decay does",
    ),
}
SHAPES = {  # of decay with a schedule of its own, from t = 0, 1, … and the number n of steps
    DecaySchedule.CONSTANT: "{x}",
    DecaySchedule.STEP: "{x} * 0.1 ** sum(t >= share * {n} for share in (0.3, 0.6, 0.8))",
    DecaySchedule.COSINE: "{x} * (0.5 + 0.5 * math.cos(math.pi * t / {n}))",
    DecaySchedule.LINEAR: "{x} * (1 - t / {n})",
}

"""One strength of decay in every convention: λ = gain × number, where the gain depends on the run alone.

λ = αw and λ = λ_norm/√N are exact under any schedule. For SGD L2 is decay with λ = αλ′ without momentum
(Proposition 1); with it the two agree asymptotically at λ = αλ′/(1−β₁). For a family that scales every
parameter's step by itself no constant λ′ does what decay does (Proposition 2). SGDP's authors divide their
lr-scaled decay by 1−β₁ too. What the schedule leaves alone, or squares, agrees with the rest while η = 1.
λ is the rate where SGDP and AdamP do not project; where they do, decay has WD_RATIO of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from lrwd_sweep.science.decay import WD_RATIO
from lrwd_sweep.science.optimizer import Family, Optimizer


class Convention(StrEnum):
    """What a number called weight decay can mean."""

    INDEPENDENT = "independent"
    LR_SCALED = "lr-scaled"
    COUPLED = "coupled"
    NORMALIZED = "normalized"
    FIXED = "fixed"
    CORRECTED = "corrected"

    @property
    def symbol(self) -> str:
        """The letter for this convention's number."""
        return _ABOUT[self][0]

    @property
    def update(self) -> str:
        """The decay of one step."""
        return _ABOUT[self][1]

    @property
    def users(self) -> str:
        """Who means this by weight decay."""
        return _ABOUT[self][2]


_ABOUT = {
    Convention.INDEPENDENT: ("λ", "θ ← θ − ηλθ", "AdamW paper, Composer, optimi decouple_lr"),
    Convention.LR_SCALED: ("w", "θ ← θ − ηαwθ", "torch.optim.AdamW, Keras, timm, optax"),
    Convention.COUPLED: ("λ′", "g ← g + λ′θ", "L2; torch.optim.SGD and Adam"),
    Convention.NORMALIZED: ("λ_norm", "θ ← θ − ηλθ", "AdamW paper, appendix B.1: λ = λ_norm/√N"),
    Convention.FIXED: ("d", "θ ← θ − dθ", "TF Addons, pytorch_optimizer fixed_decay"),
    Convention.CORRECTED: ("c", "θ ← θ − η²αcθ", "AdamC, timm corrected_weight_decay"),
}

_OF_SGDP = ("θ ← θ − ηαwθ/(1−β₁)", "SGDP of the adamp package")  # lr-scaled, in SGDP
_UNSCHEDULED = {Convention.FIXED, Convention.CORRECTED}  # decay that does not go as η does

# In α, N, β₁ and the number itself, x; with letters put in it is a formula, with numbers an arithmetic.
_TO_LAMBDA = {
    Convention.LR_SCALED: "{α} × {x}",
    Convention.COUPLED: "{α} × {x} / (1 − {β1})",
    Convention.NORMALIZED: "{x} / √{N}",
    Convention.FIXED: "{x}",
    Convention.CORRECTED: "{α} × {x}",
}
_FROM_LAMBDA = {
    Convention.LR_SCALED: "{x} / {α}",
    Convention.COUPLED: "{x} × (1 − {β1}) / {α}",
    Convention.NORMALIZED: "{x} × √{N}",
    Convention.FIXED: "{x}",
    Convention.CORRECTED: "{x} / {α}",
}

NAMES = {
    Family.SGD: "SGD",
    Family.ADAM: "Adam",
    Family.AMSGRAD: "AMSGrad",
    Family.ADAGRAD: "AdaGrad",
    Family.RMSPROP: "RMSProp",
    Family.SGDP: "SGDP",
    Family.ADAMP: "AdamP",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What a conversion depends on besides the number itself."""

    family: Family | None  # None: an optimizer that is none of ours
    lr: float  # α
    steps: int | None = None  # N; None where not known
    momentum: float | None = None  # β₁ of SGD and SGDP; None where not known
    constant: bool = False  # whether η = 1 at every step

    def gain(self, convention: Convention) -> float | None:
        """λ per unit of the convention's number, or None where there is no equivalent or it is not known."""
        match convention:
            case Convention.INDEPENDENT | Convention.FIXED:
                return 1.0
            case Convention.NORMALIZED:
                return 1 / math.sqrt(self.steps) if self.steps else None
            case _ if self._takes_momentum(convention):
                return None if self.momentum is None else self.lr / (1 - self.momentum)
            case Convention.LR_SCALED | Convention.CORRECTED:
                return self.lr
            case Convention.COUPLED:
                return None

    def _takes_momentum(self, convention: Convention) -> bool:
        """Whether λ is α/(1−β₁) times the number: a buffer sums L2 up, and SGDP's authors do the same."""
        return (self.family, convention) in {
            (Family.SGD, Convention.COUPLED),
            (Family.SGDP, Convention.LR_SCALED),
        }

    def update(self, convention: Convention) -> str:
        """The decay of one step."""
        return _OF_SGDP[0] if self._of_sgdp(convention) else convention.update

    def users(self, convention: Convention) -> str:
        """Who means this by weight decay."""
        return _OF_SGDP[1] if self._of_sgdp(convention) else convention.users

    def _of_sgdp(self, convention: Convention) -> bool:
        return self.family is Family.SGDP and convention is Convention.LR_SCALED

    def obstacle(self, convention: Convention) -> str:
        """Why the convention has no gain here; empty where it has one."""
        if self.gain(convention) is not None:
            return ""
        if convention is Convention.NORMALIZED:
            return "the number of steps N is not known"
        if self._takes_momentum(convention):
            return "the momentum is not known"
        if self.family is Family.SGDP:
            return "SGDP's decay is decoupled"
        name = NAMES[self.family] if self.family else "this optimizer"
        return f"no constant λ′ makes {name} do what decoupled decay does (Proposition 2)"

    def limits(self, convention: Convention) -> str:
        """When the convention's relation to λ holds no more; empty where it is exact under any schedule."""
        if convention is Convention.COUPLED and self.momentum:
            return "L2 under momentum is decay asymptotically, not step by step"
        if convention in _UNSCHEDULED and not self.constant:
            return "the same at a constant learning rate only"
        return ""

    def holds(self, source: Convention, target: Convention) -> bool:
        """Whether one number can say the other all along the run, and not only where η = 1."""
        return source is target or self.constant or not {source, target} & _UNSCHEDULED

    def convert(self, value: float, source: Convention, target: Convention) -> float | None:
        """The number of `source` as a number of `target`; None where there is no equivalent.

        No decay is no decay in every convention.
        """
        if source is target or value == 0:
            return value
        to_lambda, to_target = self.gain(source), self.gain(target)
        return None if to_lambda is None or to_target is None else value * to_lambda / to_target

    def arithmetic(self, value: float, source: Convention, target: Convention) -> tuple[str, ...]:
        """The steps of a conversion, by way of λ, each as letters, numbers, result; none where it fails."""
        lam = self.convert(value, source, Convention.INDEPENDENT)
        found = self.convert(value, source, target)
        if lam is None or found is None or source is target:
            return ()
        there = self._step("λ", self._template(_TO_LAMBDA, source), source.symbol, value, lam)
        back = self._step(target.symbol, self._template(_FROM_LAMBDA, target), "λ", lam, found)
        return (*there, *back)

    def _template(self, templates: dict[Convention, str], convention: Convention) -> str | None:
        return templates.get(Convention.COUPLED if self._takes_momentum(convention) else convention)

    def _step(
        self, result: str, template: str | None, letter: str, x: float, value: float
    ) -> tuple[str, ...]:
        if template is None:
            return ()
        letters = template.format(x=letter, α="α", N="N", β1="β₁")
        numbers = template.format(
            x=f"{x:.6g}", α=f"{self.lr:.6g}", N=self.steps, β1=f"{self.momentum or 0:.6g}"
        )
        return (f"{result} = {letters} = {numbers} = {value:.6g}",)


@dataclass(frozen=True, slots=True)
class Conventions:
    """One decay strength in every convention; None where there is no equivalent, or nobody knows."""

    independent: float | None
    lr_scaled: float | None
    coupled: float | None
    normalized: float | None
    timescale_steps: float | None = None  # τ: over how many steps decay averages the updates, where η = 1
    timescale_steps_projected: float | None = None  # where a step is projected, if nobody knows how often
    steps: int | None = None  # N of normalised decay


def timescale(lam: float | None, projected: float = 0.0) -> float | None:
    """τ = 1/λ in steps where η = 1; None without decay, or where λ is too small for a number.

    Of the steps, the share `projected` decays at WD_RATIO of the rate: τ = 1/(λ(1 − 0.9 share)).
    """
    rate = lam * (1 - (1 - WD_RATIO) * projected) if lam else 0.0
    tau = 1 / rate if rate else math.inf
    return tau if math.isfinite(tau) else None


def conventions(
    optimizer: Optimizer,
    lr: float,
    weight_decay: float,
    steps: int | None,
    momentum: float | None,
    *,
    constant: bool = False,
    projected: float | None = None,
) -> Conventions:
    """The same decay in the other conventions, at base learning rate α = `lr` over N = `steps` updates.

    Of a normalised optimizer `weight_decay` is λ_norm, and whatever the rule its number is λ_norm/√N. Fixed
    and corrected decay has no number in these conventions unless the rate is `constant`; what it has is τ.
    `projected` is the share of its steps that SGDP or AdamP projected, None where nobody counted.
    """
    run = Run(optimizer.family, lr, steps, momentum, constant)
    source = Convention(optimizer.rule.value)

    def said(number: float, target: Convention) -> float | None:
        return run.convert(number, source, target) if number == 0 or run.holds(source, target) else None

    if optimizer.normalized and not steps and weight_decay:
        return Conventions(None, None, None, said(weight_decay, Convention.INDEPENDENT))
    if optimizer.normalized and steps:
        weight_decay /= math.sqrt(steps)
    lam = run.convert(weight_decay, source, Convention.INDEPENDENT)
    unknown = optimizer.family is not None and optimizer.family.projected and projected is None
    return Conventions(
        independent=said(weight_decay, Convention.INDEPENDENT),
        lr_scaled=said(weight_decay, Convention.LR_SCALED),
        coupled=said(weight_decay, Convention.COUPLED),
        normalized=said(weight_decay, Convention.NORMALIZED),
        timescale_steps=timescale(lam, projected or 0.0),
        timescale_steps_projected=timescale(lam, 1.0) if unknown else None,
        steps=steps,
    )

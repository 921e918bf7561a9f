"""One strength of decay in every convention: λ = gain × number, where the gain depends only on the run.

λ = αw and λ = λ_norm/√N are exact under any schedule. For SGD L2 is decay with λ = αλ′ without momentum
(Proposition 1); with it the two agree asymptotically at λ = αλ′/(1−β₁). For a family that scales every
parameter's step by itself no constant λ′ does what decay does (Proposition 2). SGDP's authors divide their
lr-scaled decay by 1−β₁ too. Decay that the schedule does not scale, or squares, agrees with the rest while
η = 1. λ is the rate where SGDP and AdamP do not project; where they do, decay has WD_RATIO of it.
"""

import math
from dataclasses import dataclass

from lrwd_sweep.science.optimizer import WD_RATIO, Convention, Family, Optimizer

_OF_SGDP = ("θ ← θ − ηαwθ/(1−β₁)", "SGDP of the adamp package")  # update and users of lr-scaled in SGDP
_UNSCHEDULED = {Convention.FIXED, Convention.CORRECTED}  # decay that is not proportional to η

# λ from the number x, and x from λ: formulas with letters for α, N and β₁, arithmetic with their values.
_RELATIONS = {
    Convention.LR_SCALED: ("{α} × {x}", "{x} / {α}"),
    Convention.COUPLED: ("{α} × {x} / (1 − {β1})", "{x} × (1 − {β1}) / {α}"),
    Convention.NORMALIZED: ("{x} / √{N}", "{x} × √{N}"),
    Convention.FIXED: ("{x}", "{x}"),
    Convention.CORRECTED: ("{α} × {x}", "{x} / {α}"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run that a conversion depends on."""

    family: Family | None  # None: an imported study's optimizer, not in the catalog
    lr: float  # α
    steps: int | None = None  # N; None if unknown
    momentum: float | None = None  # β₁ of SGD and SGDP; None if unknown
    constant: bool = False  # η = 1 at every step
    no_l2: bool = False  # decay is cautious, or has another multiplier than η: it is no L2, even of SGD

    def gain(self, convention: Convention) -> float | None:
        """Return λ per unit of the convention's number; None without an equivalent, or if it is unknown."""
        if self.no_l2 and convention is Convention.COUPLED:
            return None
        if self._takes_momentum(convention):
            return None if self.momentum is None else self.lr / (1 - self.momentum)
        match convention:
            case Convention.INDEPENDENT | Convention.FIXED:
                return 1.0
            case Convention.NORMALIZED:
                return 1 / math.sqrt(self.steps) if self.steps else None
            case Convention.LR_SCALED | Convention.CORRECTED:
                return self.lr
            case Convention.COUPLED:
                return None

    def _takes_momentum(self, convention: Convention) -> bool:
        """Check if λ is α/(1−β₁) times the number: a buffer sums L2 up, and SGDP's authors do the same."""
        return self.family is not None and convention is self.family.summed_convention

    def update(self, convention: Convention) -> str:
        """Return the decay of one step."""
        return _OF_SGDP[0] if self._of_sgdp(convention) else convention.update

    def users(self, convention: Convention) -> str:
        """Name the papers and libraries that mean this by weight decay."""
        return _OF_SGDP[1] if self._of_sgdp(convention) else convention.users

    def _of_sgdp(self, convention: Convention) -> bool:
        return convention is Convention.LR_SCALED and self._takes_momentum(convention)

    def obstacle(self, convention: Convention) -> str:
        """Explain why the convention has no gain here; empty if it has one."""
        if self.gain(convention) is not None:
            return ""
        if convention is Convention.NORMALIZED:
            return "the number of steps N is not known"
        if self.no_l2:
            return "L2 decays every coordinate, as much as the step is scaled"
        if self._takes_momentum(convention):
            return "the momentum is not known"
        if self.family is Family.SGDP:
            return "SGDP's decay is decoupled"
        name = self.family.display_name if self.family else "this optimizer"
        return f"no constant λ′ makes {name} do what decoupled decay does (Proposition 2)"

    def limits(self, convention: Convention) -> str:
        """State when the convention's relation to λ fails; empty if it is exact under any schedule."""
        if convention is Convention.COUPLED and self.momentum:
            return "L2 under momentum is decay asymptotically, not step by step"
        if convention in _UNSCHEDULED and not self.constant:
            return "the same at a constant learning rate only"
        return ""

    def holds(self, source: Convention, target: Convention) -> bool:
        """Check if the two numbers are equivalent during the whole run, and not only where η = 1."""
        return source is target or self.constant or not {source, target} & _UNSCHEDULED

    def convert(self, value: float, source: Convention, target: Convention) -> float | None:
        """Convert a number of `source` to one of `target`; None without an equivalent.

        Zero is zero in every convention.
        """
        if source is target or value == 0:
            return value
        to_lambda, to_target = self.gain(source), self.gain(target)
        return None if to_lambda is None or to_target is None else value * to_lambda / to_target

    def arithmetic(self, value: float, source: Convention, target: Convention) -> tuple[str, ...]:
        """Write the steps of a conversion through λ, each as letters, numbers, result; empty if it fails."""
        lam = self.convert(value, source, Convention.INDEPENDENT)
        found = self.convert(value, source, target)
        if lam is None or found is None or source is target:
            return ()
        steps = []  # λ itself takes none
        if source is not Convention.INDEPENDENT:
            steps.append(self._step("λ", self._relation(source)[0], source.symbol, value, lam))
        if target is not Convention.INDEPENDENT:
            steps.append(self._step(target.symbol, self._relation(target)[1], "λ", lam, found))
        return tuple(steps)

    def _relation(self, convention: Convention) -> tuple[str, str]:
        return _RELATIONS[Convention.COUPLED if self._takes_momentum(convention) else convention]

    def _step(self, result: str, template: str, letter: str, x: float, value: float) -> str:
        letters = template.format(x=letter, α="α", N="N", β1="β₁")
        values = {"x": f"{x:.6g}", "α": f"{self.lr:.6g}", "N": self.steps, "β1": f"{self.momentum or 0:.6g}"}
        return f"{result} = {letters} = {template.format(**values)} = {value:.6g}"


@dataclass(frozen=True, slots=True)
class Conventions:
    """One decay strength in every convention; None without an equivalent, or if it is unknown."""

    independent: float | None
    lr_scaled: float | None
    coupled: float | None
    normalized: float | None
    timescale_steps: float | None = None  # τ: steps over which decay averages the updates, where η = 1
    timescale_steps_projected: float | None = None  # τ of projected steps, if their share is unknown
    steps: int | None = None  # N of normalized decay


def timescale(lam: float | None, projected: float = 0.0) -> float | None:
    """Return τ = 1/λ in steps where η = 1; None without decay, or if λ is too small for a finite τ.

    The share `projected` of the steps decays at WD_RATIO of the rate: τ = 1/(λ(1 − 0.9 share)).
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
    own_schedule: bool = False,
    projected: float | None = None,
) -> Conventions:
    """Convert a decay to the other conventions, at base learning rate α = `lr` over N = `steps` updates.

    For a normalized optimizer `weight_decay` is λ_norm, and its rule's number is λ_norm/√N. Fixed and
    corrected decay has no number in these conventions unless the rate is `constant`; it still has τ.
    `projected` is the share of its steps that SGDP or AdamP projected, None if it was not counted.
    """
    run = Run(optimizer.family, lr, steps, momentum, constant, own_schedule or optimizer.cautious)
    source = optimizer.rule.convention

    def said(number: float, target: Convention) -> float | None:
        return run.convert(number, source, target) if number == 0 or run.holds(source, target) else None

    if optimizer.normalized and not steps and weight_decay:
        return Conventions(None, None, None, said(weight_decay, Convention.INDEPENDENT))
    if optimizer.normalized and steps:
        weight_decay /= math.sqrt(steps)
    lam = run.convert(weight_decay, source, Convention.INDEPENDENT)
    unknown = optimizer.family is not None and optimizer.family.projected and projected is None
    return Conventions(
        said(weight_decay, Convention.INDEPENDENT),
        said(weight_decay, Convention.LR_SCALED),
        said(weight_decay, Convention.COUPLED),
        said(weight_decay, Convention.NORMALIZED),
        timescale_steps=timescale(lam, projected or 0.0),
        timescale_steps_projected=timescale(lam, 1.0) if unknown else None,
        steps=steps,
    )

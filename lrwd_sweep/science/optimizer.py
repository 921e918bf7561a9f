"""Optimizers by name: a family (how a gradient becomes a step) and a decay rule (how λ enters).

"AdamW" means one update in the paper and another in PyTorch, so a name says both: `FAMILY[w][:RULE]`, with
`:normalized` behind it for λ = λ_norm/√N.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lrwd_sweep.errors import UnknownName, UsageError, shown
from lrwd_sweep.science.decay import DecayRule

NORMALIZED = "normalized"


class Family(StrEnum):
    """How a gradient becomes a step."""

    SGD = "sgd"  # m ← β₁m + ηαg                       Algorithm 1 of the AdamW paper: α inside the buffer
    ADAM = "adam"  # m̂/(√v̂ + ε)                        Algorithm 2
    AMSGRAD = "amsgrad"  # m̂/(√(max v/(1−β₂ᵗ)) + ε)    Reddi et al. 2018, with the corrections of torch.optim
    ADAGRAD = "adagrad"  # g/(√Σg² + ε)                Duchi et al. 2011
    RMSPROP = "rmsprop"  # g/(√v + ε)                  Tieleman & Hinton 2012
    SGDP = "sgdp"  # m ← Π(β₁m + g)                    Heo et al. 2021: Π removes the radial part of the step
    ADAMP = "adamp"  # Π(m̂/(√v̂ + ε))                   Heo et al. 2021

    @property
    def projected(self) -> bool:
        """Whether its step has its radial part removed; its authors' decay is then decoupled, lr-scaled."""
        return self in (Family.SGDP, Family.ADAMP)

    @property
    def hyperparameters(self) -> dict[str, float | bool | str]:
        """What else it has, with the defaults of its paper (of PyTorch where the paper has none)."""
        return dict(_HYPERPARAMETERS[self.value])


_HYPERPARAMETERS: dict[str, dict[str, float | bool | str]] = {
    "sgd": {"momentum": 0.9, "nesterov": False, "momentum_form": "paper"},
    "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "amsgrad": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adagrad": {"eps": 1e-10},
    "rmsprop": {"beta2": 0.99, "eps": 1e-8, "momentum": 0.0},
    "sgdp": {"momentum": 0.9, "nesterov": False},
    "adamp": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "nesterov": False},
}


def users_of(hyperparameter: str) -> list[Family]:
    """The families that have a hyperparameter of this name."""
    return [family for family in Family if hyperparameter in _HYPERPARAMETERS[family.value]]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A family and a decay rule: `adam` is Adam with L2, `adamw` the paper's, `adamw:lr-scaled` PyTorch's.

    `normalized` decay is given as λ_norm and divided by √N. An imported sweep may carry an optimizer that is
    none of ours: a `label` and its rule, without a family.
    """

    family: Family | None
    rule: DecayRule
    label: str = ""
    normalized: bool = False

    @classmethod
    def parse(cls, name: str) -> Optimizer:
        """Read `FAMILY[w][:RULE][:normalized]`. Raises UnknownName (with the near names) or UsageError.

        `adamp` and `sgdp` stand for their authors' rule, lr-scaled; `adamwr` is read as `adamw:normalized`,
        which is what AdamWR is under warm restarts.

        >>> str(Optimizer.parse("adamw:independent")), str(Optimizer.parse("adamwr"))
        ('adamw', 'adamw:normalized')
        """
        stem, *marks = name.strip().lower().split(":")
        restarts = asks_for_restarts(name)
        normalized = restarts or marks[-1:] == [NORMALIZED]
        marks = marks[: len(marks) - (marks[-1:] == [NORMALIZED])]
        stem = stem.removesuffix("r") if restarts else stem
        decoupled = stem.endswith("w")
        try:
            family = Family(stem.removesuffix("w"))
        except ValueError:
            raise UnknownName("optimizer", name, [*optimizer_names(), "sgdwr", "adamwr"]) from None
        if not marks:
            usual = DecayRule.LR_SCALED if family.projected else DecayRule.COUPLED
            return cls(family, DecayRule.INDEPENDENT if decoupled else usual, normalized=normalized)
        try:
            rule = DecayRule(":".join(marks))
        except ValueError:
            raise UnknownName("decay rule", ":".join(marks), [*DecayRule, NORMALIZED]) from None
        if family.projected and rule is DecayRule.COUPLED:
            raise UsageError(
                f"optimizer {shown(name)}: the decay of {family} is decoupled; write {str(family)!r}"
            )
        if not family.projected and decoupled is (rule is DecayRule.COUPLED):
            remedy = f"{family}w:{rule}" if not decoupled else str(family)
            raise UsageError(
                f"optimizer {shown(name)} contradicts itself; write {remedy!r} for the {rule} rule"
            )
        return cls(family, rule, normalized=normalized)

    def __str__(self) -> str:
        if self.family is None:
            return self.label
        end = f":{NORMALIZED}" if self.normalized else ""
        if self.rule is (DecayRule.LR_SCALED if self.family.projected else DecayRule.COUPLED):
            return f"{self.family}{end}"
        return f"{self.family}w" + ("" if self.rule is DecayRule.INDEPENDENT else f":{self.rule}") + end

    @property
    def symbol(self) -> str:
        """The letter for what its λ axis holds."""
        return "λ_norm" if self.normalized else self.rule.symbol

    @property
    def formula(self) -> str:
        """The update that the name stands for, in the paper's letters; for a foreign one its decay alone."""
        return formula(self)


def asks_for_restarts(name: str) -> bool:
    """Whether an optimizer's name is that of its variant with warm restarts: `sgdwr`, `adamwr`.

    >>> asks_for_restarts("AdamWR"), asks_for_restarts("adamw")
    (True, False)
    """
    return name.strip().lower().split(":")[0].endswith("wr")


def optimizer_names() -> list[str]:
    """Every canonical optimizer name, normalised decay left out."""
    return [
        str(Optimizer(family, rule))
        for family in Family
        for rule in DecayRule
        if not (family.projected and rule is DecayRule.COUPLED)
    ]


_DIRECTION = {
    "adam": "m̂/(√v̂+ε)",
    "amsgrad": "m̂/(√(max v/(1−β₂ᵗ))+ε)",
    "adagrad": "g/(√v+ε)",
    "rmsprop": "g/(√v+ε)",
    "adamp": "Π(m̂/(√v̂+ε))",
}


def formula(
    optimizer: Optimizer,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    momentum_form: str = "paper",
) -> str:
    """The update of one step, Π being the projection and `momentum` that of RMSProp where it has one.

    κ is 0.1 for a tensor whose step Π changes, else 1: decay has a tenth of its rate there.
    """
    rule, family = optimizer.rule, optimizer.family
    end = f", {rule.symbol} = λ_norm/√N" if optimizer.normalized else ""
    if family is None:
        return rule.update + end
    k = "κ" * family.projected
    first, direction = "", _DIRECTION.get(family.value, "")
    if family is Family.SGD and momentum_form == "paper":
        g = "(g + λ′θ)" if rule is DecayRule.COUPLED else "g"
        step = f"(β₁m + ηα{g})" if nesterov else "m"
        tail = "" if rule is DecayRule.COUPLED else f" − {_decay(rule)}"
        return f"m ← β₁m + ηα{g} ; θ ← θ − {step}{tail}{end}"
    if family is Family.SGDP and not nesterov:
        first, direction = "m ← Π(β₁m + g) ; ", "m"
    elif family in (Family.SGD, Family.SGDP):
        first, step = "m ← β₁m + g ; ", "(g + β₁m)" if nesterov else "m"
        direction = f"Π{step}" if family is Family.SGDP else step
    elif family is Family.ADAGRAD:
        first = "v ← v + g² ; "
    elif family is Family.RMSPROP and momentum:
        first, direction = f"m ← β₁m + {direction} ; ", "m"
    elif family is Family.ADAMP and nesterov:
        direction = direction.replace("m̂", "m̂′")
    match rule:
        case DecayRule.COUPLED:
            text = f"g ← g + λ′θ ; {first}θ ← θ − ηα {direction}"
        case DecayRule.INDEPENDENT:
            text = f"{first}θ ← θ − η(α {direction} + {k}λθ)"
        case DecayRule.LR_SCALED:
            w = "wθ/(1−β₁)" if family is Family.SGDP else "wθ"
            text = f"{first}θ ← θ − ηα({direction} + {k}{w})"
        case _:
            text = f"{first}θ ← θ − ηα {direction} − {k}{_decay(rule)}"
    return text + end


def _decay(rule: DecayRule) -> str:
    """What a decoupled rule subtracts from θ."""
    return rule.update.removeprefix("θ ← θ − ")

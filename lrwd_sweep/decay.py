"""Decay rules and the optimizer names that say them.

"AdamW" means one update in the paper and another in PyTorch. An optimizer here is a family (how a gradient
becomes a step) and a decay rule (how λ enters), and its name says both: `FAMILY[w][:RULE]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lrwd_sweep.errors import UnknownName, UsageError


class DecayRule(StrEnum):
    """How the decay hyperparameter enters an update; λ′, λ and w are the three meanings of `weight_decay`."""

    COUPLED = "coupled"  # g ← g + λ′θ                 L2; torch.optim.SGD and Adam
    INDEPENDENT = "independent"  # θ ← θ − η λ θ       Loshchilov & Hutter, Algorithms 1 and 2
    LR_SCALED = "lr-scaled"  # θ ← θ − η α w θ         torch.optim.AdamW, Keras, timm, optax

    @property
    def symbol(self) -> str:
        """The letter for this rule's hyperparameter."""
        return {"coupled": "λ′", "independent": "λ", "lr-scaled": "w"}[self.value]


class Family(StrEnum):
    """How a gradient becomes a step."""

    SGD = "sgd"  # m ← β₁m + ηαg ; step m              Algorithm 1: α inside the momentum buffer
    ADAM = "adam"  # m̂/(√v̂ + ε) ; step ηα m̂/(√v̂ + ε)   Algorithm 2


_FORMULA = {
    (Family.SGD, DecayRule.COUPLED): "m ← β₁m + ηα(g + λ′θ) ; θ ← θ − m",
    (Family.SGD, DecayRule.INDEPENDENT): "m ← β₁m + ηαg ; θ ← θ − m − ηλθ",
    (Family.SGD, DecayRule.LR_SCALED): "m ← β₁m + ηαg ; θ ← θ − m − ηαwθ",
    (Family.ADAM, DecayRule.COUPLED): "g ← g + λ′θ ; θ ← θ − ηα m̂/(√v̂+ε)",
    (Family.ADAM, DecayRule.INDEPENDENT): "θ ← θ − η(α m̂/(√v̂+ε) + λθ)",
    (Family.ADAM, DecayRule.LR_SCALED): "θ ← θ − ηα(m̂/(√v̂+ε) + wθ)",
}


_RULE_FORMULA = {
    DecayRule.COUPLED: "g ← g + λ′θ",
    DecayRule.INDEPENDENT: "θ ← θ − ηλθ",
    DecayRule.LR_SCALED: "θ ← θ − ηαwθ",
}


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A family and a decay rule: `adam` is Adam with L2, `adamw` the paper's, `adamw:lr-scaled` PyTorch's.

    An imported sweep may carry an optimizer that is none of ours: a `label` and its rule, without a family.
    """

    family: Family | None
    rule: DecayRule
    label: str = ""

    @classmethod
    def parse(cls, name: str) -> Optimizer:
        """Read `FAMILY[w][:RULE]`. Raises UnknownName (with the near names) or UsageError.

        >>> str(Optimizer.parse("adamw:independent"))
        'adamw'
        """
        text = name.strip().lower()
        stem, colon, rule_text = text.partition(":")
        decoupled = stem.endswith("w")
        try:
            family = Family(stem.removesuffix("w"))
        except ValueError:
            raise UnknownName("optimizer", name, optimizer_names()) from None
        if not colon:
            return cls(family, DecayRule.INDEPENDENT if decoupled else DecayRule.COUPLED)
        try:
            rule = DecayRule(rule_text)
        except ValueError:
            raise UnknownName("decay rule", rule_text, DecayRule) from None
        if decoupled is (rule is DecayRule.COUPLED):
            remedy = f"{family}w:{rule}" if not decoupled else str(family)
            raise UsageError(f"optimizer {name!r} contradicts itself; write {remedy!r} for the {rule} rule")
        return cls(family, rule)

    def __str__(self) -> str:
        if self.family is None:
            return self.label
        if self.rule is DecayRule.COUPLED:
            return str(self.family)
        return f"{self.family}w" + ("" if self.rule is DecayRule.INDEPENDENT else f":{self.rule}")

    @property
    def formula(self) -> str:
        """The update that the name stands for, in the paper's letters; for a foreign one its decay alone."""
        return _RULE_FORMULA[self.rule] if self.family is None else _FORMULA[self.family, self.rule]


def optimizer_names() -> list[str]:
    """Every canonical optimizer name."""
    return [str(Optimizer(family, rule)) for family in Family for rule in DecayRule]

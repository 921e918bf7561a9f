"""Decay rules: how the decay hyperparameter enters an update."""

from __future__ import annotations

from enum import StrEnum

WD_RATIO = 0.1  # κ: of its rate is what a tensor decays by whose step was projected (Heo et al. 2021)


class DecayRule(StrEnum):
    """How decay enters an update; λ′, λ, w, d and c are the five meanings of `weight_decay`."""

    COUPLED = "coupled"  # g ← g + λ′θ                 L2; torch.optim.SGD and Adam
    INDEPENDENT = "independent"  # θ ← θ − η λ θ       Loshchilov & Hutter, Algorithms 1 and 2
    LR_SCALED = "lr-scaled"  # θ ← θ − η α w θ         torch.optim.AdamW, Keras, timm, optax
    FIXED = "fixed"  # θ ← θ − d θ                     not scheduled: TF Addons, pytorch_optimizer fixed_decay
    CORRECTED = "corrected"  # θ ← θ − η² α c θ        AdamC (Defazio 2025), timm corrected_weight_decay

    @property
    def symbol(self) -> str:
        """The letter for this rule's hyperparameter."""
        return _ABOUT[self.value][0]

    @property
    def update(self) -> str:
        """What the rule alone does in one step."""
        return _ABOUT[self.value][1]


_ABOUT = {
    "coupled": ("λ′", "g ← g + λ′θ"),
    "independent": ("λ", "θ ← θ − ηλθ"),
    "lr-scaled": ("w", "θ ← θ − ηαwθ"),
    "fixed": ("d", "θ ← θ − dθ"),
    "corrected": ("c", "θ ← θ − η²αcθ"),
}

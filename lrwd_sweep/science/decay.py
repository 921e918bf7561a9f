"""Decay rules, and the conventions in which one strength of decay can be given."""

from __future__ import annotations

from enum import StrEnum

WD_RATIO = 0.1  # κ: a tensor whose step was projected decays at this share of its rate (Heo et al. 2021)


class Convention(StrEnum):
    """A meaning of the number called weight decay."""

    INDEPENDENT = "independent"
    LR_SCALED = "lr-scaled"
    COUPLED = "coupled"
    NORMALIZED = "normalized"
    FIXED = "fixed"
    CORRECTED = "corrected"

    @property
    def symbol(self) -> str:
        """Return the letter of this convention's number."""
        return _ABOUT[self][0]

    @property
    def update(self) -> str:
        """Return the decay of one step."""
        return _ABOUT[self][1]

    @property
    def users(self) -> str:
        """Name the papers and libraries that mean this by weight decay."""
        return _ABOUT[self][2]


_ABOUT = {
    Convention.INDEPENDENT: ("λ", "θ ← θ − ηλθ", "AdamW paper, Composer, optimi decouple_lr"),
    Convention.LR_SCALED: ("w", "θ ← θ − ηαwθ", "torch.optim.AdamW, Keras, timm, optax"),
    Convention.COUPLED: ("λ′", "g ← g + λ′θ", "L2; torch.optim.SGD and Adam"),
    Convention.NORMALIZED: ("λ_norm", "θ ← θ − ηλθ", "AdamW paper, appendix B.1: λ = λ_norm/√N"),
    Convention.FIXED: ("d", "θ ← θ − dθ", "TF Addons, pytorch_optimizer fixed_decay"),
    Convention.CORRECTED: ("c", "θ ← θ − η²αcθ", "AdamC, timm corrected_weight_decay"),
}


class DecayRule(StrEnum):
    """How decay enters an update; the value is the name of the convention that the rule's number is in."""

    COUPLED = "coupled"  # g ← g + λ′θ                 L2; torch.optim.SGD and Adam
    INDEPENDENT = "independent"  # θ ← θ − η λ θ       Loshchilov & Hutter, Algorithms 1 and 2
    LR_SCALED = "lr-scaled"  # θ ← θ − η α w θ         torch.optim.AdamW, Keras, timm, optax
    FIXED = "fixed"  # θ ← θ − d θ                     not scheduled: TF Addons, pytorch_optimizer fixed_decay
    CORRECTED = "corrected"  # θ ← θ − η² α c θ        AdamC (Defazio 2025), timm corrected_weight_decay

    @property
    def convention(self) -> Convention:
        """Return the convention of this rule's number."""
        return Convention(self.value)

    @property
    def symbol(self) -> str:
        """Return the letter of this rule's number."""
        return self.convention.symbol

    @property
    def update(self) -> str:
        """Return the part of one step that decays."""
        return self.convention.update

"""Optimizers by name: a family (gradient → step), a decay rule (how λ enters), and conventions for λ.

"AdamW" means one update in the paper and another in PyTorch, so a name gives both: `FAMILY[w][:RULE]`, with
`:cautious` behind it for decay only where the step shrinks θ, and `:normalized` for λ = λ_norm/√N.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lrwd_sweep.errors import UnknownName, UsageError, shown

NORMALIZED, CAUTIOUS = "normalized", "cautious"
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
    """The place of decay in an update; the value names the convention of the rule's number."""

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
    def is_scheduled(self) -> bool:
        """Check if decay is a multiple of η, which a decay schedule replaces."""
        return self in (DecayRule.INDEPENDENT, DecayRule.LR_SCALED)

    @property
    def symbol(self) -> str:
        """Return the letter of this rule's number."""
        return self.convention.symbol

    @property
    def update(self) -> str:
        """Return the part of one step that decays."""
        return self.convention.update


class MomentumForm(StrEnum):
    """The place of α in SGD with momentum; the two agree while η_t is constant."""

    PAPER = "paper"  # m ← β₁m + η_t α g ; θ ← θ − m      Algorithm 1 of the AdamW paper
    TORCH = "torch"  # m ← β₁m + g ; θ ← θ − η_t α m      torch.optim.SGD


class Family(StrEnum):
    """The map from a gradient to a step; a new family needs a member here and its row in `_FAMILIES`."""

    SGD = "sgd"  # m ← β₁m + ηαg                       Algorithm 1 of the AdamW paper: α inside the buffer
    ADAM = "adam"  # m̂/(√v̂ + ε)                        Algorithm 2
    AMSGRAD = "amsgrad"  # m̂/(√(max v/(1−β₂ᵗ)) + ε)    Reddi et al. 2018, with the corrections of torch.optim
    ADAGRAD = "adagrad"  # g/(√Σg² + ε)                Duchi et al. 2011
    RMSPROP = "rmsprop"  # g/(√v + ε)                  Tieleman & Hinton 2012
    SGDP = "sgdp"  # m ← Π(β₁m + g)                    Heo et al. 2021: Π removes the radial part of the step
    ADAMP = "adamp"  # Π(m̂/(√v̂ + ε))                   Heo et al. 2021
    LION = "lion"  # sign(β₁m + (1−β₁)g)               Chen et al. 2023
    ADOPT = "adopt"  # m ← β₁m + (1−β₁) clip(g/√v)     Taniguchi et al. 2024: v of the step before
    SCHEDULE_FREE = "schedule-free"  # g/(√v̂ + ε) at y  Defazio et al. 2024: the result is an average x
    MUON = "muon"  # NS(β₁m + (1−β₁)g) of matrices     Jordan et al. 2024; Adam for what is no matrix
    NDADAM = "ndadam"  # Adam by row, on ‖θ‖ = 1       Zhang et al. 2017; Adam for what is no matrix
    KFAC = "kfac"  # m ← β₁m + (A⊗G)⁻¹g                Martens & Grosse 2015; linear layers and convolutions

    @property
    def display_name(self) -> str:
        """Return the name with its paper's capitals."""
        return _FAMILIES[self].display_name

    @property
    def hyperparameters(self) -> dict[str, float | bool | str]:
        """Return the further hyperparameters with the defaults of the paper, or of PyTorch without any."""
        return dict(_FAMILIES[self].hyperparameters)

    @property
    def projected(self) -> bool:
        """Check if the step's radial part is removed; the authors' decay is then decoupled, lr-scaled."""
        return _FAMILIES[self].projected

    @property
    def summed_convention(self) -> Convention | None:
        """Return the convention in which λ is α/(1−β₁) times the number."""
        return _FAMILIES[self].summed_convention

    @property
    def steps_like(self) -> Family | None:
        """Return a family whose steps are as large, so that its default axes fit."""
        return _FAMILIES[self].steps_like

    @property
    def rules(self) -> list[DecayRule]:
        """Return the decay rules that the family has."""
        if self is Family.NDADAM:
            return [DecayRule.COUPLED]
        return [rule for rule in DecayRule if not (self.projected and rule is DecayRule.COUPLED)]

    def refusal(self, rule: DecayRule) -> str:
        """Explain why the family does not have a rule, and name the remedy."""
        if self is Family.NDADAM:
            return (
                f"{rule} decay shrinks the norm of weights, which ndadam resets to 1; write 'ndadam', whose "
                "L2 acts on what is no matrix"
            )
        return f"the decay of {self} is decoupled; write {str(self)!r}"


@dataclass(frozen=True, slots=True)
class _About:
    """The properties of a family, one row of the table."""

    display_name: str
    direction: str = ""  # the step in a formula, if it is one term
    first: str = ""  # in a formula, before the step
    last: str = ""  # and after it
    hyperparameters: dict[str, float | bool | str] = field(default_factory=dict)
    projected: bool = False
    summed_convention: Convention | None = None
    steps_like: Family | None = None  # a family whose steps are as large


_MOMENTS: dict[str, float | bool | str] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
_FAMILIES = {
    Family.SGD: _About(
        "SGD",
        hyperparameters={"momentum": 0.9, "nesterov": False, "momentum_form": "paper"},
        summed_convention=Convention.COUPLED,
    ),
    Family.ADAM: _About("Adam", "m̂/(√v̂+ε)", hyperparameters=_MOMENTS),
    Family.AMSGRAD: _About(
        "AMSGrad", "m̂/(√(max v/(1−β₂ᵗ))+ε)", hyperparameters=_MOMENTS, steps_like=Family.ADAM
    ),
    Family.ADAGRAD: _About("AdaGrad", "g/(√v+ε)", "v ← v + g² ; ", hyperparameters={"eps": 1e-10}),
    Family.RMSPROP: _About(
        "RMSProp",
        "g/(√v+ε)",
        hyperparameters={"beta2": 0.99, "eps": 1e-8, "momentum": 0.0},
        steps_like=Family.ADAM,
    ),
    Family.SGDP: _About(
        "SGDP",
        hyperparameters={"momentum": 0.9, "nesterov": False},
        projected=True,
        summed_convention=Convention.LR_SCALED,
        steps_like=Family.SGD,
    ),
    Family.ADAMP: _About(
        "AdamP",
        "Π(m̂/(√v̂+ε))",
        hyperparameters={**_MOMENTS, "nesterov": False},
        projected=True,
        steps_like=Family.ADAM,
    ),
    Family.LION: _About(
        "Lion",
        "sign(β₁m+(1−β₁)g)",
        hyperparameters={"beta1": 0.9, "beta2": 0.99},
        steps_like=Family.ADAM,
    ),
    Family.ADOPT: _About(
        "ADOPT",
        "m",
        "m ← β₁m + (1−β₁)clip(g/√v) ; ",
        hyperparameters={"beta1": 0.9, "beta2": 0.9999, "eps": 1e-6},
        steps_like=Family.ADAM,
    ),
    Family.SCHEDULE_FREE: _About(
        "Schedule-Free Adam",
        "g/(√v̂+ε)",
        last=" ; x ← x + c(z−x) ; y ← z + β₁(x−z)",
        hyperparameters=_MOMENTS,
        steps_like=Family.ADAM,
    ),
    Family.MUON: _About(
        "Muon",
        "NS(β₁m+(1−β₁)g)",
        "m ← β₁m + (1−β₁)g ; ",
        hyperparameters={"momentum": 0.95, **_MOMENTS},
        steps_like=Family.ADAM,
    ),
    Family.NDADAM: _About(
        "ND-Adam",
        "m̂/(√v̂+ε)",
        "g ← g − θ(gθ) ; ",
        " ; θ ← θ/|θ|",
        hyperparameters=_MOMENTS,
        steps_like=Family.ADAM,
    ),
    Family.KFAC: _About(
        "K-FAC",
        "m",
        "m ← β₁m + (A⊗G)⁻¹g ; ",
        hyperparameters={"momentum": 0.9, "damping": 1e-3, "factor_ema": 0.95, "inverse_interval": 10},
    ),
}


def users_of(hyperparameter: str) -> list[Family]:
    """Return the families that have a hyperparameter of this name."""
    return [family for family in Family if hyperparameter in _FAMILIES[family].hyperparameters]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A family and a decay rule: `adam` is Adam with L2, `adamw` the paper's, `adamw:lr-scaled` PyTorch's.

    `normalized` decay is given as λ_norm and divided by √N. An imported sweep may have an optimizer that is
    not one of ours: a `label` and its rule, without a family.
    """

    family: Family | None
    rule: DecayRule
    label: str = ""
    normalized: bool = False
    cautious: bool = False  # decay only where step·θ ≥ 0 (Chen et al. 2025, "Cautious Weight Decay")

    @classmethod
    def parse(cls, name: str) -> Optimizer:
        """Read `FAMILY[w][:RULE][:cautious][:normalized]`.

        `adamp` and `sgdp` stand for their authors' rule, lr-scaled; `adamwr` is read as `adamw:normalized`,
        which is AdamWR under warm restarts. Raises UnknownName (with the near names) or UsageError.

        >>> str(Optimizer.parse("adamw:independent")), str(Optimizer.parse("adamwr"))
        ('adamw', 'adamw:normalized')
        """
        stem, *marks = name.strip().lower().split(":")
        restarts = asks_for_restarts(name)
        normalized = restarts or marks[-1:] == [NORMALIZED]
        marks = marks[: len(marks) - (marks[-1:] == [NORMALIZED])]
        cautious = marks[-1:] == [CAUTIOUS]
        marks = marks[: len(marks) - cautious]
        stem = stem.removesuffix("r") if restarts else stem
        decoupled = stem.endswith("w")
        try:
            family = Family(stem.removesuffix("w"))
        except ValueError:
            raise UnknownName("optimizer", name, [*optimizer_names(), "sgdwr", "adamwr"]) from None
        try:
            rule = DecayRule.INDEPENDENT if decoupled else _usual_rule(family)
            rule = DecayRule(":".join(marks)) if marks else rule
        except ValueError:
            raise UnknownName("decay rule", ":".join(marks), [*DecayRule, CAUTIOUS, NORMALIZED]) from None
        if rule not in family.rules:
            raise UsageError(f"optimizer {shown(name)}: {family.refusal(rule)}")
        if cautious and rule is DecayRule.COUPLED:
            remedy = f"{family}w:{CAUTIOUS}" if DecayRule.INDEPENDENT in family.rules else str(family)
            raise UsageError(f"optimizer {shown(name)}: cautious decay is decoupled; write {remedy!r}")
        if marks and not family.projected and decoupled is (rule is DecayRule.COUPLED):
            remedy = str(family) if decoupled else f"{family}w:{rule}"
            raise UsageError(
                f"optimizer {shown(name)} contradicts itself; write {remedy!r} for the {rule} rule"
            )
        return cls(family, rule, normalized=normalized, cautious=cautious)

    def __str__(self) -> str:
        if self.family is None:
            return self.label
        end = f":{CAUTIOUS}" * self.cautious + f":{NORMALIZED}" * self.normalized
        if self.rule is _usual_rule(self.family):
            return f"{self.family}{end}"
        return f"{self.family}w" + ("" if self.rule is DecayRule.INDEPENDENT else f":{self.rule}") + end

    @property
    def symbol(self) -> str:
        """Return the letter of the λ axis."""
        return "λ_norm" if self.normalized else self.rule.symbol

    @property
    def formula(self) -> str:
        """Return the update in the paper's letters; for an optimizer without a family only its decay."""
        return formula(self)


def _usual_rule(family: Family) -> DecayRule:
    """Return the rule of the name without `w`."""
    return DecayRule.LR_SCALED if family.projected else DecayRule.COUPLED


def asks_for_restarts(name: str) -> bool:
    """Check if an optimizer's name is of its variant with warm restarts: `sgdwr`, `adamwr`.

    >>> asks_for_restarts("AdamWR"), asks_for_restarts("adamw")
    (True, False)
    """
    return name.strip().lower().split(":")[0].endswith("wr")


def optimizer_names() -> list[str]:
    """Return every canonical optimizer name without cautious or normalized decay."""
    return [str(Optimizer(family, rule)) for family in Family for rule in family.rules]


def formula(
    optimizer: Optimizer,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    momentum_form: str = "paper",
    own_schedule: bool = False,
) -> str:
    """Write the update of one step; Π is the projection, and only RMSProp uses `momentum`.

    κ is 0.1 for a tensor whose step Π changes, else 1: there decay has a tenth of its rate. u is the step,
    and η_λ the multiplier of decay that has a schedule of its own.
    """
    rule, family = optimizer.rule, optimizer.family
    end = f", {rule.symbol} = λ_norm/√N" if optimizer.normalized else ""
    if family is None:
        return rule.update + end
    k = "κ" * family.projected
    about, only = _FAMILIES[family], "[uθ≥0]" * optimizer.cautious
    subtracted = k + rule.update.removeprefix("θ ← θ − ") + only  # by a decoupled rule
    subtracted = subtracted.replace("η", "η_λ ") if own_schedule else subtracted
    if family is Family.SGDP and rule is DecayRule.LR_SCALED:
        subtracted += "/(1−β₁)"
    first, direction, last = about.first, about.direction, about.last
    if family is Family.SGD and momentum_form == "paper":
        g = "(g + λ′θ)" if rule is DecayRule.COUPLED else "g"
        step = f"(β₁m + ηα{g})" if nesterov else "m"
        tail = "" if rule is DecayRule.COUPLED else f" − {subtracted}"
        return f"m ← β₁m + ηα{g} ; θ ← θ − {step}{tail}{end}"
    if family is Family.SGDP and not nesterov:
        first, direction = "m ← Π(β₁m + g) ; ", "m"
    elif family in (Family.SGD, Family.SGDP):
        first, step = "m ← β₁m + g ; ", "(g + β₁m)" if nesterov else "m"
        direction = f"Π{step}" if family is Family.SGDP else step
    elif family is Family.RMSPROP and momentum:
        first, direction = f"m ← β₁m + {direction} ; ", "m"
    elif family is Family.ADAMP and nesterov:
        direction = direction.replace("m̂", "m̂′")
    match None if only or own_schedule else rule:
        case DecayRule.COUPLED:
            text = f"g ← g + λ′θ ; {first}θ ← θ − ηα {direction}"
        case DecayRule.INDEPENDENT:
            text = f"{first}θ ← θ − η(α {direction} + {k}λθ)"
        case DecayRule.LR_SCALED:
            w = "wθ/(1−β₁)" if family is Family.SGDP else "wθ"
            text = f"{first}θ ← θ − ηα({direction} + {k}{w})"
        case _:
            text = f"{first}θ ← θ − ηα {direction} − {subtracted}"
    if family is Family.SCHEDULE_FREE:  # decay acts on y, where the gradient is
        text = text.replace("θ ← θ", "z ← z").replace("θ", "y")
    return text + last + end

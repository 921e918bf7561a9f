"""Optimizers of other libraries to compare with: their arguments and their deviations."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from lrwd_sweep.science.optimizer import MomentumForm, Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

SCHEDULES = (Schedule.FIXED, Schedule.COSINE, Schedule.RESTARTS)
MOVING = SCHEDULES[1:]


class Given(StrEnum):
    """The `weight_decay` of the reference, x being the decay of our optimizer."""

    SAME = "{x}"
    PER_RATE = "{x}/α"  # for one that multiplies it by α where ours does not


@dataclass(frozen=True, slots=True)
class Library:
    """A distribution, the module of its optimizers, and the oldest version that is compared."""

    name: str
    module: str
    since: str

    def obstacle(self) -> str:
        """Return why it cannot be compared here, or an empty text."""
        try:
            installed = version(self.name)
            if _numbers(installed) < _numbers(self.since):
                return f"{installed} is installed, {self.since} is the oldest that is compared"
            importlib.import_module(self.module)
        except PackageNotFoundError:
            return f"not installed; pip install {self.name}"
        except ImportError as why:
            return f"does not import: {why}"
        return ""


def _numbers(text: str) -> list[int]:
    """Return the numbers of a version, to compare it by.

    >>> _numbers("2.15.0+cu130")
    [2, 15, 0]
    """
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])]


TORCH = Library("torch", "torch.optim", "2.6")
ADAMP = Library("adamp", "adamp", "0.3")
TIMM = Library("timm", "timm.optim", "1.0.16")
PYTORCH_OPTIMIZER = Library("pytorch_optimizer", "pytorch_optimizer", "4.0")  # SGDW was another before
OPTIMI = Library("torch-optimi", "optimi", "0.3")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A class of another library, our optimizer to compare it with, and their difference, if any."""

    library: Library
    name: str
    ours: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)  # ours, if not the default
    given: Given = Given.SAME
    hidden: Mapping[str, Any] = field(default_factory=dict)  # arguments that choose no method
    schedules: tuple[Schedule, ...] = SCHEDULES
    dimensions: int = 0  # of the tensors that it takes; 0: all
    in_bfloat16: bool = False  # its iterations, which then run in float64
    deviates: str = ""  # the difference from ours; the two must then differ

    @property
    def task(self) -> Task:
        """Return the task with our hyperparameters."""
        return Task(**self.hyperparameters)

    def make(self, parameters: Iterable[Tensor], alpha: float, decay: float) -> TorchOptimizer:
        """Make it for some parameters, at base learning rate α and our optimizer's decay."""
        make = getattr(importlib.import_module(self.library.module), self.name)
        weight_decay = decay / alpha if self.given is Given.PER_RATE else decay
        found: TorchOptimizer = make(
            parameters, lr=alpha, weight_decay=weight_decay, **self.arguments, **self.hidden
        )
        return found

    @property
    def call(self) -> str:
        """Return its call as code, with our letter for the decay."""
        decay = self.given.format(x=Optimizer.parse(self.ours).symbol)
        arguments = [f"{name}={value!r}" for name, value in self.arguments.items()]
        return f"{self.name}({', '.join([*arguments, f'weight_decay={decay}'])})"

    @property
    def our_call(self) -> str:
        """Return our optimizer's name, and its hyperparameters other than the default."""
        usual = Task().of(Optimizer.parse(self.ours))
        given = [
            _said(name, value)
            for name, value in self.hyperparameters.items()
            if value != getattr(usual, name)
        ]
        return ", ".join([self.ours, *given])


def _said(name: str, value: object) -> str:
    if name == "momentum_form":
        return f"{value} form"
    return name if value is True else f"{name} {value:g}"


def _authors_clip(step: float) -> float:
    """Clip ADOPT as its authors, who do not count the first step."""
    return math.pow(step - 1, 0.25)


_RMS = {"adjust_lr_fn": "match_rms_adamw"}
_MU = {"momentum": 0.9}
_NESTEROV = _MU | {"nesterov": True}
_TORCH_FORM = {"momentum_form": MomentumForm.TORCH}
_NO_TRITON = {"triton": False}
_OUTSIDE = "α is outside its buffer, inside ours as in the paper's Algorithm 1"
_EPS_FIRST = "its ε stands before the bias correction, as in the AdamW authors' code"

REFERENCES = (
    Reference(TORCH, "SGD", "sgd", hyperparameters={"momentum": 0.0}),
    Reference(TORCH, "SGD", "sgd", _MU, schedules=(Schedule.FIXED,)),
    Reference(TORCH, "SGD", "sgd", _MU, schedules=MOVING, deviates=_OUTSIDE),
    Reference(TORCH, "SGD", "sgd", _MU, _TORCH_FORM),
    Reference(TORCH, "SGD", "sgd", _NESTEROV, {"nesterov": True}, schedules=(Schedule.FIXED,)),
    Reference(TORCH, "SGD", "sgd", _NESTEROV, {"nesterov": True} | _TORCH_FORM),
    Reference(TORCH, "Adam", "adam"),
    Reference(TORCH, "AdamW", "adamw:lr-scaled"),
    Reference(TORCH, "AdamW", "adamw", given=Given.PER_RATE),
    Reference(TORCH, "AdamW", "adamw", deviates="its decay is lr-scaled, the paper's independent of α"),
    Reference(TORCH, "Adam", "amsgrad", {"amsgrad": True}),
    Reference(TORCH, "AdamW", "amsgradw:lr-scaled", {"amsgrad": True}),
    Reference(TORCH, "AdamW", "amsgradw", {"amsgrad": True}, given=Given.PER_RATE),
    Reference(TORCH, "Adagrad", "adagrad"),
    Reference(TORCH, "RMSprop", "rmsprop"),
    Reference(TORCH, "RMSprop", "rmsprop", _MU, _MU),
    Reference(TORCH, "Muon", "muonw:lr-scaled", _RMS, dimensions=2, in_bfloat16=True),
    Reference(TORCH, "Muon", "muonw", _RMS, given=Given.PER_RATE, dimensions=2, in_bfloat16=True),
    Reference(
        TORCH,
        "Muon",
        "muonw:lr-scaled",
        _RMS,
        dimensions=2,
        deviates="it orthogonalises in bfloat16, ours in the parameters' type",
    ),
    Reference(ADAMP, "AdamP", "adamp"),
    Reference(ADAMP, "AdamP", "adamp", {"nesterov": True}, {"nesterov": True}),
    Reference(ADAMP, "SGDP", "sgdp", _MU),
    Reference(ADAMP, "SGDP", "sgdp", _NESTEROV, {"nesterov": True}),
    Reference(TIMM, "SGDW", "sgdw:lr-scaled", _MU, _TORCH_FORM),
    Reference(TIMM, "SGDW", "sgdw:lr-scaled", _MU, schedules=MOVING, deviates=_OUTSIDE),
    Reference(TIMM, "SGDW", "sgdw:corrected", _MU | {"corrected_weight_decay": True}, _TORCH_FORM),
    Reference(TIMM, "AdamWLegacy", "adamw:corrected", {"corrected_weight_decay": True}),
    Reference(
        TIMM,
        "RMSpropTF",
        "rmsprop",
        {"alpha": 0.99, "eps": 1e-8},
        deviates="its v starts at 1 and its ε is under the root, as in TensorFlow",
    ),
    Reference(PYTORCH_OPTIMIZER, "SGDW", "sgdw:lr-scaled", _MU, _TORCH_FORM),
    Reference(
        PYTORCH_OPTIMIZER,
        "AdEMAMix",
        "adamw:fixed",
        {"alpha": 0.0, "weight_decouple": True, "fixed_decay": True},
    ),
    Reference(PYTORCH_OPTIMIZER, "AdamP", "adampw:fixed", {"fixed_decay": True, "eps": 0.0}, {"eps": 0.0}),
    Reference(
        PYTORCH_OPTIMIZER, "AdamC", "adamw:lr-scaled", {"eps": 1e-3}, {"eps": 1e-3}, deviates=_EPS_FIRST
    ),
    Reference(PYTORCH_OPTIMIZER, "Lion", "lion", {"weight_decouple": False}),
    Reference(PYTORCH_OPTIMIZER, "Lion", "lionw:lr-scaled"),
    Reference(PYTORCH_OPTIMIZER, "SGDP", "sgdp", _NESTEROV, {"nesterov": True}),
    Reference(PYTORCH_OPTIMIZER, "ADOPT", "adopt", hidden={"clip_lambda": _authors_clip}),
    Reference(
        PYTORCH_OPTIMIZER,
        "ADOPT",
        "adoptw:lr-scaled",
        {"weight_decouple": True},
        hidden={"clip_lambda": _authors_clip},
    ),
    Reference(
        PYTORCH_OPTIMIZER,
        "ADOPT",
        "adoptw:fixed",
        {"weight_decouple": True, "fixed_decay": True},
        deviates="it clips step t at t^¼, ours as the authors at (t−1)^¼",
    ),
    Reference(PYTORCH_OPTIMIZER, "ScheduleFreeAdamW", "schedule-freew:lr-scaled"),
    Reference(PYTORCH_OPTIMIZER, "ScheduleFreeAdamW", "schedule-freew", given=Given.PER_RATE),
    Reference(
        PYTORCH_OPTIMIZER,
        "SGDP",
        "sgdp",
        _MU,
        deviates="it projects a copy of its buffer; ours, like the AdamP authors', the buffer",
    ),
    Reference(OPTIMI, "SGD", "sgd", _MU, _TORCH_FORM, hidden=_NO_TRITON),
    Reference(OPTIMI, "SGD", "sgdw", _MU | {"decouple_lr": True}, _TORCH_FORM, hidden=_NO_TRITON),
    Reference(
        OPTIMI,
        "AdamW",
        "adamw",
        {"decouple_lr": True, "betas": (0.9, 0.999), "eps": 1e-8},
        hidden=_NO_TRITON,
    ),
    Reference(OPTIMI, "AdamW", "adamw:lr-scaled", {"betas": (0.9, 0.999), "eps": 1e-8}, hidden=_NO_TRITON),
)

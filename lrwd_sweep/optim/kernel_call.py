"""Which kernel does a family's step, and what it takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lrwd_sweep.optim.adagrad import Adagrad
from lrwd_sweep.optim.adam import Adam
from lrwd_sweep.optim.amsgrad import Amsgrad
from lrwd_sweep.optim.rmsprop import Rmsprop
from lrwd_sweep.optim.sgd import Sgd, TorchSgd
from lrwd_sweep.optim.step import StepFamily


class KernelCall(NamedTuple):
    """The name of a kernel in `kernels` and `loops`, and its last arguments."""

    name: str
    arguments: tuple[Tensor | float | None, ...]  # moments, None if it has none, and hyperparameters
    modes: dict[str, bool]


def kernel_call(family: StepFamily) -> KernelCall | None:
    """None for a family that needs sums over whole tensors."""
    match family:
        case Sgd(beta1, nesterov, m) | TorchSgd(beta1, nesterov, m):
            modes = {"INSIDE": isinstance(family, Sgd), "NESTEROV": nesterov}
            return KernelCall("sgd", (m, float(beta1)), modes)
        case Adam(beta1, beta2, eps, m, v):
            numbers = 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps)
            return KernelCall("adam", (m, v, None, *numbers), {"AMSGRAD": False})
        case Amsgrad(beta1, beta2, eps, m, v, u):
            numbers = 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps)
            return KernelCall("adam", (m, v, u, *numbers), {"AMSGRAD": True})
        case Adagrad(eps, v):
            return KernelCall("adagrad", (v, float(eps)), {})
        case Rmsprop(beta1, beta2, eps, v, m):
            numbers = float(beta1), float(beta2), 1.0 - beta2, float(eps)
            return KernelCall("rmsprop", (v, m, *numbers), {"MOMENTUM": m is not None})
        case _:
            return None

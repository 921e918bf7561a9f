"""An optimizer as code: its constructor in the library that has it, and what to do beside its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Family
from lrwd_sweep.spec.task import Task

WEIGHTS_ALONE = (
    "weights = [p for p in model.parameters() if p.ndim > 1]\n"
    "others = [p for p in model.parameters() if p.ndim <= 1]\n"
    "params = [dict(params=weights), dict(params=others, weight_decay=0.0)]"
)


def groups(task: Task) -> str:
    """The parameters in two groups, of which the first decays, for a study in which not all do."""
    if not task.undecayed:
        return WEIGHTS_ALONE
    decays, others = "name not in spared", "name in spared"
    if not task.decay_all:
        decays, others = f"p.ndim > 1 and {decays}", f"p.ndim <= 1 or {others}"
    return "\n".join(
        [
            f"spared = {{{', '.join(map(repr, task.undecayed))}}}",
            f"weights = [p for name, p in model.named_parameters() if {decays}]",
            f"others = [p for name, p in model.named_parameters() if {others}]",
            WEIGHTS_ALONE.rpartition("\n")[2],
        ]
    )


_COUPLED = {  # whose weight_decay is L2, λ′
    Family.SGD: "torch.optim.SGD",
    Family.ADAM: "torch.optim.Adam",
    Family.AMSGRAD: "torch.optim.Adam",
    Family.ADAGRAD: "torch.optim.Adagrad",
    Family.RMSPROP: "torch.optim.RMSprop",
}
_DECOUPLED = {  # whose weight_decay is lr-scaled, w
    Family.ADAM: "torch.optim.AdamW",
    Family.AMSGRAD: "torch.optim.AdamW",
    Family.SGDP: "adamp.SGDP",
    Family.ADAMP: "adamp.AdamP",
}


def digits(value: float) -> str:
    """A number with all the digits that are a cell's identity.

    >>> digits(2**-6), digits(1e-3)
    ('0.015625', '0.001')
    """
    return f"{value:.12g}"


@dataclass(frozen=True, slots=True)
class Constructor:
    """A library's optimizer with what a study sets besides learning rate and decay."""

    name: str
    arguments: tuple[str, ...]

    def call(self, cell: Cell, weight_decay: str = "") -> str:
        """The line that makes it, with weight decay where there is any."""
        decay = [f"weight_decay={weight_decay}"] if weight_decay else []
        return f"{self.name}({', '.join(['params', f'lr={digits(cell.lr)}', *self.arguments, *decay])})"


def coupled(family: Family, task: Task | None) -> Constructor | None:
    """The one whose decay is L2; None for SGDP and AdamP, which have none."""
    name = _COUPLED.get(family)
    return None if name is None else Constructor(name, tuple(_arguments(family, task)))


def decoupled(family: Family, task: Task | None) -> Constructor | None:
    """The one whose decay is decoupled and lr-scaled; None where PyTorch has none."""
    name = _DECOUPLED.get(family)
    return None if name is None else Constructor(name, tuple(_arguments(family, task)))


def without_decay(family: Family, task: Task | None) -> Constructor:
    """The one that does not decay unless it is told to."""
    found = coupled(family, task) or decoupled(family, task)
    assert found is not None, "every family is in one of the tables"
    return found


def _arguments(family: Family, t: Task | None) -> Iterator[str]:
    """What is not the library's default; SGD's and SGDP's momentum always, by name where nobody told us."""
    usual = family.hyperparameters
    buffered = family in (Family.SGD, Family.SGDP)
    if family is Family.AMSGRAD:
        yield "amsgrad=True"
    if t is None:
        if buffered:
            yield "momentum=momentum"
        return
    if "beta1" in usual and (t.beta1, t.beta2) != (usual["beta1"], usual["beta2"]):
        yield f"betas=({t.beta1!r}, {t.beta2!r})"
    if family is Family.RMSPROP and t.beta2 != usual["beta2"]:
        yield f"alpha={t.beta2!r}"
    if "eps" in usual and t.eps != usual["eps"]:
        yield f"eps={t.eps!r}"
    if buffered or (family is Family.RMSPROP and t.momentum):
        yield f"momentum={t.momentum!r}"
    if t.nesterov and (t.momentum or not buffered):  # without momentum it is nothing, and torch refuses it
        yield "nesterov=True"


def beside(constructor: str, when: str, body: Sequence[str], *, every: bool) -> str:
    """An optimizer, and what to do with each of its groups; with the first alone unless `every` decays."""
    groups = "optimizer.param_groups" + ("" if every else "[:1]")
    lines = [f"optimizer = {constructor}", f"# {when}:", f"for group in {groups}:"]
    return "\n".join([*lines, *(f"    {line}" for line in body)])


def by_hand(constructor: str, decay: str, *, every: bool) -> str:
    """An optimizer without decay of its own, and θ ← θ − decay·θ beside every step."""
    body = [f"decay = {decay}", 'for p in group["params"]:', "    p.data.mul_(1 - decay)"]
    return beside(constructor, "before each optimizer.step()", body, every=every)

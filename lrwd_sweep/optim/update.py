"""One update of every lane: coupled decay, the family's step and its projection, decoupled decay.

A parameter of a lane is a segment of the lane's flat row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lrwd_sweep.optim.jit import Backend, torch_compiled
from lrwd_sweep.science.optimizer import WD_RATIO, DecayRule
from lrwd_sweep.science.schedule import Timetable

DELTA = 0.1  # δ of the projection

Number = float | Tensor  # (), on the device


@dataclass(frozen=True, slots=True)
class Segment:
    """One parameter tensor of a lane: columns `start` to `stop` of the arena."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]  # of one lane

    @property
    def columns(self) -> slice:
        """Return the segment's columns, an index of the arena."""
        return slice(self.start, self.stop)

    @property
    def is_matrix(self) -> bool:
        """True for more than one dimension, which excludes biases and parameters of normalisation."""
        return len(self.shape) > 1


def runs(parts: Sequence[slice], count: int, alone: Sequence[slice] = ()) -> tuple[list[int], list[bool]]:
    """Split `count` columns into runs inside and outside the parts; return their ends and which are inside.

    Each slice of `alone` becomes a run of its own.
    """
    ends = sorted({0, count, *(end for part in (*parts, *alone) for end in (part.start, part.stop))})
    return ends, [any(part.start <= start < part.stop for part in parts) for start in ends[:-1]]


def columns(segments: Iterable[Segment]) -> tuple[slice, ...]:
    """Return the columns of segments in the arena's order, neighbours merged into one slice."""
    found: list[slice] = []
    for segment in segments:
        if found and found[-1].stop == segment.start:
            found[-1] = slice(found[-1].start, segment.stop)
        else:
            found.append(segment.columns)
    return tuple(found)


@dataclass(slots=True)
class Projection:
    """Π of Heo et al. 2021, "AdamP", as in the authors' package.

    A weight counts as scale-invariant if its gradient is orthogonal to it: |cos(g, θ)| < δ/√(row length) in
    every row, first with a row per output channel, then with the whole tensor as one row. Then every row of
    the step loses its component along θ/(‖θ‖ + ε), and decay has WD_RATIO of its rate. Each lane decides for
    itself.
    """

    tensors: tuple[Segment, ...]  # the matrices
    found: Tensor  # (L,) projections since the last `take_rate`
    eps: float
    seen: Tensor = field(init=False)  # () checks since then; on the device, so that replayed steps count

    def __post_init__(self) -> None:
        self.seen = self.found.new_zeros(())

    def apply(self, theta: Tensor, g: Tensor, p: Tensor) -> list[Tensor]:
        """Remove the radial part from the step p (L, P) in place; return (L, 1) bool per tensor."""
        self.seen += len(self.tensors)
        return [
            self._project(*(rows_of(x, segment) for x in (theta, g, p)))  # each (L, channels, row length)
            for segment in self.tensors
        ]

    def _project(self, theta: Tensor, g: Tensor, p: Tensor) -> Tensor:
        _, channels, length = theta.shape
        inner, norm, norm_g = (theta * g).sum(2, keepdim=True), _norm(theta, 2), _norm(g, 2)
        by_row = self._across(inner, norm, norm_g, length)
        inner, whole, whole_g = inner.sum(1, keepdim=True), _norm(norm, 1), _norm(norm_g, 1)
        found = by_row | self._across(inner, whole, whole_g, channels * length)
        radial = (theta * p).sum(2, keepdim=True)
        radial = torch.where(by_row, radial, radial.sum(1, keepdim=True))
        norm = torch.where(by_row, norm, whole)
        # Select, never multiply by 0: the quotient may be NaN if nothing is projected.
        p.addcmul_(theta, torch.where(found, radial / (norm + self.eps) ** 2, 0), value=-1)
        found = found.flatten(1)
        self.found += found.squeeze(1)
        return found

    def _across(self, inner: Tensor, norm: Tensor, norm_g: Tensor, length: int) -> Tensor:  # (L, 1, 1)
        """Compare every row's |cos| with the limit; each argument is (L, rows, 1)."""
        cos = inner / (norm.clamp_min(self.eps) * norm_g.clamp_min(self.eps))
        return cos.abs().amax(1, keepdim=True) < DELTA / math.sqrt(length)

    def take_rate(self) -> Tensor:  # (L,)
        """Return the share of (tensor, step) pairs that were projected since the last call."""
        rate = self.found / self.seen
        self.found.zero_()
        self.seen.zero_()
        return rate


def rows_of(x: Tensor, segment: Segment) -> Tensor:
    """View one tensor of the arena with a row per output channel, (L, channels, row length)."""
    return x[:, segment.columns].view(len(x), segment.shape[0], -1)


def _norm(x: Tensor, dim: int) -> Tensor:
    """Compute the Euclidean norm over one dimension and keep it with length 1."""
    norm: Tensor = vector_norm(x, dim=dim, keepdim=True)
    return norm


@dataclass(frozen=True, slots=True)
class Now:
    """Scalars of step t = 1, 2, …, the same for every lane."""

    eta: Number  # η_t
    root_n: Number  # √N, by which normalised decay is divided
    rest1: Number  # 1 − β₁ᵗ
    root2: Number  # √(1 − β₂ᵗ)
    decay_eta: Number  # multiplier of decay: η_t, unless decay has its own schedule
    t: Number

    @classmethod
    def at(
        cls, eta: float, t: int, n: int, betas: tuple[float, float], decay_eta: float | None = None
    ) -> Now:
        """Compute the scalars of step t in float64."""
        rest1, root2 = 1 - betas[0] ** t, math.sqrt(1 - betas[1] ** t)
        return cls(eta, math.sqrt(n), rest1, root2, eta if decay_eta is None else decay_eta, t)

    @classmethod
    def of_row(cls, table: Tensor, t: Tensor) -> Now:  # (steps, 6), (1,)
        """Read row t = 0, 1, … of a table without the host."""
        return cls(*table.index_select(0, t)[0].unbind())


@lru_cache(maxsize=4)
def _rows(timetable: Timetable, betas: tuple[float, float]) -> Tensor:  # (steps, 6) float64
    """Compute every step's scalars; the packs of a study share them."""
    steps = range(timetable.epochs * timetable.steps_per_epoch)
    rows = [
        astuple(Now.at(timetable.eta(t), t + 1, timetable.steps_of_cycle(t), betas, timetable.decay_eta(t)))
        for t in steps
    ]
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Step:
    """θ ← θ − scale · direction, and which matrices were projected."""

    direction: Tensor  # (L, P)
    scale: Tensor | None = None  # (L, 1); None for 1
    projected: Sequence[Tensor] = ()  # (L, 1) bool per matrix, for a family with a projection


@dataclass(frozen=True, slots=True)
class StepFamily(ABC):
    """An optimizer family: computes a step from a gradient; its fields that are tensors are its moments."""

    averages: ClassVar[bool] = False  # the result is not the θ that the gradients belong to

    @abstractmethod
    def step(
        self,
        theta: Tensor,  # (L, P), unchanged
        g: Tensor,  # (L, P), overwritten
        alpha: Tensor,  # (L, 1)
        now: Now,
    ) -> Step:
        """Compute the step of one update."""

    def moments(self) -> list[Tensor]:
        """Return the state: one row per lane each."""
        values = (getattr(self, each.name) for each in fields(self))
        return [value for value in values if isinstance(value, Tensor)]

    def settle(self, before: Tensor, theta: Tensor, alpha: Tensor, now: Now) -> None:  # noqa: B027 - most have nothing to finish
        """Finish an update of θ, which was `before`, in place, if the family averages; each (L, P)."""

    def average(self, theta: Tensor) -> Tensor:
        """Return the weights to evaluate, (L, P)."""
        return theta


@dataclass(frozen=True, slots=True)
class Decay:
    """A decay rule and the columns of the arena that it acts on."""

    rule: DecayRule
    normalized: bool  # λ is given as λ_norm = λ√n
    whole: tuple[slice, ...]  # columns outside the projected tensors, neighbours merged
    watched: tuple[slice | None, ...] = ()  # one per projected tensor; None if it does not decay
    gain: float = 1.0  # of the lr-scaled rate: 1/(1−β₁) in SGDP
    cautious: bool = False  # only where step·θ ≥ 0 (Chen et al. 2025, Algorithm 1)

    @property
    def parts(self) -> list[slice]:
        """All columns that decay."""
        return [*self.whole, *(columns for columns in self.watched if columns is not None)]

    def rate(self, alpha: Tensor, lam: Tensor, now: Now) -> Tensor:  # each (L, 1)
        """Compute the share of θ that a step removes; for the coupled rule, that the gradient gains."""
        if self.normalized:
            lam = lam / now.root_n
        match self.rule:
            case DecayRule.INDEPENDENT:
                return now.decay_eta * lam
            case DecayRule.LR_SCALED:
                return now.decay_eta * self.gain * alpha * lam
            case DecayRule.CORRECTED:
                return now.eta**2 * alpha * lam
            case _:  # coupled, fixed
                return lam

    def add_to(self, g: Tensor, theta: Tensor, rate: Tensor) -> None:
        """Apply the coupled rule: g ← g + λ′θ."""
        for columns in self.parts:
            _part(g, columns).addcmul_(_part(theta, columns), rate)

    def shrink(self, theta: Tensor, rate: Tensor, step: Step) -> None:
        """Apply a decoupled rule: θ ← θ·(1 − rate), with WD_RATIO·rate for tensors that were projected."""
        rates = [(columns, rate) for columns in self.whole]
        for tensor, found in zip(self.watched, step.projected, strict=True):
            if tensor is not None:
                rates.append((tensor, torch.where(found, WD_RATIO * rate, rate)))
        for columns, share in rates:
            x = _part(theta, columns)
            if self.cautious:
                share = torch.where(_part(step.direction, columns) * x >= 0, share, 0)  # noqa: PLW2901
            x.mul_(1 - share)


def _part(x: Tensor, columns: slice) -> Tensor:
    """Select columns; a slice of all columns would cost as much as a small operation."""
    return x if columns.stop - columns.start == x.shape[1] else x[:, columns]


# `move` of a family on a CPU, compiled: θ, g, α and the rate of decay (L, 1), scalars of the step
CompiledLoop = Callable[[Tensor, Tensor, Tensor, Tensor, Now], None]


@dataclass(frozen=True, slots=True)
class Update:
    """θ ← θ·(decoupled factor) − step(g + [λ′θ]), with one α and one λ per lane."""

    family: StepFamily
    decay: Decay
    alpha: Tensor  # (L, 1) base learning rate
    lam: Tensor  # (L, 1) decay: λ′, λ, w, d or c by the rule; λ_norm if normalised
    betas: tuple[float, float]  # β₁ and β₂ of the bias corrections
    projection: Projection | None = None  # the family's, if it has one
    loop: CompiledLoop | None = None  # replaces `move` on a CPU if numba is usable

    def apply(
        self, theta: Tensor, g: Tensor, eta: float, t: int, n: int, decay_eta: float | None = None
    ) -> None:
        """Update θ (L, P) in place at step t = 1, 2, …; overwrite g (L, P).

        n is the N of normalised decay: the steps of the run, or of the current cycle under restarts. Decay is
        multiplied by `decay_eta`, by η unless it is given.
        """
        now = Now.at(eta, t, n, self.betas, decay_eta)
        if self.loop is None:
            self.move(theta, g, now)
        else:
            self.loop(theta, g, self.alpha, self.decay.rate(self.alpha, self.lam, now), now)

    def move(self, theta: Tensor, g: Tensor, now: Now) -> None:
        """Update θ (L, P) in place by torch's operators."""
        before = theta.clone() if self.family.averages else theta
        rate = self.decay.rate(self.alpha, self.lam, now)
        coupled = self.decay.rule is DecayRule.COUPLED
        if coupled:
            self.decay.add_to(g, theta, rate)
        step = self.family.step(theta, g, self.alpha, now)
        if not coupled:
            self.decay.shrink(theta, rate, step)
        if step.scale is None:
            theta.sub_(step.direction)
        else:
            theta.addcmul_(step.direction, step.scale, value=-1)
        self.family.settle(before, theta, self.alpha, now)

    @contextmanager
    def evaluating(self, theta: Tensor) -> Iterator[None]:  # (L, P)
        """Hold the weights to evaluate in θ within the block."""
        if not self.family.averages:
            yield
            return
        trained = theta.clone()
        theta.copy_(self.family.average(theta))
        try:
            yield
        finally:
            theta.copy_(trained)

    def freeze(self, g: Tensor, alive: Tensor) -> None:  # (L, P), (L,)
        """Keep all lanes but these where they are, in the next update and later ones.

        Select, never multiply: 0·NaN is NaN.
        """
        row = alive.unsqueeze(1)
        for state in (g, self.alpha, self.lam, *self.family.moments()):
            torch.where(row, state, torch.zeros_like(row, dtype=state.dtype), out=state)

    def projection_rate(self) -> Tensor | None:  # (L,)
        """Return the share of (matrix, step) pairs projected since the last call; None without projection."""
        return None if self.projection is None else self.projection.take_rate()


class DeviceUpdate:
    """An update that asks the host nothing: step, per-step scalars and lane states lie on the device.

    A CUDA graph that records `apply` is therefore right at every step. On a GPU the formula goes through
    torch.compile.
    """

    def __init__(
        self, update: Update, timetable: Timetable, theta: Tensor, backend: Backend | None = None
    ) -> None:
        rows = _rows(timetable, update.betas)
        self.update, self.table = update, rows.to(theta.device, theta.dtype, copy=True)  # (steps, 6)
        if backend is None and theta.is_cuda:
            backend = "inductor"
        self.step = _step if backend is None else torch_compiled(_step, _name(update, theta), backend)

    def apply(
        self,
        theta: Tensor,  # (L, P)
        g: Tensor,  # (L, P), overwritten
        t: Tensor,  # (1,) int64: 0, 1, …
        died_at: Tensor,  # (L,) int64: −1 while a lane is alive; other lanes stay where they are
    ) -> None:
        """Update θ in place at step t."""
        self.step(self.update, self.table, theta, g, t, died_at)


def _step(update: Update, table: Tensor, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> None:
    update.freeze(g, died_at < 0)
    update.move(theta, g, Now.of_row(table, t))


def _name(update: Update, theta: Tensor) -> str:
    """Name the specialisation of the compiled code, apart from shapes and hyperparameters."""
    decay = update.decay
    kind = f"{decay.rule}_{'cautious_' * decay.cautious}{decay.normalized}"
    return f"{type(update.family).__name__}_{kind}_{theta.device}"


def clip(grad: Tensor, most: float) -> None:  # (L, P)
    """Scale down every lane's gradient to a norm of at most `most`, as torch.nn.utils.clip_grad_norm_ does.

    Lane by lane, so that the order of a sum does not depend on the pack.
    """
    for lane in grad:
        lane.mul_((most / (torch.linalg.vector_norm(lane) + 1e-6)).clamp(max=1))

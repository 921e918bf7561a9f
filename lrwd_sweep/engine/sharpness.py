"""Flat minima: SAM's ascent before a gradient; averages of weights and ensembles of snapshots beside a run.

SAM (Foret et al. 2021, arXiv 2010.01412), equation 2 with p = 2 and Algorithm 1:

    ε̂ = ρ ∇L(w)/‖∇L(w)‖ ;  g = ∇L(w + ε̂)

ASAM (Kwon et al. 2021, arXiv 2102.11600), with T_w = |w| + η element by element, of every parameter:

    ε̂ = ρ T_w² ∇L(w)/‖T_w ∇L(w)‖

Both gradients are of the same batch, augmented alike, with the same draws of dropout. g is then clipped and
enters any update; decay acts on w. ‖·‖ is over one lane's parameters. In the second pass running statistics
do not move. ASAM's authors leave T = 1 for biases in their code; here all parameters are scaled, as written.

    SWA  w̄ ← w̄ + (w − w̄)/(n + 1) after epochs or cycles      Izmailov et al. 2018, Algorithm 1
    EMA  w̄ ← β w̄ + (1 − β) w after every step, β = 2^(−1/(H·steps per epoch)); the first w̄ is the first w

Statistics of batch norm are those of w̄: the mean over the training set's batches, augmented, with dropout, as
torch.optim.swa_utils.update_bn has it. A snapshot ensemble (Huang et al. 2017) is the mean of the softmax of
the last M snapshots under restarts. None of it changes the training, nor its random numbers.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from lrwd_sweep.data import Split
from lrwd_sweep.engine.lane_state import Arena, Draws, generator
from lrwd_sweep.nets.network import Lanes, Predictor
from lrwd_sweep.spec.catalog import CLASS, EMA, EMBEDDINGS, ENSEMBLE, ETA, SWA
from lrwd_sweep.spec.task import Task

Found = TypeVar("Found")


@contextmanager
def ascended(task: Task, arena: Arena, lanes: Lanes) -> Iterator[None]:
    """Move θ by ε̂, from the gradient in the arena; afterwards θ and running statistics are as before."""
    theta, state = arena.theta.clone(), {name: value.clone() for name, value in lanes.state().items()}
    ascend(arena.theta, arena.grad, task.sam, adaptive=task.sam_adaptive)
    try:
        yield
    finally:
        arena.theta.copy_(theta)
        lanes.restore(state)


def ascend(theta: Tensor, g: Tensor, rho: float, *, adaptive: bool) -> None:  # (L, P) each
    """Compute w ← w + ε̂ lane by lane; a lane without a finite gradient stays, and diverges as it would.

    Lane by lane, so that the order of a sum does not depend on the pack.
    """
    for w, slope in zip(theta, g, strict=True):
        direction, scale = slope, torch.linalg.vector_norm(slope)
        if adaptive:
            t = w.abs().add_(ETA)
            scaled = t * slope
            direction, scale = t.mul_(scaled), torch.linalg.vector_norm(scaled)
        # divided first: ρ/‖g‖ may overflow
        w.add_(torch.where(scale > 0, direction / scale, 0.0), alpha=rho)


class Averages:
    """The averages that a task takes over the run of a pack."""

    def __init__(self, task: Task, arena: Arena, lanes: Lanes, train: Split, seed: int, streams: int) -> None:
        self.task, self.arena, self.lanes, self.train = task, arena, lanes, train
        self.seed, self.streams = seed, streams
        self.means = {kind: torch.zeros_like(arena.theta) for kind in task.kinds if kind != ENSEMBLE}
        self.members: deque[dict[str, Tensor]] = deque(maxlen=task.ensemble or 0)
        if task.ema is not None:
            self.rest = -math.expm1(-math.log(2) / (task.ema * task.steps_per_epoch))  # 1 − β

    def after_step(self, t: int | Tensor) -> None:
        """Add the weights after step t = 0, 1, … to the EMA; on a device t is (1,)."""
        if (mean := self.means.get(EMA)) is not None:
            if isinstance(t, Tensor):
                mean.lerp_(self.arena.theta, torch.where(t == 0, mean.new_ones(()), self.rest))
            else:
                mean.lerp_(self.arena.theta, self.rest if t else 1.0)

    @torch.inference_mode()
    def after_epoch(self, epoch: int) -> None:
        """Add the weights after an epoch, from 1, to SWA, and a snapshot to the ensemble, if it is time."""
        if SWA in self.means and epoch in self.task.swa_epochs:
            self.means[SWA].lerp_(self.arena.theta, 1 / (1 + self.task.swa_epochs.index(epoch)))
        if self.task.ensemble is not None and epoch in self.task.timetable.snapshots:
            self.members.append(self._now())

    @torch.inference_mode()
    def measured(self, epoch: int, measure: Callable[[Predictor], Found]) -> dict[str, Found]:
        """Measure all that there is after an epoch, by kind; θ and state of the lanes are as before."""
        found: dict[str, Found] = {}
        before = self._now() if self.task.kinds else {}
        for kind, mean in self.means.items():
            if kind != SWA or epoch >= self.task.swa_epochs[0]:
                found[kind] = self._of_average(mean, before, measure)
        if self.members and epoch in self.task.timetable.snapshots:
            found[ENSEMBLE] = measure(_Ensemble(self))
        if found:
            self.load(before)
        return found

    def _of_average(
        self, weights: Tensor, state: dict[str, Tensor], measure: Callable[[Predictor], Found]
    ) -> Found:
        self.load(state | {"theta": weights})
        try:
            for k, (x, y, draws) in enumerate(self._batches()):
                if not self.lanes.average_statistics(k):
                    break
                self.lanes.gradient(draws.augment(x), y, draws.noise)  # in training mode, for its statistics
        finally:
            self.lanes.average_statistics(None)
        return measure(self.lanes.predictor())

    def _batches(self) -> Iterator[tuple[Any, Tensor, Draws]]:
        """Yield the training set in batches of the task, with an order and draws of their own."""
        device, size = self.train.device, self.task.batch_size
        draws = Draws.begun(self.task, self.seed, self.streams, device, "averages")
        order = torch.randperm(len(self.train), generator=generator(self.seed, "averages")).to(device)
        for index in order.split(size)[: len(order) // size]:  # type: ignore[no-untyped-call]
            yield *self.train.batch(index), draws

    def _now(self) -> dict[str, Tensor]:
        """Copy θ and the state of the lanes."""
        state = {f"network/{name}": value.clone() for name, value in self.lanes.state().items()}
        return {"theta": self.arena.theta.clone(), **state}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set θ and the state of the lanes to what was copied."""
        self.arena.theta.copy_(state["theta"])
        network = {n.removeprefix("network/"): v for n, v in state.items() if n.startswith("network/")}
        self.lanes.restore(network)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, each (L, …)."""
        found = dict(self.means)
        for k, member in enumerate(self.members):
            found |= {f"{ENSEMBLE}/{k}/{name}": value for name, value in member.items()}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        for kind, mean in self.means.items():
            mean.copy_(state[kind])
        members: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith(f"{ENSEMBLE}/"):
                _, k, rest = name.split("/", 2)
                members.setdefault(int(k), {})[rest] = value.to(self.arena.theta.device)
        self.members.extend(members[k] for k in sorted(members))


class _Ensemble:
    """The mean of the members' softmax; predictions are its logarithm.

    The members' embeddings are joined, so that a cosine is the mean of theirs.
    """

    def __init__(self, averages: Averages) -> None:
        self.averages, self.item = averages, averages.task.data_set

    def predict(self, x: Any) -> Tensor:
        """Return log probabilities (L, C, B), or of classes per position as the network's outputs."""
        total: Tensor | None = None
        embeddings: list[Tensor] = []
        for member in self.averages.members:
            self.averages.load(member)
            outputs = self.averages.lanes.predictor().predict(x)
            if self.averages.task.net in EMBEDDINGS:
                outputs, embedding = outputs.tensor_split([self.item.classes], dim=1)
                embeddings.append(embedding)
            log_p = torch.log_softmax(outputs, self._classes(outputs))
            total = log_p if total is None else torch.logaddexp(total, log_p)
        assert total is not None, "there is a member"
        return torch.cat([total - math.log(len(self.averages.members)), *embeddings], dim=1)

    def _classes(self, outputs: Tensor) -> int:
        """Return the dimension of the classes."""
        if self.item.target == CLASS:
            return 1
        return -1 if tuple(outputs.shape[2:-1]) == self.item.target_shape else 2

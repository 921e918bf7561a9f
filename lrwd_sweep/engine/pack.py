"""Train one pack: the lanes of one seed, stacked into one program."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrwd_sweep.data import Split, Splits, StreamedSplit
from lrwd_sweep.engine.checkpoint import Checkpoints, State
from lrwd_sweep.engine.graph import Program, begun, current, recorder
from lrwd_sweep.engine.lane_state import Arena, Draws, generator
from lrwd_sweep.engine.metrics import Diagnostics, Measures
from lrwd_sweep.engine.sharpness import Averages, ascended
from lrwd_sweep.nets import network, watched
from lrwd_sweep.nets.network import Predictor, rows
from lrwd_sweep.optim import DeviceUpdate, clip, make_update
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.catalog import ENSEMBLE
from lrwd_sweep.spec.job import Stopped
from lrwd_sweep.spec.task import Task

ALIGNED = 32  # columns of a row on a GPU, which then reads its widest words

OnEpoch = Callable[[int, dict[str, list[float]]], None]  # epoch from 1; metric → value by lane


class PackTrainer:
    """L lanes of one seed under one optimizer: same initialisation, same batches, their own α and λ.

    Parameters and moments have the device and type of `splits`. On a CPU, and if the data are streamed, the
    host takes step after step. Else a GPU gets a program of steps, and the host waits for it once per epoch.
    """

    def __init__(
        self, optimizer: Optimizer, task: Task, cells: Sequence[Cell], seed: int, splits: Splits
    ) -> None:
        task = task.of(optimizer)
        self.optimizer, self.task = optimizer, task
        self.cells, self.seed, self.splits = list(cells), seed, splits
        self.timetable, self.evaluations = task.timetable, frozenset(task.evaluations)
        self.initial: dict[str, list[float]] = {}  # name → lane, before the first step
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane; NaN where not evaluated
        self.snapshots: dict[int, dict[str, list[float]]] = {}  # epoch → name → lane
        on_cpu, is_kfac = splits.train.device.type == "cpu", task.damping is not None
        self.on_host = on_cpu or is_kfac or isinstance(splits.train, StreamedSplit)
        self.record = recorder(task, splits.train.device)
        self.program: Program | None = None
        self.order = generator(seed, "data order")
        self.epoch, self.done = 1, 0  # the epoch in training, and its steps so far
        self.checkpoints: Checkpoints | None = None
        self.saved: State | None = None  # what the lanes still have to be set to
        self._begin()

    def _begin(self) -> None:
        """Set the state before the first step."""
        task, train, seed, lanes = self.task, self.splits.train, self.seed, len(self.cells)
        net = network(task).of_seed(generator(seed, "parameters"), train.device)
        self.arena = Arena.stack(
            net.init(generator(seed, "parameters")),
            lanes,
            device=train.device,
            dtype=train.dtype,
            align=1 if train.device.type == "cpu" else ALIGNED,
        )
        self.lanes = net.lanes(self.arena.named, self.arena.named_grad, task.batch_size)
        self.factors = watched(net, self.lanes, self.arena.theta) if task.damping else None
        self.update = make_update(
            self.optimizer,
            task,
            self.arena.theta,
            self.arena.layout,
            alpha=self.arena.theta.new_tensor([[cell.lr] for cell in self.cells]),
            lam=self.arena.theta.new_tensor([[cell.weight_decay] for cell in self.cells]),
            factors=self.factors,
        )
        self.measures, self.center = Measures(task, net), train.center
        self.diagnostics = Diagnostics(self.arena, net.scale_invariant, self.update, self.optimizer.family)
        streams = 1 if net.stacked else lanes
        self.draws = [Draws.begun(task, seed, streams, train.device) for _ in range(2 if task.sam else 1)]
        self.averages = Averages(task, self.arena, self.lanes, train, seed, streams)
        self.died_at = torch.full((lanes,), -1, device=train.device)  # batch of divergence; −1 while alive

    def run(
        self,
        on_epoch: OnEpoch = lambda epoch, metrics: None,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoints: Checkpoints | None = None,
    ) -> list[Trial]:
        """Train to the end; return one trial per cell, in order. Raises Stopped if asked to stop.

        With `checkpoints` it begins where they left off, writes one when it is due, and one when it stops.
        """
        names = [f"train_{name}" for name in self.measures.names]
        names += [f"val_{name}" for name in self.measures.all_names]
        names += [f"{kind}_{n}" for kind in self.task.kinds if kind != ENSEMBLE for n in names if "val_" in n]
        unmeasured = [math.nan] * len(self.cells)
        self.checkpoints = checkpoints
        self.saved = None if checkpoints is None else checkpoints.newest()
        if self.saved is not None:
            self._restore_results(self.saved)
        else:
            with current(self.splits.train.device):
                self.initial = self.measures.named("initial_val", self.evaluate(self.splits.validation))
        try:
            for epoch in range(self.epoch, self.task.epochs + 1):
                self.epoch = epoch
                with current(self.splits.train.device):
                    metrics = self._epoch(epoch, should_stop)
                self.done = 0
                for name in names:
                    self.curves.setdefault(name, []).append(metrics.get(name, unmeasured))
                if epoch in self.timetable.snapshots:
                    self.snapshots[epoch] = metrics | self._tested() | self.initial
                on_epoch(epoch, metrics)
        finally:
            self.program = None  # a reference cycle, which would keep the memory from the next pack
        return self._trials()

    def _epoch(self, epoch: int, should_stop: Callable[[], bool]) -> dict[str, list[float]]:
        """Train an epoch, or what is left of it; return its measures, of validation if that is due."""
        self.before_order = self.order.get_state()
        order = torch.randperm(self.task.train_items, generator=self.order)
        shuffled = self.splits.train.part(order).to(self.splits.train.device)
        train = self._step_by_step if self.on_host else self._as_program
        total = train(shuffled, epoch, should_stop)
        items = self.task.steps_per_epoch * self.task.items_per_step
        metrics = self.measures.named("train", self.measures.means(total, items, self.died_at < 0))
        self.averages.after_epoch(epoch)
        if epoch in self.evaluations:
            metrics |= self._measured("val", self.splits.validation)
        return metrics

    def _step_by_step(self, shuffled: Tensor, epoch: int, should_stop: Callable[[], bool]) -> Tensor:
        """Train an epoch in this order (n,); return the sums (rows, L) of every lane."""
        train, steps = self.splits.train, self.task.steps_per_epoch
        if isinstance(train, StreamedSplit):
            train = train.in_epoch(self.seed, epoch)
        batches = torch.split(shuffled, self.task.items_per_step)
        total = self._restored(self.measures.zeros(self.arena.theta))
        for k in range(self.done, steps):
            self._pause(should_stop, total)
            x, y = train.batch(batches[k])
            total += self.step(x, y, (epoch - 1) * steps + k)
            self.done = k + 1
        return total

    def _pause(self, should_stop: Callable[[], bool], total: Tensor) -> None:
        """Write a checkpoint if it is due; raise Stopped if asked to stop."""
        stopping = should_stop()
        if self.checkpoints is not None and (stopping or self.checkpoints.is_due):
            step = (self.epoch - 1) * self.task.steps_per_epoch + self.done
            self.checkpoints.write(self._state(total), step)
        if stopping:
            raise Stopped

    @torch.inference_mode()
    def step(self, x: Any, y: Tensor, t: int) -> Tensor:  # (rows, L)
        """Update on the batch x (B, *shape), y (B, …) at t = 0, 1, …; return the sums of every lane."""
        losses, found = self._gradient(x, y)
        self._freeze_diverged(losses, t)
        eta, n = self.timetable.eta(t), self.timetable.steps_of_cycle(t)
        measured = (t + 1) % self.task.steps_per_epoch == 0
        theta = self.diagnostics.before() if measured else None
        self.update.apply(self.arena.theta, self.arena.grad, eta, t + 1, n, self.timetable.decay_eta(t))
        if measured:
            self.diagnostics.after(theta, eta, self.died_at < 0)
        self.averages.after_step(t)
        return found

    def _gradient(self, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:  # (L,), (rows, L)
        """Write every lane's gradient, clipped; return mean losses and the sums of the measures.

        With SAM the gradient is that after the ascent, and losses that are not finite there count too.
        """
        if self.factors is not None:
            self.factors.flat.zero_()  # batches add to them
        compute = self._accumulated if self.task.accumulate > 1 else self._of_batch
        losses, found = compute(x, y, self.draws[0])
        if self.task.sam:
            losses = losses.clone()  # it may be a buffer of the lanes
            with ascended(self.task, self.arena, self.lanes):
                above, _ = compute(x, y, self.draws[1])
            losses = torch.where(above.isfinite(), losses, above)
        if self.task.clip_norm is not None:
            clip(self.arena.grad, self.task.clip_norm)
        return losses, found

    def _of_batch(self, x: Any, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:  # (L,), (rows, L)
        losses, outputs = self.lanes.gradient(draws.augment(x), y, draws.noise)
        return losses, self.measures.summed(losses * self.measures.weight(y), outputs, y, self.center)

    def _accumulated(self, x: Any, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:  # (L,), (rows, L)
        """Write the mean gradient of the micro-batches; return their mean losses and sums."""
        gradient = torch.zeros_like(self.arena.grad)
        size, count = self.task.batch_size, self.task.accumulate
        losses, total = torch.zeros_like(gradient[:, 0]), self.measures.zeros(self.arena.theta)
        for k in range(count):
            part = slice(k * size, (k + 1) * size)
            mean, found = self._of_batch(rows(x, part), y[part], draws)
            losses += mean / count
            total += found
            gradient.add_(self.arena.grad, alpha=1 / count)
        self.arena.grad.copy_(gradient)
        return losses, total

    def _freeze_diverged(self, losses: Tensor, t: int) -> None:
        """Freeze lanes at their first loss that is not finite: select, never multiply (0·NaN is NaN)."""
        finite, died = torch.isfinite(losses), self.died_at >= 0
        if finite.is_cpu and bool((finite > died).all()):
            return  # all live; on other devices the question would cost more than the work below
        self.died_at = torch.where(finite | died, self.died_at, t)
        self.update.freeze(self.arena.grad, self.died_at < 0)

    def _as_program(self, shuffled: Tensor, epoch: int, should_stop: Callable[[], bool]) -> Tensor:
        """Train the same epoch without waiting for the device before its last step, which is measured."""
        program, last = self.prepared(shuffled), self.task.steps_per_epoch - 1
        if self.saved is not None:
            self._restored(program.total)
            program.resume((epoch - 1) * (last + 1), self.done)
        while program.done < last:
            self.done = program.done
            self._pause(should_stop, program.total)
            program.go(last)
        self.done = program.done
        self._pause(should_stop, program.total)
        with torch.inference_mode():
            theta = self.diagnostics.before()
            program.go(last + 1)
            eta = self.timetable.eta((epoch - 1) * len(program.order) + last)
            self.diagnostics.after(theta, eta, self.died_at < 0)
        return program.total

    def prepared(self, shuffled: Tensor) -> Program:
        """Return the steps for a device, at the start of an epoch in this order (n,) or a few steps later."""
        if self.program is None:
            self.program = begun(self._again, shuffled, self.record)
        else:
            self.program.begin(shuffled)
        return self.program

    def _again(self) -> Program:
        """Make the program before its first step, with a fresh state in the memory of the old one."""
        # there may be room for only one
        del self.arena, self.lanes, self.update, self.diagnostics, self.averages
        self._begin()
        update = DeviceUpdate(self.update, self.timetable, self.arena.theta)
        return Program(
            partial(self._counted_step, update),
            self.arena.theta,
            self.measures.zeros(self.arena.theta),
            [stream for draws in self.draws for stream in (*draws.noise, draws.shakes)],
            steps=self.task.steps_per_epoch,
            batch_size=self.task.items_per_step,
        )

    def _counted_step(self, update: DeviceUpdate, batch: Tensor, t: Tensor) -> Tensor:  # (B,), (1,)
        """Do as `step` on a batch of the training split, with t on the device and without diagnostics."""
        x, y = self.splits.train.batch(batch)
        losses, found = self._gradient(x, y)
        kept = torch.isfinite(losses) | (self.died_at >= 0)
        torch.where(kept, self.died_at, t, out=self.died_at)
        update.apply(self.arena.theta, self.arena.grad, t, self.died_at)
        self.averages.after_step(t)
        return found

    def _tensors(self, total: Tensor) -> dict[str, Tensor]:  # (rows, L), sums of the epoch so far
        """Return the lanes' own tensors that decide the rest of the training, each (L, …), not copied."""
        tensors = {
            "theta": self.arena.theta,
            "alpha": self.update.alpha,
            "lam": self.update.lam,
            "died_at": self.died_at,
            "total": total.t(),
            **{f"moment{k}": moment for k, moment in enumerate(self.update.family.moments())},
        }
        if (projection := self.update.projection) is not None:
            tensors["projected"] = projection.found
        return tensors

    def _state(self, total: Tensor) -> State:  # (rows, L)
        """Return all that decides the rest of the training, not copied."""
        lanes = {
            **self._tensors(total),
            **{f"network/{name}": value for name, value in self.lanes.state().items()},
            **{f"average/{name}": value for name, value in self.averages.state().items()},
        }
        shared = {"order": self.before_order, "shakes": self.draws[0].shakes.get_state()}
        noise = torch.stack([stream.get_state() for stream in self.draws[0].noise])
        (lanes if len(noise) == len(self.cells) else shared)["noise"] = noise
        if (projection := self.update.projection) is not None:
            shared["seen"] = projection.seen
        values = {name: getattr(self, name) for name in ("epoch", "done", "initial", "curves", "snapshots")}
        return State(lanes, shared, values | {"diagnostics": self.diagnostics.curves})

    def _restore_results(self, saved: State) -> None:
        """Set what has been measured, and how far training came."""
        values = saved.values
        self.epoch, self.done = values["epoch"], values["done"]
        self.initial, self.curves = values["initial"], values["curves"]
        self.snapshots = {int(epoch): found for epoch, found in values["snapshots"].items()}
        self.order.set_state(saved.shared["order"].clone())

    @torch.inference_mode()
    def _restored(self, total: Tensor) -> Tensor:  # (rows, L)
        """Set the lanes and their sums of the epoch to the saved state, if there is one; return the sums."""
        if self.saved is None:
            return total
        lanes, shared = self.saved.lanes, self.saved.shared
        self.diagnostics.curves = self.saved.values["diagnostics"]
        self.saved = None
        for name, tensor in self._tensors(total).items():
            tensor.copy_(lanes[name])
        if (projection := self.update.projection) is not None:
            projection.seen.copy_(shared["seen"])
        for start, part in (("network/", self.lanes), ("average/", self.averages)):
            part.restore({n.removeprefix(start): v for n, v in lanes.items() if n.startswith(start)})
        noise = lanes["noise"] if "noise" in lanes else shared["noise"]
        for draws in self.draws:
            draws.shakes.set_state(shared["shakes"].clone())
            for stream, state in zip(draws.noise, noise, strict=True):
                stream.set_state(state.clone())  # torch reads the start of a view's storage
        return total

    @torch.inference_mode()
    def evaluate(self, split: Split, predictor: Predictor | None = None) -> Tensor:  # (measures, L)
        """Measure every lane on a split, with running statistics; by default of the last weights.

        Those of a schedule-free optimizer are its averages, not the θ that it takes gradients at.
        """
        if predictor is not None:
            return self.measures.of_split(predictor, split, self.died_at < 0, self.arena.theta)
        with self.update.evaluating(self.arena.theta):
            return self.evaluate(split, self.lanes.predictor())

    def _measured(self, name: str, split: Split) -> dict[str, list[float]]:
        """Measure the last weights, and all averages, on a split."""
        found = self.measures.named(name, self.evaluate(split))
        averages = self.averages.measured(self.epoch, partial(self.evaluate, split))
        for kind, values in averages.items():
            found |= self.measures.named(f"{kind}_{name}", values)
        return found

    def _tested(self) -> dict[str, list[float]]:
        """Measure on the test split, if there is one."""
        return self._measured("test", self.splits.test) if len(self.splits.test) else {}

    def _trials(self) -> list[Trial]:
        if self.snapshots:
            last = self.snapshots[max(self.snapshots)]  # the result of the run
        else:
            last = {name: values[-1] for name, values in self.curves.items()}
            last |= self._tested() | self.initial
        every, died_at = self.curves | self.diagnostics.curves, self.died_at.tolist()
        trials = []
        for lane, cell in enumerate(self.cells):
            curves = {name: tuple(e[lane] for e in epochs) for name, epochs in every.items()}
            metrics = {name: values[lane] for name, values in last.items()}
            metrics = {n: v for n, v in metrics.items() if math.isfinite(v) or not n.startswith("initial_")}
            snapshots = {
                epoch: {name: values[lane] for name, values in found.items()}
                for epoch, found in self.snapshots.items()
            }
            ends = [*metrics.values(), *(curves[name][-1] for name in self.curves)]
            if died_at[lane] < 0 and all(map(math.isfinite, ends)):
                trials.append(Trial(cell, self.seed, Status.COMPLETE, metrics, curves, snapshots=snapshots))
                continue
            what, where = "loss", f"step {died_at[lane]} of {self.task.steps}"
            if died_at[lane] < 0:
                where = "the last step"
                if math.isfinite(curves["val_loss"][-1]):
                    what = next(name for name, value in metrics.items() if not math.isfinite(value))
            detail = f"the {what} was not finite at {where}"
            before = {epoch: m for epoch, m in snapshots.items() if all(map(math.isfinite, m.values()))}
            trials.append(Trial(cell, self.seed, Status.DIVERGED, {}, curves, detail, before))
        return trials

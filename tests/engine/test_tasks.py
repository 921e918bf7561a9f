"""A lane of every optimizer and kind of task equals a lone run, also measured in several batches."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as users write it

from lrwd_sweep.data.user_data import _sizes, completed
from lrwd_sweep.data.user_splits import read
from lrwd_sweep.engine.choice import obstacle
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import DataError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.network import call
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CELLS, CPU, F64, WELL, begun, loaded, pack, splits, task, train_alone

HERE = "tests.engine.test_tasks"
ADAMW = "adamw:lr-scaled"
BCE = F.binary_cross_entropy_with_logits
Loss = Callable[[Any, Tensor], Tensor]


def test_lane_follows_a_lone_run_by_the_reference_of_its_optimizer() -> None:
    """Each in turn with the schedules and both networks; the update alone is tested in tests/optim."""
    names = "sgd", "sgdw", "sgdw:lr-scaled", "adam", "adamw", "adamw:lr-scaled", "amsgradw:fixed", "adampw"
    for k, name in enumerate((*names, "rmspropw:corrected", "adamw:normalized", "sgdpw")):
        schedule = list(Schedule)[k % len(Schedule)]
        of = task(("mlp-norm", "mlp")[k % 2], epochs=9, schedule=schedule)
        cells = (WELL if name.startswith("sgd") else CELLS)[:2]
        trainer = pack(name, of, cells, seed=3, data=splits(F64))
        for trial, lane, cell in zip(trainer.run(), trainer.arena.theta, cells, strict=True):
            losses = train_alone(
                net := begun(replace(of, engine="loop")), of, cell, splits(F64).train, name=name
            )
            theta = nn.utils.parameters_to_vector(net.parameters())
            assert (lane - theta).abs().max() < 1e-10, (name, schedule, cell)
            epoch_means = [math.fsum(losses[k : k + 3]) / 3 for k in range(0, of.steps, 3)]
            assert trial.curves["train_loss"] == pytest.approx(epoch_means, abs=1e-10), (name, cell)


def table(outputs: int = 1) -> nn.Module:  # a perceptron of five numbers
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs))


class Tokens(nn.Module):  # it sees the tokens before a position
    def __init__(self, num_classes: int = 4, num_tokens: int = 11) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(num_tokens, 6), nn.Linear(6, num_classes)

    def forward(self, ids: Tensor) -> Any:
        assert ids.dtype is torch.int64
        return {"logits": self.head(self.embed(ids).cumsum(1))}


class ClassesFirst(Tokens):
    def forward(self, ids: Tensor) -> Any:
        return super().forward(ids)["logits"].movedim(-1, 1)


class Two(nn.Module):  # inputs of ids and of numbers, the output as an object
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4 + 5, 4)

    def forward(self, ids: Tensor, x: Tensor) -> Any:
        hidden = torch.cat([self.embed(ids).sum(1), x], 1)
        return SimpleNamespace(logits=self.head(hidden), hidden=hidden)


class Named(Two):  # the same with its arguments in another order
    def forward(self, x: Tensor, ids: Any = None) -> Any:  # type: ignore[override]
        return super().forward(ids, x)


class Bytes(nn.Linear):  # which it divides itself
    def __init__(self) -> None:
        super().__init__(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype is torch.uint8
        return super().forward(x.to(self.weight.dtype) / 255)


def _split(kind: str, n: int) -> Any:
    g = torch.Generator().manual_seed(n)
    x, ids = torch.randn(n, 5, generator=g), torch.randint(7, (n, 2), generator=g)
    pixels = torch.randint(256, (n, 9), generator=g, dtype=torch.uint8)
    tokens, lengths = torch.randint(11, (n, 7), generator=g), torch.randint(1, 8, (n, 1), generator=g)
    follow = torch.where(torch.arange(7) < lengths, (tokens + tokens.roll(1, 1)) % 4, -100)
    return {
        "numbers": (x, x[:, 0] - 2 * x[:, 1] + 0.1 * x[:, 2].sin()),
        "several labels": (x, (x[:, :3] > 0.3).float()),
        "classes": (x, torch.cat([torch.arange(3), x[3:, :3].argmax(1)])),
        "two inputs": ((ids, x), torch.cat([torch.arange(4), (ids[4:, 0] + (x[4:, 0] > 0)) % 4])),
        "bytes": (pixels, torch.arange(n) % 3),
        "text": (tokens, follow),
    }[kind]


def _sets(kind: str) -> Any:
    return [_split(kind, n) for n in (40, 600, 30)]


def _tokens_loss(output: Any, y: Tensor, decay: float = 0.0) -> Any:
    z = output["logits"].flatten(0, 1)
    return F.cross_entropy(z, y.flatten()) + decay / 2 * z[y.flatten() >= 0].square().sum(-1).mean()


@dataclass
class Case:
    """A kind of task, and the loss of a lone run in evaluation, and in training if it is another."""

    net: str
    data: str
    alone: Loss
    options: dict[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ("loss",)
    training: Loss | None = None


ERROR = ("loss", "error")
SMOOTHED, PENALISED = partial(F.cross_entropy, label_smoothing=0.2), partial(_tokens_loss, decay=0.3)
CASES = {
    "mse": Case("table", "numbers", lambda o, y: F.mse_loss(o[:, 0], y), {"loss": "mse"}, ("loss", "r2")),
    "huber": Case("table", "numbers", lambda o, y: F.huber_loss(o[:, 0], y), {"loss": "huber"}),
    "l1": Case("table", "numbers", lambda o, y: F.l1_loss(o[:, 0], y), {"loss": "l1"}),
    "bce": Case("three", "several labels", BCE, {"loss": "bce_with_logits"}),
    "tokens": Case("Tokens", "text", _tokens_loss, {}, ("loss", "error", "top5_error", "perplexity")),
    "classes first": Case("ClassesFirst", "text", F.cross_entropy, {}, ("loss", "perplexity")),
    "clipped": Case("Two", "two inputs", lambda o, y: F.cross_entropy(o.logits, y), {"clip_norm": 0.3}),
    "accumulated": Case("Tokens", "text", _tokens_loss, {"clip_norm": 0.2, "accumulate": 4}),
    "smoothed": Case("three", "classes", F.cross_entropy, {"label_smoothing": 0.2}, ERROR, SMOOTHED),
    "penalised": Case("Tokens", "text", _tokens_loss, {"logit_decay": 0.3}, ("loss",), PENALISED),
    "nll": Case("likelihoods", "classes", F.nll_loss, {"loss": "nll"}, ERROR),
    "bytes": Case("Bytes", "bytes", F.cross_entropy, {}, ERROR),
}


def _task(case: Case, engine: str, sizes: Any) -> Task:
    usual = {"batch_size": 10, "schedule": "fixed", "engine": engine, "sizes": sizes}
    return task(f"{HERE}:{case.net}", 3, **usual, **case.options)


def test_a_lane_of_every_kind_of_task_equals_a_lone_run() -> None:
    for engine, (name, case) in itertools.product(("loop", "vmap"), CASES.items()):
        data = read(_sets(case.data))
        of, held = _task(case, engine, _sizes(data)), data.splits.to(CPU, F64)
        assert engine == "loop" or obstacle(of, CPU) == "", name
        trainer = pack(ADAMW, of, seed=3, data=held)
        for lane, (cell, trial) in enumerate(zip(CELLS, trainer.run(), strict=True)):
            net = globals()[case.net]().double()
            net.load_state_dict(network(of).init(generator(3, "parameters")))
            train_alone(net, of, cell, held.train, case.training or case.alone)
            for n, value in net.named_parameters():
                assert (trainer.arena.named[n][lane] - value).abs().max() < 1e-10, (engine, name, n)
            ((x, y),) = held.validation.batches(1000)
            with torch.no_grad():
                output = call(net.eval(), x)
                found = {"loss": case.alone(output, y).item(), **_expected(output, y)}
            for measure in case.measures:
                assert trial.metrics[f"val_{measure}"] == pytest.approx(found[measure], rel=1e-9), name


def _expected(output: Any, y: Tensor) -> dict[str, float]:
    output = output["logits"] if isinstance(output, dict) else getattr(output, "logits", output)
    if y.is_floating_point():
        residual = (output.reshape(y.shape) - y).square().sum()
        return {"r2": (1 - residual / (y - y.mean(0)).square().sum()).item()}
    if y.dim() > 1 and output.shape[-1] != 4:
        output = output.movedim(1, -1)
    logits, y = output.reshape(-1, output.shape[-1]), y.flatten()
    logits, y = logits[y >= 0], y[y >= 0]
    likely = logits.topk(min(5, logits.shape[1])).indices
    return {
        "error": (likely[:, 0] != y).double().mean().item(),
        "top5_error": (likely != y.unsqueeze(1)).all(1).double().mean().item(),
        "perplexity": math.exp(F.cross_entropy(logits, y).item()),
    }


def test_items_that_are_dicts_reach_forward_by_name() -> None:
    sets = _sets("two inputs")
    dicts = [
        [{"ids": a, "x": b, "text": "left out", "labels": c} for a, b, c in zip(*x, y, strict=True)]
        for x, y in sets
    ]
    for engine in ("loop", "vmap"):
        trials = []
        for net, data in (("Two", read(sets)), ("Named", read(dicts)), ("Named", read(dicts, stream=True))):
            of = _task(replace(CASES["clipped"], net=net), engine, _sizes(data))
            trials.append(repr(pack(ADAMW, of, seed=3, data=data.splits.to(CPU, F64)).run()))
        assert trials[1:] == trials[:1] * 2, engine
    sizes = _sizes(read(dicts))
    assert [one.name for one in sizes.inputs] == ["ids", "x"]
    assert type(sizes).from_dict(sizes.to_dict()) == sizes
    assert "name" not in str(_sizes(read(sets)).to_dict())  # stored before inputs had names
    unnamed = [{"ids": ids, "y_true": 1} for ids in sets[0][0][0]]
    plain = [(*x, y) for *x, y in zip(*sets[0][0], sets[0][1], strict=True)]
    assert_raises("has the keys ids, y_true; name the target labels", read, [unnamed, plain], error=DataError)
    complaint = r"with different keys \(train: ids, x; validation: no dicts\); make them equal"
    assert_raises(complaint, read, [dicts[0], plain], error=DataError)


def f1(o: Tensor, y: Tensor) -> Tensor:
    assert len(o) == len(y) in (600, 30)  # whole splits
    return 2 * ((o > 0) & (y > 0)).sum() / ((o > 0).sum() + y.sum())


SHORT: dict[str, Callable[..., Any]] = {  # user code
    "three": lambda: table(3),
    "likelihoods": lambda: nn.Sequential(table(3), nn.LogSoftmax(dim=1)),
    "undefined": lambda o, y: math.nan,
    "several": lambda o, y: o,
    "multi_hot": lambda: _sets("several labels"),
}
globals().update(SHORT)


def test_a_users_metric_sees_whole_splits_and_a_metric_that_is_no_number_is_told() -> None:
    def trials(measure: str) -> Any:
        own: dict[str, Any] = {"data": f"{HERE}:multi_hot", "measure": f"{HERE}:{measure}", "sizes": None}
        of = completed(task(f"{HERE}:three", loss="bce_with_logits", batch_size=10, engine="loop", **own))
        trainer = pack(ADAMW, of, seed=3, data=loaded(of).to(CPU, F64))
        return trainer, trainer.run()

    trainer, found = trials("f1")
    x, y = trainer.splits.validation.x, trainer.splits.validation.y
    for lane, trial in zip(trainer.lanes.predictor().predict(x), found, strict=True):
        assert trial.metrics["val_f1"] == pytest.approx(f1(lane, y).item())
        assert {"test_f1", "initial_val_f1"} <= trial.metrics.keys()
        assert (len(trial.curves["val_f1"]), "train_f1" in trial.curves) == (2, False)
    details = {trial.detail for trial in trials("undefined")[1]}
    assert details == {"the val_undefined was not finite at the last step"}
    assert_raises(r"metric='.*:several' returns a Tensor of shape .*; return one number", trials, "several")

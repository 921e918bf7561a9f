"""Tasks of every kind: a lane equals a lone run of torch.optim, values do not depend on hidden batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as users write it

from lrwd_sweep.data import load
from lrwd_sweep.data.user_data import _sizes, completed
from lrwd_sweep.data.user_splits import read
from lrwd_sweep.engine.choice import obstacle
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import DataError
from lrwd_sweep.nets.network import call
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.engine.lone import train_alone
from tests.refusal import assert_raises
from tests.small import CELLS, CPU, F64

HERE = "tests.engine.test_tasks"
ADAMW = Optimizer.parse("adamw:lr-scaled")


class Table(nn.Sequential):
    """A perceptron of five numbers."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs))


def three() -> nn.Module:
    return Table(3)


def likelihoods() -> nn.Module:
    return nn.Sequential(Table(3), nn.LogSoftmax(dim=1))


class Tokens(nn.Module):
    """A reader of tokens that sees those before a position."""

    def __init__(self, num_classes: int = 4, num_tokens: int = 11) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(num_tokens, 6), nn.Linear(6, num_classes)

    def forward(self, ids: Tensor) -> Any:
        assert ids.dtype is torch.int64
        return {"logits": self.head(self.embed(ids).cumsum(1))}


class ClassesFirst(Tokens):
    def forward(self, ids: Tensor) -> Any:
        return super().forward(ids)["logits"].movedim(-1, 1)


class Two(nn.Module):
    """A network of ids and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4 + 5, 4)

    def forward(self, ids: Tensor, x: Tensor) -> Any:
        hidden = torch.cat([self.embed(ids).sum(1), x], 1)
        return SimpleNamespace(logits=self.head(hidden), hidden=hidden)  # an output as an object


class Named(Two):
    """The same with its arguments in another order."""

    def forward(self, x: Tensor, ids: Any = None) -> Any:  # type: ignore[override]
        return super().forward(ids, x)


class Bytes(nn.Module):
    """A network that divides bytes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Any:
        assert x.dtype is torch.uint8
        return self.head(x.to(self.head.weight.dtype) / 255)


def _split(kind: str, n: int) -> Any:
    """Make n items: inputs and targets."""
    g = torch.Generator().manual_seed(n)
    x, ids = torch.randn(n, 5, generator=g), torch.randint(7, (n, 2), generator=g)
    match kind:
        case "numbers":
            return x, x[:, 0] - 2 * x[:, 1] + 0.1 * x[:, 2].sin()
        case "several labels":
            return x, (x[:, :3] > 0.3).float()
        case "classes":
            return x, torch.cat([torch.arange(3), x[3:, :3].argmax(1)])
        case "two inputs":
            return (ids, x), torch.cat([torch.arange(4), (ids[4:, 0] + (x[4:, 0] > 0)) % 4])
        case "bytes":
            return torch.randint(256, (n, 9), generator=g, dtype=torch.uint8), torch.arange(n) % 3
        case _:
            ids, lengths = torch.randint(11, (n, 7), generator=g), torch.randint(1, 8, (n, 1), generator=g)
            return ids, torch.where(torch.arange(7) < lengths, (ids + ids.roll(1, 1)) % 4, -100)


def _sets(kind: str) -> Any:
    return [_split(kind, n) for n in (40, 600, 30)]


def _tokens_loss(output: Any, y: Tensor, decay: float = 0.0) -> Tensor:
    z = output["logits"].flatten(0, 1)
    penalty = decay / 2 * z[y.flatten() >= 0].square().sum(-1).mean() if decay else 0
    return F.cross_entropy(z, y.flatten()) + penalty


@dataclass
class Case:
    """A kind of task, and the loss of a lone run in evaluation, and in training if it is another."""

    net: str
    data: str
    alone: Callable[[Any, Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ("loss",)
    training: Callable[[Any, Tensor], Tensor] | None = None


CASES = {
    "mse": Case("Table", "numbers", lambda o, y: F.mse_loss(o[:, 0], y), {"loss": "mse"}, ("loss", "r2")),
    "huber": Case("Table", "numbers", lambda o, y: F.huber_loss(o[:, 0], y), {"loss": "huber"}),
    "l1": Case("Table", "numbers", lambda o, y: F.l1_loss(o[:, 0], y), {"loss": "l1"}),
    "bce": Case("three", "several labels", F.binary_cross_entropy_with_logits, {"loss": "bce_with_logits"}),
    "tokens": Case("Tokens", "text", _tokens_loss, {}, ("loss", "error", "top5_error", "perplexity")),
    "classes first": Case("ClassesFirst", "text", F.cross_entropy, {}, ("loss", "perplexity")),
    "clipped": Case("Two", "two inputs", lambda o, y: F.cross_entropy(o.logits, y), {"clip_norm": 0.3}),
    "accumulated": Case("Tokens", "text", _tokens_loss, {"clip_norm": 0.2, "accumulate": 4}),
    "smoothed": Case(
        *("three", "classes", F.cross_entropy, {"label_smoothing": 0.2}, ("loss", "error")),
        lambda o, y: F.cross_entropy(o, y, label_smoothing=0.2),
    ),
    "penalised": Case(
        *("Tokens", "text", _tokens_loss, {"logit_decay": 0.3}, ("loss",)),
        lambda o, y: _tokens_loss(o, y, 0.3),
    ),
    "nll": Case("likelihoods", "classes", F.nll_loss, {"loss": "nll"}, ("loss", "error")),
    "bytes": Case("Bytes", "bytes", F.cross_entropy, {}, ("loss", "error")),
}


def _task(case: Case, engine: str, sizes: Any) -> Task:
    usual: dict[str, Any] = {"batch_size": 10, "epochs": 3, "schedule": "fixed"}
    return Task(net=f"{HERE}:{case.net}", engine=engine, sizes=sizes, **usual, **case.options)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_lane_of_every_kind_of_task_equals_a_lone_run(engine: str) -> None:
    for name, case in CASES.items():
        data = read(_sets(case.data))
        task, splits = _task(case, engine, _sizes(data)), data.splits.to(CPU, F64)
        if engine == "vmap":
            assert obstacle(task, CPU) == "", name
        trainer = PackTrainer(ADAMW, task, CELLS, 3, splits)
        trials = trainer.run()
        for lane, cell in enumerate(CELLS):
            loss, net = case.training or case.alone, globals()[case.net]()
            module = train_alone(str(ADAMW), task, cell, splits.train, loss, net)[0].eval()
            for parameter, value in module.named_parameters():
                off = (trainer.arena.named[parameter][lane] - value).abs().max()
                assert off < 1e-10, (name, parameter)
            ((x, y),) = splits.validation.batches(1000)
            with torch.no_grad():
                output = call(module, x)
                found = {"loss": case.alone(output, y).item(), **_expected(output, y)}
            for measure in case.measures:
                known = trials[lane].metrics[f"val_{measure}"]
                assert known == pytest.approx(found[measure], rel=1e-9), (name, measure)


def _expected(output: Any, y: Tensor) -> dict[str, float]:
    """Compute the other measures as a user would."""
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
            task = _task(replace(CASES["clipped"], net=net), engine, _sizes(data))
            trials.append(repr(PackTrainer(ADAMW, task, CELLS, 3, data.splits.to(CPU, F64)).run()))
        assert trials[1:] == trials[:1] * 2, engine
    sizes = _sizes(read(dicts))
    assert [one.name for one in sizes.inputs] == ["ids", "x"]
    assert type(sizes).from_dict(sizes.to_dict()) == sizes
    assert "name" not in str(_sizes(read(sets)).to_dict())  # stored before inputs had names
    unnamed = [{"ids": ids, "y_true": 1} for ids in sets[0][0][0]]
    plain = [(*x, y) for *x, y in zip(*sets[0][0], sets[0][1], strict=True)]
    for split, complaint in (
        (unnamed, "has the keys ids, y_true; name the target labels"),
        (dicts[0], "with different keys \\(train: ids, x; validation: no dicts\\); make them equal"),
    ):
        assert_raises(complaint, read, [split, plain], error=DataError)


def f1(outputs: Tensor, targets: Tensor) -> Tensor:
    assert len(outputs) == len(targets) in (600, 30)  # whole splits
    return 2 * ((outputs > 0) & (targets > 0)).sum() / ((outputs > 0).sum() + targets.sum())


def undefined(outputs: Tensor, targets: Tensor) -> float:
    return math.nan


def several(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


def per_item(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


def ranked(outputs: Tensor, targets: Tensor) -> Tensor:  # no mean over items
    return F.softplus(outputs[:, :1] - outputs[:, :1].t()).mean() + per_item(outputs, targets).mean()


def multi_hot() -> Any:
    return _sets("several labels")


def _completed(**options: Any) -> Task:
    usual: dict[str, Any] = {"net": f"{HERE}:three", "data": f"{HERE}:multi_hot", "engine": "loop"}
    return completed(Task(**usual, batch_size=10, epochs=2, **options))


def test_a_users_metric_sees_whole_splits_and_a_metric_that_is_no_number_is_told() -> None:
    def trials(measure: str) -> Any:
        task = _completed(loss="bce_with_logits", measure=f"{HERE}:{measure}")
        splits = load(task.data, task.data_set).to(CPU, F64)
        trainer = PackTrainer(ADAMW, task, CELLS, 3, splits)
        return trainer, trainer.run(), splits.validation

    trainer, found, split = trials("f1")
    for lane, trial in zip(trainer.lanes.predictor().predict(split.x), found, strict=True):
        assert trial.metrics["val_f1"] == pytest.approx(f1(lane, split.y).item())
        assert {"test_f1", "initial_val_f1"} <= trial.metrics.keys()
        assert (len(trial.curves["val_f1"]), "train_f1" in trial.curves) == (2, False)
    _, found, _ = trials("undefined")
    assert {trial.detail for trial in found} == {"the val_undefined was not finite at the last step"}
    assert_raises(r"metric='.*:several' returns a Tensor of shape .*; return one number", trials, "several")


def test_values_do_not_depend_on_hidden_batches_or_the_order_of_items() -> None:
    """Losses per item, losses of a whole split and masked positions, in batches of 256 and of 7."""
    for loss in ("per_item", "ranked", "tokens"):
        if loss == "tokens":
            data = read(_sets("text"))
            task, splits = _task(CASES["tokens"], "loop", _sizes(data)), data.splits
        else:
            task = _completed(loss=f"{HERE}:{loss}")
            splits = load(task.data, task.data_set)
            assert task.whole_loss == (loss == "ranked")
        splits = splits.to(CPU, F64)
        order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
        x, y = splits.validation.batch(order)
        shuffled = replace(splits, validation=replace(splits.validation, x=x, y=y))
        runs = [
            PackTrainer(ADAMW, one, CELLS, 3, data).run()
            for one, data in ((task, splits), (task, shuffled), (replace(task, eval_batch_size=7), splits))
        ]
        for trials in runs[1:]:
            for one, other in zip(runs[0], trials, strict=True):
                assert one.metrics == pytest.approx(other.metrics, rel=1e-12), loss

"""The plain way: an Optuna study over torch.nn and torch.optim, one network at a time."""

from __future__ import annotations

from itertools import pairwise

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import LOADERS, Split, Splits
from lrwd_sweep.lattice import Lattice
from lrwd_sweep.nets.mlp import LOGIT_SCALE
from lrwd_sweep.spec import Training


class PlainMlp(nn.Module):
    """`mlp-norm` (or `mlp`) as anyone would write it."""

    def __init__(self, widths: tuple[int, ...], norm_logits: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths[:-1]):
            layers += [
                nn.Linear(fan_in, fan_out, bias=False),
                nn.BatchNorm1d(fan_out, affine=False),
                nn.ReLU(),
            ]
        layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
        if norm_logits:
            layers.append(nn.BatchNorm1d(widths[-1], affine=False))
        self.body = nn.Sequential(*layers)
        self.bias = nn.Parameter(torch.zeros(widths[-1]))
        self.scale = LOGIT_SCALE if norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:  # (B, features) → (B, classes)
        """The logits."""
        logits: Tensor = self.body(x.flatten(1)) * self.scale + self.bias
        return logits


def train_one(training: Training, splits: Splits, lr: float, weight_decay: float, seed: int) -> float:
    """Train one network with torch.optim.AdamW, validated after every epoch; the last validation loss."""
    torch.manual_seed(seed)
    net = PlainMlp((64, 128, 128, 10), norm_logits=training.net == "mlp-norm")
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.timetable.eta)
    x, y = splits.train.x, splits.train.y
    loss = float("nan")
    for _ in range(training.epochs):
        net.train()
        for batch in torch.randperm(len(x)).split(training.batch_size)[: training.steps_per_epoch]:  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            functional.cross_entropy(net(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        loss = _validate(net, splits.validation)
    return loss


@torch.no_grad()
def _validate(net: nn.Module, split: Split) -> float:
    net.eval()
    return functional.cross_entropy(net(split.x), split.y).item()


def plain_sweep(training: Training, lattice: Lattice, lanes: int) -> None:
    """`lanes` trials of the lattice as an Optuna user would run them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    splits = LOADERS[training.data]().to(torch.device("cpu"), torch.float32)
    axes = {"lr": lattice.lr, "weight_decay": lattice.weight_decay}
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(axes, seed=0))

    def objective(trial: optuna.Trial) -> float:
        lr, weight_decay = (
            trial.suggest_float(name, min(values), max(values)) for name, values in axes.items()
        )
        return train_one(training, splits, lr, weight_decay, seed=0)

    study.optimize(objective, n_trials=lanes)

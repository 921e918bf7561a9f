"""Parameters that `train` leaves out stay as they are, and the others train as under torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import ModuleNetwork, network, of_seed
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.task import Task
from tests.small import CELLS, CPU, F64, pack, splits, task

NORMED = "tests.nets.awkward:Normed"


def _whole(request: Task) -> nn.Module:
    """Return the network of seed 3 before training, float64, with all its parameters."""
    net = network(request)
    assert isinstance(net, ModuleNetwork)
    module = net._seeded(generator(3, "parameters")).double().train()
    init = net.init(generator(3, "parameters"))
    assert init.keys() == {name for name, one in module.named_parameters() if one.requires_grad}
    for name, value in init.items():
        assert torch.equal(value, module.get_parameter(name)), name
    return module


@pytest.mark.parametrize("net", ["mlp-norm", "cnn", "resnet20", NORMED])
def test_frozen_parameters_keep_their_bits_and_the_rest_trains_as_a_lone_run(net: str) -> None:
    pattern, epochs = {
        "mlp-norm": ("weight[13]|bias", 9),
        "cnn": ("head|body.3", 9),
        "resnet20": ("head|blocks", 2),
        NORMED: ("hidden|bias|flat", 9),
    }[net]
    for engine in ("loop", "vmap"):
        request = task(net, epochs, schedule="fixed", engine=engine, train=pattern)
        module = _whole(request)
        start = {name: value.detach().clone() for name, value in module.named_parameters()}
        frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
        assert frozen, net
        trainer = pack("adamw:lr-scaled", request, CELLS[:1], seed=3, data=splits(F64))
        metrics = trainer.run()[0].metrics
        optimizer = torch.optim.AdamW(module.parameters(), lr=CELLS[0].lr, weight_decay=CELLS[0].weight_decay)
        order, train = generator(3, "data order"), splits(F64).train
        for _ in range(epochs):
            for batch in torch.randperm(len(train), generator=order).split(request.batch_size):  # type: ignore[no-untyped-call]
                x, y = train.batch(batch)
                optimizer.zero_grad()
                functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        assert trainer.arena.named.keys() == start.keys() - frozen
        for name, value in trainer.arena.named.items():
            assert (value[0] - module.get_parameter(name)).abs().max() < 1e-10, (engine, name)
        for name, value in _lane_of(trainer.lanes).items():
            assert name not in frozen or torch.equal(value, start[name]), (engine, name)
        with torch.no_grad():
            x, y = splits(F64).test.x, splits(F64).test.y
            loss = functional.cross_entropy(module.eval()(x), y).item()
        assert metrics["test_loss"] == pytest.approx(loss, abs=1e-10), engine


def _lane_of(lanes: Any) -> dict[str, Tensor]:
    """Return the parameters of a lane's module."""
    return dict((lanes.modules[0] if hasattr(lanes, "modules") else lanes.module).named_parameters())


def test_frozen_parameters_differ_between_seeds() -> None:
    for net, name in (("mlp", "weight1"), ("cnn", "head.weight"), (NORMED, "conv.weight")):
        frozen = f"^(?!{name})"
        made = network(task(net, train=frozen, engine="loop"))
        one, other = (
            of_seed(made, generator(seed, "parameters"), CPU).module.get_parameter(name)  # type: ignore[attr-defined]
            for seed in (0, 1)
        )
        assert not torch.equal(one, other), net


def test_engines_and_patterns_that_do_not_fit_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"train": "zzz"}, "train='zzz' matches no parameter of the network that could train; they are wei"),
        ({"train": "("}, r"train='\(' is not a regular expression"),
        ({"train": "bias", "engine": "native"}, "engine='native' is not written for train='bias'; choose"),
    ]
    for options, complaint in cases:
        with pytest.raises(UsageError, match=complaint):
            complete(task("mlp", **options))
    assert chosen(task("mlp", train="weight1"), CPU).engine in ("loop", "vmap")

"""The language model: causal, initialised as GPT-2, and in every lane the lone module under torch.optim."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn import functional

from lrwd_sweep.data import Splits, load
from lrwd_sweep.engine.choice import chosen, obstacle
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.errors import DataError, UsageError
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.gpt import Gpt
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.net_options import options_text
from lrwd_sweep.spec.task import Task
from tests.small import CELLS, CPU, F64, pack

SMALL = {"layers": 2, "heads": 2, "width": 8, "context": 6}
SIZE = 3000  # characters of the text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(chr(97 + k**3 % 11) for k in range(SIZE)))
    return f"text:{path}"


def _task(data: str, form: str = "", **options: Any) -> Task:
    net_options = options_text({**SMALL, **({form: True} if form else {})})
    return Task(net="gpt", data=data, net_options=net_options, epochs=1, batch_size=16, **options)


@cache
def _splits(data: str) -> Splits:
    return load(data, _task(data).data_set).to(CPU, F64)


def _module(request: Task, seed: int = 3) -> Gpt:
    """Return the network of a seed before training."""
    made = network(request)
    assert isinstance(made, ModuleNetwork)
    with seeded(int(torch.randint(2**62, (), generator=generator(seed, "parameters")))):
        module = made.make()
    assert isinstance(module, Gpt)
    return module


def test_lane_equals_the_lone_module_under_torch_optim(text: str) -> None:
    for form in ("", "tie", "weight_norm"):
        for engine in ("loop", "vmap"):
            request = _task(text, form, engine=engine, schedule="fixed")
            splits = _splits(text)
            trainer = pack("adamw:lr-scaled", request, CELLS, seed=3, data=splits)
            trials = trainer.run()
            for lane in (0, 2):
                module = _module(request).double()
                cell = CELLS[lane]
                optimizer = torch.optim.AdamW(module.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
                order = torch.randperm(len(splits.train), generator=generator(3, "data order"))
                for batch in order.split(16)[: request.steps]:  # type: ignore[no-untyped-call]
                    x, y = splits.train.batch(batch)
                    optimizer.zero_grad()
                    logits = module(x)
                    functional.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                for name, value in trainer.arena.named.items():
                    difference = value[lane] - module.get_parameter(name)
                    assert difference.abs().max() < 1e-10, (form, engine, name)
                with torch.no_grad():
                    logits, y = module(splits.validation.x), splits.validation.y
                    loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten()).item()
                    error = (logits.argmax(-1) != y).double().mean().item()
                metrics = trials[lane].metrics
                assert metrics["val_loss"] == pytest.approx(loss, abs=1e-10), (form, engine)
                assert metrics["val_perplexity"] == pytest.approx(math.exp(loss), abs=1e-9), (form, engine)
                assert metrics["val_error"] == pytest.approx(error, abs=1e-10), (form, engine)


def test_a_position_sees_only_those_before_it(text: str) -> None:
    module = _module(_task(text))
    x = torch.randint(10, (3, 6))
    with torch.no_grad():
        logits = module(x)
        for k in range(1, 6):
            other = x.clone()
            other[:, k:] = (x[:, k:] + 1) % 10
            assert torch.allclose(module(other)[:, :k], logits[:, :k], atol=1e-6)
            assert not torch.allclose(module(other)[:, k], logits[:, k], atol=1e-3)


def test_weight_norm_makes_directions_of_the_same_function_scale_invariant(text: str) -> None:
    plain, normed = _task(text), _task(text, "weight_norm")
    found = network(normed).scale_invariant
    assert len(found) == 8, "four matrices in each of two blocks"
    assert all(name.endswith("weight.original1") for name in found), found
    x = torch.randint(10, (3, 6))
    assert torch.allclose(_module(normed)(x), _module(plain)(x), atol=1e-6)


def test_initial_weights_have_gpt2s_spread() -> None:
    torch.manual_seed(0)
    module = Gpt(100, 100, layers=8, heads=4, width=64, context=32, tie=False, weight_norm=False)
    for name, value in module.named_parameters():
        if value.dim() > 1:
            deviation = 0.02 / 4 if "attention.out" in name or "down" in name else 0.02  # √(2·8) = 4
            assert value.std().item() == pytest.approx(deviation, rel=0.05), name
        else:
            assert bool((value == (0 if name.endswith("bias") else 1)).all()), name
    with torch.no_grad():
        logits = module(torch.randint(100, (8, 32))).flatten(0, 1)
        loss = functional.cross_entropy(logits, torch.arange(256) % 100)
    assert loss.item() == pytest.approx(math.log(100), rel=0.02)


def test_options_shape_the_network(text: str) -> None:
    shapes = network(_task(text)).shapes
    assert shapes["token.weight"] == shapes["head.weight"] == (11, 8)
    assert shapes["position.weight"] == (6, 8)
    assert shapes["blocks.1.attention.qkv.weight"] == (24, 8)
    assert network(_task(text, "tie")).shapes.keys() == shapes.keys() - {"head.weight"}
    assert Task(net="gpt", data=text, batch_size=16).data_set.shape == (64,)
    assert _task(text).changed(net_options=options_text({"context": 9})).data_set.shape == (9,)


def test_vmap_equals_the_loop_in_every_precision(text: str) -> None:
    for precision in ("float32", "bfloat16"):
        assert obstacle(_task(text, precision=precision), CPU) == ""
        assert chosen(_task(text, precision=precision), CPU).engine in ("loop", "vmap")


def test_data_that_do_not_fit_are_refused(text: str) -> None:
    for task, complaint in (
        (
            Task(net="gpt"),
            "net='gpt' takes windows of tokens with a class for each, not items of 1×8×8; choose",
        ),
        (
            Task(net="mlp", data=text, batch_size=16),
            "takes one floating-point input, not inputs of type int64; choose net='gpt'",
        ),
        (Task(net="resnet20", data=text, batch_size=16), "net='resnet20' takes"),
        (_task(text, engine="native"), "engine='native' is not written for gpt; choose auto, vmap or loop"),
    ):
        with pytest.raises(UsageError, match=complaint):
            network(task)


def negative() -> Any:
    """Return tokens that begin below 0."""
    x = torch.arange(60).reshape(10, 6) % 7 - 2
    return (x, x + 2), (x, x + 2)


def test_tokens_of_the_user_count_from_zero() -> None:
    with pytest.raises(DataError, match=r"data='.*:negative': x has the token -2; number tokens from 0"):
        complete(Task(net="gpt", data=f"{__name__}:negative", batch_size=2))

"""The language model: causal, initialised as GPT-2; it trains as any module (see test_lanes)."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from lrwd_sweep.engine.choice import chosen, obstacle
from lrwd_sweep.errors import DataError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.gpt import Gpt
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.net_options import options_text
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CPU, TOKENS, begun, task


def gpt_options(**more: Any) -> dict[str, Any]:
    """Return the options of a small model of `TOKENS`."""
    small = {"layers": 2, "heads": 2, "width": 8, "context": 6}
    return {"sizes": TOKENS, "net_options": options_text(small | more)}


def _task(**options: Any) -> Task:
    return task("gpt", **gpt_options(), **options)


def test_a_position_sees_only_those_before_it() -> None:
    module, x = begun(_task()), torch.randint(10, (3, 6))
    with torch.no_grad():
        logits = module(x)
        for k in range(1, 6):
            other = x.clone()
            other[:, k:] = (x[:, k:] + 1) % 10
            assert torch.allclose(module(other)[:, :k], logits[:, :k])
            assert not torch.allclose(module(other)[:, k], logits[:, k], atol=1e-3)


def test_weight_norm_makes_directions_of_the_same_function_scale_invariant() -> None:
    normed, x = task("gpt", **gpt_options(weight_norm=True)), torch.randint(10, (3, 6))
    found = network(normed).scale_invariant
    assert len(found) == 8, "four matrices in each of two blocks"
    assert all(name.endswith("weight.original1") for name in found), found
    assert torch.allclose(begun(normed)(x), begun(_task())(x))


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


def test_options_shape_the_network() -> None:
    shapes = network(_task()).shapes
    assert shapes["token.weight"] == shapes["head.weight"] == (11, 8)
    assert shapes["position.weight"] == (6, 8)
    assert shapes["blocks.1.attention.qkv.weight"] == (24, 8)
    assert network(task("gpt", **gpt_options(tie=True))).shapes.keys() == shapes.keys() - {"head.weight"}
    text = Task(net="gpt", data="python-docs", batch_size=16)
    assert text.data_set.shape == (64,)
    assert text.changed(net_options=options_text({"context": 9})).data_set.shape == (9,)


def test_vmap_equals_the_loop_in_bfloat16() -> None:
    assert obstacle(_task(precision="bfloat16"), CPU) == ""
    assert chosen(_task(precision="bfloat16"), CPU).engine in ("loop", "vmap")


def negative() -> Any:
    """Return tokens that begin below 0."""
    x = torch.arange(60).reshape(10, 6) % 7 - 2
    return (x, x + 2), (x, x + 2)


def test_data_that_do_not_fit_are_refused() -> None:
    for of, complaint in (
        (Task(net="gpt"), "net='gpt' takes windows of tokens with a class for each, not items of 1×8×8; ch"),
        (task(sizes=TOKENS), "takes one floating-point input, not inputs of type int64; choose net='gpt'"),
        (task("resnet20", sizes=TOKENS), "net='resnet20' takes"),
        (_task(engine="native"), "engine='native' is not written for gpt; choose auto, vmap or loop"),
    ):
        assert_raises(complaint, network, of)
    below = r"data='.*:negative': x has the token -2; number tokens from 0"
    of = Task(net="gpt", data=f"{__name__}:negative", batch_size=2)
    assert_raises(below, complete, of, error=DataError)

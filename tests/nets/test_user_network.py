"""User networks and losses train as under torch.optim; what would not is named in one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.nets import network
from lrwd_sweep.nets.loss import DEFAULT_LOSS
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Way
from lrwd_sweep.nets.randomness import python_state
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import DataSet
from tests.nets.awkward import Base, TwoLayers
from tests.refusal import assert_raises
from tests.small import ILL, WELL, pack, task

HERE = "tests.nets.test_user_network"


class Two(TwoLayers):  # two heads, both of which train
    steps = 0

    def forward(self, x: Tensor) -> Any:
        self.steps += self.training
        return super().forward(x)


def _thaw(net: Any, x: Tensor) -> Any:  # the second head trains from the fifth step on
    net.b.requires_grad_(net.steps > 4)
    return Two.logits(net, x)


def _assign(net: Any, x: Tensor) -> Any:  # normalised weights, each time in new memory
    net.b.weight.data = functional.normalize(net.b.weight.data)
    return Two.logits(net, x)


def _finite(net: Any, x: Tensor, *, training: bool = True) -> Any:  # raises if a number is not finite
    h = Two.logits(net, x)
    if net.training <= training and not h.isfinite().all():
        raise ValueError("not finite")
    return h + 0.1 * torch.where(x[:, :4] < 0, -torch.inf, h).softmax(1).nan_to_num()


STRANGE: dict[str, Callable[..., Any]] = {  # a class's name → its logits
    "Late": lambda net, x: Two.logits(net, x) if net.steps > 4 else net.a(x),
    "Early": lambda net, x: Two.logits(net, x) if net.steps < 5 else net.a(x),
    "Thawing": _thaw,
    "ByValues": lambda net, x: net.a(x) if x.min() >= 0 else net.b(x),
    "Assigning": _assign,
    "AssigningToEvaluate": lambda net, x: Two.logits(net, x) if net.training else _assign(net, x),
    "Finite": _finite,
    "FiniteToEvaluate": lambda net, x: _finite(net, x, training=False),
    "Faulty": lambda net, x: _finite(net, x) if net.steps < 5 else int("a mistake"),
}
globals().update({name: type(name, (Two,), {"logits": logits}) for name, logits in STRANGE.items()})
UNLIKE_TORCH = (
    ("Late", "loop", r"b\.weight of Late has a gradient, and had none .*; use it in every step"),
    ("Late", "vmap", r"b\.weight of Late has a gradient, and had none"),
    ("Thawing", "loop", r"b\.weight of Thawing has a gradient, and had none"),
    ("Early", "loop", r"b\.weight of Early has no gradient at a step, .*; use it in every step"),
    ("Early", "vmap", r"b\.weight of Early has no gradient at a step"),
    ("ByValues", "loop", r"a\.weight of ByValues has no gradient at a step"),
    ("Assigning", "loop", r"b\.weight of Assigning is not where .* by \.data\.copy_\(\)"),
    ("AssigningToEvaluate", "loop", r"b\.weight of AssigningToEvaluate is not where"),
)


def test_parameters_that_would_not_train_as_under_torch_optim_are_named() -> None:
    for name, engine, complaint in UNLIKE_TORCH:
        trainer = pack("sgdw", task(f"{HERE}:{name}", engine=engine), WELL)
        assert_raises(rf"the parameter {complaint}", trainer.run)  # which names the class


def test_exception_ends_a_lane_only_if_it_has_diverged_and_names_the_network_otherwise() -> None:
    for name in ("Finite", "FiniteToEvaluate"):
        of = task(f"{HERE}:{name}", engine="loop")
        first, ill, last = pack("sgdw", of, [WELL[0], ILL, WELL[1]]).run()
        assert ill.status is Status.DIVERGED, name
        assert [first, last] == pack("sgdw", of, WELL[:2]).run(), name
    with pytest.raises(ValueError, match="a mistake"):
        pack("sgdw", task(f"{HERE}:Faulty", engine="loop"), WELL).run()
    name = f"{HERE}:Finite"
    with pytest.raises(ValueError, match="not finite") as theirs:
        globals()["Finite"]()(torch.full((2, 64), torch.nan))
    assert f"net='{name}' raised in training: ValueError" in str(blamed(name, theirs.value))
    for net, error in (("cnn", theirs.value), (name, UsageError("said already")), (name, ValueError("ours"))):
        assert blamed(net, error) is None


smoothed = nn.CrossEntropyLoss(label_smoothing=0.3)
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "broken": lambda logits, y: dict[int, Tensor]()[len(y)],
    "per_class": lambda logits, y: logits.mean(0),
    "detached": lambda logits, y: smoothed(logits, y).detach(),
    "noisy": lambda logits, y: smoothed(logits + torch.randn_like(logits), y),
}
globals().update(LOSSES)


learning = nn.Linear(4, 1)
REFUSED_LOSSES = {
    "per_class": r"the loss is a tensor of shape \(4,\), not one number for a batch or for every item",
    "detached": "does not depend on any parameter",
    "noisy": "the loss draws random numbers",
    "broken": r" raised KeyError: 8 \(test_user_network.py, line \d+\)",
    "Two": " is a class; name an instance, or a function of outputs and targets",
    "learning": " has parameters, which would not train; move them to the network",
}


def test_invalid_losses_are_refused_in_one_line() -> None:
    for net in ("mlp", "cnn", "tests.nets.awkward:Normed"):
        for loss, complaint in REFUSED_LOSSES.items():
            of = task(net, loss=f"{HERE}:{loss}")
            assert_raises(rf"^loss='{HERE}:{loss}'.*{complaint}", network, of)
    native, absent = task("mlp", engine="native", loss=f"{HERE}:smoothed"), task("mlp", loss=f"{HERE}:absent")
    assert_raises("not written for a loss other than cross-entropy", network, native)
    assert_raises(f"unknown name in {HERE} 'absent'", network, absent, error=UnknownName)


class Plain(Base):  # two layers; subclasses add a difficulty
    def make(self) -> None:
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 4)
        self.more()

    def more(self) -> None:
        pass

    def between(self, h: Tensor) -> Tensor:
        return h.tanh()

    def logits(self, x: Tensor) -> Any:
        return self.head(self.between(self.body(x)))


def _recompute(net: Any, h: Tensor) -> Any:
    return checkpoint(lambda h: net.drop(h).tanh(), h, use_reentrant=False)


def _enclose(net: Any) -> None:
    net.slope = nn.Parameter(torch.tensor(0.3))
    net.act = lambda h: torch.where(h > 0, h, h * net.slope)


def _fill(net: Any, x: Tensor) -> Any:
    logits = torch.zeros(len(x), 4, dtype=x.dtype)  # the type of the inputs
    logits[torch.arange(len(x))] = Plain.logits(net, x)
    return logits


def _repeat(net: Any) -> None:
    net.body = nn.GRU(8, 8, 2, dropout=0.1, batch_first=True)  # drops between its layers


DIFFICULT: dict[str, dict[str, Callable[..., Any]]] = {  # a class's name → its methods
    "Hooked": {"more": lambda net: net.body.weight.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))},
    "Recomputed": {"more": lambda net: net.add_module("drop", nn.Dropout(0.5)), "between": _recompute},
    "Enclosed": {"more": _enclose, "between": lambda net, h: net.act(h)},
    "Numpy": {"between": lambda net, h: h * float(np.random.rand())},
    "OldNorm": {"more": lambda net: nn.utils.weight_norm(net.body)},
    "Scripted": {"more": lambda net: net.add_module("act", torch.jit.script(nn.Tanh()))},
    "Hidden": {"between": lambda net, h: functional.dropout(h, 0.5, net.training)},  # dropout without a layer
    "WrongInTraining": {"logits": lambda net, x: torch.zeros(3) + Plain.logits(net, x)},  # under a layer
    "Recurrent": {"more": _repeat, "forward": lambda net, x: net.head(net.body(x[:, 0])[0][:, -1])},
    "Fill": {"logits": _fill},
    "Complex": {"more": lambda net: setattr(net, "phase", nn.Parameter(torch.zeros(2, dtype=torch.cfloat)))},
}
globals().update({name: type(name, (Plain,), methods) for name, methods in DIFFICULT.items()})


def failing() -> nn.Module:
    raise ValueError("no\nweights here")


ONE = Plain()
FACTORY: dict[str, Callable[..., object]] = {
    "needing": lambda channels: nn.Conv2d(1, channels, 3),
    "forgetful": lambda: None,
    "regression": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
    "mismatched": lambda: nn.Sequential(nn.Flatten(), nn.Linear(100, 4)),
    "all_frozen": lambda: Plain().requires_grad_(False),
    "same": lambda: ONE,
}
globals().update(FACTORY)
LINE = r"\(test_user_network.py, line \d+\)"
REFUSED_NETWORKS = {
    "Hooked": r": its parameter body\.weight has a hook, .*; register it in forward",
    "Recomputed": r": the layer drop \(Dropout\) runs again in the backward pass, .*; leave it out",
    "Enclosed": r": its parameter slope is used by a lambda .*; write a method",
    "Numpy": r": it draws random numbers from the global generator of numpy or random",
    "OldNorm": r": it cannot be copied, .*; use torch\.nn\.utils\.parametrizations",
    "Scripted": r": its layer act is a ScriptModule, which lanes cannot copy; do not script it",
    "Hidden": r": Hidden itself draws random numbers .*; use torch.nn.Dropout as a layer",
    "Recurrent": r": the layer body \(GRU\) draws .*\(dropout=0 for attention and recurrent layers\)",
    "WrongInTraining": rf" does not .*: RuntimeError: .* in WrongInTraining itself {LINE}",
    "Complex": r": its parameter phase is complex64 \(2,\); make it real",
    "Fill": r" cannot compute in bfloat16: RuntimeError: .* in Fill itself .*; choose precision='float32'$",
    "needing": r" wants 'channels', which nothing gives; give it a default, or a value under \[net.options\]",
    "forgetful": r": it returns NoneType; return a torch.nn.Module",
    "failing": rf" raised ValueError: no weights here {LINE}",
    "regression": r": Sequential gives float32 \(8, 1\) for 8 inputs; return logits \(8, 4\)",
    "mismatched": r" does not take inputs of 1×8×8: RuntimeError: .*mat1 .* in the layer 1 \(Linear\)",
    "all_frozen": r": it does not depend on any parameter that trains",
    "same": r": it returns the same network at every call; make a new one for every seed",
    "ONE": r": it is a network instance, the same for every seed; name its class or a factory",
    "HERE": r" is of type str; name a function or a class",
}


@pytest.mark.filterwarnings("ignore:.*(weight_norm|torch.jit)")
def test_networks_that_lanes_could_not_train_are_refused_in_one_line() -> None:
    before = python_state()
    for name, complaint in REFUSED_NETWORKS.items():
        of = task(f"{HERE}:{name}", engine="loop", precision="bfloat16" if name == "Fill" else "float32")
        assert_raises(rf"^net='{HERE}:{name}'{complaint}", network, of)
        assert python_state() == before, name
    assert network(task(f"{HERE}:Fill", engine="loop")).shapes
    complaint = r"gives \(8, 4, 6, 6\) for 8 inputs; make it logits \(8, 4\)"
    item = DataSet(0, 0, 0, 4, (1, 8, 8))
    assert_raises(complaint, ModuleNetwork, lambda: nn.Conv2d(1, 4, 3), item, Way(DEFAULT_LOSS))

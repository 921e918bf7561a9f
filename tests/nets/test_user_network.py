"""A user module trains by vmap or in a loop as under torch.optim, or is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.choice import chosen, obstacle
from lrwd_sweep.engine.pack import PackTrainer, generator
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.randomness import Noisy, seeded
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task, options_text
from tests.nets import awkward
from tests.nets.conftest import task

CELLS = [Cell(0.004, 1e-2), Cell(0.001, 0.1)]
HERE = "tests.nets.test_user_network"
CPU = torch.device("cpu")


def _own(name: str, engine: str = "loop", epochs: int = 17, **options: Any) -> Task:
    return task(name, epochs, schedule="fixed", engine=engine, **options)


def _awkward(kind: type[nn.Module], engine: str = "loop", **options: Any) -> Task:
    return _own(f"tests.nets.awkward:{kind.__name__}", engine, **options)


def _logits(output: Any) -> Tensor:
    """Pick the logits of any kind of output."""
    if isinstance(output, tuple):
        output = output[1]
    if isinstance(output, dict):
        output = output["logits"]
    found = getattr(output, "logits", output)
    assert isinstance(found, Tensor)
    return found


def _alone(kind: type[nn.Module], cell: Cell, splits: Splits, request: Task, seed: int) -> nn.Module:
    """The module under torch.optim.AdamW; random layers draw as a lane of that seed does."""
    drawn = int(torch.randint(2**62, (), generator=generator(seed, "parameters")))
    if any(isinstance(layer, nn.Dropout) for layer in kind().modules()):
        made = network(request)
        assert isinstance(made, ModuleNetwork)
        make: Callable[[], nn.Module] = made.make  # with layers that draw from a generator of their own
    else:
        make = kind
    with seeded(drawn):
        module = make()
        if kind is awkward.Lazy:
            module.eval()(torch.zeros(2, 1, 8, 8))
    module.double().train()
    noise, order = generator(seed, "noise"), generator(seed, "data order")
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.noise = noise
    optimizer = torch.optim.AdamW(module.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
    for _ in range(request.epochs):
        for batch in torch.randperm(len(splits.train), generator=order).split(request.batch_size):  # type: ignore[no-untyped-call]
            x, y = splits.train.batch(batch)
            optimizer.zero_grad()
            functional.cross_entropy(_logits(module(x)), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval()


@pytest.mark.parametrize("kind", [*awkward.VECTORISED, *awkward.LOOPED])
def test_lane_equals_the_lone_module_under_torch_optim(kind: type[nn.Module], tiny64: Splits) -> None:
    request = _awkward(kind, "vmap" if kind in awkward.VECTORISED else "loop")  # 51 steps
    trainer = PackTrainer(Optimizer.parse("adamw:lr-scaled"), request, CELLS, 3, tiny64)
    trials = trainer.run()
    assert request.steps == 51
    for lane, cell in enumerate(CELLS):
        module = _alone(kind, cell, tiny64, request, 3)
        parameters = dict(module.named_parameters())
        for name, value in trainer.arena.named.items():
            assert (value[lane] - parameters[name]).abs().max() < 1e-10, name
        for name, split in (("val", tiny64.validation), ("test", tiny64.test)):
            with torch.no_grad():
                logits = _logits(module(split.x.clone()))
            loss = functional.cross_entropy(logits, split.y).item()
            assert trials[lane].metrics[f"{name}_loss"] == pytest.approx(loss, abs=1e-10)


def test_vmap_equals_the_loop_or_is_refused() -> None:
    for kind in (*awkward.VECTORISED, *awkward.LOOPED):
        if kind in awkward.VECTORISED:
            assert obstacle(_awkward(kind), CPU) == "", kind
            continue
        complaint = rf"engine='vmap': .*:{kind.__name__} {awkward.LOOPED[kind]} \(.*\); choose auto or loop"
        with pytest.raises(UsageError, match=complaint):
            chosen(_awkward(kind, "vmap"), CPU)


def test_loss_with_float32_targets_can_be_vectorised() -> None:
    binary = _awkward(awkward.Tied, loss="tests.nets.losses:binary")
    assert obstacle(binary, CPU) == ""
    assert chosen(replace(binary, engine="auto"), CPU).engine in ("loop", "vmap")


def test_only_trained_parameters_are_in_the_arena() -> None:
    head = {"head.weight", "head.bias"}
    for kind, trained in (
        (awkward.Frozen, head),
        (awkward.Unused, head),
        (awkward.AuxiliaryOutput, head),
        (awkward.Tied, head | {"down.weight", "up.weight", "up.bias", "again.bias"}),
    ):
        assert set(network(_awkward(kind)).shapes) == trained, kind


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_frozen_parameters_depend_only_on_the_seed(engine: str, tiny32: Splits) -> None:
    cell = CELLS[0]
    request = _awkward(awkward.Frozen, engine, epochs=1)
    runs = [
        PackTrainer(Optimizer.parse("adamw"), request, [cell, cell], seed, tiny32).run() for seed in (0, 0, 1)
    ]
    losses = [[trial.metrics["val_loss"] for trial in run] for run in runs]
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[0][1]
    assert losses[0][0] != losses[2][0]


@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
def test_native_vmap_and_loop_are_one_network(net: str, tiny64: Splits) -> None:
    found = {}
    for engine in ("native", "vmap", "loop"):
        trainer = PackTrainer(Optimizer.parse("adamw"), _own(net, engine), CELLS, 1, tiny64)
        trials = trainer.run()
        found[engine] = trainer.arena.theta, torch.tensor([list(t.metrics.values()) for t in trials])
    assert type(network(_own(net, "native"))) is not type(network(_own(net, "loop")))
    for engine in ("vmap", "loop"):
        for one, other in zip(found["native"], found[engine], strict=True):
            assert (one - other).abs().max() < 1e-10


def sized(num_classes: int, input_shape: tuple[int, ...], width: int = 3, depth: int = 1) -> nn.Module:
    """Takes what is known, and options."""
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    hidden = [nn.Linear(width, width) for _ in range(depth)]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), *hidden, nn.Linear(width, num_classes))


def test_factory_gets_sizes_and_options() -> None:
    found = network(_own(f"{HERE}:sized", net_options=options_text({"width": 5, "depth": 2}))).shapes
    assert list(found.values()) == [(5, 64), (5,), (5, 5), (5,), (5, 5), (5,), (4, 5), (4,)]


def needing(channels: int) -> nn.Module:
    """Take an argument without a default."""
    return nn.Conv2d(1, channels, 3)


def forgetful() -> object:
    """Returns nothing."""
    return None


def failing() -> nn.Module:
    """Raises."""
    raise ValueError("no\nweights here")


def regression() -> nn.Module:
    """One number per image."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))


def mismatched() -> nn.Module:
    """Takes other images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 4))


def all_frozen() -> nn.Module:
    """Nothing trains."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).requires_grad_(False)


def complex_valued() -> nn.Module:
    """Parameters that are no real numbers."""
    module = nn.Linear(64, 4)
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return module


class Hidden(nn.Module):
    """Dropout without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.body(x), 0.5, self.training)


class Recurrent(nn.Module):
    """Drops between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.GRU(8, 6, 2, dropout=0.1, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x[:, 0])[0][:, -1])
        return logits


class WrongInTraining(Hidden):
    """Raises under a layer."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits + torch.zeros(3)


READY = regression()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "needing",
            r"wants 'channels', which nothing gives; give it a default, or a value under \[net.options\]",
        ),
        ("forgetful", r"it returns NoneType; return a torch.nn.Module"),
        ("failing", r"raised ValueError: no weights here \(test_user_network.py, line \d+\)"),
        ("regression", r"Sequential gives float32 \(8, 1\) for 8 inputs; return logits \(8, 4\)"),
        ("mismatched", r"does not take inputs of 1×8×8: RuntimeError: .*mat1 .* in the layer 1 \(Linear\)"),
        ("all_frozen", r"does not depend on any parameter that trains"),
        ("complex_valued", r"parameter phase is complex64 \(2,\); make it real"),
        ("Hidden", r"Hidden itself draws random numbers .*; use torch.nn.Dropout as a layer"),
        ("Recurrent", r"the layer body \(GRU\) draws .*\(dropout=0 for attention and recurrent layers\)"),
        ("WrongInTraining", r"RuntimeError: .* in WrongInTraining itself \(test_user_network.py, line \d+\)"),
        ("READY", r"it is a network instance, the same for every seed; name its class or a factory"),
        ("HERE", r"is of type str; name a function or a class"),
    ],
)
def test_untrainable_networks_are_refused_in_one_line(name: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=rf"net='{HERE}:{name}'.*{complaint}") as refused:
        network(_own(f"{HERE}:{name}"))
    assert "\n" not in str(refused.value)


def test_unknown_option_suggests_near_names() -> None:
    with pytest.raises(UnknownName, match=r"unknown option of net='.*:sized' 'widht'; did you mean width\?"):
        network(_own(f"{HERE}:sized", net_options=options_text({"widht": 5})))


def test_native_is_refused_for_networks_without_it() -> None:
    with pytest.raises(
        UsageError, match=r"engine='native' is not written for resnet20; choose auto, vmap or loop"
    ):
        network(_own("resnet20", "native"))
    with pytest.raises(UsageError, match="not written for a loss other than cross-entropy"):
        network(_own("mlp", "native", loss=f"{HERE}:smoothed"))


def smoothed(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels."""
    return functional.cross_entropy(logits, y, label_smoothing=0.3)


def unreduced(logits: Tensor, y: Tensor) -> Tensor:
    """One number for each input."""
    return functional.cross_entropy(logits, y, reduction="none")


def detached(logits: Tensor, y: Tensor) -> Tensor:
    """Without a gradient."""
    return smoothed(logits, y).detach()


def noisy(logits: Tensor, y: Tensor) -> Tensor:
    """Draw from the global generator."""
    return smoothed(logits + torch.randn_like(logits), y)


def changing(logits: Tensor, y: Tensor) -> Tensor:
    """The next class, in place."""
    return smoothed(logits.mul_(-2), y.add_(1).remainder_(4))


def pure(logits: Tensor, y: Tensor) -> Tensor:
    """The same in new tensors."""
    return smoothed(logits * -2, (y + 1) % 4)


def broken(logits: Tensor, y: Tensor) -> Tensor:
    """Raises."""
    raise KeyError(len(y))


class Focal(nn.Module):
    """A loss as a class, of which there may be an instance with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(2.0))

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        p = logits.softmax(1).gather(1, y.unsqueeze(1))
        return -((1 - p) ** self.gamma * p.log()).mean()


FOCAL = Focal()


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("net", ["mlp", "tests.nets.awkward:Normed"])
def test_user_loss_trains_and_measures(net: str, engine: str, tiny64: Splits) -> None:
    request = _own(net, engine, loss=f"{HERE}:smoothed")
    trainer = PackTrainer(Optimizer.parse("adamw:lr-scaled"), request, CELLS, 0, tiny64)
    trials = trainer.run()
    plain = PackTrainer(
        Optimizer.parse("adamw:lr-scaled"), replace(request, loss="cross-entropy"), CELLS, 0, tiny64
    )
    plain.run()
    assert (trainer.arena.theta - plain.arena.theta).abs().max() > 1e-4
    with torch.inference_mode():
        logits = trainer.lanes.predictor().predict(tiny64.validation.x)
    for lane, trial in zip(logits, trials, strict=True):
        expected = smoothed(lane.t(), tiny64.validation.y).item()
        assert trial.metrics["val_loss"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_loss_may_change_its_arguments_in_place(engine: str, tiny64: Splits) -> None:
    labels = tiny64.validation.y.clone()
    changed, pristine = (
        PackTrainer(Optimizer.parse("adamw"), _own("mlp", engine, 2, loss=f"{HERE}:{loss}"), CELLS, 0, tiny64)
        for loss in ("changing", "pure")
    )
    assert changed.run() == pristine.run()
    assert torch.equal(tiny64.validation.y, labels)


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        ("unreduced", r"the loss is a tensor of shape \(8,\), not one number for a batch; return its mean"),
        ("detached", "does not depend on any parameter"),
        ("noisy", "the loss draws random numbers"),
        ("broken", rf"loss='{HERE}:broken' raised KeyError: 8 \(test_user_network.py, line \d+\)"),
        ("Focal", "Focal' is a class; name an instance, or a function of logits and labels"),
        ("FOCAL", "FOCAL' has parameters, which would not train; move them to the network"),
        ("absent", f"unknown name in {HERE} 'absent'"),
    ],
)
@pytest.mark.parametrize("net", ["mlp", "cnn", "tests.nets.awkward:Normed"])
def test_invalid_losses_are_refused_in_one_line(net: str, loss: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        network(_own(net, loss=f"{HERE}:{loss}"))
    assert loss == "absent" or str(refused.value).startswith(f"loss='{HERE}:{loss}'")


def test_error_in_training_is_blamed_on_the_network_that_raised_it() -> None:
    name = f"{HERE}:WrongInTraining"
    with pytest.raises(RuntimeError) as theirs:
        WrongInTraining()(torch.zeros(2, 64))
    found = blamed(name, theirs.value)
    assert found is not None
    assert f"net='{name}' raised in training: RuntimeError" in str(found)
    assert blamed("cnn", theirs.value) is None
    assert blamed(name, UsageError("said already")) is None
    assert blamed(name, ValueError("ours")) is None

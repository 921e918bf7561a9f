"""SAM, averages of weights and snapshot ensembles: lanes equal lone runs, and nothing else changes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lrwd_sweep.engine.checkpoint import Checkpoints
from lrwd_sweep.engine.cost import pack_bytes
from lrwd_sweep.engine.sharpness import ascend
from lrwd_sweep.lab.verify.lone_runs import CELLS, SIZES, apart, made_up_splits
from lrwd_sweep.nets.mlp import MlpLanes
from lrwd_sweep.nets.mlp_numba import NumbaMlpLanes
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import MomentumForm
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import CheckpointPlace, Pack, Stopped
from lrwd_sweep.spec.task import Task
from tests.small import CPU, ILL, WELL, pack, task

Fields = dict[str, Any]
SAM: Fields = {"sam": 0.05}
ASAM: Fields = {"sam": 0.3, "sam_adaptive": True}
RESTARTS: Fields = {"schedule": "restarts", "t_0": 1, "t_mult": 2}
EVERY: Fields = {"swa": 0.3, "ema": 0.7, "ensemble": 2} | RESTARTS
IMAGES = replace(SIZES, shape=(1, 8, 8))

LONE: list[tuple[str, str, str, Fields]] = [  # network, engine, optimizer, fields
    ("mlp-norm", "native", "adamw:lr-scaled", SAM | {"swa": 2, "ema": 1}),
    ("mlp-norm", "native", "sgd", ASAM | {"clip_norm": 0.2, "accumulate": 2}),
    ("mlp", "vmap", "sgd", ASAM | EVERY),
    ("mlp", "loop", "adamw:lr-scaled", SAM | {"accumulate": 2, "ema": 2.5, "clip_norm": 0.1}),
    ("cnn", "native", "sgd", SAM | {"swa": 0.5}),
    ("cnn-norm", "loop", "adamw:lr-scaled", ASAM | EVERY),
    ("embed-norm", "vmap", "adamw:lr-scaled", SAM | EVERY),
    ("embed-norm", "loop", "sgd", {"swa": 1}),
    ("tests.nets.awkward:Normed", "vmap", "sgd", SAM | EVERY),
    ("tests.nets.awkward:Normed", "loop", "sgd", ASAM | {"swa": 1}),
    ("tests.nets.awkward:Dropping", "loop", "sgd", SAM),  # the same units are dropped in both passes
]


@pytest.mark.parametrize("compiled", [True, False])
def test_lane_equals_a_lone_run_of_torch(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
    for net, engine, name, fields in LONE if compiled else LONE[:2]:
        sizes = SIZES if net.startswith("mlp") else IMAGES
        form = MomentumForm.TORCH
        of = Task(net=net, engine=engine, sizes=sizes, epochs=3, batch_size=16, momentum_form=form, **fields)
        assert apart(name, of, CELLS, made_up_splits(sizes, CPU)) < 1e-10, (net, engine, name, fields)
        if net == "mlp-norm":
            kind = type(pack(name, of, CELLS, data=made_up_splits(sizes, CPU)).lanes)
            assert kind is (NumbaMlpLanes if compiled else MlpLanes)


def _plain(trials: list[Trial]) -> list[Trial]:
    """Return trials without the numbers of averages."""

    def last(found: Any) -> dict[str, Any]:
        return {k: v for k, v in found.items() if not k.startswith(("swa_", "ema_", "ensemble_"))}

    return [
        replace(
            trial,
            metrics=last(trial.metrics),
            curves=last(trial.curves),
            snapshots={epoch: last(found) for epoch, found in trial.snapshots.items()},
        )
        for trial in trials
    ]


def test_without_ascent_and_beside_averages_the_training_is_the_same_to_the_bit() -> None:
    for net, engine in (
        ("mlp-norm", "native"),
        ("cnn", "native"),
        ("cnn-norm", "loop"),
        ("tests.nets.awkward:Normed", "vmap"),
        ("tests.nets.awkward:Dropping", "loop"),
        ("tests.nets.awkward:Dropping", "vmap"),
        ("tests.nets.awkward:Remembering", "loop"),
    ):
        augment = "crop-flip" if net == "cnn" else "none"
        of = task(net, 3, engine=engine, augment=augment, **RESTARTS)
        expected = repr(pack("sgdw", of, WELL).run())
        nowhere = replace(of, sam=1e-300)  # too small to move a weight
        if "Remembering" not in net:  # its outputs depend on how often it was called
            assert repr(pack("sgdw", nowhere, WELL).run()) == expected, net
        averaged = pack("sgdw", replace(of, **EVERY), WELL).run()
        assert repr(_plain(averaged)) == expected, net
        assert {"swa_val_loss", "ema_test_error", "ensemble_val_error"} <= averaged[0].metrics.keys(), net
    assert Task(sam=0.0).to_dict() == Task().to_dict()


def test_diverged_lane_leaves_its_neighbours_to_the_bit() -> None:
    for net, engine, fields in (
        ("mlp-norm", "native", ASAM),
        ("cnn", "loop", SAM),
        ("tests.nets.awkward:Dropping", "vmap", SAM),
    ):
        of = task(net, 3, engine=engine, **fields, **EVERY)
        alone = pack("sgdw", of, WELL[1:]).run()
        trainer = pack("sgdw", of, [ILL, *WELL[1:]])
        first, *others = trainer.run()
        assert repr(others) == repr(alone), net
        assert first.status is Status.DIVERGED, net
        assert trainer.arena.theta.isfinite().all(), net


def test_ascent_has_length_rho_in_every_lane_and_leaves_gradients_that_are_zero_or_not_finite() -> None:
    theta = torch.linspace(-1, 1, 20).view(4, 5)
    g = torch.tensor([3.0, -4, 0, 0, 0]) * torch.tensor([[1e-15], [1e18], [0], [1]])
    g[3, 0] = torch.nan
    for adaptive in (False, True):
        moved = theta.clone()
        ascend(moved, g, 0.5, adaptive=adaptive)
        t_w = theta.abs() + 0.01 if adaptive else 1.0
        lengths = ((moved - theta) / t_w)[:2].norm(dim=1)  # ASAM: ‖T_w⁻¹ ε‖ = ρ
        assert torch.allclose(lengths, torch.tensor(0.5), atol=1e-4)
        assert torch.equal(moved[2], theta[2])
        assert torch.equal(moved[3, 1:], theta[3, 1:])


def test_metrics_of_averages_begin_with_their_first_weights() -> None:
    of = task("mlp-norm", 5, swa=3, ema=1, eval_every=1)
    (trial,) = pack("adamw", of, CELLS[:1]).run()
    known = [math.isfinite(value) for value in trial.curves["swa_val_loss"]]
    assert known == [False, False, True, True, True]
    assert all(map(math.isfinite, trial.curves["ema_val_error"]))
    assert trial.metrics["swa_val_loss"] == trial.curves["swa_val_loss"][-1] != trial.metrics["val_loss"]
    (trial,) = pack("adamw", task("mlp", 7, swa=2, ensemble=3, **RESTARTS), CELLS[:1]).run()  # 1, 3, 7
    assert ["swa_val_loss" in found for found in trial.snapshots.values()] == [False, True, True]
    first, *_, last = trial.snapshots.values()
    assert first["ensemble_val_loss"] == pytest.approx(first["val_loss"], rel=1e-6)
    assert last == trial.metrics
    assert last["ensemble_val_loss"] != last["val_loss"]


def test_run_with_averages_resumes_at_every_step_with_the_same_bits(tmp_path: Path) -> None:
    others = [("embed-norm", "vmap"), ("tests.nets.awkward:Dropping", "loop")]
    for net, engine in (("mlp-norm", "native"), *others):
        of, cells = task(net, 3, engine=engine, **SAM, **EVERY), (WELL[0], Cell(1e30, 0.25))
        whole = repr(pack("sgdw", of, cells).run())
        for step in range(1, of.steps, 1 if engine == "native" else 3):
            place = CheckpointPlace(str(tmp_path / net / str(step)), "study", "digest", 1e9)
            calls = iter(range(10**6))
            with pytest.raises(Stopped):
                pack("sgdw", of, cells).run(
                    should_stop=lambda: next(calls) == step,  # noqa: B023
                    checkpoints=Checkpoints(place, Pack(cells, 0)),
                )
            again = pack("sgdw", of, cells).run(checkpoints=Checkpoints(place, Pack(cells, 0)))
            assert repr(again) == whole, (net, step)


def test_memory_counts_the_copies_of_weights() -> None:
    of = task("mlp", 7, **RESTARTS)
    weights = 1.08 * 4 * sum(p.numel() for p in pack("sgd", of, WELL[:1]).arena.named.values())
    for fields, copies in (({}, 0), (SAM, 1), ({"swa": 1}, 2), (EVERY, 5)):
        more = pack_bytes(replace(of, **fields), 1, CPU) - pack_bytes(of, 1, CPU)
        assert more == pytest.approx(copies * weights, abs=2), fields

"""A pack that is stopped at any step and begun again ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lrwd_sweep.engine import checkpoint
from lrwd_sweep.engine.checkpoint import Checkpoints, begun_packs, delete_finished, find
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import CheckpointPlace, Pack, Stopped
from lrwd_sweep.spec.task import Task
from tests.small import CELLS, splits, task

EXPLODING = Cell(1e30, 0.25)  # diverges in its first steps
FAMILIES = [family for family in Family if not family.projected]
NAMES = [*map(str, FAMILIES), "adampw", "sgdpw", "adamw:normalized"]


def place(folder: Path, every: float = 1e9) -> CheckpointPlace:
    return CheckpointPlace(str(folder), "study", "digest", every)


def run(of: Task, name: str, cells: list[Cell], at: CheckpointPlace | None, stop: int = -1) -> list[Trial]:
    """Train; stop before step `stop`, counted from where the training begins."""
    calls = iter(range(10**6))
    trainer = PackTrainer(Optimizer.parse(name), of, cells, 3, splits())
    found = None if at is None else Checkpoints(at, Pack(tuple(cells), 3))
    return trainer.run(should_stop=lambda: next(calls) == stop, checkpoints=found)


def bits(trials: list[Trial]) -> list[str]:
    """Write all numbers, NaN too, so that equal bits are equal texts."""
    return [repr(trial) for trial in trials]


@pytest.mark.parametrize("name", NAMES)
def test_resume_at_every_step_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    of = task("mlp-norm", epochs=3, schedule="restarts", t_0=1, t_mult=2)
    cells = [*CELLS[:2], EXPLODING]
    whole = bits(run(of, name, cells, None))
    for step in range(of.steps):
        at = place(tmp_path / str(step))
        with pytest.raises(Stopped):
            run(of, name, cells, at, step)
        assert find(at)[0].step == step
        assert bits(run(of, name, cells, at)) == whole, f"stopped before step {step}"


@pytest.mark.parametrize("net", ["mlp", "cnn", "resnet20"])
@pytest.mark.parametrize("engine", ["native", "vmap", "loop"])
def test_every_engine_resumes(net: str, engine: str, tmp_path: Path) -> None:
    if (net, engine) in (("resnet20", "native"), ("resnet20", "vmap")):
        pytest.skip("resnet20 has no native program, and loop and vmap share their state with cnn")
    of = task(net, epochs=2, engine=engine)
    whole = bits(run(of, "adamw", CELLS[:2], None))
    for step in (1, of.steps_per_epoch, of.steps_per_epoch + 1):
        with pytest.raises(Stopped):
            run(of, "adamw", CELLS[:2], place(tmp_path / str(step)), step)
        assert bits(run(of, "adamw", CELLS[:2], place(tmp_path / str(step)))) == whole, step


class Remembering(nn.Module):
    """A network with state of every kind: a buffer, a frozen average, a count, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)
        self.average = nn.Parameter(torch.zeros(64), requires_grad=False)
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.drop = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits that depend on all of the state."""
        x = x.flatten(1)
        if self.training:
            self.calls += 1
            self.seen += 1
            self.average.data.lerp_(x.detach().mean(0), 0.1)
        found: torch.Tensor = self.head(self.drop(x - self.average)) * (1 + 0.01 * self.calls)
        return found + 0.01 * self.seen


def remembering() -> nn.Module:
    """Make the network."""
    return Remembering()


def test_state_of_user_network_resumes(tmp_path: Path) -> None:
    of = task(f"{__name__}:remembering", epochs=2, engine="loop")
    whole = bits(run(of, "sgdw", CELLS[:2], None))
    for step in range(1, of.steps):
        at = place(tmp_path / str(step))
        with pytest.raises(Stopped):
            run(of, "sgdw", CELLS[:2], at, step)
        assert bits(run(of, "sgdw", CELLS[:2], at)) == whole, step


def test_half_of_a_pack_resumes_from_the_whole(tmp_path: Path) -> None:
    of, cells = task("mlp", epochs=2), [*CELLS[:2], EXPLODING]
    whole = bits(run(of, "adam", cells, None))
    with pytest.raises(Stopped):
        run(of, "adam", cells, place(tmp_path), 4)
    late: list[int] = []
    trainer = PackTrainer(Optimizer.parse("adam"), of, cells[1:], 3, splits())
    found = trainer.run(
        lambda epoch, _: late.append(epoch),
        checkpoints=Checkpoints(place(tmp_path), Pack(tuple(cells[1:]), 3)),
    )
    assert bits(found) == whole[1:]
    assert late == [2], "the first epoch is not trained again"


def damage_bit(file: Path, k: int) -> None:
    content = bytearray(file.read_bytes())
    content[k % len(content)] ^= 1 << (k % 8)
    file.write_bytes(content)


def truncate(file: Path, k: int) -> None:
    file.write_bytes(file.read_bytes()[: k % file.stat().st_size])


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_damaged_checkpoint_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)  # writing may take any share of the time
    of, at = task("mlp", epochs=2), place(tmp_path, every=0)
    whole = bits(run(of, "adam", CELLS[:1], None))
    with pytest.raises(Stopped):
        run(of, "adam", CELLS[:1], at, 5)
    assert [found.step for found in find(at)] == [5, 4], "the last two are kept"
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    faults: list[Callable[[Path], None]] = [lambda f, k=k: damage_bit(f, 7919 * k) for k in range(40)]  # type: ignore[misc]
    faults += [lambda f, k=k: truncate(f, 7919 * k) for k in range(10)]  # type: ignore[misc]
    newest = find(at)[0]
    for fault in faults:
        for file, content in kept.items():
            file.write_bytes(content)
        fault(newest.tensors)
        caplog.clear()
        begun = Checkpoints(at, Pack(tuple(CELLS[:1]), 3)).newest()
        assert begun is not None
        assert begun.values["done"] == 1, "the former one is used"
        assert "damaged" in caplog.text
    for values in ({"machine": "another"}, {"format": 99}, {"cells": "?"}, {"seed": 4}):
        for file, content in kept.items():
            file.write_bytes(content)
        for found in find(at):
            edit(found.file, **values)
        assert Checkpoints(at, Pack(tuple(CELLS[:1]), 3)).newest() is None, values
        assert bits(run(of, "adam", CELLS[:1], at)) == whole, values


def test_disk_without_room_is_told_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    of = task("mlp")
    trials = run(of, "adam", CELLS[:1], place(tmp_path, every=0))
    assert bits(trials) == bits(run(of, "adam", CELLS[:1], None))
    assert caplog.text.count("No space left on device") == 1
    assert not list(tmp_path.iterdir()), "nothing half written stays"


def test_planner_sees_the_begun_packs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of, at = task("mlp"), place(tmp_path / "packs")
    for cells, step in ((CELLS[:2], 1), (CELLS[2:], 2)):
        with pytest.raises(Stopped):
            run(of, "adam", cells, at, step)
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[2:]), 3), Pack(tuple(CELLS[:2]), 3)]
    assert begun_packs(at, {3: CELLS[1:]}) == [Pack(tuple(CELLS[2:]), 3)], (
        "a finished lane is not trained again"
    )
    damage_bit(find(at)[0].tensors, 999)
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[:2]), 3)]
    assert "is damaged" in caplog.text
    with pytest.raises(Stopped):
        run(of, "adam", CELLS[2:], at, 2)
    torn = [tmp_path / "packs" / f"digest-1-000000009.{end}" for end in ("safetensors", "json.123.new")]
    for file in torn:  # of a process that was killed while it wrote
        file.write_bytes(b"")
    delete_finished(at, {3: CELLS[2:]})
    assert not any(file.exists() for file in torn)
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[2:]), 3)]
    delete_finished(at, {})
    assert not (tmp_path / "packs").exists()

"""A pack that is stopped at any step and begun again ends with the same bits."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.engine import checkpoint
from lrwd_sweep.engine.checkpoint import Checkpoints, begun_packs, delete_finished, find
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Family
from lrwd_sweep.spec.job import CheckpointPlace, Pack, Stopped
from lrwd_sweep.spec.task import Task
from tests.nets.awkward import Base
from tests.small import CELLS, pack, task

DIVERGING = [*CELLS[:2], Cell(1e30, 0.25)]  # the third in its first steps
FAMILIES = [str(family) for family in Family if not family.projected]
RESTARTS: dict[str, Any] = {"schedule": "restarts", "t_0": 1, "t_mult": 2}


def place(folder: Path, every: float = 1e9) -> CheckpointPlace:
    return CheckpointPlace(str(folder), "study", "digest", every)


def run(of: Task, name: str, cells: Any, at: Any = None, stop: int = -1, data: Any = None) -> list[str]:
    """Train; stop before step `stop`, counted from where the training begins; write all numbers, NaN too."""
    calls, trainer = iter(range(10**6)), pack(name, of, cells, seed=3, data=data)
    found = None if at is None else Checkpoints(at, Pack(tuple(cells), 3))
    return list(map(repr, trainer.run(should_stop=lambda: next(calls) == stop, checkpoints=found)))


def begun(of: Task, name: str, cells: Any, at: Any, stop: int, data: Any = None) -> Any:
    """Leave the checkpoint of a run that is stopped before a step."""
    with pytest.raises(Stopped):
        run(of, name, cells, at, stop, data)
    return at


@pytest.mark.parametrize("name", [*FAMILIES, "adampw", "sgdpw", "adamw:normalized"])
def test_resume_at_every_step_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    of = task("mlp-norm", epochs=3, **RESTARTS)
    whole = run(of, name, DIVERGING)
    for step in range(of.steps):
        at = begun(of, name, DIVERGING, place(tmp_path / str(step)), step)
        assert find(at)[0].step == step
        assert run(of, name, DIVERGING, at) == whole, f"stopped before step {step}"


class Remembering(Base):  # with state of every kind: a buffer, a frozen average, a count, dropout
    seen: Tensor

    def make(self) -> None:
        self.head, self.drop, self.calls = nn.Linear(64, 4), nn.Dropout(0.5), 0
        self.average = nn.Parameter(torch.zeros(64), requires_grad=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def logits(self, x: Tensor) -> Any:
        if self.training:
            self.calls += 1
            self.seen += 1
            self.average.data.lerp_(x.detach().mean(0), 0.1)
        return self.head(self.drop(x - self.average)) * (1 + 0.01 * self.calls) + 0.01 * self.seen


def test_every_engine_resumes_with_the_state_of_its_networks_and_methods(tmp_path: Path) -> None:
    methods: dict[str, Any] = {"sam": 0.05, "swa": 0.3, "ema": 0.7, "ensemble": 2, "epochs": 3, **RESTARTS}
    cases: list[tuple[str, str, dict[str, Any]]] = [
        *[(net, engine, {}) for net in ("mlp", "cnn") for engine in ("native", "vmap", "loop")],
        ("resnet20", "loop", {}),
        (f"{__name__}:Remembering", "loop", {}),
        ("mlp-norm", "native", methods),
        ("embed-norm", "vmap", methods),
        ("tests.nets.awkward:Dropping", "loop", methods),
    ]
    for net, engine, fields in cases:
        of = task(net, engine=engine, **fields)
        whole = run(of, "adamw", DIVERGING)
        for step in {1, of.steps_per_epoch, of.steps_per_epoch + 1, of.steps - 1}:
            at = begun(of, "adamw", DIVERGING, place(tmp_path / net / engine / str(step)), step)
            assert run(of, "adamw", DIVERGING, at) == whole, (net, engine, fields, step)


def test_half_of_a_pack_resumes_from_the_whole(tmp_path: Path) -> None:
    of, late, half = task("mlp"), list[int](), DIVERGING[1:]
    at = begun(of, "adam", DIVERGING, place(tmp_path), 4)
    resumed = Checkpoints(at, Pack(tuple(half), 3))
    found = pack("adam", of, half, seed=3).run(lambda epoch, _: late.append(epoch), checkpoints=resumed)
    assert list(map(repr, found)) == run(of, "adam", DIVERGING)[1:]
    assert late == [2], "the first epoch is not trained again"


def damage_bit(file: Path, k: int) -> None:
    content = bytearray(file.read_bytes())
    content[k % len(content)] ^= 1 << (k % 8)
    file.write_bytes(content)


def test_damaged_checkpoint_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)  # writing may take any share of the time
    of, at, only = task("mlp"), place(tmp_path, every=0), Pack(tuple(CELLS[:1]), 3)
    whole = run(of, "adam", CELLS[:1])
    begun(of, "adam", CELLS[:1], at, 5)
    assert [found.step for found in find(at)] == [5, 4], "the last two are kept"
    newest, kept = find(at)[0].tensors, {file: file.read_bytes() for file in tmp_path.iterdir()}

    def rewrite() -> None:
        for file, content in kept.items():
            file.write_bytes(content)

    for k in range(50):
        rewrite()
        if k < 40:
            damage_bit(newest, 7919 * k)
        else:
            newest.write_bytes(kept[newest][: 7919 * k % len(kept[newest])])
        caplog.clear()
        former: Any = Checkpoints(at, only).newest()
        assert former.values["done"] == 1, "the former one is used"
        assert "damaged" in caplog.text
    for values in ({"machine": "another"}, {"format": 99}, {"cells": "?"}, {"seed": 4}):
        rewrite()
        for found in find(at):
            found.file.write_text(json.dumps(json.loads(found.file.read_text()) | values))
        assert Checkpoints(at, only).newest() is None, values
        assert run(of, "adam", CELLS[:1], at) == whole, values


def test_disk_without_room_is_told_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_sync", Mock(side_effect=OSError(28, "No space left on device")))
    of = task("mlp")
    assert run(of, "adam", CELLS[:1], place(tmp_path, every=0)) == run(of, "adam", CELLS[:1])
    assert caplog.text.count("No space left on device") == 1
    assert not list(tmp_path.iterdir()), "nothing half written stays"


def test_planner_sees_the_begun_packs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    of, at = task("mlp"), place(tmp_path / "packs")
    for cells, step in ((CELLS[:2], 1), (CELLS[2:], 2)):
        begun(of, "adam", cells, at, step)
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[2:]), 3), Pack(tuple(CELLS[:2]), 3)]
    assert begun_packs(at, {3: CELLS[1:]}) == [Pack(tuple(CELLS[2:]), 3)], "the other has a finished lane"
    damage_bit(find(at)[0].tensors, 999)
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[:2]), 3)]
    assert "is damaged" in caplog.text
    begun(of, "adam", CELLS[2:], at, 2)
    torn = tmp_path / "packs" / "digest-1-000000009.json.123.new"
    torn.mkdir()  # of a process that was killed while it wrote
    torn.with_name("digest-1-000000009.safetensors").touch()
    delete_finished(at, {3: CELLS[2:]})
    assert not list(torn.parent.glob("digest-1-*"))
    assert begun_packs(at, {3: CELLS}) == [Pack(tuple(CELLS[2:]), 3)]
    delete_finished(at, {})
    assert not (tmp_path / "packs").exists()

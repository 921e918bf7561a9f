"""Optuna proposes every cell of a lattice once, and spread-out batches that a resume repeats."""

import math
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import optuna
import pytest

from lrwd_sweep.errors import NothingToReport, UsageError
from lrwd_sweep.runner import sampler
from lrwd_sweep.runner.sampler import export_to_optuna, grid_cells, propose_cells
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status, Trial

LATTICE = Lattice(tuple(2.0**k for k in range(-13, -2)), (0.0, *(2.0**k for k in range(-11, 0))))
SEEDS = (0, 1)


def bowl(cell: Cell) -> float:
    return 0.05 * (math.log2(cell.lr) + 7) ** 2 + 0.08 * (math.log2(cell.weight_decay) + 5) ** 2


def trained(cells: list[Cell], seeds: tuple[int, ...] = SEEDS) -> list[Trial]:
    lanes = product(cells, seeds)
    return [Trial(c, seed, Status.COMPLETE, {"val_loss": bowl(c) + 0.01 * seed}) for c, seed in lanes]


def propose(trials: list[Trial], count: int, metric: str = "val_loss", **options: Any) -> list[Cell]:
    return propose_cells(LATTICE, trials, count, seeds=SEEDS, metric=metric, **options)


@pytest.fixture(scope="module")
def told() -> list[Trial]:
    trials: list[Trial] = []
    for _ in range(6):
        trials += trained(propose(trials, 24))
    return trials


def nearest(cells: list[Cell]) -> float:
    points = [(math.log2(cell.lr) / 10, math.log2(cell.weight_decay) / 10) for cell in cells]
    return min(math.dist(*pair) for pair in combinations(points, 2))


def test_a_search_for_the_largest_is_that_for_the_smallest_negative(told: list[Trial]) -> None:
    turned = [replace(trial, metrics={"val_f1": -trial.metrics["val_loss"]}) for trial in told]
    lost = [Trial(cell, seed, Status.DIVERGED) for cell in propose([], 9) for seed in SEEDS]
    for more in ([], lost):
        found = propose(turned + more, 8, "val_f1", direction=Direction.MAXIMIZE)
        assert found == propose(told + more, 8)


def test_a_batch_is_spread_out(told: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    diverged = [Trial(cell, seed, Status.DIVERGED) for cell in propose([], 15) for seed in SEEDS]
    for trials in ([], told[:48], told, diverged):
        batch = propose(trials, 44)
        assert nearest(batch) >= sampler.SEPARATION
        assert all(2.0**-13 <= cell.lr <= 2.0**-3 for cell in batch)
        assert all(2.0**-11 <= cell.weight_decay <= 2.0**-1 for cell in batch)
    monkeypatch.setattr(sampler, "SEPARATION", 2.0)  # farther than any two cells of the box can be
    assert len(set(propose([], 5))) == 5


def test_proposals_follow_from_trials_and_seed(told: list[Trial], capfd: pytest.CaptureFixture[str]) -> None:
    assert propose(told, 8) == propose(list(told), 8) != propose(told, 8, seed=1)
    first = propose([], 4)
    assert not set(first) & set(propose(trained(first), 4))
    assert propose(trained([Cell(1.0, 10.0)]), 2)  # outside the box
    assert grid_cells(LATTICE) == sorted(LATTICE.cells())
    assert capfd.readouterr() == ("", "")


def test_search_draws_near_the_minimum_and_away_from_divergence(told: list[Trial]) -> None:
    first, last = (sum(t.metrics["val_loss"] for t in part) for part in (told[:48], told[-48:]))
    assert last < first / 3
    cells = propose([], 40)
    torn = [Trial(t.cell, t.seed, Status.DIVERGED) if t.cell.lr > 2.0**-8 else t for t in trained(cells)]
    diverged, healthy = (sum(c.lr > 2.0**-8 for c in propose(t, 20)) for t in (torn, trained(cells)))
    assert diverged < healthy / 2


def test_an_unfinished_cell_counts_as_running(told: list[Trial]) -> None:
    corner = Cell(2.0**-3, 2.0**-1)
    best, second = (Trial(corner, seed, Status.COMPLETE, {"val_loss": -100.0}) for seed in SEEDS)

    def visits(trials: list[Trial]) -> int:
        return sum(nearest([corner, cell]) < 0.2 for cell in propose(told[:96] + trials, 16))

    assert visits([best]) == 0 < visits([best, second])
    # TPE draws at random until it was told ten cells, so that one more or less shows.
    nine, cell = trained(propose([], 9)), Cell(2.0**-7, 2.0**-5)
    half = trained([cell], seeds=(0,))
    assert propose([*nine, *half, Trial(cell, 1, Status.FAILED)], 4) == propose([*nine, *half], 4)


CELLS = list(Lattice((0.01, 0.1), (0.0, 0.001, 0.01)).cells())
EXPORTED = [
    Trial(cell, 0, Status.COMPLETE, {"val_loss": 1.0 + k, "val_error": 0.1 * k}, {"val_loss": (3.0, 1.0 + k)})
    for k, cell in enumerate(reversed(CELLS))
] + [Trial(CELLS[0], 1, Status.DIVERGED, detail="epoch 3")]


def test_optuna_loads_an_exported_study(tmp_path: Path) -> None:
    for direction, best in ((Direction.MINIMIZE, 1.0), (Direction.MAXIMIZE, 6.0)):
        path = tmp_path / f"{direction.name}.db"
        export_to_optuna(EXPORTED, path, "digits", metric="val_loss", direction=direction)
        study = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}")
        assert (study.direction.name, study.best_value) == (direction.name, best)
    assert study.best_params == {"lr": 0.01, "weight_decay": 0.0}
    assert study.best_trial.intermediate_values == {1: 3.0, 2: 6.0}
    assert study.metric_names == ["val_loss"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6 + ["FAIL"]
    assert study.trials[-1].user_attrs == {"seed": 1, "status": "diverged", "detail": "epoch 3"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"MINIMIZE.db", "MAXIMIZE.db"}


def test_a_refused_export_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_text("precious")
    broken = [*EXPORTED, Trial(Cell(0.01, 0.001), 2, Status.COMPLETE, {})]
    for name, trials, error, message in (
        ("old.db", EXPORTED, UsageError, r"old\.db' exists already; name a new file"),
        ("a?b.db", EXPORTED, UsageError, "name another"),
        ("100%41.db", EXPORTED, UsageError, "name another"),
        ("a.db", broken, KeyError, "val_loss"),
        ("a.db", [], NothingToReport, "'digits' has no trials"),
    ):
        with pytest.raises(error, match=message):
            export_to_optuna(trials, tmp_path / name, "digits", metric="val_loss")
        assert [entry.name for entry in tmp_path.iterdir()] == ["old.db"], name
    assert (tmp_path / "old.db").read_text() == "precious"

"""What Optuna proposes: every cell of a lattice once, and spread-out batches that a resume repeats."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.errors import NothingToReport, UsageError
from lrwd_sweep.runner import sampler
from lrwd_sweep.runner.sampler import export_to_optuna, grid_cells, propose_cells
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status, Trial

LATTICE = Lattice(tuple(2.0**k for k in range(-13, -2)), (0.0, *(2.0**k for k in range(-11, 0))))
SEEDS = (0, 1)


def bowl(cell: Cell) -> float:
    """Lowest at α = 2⁻⁷, λ = 2⁻⁵."""
    return 0.05 * (math.log2(cell.lr) + 7) ** 2 + 0.08 * (math.log2(cell.weight_decay) + 5) ** 2


def trained(cells: list[Cell], seeds: tuple[int, ...] = SEEDS) -> list[Trial]:
    return [
        Trial(cell, seed, Status.COMPLETE, {"val_loss": bowl(cell) + 0.01 * seed})
        for cell in cells
        for seed in seeds
    ]


def propose(trials: list[Trial], count: int, seed: int = 0) -> list[Cell]:
    return propose_cells(LATTICE, trials, count, seeds=SEEDS, metric="val_loss", seed=seed)


def searched(batches: int, count: int) -> list[Trial]:
    """The trials of a search on the bowl."""
    trials: list[Trial] = []
    for _ in range(batches):
        trials += trained(propose(trials, count))
    return trials


def nearest(cells: list[Cell]) -> float:
    """Least distance between two cells, in log axes where the lattice's sides are 1."""
    return min(
        math.hypot(math.log2(a.lr / b.lr), math.log2(a.weight_decay / b.weight_decay)) / 10
        for a, b in combinations(cells, 2)
    )


@given(
    st.lists(st.floats(1e-6, 1e2), min_size=1, max_size=8),
    st.lists(st.floats(0, 1e2), min_size=1, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_grid_is_the_lattice_in_its_order(lrs: list[float], decays: list[float]) -> None:
    lattice = Lattice(tuple(lrs), tuple(decays))
    assert grid_cells(lattice) == list(lattice.cells())


def test_batch_lies_in_the_positive_box() -> None:
    for cell in propose(searched(2, 16), 32):
        assert 2.0**-13 <= cell.lr <= 2.0**-3
        assert 2.0**-11 <= cell.weight_decay <= 2.0**-1


@pytest.mark.parametrize("batches", [0, 1, 6])
def test_members_of_a_batch_keep_their_distance(batches: int) -> None:
    assert nearest(propose(searched(batches, 24), 44)) >= sampler.SEPARATION


def test_without_liar_and_distance_a_batch_piles_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told = searched(6, 24)
    spread = nearest(propose(told, 44))
    tpe = optuna.samplers.TPESampler
    monkeypatch.setattr(sampler, "SEPARATION", 0.0)
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda seed: tpe(seed=seed, constant_liar=False))
    assert nearest(propose(told, 44)) < spread / 3


def test_crowded_batch_is_filled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "SEPARATION", 2.0)  # farther than any two cells of the box can be
    assert len(set(propose([], 5))) == 5


def test_same_trials_give_the_same_batch() -> None:
    trials = searched(2, 12)
    assert propose(trials, 8) == propose(list(trials), 8)
    assert propose(trials, 8) != propose(trials, 8, seed=1)


def test_second_random_batch_differs_from_the_first() -> None:
    first = propose([], 4)
    assert not set(first) & set(propose(trained(first), 4))


def test_search_draws_near_the_minimum() -> None:
    trials = searched(5, 16)
    first, last = trials[: 16 * 2], trials[-16 * 2 :]
    mean = [sum(trial.metrics["val_loss"] for trial in part) / 32 for part in (first, last)]
    assert mean[1] < mean[0] / 3


def test_search_keeps_away_from_where_it_diverged() -> None:
    cells = propose([], 40)
    torn = [Trial(t.cell, t.seed, Status.DIVERGED) if t.cell.lr > 2.0**-8 else t for t in trained(cells)]
    diverged = sum(cell.lr > 2.0**-8 for cell in propose(torn, 20))
    healthy = sum(cell.lr > 2.0**-8 for cell in propose(trained(cells), 20))
    assert diverged < healthy / 2


def test_search_starts_even_where_everything_diverged() -> None:
    torn = [Trial(cell, seed, Status.DIVERGED) for cell in propose([], 15) for seed in SEEDS]
    assert nearest(propose(torn, 10)) >= sampler.SEPARATION


def test_value_of_an_unfinished_cell_attracts_nobody() -> None:
    corner = Cell(2.0**-3, 2.0**-1)
    told = searched(3, 16)
    marvel, second = (Trial(corner, seed, Status.COMPLETE, {"val_loss": -100.0}) for seed in SEEDS)

    def visits(trials: list[Trial]) -> int:
        return sum(nearest([corner, cell]) < 0.2 for cell in propose(told + trials, 16))

    assert visits([marvel]) == 0 < visits([marvel, second])


def test_failed_lane_is_as_good_as_not_trained() -> None:
    # TPE draws at random until it was told ten cells, so that one more or less shows.
    told, cell = trained(propose([], 9)), Cell(2.0**-7, 2.0**-5)
    half = trained([cell], seeds=(0,))
    assert propose([*told, *half, Trial(cell, 1, Status.FAILED)], 4) == propose([*told, *half], 4)


def test_next_batch_keeps_away_from_one_in_training() -> None:
    told = searched(6, 24)
    begun = propose(told, 24)
    following = propose(told + trained(begun, seeds=(0,)), 24)
    assert min(nearest([a, b]) for a in begun for b in following) > 0.005


def test_cells_outside_the_box_are_told_at_its_edge() -> None:
    assert propose(trained([Cell(1.0, 10.0)]), 2)


def test_proposing_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    grid_cells(LATTICE)
    propose(searched(1, 12), 3)
    assert capfd.readouterr() == ("", "")


class TestExport:
    """A study in Optuna's own format."""

    def trials(self) -> list[Trial]:
        cells = list(Lattice((0.01, 0.1), (0.0, 0.001, 0.01)).cells())
        return [
            *(
                Trial(
                    cell,
                    0,
                    Status.COMPLETE,
                    {"val_loss": 1.0 + k, "val_error": 0.1 * k},
                    {"val_loss": (3.0, 1.0 + k)},
                )
                for k, cell in enumerate(reversed(cells))
            ),
            Trial(cells[0], 1, Status.DIVERGED, detail="epoch 3"),
        ]

    def test_optuna_loads_what_was_exported(self, tmp_path: Path) -> None:
        path = tmp_path / "optuna.db"
        export_to_optuna(self.trials(), path, "digits", metric="val_loss")
        study = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}")
        assert study.best_value == 1.0
        assert study.best_params == {"lr": 0.1, "weight_decay": 0.01}
        assert study.best_trial.intermediate_values == {0: 3.0, 1: 1.0}
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6 + ["FAIL"]
        assert study.trials[-1].user_attrs == {"seed": 1, "status": "diverged"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["optuna.db"]

    def test_what_is_maximised_here_is_maximised_there(self, tmp_path: Path) -> None:
        path = tmp_path / "optuna.db"
        export_to_optuna(self.trials(), path, "f1", metric="val_loss", direction=Direction.MAXIMIZE)
        study = optuna.load_study(study_name="f1", storage=f"sqlite:///{path}")
        assert study.direction.name == "MAXIMIZE"
        assert study.best_value == 6.0

    def test_existing_file_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "optuna.db"
        path.write_text("precious")
        with pytest.raises(UsageError, match=r"optuna\.db' exists already; name a new file"):
            export_to_optuna(self.trials(), path, "digits", metric="val_loss")
        assert path.read_text() == "precious"

    @pytest.mark.parametrize("name", ["a?b.db", "100%41.db"])
    def test_path_that_a_url_would_change_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="name another"):
            export_to_optuna(self.trials(), tmp_path / name, "digits", metric="val_loss")
        assert not list(tmp_path.iterdir())

    def test_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="nowhere' is no directory that can be written"):
            export_to_optuna(self.trials(), tmp_path / "nowhere" / "a.db", "digits", metric="val_loss")

    def test_interrupted_export_leaves_no_file(self, tmp_path: Path) -> None:
        broken = [*self.trials(), Trial(Cell(0.01, 0.001), 2, Status.COMPLETE, {})]
        with pytest.raises(KeyError):
            export_to_optuna(broken, tmp_path / "a.db", "digits", metric="val_loss")
        assert not list(tmp_path.iterdir())

    def test_nothing_is_not_exported(self, tmp_path: Path) -> None:
        with pytest.raises(NothingToReport, match="'digits' has no trials"):
            export_to_optuna([], tmp_path / "a.db", "digits", metric="val_loss")

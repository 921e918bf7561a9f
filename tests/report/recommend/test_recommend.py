"""The recommended cells are the best one and the one with good neighbors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.optimizer import DecayRule, Optimizer
from lrwd_sweep.science.surface import CellStatus, Float, blocks, most_forgiving
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import lost, study, surface, valley


def with_values(values: Float, decays: tuple[float, ...] | None = None) -> Result:
    """Return the example study with other values in its 25 cells."""
    base = study()
    lattice = replace(base.spec.lattice, weight_decay=decays or base.spec.lattice.weight_decay)
    trials = [
        Trial(cell, seed, base.trials[-1].status, {"val_loss": float(value) + 0.001 * seed})
        for cell, value in zip(lattice.cells(), values.flat, strict=True)
        for seed in base.spec.seeds
    ]
    return result(base.name, replace(base.spec, lattice=lattice), base.created, trials)


def test_block_is_a_cell_and_its_eight_neighbours_and_the_most_forgiving_has_the_best() -> None:
    i, j = np.indices((5, 5))
    bowl: Float = np.asarray(0.2 + 0.01 * ((i - 2.0) ** 2 + (j - 2.0) ** 2), dtype=np.float64)
    (only,) = recommendations(with_values(bowl)).cells
    assert (only.role, round(only.value, 9)) == ("best and most forgiving", 0.201)
    bowl[1, 3], bowl[0, 4] = 0.1, 1.0
    best, forgiving = recommendations(with_values(bowl)).cells
    lattice = study().spec.lattice
    assert (best.role, best.cell.lr) == ("best", lattice.lr[1])
    assert (forgiving.role, forgiving.cell.lr) == ("most forgiving", lattice.lr[2])
    assert best.around is not None
    assert forgiving.around is not None
    assert forgiving.around.mean < best.around.mean
    assert best.around.worst == pytest.approx(1.001)
    values = valley(6, 7)
    mean, worst = blocks(surface(values))
    assert mean[2, 3] == pytest.approx(values[1:4, 2:5].mean())
    assert worst[2, 3] == values[1:4, 2:5].max()
    assert np.isfinite(mean).sum() == np.isfinite(mean[1:-1, 1:-1]).sum() == 4 * 5
    values[:, 0] = 0.0  # the baseline is not a neighbor
    mean, _ = blocks(surface(values, baseline=True))
    assert np.isnan(mean[:, :2]).all()
    assert np.isfinite(mean[2, 2])


@given(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["diverged", "capped", "missing", "failed"]))
def test_cell_beside_one_that_does_not_count_has_no_block(i: int, j: int, how: str) -> None:
    found = surface(valley(5, 5), cap=10.0)
    found.values[i, j] = 10.0 if how == "capped" else np.nan
    if how != "capped":
        found.lanes[i, j] = CellStatus(how).value
    mean, _ = blocks(found)
    rows, columns = np.indices((5, 5))
    beside = (abs(rows - i) <= 1) & (abs(columns - j) <= 1)
    assert np.isnan(mean[beside]).all()
    assert np.isfinite(mean[1:-1, 1:-1][~beside[1:-1, 1:-1]]).all()


@given(st.integers(0, 2**32 - 1))
def test_most_forgiving_cell_has_the_best_block(stream: int) -> None:
    values = np.random.default_rng(stream).random((5, 6))
    index = most_forgiving(surface(values))
    assert index is not None
    i, j = index
    others = [values[p - 1 : p + 2, q - 1 : q + 2].mean() for p in range(1, 4) for q in range(1, 5)]
    assert values[i - 1 : i + 2, j - 1 : j + 2].mean() == pytest.approx(min(others))
    assert most_forgiving(surface(valley(2, 5))) is None


def test_study_is_recommended_as_far_as_it_is_known() -> None:
    found = recommendations(study(kind=Kind.TPE))
    assert [cell.role for cell in found.cells] == ["best"]
    assert "search" in found.why_not_forgiving
    found = recommendations(lost())
    assert (found.cells, found.why_not_forgiving) == ((), "no cell counts")
    for rule in DecayRule:
        found = recommendations(study(optimizer=Optimizer(None, rule, "lion"), kind=Kind.IMPORT))
        assert found.cells[0].lines[0].code.startswith("dict(lr="), rule
    decays = (0.0, 0.1, 0.2, 0.3, 0.4)
    best, *_ = recommendations(with_values(np.tile(decays, (5, 1)), decays)).cells
    assert (best.cell.weight_decay, best.around, best.timescale_epochs, len(best.lines)) == (0, None, None, 1)
    (best, *_) = recommendations(study(kind=Kind.IMPORT)).cells
    assert best.timescale_epochs is None
    assert best.timescale_steps == pytest.approx(1 / best.cell.weight_decay)
    (best, *_) = recommendations(study()).cells
    assert best.timescale_epochs == pytest.approx(1 / best.cell.weight_decay / 6)
    base = study(optimizer="adampw")
    trials = [replace(trial, curves={"projection": (0.5, 1.0)}) for trial in base.trials]
    counted, *_ = recommendations(result("x", base.spec, "", trials)).cells
    lam = counted.cell.weight_decay
    assert counted.timescale_steps == pytest.approx(1 / (lam * (0.25 + 0.75 * 0.1)))
    assert counted.timescale_steps_projected is None
    unknown, *_ = recommendations(base).cells
    assert (unknown.timescale_steps, unknown.timescale_steps_projected) == pytest.approx((1 / lam, 10 / lam))

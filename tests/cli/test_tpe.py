"""`tpe`: a total of points, reached once, over as many runs as it takes."""

from __future__ import annotations

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAMW, STORE, TINY, Run

NAME = f"{ADAMW}-tpe"


def points() -> list[Cell]:
    """The points of the search in the order of storing."""
    with open_store(STORE, write=False) as store:
        return [trial.cell for trial in store.trials(NAME)]


def test_a_search_continues_to_the_total(run: Run) -> None:
    first = run("tpe", *TINY, "--trials", "5")
    assert first.code == 0
    before = points()
    assert len(set(before)) == len(before) == 5
    second = run("tpe", *TINY, "--trials", "8")
    assert second.code == 0
    assert f"{NAME}: 5 of 8 points are in the store; training the 3 that are missing" in second.err
    assert points()[:5] == before
    assert len(set(points())) == 8
    third = run("tpe", *TINY, "--trials", "8")
    assert third.err == f"{NAME}: 8 of 8 points are in the store; nothing to train\n"
    assert third.out == second.out == run("report").out
    assert "best of adamw" in run("tpe", *TINY, "--trials", "8", "--full").out
    more = run("tpe", *TINY, "--trials", "9", "--seeds", "2")
    assert f"{NAME}: 0 of 9 points are in the store with all 2 seeds; training the 9 that" in more.err


def test_points_lie_in_the_box_of_the_axes(run: Run) -> None:
    run("tpe", *TINY, "--trials", "6", "--wd", "0,2^-8:2^-6")
    for cell in points():
        assert 2**-8 <= cell.lr <= 2**-6
        assert 2**-8 <= cell.weight_decay <= 2**-6


def test_a_search_and_a_grid_are_different_studies(run: Run) -> None:
    assert run("tpe", *TINY, "--trials", "3", "--study-name", "mine").code == 0
    refused = run("grid", *TINY, "--study-name", "mine")
    assert refused.code == 2
    assert "kind: tpe, grid" in refused.err

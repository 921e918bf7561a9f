"""A plan holds every lane once, in packs that end at about the same time."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.runner.packing import plan
from lrwd_sweep.science.lattice import Cell


def cells(count: int) -> list[Cell]:
    return [Cell(1 + k, 1) for k in range(count)]


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 200), min_size=1, max_size=5), st.integers(1, 64))
def test_plan_holds_every_lane_once_in_packs_of_like_size(sizes: dict[int, int], lanes: int) -> None:
    todo = {seed: cells(size) for seed, size in sizes.items()}
    packs = plan(todo, lanes)
    planned = [(cell, pack.seed) for pack in packs for cell in pack.cells]
    assert sorted(planned) == sorted((cell, seed) for seed, found in todo.items() for cell in found)
    assert [len(pack.cells) for pack in packs] == sorted((len(pack.cells) for pack in packs), reverse=True)
    for seed, size in sizes.items():
        of_seed = [len(pack.cells) for pack in packs if pack.seed == seed]
        assert ceil(size / lanes) <= len(of_seed) <= ceil(size / lanes) + 1
        assert max(of_seed) <= lanes
        assert max(of_seed) <= 2 * min(of_seed) + 1


def test_no_slot_waits_for_another_that_has_a_whole_pack_to_train() -> None:
    for count, most in ((9, 14), (7, 11), (12, 18), (121, 182), (1, 2)):
        loads = [0, 0]
        for pack in plan(dict.fromkeys(range(3), cells(count)), min(16, ceil(3 * count / 2)), slots=2):
            loads[loads.index(min(loads))] += len(pack.cells)
        assert max(loads) == most, count

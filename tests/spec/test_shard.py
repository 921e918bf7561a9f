"""Every lane belongs to one shard, on every machine and in every lattice."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.job import WHOLE, Shard, find_parts
from tests.refusal import assert_raises
from tests.specs import lattices, seeds


@given(lattices, lattices, seeds, st.integers(1, 12))
def test_shards_are_disjoint_and_cover_every_lattice(
    small: Lattice, other: Lattice, seeds: tuple[int, ...], parts: int
) -> None:
    large = small.union(other)
    todo = unfinished(large.cells(), seeds, ())
    shares = [Shard(part, parts).among(todo) for part in range(1, parts + 1)]
    lanes = [(cell, seed) for share in shares for seed, cells in share.items() for cell in cells]
    assert sorted(lanes) == sorted((cell, seed) for seed, cells in todo.items() for cell in cells)
    for part, share in enumerate(shares, 1):
        shard = Shard(part, parts)
        assert shard.count(large, seeds) == sum(map(len, share.values()))
        before = shard.among(unfinished(small.cells(), seeds, ()))
        assert all(set(cells) <= set(share[seed]) for seed, cells in before.items()), "a lane moved"
    assert WHOLE.among(todo) == todo


def test_a_lane_keeps_its_shard_from_version_to_version() -> None:
    cells = [Cell(2.0**-7, 0.1), Cell(0.001, 0.0), Cell(1 / 3, 1e-12)]
    found = [[k for k in range(1, 9) if Shard(k, 8).holds(cell, seed)] for cell in cells for seed in (0, 1)]
    assert found == [[7], [7], [2], [8], [3], [8]]


def test_the_number_of_shards_is_told_from_their_lanes() -> None:
    lattice = Lattice(tuple(2.0**-k for k in range(8)), tuple(2.0**-k for k in range(8)))
    every = [(cell, seed) for cell in lattice.cells() for seed in range(3)]
    for parts in (1, 2, 7, 24):
        shares = [[lane for lane in every if Shard(k, parts).holds(*lane)] for k in range(1, parts + 1)]
        assert find_parts(shares) == find_parts(shares[1:] or shares) == parts
    assert find_parts([every[:1], [], every[9:12]]) == 1, "too few lanes to tell"


def test_anything_else_than_a_part_is_refused() -> None:
    given: list[Any] = [" 3/8 ", (3, 8), [3, 8]]
    assert {Shard.of(one) for one in given} == {Shard(3, 8)}
    for bad in ("0/3", "4/3", "a/b", "1/0", "", "1", "1/2/3", "-1/2", "1.0/2", "1/10001", "¹/3", (1.0, 2), 3):
        assert_raises(r"^shard=.* is not the K-th of N parts.*shard='1/4'$", Shard.of, bad)

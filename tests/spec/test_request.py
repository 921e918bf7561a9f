"""A request resolves its preset and its values once; every lane belongs to one shard of it."""

import functools
import sys
import types
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Cell, Lattice, canonical, format_axis
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.field import name_of
from lrwd_sweep.spec.job import WHOLE, Shard, find_parts
from lrwd_sweep.spec.request import Request, axis
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.specs import lattices, seeds

VALUES = st.lists(st.floats(1e-12, 1e12).map(canonical), min_size=1, max_size=8, unique=True)


class Net:
    def again(self) -> None:
        """A method, which has no name of its own."""


@given(VALUES, st.randoms(use_true_random=False))
def test_an_axis_of_numbers_is_the_one_that_is_written(values: list[float], order: object) -> None:
    order.shuffle(values)  # type: ignore[attr-defined]
    written = axis(format_axis(tuple(sorted(values))), "lr")
    assert axis(values, "lr") == axis(np.array(values), "lr") == axis(iter(values), "lr") == written


def test_an_axis_may_be_in_averaging_times_and_what_is_not_an_axis_is_refused() -> None:
    assert axis([0.1, 0, 1], "weight_decay") == axis("0,0.1,1", "weight_decay")  # with a baseline
    bad: Any = [(0.1, "is not an axis"), ([0.1, None], "is not an axis"), ([], "empty"), ([1, 1], "twice")]
    for values, said in (*bad, ([0.1, float("nan")], "not a positive number"), ([0, 0.1, 1], "positive")):
        assert_raises(said, axis, values, "lr")
    request = Request.of(weight_decay="0,tau:0.5,5", epochs=10)  # 60 steps
    for name, unit in (("adamw", 1 / 60), ("sgdw:fixed", 1 / 60), ("adamw:normalized", 60**-0.5)):
        spec = request.spec(request.variant(name))
        expected = (0.0, canonical(unit / 5), canonical(unit / 0.5))
        assert spec.lattice.weight_decay == expected, name
        assert spec.tau_of_one == pytest.approx(unit), name
    for name, remedy in (("adam", "adamw"), ("sgdw:lr-scaled", "sgdw,"), ("adamp", "adampw")):
        assert_raises(f"write {remedy}", request.spec, request.variant(name))
    for text, said in (("tau:0,1", "τ = 0"), ("tau:tau:1,2", "not a number"), ("tau:2,1", "unordered")):
        assert_raises(said, Request.of, weight_decay=text)


def test_values_are_held_as_their_fields_hold_them_and_tasks_are_completed() -> None:
    own = Request.of(data="package.data:load")
    assert_raises(r"sizes of package\.data:load are not known", own.spec, own.variant("adam"))
    sizes = replace(Task().data_set, train=80)
    spec = own.spec(own.variant("adam"), complete=lambda task: replace(task, sizes=sizes))
    assert (spec.task or Task()).steps_per_epoch == 1
    later = Request.of(first_seed=3, seeds=2)
    assert later.spec(later.variant("adam")).seeds == (3, 4)
    found = Request.of(epochs=np.int64(3), momentum=np.float32(0.5), nesterov=np.True_, schedule=None)
    kinds = {name: type(value) for name, value in found.overrides}
    assert kinds == {"epochs": int, "momentum": float, "nesterov": bool}
    assert Request.of(net_options={"width": 8}).overrides == (("net_options", '{"width": 8}'),)
    for given_, said in (
        ({"preset": 3}, "^preset=3 is not text"),
        ({"seeds": 0}, "^seeds=0 is not a whole number from 1 to 10000"),
        ({"seeds": (1, 2)}, "^seeds=.* is not a whole number"),
        ({"cap": float("nan")}, "^cap=nan is not a finite number; write for example cap=2.5"),
    ):
        assert_raises(said, Request.of, **given_)


def test_only_an_importable_function_becomes_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of("net", "./my_net.py:Net") == "./my_net.py:Net"
    assert name_of("net", Net) == f"{__name__}:Net"
    assert name_of("net", Fraction.from_float) == "fractions:Fraction.from_float"
    here = types.ModuleType("__main__")
    exec("class Net: pass", here.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", here)  # a notebook, in which only this process finds it
    for one in (lambda: None, functools.partial(Net), Net(), Net().again, 5, here.__dict__["Net"]):
        assert_raises(r"%%writefile my.py\) and give net='\./my\.py:NAME'", name_of, "net", one)
    old = Net
    monkeypatch.setattr(sys.modules[__name__], "Net", type("Net", (), {}))
    assert_raises("cannot be found again", name_of, "net", old)


@given(lattices, lattices, seeds, st.integers(1, 12))
def test_shards_cover_every_lattice(
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


def test_a_lane_keeps_its_shard_from_version_to_version_and_lanes_tell_the_number_of_shards() -> None:
    cells = [Cell(2.0**-7, 0.1), Cell(0.001, 0.0), Cell(1 / 3, 1e-12)]
    found = [[k for k in range(1, 9) if Shard(k, 8).holds(cell, seed)] for cell in cells for seed in (0, 1)]
    assert found == [[7], [7], [2], [8], [3], [8]]
    lattice = Lattice(tuple(2.0**-k for k in range(8)), tuple(2.0**-k for k in range(8)))
    every = [(cell, seed) for cell in lattice.cells() for seed in range(3)]
    for parts in (1, 2, 7, 24):
        shares = [[lane for lane in every if Shard(k, parts).holds(*lane)] for k in range(1, parts + 1)]
        assert find_parts(shares) == find_parts(shares[1:] or shares) == parts
    assert find_parts([every[:1], [], every[9:12]]) == 1, "too few lanes to tell"
    given: Any = (" 3/8 ", (3, 8), [3, 8])
    assert {Shard.of(one) for one in given} == {Shard(3, 8)}
    for bad in ("0/3", "4/3", "a/b", "1/0", "", "1", "1/2/3", "-1/2", "1.0/2", "1/10001", "¹/3", (1.0, 2), 3):
        assert_raises(r"^shard=.* is not the K-th of N parts.*shard='1/4'$", Shard.of, bad)

"""A request resolves to specifications, each a study's identity, which must not change, and its extent."""

import functools
import json
import math
import re
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
from lrwd_sweep.science.optimizer import Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction, unfinished
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.field import name_of
from lrwd_sweep.spec.job import WHOLE, Shard, find_parts
from lrwd_sweep.spec.request import Request, axis
from lrwd_sweep.spec.study import Kind, StudySpec, labels
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.specs import LATTICE, imported, lattices, metrics, ours, seeds, spec

OWN: Any = {
    "net": "./my_net.py:Net",
    "data": "package.data:load",
    "sizes": DataSet(500, 90, 0, 3, (4,)),
    "net_options": '{"width": 3}',
    "code": (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "ba9876543210")),
}
IDENTITY: tuple[tuple[str, Any], ...] = (
    *(("kind", Kind.TPE), ("optimizer", "adam"), ("optimizer", "adamw:lr-scaled"), ("net", "mlp")),
    *(("epochs", 61), ("batch_size", 32), ("schedule", Schedule.STEP), ("warmup", 3), ("t_0", 5)),
    *(("t_mult", 3), ("eta_min", 0.1), ("decay_all", False), ("augment", "crop-flip"), ("beta1", 0.8)),
    *(("beta2", 0.99), ("eps", 1e-6), ("precision", "bfloat16")),
)
VALUES = st.lists(st.floats(1e-12, 1e12).map(canonical), min_size=1, max_size=8, unique=True)


def stored(spec: StudySpec) -> StudySpec:
    return StudySpec.from_dict(json.loads(json.dumps(spec.to_dict())))


@given(ours | imported)
def test_spec_survives_json(spec: StudySpec) -> None:
    assert stored(spec) == spec


@given(ours)
def test_hyperparameters_of_other_families_do_not_matter(spec: StudySpec) -> None:
    names = ("momentum", "beta1", "beta2", "eps")
    changed: Any = {name: 0.123 for name in names if spec.optimizer.family not in users_of(name)}
    other = replace(spec, task=(spec.task or Task()).changed(**changed))
    assert (spec.differences(other), other.default_name) == ([], spec.default_name)


def test_only_a_change_of_identity_shows_and_has_another_name() -> None:
    for name, value in IDENTITY:
        common = {"schedule": Schedule.RESTARTS} if name in ("t_0", "t_mult") else {}
        before, changed = spec(**common), spec(**common | {name: value})
        differences = before.differences(changed)
        assert any(difference.startswith(f"{name}: ") for difference in differences), name
        assert changed.default_name != before.default_name, name
        turned = [re.sub(": (.*), (.*)", r": \2, \1", text) for text in changed.differences(before)]
        assert differences == turned, name
    assert not {"loss", "net_options", "code", "engine", "sizes"} & spec(net="cnn").identity().keys()
    assert {"net", "epochs", "t_0", "momentum", "precision"} <= Task().to_dict().keys()  # at defaults too
    for other in (
        *(spec(lattice=Lattice((1.0,), (2.0,))), spec(seeds=(7,)), spec(metric="val_error")),
        *(spec(t_0=5, t_mult=3), spec(engine="loop")),
        replace(spec(), given_cap=2.5, direction=Direction.MAXIMIZE),
    ):
        assert (spec().differences(other), other.default_name) == ([], spec().default_name), other
        assert stored(other) == other
    assert (spec().extended(other).given_cap, spec().extended(other).direction) == (2.5, "maximize")


def test_names_are_readable_and_side_by_side_say_what_differs() -> None:
    assert spec().default_name == "digits-mlp-norm-adamw-cosine-60ep-b64"
    changed = spec(optimizer="sgdw:lr-scaled", momentum=0.5, kind=Kind.TPE)
    assert changed.default_name == "digits-mlp-norm-sgdw-lr-scaled-cosine-60ep-b64-mu0.5-tpe"
    assert spec(precision="bfloat16").default_name == f"{spec().default_name}-bfloat16"
    mine = spec(**OWN | {"net": "../nets/my_net.py:Net"}, loss="./my_loss.py:f")
    assert stored(mine) == mine
    assert mine.default_name == "package.data-load-my_net-net-adamw-cosine-60ep-b64-my_loss-f-width-3"
    assert spec(optimizer="adamwr", schedule=Schedule.RESTARTS).title == "adamwr"
    assert spec(optimizer="adamwr").title == "adamw:normalized"
    adams = [spec(optimizer="adam", **given) for given in ({}, {"schedule": Schedule.STEP}, {"epochs": 1})]
    names = ["adam, 60 epochs, cosine", "adam, 60 epochs, step", "adam, 1 epoch, cosine", "sgd"]
    assert labels([*adams, spec(optimizer="sgd", epochs=9)]) == names
    assert "m ← β₁m + g" in spec(optimizer="sgdw", momentum_form="torch").formula
    assert spec(optimizer="adamw", nesterov=True).formula == spec(optimizer="adamw").formula


@given(ours, lattices, seeds, metrics)
def test_extension_holds_both(spec: StudySpec, lattice: Lattice, more: tuple[int, ...], metric: str) -> None:
    other = StudySpec(spec.kind, spec.optimizer, lattice, more, metric, spec.task)
    extended = spec.extended(other)
    assert {*spec.lattice.cells(), *lattice.cells()} <= set(extended.lattice.cells())
    assert extended.seeds == tuple(sorted({*spec.seeds, *more}))
    assert extended.metric == metric
    assert extended.differences(spec) == []
    assert extended.extended(other) == extended


def test_errors_are_capped_at_chance_and_impossible_metrics_seeds_and_caps_are_refused() -> None:
    assert_raises("unknown metric 'val_los'; did you mean val_loss", spec, metric="val_los")
    assert_raises("seeds=0 trains nothing", spec, seeds=())
    for cap in (math.nan, math.inf, -math.inf):
        assert_raises(r"cap=.* is not finite; leave it out for no cap", replace, spec(), given_cap=cap)
    foreign = StudySpec(Kind.IMPORT, Optimizer.parse("adam"), LATTICE, (0,), "perplexity", None)
    assert [found.cap for found in (spec(), foreign, spec(**OWN, loss="./my_loss.py:f"))] == [None] * 3
    error = spec(metric="val_error")
    capped = (replace(spec(), given_cap=2.5), replace(error, given_cap=0.5), error)
    assert [found.cap for found in capped] == [2.5, 0.5, 0.9]
    assert spec(**OWN, loss="./my_loss.py:f", metric="val_error").cap == pytest.approx(2 / 3)


def test_other_code_or_data_is_another_study_and_another_engine_is_not() -> None:
    code = (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "000000000000"))
    other = ["code of package.data:load: ba9876543210, 000000000000"]
    assert spec(**OWN).differences(spec(**OWN | {"code": code})) == other
    unknown, one, two = (spec(**OWN | {"sizes": DataSet(500, 90, 0, 3, (4,), d)}) for d in ("", "1a", "2b"))
    changed = "data of package.data:load, which changed or, unless seeded, is other every time: 1a, 2b"
    assert one.differences(two) == [changed]
    assert not one.differences(unknown) + unknown.differences(one)
    for kept in (unknown.extended(one), one.extended(unknown), one.extended(one)):
        assert stored(kept).differences(two)
    begun = Task(engine="vmap")
    assert Task().resuming(begun).engine == "vmap"
    assert Task(engine="loop").resuming(begun).engine == "loop"
    mlp = Task(**OWN).changed(net="mlp")
    assert (mlp.net_options, mlp.code, mlp.sizes) == ("", (), OWN["sizes"])
    assert Task(**OWN).changed(data="digits").sizes == DataSet.known("digits")
    native = spec(engine="native")
    assert native.extended(spec()).task == spec().extended(native).task == native.task
    assert spec(engine="loop") == spec(engine="vmap")


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
        found = request.spec(request.variant(name))
        expected = (0.0, canonical(unit / 5), canonical(unit / 0.5))
        assert found.lattice.weight_decay == expected, name
        assert found.tau_of_one == pytest.approx(unit), name
    for name, remedy in (("adam", "adamw"), ("sgdw:lr-scaled", "sgdw,"), ("adamp", "adampw")):
        assert_raises(f"write {remedy}", request.spec, request.variant(name))
    for text, said in (("tau:0,1", "τ = 0"), ("tau:tau:1,2", "not a number"), ("tau:2,1", "unordered")):
        assert_raises(said, Request.of, weight_decay=text)


def test_values_are_held_as_their_fields_hold_them_and_tasks_are_completed() -> None:
    own = Request.of(data="package.data:load")
    assert_raises(r"sizes of package\.data:load are not known", own.spec, own.variant("adam"))
    sizes = replace(Task().data_set, train=80)
    whole = own.spec(own.variant("adam"), complete=lambda task: replace(task, sizes=sizes))
    assert (whole.task or Task()).steps_per_epoch == 1
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
def test_shards_cover_a_lattice(small: Lattice, other: Lattice, seeds: tuple[int, ...], parts: int) -> None:
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

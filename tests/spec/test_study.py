"""A specification holds a study's identity, which must not change, and its extent, which may grow."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import DataSet
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

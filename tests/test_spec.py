"""A specification is complete: what a study is, what may grow, and what may not change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.catalog import METRICS, NETWORKS
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Lattice
from lrwd_sweep.optimizer import Optimizer, optimizer_names
from lrwd_sweep.schedule import Schedule
from lrwd_sweep.spec import Kind, StudySpec, Training

LATTICE = Lattice((0.1, 0.2), (0.0, 0.01))

positive = st.floats(1e-12, 1e6)
axes = st.lists(positive, min_size=1, max_size=4).map(tuple)
lattices = st.builds(Lattice, axes, axes)
seeds = st.sets(st.integers(0, 20), min_size=1, max_size=4).map(lambda found: tuple(sorted(found)))
trainings = st.builds(
    Training,
    net=st.sampled_from(sorted(NETWORKS)),
    epochs=st.integers(1, 2000),
    batch_size=st.integers(2, 400),
    schedule=st.sampled_from(Schedule),
    momentum=st.floats(0, 0.999),
    eps=st.floats(0, 1),
)
optimizers = st.sampled_from(optimizer_names()).map(Optimizer.parse)
ours = st.builds(
    StudySpec,
    st.sampled_from([Kind.GRID, Kind.TPE]),
    optimizers,
    lattices,
    seeds,
    st.sampled_from(sorted(METRICS)),
    trainings,
)
imported = st.builds(
    StudySpec,
    st.just(Kind.IMPORT),
    optimizers | st.builds(Optimizer, st.none(), st.sampled_from(DecayRule), st.text(min_size=1)),
    lattices,
    seeds,
    st.text(min_size=1),
    st.none(),
)


def spec(**changes: Any) -> StudySpec:
    """A study of the digits, but for `changes`: fields of StudySpec, or of its Training."""
    mine = {name: changes.pop(name) for name in ("kind", "lattice", "seeds", "metric") if name in changes}
    optimizer = Optimizer.parse(changes.pop("optimizer", "adamw"))
    parts: dict[str, Any] = {"kind": Kind.GRID, "lattice": LATTICE, "seeds": (0, 1), "metric": "val_loss"}
    return StudySpec(optimizer=optimizer, training=Training(**changes), **parts | mine)


IDENTITY_CHANGES = [
    {"kind": Kind.TPE},
    {"optimizer": "adam"},
    {"optimizer": "adamw:lr-scaled"},
    {"net": "mlp"},
    {"epochs": 61},
    {"batch_size": 32},
    {"schedule": Schedule.STEP},
    {"momentum": 0.8},
    {"beta1": 0.8},
    {"beta2": 0.99},
    {"eps": 1e-6},
]


class TestTraining:
    """All that decides a lane's result besides its cell and seed."""

    def test_steps_leave_out_the_incomplete_batch(self) -> None:
        training = Training(epochs=60, batch_size=64)
        assert (training.steps_per_epoch, training.steps) == (6, 360)

    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            ({"epochs": 0}, "--epochs 0 is not a whole number of at least 1"),
            ({"epochs": 1.5}, "--epochs 1.5 is not a whole number"),
            ({"epochs": True}, "--epochs True is not a whole number"),
            ({"batch_size": -3}, "--batch-size -3 is not a whole number of at least 1"),
            ({"batch_size": 1}, "--batch-size 1 leaves batch normalisation nothing to average"),
            ({"batch_size": 401}, "larger than the training set of digits (400); choose at most 400"),
            ({"momentum": 1.0}, "momentum 1.0 is out of range"),
            ({"momentum": -0.1}, "momentum -0.1 is out of range"),
            ({"momentum": float("nan")}, "momentum nan is out of range"),
            ({"momentum": "0.9"}, "momentum '0.9' is out of range"),
            ({"beta2": 2}, "beta2 2 is out of range"),
            ({"eps": float("inf")}, "eps inf is out of range"),
            ({"net": "mlp-nrm"}, "unknown network 'mlp-nrm'; did you mean mlp-norm or mlp?"),
            ({"data": "digit"}, "unknown data set 'digit'; did you mean digits?"),
            ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean cosine?"),
        ],
    )
    def test_impossible_training_is_refused_in_one_line(self, values: dict[str, Any], complaint: str) -> None:
        with pytest.raises(UsageError) as error:
            Training(**values)
        assert complaint in str(error.value)
        assert "\n" not in str(error.value)


class TestSpec:
    """Identity and extent."""

    @given(ours | imported)
    def test_spec_survives_json(self, spec: StudySpec) -> None:
        assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    @pytest.mark.parametrize("change", IDENTITY_CHANGES, ids=str)
    def test_change_of_identity_shows_and_has_another_name(self, change: dict[str, Any]) -> None:
        (name,) = change
        changed = spec(**change)
        differences = spec().differences(changed)
        assert any(difference.startswith(f"{name}: ") for difference in differences)
        assert changed.default_name != spec().default_name
        assert [text.split(": ")[1].split(", ")[::-1] for text in differences] == [
            text.split(": ")[1].split(", ") for text in changed.differences(spec())
        ]

    @pytest.mark.parametrize(
        "change", [{"lattice": Lattice((1.0,), (2.0,))}, {"seeds": (7,)}, {"metric": "val_error"}], ids=str
    )
    def test_change_of_extent_keeps_identity_and_name(self, change: dict[str, Any]) -> None:
        assert spec().differences(spec(**change)) == []
        assert spec(**change).default_name == spec().default_name

    def test_default_name_is_readable(self) -> None:
        assert spec().default_name == "digits-mlp-norm-adamw-cosine-60ep-b64"
        changed = spec(optimizer="adamw:lr-scaled", momentum=0.5, kind=Kind.TPE)
        assert changed.default_name == "digits-mlp-norm-adamw-lr-scaled-cosine-60ep-b64-mu0.5-tpe"

    @given(ours, lattices, seeds, st.sampled_from(sorted(METRICS)))
    def test_extension_holds_both_and_is_read_by_the_new_metric(
        self, spec: StudySpec, lattice: Lattice, more: tuple[int, ...], metric: str
    ) -> None:
        other = StudySpec(spec.kind, spec.optimizer, lattice, more, metric, spec.training)
        extended = spec.extended(other)
        assert {*spec.lattice.cells(), *lattice.cells()} <= set(extended.lattice.cells())
        assert extended.seeds == tuple(sorted({*spec.seeds, *more}))
        assert extended.metric == metric
        assert extended.differences(spec) == []
        assert extended.extended(other) == extended

    def test_unknown_metric_and_no_seeds_are_refused(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown metric 'val_los'; did you mean val_loss"):
            spec(metric="val_los")
        with pytest.raises(UsageError, match="--seeds 0 trains nothing"):
            spec(seeds=())

    def test_cap_is_the_chance_level_of_a_known_task(self) -> None:
        assert spec().cap == pytest.approx(2.302585)
        assert spec(metric="val_error").cap == 0.9
        foreign = StudySpec(Kind.IMPORT, Optimizer.parse("adam"), LATTICE, (0,), "perplexity", None)
        assert foreign.cap is None

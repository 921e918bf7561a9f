"""A specification holds a study's identity, which must not change, and its extent, which may grow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import METRICS, DataSet
from lrwd_sweep.spec.study import Kind, StudySpec, labels
from lrwd_sweep.spec.task import Task, options_text
from tests.specs import LATTICE, imported, lattices, ours, seeds, spec

OWN = {
    "net": "./my_net.py:Net",
    "data": "package.data:load",
    "sizes": DataSet(500, 90, 0, 3, (4,)),
    "net_options": '{"width": 3}',
    "code": (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "ba9876543210")),
}
IDENTITY_CHANGES: list[dict[str, Any]] = [
    {"kind": Kind.TPE},
    {"optimizer": "adam"},
    {"optimizer": "adamw:lr-scaled"},
    {"net": "mlp"},
    {"epochs": 61},
    {"batch_size": 32},
    {"schedule": Schedule.STEP},
    {"warmup": 3},
    {"t_0": 5},
    {"t_mult": 3},
    {"eta_min": 0.1},
    {"decay_all": False},
    {"augment": "crop-flip"},
    {"beta1": 0.8},
    {"beta2": 0.99},
    {"eps": 1e-6},
    {"precision": "bfloat16"},
]


class TestLabels:
    """The names of studies side by side."""

    def test_normalised_decay_under_restarts_is_named_adamwr(self) -> None:
        restarted = spec(optimizer="adamwr", schedule=Schedule.RESTARTS)
        assert restarted.title == "adamwr"
        assert spec(optimizer="adamwr").title == "adamw:normalized"
        assert spec(optimizer="adamw:fixed:normalized", schedule=Schedule.RESTARTS).title != "adamwr"

    def test_differences_are_named_if_the_optimizer_is_not_enough(self) -> None:
        found = labels(
            [
                spec(optimizer="adam"),
                spec(optimizer="adam", schedule=Schedule.STEP),
                spec(optimizer="adam", epochs=20),
                spec(optimizer="sgd", epochs=9),
            ]
        )
        assert found == ["adam, 60 epochs, cosine", "adam, 60 epochs, step", "adam, 20 epochs, cosine", "sgd"]

    def test_the_formula_follows_the_task(self) -> None:
        assert "m ← β₁m + g" in spec(optimizer="sgdw", momentum_form="torch").formula
        assert spec(optimizer="adamw", nesterov=True).formula == spec(optimizer="adamw").formula


class TestSpec:
    """Identity and extent."""

    @given(ours | imported)
    def test_spec_survives_json(self, spec: StudySpec) -> None:
        assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    @given(ours)
    def test_hyperparameters_of_other_families_do_not_matter(self, spec: StudySpec) -> None:
        assert spec.task is not None
        changed = {
            n: 0.123
            for n in ("momentum", "beta1", "beta2", "eps")
            if spec.optimizer.family not in users_of(n)
        }
        other = replace(spec, task=spec.task.changed(**changed))
        assert spec.differences(other) == []
        assert spec.default_name == other.default_name

    def test_cycles_do_not_matter_without_restarts(self) -> None:
        assert spec().differences(spec(t_0=5, t_mult=3)) == []

    def test_spec_of_an_earlier_version_is_the_same_study(self) -> None:
        written = spec().to_dict()
        known = ("net", "data", "epochs", "batch_size", "schedule", "momentum", "beta1", "beta2", "eps")
        written["training"] = {name: written["training"][name] for name in known}
        assert StudySpec.from_dict(written) == spec()

    def test_another_precision_is_another_study_and_named(self) -> None:
        rounded = spec(precision="bfloat16")
        assert spec().differences(rounded) == ["precision: float32, bfloat16"]
        assert rounded.default_name == f"{spec().default_name}-bfloat16"
        assert labels([spec(), rounded]) == ["adamw, float32", "adamw, bfloat16"]

    def test_change_of_identity_shows_and_has_another_name(self) -> None:
        for change in IDENTITY_CHANGES:
            (name,) = change
            common = {"schedule": Schedule.RESTARTS} if name in ("t_0", "t_mult") else {}
            before, changed = spec(**common), spec(**common | change)
            differences = before.differences(changed)
            assert any(difference.startswith(f"{name}: ") for difference in differences), name
            assert changed.default_name != before.default_name, name
            assert [text.split(": ")[1].split(", ")[::-1] for text in differences] == [
                text.split(": ")[1].split(", ") for text in changed.differences(before)
            ], name

    def test_change_of_extent_keeps_identity_and_name(self) -> None:
        lattice = Lattice((1.0,), (2.0,))
        for change in ({"lattice": lattice}, {"seeds": (7,)}, {"metric": "val_error"}):
            assert spec().differences(spec(**change)) == [], change
            assert spec(**change).default_name == spec().default_name, change

    def test_default_name_is_readable(self) -> None:
        assert spec().default_name == "digits-mlp-norm-adamw-cosine-60ep-b64"
        changed = spec(optimizer="sgdw:lr-scaled", momentum=0.5, kind=Kind.TPE)
        assert changed.default_name == "digits-mlp-norm-sgdw-lr-scaled-cosine-60ep-b64-mu0.5-tpe"

    @given(ours, lattices, seeds, st.sampled_from(sorted(METRICS)))
    def test_an_extension_holds_both_and_has_the_new_metric(
        self, spec: StudySpec, lattice: Lattice, more: tuple[int, ...], metric: str
    ) -> None:
        other = StudySpec(spec.kind, spec.optimizer, lattice, more, metric, spec.task)
        extended = spec.extended(other)
        assert {*spec.lattice.cells(), *lattice.cells()} <= set(extended.lattice.cells())
        assert extended.seeds == tuple(sorted({*spec.seeds, *more}))
        assert extended.metric == metric
        assert extended.differences(spec) == []
        assert extended.extended(other) == extended

    def test_unknown_metric_and_no_seeds_are_refused(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown metric 'val_los'; did you mean val_loss"):
            spec(metric="val_los")
        with pytest.raises(UsageError, match="seeds=0 trains nothing"):
            spec(seeds=())

    def test_errors_are_capped_at_chance_and_losses_only_by_a_given_cap(self) -> None:
        assert spec().cap is None
        assert replace(spec(), given_cap=2.5).cap == 2.5
        assert spec(metric="val_error").cap == 0.9
        assert replace(spec(metric="val_error"), given_cap=0.5).cap == 0.5
        foreign = StudySpec(Kind.IMPORT, Optimizer.parse("adam"), LATTICE, (0,), "perplexity", None)
        assert foreign.cap is None


class TestOwnCode:
    """A network, data and loss of the user, by name: nothing of it is imported here."""

    def test_it_survives_being_stored(self) -> None:
        mine = spec(**OWN, loss="./my_loss.py:f", engine="vmap")
        found = StudySpec.from_dict(json.loads(json.dumps(mine.to_dict())))
        assert found == mine
        assert found.task is not None
        assert found.task.engine == "vmap"

    def test_rare_fields_are_not_stored_at_their_defaults(self) -> None:
        rare = {"loss", "net_options", "code", "engine", "sizes"}
        assert not rare & Task(net="cnn").to_dict().keys()
        assert not rare & spec(net="cnn").identity().keys()

    def test_its_default_name_omits_folders(self) -> None:
        mine = spec(**OWN | {"net": "../nets/my_net.py:Net"}, loss="./my_loss.py:f")
        assert mine.default_name == "package.data-load-my_net-net-adamw-cosine-60ep-b64-my_loss-f-width-3"

    def test_other_code_is_another_study_and_is_named(self) -> None:
        code = (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "000000000000"))
        assert spec(**OWN).differences(spec(**OWN | {"code": code})) == [
            "code of package.data:load: ba9876543210, 000000000000"
        ]

    def test_other_data_are_another_study_unless_one_is_unknown(self) -> None:
        unknown, one, two = (
            spec(**OWN | {"sizes": DataSet(500, 90, 0, 3, (4,), d)}) for d in ("", "1a", "2b")
        )
        assert one.differences(two) == [
            "data of package.data:load, which changed or, unless seeded, is other every time: 1a, 2b"
        ]
        assert not one.differences(unknown)
        assert not unknown.differences(one)
        for kept in (unknown.extended(one), one.extended(unknown), one.extended(one)):
            assert StudySpec.from_dict(json.loads(json.dumps(kept.to_dict()))).differences(two)
        assert "digest" not in unknown.to_dict()["training"]["sizes"]

    def test_another_engine_is_the_same_study(self) -> None:
        assert spec(engine="loop") == spec(engine="vmap")
        assert not spec(engine="loop").differences(spec())

    def test_a_study_continues_with_its_engine_unless_one_is_given(self) -> None:
        begun = Task(engine="vmap")
        assert Task().resuming(begun).engine == "vmap"
        assert Task(engine="loop").resuming(begun).engine == "loop"

    def test_a_stored_study_without_sizes_is_refused_without_an_import(self) -> None:
        values = spec(**OWN).to_dict()
        del values["training"]["sizes"]
        with pytest.raises(UsageError, match=r"the sizes of package\.data:load are not known"):
            StudySpec.from_dict(values)

    def test_options_and_code_are_dropped_with_their_network(self) -> None:
        changed = Task(**OWN).changed(net="mlp")  # type: ignore[arg-type]
        assert (changed.net_options, changed.code) == ("", ())
        assert changed.sizes == OWN["sizes"]
        assert Task(**OWN).changed(data="digits").sizes == DataSet.known("digits")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"\[net.options\] means nothing to mlp"):
            Task(net="mlp", net_options='{"width": 3}')

    def test_a_cap_that_is_not_finite_is_refused(self) -> None:
        for cap in (math.nan, math.inf, -math.inf):
            with pytest.raises(UsageError, match=r"cap=.* is not finite; leave it out for no cap"):
                replace(spec(), given_cap=cap)

    def test_direction_and_cap_belong_to_the_extent(self) -> None:
        other = replace(spec(), given_cap=2.5, direction=Direction.MAXIMIZE)
        assert spec().differences(other) == []
        assert (spec().extended(other).given_cap, spec().extended(other).direction) == (2.5, "maximize")
        assert spec().default_name == other.default_name
        assert StudySpec.from_dict(json.loads(json.dumps(other.to_dict()))) == other

    def test_extending_keeps_the_engine_that_was_chosen(self) -> None:
        begun, again = spec(), spec(engine="native")
        assert begun.extended(again).task == again.task
        assert again.extended(begun).task == again.task

    def test_no_loss_has_a_chance_level(self) -> None:
        assert spec(**OWN).cap is None
        assert spec(**OWN, loss="./my_loss.py:f").cap is None
        assert spec(**OWN, loss="./my_loss.py:f", metric="val_error").cap == pytest.approx(2 / 3)

    def test_options_that_json_does_not_have_are_refused(self) -> None:
        for value in (float("nan"), b"x", {1, 2}, DataSet):
            with pytest.raises(UsageError, match=r"give text, numbers, true or false, lists and tables"):
                options_text({"width": value})

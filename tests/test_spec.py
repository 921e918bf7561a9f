"""A specification is complete: what a study is, what may grow, and what may not change."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.catalog import METRICS, NETWORKS, PRECISIONS, DataSet
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Lattice
from lrwd_sweep.optimizer import Optimizer, optimizer_names, users_of
from lrwd_sweep.schedule import Schedule
from lrwd_sweep.spec import Kind, StudySpec, labels
from lrwd_sweep.training import MomentumForm, Training, option, options_text, refuse_unused

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
    t_0=st.none() | st.integers(1, 50),
    eta_min=st.floats(0, 0.5),
    momentum=st.none() | st.floats(0, 0.999),
    momentum_form=st.sampled_from(MomentumForm),
    nesterov=st.booleans(),
    beta2=st.none() | st.floats(0, 0.999),
    eps=st.none() | st.floats(0, 1),
    decay_all=st.booleans(),
    precision=st.sampled_from(sorted(PRECISIONS)),
    data=st.just("digits"),
)
elsewhere = st.builds(
    Training,
    net=st.just("mlp"),
    data=st.just("folder:/nowhere"),
    sizes=st.just(DataSet(500, 9, 9, 3, (3, 4, 5))),
)
optimizers = st.builds(
    lambda name, end: Optimizer.parse(name + end),
    st.sampled_from(optimizer_names()),
    st.sampled_from(["", ":normalized"]),
)
ours = st.builds(
    StudySpec,
    st.sampled_from([Kind.GRID, Kind.TPE]),
    optimizers,
    lattices,
    seeds,
    st.sampled_from(sorted(METRICS)),
    trainings | elsewhere,
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


OWN = {
    "net": "./my_net.py:Net",
    "data": "package.data:load",
    "sizes": DataSet(500, 90, 0, 3, (4,)),
    "net_options": '{"width": 3}',
    "code": (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "ba9876543210")),
}
IDENTITY_CHANGES = [
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
            ({"warmup": -1}, "--warmup -1 is not a whole number of at least 0"),
            ({"warmup": 60}, "--warmup 60 leaves nothing of 60 epochs; choose less than 60"),
            ({"t_0": 0}, "--t0 0 is not a whole number of at least 1"),
            ({"t_mult": 1.5}, "--tmult 1.5 is not a whole number of at least 1"),
            ({"eta_min": 1.0}, "eta_min 1.0 is out of range"),
            ({"nesterov": "yes"}, "nesterov 'yes' is neither true nor false"),
            ({"momentum_form": "keras"}, "unknown momentum form 'keras'; known: paper, torch"),
            ({"augment": "flop"}, "unknown augmentation 'flop'"),
            ({"precision": "bfloat"}, "unknown precision 'bfloat'; did you mean bfloat16 or float32?"),
            ({"precision": "float16"}, "unknown precision 'float16'; did you mean bfloat16 or float32?"),
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

    def test_each_family_has_its_papers_hyperparameters(self) -> None:
        def found(name: str, **given: Any) -> tuple[float | None, ...]:
            t = Training(**given).of(Optimizer.parse(name))
            return t.momentum, t.beta1, t.beta2, t.eps

        assert found("sgdw") == (0.9, 0.9, 0.999, 1e-8)
        assert found("rmsprop") == (0.0, 0.9, 0.99, 1e-8)
        assert found("adagradw") == (0.9, 0.9, 0.999, 1e-10)
        assert found("adamp", beta2=0.95, momentum=0.5) == (0.9, 0.9, 0.95, 1e-8)

    @given(trainings, optimizers)
    def test_resolving_twice_is_resolving_once(self, training: Training, optimizer: Optimizer) -> None:
        resolved = training.of(optimizer)
        assert resolved.of(optimizer) == resolved
        assert None not in (resolved.momentum, resolved.beta1, resolved.beta2, resolved.eps)

    def test_another_data_set_has_other_sizes(self) -> None:
        mine = Training(data="folder:/nowhere", sizes=DataSet(500, 9, 9, 3, (3, 4, 5)))
        assert mine.changed(epochs=5).data_set.train == 500
        assert mine.changed(data="digits").data_set.train == 400

    def test_normalised_decay_takes_the_newest_whole_cycle(self) -> None:
        assert Training().decay_steps == 360
        restarts = Training(schedule=Schedule.RESTARTS)
        assert restarts.timetable.snapshots == (4, 12, 28, 60)
        assert restarts.decay_steps == 32 * 6
        assert restarts.changed(epochs=50, t_0=4).decay_steps == 16 * 6
        assert (
            restarts.changed(epochs=50, t_0=60).decay_steps == 60 * 6
        )  # never comes down: the cycle it is in


class TestUnused:
    """An option that none of the optimizers has is refused: a flag that is accepted works."""

    @pytest.mark.parametrize(
        ("given", "names", "complaint"),
        [
            ({"nesterov": True}, ["adam"], "--nesterov means nothing to adam; it is for sgd, sgdp, adamp"),
            (
                {"momentum": 0.5},
                ["adam", "adamw"],
                "--momentum means nothing to adam; it is for sgd, rmsprop",
            ),
            ({"beta1": 0.5}, ["sgdw"], "--betas means nothing to sgd; it is for adam, amsgrad, adamp"),
            ({"t_0": 5}, ["sgdw"], "--t0 means nothing to schedule cosine; add --schedule restarts"),
        ],
    )
    def test_option_without_a_user_is_refused(
        self, given: dict[str, Any], names: list[str], complaint: str
    ) -> None:
        with pytest.raises(UsageError, match=f"^{complaint}"):
            refuse_unused(given, [Optimizer.parse(name) for name in names], ["cosine"])

    def test_one_user_is_enough(self) -> None:
        both = [Optimizer.parse(name) for name in ("sgd", "adam")]
        refuse_unused({"nesterov": True, "eps": 1e-6, "epochs": 5}, both, ["cosine"])
        refuse_unused({"t_0": 5}, both, ["cosine", "restarts"])

    def test_fields_have_the_names_of_their_options(self) -> None:
        assert [option(n) for n in ("batch_size", "t_0", "beta2")] == ["--batch-size", "--t0", "--betas"]


class TestLabels:
    """What studies are called side by side."""

    def test_restarts_with_normalised_decay_are_called_by_their_name(self) -> None:
        restarted = spec(optimizer="adamwr", schedule=Schedule.RESTARTS)
        assert restarted.title == "adamwr"
        assert spec(optimizer="adamwr").title == "adamw:normalized"
        assert spec(optimizer="adamw:fixed:normalized", schedule=Schedule.RESTARTS).title != "adamwr"

    def test_what_differs_is_named_where_the_optimizer_is_not_enough(self) -> None:
        found = labels(
            [
                spec(optimizer="adam"),
                spec(optimizer="adam", schedule=Schedule.STEP),
                spec(optimizer="adam", epochs=20),
                spec(optimizer="sgd", epochs=9),
            ]
        )
        assert found == ["adam, 60 epochs, cosine", "adam, 60 epochs, step", "adam, 20 epochs, cosine", "sgd"]

    def test_formula_is_that_of_the_training(self) -> None:
        assert "m ← β₁m + g" in spec(optimizer="sgdw", momentum_form="torch").formula
        assert spec(optimizer="adamw", nesterov=True).formula == spec(optimizer="adamw").formula


class TestSpec:
    """Identity and extent."""

    @given(ours | imported)
    def test_spec_survives_json(self, spec: StudySpec) -> None:
        assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    @given(ours)
    def test_hyperparameters_of_other_families_make_no_difference(self, spec: StudySpec) -> None:
        assert spec.training is not None
        changed = {
            n: 0.123
            for n in ("momentum", "beta1", "beta2", "eps")
            if spec.optimizer.family not in users_of(n)
        }
        other = replace(spec, training=spec.training.changed(**changed))
        assert spec.differences(other) == []
        assert spec.default_name == other.default_name

    def test_cycles_make_no_difference_without_restarts(self) -> None:
        assert spec().differences(spec(t_0=5, t_mult=3)) == []

    def test_spec_of_an_earlier_version_is_the_same_study(self) -> None:
        written = spec().to_dict()
        known = ("net", "data", "epochs", "batch_size", "schedule", "momentum", "beta1", "beta2", "eps")
        written["training"] = {name: written["training"][name] for name in known}
        assert StudySpec.from_dict(written) == spec()

    def test_a_study_of_another_precision_is_another_and_both_are_named(self) -> None:
        rounded = spec(precision="bfloat16")
        assert spec().differences(rounded) == ["precision: float32, bfloat16"]
        assert rounded.default_name == f"{spec().default_name}-bfloat16"
        assert labels([spec(), rounded]) == ["adamw, float32", "adamw, bfloat16"]

    @pytest.mark.parametrize("change", IDENTITY_CHANGES, ids=str)
    def test_change_of_identity_shows_and_has_another_name(self, change: dict[str, Any]) -> None:
        (name,) = change
        common = {"schedule": Schedule.RESTARTS} if name in ("t_0", "t_mult") else {}
        before, changed = spec(**common), spec(**common | change)
        differences = before.differences(changed)
        assert any(difference.startswith(f"{name}: ") for difference in differences)
        assert changed.default_name != before.default_name
        assert [text.split(": ")[1].split(", ")[::-1] for text in differences] == [
            text.split(": ")[1].split(", ") for text in changed.differences(before)
        ]

    @pytest.mark.parametrize(
        "change", [{"lattice": Lattice((1.0,), (2.0,))}, {"seeds": (7,)}, {"metric": "val_error"}], ids=str
    )
    def test_change_of_extent_keeps_identity_and_name(self, change: dict[str, Any]) -> None:
        assert spec().differences(spec(**change)) == []
        assert spec(**change).default_name == spec().default_name

    def test_default_name_is_readable(self) -> None:
        assert spec().default_name == "digits-mlp-norm-adamw-cosine-60ep-b64"
        changed = spec(optimizer="sgdw:lr-scaled", momentum=0.5, kind=Kind.TPE)
        assert changed.default_name == "digits-mlp-norm-sgdw-lr-scaled-cosine-60ep-b64-mu0.5-tpe"

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


class TestOwnCode:
    """Somebody's own network, data and loss, by name: nothing of it is imported here."""

    def test_it_survives_being_stored(self) -> None:
        mine = spec(**OWN, loss="./my_loss.py:f", engine="vmap")
        found = StudySpec.from_dict(json.loads(json.dumps(mine.to_dict())))
        assert found == mine
        assert found.training is not None
        assert found.training.engine == "vmap"

    def test_what_few_studies_have_is_not_in_the_others(self) -> None:
        rare = {"loss", "net_options", "code", "engine", "sizes"}
        assert not rare & Training(net="cnn").to_dict().keys()
        assert not rare & spec(net="cnn").identity().keys()

    def test_its_name_leaves_folders_out(self) -> None:
        mine = spec(**OWN | {"net": "../nets/my_net.py:Net"}, loss="./my_loss.py:f")
        assert mine.default_name == "package.data-load-my_net-net-adamw-cosine-60ep-b64-my_loss-f-width-3"

    def test_other_code_is_another_study_and_is_named(self) -> None:
        code = (("./my_net.py:Net", "0123456789ab"), ("package.data:load", "000000000000"))
        assert spec(**OWN).differences(spec(**OWN | {"code": code})) == [
            "code of package.data:load: ba9876543210, 000000000000"
        ]

    def test_the_engine_makes_no_other_study(self) -> None:
        assert spec(engine="loop") == spec(engine="vmap")
        assert not spec(engine="loop").differences(spec())

    def test_a_study_goes_on_by_the_engine_it_began_with_unless_one_is_asked_for(self) -> None:
        begun = Training(engine="vmap")
        assert Training().resuming(begun).engine == "vmap"
        assert Training(engine="loop").resuming(begun).engine == "loop"

    def test_a_stored_study_without_its_sizes_is_refused_and_imports_nothing(self) -> None:
        values = spec(**OWN).to_dict()
        del values["training"]["sizes"]
        with pytest.raises(UsageError, match=r"the sizes of package\.data:load are not known"):
            StudySpec.from_dict(values)

    def test_options_and_code_do_not_outlast_their_network(self) -> None:
        changed = Training(**OWN).changed(net="mlp")  # type: ignore[arg-type]
        assert (changed.net_options, changed.code) == ("", ())
        assert changed.sizes == OWN["sizes"]
        assert Training(**OWN).changed(data="digits").sizes == DataSet.known("digits")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"\[net.options\] means nothing to mlp"):
            Training(net="mlp", net_options='{"width": 3}')

    def test_a_loss_of_ones_own_has_no_chance_level(self) -> None:
        assert spec(**OWN).cap == pytest.approx(math.log(3))
        assert spec(**OWN, loss="./my_loss.py:f").cap is None
        assert spec(**OWN, loss="./my_loss.py:f", metric="val_error").cap == pytest.approx(2 / 3)

    @pytest.mark.parametrize("value", [float("nan"), b"x", {1, 2}, DataSet])
    def test_options_that_no_preset_could_say_are_refused(self, value: object) -> None:
        with pytest.raises(UsageError, match=r"give text, numbers, true or false, lists and tables"):
            options_text({"width": value})

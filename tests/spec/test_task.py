"""All that decides a lane's result, and what cannot be is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task, option, refuse_unused
from tests.specs import optimizers, trainings


class TestTraining:
    """All that decides a lane's result besides its cell and seed."""

    def test_steps_leave_out_the_incomplete_batch(self) -> None:
        task = Task(epochs=60, batch_size=64)
        assert (task.steps_per_epoch, task.steps) == (6, 360)

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
            Task(**values)
        assert complaint in str(error.value)
        assert "\n" not in str(error.value)

    def test_each_family_has_its_papers_hyperparameters(self) -> None:
        def found(name: str, **given: Any) -> tuple[float | None, ...]:
            t = Task(**given).of(Optimizer.parse(name))
            return t.momentum, t.beta1, t.beta2, t.eps

        assert found("sgdw") == (0.9, 0.9, 0.999, 1e-8)
        assert found("rmsprop") == (0.0, 0.9, 0.99, 1e-8)
        assert found("adagradw") == (0.9, 0.9, 0.999, 1e-10)
        assert found("adamp", beta2=0.95, momentum=0.5) == (0.9, 0.9, 0.95, 1e-8)

    @given(trainings, optimizers)
    def test_resolving_twice_is_resolving_once(self, task: Task, optimizer: Optimizer) -> None:
        resolved = task.of(optimizer)
        assert resolved.of(optimizer) == resolved
        assert None not in (resolved.momentum, resolved.beta1, resolved.beta2, resolved.eps)

    def test_another_data_set_has_other_sizes(self) -> None:
        mine = Task(data="folder:/nowhere", sizes=DataSet(500, 9, 9, 3, (3, 4, 5)))
        assert mine.changed(epochs=5).data_set.train == 500
        assert mine.changed(data="digits").data_set.train == 400

    def test_normalised_decay_takes_the_newest_whole_cycle(self) -> None:
        assert Task().decay_steps == 360
        restarts = Task(schedule=Schedule.RESTARTS)
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
        with pytest.raises(UsageError, match="--nesterov means nothing to adam"):
            refuse_unused({"nesterov": True}, both[1:], ["cosine"])

    def test_fields_have_the_names_of_their_options(self) -> None:
        assert [option(n) for n in ("batch_size", "t_0", "beta2")] == ["--batch-size", "--t0", "--betas"]

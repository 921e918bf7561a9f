"""Keywords are fields of Training, functions become names that find them again, errors name keywords."""

from __future__ import annotations

import functools
import sys
import types
from fractions import Fraction
from typing import Any, Unpack, get_type_hints

import numpy as np
import pytest

from lrwd_sweep.cli.options import TASK
from lrwd_sweep.errors import SpecMismatch, UnknownName, UsageError
from lrwd_sweep.spec.keywords import TaskOptions, in_keywords, name_of, training_fields
from lrwd_sweep.spec.task import BESIDE_THE_TASK, Task, option


class Net:
    """Somebody's own."""

    def again(self) -> None:
        """A method."""


def call(lr: str, *, seeds: int = 3, **task: Unpack[TaskOptions]) -> None:
    """What keywords are given to."""


def test_every_field_of_training_that_a_call_may_set_is_a_keyword() -> None:
    fields = set(Task.__dataclass_fields__) - {"sizes", "code", "whole_loss", "undecayed", "tensors"}
    assert set(get_type_hints(TaskOptions)) == fields


def test_plain_values_pass_as_they_are_and_none_is_left_to_the_preset() -> None:
    given = {"epochs": 3, "net": "mlp", "eps": 1e-6, "nesterov": False, "schedule": None}
    assert training_fields(given, call) == {"epochs": 3, "net": "mlp", "eps": 1e-6, "nesterov": False}


def test_a_precision_is_asked_for_by_its_name() -> None:
    assert training_fields({"precision": "bfloat16"}, call) == {"precision": "bfloat16"}
    with pytest.raises(UsageError, match="precision 16 is not text"):
        training_fields({"precision": 16}, call)


def test_numbers_of_numpy_become_pythons_own() -> None:
    fields = training_fields({"epochs": np.int64(3), "momentum": np.float32(0.5), "nesterov": np.True_}, call)
    assert [type(value) for value in fields.values()] == [int, float, bool]


def test_options_of_a_network_are_held_as_the_preset_holds_them() -> None:
    assert training_fields({"net_options": {"width": 8}}, call) == {"net_options": '{"width": 8}'}


def test_an_unknown_keyword_names_the_near_one() -> None:
    with pytest.raises(UnknownName, match="unknown keyword 'epoch'; did you mean epochs"):
        training_fields({"epoch": 3}, call)
    with pytest.raises(UnknownName, match="unknown keyword 'seed'; did you mean seeds"):
        training_fields({"seed": 3}, call)
    with pytest.raises(UnknownName, match="unknown keyword 'wd'; known: lr, seeds, net, data, "):
        training_fields({"wd": 3}, call)


def test_text_is_text() -> None:
    with pytest.raises(UsageError, match="schedule 3 is not text"):
        training_fields({"schedule": 3}, call)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("./my_net.py:Net", "./my_net.py:Net"),
        (Net, f"{__name__}:Net"),
        (Fraction.from_float, "fractions:Fraction.from_float"),
    ],
)
def test_what_can_be_imported_becomes_its_name(given: Any, name: str) -> None:
    assert name_of("net", given) == name


def _local() -> type:
    class Inner:
        pass

    return Inner


@pytest.mark.parametrize(
    "given",
    [lambda: None, functools.partial(Net), Net(), Net().again, _local(), 5, None],
    ids=["lambda", "partial", "object", "method", "local", "number", "none"],
)
def test_what_no_name_finds_again_is_refused_with_the_way_out(given: Any) -> None:
    with pytest.raises(UsageError, match=r"net='\./my\.py:NAME'") as raised:
        name_of("net", given)
    assert "\n" not in str(raised.value)


def test_a_cell_of_a_notebook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is found as long as the notebook runs, and never again."""
    here = types.ModuleType("__main__")
    exec("class Net: pass", here.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", here)
    with pytest.raises(UsageError, match=r"net Net cannot be found again by its name; .*%%writefile"):
        name_of("net", here.__dict__["Net"])


def test_a_name_that_means_something_else_by_now_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Net
    monkeypatch.setattr(sys.modules[__name__], "Net", type("Net", (), {}))
    with pytest.raises(UsageError, match="cannot be found again"):
        name_of("net", old)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("--batch-size 1 is too small", "batch_size 1 is too small"),
        ("give --lr and --wd", "give lr and weight_decay"),
        (
            "give this one a name of its own with --study-name",
            "give this one a name of its own with study_name",
        ),
        ("--betas means nothing", "beta1, beta2 means nothing"),
        ("add --download, or put it there", "add download=True, or put it there"),
        ("a -- b, 2^-3--x, ---", "a -- b, 2^-3--x, ---"),
    ],
)
def test_errors_name_keywords(said: str, meant: str) -> None:
    with pytest.raises(SpecMismatch) as raised, in_keywords():
        raise SpecMismatch(said)
    assert str(raised.value) == meant


@pytest.mark.parametrize("field", sorted(set(TaskOptions.__annotations__)))
def test_the_option_of_every_field_is_told_as_a_keyword(field: str) -> None:
    with pytest.raises(UsageError) as raised, in_keywords():
        raise UsageError(option(field))
    assert "--" not in str(raised.value)
    assert field in str(raised.value)


def test_fields_that_nobody_asks_for_are_the_only_others() -> None:
    assert {"sizes", "code"} <= set(BESIDE_THE_TASK)
    assert {"lr", "wd", "seeds", "metric", "preset"} <= set(TASK)

"""A check holds when its error stands to its bound as it must, and never when there is no number."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.lab.evidence import Check, Relation, Section

POSITIVE = st.floats(1e-30, 1e30)


@given(POSITIVE, POSITIVE)
def test_agreeing_and_differing_are_opposites_but_at_the_bound(error: float, bound: float) -> None:
    agree = Check(("x",), error, bound).passed
    differ = Check(("x",), error, bound, Relation.DIFFER).passed
    assert agree is not differ or error == bound


@pytest.mark.parametrize("error", [math.nan, math.inf])
@pytest.mark.parametrize("relation", Relation)
def test_what_is_no_number_shows_nothing(error: float, relation: Relation) -> None:
    check = Check(("x",), error, 1e-3, relation)
    assert not check.passed
    assert check.digits == 0
    section = Section("about", ("what",), (check,)).to_dict()
    assert json.loads(json.dumps(section, allow_nan=False))["checks"][0]["error"] is None


@given(st.integers(0, 30))
def test_digits_count_the_zeros_of_the_error(zeros: int) -> None:
    assert Check(("x",), 10.0**-zeros, 1.0).digits == zeros


def test_equal_numbers_agree_in_every_digit() -> None:
    assert Check(("x",), 0.0, 1e-10).digits == math.inf


def test_a_failure_names_section_check_and_error() -> None:
    checks = (Check(("a", "b"), 1.0, 1e-10), Check(("c", "d"), 0.0, 1e-3, Relation.DIFFER))
    agree, differ = Section("about", ("one", "two"), checks).failures
    assert agree == "about: a, b: the error is 1.0e+00, above 1e-10"
    assert differ == "about: c, d: the difference is 0.0e+00, below 1e-03: there should be one"

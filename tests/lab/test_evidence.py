"""A check compares its error with its bound, and fails without a finite error."""

from __future__ import annotations

import json
import math
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.lab.evidence import Check, Relation, Section

POSITIVE = st.floats(1e-30, 1e30)


@given(POSITIVE, POSITIVE)
def test_agreeing_and_differing_are_opposites_except_at_the_bound(error: float, bound: float) -> None:
    agree = Check(("x",), error, bound).passed
    differ = Check(("x",), error, bound, Relation.DIFFER).passed
    assert agree is not differ or error == bound


def test_nan_and_inf_fail_every_check_and_are_null_in_json() -> None:
    for error, relation in product((math.nan, math.inf), Relation):
        check = Check(("x",), error, 1e-3, relation)
        assert (check.passed, check.digits) == (False, 0), (error, relation)
        section = Section("about", ("what",), (check,)).to_dict()
        assert json.loads(json.dumps(section, allow_nan=False))["checks"][0]["error"] is None


def test_failure_names_section_check_and_error() -> None:
    checks = (Check(("a", "b"), 1.0, 1e-10), Check(("c", "d"), 0.0, 1e-3, Relation.DIFFER))
    agree, differ = Section("about", ("one", "two"), checks).failures
    assert agree == "about: a, b: the error is 1.0e+00, above 1e-10"
    assert differ == "about: c, d: the difference is 0.0e+00, below 1e-03: there should be one"

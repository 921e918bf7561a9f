"""Axes are read in every spelling, and a value is the same cell in each of them."""

import math
import pickle
import re

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.lattice import Cell, Lattice, canonical, format_axis, format_value, parse_axis
from tests.refusal import assert_raises

values = st.floats(1e-300, 1e300)


@given(st.floats(0, 1e300), values, st.integers(-3, 3))
def test_12_significant_digits_are_a_values_identity(any_value: float, value: float, ulps: int) -> None:
    assert canonical(canonical(any_value)) == canonical(any_value)
    assert math.isclose(canonical(any_value), any_value, rel_tol=5e-12, abs_tol=1e-307)
    value = canonical(value)
    assert Cell(value * (1 + ulps * 2.0**-52), 0.0) == Cell(value, 0.0)
    assert math.copysign(1, Cell(0.1, -0.0).weight_decay) == 1
    assert math.copysign(1, Lattice((0.1,), (-0.0,)).weight_decay[0]) == 1
    one, other = Lattice((0.2,), (1.0, 0.0)), Lattice((0.1, 0.2), (0.0,))
    lattice = one.union(other)  # cells go row by row
    assert list(lattice.cells()) == [Cell(0.1, 0), Cell(0.1, 1), Cell(0.2, 0), Cell(0.2, 1)]
    assert lattice == other.union(one) == lattice.union(one)
    assert pickle.loads(pickle.dumps(Cell(0.1, 0.2))) == Cell(0.1, 0.2)


def test_every_form_of_an_axis_is_read_and_other_texts_refused() -> None:
    for text, values in {
        "2^-3:2^-1": (0.125, 0.25, 0.5),
        "0.125:0.5:3": (0.125, 0.25, 0.5),
        "2^-3.5:2^-1.5": (2**-3.5, 2**-2.5, 2**-1.5),
        "2^-14.8:2^-7.8": tuple(2**-k for k in (14.8, 13.8, 12.8, 11.8, 10.8, 9.8, 8.8, 7.8)),
        "1e-4:1e-1:4": (1e-4, 1e-3, 1e-2, 1e-1),
        "0.25:1:5": (0.25, 2**-1.5, 0.5, 2**-0.5, 1.0),
        "1e-3, 2^-2 ,3": (0.001, 0.25, 3.0),
        "2^-3:2^-1,1:4:3": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    }.items():
        assert parse_axis(text, "lr") == tuple(map(canonical, values)), text
    assert parse_axis("0,1e-4,1e-3,2^-3:2^-2", "wd") == (0.0, 1e-4, 1e-3, 0.125, 0.25)
    for low, high, steps, times in ((1e-4, 0.1, 3, 4), (3e-7, 5.1, 7, 3), (0.3, 0.31, 11, 5)):
        coarse, fine = (parse_axis(f"{low}:{high}:{n + 1}", "lr") for n in (steps, steps * times))
        assert set(coarse) <= set(fine), "a finer range has the cells of the coarse one"
    for axis, refused in (("lr", REFUSED), ("weight_decay", REFUSED_DECAYS)):
        for complaint, texts in refused.items():
            for text in texts:
                assert_raises(f"^{axis}=.*{re.escape(complaint)}", parse_axis, text, axis)


REFUSED = {  # texts of a learning-rate axis by the complaint
    "has an empty value": ["", " ", "1,,2"],
    "'0' is not a positive number; use values above 0": ["0,0.1", "0:1:3"],
    "'-1' is not a positive number": ["-1,1"],
    "is not a positive number": ["nan,1", "inf,1", "2^-5000,1"],
    "is not a number": ["2^5000,1", "ten,20", "1_0,20", "1e-400,1", "2^x:2^3"],
    "a range as 2^-8:2^-4": ["2^-8..2^-4"],
    "names 1 twice": ["1,2,1.0000000000001", "2^-1:2^1,1"],
    "is reversed or unordered": ["2,1"],
    "is empty or reversed": ["2^-1:2^-3", "2^-1:2^-1"],
    "has no count; write 1e-4:1e-1:9": ["1e-4:1e-1"],
    "octaves; give a count as in 2^-3:2^-1.5:9": ["2^-3:2^-1.5"],
    "has too many ':'": ["1:2:3:4"],
    "is not a whole number of at least 2": ["1:2:1", "1:2:2.5"],
    "the count 1000000000 is too large; choose at most ": ["1:2:1000000000"],
}
REFUSED_DECAYS = {
    "names 0 twice": ["0,0,1,2"],
    "is reversed or unordered": ["1,0,2"],
    "starts at 0, where a log axis has no step; write 0,LOW:HIGH": ["0:1:3"],
    "0 itself may stand in a list as a baseline": ["-1,1"],
}


@given(st.sets(values.map(canonical), min_size=1, max_size=6), st.booleans())
def test_formatted_axis_is_read_back(positive: set[float], baseline: bool) -> None:
    axis = (*([0.0] if baseline else []), *sorted(positive))
    assert parse_axis(format_axis(axis), "wd") == axis
    for text in ("2^-12:2^-2", "0,2^-3.5:2^0.5", "0.0001:0.1:10", "0.001,0.1", "0,2^-2,2^3"):
        assert format_axis(parse_axis(text, "weight_decay")) == text  # its shorthand
    for number, text in ((0.12500000004, "0.12500000004"), (3e-4, "0.0003"), (1.7e308, "1.7e+308"),
                         (0.0, "0"), (1.0, "2^0"), (canonical(2.0**-3.5), "2^-3.5")):  # fmt: skip
        assert format_value(number) == text

"""The constraints file of lowest versions is made from `pyproject.toml`, whole."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from tests.lowest import PYPROJECT, constraints

SMALL = """
[project]
name = "a"
dependencies = ["numpy>=1.26,<3", "numba>=0.61; python_version < '3.15'"]
[project.optional-dependencies]
ray = ["ray[tune]>=2.50"]
test = ["a[ray]", "pytest>=8.2"]
"""


def test_every_lower_bound_becomes_a_version() -> None:
    expected = ["numpy==1.26", 'numba==0.61; python_version < "3.15"', "ray==2.50", "pytest==8.2"]
    assert constraints(SMALL) == expected


def test_a_requirement_without_a_lower_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="numpy has no lower bound"):
        constraints('[project]\nname = "a"\ndependencies = ["numpy"]')


def test_every_requirement_of_ours_has_one() -> None:
    lines = constraints(PYPROJECT.read_text(encoding="utf-8"))
    assert {"torch", "numpy", "numba", "pytest"} <= {Requirement(line).name for line in lines}

"""The constraints file of lowest versions is made from `pyproject.toml`."""

from __future__ import annotations

import pytest

from tests.lowest import PYPROJECT, constraints

SMALL = """
[project]
name = "a"
dependencies = ["numba>=0.61; python_version < '3.15'"]
[project.optional-dependencies]
test = ["a[ray]", "ray[tune]>=2.50"]
"""


def test_every_lower_bound_becomes_a_version() -> None:
    assert constraints(SMALL) == ['numba==0.61; python_version < "3.15"', "ray==2.50"]
    assert constraints(PYPROJECT.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="numpy has no lower bound"):
        constraints('[project]\nname = "a"\ndependencies = ["numpy"]')

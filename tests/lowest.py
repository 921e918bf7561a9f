"""The lowest versions that `pyproject.toml` allows, for pip: `python -m tests.lowest > constraints.txt`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def constraints(pyproject: str) -> list[str]:
    """One line a requirement, of the package and of its extras, at its lower bound.

    >>> constraints('[project]\\nname = "a"\\ndependencies = ["numpy>=1.26"]')
    ['numpy==1.26']
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    asked = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    return [_lowest(one) for one in asked if one.name != project["name"]]


def _lowest(asked: Requirement) -> str:
    """The requirement with only its lower bound, and that exactly; a constraint names no extras."""
    (bound,) = (one.version for one in asked.specifier if one.operator == ">=")
    marker = f"; {asked.marker}" if asked.marker else ""
    return f"{asked.name}=={bound}{marker}"


if __name__ == "__main__":
    print("\n".join(constraints(PYPROJECT.read_text(encoding="utf-8"))))  # noqa: T201

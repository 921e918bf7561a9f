"""The lowest versions that `pyproject.toml` allows, for pip: `python -m tests.lowest > constraints.txt`."""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def constraints(pyproject: str) -> list[str]:
    """One line for each requirement of the package and its extras. Raises ValueError without a bound."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    asked = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    return [_lowest(one) for one in asked if one.name != project["name"]]


def _lowest(asked: Requirement) -> str:
    """Its lower bound as the only version; a constraint names no extras."""
    bounds = [one.version for one in asked.specifier if one.operator == ">="]
    if not bounds:
        raise ValueError(f"{asked.name} has no lower bound; write >= in pyproject.toml")
    marker = f"; {asked.marker}" if asked.marker else ""
    return f"{asked.name}=={bounds[0]}{marker}"


if __name__ == "__main__":
    sys.stdout.write("\n".join([*constraints(PYPROJECT.read_text(encoding="utf-8")), ""]))

"""The lowest versions that `pyproject.toml` allows, for pip: `python -m tests.lowest > constraints.txt`."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def constraints(pyproject: str) -> list[str]:
    """One line for each requirement of the package and its extras. Raises ValueError without a bound."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    asked = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    return [_lowest(one) for one in asked if one.name != project["name"]]


def _lowest(asked: Requirement) -> str:
    """Its lower bound as the only version; a constraint names no extras."""
    for one in asked.specifier:
        if one.operator == ">=":
            return f"{asked.name}=={one.version}" + (f"; {asked.marker}" if asked.marker else "")
    raise ValueError(f"{asked.name} has no lower bound; write >= in pyproject.toml")


if __name__ == "__main__":
    print(*constraints((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")), sep="\n")  # noqa: T201

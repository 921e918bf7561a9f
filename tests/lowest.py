"""The lowest versions that `pyproject.toml` allows, for pip: `python -m tests.lowest > constraints.txt`."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement


def constraints(pyproject: str) -> Iterator[str]:
    """Yield the lower bound of each requirement and extra as its only version; ValueError without a bound."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    for asked in [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]:
        bounds = [one.version for one in asked.specifier if one.operator == ">="]
        if not bounds and asked.name != project["name"]:
            raise ValueError(f"{asked.name} has no lower bound; write >= in pyproject.toml")
        for bound in bounds:
            yield f"{asked.name}=={bound}" + (f"; {asked.marker}" if asked.marker else "")


if __name__ == "__main__":
    print(*constraints(Path("pyproject.toml").read_text("utf-8")), sep="\n")  # noqa: T201

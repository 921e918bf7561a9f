"""Calls of a user's Python function: in this process, or as the program of a process of its own.

As a program, `python -m lrwd_sweep.runner.executors.objective NAME METRIC OPTIMIZER`, it takes the values
from the environment, as any command can, and writes a line of JSON per point to $LRWD_RESULT.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lrwd_sweep.errors import shown
from lrwd_sweep.spec.field import number
from lrwd_sweep.spec.user_code import find

_VALUES = ("lr", "weight_decay", "seed")


def points(
    function: Callable[..., Any], values: tuple[float, float, int], metric: str, optimizer: str = ""
) -> Iterator[dict[str, float]]:
    """Call f(lr, weight_decay, seed) and yield its points: a number is the metric, an iterator a curve.

    Raises TypeError for anything else that it returns.
    """
    further = {"optimizer": optimizer} if optimizer else {}
    try:
        by_name = set(_VALUES) <= set(inspect.signature(function).parameters)
    except ValueError:  # built in
        by_name = False
    named = dict(zip(_VALUES, values, strict=True))
    found = function(**named, **further) if by_name else function(*values, **further)
    if isinstance(found, Mapping) or not hasattr(found, "__next__"):
        yield _point(found, metric)
        return
    for each in found:
        yield _point(each, metric)


def _point(found: Any, metric: str) -> dict[str, float]:
    values = found if isinstance(found, Mapping) else {metric: found}
    point = {str(name): number(value) for name, value in values.items()}
    if isinstance(found, Mapping):
        point = {name: value for name, value in point.items() if _is_number(value)}
    for name, value in point.items():
        if not _is_number(value):
            raise TypeError(f"it returned {shown(value)} as {name}; return a number, or a dict of numbers")
    return {name: float(value) for name, value in point.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def main(name: str, metric: str, optimizer: str = "") -> None:
    """Call the function of a name with the values of the environment, and write its points."""
    function = find("objective", name).thing
    lr, weight_decay, seed = (os.environ[f"LRWD_{each.upper()}"] for each in _VALUES)
    with open(os.environ["LRWD_RESULT"], "a", encoding="utf-8") as file:
        for point in points(function, (float(lr), float(weight_decay), int(seed)), metric, optimizer):
            file.write(json.dumps(point) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

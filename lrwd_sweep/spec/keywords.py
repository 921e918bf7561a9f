"""What a call from Python may say in keywords, and errors in words of the same."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypedDict, get_type_hints

from lrwd_sweep.errors import LrwdError, UnknownName, UsageError, shown
from lrwd_sweep.spec.task import options_text

Named = str | Callable[..., Any]  # a name, or a function or class that has one


class TaskOptions(TypedDict, total=False):
    """What a preset says of the training and a call may say otherwise; the fields of `Training`."""

    net: Named
    data: Named
    loss: Named
    net_options: Mapping[str, Any]  # of somebody's own network
    standardize: bool  # images of bytes of user data
    augment: str
    epochs: int
    batch_size: int
    schedule: str
    warmup: int
    t_0: int
    t_mult: int
    eta_min: float
    momentum: float
    nesterov: bool
    momentum_form: str
    beta1: float
    beta2: float
    eps: float
    decay_all: bool
    no_decay: str  # a regular expression
    precision: str
    engine: str


def training_fields(given: Mapping[str, Any], call: Callable[..., Any]) -> dict[str, Any]:
    """Keywords as fields of `Training`, those that are None left out.

    Raises UsageError, and UnknownName with what `call`, which they were given to, takes besides.
    """
    kinds = get_type_hints(TaskOptions)
    for keyword in given:
        if keyword not in kinds:
            parameters = signature(call).parameters.values()
            own = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
            raise UnknownName("keyword", keyword, [*own, *kinds])
    return {
        keyword: _field(keyword, value, kinds[keyword])
        for keyword, value in given.items()
        if value is not None
    }


def _field(keyword: str, value: Any, kind: object) -> Any:
    if kind == Named:
        return name_of(keyword, value)
    if keyword == "net_options":
        return options_text(value)
    if kind is str:
        refuse_other_than_text(**{keyword: value})
    return number(value)


def name_of(keyword: str, given: Named) -> str:
    """What finds a function or class again, `package.module:NAME`; a name is its own.

    Raises UsageError for one that no other program could find: a lambda, an object, a cell of a notebook.

    >>> from fractions import Fraction
    >>> name_of("net", Fraction.from_float)
    'fractions:Fraction.from_float'
    """
    if isinstance(given, str):
        return given
    module, name = (getattr(given, key, None) for key in ("__module__", "__qualname__"))
    found: Any = None if module == "__main__" else sys.modules.get(str(module))
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if found is None or found != given:
        what = name or f"of type {type(given).__name__}"
        raise UsageError(
            f"{keyword} {what} cannot be found again by its name; write the function or class that makes it "
            "to a file (in a notebook, by a cell that begins with %%writefile my.py) and give "
            f"{keyword}='./my.py:NAME'"
        )
    return f"{module}:{name}"


def refuse_other_than_text(**given: object) -> None:
    """Raise UsageError for an argument that is neither text nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} {shown(value)} is not text; write {name}='…'")


def whole(name: str, value: Any, most: int = 10**9) -> int:
    """A whole number from 1 to `most`. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= most:
        raise UsageError(f"{name} {shown(value)} is not a whole number from 1 to {most}")
    return found


def finite(name: str, value: Any) -> float:
    """A finite number. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UsageError(f"{name} {shown(value)} is not a finite number; write for example {name}=2.5")
    return float(found)


def number(value: Any) -> Any:
    """A number of numpy or torch as Python's own; anything else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # several numbers
        return value


_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_KEYWORD = {  # where an option is not its keyword with dashes
    "--wd": "weight_decay",
    "--t0": "t_0",
    "--tmult": "t_mult",
    "--betas": "beta1, beta2",
    "--download": "download=True",
    "--maximize": "maximize=True",
    "--minimize": "minimize=True",
    "--no-decay-norm-bias": "decay_all=False",
}


@contextmanager
def in_keywords() -> Iterator[None]:
    """Let errors, which name the options of the command line, name the keywords of a call."""
    try:
        yield
    except LrwdError as error:
        text = _OPTION.sub(lambda found: _KEYWORD.get(found[0], found[0][2:].replace("-", "_")), str(error))
        error.args = (text,)
        raise

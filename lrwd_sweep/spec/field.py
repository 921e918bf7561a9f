"""Declarations of fields: options, keywords and preset keys with their checks and texts.

`Task`, `Request` and `RunOptions` declare each of their fields once, by `declared`. The options of grid,
compare and tpe with their help, the keywords of Python, the keys of a preset, validation, JSON, default study
names and the lines that tell studies apart follow from these declarations. Functions below check the other
arguments of a call from Python.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief

HEADINGS = (  # of --help
    "What to train",
    "Your script",
    "Axes",
    "Optimizer",
    "Schedule",
    "Where",
    "Store and output",
)
TRAIN, RUN, AXES, OPTIMIZER, SCHEDULE, WHERE, STORE = HEADINGS


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """The declaration of one field."""

    name: str  # the attribute, the keyword of Python, the key in presets and JSON
    kind: type  # of a value: str, an enum, bool, int or float
    default: Any  # None: left to the preset, the optimizer's family or the data
    help: str = ""  # one line without a full stop; "": not an option
    panel: str = ""  # heading in --help; "": not a keyword either
    flags: str = ""  # the option, if it is not the name with dashes; for a switch "--on/--off" or "--on/"
    metavar: str = "NAME"
    noun: str = ""  # name of the choices in an error
    choices: tuple[str, ...] = ()
    least: float = 0
    most: int = 10**9  # of a whole number
    below: float = 1.0  # of a real number
    in_presets: bool = True
    mark: str = ""  # in a default study name, if it is unusual
    words: str = ""  # in a report, likewise; of a count in epochs with "{epochs}"
    differs: str = ""  # in the name that tells studies apart; "{name} {value}" by default; {s} is a plural's
    unused: Any = None  # value for families that do not have this hyperparameter

    @property
    def option(self) -> str:
        """The option of the command line, for a switch the one that turns it on.

        >>> Field("batch_size", int, 64).option, Field("t_0", int, None, flags="--t0").option
        ('--batch-size', '--t0')
        """
        return (self.flags or f"--{self.name.replace('_', '-')}").split("/")[0]

    @property
    def off(self) -> str:
        """The option that turns a switch off."""
        return (self.flags.split("/")[1:] or [f"--no-{self.name.replace('_', '-')}"])[0]

    def check(self, value: Any) -> Any:
        """Return the value in the field's type. Raises UsageError, or UnknownName for a choice."""
        if value is None and self.default is None:
            return None
        if issubclass(self.kind, str) and not isinstance(value, str):
            raise UsageError(f"{arg(self.name, value)} is not text")
        if self.choices:
            if value not in self.choices:
                raise UnknownName(self.noun or self.name.replace("_", " "), str(value), self.choices)
            return self.kind(value)
        if self.kind is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{arg(self.name, value)} is neither true nor false")
        elif self.kind is int:
            self.check_whole(value)
        elif self.kind is float and not (_is_number(value) and self.least <= value < self.below):
            raise UsageError(
                f"{arg(self.name, value)} is out of range; choose at least {self.least:g} and below "
                f"{self.below:g}"
            )
        return value

    def check_whole(self, value: Any) -> None:
        """Raise UsageError unless the value is a whole number within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            bounds = (
                f"of at least {self.least}" if self.most == 10**9 else f"from {self.least} to {self.most}"
            )
            raise UsageError(f"{arg(self.name, value)} is not a whole number {bounds}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_pattern(name: str, pattern: str) -> None:
    """Raise UsageError unless the field's value is a regular expression, for names of parameters."""
    given = arg(name, pattern)
    try:
        if not pattern.isprintable():
            raise UsageError(f"{given} is not printable text")
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(
            f"{given} is not a regular expression ({brief(error)}); write for example 'cls_token|pos_embed'"
        ) from None


def declared(
    default: Any, help: str = "", *, choices: Iterable[str] = (), compare: bool = True, **rest: Any
) -> Any:
    """Declare a dataclass field: its default, its line of help, and the rest of `Field`.

    A field without comparison does not tell tasks apart.
    """
    metadata = {"declared": {"default": default, "help": help, "choices": tuple(choices)} | rest}
    return dataclasses.field(default=default, compare=compare, metadata=metadata)


def fields_of(owner: type) -> dict[str, Field]:
    """Return the declarations of a dataclass by name, in its order, of the kinds that it annotates."""
    hints, found = get_type_hints(owner), {}
    for each in dataclasses.fields(owner):
        if given := each.metadata.get("declared"):
            kind = hints[each.name]
            if isinstance(kind, UnionType):
                kind = next(one for one in get_args(kind) if one is not NoneType)
            kind = get_origin(kind) or kind
            choices = tuple(kind) if issubclass(kind, StrEnum) else given["choices"]
            found[each.name] = Field(each.name, kind, **given | {"choices": choices})
    return found


Named = str | Callable[..., Any]  # a name, or a function or class that has one


def name_of(keyword: str, given: Named) -> str:
    """Return the name by which a function or class is imported, `package.module:NAME`; text is its own name.

    Raises UsageError for a lambda, an object, or a cell of a notebook: another program could not find it.

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


def number(value: Any) -> Any:
    """Return a number of numpy or torch as Python's own; anything else unchanged."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # several numbers
        return value


def finite(name: str, value: Any) -> float:
    """Return a finite number. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UsageError(f"{arg(name, value)} is not a finite number; write for example {arg(name, 2.5)}")
    return float(found)


def whole(name: str, value: Any, most: int = 10**9) -> int:
    """Return a whole number from 1 to `most`. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= most:
        raise UsageError(f"{arg(name, value)} is not a whole number from 1 to {most}")
    return found


def refuse_other_than_text(**given: object) -> None:
    """Raise UsageError for an argument that is neither text nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{arg(name, value)} is not text")

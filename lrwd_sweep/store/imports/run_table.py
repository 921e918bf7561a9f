"""A source of runs as the user names it, and its table of texts: columns, numbers and faults."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown
from lrwd_sweep.science.lattice import plain_float

REQUIRED = ("lr", "weight_decay", "value")
OF_A_RUN = (*REQUIRED, "seed", "detail")
_KNOWN = (*OF_A_RUN, "status", "decay_rule", "direction", "cap", "optimizer")
SHOWN_FAULTS = 10
BLOCK = 10_000  # rows that are handled at once, so that a million need no memory besides their texts

Texts = NDArray[np.object_]  # (runs,) the texts of a column
Columns = Mapping[str, Texts]
Curves = Mapping[tuple[str, str], Mapping[str, Sequence[float]]]  # by place and column: "value", and steps

PLAIN_NAMES = {  # that do not tell what was measured
    *("value", "values", "metric", "measure", "objective", "result", "target", "final", "best", "last"),
    *("mean", "avg", "average", "val", "valid", "validation", "test", "eval", "y"),
}
_SPELLINGS = {  # other names of a column, in letters and digits only
    "lr": "learningrate alpha lr0 baselr initlr initiallr maxlr peaklr stepsize",
    "weight_decay": "wd weightdecay decay l2 l2reg l2weight l2lambda lambda lmbda weightdecayrate",
    "seed": "randomseed randomstate rngseed rng seednum",
}


@dataclass(frozen=True, slots=True)
class ImportSource:
    """A file, folder or database URL, and the options that a reader may need."""

    name: str
    template: str = ""  # names of files or runs with {lr}, {weight_decay}, …
    columns: Mapping[str, str] = field(default_factory=dict)  # known name → column
    metric: str = "value"
    best: bool = False  # take the best value of a learning curve, not the last
    maximize: bool = False  # the best is the highest

    @property
    def path(self) -> Path:
        """The source as a path, if it is none of a database."""
        return Path(self.name)

    def value_of(self, curve: Sequence[float]) -> float:
        """Return the value of a run with this learning curve (without empty entries)."""
        finite = [value for value in curve if not math.isnan(value)]
        if not self.best or math.isnan(curve[-1]):  # one that ends in NaN diverged
            return curve[-1]
        return max(finite) if self.maximize else min(finite)


@dataclass(frozen=True, slots=True)
class RunTable:
    """The runs that a reader found: a header, and a row of texts per run with its place in the source."""

    path: Path | str  # or another name of the source
    header: Sequence[str]
    texts: Sequence[Texts]  # by column
    places: NDArray[Any]  # (runs,) in the source: "trial 17", or the number of a line
    ragged: Sequence[tuple[str, Sequence[str]]] = ()  # places and texts of rows that do not fit the header
    settings: frozenset[str] = frozenset()  # columns of which the tool says that they are hyperparameters
    progress: str = ""  # the column with the last step of a learning curve; "" without one
    scope: str = ""  # the column that names the study or experiment of a run; "" without one
    notes: tuple[str, ...] = ()  # remarks of the reader
    measured: str = ""  # the source's name of what the column `value` holds
    written: bool = False  # by hand: it has a row for every run, so that one which lacks is an error
    curves: Curves = field(default_factory=dict)

    @classmethod
    def of_records(
        cls,
        path: Path | str,
        records: Sequence[Mapping[str, str]],  # of each run, its texts by column
        places: Sequence[str],
        header: Sequence[str] | None = None,  # default: the columns as they occur
        **facts: Any,
    ) -> RunTable:
        """Build a table of records, in which a text that lacks is empty."""
        header = header or list(dict.fromkeys(column for record in records for column in record))
        texts = [as_texts([record.get(column, "") for record in records]) for column in header]
        return cls(path, header, texts, as_texts(places), **facts)

    def columns(self) -> dict[str, Texts]:
        """Return the texts of each column."""
        return dict(zip(self.header, self.texts, strict=True))

    def place(self, row: int) -> str:
        """Return the place of a row in the source."""
        place = self.places[row]
        return place if isinstance(place, str) else f"line {place}"

    def select(self, rows: NDArray[Any], ragged: Sequence[tuple[str, Sequence[str]]] = ()) -> RunTable:
        """Return the table of some rows, given by index or as a mask."""
        return replace(
            self, texts=[texts[rows] for texts in self.texts], places=self.places[rows], ragged=ragged
        )

    def only(self, columns: Sequence[str]) -> RunTable:
        """Return the table of some columns, by name; the texts of others need no more memory."""
        texts = self.columns()
        return replace(self, header=columns, texts=[texts[column] for column in columns])

    def refuse(self, faults: Sequence[str]) -> None:
        """Raise UsageError with the first faults, one line each, if there are any."""
        if faults:
            left = len(faults) - SHOWN_FAULTS
            more = [f"and {left} more"] if left > 0 else []
            raise UsageError("\n".join(f"{self.path}: {fault}" for fault in [*faults[:SHOWN_FAULTS], *more]))

    def find(self, name: str) -> str | None:
        """Return the column of a name; see `find_column`."""
        return find_column(self.header, name)

    def get(self, name: str, option: str) -> str:
        """Return the column of a name that the option `option` asks for. Raises UsageError."""
        if (column := self.find(name)) is None:
            leaves = {re.split("[./]", column)[-1]: column for column in self.header}
            near = [leaves[leaf] for leaf in get_close_matches(name, leaves, n=1, cutoff=0.5)]
            raise UsageError(
                f"{self.path}: {arg(option, name)}: there is no column {shown(name)}; "
                f"there are {some(map(shown, [*near, *(c for c in self.header if c not in near)]), 12)}"
            )
        return column

    def column_names(self, columns: Mapping[str, str], metric: str = "value") -> dict[str, str]:
        """Return the table's column for each known name; `columns` overrides, and "" skips an optional one.

        Without a column of values, the column of the metric's name has them. Raises UsageError.
        """
        for name, column in columns.items():
            if name not in _KNOWN:
                raise UnknownName("column", name, _KNOWN)
            if not column and name in REQUIRED:
                raise UsageError(f"{arg('columns')} {name}= names no column; write {name}=COLUMN, or omit it")
        columns = {name: column and (self.find(column) or column) for name, column in columns.items()}
        taken = set(columns.values())
        names = {name: columns.get(name, "" if name in taken else name) for name in _KNOWN}
        names |= {name: columns.get(name) or self.find(name) or name for name in REQUIRED}
        for name in ("seed", "optimizer"):
            if name not in columns and (found := self.find(name)) is not None and found not in taken:
                names[name] = found
        if "value" not in columns and names["value"] not in self.header and metric not in PLAIN_NAMES:
            names["value"] = self.find(metric) or names["value"]
        needed = {*REQUIRED, *(name for name, column in columns.items() if column)}
        faults = []
        if lacking := [name for name in names if name in needed and names[name] not in self.header]:
            proposed = ",".join(f"{name}={self.likely(name)}" for name in lacking)
            faults.append(
                f"there is no column {' or '.join(shown(names[name]) for name in lacking)}, only "
                f"{some(map(shown, self.header), 12)}; name {'it' if len(lacking) == 1 else 'them'} with "
                f"{arg('columns', proposed)}"
            )
        faults += [f"two columns are named {shown(name)}" for name in _repeated(self.header)]
        faults += [
            f"column {shown(column)} is used for two things; see {arg('columns')}"
            for column in _repeated([*names.values()])
        ]
        self.refuse(faults)
        return {name: column for name, column in names.items() if column and column in self.header}

    def likely(self, name: str) -> str:
        """Return the column that is another spelling of `name`, else a placeholder.

        The likeliest spelling that only one column has decides; a prefix such as `config.` does not count.
        """
        for spelling in (_letters(name), *_SPELLINGS.get(name, "").split()):
            found = [
                column
                for column in self.header
                if spelling in (_letters(column), _letters(re.split(r"[./]|params_", column)[-1]))
            ]
            if len(found) == 1 and "," not in found[0]:
                return found[0]
        return "COLUMN"


class RowFault(NamedTuple):
    """A fault in a row of the table."""

    place: str
    text: str  # with the row's own values
    kind: str  # the same for faults with the same remedy


def fault_lines(faults: Sequence[RowFault]) -> list[str]:
    """Return a line for each kind of fault: the first, and the number of others."""
    kinds: dict[str, list[RowFault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    lines = []
    for (place, text, _), *others in kinds.values():
        unit, _, number = place.partition(" ")
        unit = (unit if number.isdecimal() else "run") + "s" * (len(others) > 1)
        lines.append(f"{place}: {text}" + f" (and {len(others)} more {unit})" * bool(others))
    return lines


def find_column(header: Sequence[str], name: str) -> str | None:
    """Return the column of a name: itself, else the only one that ends with it after a dot or slash."""
    if name in header:
        return name
    found = [column for column in header if name and column.endswith((f".{name}", f"/{name}"))]
    return found[0] if len(found) == 1 else None


def as_texts(texts: Sequence[str]) -> Texts:
    """Return texts as an array of references."""
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found


def number(text: str) -> float:
    """Parse a number, nan and inf included. Raises ValueError, naming the fault of the text."""
    if not text:
        raise ValueError("is empty; it needs a number")
    try:
        return plain_float(text)
    except ValueError:
        remedy = "; leave out the %" if text.endswith("%") else ""
        if re.fullmatch(r"[+-]?[\d.]*,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
            remedy = "; write it with a decimal point, in the whole file"
        raise ValueError(f"is not a number{remedy}") from None


def is_number(text: str) -> bool:
    """Return whether `number` parses a text."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def numbers(texts: Texts) -> NDArray[np.float64] | None:
    """Parse a column as `number` does, and an empty text as NaN; None if a text is no number."""
    found = np.empty(len(texts))
    for start in range(0, len(texts), BLOCK):
        block = [text or "nan" for text in texts[start : start + BLOCK].tolist()]
        whole = "".join(block)
        parse = float if whole.isascii() and "_" not in whole else number
        try:
            found[start : start + BLOCK] = [*map(parse, block)]
        except ValueError:
            return None
    return found if all(map(is_number, distinct(texts[found == 0]))) else None  # 1e-400 is not 0


def distinct(texts: Iterable[str]) -> list[str]:
    """Return the distinct texts that are not empty, in the order of their first occurrence."""
    return [text for text in dict.fromkeys(texts) if text]


def some(texts: Iterable[str], most: int = 5) -> str:
    """List the first texts and the number of others.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    texts = list(texts)
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if name and count > 1]

"""Decay rule, direction and cap of a sweep, as columns of its table tell them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lrwd_sweep.errors import arg, shown
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.direction import says_higher
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.store.imports.run_table import distinct, is_number, number, some

Columns = Mapping[str, Sequence[str]]  # the texts of all rows by column

_PLAIN_WORDS = (  # of a name that does not tell what was measured
    "value values metric measure objective result target final best last mean avg average val valid "
    "validation test eval y"
)
_PLAIN_NAMES = set(_PLAIN_WORDS.split())


@dataclass(frozen=True, slots=True)
class SweepContext:
    """Facts about the whole sweep; None if the table does not tell."""

    decay_rule: DecayRule | None = None
    direction: Direction | None = None
    cap: float | None = None
    higher: str = ""  # the name or text by which higher is better
    columns: frozenset[str] = frozenset()  # columns that were read for this


def read_context(
    names: Mapping[str, str], texts: Columns, asked: Mapping[str, str]
) -> tuple[SweepContext, list[str]]:
    """Return the context, and a fault for each column that cannot be read.

    `names` maps known names to columns. Columns `direction` and `cap` may have another meaning, unless they
    are `asked` for.
    """
    faults: list[str] = []
    found = {
        name: distinct(texts[names[name]]) for name in ("decay_rule", "direction", "cap") if name in names
    }
    rule = direction = cap = None
    if words := found.get("decay_rule"):
        rules = {word.lower().replace("_", "-") for word in words}
        if rules <= {*DecayRule} and len(rules) == 1:
            rule = DecayRule(rules.pop())
        else:
            known = ", ".join(DecayRule)
            faults.append(_fault("decay_rule", names, words, f"one rule ({known})"))
    if words := found.get("direction"):
        directions = {_direction(word) for word in words}
        if None not in directions and len(directions) == 1:
            direction = directions.pop()
        elif None not in directions or "direction" in asked:
            faults.append(_fault("direction", names, words, "minimize or maximize"))
    if words := found.get("cap"):
        if len(words) == 1 and is_number(words[0]) and math.isfinite(number(words[0])):
            cap = number(words[0])
        elif "cap" in asked:
            faults.append(_fault("cap", names, words, "one number"))
    read = {"decay_rule": rule, "direction": direction, "cap": cap}
    used = frozenset(names[name] for name, value in read.items() if value is not None)
    return SweepContext(rule, direction, cap, columns=used), faults


def higher_is_better_source(metric: str, value: str, further: Columns) -> str:
    """Describe what tells that higher is better: the metric's name, the value's column, or a text column.

    A text column counts if neither name tells what was measured and all its rows are equal.
    """
    if says_higher(metric):
        return f"metric {shown(metric)}"
    if says_higher(value):
        return f"column {shown(value)}"
    if all(set(re.findall("[a-z]+", name.lower())) <= _PLAIN_NAMES for name in (metric, value)):
        for column, texts in further.items():
            words = distinct(texts)
            if len(words) == 1 and says_higher(words[0]):
                return f"{shown(words[0])} in column {shown(column)}"
    return ""


def _fault(name: str, names: Mapping[str, str], words: Sequence[str], remedy: str) -> str:
    return (
        f"column {shown(names[name])} holds {some(map(shown, words))}; write {remedy} for the whole file, "
        f"or ignore the column with {arg('columns')} {name}="
    )


def _direction(word: str) -> Direction | None:
    word = word.rpartition(".")[2].lower()
    return next(
        (one for one in Direction if word in (one.value, one.value[:3], one.value[:-3] + "ise")), None
    )

"""Columns with a meaning: how a run ended, in the words of any tool, and facts about the whole sweep.

States are found by header and contents: `state`, `status`, `done`, `failed`, … A run that did not finish has
no result, even if its row holds a value: a pruned Optuna trial keeps its last intermediate value.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.science.optimizer import DecayRule, Optimizer
from lrwd_sweep.science.trial import Direction, says_higher
from lrwd_sweep.store.imports.run_table import (
    PLAIN_NAMES,
    Columns,
    Texts,
    distinct,
    is_number,
    number,
    numbers,
    some,
)


class RunState(IntEnum):
    """The end of a run; if two columns disagree, the later member here counts."""

    COMPLETE = 0
    UNFINISHED = 1  # running, pruned, killed: it has no result
    FAILED = 2
    DIVERGED = 3


_WORDS = {
    RunState.COMPLETE: (
        "complete completed finished finish ok okay done success successful succeeded passed ended published "
        "completedsuccessfully finishedsuccessfully"
    ),
    RunState.UNFINISHED: (
        "running pruned killed stopped stopping canceled cancelled cancelling canceling preempted preempting "
        "pending waiting queued scheduled timeout timedout aborted abort interrupted paused suspended "
        "incomplete unfinished missing inprogress new created staged reserved starting active restoring "
        "requeued revoked deadline abandoned skipped capped earlystopped completing configuring submitted "
        "dispatched notstarted notfinished notcompleted finalizing preparing initializing resizing "
        "signaling terminating"
    ),
    RunState.FAILED: (
        "failed fail failure crashed crash error errored exception broken oom outofmemory outofme memoryout "
        "nodefail bootfail nodefailure"
    ),
    RunState.DIVERGED: "diverged diverging divergent nan inf exploded",
}
_STATES = {word: state for state, words in _WORDS.items() for word in words.split()}
_TERMINATED = "terminated"  # Ray: finished; next to another word for finished (Guild AI): killed
_BOOLEAN = dict.fromkeys(("true", "yes", "y", "t"), True) | dict.fromkeys(("false", "no", "n", "f"), False)

_SUCCESS = "success succeeded successful ok"  # False under these headers is a failure
_TRUE = {  # the meaning of True under a header of this name
    RunState.COMPLETE: f"done finished complete completed {_SUCCESS}",
    RunState.UNFINISHED: (
        "pruned killed preempted cancelled canceled aborted interrupted timeout timedout unfinished "
        "incomplete running"
    ),
    RunState.FAILED: "failed crashed oom error errored",
    RunState.DIVERGED: "diverged",
}
_FLAGS = {header: state for state, headers in _TRUE.items() for header in headers.split()}
_NUMBERS = {"error", "timeout"}  # 0 and 1 under these headers are a metric or a setting
_HEADERS = ("state", "status", "outcome")  # last word of a header that promises states
_ABOUT_A_RUN = {"is", "has", "was", "run", "trial", "job", "task", "exp", "experiment", "sys", "info"}
_NO_STATES = {"random", "rng", "seed", "hidden", "init", "initial", "git", "data", "dataset", "upload"}
_EXIT_CODES = {"exitcode", "returncode", "exitstatus", "rc", "retcode"}
_OF_NUMBERS = {*_EXIT_CODES, *_FLAGS, *_HEADERS}  # other headers promise no state if the texts are numbers
_EXIT_CODE = re.compile(r"-?\d+(\.0+)?(:\d+)?")
_HEADER_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PREFIX = re.compile(r"(job|trial|run|task)?_?(state|status)_", re.IGNORECASE)

Reader = Callable[[str], RunState | None]
StateColumns = dict[str, Mapping[str, RunState]]  # by name: the state that each of its texts means


def state_of(text: str) -> RunState | None:
    """Return the state that a tool's word means; None for an unknown word.

    >>> [str(state_of(text)) for text in ("TrialState.PRUNED", "CANCELLED by 123", "Finished", "good")]
    ['RunState.UNFINISHED', 'RunState.UNFINISHED', 'RunState.COMPLETE', 'None']
    """
    stem = re.split(r"[(:;,+]| by ", text)[0].strip(" .!").rpartition(".")[2]
    stem = _PREFIX.sub("", stem, count=1)
    found = _STATES.get(_squeezed(stem))
    if found is None and (words := stem.split()):
        first = _STATES.get(_squeezed(words[0]))  # "failed with exit code 1"
        found = None if first is RunState.COMPLETE else first
    return found


def state_columns(columns: Columns, chosen: str | None) -> tuple[StateColumns, list[str]]:
    """Find the columns of states; return them, and a fault for each that holds unknown words.

    `chosen` is the only column to read; "" reads none, None finds them by header and contents.
    """
    if chosen is not None:
        columns = {name: texts for name, texts in columns.items() if name == chosen}
    found: StateColumns = {}
    faults: list[str] = []
    for name, texts in columns.items():
        if chosen is None and _meant(name) not in _OF_NUMBERS and numbers(texts) is not None:
            continue
        words = distinct(texts)
        reader = _reader(name, words, chosen=chosen is not None)
        if reader is None or not words:
            continue
        states = {word: state for word in words if (state := reader(word)) is not None}
        if unknown := [word for word in words if word not in states]:
            faults.append(
                f"column {shown(name)} seems to hold run states, but these words are unknown: "
                f"{some(map(shown, unknown))}; write complete, failed or missing instead, ignore the column "
                f"with {arg('columns')} status=, or name another with {arg('columns')} status=COLUMN"
            )
        found[name] = states
    return found, faults


def end_column(column: str, texts: Columns, value: str) -> StateColumns:
    """Return a column of last steps as states: a curve that ends before most others did not finish.

    One that ends with a value that is not finite diverged. If most runs have no common end, none is early.
    """
    if column not in texts:
        return {}
    found = Counter(texts[column])
    early, ends = set(), {}
    for end, text in zip(texts[column], texts[value], strict=True):
        last = end.rpartition(" ")[2]
        if not text:
            early.add(end)
        elif is_number(text) and math.isfinite(number(text)) and is_number(last):
            ends[end] = number(last)
    if ends:
        usual = max(ends, key=lambda end: found[end])
        if 2 * found[usual] >= sum(found[end] for end in ends):
            early |= {end for end in ends if ends[end] < ends[usual]}
    states = {end: RunState.UNFINISHED if end in early else RunState.COMPLETE for end in found}
    return {column: states} if early else {}


def run_states(states: StateColumns, texts: Columns, size: int) -> tuple[NDArray[np.int8], Texts]:
    """Return the state of each run, and the word for it; complete and "" if no column holds one."""
    state, word = np.full(size, -1, dtype=np.int8), np.full(size, "", dtype=object)
    for name, states_of in states.items():
        value = {**states_of, "": -1}
        found = np.array([value[text] for text in texts[name]], dtype=np.int8)
        later = found > state
        state[later], word[later] = found[later], texts[name][later]
    return np.maximum(state, RunState.COMPLETE), word


def _reader(name: str, texts: Sequence[str], *, chosen: bool) -> Reader | None:
    """Return a reader of the column's texts; None if it holds no states."""
    meant, words = _meant(name), _words(name)
    promising = bool(words) and words[-1] in _HEADERS and not _NO_STATES & {*words}
    numeric = all(map(is_number, texts))
    if meant in _EXIT_CODES and all(map(_EXIT_CODE.fullmatch, texts)):
        return lambda text: RunState.FAILED if text.strip("0.:") else RunState.COMPLETE
    yes = _FLAGS.get(meant, RunState.COMPLETE if chosen and not promising else None)
    are_flags = all(_flag(text) is not None for text in texts) and not (numeric and meant in _NUMBERS)
    if yes is not None and are_flags:
        no = RunState.COMPLETE
        if yes is RunState.COMPLETE:
            no = RunState.FAILED if meant in _SUCCESS.split() else RunState.UNFINISHED
        return lambda text: yes if _flag(text) else no
    if numeric and not chosen and meant not in _HEADERS:
        return None
    reader = _word_reader(texts)
    if chosen or numeric:  # 0 and 1 of a "status" are ambiguous: refuse them
        return reader
    states = {reader(text) for text in texts if text.lower() not in _BOOLEAN}
    if None not in states and len(states) > 1 and RunState.COMPLETE in states:
        return reader  # whatever the header
    told = meant in _FLAGS and meant != "error" and not any(text[0].isdigit() for text in texts)
    return reader if promising or told else None


def _words(name: str) -> list[str]:
    return [word.lower() for word in _HEADER_WORD.findall(name)]


def _meant(name: str) -> str:
    """Return the words of a header, without those that do not tell what it means."""
    return "".join(word for word in _words(name) if word not in _ABOUT_A_RUN)


def _word_reader(texts: Sequence[str]) -> Reader:
    others = any(state_of(text) is RunState.COMPLETE for text in texts)

    def read(text: str) -> RunState | None:
        if _squeezed(text.rpartition(".")[2]) == _TERMINATED:
            return RunState.UNFINISHED if others else RunState.COMPLETE
        if (flag := _BOOLEAN.get(text.lower())) is not None:
            return RunState.COMPLETE if flag else RunState.UNFINISHED
        return state_of(text)

    return read


def _flag(text: str) -> bool | None:
    if is_number(text):
        return {0.0: False, 1.0: True}.get(number(text))
    return _BOOLEAN.get(text.lower())


def _squeezed(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


@dataclass(frozen=True, slots=True)
class SweepContext:
    """Facts about the whole sweep; None if the table does not tell."""

    decay_rule: DecayRule | None = None
    direction: Direction | None = None
    cap: float | None = None
    higher: str = ""  # the name or text by which higher is better
    columns: frozenset[str] = frozenset()  # columns that were read for this
    optimizers: tuple[str, ...] = ()  # the names in the column of optimizers

    def refuse_other(self, optimizer: Optimizer, given: str) -> None:
        """Raise UsageError if the table names an optimizer of another family, or with the other kind of L2.

        Names that are unknown here, and a label of the user's own, contradict nothing.
        """
        for word in self.optimizers:
            try:
                known = Optimizer.parse(word.rpartition(".")[2])
            except UsageError:
                continue
            l2 = DecayRule.COUPLED in (known.rule, optimizer.rule) and known.rule is not optimizer.rule
            if optimizer.family and (known.family is not optimizer.family or l2):
                raise UsageError(
                    f"{arg('optimizer', given)} contradicts the file, whose column optimizer holds "
                    f"{shown(word)}; name that one, choose other runs with {arg('where')} optimizer=NAME, or "
                    f"ignore the column with {arg('columns')} optimizer="
                )


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
    optimizers = distinct(texts[names["optimizer"]]) if "optimizer" in names else ()
    return SweepContext(rule, direction, cap, columns=used, optimizers=(*optimizers,)), faults


def higher_is_better_source(metric: str, value: str, further: Columns) -> str:
    """Describe the evidence that higher is better: the metric's name, the value's column, or a text column.

    A text column counts if neither name tells what was measured and all its rows are equal.
    """
    if says_higher(metric):
        return f"metric {shown(metric)}"
    if says_higher(value):
        return f"column {shown(value)}"
    if all(set(re.findall("[a-z]+", name.lower())) <= PLAIN_NAMES for name in (metric, value)):
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

"""Columns that tell how a run ended, in the words of any tool: `state`, `status`, `done`, `failed`, …

A run that did not finish has no result, even if its row holds a value: a pruned Optuna trial keeps its last
intermediate value.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import arg, shown
from lrwd_sweep.store.imports.run_table import Columns, Texts, distinct, is_number, number, numbers, some


class RunState(Enum):
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


@dataclass(frozen=True, slots=True)
class StateColumn:
    """A column of states, and the state that each of its texts means."""

    name: str
    states: Mapping[str, RunState]


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


def state_columns(columns: Columns, chosen: str | None) -> tuple[list[StateColumn], list[str]]:
    """Find the columns of states; return them, and a fault for each that holds unknown words.

    `chosen` is the only column to read; "" reads none, None finds them by header and contents.
    """
    if chosen is not None:
        columns = {name: texts for name, texts in columns.items() if name == chosen}
    found: list[StateColumn] = []
    faults: list[str] = []
    for name, texts in columns.items():
        if chosen is None and _meant(name) not in _OF_NUMBERS and numbers(texts) is not None:
            continue
        words = distinct(texts)
        reader = _reader(name, words, chosen=chosen is not None)
        if reader is None or not words:
            continue
        read = {word: reader(word) for word in words}
        states = {word: state for word, state in read.items() if state is not None}
        if unknown := [word for word in words if word not in states]:
            faults.append(
                f"column {shown(name)} seems to hold run states, but these words are unknown: "
                f"{some(map(shown, unknown))}; write complete, failed or missing instead, ignore the column "
                f"with {arg('columns')} status=, or name another with {arg('columns')} status=COLUMN"
            )
        found.append(StateColumn(name, states))
    return found, faults


def end_column(column: str, texts: Columns, value: str) -> list[StateColumn]:
    """Return a column of last steps as states: a curve that ends before most others did not finish.

    One that ends with a value that is not finite diverged. If most runs have no common end, none is early.
    """
    if not column:
        return []
    found = Counter(texts.get(column, ()))
    finite = {end for end, text in zip(texts.get(column, ()), texts[value], strict=False) if _is_finite(text)}
    ends = {end: number(end.split()[-1]) for end in finite if is_number(end.split()[-1])}
    early = {end for end, text in zip(texts.get(column, ()), texts[value], strict=False) if not text}
    if ends:
        usual = max(ends, key=lambda end: found[end])
        if 2 * found[usual] >= sum(found[end] for end in ends):
            early |= {end for end in ends if ends[end] < ends[usual]}
    states = {end: RunState.UNFINISHED if end in early else RunState.COMPLETE for end in found}
    return [StateColumn(column, states)] if early else []


def run_states(columns: Iterable[StateColumn], texts: Columns, size: int) -> tuple[NDArray[np.int8], Texts]:
    """Return the value of the state of each run, and the word for it; −1 and "" if no column holds one."""
    state, word = np.full(size, -1, dtype=np.int8), np.full(size, "", dtype=object)
    for column in columns:
        value = {text: found.value for text, found in column.states.items()} | {"": -1}
        found = np.array([value[text] for text in texts[column.name]], dtype=np.int8)
        later = found > state
        state[later], word[later] = found[later], texts[column.name][later]
    return state, word


def _reader(name: str, texts: Sequence[str], *, chosen: bool) -> Reader | None:
    """Return a reader of the column's texts; None if it holds no states."""
    meant, words = _meant(name), _words(name)
    promising = bool(words) and words[-1] in _HEADERS and not _NO_STATES & {*words}
    numeric = all(map(is_number, texts))
    if meant in _EXIT_CODES and all(map(_EXIT_CODE.fullmatch, texts)):
        return _exit_code
    yes = _FLAGS.get(meant, RunState.COMPLETE if chosen and not promising else None)
    if yes and all(_flag(text) is not None for text in texts) and not (numeric and meant in _NUMBERS):
        no = RunState.FAILED if meant in _SUCCESS.split() else RunState.UNFINISHED
        return lambda text: _flagged(text, yes, no)
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


def _flagged(text: str, yes: RunState, no: RunState) -> RunState:
    if yes is RunState.COMPLETE:
        return yes if _flag(text) else no
    return yes if _flag(text) else RunState.COMPLETE


def _exit_code(text: str) -> RunState:
    return RunState.COMPLETE if not text.strip("0.:") else RunState.FAILED


def _is_finite(text: str) -> bool:
    return is_number(text) and math.isfinite(number(text))


def _squeezed(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())

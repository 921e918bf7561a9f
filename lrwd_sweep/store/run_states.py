"""Columns that say how a run ended, in the words of any tool: `state`, `status`, `done`, `failed`, …

A run that did not finish has no result, even where its row holds a value: a pruned Optuna trial keeps its
last intermediate value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lrwd_sweep.errors import arg
from lrwd_sweep.store.csv_text import is_number, number, shown, some


class RunState(Enum):
    """How a run ended. Where two columns disagree, the later member here holds."""

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
_TERMINATED = "terminated"  # of Ray: finished; beside another word for that (Guild AI): killed
_BOOLEAN = {
    "true": True,
    "yes": True,
    "y": True,
    "t": True,
    "false": False,
    "no": False,
    "n": False,
    "f": False,
}

_FLAGS = (  # what True says under a header of this name
    dict.fromkeys(("done", "finished", "complete", "completed"), RunState.COMPLETE)
    | dict.fromkeys(("success", "succeeded", "successful", "ok"), RunState.COMPLETE)
    | dict.fromkeys(
        ("pruned", "killed", "preempted", "cancelled", "canceled", "aborted"), RunState.UNFINISHED
    )
    | dict.fromkeys(("interrupted", "timeout", "timedout", "unfinished", "incomplete"), RunState.UNFINISHED)
    | dict.fromkeys(("running",), RunState.UNFINISHED)
    | dict.fromkeys(("failed", "crashed", "oom", "error", "errored"), RunState.FAILED)
    | dict.fromkeys(("diverged",), RunState.DIVERGED)
)
_SUCCESS = {"success", "succeeded", "successful", "ok"}  # whose False is a failure
_NUMBERS = {"error", "timeout"}  # whose 0 and 1 are a metric or a setting
_HEADERS = ("state", "status", "outcome")  # the last word of a header that promises states
_ABOUT_A_RUN = {"is", "has", "was", "run", "trial", "job", "task", "exp", "experiment", "sys", "info"}
_NO_STATES = {"random", "rng", "seed", "hidden", "init", "initial", "git", "data", "dataset", "upload"}
_EXIT_CODES = {"exitcode", "returncode", "exitstatus", "rc", "retcode"}
_EXIT_CODE = re.compile(r"-?\d+(\.0+)?(:\d+)?")
_HEADER_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PREFIX = re.compile(r"(job|trial|run|task)?_?(state|status)_", re.IGNORECASE)

Reader = Callable[[str], RunState | None]


@dataclass(frozen=True, slots=True)
class StateColumn:
    """A column of states, and the state that each of its texts stands for."""

    name: str
    states: Mapping[str, RunState]


def state_of(text: str) -> RunState | None:
    """The state that a tool's word stands for; None for a word of no tool known here.

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


def state_columns(
    columns: Mapping[str, Sequence[str]], chosen: str | None
) -> tuple[list[StateColumn], list[str]]:
    """The columns of states among a file's, and a fault for each that promises states in unknown words.

    `chosen` is the one column to read; "" reads none, None looks for them by header and contents.
    """
    if chosen is not None:
        columns = {name: texts for name, texts in columns.items() if name == chosen}
    found: list[StateColumn] = []
    faults: list[str] = []
    for name, texts in columns.items():
        distinct = [text for text in dict.fromkeys(texts) if text]
        reader = _reader(name, distinct, chosen=chosen is not None)
        if reader is None or not distinct:
            continue
        read = {text: reader(text) for text in distinct}
        states = {text: state for text, state in read.items() if state is not None}
        if unknown := [text for text in distinct if text not in states]:
            faults.append(
                f"column {shown(name)} should say how each run ended, but holds unknown words: "
                f"{some(map(shown, unknown))}; write complete, failed or missing for them, leave the column "
                f"aside with {arg('columns')} status=, or name another with {arg('columns')} status=COLUMN"
            )
        found.append(StateColumn(name, states))
    return found, faults


def run_state(columns: Iterable[StateColumn], texts: Mapping[str, str]) -> tuple[RunState | None, str]:
    """How a row's run ended and the word that says so; None where no column says anything."""
    said = [(column.states[word], word) for column in columns if (word := texts[column.name])]
    return max(said, key=lambda one: one[0].value, default=(None, ""))


def _reader(name: str, texts: Sequence[str], *, chosen: bool) -> Reader | None:
    """What reads the column's texts; None where it holds no states."""
    words = [word.lower() for word in _HEADER_WORD.findall(name)]
    meant = "".join(word for word in words if word not in _ABOUT_A_RUN)
    promising = bool(words) and words[-1] in _HEADERS and not _NO_STATES & {*words}
    numbers = all(map(is_number, texts))
    if meant in _EXIT_CODES and all(map(_EXIT_CODE.fullmatch, texts)):
        return _exit_code
    yes = _FLAGS.get(meant, RunState.COMPLETE if chosen and not promising else None)
    if yes and all(_flag(text) is not None for text in texts) and not (numbers and meant in _NUMBERS):
        no = RunState.FAILED if meant in _SUCCESS else RunState.UNFINISHED
        return lambda text: _flagged(text, yes, no)
    reader = _word_reader(texts)
    if chosen:
        return reader
    if numbers:
        return reader if meant in _HEADERS else None  # 0 and 1 of a "status" say nothing, stop there
    states = {reader(text) for text in texts if text.lower() not in _BOOLEAN}
    if None not in states and len(states) > 1 and RunState.COMPLETE in states:
        return reader  # whatever the header
    told = meant in _FLAGS and meant != "error" and not any(text[0].isdigit() for text in texts)
    return reader if promising or told else None


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


def _squeezed(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())

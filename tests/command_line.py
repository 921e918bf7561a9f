"""The command line's reading of a command that a report prints, without training."""

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.spec.study import StudySpec


@dataclass
class Understood:
    name: str = ""
    spec: StudySpec | None = None
    storage: str | None = None
    points: int = 0
    data_dir: str | None = None


def understood(command_line: str) -> Understood:
    """Run a `grid` or `tpe` command as a shell would, up to where it opens the store and trains."""
    found = Understood()

    def open_store(storage: str | None, *, write: bool) -> AbstractContextManager[None]:
        found.storage = storage
        return nullcontext()

    class Runner:
        def __init__(self, *given: Any, **_: Any) -> None:
            found.data_dir = given[3].folder  # of DataFiles

        def grid(self, name: str, spec: StudySpec, points: int = 0) -> None:
            found.name, found.spec, found.points = name, spec, points

        tpe = grid

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrwd_sweep.store.open_store", open_store)
        patch.setattr("lrwd_sweep.cli.study_run.Runner", Runner)
        patch.setattr("lrwd_sweep.cli.training.report", lambda *_: None)
        patch.setattr(sys, "argv", shlex.split(command_line))
        assert app.run() == 0, command_line
    return found

"""The command line's reading of a command that a report prints, without training."""

import shlex
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.runner.runner import Runner


def understood(command_line: str) -> Any:
    """Run a `grid` or `tpe` command as a shell would, up to where it trains; return what that is given."""
    found = SimpleNamespace()

    def train(runner: Runner, name: str, spec: object, points: int = 0) -> None:
        vars(found).update(name=name, spec=spec, points=points)
        vars(found).update(storage=runner.store, data_dir=runner.files.folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrwd_sweep.store.open_store", lambda storage, write: nullcontext(storage))
        patch.setattr("lrwd_sweep.cli.training.report", lambda *_: None)
        patch.setattr(Runner, "grid", train)
        patch.setattr(Runner, "tpe", train)
        patch.setattr(sys, "argv", shlex.split(command_line))
        assert app.run() == 0, command_line
    return found

"""A command up to the end of the first epoch, the time of which goes to stdout: for `bench --overhead`."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Any

from lrwd_sweep.cli import app
from lrwd_sweep.spec.job import EpochDone


def stop_at_first_epoch() -> None:
    """Have the engine end this process there, whatever trains."""
    from lrwd_sweep.runner.execution import Execution

    train = Execution.train

    def until_first(*arguments: Any, **options: Any) -> Generator[Any, None, None]:
        for event in train(*arguments, **options):
            if isinstance(event, EpochDone):
                os.write(1, repr(time.time()).encode())
                os._exit(0)
            yield event

    Execution.train = until_first  # type: ignore[method-assign]


def main(*arguments: str) -> None:
    """Run the command of these arguments, as `sys.argv` has them, up to there."""
    stop_at_first_epoch()
    app.main()

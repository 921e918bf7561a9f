"""The command line. One file per command; slow imports happen when a command runs."""

from __future__ import annotations

import os
import sys

from lrwd_sweep.runner.signals import end_on_signals


def main() -> None:
    """Run the command line and exit. Signals are obeyed from here on, before anything slow is imported."""
    # A file opened later would get the number of a missing stream and receive the output of libraries.
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(null)
    end_on_signals()
    try:
        os.getcwd()
    except OSError:  # libraries end the process when they find no directory
        os.write(2, b"lrwd-sweep: the current directory was deleted; change to another one\n")
        sys.exit(3)
    from lrwd_sweep.cli import app

    app.main()

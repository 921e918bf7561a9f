"""The command line. One file per command; slow imports happen when a command runs."""

from __future__ import annotations

from lrwd_sweep.runner.signals import end_on_signals


def main() -> None:
    """Run the command line and exit. Signals are obeyed from here on, before anything slow is imported."""
    end_on_signals()
    from lrwd_sweep.cli import app

    app.main()

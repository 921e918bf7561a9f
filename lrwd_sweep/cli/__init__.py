"""The command line. One file per command; whatever is slow to import is imported when a command runs."""

from lrwd_sweep.cli.app import main

__all__ = ["main"]

"""Executors: where jobs run. The runner submits them, and reads events until all have ended."""

from collections.abc import Sequence
from typing import Protocol

from lrwd_sweep.spec.job import Event, Job

POLL = 0.1  # seconds that `events` waits at most, so that signals are noticed
PATIENCE = 3.5  # seconds that a cancelled job may take to end a step and write its checkpoint


class Executor(Protocol):
    """A fixed number of slots, each of which trains one job at a time. Used by one thread."""

    @property
    def free(self) -> int:
        """Count the slots without a job."""

    def submit(self, job: Job) -> None:
        """Begin a job in a free slot. Raises OSError if the slot cannot be had."""

    def events(self) -> Sequence[Event]:
        """Wait up to POLL seconds and return what has happened, each job's events in order.

        Raises errors of jobs, or OSError if a slot has become unusable.
        """

    def cancel(self) -> None:
        """Stop all jobs at their next step and discard their events; the slots stay usable."""

    def close(self) -> None:
        """Release the slots."""

"""A process that trains packs for another one, as that one sees it."""

from __future__ import annotations

from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from typing import cast

import pytest

from lrwd_sweep.engine.messages import Job, Left, Passed, Stop, Trained
from lrwd_sweep.engine.pack import Stopped
from lrwd_sweep.engine.remote import Remote


def _trains_fast(connection: Connection) -> None:
    """Epochs of 10 ms, until it is told to stop."""
    connection.recv()
    for epoch in range(1, 201):
        connection.send(Passed(epoch, {}))
        if connection.poll(0.01):
            assert isinstance(connection.recv(), Stop)
            connection.send(Left())
            return
    connection.send(Trained([]))


def test_it_is_stopped_between_epochs_that_come_faster_than_it_is_asked() -> None:
    remote = Remote.__new__(Remote)  # without its process
    remote.connection, theirs = Pipe()
    passed: list[int] = []
    other = Thread(target=_trains_fast, args=(theirs,))
    other.start()
    with pytest.raises(Stopped):
        remote.train(cast(Job, "a pack"), lambda epoch, _: passed.append(epoch), lambda: len(passed) > 2)
    other.join()
    assert len(passed) < 200

"""Completion of a task by what only loaded data and imported user code tell of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code


def complete(task: Task, *, anew: bool = True) -> Task:
    """Add the sizes of user data, digests of user code, and the tensors that do not decay.

    User data is read again if `anew`. Raises UsageError, UnknownName or DataError.
    """
    if task.user_code:
        from lrwd_sweep.data import user_data  # noqa: PLC0415  # slow to load

        task = user_data.completed(task, anew=anew)
    if task.no_decay or (
        is_user_code(task.net) and not task.decay_all
    ):  # of our networks only vectors do not decay
        from lrwd_sweep.nets import undecayed  # noqa: PLC0415  # slow to load

        return replace(task, undecayed=undecayed(task))
    return replace(task, undecayed=())


def completion() -> Callable[[Task], Task]:
    """Return `complete` for one command: it reads each user data set once."""
    read: set[str] = set()

    def complete_once(task: Task) -> Task:
        found = complete(task, anew=task.data not in read)
        read.add(task.data)
        return found

    return complete_once

"""The work of an executor: `train_pack` in the process that has the data, `train_job` in any other."""

import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from lrwd_sweep.data import Splits, load, user_data
from lrwd_sweep.data.splits import load_splits
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.checkpoint import Checkpoints
from lrwd_sweep.engine.pack import OnEpoch, PackTrainer
from lrwd_sweep.errors import LrwdError, UsageError, arg
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.job import DataFiles, Job, Stopped
from lrwd_sweep.spec.task import Task


class OutOfMemory(Exception):
    """The device has no room for the pack; halves of it may fit."""


def load_data(task: Task, device: torch.device, files: DataFiles | None = None) -> Splits:
    """Load a task's data onto a device, in float32. Raises DataError, and UsageError for user code."""
    splits = load(task.data, task.data_set, files, standardize=task.standardize, stream=task.stream)
    return splits.to(device, torch.float32)


def train_pack(job: Job, splits: Splits, on_epoch: OnEpoch, should_stop: Callable[[], bool]) -> list[Trial]:
    """Train a job's cells on the device of `splits`, in the calling thread; one trial per cell, in order.

    Raises Stopped between two steps when asked to stop, OutOfMemory, and UsageError for an error of a user's
    network.
    """
    devices.prepare_thread(splits.train.device)
    try:
        trainer = PackTrainer(job.optimizer, job.task, job.pack.cells, job.pack.seed, splits)
        place = job.checkpoints
        return trainer.run(on_epoch, should_stop, None if place is None else Checkpoints(place, job.pack))
    except Exception as error:
        if not (isinstance(error, MemoryError | RuntimeError) and devices.is_out_of_memory(error)):
            if (blame := blamed(job.task.net, error)) is not None:
                raise blame from error
            raise
    # Outside the handler: the exception holds the frames of the trainer, and thereby its memory.
    raise OutOfMemory(f"{splits.train.device} has no room for one lane of {job.task.net}")


def train_job(
    job: Job, on_epoch: OnEpoch, should_stop: Callable[[], bool], splits: Splits | None = None
) -> list[Trial]:
    """Train a job in a process that has not read its data, unless it is given; every error can be pickled.

    Raises Stopped, OutOfMemory, UsageError, also if user code has changed, and else RuntimeError with a
    traceback.
    """
    device = torch.device(job.device)
    try:
        refuse_changed_code(job.task)
        devices.prepare(device)
        if splits is None:
            splits = _splits(job.data, device, job.task.data, job.task.data_set.classes)
        return train_pack(job, splits, on_epoch, should_stop)
    except (OutOfMemory, Stopped):
        raise
    except LrwdError as error:
        raise UsageError(error.text) from None
    except Exception:
        raise RuntimeError(traceback.format_exc()) from None
    finally:
        devices.give_back(device)  # the planner of the next packs asks how much is free


def refuse_changed_code(task: Task) -> None:
    """Raise UsageError if user code that trains is not the one with which the study began."""
    begun = dict(task.code)
    for option, name in task.user_code.items():
        if (
            (option != "data" or task.stream)
            and name in begun
            and user_code.find(option, name).digest != begun[name]
        ):
            given = arg(option, name)
            raise UsageError(f"{given} has changed since this training began; run the command again")


@lru_cache(maxsize=1)
def _splits(file: str, device: torch.device, data: str, classes: int) -> Splits:
    splits = user_data.reopened(data, load_splits(Path(file)), classes)
    return splits.to(device, splits.train.dtype)

"""A process that trains packs for another one.

It ends when nothing has come for a while, and when the other one has gone, be it in the middle of a pack.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from lrwd_sweep.data import Splits, shelf
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.here import Here, halving
from lrwd_sweep.engine.messages import IDLE, Failed, Job, Left, Passed, Ready, Trained
from lrwd_sweep.engine.trainer import Stopped
from lrwd_sweep.errors import LrwdError, UsageError
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.runner import interpreter
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.task import Task


def serve(connection: Connection) -> None:
    """Train what comes until nothing comes any more."""
    try:
        connection.send(Ready())
        while connection.poll(IDLE):
            job = connection.recv()
            if isinstance(job, Job):  # else it is a Stop that came too late
                connection.send(_Answer(connection).to(job))
    except (EOFError, OSError):
        return  # nobody is left to work for


@dataclass(frozen=True, slots=True)
class _Answer:
    connection: Connection

    def to(self, job: Job) -> Trained | Left | Failed:
        task, place = job.task, job.device
        try:
            _check_code(task)
            devices.prepare(place)
            here = Here(job.optimizer, task, _splits(job.data, place, job.dtype))
            return Trained(halving(here, job.pack, self._tell, self.connection.poll, place, task.net))
        except Stopped:
            return Left()
        except LrwdError as error:
            return Failed(UsageError(str(error)))
        except Exception as error:
            return Failed(blamed(task.net, error) or RuntimeError(traceback.format_exc()))
        finally:
            devices.give_back(place)  # whoever plans the next packs asks how much is free

    def _tell(self, epoch: int, metrics: dict[str, list[float]]) -> None:
        self.connection.send(Passed(epoch, metrics))


def _check_code(task: Task) -> None:
    """Raise UsageError where somebody's code is not what the training began with; data come in a file."""
    begun = dict(task.code)  # empty where nobody has noted it
    for option, name in task.user_code.items():
        if option != "--data" and name in begun and user_code.find(option, name).digest != begun[name]:
            raise UsageError(f"{option} {name} has changed since this training began; run the command again")


@lru_cache(maxsize=1)
def _splits(data: Path, place: torch.device, dtype: torch.dtype) -> Splits:
    return shelf.take(data).to(place, dtype)


def main(descriptor: str) -> None:
    """Serve whoever is at the other end of the pipe with this number."""
    interpreter.take_path()  # user code is found as there
    serve(Connection(int(descriptor)))

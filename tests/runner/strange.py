"""Networks that behave differently in another process than that of the tests."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

MARKS = "LRWD_SWEEP_TEST_MARKS"  # the environment variable with a folder, named by the tests' process number


class Net(nn.Module):
    """A small network that acts at every training batch after the second in another process."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and Path(os.environ.get(MARKS, "")).name != str(os.getpid()):
            self.batches += 1
            if self.batches > 2:
                self.elsewhere()
        logits: Tensor = self.layer(x.flatten(1))
        return logits

    def elsewhere(self) -> None:
        pass


class MortalOnce(Net):
    def elsewhere(self) -> None:
        died = Path(os.environ[MARKS], "died")
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Loud(Net):
    def elsewhere(self) -> None:
        sys.stdout.write("a network prints")
        os.write(2, b"a network complains")


class Faulty(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if len(x) == 8 else torch.zeros(2) @ torch.zeros(3)  # 8: as it is built


class Full(Net):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def refuse_to_begin(*_: object) -> None:
    """End a new process at its start, as one whose libraries cannot be loaded."""
    os._exit(3)

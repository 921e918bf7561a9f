"""Networks that behave otherwise in another process than the one of the tests, whose number they are told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

HOME = "LRWD_SWEEP_TEST_HOME"  # the environment variable that holds that number
DIED = "LRWD_SWEEP_TEST_DIED"  # and one for a file that tells that a network has ended its process


class Net(nn.Module):
    """A small network, which counts the batches that it has been trained on elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and os.environ[HOME] != str(os.getpid()):
            self.batches += 1
            if self.batches > 2:
                self.elsewhere()
        logits: Tensor = self.layer(x.flatten(1))
        return logits

    def elsewhere(self) -> None:
        """What it does there."""


class Mortal(Net):
    def elsewhere(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class MortalOnce(Net):
    def elsewhere(self) -> None:
        died = Path(os.environ[DIED])
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Faulty(Net):
    def elsewhere(self) -> None:
        torch.zeros(2) @ torch.zeros(3)

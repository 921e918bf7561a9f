"""Update rules over the arena of a pack: one family per file, the decay rule written once."""

from __future__ import annotations

from lrwd_sweep.optim.adam import Adam
from lrwd_sweep.optim.sgd import Sgd
from lrwd_sweep.optim.update import StepFamily, Update

__all__ = ["Adam", "Sgd", "StepFamily", "Update"]

"""Numeric demonstrations of the papers' propositions and of each update rule."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lrwd_sweep.lab.evidence import Section
from lrwd_sweep.lab.verify.lone_runs import parity_of_flat_minima, parity_of_kfac
from lrwd_sweep.lab.verify.parity import parity_by_library, parity_with_papers
from lrwd_sweep.lab.verify.propositions import filtering_identity, proposition_1, proposition_2, proposition_3
from lrwd_sweep.lab.verify.rotation import equilibrium_rotation, scale_invariance


def demonstrate(device: torch.device) -> Iterator[Section]:
    """Yield every demonstration on a device, in float64, section by section."""
    for section in (proposition_1, proposition_2, proposition_3, filtering_identity):
        yield section(device)
    yield scale_invariance(device)
    yield equilibrium_rotation(device)
    yield parity_of_flat_minima(device)
    yield parity_of_kfac(device)
    yield parity_with_papers(device)
    yield from parity_by_library(device)

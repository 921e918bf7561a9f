"""Numeric demonstrations: what the papers prove, and that each rule is what other libraries compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lrwd_sweep.lab.verify.filtering import filtering_identity
from lrwd_sweep.lab.verify.parity import parity_by_library
from lrwd_sweep.lab.verify.propositions import proposition_1, proposition_2, proposition_3
from lrwd_sweep.lab.verify.rotation import equilibrium_rotation
from lrwd_sweep.report.evidence import Section


def demonstrate(device: torch.device) -> Iterator[Section]:
    """Every demonstration on a device, in float64, one section after another."""
    for section in (proposition_1, proposition_2, proposition_3, filtering_identity, equilibrium_rotation):
        yield section(device)
    yield from parity_by_library(device)

"""The generators of the whole process, lent to code that draws from them: seeded, and given back unmoved."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_generators = threading.RLock()  # packs start in threads


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch on the CPU, numpy and random within; afterwards they are as they were."""
    with _generators, torch.inference_mode(mode=False), torch.enable_grad():
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])


def python_state() -> tuple[object, ...]:
    """Where the global generators of numpy and random stand; equal as long as nobody draws."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return name, np.asarray(keys).tobytes(), *rest, random.getstate()

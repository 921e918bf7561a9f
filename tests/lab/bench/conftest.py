from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Several measurements set torch's threads for their process; give them back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

"""Work that is handed to a GPU as a whole, as a CUDA graph; on a CPU it is done as it is written."""

from __future__ import annotations

from collections.abc import Callable

import torch

Work = Callable[[], object]

_BEFORE = 3  # times that work is done to make ready what is made once


def recorded(work: Work, device: torch.device) -> Work:
    """What does `work` again, on the same memory; it has been done a few times by then."""
    if device.type == "cpu":
        return work
    here = torch.cuda.current_stream(device)
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        for _ in range(_BEFORE):
            work()
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay

"""Steps replayed from CUDA graphs, where they do as the steps themselves.

A graph launches all that was recorded at once: the host is not asked and does not hold the device up. What
is gained is not measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lrwd_sweep.engine.program import Advance, Program
from lrwd_sweep.own_code import is_own
from lrwd_sweep.training import Training

TOLERANCE = 1e-3  # of the way that a lane has gone; the same kernels differ by rounding at most

Capture = Callable[[Program], Advance]


def capture(program: Program) -> Advance:
    """Record the program's steps as CUDA graphs, without taking them. Raises whatever CUDA refuses with."""
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    device = program.theta.device
    pool = torch.cuda.graph_pool_handle()  # one for all: they never run at the same time
    with torch.cuda.stream(torch.cuda.current_stream(device)):  # as it was, however recording ends
        for count in sorted({program.size, 1}):
            graphs[count] = torch.cuda.CUDAGraph()
            for stream in program.streams:
                graphs[count].register_generator_state(stream)  # every replay draws new numbers
            with torch.cuda.graph(graphs[count], pool=pool):
                program.steps(count)
    return lambda count: graphs[count].replay()


def recorder(training: Training, device: torch.device) -> Capture | None:
    """What records the steps of a training: nothing on a CPU, nor where a module may count its calls.

    Replayed, somebody's own code is not called any more; what it keeps besides tensors would stand still.
    """
    own = is_own(training.net) or is_own(training.loss)
    return capture if device.type == "cuda" and not own else None


def current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one, without which neither graphs nor Triton's kernels would find it."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def begun(begin: Callable[[], Program], shuffled: Tensor, record: Capture | None) -> Program:
    """A program in its first epoch, which replays a recording where that does to rounding as the steps do.

    `begin` gives a program before its first step, always the same one, whose memory is that of the one
    before. The first steps are taken as they are written, which also makes ready what is made once, such as
    kernels; then from the recording. A recording that fails, or does otherwise, is given up.
    """
    program = begin()
    if record is None or program.size < 1:
        program.begin(shuffled)
        return program
    start = program.theta[0].clone()
    expected = _first_steps(program, shuffled)
    del program
    program = begin()
    try:
        program.replay = record(program)
        if _agree(start, expected, _first_steps(program, shuffled)):
            return program
    except Exception:  # a network that asks the host, or no room for the recording
        pass
    del program
    program = begin()
    program.begin(shuffled)
    return program


def _first_steps(program: Program, shuffled: Tensor) -> tuple[Tensor, Tensor]:
    """θ and sums after the first steps, as many as are recorded together and one more."""
    program.begin(shuffled)
    end = program.size + 1
    while program.done < end:
        program.go(end)
    return program.theta.cpu(), program.total.cpu()


def _agree(start: Tensor, expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> bool:
    """Whether most lanes went the same way; one that is about to diverge makes much of any rounding."""
    (theta, sums), (other, other_sums) = expected, found
    way, apart = ((x - y).norm(dim=1) for x, y in ((theta, start.cpu()), (other, theta)))
    finite, other_finite = (x.isfinite().all(dim=1) for x in (theta, other))
    same = (apart <= TOLERANCE * way) | ~(finite | other_finite)
    same &= torch.isclose(other_sums, sums, rtol=TOLERANCE, equal_nan=True).all(dim=0)
    return bool(2 * same.sum() > len(same))

"""Steps replayed from CUDA graphs, where they do as the steps themselves.

A graph launches all that was recorded at once: the host is not asked and does not hold the device up. What
is gained is not measured on a GPU yet.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from lrwd_sweep.engine.program import Advance, Program
from lrwd_sweep.errors import brief
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code

TOLERANCE = 1e-3  # of the way that a lane has gone
ROUNDING = 1e-6  # relative, to see what a lane makes of it: more than summing in another order leaves
MARGIN = 3  # times that the recording may be off
AHEAD = 2  # recordings that the host has launched and not seen the end of: enough to keep a GPU busy
SURE = 0.1  # of the way: lanes that rounding takes further have no say beside others

Capture = Callable[[Program], Advance]

_log = logging.getLogger(__name__)


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
            # other threads of this process may ask CUDA for memory meanwhile
            with torch.cuda.graph(graphs[count], pool, _side(device), "thread_local"):
                program.steps(count)
    launched: deque[torch.cuda.Event] = deque()

    def replay(count: int) -> None:
        """Not far ahead of the device: who wants to stop would wait for all that was launched."""
        graphs[count].replay()
        launched.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
        launched[-1].record()
        if len(launched) > AHEAD:
            launched.popleft().synchronize()

    return replay


@lru_cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The stream to record on; torch's own is one for all GPUs, on whichever recorded first."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def recorder(task: Task, device: torch.device) -> Capture | None:
    """What records the steps of a training: nothing on a CPU, nor where a module may count its calls.

    Replayed, somebody's own code is not called any more; what it keeps besides tensors would stand still.
    """
    own = is_user_code(task.net) or is_user_code(task.loss)
    return capture if device.type == "cuda" and not own else None


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one, without which neither graphs nor Triton's kernels would find it.

    There cuDNN may try its algorithms, in the steps before the first that is recorded.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    tries, cudnn.benchmark = cudnn.benchmark, True
    try:
        with torch.cuda.device(device):
            yield
    finally:
        cudnn.benchmark = tries


def begun(begin: Callable[[], Program], shuffled: Tensor, record: Capture | None) -> Program:
    """A program in its first epoch, which replays a recording where that does to rounding as the steps do.

    `begin` gives a program before its first step, always the same one, whose memory is that of the one
    before. The first steps are taken as they are written, which also makes ready what is made once, such as
    kernels; so again, but for rounding; then from the recording. A recording that fails, or does otherwise,
    is given up.
    """
    program = begin()
    if record is None or program.size < 1:
        program.begin(shuffled)
        return program
    start = program.theta[0].clone()
    expected = _first_steps(program, shuffled)
    del program
    program = begin()
    program.theta[:, ::2].mul_(1 + ROUNDING)  # not of all: a scale may make no difference
    rounded = _first_steps(program, shuffled)
    del program
    program = begin()
    try:
        program.replay = record(program)
        if _agree(start, expected, rounded, _first_steps(program, shuffled)):
            return program
        given_up = "replayed, they go another way"
    except Exception as error:  # a network that asks the host, or no room for the recording
        given_up = brief(error)
    _log.info("steps are not replayed from CUDA graphs, which is slower: %s", given_up)
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


def _agree(
    start: Tensor,
    expected: tuple[Tensor, Tensor],  # (L, P), (MEASURES, L)
    rounded: tuple[Tensor, Tensor],  # the same, from a start that is a little off
    found: tuple[Tensor, Tensor],
) -> bool:
    """Whether most lanes went the same way, as far as each is sure of it; the sure ones have the say.

    A deep network in training makes much of little: on a CPU, 1e-7 of every gradient was up to half of the
    way after nine steps of a residual network; and a GPU may take a sum in another order each time.
    """
    theta, sums = expected
    way = (theta - start.cpu()).norm(dim=1)
    apart, unsure = ((other - theta).norm(dim=1) for other, _ in (found, rounded))
    most = torch.fmax(MARGIN * unsure, TOLERANCE * way)
    gone = ~(theta.isfinite().all(dim=1) | found[0].isfinite().all(dim=1))
    off = (found[1] - sums).abs()
    close = off * way <= most * sums.abs() + way  # and a sample, which may be on the edge between classes
    close |= torch.isclose(found[1], sums, equal_nan=True)
    same = ((apart <= most) | gone) & close.all(dim=0)
    say = unsure <= SURE * way
    voices = same[say] if say.any() else same
    return bool(2 * voices.sum() > len(voices))

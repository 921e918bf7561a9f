"""An epoch's steps as a program for a GPU, replayed from CUDA graphs if these agree with the steps.

A graph launches all recorded work at once, so that the host does not hold the device up. The gain has not
been measured on a GPU.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from lrwd_sweep.errors import brief
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code

RECORDED = 8  # steps per recording, at most: recording takes time and memory. Not tuned on a GPU
AHEAD = 2  # recordings launched and not finished: enough to keep a GPU busy
TOLERANCE = 1e-3  # of a lane's way
ROUNDING = 1e-6  # relative change of the start, to see how rounding grows: above that of a reordered sum
MARGIN = 3  # times the growth of rounding that a recording may be off
SURE = 0.1  # of the way: lanes that rounding takes further have no vote beside others

StepOnDevice = Callable[[Tensor, Tensor], Tensor]  # batch (B,), t (1,) → sums (MEASURES, L)
Advance = Callable[[int], None]  # takes a number of steps

_log = logging.getLogger(__name__)


class Program:
    """The steps of an epoch: the same work on the same memory each time, counted on the device.

    The host decides nothing within a step, so that a recording can be replayed. `replay` replaces the steps
    by recordings of `size` steps and of one.
    """

    def __init__(
        self,
        step: StepOnDevice,
        theta: Tensor,  # (L, P), changed by the steps
        total: Tensor,  # sums of the epoch
        streams: Sequence[torch.Generator],  # random numbers of the steps
        *,
        steps: int,  # per epoch
        batch_size: int,
    ) -> None:
        self.step, self.theta, self.total, self.streams = step, theta, total, tuple(streams)
        self.order = torch.zeros(steps, batch_size, dtype=torch.int64, device=theta.device)
        self.k = torch.zeros(1, dtype=torch.int64, device=theta.device)  # steps of the epoch
        self.t = torch.zeros_like(self.k)  # steps of the run
        self.size = min(RECORDED, steps - 2)  # one more, and the last of an epoch, run unrecorded
        self.done = 0  # k, as the host counts
        self.replay: Advance | None = None

    def begin(self, shuffled: Tensor) -> None:  # (n,)
        """Start an epoch in this order."""
        self.order.copy_(shuffled[: self.order.numel()].view_as(self.order))
        self.k.zero_()
        self.total.zero_()
        self.done = 0

    def resume(self, before: int, done: int) -> None:
        """Go on in a run that has taken `before` steps in earlier epochs and `done` in this one."""
        self.k.fill_(done)
        self.t.fill_(before + done)
        self.done = done

    def go(self, end: int) -> None:
        """Take some more steps of the epoch, not beyond the first `end`."""
        count = self.size if 0 < self.size <= end - self.done else 1
        (self.replay or self.steps)(count)
        self.done += count

    @torch.inference_mode()
    def steps(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            batch = self.order.index_select(0, self.k).squeeze(0)
            self.total.add_(self.step(batch, self.t))
            self.k.add_(1)
            self.t.add_(1)


Capture = Callable[[Program], Advance]


def capture(program: Program) -> Advance:
    """Record the program's steps as CUDA graphs without taking them. Raises any error of CUDA."""
    graphs: dict[int, torch.cuda.CUDAGraph] = {}
    device = program.theta.device
    pool = torch.cuda.graph_pool_handle()  # one for all: they never run at the same time
    with torch.cuda.stream(torch.cuda.current_stream(device)):  # restored however recording ends
        for count in sorted({program.size, 1}):
            graphs[count] = torch.cuda.CUDAGraph()
            for stream in program.streams:
                graphs[count].register_generator_state(stream)  # every replay draws new numbers
            # other threads of this process may ask CUDA for memory meanwhile
            with torch.cuda.graph(graphs[count], pool, _side(device), "thread_local"):
                program.steps(count)
    launched: deque[torch.cuda.Event] = deque()

    def replay(count: int) -> None:
        """Launch a recording, not far ahead of the device: a stop waits for all that was launched."""
        graphs[count].replay()
        launched.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
        launched[-1].record()
        if len(launched) > AHEAD:
            launched.popleft().synchronize()

    return replay


@lru_cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the stream to record on; torch's own belongs to the GPU that recorded first."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def recorder(task: Task, device: torch.device) -> Capture | None:
    """Choose how a task's steps are recorded; None on a CPU and for user code.

    A replay does not call user code; state that it keeps besides tensors would not change.
    """
    own = is_user_code(task.net) or is_user_code(task.loss)
    return capture if device.type == "cuda" and not own else None


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one, as graphs and compiled kernels need it, and let cuDNN try its algorithms.

    cuDNN tries them in the steps before the first recorded one.
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
    """Begin a program's first epoch; it replays a recording if that agrees with the steps to rounding.

    `begin` makes a program before its first step, always the same one, in the memory of the one before. The
    first steps run as written, which also compiles kernels; again from a start that is a little off, to see
    how rounding grows; then from the recording. A recording that fails or differs is dropped.
    """
    program = begin()
    if record is None or program.size < 1:
        program.begin(shuffled)
        return program
    start = program.theta[0].clone()
    expected = _first_steps(program, shuffled)
    del program
    program = begin()
    program.theta[:, ::2].mul_(1 + ROUNDING)  # only some columns: a common scale may make no difference
    rounded = _first_steps(program, shuffled)
    del program
    program = begin()
    try:
        program.replay = record(program)
        if _agree(start, expected, rounded, _first_steps(program, shuffled)):
            return program
        given_up = "replayed steps differ from the steps as written"
    except Exception as error:  # a network that asks the host, or no room for the recording
        given_up = brief(error)
    _log.info("steps are not replayed from CUDA graphs, which is slower: %s", given_up)
    del program
    program = begin()
    program.begin(shuffled)
    return program


def _first_steps(program: Program, shuffled: Tensor) -> tuple[Tensor, Tensor]:
    """Take the steps of one recording and one more; return θ and the sums."""
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
    """Return True if most lanes ended at the same place, within what rounding does to each of them.

    Lanes that rounding takes far have no vote beside others. A deep network amplifies rounding: on a CPU,
    1e-7 of every gradient became up to half of the way after nine steps of a residual network, and a GPU may
    sum in another order each time.
    """
    theta, sums = expected
    way = (theta - start.cpu()).norm(dim=1)
    apart, unsure = ((other - theta).norm(dim=1) for other, _ in (found, rounded))
    most = torch.fmax(MARGIN * unsure, TOLERANCE * way)
    gone = ~(theta.isfinite().all(dim=1) | found[0].isfinite().all(dim=1))
    off = (found[1] - sums).abs()
    close = off * way <= most * sums.abs() + way  # and one sample, which may lie between two classes
    close |= torch.isclose(found[1], sums, equal_nan=True)
    same = ((apart <= most) | gone) & close.all(dim=0)
    say = unsure <= SURE * way
    voices = same[say] if say.any() else same
    return bool(2 * voices.sum() > len(voices))

"""Parity of the updates with the papers' algorithms and with the installed libraries, in float64."""

import importlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from lrwd_sweep.lab.references import lone_rule, start_of, step_of
from lrwd_sweep.lab.verify import Check, Section
from lrwd_sweep.lab.verify.problem import STEPS, Problem, error, iterates, timetable
from lrwd_sweep.science.optimizer import DecayRule, Family, MomentumForm, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

SAME = 1e-10  # relative to the largest |θ|, at every step
DIFFERENT = 1e-6
SCHEDULES = (Schedule.FIXED, Schedule.COSINE, Schedule.RESTARTS)
MOVING = SCHEDULES[1:]


@dataclass(frozen=True, slots=True)
class Library:
    """A distribution, the module of its optimizers, and the oldest version that is compared."""

    name: str
    module: str
    since: str

    def obstacle(self) -> str:
        """Return why it cannot be compared here, or an empty text."""
        try:
            installed = version(self.name)
            if _numbers(installed) < _numbers(self.since):
                return f"{installed} is installed, {self.since} is the oldest that is compared"
            importlib.import_module(self.module)
        except PackageNotFoundError:
            return f"not installed; pip install {self.name}"
        except ImportError as why:
            return f"does not import: {why}"
        return ""


def _numbers(text: str) -> list[int]:
    """Return the numbers of a version, to compare it by.

    >>> _numbers("2.15.0+cu130")
    [2, 15, 0]
    """
    return [int(number) for number in re.findall(r"\d+", text.partition("+")[0])]


TORCH = Library("torch", "torch.optim", "2.6")
ADAMP = Library("adamp", "adamp", "0.3")
TIMM = Library("timm", "timm.optim", "1.0.16")
PYTORCH_OPTIMIZER = Library("pytorch_optimizer", "pytorch_optimizer", "4.0")  # SGDW was another before
OPTIMI = Library("torch-optimi", "optimi", "0.3")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A class of another library, our optimizer to compare it with, and their difference, if any."""

    library: Library
    name: str
    ours: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)  # ours, if not the default
    per_rate: bool = False  # its decay is ours divided by α, by which it multiplies
    hidden: Mapping[str, Any] = field(default_factory=dict)  # arguments that choose no method
    schedules: tuple[Schedule, ...] = SCHEDULES
    dimensions: int = 0  # of the tensors that it takes; 0: all
    in_bfloat16: bool = False  # its iterations, which then run in float64
    deviates: str = ""  # the difference from ours; the two must then differ

    @property
    def task(self) -> Task:
        """Return the task with our hyperparameters."""
        return Task(**self.hyperparameters)

    def make(self, parameters: Iterable[Tensor], alpha: float, decay: float) -> TorchOptimizer:
        """Make it for some parameters, at base learning rate α and our optimizer's decay."""
        make = getattr(importlib.import_module(self.library.module), self.name)
        weight_decay = decay / alpha if self.per_rate else decay
        others = {**self.arguments, **self.hidden}
        found: TorchOptimizer = make(parameters, lr=alpha, weight_decay=weight_decay, **others)
        return found

    @property
    def call(self) -> str:
        """Return its call as code, with our letter for the decay."""
        decay = Optimizer.parse(self.ours).symbol + "/α" * self.per_rate
        arguments = [f"{name}={value!r}" for name, value in self.arguments.items()]
        return f"{self.name}({', '.join([*arguments, f'weight_decay={decay}'])})"

    @property
    def our_call(self) -> str:
        """Return our optimizer's name, and its hyperparameters other than the default."""
        usual = Task().of(Optimizer.parse(self.ours))
        said = [self.ours]
        for name, value in self.hyperparameters.items():
            if name == "momentum_form":
                said.append(f"{value} form")
            elif value != getattr(usual, name):
                said.append(name if value is True else f"{name} {value:g}")
        return ", ".join(said)


_RMS = {"adjust_lr_fn": "match_rms_adamw"}
_MU = {"momentum": 0.9}
_NESTEROV = _MU | {"nesterov": True}
_TORCH_FORM = {"momentum_form": MomentumForm.TORCH}
_NO_TRITON = {"triton": False}
_AUTHORS_CLIP = {"clip_lambda": lambda step: math.pow(step - 1, 0.25)}  # they do not count the first step
_OUTSIDE = "α is outside its buffer, inside ours as in the paper's Algorithm 1"
_EPS_FIRST = "its ε stands before the bias correction, as in the AdamW authors' code"

REFERENCES = (
    Reference(TORCH, "SGD", "sgd", hyperparameters={"momentum": 0.0}),
    Reference(TORCH, "SGD", "sgd", _MU, schedules=(Schedule.FIXED,)),
    Reference(TORCH, "SGD", "sgd", _MU, schedules=MOVING, deviates=_OUTSIDE),
    Reference(TORCH, "SGD", "sgd", _MU, _TORCH_FORM),
    Reference(TORCH, "SGD", "sgd", _NESTEROV, {"nesterov": True}, schedules=(Schedule.FIXED,)),
    Reference(TORCH, "SGD", "sgd", _NESTEROV, {"nesterov": True} | _TORCH_FORM),
    Reference(TORCH, "Adam", "adam"),
    Reference(TORCH, "AdamW", "adamw:lr-scaled"),
    Reference(TORCH, "AdamW", "adamw", per_rate=True),
    Reference(TORCH, "AdamW", "adamw", deviates="its decay is lr-scaled, the paper's independent of α"),
    Reference(TORCH, "Adam", "amsgrad", {"amsgrad": True}),
    Reference(TORCH, "AdamW", "amsgradw:lr-scaled", {"amsgrad": True}),
    Reference(TORCH, "AdamW", "amsgradw", {"amsgrad": True}, per_rate=True),
    Reference(TORCH, "Adagrad", "adagrad"),
    Reference(TORCH, "RMSprop", "rmsprop"),
    Reference(TORCH, "RMSprop", "rmsprop", _MU, _MU),
    Reference(TORCH, "Muon", "muonw:lr-scaled", _RMS, dimensions=2, in_bfloat16=True),
    Reference(TORCH, "Muon", "muonw", _RMS, per_rate=True, dimensions=2, in_bfloat16=True),
    Reference(
        TORCH,
        "Muon",
        "muonw:lr-scaled",
        _RMS,
        dimensions=2,
        deviates="it orthogonalises in bfloat16, ours in the parameters' type",
    ),
    Reference(ADAMP, "AdamP", "adamp"),
    Reference(ADAMP, "AdamP", "adamp", {"nesterov": True}, {"nesterov": True}),
    Reference(ADAMP, "SGDP", "sgdp", _MU),
    Reference(ADAMP, "SGDP", "sgdp", _NESTEROV, {"nesterov": True}),
    Reference(TIMM, "SGDW", "sgdw:lr-scaled", _MU, _TORCH_FORM),
    Reference(TIMM, "SGDW", "sgdw:lr-scaled", _MU, schedules=MOVING, deviates=_OUTSIDE),
    Reference(TIMM, "SGDW", "sgdw:corrected", _MU | {"corrected_weight_decay": True}, _TORCH_FORM),
    Reference(TIMM, "AdamWLegacy", "adamw:corrected", {"corrected_weight_decay": True}),
    Reference(
        TIMM,
        "RMSpropTF",
        "rmsprop",
        {"alpha": 0.99, "eps": 1e-8},
        deviates="its v starts at 1 and its ε is under the root, as in TensorFlow",
    ),
    Reference(PYTORCH_OPTIMIZER, "SGDW", "sgdw:lr-scaled", _MU, _TORCH_FORM),
    Reference(
        PYTORCH_OPTIMIZER,
        "AdEMAMix",
        "adamw:fixed",
        {"alpha": 0.0, "weight_decouple": True, "fixed_decay": True},
    ),
    Reference(PYTORCH_OPTIMIZER, "AdamP", "adampw:fixed", {"fixed_decay": True, "eps": 0.0}, {"eps": 0.0}),
    Reference(
        PYTORCH_OPTIMIZER, "AdamC", "adamw:lr-scaled", {"eps": 1e-3}, {"eps": 1e-3}, deviates=_EPS_FIRST
    ),
    Reference(PYTORCH_OPTIMIZER, "Lion", "lion", {"weight_decouple": False}),
    Reference(PYTORCH_OPTIMIZER, "Lion", "lionw:lr-scaled"),
    Reference(PYTORCH_OPTIMIZER, "SGDP", "sgdp", _NESTEROV, {"nesterov": True}),
    Reference(PYTORCH_OPTIMIZER, "ADOPT", "adopt", hidden=_AUTHORS_CLIP),
    Reference(
        PYTORCH_OPTIMIZER,
        "ADOPT",
        "adoptw:lr-scaled",
        {"weight_decouple": True},
        hidden=_AUTHORS_CLIP,
    ),
    Reference(
        PYTORCH_OPTIMIZER,
        "ADOPT",
        "adoptw:fixed",
        {"weight_decouple": True, "fixed_decay": True},
        deviates="it clips step t at t^¼, ours as the authors at (t−1)^¼",
    ),
    Reference(PYTORCH_OPTIMIZER, "ScheduleFreeAdamW", "schedule-freew:lr-scaled"),
    Reference(PYTORCH_OPTIMIZER, "ScheduleFreeAdamW", "schedule-freew", per_rate=True),
    Reference(
        PYTORCH_OPTIMIZER,
        "SGDP",
        "sgdp",
        _MU,
        deviates="it projects a copy of its buffer; ours, like the AdamP authors', the buffer",
    ),
    Reference(OPTIMI, "SGD", "sgd", _MU, _TORCH_FORM, hidden=_NO_TRITON),
    Reference(OPTIMI, "SGD", "sgdw", _MU | {"decouple_lr": True}, _TORCH_FORM, hidden=_NO_TRITON),
    Reference(
        OPTIMI,
        "AdamW",
        "adamw",
        {"decouple_lr": True, "betas": (0.9, 0.999), "eps": 1e-8},
        hidden=_NO_TRITON,
    ),
    Reference(OPTIMI, "AdamW", "adamw:lr-scaled", {"betas": (0.9, 0.999), "eps": 1e-8}, hidden=_NO_TRITON),
)


def parity_with_papers(device: torch.device) -> Section:
    """Compare every family under every decay rule with its algorithm, under warm restarts.

    The references are one-tensor loops in the papers' letters, on every installation. K-FAC, which needs a
    network, has a section of its own.
    """
    problem, checks = Problem.on(device), []
    of_tensors = [name for name in optimizer_names() if Optimizer.parse(name).family is not Family.KFAC]
    tasks = [(name, Task()) for name in of_tensors]
    tasks += [(name, Task()) for name in ("sgdw:cautious", "adamw:cautious", "adamw:lr-scaled:cautious")]
    torch_form = Task(momentum_form=MomentumForm.TORCH)
    for name, task in [*tasks, ("sgd", torch_form), ("sgdw:lr-scaled", torch_form)]:
        lam = _decay(name, problem)
        ours = iterates(name, problem, lam=lam, schedule=Schedule.RESTARTS, task=task)
        optimizer = Optimizer.parse(name)
        algorithm = step_of(optimizer, task).__name__.replace("_", " ")
        only = "[uθ≥0]" * optimizer.cautious
        cells = (algorithm, name, optimizer.rule.update + only)
        checks.append(Check(cells, error(ours, _reference(optimizer, task, problem, lam)), SAME))
    return Section(
        "Parity with the papers' algorithms, restarts schedule", ("algorithm", "ours", "decay"), tuple(checks)
    )


@torch.inference_mode()
def _reference(optimizer: Optimizer, task: Task, problem: Problem, lam: Tensor) -> Tensor:
    """Return θ (steps, L, P) of the reference, a lane and a tensor at a time."""
    theta, times, found = problem.theta.clone(), timetable(Schedule.RESTARTS), []
    for row, part in product(theta, problem.layout):
        row[part.columns] = start_of(optimizer, row[part.columns].view(part.shape)).flatten()
    lanes = zip(problem.alpha.flatten().tolist(), lam.flatten().tolist(), strict=True)
    rules = [[lone_rule(optimizer, task, alpha, decay) for _ in problem.layout] for alpha, decay in lanes]
    for t in range(STEPS):
        g, now = problem.gradient(theta, t + 1), (times.eta(t), t + 1, times.steps_of_cycle(t))
        for of_lane, row, of_row in zip(rules, theta, g, strict=True):
            for rule, part in zip(of_lane, problem.layout, strict=True):
                before, slope = (x[part.columns].view(part.shape) for x in (row, of_row))
                row[part.columns] = rule(before, slope, *now).flatten()
        found.append(theta.clone())
    return torch.stack(found)


def parity_by_library(device: torch.device) -> Iterator[Section]:
    """Compare every optimizer of every library with ours, under each of its schedules."""
    for library in dict.fromkeys(reference.library for reference in REFERENCES):
        yield _section(library, Problem.on(device))


def _section(library: Library, problem: Problem) -> Section:
    title, headings = f"Parity with {library.name}", ("theirs", "ours", "schedules")
    if why_not := library.obstacle():
        return Section(title, headings, (), (why_not,))
    checks, notes = [], []
    for reference in REFERENCES:
        if reference.library != library:
            continue
        if why_not := _obstacle(reference, problem):
            notes.append(f"{reference.call} does not run here: {why_not}")
        else:
            checks.append(_check(reference, problem))
    return Section(f"{title} {version(library.name)}", headings, tuple(checks), tuple(notes))


def _obstacle(reference: Reference, problem: Problem) -> str:
    """Return why the installed version has no such optimizer, or an empty text."""
    try:
        reference.make([problem.theta.clone().requires_grad_()], alpha=0.1, decay=0.0)
    except (AttributeError, TypeError, ValueError) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def _check(reference: Reference, problem: Problem) -> Check:
    """Keep the largest error over the schedules; of a reference that deviates, the smallest."""
    errors = torch.tensor([difference(reference, problem, schedule) for schedule in reference.schedules])
    cells = (reference.call, reference.our_call, ", ".join(reference.schedules))
    if reference.deviates:  # NaN where one is, the largest too
        return Check(cells, errors.min().item(), DIFFERENT, reference.deviates)
    return Check(cells, errors.max().item(), SAME)


def difference(reference: Reference, problem: Problem, schedule: Schedule) -> float:
    """Compute the largest difference of θ over all steps, lanes and tensors, relative to the largest |θ|."""
    problem, lam = problem.of_dimensions(reference.dimensions), _decay(reference.ours, problem)
    ours = iterates(reference.ours, problem, lam=lam, schedule=schedule, task=reference.task)
    with in_float64() if reference.in_bfloat16 else nullcontext():
        return error(ours, _theirs(reference, problem, lam, schedule))


@contextmanager
def in_float64() -> Iterator[None]:
    """Make Tensor.bfloat16 a copy of the same type within the block."""
    bfloat16 = Tensor.bfloat16
    Tensor.bfloat16 = Tensor.clone  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.bfloat16 = bfloat16  # type: ignore[method-assign]


def _decay(ours: str, problem: Problem) -> Tensor:  # (L, 1)
    """Convert the problem's decay per step to an optimizer's convention, at η = 1 and without momentum."""
    per_step = Optimizer.parse(ours).rule in (DecayRule.INDEPENDENT, DecayRule.FIXED)
    return problem.lam if per_step else problem.lam / problem.alpha


def _theirs(
    reference: Reference,
    problem: Problem,
    lam: Tensor,  # (L, 1)
    schedule: Schedule,
) -> Tensor:  # (steps, L, P)
    """Run the library on one lane at a time, its parameters views of that lane's row; η_t sets its lr."""
    theta, times = problem.theta.clone(), timetable(schedule)
    g = torch.empty_like(theta)
    alphas = problem.alpha.flatten().tolist()
    lanes = []
    for row, of_row, alpha, decay in zip(theta, g, alphas, lam.flatten().tolist(), strict=True):
        parameters = []
        for segment in problem.layout:
            parameter = torch.nn.Parameter(row[segment.columns].view(segment.shape))
            parameter.grad = of_row[segment.columns].view(segment.shape)
            parameters.append(parameter)
        lanes.append(reference.make(parameters, alpha, decay))
    found = []
    for t in range(1, STEPS + 1):
        g.copy_(problem.gradient(theta, t))
        for optimizer, alpha in zip(lanes, alphas, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = alpha * times.eta(t - 1)
            optimizer.step()
        found.append(theta.clone())
    return torch.stack(found)

"""Claims of papers as numbers: Propositions 1, 2 and 3 of the AdamW paper (section 2, proofs in appendix A).

Section 3 reads decoupled decay as Bayesian filtering (Aitchison 2018). Scale invariance by ℓ2 normalisation;
rotation in equilibrium, the angle that a scale-invariant tensor turns in a step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from lrwd_sweep.lab.verify import Check, Section
from lrwd_sweep.lab.verify.problem import STEPS, Gradient, Problem, error, iterates
from lrwd_sweep.nets import network
from lrwd_sweep.optim import Segment, Update, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

ROUNDING = 1e-12  # rounding error of a hundred steps in float64
APART = 1e-3  # beyond rounding error
_HEADINGS = ("shown",)


def proposition_1(device: torch.device) -> Section:
    """Show that L2 with λ′ = λ/α is decay λ for SGD; with momentum they agree only in the long run."""
    problem = Problem.on(device)
    l2 = problem.lam / problem.alpha

    def compare(momentum: float, factor: float, schedule: Schedule) -> float:
        task = Task(momentum=momentum)
        ours = iterates("sgd", problem, lam=factor * l2, schedule=schedule, task=task)
        decay = iterates("sgdw", problem, lam=problem.lam, schedule=schedule, task=task)
        return error(ours, decay)

    fixed, cosine = Schedule.FIXED, Schedule.COSINE
    step_by_step = "with momentum 0.9 and λ′ = (1−β₁) λ/α it is not either, step by step"
    repeated = "the buffer holds α λ′ θ too, and repeats it 1/(1−β₁) times"
    return Section(
        "Proposition 1: without momentum, SGD with L2 λ′ = λ/α is SGD with decay λ",
        _HEADINGS,
        _checks(
            ("sgd with λ′ is sgdw with λ, fixed schedule", compare(0.0, 1.0, fixed), ROUNDING, ""),
            ("sgd with λ′ is sgdw with λ, cosine schedule", compare(0.0, 1.0, cosine), ROUNDING, ""),
            ("with momentum 0.9 it is not", compare(0.9, 1.0, fixed), APART, repeated),
            (step_by_step, compare(0.9, 0.1, fixed), 1e-6, "the buffer delays the decay"),
            ("but θ shrinks at that rate in the long run, up to O(λ)", _long_run(device), 1e-3, ""),
        ),
    )


def _checks(*rows: tuple[str, float, float, str]) -> tuple[Check, ...]:
    """Make checks of a claim, its error and bound, and why two must differ."""
    return tuple(Check((text,), error, bound, why) for text, error, bound, why in rows)


def _long_run(device: torch.device) -> float:
    """Compare the rates at which θ falls without a gradient, at λ = 1e-4 and β₁ = 0.9.

    The larger root of r² − (1 + β₁ − αλ′) r + β₁ is 1 − λ(1 + λβ₁/(1−β₁) + …) for αλ′ = (1−β₁)λ.
    """
    lam, steps = 1e-4, 400
    alpha = torch.full((1, 1), 0.1, dtype=torch.float64, device=device)
    rates = []
    for name, decay in (("sgd", 0.1 * lam / alpha), ("sgdw", lam * torch.ones_like(alpha))):
        theta = torch.ones_like(alpha)
        update = _update(name, Task(momentum=0.9), theta, (1,), alpha, decay)
        middle = theta
        for t in range(1, steps + 1):
            update.apply(theta, torch.zeros_like(theta), 1.0, t, steps)
            if t == steps // 2:
                middle = theta.clone()
        rates.append(torch.log(middle / theta))
    return error(*rates)


def _update(
    name: str, task: Task, theta: Tensor, shape: tuple[int, ...], alpha: Tensor, lam: Tensor
) -> Update:
    """Make the update of a single tensor."""
    segment = Segment("θ", 0, math.prod(shape), shape)
    return make_update(Optimizer.parse(name), task, theta, [segment], alpha=alpha, lam=lam)


# Proposition 2's witness: two coordinates whose gradients differ in size, so that M_t is not a multiple of I.
SIZES = (1.0, 1e-3)


def proposition_2(device: torch.device) -> Section:
    """Show that no L2 equals decay for Adam: each coordinate needs another λ′."""
    decayed = _witness("adamw", torch.full((1, 1), 1e-3, dtype=torch.float64, device=device))
    needed = _needed(decayed)
    large, small = needed.flatten().tolist()
    l2 = _witness("adam", needed)  # (2, 2): a λ′ per lane, a coordinate per column
    names = ("θ₁", "θ₂")
    rows = []
    for k, j in product(range(2), range(2)):
        verb, bound, why = "meets", 1e-10, ""
        if k != j:
            verb, bound, why = "misses", APART, f"that λ′ is for |g| ≈ {SIZES[k]:g}"
        text = f"adam with λ′ = {needed[k].item():.4g} {verb} adamw in {names[j]} (|g| ≈ {SIZES[j]:g})"
        rows.append((text, error(l2[k, j], decayed[0, j]), bound, why))
    text = f"the λ′ that θ₁ needs is {large / small:,.0f} times that of θ₂"
    why = "λ′ must be λ √v̂/α, and √v̂ is a matter of the coordinate"
    rows.append((text, abs(large - small) / large, 0.99, why))
    title = "Proposition 2: for Adam no λ′ makes L2 of decay λ (here λ = 0.001, α = 0.01)"
    return Section(title, _HEADINGS, _checks(*rows))


def _witness(name: str, lam: Tensor) -> Tensor:  # (L, 1) → (L, 2)
    """Return θ after STEPS steps from (1, 1), under gradients that change sign but not size."""
    theta = torch.ones(len(lam), 2, dtype=lam.dtype, device=lam.device)
    sizes = theta.new_tensor(SIZES)
    update = _update(name, Task(), theta, (2,), torch.full_like(lam, 0.01), lam)
    for t in range(1, STEPS + 1):
        sign = 1 if math.sin(t * t) > 0 else -1
        update.apply(theta, (sign * sizes).expand(len(lam), -1).clone(), 1.0, t, STEPS)
    return theta


def _needed(decayed: Tensor) -> Tensor:  # (1, 2) → (2, 1)
    """Find by bisection of ln λ′, for each coordinate, the λ′ with which Adam ends where AdamW does."""
    low, high = torch.full_like(decayed.T, 1e-7).log(), torch.full_like(decayed.T, 1.0).log()
    for _ in range(50):
        middle = (low + high) / 2
        too_weak = _witness("adam", middle.exp()).diagonal()[:, None] > decayed.T
        low, high = torch.where(too_weak, middle, low), torch.where(too_weak, high, middle)
    return ((low + high) / 2).exp()


def proposition_3(device: torch.device) -> Section:
    """Show that decay λ with a fixed preconditioner diag(s)⁻¹ is L2 of θ ⊙ √s."""
    problem = Problem.on(device)
    j = torch.arange(problem.theta.shape[1], dtype=torch.float64, device=device)
    s = 10 ** torch.sin(j)  # from 0.1 to 10
    task = Task(momentum=0.0)  # SGD whose gradient is M g: the preconditioner of the proposition
    l2 = problem.lam / problem.alpha

    def preconditioned(strength: Tensor, scale: Tensor) -> Gradient:
        """Return M times the gradient of f_t + (strength/2) ‖θ ⊙ √scale‖², the penalty's by autograd."""

        def gradient(theta: Tensor, t: int) -> Tensor:
            at = theta.clone().requires_grad_()
            penalty = (strength / 2 * (at * scale.sqrt()).square()).sum()
            (of_penalty,) = torch.autograd.grad(penalty, at)
            return (problem.gradient(theta, t) + of_penalty) / s

        return gradient

    none = torch.zeros_like(problem.lam)
    decayed = iterates("sgdw", replace(problem, gradient=preconditioned(none, s)), lam=problem.lam, task=task)

    def compare(strength: Tensor, scale: Tensor) -> float:
        penalised = replace(problem, gradient=preconditioned(strength, scale))
        return error(iterates("sgd", penalised, lam=none, task=task), decayed)

    return Section(
        "Proposition 3: with the preconditioner diag(s)⁻¹, decay λ is a penalty that s scales, λ′ = λ/α",
        _HEADINGS,
        _checks(
            ("penalty (λ′/2) ‖θ ⊙ √s‖², as in the proof", compare(l2, s), ROUNDING, ""),
            (
                "penalty (λ′/(2 α)) ‖θ ⊙ √s‖², as equation (2) is printed",
                compare(l2 / problem.alpha, s),
                APART,
                "a 1/α too many: λ′ = λ/α holds it already",
            ),
            (
                "penalty (λ′/2) ‖θ‖², plain L2",
                compare(l2, torch.ones_like(s)),
                APART,
                "Proposition 2: M is not a multiple of the identity",
            ),
        ),
    )


_N, _SEEN = 6, 3  # unknowns, and how many numbers a batch measures of them
_LAM, _Q, _R = 5e-3, 1e-3, 0.5  # decay; variances of the drift of θ and of a measurement


def filtering_identity(device: torch.device) -> Section:
    """Show that the filter of a Gaussian with drift N((I − λI)θ, Q) moves its mean by equation (1)."""
    one = torch.ones((1, 1), dtype=torch.float64, device=device)
    start = torch.linspace(-1, 2, _N, dtype=torch.float64, device=device)[None]
    means, covariances = _kalman(start[0])
    layout = (Segment("θ", 0, _N, (_N,)),)
    task = Task(momentum=0.0)

    def drifted(theta: Tensor, t: int) -> Tensor:
        """Evaluate the likelihood's gradient at the prior's mean (1−λ)θ, equation (3)."""
        return _preconditioned((1 - _LAM) * theta, t, covariances[t - 1])

    def penalised(theta: Tensor, t: int) -> Tensor:
        """Replace the drift by L2 of strength λ on average; Σ_post multiplies the penalty too."""
        sigma = covariances[t - 1]
        return _preconditioned(theta, t, sigma) + _LAM * theta @ sigma / sigma.diagonal().mean()

    # α = 1: Σ_post is the whole step.
    decayed = iterates("sgdw", Problem(layout, start, one, one, drifted), lam=_LAM * one, task=task)
    l2 = iterates("sgd", Problem(layout, start, one, one, penalised), lam=0 * one, task=task)
    return Section(
        "Filtering: a drift N((I − A) θ, Q) with A = λ I is decoupled decay, equation (1)",
        _HEADINGS,
        _checks(
            (
                "the Kalman filter's mean is sgdw with M = Σ_post, g at (1−λ) θ",
                error(decayed, means),
                ROUNDING,
                "",
            ),
            (
                "L2 of the same strength on average is not",
                error(l2, means),
                APART,
                "it acts through the uncertainty Σ_post, the drift does not",
            ),
        ),
    )


def _batch(t: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the measurement H (seen, n) of batch t and its result y (seen,)."""
    cells = torch.arange(_SEEN * _N, dtype=like.dtype, device=like.device)
    return torch.sin(cells * cells + 1.7 * t).view(_SEEN, _N), torch.cos(0.3 * t + cells[:_SEEN])


def _kalman(mean: Tensor) -> tuple[Tensor, Tensor]:  # (n,) → (steps, 1, n), (steps, n, n)
    """Compute means and covariances of the filter in its textbook form, by the gain K."""
    eye = torch.eye(_N, dtype=mean.dtype, device=mean.device)
    sigma, means, covariances = eye, [], []
    for t in range(1, STEPS + 1):
        H, y = _batch(t, mean)
        mean = (1 - _LAM) * mean
        sigma = (1 - _LAM) ** 2 * sigma + _Q * eye
        K = sigma @ H.T @ torch.linalg.inv(H @ sigma @ H.T + _R * eye[:_SEEN, :_SEEN])
        mean = mean + K @ (y - H @ mean)
        sigma = (eye - K @ H) @ sigma
        means.append(mean[None])
        covariances.append(sigma)
    return torch.stack(means), torch.stack(covariances)


def _preconditioned(theta: Tensor, t: int, sigma: Tensor) -> Tensor:  # (1, n)
    """Compute Σ_post times the gradient of −log P(y | θ)."""
    H, y = _batch(t, theta)
    return (sigma @ (H.T @ (H @ theta[0] - y) / _R))[None]


SHAPE = (64, 32)  # large: in few dimensions random gradients are not orthogonal to each other
SETTLING, MEASURED = 2000, 4000  # steps; the norm settles at a rate of 4λ and the measure averages its noise
THREE_DIGITS = 1e-3
SCALES = (1.0, 3.0, 0.2)  # c of scale invariance, a lane each
_D = math.prod(SHAPE)
_BETA = 0.9


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """The theory of one optimizer at momentum β = 0.9; α and decay are in its own convention."""

    optimizer: str
    formula: str
    cells: tuple[tuple[float, float], ...]  # α and decay
    angle: Callable[[float, float], float]  # of α and decay, in radians
    norm: Callable[[float, float], float]  # ‖θ‖ in equilibrium


def _decoupled(lam: float) -> float:
    return math.sqrt(2 * lam * (1 - _BETA) / (1 + _BETA))


def _sgd_norm(alpha: float, lam: float) -> float:
    """Balance total steps of α/((1−β)‖θ‖) with the decay: ‖θ‖⁴ = α²/(2λ(1−β)²)."""
    return math.sqrt(alpha / (1 - _BETA) / math.sqrt(2 * lam))


def _adam_norm(alpha: float, lam: float) -> float:
    """Balance steps of α√D, independent of the norm, with the decay: ‖θ‖² = α²D/(2λ)."""
    return alpha * math.sqrt(_D / (2 * lam))


EQUILIBRIA = (
    Equilibrium(
        "sgdw",
        "√(2 λ (1−β₁)/(1+β₁))",
        ((0.01, 1e-3), (0.04, 1e-3), (0.16, 1e-3)),
        lambda alpha, lam: _decoupled(lam),
        _sgd_norm,
    ),
    Equilibrium(
        "sgd",
        "√(2 α λ′/(1+β₁))",
        ((0.01, 0.01), (0.04, 0.0025), (0.04, 0.01)),
        lambda alpha, l2: math.sqrt(2 * alpha * l2 / (1 + _BETA)),
        lambda alpha, l2: _sgd_norm(alpha, alpha * l2 / (1 - _BETA)),
    ),
    Equilibrium(
        "adamw",
        "√(2 λ (1−β₁)/(1+β₁))",
        ((0.001, 1e-3), (0.004, 1e-3), (0.016, 1e-3)),
        lambda alpha, lam: _decoupled(lam),
        _adam_norm,
    ),
    Equilibrium(
        "adamw:lr-scaled",
        "√(2 α w (1−β₁)/(1+β₁))",
        ((0.001, 1.0), (0.002, 1.0)),
        lambda alpha, w: _decoupled(alpha * w),
        lambda alpha, w: _adam_norm(alpha, alpha * w),
    ),
)


def scale_invariance(device: torch.device) -> Section:
    """Show that the last matrix and the proxies of embed-norm have no scale, unlike an output layer."""
    checks = []
    for tensor in ("last.weight", "proxies.weight"):
        losses, theta, g, c = _scaled("embed-norm", tensor, device)
        along = float((g[0] * theta[0]).sum().abs() / (g[0].norm() * theta[0].norm()))
        for shown, off in (
            ("L(cW) = L(W)", error(losses, losses[:1])),
            ("∇L(cW) = ∇L(W)/c", error(c * g, g[:1])),
            ("∇L·W = 0", along),
        ):
            checks.append(Check(("embed-norm", tensor, shown), off, ROUNDING))
    losses, *_ = _scaled("mlp", "weight3", device)
    why = "its output layer is an ordinary one"
    off = error(losses, losses[:1])
    checks.append(Check(("mlp", "weight3", "L(cW) = L(W)"), off, APART, why))
    return Section(
        "Scale invariance by ℓ2 normalisation (Heo et al. 2021): c = 3 and 0.2",
        ("network", "tensor", "shown"),
        tuple(checks),
    )


def _scaled(net: str, tensor: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return losses (L,), a tensor and its gradient (L, out, in), and c (L, 1, 1), by which it is scaled."""
    made, stream = network(Task(net=net, engine="loop")), torch.Generator().manual_seed(0)
    first = {name: value.to(device) for name, value in made.init(stream).items()}
    theta = {name: value.repeat(len(SCALES), *[1] * value.dim()) for name, value in first.items()}
    grad = {name: torch.zeros_like(value) for name, value in theta.items()}
    c = theta[tensor].new_tensor(SCALES)[:, None, None]
    theta[tensor].mul_(c)
    x = torch.randn(64, 1, 8, 8, generator=stream, dtype=torch.float64).to(device)
    y = torch.arange(64, device=device) % 10
    losses, _ = made.lanes(theta, grad, 64).gradient(x, y, [torch.Generator(device) for _ in SCALES])
    return losses, theta[tensor], grad[tensor], c


def equilibrium_rotation(device: torch.device) -> Section:
    """Compare the mean angle between θ before and after a step, in equilibrium, with its formula."""
    checks = []
    for case in EQUILIBRIA:
        symbol = Optimizer.parse(case.optimizer).symbol
        for (alpha, decay), measured in zip(case.cells, measure(case, device).tolist(), strict=True):
            expected = case.angle(alpha, decay)
            cells = (f"{alpha:g}", f"{symbol} = {decay:g}", f"{measured:.6f}", f"{expected:.6f}")
            apart = abs(measured - expected) / expected
            checks.append(Check((case.optimizer, *cells), apart, THREE_DIGITS))
    return Section(
        "Rotation in equilibrium: the angle a scale-invariant tensor turns in a step (radians, β₁ = 0.9)",
        ("optimizer", "α", "decay", "measured", "formula"),
        tuple(checks),
        tuple(f"{case.optimizer}: {case.formula}" for case in EQUILIBRIA),
    )


def measure(case: Equilibrium, device: torch.device) -> Tensor:  # (L,) radians
    """Train on f(cθ) = f(θ) with gradients in random directions of the tangent space, of length 1/‖θ‖."""
    directions = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(len(case.cells), _D, generator=directions).to(device, torch.float64)

    alpha, lam = torch.tensor(case.cells, dtype=torch.float64, device=device).T[:, :, None]
    norms = [[case.norm(*cell)] for cell in case.cells]
    theta = torch.nn.functional.normalize(random()) * torch.tensor(norms).to(alpha)
    task = Task(momentum=_BETA, beta1=_BETA)
    update = _update(case.optimizer, task, theta, SHAPE, alpha, lam)
    norm = theta.norm(dim=1, keepdim=True)
    u, turned = theta / norm, torch.zeros_like(alpha)
    for t in range(1, SETTLING + MEASURED + 1):
        g = random()
        g -= (g * u).sum(dim=1, keepdim=True) * u
        update.apply(theta, g / (g.norm(dim=1, keepdim=True) * norm), 1.0, t, SETTLING + MEASURED)
        norm = theta.norm(dim=1, keepdim=True)
        before, u = u, theta / norm
        if t > SETTLING:
            turned += torch.acos((before * u).sum(dim=1, keepdim=True))
    return (turned / MEASURED).flatten()

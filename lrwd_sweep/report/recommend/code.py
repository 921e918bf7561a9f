"""A recommended cell as code to paste: the lines that follow from the table of constructors by family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lrwd_sweep.report.recommend.constructors import BY_HAND, EXACT, LIBRARIES, SHAPES
from lrwd_sweep.science.conversion import Conventions, Run
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Convention, DecayRule, Family, MomentumForm, Optimizer
from lrwd_sweep.science.schedule import DecaySchedule, Schedule
from lrwd_sweep.spec.catalog import EMA, ENSEMBLE, ETA, SWA
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task


@dataclass(frozen=True, slots=True)
class CodeLine:
    """Code to paste, and what the user must know about it; without code, why there is none."""

    code: str
    remark: str


_LR_SCALED = {Convention.INDEPENDENT: Convention.LR_SCALED}  # by hand as the product with lr = ηα
_SCHEDULED = (DecayRule.INDEPENDENT, DecayRule.LR_SCALED)  # equivalent under any schedule

_NO_DECAY = "no decay, which is the same in every convention"
_NO_SCHEDULED = "no line for decay that the schedule scales, as AdamW's: the two agree while η = 1 alone"


def digits(value: float) -> str:
    """Write a number with all the digits of a cell's identity.

    >>> digits(2**-6), digits(1e-3)
    ('0.015625', '0.001')
    """
    return f"{value:.12g}"


class _Swept:
    """A cell of a study, and N of its normalized decay (None if unknown)."""

    def __init__(self, spec: StudySpec, cell: Cell, steps: int | None) -> None:
        o, t = spec.optimizer, spec.task
        self.spec, self.cell, self.task, self.steps, self.lr = spec, cell, t, steps, digits(cell.lr)
        self.family, self.rule, self.own, self.normalized = o.family, o.rule, o.rule.convention, o.normalized
        self.library, self.name = LIBRARIES[o.family], o.family.display_name if o.family else o.label
        self.cautious, self.shape = o.cautious, t and t.decay_schedule
        self.every = t is None or (t.decay_all and not t.undecayed)
        self.constant = t is not None and t.timetable.is_constant
        self.restarts = t is not None and t.schedule is Schedule.RESTARTS
        self.open = o.normalized and (steps is None or self.restarts)  # N is a name in the code

    def number(self, convention: Convention) -> str | None:
        """Write the decay as code; None without a lasting equivalent in the convention, or if unknown."""
        x = self._converted(convention)
        if x is None or not self.normalized:
            return None if x is None else digits(x)
        return f"{digits(x)} / N**0.5" if self.open or not self.steps else digits(x / math.sqrt(self.steps))

    def for_length(self, convention: Convention) -> str | None:
        """Write the decay of a run of N steps with the same λ_norm as code; None if it is unknown."""
        x = self._converted(convention)
        if x is None or self.steps is None or self.open:
            return None
        return f"{digits(x if self.normalized else x * math.sqrt(self.steps))} / N**0.5"

    def _converted(self, convention: Convention) -> float | None:
        """Convert the cell's number; for normalized decay the result is still times √N."""
        momentum = None if self.task is None else self.task.momentum
        run = Run(
            self.family, self.cell.lr, self.steps, momentum, self.constant, bool(self.cautious or self.shape)
        )
        holds = run.holds(self.own, convention)
        return run.convert(self.cell.weight_decay, self.own, convention) if holds else None

    def values(self, weight_decay: str) -> str:
        """Write the cell as keyword arguments."""
        return f"dict(lr={self.lr}, weight_decay={weight_decay})"

    def call(self, constructor: str = "", weight_decay: str = "") -> str:
        """Write the call of a constructor; by default of one that does not decay unless told to."""
        name = constructor or self.library.coupled or self.library.decoupled
        decay = [f"weight_decay={weight_decay}"] if weight_decay else []
        if decay:
            kind = self.library.l2 if self.rule is DecayRule.COUPLED else self.library.decoupling
            decay += [kind] * bool(kind)
        return f"{name}({', '.join(['params', f'lr={self.lr}', *self._arguments(), *decay])})"

    def _arguments(self) -> Iterator[str]:
        """Yield what differs from the library's defaults, and always the momentum of SGD and SGDP."""
        usual, t = self.family.hyperparameters if self.family else {}, self.task
        always = bool(usual.get("momentum"))
        yield from self.library.arguments
        if t is None:
            yield from ["momentum=momentum"] * always
            return
        if "beta1" in usual:
            if (t.beta1, t.beta2) != (usual["beta1"], usual["beta2"]):
                yield f"betas=({t.beta1!r}, {t.beta2!r})"
        elif "beta2" in usual and t.beta2 != usual["beta2"]:
            yield f"alpha={t.beta2!r}"
        if "eps" in usual and t.eps != usual["eps"]:
            yield f"eps={t.eps!r}"
        if always or ("momentum" in usual and t.momentum):
            yield f"momentum={t.momentum!r}"
        if t.nesterov and (t.momentum or not always):  # torch refuses it without momentum
            yield "nesterov=True"

    def with_decay(self, constructor: str, number: str) -> str:
        """Write the call of a constructor, and the decay's new number at each restart if N changes it."""
        call = self.call(constructor, number)
        if not (self.open and self.restarts):
            return call
        return self.beside(call, "at each restart, with the new N", [f'group["weight_decay"] = {number}'])

    def by_hand(self, convention: Convention, number: str) -> CodeLine:
        """Write an optimizer without decay of its own, and θ ← θ − decay·θ before every step."""
        decay, weight_decay, remark = BY_HAND[convention]
        when, body = (
            "before each optimizer.step()",
            ['for p in group["params"]:', "    p.data.mul_(1 - decay)"],
        )
        decay = decay.format(x=number, lr=self.lr)
        if self.shape:
            decay, weight_decay = self.scheduled(number), 'decay / group["lr"]'
            when, remark = f"{when}, t = 0, 1, …", f"{self.shape} whatever the rate does"
        if self.cautious:
            about = self.remark(f"decay only where a step shrinks p, {remark}")
            return CodeLine(self._cautiously(decay), about)
        if not self.library.coupled:
            decay, when = (decay if self.shape else number) + self.library.share, f"{when}, for lr above 0"
            body = [f'group["weight_decay"] = {weight_decay.format(lr=self.lr)}']
        code = self.beside(self.call(), when, [f"decay = {decay}", *body])
        return CodeLine(code, self.remark(f"decoupled by hand, {remark}"))

    def scheduled(self, number: str) -> str:
        """Write the decay of step t under its own schedule as code, from λ."""
        assert self.task is not None
        shape = self.shape or DecaySchedule.CONSTANT
        return SHAPES[shape].format(x=number, n=self.task.steps)

    def _cautiously(self, decay: str) -> str:
        """Write an optimizer without decay, and decay after its step where the step has the sign of p."""
        groups = "optimizer.param_groups" + ("" if self.every else "[:1]")
        return "\n".join(
            [
                f"optimizer = {self.call()}",
                f"# in place of each optimizer.step(){', t = 0, 1, …' * bool(self.shape)}:",
                f'starts = [[p.detach().clone() for p in group["params"]] for group in {groups}]',
                "optimizer.step()",
                f"for group, before in zip({groups}, starts):",
                f"    decay = {decay}",
                '    for p, start in zip(group["params"], before):',
                "        p.data.sub_(decay * start * ((start - p.data) * start >= 0))",
            ]
        )

    def beside(self, call: str, when: str, body: Sequence[str]) -> str:
        """Write an optimizer and what to do with each of its groups that decay."""
        groups = "optimizer.param_groups" + ("" if self.every else "[:1]")
        lines = [f"optimizer = {call}", f"# {when}:", f"for group in {groups}:"]
        return "\n".join([*lines, *(f"    {line}" for line in body)])

    def remark(self, text: str) -> str:
        """Append how N is defined, and how the library's steps differ from the study's besides decay."""
        return "; ".join(filter(None, [text, self._about_n(), self._about_steps()]))

    def _about_n(self) -> str:
        """Describe N if the number of a cell is λ_norm."""
        if not self.normalized or self.cell.weight_decay == 0:
            return ""
        what = f"{self.rule.symbol} = λ_norm/√N"
        if self.task is None:
            return f"{what}, N the steps of your run"
        if not self.restarts:
            return f"{what}, N = {self.steps} steps"
        table = self.task.timetable
        first = table.t_0 * self.task.steps_per_epoch
        times = f", then ×{table.t_mult} each" if table.t_mult > 1 else ""
        return f"{what}, N the steps of the cycle: {first} in the first{times}"

    def _about_steps(self) -> str:
        t = self.task
        if t is None:
            return f"{self.library.unknown} as in your sweep" if self.family else ""
        if self.family is not Family.SGD or not t.momentum or t.momentum_form is MomentumForm.TORCH:
            return ""
        if self.constant:
            return "the paper's steps, as the rate is constant"
        return (
            "PyTorch has α outside the momentum: the paper's momentum only while the rate is constant; "
            "--momentum-form torch sweeps PyTorch's"
        )

    def update(self, rule: DecayRule) -> str:
        """Name the study's update with another rule, and write its formula."""
        name, form = self.name, self.task and self.task.momentum_form
        if self.family in (Family.SGD, Family.ADAM):
            name += "W" * (rule is not DecayRule.COUPLED)
            torch_form = self.family is Family.SGD and form is MomentumForm.TORCH
            name = f"{name} in PyTorch's form" if torch_form else f"the paper's {name}"
        else:
            name = f"{name} with the AdamW paper's decay"
        return f"{name}: {replace(self.spec, optimizer=Optimizer(self.family, rule)).formula}"

    def l2_is_decay(self) -> str:
        """State how far L2 in SGD is decay."""
        if self.task is not None and self.task.momentum == 0:
            return "λ = α·λ′ is exact without momentum (Proposition 1)"
        return "λ = α·λ′/(1−β₁) holds asymptotically, not step by step"


def recipe(spec: StudySpec, cell: Cell, decay: Conventions) -> tuple[CodeLine, ...]:
    """Return the lines for one cell of a study; N of normalized decay is `decay.steps`."""
    lines = _recipe(spec, cell, decay)
    pasted = "" if spec.command is None else " ".join(spec.command.pasted(cell, spec.seeds[0]))
    beside = [CodeLine("", f"in your flags: {pasted}")] if pasted else []
    if methods := methods_of(spec):
        beside.append(CodeLine(f"# {methods}", ""))
    return (lines[0], *beside, *lines[1:])


def methods_of(spec: StudySpec) -> str:
    """Name what a study's metric needs besides the optimizer, as `with SAM(rho=0.05)`; empty if nothing."""
    t, kind = spec.task, spec.metric.partition("_")[0]
    if t is None:
        return ""
    found = []
    if t.sam:
        found.append(f"ASAM(rho={t.sam:g}, eta={ETA})" if t.sam_adaptive else f"SAM(rho={t.sam:g})")
    if kind == SWA and t.swa is not None:
        found.append(f"swa of the weights after epochs {t.swa_epochs[0]} to {t.swa_epochs[-1]}")
    if kind == EMA and t.ema is not None:
        found.append(f"ema of the weights, half-life {t.ema:g} epoch{'s' * (t.ema != 1)}")
    if kind == ENSEMBLE and t.ensemble is not None:
        found.append(f"ensemble of the last {t.ensemble} snapshots")
    return f"with {', '.join(found)}" if found else ""


def _recipe(spec: StudySpec, cell: Cell, decay: Conventions) -> tuple[CodeLine, ...]:
    s = _Swept(spec, cell, decay.steps)
    if cell.weight_decay == 0:
        return (CodeLine(s.call() if s.family else s.values("0"), s.remark(_NO_DECAY)),)
    given = s.number(s.own)
    assert given is not None, "it was swept"
    if s.family is None:
        return tuple(_foreign(s, given))
    groups = [] if s.every or s.task is None else [_in_groups(s.task)]
    by_hand = s.cautious or s.shape
    alone = not (s.library.coupled or s.library.decoupled)  # no library has it
    if alone or (s.cautious and not s.library.coupled):
        return (*groups, *_as_formula(s, given))
    if by_hand:
        number = s.number(Convention.INDEPENDENT if s.shape else _LR_SCALED.get(s.own, s.own))
        assert number is not None, "it is exact"
        return (*groups, s.by_hand(Convention.LR_SCALED if s.shape else _LR_SCALED.get(s.own, s.own), number))
    if s.rule is DecayRule.COUPLED:
        lines = _coupled(s, given)
    else:
        lines = _scheduled(s) if s.rule in _SCHEDULED else _unscheduled(s, given)
    return (*groups, *lines, *_other_length(s))


def _foreign(s: _Swept, given: str) -> Iterator[CodeLine]:
    yield CodeLine(s.values(given), s.remark(f"as swept: {s.spec.formula}"))
    if s.rule is DecayRule.COUPLED:
        why = "what L2 does to an unknown optimizer has no constant equivalent"
        yield CodeLine("", f"no line for decoupled decay: {why}")
        return
    other = Convention.LR_SCALED if s.own is Convention.INDEPENDENT else Convention.INDEPENDENT
    number = s.number(other)
    if number is None or s.rule not in _SCHEDULED:
        yield CodeLine("", _NO_SCHEDULED)
    else:
        yield CodeLine(s.values(number), f"the same, {other}: exact under any schedule")


def _as_formula(s: _Swept, given: str) -> Iterator[CodeLine]:
    """Yield Muon from torch, else the values with the formula that they belong to."""
    w, t = s.number(Convention.LR_SCALED), s.task
    plain = s.every and not (s.cautious or s.shape or s.open)
    if s.family is Family.MUON and w and t and plain and s.rule in _SCHEDULED:
        rates, adam = f"lr={s.lr}, weight_decay={w}", f"betas=({t.beta1!r}, {t.beta2!r}), eps={t.eps!r}"
        muon = f'momentum={t.momentum!r}, adjust_lr_fn="match_rms_adamw"'
        code = [
            "matrices = [p for p in model.parameters() if p.ndim == 2]",
            "others = [p for p in model.parameters() if p.ndim != 2]",
            f"optimizers = [torch.optim.Muon(matrices, {rates}, {muon}),",
            f"              torch.optim.AdamW(others, {rates}, {adam})]",
        ]
        yield CodeLine("\n".join(code), s.remark(f"torch orthogonalises in bfloat16; {EXACT}"))
    yield CodeLine(s.values(given), s.remark(f"{s.name}: {s.spec.formula}"))


def _in_groups(t: Task) -> CodeLine:
    """Write the parameters in two groups, of which the first decays."""
    found = [] if t.decay_all else ["biases and parameters of normalisation"]
    found += ["parameters that --no-decay names"] if t.no_decay else []
    spared, named, decays, others = [], "p in model.parameters()", "p.ndim > 1", "p.ndim <= 1"
    if t.undecayed:
        spared, named = (
            [f"spared = {{{', '.join(map(repr, t.undecayed))}}}"],
            "name, p in model.named_parameters()",
        )
        decays = "name not in spared" if t.decay_all else f"{decays} and name not in spared"
        others = "name in spared" if t.decay_all else f"{others} or name in spared"
    lines = [
        *spared,
        f"weights = [p for {named} if {decays}]",
        f"others = [p for {named} if {others}]",
        "params = [dict(params=weights), dict(params=others, weight_decay=0.0)]",
    ]
    remark = f"params of these lines: {' and '.join(found)} do not decay in this study"
    return CodeLine("\n".join(lines), remark)


def _coupled(s: _Swept, given: str) -> Iterator[CodeLine]:
    """Yield L2 of the library, and decoupled decay if it is equivalent."""
    remark = s.remark(f"L2, the rule of this study: {DecayRule.COUPLED.update}")
    if s.library.coupled:
        yield CodeLine(s.with_decay(s.library.coupled, given), remark)
    else:
        body = ['for p in group["params"]:', f"    p.grad.add_(p.data, alpha={given})"]
        yield CodeLine(s.beside(s.call(), "before each optimizer.step()", body), remark)
    if s.family is not Family.SGD:
        what = s.library.decoupled.rpartition(".")[2] or "decoupled decay"
        why = f"no constant decay does what this λ′ does in {s.name} (Proposition 2)"
        yield CodeLine("", f"no line for {what}: {why}; sweep {s.family}w")
        return
    yield CodeLine(s.values(given), s.update(DecayRule.COUPLED))
    lam = s.number(Convention.INDEPENDENT)
    if lam is None:
        why = "its λ takes the momentum, which an imported study does not tell"
        yield CodeLine("", f"no line for SGDW: {why}")
    else:
        yield CodeLine(s.values(lam), f"{s.update(DecayRule.INDEPENDENT)}; {s.l2_is_decay()}")


def _scheduled(s: _Swept) -> Iterator[CodeLine]:
    """Yield decay proportional to η: as the library decays or by hand, as L2, as the paper writes it."""
    w, l2, lam = map(s.number, (Convention.LR_SCALED, Convention.COUPLED, Convention.INDEPENDENT))
    if w is None:
        why = "its w takes the momentum, which an imported study does not tell"
        yield CodeLine("", f"no line for {s.name} of the adamp package: {why}")
    elif s.library.decoupled:
        yield CodeLine(s.with_decay(s.library.decoupled, w), s.remark(s.library.remark))
    else:
        yield s.by_hand(Convention.LR_SCALED, w)
    if l2 is not None:
        yield CodeLine(s.with_decay(s.library.coupled, l2), f"L2 instead of decay: {s.l2_is_decay()}")
    if lam is not None:
        yield CodeLine(s.values(lam), s.update(DecayRule.INDEPENDENT))


def _unscheduled(s: _Swept, given: str) -> Iterator[CodeLine]:
    """Yield fixed or corrected decay by hand, and its equivalents at a constant rate."""
    yield s.by_hand(s.own, given)
    lam, w = s.number(Convention.INDEPENDENT), s.number(Convention.LR_SCALED)
    if lam is None or w is None:
        yield CodeLine("", _NO_SCHEDULED)
        return
    same = "the same while the rate is constant, as here"
    if s.library.decoupled:
        yield CodeLine(s.call(s.library.decoupled, w), same)
    yield CodeLine(s.values(lam), f"{same}; {s.update(DecayRule.INDEPENDENT)}")


def _other_length(s: _Swept) -> Iterator[CodeLine]:
    """Yield the cell for a run of N steps, as the paper proposes for λ; of L2 only SGD's is a λ."""
    is_lambda = s.rule in _SCHEDULED or (s.family is Family.SGD and s.rule is DecayRule.COUPLED)
    constructor, convention = "", s.own
    if s.rule is DecayRule.COUPLED:
        constructor = s.library.coupled
    elif s.rule in _SCHEDULED:
        constructor = s.library.decoupled
        convention = Convention.LR_SCALED if constructor else Convention.INDEPENDENT
    number = s.for_length(convention)
    if s.task is None or number is None or not (is_lambda or s.normalized):
        return
    proposal = "λ = λ_norm/√N, as the paper proposes"
    if not is_lambda:
        proposal = f"{s.rule.symbol} = λ_norm/√N, as the paper proposes for λ"
    cycle, train = "a last cycle of " * s.restarts, s.task.train_items
    remark = f"{cycle}T epochs at batch b, N = T·⌊{train}/b⌋ steps (here {s.steps}): {proposal}"
    yield CodeLine(s.call(constructor, number) if constructor else s.values(number), remark)

"""A recommended cell as code to paste: the lines that follow from the table of constructors by family."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lrwd_sweep.science.conversion import Conventions, Run
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Convention, DecayRule, Family, MomentumForm, Optimizer
from lrwd_sweep.science.schedule import DecaySchedule, Schedule
from lrwd_sweep.spec.catalog import methods_of
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

EXACT = "w = λ/α: exact under any schedule, which multiplies the decay too"


@dataclass(frozen=True, slots=True)
class _Library:
    """The constructors of a family in libraries, by the meaning of their argument weight_decay."""

    coupled: str = ""  # it is λ′, L2; empty if no library has it
    decoupled: str = ""  # it is w, lr-scaled; empty if no library has it
    unknown: str = ""  # hyperparameters that an imported study does not tell
    remark: str = EXACT  # on `decoupled`
    argument: str = ""  # always passed
    share: str = ""  # factor of the decay that the constructor divides by
    flags: tuple[str, str] = ("", "")  # arguments that make its weight_decay L2, and decoupled


LIBRARIES = {  # a new family needs a row; its other arguments follow from `Family.hyperparameters`
    None: _Library(),  # an imported optimizer that is not one of ours
    Family.SGD: _Library("torch.optim.SGD", "", "momentum"),
    Family.ADAM: _Library("torch.optim.Adam", "torch.optim.AdamW", "betas and ε"),
    Family.AMSGRAD: _Library("torch.optim.Adam", "torch.optim.AdamW", "betas and ε", EXACT, "amsgrad=True"),
    Family.ADAGRAD: _Library("torch.optim.Adagrad", "", "ε"),
    Family.RMSPROP: _Library("torch.optim.RMSprop", "", "alpha, ε and momentum"),
    Family.SGDP: _Library(
        decoupled="adamp.SGDP",
        unknown="momentum",
        remark="adamp is its authors' package, which divides w by 1−β₁: w = λ(1−β₁)/α, exact under any "
        "schedule, which multiplies the decay too",
        share=' * (1 - group["momentum"])',
    ),
    Family.LION: _Library(
        "pytorch_optimizer.Lion", "pytorch_optimizer.Lion", "betas", flags=("weight_decouple=False", "")
    ),
    Family.ADAMP: _Library("", "adamp.AdamP", "betas and ε", f"adamp is its authors' package; {EXACT}"),
    Family.ADOPT: _Library(
        "pytorch_optimizer.ADOPT",
        "pytorch_optimizer.ADOPT",
        "betas and ε",
        argument="clip_lambda=lambda step: (step - 1) ** 0.25",  # as the authors count
        flags=("", "weight_decouple=True"),
    ),
    Family.SCHEDULE_FREE: _Library(
        decoupled="pytorch_optimizer.ScheduleFreeAdamW",
        unknown="betas and ε",
        remark=f"optimizer.eval() before it is evaluated, optimizer.train() after; {EXACT}",
    ),
    Family.MUON: _Library(unknown="momentum, betas and ε"),
    Family.NDADAM: _Library(unknown="betas and ε"),
    Family.KFAC: _Library(unknown="momentum, damping and averages of the factors"),
}

# The decay of each step as code, from the number x; weight_decay that makes a projected family decay so,
# less where it projects; and a remark.
BY_HAND = {
    Convention.LR_SCALED: ('group["lr"] * {x}', "", "w = λ/α: the decay is exact under any schedule"),
    Convention.FIXED: (
        "{x}",
        'decay / group["lr"]',
        "d whatever the schedule: what pytorch_optimizer's fixed_decay does",
    ),
    Convention.CORRECTED: (
        'group["lr"] ** 2 / {lr} * {x}',
        'decay * group["lr"] / {lr}',
        "η²αc, where lr = ηα: what timm's corrected_weight_decay does",
    ),
}
SHAPES = {  # of decay with a schedule of its own, from t = 0, 1, … and the number n of steps
    DecaySchedule.CONSTANT: "{x}",
    DecaySchedule.STEP: "{x} * 0.1 ** sum(t >= share * {n} for share in (0.3, 0.6, 0.8))",
    DecaySchedule.COSINE: "{x} * (0.5 + 0.5 * math.cos(math.pi * t / {n}))",
    DecaySchedule.LINEAR: "{x} * (1 - t / {n})",
}

_SCHEDULED = (DecayRule.INDEPENDENT, DecayRule.LR_SCALED)  # equivalent under any schedule
_NO_SCHEDULED = "no line for decay that the schedule scales, as AdamW's: the two agree while η = 1 alone"


@dataclass(frozen=True, slots=True)
class CodeLine:
    """Code to paste, and what the user must know about it; without code, why there is none."""

    code: str
    remark: str


class _Swept:
    """A cell of a study, and N of its normalized decay (None if unknown)."""

    def __init__(self, spec: StudySpec, cell: Cell, steps: int | None) -> None:
        o, t = spec.optimizer, spec.task
        self.spec, self.cell, self.task, self.steps, self.lr = spec, cell, t, steps, f"{cell.lr:.12g}"
        self.family, self.rule, self.own, self.normalized = o.family, o.rule, o.rule.convention, o.normalized
        self.library, self.name = LIBRARIES[o.family], o.family.display_name if o.family else o.label
        self.cautious, self.shape, self.form = o.cautious, t and t.decay_schedule, t and t.momentum_form
        self.every = t is None or (t.decay_all and not t.undecayed)
        self.constant = t is not None and t.timetable.is_constant
        self.restarts = t is not None and t.schedule is Schedule.RESTARTS
        self.open = o.normalized and (not steps or self.restarts)  # N is a name in the code
        no_l2 = bool(self.cautious or self.shape)
        self.run = Run(o.family, cell.lr, steps, None if t is None else t.momentum, self.constant, no_l2)
        self.groups = "optimizer.param_groups" + "[:1]" * (not self.every)  # that decay

    def number(self, convention: Convention) -> str | None:
        """Write the decay as code; None without a lasting equivalent in the convention, or if unknown."""
        x = self._converted(convention)
        if x is None or self.open:
            return None if x is None else f"{x:.12g} / N**0.5"
        return f"{x / math.sqrt(self.steps) if self.normalized and self.steps else x:.12g}"

    def for_length(self, convention: Convention) -> str | None:
        """Write the decay of a run of N steps with the same λ_norm as code; None if it is unknown."""
        x = self._converted(convention)
        if x is None or self.steps is None or self.open:
            return None
        return f"{x if self.normalized else x * math.sqrt(self.steps):.12g} / N**0.5"

    def _converted(self, convention: Convention) -> float | None:
        """Convert the cell's number; for normalized decay the result is still times √N."""
        holds = self.run.holds(self.own, convention)
        return self.run.convert(self.cell.weight_decay, self.own, convention) if holds else None

    def values(self, weight_decay: str) -> str:
        return f"dict(lr={self.lr}, weight_decay={weight_decay})"

    def call(self, constructor: str = "", weight_decay: str = "") -> str:
        """Write the call of a constructor; by default of one that does not decay unless told to."""
        name = constructor or self.library.coupled or self.library.decoupled
        words = ["params", f"lr={self.lr}", *self._arguments()]
        if weight_decay:
            flag = self.library.flags[self.rule is not DecayRule.COUPLED]
            words += [f"weight_decay={weight_decay}", *[flag] * bool(flag)]
        return f"{name}({', '.join(words)})"

    def _arguments(self) -> Iterator[str]:
        """Yield what differs from the library's defaults, and always the momentum of SGD and SGDP."""
        usual, t = self.family.hyperparameters if self.family else {}, self.task
        always = bool(usual.get("momentum"))
        yield from filter(None, [self.library.argument])
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
        call, again = self.call(constructor, number), [f'group["weight_decay"] = {number}']
        renewed = self.open and self.restarts
        return self.beside(call, "at each restart, with the new N", again) if renewed else call

    def by_hand(self, convention: Convention, number: str) -> CodeLine:
        """Write an optimizer without decay of its own, and θ ← θ − decay·θ before every step."""
        decay, weight_decay, remark = BY_HAND[convention]
        decay, when = decay.format(x=number, lr=self.lr), "before each optimizer.step()"
        if self.task is not None and self.shape:
            decay = SHAPES[self.shape].format(x=number, n=self.task.steps)
            weight_decay, when = 'decay / group["lr"]', f"{when}, t = 0, 1, …"
            remark = f"{self.shape} whatever the rate does"
        if self.cautious:
            lines = [  # no decay of the library's, but after its step where the step has the sign of p
                f"optimizer = {self.call()}",
                f"# in place of each optimizer.step(){', t = 0, 1, …' * bool(self.shape)}:",
                f'starts = [[p.detach().clone() for p in group["params"]] for group in {self.groups}]',
                "optimizer.step()",
                f"for group, before in zip({self.groups}, starts):",
                f"    decay = {decay}",
                '    for p, start in zip(group["params"], before):',
                "        p.data.sub_(decay * start * ((start - p.data) * start >= 0))",
            ]
            return CodeLine("\n".join(lines), self.remark(f"decay only where a step shrinks p, {remark}"))
        body = ['for p in group["params"]:', "    p.data.mul_(1 - decay)"]
        if not self.library.coupled:
            decay, when = (decay if self.shape else number) + self.library.share, f"{when}, for lr above 0"
            body = [f'group["weight_decay"] = {weight_decay.format(lr=self.lr)}']
        code = self.beside(self.call(), when, [f"decay = {decay}", *body])
        return CodeLine(code, self.remark(f"decoupled by hand, {remark}"))

    def beside(self, call: str, when: str, body: Sequence[str]) -> str:
        """Write an optimizer and what to do with each of its groups that decay."""
        return "\n    ".join([f"optimizer = {call}\n# {when}:\nfor group in {self.groups}:", *body])

    def remark(self, text: str) -> str:
        """Append how N is defined, and how the library's steps differ from the study's besides decay."""
        return "; ".join(filter(None, [text, self._about_n(), self._about_steps()]))

    def _about_n(self) -> str:
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
        if self.family is not Family.SGD or not t.momentum or self.form is MomentumForm.TORCH:
            return ""
        if self.constant:
            return "the paper's steps, as the rate is constant"
        outside = "PyTorch has α outside the momentum: the paper's momentum only while the rate is constant"
        return f"{outside}; --momentum-form torch sweeps PyTorch's"

    def update(self, rule: DecayRule) -> str:
        """Name the study's update with another rule, and write its formula."""
        name = f"{self.name} with the AdamW paper's decay"
        if self.family in (Family.SGD, Family.ADAM):
            in_torch = self.family is Family.SGD and self.form is MomentumForm.TORCH
            name = self.name + "W" * (rule is not DecayRule.COUPLED)
            name = f"{name} in PyTorch's form" if in_torch else f"the paper's {name}"
        return f"{name}: {replace(self.spec, optimizer=Optimizer(self.family, rule)).formula}"

    def l2_is_decay(self) -> str:
        if self.task is not None and self.task.momentum == 0:
            return "λ = α·λ′ is exact without momentum (Proposition 1)"
        return "λ = α·λ′/(1−β₁) holds asymptotically, not step by step"


def recipe(spec: StudySpec, cell: Cell, decay: Conventions) -> tuple[CodeLine, ...]:
    """Return the lines for one cell of a study; N of normalized decay is `decay.steps`."""
    first, *rest = _lines(_Swept(spec, cell, decay.steps))
    beside = []
    if spec.command is not None and (flags := " ".join(spec.command.pasted(cell, spec.seeds[0]))):
        beside.append(CodeLine("", f"in your flags: {flags}"))
    if methods := methods_of(spec.task, spec.metric):
        beside.append(CodeLine(f"# {methods}", ""))
    return (first, *beside, *rest)


def _lines(s: _Swept) -> Iterator[CodeLine]:
    if s.cell.weight_decay == 0:
        remark = s.remark("no decay, which is the same in every convention")
        yield CodeLine(s.call() if s.family else s.values("0"), remark)
        return
    given = s.number(s.own)
    assert given is not None, "it was swept"
    if s.family is None:
        yield from _foreign(s, given)
        return
    if s.task is not None and not s.every:
        yield _in_groups(s.task)
    if not s.library.coupled and (s.cautious or not s.library.decoupled):  # no library has it
        yield from _as_formula(s, given)
    elif s.cautious or s.shape:
        own = Convention.LR_SCALED if s.shape or s.own is Convention.INDEPENDENT else s.own  # with lr = ηα
        number = s.number(Convention.INDEPENDENT if s.shape else own)
        assert number is not None, "it is exact"
        yield s.by_hand(own, number)
    else:
        if s.rule is DecayRule.COUPLED:
            yield from _coupled(s, given)
        else:
            yield from _scheduled(s) if s.rule in _SCHEDULED else _unscheduled(s, given)
        yield from _other_length(s)


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
    found = ["biases and parameters of normalisation"] * (not t.decay_all)
    found += ["parameters that --no-decay names"] * bool(t.no_decay)
    named = "name, p in model.named_parameters()" if t.undecayed else "p in model.parameters()"
    tests = [("p.ndim > 1", "p.ndim <= 1")] * (not t.decay_all)
    tests += [("name not in spared", "name in spared")] * bool(t.undecayed)
    lines = [
        *[f"spared = {{{', '.join(map(repr, t.undecayed))}}}"] * bool(t.undecayed),
        f"weights = [p for {named} if {' and '.join(decays for decays, _ in tests)}]",
        f"others = [p for {named} if {' or '.join(spared for _, spared in tests)}]",
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
    scheduled = s.rule in _SCHEDULED
    is_lambda = scheduled or (s.family is Family.SGD and s.rule is DecayRule.COUPLED)
    constructor = s.library.coupled if s.rule is DecayRule.COUPLED else s.library.decoupled * scheduled
    own = Convention.LR_SCALED if constructor else Convention.INDEPENDENT
    number = s.for_length(own if scheduled else s.own)
    if s.task is None or number is None or not (is_lambda or s.normalized):
        return
    symbol, of = ("λ", "") if is_lambda else (s.rule.symbol, " for λ")
    proposal = f"{symbol} = λ_norm/√N, as the paper proposes{of}"
    cycle, train = "a last cycle of " * s.restarts, s.task.train_items
    remark = f"{cycle}T epochs at batch b, N = T·⌊{train}/b⌋ steps (here {s.steps}): {proposal}"
    yield CodeLine(s.call(constructor, number) if constructor else s.values(number), remark)

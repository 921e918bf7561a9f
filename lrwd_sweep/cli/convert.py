"""`lrwd-sweep convert`: a weight decay in another convention, with the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import one_of, whole
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import ASCII, UNICODE, Glyphs, to_ascii, written
from lrwd_sweep.science.conversion import Run, timescale
from lrwd_sweep.science.lattice import parse_value
from lrwd_sweep.science.optimizer import CAUTIOUS, Convention, DecayRule, Family, Optimizer

MOMENTUM = 0.9
_GIVE_STEPS = "give --steps, or --epochs, --batch-size and --train-size"
_CONVENTIONS = f"{', '.join(list(Convention)[:-1])} or {list(Convention)[-1]}"


def _option(name: str, metavar: str, text: str, parser: Any = None) -> Any:
    names = (name, "-o") if name == "--optimizer" else (name,)
    return typer.Option(*names, metavar=metavar, parser=parser, help=text, show_default=False)


def _count(name: str, text: str) -> Any:
    return _option(name, "N", text, whole(name))


def _convention(name: str, text: str) -> Any:
    return _option(name, "NAME", text, one_of("convention", Convention))


def convert(
    optimizer: Annotated[str, _option("--optimizer", "NAME", "Optimizer of the decay, named as for `grid`.")],
    lr: Annotated[str, _option("--lr", "VALUE", "Base learning rate α, such as 1e-3 or 2^-10.")],
    wd: Annotated[str, _option("--wd", "VALUE", "Weight decay, in the convention --from.")],
    source: Annotated[
        Convention | None,
        _convention("--from", f"Meaning of --wd: {_CONVENTIONS} (default: from the optimizer's name)."),
    ] = None,
    target: Annotated[
        Convention | None, _convention("--to", "Convention to convert it to (default: all of them).")
    ] = None,
    steps: Annotated[
        int | None, _count("--steps", "Steps of the run, or of one cycle (default: from the next three).")
    ] = None,
    epochs: Annotated[int | None, _count("--epochs", "Epochs of the run (default: unknown).")] = None,
    batch_size: Annotated[int | None, _count("--batch-size", "Samples per step (default: unknown).")] = None,
    train_size: Annotated[
        int | None, _count("--train-size", "Samples in the training set (default: unknown).")
    ] = None,
    drop_last: Annotated[
        bool, typer.Option("--drop-last", help="Drop each epoch's incomplete last batch, as `grid` does.")
    ] = False,
    momentum: Annotated[
        float | None,
        typer.Option(
            "--momentum",
            metavar="VALUE",
            help=f"Momentum β₁ of sgd for coupled, of sgdp for lr-scaled (default: {MOMENTUM}).",
        ),
    ] = None,
    form: options.Format = options.TextFormat.TEXT,
) -> None:
    """Convert one weight decay to other conventions, with the formula and its limits.

    torch.optim.AdamW's 0.05 at a learning rate of 1e-3, as the paper writes it:

    \b
      lrwd-sweep convert --optimizer adamw --lr 1e-3 --wd 0.05
          --from lr-scaled --to independent
    """
    named = Optimizer.parse(optimizer)
    per_epoch, total = _budget(steps, epochs, batch_size, train_size, drop_last=drop_last)
    run = Run(named.family, parse_value(lr, "lr"), total, _momentum(named, momentum), no_l2=named.cautious)
    value = abs(parse_value(wd, "wd"))  # it may be -0
    asked = _Conversion(run, value, source or named.rule.convention, target, per_epoch)
    if named.normalized and source is None:
        asked = asked.normalized()
    asked.check()
    if form is options.TextFormat.JSON:
        import json

        consoles.write(json.dumps(asked.document(), indent=2) + "\n")
        return
    console = consoles.stdout()
    for line in asked.lines(ASCII if console.options.ascii_only else UNICODE):
        console.print(line, soft_wrap=True)


def _momentum(optimizer: Optimizer, given: float | None) -> float | None:
    if optimizer.family not in (Family.SGD, Family.SGDP):
        if given is not None:
            raise UsageError(f"--momentum {given:g} belongs to sgd and sgdp; leave it out for {optimizer}")
        return None
    found = MOMENTUM if given is None else given
    if not 0 <= found < 1:
        raise UsageError(f"--momentum {found:g} is out of range; choose at least 0 and below 1")
    return found


def _budget(
    steps: int | None, epochs: int | None, batch_size: int | None, train_size: int | None, *, drop_last: bool
) -> tuple[int | None, int | None]:
    """Return steps per epoch and in all, each None if unknown."""
    given = {"--epochs": epochs, "--batch-size": batch_size, "--train-size": train_size}
    if drop_last and train_size is None:
        raise UsageError(
            "--drop-last needs --train-size, --batch-size and --epochs; add them or leave it out"
        )
    if steps is not None and any(given.values()):
        raise UsageError(f"--steps {steps} is enough; leave out --epochs, --batch-size and --train-size")
    if epochs is None or batch_size is None or train_size is None:
        if any(given.values()):
            missing = " and ".join(name for name, value in given.items() if value is None)
            raise UsageError(f"the number of steps needs {missing} too; or give --steps")
        return None, steps
    if batch_size > train_size:
        raise UsageError(f"--batch-size {batch_size} is larger than --train-size {train_size}")
    per_epoch = train_size // batch_size if drop_last else math.ceil(train_size / batch_size)
    return per_epoch, epochs * per_epoch


@dataclass(frozen=True, slots=True)
class _Conversion:
    """One weight decay to be converted to `target`, or to every convention."""

    run: Run
    value: float
    source: Convention
    target: Convention | None
    steps_per_epoch: int | None
    lambda_norm: float | None = None  # the number given, if `value` is that over √N

    def normalized(self) -> _Conversion:
        """Read the number as λ_norm. Raises UsageError if N is needed and unknown."""
        if self.source is Convention.INDEPENDENT:
            return replace(self, source=Convention.NORMALIZED)
        if self.value == 0:  # the same in every convention
            return self
        if not self.run.steps:
            why = self.run.obstacle(Convention.NORMALIZED)
            raise UsageError(f"--wd {self.value:g} is λ_norm, and {why}; {_GIVE_STEPS}")
        return replace(self, value=self.value / math.sqrt(self.run.steps), lambda_norm=self.value)

    def check(self) -> None:
        """Raise UsageError if the target has no value, or a value that overflows."""
        for target in self._targets():
            found = self._number(target)
            if found is None and self.target is not None:
                raise UsageError(f"{self.source} to {target}: {self._why_not(target)}")
            if found is not None and (not math.isfinite(found) or (found == 0) is not (self.value == 0)):
                raise UsageError(
                    f"--wd {self.value:g} at --lr {self.run.lr:g} overflows or underflows as {target}"
                )

    def lines(self, glyphs: Glyphs) -> list[str]:
        """Write the answer as text, in characters that the console has."""
        given, *rest = self._lines()
        lines = [given, *(f"  {written(text, glyphs) if '←' in text else text}" for text in rest)]
        return [to_ascii(line) for line in lines] if glyphs.ascii else lines

    def document(self) -> dict[str, Any]:
        """Return the answer as JSON, schema_version 1."""
        tau, projected = self._taus()
        norm = {} if self.lambda_norm is None else {"lambda_norm": self.lambda_norm}
        return {
            "schema_version": 1,
            "family": str(self.run.family),
            "lr": self.run.lr,
            "momentum": self.run.momentum,
            "steps": self.run.steps,
            "from": {"convention": str(self.source), "value": self.value} | norm,
            "conventions": [
                {
                    "convention": str(target),
                    "value": self._number(target),
                    "update": self.run.update(target),
                    "arithmetic": list(self.run.arithmetic(self.value, self.source, target)),
                    "exact": not self._limits(target),
                    "remark": self._limits(target),
                }
                for target in self._targets()
            ],
            "timescale_steps": tau,
            "timescale_steps_projected": projected,
            "timescale_epochs": tau / self.steps_per_epoch if tau and self.steps_per_epoch else None,
        }

    def _targets(self) -> list[Convention]:
        return list(Convention) if self.target is None else [self.target]

    def _number(self, target: Convention) -> float | None:
        return self.run.convert(self.value, self.source, target)

    def _lines(self) -> Iterator[str]:
        run, symbol = self.run, self.source.symbol
        given = f"{self.source} {symbol} = {self.value:.6g} at α = {run.lr:.6g}"
        if self.target is not None:
            given += f" is {self.target} {self.target.symbol} = {self._number(self.target):.6g}"
        yield given
        if self.lambda_norm is not None:
            yield f"{symbol} = λ_norm / √N = {self.lambda_norm:.6g} / √{run.steps} = {self.value:.6g}"
        if self.target is None:
            yield run.update(self.source)
            for target in Convention:
                found = self._number(target)
                number = "none" if found is None else f"{found:.6g}"
                yield f"{target:<12} {target.symbol:<7}{number:<12} {run.users(target)}"
            yield from self._notes()
        else:
            yield from run.arithmetic(self.value, self.source, self.target)
            yield from dict.fromkeys([run.update(self.source), run.update(self.target)])
            yield self._limits(self.target) or "exact under any schedule"
        if ends := [tau for tau in self._taus() if tau is not None]:
            averaged = f"{' to '.join(f'{tau:.6g}' for tau in ends)} steps"
            if self.steps_per_epoch:
                epochs = " to ".join(f"{tau / self.steps_per_epoch:.4g}" for tau in ends)
                averaged += f" = {epochs} epochs"
            longer = ", the longer where a step is projected" * (len(ends) > 1)
            where = " of coordinates that always decay" * run.no_l2
            yield f"decay averages over 1/λ = {averaged} where η = 1{where}{longer}"

    def _notes(self) -> Iterator[str]:
        """Yield every limit once, after the conventions that it is about."""
        about: dict[str, list[str]] = {}
        for target in Convention:
            about.setdefault(self._limits(target), []).append(str(target))
        return (f"{', '.join(targets)}: {limits}" for limits, targets in about.items() if limits)

    def _limits(self, target: Convention) -> str:
        """Explain why there is no value, or how far it holds; empty if it is exact."""
        if target is self.source or self.value == 0:
            return ""
        if self._number(target) is None:
            return self._why_not(target)
        return "; ".join(filter(None, dict.fromkeys(map(self.run.limits, (self.source, target)))))

    def _why_not(self, target: Convention) -> str:
        first = next(one for one in (self.source, target) if self.run.gain(one) is None)
        why, family = self.run.obstacle(first), self.run.family
        if first is Convention.NORMALIZED:
            return f"{why}; {_GIVE_STEPS}"
        if family is None or len(family.rules) < len(DecayRule) or self.run.no_l2:
            name = f"{family}w:{CAUTIOUS}" if self.run.no_l2 else family
            return f"{why}; sweep it as it is: lrwd-sweep grid --optimizer {name}"
        return f"{why}; sweep both: lrwd-sweep compare {family} {family}w"

    def _taus(self) -> tuple[float | None, float | None]:
        """Return τ in steps, and τ of projected steps for SGDP and AdamP."""
        lam, family = self._number(Convention.INDEPENDENT), self.run.family
        return timescale(lam), timescale(lam, 1.0) if family and family.projected else None

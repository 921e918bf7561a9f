"""What `convert` answers: one weight decay in other conventions, as text or as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view.notation import Glyphs, to_ascii, written
from lrwd_sweep.science.conversion import Run, timescale
from lrwd_sweep.science.decay import Convention

_GIVE_STEPS = "give --steps, or --epochs, --batch-size and --train-size"


@dataclass(frozen=True, slots=True)
class Asked:
    """One weight decay to be said in another convention, or in all."""

    run: Run
    value: float
    source: Convention
    target: Convention | None
    steps_per_epoch: int | None
    lambda_norm: float | None = None  # what was given, where the source's number is that over √N

    def normalized(self) -> Asked:
        """The same of an optimizer whose number is λ_norm. Raises UsageError where N is not known."""
        if self.source is Convention.INDEPENDENT:
            return replace(self, source=Convention.NORMALIZED)
        if self.value == 0:  # which is so in every convention
            return self
        if not self.run.steps:
            why = self.run.obstacle(Convention.NORMALIZED)
            raise UsageError(f"--wd {self.value:g} is λ_norm, and {why}; {_GIVE_STEPS}")
        return replace(self, value=self.value / math.sqrt(self.run.steps), lambda_norm=self.value)

    def check(self) -> None:
        """Raise UsageError where the target has no value, or none that a number can hold."""
        for target in Convention if self.target is None else [self.target]:
            found = self.run.convert(self.value, self.source, target)
            if found is None and self.target is not None:
                raise UsageError(f"{self.source} to {target}: {self._why_not(target)}")
            if found is not None and (not math.isfinite(found) or (found == 0) is not (self.value == 0)):
                raise UsageError(f"--wd {self.value:g} at --lr {self.run.lr:g} is no number as {target}")

    def lines(self, glyphs: Glyphs) -> list[str]:
        """For a person, in characters that the console has."""
        given, *rest = self._lines()
        lines = [given, *(f"  {written(text, glyphs) if '←' in text else text}" for text in rest)]
        return [to_ascii(line) for line in lines] if glyphs.ascii else lines

    def _lines(self) -> list[str]:
        update, symbol = self.run.update, self.source.symbol
        given = f"{self.source} {symbol} = {self.value:.6g} at α = {self.run.lr:.6g}"
        divided = (
            []
            if self.lambda_norm is None
            else [f"{symbol} = λ_norm / √N = {self.lambda_norm:.6g} / √{self.run.steps} = {self.value:.6g}"]
        )
        if self.target is None:
            rows, notes = [self._row(target) for target in Convention], self._notes()
            return [given, *divided, update(self.source), *rows, *notes, *self._timescale()]
        found = self.run.convert(self.value, self.source, self.target)
        holds = self._limits(self.target) or "exact under any schedule"
        return [
            f"{given} is {self.target} {self.target.symbol} = {found:.6g}",
            *divided,
            *self.run.arithmetic(self.value, self.source, self.target),
            *dict.fromkeys([update(self.source), update(self.target)]),
            holds,
            *self._timescale(),
        ]

    def document(self) -> dict[str, Any]:
        """For a program, schema_version 1."""
        tau = self._tau()
        return {
            "schema_version": 1,
            "family": str(self.run.family),
            "lr": self.run.lr,
            "momentum": self.run.momentum,
            "steps": self.run.steps,
            "from": {"convention": str(self.source), "value": self.value}
            | ({} if self.lambda_norm is None else {"lambda_norm": self.lambda_norm}),
            "conventions": [
                {
                    "convention": str(target),
                    "value": self.run.convert(self.value, self.source, target),
                    "update": self.run.update(target),
                    "arithmetic": list(self.run.arithmetic(self.value, self.source, target)),
                    "exact": not self._limits(target),
                    "remark": self._limits(target),
                }
                for target in (Convention if self.target is None else [self.target])
            ],
            "timescale_steps": tau,
            "timescale_steps_projected": self._tau_projected(),
            "timescale_epochs": tau / self.steps_per_epoch if tau and self.steps_per_epoch else None,
        }

    def _row(self, target: Convention) -> str:
        found = self.run.convert(self.value, self.source, target)
        number = "none" if found is None else f"{found:.6g}"
        return f"{target:<12} {target.symbol:<7}{number:<12} {self.run.users(target)}"

    def _notes(self) -> list[str]:
        """Every limit once, after the conventions that it is about."""
        about: dict[str, list[str]] = {}
        for target in Convention:
            about.setdefault(self._limits(target), []).append(str(target))
        return [f"{', '.join(targets)}: {limits}" for limits, targets in about.items() if limits]

    def _limits(self, target: Convention) -> str:
        """Why there is no value, or how far it holds; empty where it is exact."""
        if target is self.source or self.value == 0:
            return ""
        if self.run.convert(self.value, self.source, target) is None:
            return self._why_not(target)
        return "; ".join(filter(None, dict.fromkeys(map(self.run.limits, (self.source, target)))))

    def _why_not(self, target: Convention) -> str:
        conventions = [one for one in (self.source, target) if self.run.gain(one) is None]
        why = self.run.obstacle(conventions[0])
        if conventions[0] is Convention.NORMALIZED:
            return f"{why}; {_GIVE_STEPS}"
        family = self.run.family
        if family is None or family.projected:
            return f"{why}; sweep it as it is: lrwd-sweep grid --optimizer {family}"
        return f"{why}; sweep both: lrwd-sweep compare {family} {family}w"

    def _timescale(self) -> list[str]:
        ends = [tau for tau in (self._tau(), self._tau_projected()) if tau is not None]
        if not ends:
            return []
        steps = " to ".join(f"{tau:.6g}" for tau in ends)
        epochs = ""
        if self.steps_per_epoch:
            epochs = f" = {' to '.join(f'{tau / self.steps_per_epoch:.4g}' for tau in ends)} epochs"
        longer = ", the longer where a step is projected" * (len(ends) > 1)
        return [f"decay averages over 1/λ = {steps} steps{epochs} where η = 1{longer}"]

    def _tau(self) -> float | None:
        return timescale(self._lambda())

    def _tau_projected(self) -> float | None:
        """τ where SGDP or AdamP projects; None of the other families."""
        family = self.run.family
        return timescale(self._lambda(), 1.0) if family and family.projected else None

    def _lambda(self) -> float | None:
        return self.run.convert(self.value, self.source, Convention.INDEPENDENT)

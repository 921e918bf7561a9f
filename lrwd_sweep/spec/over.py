"""The scale of `transfer`: one quantity of a task with several values, and a study for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.scaling import Axis
from lrwd_sweep.spec.net_options import joined_options, options_text
from lrwd_sweep.spec.preset import Preset
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

EXAMPLE = "epochs=15,60,240"
_WHOLE = (Axis.EPOCHS, Axis.BATCH_SIZE, Axis.WIDTH)


@dataclass(frozen=True, slots=True)
class Over:
    """A quantity and its values, ascending."""

    axis: Axis
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `epochs=15,60,240`, in any order. Raises UsageError or UnknownName."""
        name, equals, values = text.partition("=")
        if not equals:
            raise UsageError(f"{arg('over', text)} names no values; write {EXAMPLE}")
        if name not in Axis.__members__.values():
            raise UnknownName("scale", name, [str(axis) for axis in Axis])
        axis = Axis(name)
        found = sorted({_number(axis, value.strip(), text) for value in values.split(",")})
        if len(found) < 2:
            raise UsageError(f"{arg('over', text)} has one value; a scale needs two or more, as {EXAMPLE}")
        return cls(axis, tuple(found))

    @classmethod
    def of_preset(cls, preset: Preset) -> Self | None:
        """Return the quantity in which alone a preset's variants differ, or None."""
        first, *others = preset.variants or (None,)
        for axis in (Axis.EPOCHS, Axis.BATCH_SIZE, Axis.TRAIN_FRACTION):
            name = axis.replace("-", "_")
            if first is None or not others or any(name not in each.task for each in preset.variants):
                continue
            rest = {k: v for k, v in first.task.items() if k != name}
            if all(replace(each, task={**rest, name: first.task[name]}) == first for each in others) and all(
                {k: v for k, v in each.task.items() if k != name} == rest for each in others
            ):
                return cls(axis, tuple(sorted(float(each.task[name]) for each in preset.variants)))
        return None

    def label(self, value: float) -> str:
        """Write `epochs 60`."""
        return f"{self.axis} {value:g}"

    def specs(
        self, request: Request, optimizer: str | None, complete: Callable[[Task], Task]
    ) -> dict[str, StudySpec]:
        """Return the spec of every value, ascending, by study name. Raises UsageError or UnknownName."""
        if request.options is not None:
            raise UsageError(
                f"{request.options.option} cannot be swept over {self.axis}: its steps are not known; sweep "
                "it with grid for each value"
            )
        name = "net_options" if self.axis is Axis.WIDTH else self.axis.replace("-", "_")
        given = dict(request.overrides).get(name)
        if name == "net_options":
            given = given and json.loads(given).get("width")
        if given is not None:
            stated = arg(name, f"width={given}") if name == "net_options" else arg(name, given)
            raise UsageError(f"{stated} has no effect: {arg('over')} sets it; leave one of them out")
        if request.refine:
            raise UsageError(
                f"{arg('refine', True)} ends at a verdict, but each lattice of a transfer needs all cells "
                "and seeds; leave it out"
            )
        found: dict[str, StudySpec] = {}
        for value in self.values:
            own = dict(request.overrides) | self._override(value, request)
            changed = replace(request, overrides=tuple(own.items()))
            of_preset = optimizer is None and self.of_preset(request.preset) is not None
            variant = changed.variants([])[0] if of_preset else changed.variant(optimizer)
            spec = changed.spec(variant, complete=complete)
            found[changed.name(spec)] = spec
        if len({spec.optimizer for spec in found.values()}) != 1 or len(found) < len(self.values):
            raise UsageError(f"{arg('over')}: two values give the same study; leave one of them out")
        return found

    def _override(self, value: float, request: Request) -> dict[str, Any]:
        match self.axis:
            case Axis.WIDTH:
                given = dict(request.overrides).get("net_options", "")
                return {"net_options": joined_options(given, options_text({"width": int(value)}))}
            case Axis.TRAIN_FRACTION:
                return {"train_fraction": None if value == 1 else value}
        return {self.axis.replace("-", "_"): int(value)}


def _number(axis: Axis, text: str, given: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{arg('over', given)}: {text!r} is not a number; write {EXAMPLE}") from None
    if axis in _WHOLE and not (value.is_integer() and 1 <= value <= 10**9):
        raise UsageError(f"{arg('over', given)}: {text} is not a whole number of at least 1")
    if axis is Axis.TRAIN_FRACTION and not 0 < value <= 1:
        raise UsageError(f"{arg('over', given)}: {text} is not a share above 0, and at most 1")
    return value

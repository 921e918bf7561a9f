"""The options that say what to train, which grid, compare and tpe share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from lrwd_sweep.cli import options
from lrwd_sweep.errors import UsageError
from lrwd_sweep.lattice import Lattice, parse_axis
from lrwd_sweep.preset import Variant, find_preset
from lrwd_sweep.spec import Kind, StudySpec, refuse_unused, tidy


@dataclass(frozen=True, slots=True)
class Task:
    """What the command line says of a study besides its optimizer; None means: as in the preset."""

    preset: str = options.DEFAULT_PRESET
    lr: str | None = None
    wd: str | None = None
    seeds: int | None = None
    metric: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()  # of `spec.Training`, by field

    @property
    def pictures(self) -> tuple[str, ...]:
        """What draws the preset's answer, besides the report."""
        return find_preset(self.preset).show

    def variant(self, name: str | None) -> Variant:
        """The named optimizer, or the only one that the preset names. Raises UsageError or UnknownName."""
        named = find_preset(self.preset).variants
        if name is None and len(named) == 1:
            return self.variants([])[0]
        return self.variants([options.DEFAULT_OPTIMIZER if name is None else name])[0]

    def variants(self, names: Sequence[str]) -> list[Variant]:
        """The named optimizers, or all that the preset compares. Raises UsageError or UnknownName."""
        preset = find_preset(self.preset)
        chosen = [Variant.named(name) for name in names] or list(preset.variants)
        if not chosen:
            raise UsageError(f"preset {preset.name!r} names no variants; name an optimizer")
        overrides = dict(self.overrides)
        schedules = [
            {"schedule": preset.training.schedule, **v.training, **overrides}["schedule"] for v in chosen
        ]
        refuse_unused(overrides, [variant.optimizer for variant in chosen], schedules)
        return chosen

    def spec(self, variant: Variant, kind: Kind = Kind.GRID) -> StudySpec:
        """The complete specification; what is asked for here outweighs the variant and the preset.

        Raises UsageError or UnknownName.
        """
        preset = find_preset(self.preset)
        lr = variant.lr if self.lr is None else parse_axis(self.lr, "lr")
        wd = variant.wd if self.wd is None else parse_axis(self.wd, "wd")
        if lr is None or wd is None:
            default = preset.lattice(variant.optimizer)
            lr, wd = lr or default.lr, wd or default.weight_decay
        seeds = preset.seeds if self.seeds is None else self.seeds
        training = preset.training.changed(**{**variant.training, **dict(self.overrides)})
        metric = self.metric or preset.metric
        return StudySpec(kind, variant.optimizer, Lattice(lr, wd), tuple(range(seeds)), metric, training)

    def name(self, spec: StudySpec) -> str:
        """The study's name unless one is given: made of the spec, behind the preset's but for the default.

        Presets ask different questions, so that one's lattice is none of another's.
        """
        owner, name = find_preset(self.preset).owner, spec.default_name
        return name if owner == options.DEFAULT_PRESET else f"{tidy(owner)}-{name}"


def takes_task(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `task` is made of the options in `options.TASK`, which stand in its place."""
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != "task":
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        for name, (annotation, default) in options.TASK.items():
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    positional = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        task = {name: given.pop(name) for name in options.TASK}
        own = {name: task.pop(name) for name in ("preset", "lr", "wd", "seeds", "metric")}
        task |= dict(zip(("beta1", "beta2"), task.pop("betas") or (None, None), strict=True))
        overrides = tuple((name, value) for name, value in task.items() if value is not None)
        command(task=Task(**own, overrides=overrides), **given)

    with_options.__signature__ = signature.replace(parameters=positional)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in positional}
    del with_options.__wrapped__  # or its own signature would be read
    return with_options

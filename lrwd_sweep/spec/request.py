"""What is asked of a study, on the command line or from Python: a preset, and what is to be otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lrwd_sweep.errors import UsageError, shown
from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.spec.preset import DEFAULT, Variant, find_preset
from lrwd_sweep.spec.study import Kind, StudySpec, tidy
from lrwd_sweep.spec.task import Task, refuse_unused
from lrwd_sweep.spec.user_code import is_user_code

DEFAULT_OPTIMIZER = "adamw"

Axis = str | Iterable[float]  # as an option writes it, or its values


def axis(given: Axis, name: str) -> tuple[float, ...]:
    """An axis in either form, ascending; `name` is its option's. Raises UsageError.

    >>> axis("2^-3:2^-1", "lr") == axis([0.5, 0.25, 0.125], "lr")
    True
    """
    if isinstance(given, str):
        return parse_axis(given, name)
    try:
        values = sorted(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"--{name} {shown(given)} is no axis; write it as in '2^-12:2^-2', or give several numbers"
        ) from None
    return parse_axis(",".join(map(repr, values)), name)


def looked_up(task: Task, *, anew: bool = True) -> Task:
    """A training with what is to be known of user data, read `anew`, of user code, and of decay.

    Raises UsageError, UnknownName or DataError.
    """
    if task.user_code:
        from lrwd_sweep.data import user_data  # noqa: PLC0415  # slow to load

        task = user_data.completed(task, anew=anew)
    if task.no_decay or (is_user_code(task.net) and not task.decay_all):  # in ours only vectors are
        from lrwd_sweep.nets import undecayed  # noqa: PLC0415  # slow to load

        return replace(task, undecayed=undecayed(task))
    return replace(task, undecayed=())


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a study besides its optimizer; None means: as in the preset, and no `cap`."""

    preset: str = DEFAULT
    lr: Axis | None = None
    wd: Axis | None = None
    seeds: int | None = None
    metric: str | None = None
    cap: float | None = None  # of the metric
    overrides: tuple[tuple[str, Any], ...] = ()  # of `Training`, by field
    read: set[str] = field(default_factory=set, compare=False, repr=False)  # somebody's data, once for all

    @property
    def pictures(self) -> tuple[str, ...]:
        """What draws the preset's answer, besides the report."""
        return find_preset(self.preset).show

    def variant(self, name: str | None) -> Variant:
        """The named optimizer, or the only one that the preset names. Raises UsageError or UnknownName."""
        named = find_preset(self.preset).variants
        if name is None and len(named) == 1:
            return self.variants([])[0]
        return self.variants([DEFAULT_OPTIMIZER if name is None else name])[0]

    def variants(self, names: Sequence[str]) -> list[Variant]:
        """The named optimizers, or all that the preset compares. Raises UsageError or UnknownName."""
        preset = find_preset(self.preset)
        chosen = [Variant.named(name) for name in names] or list(preset.variants)
        if not chosen:
            raise UsageError(f"preset {preset.name!r} names no variants; name an optimizer")
        overrides = dict(self.overrides)
        schedules = [{"schedule": preset.task.schedule, **v.task, **overrides}["schedule"] for v in chosen]
        refuse_unused(overrides, [variant.optimizer for variant in chosen], schedules)
        return chosen

    def spec(self, variant: Variant, kind: Kind = Kind.GRID) -> StudySpec:
        """The complete specification; what is asked for here outweighs the variant and the preset.

        Raises UsageError or UnknownName.
        """
        preset = find_preset(self.preset)
        task = self._looked_up(preset.task.changed(**{**variant.task, **dict(self.overrides)}))
        lr = variant.lr if self.lr is None else axis(self.lr, "lr")
        wd = variant.wd if self.wd is None else axis(self.wd, "wd")
        if lr is None or wd is None:
            default = replace(preset, task=self._looked_up(preset.task)).lattice(variant.optimizer)
            lr, wd = lr or default.lr, wd or default.weight_decay
        seeds = preset.seeds if self.seeds is None else self.seeds
        metric = self.metric or preset.metric
        lattice, cap = Lattice(lr, wd), self.cap
        return StudySpec(kind, variant.optimizer, lattice, tuple(range(seeds)), metric, task, given_cap=cap)

    def _looked_up(self, task: Task) -> Task:
        found = looked_up(task, anew=task.data not in self.read)
        self.read.add(task.data)
        return found

    def name(self, spec: StudySpec) -> str:
        """The study's name unless one is given: made of the spec, behind the preset's but for the default.

        Presets ask different questions, so that one's lattice is none of another's.
        """
        owner, name = find_preset(self.preset).owner, spec.default_name
        return name if owner == DEFAULT else f"{tidy(owner)}-{name}"

    def compared(self, names: Sequence[str]) -> dict[str, StudySpec]:
        """The specs of the named optimizers' studies, or of all that the preset compares, by study name.

        Raises UsageError, or UnknownName, also when two are the same study or one alone was named.
        """
        specs = [self.spec(variant) for variant in self.variants(names)]
        found = {self.name(spec): spec for spec in specs}
        if len(found) < len(specs) and not names:
            raise UsageError(
                f"--preset {self.preset}: with these options some of its variants are the same study; "
                "leave out what they differ in"
            )
        if len(found) < max(len(specs), 2 if names else 1):
            given = " ".join(spec.title for spec in specs)
            raise UsageError(
                f"compare {given}: name two or more different optimizers, as in compare adam adamw"
            )
        return found

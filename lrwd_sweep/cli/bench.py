"""`lrwd-sweep bench`: how fast, against other ways to do the same, in one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrwd_sweep.cli.parse import whole
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.report.view.output_file import replaced
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DATA_SETS, FLOAT32, PRECISIONS
from lrwd_sweep.spec.preset import DEFAULT, find_preset

if TYPE_CHECKING:
    from lrwd_sweep.lab.bench.bandwidth import Bandwidths
    from lrwd_sweep.lab.bench.contenders import Entry
    from lrwd_sweep.lab.bench.overhead import Overhead
    from lrwd_sweep.lab.bench.race import Race
    from lrwd_sweep.lab.bench.scaling import Scaling
    from lrwd_sweep.science.lattice import Lattice
    from lrwd_sweep.spec.task import Task

EPOCHS, SCALING_EPOCHS = 30, 10
LANES, OTHER_LANES = 363, 16
PUBLISHED = tuple(name for name in DATA_SETS if name != "digits")
_BUSY = 0.5  # processes that want to run already


def _count(option: str, text: str) -> typer.models.OptionInfo:
    """A whole number of at least 1."""
    found: typer.models.OptionInfo = typer.Option(option, metavar="N", parser=whole(option), help=text)
    return found


Contenders = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="Whom to race, of plain, compiled, vmap; processes, ray on a CPU; graphs on a GPU (default: all "
        "that can run here).",
    ),
]
Net = Annotated[
    str | None, typer.Option(metavar="NAME", help="A network that comes along (default: mlp-norm).")
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"digits; {', '.join(PUBLISHED)}: noise in their shape, since no step costs more or less for "
        "what it sees; or your own, as for `grid` (default: digits).",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", parser=whole("--batch-size", least=2), help="Samples per step (default: 64)."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRECISIONS), help=f"What everyone's networks compute in (default: {FLOAT32})."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="cpu, cuda or cuda:N: one GPU (default: a GPU where there is one, else the CPU)."
    ),
]
Epochs = Annotated[
    int | None,
    _count(
        "--epochs",
        "Passes over the training set, each with its validation "
        f"(default: {EPOCHS}; {SCALING_EPOCHS} with --scaling).",
    ),
]
Lanes = Annotated[
    int | None,
    _count(
        "--lanes",
        "Networks that the engine trains: cells × seeds "
        f"(default: {LANES}; up to 2,000 with --scaling; 10,000 with --overhead).",
    ),
]
OtherLanes = Annotated[
    int | None,
    _count("--other-lanes", f"Networks that each of the others trains (default: {OTHER_LANES})."),
]
Scaled = Annotated[
    bool, typer.Option("--scaling", help="Instead, time the engine on one lane, on two, on five, ….")
]
PaidBesides = Annotated[
    bool,
    typer.Option("--overhead", help="Instead, time start-up, and sampler and store for very many lanes."),
]
Moved = Annotated[
    bool,
    typer.Option("--bandwidth", help="Instead, time the fused update beside a copy of its memory, on a GPU."),
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw --scaling into an svg, png or pdf file too (default: no file)."),
]


def bench(
    contenders: Contenders = None,
    net: Net = None,
    data: Data = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    device: Device = None,
    epochs: Epochs = None,
    lanes: Lanes = None,
    other_lanes: OtherLanes = None,
    repeats: Annotated[int, _count("--repeats", "How often everything is timed.")] = 3,
    scaling: Scaled = False,
    overhead: PaidBesides = False,
    bandwidth: Moved = False,
    output: Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Race the engine against other ways to train the same lanes, on the CPU or on one GPU.

    Everyone trains the same network on the same data: the same first weights, the same batches in the same
    order, AdamW as torch.optim has it, a cosine schedule moving at every batch, the validation loss after
    every epoch and the test loss at the end. Tests hold all of them to the engine's figures.

    Every run has a process of its own, in random order, several times. Before its clock starts, imports,
    data, worker processes and compiled code are ready, and it has trained for an epoch; on a CPU plain,
    compiled and vmap take one thread or all, whichever is faster then. The engine's time includes writing
    its results to a store and the start of its processes. The ratio is taken within each repeat; it carries
    over to other machines, the rates do not.

    The floor is what the matrix products of training and validation take on all cores, or on the GPU from a
    CUDA graph, and nothing else.
    """
    measurements = {"--scaling": scaling, "--overhead": overhead, "--bandwidth": bandwidth}
    chosen = [option for option, is_given in measurements.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} are two measurements; choose one")
    measurement = chosen[0] if chosen else "a race"
    _refuse(measurement, {"--contenders": contenders, "--other-lanes": other_lanes} if chosen else {})
    request = {"--net": net, "--data": data, "--batch-size": batch_size, "--precision": precision}
    _refuse(measurement, {**request, "--device": device, "--epochs": epochs} if overhead or bandwidth else {})
    _refuse(measurement, {"--lanes": lanes} if bandwidth else {})
    _refuse(measurement, {} if scaling else {"--output": output})
    place, gpu = _place("cpu" if overhead or bandwidth else device)
    racers = [] if chosen else _entries(contenders, place)
    given = {"net": net, "data": _stand_in(data), "batch_size": batch_size, "precision": precision}
    changes = {name: value for name, value in given.items() if value is not None}
    asked = Asked.of(changes, epochs or (SCALING_EPOCHS if scaling else EPOCHS), repeats, place, gpu)
    if scaling:
        _scaling(asked, lanes, output, as_json)
    elif overhead:
        _overhead(asked, lanes, as_json)
    elif bandwidth:
        _bandwidth(asked, as_json)
    else:
        _race(asked, racers, lanes or LANES, other_lanes or OTHER_LANES, as_json)


def _refuse(measurement: str, given: Mapping[str, object]) -> None:
    """Raise UsageError for an option that the measurement has no use for."""
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option} means nothing to {measurement}; leave it out")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is trained, how often, and on what: the same for every measurement."""

    task: Task
    lattice: Lattice
    repeats: int
    device: str
    machine: Mapping[str, Any]

    @classmethod
    def of(cls, changes: Mapping[str, Any], epochs: int, repeats: int, device: str, gpu: str | None) -> Asked:
        """The default task, changed; says so on stderr where the machine has other things to do."""
        from lrwd_sweep.lab.bench.machine import machine

        preset, on = find_preset(DEFAULT), machine(gpu)
        task = complete(preset.task.changed(epochs=epochs, **changes))
        if (load := on["load"]) is not None and load > _BUSY:
            _note(
                f"the machine is busy, load {load:g} on {on['cores']} cores: no figure of this run is sound"
            )
        return cls(task, preset.lattice(Optimizer.parse("adamw")), repeats, device, on)

    def repeated(self, repeat: int) -> None:
        """Say how far it is."""
        _note(f"measured {repeat} of {self.repeats} times")

    def print(self, result: Race | Scaling | Overhead | Bandwidths, as_json: bool) -> None:
        """The result on stdout."""
        if as_json:
            document = {
                "schema_version": 1,
                "machine": self.machine,
                "task": self.task.to_dict() | {"steps": self.task.steps, "repeats": self.repeats},
                **result.to_dict(),
            }
            consoles.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
            return
        from lrwd_sweep.cli.bench_shown import shown

        for part in shown(result, self.task, self.machine):
            consoles.stdout().print(part)


def _stand_in(data: str | None) -> str | None:
    """What has the shape of a data set that would have to be fetched."""
    return f"lrwd_sweep.lab.bench.made_up:{data.replace('-', '_')}" if data in PUBLISHED else data


def _place(device: str | None) -> tuple[str, str | None]:
    """One device with its number, and a GPU's name. Raises UnknownName or DeviceError."""
    if device == "cpu":
        return device, None
    from lrwd_sweep.engine.device import choose, gpu_name

    place = choose(device or "auto")
    return str(place), gpu_name(place)


def _entries(contenders: str | None, device: str) -> list[Entry]:
    """Who races there. Raises UnknownName or UsageError."""
    from lrwd_sweep.lab.bench.contenders import entries

    names = None if contenders is None else [name.strip() for name in contenders.split(",")]
    return entries(names, device.partition(":")[0])


def _race(asked: Asked, racers: Sequence[Entry], lanes: int, other_lanes: int, as_json: bool) -> None:
    from lrwd_sweep.lab.bench import race
    from lrwd_sweep.lab.bench.spread import rate_form

    result = race.race(
        racers,
        asked.task,
        asked.lattice,
        lanes=lanes,
        other_lanes=other_lanes,
        repeats=asked.repeats,
        seed=0,
        device=asked.device,
        on_run=lambda name, rate: _note(f"{name}: {rate:{rate_form(rate)}} lane-steps/s"),
    )
    asked.print(result, as_json)


def _scaling(asked: Asked, most: int | None, output: Path | None, as_json: bool) -> None:
    from lrwd_sweep.lab.bench.scaling import MOST, scale
    from lrwd_sweep.report.view.figure import figure_format, write_figure

    if output is not None:
        figure_format(output)  # a name that cannot be written is refused before minutes have passed
    result = scale(
        asked.task,
        asked.lattice,
        most=most or MOST,
        repeats=asked.repeats,
        device=asked.device,
        on_repeat=asked.repeated,
    )
    asked.print(result, as_json)
    if output is not None:
        from lrwd_sweep.lab.bench.figure import draw

        with replaced(output) as temporary:
            write_figure(temporary, lambda: draw(result))
        _note(f"wrote {output}")


def _overhead(asked: Asked, lanes: int | None, as_json: bool) -> None:
    from lrwd_sweep.lab.bench.overhead import LANES, overhead

    result = overhead(
        asked.task, asked.lattice, lanes=lanes or LANES, repeats=asked.repeats, on_repeat=asked.repeated
    )
    asked.print(result, as_json)


def _bandwidth(asked: Asked, as_json: bool) -> None:
    from lrwd_sweep.lab.bench.bandwidth import measure

    asked.print(measure(asked.repeats), as_json)


def _note(text: str) -> None:
    """One line on stderr."""
    consoles.stderr().print(plain(text), soft_wrap=True)

"""`lrwd-sweep bench`: the engine's speed beside other ways to train the same networks, in one run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrwd_sweep.cli.options import Format, OldJson, TextFormat
from lrwd_sweep.cli.parse import whole
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DATA_SETS, FLOAT32, PRECISIONS
from lrwd_sweep.spec.preset import DEFAULT, find_preset

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from lrwd_sweep.lab.bench import Cost, Measurement, Overhead, Race, Scaling, Spread
    from lrwd_sweep.spec.task import Task

EPOCHS, SCALING_EPOCHS = 30, 10
LANES, OTHER_LANES, SCALING_LANES, OVERHEAD_LANES = 363, 16, 2000, 10_000
PUBLISHED = tuple(name for name in DATA_SETS if name != "digits")
_BUSY = 0.5  # processes that run already


def _count(option: str, text: str, least: int = 1) -> typer.models.OptionInfo:
    """Declare an option for a whole number."""
    parser = whole(option, least=least)
    found: typer.models.OptionInfo = typer.Option(option, metavar="N", parser=parser, help=text)
    return found


def _name(text: str, metavar: str = "NAME") -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(metavar=metavar, help=text)
    return found


Contenders = Annotated[
    str | None,
    _name(
        "Baselines to compare with: plain, compiled, vmap; processes on a CPU; graphs on a GPU (default: "
        "all that run on the device).",
        "NAME,…",
    ),
]
Net = Annotated[str | None, _name("A built-in network (default: mlp-norm).")]
Data = Annotated[
    str | None,
    _name(
        f"digits; {', '.join(PUBLISHED)}: noise of their shape, since the cost of a step does not depend "
        "on values; or user data, as for `grid` (default: digits)."
    ),
]
BatchSize = Annotated[int | None, _count("--batch-size", "Samples per step (default: 64).", least=2)]
Precision = Annotated[
    str | None, _name(f"Precision of all contenders (default: {FLOAT32}).", "|".join(PRECISIONS))
]
DeviceOption = Annotated[str | None, _name("cpu, cuda or cuda:N (default: a GPU if available).")]
Epochs = Annotated[
    int | None, _count("--epochs", f"Epochs (default: {EPOCHS}; {SCALING_EPOCHS} with --scaling).")
]
Lanes = Annotated[
    int | None,
    _count(
        "--lanes",
        f"Networks that the engine trains (default: {LANES}; up to 2,000 with --scaling; 10,000 with "
        "--overhead).",
    ),
]
OtherLanes = Annotated[
    int | None, _count("--other-lanes", f"Networks that each baseline trains (default: {OTHER_LANES}).")
]
Repeats = Annotated[int, _count("--repeats", "Number of times that everything is timed.")]
ScalingSwitch = Annotated[
    bool, typer.Option("--scaling", help="Time only the engine, on one lane, two, five, ….")
]
OverheadSwitch = Annotated[
    bool, typer.Option("--overhead", help="Time only start-up, and sampler and store for many lanes.")
]


Optimizers = Annotated[
    str | None,
    _name(
        "Time only the engine, with each of these optimizers, relative to the first (default: off).", "NAME,…"
    ),
]


def bench(
    contenders: Contenders = None,
    net: Net = None,
    data: Data = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    device: DeviceOption = None,
    epochs: Epochs = None,
    lanes: Lanes = None,
    other_lanes: OtherLanes = None,
    repeats: Repeats = 3,
    scaling: ScalingSwitch = False,
    overhead: OverheadSwitch = False,
    optimizers: Optimizers = None,
    form: Format = TextFormat.TEXT,
    as_json: OldJson = False,
) -> None:
    """Compare the engine's speed with other ways to train the same lanes, on the CPU or on one GPU.

    All contenders train the same network on the same data: the same first weights, the same batches in the
    same order, AdamW of torch.optim, a cosine schedule that moves at every batch, the validation loss after
    every epoch and the test loss at the end. Tests compare their losses with the engine's.

    Every run has its own process, in random order, several times. Before its clock starts, imports, data,
    worker processes and compiled code are ready, and it has trained for an epoch; on a CPU plain, compiled
    and vmap take one thread or all, the faster. The engine's time includes the start of its processes and
    storing results. The ratio is taken within each repeat; it carries over to other machines, rates do not.

    The floor is the time of the matrix products of training and validation on all cores, or on the GPU from
    a CUDA graph, without anything else.
    """
    from lrwd_sweep.engine.device import machine
    from lrwd_sweep.lab.bench import Measurement

    measurement = _chosen({"--scaling": scaling, "--overhead": overhead, "--optimizers": optimizers})
    _refuse(measurement, {"--contenders": contenders, "--other-lanes": other_lanes} if measurement else {})
    given = {"net": net, "data": data, "batch_size": batch_size, "precision": precision}
    others = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    _refuse(measurement, {**others, "--device": device, "--epochs": epochs} if overhead else {})
    place, gpu = _place("cpu" if overhead else device)
    names = _named(optimizers) if optimizers else [] if measurement else _contenders(contenders, place)
    changes = given | {"data": _synthetic(data), "epochs": epochs or (SCALING_EPOCHS if scaling else EPOCHS)}
    changes["eval_every"] = 1  # as the contenders do
    preset, on = find_preset(DEFAULT), machine(gpu)
    task = complete(preset.task.changed(**{name: v for name, v in changes.items() if v is not None}))
    if (load := on["load"]) is not None and load > _BUSY:
        consoles.note(
            f"the machine is busy, load {load:g} on {on['cores']} cores: do not rely on the figures"
        )
    asked = Measurement(task, preset.lattice(Optimizer.parse("adamw")), place)

    document, shown = _measured(measurement, asked, names, lanes, other_lanes or OTHER_LANES, repeats)
    if as_json or form is TextFormat.JSON:
        about = task.to_dict() | {"steps": task.steps, "repeats": repeats}
        whole = {"schema_version": 1, "machine": on, "task": about, **document}
        consoles.write(json.dumps(whole, indent=2, allow_nan=False) + "\n")
        return
    for part in (*shown, _where(task, on, "" if optimizers else "AdamW, ")):
        consoles.stdout().print(part, markup=False)


def _measured(
    measurement: str,
    asked: Measurement,
    names: Sequence[str],
    lanes: int | None,
    other_lanes: int,
    repeats: int,
) -> tuple[dict[str, Any], Iterable[RenderableType]]:
    """Measure, for contenders or optimizers of these names; return the result for JSON, and to be shown."""
    from lrwd_sweep.lab import bench as lab

    def on_repeat(repeat: int) -> None:
        consoles.note(f"measured {repeat} of {repeats} times")

    def on_run(name: str, rate: float) -> None:
        consoles.note(f"{name}: {rate:{_rate_form(rate)}} lane-steps/s")

    if measurement == "--scaling":
        line = lab.scale(asked, most=lanes or SCALING_LANES, repeats=repeats, on_repeat=on_repeat)
        return {"scaling": asdict(line)}, _shown_scaling(line, asked.task)
    if measurement == "--overhead":
        cost = lab.overhead(asked, lanes=lanes or OVERHEAD_LANES, repeats=repeats, on_repeat=on_repeat)
        return {"overhead": asdict(cost)}, _shown_overhead(cost)
    if measurement == "--optimizers":
        lattice = find_preset(DEFAULT).lattice
        each = [replace(asked, optimizer=name, lattice=lattice(Optimizer.parse(name))) for name in names]
        costs = lab.compare_costs(each, lanes=lanes or LANES, repeats=repeats, on_run=on_run)
        return {"optimizers": [asdict(one) for one in costs]}, _shown_costs(costs)
    counts = {"lanes": lanes or LANES, "other_lanes": other_lanes, "repeats": repeats}
    race = lab.race(names, asked, on_run=on_run, **counts)
    return asdict(race), _shown_race(race)


def _chosen(switches: Mapping[str, object]) -> str:
    """Return the option of the measurement in place of the race, or "". Raises UsageError for two."""
    asked = [option for option, on in switches.items() if on]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} are two measurements; choose one")
    return "".join(asked)


def _named(text: str) -> list[str]:
    """Return canonical optimizer names. Raises UnknownName or UsageError."""
    names = [str(Optimizer.parse(name)) for name in text.split(",")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--optimizers names {twice[0]} twice; leave one out")
    return names


def _refuse(measurement: str, given: Mapping[str, object]) -> None:
    """Raise UsageError for an option that the measurement does not use."""
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{measurement} does not use {option}; leave it out")


def _synthetic(data: str | None) -> str | None:
    """Replace a data set that would need a download by noise of its shape."""
    return f"lrwd_sweep.lab.bench.synthetic:{data.replace('-', '_')}" if data in PUBLISHED else data


def _place(device: str | None) -> tuple[str, str | None]:
    """Return one device with its number, and a GPU's name. Raises UnknownName or DeviceError."""
    if device == "cpu":
        return device, None
    from lrwd_sweep.engine.device import choose, gpu_name

    place = choose(device or "auto")
    return str(place), gpu_name(place)


def _contenders(text: str | None, device: str) -> list[str]:
    from lrwd_sweep.lab.bench import choose_contenders

    names = None if text is None else [name.strip() for name in text.split(",")]
    return choose_contenders(names, device.partition(":")[0])


def _rate_form(rate: float) -> str:
    """Choose the format of a rate: whole unless it is small.

    >>> [f"{rate:{_rate_form(rate)}}" for rate in (8204.3, 0.724)]
    ['8,204', '0.72']
    """
    return ",.0f" if rate >= 10 else ".2f"


def _rate(rate: Spread) -> str:
    return rate.text(_rate_form(rate.median))


def _shown_race(race: Race) -> Iterator[RenderableType]:
    """Show a row per contender, the engine first, the reasons of those that did not run, and the floor."""
    table = _table("contender", "lanes", "lane-steps/s", "lrwd-sweep is faster by")
    for k, timing in enumerate(race.contenders):
        cells = ["", "not available", ""]
        if (rate := timing.lane_steps_per_second) and (lead := timing.engine_ratio):
            cells = [str(timing.lanes), _rate(rate), lead.text(".1f", "×") if k else ""]
        table.add_row(f"{timing.name}: {timing.about}", *cells)
    yield table
    yield from (
        plain(f"{timing.name} is not available: {timing.reason}")
        for timing in race.contenders
        if not timing.available
    )
    floor, floor_rate = race.floor, _rate(race.floor.lane_steps_per_second)
    share, speed = floor.flop_of_validation / floor.flop_per_lane_step, floor.flop_per_second.times(1e-9)
    yield (
        f"floor: the matrix products of a lane-step, {floor.flop_per_lane_step / 1e6:,.1f} MFLOP, "
        f"{share:.0%} of them for validation, at {speed.text(',.0f')} GFLOP/s: {floor_rate} "
        f"lane-steps/s; lrwd-sweep reaches {floor.fraction_reached.times(100).text('.0f', ' %')} of that, "
        f"{floor.fraction_reached.median * speed.median:,.0f} GFLOP/s"
    )


def _shown_costs(costs: Sequence[Cost]) -> Iterator[RenderableType]:
    """Show a row per optimizer, and what a lane-step costs relative to the first."""
    rates = f"lane-steps/s, {costs[0].lanes} lanes"
    table = _table("optimizer", rates, "µs per lane-step", f"ratio to {costs[0].optimizer}")
    for one in costs:
        rate, microseconds = _rate(one.lane_steps_per_second), _rate(one.microseconds)
        table.add_row(one.optimizer, rate, microseconds, one.cost.text(".2f"))
    yield table


def _shown_scaling(scaling: Scaling, task: Task) -> Iterator[RenderableType]:
    """Show the points, and the line through them."""
    table = _table("lanes", "seconds", "ms per lane and step")
    for point in scaling.points:
        cost = point.seconds.times(1e3 / (point.lanes * task.steps))
        table.add_row(str(point.lanes), point.seconds.text(".3g"), cost.text(".3g"))
    yield table
    if line := scaling.line:
        yield (
            f"{scaling.at_once} lanes train at a time; from {line.from_lanes} on they take "
            f"{line.fixed_seconds:.3g} s + {1e3 * line.seconds_per_lane:.3g} ms per lane; "
            f"{line.furthest['lanes']} lanes are furthest from that, by {line.furthest['share']:+.1%}"
        )


def _shown_overhead(overhead: Overhead) -> Iterator[RenderableType]:
    """Show the seconds that are spent once, and those for every lane."""
    per_lane = f"per lane, of {overhead.lanes:,}"
    table = _table("time besides training", "")
    start = overhead.first_epoch_seconds
    table.add_row("from the start of the process to the end of an epoch", start.text(".2f", " s"))
    for name in ("sampler", "store", "both"):
        seconds = getattr(overhead, f"{name}_seconds_per_lane")
        table.add_row(f"{name}, {per_lane}", seconds.times(1e3).text(".3f", " ms"))
    yield table


def _where(task: Task, machine: Mapping[str, Any], optimizer: str) -> str:
    """Describe the task and the machine in one line."""
    on = plain(machine["gpu"] or f"{machine['cpu']}, {counted(machine['cores'], 'core')}")
    rounded = "" if task.precision == FLOAT32 else f"{task.precision}, "
    return (
        f"{plain(task.data)}, {task.net}, {rounded}{optimizer}{counted(task.epochs, 'epoch')} of "
        f"{task.steps_per_epoch} batches of {task.batch_size}; {on}, torch {machine['torch']}, "
        f"{machine['date'][:10]}"
    )


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")  # a narrow terminal breaks words
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table

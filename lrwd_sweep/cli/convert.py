"""`lrwd-sweep convert`: a weight decay in another convention, with the arithmetic."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

import typer

from lrwd_sweep.cli.asked import Asked
from lrwd_sweep.cli.parse import one_of, whole
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import ASCII, UNICODE
from lrwd_sweep.science.conversion import Run
from lrwd_sweep.science.decay import Convention
from lrwd_sweep.science.lattice import parse_value
from lrwd_sweep.science.optimizer import Family, Optimizer

MOMENTUM = 0.9

_CONVENTIONS = f"{', '.join(list(Convention)[:-1])} or {list(Convention)[-1]}"


class ConvertFormat(StrEnum):
    """What `convert` writes."""

    TEXT = "text"
    JSON = "json"


Swept = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help="Whose decay it is, named as for `grid`.",
        show_default=False,
    ),
]
Rate = Annotated[
    str,
    typer.Option(
        "--lr", metavar="VALUE", help="Base learning rate α, such as 1e-3 or 2^-10.", show_default=False
    ),
]
Decay = Annotated[
    str,
    typer.Option("--wd", metavar="VALUE", help="Weight decay, in the convention --from.", show_default=False),
]
Source = Annotated[
    Convention | None,
    typer.Option(
        "--from",
        metavar="NAME",
        parser=one_of("convention", Convention),
        help=f"What --wd means: {_CONVENTIONS} (default: what the optimizer's name says).",
    ),
]
Target = Annotated[
    Convention | None,
    typer.Option(
        "--to",
        metavar="NAME",
        parser=one_of("convention", Convention),
        help="What to convert it to, a name as for --from (default: all of them).",
    ),
]


def _count(option: str, text: str) -> Any:
    return typer.Option(option, metavar="N", parser=whole(option), help=text)


def convert(
    optimizer: Swept,
    lr: Rate,
    wd: Decay,
    source: Source = None,
    target: Target = None,
    steps: Annotated[
        int | None,
        _count("--steps", "Steps of the run, under restarts of one cycle (default: from the next three)."),
    ] = None,
    epochs: Annotated[int | None, _count("--epochs", "Epochs of the run (default: unknown).")] = None,
    batch_size: Annotated[int | None, _count("--batch-size", "Samples per step (default: unknown).")] = None,
    train_size: Annotated[
        int | None, _count("--train-size", "Samples in the training set (default: unknown).")
    ] = None,
    drop_last: Annotated[
        bool, typer.Option("--drop-last", help="An epoch drops its incomplete last batch, as `grid` does.")
    ] = False,
    momentum: Annotated[
        float | None,
        typer.Option(
            "--momentum",
            metavar="VALUE",
            help=f"Momentum β₁ of sgd, for coupled; of sgdp, for lr-scaled (default: {MOMENTUM}).",
        ),
    ] = None,
    form: Annotated[
        ConvertFormat,
        typer.Option(
            "--format", metavar="NAME", parser=one_of("format", ConvertFormat), help="text or json."
        ),
    ] = ConvertFormat.TEXT,
) -> None:
    """Say one weight decay in another convention, with the formula and how far it holds.

    torch.optim.AdamW's 0.05 at a learning rate of 1e-3, as the paper writes it:

    \b
      lrwd-sweep convert --optimizer adamw --lr 1e-3 --wd 0.05
          --from lr-scaled --to independent
    """
    named = Optimizer.parse(optimizer)
    batches, total = _budget(steps, epochs, batch_size, train_size, drop_last=drop_last)
    run = Run(named.family, parse_value(lr, "lr"), total, _momentum(named, momentum))
    value = abs(parse_value(wd, "wd"))  # which may be -0
    asked = Asked(run, value, source or Convention(named.rule.value), target, batches)
    if named.normalized and source is None:
        asked = asked.normalized()
    asked.check()
    if form is ConvertFormat.JSON:
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
    """Steps per epoch and in all, each None where not known."""
    given = {"--epochs": epochs, "--batch-size": batch_size, "--train-size": train_size}
    if drop_last and train_size is None:
        raise UsageError(
            "--drop-last needs --train-size, --batch-size and --epochs; add them or leave it out"
        )
    if steps is not None and any(given.values()):
        raise UsageError(f"--steps {steps} says it all; leave out --epochs, --batch-size and --train-size")
    if epochs is None or batch_size is None or train_size is None:
        if any(given.values()):
            missing = " and ".join(name for name, value in given.items() if value is None)
            raise UsageError(f"the number of steps needs {missing} too; or give --steps")
        return None, steps
    if batch_size > train_size:
        raise UsageError(f"--batch-size {batch_size} is larger than --train-size {train_size}")
    per_epoch = train_size // batch_size if drop_last else math.ceil(train_size / batch_size)
    return per_epoch, epochs * per_epoch

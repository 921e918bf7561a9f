"""The options that commands share, each with its unit and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lrwd_sweep.cli.parse import fraction, number, pair, whole
from lrwd_sweep.science.lattice import format_axis
from lrwd_sweep.science.optimizer import Family, Optimizer, users_of
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, DATA_SETS, ENGINES, METRICS, NETWORKS, PRECISIONS
from lrwd_sweep.spec.preset import DEFAULT, MOST_SEEDS, find_preset
from lrwd_sweep.spec.request import DEFAULT_OPTIMIZER
from lrwd_sweep.spec.task import LARGEST_EPS, MomentumForm

DEFAULT_PRESET = DEFAULT

_preset = find_preset(DEFAULT)
_training = _preset.task
_lattice = _preset.lattice(Optimizer.parse(DEFAULT_OPTIMIZER))


def _else(value: object) -> str:
    """The default of an option that a preset sets."""
    return f"(default: the preset's; {DEFAULT}: {value})"


def _described(names: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {about}" for name, about in names.items())


OptimizerName = Annotated[
    str | None,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help=f"FAMILY[w][:RULE][:normalized]; FAMILY: {', '.join(Family)}. adam: Adam with L2; adamw: "
        "the AdamW paper's decay, independent of α; adamw:lr-scaled: PyTorch's AdamW, decay times α; further "
        "rules are fixed and corrected. adamp and sgdp are their authors'. adamwr and sgdwr: warm restarts "
        "and normalised decay, λ = λ_norm/√N (default: the only one that the preset names, else "
        f"{DEFAULT_OPTIMIZER}).",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE.toml",
        help="Task, axes and all that is not given here; see `lrwd-sweep preset list`.",
    ),
]
Lr = Annotated[
    str | None,
    typer.Option(
        "--lr",
        metavar="AXIS",
        help="Learning rates α: 2^-12:2^-2 is every power of two, 1e-4:1e-1:9 nine log-spaced values, "
        f"1e-3,3e-3,1e-2 a list {_else(f'{format_axis(_lattice.lr)} for {DEFAULT_OPTIMIZER}')}.",
    ),
]
Wd = Annotated[
    str | None,
    typer.Option(
        "--wd",
        metavar="AXIS",
        help="Weight decays, in the optimizer's own convention, written as --lr; a first 0 is a baseline, as "
        f"in 0,2^-11:2^-1 {_else(f'{format_axis(_lattice.weight_decay)} for {DEFAULT_OPTIMIZER}')}.",
    ),
]
Net = Annotated[
    str | None,
    typer.Option(
        "--net",
        metavar="NAME",
        help=f"{_described(NETWORKS)}; or your own: package.module:NAME or ./file.py:NAME, called without "
        "arguments, or with num_classes and input_shape where it takes them, and what a preset says under "
        f"[net.options], returns a torch.nn.Module {_else(_training.net)}.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help=f"Data set: {', '.join(DATA_SETS)}; folder:PATH for images in PATH/train/CLASS, resized to "
        "32×32, folder:PATH@64 to 64×64, all of these standardised; or your own, as given: "
        "package.module:NAME or ./file.py:NAME, called without arguments, returns train, "
        "validation and, if there is one, test, each tensors (x, y) or a data set "
        f"{_else(_training.data)}.",
    ),
]
Standardize = Annotated[
    bool | None,
    typer.Option(
        "--standardize/--no-standardize",
        help="Standardise images of bytes of your own --data, each channel by the training split's mean and "
        "deviation (default: they reach the network as given, 0 to 255).",
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help=f"What training lowers and val_loss is: {_training.loss}, or your own: package.module:NAME or "
        "./file.py:NAME, called with logits (B, classes) and classes (B,), returns one number; val_loss is "
        f"that of the whole split {_else(_training.loss)}.",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="PATH",
        help="Where the files of data sets are, laid out as torchvision does it (default: $LRWD_DATA, else "
        "~/.cache/lrwd-sweep).",
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Download what is missing of the data set (default: say what is)."),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        parser=whole("--epochs"),
        help=f"Passes over the training set {_else(_training.epochs)}.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        parser=whole("--batch-size", least=2),
        help=f"Samples per step; an incomplete last batch is dropped {_else(_training.batch_size)}.",
    ),
]
ScheduleName = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help=f"How step and decay move over the run: {', '.join(Schedule)} {_else(_training.schedule)}.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        parser=whole("--seeds", most=MOST_SEEDS),
        help=f"Seeds 0 … N−1 in every cell; intervals need at least 3 {_else(_preset.seeds)}.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="NAME", help=f"What is minimised. {_described(METRICS)} {_else(_preset.metric)}."
    ),
]
Cap = Annotated[
    float | None,
    typer.Option(
        "--cap",
        metavar="V",
        parser=number("--cap"),
        help="A value of the metric from which on a cell is out, as if it had diverged (default: chance "
        "level for an error; none for a loss).",
        show_default=False,
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        "--augment",
        metavar="NAME",
        help=f"Changes of the training images. {_described(AUGMENTATIONS)} {_else(_training.augment)}.",
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option(
        "--warmup",
        metavar="N",
        parser=whole("--warmup", least=0),
        help=f"Epochs of linear rise in front of the schedule {_else(_training.warmup)}.",
    ),
]
T0 = Annotated[
    int | None,
    typer.Option(
        "--t0",
        metavar="N",
        parser=whole("--t0"),
        help="Epochs until the first restart (default: the preset's, else a fifteenth of the run: cycles of "
        "1, 2, 4 and 8).",
    ),
]
TMult = Annotated[
    int | None,
    typer.Option(
        "--tmult",
        metavar="N",
        parser=whole("--tmult"),
        help=f"Each cycle of restarts is N times as long as the last {_else(_training.t_mult)}.",
    ),
]
EtaMin = Annotated[
    float | None,
    typer.Option(
        "--eta-min",
        metavar="X",
        parser=fraction("--eta-min"),
        help=f"What η falls to, as a share of its highest value {_else(f'{_training.eta_min:g}')}.",
    ),
]


def _usual(name: str) -> str:
    """The defaults of an optimizer's hyperparameter, family by family."""
    users: dict[object, list[str]] = {}
    for family in users_of(name):
        users.setdefault(family.hyperparameters[name], []).append(family)
    return "; ".join(f"{value} for {', '.join(families)}" for value, families in users.items())


Momentum = Annotated[
    float | None,
    typer.Option(
        "--momentum",
        metavar="X",
        parser=fraction("--momentum"),
        help=f"β₁ of a momentum buffer (default: {_usual('momentum')}).",
    ),
]
Nesterov = Annotated[
    bool | None,
    typer.Option(
        "--nesterov/--no-nesterov",
        help=f"Nesterov's momentum, for {', '.join(users_of('nesterov'))} (default: without).",
    ),
]
MomentumFormName = Annotated[
    str | None,
    typer.Option(
        "--momentum-form",
        metavar="|".join(MomentumForm),
        help="Where α stands in SGD: paper has it inside the buffer, torch outside as torch.optim.SGD; they "
        f"agree while η is constant (default: {MomentumForm.PAPER}).",
    ),
]
Betas = Annotated[
    str | None,  # after parsing a pair
    typer.Option(
        "--betas",
        metavar="B1,B2",
        parser=pair("--betas"),
        help=f"Averaging of g and of g² (default: {_usual('beta1')}; {_usual('beta2')}).",
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        "--eps",
        metavar="X",
        parser=fraction("--eps", below=LARGEST_EPS, like="1e-8"),
        help=f"ε in the denominator (default: {_usual('eps')}).",
    ),
]
DecayAll = Annotated[
    bool | None,
    typer.Option(
        "--decay-all/--no-decay-norm-bias",
        help="Decay every parameter, as the paper does, or leave out biases, parameters of normalisation and "
        "all vectors. Embeddings, class tokens and positions decay unless --no-decay names them (default: "
        "every one).",
    ),
]
NoDecay = Annotated[
    str | None,
    typer.Option(
        "--no-decay",
        metavar="REGEX",
        help="Leave out parameters in whose names this regular expression is found, as in "
        "'cls_token|pos_embed'; goes with --no-decay-norm-bias too (default: none).",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="|".join(PRECISIONS),
        help=f"What networks compute in. {_described(PRECISIONS)} {_else(_training.precision)}.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="cpu; cuda, which is every GPU; cuda:N, one of them. auto takes GPUs where there are any.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="|".join(ENGINES),
        help=f"How networks train side by side, to debug them. {_described(ENGINES)} (default: auto).",
    ),
]
MaxLanes = Annotated[
    int | None,
    typer.Option(
        "--max-lanes",
        metavar="N",
        parser=whole("--max-lanes"),
        help="At most N networks trained together as one pack (default: what suits cache and memory).",
    ),
]
RetrainDamaged = Annotated[
    bool,
    typer.Option(
        "--retrain-damaged",
        help="Train lanes again whose stored results are damaged (default: such a study is refused).",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study-name",
        metavar="NAME",
        help="The study's name in the store (default: made of task and optimizer).",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URL",
        help="The store: an SQLite file, or sqlite:///PATH (default: $LRWD_STORAGE, else lrwd-sweep.db "
        "in this directory).",
    ),
]

TASK: dict[str, tuple[Any, Any]] = {  # what there is to train: parameter, type, default
    "preset": (Preset, DEFAULT_PRESET),
    "lr": (Lr, None),
    "wd": (Wd, None),
    "seeds": (Seeds, None),
    "epochs": (Epochs, None),
    "batch_size": (BatchSize, None),
    "schedule": (ScheduleName, None),
    "warmup": (Warmup, None),
    "t_0": (T0, None),
    "t_mult": (TMult, None),
    "eta_min": (EtaMin, None),
    "net": (Net, None),
    "data": (Data, None),
    "loss": (Loss, None),
    "standardize": (Standardize, None),
    "augment": (Augment, None),
    "metric": (Metric, None),
    "cap": (Cap, None),
    "momentum": (Momentum, None),
    "nesterov": (Nesterov, None),
    "momentum_form": (MomentumFormName, None),
    "betas": (Betas, None),
    "eps": (Eps, None),
    "decay_all": (DecayAll, None),
    "no_decay": (NoDecay, None),
    "precision": (Precision, None),
    "engine": (Engine, None),
}

"""The names of data sets, networks, losses and metrics, with their sizes and meanings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec import user_code, user_files
from lrwd_sweep.spec.net_options import CONTEXT

CLASS, POSITION, FLOAT, MULTI_HOT = TARGETS = ("class", "class per position", "float", "multi-hot")
IGNORED = -100  # the class of a position that does not count, as in torch
REAL = "float"  # type of an input that is a floating-point number


@dataclass(frozen=True, slots=True)
class Input:
    """Shape and type of one input of an item."""

    shape: tuple[int, ...]
    type: str = REAL  # or torch's name of an integer type, or bool
    most: int = 0  # largest value of whole numbers
    name: str = ""  # of the argument of `forward`, if the user's items are dicts


@dataclass(frozen=True, slots=True)
class DataSet:
    """Sizes of a data set and its splits, and what one item of it is."""

    train: int
    validation: int
    test: int  # 0: there is no test split
    classes: int  # 0: targets are numbers
    shape: tuple[int, ...]  # of the first input: (features,), or (channels, height, width)
    digest: str = field(default="", compare=False)  # of user data, once they have been read
    target: str = CLASS  # one of TARGETS
    target_shape: tuple[int, ...] = ()  # of one item's target
    masked: bool = False  # some positions have the class IGNORED
    inputs: tuple[Input, ...] = ()  # empty: one, of floating-point numbers

    @classmethod
    def known(cls, name: str) -> DataSet | None:
        """Return the catalog's sizes of a data set, or None."""
        return DATA_SETS.get(name)

    @property
    def item(self) -> DataSet:
        """One item, without the sizes of the splits."""
        return replace(self, train=0, validation=0, test=0, digest="")

    @property
    def every_input(self) -> tuple[Input, ...]:
        """The inputs of an item."""
        return self.inputs or (Input(self.shape),)

    @property
    def outputs(self) -> int:
        """The numbers that a network gives per item, or per position: one for each class."""
        return self.classes or math.prod(self.target_shape)

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of an item's output, the usual one first; others only if they cannot be mistaken."""
        if self.target != POSITION:
            return ((self.classes,) if self.target == CLASS else self.target_shape,)
        last, first = (*self.target_shape, self.classes), (self.classes, *self.target_shape)
        return (last,) if self.target_shape[0] == self.classes else (last, first)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready, without defaults."""
        optional = {one.name: one.default for one in fields(self) if one.name in _OPTIONAL}
        found = {n: v for n, v in asdict(self).items() if n not in optional or v != optional[n]}
        for one in found.get("inputs", ()):
            if not one["name"]:
                del one["name"]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the sizes that `to_dict` wrote."""
        shapes = {name: tuple(values[name]) for name in ("shape", "target_shape") if name in values}
        inputs = tuple(Input(**{**one, "shape": tuple(one["shape"])}) for one in values.get("inputs", ()))
        return cls(**{**values, **shapes, "inputs": inputs})


_OPTIONAL = ("digest", "target", "target_shape", "masked", "inputs")

DATA_SETS = {  # validation images are held out of the published training part by a fixed seed
    "digits": DataSet(train=400, validation=697, test=700, classes=10, shape=(1, 8, 8)),
    "mnist": DataSet(train=55_000, validation=5_000, test=10_000, classes=10, shape=(1, 28, 28)),
    "fashion-mnist": DataSet(train=55_000, validation=5_000, test=10_000, classes=10, shape=(1, 28, 28)),
    "svhn": DataSet(train=68_257, validation=5_000, test=26_032, classes=10, shape=(3, 32, 32)),
    "cifar10": DataSet(train=45_000, validation=5_000, test=10_000, classes=10, shape=(3, 32, 32)),
    "cifar100": DataSet(train=45_000, validation=5_000, test=10_000, classes=100, shape=(3, 32, 32)),
    "imagenet32": DataSet(
        train=1_231_167, validation=50_000, test=50_000, classes=1000, shape=(3, 32, 32)
    ),  # its test labels are not published: the published validation images are the test split
}

NETWORKS = {
    "mlp-norm": "128-128, batch norm without affine parameters after every layer: scale-invariant",
    "mlp": "128-128, batch norm after the hidden layers, an ordinary output layer",
    "embed-norm": "128-128 like mlp-norm, then ℓ2-normalised embeddings and a learned proxy per class",
    "cnn-norm": "three convolutions, 16-32-32, normalised like mlp-norm: scale-invariant",
    "cnn": "the same with an ordinary output layer",
    "resnet20": "residual network for small images, 0.27M parameters",
    "resnet32": "the same deeper, 0.46M",
    "resnet56": "and deeper, 0.85M",
    "wrn-28-10": "wide residual network, 36.5M",
    "vgg16-bn": "VGG of 13 convolutions with batch norm and one linear layer, 14.7M",
    "shake26-2x32d": "Shake-Shake-Image of depth 26, 2.9M",
    "shake26-2x64d": "the same wider, 11.6M: the AdamW paper's",
    "shake26-2x96d": "wider still, 26.2M: the AdamW paper's for its longest runs",
    "gpt": "decoder-only transformer for texts; --net-options layers, heads, width, …",
    "torchvision:NAME": "any classifier of torchvision.models, as torchvision:resnet18",
}

AUGMENTATIONS = {
    "none": "every image as it is",
    "crop-flip": "shifted by up to an eighth of its side, mirrored at random",
    "crop-flip-cutout": "the same, and a square of half its side blanked",
}

CROSS_ENTROPY, NLL, MSE, L1, HUBER, BCE = "cross-entropy", "nll", "mse", "l1", "huber", "bce_with_logits"

LOSSES = {  # the targets that they are for
    CROSS_ENTROPY: (CLASS, POSITION),
    NLL: (CLASS, POSITION),
    MSE: (FLOAT, MULTI_HOT),
    L1: (FLOAT, MULTI_HOT),
    HUBER: (FLOAT, MULTI_HOT),
    BCE: (MULTI_HOT, FLOAT),
}

MEANT_LOSSES = {  # names of other tools
    **dict.fromkeys(["bce", "binary_cross_entropy", "bcewithlogits", "bcewithlogitsloss"], BCE),
    **dict.fromkeys(["ce", "crossentropy", "crossentropyloss", "xent"], CROSS_ENTROPY),
    **dict.fromkeys(["mae", "l1loss"], L1),
    **dict.fromkeys(["smooth_l1", "smooth-l1", "smoothl1loss", "huberloss"], HUBER),
    **dict.fromkeys(["l2", "mseloss", "squared"], MSE),
}

ENGINES = {
    "auto": "the fastest of the others, measured",
    "native": "all lanes in one program written for the network: mlp and cnn, with -norm or without",
    "vmap": "all lanes in one program made by torch.func.vmap",
    "loop": "one lane after another",
}

FLOAT32, BFLOAT16 = "float32", "bfloat16"

PRECISIONS = {
    FLOAT32: "all in single precision",
    BFLOAT16: "matrix products and convolutions to 8 significant bits, while parameters, gradients, moments "
    "and statistics stay float32",
}

_MEASURES = {  # of a split, by target
    CLASS: ("loss", "error", "top5_error"),
    POSITION: ("loss", "error", "top5_error", "perplexity"),
    FLOAT: ("loss", "r2"),
    MULTI_HOT: ("loss",),
}

RECALL = "recall_at_1"
EMBEDDINGS = ("embed-norm",)  # networks whose predictions have an embedding behind the logits

METRICS = {
    "val_loss": "loss on the validation split: cross-entropy in nats, or that of --loss",
    "val_error": "share of the validation split that is misclassified, 0 to 1",
    "val_top5_error": "share whose class is not among the five most likely, 0 to 1",
    "val_perplexity": "exp(val_loss) of classes per position",
    "val_r2": "share of the targets' variance that is explained, at most 1; higher is better",
    "val_recall_at_1": "share whose nearest other item by cosine has their class; higher is better",
    "train_loss": "loss over the last epoch's training batches",
    "train_error": "misclassified share of the same, 0 to 1",
    "train_top5_error": "the same for the five most likely classes, 0 to 1",
    "train_perplexity": "exp(train_loss) of classes per position",
    "train_r2": "explained share of the variance over the last epoch's training batches; higher is better",
}

SWA, EMA, ENSEMBLE = AVERAGES = ("swa", "ema", "ensemble")  # beginnings of their metrics' names
ETA = 0.01  # η of ASAM, added to |w| so that weights of 0 move too

_AVERAGED = {SWA: "the weights that --swa averages", EMA: "those that --ema averages", ENSEMBLE: "--ensemble"}

METRICS |= {  # of averages
    f"{kind}_{name}": f"{name} of {what}"
    for kind, what in _AVERAGED.items()
    for name in list(METRICS)
    if name.startswith("val_")
}

MEANT_METRICS = {  # names of other tools
    **dict.fromkeys(["accuracy", "acc", "val_accuracy", "val_acc"], "val_error, which is 1 − accuracy"),
    **dict.fromkeys(["train_accuracy", "train_acc"], "train_error, which is 1 − accuracy"),
    **dict.fromkeys(["top5", "top5_accuracy", "val_top5"], "val_top5_error"),
    **dict.fromkeys(["recall", "recall@1", "r@1", "val_recall", "val_recall@1", RECALL], "val_recall_at_1"),
    "loss": "val_loss",
    "error": "val_error",
}

_TORCHVISION = (  # beginnings of its names
    *("alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception", "maxvit", "mnasnet"),
    *("mobilenet", "regnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext"),
    *("shufflenet", "squeezenet", "swin", "vgg", "vit", "wide_resnet"),
)

DIAGNOSTICS = {  # of the tensors whose scale makes no difference, at the last update of every epoch
    "norm": "‖θ‖ of the scale-invariant tensors together",
    "rotation": "angle by which an update turns a scale-invariant tensor w, radians, mean over them",
    "effective_lr": "ηα/‖w‖² for sgd and sgdp, ηα for kfac, ηα/‖w‖ for the others, mean over the same",
    "projection": "share of an epoch's updates whose radial part was removed; adamp and sgdp only",
}


def find_data_set(name: str, context: int = CONTEXT) -> DataSet:
    """Return sizes by name, counting an image folder, or a text in windows of `context` tokens.

    Raises UnknownName, UsageError or DataError.
    """
    if user_files.is_text(name):
        text = user_files.read_text(name, context)
        train, validation, test = (len(part) // context for part in text.ranges(context))
        tokens, window = len(text.vocabulary), (context,)
        return DataSet(
            *(train, validation, test, tokens, window, text.digest),
            target=POSITION,
            target_shape=window,
            inputs=(Input(window, "int64", tokens - 1),),
        )
    if name.startswith(user_files.PREFIX):
        found = user_files.scan_images(name)
        sizes = (len(found.train), len(found.validation), len(found.test), len(found.classes))
        return DataSet(*sizes, shape=(3, found.side, found.side))
    if name not in DATA_SETS:
        raise UnknownName("data set", name, [*DATA_SETS, *_PATHS, *_OWN])
    return DATA_SETS[name]


_PATHS = (user_files.PYTHON_DOCS, "folder:PATH", "text:PATH", "text-bytes:PATH")
_OWN = ("package.module:NAME", "./file.py:NAME")


def find_network(name: str) -> str:
    """Return a network's canonical name; names of torchvision are checked when the network is built.

    Raises UnknownName, or UsageError for a malformed name of user code.
    """
    name = user_code.canonical("net", name)
    if name not in NETWORKS and not name.startswith("torchvision:") and not user_code.is_user_code(name):
        theirs = name.lower().startswith(_TORCHVISION)
        meant = {name.lower(): f"torchvision:{name.lower()}"} if theirs else {}
        raise UnknownName("network", name, [*NETWORKS, *_OWN], meant)
    return name


def find_loss(name: str) -> str:
    """Return a loss's canonical name. Raises UnknownName or UsageError, as `find_network` does."""
    name = user_code.canonical("loss", name)
    if user_code.is_user_code(name):
        return name
    alike = {known.replace("-", "_"): known for known in LOSSES}
    found = alike.get(name.replace("-", "_"))
    if found is None:
        raise UnknownName("loss", name, [*LOSSES, *_OWN], MEANT_LOSSES)
    return found


def check_loss(name: str, target: str, data: str) -> None:
    """Raise UsageError for a loss of the catalog that is not for these targets."""
    if target in LOSSES.get(name, TARGETS):
        return
    *others, last = (known for known, targets in LOSSES.items() if target in targets)
    change = "" if target in (FLOAT, MULTI_HOT) else "make these integers floats, or "
    raise UsageError(
        f"{arg('loss', name)} is not for the {target} targets of {data}; {change}choose "
        f"{', '.join(others)} or {last}, or a function of outputs and targets"
    )


def measures(target: str, loss: str) -> tuple[str, ...]:
    """Return the measures of a split, the loss first, for a kind of target and a loss."""
    likelihood = loss in (CROSS_ENTROPY, NLL)
    return tuple(name for name in _MEASURES[target] if name != "perplexity" or likelihood)


def metric_of(measure: str) -> str:
    """Return the name of a user's metric on the validation split.

    >>> metric_of("./my.py:f1"), metric_of("package.module:Scores.val_auc")
    ('val_f1', 'val_auc')
    """
    name = measure.rpartition(":")[2].rpartition(".")[2].lower()
    return name if name.startswith("val_") else f"val_{name}"


def of_last_weights(metric: str) -> str:
    """Return the metric of the last weights that an average's metric is like.

    >>> of_last_weights("swa_val_loss"), of_last_weights("val_loss")
    ('val_loss', 'val_loss')
    """
    kind, _, rest = metric.partition("_")
    return rest if kind in AVERAGES and rest.startswith(("val_", "test_")) else metric


def direction_of(metric: str, asked: Direction | None = None) -> Direction | None:
    """Return the better end of a metric of the catalog on any split, and for others the one asked for.

    Raises UsageError if another one is asked for.
    """
    metric = of_last_weights(metric)
    if metric.partition("_")[2] not in {RECALL, *(name for found in _MEASURES.values() for name in found)}:
        return asked
    known = Direction.MAXIMIZE if metric.endswith(("_r2", RECALL)) else Direction.MINIMIZE
    if asked not in (known, None):
        better = "lower" if known is Direction.MINIMIZE else "higher"
        raise UsageError(f"{arg(str(asked), True)}: a {better} {metric} is better; leave the option out")
    return known


def chance_level(metric: str, classes: int) -> float:
    """Return an error's value for a uniform guess among `classes`: 1 − k/C for the top k."""
    return max(0.0, 1 - (5 if metric.endswith("top5_error") else 1) / classes)


def methods_of(t: Any, metric: str) -> str:  # of a Task or None
    """Name what a metric needs besides the optimizer, as `with SAM(rho=0.05)`; empty if nothing."""
    kind = metric.partition("_")[0]
    if t is None:
        return ""
    found = []
    if t.sam:
        found.append(f"ASAM(rho={t.sam:g}, eta={ETA})" if t.sam_adaptive else f"SAM(rho={t.sam:g})")
    if kind == SWA and t.swa is not None:
        found.append(f"swa of the weights after epochs {t.swa_epochs[0]} to {t.swa_epochs[-1]}")
    if kind == EMA and t.ema is not None:
        found.append(f"ema of the weights, half-life {t.ema:g} epoch{'s' * (t.ema != 1)}")
    if kind == ENSEMBLE and t.ensemble is not None:
        found.append(f"ensemble of the last {t.ensemble} snapshots")
    return f"with {', '.join(found)}" if found else ""

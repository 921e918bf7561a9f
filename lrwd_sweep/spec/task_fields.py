"""The fields of a task, each declared once."""

from dataclasses import dataclass

from lrwd_sweep.science.optimizer import MomentumForm
from lrwd_sweep.science.schedule import DecaySchedule, Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, CROSS_ENTROPY, ENGINES, FLOAT32, PRECISIONS, DataSet
from lrwd_sweep.spec.field import OPTIMIZER, SCHEDULE, TRAIN, WHERE, declared

_LARGEST = 1e30  # which float32 holds, and products with it
_FARTHEST = 1e6  # ρ, epoch or half-life


@dataclass(frozen=True, slots=True)
class TaskFields:
    """The fields of `Task`. Hyperparameters that are None are left to the optimizer's family."""

    net: str = declared("mlp-norm", "Name, torchvision:NAME or ./file.py:NAME", panel=TRAIN, differs="{}")
    data: str = declared("digits", "Name, folder:PATH or ./file.py:NAME", panel=TRAIN, differs="{}")
    standardize: bool | None = declared(  # None: data without user images of bytes
        None, "Standardise user byte images; --no-standardize [no]", panel=TRAIN
    )
    stream: bool = declared(False, "Read your data anew each epoch", panel=TRAIN, compare=False)
    augment: str = declared(
        "none",
        "none, crop-flip or crop-flip-cutout",
        panel=TRAIN,
        noun="augmentation",
        choices=AUGMENTATIONS,
        mark="{}",
        words="augmented by {}",
    )
    epochs: int = declared(60, "Passes over the training set", panel=TRAIN, least=1, differs="{} epoch{s}")
    batch_size: int = declared(
        64, "Samples per step; drops an incomplete batch", panel=TRAIN, least=2, differs="batch {}"
    )
    schedule: Schedule = declared(  # noqa: RUF009 - a member of an enum
        Schedule.COSINE, "fixed, step, cosine, linear or restarts", panel=SCHEDULE, differs="{}"
    )
    warmup: int = declared(  # epochs before the schedule, in which η rises linearly
        0,
        "Epochs of linear rise before the schedule",
        panel=SCHEDULE,
        mark="warm{}",
        words="{epochs} of warm-up",
    )
    t_0: int | None = declared(  # None: a fifteenth of the run
        None,
        "Epochs until the first restart [epochs / 15]",
        panel=SCHEDULE,
        flags="--t0",
        least=1,
        mark="t{}",
        words="first cycle of {epochs}",
    )
    t_mult: int = declared(
        2,
        "Each cycle is N times as long as the last",
        panel=SCHEDULE,
        flags="--tmult",
        least=1,
        mark="x{}",
        words="each cycle {} times the last",
    )
    eta_min: float = declared(
        0.0, "Lowest η as a share of its highest", panel=SCHEDULE, mark="min{:g}", words="η down to {:g}"
    )
    decay_schedule: DecaySchedule | None = declared(  # noqa: RUF009 - a kind
        None,
        "Decay's own: constant, step, cosine or linear [η's]",
        panel=SCHEDULE,
        differs="{} decay",
        mark="{}-decay",
        words="{} decay",
    )
    momentum: float | None = declared(  # β₁ of SGD and SGDP; of RMSProp
        None, "β₁ of a momentum buffer", panel=OPTIMIZER, mark="mu{:g}", words="momentum {:g}", unused=0.9
    )
    nesterov: bool = declared(
        False,
        "Nesterov's momentum; --no-nesterov [no]",
        panel=OPTIMIZER,
        mark="nesterov",
        words="Nesterov's momentum",
    )
    momentum_form: MomentumForm = declared(  # noqa: RUF009 - a member of an enum
        MomentumForm.PAPER,
        "Place of α in SGD's momentum",
        panel=OPTIMIZER,
        noun="momentum form",
        mark="{}-momentum",
        words="momentum as in {}",
    )
    beta1: float | None = declared(
        None,
        "Averages of g, g²",
        panel=OPTIMIZER,
        flags="--betas",
        metavar="B1,B2",
        mark="b1-{:g}",
        words="β₁ {:g}",
        unused=0.9,
    )
    beta2: float | None = declared(
        None, panel=OPTIMIZER, flags="--betas", mark="b2-{:g}", words="β₂ {:g}", unused=0.999
    )
    eps: float | None = declared(
        None,
        "ε in the denominator",
        panel=OPTIMIZER,
        below=_LARGEST,
        mark="eps{:g}",
        words="ε {:g}",
        unused=1e-8,
    )
    decay_all: bool = declared(  # biases and parameters of normalisation too, as in the paper
        True,
        "Do not decay biases and norms; --decay-all [no]",
        panel=OPTIMIZER,
        flags="--decay-all/--no-decay-norm-bias",
        mark="weights-only",
        words="biases and normalisation not decayed",
    )
    no_decay: str = declared(
        "",
        "Further parameters that do not decay [none]",
        panel=OPTIMIZER,
        metavar="REGEX",
        mark="spare-{}",
        words="parameters that match {} not decayed",
    )
    undecayed: tuple[str, ...] = declared(())  # parameters that do not decay; see `decay_all`
    train: str = declared(
        "",
        "Parameters that train; the others stay frozen [all]",
        panel=TRAIN,
        metavar="REGEX",
        mark="train-{}",
        words="only parameters that match {} trained",
    )
    precision: str = declared(  # parameters and moments stay float32
        FLOAT32,
        "float32 or bfloat16 matrix products",
        panel=TRAIN,
        choices=PRECISIONS,
        differs="{}",
        mark="{}",
        words="computed in {}",
    )
    loss: str = declared(
        CROSS_ENTROPY, "Training loss, or ./file.py:NAME", panel=TRAIN, mark="{}", words="loss {}"
    )
    net_options: str = declared(  # in JSON as `options_text` writes it
        "",
        "Its options, as layers=2,width=32 [none]",
        panel=TRAIN,
        metavar="K=V,…",
        in_presets=False,
        mark="{}",
        words="network's options {}",
    )
    measure: str = declared("", mark="{}", words="measured by {}")  # the user's metric
    code: tuple[tuple[str, str], ...] = declared(())  # name and digest of user code
    whole_loss: bool = declared(False)  # the loss is not a mean over items: a split is one batch
    engine: str = declared(  # results differ only by rounding
        "auto",
        "auto, native, vmap or loop, for debugging",
        panel=WHERE,
        choices=ENGINES,
        compare=False,
        in_presets=False,
    )
    eval_every: int | None = declared(  # results do not depend on it, only how fine learning curves are
        None, "Validate every N epochs [about 12 times a run]", panel=TRAIN, least=1, compare=False
    )
    tensors: str = declared("", compare=False)  # decayed parameters, in words; "" before training
    sam: float = declared(  # of a lane's weights, in their norm
        0.0,
        "ρ of SAM's ascent before every step [no SAM]",
        panel=OPTIMIZER,
        metavar="RHO",
        below=_FARTHEST,
        mark="sam{:g}",
        words="SAM with ρ {:g}",
    )
    sam_adaptive: bool = declared(
        False,
        "Measure SAM's ascent by |w|, as ASAM; --no-sam-adaptive [no]",
        panel=OPTIMIZER,
        mark="asam",
        words="adaptive SAM",
    )
    swa: float | None = declared(  # share of the run if it is below 1
        None,
        "Average weights from this epoch, or share, on [no]",
        panel=SCHEDULE,
        metavar="START",
        below=_FARTHEST,
        mark="swa{:g}",
        words="SWA from {:g} on",
    )
    ema: float | None = declared(
        None,
        "Half-life of an average of weights, epochs [none]",
        panel=SCHEDULE,
        metavar="HALF_LIFE",
        below=_FARTHEST,
        mark="ema{:g}",
        words="EMA of half-life {:g}",
    )
    ensemble: int | None = declared(
        None,
        "Join the last N snapshots of restarts [none]",
        panel=SCHEDULE,
        least=2,
        mark="ens{}",
        words="ensemble of {} snapshots",
    )
    clip_norm: float | None = declared(
        None,
        "Largest norm of a lane's gradient [none]",
        panel=TRAIN,
        metavar="V",
        below=_LARGEST,
        mark="clip{:g}",
        words="gradients clipped to a norm of {:g}",
    )
    label_smoothing: float = declared(
        0.0,
        "Of training's cross-entropy; val_loss has none",
        panel=TRAIN,
        mark="smooth{:g}",
        words="labels smoothed by {:g}",
    )
    logit_decay: float = declared(
        0.0,
        "λ_C of a penalty ½λ_C‖logits‖² in training",
        panel=TRAIN,
        metavar="V",
        below=_LARGEST,
        mark="logits{:g}",
        words="logits penalised by {:g}",
    )
    accumulate: int = declared(
        1,
        "Batches per update, their mean gradient",
        panel=TRAIN,
        least=1,
        mark="acc{}",
        words="{} batches per update",
    )
    train_fraction: float | None = declared(  # the same items for every seed; validation stays whole
        None,
        "Share of the training set that trains [all]",
        panel=TRAIN,
        mark="{:g}-of-train",
        words="trained on {:g} of the training set",
    )
    eval_batch_size: int | None = declared(  # results differ only by rounding
        None, "Items evaluated at a time [256]", panel=WHERE, least=1, compare=False, in_presets=False
    )
    damping: float | None = declared(  # None for the families without factors
        None,
        "γ added to K-FAC's curvature A⊗G",
        panel=OPTIMIZER,
        metavar="V",
        below=_LARGEST,
        mark="damp{:g}",
        words="damping {:g}",
    )
    factor_ema: float | None = declared(
        None,
        "Weight of the past in A and G",
        panel=OPTIMIZER,
        metavar="V",
        mark="ema-of-factors{:g}",
        words="factors averaged by {:g}",
    )
    inverse_interval: int | None = declared(
        None,
        "Steps between inverses of A and G",
        panel=OPTIMIZER,
        least=1,
        mark="inv{}",
        words="inverses every {} steps",
    )
    sizes: DataSet | None = None  # of the data; None: not read yet

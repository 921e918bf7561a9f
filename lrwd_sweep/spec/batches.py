"""The fields of a task that make steps of the training set: its share, batches, gradient and curvature."""

from __future__ import annotations

from dataclasses import dataclass

from lrwd_sweep.spec.field import OPTIMIZER, TRAIN, WHERE, declared
from lrwd_sweep.spec.flat_minima import FlatMinima, FlatMinimaOptions

LARGEST_EPS = 1e30  # which float32 holds, and products with it


class CurvatureOptions(FlatMinimaOptions, total=False):
    """The fields of K-FAC, and those for flat minima, as keywords of a call."""

    damping: float
    factor_ema: float
    inverse_interval: int


@dataclass(frozen=True, slots=True)
class Batches(FlatMinima):
    """The fields of a task for the items of a step, its loss, its gradient and K-FAC's curvature."""

    clip_norm: float | None = declared(
        None,
        "Largest norm of a lane's gradient [none]",
        kind=float,
        panel=TRAIN,
        metavar="V",
        below=LARGEST_EPS,
        rare=True,
        mark="clip{:g}",
        words="gradients clipped to a norm of {:g}",
    )
    label_smoothing: float = declared(
        0.0,
        "Of training's cross-entropy; val_loss has none",
        panel=TRAIN,
        rare=True,
        mark="smooth{:g}",
        words="labels smoothed by {:g}",
    )
    logit_decay: float = declared(
        0.0,
        "λ_C of a penalty ½λ_C‖logits‖² in training",
        panel=TRAIN,
        metavar="V",
        below=LARGEST_EPS,
        rare=True,
        mark="logits{:g}",
        words="logits penalised by {:g}",
    )
    accumulate: int = declared(
        1,
        "Batches per update, their mean gradient",
        panel=TRAIN,
        metavar="N",
        least=1,
        rare=True,
        mark="acc{}",
        words="{} batches per update",
    )
    train_fraction: float | None = declared(  # the same items for every seed; validation stays whole
        None,
        "Share of the training set that trains [all]",
        kind=float,
        panel=TRAIN,
        metavar="X",
        rare=True,
        mark="{:g}-of-train",
        words="trained on {:g} of the training set",
    )
    eval_batch_size: int | None = declared(  # results differ only by rounding
        None,
        "Items evaluated at a time [256]",
        kind=int,
        panel=WHERE,
        metavar="N",
        least=1,
        compare=False,
        in_presets=False,
        rare=True,
    )
    damping: float | None = declared(  # None for the families without factors
        None,
        "γ added to K-FAC's curvature A⊗G",
        kind=float,
        panel=OPTIMIZER,
        metavar="V",
        below=LARGEST_EPS,
        rare=True,
        mark="damp{:g}",
        words="damping {:g}",
    )
    factor_ema: float | None = declared(
        None,
        "Weight of the past in A and G",
        kind=float,
        panel=OPTIMIZER,
        metavar="V",
        rare=True,
        mark="ema-of-factors{:g}",
        words="factors averaged by {:g}",
    )
    inverse_interval: int | None = declared(
        None,
        "Steps between inverses of A and G",
        kind=int,
        panel=OPTIMIZER,
        metavar="N",
        least=1,
        rare=True,
        mark="inv{}",
        words="inverses every {} steps",
    )

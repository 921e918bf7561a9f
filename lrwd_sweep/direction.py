"""Which end of a metric is better: what its name says, and what the user said."""

from __future__ import annotations

import re

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.trial import Direction

_HIGHER = {
    "acc",
    "accuracy",
    "f1",
    "auc",
    "ap",
    "map",
    "bleu",
    "rouge",
    "r2",
    "score",
    "top1",
    "top5",
    "iou",
    "dice",
    "reward",
    "return",
}
_HIGHER |= {
    "accuracies",
    "auroc",
    "auprc",
    "precision",
    "recall",
    "miou",
    "psnr",
    "ssim",
    "mrr",
    "ndcg",
    "mcc",
}
_LOWER = {
    "loss",
    "losses",
    "error",
    "errors",
    "err",
    "nll",
    "mse",
    "rmse",
    "mae",
    "brier",
    "fid",
    "perplexity",
    "ppl",
    "wer",
    "cer",
    "regret",
}

_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")


def says_higher(metric: str) -> bool:
    """Whether a metric's name says that higher is better; error or loss beside it says the opposite.

    >>> [says_higher(name) for name in ("val_acc", "F1Score", "Accuracy@1", "top1_error", "mapping")]
    [True, True, True, False, False]
    """
    words = set()
    for word in _WORD.findall(metric.replace("IoU", "Iou")):
        words |= {word.lower(), word.lower().rstrip("0123456789")}  # ap50, rouge2
    if words & _LOWER:
        return "neg" in words  # neg_log_loss, neg_mean_squared_error
    return bool(words & _HIGHER)


def given(*, maximize: bool, minimize: bool) -> Direction | None:
    """The direction that was asked for, or None. Raises UsageError for both."""
    if maximize and minimize:
        raise UsageError("--maximize and --minimize exclude each other; give the one that is meant")
    return Direction.MAXIMIZE if maximize else Direction.MINIMIZE if minimize else None


def chosen(metric: str, *, maximize: bool, minimize: bool) -> Direction:
    """The direction that --maximize or --minimize gives, else minimize.

    Raises UsageError for both of them, and for neither where the metric's name says that higher is better.
    """
    asked = given(maximize=maximize, minimize=minimize)
    if asked is None and says_higher(metric):
        raise UsageError(
            f"is a higher or a lower {brief(metric)!r} better? its name says higher; "
            "add --maximize, or --minimize if lower is better"
        )
    return asked or Direction.MINIMIZE

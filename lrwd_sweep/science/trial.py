"""Trials, the outcomes of lanes (one cell and one seed), and the direction of their metric."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.science.lattice import Cell


class Status(StrEnum):
    """The end of a lane."""

    COMPLETE = "complete"  # trained to the last step, every metric finite
    DIVERGED = "diverged"  # a loss became NaN or infinite: an outcome, never retried
    FAILED = "failed"  # an error outside the mathematics, such as no memory; retried by the next run


class Direction(StrEnum):
    """The better end of a metric."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one lane; `metrics` is empty unless it is complete.

    Under warm restarts `metrics` are of the last snapshot. A diverged lane keeps its earlier snapshots.
    """

    cell: Cell
    seed: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)  # by name, e.g. val_loss
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # one value per epoch, by name
    detail: str = ""  # place of divergence, or reason of failure
    snapshots: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # metrics by epoch of restart


def unfinished(
    cells: Iterable[Cell], seeds: Sequence[int], finished: Container[tuple[Cell, int]]
) -> dict[int, list[Cell]]:
    """Return the cells with an unfinished lane by seed, without seeds that have none."""
    cells = list(cells)
    todo = {seed: [cell for cell in cells if (cell, seed) not in finished] for seed in seeds}
    return {seed: missing for seed, missing in todo.items() if missing}


_HIGHER = re.compile(
    r"acc|accuracy|accuracies|accs|f1|fbeta|auc|auroc|auprc|rocauc|ap|map|precision|recall|sensitivity|"
    r"specificity|score|scores|top1|top5|iou|miou|jaccard|dice|dsc|psnr|ssim|bleu|rouge|chrf|meteor|r2|"
    r"rsquared|mrr|ndcg|mcc|kappa|pearson|spearman|likelihood|elbo|reward|rewards|return|returns|rew"
)
_ENDS = ("acc", "auc", "score", "reward")  # valacc, bertscore
_PHRASES = (  # across words: top-5, R^2, R@10, hits@1, pass@1, exact match
    r"(?<![a-z])top[-_ ]?\d|(?<![a-z])r(\^2|_?squared|@\d)|(hits?|pass)@"
    r"|exact[-_ ]?match|(success|win|hit)[-_ ]?rate"
)
_NEGATED = {"neg", "negative"}
_LOWER = re.compile(
    "loss|losses|error|errors|err|nll|mse|rmse|mae|brier|fid|perplexity|ppl|wer|cer|regret|bpb|bpc"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")


def says_higher(metric: str) -> bool:
    """Check if a metric's name implies that higher is better; error or loss beside it implies the opposite.

    >>> [says_higher(name) for name in ("val_acc", "F1Score", "Accuracy@1", "top1_error", "mapping")]
    [True, True, True, False, False]
    """
    words = _words(metric)
    negated = bool(words & _NEGATED)
    if any(map(_LOWER.fullmatch, words)):
        return negated  # neg_log_loss, neg_mean_squared_error
    if any(_HIGHER.fullmatch(word) or word.endswith(_ENDS) for word in words):
        return not negated or "likelihood" not in words
    return re.search(_PHRASES, metric.lower()) is not None


def says_lower(metric: str) -> bool:
    """Check if a metric's name implies that lower is better.

    >>> [says_lower(name) for name in ("val_loss", "ppl", "val_acc", "neg_log_loss", "quality")]
    [True, True, False, False, False]
    """
    words = _words(metric)
    return not words & _NEGATED and any(map(_LOWER.fullmatch, words))


def _words(metric: str) -> set[str]:
    words = set()
    for word in _WORD.findall(re.sub("(?<=[a-z])IoU|nDCG", lambda found: found[0].title(), metric)):
        words |= {word.lower(), word.lower().rstrip("0123456789")}  # ap50, rouge2
    return words


def requested_direction(*, maximize: bool, minimize: bool) -> Direction | None:
    """Return the requested direction, or None. Raises UsageError for both."""
    if maximize and minimize:
        both = f"{arg('maximize', True)} and {arg('minimize', True)}"
        raise UsageError(f"{both} exclude each other; give the one that is meant")
    return Direction.MAXIMIZE if maximize else Direction.MINIMIZE if minimize else None


def metric_direction(metric: str, *, maximize: bool, minimize: bool) -> Direction:
    """Return the requested direction, by default minimize.

    Raises UsageError for both, and for neither if the metric's name implies that higher is better.
    """
    asked = requested_direction(maximize=maximize, minimize=minimize)
    if asked is None and says_higher(metric):
        raise UsageError(
            f"is a higher or a lower {brief(metric)!r} better? its name says higher; "
            f"add {arg('maximize', True)}, or {arg('minimize', True)} if lower is better"
        )
    return asked or Direction.MINIMIZE

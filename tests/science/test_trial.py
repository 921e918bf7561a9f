"""A metric's name may imply that higher is better; then the user gives the direction."""

import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.trial import Direction, metric_direction, requested_direction, says_higher
from lrwd_sweep.spec.task import Task

HIGHER = """
    acc val_acc valAcc ACCURACY test/accuracy Accuracy@1 f1 F1Score best.f1_macro macroF1 rocAUC AP AP50 mAP
    map bleu4 ROUGE-L rougeL r2 R2_score score top1 val_top5 iou mIoU meanIoU dice_coef mean_reward
    neg_log_loss valacc accs ep_rew_mean bertscore ROCAUC nDCG@10 R@10 hits@1 top-5 val_top_1 R^2 r_squared
    log_likelihood exact_match win_rate neg_acc
"""
LOWER = """
    value loss val_loss top1_error acc_err diceLoss perplexity mapping inaccuracy accident fraction
    scoreboardless score_loss log_loss … neg_log_likelihood error_rate lr@10 miss_rate laptop1 err_rate stop1
"""


def test_whole_words_of_a_name_imply_that_higher_is_better() -> None:
    assert [name for name in [*HIGHER.split(), "episode return"] if not says_higher(name)] == []
    assert [name for name in [*LOWER.split(), *Task().metrics, "", "stop 5"] if says_higher(name)] == []


def test_name_that_implies_higher_is_refused_until_one_direction_is_given() -> None:
    with pytest.raises(UsageError, match=r"'val_acc' .*add maximize=True, or minimize=True if"):
        metric_direction("val_acc", maximize=False, minimize=False)
    assert metric_direction("val_acc", maximize=True, minimize=False) is Direction.MAXIMIZE
    assert metric_direction("val_acc", maximize=False, minimize=True) is Direction.MINIMIZE
    assert metric_direction("val_loss", maximize=False, minimize=False) is Direction.MINIMIZE
    assert metric_direction("val_loss", maximize=True, minimize=False) is Direction.MAXIMIZE
    with pytest.raises(UsageError, match="maximize=True and minimize=True exclude each other"):
        requested_direction(maximize=True, minimize=True)
    assert requested_direction(maximize=False, minimize=False) is None

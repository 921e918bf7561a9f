"""Evaluation of a pack's lanes on a split."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lrwd_sweep.data import EVAL_BATCH, Split
from lrwd_sweep.engine.metrics import JoinedOutputs, Measures, UserMetric, losses_of, recall_at_1
from lrwd_sweep.nets.network import Network, Predictor, fits
from lrwd_sweep.spec.catalog import EMBEDDINGS
from lrwd_sweep.spec.task import Task


class Evaluation:
    """The measures of a task, taken of any predictor on a whole split."""

    def __init__(self, task: Task, net: Network) -> None:
        self.loss, self.whole = net.way.loss, task.whole_loss
        predicts = fits(net.output, task.data_set)
        metric = UserMetric.find(task.measure) if task.measure else None
        embeds = task.net in EMBEDDINGS
        self.classes = task.data_set.classes
        self.measures = Measures(task.data_set.target, self.loss, predicts, embeds, metric)
        self.size, self.by_item = task.eval_batch_size or EVAL_BATCH, net.by_item

    @torch.inference_mode()
    def measured(
        self, predictor: Predictor, split: Split, alive: Tensor, like: Tensor
    ) -> Tensor:  # (measures, L)
        """Measure every lane; `alive` is (L,), `like` θ.

        A loss that is not a mean over items gets the outputs of the whole split at once, and a network whose
        outputs depend on their batch gets all its items.
        """
        total, target, metric = self.measures.zeros(like), self.measures.target, self.measures.metric
        found, embeddings = JoinedOutputs(len(split), target), JoinedOutputs(len(split))
        targets: list[Tensor] = []
        for x, y in split.batches(self.size if self.by_item else len(split)):
            outputs = predictor.predict(x)
            if self.measures.embeds:
                embeddings.add(outputs[:, self.classes :])
                outputs = outputs[:, : self.classes]
            losses = (
                outputs.new_zeros(len(outputs)) if self.whole else losses_of(self.loss, outputs, y, target)
            )
            total += self.measures.summed(losses, outputs, y, split.center)
            if self.whole or metric:
                found.add(outputs)
            if self.whole or metric or self.measures.embeds:
                targets.append(y)
        if self.whole:
            total[0] = losses_of(self.loss, found.outputs, torch.cat(targets), target)
        rows = [self.means(total, len(split), alive)]
        if self.measures.embeds:
            recalls = recall_at_1(embeddings.outputs, torch.cat(targets))
            rows.append(torch.where(alive, recalls, math.nan).to(total).unsqueeze(0))
        if metric is not None:
            measured = metric.values(found.outputs, torch.cat(targets), alive, target)
            rows.append(measured.to(total).unsqueeze(0))
        return torch.cat(rows)

    def means(self, total: Tensor, size: int, alive: Tensor) -> Tensor:  # (measures, L)
        """Turn sums into means; NaN for a diverged lane, whose loss may be finite where it stopped."""
        return torch.where(alive, self.measures.means(total, size), math.nan)

"""Networks by name."""

from __future__ import annotations

from lrwd_sweep.nets.mlp import Mlp, MlpLanes

NATIVE = {"mlp-norm": Mlp(norm_logits=True), "mlp": Mlp(norm_logits=False)}

__all__ = ["NATIVE", "Mlp", "MlpLanes"]

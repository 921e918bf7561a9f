"""A small decoder-only transformer for texts, as an ordinary module (Radford et al. 2019)."""

import json
import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrize import register_parametrization

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Way
from lrwd_sweep.spec.catalog import POSITION, DataSet
from lrwd_sweep.spec.net_options import complete_options, said_options

DEVIATION = 0.02  # of initial weights


def takes(item: DataSet) -> bool:
    """Test whether an item is a window of tokens with a class for each position."""
    first, *others = item.every_input
    whole = first.type.startswith(("int", "uint")) and len(first.shape) == 1
    return whole and not others and item.target == POSITION and item.target_shape == first.shape


def build(item: DataSet, options: str, way: Way) -> ModuleNetwork:
    """Build the network for windows of tokens. Raises UsageError for other items, and if there is no room."""
    if not takes(item):
        size = "×".join(map(str, item.shape))
        raise UsageError(
            f"{arg('net', 'gpt')} takes windows of tokens with a class for each, not items of {size}; choose "
            f"{arg('data', 'python-docs')} or {arg('data', 'text:PATH')}"
        )
    found, length = complete_options("gpt", options), item.shape[0]
    if "context" not in json.loads(options or "{}"):
        found["context"] = length
    if found["context"] < length:
        raise UsageError(
            f"{arg('net_options', said_options(options))}: the windows have {length} tokens; choose a "
            "context of at least as many"
        )
    make = partial(Gpt, item.every_input[0].most + 1, item.classes, **found)
    try:
        return ModuleNetwork(make, item, way)
    except (MemoryError, RuntimeError) as error:
        raise UsageError(
            f"{arg('net_options', said_options(options))} makes a network that cannot be built "
            f"({brief(error)}); choose a smaller one"
        ) from None


class Gpt(nn.Module):
    """Embeddings of tokens and positions, pre-norm blocks, a normalisation, and a matrix to the classes.

    Weights begin as N(0, 0.02²), the two of a block that lead back to the residual stream divided by
    √(2·layers); biases begin at 0. With `tie` the last matrix is the embedding of the tokens. With
    `weight_norm` every row of a block's matrices is g v/‖v‖, so that v is scale-invariant (Salimans and
    Kingma 2016), as in the language model of Heo et al. 2021.
    """

    def __init__(
        self,
        tokens: int,
        classes: int,
        *,
        layers: int,
        heads: int,
        width: int,
        context: int,
        tie: bool,
        weight_norm: bool,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(max(tokens, classes), width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = None if tie else nn.Linear(width, classes, bias=False)
        self.classes = classes
        for name, value in self.named_parameters():
            if value.dim() > 1:
                last = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(value, std=DEVIATION / math.sqrt(2 * layers) if last else DEVIATION)
            elif name.endswith("bias"):
                nn.init.zeros_(value)
        if weight_norm:
            for layer in self.blocks.modules():
                if isinstance(layer, nn.Linear):
                    register_parametrization(layer, "weight", RowNorm())

    def forward(self, x: Tensor) -> Tensor:  # (B, T) whole numbers → (B, T, classes)
        """Return the logits of the token after each."""
        h = self.token(x.long()) + self.position.weight[: x.shape[1]]
        h = self.norm(self.blocks(h))
        last = self.token.weight[: self.classes] if self.head is None else self.head.weight
        return functional.linear(h, last)


class RowNorm(nn.Module):
    """Rows g v/‖v‖ of a matrix (Salimans and Kingma 2016, eq. 2), as vmap has no rule for torch's."""

    def forward(self, g: Tensor, v: Tensor) -> Tensor:  # (out, 1), (out, in)
        """Return the matrix."""
        matrix: Tensor = v * (g / torch.linalg.vector_norm(v, dim=1, keepdim=True))
        return matrix

    def right_inverse(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and v of a matrix."""
        return torch.linalg.vector_norm(matrix, dim=1, keepdim=True), matrix


class Block(nn.Module):
    """h ← h + attention(norm(h)), then h ← h + down(gelu(up(norm(h))))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), CausalAttention(width, heads)
        self.norm2, self.up = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:  # (B, T, width)
        """Return the residual stream after the block."""
        h = h + self.attention(self.norm1(h))
        down: Tensor = self.down(functional.gelu(self.up(self.norm2(h))))
        return h + down


class CausalAttention(nn.Module):
    """softmax(q kᵀ/√d) v in every head, a position attending to itself and those before it.

    It is written out, because vmap has no rule for torch's fused attention on a CPU.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:  # (B, T, width)
        """Return the mixture of the values, through a last matrix."""
        batch, length, width = h.shape
        q, k, v = self.qkv(h).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, d)
        future = torch.ones(length, length, dtype=torch.bool, device=h.device).triu(1)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        return self.out(mixed)  # type: ignore[no-any-return]

"""Networks that a stacked program could get wrong, each with inputs (1, 8, 8) and four classes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Normed(nn.Module):
    """Batch normalisation with affine parameters, running statistics and a count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            1, 6, 3, padding=1, bias=False
        )  # normalised away; Adam would follow its rounding
        self.norm = nn.BatchNorm2d(6)
        self.hidden = nn.Linear(6 * 16, 12, bias=False)
        self.flat_norm = nn.BatchNorm1d(12, momentum=0.3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        h = nn.functional.max_pool2d(self.norm(self.conv(x)).tanh(), 2)
        return self.head(self.flat_norm(self.hidden(h.view(len(h), -1))).tanh())  # `view`, as people write


class EvalByDefault(Normed):
    """Handed over in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()


class AveragedForever(nn.Module):
    """Statistics averaged over all batches: the count becomes a number in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64, momentum=None)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(x.flatten(1)))


class Dropping(nn.Module):
    """Dropout as a layer, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 12), nn.Tanh(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class Tied(nn.Module):
    """One matrix in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(64, 8, bias=False), nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.up.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.again(self.up(self.down(x.flatten(1))).tanh()).tanh())


class Frozen(nn.Module):
    """A random layer that does not train, another for every seed."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20).requires_grad_(False)
        self.register_buffer("phase", torch.rand(20))
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head((self.features(x.flatten(1)) + self.phase).cos())


class Unused(nn.Module):
    """A layer that no output depends on: torch.optim neither moves nor decays it."""

    def __init__(self) -> None:
        super().__init__()
        self.spare, self.head = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(x.flatten(1))


class Remembering(nn.Module):
    """Buffers of every kind: put in place of the old one, counted, of whole numbers, of truths."""

    mean: Tensor
    steps: Tensor
    order: Tensor
    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)
        self.register_buffer("mean", torch.zeros(64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("order", torch.arange(63, -1, -1), persistent=False)
        self.register_buffer("kept", torch.ones(64, dtype=torch.bool))

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)[:, self.order] * self.kept
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            self.steps += 1
        return self.head(x - self.mean)


class NamedOutputs(nn.Module):
    """Several outputs, the logits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.body(x.flatten(1)).tanh()
        return {"hidden": h, "logits": self.head(h)}


class AttributeOutputs(NamedOutputs):
    """The same as attributes."""

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(**super().forward(x))


class AuxiliaryOutput(nn.Module):
    """A tuple in training, the logits alone in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.extra = nn.Linear(64, 4), nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Any:
        logits = self.head(x.flatten(1))
        return (self.extra(x.flatten(1)), logits) if self.training else logits


class LookingAtValues(nn.Module):
    """Its path depends on numbers, which no stacked program can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)
        a = self.a(x)
        return a + self.b(x) if a.sum() > -1e9 else self.b(x)


class OfTokens(nn.Module):
    """Whole numbers that index a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.table(x.flatten(1).long().abs()).mean(1))


class Lazy(nn.Module):
    """Shapes that only an input tells."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(12, bias=False), nn.LazyBatchNorm1d(), nn.Tanh()
        )
        self.head = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class ChangingItsInput(nn.Module):
    """What comes in is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Any:
        x += 0.1
        return self.body(x.mul_(2))


class Keeping(nn.Module):
    """A tensor of the longest batch so far, which is one of evaluation, and its own gradient as a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(64, 4)
        self.scale = torch.ones(0, 1)

    def forward(self, x: Tensor) -> Any:
        if len(self.scale) < len(x):
            self.scale = torch.linspace(0.9, 1.1, 20)[: len(x), None].to(x)
        with torch.enable_grad():
            x = x.flatten(1).requires_grad_()
            (slope,) = torch.autograd.grad(self.body(x).tanh().sum(), x, create_graph=True)
        return self.head(slope * self.scale[: len(x)])


class Attending(nn.Module):
    """Attention that drops nothing, as a function and in torch's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.layer(x.flatten(1, 2))
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(nn.functional.scaled_dot_product_attention(h, h, h).mean(1))


class _Shrinking(nn.Dropout):
    """Called dropout, and takes away the same of every number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - self.p)


class OtherDropout(nn.Module):
    """One layer in two places, and one that drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        drop = nn.Dropout(0.3)
        self.body = nn.Sequential(
            nn.Flatten(), drop, nn.Linear(64, 12), nn.Tanh(), drop, _Shrinking(0.5), nn.Linear(12, 4)
        )

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class Choosing(nn.Module):
    """Random numbers from its seed that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.columns = torch.rand(16), random.sample(range(64), 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head((x.flatten(1)[:, self.columns] + self.phase.to(x)).cos())


class Strided(nn.Module):
    """Looks at memory, in the order that images have by default."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Any:
        h = torch.as_strided(self.conv(x).tanh(), (len(x), 3, 16), (192, 64, 4))
        return self.head(h.flatten(1))


class OfSentences(nn.Module):
    """Tokens up to the first 0 of the filling, which no sentence begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(9, 6, padding_idx=0), nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        tokens = x.flatten(1).long().abs()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(tokens), (tokens > 0).sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(self.body(packed)[1][-1])


class ComputedAgain(nn.Module):
    """A part whose activations are not kept, in the way that hides its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, 4)
        self.body = nn.Sequential(nn.Linear(12, 12), nn.Tanh())

    def forward(self, x: Tensor) -> Any:
        h = self.first(x.flatten(1))
        return self.last(checkpoint(self.body, h, use_reentrant=True) if self.training else self.body(h))


class TopOne(nn.Module):
    """The better of two layers for each input, which all made-up inputs of one sign leave the same."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(64, 2), nn.ModuleList([nn.Linear(64, 4), nn.Linear(64, 4)])

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)
        weight, chosen = self.gate(x).softmax(1).max(1)
        out = x.new_zeros(len(x), 4)
        for place, expert in enumerate(self.experts):
            mine = chosen == place
            out[mine] = (expert(x[mine]) * weight[mine, None]).to(out.dtype)
        return out


VECTORISED = (
    Choosing,
    OtherDropout,
    ChangingItsInput,
    Normed,
    EvalByDefault,
    Dropping,
    Tied,
    Frozen,
    Unused,
    Remembering,
    NamedOutputs,
    AttributeOutputs,
    AuxiliaryOutput,
    OfTokens,
    Lazy,
)
LOOPED = {  # and why
    ComputedAgain: "cannot be vectorised",
    OfSentences: "cannot be vectorised",
    Strided: "is not the same when vectorised",
    TopOne: "cannot be vectorised",
    Attending: "has a layer that vmap runs one by one",
    AveragedForever: "cannot be vectorised",
    Keeping: "cannot be vectorised",
    LookingAtValues: "cannot be vectorised",
}

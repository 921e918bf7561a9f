"""Networks that a stacked program could get wrong, each with inputs (1, 8, 8) and four classes."""

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Base(nn.Module):
    """A network whose `make` builds the layers and whose `logits` takes flat inputs (B, 64)."""

    head: Any

    def __init__(self) -> None:
        super().__init__()
        self.make()

    def make(self) -> None:
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Any:
        return self.logits(x.flatten(1))

    def logits(self, x: Tensor) -> Any:
        return self.head(x)


class Normed(Base):  # with affine parameters, running statistics and a count
    def make(self) -> None:
        self.conv = nn.Conv2d(1, 6, 3, padding=1, bias=False)  # with a bias Adam would follow rounding
        self.norm = nn.BatchNorm2d(6)
        self.hidden = nn.Linear(6 * 16, 12, bias=False)
        self.flat_norm = nn.BatchNorm1d(12, momentum=0.3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        h = functional.max_pool2d(self.norm(self.conv(x)).tanh(), 2)
        return self.head(self.flat_norm(self.hidden(h.view(len(h), -1))).tanh())  # `view`, as users write


class AveragedForever(Base):  # statistics of all batches: the count becomes a number in Python
    def make(self) -> None:
        self.head = nn.Sequential(nn.BatchNorm1d(64, momentum=None), nn.Linear(64, 4))


class Dropping(Base):  # two dropout layers
    def make(self) -> None:
        body = (nn.Dropout(0.2), nn.Linear(64, 12), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Sequential(*body, nn.Linear(12, 4))


class Tied(Base):  # one matrix in two places
    def make(self) -> None:
        self.down, self.up = nn.Linear(64, 8, bias=False), nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.up.weight
        self.head = nn.Linear(8, 4)

    def logits(self, x: Tensor) -> Any:
        return self.head(self.again(self.up(self.down(x)).tanh()).tanh())


class OfItsSeed(Base):  # random numbers that do not train: a layer, a buffer, a tensor and a list
    def make(self) -> None:
        self.features = nn.Linear(16, 20).requires_grad_(False)
        self.register_buffer("phase", torch.rand(20))
        self.shift, self.columns = torch.rand(16), random.sample(range(64), 16)
        self.head = nn.Linear(20, 4)

    def logits(self, x: Tensor) -> Any:
        h = (x[:, self.columns] + self.shift.to(x)).cos()
        return self.head((self.features(h) + self.phase).cos())


class Remembering(Base):  # buffers that are replaced, counted, integer and boolean
    def make(self) -> None:
        self.head = nn.Linear(64, 4)
        self.register_buffer("mean", torch.zeros(64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("order", torch.arange(63, -1, -1), persistent=False)
        self.register_buffer("kept", torch.ones(64, dtype=torch.bool))

    def logits(self: Any, x: Tensor) -> Any:
        x = x[:, self.order] * self.kept
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            self.steps += 1
        return self.head(x - self.mean)


class SeveralOutputs(Base):  # the logits by name, in training in a tuple; and a layer that none depends on
    def make(self) -> None:
        self.body, self.head, self.extra = nn.Linear(64, 4), nn.Linear(4, 4), nn.Linear(64, 7)
        self.spare = nn.Linear(64, 4)  # which torch.optim neither moves nor decays

    def logits(self, x: Tensor) -> Any:
        h = self.body(x).tanh()
        return (self.extra(x), self.head(h)) if self.training else {"hidden": h, "logits": self.head(h)}


class TwoLayers(Base):
    def make(self) -> None:
        self.a, self.b = nn.Linear(64, 4), nn.Linear(64, 4)

    def logits(self, x: Tensor) -> Any:
        return self.a(x) + self.b(x)


class LookingAtValues(TwoLayers):  # its path depends on numbers, which a stacked program cannot follow
    def logits(self, x: Tensor) -> Any:
        return super().logits(x) if self.a(x).sum() > -1e9 else self.b(x)


class OfWholeBatches(Base):  # takes no small batch in training, and no sentence without a word
    def logits(self, x: Tensor) -> Any:
        assert (x.long() > 0).any(1).all()
        assert len(x) != 2 or not self.training
        return self.head(x)


class Lazy(Base):  # only an input tells the shapes, and it is changed in place
    def make(self) -> None:
        body = (nn.LazyLinear(12, bias=False), nn.LazyBatchNorm1d(), nn.Tanh())
        self.head = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), *body, nn.LazyLinear(4))

    def forward(self, x: Tensor) -> Any:
        x += 0.1
        return self.head(x.mul_(2))


class Keeping(Base):  # a tensor of the longest batch so far, and its own gradient as a feature
    def make(self) -> None:
        self.body, self.head = nn.Linear(64, 8), nn.Linear(64, 4)
        self.scale = torch.ones(0, 1)

    def logits(self, x: Tensor) -> Any:
        if len(self.scale) < len(x):
            self.scale = torch.linspace(0.9, 1.1, 20)[: len(x), None].to(x)
        with torch.enable_grad():
            x.requires_grad_()
            (slope,) = torch.autograd.grad(self.body(x).tanh().sum(), x, create_graph=True)
        return self.head(slope * self.scale[: len(x)])


class Attending(Base):  # attention that drops nothing, as a function and in torch's layers
    def make(self) -> None:
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.layer(x.flatten(1, 2))
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(functional.scaled_dot_product_attention(h, h, h).mean(1))


class OfSentences(Base):  # tokens up to the first 0 of the padding, which no sentence begins with
    def make(self) -> None:
        self.table, self.body = nn.Embedding(9, 6, padding_idx=0), nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def logits(self, x: Tensor) -> Any:
        tokens = x.long().abs()
        lengths, pack = (tokens > 0).sum(1).cpu(), nn.utils.rnn.pack_padded_sequence
        packed = pack(self.table(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.body(packed)[1][-1])


class Convolving(Base):  # borders of several kinds, layers with a bias and without, and one of the logits
    def make(self) -> None:
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, (1, 3), padding="same", bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.Flatten(),
            nn.Linear(64, 6),
            nn.Tanh(),
        )
        self.head, self.bias = nn.Linear(6, 4, bias=False), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x)) + self.bias


VECTORISED = OfItsSeed, Normed, Dropping, Tied, Remembering, SeveralOutputs, Lazy
_UNVECTORISED = OfSentences, AveragedForever, Keeping, LookingAtValues
LOOPED: dict[type[nn.Module], str] = {  # and why
    Attending: "has a layer that vmap runs one by one",
    **dict.fromkeys(_UNVECTORISED, "cannot be vectorised"),
}

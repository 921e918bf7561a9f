"""Classifiers of images: residual networks and VGG for small images, and torchvision's by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Way
from lrwd_sweep.nets.randomness import Dropout, Noisy, drawn_as, replace_dropout, replace_layers
from lrwd_sweep.spec.catalog import DataSet

MakeBlock = Callable[[int, int, int], nn.Module]  # of input channels, output channels and stride


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution without bias, same padding, weights of variance 2/(size² outputs).

    He et al. 2015, eq. 14.
    """
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _stages(block: MakeBlock, widths: Sequence[int], depth: int, inputs: int = 16) -> nn.Sequential:
    """Make `depth` blocks per width; every stage but the first begins with stride 2."""
    blocks = []
    for stage, outputs in enumerate(widths):
        for place in range(depth):
            blocks.append(block(inputs, outputs, 2 if stage and place == 0 else 1))
            inputs = outputs
    return nn.Sequential(*blocks)


def _head(inputs: int, classes: int) -> nn.Linear:
    """Make the linear layer behind the mean over the image, its bias 0."""
    head = nn.Linear(inputs, classes)
    nn.init.zeros_(head.bias)
    return head


class BasicBlock(nn.Module):
    """relu(x + F(x)), F two 3×3 convolutions; where the width grows, x is subsampled and padded with zeros.

    That shortcut is the paper's option A, which has no parameters.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        h = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.more:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return torch.relu(h + x)


class ResNet(nn.Module):
    """Depth 6n + 2: a convolution, three stages of n blocks, mean over the image, a linear layer.

    He et al. 2015, section 4.2.
    """

    def __init__(self, channels: int, classes: int, depth: int) -> None:
        super().__init__()
        self.stem, self.norm = _convolution(channels, 16), nn.BatchNorm2d(16)
        self.blocks = _stages(BasicBlock, (16, 32, 64), (depth - 2) // 6)
        self.head = _head(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        h = self.blocks(torch.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits


class PreActivationBlock(nn.Module):
    """x + F(x), normalisation and ReLU in front of each of F's two 3×3 convolutions.

    Where the width grows, a 1×1 convolution of the normalised input replaces x.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _convolution(inputs, outputs, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _convolution(outputs, outputs)
        self.shortcut = None if inputs == outputs else _convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        h = torch.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(h)
        out: Tensor = x + self.conv2(torch.relu(self.norm2(self.conv1(h))))
        return out


class WideResNet(nn.Module):
    """WRN-d-k, d = 6n + 4: a convolution, three stages of n blocks with 16k, 32k and 64k channels.

    Zagoruyko and Komodakis 2016.
    """

    def __init__(self, channels: int, classes: int, depth: int, k: int) -> None:
        super().__init__()
        self.stem = _convolution(channels, 16)
        self.blocks = _stages(PreActivationBlock, (16 * k, 32 * k, 64 * k), (depth - 4) // 6)
        self.norm = nn.BatchNorm2d(64 * k)
        self.head = _head(64 * k, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        h = torch.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits


class _Mix(torch.autograd.Function):
    """α a + (1 − α) b, with the gradient of β a + (1 − β) b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(b, a, alpha)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        of_a = beta * g
        return of_a, g - of_a, None, None


class Shake(Noisy):
    """The mean of two branches; in training a random mix for every image.

    α and β are uniform on (0, 1), α for the forward pass, an independent β for the backward pass.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Mix a and b (B, C, H, W)."""
        if not self.training:
            return (a + b) / 2
        shape = (2, a.shape[0], 1, 1, 1)
        drawn = torch.rand(shape, generator=self.noise, dtype=drawn_as(a), device=a.device)
        alpha, beta = drawn.to(a.dtype)
        mixed: Tensor = _Mix.apply(a, b, alpha, beta)
        return mixed


class ShakeShortcut(nn.Module):
    """Every second pixel and the pixels beside them, each through a 1×1 convolution to half of the channels.

    The second path sees the image moved right and down by one pixel before it is subsampled.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.straight = _convolution(inputs, outputs // 2, size=1, stride=stride)
        self.moved = _convolution(inputs, outputs // 2, size=1, stride=stride)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        paths = [self.straight(h), self.moved(functional.pad(h, (1, -1, 1, -1)))]
        out: Tensor = self.norm(torch.cat(paths, dim=1))
        return out


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs, stride=stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        _convolution(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )


class ShakeBlock(nn.Module):
    """x + shake(F₁(h), F₂(h)), h = relu(x); where the width grows, a shortcut of h replaces x."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _branch(inputs, outputs, stride), _branch(inputs, outputs, stride)
        self.shake = Shake()
        self.shortcut = None if inputs == outputs else ShakeShortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        h = torch.relu(x)
        past = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = past + self.shake(self.first(h), self.second(h))
        return out


class ShakeShake(nn.Module):
    """Shake-Shake-Image 26 2×`width`d: a convolution to 16 channels, then stages of 4 blocks with `width`,
    2·`width` and 4·`width` channels (Gastaldi 2017).
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem, self.norm = _convolution(channels, 16), nn.BatchNorm2d(16)
        self.blocks = _stages(ShakeBlock, (width, 2 * width, 4 * width), 4)
        self.head = _head(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        h = torch.relu(self.blocks(self.norm(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits


VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, and convolutions before a pooling


class Vgg16(nn.Module):
    """Thirteen 3×3 convolutions, each with batch normalisation and ReLU, and one linear layer.

    Simonyan and Zisserman 2015, configuration D, as networks for images of 32×32 have it: a block
    ends with 2×2 pooling as long as the image is larger than a pixel, and one linear layer
    replaces the three of 4,096 units.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for width, depth in VGG_BLOCKS:
            layers: list[nn.Module] = []
            for _ in range(depth):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                assert convolution.bias is not None
                nn.init.zeros_(convolution.bias)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(channels, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        for block in self.blocks:
            x = block(x)
            if max(x.shape[2:]) > 1:
                x = self.pool(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {  # by image channels and classes
    "resnet20": partial(ResNet, depth=20),
    "resnet32": partial(ResNet, depth=32),
    "resnet56": partial(ResNet, depth=56),
    "wrn-28-10": partial(WideResNet, depth=28, k=10),
    "vgg16-bn": Vgg16,
    "shake26-2x32d": partial(ShakeShake, width=32),
    "shake26-2x64d": partial(ShakeShake, width=64),
    "shake26-2x96d": partial(ShakeShake, width=96),
}


def build_torchvision(name: str, item: DataSet, way: Way) -> ModuleNetwork:
    """Build torchvision.models.`name` for an item's images.

    Raises UnknownName, and UsageError if it does not take such inputs.
    """
    from torchvision import models  # noqa: PLC0415  # slow to load

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("classifier of torchvision.models", name, known)
    shape, classes = item.shape, item.outputs
    named, size = arg("net", f"torchvision:{name}"), "×".join(map(str, shape))
    if len(shape) != 3 or shape[0] not in {1, 3}:
        raise UsageError(f"{named} takes images of 1 or 3 channels, not {size}; choose {arg('net', 'mlp')}")
    try:
        return ModuleNetwork(partial(_make, name, shape, classes), item, way)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{named} does not take images of {size} ({brief(error)}); choose larger images or a network for "
            f"small ones, such as {arg('net', 'resnet20')}"
        ) from error


def _make(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    from torchvision.models import get_model  # noqa: PLC0415
    from torchvision.ops import StochasticDepth  # noqa: PLC0415

    module: nn.Module = get_model(name, weights=None, num_classes=classes, **_options(name, shape))
    replace_dropout(module)
    replace_layers(module, StochasticDepth, _depth)
    if shape[0] == 1:
        module.register_forward_pre_hook(_in_colour)
    return module


def _options(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a constructor's arguments besides the classes."""
    if name in {"googlenet", "inception_v3"}:
        return {"aux_logits": False, "init_weights": True}  # one output; no warning about a new default
    if name.startswith("vit_"):
        return {"image_size": shape[1]}
    if name.startswith("maxvit_"):
        return {"input_size": shape[1:]}
    return {}


def _depth(layer: nn.Module) -> Dropout:
    return Dropout(layer.p, 1 if layer.mode == "row" else 0)  # type: ignore[arg-type]


def _in_colour(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:  # (B, 1, H, W) → (B, 3, H, W)
    return inputs[0].expand(-1, 3, -1, -1)

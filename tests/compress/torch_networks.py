"""Small torch networks of the families that people bring, built as their papers describe them.

ViT: Dosovitskiy et al., arXiv 2010.11929. EdgeNeXt: Maaz et al., arXiv 2206.10589. DeepLab v3: Chen et al.,
arXiv 1706.05587. Residual attention: Wang et al., arXiv 1704.06904. Inception v4: Szegedy et al., arXiv 1602.07261.
LeViT: Graham et al., arXiv 2104.01136.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


class Vit(nn.Module):
    """Patches, a class token in front of them, attention with several heads."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.encoder(x)[:, 0])


class Xca(nn.Module):
    """EdgeNeXt's attention between channels: queries and keys are normalised along the pixels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, pixels, width = x.shape
        qkv = self.qkv(x).reshape(batch, pixels, 3, self.heads, width // self.heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        attention = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
        return self.out((attention.softmax(-1) @ v).permute(0, 3, 1, 2).reshape(batch, pixels, width))


class EdgeNext(nn.Module):
    """A split depth-wise encoder: channels in parts, each convolved with the sum of those before, then attention."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.parts = nn.ModuleList(nn.Conv2d(width // 4, width // 4, 3, padding=1, groups=width // 4) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.attention = Xca(width, 2)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))
        self.head = nn.Linear(width, CLASSES)

    def positions(self, x: Tensor) -> Tensor:
        """Fourier features of rows and columns, made at run time from the size of the input."""
        seen = torch.ones(x.shape[0], x.shape[2], x.shape[3], device=x.device)
        rows, columns = seen.cumsum(1), seen.cumsum(2)
        steps = torch.arange(4, dtype=torch.float32)
        waves = 100.0 ** (2 * torch.div(steps, 2, rounding_mode="floor") / 4)
        found = [(axis[..., None] / waves).sin() for axis in (rows, columns)]
        return torch.cat(found, dim=3).permute(0, 3, 1, 2).repeat(1, x.shape[1] // 8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        before = x
        pieces = torch.split(x, x.shape[1] // 4, dim=1)
        summed, found = pieces[0], [pieces[0]]
        for piece, part in zip(pieces[1:], self.parts, strict=True):
            summed = part(summed + piece)
            found.append(summed)
        x = torch.cat(found, 1)
        x = x + self.positions(x)
        batch, width, height, across = x.shape
        x = x.reshape(batch, width, height * across).permute(0, 2, 1)
        x = x + self.attention(self.norm(x))
        x = x.reshape(batch, height, across, width)
        x = self.scale * self.narrow(F.gelu(self.wide(self.norm(x))))
        x = before + x.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class DeepLab(nn.Module):
    """Atrous pyramid with pooled features, brought back to the size of what they came from at run time."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.rates = nn.ModuleList(nn.Conv2d(width, 8, 3, padding=rate, dilation=rate) for rate in (1, 2, 3))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 8, 1), nn.ReLU())
        self.classes = nn.Conv2d(32, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        seen = self.stem(x)
        parts = [F.relu(rate(seen)) for rate in self.rates]
        parts.append(F.interpolate(self.pooled(seen), size=seen.shape[-2:], mode="bilinear", align_corners=False))
        return F.interpolate(self.classes(torch.cat(parts, 1)), size=size, mode="bilinear", align_corners=False)


class Recurrent(nn.Module):
    """A convolution whose columns are read one after the other by an LSTM or a GRU."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.cells = kind(48, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.conv(x))
        x = x.permute(0, 3, 1, 2).flatten(2)
        return self.head(self.cells(x)[0][:, -1])


class ResidualAttention(nn.Module):
    """A trunk scaled by 1 + a mask, which is pooled and brought back to the trunk's size."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.trunk = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.mask = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        trunk = self.trunk(x)
        size = (trunk.shape[2], trunk.shape[3])
        mask = torch.sigmoid(self.mask(F.interpolate(self.down(x), size=size, mode="bilinear", align_corners=True)))
        return self.head(((1 + mask) * trunk).mean((2, 3)))


class Unfolded(nn.Module):
    """MobileViT's way of reading patches: sizes that are divided and multiplied at run time."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, width, height, across = x.shape
        x = x.reshape(batch * width * (height // 2), 2, across // 2, 2).transpose(1, 2)
        x = x.reshape(batch, width, (height // 2) * (across // 2), 4).permute(0, 3, 2, 1)
        x = x + self.mix(x).softmax(-1)
        return self.head(x.mean((1, 2)))


def conv(
    into: int, out: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
) -> nn.Module:
    """Inception's basic layer."""
    return nn.Sequential(
        nn.Conv2d(into, out, kernel, stride, padding, bias=False), nn.BatchNorm2d(out, eps=0.001), nn.ReLU()
    )


class Inception(nn.Module):
    """Inception v4's stem and one block with its stretched kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 16, 3, 2), conv(16, 16, 3), conv(16, 24, 3, padding=1))
        self.reduced = conv(24, 24, 3, 2)
        self.short = nn.Sequential(conv(48, 16, 1), conv(16, 24, 3))
        self.long = nn.Sequential(
            conv(48, 16, 1), conv(16, 16, (7, 1), padding=(3, 0)), conv(16, 16, (1, 7), padding=(0, 3)), conv(16, 24, 3)
        )
        self.pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(48, 16, 1))
        self.straight = conv(48, 24, 1)
        self.head = nn.Linear(40, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.cat([F.max_pool2d(x, 3, 2), self.reduced(x)], 1)
        x = torch.cat([self.short(x), self.long(x)], 1)
        x = torch.cat([self.pooled(x), self.straight(x)], 1)
        return self.head(x.mean((2, 3)))


class LevitAttention(nn.Module):
    """Attention with a bias by distance that is looked up, keys narrower than values."""

    def __init__(self, width: int, heads: int = 2, key: int = 4, side: int = 4) -> None:
        super().__init__()
        self.heads, self.key, self.value = heads, key, 2 * key
        self.qkv = nn.Linear(width, heads * 4 * key, bias=False)
        self.norm = nn.BatchNorm1d(heads * 4 * key)
        self.project = nn.Linear(heads * 2 * key, width, bias=False)
        points = [(row, column) for row in range(side) for column in range(side)]
        offsets: dict[tuple[int, int], int] = {}
        index = [offsets.setdefault((abs(a - c), abs(b - d)), len(offsets)) for a, b in points for c, d in points]
        self.biases = nn.Parameter(torch.randn(heads, len(offsets)))
        self.register_buffer("index", torch.tensor(index).view(len(points), len(points)))

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        qkv = self.qkv(x)
        qkv = self.norm(qkv.flatten(0, 1)).reshape_as(qkv)
        q, k, v = qkv.view(batch, count, self.heads, -1).split([self.key, self.key, self.value], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        attention = (q @ k * self.key**-0.5 + self.biases[:, self.index]).softmax(-1)  # type: ignore[index]
        return self.project(F.hardswish((attention @ v).transpose(1, 2).reshape(batch, count, -1)))


class Levit(nn.Module):
    """Convolutions, then attention over what is left of the pixels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.attention = nn.ModuleList(LevitAttention(width) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for attention in self.attention:
            x = x + attention(x)
        return self.head(x.mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": Vit,
    "edgenext": EdgeNext,
    "deeplab": DeepLab,
    "cnn-lstm": lambda: Recurrent(nn.LSTM),
    "cnn-gru": lambda: Recurrent(nn.GRU),
    "residual-attention": ResidualAttention,
    "unfolded": Unfolded,
    "inception-v4": Inception,
    "levit": Levit,
}


def made(name: str) -> nn.Module:
    """The network in eval mode, its weights and its norms' statistics from a fixed seed."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]  # tracked by default
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return network.eval()

"""MSG-Transformer in PyTorch with the paper code's parameter names, for benchmarks and comparisons.

It is written for speed in eager mode: the position bias is the mask of PyTorch's fused attention. Shape letters as in
``msg_ms/ops/windows.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from msg_ms.models.attention import position_bias_index
from msg_ms.models.windows import stage_layouts


def partition(x: Tensor, w: int, s: int) -> Tensor:
    b, height, width, c = x.shape
    x = x.view(b, height // (w * s), s, w, width // (w * s), s, w, c)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, s * s, w * w, c)


def reverse(x: Tensor, w: int, s: int, height: int, width: int) -> Tensor:
    """Join windows into a map with channels first."""
    c = x.shape[-1]
    x = x.reshape(-1, height // (w * s), width // (w * s), s, s, w, w, c)
    return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, c, height, width)


def shuffle(x: Tensor) -> Tensor:
    regions, windows, _, c = x.shape
    if windows == 1:
        return x
    msg_tokens = x[:, :, 0].view(regions, windows, windows, c // windows)
    msg_tokens = msg_tokens.transpose(1, 2).reshape(regions, windows, 1, c)
    return torch.cat((msg_tokens, x[:, :, 1:]), 2)


class Attention(nn.Module):
    def __init__(self, dim: int, window: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.rel_pos_msg = nn.Parameter(torch.zeros(heads, 2, 1, 1))
        index = torch.from_numpy(position_bias_index(window)).long()
        self.register_buffer("bias_index", index, persistent=False)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        regions, windows, n, c = x.shape
        qkv = self.qkv(x).view(regions * windows, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        table = torch.cat((self.relative_position_bias_table, self.rel_pos_msg.view(self.heads, 2).T))
        bias = table[self.bias_index].permute(2, 0, 1)[None]
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, window: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, window, heads), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = shuffle(x + self.attn(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, 2, 1)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, window: int, geometry: tuple, next_geometry: tuple | None):
        super().__init__()
        self.window, self.geometry, self.next_geometry = window, geometry, next_geometry
        self.blocks = nn.ModuleList(Block(dim, window, heads) for _ in range(depth))
        self.downsample = Merging(dim) if next_geometry else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        if self.downsample is None:
            return x
        (height, width, s), w = self.geometry, self.window
        msg_tokens = self.downsample(reverse(x[:, :, :1], 1, s, height // w, width // w))
        patch_tokens = self.downsample(reverse(x[:, :, 1:], w, s, height, width))
        s = self.next_geometry[2]
        return torch.cat((partition(msg_tokens, 1, s), partition(patch_tokens, w, s)), 2)


class PatchEmbed(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 7, 4, 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class TorchMSGTransformer(nn.Module):
    """The paper's architecture at its default options; no dropout, no stochastic depth."""

    def __init__(
        self,
        embed_dim,
        depths,
        num_heads,
        img_size=224,
        window_size=7,
        shuffle_size=(4, 4, 2, 1),
        num_classes=1000,
        **_,
    ):
        super().__init__()
        self.window, self.region = window_size, shuffle_size[0]
        layouts = (*stage_layouts(img_size, img_size, 4, window_size, tuple(shuffle_size)), None)
        self.patch_embed = PatchEmbed(embed_dim)
        self.msg_tokens = nn.Parameter(torch.zeros(1, shuffle_size[0] ** 2, 1, embed_dim))
        self.layers = nn.ModuleList(
            Stage(embed_dim * 2**i, depth, heads, window_size, layouts[i], layouts[i + 1])
            for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
        )
        features = embed_dim * 2 ** (len(depths) - 1)
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = partition(self.patch_embed(x), self.window, self.region)
        x = torch.cat((self.msg_tokens.expand(x.shape[0], -1, -1, -1), x), 2)
        for stage in self.layers:
            x = stage(x)
        return self.head(self.norm(x[:, 0, 0]))

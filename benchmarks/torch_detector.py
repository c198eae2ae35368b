"""Cascade Mask R-CNN on MSG-Transformer in PyTorch with mmdetection's parameter names, for benchmarks: test time only.

RoIAlign and suppression are vectorised PyTorch code, as torchvision may be missing beside a given PyTorch. Shape
letters as in ``msg_ms/models/detection``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_msg import Attention, Merging, Mlp, PatchEmbed

from msg_ms.boxes.anchors import grid_anchors
from msg_ms.models.detection.settings import STAGE_STDS
from msg_ms.models.detection.window_maps import WindowMap, stage_maps

try:
    from torchvision import ops as fast
except (ImportError, RuntimeError):  # a torchvision for another torch or for devices that are not here
    fast = None

MAX_RATIO = abs(math.log(16 / 1000))


class Block(nn.Module):
    def __init__(self, dim: int, window: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, window, heads), Mlp(dim)

    def forward(self, x: Tensor, valid: Tensor, layout: WindowMap) -> Tensor:
        """Run on windows (rows*columns, N, C) of one image."""
        x = x + self.attn((self.norm1(x) * valid)[None])[0]
        if layout.region > 1:
            x[:, 0] = shuffle(x[:, 0], layout)
        return x + self.mlp(self.norm2(x))


def shuffle(messages: Tensor, layout: WindowMap) -> Tensor:
    """Exchange slices of MSG tokens (rows*columns, C) on the grid, padded to whole regions."""
    s, (rows, columns), c = layout.region, layout[2:4], messages.shape[-1]
    grid = functional.pad(messages.view(rows, columns, c), (0, 0, 0, -columns % s, 0, -rows % s))
    high, wide = grid.shape[0] // s, grid.shape[1] // s
    x = grid.view(high, s, wide, s, s * s, c // s**2).permute(0, 2, 1, 3, 4, 5).reshape(high, wide, s * s, s * s, -1)
    x = x.transpose(2, 3).reshape(high, wide, s, s, c).permute(0, 2, 1, 3, 4).reshape(high * s, wide * s, c)
    return x[:rows, :columns].reshape(-1, c)


class Stage(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, window: int, last: bool):
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(Block(dim, window, heads) for _ in range(depth))
        self.downsample = None if last else Merging(dim)

    def windows(self, patches: Tensor, messages: Tensor, layout: WindowMap) -> Tensor:
        """Join a map (H, W, C) and MSG tokens (rows, columns, C) to windows (rows*columns, N, C)."""
        w, c = self.window, patches.shape[-1]
        patches = functional.pad(
            patches, (0, 0, 0, layout.columns * w - layout.width, 0, layout.rows * w - layout.height)
        )
        patches = patches.view(layout.rows, w, layout.columns, w, c).transpose(1, 2).reshape(-1, w * w, c)
        return torch.cat((messages.reshape(-1, 1, c), patches), 1)

    def map(self, x: Tensor, layout: WindowMap) -> Tensor:
        """Return the patches of windows as a map (1, C, H, W)."""
        w, c = self.window, x.shape[-1]
        x = x[:, 1:].reshape(layout.rows, layout.columns, w, w, c).permute(4, 0, 2, 1, 3)
        return x.reshape(1, c, layout.rows * w, layout.columns * w)[:, :, : layout.height, : layout.width]

    def grid(self, x: Tensor, layout: WindowMap) -> Tensor:
        return x[:, 0].T.reshape(1, -1, layout.rows, layout.columns)


class Backbone(nn.Module):
    def __init__(self, embed_dim, depths, num_heads, window_size=7, shuffle_size=(4, 4, 2, 1), **_):
        super().__init__()
        self.window, self.regions = window_size, tuple(shuffle_size)
        self.patch_embed = PatchEmbed(embed_dim)
        self.msg_tokens = nn.Parameter(torch.zeros(1, shuffle_size[0] ** 2, 1, embed_dim))
        self.layers = nn.ModuleList(
            Stage(embed_dim * 2**i, depth, heads, window_size, i + 1 == len(depths))
            for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
        )
        for i in range(len(depths)):
            self.add_module(f"norm{i}", nn.LayerNorm(embed_dim * 2**i))

    def forward(self, image: Tensor) -> list[Tensor]:
        layouts = stage_maps(*image.shape[2:], 4, self.window, self.regions)
        patches, s = self.patch_embed(image)[0], self.regions[0]
        tiles = (-(-layouts[0].rows // s), -(-layouts[0].columns // s), 1)
        messages = self.msg_tokens.view(s, s, -1).repeat(tiles)[: layouts[0].rows, : layouts[0].columns]
        maps = []
        for i, (stage, layout) in enumerate(zip(self.layers, layouts, strict=True)):
            x = stage.windows(patches, messages, layout)
            valid = stage.windows(*(x.new_ones(*n, 1) for n in (layout[:2], layout[2:4])), layout)
            for block in stage.blocks:
                x = block(x, valid, layout)
            found = stage.map(x, layout)
            norm = getattr(self, f"norm{i}")
            maps.append(norm(found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                patches, messages = stage.downsample(found)[0], stage.downsample(stage.grid(x, layout))[0]
        return maps


class ConvModule(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, norm: bool = False, relu: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x if self.bn is None else self.bn(x)
        return functional.relu(x, inplace=True) if self.relu else x


class FPN(nn.Module):
    def __init__(self, inputs: list[int], outputs: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(c, outputs, 1) for c in inputs)
        self.fpn_convs = nn.ModuleList(ConvModule(outputs, outputs, 3) for _ in inputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        merged = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] += functional.interpolate(merged[i], size=merged[i - 1].shape[2:], mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=True)]
        return [*outputs, functional.max_pool2d(outputs[-1], 1, 2)]


class RPNHead(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls, self.rpn_reg = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 12, 1)

    def forward(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        hidden = [functional.relu(self.rpn_conv(x), inplace=True) for x in maps]
        return [(self.rpn_cls(x), self.rpn_reg(x)) for x in hidden]


class BBoxHead(nn.Module):
    def __init__(self, channels: int, hidden: int, size: int, classes: int):
        super().__init__()
        self.shared_convs = nn.ModuleList(ConvModule(channels, channels, 3, True, True) for _ in range(4))
        self.shared_fcs = nn.ModuleList([nn.Linear(channels * size**2, hidden)])
        self.fc_cls, self.fc_reg = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.shared_convs:
            x = conv(x)
        x = functional.relu(self.shared_fcs[0](x.flatten(1)))
        return self.fc_cls(x), self.fc_reg(x)


class MaskHead(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.convs = nn.ModuleList(ConvModule(channels, channels, 3, relu=True) for _ in range(4))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.conv_logits = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return self.conv_logits(functional.relu(self.upsample(x), inplace=True))


class RoIHead(nn.Module):
    def __init__(self, channels: int, hidden: int, size: int, classes: int, mask_heads: int):
        super().__init__()
        self.bbox_head = nn.ModuleList(BBoxHead(channels, hidden, size, classes) for _ in range(3))
        self.mask_head = nn.ModuleList(MaskHead(channels, classes) for _ in range(mask_heads))


def decode(boxes: Tensor, deltas: Tensor, stds, shape) -> Tensor:
    """Move boxes (N, 4) by deltas (N, K, 4); clip to ``shape``."""
    deltas = deltas * deltas.new_tensor(stds)
    size, centre = (boxes[:, 2:] - boxes[:, :2])[:, None], ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    new = size * deltas[..., 2:].clamp(-MAX_RATIO, MAX_RATIO).exp()
    centre = centre + size * deltas[..., :2]
    moved = torch.cat((centre - new / 2, centre + new / 2), -1)
    limits = moved.new_tensor([shape[1], shape[0], shape[1], shape[0]])
    return torch.minimum(moved.clamp(min=0), limits)


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, count: int) -> Tensor:
    """Return the kept boxes by falling score; suppression within each group."""
    if fast is not None:
        return fast.batched_nms(boxes, scores, groups, threshold)[:count]
    kept = []
    for group in groups.unique():
        members = torch.nonzero(groups == group)[:, 0]
        members = members[scores[members].argsort(descending=True, stable=True)]
        b = boxes[members]
        size = (torch.minimum(b[:, None, 2:], b[:, 2:]) - torch.maximum(b[:, None, :2], b[:, :2])).clamp(min=0)
        overlap, area = size[..., 0] * size[..., 1], (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        above = (overlap / (area[:, None] + area - overlap) > threshold).numpy()
        alive = np.ones(len(b), bool)
        for i in range(len(b)):
            if alive[i]:
                alive[i + 1 :] &= ~above[i, i + 1 :]
        kept.append(members[torch.from_numpy(alive)])
    kept = torch.cat(kept)
    return kept[scores[kept].argsort(descending=True, stable=True)][:count]


def map_roi_levels(boxes: Tensor, count: int) -> Tensor:
    """Return the level, below ``count``, of the pyramid that each region (N, 4) is pooled from."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return torch.floor(torch.log2(area.sqrt() / 56 + 1e-6)).clamp(0, count - 1).long()


def roi_align(maps: list[Tensor], boxes: Tensor, side: int) -> Tensor:
    """RoIAlign with adaptive sampling, on maps of one image."""
    level = map_roi_levels(boxes, len(maps))
    if fast is not None:
        return fast_roi_align(maps, functional.pad(boxes, (1, 0)), level, side)
    # Regions with equally many samples are sampled together.
    start = boxes[:, :2] / 4 / 2.0 ** level[:, None] - 0.5
    bins = (boxes[:, 2:] / 4 / 2.0 ** level[:, None] - 0.5 - start) / side
    samples = bins.ceil().clamp(min=0).long()
    out = boxes.new_zeros(len(boxes), maps[0].shape[1], side, side)
    keys, inverse = torch.cat((level[:, None], samples), 1).unique(dim=0, return_inverse=True)
    for i, (index, nx, ny) in enumerate(keys.tolist()):
        if nx * ny == 0:
            continue
        chosen, x = torch.nonzero(inverse == i)[:, 0], maps[index]
        axes, inside = [], []
        for axis, n, size in ((0, nx, x.shape[3]), (1, ny, x.shape[2])):
            steps = (torch.arange(side * n) + 0.5) / n
            position = start[chosen, axis, None] + steps * bins[chosen, axis, None]
            inside.append(((position >= -1) & (position <= size)).float())
            axes.append(position.clamp(0, size - 1) * (2 / (size - 1)) - 1)
        grid = torch.stack(
            (axes[0][:, None].expand(-1, side * ny, -1), axes[1][:, :, None].expand(-1, -1, side * nx)), -1
        )
        taken = functional.grid_sample(x, grid.reshape(1, -1, side * nx, 2), padding_mode="border", align_corners=True)
        taken = taken.view(x.shape[1], len(chosen), side * ny, side * nx).transpose(0, 1)
        taken = taken * (inside[1][:, None, :, None] * inside[0][:, None, None])
        out[chosen] = functional.avg_pool2d(taken, (ny, nx))
    return out


def fast_roi_align(maps: list[Tensor], rois: Tensor, level: Tensor, side: int) -> Tensor:
    """Do it by torchvision's operator, for rois (R, 5) of image index and box, and their levels (R,)."""
    out = rois.new_zeros(len(rois), maps[0].shape[1], side, side)
    for i in level.unique().tolist():
        chosen = torch.nonzero(level == i)[:, 0]
        out = out.index_copy(0, chosen, fast.roi_align(maps[i], rois[chosen], side, 1 / 4 / 2**i, -1, True))
    return out


class TorchDetector(nn.Module):
    """The detector for one image, by parts: ``backbone``, ``neck``, ``rpn``, ``boxes``, ``post``, ``masks``."""

    def __init__(self, arguments: dict, settings):
        super().__init__()
        s, self.settings = settings, settings
        self.backbone = Backbone(**arguments)
        dims = [arguments["embed_dim"] * 2**i for i in range(len(arguments["depths"]))]
        self.neck, self.rpn_head = FPN(dims, s.fpn_channels), RPNHead(s.fpn_channels)
        self.roi_head = RoIHead(s.fpn_channels, s.fc_channels, s.box_size, s.num_classes, 3 if s.masks else 0)

    def rpn(self, maps: list[Tensor], shape) -> Tensor:
        """Return the proposals (P, 4)."""
        s, boxes, scores, levels = self.settings, [], [], []
        for i, (logits, deltas) in enumerate(self.rpn_head(maps)):
            score, order = logits[0].permute(1, 2, 0).reshape(-1).sigmoid().sort(descending=True)
            score, order = score[: s.test_candidates], order[: s.test_candidates]
            anchors = torch.from_numpy(grid_anchors([tuple(logits.shape[2:])], [s.strides[i]])[0])[order]
            delta = deltas[0].permute(1, 2, 0).reshape(-1, 1, 4)[order]
            boxes.append(decode(anchors, delta, (1.0,) * 4, shape)[:, 0])
            scores.append(score)
            levels.append(torch.full_like(order, i))
        boxes = torch.cat(boxes)
        kept = nms(boxes, torch.cat(scores), torch.cat(levels), s.proposal_iou, s.test_proposals)
        return boxes[kept]

    def boxes(self, maps: list[Tensor], proposals: Tensor, shape) -> tuple[Tensor, Tensor]:
        """Return each proposal's boxes (P, K, 4) and probabilities (P, K + 1)."""
        logits, regions = 0, proposals
        for stage, head in enumerate(self.roi_head.bbox_head):
            logit, deltas = head(roi_align(maps[:-1], regions, self.settings.box_size))
            logits, deltas = logits + logit, deltas.view(len(deltas), -1, 4)
            if stage + 1 < len(self.roi_head.bbox_head):
                best = logit[:, :-1].argmax(1)
                own = deltas[torch.arange(len(best)), best][:, None]
                regions = decode(regions, own, STAGE_STDS[stage], shape)[:, 0]
        return decode(regions, deltas, STAGE_STDS[-1], shape), (logits / 3).softmax(1)

    def post(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels of the detections."""
        s = self.settings
        flat = scores[:, :-1].reshape(-1)
        above = torch.nonzero(flat > s.score_threshold)[:, 0]
        boxes, flat, labels = boxes.reshape(-1, 4)[above], flat[above], above % s.num_classes
        kept = nms(boxes, flat, labels, s.detection_iou, s.max_detections)
        return boxes[kept], flat[kept], labels[kept]

    def masks(self, maps: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return mask probabilities (N, 2*S, 2*S)."""
        features, rows = roi_align(maps[:-1], boxes, self.settings.mask_size), torch.arange(len(labels))
        return sum(head(features)[rows, labels].sigmoid() for head in self.roi_head.mask_head) / 3

    def forward(self, image: Tensor, shape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes, scores, labels and mask probabilities of one image whose scale factor is 1."""
        maps = self.neck(self.backbone(image))
        boxes, scores, labels = self.post(*self.boxes(maps, self.rpn(maps, shape), shape))
        return boxes, scores, labels, self.masks(maps, boxes, labels)

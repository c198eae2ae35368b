"""Training of the detector of ``torch_detector`` in PyTorch, with mmdetection's losses, on given batches.

    cd tests && python -m support.detection_learning inputs.npz
    python benchmarks/torch_detector_training.py inputs.npz tests/fixtures/detection/learning_curve.npz

It writes the losses of every step. ``test_learning_curve.py`` compares this package's with them. The
draws of the batches decide which regions are sampled, so both sides train on the same samples. With ``--double`` at
the end it trains in double precision, for ``tests/support/detection_double.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch_detector import MAX_RATIO, TorchDetector, map_roi_levels

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support import detection_learning as learning

from msg_ms.boxes.anchors import grid_anchors
from msg_ms.models.detection.settings import STAGE_STDS, DetectorSettings

LOSSES = ("loss_rpn_cls", "loss_rpn_bbox", *(f"s{i}.loss_{kind}" for i in range(3) for kind in ("cls", "bbox", "mask")))


def move(boxes: Tensor, deltas: Tensor, stds, shape=None) -> Tensor:
    """Return boxes (N, 4) moved by deltas (N, 4), clipped to a shape (height, width) if there is one."""
    dx, dy, dw, dh = (deltas * deltas.new_tensor(stds)).unbind(1)
    x1, y1, x2, y2 = boxes.unbind(1)
    w, h = x2 - x1, y2 - y1
    x, y = (x1 + x2) * 0.5 + w * dx, (y1 + y2) * 0.5 + h * dy
    w, h = w * dw.clamp(-MAX_RATIO, MAX_RATIO).exp(), h * dh.clamp(-MAX_RATIO, MAX_RATIO).exp()
    corners = [x - w * 0.5, y - h * 0.5, x + w * 0.5, y + h * 0.5]
    if shape is not None:
        corners = [c.clamp(0, float(shape[1 - i % 2])) for i, c in enumerate(corners)]
    return torch.stack(corners, 1)


def area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    size = torch.min(first[:, None, 2:], second[:, 2:]) - torch.max(first[:, None, :2], second[:, :2])
    overlap = size.clamp(min=0).prod(-1)
    return overlap / (area(first)[:, None] + area(second) - overlap).clamp(min=1e-6)


def giou_loss(boxes: Tensor, gt: Tensor) -> Tensor:
    """Return 1 - GIoU of pairs (N, 4)."""
    overlap = (torch.min(boxes[:, 2:], gt[:, 2:]) - torch.max(boxes[:, :2], gt[:, :2])).clamp(min=0).prod(1)
    union = (area(boxes) + area(gt) - overlap).clamp(min=1e-6)
    around = (torch.max(boxes[:, 2:], gt[:, 2:]) - torch.min(boxes[:, :2], gt[:, :2])).clamp(min=0).prod(1)
    around = around.clamp(min=1e-6)
    return 1 - (overlap / union - (around - union) / around)


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """Greedy suppression; return the kept boxes by falling score."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    size = (torch.min(boxes[:, None, 2:], boxes[:, 2:]) - torch.max(boxes[:, None, :2], boxes[:, :2])).clamp(min=0)
    overlap = size.prod(-1)
    above = (overlap / (area(boxes)[:, None] + area(boxes) - overlap) > threshold).numpy()
    kept, alive = [], np.ones(len(order), bool)
    for i, place in enumerate(order.tolist()):
        if alive[i]:
            kept.append(place)
            alive &= ~above[i]
    return kept


def axis_weights(low: Tensor, high: Tensor, bins: int, size: int) -> Tensor:
    """Return RoIAlign's weights (R, bins, size) along one axis, with regions (R,) in cells."""
    start, step = low - 0.5, (high - low) / bins
    counts = step.ceil().clamp(min=0)
    most = max(int(counts.max()), 1)
    sample = torch.arange(most)
    share = (sample < counts[:, None]) / counts.clamp(min=1)[:, None]  # (R, most)
    inside = (sample + 0.5) / counts.clamp(min=1)[:, None]
    place = start[:, None, None] + step[:, None, None] * (torch.arange(bins)[:, None] + inside[:, None])
    share = share[:, None] * ((place >= -1) & (place <= size))
    place = place.clamp(0, size - 1)
    return (torch.relu(1 - (place[..., None] - torch.arange(size)).abs()) * share[..., None]).sum(2)


def pool(maps: Tensor, boxes: Tensor, side: int, scale: float = 1.0) -> Tensor:
    """RoIAlign, aligned and with adaptive sampling: one map (C, H, W), or one for each region (R, C, H, W)."""
    boxes = boxes * scale
    rows = axis_weights(boxes[:, 1], boxes[:, 3], side, maps.shape[-2])
    columns = axis_weights(boxes[:, 0], boxes[:, 2], side, maps.shape[-1])
    return torch.einsum("rsh,rchw,rtw->rcst", rows, maps.expand(len(boxes), *maps.shape[-3:]), columns)


def pool_pyramid(levels: list[Tensor], rois: list[Tensor], side: int, strides) -> Tensor:
    """Return the features (R, C, S, S) of the regions of all images, one image after another."""
    parts = []
    for i, boxes in enumerate(rois):
        level = map_roi_levels(boxes, 4)
        features = boxes.new_zeros(len(boxes), levels[0].shape[1], side, side)
        for k in level.unique().tolist():
            chosen = torch.nonzero(level == k)[:, 0]
            pooled = pool(levels[k][i], boxes[chosen], side, 1 / strides[k])
            features = features.index_copy(0, chosen, pooled)
        parts.append(features)
    return torch.cat(parts)


class Trainer:
    """The detector's losses as mmdetection computes them, from the arrays of a batch."""

    pool, pool_pyramid, suppress = staticmethod(pool), staticmethod(pool_pyramid), staticmethod(suppress)

    def __init__(self, model: TorchDetector):
        self.model, self.settings = model, model.settings

    def losses(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Return the weighted losses in the order of ``LOSSES``, without those of masks if the model has none."""
        b = batch
        maps = [torch.cat(level) for level in zip(*(self.model.backbone(x[None]) for x in b["images"]), strict=True)]
        pyramid = self.model.neck(maps)
        outputs = self.model.rpn_head(pyramid)
        found = list(self.rpn_losses(outputs, b))
        truth = [
            (b["gt"][i][valid], b["gt_labels"][i][valid].long(), torch.nonzero(valid)[:, 0])
            for i, valid in enumerate(b["gt_valid"])
        ]
        canvas = b["images"].shape[2:]
        bitmaps = []
        if self.settings.masks:
            crops = zip(b["gt_masks"], b["gt_frames"], truth, strict=True)
            bitmaps = [self.bitmaps(masks[t[2]], frames[t[2]], canvas) for masks, frames, t in crops]
        # Candidates are (boxes, their places among the draws).
        first = b["gt"].shape[1]
        candidates = []
        for i, shape in enumerate(b["img_shapes"]):
            boxes = self.propose([(logits[i], deltas[i]) for logits, deltas in outputs], shape)
            candidates.append((boxes, first + torch.arange(len(boxes))))
        for stage in range(3):
            samples = [self.sample(stage, *c, t, b[f"draws{stage}"][i]) for i, (c, t) in
                       enumerate(zip(candidates, truth, strict=True))]  # fmt: skip
            stage_losses, candidates = self.stage(stage, pyramid, samples, truth, bitmaps, b["img_shapes"], first)
            found += stage_losses
        return found

    def rpn_losses(self, outputs, b) -> tuple[Tensor, Tensor]:
        count = len(b["images"])
        logits = torch.cat([x.permute(0, 2, 3, 1).reshape(count, -1) for x, _ in outputs], 1)
        deltas = torch.cat([x.permute(0, 2, 3, 1).reshape(count, -1, 4) for _, x in outputs], 1)
        total, loss_class, loss_box = 0, 0, 0
        for i in range(count):
            used = b["rpn_weights"][i] > 0
            index, label = b["rpn_indices"][i][used].long(), b["rpn_labels"][i][used]
            positive = label > 0
            total += max(int(positive.sum()), 1) + max(int((~positive).sum()), 1)
            loss_class = loss_class + functional.binary_cross_entropy_with_logits(
                logits[i][index], label, reduction="sum"
            )
            loss_box = loss_box + functional.smooth_l1_loss(
                deltas[i][index[positive]], b["rpn_deltas"][i][used][positive], beta=1 / 9, reduction="sum"
            )
        return loss_class / total, loss_box / total

    @torch.no_grad()
    def propose(self, outputs, shape) -> Tensor:
        """Return the proposals (P, 4) of one image by falling score."""
        s, boxes, scores, levels = self.settings, [], [], []
        for k, (logits, deltas) in enumerate(outputs):
            score = logits.permute(1, 2, 0).reshape(-1).sigmoid()
            order = score.argsort(descending=True, stable=True)[: s.train_candidates]
            anchors = torch.from_numpy(grid_anchors([tuple(logits.shape[1:])], [s.strides[k]])[0])[order]
            boxes.append(move(anchors, deltas.permute(1, 2, 0).reshape(-1, 4)[order], (1.0,) * 4, shape))
            scores.append(score[order])
            levels.append(torch.full_like(order, k))
        boxes, scores, levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        # Levels are moved apart, as mmcv does.
        apart = boxes + (levels * (boxes.max() + 1))[:, None]
        return boxes[self.suppress(apart, scores, s.proposal_iou)[: s.train_proposals]]

    @torch.no_grad()
    def sample(self, stage: int, boxes: Tensor, places: Tensor, truth, draws: Tensor):
        """Return boxes, index of the gt box (-1 for negatives) and which are gt boxes; the positives come first."""
        s, (gt, _, slots) = self.settings, truth
        assigned = torch.full((len(boxes),), -1)
        if len(gt) and len(boxes):
            best, index = pairwise_iou(boxes, gt).max(1)
            assigned = torch.where(best >= s.stage_ious[stage], index, assigned)
        assigned = torch.cat((torch.arange(len(gt)), assigned))
        boxes, places = torch.cat((gt, boxes)), torch.cat((slots, places))
        positive, negative = torch.nonzero(assigned >= 0)[:, 0], torch.nonzero(assigned < 0)[:, 0]
        positive = self.smallest(positive, draws[places], s.roi_positives)
        negative = self.smallest(negative, draws[places], s.roi_samples - len(positive))
        chosen = torch.cat((positive, negative))
        return boxes[chosen], assigned[chosen], chosen < len(gt)

    @staticmethod
    def smallest(members: Tensor, draws: Tensor, count: int) -> Tensor:
        return members[draws[members].argsort(stable=True)[:count]].sort().values

    def stage(self, stage: int, pyramid, samples, truth, bitmaps, shapes, first: int):
        """Return a stage's losses and the candidates of the next one."""
        s, head = self.settings, self.model.roi_head
        rois, weight = [boxes for boxes, _, _ in samples], s.stage_weights[stage]
        logits, deltas = head.bbox_head[stage](self.pool_pyramid(pyramid, rois, s.box_size, s.strides))
        own = [index[index >= 0] for _, index, _ in samples]
        labels = []
        for (_, index, _), (_, classes, _) in zip(samples, truth, strict=True):
            padded = torch.cat((classes, torch.tensor([s.num_classes])))
            labels.append(padded[index])  # -1 is the background
        target = torch.cat(labels)
        positive = torch.nonzero(target < s.num_classes)[:, 0]
        boxes = torch.cat(rois)
        deltas = deltas.view(len(boxes), s.num_classes, 4)
        loss_class = functional.cross_entropy(logits, target)
        goal = torch.cat([t[0][index] for t, index in zip(truth, own, strict=True)])
        moved = move(boxes[positive], deltas[positive, target[positive]], STAGE_STDS[stage])
        loss_box = s.box_loss_weight * giou_loss(moved, goal).sum() / len(boxes)
        losses = [weight * loss_class, weight * loss_box]
        if s.masks:
            positives = [r[: len(o)] for r, o in zip(rois, own, strict=True)]
            losses.append(weight * self.mask_loss(stage, pyramid, positives, own, target[positive], bitmaps))
        if stage == 2:
            return losses, None
        with torch.no_grad():
            classes = torch.where(target < s.num_classes, target, logits[:, :-1].argmax(1))
            chosen = deltas[torch.arange(len(boxes)), classes]
            candidates, start = [], 0
            for (region, _, is_gt), shape in zip(samples, shapes, strict=True):
                part = slice(start, start + len(region))
                refined = move(region, chosen[part], STAGE_STDS[stage], shape)
                candidates.append((refined[~is_gt], first + torch.nonzero(~is_gt)[:, 0]))
                start += len(region)
        return losses, candidates

    def mask_loss(self, stage: int, pyramid, rois, own, classes: Tensor, bitmaps) -> Tensor:
        s = self.settings
        if not len(classes):
            return pyramid[0].sum() * 0
        features = self.pool_pyramid(pyramid, rois, s.mask_size, s.strides)
        logits = self.model.roi_head.mask_head[stage](features)[torch.arange(len(classes)), classes]
        with torch.no_grad():
            parts = [
                self.pool(masks[index][:, None], boxes, 2 * s.mask_size)[:, 0]
                for masks, index, boxes in zip(bitmaps, own, rois, strict=True) if len(index)
            ]  # fmt: skip
            targets = (torch.cat(parts) >= 0.5).float()
        return functional.binary_cross_entropy_with_logits(logits, targets)

    @staticmethod
    def bitmaps(crops: Tensor, frames: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Return full-size masks (G, H, W) from crops of pixels: the objects are small, so nothing is resampled."""
        masks = torch.zeros(len(crops), *canvas)
        for mask, crop, frame in zip(masks, crops, frames, strict=True):
            left, top, right, bottom = (int(v) for v in frame)
            assert (right - left, bottom - top) == crop.shape[::-1]
            window = mask[top:bottom, left:right]
            window[:] = (crop > 127).float()[: window.shape[0], : window.shape[1]]
        return masks


def main(inputs: str, output: str, double: bool) -> None:
    """Train and write the losses."""
    torch.manual_seed(0)
    with np.load(inputs) as file:
        data = dict(file)
    state = {name[6:]: torch.from_numpy(data[name]) for name in data if name.startswith("state/")}
    masks = any(name.startswith("roi_head.mask_head.") for name in state)
    model = TorchDetector(learning.BACKBONE, DetectorSettings(learning.CLASSES, masks, **learning.SETTINGS))
    load(model, state)
    train(model, data, learning.FIRST_STEPS, learning.FIRST_RATE)
    state = {name: values.half() for name, values in model.state_dict().items() if name in state}
    load(model, {name: values.float() for name, values in state.items()})
    if double:
        torch.set_default_dtype(torch.float64)
        model.double()
        data = {
            name: values.astype(np.float64) if values.dtype == np.float32 else values for name, values in data.items()
        }
    rows = train(model, data, learning.STEPS, learning.RATE)
    checksums = np.array([data[f"checksum/{k}"] for k in range(learning.STEPS)])
    weights = {f"state/{name}": values.numpy() for name, values in state.items()}
    np.savez_compressed(output, losses=np.array(rows), checksums=checksums, **weights)


def load(model: TorchDetector, state: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)


def decay_groups(model: TorchDetector, weight_decay: float) -> list[dict]:
    """Return the parameters with and without weight decay, by the rules of Swin Transformer."""
    still = ("norm", "absolute_pos_embed", "relative_position_bias_table")
    groups = ([], [])
    for name, parameter in model.named_parameters():
        groups[any(part in name for part in still)].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def train(model: TorchDetector, data: dict[str, np.ndarray], steps: int, rate: float) -> list[list[float]]:
    """Train with AdamW and return the losses of every step; the batches repeat."""
    model.train()
    groups = decay_groups(model, learning.WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(groups, betas=learning.BETAS, eps=learning.EPSILON)
    trainer, rows = Trainer(model), []
    columns = [name.split("/")[2] for name in data if name.startswith("batch/0/")]
    for k in range(steps):
        batch = {name: torch.from_numpy(data[f"batch/{k % learning.STEPS}/{name}"]) for name in columns}
        losses = trainer.losses(batch)
        optimizer.zero_grad()
        sum(losses).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning.rate_at(k, rate)
        optimizer.step()
        rows.append([loss.item() for loss in losses])
        if k % 20 == 19 or k == 0:
            print(k + 1, round(sum(rows[-1]), 4), [round(x, 4) for x in rows[-1]], flush=True)
    return rows


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--double" in sys.argv)

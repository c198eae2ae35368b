"""The detector in training: samples RoIs at every cascade stage and returns the losses."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from .cascade_rcnn import CascadeMaskRCNN
from .head_losses import box_losses, mask_loss, rpn_losses
from .mask_targets import MaskTargets
from .proposals import Proposals
from .roi_assigner import assign_rois
from .roi_head import best_class
from .roi_sampler import add_gt, sample_rois
from .settings import STAGES

LOSS_NAMES = (
    *("loss_rpn_cls", "loss_rpn_bbox"),
    *(f"s{stage}.loss_{kind}" for stage in range(STAGES) for kind in ("cls", "bbox", "mask")),
)
BOX_LOSS_NAMES = tuple(name for name in LOSS_NAMES if not name.endswith("_mask"))  # of a detector without masks


class DetectionLoss(nn.Cell):
    """The training losses of a detector; their sum is to be minimised.

    Everything random is an input, so that a resumed run repeats it. The first cascade stage samples from the proposals,
    and every later one from the RoIs of the one before, moved by its deltas. Ground-truth boxes are added first.

    Args:
        model: The detector. Its parameters keep their names.
    """

    def __init__(self, model: CascadeMaskRCNN):
        super().__init__(auto_prefix=False)
        s = model.settings
        self.model, self.settings = model, s
        self.proposals = Proposals(s.strides, s.train_candidates, s.train_proposals, s.proposal_iou)
        self.mask_targets = MaskTargets(2 * s.mask_size)
        self.crops = 2 if s.masks else 0  # arrays of a batch that hold masks

    def construct(
        self,
        images: Tensor,
        img_shapes: Tensor,
        gt: Tensor,
        gt_labels: Tensor,
        gt_valid: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the total loss and its parts, float32 scalars.

        The arguments are the arrays of a ``msg_ms.boxes.batches.DetectionBatch`` in the order of its fields, which
        documents them. They arrive one by one: to MindSpore 2.10 a named tuple is a constant, so as an input it is
        compiled for every batch, and one that is built here has no gradient.

        Returns:
            The total, which is the sum of the others, and the weighted losses in the order of ``LOSS_NAMES``, or of
            ``BOX_LOSS_NAMES`` without masks.
        """
        # A detector without masks has batches without masks and frames; the noise is the last array, if there is one.
        crops, others = others[: self.crops], others[self.crops :]
        rpn_targets, draws = others[:4], others[4:7]
        maps, logits, deltas = self.model.pyramid(images, others[7] if len(others) > 7 else None)
        losses: tuple[Tensor, ...] = rpn_losses(logits, deltas, *rpn_targets)
        proposals = self.proposals(logits, deltas, img_shapes)
        boxes, valid = proposals[0], proposals[2]
        for stage in range(STAGES):
            boxes, own, labels, is_gt, used = self.sample(stage, boxes, valid, gt, gt_labels, gt_valid, draws[stage])
            logit, delta = self.model.roi_head.predict_boxes(stage, maps, boxes, used)
            targets = ops.gather_elements(gt, 1, ops.broadcast_to(own.expand_dims(-1), boxes.shape))
            weight = self.settings.stage_weights[stage]
            loss_class, loss_box = box_losses(stage, logit, delta, boxes, labels, used, targets)
            loss_box = loss_box * self.settings.box_loss_weight
            losses = (*losses, weight * loss_class, weight * loss_box)
            if self.crops:
                masks = self.stage_mask_loss(stage, maps, boxes, own, labels, crops[0], crops[1])
                losses = (*losses, weight * masks)
            if stage + 1 < STAGES:
                # Positives move by the deltas of their own class.
                classes = ops.select(labels < self.settings.num_classes, labels, best_class(logit))
                boxes = self.model.roi_head.refine(stage, boxes, classes, delta, img_shapes)
                valid = ops.logical_and(used, ops.logical_not(is_gt))
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return (total, *losses)

    def sample(
        self,
        stage: int,
        boxes: Tensor,
        valid: Tensor,
        gt: Tensor,
        gt_labels: Tensor,
        gt_valid: Tensor,
        draws: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Sample a cascade stage's RoIs: R of each image, the positives first.

        Args:
            stage: The cascade stage, from 0.
            boxes: Candidates (B, P, 4).
            valid: Which of them are used, bool (B, P).
            gt: As in ``construct``.
            gt_labels: As in ``construct``.
            gt_valid: As in ``construct``.
            draws: Uniform numbers (B, G + P).

        Returns:
            RoIs (B, R, 4); the index of each one's ground-truth box, int32 (B, R), 0 for negatives; classes, int32
            (B, R), K for negatives; which are ground-truth boxes themselves, bool (B, R); which are used, bool (B, R).
        """
        s, iou = self.settings, self.settings.stage_ious[stage]
        # Indices, as MindSpore's compiler warns of unused parts of an unpacked tuple.
        assigned = assign_rois(boxes, valid, gt, gt_valid, iou, iou)[0]
        added = add_gt(boxes, valid, assigned, gt, gt_valid)
        boxes, assigned = added[0], added[2]
        index, positive, used = sample_rois(assigned, draws, s.roi_samples, s.roi_positives)
        boxes = ops.gather_elements(boxes, 1, ops.broadcast_to(index.expand_dims(-1), (*index.shape, 4)))
        own = ops.gather_elements(assigned, 1, index) - 1
        own = ops.select(positive, own, ops.zeros_like(own))
        labels = ops.gather_elements(gt_labels, 1, own)
        labels = ops.select(positive, labels, ops.zeros_like(labels) + s.num_classes)
        is_gt = ops.logical_and(index < gt.shape[1], used)
        return ops.stop_gradient(boxes), own, labels, is_gt, used

    def stage_mask_loss(
        self,
        stage: int,
        maps: tuple[Tensor, ...],
        boxes: Tensor,
        own: Tensor,
        labels: Tensor,
        gt_masks: Tensor,
        gt_frames: Tensor,
    ) -> Tensor:
        """Return a cascade stage's mask loss; only the slots that may hold positives are computed.

        Args:
            stage: The cascade stage, from 0.
            maps: The pyramid (B, C, H_i, W_i).
            boxes: RoIs (B, R, 4), the positives first.
            own: The ground-truth box of each RoI, int32 (B, R).
            labels: Classes (B, R), int32, K for negatives.
            gt_masks: The crops of the masks of a batch's ground truth.
            gt_frames: The boxes that they show.
        """
        count, classes = self.settings.roi_positives, self.settings.num_classes
        boxes, own, labels = boxes[:, :count], own[:, :count], labels[:, :count]
        positive = labels < classes
        labels = ops.select(positive, labels, ops.zeros_like(labels))
        logits = self.model.roi_head.predict_masks(stage, maps, boxes, labels)
        return mask_loss(logits, self.mask_targets(gt_masks, gt_frames, boxes, own), positive)

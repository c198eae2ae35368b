"""Cascade Mask R-CNN (Cai and Vasconcelos, TPAMI 2019) with an MSG-Transformer backbone."""

from __future__ import annotations

from mindspore import Tensor, nn

from ..compile_phase import FastCompilePhase
from .backbone import DetectionBackbone, stage_layouts
from .bbox_head import BBoxHead
from .fpn import FPN
from .mask_head import MaskHead
from .rpn_head import RPNHead
from .settings import STAGES, DetectorSettings


class RoIHead(nn.Cell):
    """The box and mask heads of the three cascade stages, under mmdetection's names.

    Args:
        settings: The detector's sizes.
    """

    def __init__(self, settings: DetectorSettings):
        super().__init__()
        s, channels = settings, settings.fpn_channels
        self.bbox_head = nn.CellList(
            [BBoxHead(channels, channels, s.fc_channels, s.box_size, s.num_classes) for _ in range(STAGES)]
        )
        self.mask_head = nn.CellList([MaskHead(channels, channels, s.num_classes) for _ in range(STAGES)])


class CascadeMaskRCNN(FastCompilePhase):
    """Cascade Mask R-CNN: backbone, feature pyramid, region proposals, three stages of box and mask heads.

    Parameters have mmdetection's names, with MindSpore's names for the parameters of normalisations.

    Args:
        backbone: The backbone.
        settings: The other sizes, and the thresholds.
    """

    def __init__(self, backbone: DetectionBackbone, settings: DetectorSettings):
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.neck = FPN(backbone.out_channels, settings.fpn_channels)
        self.rpn_head = RPNHead(settings.fpn_channels, settings.fpn_channels)
        self.roi_head = RoIHead(settings)

    def construct(
        self, images: Tensor, drop_path_noise: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the pyramid and the predictions of the region proposal network.

        Args:
            images: Normalised images (B, 3, height, width), padded to one size with zeros.
            drop_path_noise: Uniform numbers in [0, 1), float32 (blocks, 2, B), for stochastic depth in training. If
                None, the device draws them.

        Returns:
            Three tuples with an entry for every level: maps (B, C, H_i, W_i), objectness logits (B, A, H_i, W_i), and
            box deltas (B, 4*A, H_i, W_i).
        """
        pyramid = self.neck(self.backbone(images, drop_path_noise))
        logits, deltas = self.rpn_head(pyramid)
        return pyramid, logits, deltas

    def recompute_blocks(self) -> None:
        """Save memory in training: keep only the inputs of the backbone's blocks, and recompute the rest."""
        self.backbone.recompute_blocks()

    def flops(self, height: int, width: int, regions: int = 1000, masks: int = 100) -> float:
        """Return the multiply-adds for one image, counted as in the paper's table.

        Convolutions, linear layers and attention count, and so do LayerNorm, batch normalisation and the ReLU after
        the convolutions of the box and mask heads.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            regions: Regions that every box head processes.
            masks: Regions that every mask head processes.
        """
        b = self.backbone
        layouts = stage_layouts(height, width, b.patch_size, b.window_size, b.shuffle_size)
        sizes = [(layout.height, layout.width) for layout in layouts]
        total = b.flops(height, width) + self.neck.flops(sizes)
        total += self.rpn_head.flops([*sizes, tuple(-(-side // 2) for side in sizes[-1])])
        total += sum(head.flops(regions) for head in self.roi_head.bbox_head)
        return total + sum(head.flops(masks, self.settings.mask_size) for head in self.roi_head.mask_head)

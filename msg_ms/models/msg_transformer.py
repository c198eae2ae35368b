"""MSG-Transformer as an image classifier (Fang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn

from .architecture import Architecture, check_at_least
from .backbone import MSGBackbone
from .layers import LayerNorm, Linear


class MSGTransformer(MSGBackbone):
    """MSG-Transformer image classifier: images (B, in_chans, height, width) -> logits (B, num_classes).

    The arguments, their defaults, the parameters' names and shapes and ``flops`` are those of the paper's code.
    LayerNorm's parameters have MindSpore's names, gamma and beta.

    Args:
        img_size: Side of the square input in pixels, or (height, width). ``ape`` and ``flops`` use it. Without ``ape``
            the model also accepts any other size that windows and regions fit.
        patch_size: Side of a patch token in pixels, 3 or more.
        in_chans: Channels of the image.
        num_classes: Number of classes. With 0 the model has no head and returns features (B, num_features).
        embed_dim: Channels of the first stage; they double at every later stage.
        depths: Blocks of every stage.
        num_heads: Attention heads of every stage.
        window_size: Side of a window in tokens.
        mlp_ratio: Hidden channels of the MLPs, in multiples of the stage's channels.
        qkv_bias: Add a bias to queries, keys and values.
        qk_scale: Scale of the queries; None means 1 / sqrt(channels per head).
        drop_rate: Dropout after the embedding, the projections and in the MLPs.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 in the first.
        ape: Add a learned absolute position embedding (1, tokens, embed_dim) to the patch tokens.
        patch_norm: Normalise the patch embedding.
        shuffle_size: Side of every stage's shuffle regions in windows.
        manip_type: "shuf" shuffles the MSG tokens; "none" leaves them in their windows.

    Raises:
        UserError: If an argument is out of range or does not fit the others. It is a ValueError; the message names the
            argument, its value and values that fit.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        shuffle_size: Sequence[int] = (4, 4, 2, 1),
        manip_type: str = "shuf",
    ):
        architecture = Architecture(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            ape=ape,
            patch_norm=patch_norm,
            shuffle_size=shuffle_size,
            manip_type=manip_type,
        )
        check_at_least("num_classes", num_classes, 0)
        super().__init__(architecture)
        self.num_classes = num_classes
        self.norm = LayerNorm(self.num_features)
        head = Linear(self.num_features, num_classes, output_float32=True) if num_classes > 0 else nn.Identity()
        self.head = head

    def forward_features(self, x: Tensor, drop_path_noise: Tensor | None = None) -> Tensor:
        """Return the features of the last stage's MSG token.

        If the input leaves several windows in the last stage, the features are the mean over their MSG tokens. The
        paper's code fails on such inputs.

        Args:
            x: Images (B, in_chans, height, width).
            drop_path_noise: See ``walk_stages``.

        Returns:
            Features (B, num_features).

        Raises:
            UserError: If the image does not fit the model.
        """
        height, width = x.shape[2:]
        window_pixels = self.patch_size * self.window_size * 2 ** (len(self.depths) - 1)
        windows = (height // window_pixels) * (width // window_pixels)
        x = self.norm(self.forward_stages(x, drop_path_noise, True)[-1][:, :, 0])
        # This depends on height and width only, so a graph for any number of images has no branch here.
        if windows == 1:
            return x.reshape(-1, self.num_features)
        return x.reshape(-1, windows, self.num_features).mean(1)

    def construct(self, x: Tensor, drop_path_noise: Tensor | None = None) -> Tensor:
        """Return the logits (B, num_classes); arguments and errors as in ``forward_features``."""
        return self.head(self.forward_features(x, drop_path_noise))

    def flops(self) -> float:
        """Return the multiply-adds for one image of ``img_size``, counted as in the paper's code."""
        height, width, _ = self.geometry[0]
        norm = self.num_features * (height * width // 4 ** (len(self.dims) - 1) + 1)
        return super().flops() + norm + self.num_features * self.num_classes

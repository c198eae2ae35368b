"""Operators of the model, one public operator per file."""

from .patch_conv import patch_conv
from .window_attention import window_attention

__all__ = ["patch_conv", "window_attention"]

"""Cascade Mask R-CNN on the MSG-Transformer backbone."""

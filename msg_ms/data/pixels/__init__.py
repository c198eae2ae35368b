"""Pixels: decoding, transforms, augmentation and batches."""

"""Boxes, anchors and masks in NumPy, for data workers, models and evaluators."""

"""COCO annotations: read, checked, and kept as arrays."""

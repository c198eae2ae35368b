"""Detection: Cascade R-CNN, with and without masks, on the MSG-Transformer backbone, as mmdetection 2.11.0 computes it.

Shape letters: B images, A anchors, P proposals, R sampled RoIs, G ground-truth boxes (padded, with a validity mask),
K classes. Boxes are float32 (x1, y1, x2, y2) in pixels of the resized image.
"""

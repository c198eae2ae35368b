"""The layers of the package, which tests/test_layout.py enforces and docs/assets/make_layers.py draws."""

# From low to high. A package may import those in the lines above its own, and only those.
LAYERS = (
    {"errors", "version"},
    {"files"},
    {"config", "native", "framework"},
    {"ops", "boxes", "checkpoint"},
    {"models", "data"},
    {"convert", "deploy", "visualize", "cli", "report"},
    {"engine"},
    {"tasks"},
    {"launch", "commands"},
    {"api"},
    {"serve"},
)
# The rooms of a package, from low to high. Its other modules are above them.
ROOMS = {"data": ("pixels", "images", "coco", "annotations")}
# Folders of the kernels' C++ code, from low to high.
KERNELS = ({"base"}, {"gemm"}, {"attention", "conv", "detection"})

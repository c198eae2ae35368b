"""Read PyTorch checkpoints without PyTorch; nothing in a file is imported or called."""

"""Read PyTorch checkpoints without PyTorch and without running their pickles."""

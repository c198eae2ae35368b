"""The engine: set-up, training loop, evaluation loop and checkpoints of any task."""

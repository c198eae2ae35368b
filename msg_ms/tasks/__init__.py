"""The tasks that the engine can train: one module per task."""

"""Training and evaluation: device, schedule, optimizer, loss, step, evaluation, checkpoints, log."""

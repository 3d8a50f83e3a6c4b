"""State, step, devices and checkpoints of a training run."""

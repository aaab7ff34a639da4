"""Training runs: plan, loop, checkpoints, history, pictures."""

"""Training runs: plan, loop, checkpoints, history and plots."""
